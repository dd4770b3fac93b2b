"""InfNeRF (SIGGRAPH Asia 2024): an octree whose every node owns a small hash-grid NeRF over its cube.

Torch reference, vectorised over samples and nodes, differentiable, float64-capable. The kernels in `cuda/` are held to
it by tests.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .capacity import padded, row_numbers, unit_places
from .checkpoint import Checkpoint, load_checkpoint
from .config import InfNeRFConfig
from .contraction import cube_to_grid
from .empty_space import EmptySpace
from .hash_grid import encode
from .marching import MarchSettings, PackedSamples, march
from .mlp import NodeTiles, dense, spherical_harmonics
from .octree import Octree, build_octree, lone_root
from .spacing import point_spacing

MAX_LOG_DENSITY = 11.0  # of sigma * gsd; `cuda/scene.cuh` has the same
OUTLIERS = (0.5, 99.5)  # percentiles: a root cube is around the points between them, ...
MARGIN = 0.05  # ... and so much of their extent wider on each side


def initial_parameters(config: InfNeRFConfig, octree: Octree, seed: int, spread: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Tables uniform in +-`spread` (Mueller et al. 2022), MLPs as He et al. 2015, the same in every node of a width.

    What a level leaves unused of its rows is zero.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (octree.n_nodes, config.n_grid_levels, config.table_size, config.features_per_level)
    tables = (torch.rand(shape, generator=generator) * 2 - 1) * spread
    after_tables, mlp = generator.get_state(), torch.zeros(octree.n_nodes, config.mlp_size)
    counts = octree.level_counts()
    for level, (grids, rows) in enumerate(zip(tables.split(counts), mlp.split(counts), strict=True)):
        own = config.at_level(level)
        grids[:, :, own.table_size :] = 0
        generator.set_state(after_tables)
        rows[:, unit_places(config, level)] = initial_mlp(own, generator)
    return tables, mlp


def initial_mlp(config: InfNeRFConfig, generator: torch.Generator) -> Tensor:
    """One node's MLPs [P]: the bound of He et al. 2015 follows the real number of inputs."""
    layers = []
    for n_in, n_out in config.layer_shapes.values():
        bound = (6 / n_in) ** 0.5
        layers += [(torch.rand(n_in * n_out, generator=generator) * 2 - 1) * bound * 0.7, torch.zeros(n_out)]
    return torch.cat(layers)


def default_scene(octree: Octree) -> dict[str, Any]:
    """What a checkpoint's `scene` must hold, of a place of which nothing is known but its root cube."""
    corner = octree.corner[0].tolist()
    return {
        "up": [0.0, 0.0, 1.0],
        "unit": "unit",
        "aabb": [corner, [c + octree.root_size for c in corner]],
        "cameras": [],
        "color_space": "linear",
        "background": [1.0, 1.0, 1.0],
    }


class Points(Protocol):
    """What `build_octree` needs of a point cloud; `data.PointCloud` is one."""

    @property
    def xyz(self) -> np.ndarray: ...  # [n, 3] world
    @property
    def footprint(self) -> np.ndarray: ...  # [n] radius of the surface patch a point stands for, world units


