"""What lies around the root cube, in the root's own grid (mip-NeRF 360, Barron et al. 2022, eq. 10, with the L-infinity
norm, so that the contracted world is a cube).

With a background the root's grid spans twice its cube: the middle half of it along each axis is the cube, the rest all
of space around it. Positions in a node's grid are called grid positions; they are positions in the node's cube for
every node but such a root. Torch twin of `cuda/contraction.cuh`.

A ray leaves the cube at `t_out` and then takes BACKGROUND_STEPS steps, evenly spaced in s, where
`t = t_out + reach * s / (1 - s)` and `reach` is half the root's edge: so a ray from the cube's centre takes steps of
equal length in contracted space. Their `dt` is that length: density out there is per contracted unit.
"""

from __future__ import annotations

import torch
from torch import Tensor

BACKGROUND_STEPS = 64
LAST_S = 1 - 0.25 / BACKGROUND_STEPS  # a ray ends BACKGROUND_STEPS * 4 - 1 reaches beyond the cube


def cube_to_grid(node: Tensor, cube: Tensor) -> Tensor:
    """Positions in the cubes [n, 3] of nodes [n] -> grid positions there, where the root has a background."""
    return torch.where((node == 0)[:, None], 0.25 + 0.5 * cube, cube)


def contract(local: Tensor) -> Tensor:
    """Root-local positions [n, 3], [0, 1] in the cube -> grid positions in [0, 1] of a root with a background.

    >>> contract(torch.tensor([[0.5, 0.0, 1.0], [0.5, 0.5, 2.5]])).tolist()
    [[0.5, 0.25, 0.75], [0.5, 0.5, 0.9375]]
    """
    centred = 2 * local - 1
    norm = centred.abs().amax(-1, keepdim=True).clamp(min=1.0)
    return 0.5 + 0.25 * centred * ((2 - 1 / norm) / norm)


def background_edges(offset: Tensor) -> Tensor:
    """Where background steps begin and end, as s: [n_rays, BACKGROUND_STEPS + 2]. `offset` [n_rays] in [0, 1) moves
    them."""
    j = torch.arange(BACKGROUND_STEPS + 2, device=offset.device).to(offset)
    return ((j - offset[:, None]) / BACKGROUND_STEPS).clamp(0.0, LAST_S)


def background_t(s: Tensor, t_out: Tensor, reach: float) -> Tensor:
    """Distance along the ray at s, world units."""
    return t_out + reach * s / (1 - s)
