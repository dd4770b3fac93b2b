"""How the images of a pyramid share a budget of memory.

Everything stays if it fits, as half floats of linear light (8 bytes a pixel). Otherwise the coarsest scales stay for
all images, as many as half the budget holds, and the finer ones only for a working set of images, in slots of the
largest image's size; in those the file's own pixels are 4 bytes, exact and half the size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .masks import WORD, WORD_BYTES
from .ply import DatasetError

MAX_LOADERS = 4  # threads; a constant and not the machine's, for the size of the working set follows from it
_HALVES, _BYTES = 8, 4  # bytes a pixel


@dataclass(frozen=True)
class MemoryPlan:
    """What is kept of each scale, and how many images at a time.

    `resident[s]`: scale s is kept for all images. `n_live` images are in the working set, all of them if nothing
    rotates; `n_spare` more slots are being filled meanwhile, by `n_loaders` threads. `raw[s]`: slots of scale s hold
    the file's bytes.
    """

    resident: tuple[bool, ...]
    raw: tuple[bool, ...]
    n_live: int
    n_spare: int
    n_loaders: int
    slot_pixels: tuple[int, ...]  # pixels of a slot, by scale
    n_bytes: int  # everything together, with the loaders' working memory

    @property
    def n_slots(self) -> int:
        return self.n_live + self.n_spare

    @property
    def rotates(self) -> bool:
        return self.n_spare > 0


def plan_memory(
    pixels: NDArray[np.int64],  # [n_scales, n_images]
    raw: Sequence[bool],  # whether a scale's pixels are the file's own
    masked: bool,
    scratch: int,  # bytes that reading the largest image takes
    budget: int | None,  # bytes; None: no limit
) -> MemoryPlan:
    """The plan that keeps most. Raises `DatasetError` for a budget that holds no working set of two images.

    >>> pixels = np.array([[4000 * 3000] * 5000, [2000 * 1500] * 5000, [1000 * 750] * 5000, [500 * 375] * 5000])
    >>> plan = plan_memory(pixels, [True, False, False, False], False, 150_000_000, 24_000_000_000)
    >>> plan.resident, plan.n_live, plan.n_bytes <= 24_000_000_000
    ((False, False, False, True), 199, True)
    """
    n_scales, n_images = pixels.shape
    mask_pixels = -(-pixels // WORD) * WORD_BYTES * masked  # [n_scales, n_images] bytes
    whole = (pixels * _HALVES + mask_pixels).sum(1)
    largest = pixels.max(1)
    slots = largest * np.where(raw, _BYTES, _HALVES) + mask_pixels.max(1)
    if budget is None or whole.sum() + scratch <= budget:
        loaders = MAX_LOADERS if budget is None else min(MAX_LOADERS, int((budget - whole.sum()) // max(scratch, 1)))
        all_of_it = int(whole.sum()) + scratch * loaders
        everything = (True,) * n_scales
        return MemoryPlan(everything, (False,) * n_scales, n_images, 0, loaders, tuple(largest.tolist()), all_of_it)
    loaders = max(1, min(MAX_LOADERS, int(budget // 4 // (scratch + slots.sum()))))
    free = budget - scratch * loaders
    kept = 0  # coarsest scales that stay
    while kept < n_scales - 1 and whole[n_scales - kept - 1 :].sum() <= free / 2:
        kept += 1
    for n_kept in range(kept, -1, -1):
        rotating = n_scales - n_kept
        slot = int(slots[:rotating].sum())
        stay = int(whole[rotating:].sum())
        n_slots = int((free - stay) // slot)
        if n_slots >= min(3, n_images):
            spare = 0 if n_slots >= n_images else min(loaders, max(1, n_slots // 4))
            live = min(n_slots, n_images) - spare
            total = stay + slot * (live + spare) + scratch * loaders
            resident = tuple(s >= rotating for s in range(n_scales))
            slot_pixels = tuple(largest.tolist())
            return MemoryPlan(resident, tuple(map(bool, raw)), live, spare, loaders, slot_pixels, total)
    needed = scratch + int(slots.sum()) * min(3, n_images)
    raise DatasetError(
        f"budget_bytes: expected at least {needed} for a working set of {min(3, n_images)} images of this size, "
        f"found {budget}; raise it or train at a larger downscale"
    )
