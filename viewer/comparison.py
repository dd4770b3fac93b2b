"""Two panes on one screen: the scene that leads alone, or left and right by wipe, side by side, flicker or as a map."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..renderer.comparison import MAPS, comparison_legend
from ..renderer.interop import DevicePaths
from ..renderer.resolve import Legend
from ..renderer.scheduler import View
from . import sides
from .loaded import Loaded
from .maps import ComparisonMap
from .pane import Pane
from .photographs import Photograph
from .picture import Picture
from .scene import LoadedScene
from .sides import LEFT, RIGHT
from .state import PHOTO, ViewerState
from .texture import Box, color_target
from .window import read_framebuffer


class Comparison:
    """The panes, and how they are drawn. Needs a current GL context; what only a comparison needs is made for one."""

    def __init__(self, open_paths: Callable[[], DevicePaths], clock: Callable[[], float] = time.monotonic) -> None:
        self._open_paths, self._clock = open_paths, clock
        self._panes: list[Pane | None] = [None, None]
        self._map: ComparisonMap | None = None
        self._target: tuple[int, int] | None = None  # framebuffer and texture that `read` draws into
        self.lead = LEFT  # the side whose scene leads
        self.active = False  # both sides are shown
        self.mode = "off"  # as it is shown
        self.flicker_hz = 1.0  # changes per second

    def pane(self, side: int) -> Pane:
        """One side."""
        pane = self._panes[side]
        if pane is None:
            pane = self._panes[side] = Pane(Picture(self._open_paths()))
        return pane

    @property
    def front(self) -> Pane:
        """The pane of the scene that leads."""
        return self.pane(self.lead)

    @property
    def shown(self) -> list[Pane]:
        """The panes on the screen, the one that leads first."""
        return [self.front, self.pane(1 - self.lead)] if self.active else [self.front]

    def arrange(
        self, state: ViewerState, loaded: Sequence[Loaded], at_photograph: bool, photograph: Photograph | None,
        view: View | None,
    ) -> None:  # fmt: skip
        """Points the panes at what the state says. `photograph`: the one at hand, None while it is read."""
        self.lead, self.flicker_hz = sides.leading(state), state.flicker_hz
        self.active = sides.comparing(state, len(loaded), at_photograph)
        self.mode = state.compare if self.active else "off"
        if not loaded:
            return
        leading = loaded[sides.scene_number(state)]
        for side in (LEFT, RIGHT) if self.active else (self.lead,):
            what = (state.left, state.right)[side]
            if what == PHOTO:
                self.pane(side).look_at_photograph(photograph, leading.scene, view)
            else:
                self.pane(side).look_at(loaded[what])

    def reopen(self, loaded: Loaded, keep: bool) -> None:
        """Another file took the place of an open one."""
        for pane in self._panes:
            if pane is not None and pane.loaded is loaded:
                pane.reopen(loaded, keep)

    def forget(self, loaded: Loaded) -> None:
        """A scene was closed."""
        for pane in self._panes:
            if pane is not None and pane.loaded is loaded:
                pane.loaded = None

    # Flicker.

    @property
    def flicker_side(self) -> int:
        """The side that the flicker shows now."""
        return int(self._clock() * self.flicker_hz) % 2

    def next_flicker(self) -> float | None:
        """Seconds until the flicker shows the other side; None while nothing flickers."""
        if self.mode != "flicker":
            return None
        turns = self._clock() * self.flicker_hz
        return (int(turns) + 1 - turns) / self.flicker_hz

    # Pictures.

    def draw(self, state: ViewerState, boxes: tuple[Box, Box], framebuffer: int = 0, wires: bool = True) -> None:
        """Draws left and right (px, as glViewport has it) into a framebuffer."""
        if not self.active:
            self.front.picture.draw(state, boxes[self.lead], None, framebuffer, wires)
            return
        pictures = [self.pane(side).picture for side in (LEFT, RIGHT)]
        if self.mode in MAPS:
            if all(picture.snapshot is not None for picture in pictures):
                self._map = self._map or ComparisonMap()
                limit = state.difference_limit
                self._map.draw(self.mode, limit, pictures[LEFT], pictures[RIGHT], state, boxes[LEFT], framebuffer)
            else:  # one is still to come
                self.front.picture.draw(state, boxes[LEFT], None, framebuffer)
            return
        clips = {LEFT: boxes[LEFT], RIGHT: boxes[RIGHT]}
        if self.mode == "wipe":
            x, y, width, height = boxes[LEFT]
            edge = round(state.divider * width)
            clips = {LEFT: (x, y, edge, height), RIGHT: (x + edge, y, width - edge, height)}
        elif self.mode == "flicker":
            clips = {side: clip for side, clip in clips.items() if side == self.flicker_side}
        for side, clip in clips.items():
            pictures[side].draw(state, boxes[side], clip, framebuffer, wires)

    def read(self, state: ViewerState) -> NDArray[np.uint8]:
        """[H, W, 3] of what is shown, at the pictures' own resolution, without wires and bars around them."""
        from OpenGL import GL

        if not self.active:
            return self.front.picture.read(state)
        pictures = [pane.snapshot for pane in self.shown]
        width = max(snapshot.width for snapshot in pictures if snapshot is not None)
        height = max(snapshot.height for snapshot in pictures if snapshot is not None)
        boxes = ((0, 0, width, height), (width if self.mode == "side by side" else 0, 0, width, height))
        whole = boxes[RIGHT][0] + width, height
        if self._target is None:
            self._target = int(GL.glGenFramebuffers(1)), int(GL.glGenTextures(1))
        color_target(*self._target, *whole)
        GL.glClearColor(0, 0, 0, 1)
        GL.glClear(GL.GL_COLOR_BUFFER_BIT)
        try:
            self.draw(state, boxes, self._target[0], wires=False)
            GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, self._target[0])
            return read_framebuffer(*whole)
        finally:
            GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, 0)

    def is_sharp(self, view: View | None) -> bool:
        """Whether all that is shown is the whole of `view` at full resolution."""
        return all(pane.picture.is_sharp(view) for pane in self.shown)

    def legend(self, state: ViewerState) -> Legend | None:
        """What the colours mean."""
        return comparison_legend(self.mode, state.difference_limit) or self.front.picture.legend(state)

    def metadata(self, state: ViewerState) -> dict[str, str]:
        """What a screenshot says of itself."""
        facts = self.front.picture.metadata(state)
        if self.active:
            facts |= {"compare": self.mode, "left": self.pane(LEFT).name, "right": self.pane(RIGHT).name}
        return facts

    def leading_scene(self) -> LoadedScene | None:
        return self.front.loaded.scene if self.front.loaded is not None else None

    def close(self) -> None:
        from OpenGL import GL

        for pane in self._panes:
            if pane is not None:
                pane.picture.close()
        if self._map is not None:
            self._map.close()
        if self._target is not None:
            GL.glDeleteFramebuffers(1, [self._target[0]])
            GL.glDeleteTextures([self._target[1]])
