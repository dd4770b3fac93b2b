"""The octree.

Flat breadth-first arrays, its construction from points, and level-of-detail selection (InfNeRF, section 3).

Octant bit 0 is x, bit 1 is y, bit 2 is z; a bit is set where the coordinate is at or above the node's centre.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MAX_DEPTH = 31  # levels below the root a tree may have: a corner's path then fits in 3 * 31 bits


@dataclass(frozen=True, eq=False)
class Octree:
    """Nodes in breadth-first order, so that a level is a slice.

    Raises `ValueError` when the arrays do not form a tree.
    """

    children: Tensor  # [n_nodes, 8] int32, -1 = no child
    parent: Tensor  # [n_nodes] int32, -1 for the root
    level: Tensor  # [n_nodes] int32, 0 = root
    corner: Tensor  # [n_nodes, 3] float32, minimum corner, world units
    root_size: float  # edge of the root cube, world units

    def __post_init__(self) -> None:
        n = self.children.shape[0] if self.children.ndim == 2 else -1
        expected = {
            "children": ((n, 8), torch.int32),
            "parent": ((n,), torch.int32),
            "level": ((n,), torch.int32),
            "corner": ((n, 3), torch.float32),
        }
        for name, (shape, dtype) in expected.items():
            array = getattr(self, name)
            if n < 1 or tuple(array.shape) != shape or array.dtype != dtype:
                raise ValueError(
                    f"octree.{name} must be {str(dtype)[6:]} of shape [n_nodes{', 8' if name == 'children' else ''}"
                    f"{', 3' if name == 'corner' else ''}] with n_nodes >= 1, "
                    f"got {str(array.dtype)[6:]} {list(array.shape)}"
                )
        if not (np.isfinite(self.root_size) and 1e-6 <= self.root_size <= 1e9):
            raise ValueError(f"octree.root_size must be between 1e-6 and 1e9, got {self.root_size}")
        self._check_links()

    def _check_links(self) -> None:
        """Children and parents agree, levels grow by one, corners fit: which also rules out loops and orphans."""
        children, parent, level = self.children.long(), self.parent.long(), self.level.long()
        n = len(parent)
        if not torch.isfinite(self.corner).all():
            raise ValueError("octree.corner must be finite, got NaN or infinity")
        if ((children < -1) | (children >= n) | (children == 0)).any():
            bad = int(children[(children < -1) | (children >= n) | (children == 0)][0])
            raise ValueError(f"octree.children must be -1 or a node from 1 to {n - 1}, got {bad}")
        if parent[0] != -1 or level[0] != 0:
            raise ValueError(
                f"octree: node 0 must be the root (parent -1, level 0), got {int(parent[0])}, {int(level[0])}"
            )
        if int(level.max()) > MAX_DEPTH:
            raise ValueError(f"octree.level must be at most {MAX_DEPTH}, got {int(level.max())}")
        if (level[1:] < level[:-1]).any():
            raise ValueError("octree: nodes must be in breadth-first order, got a level that falls")
        node, octant = (children >= 0).nonzero(as_tuple=True)
        child = children[node, octant]
        if len(child) != n - 1 or not torch.equal(child.sort().values, torch.arange(1, n)):
            raise ValueError(
                "octree: every node but the root must be the child of exactly one node, found loops or orphans"
            )
        if not torch.equal(parent[child], node):
            raise ValueError("octree: children and parent do not agree")
        if not torch.equal(level[child], level[node] + 1):
            raise ValueError("octree: a child's level must be its parent's plus one")
        offset = torch.stack([octant & 1, (octant >> 1) & 1, octant >> 2], -1) * self.size(level[child])[:, None]
        error = (self.corner[child].double() - self.corner[node].double() - offset).abs().max() if len(child) else 0.0
        if float(error) > 1e-4 * self.root_size:
            raise ValueError("octree.corner does not agree with children: a node is not in its parent's octant")

    @property
    def n_nodes(self) -> int:
        return self.children.shape[0]

    @property
    def depth(self) -> int:
        """The deepest level; 0 for a lone root."""
        return int(self.level.max())

    def size(self, level: Tensor) -> Tensor:
        """Edge of a node's cube at `level`, world units, float64."""
        return self.root_size / torch.pow(2.0, level.double())

    def level_counts(self) -> list[int]:
        """Nodes per level, root first."""
        return torch.bincount(self.level.long()).tolist()

    def answering(self, samples: np.ndarray) -> np.ndarray:
        """Samples that were found in each node [n_nodes] -> samples that each node helped to answer: the same."""
        return samples

    def local_corner(self) -> Tensor:
        """Minimum corners of all cubes, root-local, [n_nodes, 3] float64.

        Whole multiples of the smallest node: the rounding of world units is dropped.
        """
        corner = (self.corner.double() - self.corner[0].double()) / self.root_size
        scale = 2.0**self.depth
        return torch.round(corner * scale) / scale

    def in_parents(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The parents [n] int64 of `nodes` [n], none the root, and where in their cubes [0, 1] the nodes' minimum
        corners are, [n, 3] float64."""
        parents, corner = self.parent.long()[nodes], self.local_corner()
        return parents, (corner[nodes] - corner[parents]) * torch.exp2(self.level[parents].double())[:, None]

    def boxes(self) -> tuple[np.ndarray, np.ndarray]:
        """Minimum corners [n_nodes, 3] and edges [n_nodes] of all cubes, float64."""
        return self.corner.double().numpy(), self.size(self.level).numpy()

    def find(
        self,
        points: Tensor,  # [n, 3] root-local, [0, 1] inside the root cube
        max_level: Tensor,  # [n] int, the deepest level wanted
    ) -> Tensor:
        """The deepest existing node on each point's path that is not deeper than `max_level`; points outside clamp to
        the cube.

        Returns [n] int64. This is the torch twin of `find_node` in `cuda/octree.cuh`: same float arithmetic.
        """
        node = torch.zeros(points.shape[0], dtype=torch.long, device=points.device)
        children = self.children.to(points.device).long()
        local = points.clamp(0.0, 1.0)
        alive = torch.ones_like(node, dtype=torch.bool)
        for level in range(self.depth):
            local = local * 2
            upper = (local >= 1).long()
            child = children[node, upper[:, 0] | upper[:, 1] << 1 | upper[:, 2] << 2]
            alive = alive & (child >= 0) & (max_level > level)
            node = torch.where(alive, child, node)
            local = local - upper
        return node


def select_level(
    radius: Tensor,  # [n] radius of the sample's ball, world units
    root_gsd: float,
    lod_bias: float = 0.0,
    min_level: int = 0,
    max_level: int = MAX_DEPTH,
) -> Tensor:
    """Level whose GSD matches a ball: `clamp(floor(log2(gsd(0) / r)) + lod_bias, min, max)` (InfNeRF, eq. 5).

    Returns [n] int64.

    >>> select_level(torch.tensor([0.01]), 8 / 128).tolist()
    [2]
    """
    return floor_log2(root_gsd * 2.0**lod_bias / radius).clamp(min_level, max_level)


def floor_log2(x: Tensor) -> Tensor:
    """`floor(log2(x))` of positive numbers, exact (by the exponent, as the kernels take it). Returns int64.

    >>> floor_log2(torch.tensor([0.5, 1.0, 7.99])).tolist()
    [-1, 0, 2]
    """
    return torch.frexp(x).exponent.long() - 1


def lone_root(corner: np.ndarray, root_size: float) -> Octree:
    """A tree of one node. `corner` [3] is its minimum corner."""
    children = torch.full((1, 8), -1, dtype=torch.int32)
    level = torch.zeros(1, dtype=torch.int32)
    return Octree(children, level - 1, level, torch.as_tensor(np.asarray(corner)).float()[None], float(root_size))


def build_octree(
    points: np.ndarray,  # [n, 3] world
    footprints: np.ndarray,  # [n] radius of the surface patch a point stands for, world units
    corner: np.ndarray,  # [3]
    root_size: float,
    resolution: int,
    min_points: int = 8,
    max_nodes: int = 1 << 20,
    max_depth: int = 16,
    max_cost: int | None = None,  # of all nodes together; None: no bound
    cost: Callable[[int], int] = lambda level: 1,  # of a node on a level
) -> Octree:
    """The tree that points ask for (design section 4).

    A point opens a child while its footprint is smaller than the node's GSD; a child exists where more than
    `min_points` do. When `max_nodes` or `max_cost` is reached on a level, the children asked for by most points
    are kept.
    """
    if len(points) == 0:
        raise ValueError("build_octree: no points, the tree needs at least one")
    local = (np.asarray(points, np.float64) - corner) / root_size
    keep = ((local >= 0) & (local < 1)).all(-1) & (footprints > 0)
    cell = (local[keep] * 2.0**max_depth).astype(np.int64)
    footprint = np.asarray(footprints)[keep]
    children, parent, level, corners = [[-1] * 8], [-1], [0], [np.asarray(corner, np.float64)]
    node = np.zeros(len(cell), np.int64)  # the node each point is in
    spent = cost(0)
    for depth in range(max_depth):
        size = root_size / 2**depth
        asking = footprint < size / resolution
        node, cell, footprint = node[asking], cell[asking], footprint[asking]
        shift = max_depth - depth - 1
        bits = (cell >> shift) & 1
        octant = bits[:, 0] | bits[:, 1] << 1 | bits[:, 2] << 2
        keys, where, counts = np.unique(node * 8 + octant, return_inverse=True, return_counts=True)
        wanted = np.flatnonzero(counts > min_points)
        room = max_nodes - len(parent)
        if max_cost is not None:
            room = min(room, max((max_cost - spent) // cost(depth + 1), 0))
        if len(wanted) > room:
            wanted = np.sort(wanted[np.argsort(-counts[wanted], kind="stable")[:room]])
        if len(wanted) == 0:
            break
        spent += len(wanted) * cost(depth + 1)
        index = np.full(len(keys), -1, np.int64)
        for key in wanted:
            owner, child_octant = divmod(int(keys[key]), 8)
            index[key] = children[owner][child_octant] = len(parent)
            offset = np.array([child_octant & 1, child_octant >> 1 & 1, child_octant >> 2]) * size / 2
            children.append([-1] * 8)
            parent.append(owner)
            level.append(depth + 1)
            corners.append(corners[owner] + offset)
        inside = index[where] >= 0
        node, cell, footprint = index[where][inside], cell[inside], footprint[inside]
    return Octree(
        torch.tensor(children, dtype=torch.int32),
        torch.tensor(parent, dtype=torch.int32),
        torch.tensor(level, dtype=torch.int32),
        torch.tensor(np.array(corners), dtype=torch.float32),
        float(root_size),
    )
