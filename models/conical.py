"""Mip-NeRF's rays: pieces of cones and cylinders as Gaussians, and what those are in a sinusoidal encoding.

Barron et al. 2021 (arXiv 2103.13415), section 3.1 and appendix. A ray is `origin + t * direction` with a direction of
length 1 / cos(angle to the camera's axis), so that t is the depth of a plane, the same for all rays of an image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: A pixel's cone has, where it meets the image plane, 2 / sqrt(12) of the pixels' spacing as its radius: its disc then
#: has the square pixel's variance, spacing**2 / 12 along x and along y (section 3.1).
RADIUS_OF_SPACING = 2 / math.sqrt(12)
LEAST_COSINE = 0.1  # of a ray's angle to the axis: a fisheye's rays that no plane in front meets end ten times as far


def plane_rays(
    rays_d: Tensor,  # [n, 3] unit
    cones: Tensor,  # [n] radius at unit distance: sqrt(solid angle / pi), as `Camera.pixel_rays` has it
    axis: Tensor,  # [n, 3] or [3] unit, the camera's forward axis
) -> tuple[Tensor, Tensor]:
    """Our rays as mip-NeRF has them: `directions` [n, 3] whose length makes t a depth, and `radii` [n] at t = 1.

    A pinhole's solid angle is `spacing**2 * cos**3`, `spacing**2 = 1 / (fx * fy)` being a pixel's area at depth 1: the
    radius is `2 / sqrt(12) * spacing`, one number for a whole image.

    >>> d, r = plane_rays(torch.tensor([[0.6, 0.0, 0.8]]), torch.tensor([0.8**1.5 / math.pi**0.5]), torch.eye(3)[2])
    >>> [round(x, 4) for x in d[0].tolist()], round(float(r) * 12**0.5, 4)
    ([0.75, 0.0, 1.0], 2.0)
    """
    cosine = (rays_d * axis).sum(-1).clamp(min=LEAST_COSINE)
    spacing = cones * math.sqrt(math.pi) / cosine**1.5
    return rays_d / cosine[..., None], spacing * RADIUS_OF_SPACING


def frustum_moments(t0: Tensor, t1: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of conical frusta between `t0` and `t1` whose cone has `radius` at t = 1: mean and variance of t, and variance of
    each coordinate across (equation 7, in the appendix's form that stays exact for short frusta)."""
    middle, half = (t0 + t1) / 2, (t1 - t0) / 2
    share = half**2 / (3 * middle**2 + half**2).clamp(min=1e-30)
    mean = middle + 2 * middle * share
    along = half**2 / 3 - (4 / 15) * share**2 * (12 * middle**2 - half**2)
    across = radius**2 * (middle**2 / 4 + half**2 * (5 / 12 - 4 / 15 * share))
    return mean, along, across


def cylinder_moments(t0: Tensor, t1: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `frustum_moments`, of cylinders of `radius`."""
    return (t0 + t1) / 2, (t1 - t0) ** 2 / 12, (radius**2 / 4).expand_as(t0)


def gaussians(
    t: Tensor,  # [n, k + 1] where the intervals begin and end
    origins: Tensor,  # [n, 3]
    directions: Tensor,  # [n, 3] of any length
    radii: Tensor,  # [n] at t = 1
    shape: str = "cone",  # or "cylinder"
) -> tuple[Tensor, Tensor]:
    """The pieces of rays as Gaussians in space: `means` [n, k, 3] and the diagonals of their covariances [n, k, 3]
    (equation 8; only these meet the encoding, equation 16)."""
    moments = frustum_moments if shape == "cone" else cylinder_moments
    t_mean, along, across = moments(t[:, :-1], t[:, 1:], radii[:, None])
    means = origins[:, None] + directions[:, None] * t_mean[..., None]
    squares = directions**2
    sideways = 1 - squares / squares.sum(-1, keepdim=True)
    return means, along[..., None] * squares[:, None] + across[..., None] * sideways[:, None]


def integrated_encoding(means: Tensor, variances: Tensor, min_deg: int, max_deg: int) -> Tensor:
    """The expectation of `sinusoids` over Gaussians: `means` and `variances` [..., 3] -> [..., 6 (max_deg - min_deg)]
    (equations 13 and 14)."""
    scales = torch.exp2(torch.arange(min_deg, max_deg, dtype=means.dtype, device=means.device))[:, None]
    shrink = torch.exp(-0.5 * variances[..., None, :] * scales**2).flatten(-2)
    angles = (means[..., None, :] * scales).flatten(-2)
    return torch.cat([shrink * angles.sin(), shrink * angles.cos()], -1)


def sinusoids(x: Tensor, min_deg: int, max_deg: int) -> Tensor:
    """The sines of 2**k x, k from `min_deg` to `max_deg` - 1, each of x, y, z in turn, then the cosines:
    [..., 3] -> [..., 6 (max_deg - min_deg)].

    >>> [round(y, 2) for y in sinusoids(torch.tensor([0.0, 1.0, 0.0]), 0, 2).tolist()]
    [0.0, 0.84, 0.0, 0.0, 0.91, 0.0, 1.0, 0.54, 1.0, 1.0, -0.42, 1.0]
    """
    return integrated_encoding(x, torch.zeros_like(x), min_deg, max_deg)
