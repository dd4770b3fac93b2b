"""Occupancy grids as a checkpoint holds them: a bit a cell, 32 cells an int32 word, x fastest."""

from __future__ import annotations

import torch
from torch import Tensor


def pack_bits(cells: Tensor) -> Tensor:
    """Booleans [n, C] -> int32 words [n, C / 32], cell i in bit i % 32 of word i // 32.

    >>> pack_bits(torch.tensor([[True] + [False] * 30 + [True]])).tolist()
    [[-2147483647]]
    """
    bits = cells.unflatten(1, (cells.shape[1] // 32, 32)).long() << torch.arange(
        32, device=cells.device
    )  # no -1: unknown of no rows
    words = bits.sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).int()


def unpack_bits(words: Tensor) -> Tensor:
    """int32 words [n, W] -> booleans [n, 32 W], bit i of a word is its cell i.

    >>> unpack_bits(torch.tensor([[-2147483647]], dtype=torch.int32))[0].nonzero()[:, 0].tolist()
    [0, 31]
    """
    return (words[..., None] >> torch.arange(32, dtype=torch.int32, device=words.device) & 1).bool().flatten(1)


def middle_half(resolution: int) -> slice:
    """The cells along an axis of a root's grid that are its cube, where a background shares it."""
    return slice(resolution // 4, resolution - resolution // 4)


def cube_cells(cells: Tensor) -> Tensor:
    """The cells [..., r, r, r] of a root's grid that a background shares, over the root's cube alone: its middle half,
    each cell eight times."""
    inner = middle_half(cells.shape[-1])
    middle = cells[..., inner, inner, inner]
    return middle.repeat_interleave(2, -1).repeat_interleave(2, -2).repeat_interleave(2, -3)
