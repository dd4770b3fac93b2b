"""Pictures that stay in a CUDA device's memory, and which device that should be. Nothing of CUDA is imported here.

An executor that can leave its pixels on the device has a method `allocate(width, height) -> PictureBuffers`; `render`
into such buffers copies nothing to the host. Whoever draws them (`interop`) takes the pixels from the device, and
whoever reads a channel as an array gets it fetched then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .frame import CHANNELS, Executor, FrameBuffers

COMPONENTS = {"color": 4, "normal": 3}  # of a channel's pixel; 1 where it is not named
INTEGER = {"node"}


@dataclass(frozen=True, eq=False)
class DevicePicture:
    """The channels of one picture as `FrameBuffers` has them, contiguous, in a device's memory.

    While anybody holds it, its memory stays and nobody writes it but the `render` that it was allocated for: an
    executor gives each picture memory of its own.
    """

    device: int  # CUDA ordinal
    width: int  # px
    height: int
    addresses: Mapping[str, int]  # channel -> device address
    fetch: Callable[
        [str], NDArray
    ]  # channel -> a copy on the host, from any thread, waiting for no other picture's work
    ready: int = 0  # cudaEvent_t recorded after the last write; 0: complete when `render` returned
    owner: Any = None  # what keeps the memory


class PictureBuffers(FrameBuffers):
    """A picture on a device, as `FrameBuffers`: a channel comes to the host when it is first read.

    Should that fail, the device is lost: the channel reads as empty, and the renderer says so with its next picture.
    """

    def __init__(self, picture: DevicePicture) -> None:
        self.picture = picture

    @property
    def device(self) -> DevicePicture:
        return self.picture

    def __getattr__(self, name: str) -> NDArray:
        """Called for what is not there yet."""
        if name not in CHANNELS:
            raise AttributeError(name)
        try:
            channel = self.picture.fetch(name)
        except Exception:
            channel = getattr(FrameBuffers.allocate(self.width, self.height), name)
        setattr(self, name, np.ascontiguousarray(channel))
        return self.__dict__[name]

    @property
    def width(self) -> int:
        return self.picture.width

    @property
    def height(self) -> int:
        return self.picture.height


def allocate(executor: Executor, width: int, height: int) -> FrameBuffers:
    """Empty buffers for a picture that `executor` makes in one call and nobody averages: its own kind if it has one."""
    return getattr(executor, "allocate", FrameBuffers.allocate)(width, height)


_preferred: int | None = None


def prefer_device(ordinal: int | None) -> None:
    """Executors that are made from now on render on this CUDA device: the one that draws the window. None: any."""
    global _preferred
    _preferred = ordinal


def preferred_device() -> int | None:
    """What `prefer_device` was last told."""
    return _preferred
