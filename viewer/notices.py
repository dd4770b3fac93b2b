"""Short messages in a corner of the scene. Plain data: `overlays.py` draws them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

KINDS = {"info": 4.0, "error": 12.0}  # kind -> seconds it stays
FADE = 0.3  # s at the end
MOST = 4  # on the screen at once


@dataclass(frozen=True)
class Notice:
    """One message."""

    text: str
    kind: str
    born: float  # s, the clock's


class Notices:
    """What is being said now.

    >>> notices = Notices(clock=lambda: 0.0)
    >>> notices.add("saved"); notices.add("saved"); [notice.text for notice in notices.current()]
    ['saved']
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._notices: list[Notice] = []

    def add(self, text: str, kind: str = "info") -> None:
        """Says something; the same sentence again is only renewed."""
        self._notices = [notice for notice in self._notices if notice.text != text]
        self._notices = [*self._notices, Notice(text, kind, self._clock())]
        while len(self._notices) > MOST:  # what went wrong stays longest
            self._notices.remove(next((notice for notice in self._notices if notice.kind == "info"), self._notices[0]))

    def error(self, text: str) -> None:
        """Says what went wrong."""
        self.add(text, "error")

    def current(self) -> list[Notice]:
        """What is on the screen, oldest first."""
        now = self._clock()
        self._notices = [notice for notice in self._notices if now - notice.born < KINDS[notice.kind]]
        return list(self._notices)

    def opacity(self, notice: Notice) -> float:
        """1, and less while it fades."""
        left = KINDS[notice.kind] - (self._clock() - notice.born)
        return min(max(left / FADE, 0.0), 1.0)

    def next_change(self) -> float | None:
        """Seconds until the picture has to be drawn again for a message's sake; None when nothing is said."""
        now = self._clock()
        left = [KINDS[notice.kind] - (now - notice.born) for notice in self._notices]
        return min((1 / 30 if rest < FADE else rest - FADE for rest in left), default=None)
