"""What goes into the progressive renderer, a view, and what comes out, a picture of one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..models.camera import Camera
from .frame import MAX_LEVEL, FrameBuffers, RenderRequest, RenderStats


@dataclass(frozen=True, eq=False)
class View:
    """What the window shows: a camera at full window size and the level-of-detail settings of `RenderRequest`."""

    camera: Camera
    lod_bias: float = 0.0
    min_level: int = 0
    max_level: int = MAX_LEVEL
    step_scale: float = 1.0
    moving: bool = False  # hint: a drag or a key is held, so don't settle although nothing changes just now

    def shows_same(self, other: View | None) -> bool:
        """Whether both views give the same picture (cameras compared by value, the hint left out)."""
        if other is None:
            return False
        mine, theirs = vars(self.camera).copy(), vars(other.camera).copy()
        return np.array_equal(mine.pop("c2w"), theirs.pop("c2w")) and (
            (mine, self.lod_bias, self.min_level, self.max_level, self.step_scale)
            == (theirs, other.lod_bias, other.min_level, other.max_level, other.step_scale)
        )

    def request(self, scale: float, frame: int = 0) -> RenderRequest:
        """The request for this view with the window's edges scaled."""
        camera = self.camera
        width, height = (max(1, round(edge * scale)) for edge in (camera.width, camera.height))
        return RenderRequest(
            camera if (width, height) == (camera.width, camera.height) else camera.resized(width, height),
            frame=frame,
            lod_bias=self.lod_bias,
            min_level=self.min_level,
            max_level=self.max_level,
            step_scale=self.step_scale,
        )


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A picture for the window. Its buffers are never written again."""

    buffers: FrameBuffers
    view: View  # the view it shows, which may be older than the one asked for
    width: int  # px of the buffers
    height: int
    scale: float  # of the window's edge
    state: str  # the state that made it
    accumulated: int  # frames averaged in it; 0: coarse or partly coarse
    sequence: int  # grows by one with each snapshot
    stats: RenderStats  # of the frame, or of its part done so far
    frame_ms: float  # ms that this took
