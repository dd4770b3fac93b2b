"""Which images a process draws its rays from: all ranks know all cameras, and each reads some of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.dataset import Dataset, DatasetError
from ..data.pyramid import RayBatch


@dataclass(frozen=True, eq=False)
class Shard:
    """Some images of a data set."""

    data: Dataset  # these images alone
    images: Tensor  # [n] int64, their numbers in the whole set
    regions: list[NDArray[np.bool_]] | None = None  # [h, w] each: the tiles that are drawn from; None: all of them

    def renumbered(self, batch: RayBatch) -> RayBatch:
        """A batch drawn from `data` with the images' numbers in the whole set."""
        return replace(batch, image=self.images[batch.image])


def shard_of(data: Dataset, images: Sequence[int]) -> Shard:
    """The images of these numbers."""
    return Shard(data.select(images), torch.tensor(images, dtype=torch.int64))


def own_images(data: Dataset, rank: int, size: int) -> Shard:
    """Every `size`-th image, from `rank` on. Raises `DatasetError` where that leaves none."""
    if len(data) < size:
        raise DatasetError(f"{data.path}: expected an image for each of {size} ranks, found {len(data)}")
    return shard_of(data, range(rank, len(data), size))


def ray_seed(seed: int, rank: int, step: int) -> int:
    """Seed of the rays that a rank draws in a step: 32 bits, which is what torch's generator takes of one.

    >>> len({ray_seed(0, rank, step) for rank in range(4) for step in range(1000)})
    4000
    """
    mixed = 0
    for number in (seed, rank, step):
        mixed = (mixed ^ number) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
        mixed ^= mixed >> 29
    return mixed >> 32
