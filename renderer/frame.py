"""The contract between executors and everything that wants pixels: request, buffers, statistics.

An executor knows nothing of windows. It writes the pixels of `request.region` into `out` and leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera

if TYPE_CHECKING:
    from .device_picture import DevicePicture

MAX_STEP_SCALE = 8.0
MAX_LEVEL = 31  # the deepest level a request can name; deeper trees are refused on loading


@dataclass(frozen=True, eq=False)
class RenderRequest:
    """What to render. Raises `ValueError` for values out of range."""

    camera: Camera
    region: tuple[int, int, int, int] | None = None  # x0, y0, x1, y1 in pixels, end exclusive; None: the whole image
    frame: int = 0  # 0: pixel centres, no jitter, the exact view; > 0: pixel, step and level jitter of that number
    lod_bias: float = 0.0  # levels; + is finer
    min_level: int = 0
    max_level: int = MAX_LEVEL
    step_scale: float = 1.0  # marching step in units of the selected level's GSD
    early_stop: float = 1e-3  # a ray ends when its transmittance falls below this

    def __post_init__(self) -> None:
        if not self.camera.is_pinhole:
            raise ValueError(
                "RenderRequest: only pinhole images are rendered, give Camera.pinhole() of a camera with a lens"
            )
        if not 0 <= self.min_level <= self.max_level <= MAX_LEVEL:
            raise ValueError(
                f"RenderRequest: levels must satisfy 0 <= min <= max <= {MAX_LEVEL}, "
                f"got {self.min_level}, {self.max_level}"
            )
        if not 0.125 <= self.step_scale <= MAX_STEP_SCALE:
            raise ValueError(f"RenderRequest: step_scale must be 0.125 to 8, got {self.step_scale}")
        if not -16 <= self.lod_bias <= 16:
            raise ValueError(f"RenderRequest: lod_bias must be -16 to 16, got {self.lod_bias}")
        if not 0 <= self.early_stop < 1 or self.frame < 0:
            raise ValueError("RenderRequest: early_stop must be in [0, 1) and frame at least 0")
        x0, y0, x1, y1 = self.bounds
        if not (0 <= x0 <= x1 <= self.camera.width and 0 <= y0 <= y1 <= self.camera.height):
            raise ValueError(
                f"RenderRequest: region {self.region} is not inside {self.camera.width}x{self.camera.height}"
            )

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        return self.region if self.region is not None else (0, 0, self.camera.width, self.camera.height)


@dataclass
class FrameBuffers:
    """All channels of one image, written in one pass. Numpy arrays, row 0 at the top, C-contiguous."""

    color: NDArray[np.float32]  # [H, W, 4] linear, premultiplied by alpha
    depth: NDArray[np.float32]  # [H, W] distance along the ray, world units, weighted mean; 0 where alpha is 0
    normal: NDArray[np.float32]  # [H, W, 3] world, unit or zero
    level: NDArray[np.float32]  # [H, W] mean level of the samples, weighted by their weights
    gsd_ratio: NDArray[np.float32]  # [H, W] log2(sample footprint / node GSD), weighted mean; < 0: coarser than asked
    samples: NDArray[np.float32]  # [H, W] samples taken
    node: NDArray[np.int32]  # [H, W] node of the heaviest sample, -1: none
    clamped: NDArray[np.float32]  # [H, W] share of the weight in clamped samples (the tree ends above the level asked)

    @staticmethod
    def allocate(width: int, height: int) -> FrameBuffers:
        """Empty buffers: everything 0, no node."""

        def zeros(*channels: int) -> NDArray[np.float32]:
            return np.zeros((height, width, *channels), np.float32)

        return FrameBuffers(
            zeros(4), zeros(), zeros(3), zeros(), zeros(), zeros(), np.full((height, width), -1, np.int32), zeros()
        )

    @property
    def width(self) -> int:
        return self.color.shape[1]

    @property
    def height(self) -> int:
        return self.color.shape[0]

    @property
    def device(self) -> DevicePicture | None:
        """The same pixels in a CUDA device's memory, if they were left there: `device_picture.PictureBuffers`."""
        return None

    def channels(self) -> dict[str, NDArray]:
        """Name -> array, in the order of CHANNELS."""
        return {name: getattr(self, name) for name in CHANNELS}


CHANNELS = ("color", "depth", "normal", "level", "gsd_ratio", "samples", "node", "clamped")


@dataclass
class RenderStats:
    """What one call did."""

    rays: int = 0
    samples: int = 0
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)  # stage name -> seconds
    node_samples: NDArray[np.int64] | None = None  # [n_nodes] samples answered by each node
    cancelled: bool = False  # true: part of the region was not written


class DeviceLost(RuntimeError):
    """The device that an executor renders on is gone: reset, unplugged, or a fault has poisoned its context.

    Nothing that was made on it works again in this process, so whoever catches this goes on with another executor; the
    message says in one sentence what happened. Running out of memory is not this.
    """


class Executor(Protocol):
    """Turns a request into buffers. Three exist: `torch`, `cpu`, `cuda` (see `renderer.executors`).

    `render` and `fill_normals` raise `DeviceLost` when the device is gone; `close` never does.
    """

    name: str

    @classmethod
    def supports(cls, model: Any) -> str | None:
        """None if this executor can render `model` on this machine, else one sentence that says why not."""
        ...

    def render(
        self, request: RenderRequest, out: FrameBuffers, cancelled: Callable[[], bool] = lambda: False
    ) -> RenderStats:
        """Writes `request.region` of `out`; polls `cancelled` at least every few milliseconds and returns early if
        true."""
        ...

    def fill_normals(self, camera: Camera, out: FrameBuffers, region: tuple[int, int, int, int]) -> None:
        """Writes the normals of a region that is rendered: `render` has done so already, but a pixel's normal looks at
        its neighbours, so an image made in pieces needs it once more as a whole."""
        ...

    def close(self) -> None: ...
