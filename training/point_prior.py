"""Where sparse points allow matter at all.

Points say where surfaces are long before density does: marching only near them keeps fog out of the air between the
cameras and the scene. How near follows from how many there are: a voxel grid as fine as the points around a place fill
it, so that a facade that few images saw keeps its cells although its roof has points by the hundred.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.infnerf import InfNeRF
from ..models.occupancy import middle_half

FINEST, COARSEST = 256, 16  # voxels along the root's edge
ENOUGH = 8  # points in 3 x 3 x 3 voxels. A surface that fills them so leaves one 3 x 3 window in 3000 empty


def voxels_near_points(local: Tensor) -> Tensor:
    """Voxels [FINEST, FINEST, FINEST] (z, y, x) that may hold matter. `local` [n, 3]: points in the root, [0, 1].

    Each point sets its voxel and the 26 around it, on the finest grid where those hold ENOUGH points.
    """
    allowed = torch.zeros(1, 1, FINEST, FINEST, FINEST)
    left = local[((local >= 0) & (local < 1)).all(-1)]
    everything, side = left, FINEST
    while len(left) and side >= COARSEST:
        voxel = _voxel_index(left, side)
        count = torch.bincount(_voxel_index(everything, side), minlength=side**3).float().view(1, 1, side, side, side)
        around = F.avg_pool3d(count, 3, stride=1, padding=1, divisor_override=1).view(-1)
        enough = (around[voxel] >= ENOUGH) | torch.tensor(side == COARSEST)
        here = torch.zeros(side**3)
        here[voxel[enough]] = 1
        here = F.max_pool3d(here.view(1, 1, side, side, side), 3, stride=1, padding=1)
        allowed = torch.maximum(allowed, F.interpolate(here, size=(FINEST, FINEST, FINEST)))
        left, side = left[~enough], side // 2
    return allowed[0, 0] > 0


def _voxel_index(local: Tensor, side: int) -> Tensor:
    voxel = (local * side).long()
    return (voxel[:, 2] * side + voxel[:, 1]) * side + voxel[:, 0]


def cells_in(model: InfNeRF, voxels: Tensor) -> Tensor:
    """Occupancy cells of every node that meet `voxels` [side, side, side] (z, y, x) of the root: [n_nodes, cells].

    All of a background, which points say nothing of.
    """
    octree, resolution = model.octree, model.config.occupancy_resolution
    grid = voxels[None, None].float()
    near = torch.zeros(octree.n_nodes, resolution, resolution, resolution, dtype=torch.bool)
    corners, axis = octree.local_corner(), torch.arange(resolution) + 0.5
    for level in range(octree.depth + 1):
        per_cell = len(voxels) // (resolution << level)  # voxels along the edge of a cell
        pooled = (F.max_pool3d(grid, per_cell) if per_cell > 1 else grid)[0, 0] > 0
        for node in (octree.level == level).nonzero()[:, 0].tolist():
            x, y, z = (((corners[node, i] + axis / (resolution << level)) * len(pooled)).long() for i in range(3))
            near[node] = pooled[z][:, y][:, :, x]
    if model.config.background:
        inner = middle_half(resolution)
        middle = F.max_pool3d(near[:1].float(), 2)[0] > 0
        near[0] = True
        near[0, inner, inner, inner] = middle
    return near.view(octree.n_nodes, -1)
