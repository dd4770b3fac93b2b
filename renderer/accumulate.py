"""Averaging frames: each has its own jitter in pixel, step and level, and their mean has none of the three's seams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .frame import Executor, FrameBuffers, RenderRequest, RenderStats

#: Channels that describe the surface seen: their mean is weighted by each frame's alpha.
_SURFACE_CHANNELS = ("depth", "normal", "level", "gsd_ratio", "clamped")


class Accumulator:
    """The running mean of frames of one size.

    `color` and `samples` are plain means; `depth`, `normal`, `level`, `gsd_ratio` and `clamped` are weighted by alpha,
    and normals made unit again; `node` is the first frame's: a node number has no mean, and that frame has no jitter.
    The mean of one frame is that frame, bit for bit.
    """

    def __init__(self, width: int, height: int) -> None:
        self.count = 0
        self._mean = FrameBuffers.allocate(width, height)
        self._alpha = np.zeros((height, width), np.float32)  # sum over frames

    def add(self, frame: FrameBuffers) -> None:
        """Takes in one more frame; the caller may reuse it afterwards. Raises `ValueError` for another size."""
        if frame.color.shape != self._mean.color.shape:
            raise ValueError(
                f"Accumulator: frames must be {self._mean.width}x{self._mean.height}, got {frame.width}x{frame.height}"
            )
        self.count += 1
        if self.count == 1:
            self._mean.node[:] = frame.node
        _move(self._mean.color, frame.color, np.float32(1 / self.count))
        _move(self._mean.samples, frame.samples, np.float32(1 / self.count))
        alpha = frame.color[..., 3]
        self._alpha += alpha
        share = np.divide(alpha, self._alpha, out=np.zeros_like(alpha), where=self._alpha > 0)
        for name in _SURFACE_CHANNELS:
            mean = getattr(self._mean, name)
            _move(mean, getattr(frame, name), share[..., None] if mean.ndim == 3 else share)

    def mean(self) -> FrameBuffers:
        """A copy of the mean so far, the caller's to keep. Empty buffers before the first frame."""
        mean = copied(self._mean)
        if self.count > 1:
            length = np.linalg.norm(mean.normal, axis=-1, keepdims=True)
            np.divide(mean.normal, length, out=mean.normal, where=length > 0)
        return mean


def _move(mean: NDArray[np.float32], value: NDArray[np.float32], share: NDArray[np.float32] | np.float32) -> None:
    """`mean += (value - mean) * share`, in place."""
    step = value - mean
    step *= share
    mean += step


def render_accumulated(
    executor: Executor,
    request: RenderRequest,
    n: int,
    cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] | None = None,
) -> tuple[FrameBuffers, RenderStats]:
    """The mean of frames 0..n-1 of a request; n = 1 is the exact view.

    `progress` is called with the number of frames done. When cancelled, the mean of the frames done so far comes back
    and `stats.cancelled` is set. Raises `ValueError` for n < 1.
    """
    if n < 1:
        raise ValueError(f"render_accumulated: n must be at least 1, got {n}")
    width, height = request.camera.width, request.camera.height
    accumulator, frame, total = Accumulator(width, height), FrameBuffers.allocate(width, height), RenderStats()
    for number in range(n):
        stats = executor.render(replace(request, frame=number), frame, cancelled)
        add_stats(total, stats)
        if stats.cancelled:
            break
        accumulator.add(frame)
        if progress is not None:
            progress(number + 1)
    return accumulator.mean(), total


def add_stats(total: RenderStats, part: RenderStats) -> None:
    """Adds what one more call did to `total`, in place."""
    total.rays += part.rays
    total.samples += part.samples
    total.seconds += part.seconds
    for stage, seconds in part.stages.items():
        total.stages[stage] = total.stages.get(stage, 0.0) + seconds
    if part.node_samples is not None:
        total.node_samples = part.node_samples + (0 if total.node_samples is None else total.node_samples)
    total.cancelled |= part.cancelled


def copied(buffers: FrameBuffers) -> FrameBuffers:
    """The same picture in memory of its own."""
    return FrameBuffers(**{name: channel.copy() for name, channel in buffers.channels().items()})


def resampled(buffers: FrameBuffers, width: int, height: int) -> FrameBuffers:
    """The same picture on another grid, as a copy: colour bilinear, all else from the nearest pixel."""
    rows, columns = _positions(buffers.height, height), _positions(buffers.width, width)
    near_rows, near_columns = (np.floor(at + 0.5).astype(np.intp) for at in (rows, columns))
    channels = {
        name: channel.take(near_rows, axis=0).take(near_columns, axis=1)
        for name, channel in buffers.channels().items()
        if name != "color"
    }
    color = _interpolated(_interpolated(buffers.color, rows, 0), columns, 1)
    return FrameBuffers(color=color, **channels)


def _positions(old: int, new: int) -> NDArray[np.float64]:
    """Where the centres of `new` pixels lie among the centres of `old` ones, held inside."""
    return np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)


def _interpolated(image: NDArray[np.float32], at: NDArray[np.float64], axis: int) -> NDArray[np.float32]:
    low = np.floor(at).astype(np.intp)
    share = (at - low).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    left = image.take(low, axis=axis)
    right = image.take(np.minimum(low + 1, image.shape[axis] - 1), axis=axis)
    right -= left
    right *= share
    right += left
    return right
