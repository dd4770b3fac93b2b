"""Where pictures lie in the window: one over the other, or two panes; a photograph's camera is fitted into its pane."""

from __future__ import annotations

from dataclasses import dataclass

from ..models.camera import Camera
from .inputs import Rect

Box = tuple[int, int, int, int]  # x, y, width, height in px, y down from the window's upper left corner


@dataclass(frozen=True)
class Areas:
    """Both sides' places; without two panes they are the same."""

    left: Box  # px, of the picture
    right: Box
    size: tuple[int, int]  # px that a picture is rendered at
    factor: int = 1  # px of a photograph, per edge, that are averaged for one of the picture

    def rect(self, side: int, scale: float) -> Rect:
        """A side's picture in ImGui's units, of `scale` px each."""
        x, y, width, height = (self.left, self.right)[side]
        return x / scale, y / scale, width / scale, height / scale

    def side_at(self, x: float, middle: int) -> int:
        """The side that a position across the window (px) belongs to; `middle` where there is but one pane."""
        if self.left == self.right:
            return middle
        return 0 if x < self.right[0] else 1


def divide(scene: Box, two_panes: bool, photograph: Camera | None = None) -> Areas:
    """The place that panels leave free, for one picture or two, of any camera or of a photograph's.

    With a photograph a picture has its pixels, or means of whole blocks of them, the size that is nearest to the
    place's: what is compared is then what `infnerf eval` measures, whatever the window's size.

    >>> import numpy as np
    >>> divide((0, 0, 101, 50), True).right
    (51, 0, 50, 50)
    >>> divide((0, 0, 100, 50), False, Camera(np.eye(4), 9, 9, 5, 5, 10, 10))
    Areas(left=(25, 0, 50, 50), right=(25, 0, 50, 50), size=(10, 10), factor=1)
    """
    x, y, width, height = scene
    if two_panes:
        width = max(width // 2, 1)
    left = _fitted((x, y, width, height), photograph)
    right = _fitted((x + max(scene[2] - width, 0), y, width, height), photograph) if two_panes else left
    if photograph is None:
        return Areas(left, right, (left[2], left[3]))
    most = min(photograph.width, photograph.height)
    factor = min(max(round(photograph.width / left[2]), 1), most)
    return Areas(left, right, (photograph.width // factor, photograph.height // factor), factor)


def _fitted(pane: Box, photograph: Camera | None) -> Box:
    """The largest place of a photograph's shape, in the middle of a pane."""
    if photograph is None:
        return pane
    x, y, width, height = pane
    factor = min(width / photograph.width, height / photograph.height)
    w, h = max(round(photograph.width * factor), 1), max(round(photograph.height * factor), 1)
    return x + (width - w) // 2, y + (height - h) // 2, w, h
