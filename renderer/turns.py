"""Turns at the machine: where two pictures are rendered side by side, their executors work one after the other.

Each takes all cores, or the one device. At once they would only slow each other down, and times would mean nothing. A
turn is one call: a slice at rest, a coarse frame in motion. What a renderer measures leaves out the time that it waits:
else a fast one would take its slow neighbour's frames for its own, and go down to its lowest resolution.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from ..models.camera import Camera
from .frame import Executor, FrameBuffers, RenderRequest, RenderStats


class Turns:
    """First come, first served: a plain lock would let the one that gives it back take it again.

    >>> turns = Turns()
    >>> with turns.taken(): turns.waiting
    0
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._queue: deque[object] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return max(len(self._queue) - 1, 0)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Waits until it is the caller's turn; not to be nested."""
        ticket = object()
        with self._condition:
            self._queue.append(ticket)
            self._condition.wait_for(lambda: self._queue[0] is ticket)
        try:
            yield
        finally:
            with self._condition:
                self._queue.popleft()
                self._condition.notify_all()


class Place:
    """One renderer's place among those that take turns, with the clock of its own work."""

    def __init__(self, turns: Turns, clock: Callable[[], float]) -> None:
        self.turns, self._wall = turns, clock
        self._waited = 0.0  # s

    def clock(self) -> float:
        """Seconds, those left out in which the renderer waited for its turn."""
        return self._wall() - self._waited

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Waits for the turn, and takes it."""
        start = self._wall()
        with self.turns.taken():
            self._waited += self._wall() - start
            yield


class InTurn:
    """An executor whose calls wait for their turn; the caller owns `executor`."""

    def __init__(self, executor: Executor, place: Place) -> None:
        self._executor, self._place = executor, place
        self.name = executor.name

    @classmethod
    def supports(cls, model: Any) -> str | None:
        return None

    def render(
        self, request: RenderRequest, out: FrameBuffers, cancelled: Callable[[], bool] = lambda: False
    ) -> RenderStats:
        """Cancelled at once if the picture was no longer wanted when its turn came."""
        with self._place.taken():
            return RenderStats(cancelled=True) if cancelled() else self._executor.render(request, out, cancelled)

    def fill_normals(self, camera: Camera, out: FrameBuffers, region: tuple[int, int, int, int]) -> None:
        with self._place.taken():
            self._executor.fill_normals(camera, out, region)

    def close(self) -> None:
        """Nothing: the executor is the caller's."""
