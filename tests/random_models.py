"""Small random models for tests: octrees of any shape, fields with structure, patchy occupancy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from infnerf.models.camera import Camera, look_at
from infnerf.models.config import InfNeRFConfig
from infnerf.models.infnerf import InfNeRF
from infnerf.models.octree import Octree, build_octree


def random_octree(seed: int, max_nodes: int = 200, max_depth: int = 4) -> Octree:
    """A lopsided tree over [-4, 4]**3, flat like a city."""
    rng = np.random.default_rng(seed)
    points = (rng.random((3000, 3)) * np.array([1, 1, 0.3])) * 8 - 4
    footprints = 10 ** rng.uniform(-3.5, -0.5, 3000) * 8
    corner = np.array([-4.0, -4.0, -4.0])
    return build_octree(points, footprints, corner, 8.0, 32, min_points=3, max_nodes=max_nodes, max_depth=max_depth)


def random_model(seed: int, patches: bool = True, half: bool = True, **overrides: Any) -> InfNeRF:
    """A model whose field varies over space; `patches`: occupancy in random blocks of cells, else full."""
    config = InfNeRFConfig(**({"resolution": 32, "table_size": 1024, "density_shift": -4.0} | overrides))
    model = InfNeRF.random(config, random_octree(seed), seed, spread=1.0)
    if patches:
        generator = torch.Generator().manual_seed(seed)
        bytes_ = torch.rand(*model.occupancy.shape, 4, generator=generator) < 0.4  # 8 cells in a row at a time
        masks = torch.tensor([0xFF, 0xFF00, 0xFF0000, -0x1000000], dtype=torch.int32)
        model.occupancy.copy_((bytes_.int() * masks).sum(-1).int())
    if half:
        model.tables.requires_grad_(False).data = model.tables.data.half()
        model.mlp.requires_grad_(False).data = model.mlp.data.half()
    return model


def view_camera(width: int = 96, height: int = 64, distance: float = 9.0) -> Camera:
    eye = np.array([0.65, -0.75, 0.5]) * distance
    return Camera.from_fov(look_at(eye, np.array([0.0, 0, -3.0]), np.array([0.0, 0, 1.0])), 50, width, height)
