"""Where a scene holds nothing at all: occupancy of every node and level in one pyramid of voxels over the root.

A long step is empty if no voxel around its middle is set; marching in torch passes over such steps without looking at
each node on the way (the kernels leave empty cells one by one instead).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .occupancy import cube_cells, unpack_bits
from .octree import Octree

VOXELS = 128  # at most, along the root's edge
NODES_AT_ONCE = 256


class EmptySpace:
    """Conservative: what it calls empty holds no occupied cell of any node, whichever level is asked for."""

    def __init__(self, octree: Octree, occupancy: Tensor, resolution: int, background: bool = False) -> None:
        """`occupancy` [n_nodes, W] int32, `resolution` cells along a node's edge, `background` as in a checkpoint: it
        says nothing of what lies around the cube."""
        side = resolution
        while side * 2 <= min(VOXELS, resolution << octree.depth):
            side *= 2
        self.side = side
        grid = torch.zeros(1, 1, side, side, side)
        for level in range(octree.depth + 1):
            cells = _level_grid(octree, occupancy, resolution, level, side, background)
            grid = torch.maximum(grid, F.interpolate(cells, size=(side, side, side)))
        mips = []
        while True:
            mips.append(F.max_pool3d(grid, 3, stride=1, padding=1)[0, 0] > 0)
            if grid.shape[-1] == 1 or grid.shape[-1] % 2:
                break
            grid = F.max_pool3d(grid, 2)
        self._sides = torch.tensor([len(mip) for mip in mips])
        self._starts = torch.tensor([0, *[mip.numel() for mip in mips[:-1]]]).cumsum(0)
        self._cells = torch.cat([mip.flatten() for mip in mips])

    def matter_within(self, position: Tensor, distance: Tensor) -> Tensor:
        """False where every point within `distance` [n] of root-local `position` [n, 3] is in empty space: [n] bool."""
        voxels = (distance * (self.side * 1.001)).clamp(min=1e-6)
        mip = torch.log2(voxels).ceil().long().clamp(min=0)
        far = mip >= len(self._sides)
        mip = mip.clamp(max=len(self._sides) - 1)
        side = self._sides[mip]
        x, y, z = (torch.minimum((position[:, i].clamp(0, 1) * side).long(), side - 1) for i in range(3))
        return self._cells[self._starts[mip] + (z * side + y) * side + x] | far


def _level_grid(octree: Octree, occupancy: Tensor, resolution: int, level: int, side: int, background: bool) -> Tensor:
    """Cells that a level's nodes occupy, in a grid over the root no finer than `side`: [1, 1, s, s, s], 0 or 1."""
    s = min(side, resolution << level)
    per_node = s >> level  # 0: the node is smaller than a voxel
    out = torch.zeros(s**3)
    corner = octree.local_corner()
    for nodes in (octree.level == level).nonzero()[:, 0].split(NODES_AT_ONCE):
        cells = unpack_bits(occupancy[nodes]).float().view(-1, 1, resolution, resolution, resolution)
        if background and level == 0:
            cells = cube_cells(cells)
        cells = F.max_pool3d(cells, resolution // max(per_node, 1))
        node, _, z, y, x = cells.nonzero().unbind(1)
        first = (corner[nodes] * s).floor().long()[node]
        out[((z + first[:, 2]) * s + y + first[:, 1]) * s + x + first[:, 0]] = 1
    return out.view(1, 1, s, s, s)
