"""Where mip-NeRF looks along its rays: even intervals first, then more of them where the first found something.

Barron et al. 2021 (arXiv 2103.13415), section 3.3. Letters: n rays, k intervals, bounded by k + 1 fenceposts `t`.
"""

from __future__ import annotations

import torch
from torch import Tensor

LAST = 1 - torch.finfo(torch.float32).eps  # where the published code, exact or not, ends its uniform numbers
LEAST_SUM = 1e-5  # of weights: below, they are raised evenly


def even_fenceposts(
    near: float,
    far: float,
    k: int,
    disparity: bool = False,  # even in 1 / t
    uniform: Tensor | None = None,  # [n, k + 1] in [0, 1): each post's place between its neighbours' middles
    like: Tensor | None = None,  # whose type and device the result has
) -> Tensor:
    """Posts [n, k + 1] from `near` to `far`; without `uniform` the exact ones, [1, k + 1].

    >>> even_fenceposts(2, 6, 4).tolist()
    [[2.0, 3.0, 4.0, 5.0, 6.0]]
    """
    like = torch.zeros(()) if like is None else like
    s = torch.linspace(0, 1, k + 1, dtype=like.dtype, device=like.device)
    t = 1 / ((1 - s) / near + s / far) if disparity else near * (1 - s) + far * s
    if uniform is None:
        return t[None]
    middles = (t[1:] + t[:-1]) / 2
    low, high = torch.cat([t[:1], middles]), torch.cat([middles, t[-1:]])
    return low + (high - low) * uniform.to(t)


def blurred(weights: Tensor, padding: float) -> Tensor:
    """Weights [n, k] as the density of the next look: a two-tap maximum, then a two-tap mean, and `padding` for all
    (equation 17)."""
    padded = torch.cat([weights[:, :1], weights, weights[:, -1:]], 1)
    larger = torch.maximum(padded[:, :-1], padded[:, 1:])
    return (larger[:, :-1] + larger[:, 1:]) / 2 + padding


def resampled_fenceposts(
    t: Tensor,  # [n, k + 1] rising
    density: Tensor,  # [n, k] of at least 0, the same within each interval
    count: int,
    uniform: Tensor | None = None,  # [n, count] in [0, 1): jitter; None: the exact posts
) -> Tensor:
    """Posts [n, count] at even quantiles of a piecewise constant density, from the first of `t` to next to its last."""
    total = density.sum(-1, keepdim=True)
    lacking = (LEAST_SUM - total).clamp(min=0)
    density, total = density + lacking / density.shape[-1], total + lacking
    below = (density[:, :-1] / total).cumsum(-1).clamp(max=1)
    cdf = torch.cat([torch.zeros_like(total), below, torch.ones_like(total)], -1)
    if uniform is None:
        u = torch.linspace(0, LAST, count, dtype=t.dtype, device=t.device).expand(len(cdf), count)
    else:
        u = ((torch.arange(count, dtype=t.dtype, device=t.device) + uniform.to(t)) / count).clamp(max=LAST)
    last = cdf.shape[-1] - 1
    high = torch.searchsorted(cdf, u.contiguous(), right=True).clamp(1, last)
    t = t.expand(len(cdf), -1)
    c0, c1, t0, t1 = cdf.gather(1, high - 1), cdf.gather(1, high), t.gather(1, high - 1), t.gather(1, high)
    within = ((u - c0) / (c1 - c0)).nan_to_num(0.0).clamp(0, 1)
    return t0 + within * (t1 - t0)


def interval_weights(
    sigmas: Tensor,  # [n, k]
    t: Tensor,  # [n, k + 1]
    lengths: Tensor,  # [n] of the rays' directions
) -> Tensor:
    """What each interval adds to its ray's pixel: [n, k], transmittance times opacity (equation 4).

    >>> interval_weights(torch.tensor([[0.6931472, 99.0]]), torch.tensor([[0.0, 1.0, 2.0]]), torch.ones(1)).tolist()
    [[0.5, 0.5]]
    """
    optical = sigmas * (t[:, 1:] - t[:, :-1]) * lengths[:, None]
    before = torch.cat([torch.zeros_like(optical[:, :1]), optical[:, :-1].cumsum(-1)], -1)
    return torch.exp(-before) * -torch.expm1(-optical)
