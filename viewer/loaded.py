"""An open scene with the renderer that is its own: switching to it and back loses no picture."""

from __future__ import annotations

from ..renderer.frame import Executor
from ..renderer.scheduler import ProgressiveRenderer, View
from ..renderer.turns import Turns
from .scene import LoadedScene


class Loaded:
    """One of the scenes that are open. Renderers share `turns`; one that nobody looks at sleeps."""

    def __init__(self, scene: LoadedScene, executor: str, turns: Turns) -> None:
        self.scene = scene
        self.rendering = executor  # name that the executor came from
        self.renderer = ProgressiveRenderer(turns=turns)
        self.switching = 0  # job of the newest switch of executors
        self.lost: Executor | None = None  # whose device is gone
        self.failure: Exception | None = None  # of the renderer, already said
        self._sequence = 0  # newest picture told of
        self._state = self.renderer.state
        self._view: View | None = None  # as the renderer was last told

    @property
    def name(self) -> str:
        return self.scene.path.name

    @property
    def sequence(self) -> int:
        """Number of the newest picture, 0 before the first."""
        latest = self.renderer.latest()
        return latest.sequence if latest is not None else 0

    @property
    def news(self) -> bool:
        """Whether a picture, a state or a failure is there that `poll` has not told of."""
        return (
            self.sequence != self._sequence
            or self.renderer.error is not self.failure
            or self.renderer.state != self._state
        )

    def poll(self) -> Exception | None:
        """Notes what is new; returns a failure once."""
        self._sequence, self._state = self.sequence, self.renderer.state
        if (failure := self.renderer.error) is self.failure:
            return None
        self.failure = failure
        return failure

    def take_scene(self, scene: LoadedScene, executor: str) -> None:
        """Another scene from now on; its executor is the renderer's when the panes know of it."""
        self.scene, self.rendering, self.lost = scene, executor, None

    def take_executor(self, executor: Executor, reason: str, name: str) -> None:
        """The same scene by another executor."""
        self.rendering = name
        self.scene = self.scene.with_executor(executor, reason)
        self.renderer.set_executor(executor)

    def render(self, view: View, target_frame_ms: float, max_frames: int, max_scale: float) -> None:
        """Shows a view, at the scheduler's settings. Cheap where nothing of it changed."""
        renderer = self.renderer
        renderer.target_frame_ms, renderer.max_scale = target_frame_ms, max_scale
        if renderer.max_frames != max_frames:
            renderer.max_frames = max_frames
        if view is not self._view:
            self._view = view
            renderer.set_view(view)

    def rest(self) -> None:
        """Nobody looks."""
        if self._view is not None or self.renderer.state != "idle":
            self._view = None
            self.renderer.rest()
