"""How far points let matter reach: close where they are many, far where they are few."""

from __future__ import annotations

import torch
from random_models import random_model

from infnerf.training.point_prior import FINEST, cells_in, voxels_near_points


def voxel_of(point: list[float]) -> tuple[int, int, int]:
    x, y, z = (int(c * FINEST) for c in point)
    return z, y, x


def test_reach_follows_how_many_points_are_around() -> None:
    generator = torch.Generator().manual_seed(0)
    roof = torch.rand(4000, 3, generator=generator) * torch.tensor([0.1, 0.1, 0.0]) + torch.tensor([0.1, 0.1, 0.3])
    lonely = torch.tensor([[0.8, 0.8, 0.8]])
    allowed = voxels_near_points(torch.cat([roof, lonely]))
    sheet = allowed[:, int(0.15 * FINEST), int(0.15 * FINEST)].nonzero()[:, 0]  # a column through the roof
    assert sheet.tolist() == [76 - 1, 76, 76 + 1]
    assert allowed[voxel_of([0.15, 0.15, 0.3])]
    assert allowed[voxel_of([0.8 + 0.05, 0.8, 0.8])]
    assert not allowed[voxel_of([0.5, 0.5, 0.5])]
    assert not allowed[voxel_of([0.15, 0.15, 0.35])]


def test_a_wall_with_few_points_keeps_its_cells_beside_a_roof_with_many() -> None:
    """What a fixed reach lost: a facade at the city's rim that few images saw."""
    generator = torch.Generator().manual_seed(1)
    roof = torch.rand(6000, 3, generator=generator) * torch.tensor([0.1, 0.1, 0.0]) + torch.tensor([0.3, 0.3, 0.4])
    wall = torch.rand(60, 3, generator=generator) * torch.tensor([0.1, 0.0, 0.1]) + torch.tensor([0.3, 0.3, 0.3])
    allowed = voxels_near_points(torch.cat([roof, wall]))
    on_wall = torch.rand(2000, 3, generator=generator) * torch.tensor([0.1, 0.0, 0.1]) + torch.tensor([0.3, 0.3, 0.3])
    inside = torch.stack([allowed[voxel_of(p)] for p in on_wall.tolist()])
    assert inside.float().mean() > 0.995
    assert allowed.float().mean() < 0.01


def test_cells_of_every_level_hold_their_points() -> None:
    model = random_model(4, patches=False)
    octree, resolution = model.octree, model.config.occupancy_resolution
    generator = torch.Generator().manual_seed(4)
    local = torch.rand(500, 3, generator=generator) * 0.9 + 0.05
    points = local.double() * octree.root_size + octree.corner[0].double()
    near = cells_in(model, voxels_near_points(model.to_local(points.double())))
    assert near.shape == (octree.n_nodes, resolution**3)
    for level in range(octree.depth + 1):
        node = octree.find(local, torch.full((len(local),), level))
        scale = torch.exp2(octree.level[node].double())[:, None]
        inside = (local.double() - octree.local_corner()[node]) * scale
        x, y, z = (inside * resolution).long().clamp(max=resolution - 1).unbind(1)
        assert near[node, (z * resolution + y) * resolution + x].all()


def test_points_outside_the_root_and_none_at_all_allow_nothing() -> None:
    assert not voxels_near_points(torch.tensor([[1.5, 0.5, 0.5], [-0.1, 0.5, 0.5]])).any()
    assert not voxels_near_points(torch.zeros(0, 3)).any()
