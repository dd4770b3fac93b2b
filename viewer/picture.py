"""One picture in the window: of a scene or a photograph, resolved by the GPU, with wires over it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..renderer.cliutil import camera_json, next_free
from ..renderer.interop import DevicePaths
from ..renderer.pngmeta import save_png
from ..renderer.resolve import Legend, ResolveSettings, depth_range, legend
from ..renderer.scheduler import Snapshot, View
from .scene import LoadedScene
from .state import ViewerState
from .texture import Box, SceneTexture, clipped
from .wires import Wires


class Picture:
    """Needs a current GL context."""

    def __init__(self, paths: DevicePaths | None = None) -> None:
        self.texture, self.wires = SceneTexture(paths), Wires()
        self.scene: LoadedScene | None = None
        self.snapshot: Snapshot | None = None  # of the present scene
        self.photograph = False  # the picture is one, shown by `scene`'s background and colour space
        self._next: tuple[LoadedScene, bool] | None = None  # scene and photograph, with the first picture of them
        self._base = ResolveSettings()
        self._legend: tuple[object, Legend] | None = None

    def open(self, scene: LoadedScene) -> None:
        """Another scene: nothing of the old one is shown any more."""
        self.clear()
        self._take(scene)

    def replace(self, scene: LoadedScene, photograph: bool = False) -> None:
        """Another scene, or the same one further trained: what is there is shown until the new one has a picture."""
        self._next = (scene, photograph)

    def _take(self, scene: LoadedScene, photograph: bool = False) -> None:
        self.scene, self.photograph, self._next, self._legend = scene, photograph, None, None
        self._base = ResolveSettings.for_model(scene.model)

    def show(self, snapshot: Snapshot) -> None:
        """The next picture of the present scene."""
        if self._next is not None:
            self._take(*self._next)
        self.snapshot = snapshot
        self.texture.show(snapshot.buffers)

    def clear(self) -> None:
        """Shows nothing until the next picture."""
        self.snapshot = None
        self.texture.clear()

    def settings(self, state: ViewerState, plain: bool = False) -> ResolveSettings:
        """How the state turns buffers into pixels. `plain`: rgb whatever the view mode, as photographs are."""
        plain = plain or self.photograph
        tinted = not plain and state.view_mode == "rgb" and state.tint != "none"
        return replace(
            self._base,
            mode="rgb" if plain else state.tint if tinted else state.view_mode,
            tint=state.tint_strength if tinted else 1.0,
            exposure=state.exposure,
            background=state.background if state.own_background else self._base.background,
            depth_range=self._depth_range(),
        )

    def _depth_range(self) -> tuple[float, float]:
        if self.scene is None or self.snapshot is None:
            return self._base.depth_range
        return depth_range(self.scene.aabb, self.snapshot.view.camera.position)

    def legend(self, state: ViewerState) -> Legend | None:
        """What the colours mean; None while nothing is open."""
        if self.scene is None:
            return None
        shown = self.settings(state)
        about = shown.mode, shown.depth_range if shown.mode == "depth" else None
        if self._legend is None or self._legend[0] != about:
            self._legend = (about, legend(shown, self.scene.model))
        return self._legend[1]

    def draw(
        self, state: ViewerState, viewport: Box, clip: Box | None = None, framebuffer: int = 0, wires: bool = False
    ) -> None:
        """Draws into `viewport` (px, as glViewport has it) of a framebuffer, nothing of it outside `clip`."""
        from OpenGL import GL

        if self.snapshot is None or self.scene is None:
            return
        self.texture.draw(self.settings(state), viewport, clip, framebuffer)
        if wires and state.wires != "off" and not self.photograph:
            GL.glViewport(*viewport)
            levels = (state.wire_min, state.wire_max)
            with clipped(clip):
                self.wires.draw(self.texture, self.scene, self.snapshot, state.wires, levels, viewport)

    def read(self, state: ViewerState) -> NDArray[np.uint8]:
        """[H, W, 3] of the present picture at its own resolution, without wires."""
        return self.texture.read(self.settings(state))

    def is_sharp(self, view: View | None) -> bool:
        """Whether the snapshot is the whole of `view` at full resolution."""
        return self.snapshot is not None and self.snapshot.accumulated > 0 and self.snapshot.view.shows_same(view)

    def metadata(self, state: ViewerState) -> dict[str, str]:
        """What a screenshot says of itself: `camera` is the JSON that `infnerf render --camera` reads."""
        assert self.snapshot is not None
        assert self.scene is not None
        camera = self.snapshot.view.camera.resized(self.snapshot.width, self.snapshot.height)
        shown = state.view_mode if state.tint == "none" else f"{state.view_mode} tinted by {state.tint}"
        return {"camera": camera_json(camera), "view": shown, "checkpoint": self.scene.path.name}

    def close(self) -> None:
        self.wires.close()
        self.texture.close()


def write_screenshot(folder: Path, pixels: NDArray[np.uint8], metadata: dict[str, str], samples: int) -> str:
    """Saves under the next free number; returns the sentence that says where. Raises `RuntimeError` if it can't."""
    path = next_free(folder, "infnerf-", ".png")
    try:
        save_png(path, pixels, metadata)
    except OSError as error:
        raise RuntimeError(f"The screenshot could not be saved as {path}: {error.strerror or error}.") from error
    plural = "s" if samples != 1 else ""
    return f"Saved {path} ({pixels.shape[1]} x {pixels.shape[0]}, {samples} sample{plural})."
