"""Pictures without a window: open a checkpoint with its executor, render a camera, resolve it to bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from .accumulate import render_accumulated
from .frame import Executor, FrameBuffers, RenderRequest, RenderStats

if TYPE_CHECKING:
    from ..models.checkpoint import Checkpoint

DEMO = Path(__file__).resolve().parents[1] / "assets" / "demo.pth"


@dataclass
class OpenScene:
    """A checkpoint, its model and the executor that renders it; a context manager that closes the executor."""

    path: Path
    checkpoint: Checkpoint
    model: Any
    executor: Executor
    reason: str  # why this executor

    def __enter__(self) -> OpenScene:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.executor.close()

    def render(
        self,
        camera: Camera,
        samples: int = 1,  # frames averaged; 1 is the exact view of pixel centres
        lod_bias: float = 0.0,  # levels
        progress: Callable[[int], None] | None = None,  # called with the number of frames done
    ) -> tuple[FrameBuffers, RenderStats]:
        """All channels of one view."""
        request = RenderRequest(camera, lod_bias=lod_bias)
        return render_accumulated(self.executor, request, samples, progress=progress)

    def picture(
        self, buffers: FrameBuffers, camera: Camera, view: str = "rgb", exposure: float = 0.0
    ) -> NDArray[np.uint8]:
        """[H, W, 3] of a view mode, by the window's own resolve step. Raises `ValueError` for an unknown mode.

        `camera` is the one that `buffers` were rendered with.
        """
        from .resolve import ResolveSettings, resolve

        settings = ResolveSettings.for_model(self.model, view, camera.position)
        return resolve(buffers, replace(settings, exposure=exposure))


def open_scene(path: str | os.PathLike[str], executor: str = "auto") -> OpenScene:
    """Opens a checkpoint for rendering.

    Raises `CheckpointError` for a file that is none, `ExecutorUnavailable` if `executor` can't render it here.
    """
    from ..models.checkpoint import load_checkpoint
    from ..models.infnerf import InfNeRF
    from .executors import make_executor

    checkpoint = load_checkpoint(path)
    model = InfNeRF.from_checkpoint(checkpoint)
    chosen, reason = make_executor(executor, model)
    return OpenScene(Path(path), checkpoint, model, chosen, reason)
