"""InfNeRF (SIGGRAPH Asia 2024): an octree whose every node owns a small hash-grid NeRF over its cube.

Torch reference, vectorised over samples and nodes, differentiable, float64-capable. The kernels in `cuda/` are held to
it by tests.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint import Checkpoint, load_checkpoint
from .config import InfNeRFConfig
from .empty_space import EmptySpace
from .hash_grid import encode
from .marching import MarchSettings, PackedSamples, march
from .mlp import NodeTiles, dense, spherical_harmonics
from .octree import Octree

MAX_LOG_DENSITY = 11.0  # of sigma * gsd; `cuda/scene.cuh` has the same


class InfNeRF(nn.Module):
    """A model: `octree`, `config`, `scene` (units, box, cameras, colour space) and the parameters.

    >>> from .octree import build_octree
    >>> import numpy as np
    >>> octree = build_octree(np.random.rand(99, 3), np.full(99, 1e-2), np.zeros(3), 1.0, 16, max_depth=1)
    >>> model = InfNeRF.random(InfNeRFConfig(resolution=16, table_size=64), octree, seed=0)
    >>> model.tables.shape[0] == octree.n_nodes
    True
    """

    def __init__(
        self,
        config: InfNeRFConfig,
        octree: Octree,
        tables: Tensor,  # [n_nodes, L, T, F]
        mlp: Tensor,  # [n_nodes, P]
        occupancy: Tensor,  # [n_nodes, W] int32
        scene: dict[str, Any],
    ) -> None:
        super().__init__()
        n = octree.n_nodes
        shape = (n, config.n_grid_levels, config.table_size, config.features_per_level)
        for name, tensor, expected in (
            ("tables", tables, shape),
            ("mlp", mlp, (n, config.mlp_size)),
            ("occupancy", occupancy, (n, config.occupancy_words)),
        ):
            if tuple(tensor.shape) != expected:
                raise ValueError(f"InfNeRF: {name} must be {list(expected)}, got {list(tensor.shape)}")
        self.config, self.octree, self.scene = config, octree, scene
        self.tables = nn.Parameter(tables, requires_grad=tables.dtype == torch.float32)
        self.mlp = nn.Parameter(mlp, requires_grad=mlp.dtype == torch.float32)
        self.occupancy: Tensor
        self.register_buffer("occupancy", occupancy)

    @classmethod
    def random(
        cls, config: InfNeRFConfig, octree: Octree, seed: int, scene: dict[str, Any] | None = None, spread: float = 1e-4
    ) -> InfNeRF:
        """Initial weights: tables uniform in +-`spread` (Mueller et al. 2022), MLPs as He et al.

        2015, everything occupied.

        Tests take a large `spread` for fields with structure.
        """
        generator = torch.Generator().manual_seed(seed)
        shape = (octree.n_nodes, config.n_grid_levels, config.table_size, config.features_per_level)
        tables = (torch.rand(shape, generator=generator) * 2 - 1) * spread
        layers = []
        for n_in, n_out in config.layer_shapes.values():  # every node starts from the same MLPs
            bound = (6 / n_in) ** 0.5
            layers += [(torch.rand(n_in * n_out, generator=generator) * 2 - 1) * bound * 0.7, torch.zeros(n_out)]
        mlp = torch.cat(layers).expand(octree.n_nodes, -1).clone()
        occupancy = torch.full((octree.n_nodes, config.occupancy_words), -1, dtype=torch.int32)
        corner = octree.corner[0].tolist()
        default: dict[str, Any] = {
            "up": [0.0, 0.0, 1.0],
            "unit": "unit",
            "aabb": [corner, [c + octree.root_size for c in corner]],
            "cameras": [],
            "color_space": "linear",
            "background": [1.0, 1.0, 1.0],
        }
        return cls(config, octree, tables, mlp, occupancy, default | (scene or {}))

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> InfNeRF:
        """The model of a checkpoint; its tensors stay as they are in the file (half precision, memory-mapped)."""
        field = checkpoint.field
        return cls(
            checkpoint.config, checkpoint.octree, field["tables"], field["mlp"], field["occupancy"], checkpoint.scene
        )

    @classmethod
    def load(cls, path: str) -> InfNeRF:
        return cls.from_checkpoint(load_checkpoint(path))

    @property
    def n_parameters(self) -> int:
        return self.tables.numel() + self.mlp.numel()

    @property
    def node_bytes(self) -> int:
        """Bytes of one node's row in a checkpoint: half-precision tables and MLPs, occupancy bits."""
        return self.config.node_bytes

    def gsd(self, level: Tensor | int) -> Tensor:
        """Ground sampling distance at a level: `size(level) / R`, world units, float64."""
        return self.octree.size(torch.as_tensor(level)) / self.config.resolution

    def local_aabb(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """What may be occupied [2, 3], root-local in [0, 1]."""
        box = torch.tensor(self.scene["aabb"], dtype=torch.float64)
        return ((box - self.octree.corner[0].double()) / self.octree.root_size).clamp(0, 1).to(dtype)

    def to_local(self, points: Tensor) -> Tensor:
        """World points [n, 3] -> root-local, in double and back, so that large world coordinates keep their digits."""
        return ((points.double() - self.octree.corner[0].double()) / self.octree.root_size).to(points.dtype)

    def layer_weights(self, node: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """The four layers' weights of each tile's node: [n_tiles, n_in * n_out + n_out]."""
        sizes = [i * o + o for i, o in self.config.layer_shapes.values()]
        return list(self.mlp[node].to(dtype).split(sizes, dim=1))

    def _density_mlp(self, tiles: NodeTiles, node: Tensor, local: Tensor) -> tuple[Tensor, list[Tensor]]:
        layers = self.layer_weights(tiles.node, local.dtype)
        features = encode(self.tables, node, local, self.config.grid_resolutions)
        hidden = dense(tiles.pad(features), layers[0], self.config.hidden_dim).relu()
        return tiles.unpad(dense(hidden, layers[1], self.config.geo_dim + 1)), layers

    def field(
        self,
        node: Tensor,  # [n] int64
        local: Tensor,  # [n, 3] in [0, 1]
        directions: Tensor,  # [n, 3] unit
    ) -> tuple[Tensor, Tensor]:
        """The radiance field: `sigmas` [n] per world unit and `rgb` [n, 3] in [0, 1].

        Computes in the type of `local`.
        """
        if len(node) == 0:
            return local.new_zeros(0), local.new_zeros(0, 3)
        config = self.config
        tiles = NodeTiles.of(node, self.octree.n_nodes)
        raw, layers = self._density_mlp(tiles, node, local)
        harmonics = spherical_harmonics(directions, config.sh_degree)
        hidden = dense(tiles.pad(torch.cat([raw[:, 1:], harmonics], -1)), layers[2], config.hidden_dim).relu()
        rgb = tiles.unpad(dense(hidden, layers[3], 3)).sigmoid()
        gsd = self.gsd(self.octree.level.to(node.device)[node]).to(local)
        return torch.exp((raw[:, 0] + config.density_shift).clamp(max=MAX_LOG_DENSITY)) / gsd, rgb

    def empty_space(self) -> EmptySpace:
        """Of the occupancy as it is now."""
        return EmptySpace(self.octree, self.occupancy, self.config.occupancy_resolution)

    def march(
        self, origins: Tensor, directions: Tensor, cones: Tensor, counters: Tensor, settings: MarchSettings,
        space: EmptySpace | None = None,
    ) -> PackedSamples:  # fmt: skip
        """Samples of rays with root-local `origins` (see `to_local`); sooner with the `empty_space()` of now."""
        config = self.config
        return march(
            self.octree, self.occupancy, config.occupancy_resolution, config.resolution,
            self.local_aabb(origins.dtype), origins, directions, cones, counters, settings, space,
        )  # fmt: skip
