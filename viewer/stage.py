"""What is on the screen: from the state's two sides to panes, their places, one camera for all, renderers at work."""

from __future__ import annotations

import numpy as np

from ..data.pixels import box_camera
from ..models.camera import Camera
from ..renderer.scheduler import View
from . import sides
from .areas import Areas, Box, divide
from .comparison import Comparison
from .photographs import Photographs, PhotoSet
from .rig import Rig
from .score import Score
from .session import Session
from .state import PHOTO, ViewerState


class Stage:
    """Arranges what the state says; called by the window's thread, and never waits."""

    def __init__(self, state: ViewerState, session: Session, comparison: Comparison, photographs: Photographs) -> None:
        self.state, self.session = state, session
        self.comparison, self.photographs = comparison, photographs
        self.score = Score(session.worker)
        session.handlers |= photographs.handlers | self.score.handlers
        self.areas = Areas((0, 0, 1, 1), (0, 0, 1, 1), (1, 1))
        self.snapped: Rig | None = None  # where the photograph was taken from, once the camera was sent there
        self._data: PhotoSet | None = None  # whose photographs `snapped` and the state count
        self.view: View | None = None  # as the renderers were last told

    @property
    def at_photograph(self) -> bool:
        """Whether the photograph is a side and the camera is where it was taken from."""
        state, rig, there = self.state, self.state.camera, self.snapped
        if there is None or state.compare == "off" or PHOTO not in (state.left, state.right):
            return False
        pose, wanted = (rig.yaw, rig.pitch, rig.roll, rig.fov_y), (there.yaw, there.pitch, there.roll, there.fov_y)
        return pose == wanted and np.array_equal(rig.position, there.position)

    @property
    def photograph_camera(self) -> Camera | None:
        """The photograph's own pinhole while it is shown."""
        return self.photographs.camera(self.state.photo) if self.at_photograph else None

    def camera(self) -> Camera:
        """The camera of the view, in the pixels that pictures are rendered at; a photograph's own one at its place."""
        own = self.photograph_camera
        return self.state.camera.camera(*self.areas.size) if own is None else box_camera(own, self.areas.factor)

    def snap(self, number: int) -> Rig | None:
        """Where a photograph was taken from, at its field of view; it becomes a side, the right one if it is none.

        None where there is no such photograph.
        """
        camera, state = self.photographs.camera(number), self.state
        if camera is None:
            return None
        state.photo = number
        if PHOTO not in (state.left, state.right):
            sides.choose(state, sides.RIGHT, PHOTO)
        if state.compare == "off":
            state.compare = "wipe"
        self.snapped = Rig.of(camera, state.camera.up)
        return self.snapped.copy()

    def divide(self, scene: Box) -> None:
        """Gives the pictures their places in what the panels leave free."""
        own = self.photograph_camera
        two = sides.comparing(self.state, len(self.session.loaded), own is not None)
        self.areas = divide(scene, two and self.state.compare == "side by side", own)

    def arrange(self) -> None:
        """Points panes and renderers at their scenes."""
        state, loaded, photographs = self.state, self.session.loaded, self.photographs
        if photographs.data is not self._data:  # its images have other numbers
            self._data, self.snapped, state.photo = photographs.data, None, 0
            if photographs.data is not None and len(loaded) == 1:  # what else could be compared
                sides.choose(state, 1 - sides.leading(state), PHOTO)
        sides.settle(state, len(loaded), photographs.data is not None)
        at_photograph = self.at_photograph
        width, height = (max(round(edge * state.resolution), 1) for edge in self.areas.size)
        if at_photograph and self.session.scene is not None:
            photographs.want(state.photo, self.areas.factor, (width, height), self.session.scene)
        at_hand = photographs.at_hand(state.photo, (width, height))
        self.comparison.arrange(state, loaded, at_photograph, at_hand, self.view)
        self.session.show(tuple(pane.loaded for pane in self.comparison.shown if pane.loaded is not None))

    def render(self, moving: bool) -> None:
        """Tells the renderers what to show."""
        state = self.state
        view = View(self.camera(), state.lod_bias, state.min_level, state.max_level, state.step_scale, moving)
        if self.view is None or view.moving != self.view.moving or not view.shows_same(self.view):
            self.view = view
        target_ms = state.target_frame_ms / max(len(self.session.shown), 1)  # together they hold it
        for loaded in self.session.shown:
            loaded.render(self.view, target_ms, state.max_frames, state.resolution)
