"""Occupancy grids as a checkpoint holds them: a bit a cell, 32 cells an int32 word, x fastest."""

from __future__ import annotations

import torch
from torch import Tensor


def pack_bits(cells: Tensor) -> Tensor:
    """Booleans [n, C] -> int32 words [n, C / 32], cell i in bit i % 32 of word i // 32.

    >>> pack_bits(torch.tensor([[True] + [False] * 30 + [True]])).tolist()
    [[-2147483647]]
    """
    bits = cells.view(len(cells), -1, 32).long() << torch.arange(32)
    words = bits.sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).int()


def unpack_bits(words: Tensor) -> Tensor:
    """int32 words [n, W] -> booleans [n, 32 W], bit i of a word is its cell i.

    >>> unpack_bits(torch.tensor([[-2147483647]], dtype=torch.int32))[0].nonzero()[:, 0].tolist()
    [0, 31]
    """
    return (words[..., None] >> torch.arange(32, dtype=torch.int32, device=words.device) & 1).bool().flatten(1)


def middle_half(cells: Tensor) -> Tensor:
    """The cells of a root's cube in the grid that a background shares with it: [..., r, r, r] -> [..., r/2, r/2, r/2]."""
    quarter = cells.shape[-1] // 4
    inner = slice(quarter, cells.shape[-1] - quarter)
    return cells[..., inner, inner, inner]
