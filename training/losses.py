"""Losses on composited pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_to_srgb(linear: Tensor) -> Tensor:
    """IEC 61966-2-1 transfer curve, differentiable at 0; inputs are clamped to [0, 1] from below only, so that
    gradients survive above.

    >>> [round(x, 4) for x in linear_to_srgb(torch.tensor([0.0, 0.001, 0.5, 1.0])).tolist()]
    [0.0, 0.0129, 0.7354, 1.0]
    """
    low = linear.clamp(min=0.0)
    return torch.where(low <= 0.0031308, 12.92 * low, 1.055 * low.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def over(premultiplied: Tensor, background: Tensor) -> Tensor:
    """RGBA [n, 4] premultiplied over an opaque background [n, 3] or [3]: [n, 3]."""
    return premultiplied[:, :3] + (1 - premultiplied[:, 3:]) * background


def encoded(rgba: Tensor, background: Tensor, color_space: str) -> Tensor:
    """What a person sees of premultiplied pixels: over the background, as display values [n, 3]."""
    color = over(rgba, background)
    return linear_to_srgb(color) if color_space == "linear" else color


def rgb_loss(
    prediction: Tensor, target: Tensor, background: Tensor, color_space: str, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean squared error of display values over random backgrounds, which teaches alpha as well.

    `weight` [n] multiplies each ray's error. Returns (loss, squared error [n], without the weights).
    """
    error = (encoded(prediction, background, color_space) - encoded(target, background, color_space)).square().mean(-1)
    return (error if weight is None else error * weight).mean(), error.detach()


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of values in [0, 1].

    >>> psnr(0.01)
    20.0
    """
    return float(-10 * torch.log10(torch.tensor(max(mse, 1e-12), dtype=torch.float64)))
