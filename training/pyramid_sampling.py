"""Where a PyNeRF's trainer gets samples, field and occupancy: the CPU kernels, or torch alone where there are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.marching import MarchSettings, PackedSamples
from ..models.occupancy import pack_bits
from ..models.octree import Octree, lone_root
from ..models.pynerf import PyNeRF
from ..models.pynerf_config import PyNeRFConfig
from ..models.pyramid import TRAINED_STEPS, trained_cells
from ..models.volume import composite
from ..renderer.kernels import KernelsUnavailable
from ..renderer.pyramid_kernels import PyramidKernels
from .occupancy import DECAY, THRESHOLD, WARM_STEPS
from .point_prior import cells_in
from .sampling import Sampling

REFRESH_CELLS = 1 << 14  # measured at a time


class TorchPyramidSampling:
    """The torch twin of `PyramidKernels`."""

    def __init__(self, model: PyNeRF) -> None:
        self.model = model
        self.kernels = None

    def march(
        self, origins: Tensor, directions: Tensor, cones: Tensor, counters: Tensor, settings: MarchSettings, limit: int
    ) -> PackedSamples:
        return self.model.march(origins, directions, cones, counters, settings, within_trained=False)

    def field(
        self, samples: PackedSamples, directions: Tensor, appearance: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.model.answer(samples, directions[samples.ray_indices.long()])

    def composite(self, sigmas: Tensor, rgb: Tensor, samples: PackedSamples, n_rays: int, early_stop: float) -> Tensor:
        return composite(sigmas, rgb, samples.dt, samples.ray_indices, n_rays, early_stop)


def make_pyramid_sampling(model: PyNeRF) -> tuple[Sampling, str]:
    """The fastest that this machine has, and one phrase that says which."""
    try:
        kernels = PyramidKernels(model)
    except KernelsUnavailable as error:
        return TorchPyramidSampling(model), f"torch only ({error})"
    return kernels, kernels.kernels.describe()


def samples_between(level: Tensor, local: Tensor) -> PackedSamples:
    """Samples of no length at grid positions `local` [n, 3] and levels [n], each on a ray of its own."""
    zeros = torch.zeros(len(level))
    return PackedSamples(torch.arange(len(level)), zeros, zeros, local, level.long(), level, level)


@dataclass(frozen=True)
class _Root:
    """A pyramid's cube as a tree of one node, for what looks at an octree's cells."""

    octree: Octree
    config: PyNeRFConfig


def cells_near_points(model: PyNeRF, voxels: Tensor) -> Tensor:
    """Occupancy cells [cells] that `point_prior.voxels_near_points` allows."""
    root = lone_root(model.octree.corner[0].numpy(), model.octree.root_size)
    lone: Any = _Root(root, model.config)
    return cells_in(lone, voxels)[0]


class PyramidOccupancy:
    """Keeps `model.occupancy` up to date: a running maximum of the optical depth of one cell of the level that is
    looked at, over the levels that were trained where it is; thresholded, dilated, and held to what points allow."""

    def __init__(self, model: PyNeRF, sampling: Sampling, seed: int) -> None:
        self.model, self.sampling = model, sampling
        resolution = model.config.occupancy_resolution
        axis = torch.arange(resolution)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        self.corner = torch.stack([x, y, z], -1).reshape(-1, 3).float()
        self.density = torch.zeros(resolution**3)
        self.generator = torch.Generator().manual_seed(seed)
        self.steps = 0  # of training
        self._next = 0
        self.restrict(None)

    def restrict(self, allowed: Tensor | None) -> None:
        """Keeps occupancy inside `allowed` [cells] from now on; None: everywhere."""
        self.allowed = torch.ones(len(self.density), dtype=torch.bool) if allowed is None else allowed
        self._cells = self.allowed.nonzero()[:, 0]
        self.model.occupancy[:] = pack_bits(self.allowed[None])

    def refresh(self) -> None:
        """Measures the next cells, in turn. Until the model has learnt a little, nothing counts as empty."""
        if self.steps < WARM_STEPS:
            return
        n = min(REFRESH_CELLS, len(self._cells))
        cells = self._cells[torch.arange(self._next, self._next + n) % max(len(self._cells), 1)]
        self._next = (self._next + n) % max(len(self._cells), 1)
        self.density[cells] = torch.maximum(self.density[cells] * DECAY, self._measure(cells, self.generator))
        self.model.occupancy[:] = self._bits(self.density)

    def finished(self, rounds: int = 4) -> Tensor:
        """What a checkpoint stores: bits [1, W] of a thorough measurement. Changes nothing, generator included."""
        generator = torch.Generator()
        generator.set_state(self.generator.get_state())
        density = self.density * DECAY**2
        for _ in range(rounds):
            for cells in self._cells.split(REFRESH_CELLS):
                density[cells] = torch.maximum(density[cells], self._measure(cells, generator))
        return self._bits(density)

    @torch.no_grad()
    def _measure(self, cells: Tensor, generator: torch.Generator) -> Tensor:
        """sigma * gsd at a random place of each cell [n], at a random level of those trained there."""
        config = self.model.config
        jitter = torch.rand(len(cells), 4, generator=generator)
        local = (self.corner[cells] + jitter[:, :3]) / config.occupancy_resolution
        least, greatest = (
            bound[trained_cells(local, config.trained_resolution)].float() / TRAINED_STEPS
            for bound in self.model.trained
        )
        top = float(config.num_levels - 1)
        known = least <= greatest
        least, greatest = torch.where(known, least, 0.0), torch.where(known, greatest, top).clamp(max=top)
        level = least + (greatest - least) * jitter[:, 3]
        directions = torch.tensor([[0.0, 0.0, 1.0]]).expand(len(level), 3)
        sigma, _ = self.sampling.field(samples_between(level, local), directions)
        return sigma * self.model.gsd(level).float()

    def _bits(self, density: Tensor) -> Tensor:
        resolution = self.model.config.occupancy_resolution
        grid = (density > THRESHOLD).float().view(1, 1, resolution, resolution, resolution)
        cells = (F.max_pool3d(grid, 3, stride=1, padding=1) > 0).view(1, -1)
        return pack_bits(cells & self.allowed)

    def state_dict(self) -> dict[str, Any]:
        """All that the next refresh depends on, but for the model and `allowed`."""
        return {
            "words": self.model.occupancy, "density": self.density, "generator": self.generator.get_state(),
            "steps": self.steps, "next": self._next,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises `ValueError` for a state of another model."""
        for name, own in (("words", self.model.occupancy), ("density", self.density)):
            if state[name].shape != own.shape or state[name].dtype != own.dtype:
                raise ValueError(f"occupancy.{name}: expected {list(own.shape)}, found {list(state[name].shape)}")
            own.copy_(state[name])
        self.generator.set_state(state["generator"])
        self.steps, self._next = int(state["steps"]), int(state["next"])
