"""Pictures that the `cuda` executor leaves on the device, each in memory of its own, for textures to be filled from."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from .device_picture import INTEGER, DevicePicture, PictureBuffers
from .gpu_buffers import IMAGE_WORDS
from .gpu_driver import Arena, GpuDriver

Region = tuple[int, int, int, int]
KEPT = 3  # arenas of one size that wait to be used again: one is shown, one is new, one is being made


class PicturePool:
    """Memory for pictures of one size: that of a picture which nobody holds any more is taken again.

    `allocate` and `fill` belong to the render thread; pictures may be let go in any.
    """

    def __init__(self, driver: GpuDriver) -> None:
        self._driver = driver
        self._lock = threading.RLock()  # letting a picture go may happen in the middle of `allocate`
        self._free: list[Arena] = []
        self._pixels = 0
        self._copies = driver.new_stream()

    def allocate(self, width: int, height: int) -> PictureBuffers:
        """Raises `GpuMemoryError`."""
        pixels = width * height
        with self._lock:
            if pixels != self._pixels:
                self._free.clear()
                self._pixels = pixels
            arena = self._free.pop() if self._free else None
        if arena is None:
            arena = Arena(self._driver, [(name, words * pixels) for name, words in IMAGE_WORDS.items()])
        addresses = {name: int(address) for name, address in arena.address.items()}

        def fetch(name: str) -> NDArray:
            return self._fetched(name, addresses[name], width, height)

        loan = _Loan(self, arena, pixels)
        return PictureBuffers(DevicePicture(self._driver.ordinal, width, height, addresses, fetch, owner=loan))

    def fill(self, picture: DevicePicture, image: Arena, region: Region) -> None:
        """Copies a region of the image that was rendered, on the driver's stream."""
        x0, y0, x1, y1 = region
        for name, words in IMAGE_WORDS.items():
            pitch, at = 4 * words * picture.width, 4 * words * (y0 * picture.width + x0)
            to, source = picture.addresses[name] + at, image.address[name] + at
            self._driver.copy_rows(to, pitch, source, pitch, 4 * words * (x1 - x0), y1 - y0, None)

    def _fetched(self, name: str, address: int, width: int, height: int) -> NDArray:
        words = IMAGE_WORDS[name]
        shape = (height, width, words) if words > 1 else (height, width)
        out = np.empty(shape, np.int32 if name in INTEGER else np.float32)
        self._driver.copy_rows(
            out.ctypes.data, out.nbytes, address, out.nbytes, out.nbytes, 1, to_host=True, stream=self._copies
        )
        self._driver.wait(self._driver.record(self._copies))
        return out

    def take_back(self, arena: Arena, pixels: int) -> None:
        """Called when a picture is let go."""
        with self._lock:
            if pixels == self._pixels and len(self._free) < KEPT:
                self._free.append(arena)

    def close(self) -> None:
        """Gives back what nobody holds; the rest goes with its pictures."""
        with self._lock:
            self._free.clear()
            self._pixels = 0


class _Loan:
    """What a picture owns: with it goes its claim on an arena."""

    def __init__(self, pool: PicturePool, arena: Arena, pixels: int) -> None:
        self._pool, self._arena, self._pixels = pool, arena, pixels

    def __del__(self) -> None:
        self._pool.take_back(self._arena, self._pixels)
