"""Where the tree grows, and that nothing jumps when it does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_models import random_model, view_camera

from infnerf.models.config import InfNeRFConfig
from infnerf.models.infnerf import InfNeRF
from infnerf.models.marching import PackedSamples
from infnerf.models.occupancy import unpack_bits
from infnerf.models.octree import build_octree
from infnerf.renderer.cpu_executor import CpuExecutor
from infnerf.renderer.frame import FrameBuffers, RenderRequest
from infnerf.training.growth import Demand, grown, octant_values


def samples(node: list[int], local: list[list[float]], wanted: list[int], level: list[int]) -> PackedSamples:
    n = len(node)
    zeros = torch.zeros(n)
    integers = [torch.tensor(x) for x in (node, level, wanted)]
    return PackedSamples(torch.zeros(n, dtype=torch.long), zeros, zeros, torch.tensor(local), *integers)


def test_votes_go_to_the_octants_of_clamped_samples_by_their_gradient() -> None:
    octree = random_model(1).octree
    demand = Demand(octree)
    leaf = int((octree.children < 0).all(1).nonzero()[0, 0])
    level = int(octree.level[leaf])
    deeper = level + 1
    demand.add(
        samples([leaf] * 4, [[0.1, 0.1, 0.9], [0.1, 0.1, 0.9], [0.9, 0.1, 0.1], [0.9, 0.9, 0.9]],
                [deeper, deeper, deeper, level], [level] * 4),
        torch.tensor([[0.1, -0.1, 0.0], [0.2, 0.0, 0.0], [0.1, 0.0, 0.0], [9.0, 9.0, 9.0]]),
    )  # fmt: skip
    assert demand.votes[leaf].tolist() == pytest.approx([0, 0.1, 0, 0, 0.4, 0, 0, 0])
    assert demand.votes.sum() == pytest.approx(0.5)
    node, octant = demand.choose(octree, 1, deeper)
    assert (node.tolist(), octant.tolist()) == ([leaf], [4])
    assert len(demand.choose(octree, 9, deeper)[0]) == 2
    assert len(demand.choose(octree, 9, level)[0]) == 0
    assert len(demand.choose(octree, 0, deeper)[0]) == 0


def test_an_octants_cells_are_its_parents_twice_as_fine() -> None:
    values = torch.arange(64).view(1, 64)
    fine = octant_values(values.expand(2, 64), torch.tensor([0, 6]), 4).view(2, 4, 4, 4)
    coarse = values.view(4, 4, 4)
    for z in range(4):
        for y in range(4):
            for x in range(4):
                assert fine[0, z, y, x] == coarse[z // 2, y // 2, x // 2]
                assert fine[1, z, y, x] == coarse[2 + z // 2, 2 + y // 2, x // 2]


def smooth_model(seed: int) -> InfNeRF:
    """One node whose field a grid can hold: coarse grid levels only, so that children have room for it."""
    config = InfNeRFConfig(n_grid_levels=3, base_resolution=4, resolution=16, table_size=8192, density_shift=-2.0)
    octree = build_octree(np.full((9, 3), 0.5), np.full(9, 0.5), np.zeros(3), 8.0, 16)
    model = InfNeRF.random(config, octree, seed, spread=0.5)
    return model


def test_a_view_does_not_jump_when_children_appear() -> None:
    model = smooth_model(3)
    every = torch.arange(8)
    bigger, source = grown(model, torch.zeros(8, dtype=torch.long), every, torch.Generator().manual_seed(0))
    assert bigger.octree.level_counts() == [1, 8]
    assert source.tolist() == [0] + [-1] * 8
    assert unpack_bits(bigger.occupancy).all()
    pictures = []
    for one in (model, bigger):
        for parameter in (one.tables, one.mlp):
            parameter.requires_grad_(False)
        out = FrameBuffers.allocate(64, 48)
        camera = view_camera(64, 48, 14.0)
        CpuExecutor(one).render(RenderRequest(camera, lod_bias=0.0 if one is model else 4.0), out)
        pictures.append(out)
    assert (pictures[1].level > 0.9).any()  # the children do answer
    error = np.square(pictures[0].color - pictures[1].color).mean()
    spread = pictures[0].color.std()
    assert spread > 0.05
    assert error < (0.03 * spread) ** 2 * 4


def test_with_a_background_a_child_of_the_root_looks_like_it() -> None:
    """The root's grid spans twice its cube then: positions, occupancy and features all shift."""
    model = smooth_model(3)
    wide = InfNeRF(
        replace(model.config, background=True), model.octree, model.tables.data, model.mlp.data, model.occupancy
    )
    root = torch.zeros(4000, dtype=torch.long)
    children, _ = grown(wide, root[:8], torch.arange(8), torch.Generator().manual_seed(0))
    places = torch.rand(4000, 3, generator=torch.Generator().manual_seed(1))
    down = torch.nn.functional.normalize(torch.randn(4000, 3, generator=torch.Generator().manual_seed(2)), dim=1)
    child = children.octree.find(places, root + 1)
    upper = (places >= 0.5).float()
    seen = []
    for model, node, local in ((wide, root, wide.to_grid(root, places)), (children, child, 2 * places - upper)):
        sigma, rgb = model.field(node, local, down)
        alpha = 1 - torch.exp(-sigma * wide.gsd(1).float())
        seen.append(torch.cat([rgb * alpha[:, None], alpha[:, None]], 1).detach())
    parents, theirs = seen
    assert (child > 0).all()
    assert float((parents - theirs).square().mean()) < 0.1 * float(parents.var(0).mean())
