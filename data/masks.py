"""Which pixels of an image count: a mask image, and what its lens shows; and random pixels among those that do.

A scale's mask is one bit a pixel in words of 64, with the number of set bits before each word: three sixteenths of a
byte a pixel whatever the mask, and the k-th pixel that counts is a bisection away, so that nothing is ever rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from .pixels import read_mask

if TYPE_CHECKING:
    from torch import Tensor

WORD = 64  # pixels
WORD_BYTES = 8 + 4  # the bits, and the count before them
_ROWS = 64  # of a lens looked at together


def n_words(pixels: int) -> int:
    """Words that the mask of so many pixels takes.

    >>> n_words(64), n_words(65)
    (1, 2)
    """
    return -(-pixels // WORD)


def lens_fills_image(camera: Camera) -> bool:
    """Whether the lens shows something at every pixel. What it shows is one connected region, so the border tells."""
    return camera.is_pinhole or _fills(_intrinsics(camera))


@dataclass(frozen=True, eq=False)
class Region:
    """A mask that leaves out more than its file does: only some tiles of the image count."""

    file: Path | None
    tiles: NDArray[np.bool_]  # [h, w], over the whole image

    def read(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """[H, W] of the pixels that count, for an image of this width and height."""
        (h, w), (width, height) = self.tiles.shape, size
        inside = self.tiles[np.arange(height) * h // height][:, np.arange(width) * w // width]
        return inside if self.file is None else inside & read_mask(self.file, size)


def coverage(camera: Camera, mask: Path | Region | None) -> NDArray[np.bool_] | None:
    """[H, W] of the pixels that count, None where all do. Raises `DatasetError` as `read_mask` does."""
    size = camera.width, camera.height
    if isinstance(mask, Region):
        counts = mask.read(size)
    else:
        counts = None if mask is None else read_mask(mask, size)
    if lens_fills_image(camera):
        return counts
    shown = np.unpackbits(_shown(_intrinsics(camera)), count=size[0] * size[1]).view(bool).reshape(size[1], size[0])
    return shown if counts is None else counts & shown


def box_all(mask: NDArray[np.bool_], factor: int) -> NDArray[np.bool_]:
    """A coarse pixel counts only where every pixel that it covers does: a part would not be the pixel's mean.

    >>> box_all(np.array([[True, True, True], [True, True, False]]), 2).tolist()
    [[True]]
    """
    height, width = mask.shape[0] // factor, mask.shape[1] // factor
    result = np.ones((height, width), bool)
    for y in range(factor):
        for x in range(factor):
            result &= mask[y : height * factor : factor, x : width * factor : factor]
    return result


def pack(mask: NDArray[np.bool_] | None, pixels: int, bits: NDArray[np.int64], before: NDArray[np.int32]) -> int:
    """Writes a mask (None: all count) of `pixels` into [n_words] arrays. Returns how many pixels count."""
    full = np.zeros(len(bits) * WORD, bool)
    full[:pixels] = True if mask is None else mask.ravel()
    bits[:] = np.packbits(full, bitorder="little").view(np.int64)
    ends = full.reshape(-1, WORD).sum(1, dtype=np.int64).cumsum()
    before[0], before[1:] = 0, ends[:-1]
    return int(ends[-1])


def pack_scales(
    mask: NDArray[np.bool_] | None, factors: Sequence[int], sizes: Sequence[int], out: Sequence[tuple[NDArray, NDArray]]
) -> list[int]:
    """Packs the mask of a file at every scale: `factors` each below the one before, `sizes` in pixels, `out` the
    arrays of `pack`. Returns how many pixels count."""
    counts = []
    for factor, pixels, (bits, before) in zip(factors, sizes, out, strict=True):
        mask = None if mask is None else box_all(mask, factor)
        counts.append(pack(mask, pixels, bits, before))
    return counts


def select(
    rank: Tensor,  # [n] int64, which of the pixels that count, from 0
    first: Tensor,  # [n] int64, first word of the image
    words: Tensor,  # [n] int64, words of the image
    bits: Tensor,  # [n_words] int64
    before: Tensor,  # [n_words] int32
) -> Tensor:
    """The pixels [n] int64 of an image that have the given ranks among those that count."""
    import torch

    low, high = first.clone(), first + words  # the last word in [low, high) with before <= rank
    for _ in range(int(words.max()).bit_length() if len(words) else 0):
        middle = torch.div(low + high, 2, rounding_mode="floor")
        below = before.index_select(0, middle) <= rank
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    rank = rank - before.index_select(0, low)
    octets = bits.index_select(0, low).view(torch.uint8).view(-1, 8).long()
    counts, positions = _octet_tables()
    ends = counts[octets].cumsum(1)
    octet = (ends <= rank[:, None]).sum(1)  # the byte with the bit
    chosen = octets.gather(1, octet[:, None])[:, 0]
    rank = rank - (ends.gather(1, octet[:, None])[:, 0] - counts[chosen])
    return (low - first) * WORD + octet * 8 + positions[chosen, rank]


@lru_cache(maxsize=1)
def _octet_tables() -> tuple[Tensor, Tensor]:
    """The number of set bits of a byte [256], and where its r-th set bit is [256, 8]."""
    import torch

    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    positions = np.argsort(1 - bits.astype(np.int64), axis=1, kind="stable")
    return torch.from_numpy(bits.sum(1, dtype=np.int64)), torch.from_numpy(positions)


_Intrinsics = tuple[float, float, float, float, int, int, tuple[float, ...], str]


def _intrinsics(camera: Camera) -> _Intrinsics:
    """The camera without its pose: most captures have a few of these."""
    c = camera
    return c.fx, c.fy, c.cx, c.cy, c.width, c.height, c.distortion, c.lens


@lru_cache(maxsize=8192)
def _fills(intrinsics: _Intrinsics) -> bool:
    camera = Camera(np.eye(4), *intrinsics)
    x, y = np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5
    border_x = np.concatenate([x, x, np.full(len(y), 0.5), np.full(len(y), camera.width - 0.5)])
    border_y = np.concatenate([np.full(len(x), 0.5), np.full(len(x), camera.height - 0.5), y, y])
    return bool(camera.pixel_valid(border_x, border_y).all())


@lru_cache(maxsize=8)
def _shown(intrinsics: _Intrinsics) -> NDArray[np.uint8]:
    """The bits [H * W / 8] of the pixels at which a lens shows something."""
    camera = Camera(np.eye(4), *intrinsics)
    x = np.arange(camera.width) + 0.5
    shown = np.empty((camera.height, camera.width), bool)
    for top in range(0, camera.height, _ROWS):
        y = np.arange(top, min(top + _ROWS, camera.height)) + 0.5
        shown[top : top + len(y)] = camera.pixel_valid(np.tile(x, len(y)), y.repeat(len(x))).reshape(len(y), len(x))
    return np.packbits(shown)
