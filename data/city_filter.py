"""Box-filtered pattern pieces: the mean of a pattern over a pixel's footprint, exact for stripes and rectangles.

All take positions `x` and footprint widths `w` in the pattern's own unit and return values the shape of `x`. What has
no cheap exact mean (noise, discs) fades to its average as the footprint passes the pattern's period, so nothing
aliases in coarse pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[Any]  # float32; numpy's stubs widen mixed arithmetic to float64

_MIN_WIDTH = 2e-4  # below this a difference of two float32 integrals is noise
_rng = np.random.default_rng(20240607)  # fixed: the grain of materials is not what a seed varies
_TABLE2 = _rng.uniform(-1, 1, (256, 256)).astype(np.float32)
_TABLE3 = _rng.uniform(-1, 1, (32, 32, 32)).astype(np.float32)


def pulse(x: Any, w: Any, lo: Any, hi: Any) -> Any:
    """The covered share of [x - w/2, x + w/2] by the stripes [k + lo, k + hi], k whole, 0 <= lo <= hi <= 1.

    Integrated pulse train: Apodaca and Gritz, Advanced RenderMan, section 11.2.

    >>> float(pulse(np.array([0.5]), np.array([1.0]), 0.25, 0.75)[0])
    0.5
    """
    w = np.maximum(w, _MIN_WIDTH)
    a, b = x - 0.5 * w, x + 0.5 * w
    fa, fb = np.floor(a), np.floor(b)
    inside = np.clip(b - fb, lo, hi) - np.clip(a - fa, lo, hi)
    return ((fb - fa) * (hi - lo) + inside) / w


def interval(x: Any, w: Any, lo: Any, hi: Any) -> Any:
    """The covered share of [x - w/2, x + w/2] by [lo, hi].

    >>> float(interval(np.array([0.0]), np.array([1.0]), 0.0, 9.0)[0])
    0.5
    """
    w = np.maximum(w, _MIN_WIDTH)
    return np.clip((np.minimum(x + 0.5 * w, hi) - np.maximum(x - 0.5 * w, lo)) / w, 0.0, 1.0)


def disc(distance: Any, w: Any, radius: Any) -> Any:
    """The covered share, about, of a footprint whose centre is `distance` from a disc's centre."""
    share = np.clip((radius - distance) / np.maximum(w, _MIN_WIDTH) + 0.5, 0.0, 1.0)
    return share * np.clip(2.0 * radius / np.maximum(w, _MIN_WIDTH), 0.0, 1.0)


def fade(w: Any, period: Any) -> Any:
    """How much of a random variation with cells of `period` is left in a footprint `w`: 1 when small, 0 from twice the
    period."""
    return np.clip(1.0 - 0.5 * w / period, 0.0, 1.0)


def cell_hash(i: Any, j: Any, seed: Any) -> F32:
    """A uniform number in [0, 1) for each whole (i, j, seed); integer mixing after PCG (Jarzynski and Olano 2020)."""
    with np.errstate(over="ignore"):
        a = np.asarray(i, np.int32).view(np.uint32) if np.ndim(i) else np.uint32(int(i) & 0xFFFFFFFF)
        b = np.asarray(j, np.int32).view(np.uint32) if np.ndim(j) else np.uint32(int(j) & 0xFFFFFFFF)
        c = np.asarray(seed).astype(np.int64).astype(np.uint32)
        state = a * np.uint32(1664525) + b * np.uint32(22695477) + c * np.uint32(2891336453) + np.uint32(1013904223)
        state ^= state >> np.uint32(15)
        state = state * np.uint32(747796405)
        state ^= state >> np.uint32(13)
        state = state * np.uint32(3266489917)
        state ^= state >> np.uint32(16)
    return (state >> np.uint32(8)).astype(np.float32) * np.float32(1 / 16777216)


def _smooth(f: F32) -> F32:
    return f * f * (3.0 - 2.0 * f)


def noise2(x: F32, y: F32, period: float, w: F32) -> F32:
    """Value noise in [-1, 1] of mean 0 with a lattice of `period`, faded by the footprint; repeats after 256
    periods."""
    x, y = x * np.float32(1 / period), y * np.float32(1 / period)
    fx, fy = np.floor(x), np.floor(y)
    i, j = fx.astype(np.int32) & 255, fy.astype(np.int32) & 255
    u, v = _smooth(x - fx), _smooth(y - fy)
    i1, j1 = (i + 1) & 255, (j + 1) & 255
    a = _TABLE2[i, j] * (1 - u) + _TABLE2[i1, j] * u
    b = _TABLE2[i, j1] * (1 - u) + _TABLE2[i1, j1] * u
    return (a * (1 - v) + b * v) * fade(w, period)


def noise3(x: F32, y: F32, z: F32, period: float, w: F32) -> F32:
    """Value noise in [-1, 1] of mean 0 in space, faded by the footprint; repeats after 32 periods."""
    scaled = [v * np.float32(1 / period) for v in (x, y, z)]
    floors = [np.floor(v) for v in scaled]
    low = [f.astype(np.int32) & 31 for f in floors]
    high = [(i + 1) & 31 for i in low]
    u, v, t = (_smooth(s - f) for s, f in zip(scaled, floors, strict=True))

    def plane(k: NDArray[np.int32]) -> F32:
        a = _TABLE3[low[0], low[1], k] * (1 - u) + _TABLE3[high[0], low[1], k] * u
        b = _TABLE3[low[0], high[1], k] * (1 - u) + _TABLE3[high[0], high[1], k] * u
        return a * (1 - v) + b * v

    return (plane(low[2]) * (1 - t) + plane(high[2]) * t) * fade(w, period)


def blend(under: F32, over: Any, cover: Any) -> F32:
    """`under` [m, 3] with `over` [3] or [m, 3] laid on it where `cover` [m] says."""
    cover = np.asarray(cover, np.float32)[..., None]
    return under + (np.asarray(over, np.float32) - under) * cover
