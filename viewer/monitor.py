"""What the statistics and level panels show, worked out once per new picture and never per frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..renderer.scheduler import Snapshot
from .scene import LoadedScene

HISTORY = 180  # values in the plots


class History:
    """The last values of a number, oldest first.

    >>> history = History(3)
    >>> for value in (1, 2, 3, 4): history.add(value)
    >>> history.values().tolist()
    [2.0, 3.0, 4.0]
    """

    def __init__(self, length: int = HISTORY) -> None:
        self.length = length
        self._values = np.zeros(length)
        self._next = 0

    def add(self, value: float) -> None:
        self._values[self._next] = value
        self._next = (self._next + 1) % self.length

    def values(self) -> NDArray[np.float64]:
        return np.roll(self._values, -self._next)


@dataclass(frozen=True)
class Usage:
    """Nodes that answered samples of a picture, per level."""

    active: list[int]


@dataclass
class Monitor:
    """Figures about the window and the renderer."""

    snapshot: Snapshot | None = None  # of the present scene
    usage: Usage | None = None
    state: str = "idle"  # the scheduler's
    reference: float = 1.0  # world distance that flying speed follows
    window_ms: float = 0.0  # the window thread's work on the last frame
    window_history: History = field(default_factory=History)
    render_history: History = field(default_factory=History)

    def window_frame(self, ms: float) -> None:
        """Takes in the window thread's time of one frame."""
        self.window_ms = ms
        self.window_history.add(ms)

    def picture(self, snapshot: Snapshot, scene: LoadedScene) -> None:
        """Takes in a new picture of `scene`."""
        self.snapshot = snapshot
        self.render_history.add(snapshot.frame_ms)
        self.usage = usage(snapshot, scene) or self.usage

    def forget(self) -> None:
        """Another scene: what was measured on the old one does not count."""
        self.snapshot, self.usage = None, None

    def progress(self, max_frames: int) -> str:
        """The scheduler's state in words."""
        done = self.snapshot.accumulated if self.snapshot is not None else 0
        if self.state == "refining" or (self.state == "idle" and done):
            return f"{self.state}, {min(done, max_frames)} of {max_frames} samples"
        return self.state


def usage(snapshot: Snapshot, scene: LoadedScene) -> Usage | None:
    """Active nodes per level of a picture; None if its executor does not count them."""
    samples = snapshot.stats.node_samples
    if samples is None or len(samples) != len(scene.levels):
        return None
    counts = np.bincount(scene.levels[np.asarray(samples) > 0], minlength=len(scene.level_counts))
    return Usage(counts.tolist())


def picker(snapshot: Snapshot | None, size: tuple[int, int]) -> Callable[[float, float], float | None]:
    """Distance of the scene along the ray through a position (px of a scene of `size`), None where there is nothing."""

    def pick(x: float, y: float) -> float | None:
        if snapshot is None or not (0 <= x < size[0] and 0 <= y < size[1]):
            return None
        column = min(int(x / size[0] * snapshot.width), snapshot.width - 1)
        row = min(int(y / size[1] * snapshot.height), snapshot.height - 1)
        if snapshot.buffers.color[row, column, 3] < 0.1:
            return None
        distance = float(snapshot.buffers.depth[row, column])
        return distance if distance > 0 else None

    return pick
