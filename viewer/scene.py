"""A scene as the window holds it: the checkpoint's facts for the panels, the model, the executor that renders it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from ..renderer.device_picture import allocate
from ..renderer.frame import Executor, FrameBuffers, RenderRequest, RenderStats
from ..renderer.pace import pace_of
from .worker import step_back

#: Opens a checkpoint for an executor's name. Raises `ValueError` or `RuntimeError` with one sentence.
Opener = Callable[[Path, str], "LoadedScene"]


class BackgroundExecutor:
    """An executor that renders behind the window: its threads give way to the window's."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._thread: int | None = None  # that has stepped back
        self.name, self.pace = executor.name, pace_of(executor)

    @classmethod
    def supports(cls, model: Any) -> str | None:
        return None

    def render(
        self, request: RenderRequest, out: FrameBuffers, cancelled: Callable[[], bool] = lambda: False
    ) -> RenderStats:
        if self._thread != threading.get_ident():
            self._thread = threading.get_ident()
            step_back()
        return self._executor.render(request, out, cancelled)

    def allocate(self, width: int, height: int) -> FrameBuffers:
        return allocate(self._executor, width, height)

    def fill_normals(self, camera: Camera, out: FrameBuffers, region: tuple[int, int, int, int]) -> None:
        self._executor.fill_normals(camera, out, region)

    def close(self) -> None:
        self._executor.close()


@dataclass(frozen=True, eq=False)
class LoadedScene:
    """What is open. `model` has `octree`, `scene` and `gsd`, as `renderer.resolve.SceneModel` says."""

    path: Path
    model: Any
    executor: Executor
    reason: str  # why this executor
    view: dict[str, Any] = field(default_factory=dict)  # the checkpoint's: where to start
    backend: str = "infnerf"
    file_bytes: int = 0
    n_parameters: int = 0
    step: int | None = None  # of the training that made it; None: not told
    saved: float = 0.0  # s since 1970, when the file was written
    level_bytes: Sequence[int] = ()  # of one node's data, per level

    @property
    def level_counts(self) -> list[int]:
        """Nodes per level, root first."""
        return self._cached("level_counts", self.model.octree.level_counts)

    @property
    def levels(self) -> NDArray[np.int32]:
        """[n_nodes] level of each node."""
        return self._cached("levels", lambda: self.model.octree.level.numpy())

    @property
    def boxes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Minimum corners [n_nodes, 3] and edges [n_nodes] of all nodes, world units."""
        return self._cached("boxes", self.model.octree.boxes)

    @property
    def memory_bytes(self) -> int:
        """Of all nodes' data."""
        return self.bytes_of(self.level_counts)

    def bytes_of(self, nodes: Sequence[int]) -> int:
        """Of some nodes' data: `nodes` on each level."""
        return sum(n * size for n, size in zip(nodes, self.level_bytes, strict=False))

    def parameters_of(self, nodes: Sequence[int]) -> int:
        """Of some nodes: `nodes` on each level."""
        numbers = self._cached("level_parameters", lambda: list(self.model.level_parameters))
        return sum(n * size for n, size in zip(nodes, numbers, strict=True))

    @property
    def root_size(self) -> float:
        return self.model.octree.root_size

    @property
    def level_gsd(self) -> list[float]:
        """Ground sampling distance of each level, world units."""
        return self._cached("gsd", lambda: [float(self.model.gsd(level)) for level in range(len(self.level_counts))])

    @property
    def level_edges(self) -> list[float]:
        """Edge of each level's nodes, world units; a pyramid's levels all span the root."""
        edges = self.boxes[1]
        return self._cached("edges", lambda: [float(edges[self.levels == i][0]) for i in range(len(self.level_counts))])

    @property
    def unit(self) -> str:
        return self.model.scene["unit"]

    @property
    def up(self) -> NDArray[np.float64]:
        """[3], unit."""
        up = np.asarray(self.model.scene["up"], np.float64)
        return up / np.linalg.norm(up)

    @property
    def aabb(self) -> NDArray[np.float64]:
        """[2, 3] minimum and maximum corner, world units."""
        return np.asarray(self.model.scene["aabb"], np.float64)

    @property
    def n_cameras(self) -> int:
        return len(self.model.scene["cameras"])

    @property
    def key(self) -> str:
        """What bookmarks are kept under."""
        return str(self.path.resolve())

    def with_executor(self, executor: Executor, reason: str) -> LoadedScene:
        return replace(self, executor=executor, reason=reason)

    def _cached(self, name: str, compute: Callable[[], Any]) -> Any:
        """Arrays that panels ask for in every frame, computed once."""
        store = self.__dict__.setdefault("_cache", {})
        if name not in store:
            store[name] = compute()
        return store[name]


def open_checkpoint(path: Path, executor: str) -> LoadedScene:
    """The `Opener` of the real program; slow (torch), so it runs in the worker's thread."""
    from ..models.checkpoint import load_checkpoint
    from ..renderer.renderer import Renderer

    stat = Path(path).stat() if Path(path).is_file() else None  # of the file that is read, or of an older one
    checkpoint = load_checkpoint(path)
    step = (checkpoint.training or {}).get("step")
    renderer = Renderer.from_checkpoint(checkpoint, executor)
    scene = LoadedScene(
        path=Path(path),
        model=renderer.model,
        executor=BackgroundExecutor(renderer.executor),
        reason=renderer.reason,
        view=checkpoint.view,
        backend=checkpoint.backend,
        file_bytes=stat.st_size if stat else 0,
        n_parameters=renderer.model.n_parameters,
        step=step if isinstance(step, int) else None,
        saved=stat.st_mtime if stat else 0.0,
        level_bytes=renderer.model.level_bytes,
    )
    # Here, so that the window's thread never waits for them.
    _ = scene.level_counts, scene.levels, scene.boxes, scene.level_gsd
    return scene
