"""The pixel inspector: what the picture says under the cursor, and a clicked pixel's ray, traced in the worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from ..renderer.cliutil import CommandError, next_free
from ..renderer.colormaps import to_bytes
from ..renderer.probe import Prober, RayProbe
from ..renderer.scheduler import Snapshot
from .notices import Notices
from .pane import Pane
from .scene import LoadedScene
from .worker import Done, Worker

STILL_PX = 3.0  # that the mouse may move between press and release of a click


@dataclass(frozen=True)
class Readout:
    """What a picture's channels hold at one of its pixels."""

    pixel: tuple[int, int]  # column, row, of the picture
    color: tuple[float, float, float]  # linear, of what is there, over nothing
    shown: tuple[int, int, int]  # sRGB, likewise
    alpha: float
    depth: float  # world units; 0: nothing there
    position: NDArray[np.float64] | None  # [3] world
    level: float  # mean over the light
    footprint: float  # radius of the pixel's cone at `depth`, world units
    gsd: float  # of the heaviest sample's node, world units; 0: nothing there
    ratio: float  # log2 of footprint over GSD, mean over the light
    samples: int
    node: int  # of the heaviest sample; -1: none
    clamped: float  # share of the light that finer nodes should have answered


def readout(snapshot: Snapshot, scene: LoadedScene, at: tuple[float, float]) -> Readout:
    """Of the pixel at a place of the picture, 0 to 1 from its upper left corner."""
    buffers = snapshot.buffers
    column = min(int(at[0] * snapshot.width), snapshot.width - 1)
    row = min(int(at[1] * snapshot.height), snapshot.height - 1)
    red, green, blue, alpha = (float(x) for x in buffers.color[row, column])
    color = (red, green, blue)
    r, g, b = to_bytes(np.array(color)).tolist()
    camera = snapshot.view.camera.resized(snapshot.width, snapshot.height)
    depth, node = float(buffers.depth[row, column]), int(buffers.node[row, column])
    _, directions, cones = camera.pixel_rays(np.array([column + 0.5]), np.array([row + 0.5]))
    position = camera.position + depth * directions[0] if depth > 0 else None
    gsd = scene.level_gsd[int(scene.levels[node])] if 0 <= node < len(scene.levels) else 0.0
    return Readout(
        (column, row), color, (r, g, b), alpha, depth, position, float(buffers.level[row, column]),
        float(cones[0]) * depth, gsd, float(buffers.gsd_ratio[row, column]), round(float(buffers.samples[row, column])),
        node, float(buffers.clamped[row, column]),
    )  # fmt: skip


class Inspector:
    """`readout` follows the cursor, `ray` is of the pixel that was clicked last."""

    def __init__(self, worker: Worker, notices: Notices) -> None:
        self._worker, self._notices = worker, notices
        self.readout: Readout | None = None
        self.ray: RayProbe | None = None
        self.pending = False  # a ray is being traced
        self._prober: Prober | None = None
        self._job = 0
        self.handlers: dict[str, Callable[[Done], None]] = {"probe": self._traced}

    def follow(self, pane: Pane, at: tuple[float, float] | None, clicked: bool) -> None:
        """The cursor is at a place of a pane's picture, or elsewhere; a click keeps the pixel's ray."""
        if pane.loaded is None or pane.photograph is not None or at is None:
            return
        if clicked:
            self.pin(pane.snapshot, pane.loaded.scene, at)
        else:
            self.hover(pane.snapshot, pane.loaded.scene, at)

    def hover(self, snapshot: Snapshot | None, scene: LoadedScene, at: tuple[float, float]) -> None:
        """The figures of the pixel at a place of the picture; those of the last one stay while there is no picture."""
        if snapshot is not None:
            self.readout = readout(snapshot, scene, at)

    def pin(self, snapshot: Snapshot | None, scene: LoadedScene, at: tuple[float, float]) -> None:
        """Traces the ray of the pixel at a place of the picture."""
        if snapshot is None:
            return
        self.readout = readout(snapshot, scene, at)
        request = snapshot.view.request(snapshot.width / snapshot.view.camera.width)
        column, row = self.readout.pixel
        column, row = min(column, request.camera.width - 1), min(row, request.camera.height - 1)
        prober = self._prober if self._prober is not None and self._prober.model is scene.model else None
        self.pending = True

        def trace() -> tuple[Prober, RayProbe]:
            tracer = prober or Prober(scene.model)
            return tracer, tracer.probe(request, column, row)

        self._job = self._worker.submit("probe", trace)

    def forget(self) -> None:
        """Another scene leads, or the ray is to go."""
        self.readout, self.ray, self._prober, self.pending, self._job = None, None, None, False, 0

    def export(self, folder: Path) -> None:
        """Writes the ray under the next free number."""
        ray = self.ray
        if ray is None:
            return

        def write() -> str:
            path = next_free(folder, "ray-", ".json")
            try:
                ray.save_json(path)
            except (OSError, CommandError) as error:
                raise RuntimeError(f"The ray could not be saved: {error}") from error
            return f"Saved {path.name} ({len(ray.samples)} samples)"

        self._worker.submit("ray", write)

    def _traced(self, done: Done) -> None:
        if done.serial != self._job:
            return
        self.pending = False
        if done.error is not None:
            self._notices.error(f"No ray: {done.error}")
        else:
            self._prober, self.ray = done.value


def mark_of(ray: RayProbe | None, camera: Camera) -> tuple[float, float] | None:
    """Where a camera sees what a ray has hit, px; None: behind it, or nothing was hit."""
    if ray is None or ray.position is None:
        return None
    x, y, z = np.linalg.inv(camera.c2w)[:3] @ [*ray.position, 1.0]
    if z <= 1e-9:
        return None
    return float(camera.fx * x / z + camera.cx), float(camera.fy * y / z + camera.cy)


def clicked(imgui: Any) -> bool:
    """Whether the left button was just released where it was pressed: a click, not the end of a drag."""
    moved = imgui.get_mouse_drag_delta(imgui.MouseButton_.left, 0.0)
    return imgui.is_mouse_released(imgui.MouseButton_.left) and abs(moved.x) + abs(moved.y) <= STILL_PX
