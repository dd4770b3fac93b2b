"""PyNeRF (Turki et al., NeurIPS 2023): a pyramid of hash-grid heads, each for samples of its own scale.

Torch reference, differentiable, float64-capable. The kernels in `cuda/` are held to it by tests. A sample's level
follows from the width of its pixel there (`Pyramid.level_of`), and the two heads around it are interpolated linearly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .checkpoint import Checkpoint, load_checkpoint
from .contraction import cube_to_grid
from .empty_space import EmptySpace
from .hash_grid import corner_entries
from .infnerf import MAX_LOG_DENSITY, default_scene
from .marching import MarchSettings, PackedSamples
from .mlp import spherical_harmonics
from .octree import Octree, lone_root
from .pynerf_config import PyNeRFConfig, weights_in
from .pyramid import PIXEL_WIDTH, UNTRAINED, Pyramid
from .pyramid_march import PyramidMarch

#: Head, grid positions [n, 3] -> features [n, grids of the head * features].
Encode = Callable[[int, Tensor], Tensor]


class PyNeRF(nn.Module):
    """A model: `octree` (a `Pyramid`), `config`, `scene` and the parameters.

    `tables` [entries, F]: all hash grids behind each other, as long as they are (`grid_starts`). `mlp` [numbers]: the
    heads' density MLPs, then the colour MLPs; each layer's matrix input-major, then its bias.

    >>> model = PyNeRF(PyNeRFConfig(num_levels=3, hash_table_size=64, n_grid_levels=3, max_resolution=64))
    >>> model.octree.n_nodes, model.n_parameters == sum(model.level_parameters)
    (3, True)
    """

    def __init__(
        self,
        config: PyNeRFConfig,
        root: Octree | None = None,  # whose root the pyramid lies over; None: the unit cube until it is placed
        tables: Tensor | None = None,  # [entries, F]
        mlp: Tensor | None = None,  # [numbers]
        occupancy: Tensor | None = None,  # [1, W] int32; None: everything occupied
        trained: Tensor | None = None,  # [2, cells] uint8, of `within_trained`; None: nothing yet
        scene: dict[str, Any] | None = None,  # what is given overrides the defaults
        seed: int = 0,  # of initial parameters
    ) -> None:
        super().__init__()
        self.config, self.seed, self.placed = config, seed, root is not None
        self.grid_starts = grid_starts(config)[0]
        root = lone_root(np.zeros(3), 1.0) if root is None else root
        if tables is None or mlp is None:
            tables, mlp = initial_parameters(config, seed)
        if occupancy is None:
            occupancy = torch.full((1, config.occupancy_words), -1, dtype=torch.int32)
        if trained is None:
            trained = torch.tensor(UNTRAINED, dtype=torch.uint8)[:, None].repeat(1, config.trained_resolution**3)
        self._set(Pyramid.over(root, config), tables, mlp, occupancy, trained, default_scene(root) | (scene or {}))

    def _set(
        self, octree: Pyramid, tables: Tensor, mlp: Tensor, occupancy: Tensor, trained: Tensor, scene: dict[str, Any]
    ) -> None:
        config = self.config
        for name, tensor, expected in (
            ("tables", tables, tables_shape(config)), ("mlp", mlp, (mlp_size(config),)),
            ("occupancy", occupancy, (1, config.occupancy_words)),
            ("trained", trained, (2, config.trained_resolution**3)),
        ):  # fmt: skip
            if tuple(tensor.shape) != expected:
                raise ValueError(f"PyNeRF: {name} must be {list(expected)}, got {list(tensor.shape)}")
        self.octree: Pyramid = octree
        self.scene = scene
        self.tables = nn.Parameter(tables, requires_grad=tables.dtype.itemsize > 2)
        self.mlp = nn.Parameter(mlp, requires_grad=mlp.dtype.itemsize > 2)
        self.occupancy: Tensor
        self.trained: Tensor
        self.register_buffer("occupancy", occupancy)
        self.register_buffer("trained", trained)

    def place(self, root: Octree, scene: dict[str, Any] | None = None) -> PyNeRF:
        """Lies over the root of a tree from now on, with initial parameters. Returns itself."""
        other = PyNeRF(self.config, root, scene=scene, seed=self.seed)
        self._set(other.octree, other.tables.data, other.mlp.data, other.occupancy, other.trained, other.scene)
        self.placed = True
        return self

    def make_trainable(self) -> PyNeRF:
        """Gives the model float32 parameters of its own, which learn; a file's are halves, mapped. Returns itself."""
        tables, mlp = self.tables.data.float(), self.mlp.data.float()
        self._set(self.octree, tables, mlp, self.occupancy.clone(), self.trained.clone(), self.scene)
        return self

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> PyNeRF:
        """The model of a checkpoint; its tensors stay mapped to the file, in half precision."""
        field = checkpoint.field
        return cls(
            checkpoint.config, checkpoint.octree, field["tables"], field["mlp"], field["occupancy"], field["trained"],
            checkpoint.scene,
        )  # fmt: skip

    @classmethod
    def load(cls, path: str) -> PyNeRF:
        return cls.from_checkpoint(load_checkpoint(path))

    @property
    def learns(self) -> bool:
        """Whether it has parameters of its own that may change from one look to the next."""
        return self.tables.requires_grad

    @property
    def n_parameters(self) -> int:
        return self.tables.numel() + self.mlp.numel()

    @property
    def level_parameters(self) -> list[int]:
        """Parameters that each level adds to those before it."""
        config = self.config
        entries = np.array(config.grid_entries) * config.features_per_level
        counts = config.grid_counts
        added = [int(entries[:count].sum()) for count in counts]
        if config.share_grid:
            added = [now - before for before, now in zip([0, *added], added, strict=False)]
        mlps = [weights_in(config.density_shapes(level)) for level in range(config.num_levels)]
        color = weights_in(config.color_shapes)
        own = [color if config.interpolation == "color" or level == 0 else 0 for level in range(config.num_levels)]
        return [sum(parts) for parts in zip(added, mlps, own, strict=True)]

    @property
    def level_bytes(self) -> list[int]:
        """Bytes of what each level adds to a checkpoint; the grids that all share count for the coarsest."""
        shared = self.occupancy.nbytes + self.trained.nbytes
        return [2 * n + (shared if level == 0 else 0) for level, n in enumerate(self.level_parameters)]

    def gsd(self, level: Tensor | int) -> Tensor:
        """Edge of a level's cells, world units, float64; also between two levels."""
        return self.octree.gsd(torch.as_tensor(level))

    def local_aabb(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """What may be occupied [2, 3], root-local in [0, 1]: all of the cube where there is a background behind it."""
        if self.config.background:
            return torch.tensor([[0.0] * 3, [1.0] * 3], dtype=dtype)
        box = torch.tensor(self.scene["aabb"], dtype=torch.float64)
        return ((box - self.octree.corner[0].double()) / self.octree.root_size).clamp(0, 1).to(dtype)

    def to_grid(self, cube: Tensor) -> Tensor:
        """Positions in the root cube [n, 3] -> grid positions (models/contraction.py)."""
        root = torch.zeros(len(cube), dtype=torch.long, device=cube.device)
        return cube_to_grid(root, cube) if self.config.background else cube

    def to_local(self, points: Tensor) -> Tensor:
        """World points [n, 3] -> root-local, in double and back, so that large world coordinates keep their digits."""
        return ((points.double() - self.octree.corner[0].double()) / self.octree.root_size).to(points.dtype)

    @property
    def unit(self) -> float:
        """Density is per this length, world units: half the root's edge, as if that were the cube [-1, 1]."""
        return self.octree.root_size / 2

    def encode(self, head: int, local: Tensor) -> Tensor:
        """Features [n, grids * F] of grid positions [n, 3] in a head's hash grids, of `local`'s type."""
        config = self.config
        count = config.grid_counts[head]
        resolutions = config.grid_resolutions[:count]
        entries, weights = corner_entries(local, resolutions, config.hash_table_size)
        rows = entries + torch.from_numpy(self.grid_starts[head, :count]).to(local.device)[:, None]
        values = self.tables[rows.reshape(-1)].to(local.dtype).view(*rows.shape, config.features_per_level)
        return (values * weights[..., None]).sum(2).flatten(1)

    def density_mlp(self, head: int, features: Tensor) -> Tensor:
        """Log density, then geometry features: [n, 1 + geo_dim]."""
        return self._layers(self.config.density_shapes(head), self.density_start(head), features)

    def color_mlp(self, head: int, geometry: Tensor, directions: Tensor) -> Tensor:
        """Colours [n, 3] in [0, 1], of geometry features [n, geo_dim] and unit directions [n, 3]."""
        inputs = torch.cat([geometry, spherical_harmonics(directions, self.config.sh_degree)], -1)
        return self._layers(self.config.color_shapes, self.color_start(head), inputs).sigmoid()

    def density_start(self, head: int) -> int:
        """Where in `mlp` the density MLP of a head begins."""
        return sum(weights_in(self.config.density_shapes(i)) for i in range(head))

    def color_start(self, head: int) -> int:
        """Where in `mlp` the colour MLP of a head begins."""
        own = head if self.config.interpolation == "color" else 0
        return self.density_start(self.config.num_levels) + own * weights_in(self.config.color_shapes)

    def _layers(self, shapes: list[tuple[int, int]], start: int, x: Tensor) -> Tensor:
        for i, (n_in, n_out) in enumerate(shapes):
            numbers = self.mlp[start : start + (n_in + 1) * n_out].to(x.dtype)
            x = torch.addmm(numbers[n_in * n_out :], x, numbers[: n_in * n_out].view(n_in, n_out))
            x = x.relu() if i + 1 < len(shapes) else x
            start += (n_in + 1) * n_out
        return x

    def answer(self, samples: PackedSamples, directions: Tensor, encode: Encode | None = None) -> tuple[Tensor, Tensor]:
        """`field` at packed samples, `directions` [n_samples, 3]."""
        return self.field(samples.level.to(samples.local.dtype), samples.local, directions, encode)

    def footprint(self, radius: Tensor) -> Tensor:
        """What of a sample's cone is held against a level's GSD: the width of its pixel."""
        return radius * PIXEL_WIDTH

    def field(
        self,
        level: Tensor,  # [n] in [0, num_levels - 1]
        local: Tensor,  # [n, 3] grid positions, [0, 1]
        directions: Tensor,  # [n, 3] unit
        encode: Encode | None = None,  # None: `self.encode`
    ) -> tuple[Tensor, Tensor]:
        """The radiance field at levels between two heads: `sigmas` [n] per world unit and `rgb` [n, 3] in [0, 1].

        Computes in the type of `local`. Samples are sorted by level, so that each head answers one stretch of them:
        those less than a level away from it.
        """
        if len(level) == 0:
            return local.new_zeros(0), local.new_zeros(0, 3)
        encode, blends_colors = encode or self.encode, self.config.interpolation == "color"
        level, order = level.detach().sort(stable=True)
        local, directions = local[order], directions[order]
        parts: list[list[tuple[int, Tensor]]] = [[], []]  # of even and of odd heads: first sample, numbers
        for head in range(self.config.num_levels):
            ends = torch.tensor([head - 1.0, head + 1.0], dtype=level.dtype, device=level.device)
            first = int(torch.searchsorted(level, ends[0], right=True))
            last = int(torch.searchsorted(level, ends[1]))
            if first >= last:
                continue
            share = (1 - (level[first:last] - head).abs())[:, None]
            out = self.density_mlp(head, encode(head, local[first:last]))
            if blends_colors:
                rgb = self.color_mlp(head, out[:, 1:], directions[first:last])
                out = torch.cat([self._density(out[:, :1]), rgb], -1)
            parts[head % 2].append((first, share * out))
        mixed = _joined(parts[0], len(level)) + _joined(parts[1], len(level))
        if not blends_colors:
            rgb = self.color_mlp(0, mixed[:, 1:], directions)
            mixed = torch.cat([self._density(mixed[:, :1]), rgb], -1)
        mixed = _Unsorted.apply(mixed, order)
        assert isinstance(mixed, Tensor)
        return mixed[:, 0] / self.unit, mixed[:, 1:]

    def _density(self, raw: Tensor) -> Tensor:
        return torch.exp((raw + self.config.density_shift).clamp(max=MAX_LOG_DENSITY))

    def empty_space(self) -> EmptySpace:
        """Of the occupancy as it is now."""
        root = lone_root(self.octree.corner[0].double().numpy(), self.octree.root_size)
        return EmptySpace(root, self.occupancy, self.config.occupancy_resolution, self.config.background)

    def march(
        self, origins: Tensor, directions: Tensor, cones: Tensor, counters: Tensor, settings: MarchSettings,
        space: EmptySpace | None = None, within_trained: bool = True,
    ) -> PackedSamples:  # fmt: skip
        """Samples of rays with root-local `origins` (see `to_local`); sooner with the `empty_space()` of now.

        `within_trained`: levels keep to what was trained where they are; not while training.
        """
        config = self.config
        marching = PyramidMarch(
            self.octree, self.occupancy, config.occupancy_resolution, self.local_aabb(origins.dtype),
            self.trained if within_trained else None, config.trained_resolution, config.background,
        )  # fmt: skip
        return marching(origins, directions, cones, counters, settings, space)


class _Unsorted(torch.autograd.Function):
    """Rows [n, c] in the order that they were sorted from; indexing's own gradient would add instead of move."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor) -> Tensor:
        ctx.order = order
        return torch.empty_like(rows).index_copy_(0, order, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient[ctx.order], None


def _joined(parts: list[tuple[int, Tensor]], n: int) -> Tensor:
    """Stretches of rows, each from its first one on, as [n, c] with zeros between them; zero where there are none."""
    if not parts:
        return torch.zeros(())
    rows, end = [], 0
    for first, part in parts:
        rows += [part.new_zeros(first - end, part.shape[1]), part]
        end = first + len(part)
    return torch.cat([*rows, parts[0][1].new_zeros(n - end, parts[0][1].shape[1])])


def grid_starts(config: PyNeRFConfig) -> tuple[np.ndarray, int]:
    """First entry of each head's hash grids in `tables`, [heads, n_grid_levels] int64 (-1: not this head's), and how
    many entries there are in all."""
    starts = np.full((config.num_levels, config.n_grid_levels), -1, np.int64)
    total = 0
    for head, count in enumerate(config.grid_counts):
        for grid in range(count):
            known = starts[:, grid][starts[:, grid] >= 0]
            if config.share_grid and len(known):
                starts[head, grid] = known[0]
                continue
            starts[head, grid] = total
            total += config.grid_entries[grid]
    return starts, total


def tables_shape(config: PyNeRFConfig) -> tuple[int, int]:
    """Of `tables`: entries of all hash grids, features."""
    return grid_starts(config)[1], config.features_per_level


def mlp_shapes(config: PyNeRFConfig) -> list[list[tuple[int, int]]]:
    """Layers of every MLP, in the order of `mlp`: the heads' density MLPs, then the colour MLPs."""
    colors = config.num_levels if config.interpolation == "color" else 1
    return [*(config.density_shapes(i) for i in range(config.num_levels)), *[config.color_shapes] * colors]


def mlp_size(config: PyNeRFConfig) -> int:
    """Numbers of all MLPs."""
    return sum(map(weights_in, mlp_shapes(config)))


def initial_parameters(config: PyNeRFConfig, seed: int, spread: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Tables uniform in +-`spread` (Mueller et al. 2022), MLPs as He et al. 2015, the same as an InfNeRF's."""
    generator = torch.Generator().manual_seed(seed)
    tables = (torch.rand(tables_shape(config), generator=generator) * 2 - 1) * spread
    layers = []
    for n_in, n_out in (layer for shapes in mlp_shapes(config) for layer in shapes):
        bound = (6 / n_in) ** 0.5 * 0.7
        layers += [(torch.rand(n_in * n_out, generator=generator) * 2 - 1) * bound, torch.zeros(n_out)]
    return tables, torch.cat(layers)
