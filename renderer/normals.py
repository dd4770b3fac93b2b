"""Normals from the depth of the pixels around each pixel.

Torch twin of `cuda/normals.cuh`, whose header states the rule.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.camera import Camera
from .frame import FrameBuffers

RADIUS = 2  # px
TOLERANCE = 0.1  # of inverse depth, beyond which a neighbour shows something else
MIN_ALPHA = 0.5  # below it a pixel shows no surface


def fill_normals(camera: Camera, out: FrameBuffers, region: tuple[int, int, int, int]) -> None:
    """Writes `out.normal` of a region (x0, y0, x1, y1) whose depth and colour are written; looks at no other pixels."""
    x0, y0, x1, y1 = region
    if x0 < x1 and y0 < y1:
        depth, alpha = torch.from_numpy(out.depth[y0:y1, x0:x1]), torch.from_numpy(out.color[y0:y1, x0:x1, 3])
        out.normal[y0:y1, x0:x1] = normals_of_depth(depth, alpha, camera, (x0, y0)).numpy()


def normals_of_depth(
    depth: Tensor,  # [H, W] along rays, world units
    alpha: Tensor,  # [H, W]
    camera: Camera,
    corner: tuple[int, int] = (0, 0),  # px, where in the camera's image the first pixel is
) -> Tensor:
    """Unit normals [H, W, 3] towards the camera, in the world; zero where a pixel shows no surface.

    1 / z of a plane is affine in image coordinates; here it is fitted to 5 x 5 pixels with bisquare weights.
    """
    height, width = depth.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    x = (x + corner[0] - camera.cx).to(depth) / camera.fx
    y = (y + corner[1] - camera.cy).to(depth) / camera.fy
    seen = (depth > 0) & (alpha > MIN_ALPHA)
    inverse = torch.where(seen, torch.sqrt(x * x + y * y + 1) / torch.where(seen, depth, 1.0), 0.0)
    around = F.unfold(F.pad(inverse[None, None], [RADIUS] * 4), 2 * RADIUS + 1)[0].view(-1, height, width)
    error = around / torch.where(seen, inverse, 1.0) - 1
    offset = torch.arange(-RADIUS, RADIUS + 1).to(depth)
    dy, dx = (d.reshape(-1, 1, 1) for d in torch.meshgrid(offset, offset, indexing="ij"))
    middle, row = len(around) // 2, 2 * RADIUS + 1
    slopes = [_smaller_slope(error[middle - step], error[middle + step]) for step in (1, row)]
    off_plane = (error - slopes[0] * dx - slopes[1] * dy) / TOLERANCE
    weight = torch.where(around > 0, (1 - off_plane.square()).clamp(min=0).square(), 0.0)

    def total(value: Tensor) -> Tensor:
        return (weight * value).sum(0)

    n = weight.sum(0).clamp(min=1e-6)
    mx, my = total(dx) / n, total(dy) / n
    cxx, cyy = total(dx * dx) - n * mx * mx + 1e-3, total(dy * dy) - n * my * my + 1e-3
    cxy = total(dx * dy) - n * mx * my
    sum_error = total(error)
    cex, cey = total(error * dx) - sum_error * mx, total(error * dy) - sum_error * my
    determinant = cxx * cyy - cxy * cxy
    a = (cex * cyy - cey * cxy) / determinant * camera.fx
    b = (cey * cxx - cex * cxy) / determinant * camera.fy
    plane = torch.stack([a, b, 1 - a * x - b * y], -1)
    normal = -plane / plane.norm(dim=-1, keepdim=True) @ torch.from_numpy(camera.c2w[:3, :3].T.copy()).to(depth)
    return torch.where(seen[..., None], normal, 0.0)


def _smaller_slope(before: Tensor, after: Tensor) -> Tensor:
    """Per pixel, towards that of two neighbours which differs less: the other may be past an edge. -1: no surface."""
    far = torch.full_like(before, 1e9)
    down, up = torch.where(before > -1, -before, far), torch.where(after > -1, after, far)
    slope = torch.where(up.abs() < down.abs(), up, down)
    return torch.where(slope < far, slope, 0.0)
