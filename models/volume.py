"""Volume rendering on packed samples (Max 1995; NeRF eq. 3). Torch twin of `composite` in `cuda/trace.cuh`."""

from __future__ import annotations

import torch
from torch import Tensor


def ray_starts(ray_indices: Tensor, n_rays: int) -> Tensor:
    """`packed_info` [n_rays, 2] = (start, count) of samples that lie ray behind ray.

    >>> ray_starts(torch.tensor([0, 0, 2]), 3).tolist()
    [[0, 2], [2, 0], [2, 1]]
    """
    count = torch.bincount(ray_indices, minlength=n_rays)
    return torch.stack([count.cumsum(0) - count, count], -1)


def render_weights(
    sigmas: Tensor,  # [n_samples]
    dts: Tensor,  # [n_samples] interval lengths
    ray_indices: Tensor,  # [n_samples] int64, ascending, samples front to back
    n_rays: int,
    early_stop: float = 0.0,
    start: Tensor | None = None,  # [n_rays] transmittance the rays arrive with; None: 1
) -> tuple[Tensor, Tensor]:
    """`weights` [n_samples] = trans * alpha, and each sample's `trans` [n_samples] on arrival.

    A sample that a ray reaches with less than `early_stop` counts nothing. The sums run in float64, so that a long
    batch of rays does not blur the short ones.

    >>> w, trans = render_weights(torch.tensor([1.0, 1.0]), torch.tensor([0.6931472, 50.0]), torch.tensor([0, 0]), 1)
    >>> [round(x, 4) for x in w.tolist()], [round(x, 4) for x in trans.tolist()]
    ([0.5, 0.5], [1.0, 0.5])
    """
    optical = sigmas * dts
    capped = optical.double().clamp(max=50.0)  # e**-50 is nothing; a sum over all rays keeps its digits
    total = capped.cumsum(0)
    before = torch.cat([total.new_zeros(1), total])[ray_starts(ray_indices, n_rays)[:, 0]]
    trans = torch.exp(-(total - capped - before[ray_indices])).to(sigmas.dtype)
    if start is not None:
        trans = trans * start[ray_indices]
    trans = torch.where(trans >= early_stop, trans, torch.zeros_like(trans))
    return trans * -torch.expm1(-optical), trans


def accumulate(weights: Tensor, values: Tensor, ray_indices: Tensor, n_rays: int) -> Tensor:
    """Sum of `weights` [n_samples] times `values` [n_samples, c] over each ray. Returns [n_rays, c]."""
    out = torch.zeros(n_rays, values.shape[-1], dtype=values.dtype, device=values.device)
    return out.index_add(0, ray_indices, weights[:, None] * values)


def composite(
    sigmas: Tensor,  # [n_samples]
    rgb: Tensor,  # [n_samples, 3]
    dts: Tensor,  # [n_samples]
    ray_indices: Tensor,  # [n_samples] int64
    n_rays: int,
    early_stop: float = 0.0,
) -> Tensor:
    """Premultiplied RGBA [n_rays, 4] of packed samples."""
    weights, _ = render_weights(sigmas, dts, ray_indices, n_rays, early_stop)
    return accumulate(weights, torch.cat([rgb, torch.ones_like(sigmas)[:, None]], -1), ray_indices, n_rays)


def segment_rgba(sigmas: Tensor, rgb: Tensor, lengths: Tensor) -> Tensor:
    """Premultiplied RGBA [n, 4] of single samples [n] that are `lengths` [n] long, each alone on its ray."""
    alpha = 1 - torch.exp(-sigmas * lengths)
    return torch.cat([rgb * alpha[:, None], alpha[:, None]], -1)
