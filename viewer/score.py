"""PSNR of the two pictures on the screen, computed in the worker's thread, once for each pair that has come to rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..renderer.comparison import psnr
from ..renderer.resolve import resolve
from ..renderer.scheduler import Snapshot
from .comparison import Comparison
from .sides import LEFT, RIGHT
from .state import ViewerState
from .worker import Done, Worker


class Score:
    """`value` is of the pair on the screen, None until it is known."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.value: float | None = None  # dB; infinite for equal pictures
        self._key: tuple[Any, ...] = ()  # what `value` is of, or the running job
        self._kept: list[Snapshot] = []  # whose identity the key has
        self._job = 0
        self.handlers: dict[str, Callable[[Done], None]] = {"score": self._computed}

    def update(self, comparison: Comparison, state: ViewerState, at_rest: bool) -> None:
        """Compares what is on the screen, as rgb, unless it was."""
        pair = _whole_pair(comparison) if at_rest else []
        if not pair:
            self.value, self._key, self._kept = None, (), []
            return
        panes = comparison.pane(LEFT), comparison.pane(RIGHT)
        left, right = (pane.picture.settings(state, plain=True) for pane in panes)
        key = (*(id(snapshot.buffers) for snapshot in pair), state.exposure, left.background, right.background)
        if key == self._key:
            return
        self.value, self._key, self._kept = None, key, pair
        known = next((pane.photograph.known for pane in panes if pane.photograph is not None), None)
        a, b = (snapshot.buffers for snapshot in pair)
        self._job = self._worker.submit("score", lambda: psnr(resolve(a, left), resolve(b, right), known))

    def _computed(self, done: Done) -> None:
        if done.serial == self._job and self._key:
            self.value = done.value


def _whole_pair(comparison: Comparison) -> list[Snapshot]:
    """Both pictures, if they are whole, of one view and of one size; else nothing."""
    if not comparison.active:
        return []
    pair = [snapshot for side in (LEFT, RIGHT) if (snapshot := comparison.pane(side).snapshot) is not None]
    if len(pair) < 2 or not all(snapshot.accumulated for snapshot in pair):
        return []
    same = pair[0].view.shows_same(pair[1].view) and pair[0].buffers.color.shape == pair[1].buffers.color.shape
    return pair if same else []
