"""Splitting and dropping nodes keeps a sound, breadth-first tree, and says which node became which."""

from __future__ import annotations

import pytest
import torch
from random_models import random_octree

from infnerf.models.octree import Octree
from infnerf.models.octree_edit import add_children, drop_subtrees


def free_octants(octree: Octree, seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    free = (octree.children < 0).nonzero()
    chosen = free[torch.randperm(len(free), generator=torch.Generator().manual_seed(seed))[:n]]
    return chosen[:, 0], chosen[:, 1]


def boxes(octree: Octree, nodes: torch.Tensor) -> set[tuple[float, ...]]:
    corner = octree.local_corner()[nodes]
    return {(*c, level) for c, level in zip(corner.tolist(), octree.level[nodes].tolist(), strict=True)}


def is_breadth_first(octree: Octree) -> bool:
    order = octree.children[octree.children >= 0]
    return bool((octree.level.diff() >= 0).all()) and torch.equal(order, torch.arange(1, octree.n_nodes).int())


@pytest.mark.parametrize("seed", range(4))
def test_new_children_are_where_they_were_asked_for(seed: int) -> None:
    octree = random_octree(seed)
    node, octant = free_octants(octree, seed, 40)
    edited, source = add_children(octree, node, octant)
    new = (source < 0).nonzero()[:, 0]
    assert edited.n_nodes == octree.n_nodes + 40
    assert is_breadth_first(edited)
    bits = torch.stack([octant & 1, octant >> 1 & 1, octant >> 2], -1)
    edge = 0.5 ** (octree.level[node].double() + 1)
    corners = octree.local_corner()[node] + bits * edge[:, None]
    levels = (octree.level[node] + 1).tolist()
    assert boxes(edited, new) == {(*c, level) for c, level in zip(corners.tolist(), levels, strict=True)}
    kept = (source >= 0).nonzero()[:, 0]
    torch.testing.assert_close(edited.corner[kept], octree.corner[source[kept]])
    assert torch.equal(source[kept].sort().values, torch.arange(octree.n_nodes))


@pytest.mark.parametrize("seed", range(4))
def test_dropping_takes_whole_subtrees_and_nothing_else(seed: int) -> None:
    octree = random_octree(seed)
    victims = torch.tensor([1, octree.n_nodes - 1, octree.n_nodes // 2])
    edited, source = drop_subtrees(octree, victims)
    below = set(victims.tolist())
    for i in range(octree.n_nodes):
        if int(octree.parent[i]) in below:
            below.add(i)
    assert is_breadth_first(edited)
    assert set(source.tolist()) == set(range(octree.n_nodes)) - below


def test_adding_and_dropping_again_gives_the_same_tree() -> None:
    octree = random_octree(7)
    edited, source = add_children(octree, *free_octants(octree, 7, 25))
    back, _ = drop_subtrees(edited, (source < 0).nonzero()[:, 0])
    for name in ("children", "parent", "level", "corner"):
        assert torch.equal(getattr(back, name), getattr(octree, name)), name


def test_edits_that_make_no_tree_are_refused() -> None:
    octree = random_octree(1)
    owner = int((octree.children >= 0).any(1).nonzero()[0, 0])
    octant = int((octree.children[owner] >= 0).nonzero()[0, 0])
    with pytest.raises(ValueError, match=f"node {owner} has a child in octant {octant} already"):
        add_children(octree, torch.tensor([owner]), torch.tensor([octant]))
    with pytest.raises(ValueError, match="octant must be 0 to 7"):
        add_children(octree, torch.tensor([0]), torch.tensor([8]))
    with pytest.raises(ValueError, match="node must be 0 to"):
        add_children(octree, torch.tensor([10**6]), torch.tensor([0]))
    with pytest.raises(ValueError, match="the root stays"):
        drop_subtrees(octree, torch.tensor([0]))
