"""Trees from trees: splitting leaves and dropping subtrees, with every pass kept breadth-first (design section 4)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .octree import MAX_DEPTH, Octree


def add_children(octree: Octree, node: Tensor, octant: Tensor) -> tuple[Octree, Tensor]:
    """A tree with one more child in `octant` [k] of each `node` [k].

    Returns it with `source` [n_nodes]: which old node each new one was, -1 for the children that are new. Raises
    `ValueError` where a child exists already or would lie too deep.
    """
    pairs = np.unique(np.stack([node.numpy(), octant.numpy()], -1).astype(np.int64).reshape(-1, 2), axis=0)
    if len(pairs) and not (pairs[:, 0].min() >= 0 and pairs[:, 0].max() < octree.n_nodes):
        raise ValueError(f"add_children: node must be 0 to {octree.n_nodes - 1}, got {pairs[:, 0].tolist()[:8]}")
    if len(pairs) and not (pairs[:, 1].min() >= 0 and pairs[:, 1].max() < 8):
        raise ValueError(f"add_children: octant must be 0 to 7, got {pairs[:, 1].tolist()[:8]}")
    taken = octree.children.numpy()[pairs[:, 0], pairs[:, 1]] >= 0
    if taken.any():
        at, bits = pairs[taken][0]
        raise ValueError(f"add_children: node {at} has a child in octant {bits} already")
    if len(pairs) and int(octree.level[torch.from_numpy(pairs[:, 0])].max()) >= MAX_DEPTH:
        raise ValueError(f"add_children: no children below level {MAX_DEPTH}")
    return _rebuild(octree, pairs, np.zeros(octree.n_nodes, bool))


def drop_subtrees(octree: Octree, node: Tensor) -> tuple[Octree, Tensor]:
    """A tree without some nodes [k] and all that is below them; `source` as in `add_children`.

    Raises `ValueError` for the root.
    """
    dropped = np.zeros(octree.n_nodes, bool)
    dropped[node.numpy()] = True
    if dropped[0]:
        raise ValueError("drop_subtrees: the root stays")
    return _rebuild(octree, np.zeros((0, 2), np.int64), dropped)


def _rebuild(octree: Octree, pairs: np.ndarray, dropped: np.ndarray) -> tuple[Octree, Tensor]:
    """Level by level, children in the order of their parents and octants. `pairs` [k, 2]: node, octant."""
    old_children = octree.children.numpy().astype(np.int64)
    local, children = [np.zeros((1, 3))], [np.full((1, 8), -1, np.int64)]  # by level
    parent, source, first = [np.array([-1])], [np.array([0])], 0
    while len(source[-1]):
        below, edge = source[-1], 0.5 ** len(source)
        new_of_old = np.full(octree.n_nodes, -1, np.int64)
        new_of_old[below[below >= 0]] = np.flatnonzero(below >= 0)
        known = np.where(below[:, None] >= 0, old_children[np.maximum(below, 0)], -1)
        known[dropped[np.maximum(known, 0)] & (known >= 0)] = -1
        owner, octant = np.nonzero(known >= 0)
        added = pairs[new_of_old[pairs[:, 0]] >= 0]
        owners = np.concatenate([owner, new_of_old[added[:, 0]]])
        octants = np.concatenate([octant, added[:, 1]])
        sources = np.concatenate([known[owner, octant], np.full(len(added), -1, np.int64)])
        order = np.argsort(owners * 8 + octants)
        owners, octants, sources = owners[order], octants[order], sources[order]
        following = first + len(below)
        children[-1][owners, octants] = following + np.arange(len(owners))
        offset = np.stack([octants & 1, octants >> 1 & 1, octants >> 2], -1) * edge
        local.append(local[-1][owners] + offset)
        children.append(np.full((len(owners), 8), -1, np.int64))
        parent.append(first + owners)
        source.append(sources)
        first = following
    level = np.repeat(np.arange(len(source)), [len(s) for s in source])
    corner = octree.corner[0].double().numpy() + np.concatenate(local) * octree.root_size
    edited = Octree(
        torch.from_numpy(np.concatenate(children)).int(),
        torch.from_numpy(np.concatenate(parent)).int(),
        torch.from_numpy(level).int(),
        torch.from_numpy(corner).float(),
        octree.root_size,
    )
    return edited, torch.from_numpy(np.concatenate(source))
