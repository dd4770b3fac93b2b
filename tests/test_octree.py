"""Octree arrays, construction from points, and level selection (design section 4)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_models import random_octree

from infnerf.models.octree import Octree, build_octree, select_level


def test_worked_example_of_the_design() -> None:
    assert select_level(torch.tensor([0.01]), 8 / 128).item() == 2


@given(st.floats(1e-6, 1e6), st.floats(1.0, 1.999))
def test_level_changes_by_at_most_one_where_the_radius_changes_by_less_than_two(radius: float, factor: float) -> None:
    levels = select_level(torch.tensor([radius, radius * factor], dtype=torch.float64), 1e3)
    assert 0 <= int(levels[0] - levels[1]) <= 1


def test_level_is_the_floor_of_the_logarithm_with_bias_and_clamps() -> None:
    radius = torch.tensor([0.6, 0.3, 0.26, 0.01, 1e-9])
    assert select_level(radius, 1.0).tolist() == [0, 1, 1, 6, 29]
    assert select_level(radius, 1.0, lod_bias=1.0).tolist() == [1, 2, 2, 7, 30]
    assert select_level(radius, 1.0, min_level=1, max_level=3).tolist() == [1, 1, 1, 3, 3]


def test_points_open_children_only_down_to_their_footprint() -> None:
    points = np.tile([[0.1, 0.1, 0.1]], (50, 1))
    tree = build_octree(points, np.full(50, 0.3), np.zeros(3), 16.0, 16, min_points=10)
    assert tree.level_counts() == [1, 1, 1]  # gsd 1, 0.5, then 0.25 < 0.3: no child below
    assert tree.corner[2].tolist() == [0.0, 0.0, 0.0]


def test_too_few_points_open_nothing_and_a_budget_keeps_the_most_wanted() -> None:
    rng = np.random.default_rng(0)
    assert build_octree(rng.random((5, 3)), np.full(5, 1e-4), np.zeros(3), 1.0, 8, min_points=5).n_nodes == 1
    crowded = np.concatenate([rng.random((90, 3)) * 0.5, rng.random((30, 3)) * 0.5 + 0.5])
    tree = build_octree(crowded, np.full(120, 0.1), np.zeros(3), 1.0, 8, min_points=5, max_nodes=2)
    assert tree.level_counts() == [1, 1]
    assert tree.corner[1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("seed", range(3))
def test_find_returns_the_deepest_allowed_box_that_holds_the_point(seed: int) -> None:
    tree = random_octree(seed)
    rng = torch.Generator().manual_seed(seed)
    local = torch.rand(500, 3, generator=rng, dtype=torch.float64)
    wanted = torch.randint(0, tree.depth + 2, (500,), generator=rng)
    found = tree.find(local, wanted)
    corners, sizes = tree.boxes()
    world = local.numpy() * tree.root_size + corners[0]
    inside = ((world[:, None] >= corners) & (world[:, None] < corners + sizes[:, None])).all(-1)
    allowed = inside & (tree.level.numpy() <= wanted.numpy()[:, None])
    deepest = np.where(allowed, tree.level.numpy(), -1).argmax(1)
    assert found.tolist() == deepest.tolist()


def broken(**changes: object) -> None:
    tree = random_octree(0)
    arrays = {name: getattr(tree, name).clone() for name in ("children", "parent", "level", "corner")}
    for name, change in changes.items():
        change(arrays[name])  # type: ignore[operator]
    Octree(**arrays, root_size=tree.root_size)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("children", lambda a: a.view(-1).__setitem__(0, 9999), "must be -1 or a node from 1 to"),
        ("children", lambda a: a.__setitem__((0, int((a[0] >= 0).nonzero()[0])), 0), "must be -1 or a node"),
        ("children", lambda a: a.__setitem__(0, -1), "child of exactly one node"),
        ("parent", lambda a: a.__setitem__(5, 4), "do not agree"),
        ("level", lambda a: a.__setitem__(1, 2), "breadth-first|plus one"),
        ("level", lambda a: a.__setitem__(-1, 60), "at most 31"),
        ("corner", lambda a: a.__setitem__((3, 0), 77.0), "not in its parent's octant"),
        ("corner", lambda a: a.__setitem__((3, 0), float("nan")), "finite"),
    ],
)
def test_arrays_that_are_no_tree_are_refused(name: str, change: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        broken(**{name: change})
