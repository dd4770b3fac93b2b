"""The pixels that training draws from: all of them if the budget allows, else a working set that rotates.

The order of rotation is one permutation of the images, drawn from a seed and gone round for ever; the working set is
the next `n_live` images of it, and moves on by one image every `rays_per_swap` rays. Every image is therefore in it
equally often, and what it holds depends on how many rays were drawn, never on how fast the disk is: threads fill spare
slots ahead, which are not drawn from, and a swap waits for its image.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from .masks import WORD, Region, coverage, lens_fills_image, n_words, pack_scales, select
from .memory_plan import plan_memory
from .pixels import PixelReader, premultiply
from .ply import DatasetError

if TYPE_CHECKING:
    from torch import Generator, Tensor

RAYS_PER_SWAP = 1 << 16


class ImageStore:
    """Pixels of every scale of every image, by `plan_memory`'s plan; a scale's live pixels lie in one flat array."""

    def __init__(
        self,
        files: Sequence[tuple[Path, Path | Region | None, Camera]],  # image, mask, camera at the file's size
        cameras: Sequence[Sequence[Camera]],  # [n_scales][n_images]
        reader: PixelReader,
        budget: int | None = None,  # bytes
        seed: int = 0,
        rays_per_swap: int = RAYS_PER_SWAP,
        report: Callable[[int, int], None] | None = None,  # images read, of how many
    ) -> None:
        """Reads every image once. Raises `DatasetError` for a budget that is too small, a file that can't be read or
        has another size than its camera, and masks that leave no pixel."""
        self.files, self.cameras, self.reader = files, cameras, reader
        self.n_images, self.n_scales = len(files), len(cameras)
        self.rays_per_swap = rays_per_swap
        sizes = np.array([[c.width * c.height for c in row] for row in cameras], np.int64)
        self.masked = any(mask is not None or not lens_fills_image(camera) for _, mask, camera in files)
        scratch = max(reader.scratch_bytes(c.width, c.height, self.masked) for _, _, c in files)
        raw = [s == 0 and reader.downscale * reader.ratios[0] == 1 for s in range(self.n_scales)]
        self.plan = plan_memory(sizes, raw, self.masked, scratch, budget)
        self._sizes = sizes
        self._allocate()
        self._order = np.random.default_rng(seed).permutation(self.n_images)
        self._drawn = 0
        self._closed = False
        self._pool = ThreadPoolExecutor(self.plan.n_loaders, "images")
        self._pending: deque[tuple[int, int, Future[list[int]]]] = deque()  # image, slot, its counts of pixels
        self._fill(0, range(self.n_images), report)
        if not self._counts[0].any():
            raise DatasetError(f"{files[0][0].parent}: expected masks that leave some pixel, found all of them masked")
        self._skip_masked()
        if not self.plan.rotates:
            self.close()

    def _allocate(self) -> None:
        """Numpy arrays, so that tracemalloc sees them, and torch's view of each."""
        import torch

        plan = self.plan
        self._pixels: list[NDArray] = []  # [n, 4] float16 or uint8
        self._masks: list[tuple[NDArray[np.int64], NDArray[np.int32]]] = []  # bits, before
        self._start = np.zeros((self.n_scales, self.n_images), np.int64)  # first pixel; -1: not live
        self._first_word = np.zeros((self.n_scales, self.n_images), np.int64)
        for s in range(self.n_scales):
            words = np.array([n_words(int(n)) for n in self._sizes[s]])
            if plan.resident[s]:
                n, n_mask = int(self._sizes[s].sum()), int(words.sum())
                self._start[s] = np.cumsum(self._sizes[s]) - self._sizes[s]
                self._first_word[s] = np.cumsum(words) - words
            else:
                n, n_mask = plan.n_slots * plan.slot_pixels[s], plan.n_slots * n_words(plan.slot_pixels[s])
                self._start[s] = -1
            self._pixels.append(np.empty((n, 4), np.uint8 if plan.raw[s] and not plan.resident[s] else np.float16))
            size = n_mask if self.masked else 0
            self._masks.append((np.empty(size, np.int64), np.empty(size, np.int32)))
        # a pixel's four numbers as one word: a random gather then moves whole pixels, three times as fast
        self._words = [
            torch.from_numpy(p.view(np.int32 if p.dtype == np.uint8 else np.int64)[:, 0]) for p in self._pixels
        ]
        self._mask_words = [(torch.from_numpy(bits), torch.from_numpy(before)) for bits, before in self._masks]
        self._table = torch.from_numpy(self.reader.table)
        self._counts = self._sizes.copy()  # [n_scales, n_images] pixels that count
        # the same memory as torch sees it
        self._t_start, self._t_counts = torch.from_numpy(self._start), torch.from_numpy(self._counts)
        self._t_first_word, self._t_sizes = torch.from_numpy(self._first_word), torch.from_numpy(self._sizes)
        self._live: list[Tensor | None] = [None] * self.n_scales  # images to draw from; None: all

    # --- filling ---

    def _place(self, image: int, slot: int | None, everything: bool) -> list[int] | None:
        """Reads an image into its slot, and into the resident scales where `everything` is asked for. Runs in a thread:
        touches nothing that is drawn from. Returns the pixels that count, by scale, where there are masks."""
        path, mask, camera = self.files[image]
        out: list[NDArray | None] = []
        masks: list[tuple[NDArray, NDArray]] = []
        for s in range(self.n_scales):
            size, words = int(self._sizes[s, image]), n_words(int(self._sizes[s, image]))
            bits, before = self._masks[s]
            if self.plan.resident[s]:
                start, word = int(self._start[s, image]), int(self._first_word[s, image])
                wanted = everything
            else:
                start = (slot or 0) * self.plan.slot_pixels[s]
                word = (slot or 0) * n_words(self.plan.slot_pixels[s])
                wanted = slot is not None
            out.append(self._pixels[s][start : start + size] if wanted else None)
            if self.masked and wanted:
                masks.append((bits[word : word + words], before[word : word + words]))
            elif self.masked:
                masks.append((np.empty(words, np.int64), np.empty(words, np.int32)))
        self.reader.read(path, (camera.width, camera.height), out)
        if not self.masked:
            return None
        factors = [self.reader.downscale * self.reader.ratios[0], *self.reader.ratios[1:]]
        return pack_scales(coverage(camera, mask), factors, self._sizes[:, image].tolist(), masks)

    def _fill(self, position: int, others: Sequence[int], report: Callable[[int, int], None] | None = None) -> None:
        """The working set as it is at `position`, everything of `others` read too, and the spare slots on their way."""
        self._wait()
        self._position = position
        window = {int(self._order[(position + j) % self.n_images]): j for j in range(self.plan.n_live)}
        first = len(others) > 0
        images = sorted({*window, *others})
        jobs = {self._pool.submit(self._place, i, window.get(i), first): i for i in images}
        try:
            for done, job in enumerate(as_completed(jobs)):
                counts = job.result()
                if counts is not None:
                    self._counts[:, jobs[job]] = counts
                if report is not None:
                    report(done + 1, len(images))
        except BaseException:  # the first bad file, or Ctrl-C: no point in reading the rest
            self._pool.shutdown(wait=True, cancel_futures=True)
            raise
        self._window = deque(window.items())
        for s in np.flatnonzero(~np.array(self.plan.resident)):
            self._start[s] = -1
        for image, slot in window.items():
            self._set_live(image, slot)
        for j in range(self.plan.n_spare):
            self._submit(int(self._order[(position + self.plan.n_live + j) % self.n_images]), self.plan.n_live + j)
        self._update_live()

    def _set_live(self, image: int, slot: int) -> None:
        for s in np.flatnonzero(~np.array(self.plan.resident)):
            self._start[s, image] = slot * self.plan.slot_pixels[s]
            self._first_word[s, image] = slot * n_words(self.plan.slot_pixels[s])

    def _submit(self, image: int, slot: int) -> None:
        self._pending.append((image, slot, self._pool.submit(self._place, image, slot, False)))  # type: ignore[arg-type]

    def _wait(self) -> None:
        while self._pending:
            self._pending.popleft()[2].result()

    def _update_live(self) -> None:
        """Which images each scale is drawn from: those in memory that have a pixel that counts, in the set's order."""
        import torch

        window = np.array([image for image, _ in self._window], np.int64)
        for s in range(self.n_scales):
            images = np.arange(self.n_images) if self.plan.resident[s] else window
            images = images[self._counts[s, images] > 0]
            everything = self.plan.resident[s] and len(images) == self.n_images
            self._live[s] = None if everything else torch.from_numpy(images)

    # --- rotation ---

    def _swap(self) -> None:
        """Moves the working set on by one image; waits for it if it is still being read."""
        image, slot, job = self._pending.popleft()
        counts = job.result()
        if counts is not None:
            self._counts[:, image] = counts
        old, freed = self._window.popleft()
        for s in np.flatnonzero(~np.array(self.plan.resident)):
            self._start[s, old] = -1
        self._window.append((image, slot))
        self._set_live(image, slot)
        self._position += 1
        coming = self._position + self.plan.n_live + self.plan.n_spare - 1
        self._submit(int(self._order[coming % self.n_images]), freed)
        self._update_live()

    def _skip_masked(self) -> None:
        """Goes on while the working set holds nothing but wholly masked images; some image has a pixel that counts."""
        while (live := self._live[0]) is not None and not len(live):
            self._swap()

    def advance(self, n_rays: int) -> None:
        """Counts rays about to be drawn, after the swaps that those drawn before are due."""
        if self.plan.rotates and not self._closed:
            while self._position < self._drawn // self.rays_per_swap:
                self._swap()
            self._skip_masked()
        self._drawn += n_rays

    @property
    def working_set(self) -> list[int]:
        """The images that fine scales are drawn from, oldest first."""
        return [image for image, _ in self._window]

    def state(self) -> dict[str, int]:
        """What `restore` needs to go on as if nothing had happened."""
        return {"drawn": self._drawn, "position": self._position}

    def restore(self, state: dict[str, int]) -> None:
        """Back to where `state` was taken, reading what the working set then held. Raises `ValueError` for numbers that
        no store gives."""
        drawn, position = state.get("drawn", -1), state.get("position", -1)
        if not all(isinstance(v, int) and 0 <= v < 1 << 62 for v in (drawn, position)):
            raise ValueError(f"ImageStore: a state is 'drawn' and 'position', whole numbers from 0, got {state}")
        self._drawn = drawn
        if self.plan.rotates and position != self._position:
            self._fill(position, ())

    def close(self) -> None:
        """Ends the threads. What is in memory can still be drawn from, but nothing rotates any more."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    # --- drawing ---

    def pick(self, s: int, n: int, generator: Generator | None = None) -> tuple[int, Tensor, Tensor]:
        """`n` random pixels that count, of images in memory, every image as likely as every other: the scale index (a
        finer one if masks leave nothing of scale s), images [n] and pixels [n]."""
        import torch

        live = self._live[s]
        if live is not None and not len(live):
            return self.pick(s - 1, n, generator)
        image = torch.randint(self.n_images if live is None else len(live), (n,), generator=generator)
        if live is not None:
            image = live.index_select(0, image)
        count = self._t_counts[s].index_select(0, image)
        unit = torch.rand(n, generator=generator, dtype=torch.float64)
        pixel = torch.minimum((unit * count).long(), count - 1)
        if self.masked:
            first = self._t_first_word[s].index_select(0, image)
            size = self._t_sizes[s].index_select(0, image)
            words = torch.div(size + WORD - 1, WORD, rounding_mode="floor")
            pixel = select(pixel, first, words, *self._mask_words[s])
        return s, image, pixel

    def rgba(self, s: int, image: Tensor, pixel: Tensor) -> Tensor:
        """Premultiplied colours [n, 4] float32 of pixels of images in memory. Raises `ValueError` for others."""
        import torch

        start = self._t_start[s].index_select(0, image)
        if not self.plan.resident[s] and bool((start < 0).any()):
            raise ValueError("ImagePyramid: these pixels are not in memory now, draw with sample_rays or use image()")
        words = self._words[s].index_select(0, start + pixel)
        if words.dtype == torch.int64:
            return words.view(torch.float16).view(-1, 4).float()
        values = words.view(torch.uint8).view(-1, 4).long()
        alpha = values[:, 3:].float() / 255
        return torch.cat([self._table[values[:, :3]] * alpha, alpha], dim=1)

    def image(self, s: int, index: int) -> NDArray[np.float32]:
        """One image at one scale, [H, W, 4] float32, premultiplied; read from its file if it is not in memory."""
        camera, size, start = self.cameras[s][index], int(self._sizes[s, index]), int(self._start[s, index])
        rows: NDArray
        if start >= 0:
            rows = self._pixels[s][start : start + size]
        else:
            rows = np.empty((size, 4), np.uint8 if self.plan.raw[s] else np.float16)
            path, _, whole = self.files[index]
            self.reader.read(
                path, (whole.width, whole.height), [rows if i == s else None for i in range(self.n_scales)]
            )
        values = premultiply(rows, self.reader.table) if rows.dtype == np.uint8 else rows.astype(np.float32)
        return values.reshape(camera.height, camera.width, 4)

    @property
    def nbytes(self) -> int:
        """Memory that pixels and masks take, spare slots included."""
        return sum(array.nbytes for array in (*self._pixels, *(a for pair in self._masks for a in pair)))
