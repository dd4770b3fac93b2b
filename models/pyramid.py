"""A pyramid as the octree that never splits: a "node" is a level, every one over the whole root cube.

Levels are finer from one to the next by their resolution instead of by halving the cube, and a sample has a level of
its own between two of them (PyNeRF, Turki et al. 2023, section 3.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .octree import Octree
from .pynerf_config import PyNeRFConfig

PIXEL_WIDTH = math.sqrt(math.pi)  # of the square with the area of a circle of radius 1; `cuda/pyramid.cuh` has it too
TRAINED_STEPS = 16  # parts of a level that the grid of trained levels knows
UNTRAINED = (255, 0)  # least and greatest trained level of a cell that no sample has met


@dataclass(frozen=True, eq=False)
class Pyramid(Octree):
    """Levels over one cube. The arrays are an octree's: node i has level i, the root's corner and no children.

    >>> from infnerf.models.octree import lone_root
    >>> pyramid = Pyramid.over(lone_root(np.zeros(3), 2.0), PyNeRFConfig())
    >>> pyramid.level_of(torch.tensor([2 / 64, 2 / 90.51, 2 / 16, 9.0])).round(decimals=3).tolist()
    [2.0, 2.5, 0.0, 0.0]
    """

    gsds: tuple[float, ...] = ()  # of each level: the edge of its cells, world units

    @classmethod
    def over(cls, root: Octree, config: PyNeRFConfig) -> Pyramid:
        """The pyramid of a config over the root of a tree."""
        n = config.num_levels
        none = torch.full((n, 8), -1, dtype=torch.int32)
        edge = root.root_size * (2.0 if config.background else 1.0)  # that the grids span (models/contraction.py)
        gsds = tuple(edge / resolution for resolution in config.level_resolutions)
        level = torch.arange(n, dtype=torch.int32)
        return cls(none, none[:, 0].clone(), level, root.corner[:1].repeat(n, 1), root.root_size, gsds)

    def _check_links(self) -> None:
        n = self.n_nodes
        if len(self.gsds) != n or not torch.equal(self.level, torch.arange(n, dtype=torch.int32)):
            raise ValueError(f"pyramid: expected a node and a GSD on each level, got {n} and {len(self.gsds)}")
        if bool((self.corner != self.corner[0]).any()):
            raise ValueError("pyramid: all levels must lie over one cube")

    def size(self, level: Tensor) -> Tensor:
        """Edge of every level's cube, world units, float64."""
        return torch.full(level.shape, self.root_size, dtype=torch.float64)

    def find(self, points: Tensor, max_level: Tensor) -> Tensor:
        """The level that is asked for, or the finest there is: [n] int64."""
        return max_level.long().clamp(0, self.n_nodes - 1)

    def answering(self, samples: np.ndarray) -> np.ndarray:
        """Samples between a level and the next one -> samples that each level helps to answer."""
        both = samples.copy()
        both[1:] += samples[:-1]
        return both

    @property
    def log2_steps(self) -> tuple[np.ndarray, np.ndarray]:
        """log2 of each level's GSD, and how far the next one's is below it (after the finest as before it), float64."""
        logs = np.log2(np.array(self.gsds))
        steps = -np.diff(logs)
        return logs, np.append(steps, steps[-1] if len(steps) else 1.0)

    def level_of(self, width: Tensor) -> Tensor:
        """Level whose cells are as wide as a pixel's `width` [n] world units: 0 for wider ones than the coarsest's,
        beyond the finest level for narrower ones than its. Of `width`'s type.

        Between two levels it is linear in log(width): `log_s(gsd(0) / width)` where GSDs fall by a factor s (PyNeRF,
        section 3.2), and defined by the same line where resolutions are chosen freely.
        """
        logs, steps = self.log2_steps
        wanted = -torch.log2(width)
        parts = [(wanted + log) / step for log, step in zip(logs.tolist(), steps.tolist(), strict=True)]
        total = parts[-1].clamp(min=0.0)
        for part in parts[:-1]:
            total = total + part.clamp(0.0, 1.0)
        return total

    def gsd(self, level: Tensor) -> Tensor:
        """Edge of the cells at a level, also between two: [n], world units, float64."""
        logs, _ = self.log2_steps
        level = level.double().clamp(0, self.n_nodes - 1)
        low = level.floor().long()
        values = torch.from_numpy(logs).to(level.device)
        high = (low + 1).clamp(max=self.n_nodes - 1)
        return torch.exp2(torch.lerp(values[low], values[high], level - low))


def trained_cells(grid: Tensor, resolution: int) -> Tensor:
    """Which cell of the grid of trained levels grid positions [n, 3] in [0, 1] are in: [n] int64."""
    cell = (grid * resolution).long().clamp(max=resolution - 1)
    return (cell[:, 2] * resolution + cell[:, 1]) * resolution + cell[:, 0]


def within_trained(level: Tensor, trained: Tensor, cells: Tensor) -> Tensor:
    """Levels [n] moved to the nearest that was trained at their places: the coarsest there is where none was.

    `trained` [2, cells] uint8: the least and the greatest, in parts of TRAINED_STEPS.
    """
    least, greatest = (bound[cells].to(level) / TRAINED_STEPS for bound in trained)
    known = least <= greatest
    return torch.where(known, torch.maximum(least, torch.minimum(level, greatest)), torch.zeros_like(level))


def note_trained(trained: Tensor, level: Tensor, cells: Tensor) -> None:
    """Widens the trained ranges of cells [n] by the levels [n] of samples in them."""
    parts = level * TRAINED_STEPS
    trained[0].scatter_reduce_(0, cells, parts.floor().clamp(0, 254).to(torch.uint8), "amin")
    trained[1].scatter_reduce_(0, cells, parts.ceil().clamp(0, 254).to(torch.uint8), "amax")
