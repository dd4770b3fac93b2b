"""Samples of several nodes for kernels that shade tiles, and how far from the portable field such a kernel is."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from random_models import random_model

from infnerf.models.capacity import unit_places
from infnerf.models.infnerf import InfNeRF
from infnerf.renderer.kernels import FieldSamplesStruct, SceneArrays, load_kernels, pointer

TILE = 32
LOGIT, RGB = 6e-4, 3e-4  # what half precision may cost in log density and in colour (facts/kernels.md, section 4)

#: Numbers of samples of the nodes: tails of every kind, and nodes without any.
COUNTS = (33, 0, 1, 31, 32, 17, 0, 16, 100)

#: Every kind of config that `InfNeRFConfig` allows.
CONFIGS: tuple[dict[str, Any], ...] = (
    {},
    {"hidden_dim": 16, "sh_degree": 1, "n_grid_levels": 3},
    {"n_grid_levels": 1, "hidden_dim": 16, "geo_dim": 1, "sh_degree": 1, "table_size": 64},
    {"features_per_level": 4, "n_grid_levels": 4, "hidden_dim": 32, "sh_degree": 4, "geo_dim": 7},
    {"features_per_level": 4, "n_grid_levels": 1, "geo_dim": 14},
    {"features_per_level": 4, "n_grid_levels": 5, "hidden_dim": 64, "sh_degree": 3, "geo_dim": 16},
    {"features_per_level": 4, "n_grid_levels": 8, "hidden_dim": 64, "sh_degree": 4, "geo_dim": 31},
    {"n_grid_levels": 16, "hidden_dim": 64, "sh_degree": 4, "geo_dim": 31, "appearance_dim": 16},
    {"n_grid_levels": 9, "hidden_dim": 32, "geo_dim": 8, "appearance_dim": 3},
    {"level_table_sizes": (1024, 64, 256), "level_hidden_dims": (32, 16)},
    {"background": True, "density_shift": 20.0},  # log density reaches its limit
)


@dataclass
class FieldCase:
    """Arrays of one call; `sigma` and `rgb` start as NaN, so that what is not written shows."""

    model: InfNeRF
    counts: tuple[int, ...] = COUNTS
    seed: int = 0
    arrays: dict[str, torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        n, n_nodes = sum(self.counts), self.model.octree.n_nodes
        nodes = torch.linspace(0, n_nodes - 1, len(self.counts)).int()  # of all levels
        counts = torch.zeros(n_nodes, dtype=torch.int32)
        counts[nodes.long()] = torch.tensor(self.counts, dtype=torch.int32)
        starts = torch.cat([torch.zeros(1), counts.cumsum(0)]).int()
        directions = torch.nn.functional.normalize(torch.randn(n // 2 + 1, 3, generator=generator), dim=1)
        local = torch.rand(n, 3, generator=generator)
        local[:: max(n // 7, 1)] = 1.0  # the far corner, the last cell's end
        tiles = [(k, at) for k in nodes.tolist() for at in range(int(starts[k]), int(starts[k + 1]), TILE)]
        self.arrays = {
            "local": local,
            "ray_indices": torch.randint(len(directions), (n,), generator=generator, dtype=torch.int32),
            "directions": directions.contiguous(),
            "order": torch.randperm(n, generator=generator).int(),
            "starts": starts,
            "tiles": torch.tensor(tiles, dtype=torch.int32).view(-1, 2),
            "sigma": torch.full((n,), torch.nan),
            "rgb": torch.full((n, 3), torch.nan),
        }
        self.scene = SceneArrays(self.model)

    @classmethod
    def random(cls, config: dict[str, Any], seed: int = 0, counts: tuple[int, ...] = COUNTS) -> FieldCase:
        """A model in which every node has its own MLPs, with biases."""
        model = random_model(seed, **config)
        generator = torch.Generator().manual_seed(seed)
        for level, rows in enumerate(model.mlp.data.split(model.octree.level_counts())):
            places = unit_places(model.config, level)
            rows[:, places] += (torch.rand(len(rows), len(places), generator=generator) - 0.5).half() * 0.2
        return cls(model, counts, seed)

    def struct(self, sigma: torch.Tensor, rgb: torch.Tensor) -> FieldSamplesStruct:
        arrays = self.arrays | {"sigma": sigma, "rgb": rgb}
        names = {name for name, _ in FieldSamplesStruct._fields_} & set(arrays)  # type: ignore[misc]
        return FieldSamplesStruct(**{name: pointer(arrays[name]) for name in names})

    def portable(self) -> tuple[torch.Tensor, torch.Tensor]:
        """sigma [n] and rgb [n, 3] of the portable field on the CPU."""
        sigma, rgb = torch.zeros_like(self.arrays["sigma"]), torch.zeros_like(self.arrays["rgb"])
        nodes = self.arrays["starts"].diff().nonzero()[:, 0].int()
        struct = self.struct(sigma, rgb)
        load_kernels().library.field_forward(
            self.scene.address, ctypes.addressof(struct), pointer(nodes), len(nodes), 1, 0
        )
        return sigma, rgb

    def errors(self, sigma: torch.Tensor, rgb: torch.Tensor) -> tuple[float, float]:
        """Largest error of log density and of rgb; infinity where a sample was not written or is not finite."""
        if not (sigma.isfinite().all() and rgb.isfinite().all() and bool((sigma > 0).all())):
            return np.inf, np.inf
        expected_sigma, expected_rgb = self.portable()
        return float((sigma / expected_sigma).log().abs().max()), float((rgb - expected_rgb).abs().max())