class InfNeRF(nn.Module):
    """A model: `octree`, `config`, `scene` (units, box, cameras, colour space) and the parameters.

    Without parameters it gets initial ones; without an octree it is a lone root over the unit cube until
    `build_octree` or a `Trainer` places it.

    >>> import numpy as np
    >>> model = InfNeRF(InfNeRFConfig(resolution=16, table_size=64))
    >>> model.placed, model.octree.n_nodes
    (False, 1)
    >>> model.build_octree(np.random.rand(999, 3), 1e-2, max_depth=1).octree.level_counts()
    [1, 8]
    """

    def __init__(
        self,
        config: InfNeRFConfig,
        octree: Octree | None = None,
        tables: Tensor | None = None,  # [n_nodes, L, T, F]
        mlp: Tensor | None = None,  # [n_nodes, P]
        occupancy: Tensor | None = None,  # [n_nodes, W] int32; None: everything occupied
        scene: dict[str, Any] | None = None,  # what is given overrides the defaults
        seed: int = 0,  # of initial parameters
    ) -> None:
        super().__init__()
        self.config, self.seed, self.placed = config, seed, octree is not None
        octree = lone_root(np.zeros(3), 1.0) if octree is None else octree
        if tables is None or mlp is None:
            tables, mlp = initial_parameters(config, octree, seed)
        if occupancy is None:
            occupancy = torch.full((octree.n_nodes, config.occupancy_words), -1, dtype=torch.int32)
        self._set(octree, tables, mlp, occupancy, default_scene(octree) | (scene or {}))

    def _set(self, octree: Octree, tables: Tensor, mlp: Tensor, occupancy: Tensor, scene: dict[str, Any]) -> None:
        n, config = octree.n_nodes, self.config
        shape = (n, config.n_grid_levels, config.table_size, config.features_per_level)
        for name, tensor, expected in (
            ("tables", tables, shape),
            ("mlp", mlp, (n, config.mlp_size)),
            ("occupancy", occupancy, (n, config.occupancy_words)),
        ):
            if tuple(tensor.shape) != expected:
                raise ValueError(f"InfNeRF: {name} must be {list(expected)}, got {list(tensor.shape)}")
        self.octree, self.scene = octree, scene
        self.tables = nn.Parameter(tables, requires_grad=tables.dtype == torch.float32)
        self.mlp = nn.Parameter(mlp, requires_grad=mlp.dtype == torch.float32)
        self.occupancy: Tensor
        self.register_buffer("occupancy", occupancy)

    @classmethod
    def random(
        cls, config: InfNeRFConfig, octree: Octree, seed: int, scene: dict[str, Any] | None = None, spread: float = 1e-4
    ) -> InfNeRF:
        """Initial weights with tables uniform in +-`spread`: tests take a large one for fields with structure."""
        tables, mlp = initial_parameters(config, octree, seed, spread)
        return cls(config, octree, tables, mlp, scene=scene)

    def build_octree(
        self,
        points: Points | np.ndarray,  # [n, 3] world
        footprints: np.ndarray | float | None = None,  # [n] radius of the surface patch a point stands for, world units
        *,
        corner: np.ndarray | None = None,  # [3] minimum corner of the root; None: around the points
        root_size: float | None = None,
        min_points: int = 12,
        max_nodes: int = 1 << 20,
        max_bytes: int | None = None,  # of all nodes in a checkpoint (`node_cost`)
        max_depth: int = 16,
        scene: dict[str, Any] | None = None,
    ) -> InfNeRF:
        """Places the model: the tree that points ask for (design section 4), with initial parameters. Returns itself.

        A point cloud brings its footprints. Where there are none they are estimated from the points' own spacing
        (`point_spacing`): the tree is then as fine as the points are dense, which is coarser than the images they were
        made from. The root cube is around the points, the outermost 0.5 % left out, if it is not given.

        Raises `ValueError` where there is no point, a number that is not finite, or not one footprint a point.
        """
        if not isinstance(points, np.ndarray) and hasattr(points, "footprint"):
            points, footprints = points.xyz, points.footprint if footprints is None else footprints
        xyz = np.asarray(points, np.float64)
        if xyz.ndim != 2 or xyz.shape[1] != 3 or not len(xyz) or not np.isfinite(xyz).all():
            raise ValueError(f"build_octree: points must be [n, 3] with n >= 1 and finite, got {list(xyz.shape)}")
        if corner is None or root_size is None:
            low, high = np.percentile(xyz, OUTLIERS, axis=0)
            root_size = float((high - low).max()) * (1 + 2 * MARGIN) + 1e-6
            corner = np.asarray((low + high) / 2 - root_size / 2)
        radii = point_spacing(xyz) if footprints is None else np.asarray(footprints, np.float64)
        if radii.shape not in ((), xyz.shape[:1]) or not (np.isfinite(radii) & (radii > 0)).all():
            raise ValueError(
                f"build_octree: footprints must be [{len(xyz)}], one a point, finite and above 0, "
                f"got {list(radii.shape)}"
            )
        octree = build_octree(
            xyz, np.broadcast_to(radii, len(xyz)), corner, root_size, self.config.resolution, min_points, max_nodes,
            max_depth, max_bytes, self.config.node_cost,
        )  # fmt: skip
        return self.place(octree, scene)

    def place(self, octree: Octree, scene: dict[str, Any] | None = None) -> InfNeRF:
        """Takes up a tree, with initial parameters. Returns itself."""
        self.take(InfNeRF(self.config, octree, scene=scene, seed=self.seed))
        return self

    def take(self, other: InfNeRF) -> None:
        """Becomes `other`, a model of the same config: tree and parameters are shared, not copied."""
        self._set(other.octree, other.tables.data, other.mlp.data, other.occupancy, other.scene)
        self.placed = True

    def make_trainable(self) -> InfNeRF:
        """Gives the model float32 parameters of its own, which learn; a file's are halves, mapped. Returns itself."""
        tables, mlp = self.tables.data.float(), self.mlp.data.float()
        self._set(self.octree, tables, mlp, self.occupancy.clone(), self.scene)
        return self

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> InfNeRF:
        """The model of a checkpoint; its tensors stay as they are in the file: half precision, and memory-mapped unless
        levels differ in capacity."""
        config, octree, field = checkpoint.config, checkpoint.octree, checkpoint.field
        tables, mlp = padded(config, octree, field["tables"], field["mlp"])
        return cls(config, octree, tables, mlp, field["occupancy"], checkpoint.scene)

    @classmethod
    def load(cls, path: str) -> InfNeRF:
        return cls.from_checkpoint(load_checkpoint(path))

    @property
    def learns(self) -> bool:
        """Whether it has parameters of its own that may change from one look to the next."""
        return self.tables.requires_grad

    @property
    def n_parameters(self) -> int:
        return sum(n * size for n, size in zip(self.octree.level_counts(), self.level_parameters, strict=True))

    @property
    def level_parameters(self) -> list[int]:
        """Parameters of one node, per octree level."""
        numbers = row_numbers(self.config, self.octree.depth)
        return [tables + mlp for tables, mlp in zip(numbers["tables"], numbers["mlp"], strict=True)]

    @property
    def level_bytes(self) -> list[int]:
        """Bytes of one node in a checkpoint, per octree level."""
        return [self.config.level_bytes(level) for level in range(self.octree.depth + 1)]

    def table_sizes(self, node: Tensor) -> int | Tensor:
        """Entries of a hash table of each node [n]; one number where all have the same."""
        if not self.config.level_table_sizes:
            return self.config.table_size
        by_level = [self.config.at_level(level).table_size for level in range(self.octree.depth + 1)]
        return torch.tensor(by_level, device=node.device)[self.octree.level.to(node.device).long()[node]]

    def gsd(self, level: Tensor | int) -> Tensor:
        """Ground sampling distance at a level: `size(level) / R`, world units, float64."""
        return self.octree.size(torch.as_tensor(level)) / self.config.resolution

    def local_aabb(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """What may be occupied [2, 3], root-local in [0, 1]: all of the cube where there is a background behind it."""
        if self.config.background:
            return torch.tensor([[0.0] * 3, [1.0] * 3], dtype=dtype)
        box = torch.tensor(self.scene["aabb"], dtype=torch.float64)
        return ((box - self.octree.corner[0].double()) / self.octree.root_size).clamp(0, 1).to(dtype)

    def to_grid(self, node: Tensor, cube: Tensor) -> Tensor:
        """Positions in the cubes [n, 3] of nodes [n] -> grid positions there (models/contraction.py)."""
        return cube_to_grid(node, cube) if self.config.background else cube

    def to_local(self, points: Tensor) -> Tensor:
        """World points [n, 3] -> root-local, in double and back, so that large world coordinates keep their digits."""
        corner = self.octree.corner[0].double().to(points.device)
        return ((points.double() - corner) / self.octree.root_size).to(points.dtype)

    def layer_weights(self, node: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """The four layers' weights of each tile's node: [n_tiles, n_in * n_out + n_out]."""
        sizes = [i * o + o for i, o in self.config.layer_shapes.values()]
        return list(self.mlp[node].to(dtype).split(sizes, dim=1))

    def _density_mlp(self, tiles: NodeTiles, node: Tensor, local: Tensor) -> tuple[Tensor, list[Tensor]]:
        layers = self.layer_weights(tiles.node, local.dtype)
        features = encode(self.tables, node, local, self.config.grid_resolutions, self.table_sizes(node))
        hidden = dense(tiles.pad(features), layers[0], self.config.hidden_dim).relu()
        return tiles.unpad(dense(hidden, layers[1], self.config.geo_dim + 1)), layers

    def field(
        self,
        node: Tensor,  # [n] int64
        local: Tensor,  # [n, 3] grid positions in the node, [0, 1]
        directions: Tensor,  # [n, 3] unit
        appearance: Tensor | None = None,  # [n, appearance_dim]; None: zeros
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
        if appearance is None:
            appearance = local.new_zeros(len(local), config.appearance_dim)
        inputs = torch.cat([raw[:, 1:], harmonics, appearance], -1)
        hidden = dense(tiles.pad(inputs), layers[2], config.hidden_dim).relu()
        rgb = tiles.unpad(dense(hidden, layers[3], 3)).sigmoid()
        gsd = self.gsd(self.octree.level.to(node.device)[node]).to(local)
        return torch.exp((raw[:, 0] + config.density_shift).clamp(max=MAX_LOG_DENSITY)) / gsd, rgb

    def answer(self, samples: PackedSamples, directions: Tensor) -> tuple[Tensor, Tensor]:
        """`field` at packed samples, `directions` [n_samples, 3]."""
        return self.field(samples.node, samples.local, directions)

    def footprint(self, radius: Tensor) -> Tensor:
        """What of a sample's cone is held against a level's GSD: its radius."""
        return radius

    def empty_space(self) -> EmptySpace:
        """Of the occupancy as it is now."""
        return EmptySpace(self.octree, self.occupancy, self.config.occupancy_resolution, self.config.background)

    def march(
        self, origins: Tensor, directions: Tensor, cones: Tensor, counters: Tensor, settings: MarchSettings,
        space: EmptySpace | None = None,
    ) -> PackedSamples:  # fmt: skip
        """Samples of rays with root-local `origins` (see `to_local`); sooner with the `empty_space()` of now."""
        config = self.config
        return march(
            self.octree, self.occupancy, config.occupancy_resolution, config.resolution,
            self.local_aabb(origins.dtype).to(origins.device), origins, directions, cones, counters, settings, space,
            self.config.background,
        )  # fmt: skip
