"""Small random PyNeRFs for tests: fields with structure, patchy occupancy, levels trained here and there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from infnerf.models.octree import lone_root
from infnerf.models.pynerf import PyNeRF, initial_parameters
from infnerf.models.pynerf_config import PyNeRFConfig

SMALL: dict[str, Any] = {
    "num_levels": 4, "base_resolution": 4, "max_resolution": 64, "n_grid_levels": 5, "hash_table_size": 1024,
    "hidden_dim": 32, "density_hidden_dim": 16, "occupancy_resolution": 16, "trained_resolution": 4,
    "density_shift": 1.0,
}  # fmt: skip

#: What differs in code: both interpolations, grids of one's own or shared, free resolutions, one head, a background.
VARIETIES: tuple[dict[str, Any], ...] = (
    {},
    {"interpolation": "color", "num_layers": 2, "density_layers": 3},
    {"share_grid": True, "features_per_level": 2, "sh_degree": 2, "geo_dim": 7},
    {"interpolation": "color", "share_grid": True, "hidden_dim": 128, "density_hidden_dim": 128},
    {"resolutions": (5, 9, 40, 64), "num_layers": 1, "density_layers": 1},
    {"num_levels": 1},
    {"background": True, "scale_factor": 1.7, "num_layers": 4},
)


def random_pyramid(seed: int, patches: bool = True, half: bool = True, **overrides: Any) -> PyNeRF:
    """A model over [-4, 4]**3 whose field varies over space. `patches`: occupancy in random blocks of cells, and
    trained levels that differ from place to place; else everything."""
    config = PyNeRFConfig(**(SMALL | overrides))
    tables, mlp = initial_parameters(config, seed, spread=1.0)
    generator = torch.Generator().manual_seed(seed)
    mlp += (torch.rand(len(mlp), generator=generator) - 0.5) * 0.1
    occupancy = torch.full((1, config.occupancy_words), -1, dtype=torch.int32)
    least = torch.zeros(config.trained_resolution**3, dtype=torch.uint8)
    greatest = torch.full_like(least, 240)
    if patches:
        bytes_ = torch.rand(1, config.occupancy_words, 4, generator=generator) < 0.4
        masks = torch.tensor([0xFF, 0xFF00, 0xFF0000, -0x1000000], dtype=torch.int32)
        occupancy = (bytes_.int() * masks).sum(-1).int()
        least = torch.randint(0, 20, least.shape, generator=generator).to(torch.uint8)
        greatest = torch.randint(10, 60, least.shape, generator=generator).to(torch.uint8)  # some below the least: none
    if half:
        tables, mlp = tables.half(), mlp.half()
    root = lone_root(np.full(3, -4.0), 8.0)
    return PyNeRF(config, root, tables, mlp, occupancy, torch.stack([least, greatest]))
