"""Two pictures of one camera held against each other: wipe, side by side, signed difference, error map, PSNR.

Everything is computed on display values: sRGB bytes as `resolve` makes them and a screen shows them, which is what PSNR
measures. `shaders/compare.frag` is the twin of `difference_map` and `error_map`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import colormaps
from .colormaps import SIZE, lookup
from .resolve import SHADERS, Legend

#: How two pictures are shown; `flicker` only where time passes.
COMPARISONS = ("wipe", "side by side", "flicker", "difference", "error")
MAPS = ("difference", "error")  # those that show numbers, always of rgb
UNKNOWN = (0.02, 0.022, 0.028)  # linear: where one of the pictures has no pixel to compare

Picture = NDArray[np.uint8]  # [H, W, 3] sRGB


def difference_map(left: Picture, right: Picture, limit: float, known: NDArray[np.bool_] | None = None) -> Picture:
    """Left minus right, the mean of the channels: red below zero, blue above, full at `limit` (of 255)."""
    mean = (left.astype(np.float32) - right).mean(-1)
    return _painted(lookup("diverging", 0.5 + 0.5 * mean / np.float32(limit)), known)


def error_map(left: Picture, right: Picture, limit: float, known: NDArray[np.bool_] | None = None) -> Picture:
    """The absolute error, the mean of the channels: dark for none, light at `limit` (of 255).

    >>> error_map(np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 64, np.uint8), 64.0).tolist()
    [[[253, 243, 176]]]
    """
    mean = np.abs(left.astype(np.float32) - right).mean(-1)
    return _painted(lookup("sequential", mean / np.float32(limit)), known)


def _painted(linear: NDArray[np.float32], known: NDArray[np.bool_] | None) -> Picture:
    if known is not None:
        linear = np.where(known[..., None], linear, np.asarray(UNKNOWN, np.float32))
    return colormaps.to_bytes(linear)


def psnr(left: Picture, right: Picture, known: NDArray[np.bool_] | None = None) -> float | None:
    """Peak signal to noise ratio of the pixels [H, W] that are `known`, dB; infinite for equal ones, None without any.

    >>> round(psnr(np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 51, np.uint8)), 2)
    13.98
    """
    squares = ((left.astype(np.float64) - right) / 255) ** 2
    if known is not None:
        squares = squares[known]
    if not squares.size:
        return None
    error = float(squares.mean())
    return float(-10 * np.log10(error)) if error > 0 else float("inf")


def compose(mode: str, left: Picture, right: Picture, divider: float = 0.5, limit: float = 64.0) -> Picture:
    """One picture of two of the same size. `divider`: the share of the width that the wipe gives to the left one.

    Raises `ValueError` for a mode without a still picture and for pictures of different sizes.

    >>> black, white = np.zeros((1, 4, 3), np.uint8), np.full((1, 4, 3), 255, np.uint8)
    >>> compose("wipe", black, white, 0.25)[0, :, 0].tolist()
    [0, 255, 255, 255]
    """
    if left.shape != right.shape:
        raise ValueError(f"compose: both pictures must have one size, got {left.shape[:2]} and {right.shape[:2]}")
    if mode == "wipe":
        edge = round(divider * left.shape[1])
        return np.concatenate([left[:, :edge], right[:, edge:]], axis=1)
    if mode == "side by side":
        return np.concatenate([left, right], axis=1)
    if mode in MAPS:
        return (difference_map if mode == "difference" else error_map)(left, right, limit)
    raise ValueError(f"compose: mode must be one of wipe, side by side, {', '.join(MAPS)}, got {mode!r}")


def comparison_legend(mode: str, limit: float) -> Legend | None:
    """What the colours of a map mean, in display values of 255; None for modes that show the pictures themselves."""
    ramp, stops = np.linspace(0, 1, SIZE), (0.0, 0.25, 0.5, 0.75, 1.0)
    if mode == "difference":
        bar = colormaps.to_bytes(lookup("diverging", ramp))
        ticks = tuple((at, "0" if at == 0.5 else f"{(2 * at - 1) * limit:+.3g}") for at in stops)
        return Legend("left minus right, of 255", (), bar, ticks)
    if mode == "error":
        bar = colormaps.to_bytes(lookup("sequential", ramp))
        return Legend("absolute error, of 255", (), bar, tuple((at, f"{at * limit:.3g}") for at in stops))
    return None


def compare_shader() -> str:
    """GLSL of the fragment shader, with the numbers that both sides share put in."""
    defines = {f"MODE_{mode.upper()}": index for index, mode in enumerate(MAPS)}
    defines |= {f"ROW_{row.upper()}": index for index, row in enumerate(colormaps.ROWS)} | {"LUT_SIZE": SIZE}
    lines = "".join(f"#define {name} {value}\n" for name, value in defines.items())
    lines += f"#define UNKNOWN vec3({', '.join(map(str, UNKNOWN))})\n"
    first, _, rest = (SHADERS / "compare.frag").read_text(encoding="utf-8").partition("\n")
    return f"{first}\n{lines}#line 2\n{rest}"
