"""Colours for numbers, computed here and shared as one table by the numpy resolve step, the shader and the panels.

The tables are made in OKLab (Ottosson 2020), where equal steps look equal, and kept in linear sRGB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZE = 256  # entries of a table
ROWS = ("sequential", "diverging", "levels", "hues")  # rows of the texture
N_LEVEL_COLORS = 16  # distinct level colours; deeper levels begin again

#: Level 0 first: cold to warm over the levels that most trees have, then muted ones. None is near `CLAMPED`.
_LEVELS = (
    "3b3fa8 2f7fd6 22b6c4 2ca25f a6d13c f2c829 f28a1e d9352b "  # indigo, blue, cyan, green, lime, yellow, orange, red
    "8c1f45 c97f9a 8a5a3a c9a27a 5f6f80 a9bccb e6e6dc 5b2a86"  # wine, rose, brown, tan, slate, pale blue, chalk, purple
)
_SEQUENTIAL = "16103a 2b3f87 1f7a8c 3fae72 b6d44a fdf3b0"  # dark to light: depth, samples
_DIVERGING = "7a0c1e c8403a f2a582 f7f4f0 92bfe0 3a76bd 0f2f6b"  # coarser than the pixel, as fine, finer
_CLAMPED = "ff00ff"  # samples whose tree ends above the level asked


def srgb_encode(linear: NDArray) -> NDArray:
    """Linear light to display values (IEC 61966-2-1); values are clipped to 0..1.

    >>> round(float(srgb_encode(np.array(0.5))), 4)
    0.7354
    """
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.power(linear, 1 / 2.4) - 0.055)


def srgb_decode(encoded: NDArray) -> NDArray:
    """Display values to linear light, the inverse of `srgb_encode`; values are clipped to 0..1."""
    encoded = np.clip(encoded, 0.0, 1.0)
    return np.where(encoded <= 0.04045, encoded / 12.92, np.power((encoded + 0.055) / 1.055, 2.4))


def to_bytes(linear: NDArray) -> NDArray[np.uint8]:
    """Linear light to 8-bit display values, rounded as OpenGL rounds."""
    return (srgb_encode(linear) * 255 + 0.5).astype(np.uint8)


def lookup(row: str, position: NDArray) -> NDArray[np.float32]:
    """Linear colour [..., 3] at positions 0..1 of a table, interpolated, as the shader's `lookup` does."""
    at = np.clip(position, 0.0, 1.0) * (SIZE - 1)
    low = np.minimum(at.astype(np.intp), SIZE - 2)
    table = TABLES[row]
    return (table[low] + (table[low + 1] - table[low]) * (at - low)[..., None]).astype(np.float32)


def level_position(level: NDArray) -> NDArray:
    """Where a level lies in the table `levels`, whose entry k is level k's colour."""
    return level / (SIZE - 1)


def level_color(level: int) -> tuple[int, int, int]:
    """The colour of a level as sRGB bytes, for legends, bars and wireframes."""
    red, green, blue = to_bytes(TABLES["levels"][level]).tolist()
    return red, green, blue


def texture() -> NDArray[np.float32]:
    """All tables as one RGBA image [len(ROWS), SIZE, 4], for the shader's `lut`."""
    image = np.ones((len(ROWS), SIZE, 4), np.float32)
    image[..., :3] = [TABLES[row] for row in ROWS]
    return image


def _linear(codes: str) -> NDArray[np.float64]:
    """Hexadecimal sRGB colours, blank-separated, as linear [n, 3]."""
    return srgb_decode(np.array([list(bytes.fromhex(code)) for code in codes.split()]) / 255)


_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def _to_oklab(linear: NDArray) -> NDArray[np.float64]:
    return np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T


def _from_oklab(lab: NDArray) -> NDArray[np.float64]:
    return np.clip((lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_LMS).T, 0.0, 1.0)


def _gradient(codes: str) -> NDArray[np.float64]:
    """A smooth table through colours at equal distances."""
    stops = _to_oklab(_linear(codes))
    at = np.linspace(0, len(stops) - 1, SIZE)
    return _from_oklab(np.stack([np.interp(at, np.arange(len(stops)), stops[:, i]) for i in range(3)], axis=-1))


def _hues() -> NDArray[np.float64]:
    """Colours of similar weight for things without an order: hues by the golden angle, three lightnesses."""
    index = np.arange(SIZE)
    angle, lightness, chroma = index * 2.399963, 0.6 + 0.1 * (index % 3), 0.11
    return _from_oklab(np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], axis=-1))


TABLES: dict[str, NDArray[np.float32]] = {  # name -> [SIZE, 3] linear
    "sequential": _gradient(_SEQUENTIAL).astype(np.float32),
    "diverging": _gradient(_DIVERGING).astype(np.float32),
    "levels": np.resize(_linear(_LEVELS), (SIZE, 3)).astype(np.float32),
    "hues": _hues().astype(np.float32),
}
CLAMPED: NDArray[np.float32] = _linear(_CLAMPED)[0].astype(np.float32)  # linear
