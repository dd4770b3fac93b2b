"""Pictures from Python, without a window: a model in, a camera in, all channels of what it sees out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from .accumulate import render_accumulated
from .frame import FrameBuffers, RenderRequest, RenderStats

if TYPE_CHECKING:
    from ..models.backends import Model
    from ..models.checkpoint import Checkpoint
    from .key_path import Shot
    from .resolve import SceneModel
    from .video import VideoWriter

DEMO = Path(__file__).resolve().parents[1] / "assets" / "demo.pth"
#: The same scene through other models, each beside it where it is installed.
DEMO_OTHERS = tuple(DEMO.with_name(f"demo.{backend}.pth") for backend in ("pynerf", "mipnerf"))


@dataclass
class RenderedImage(FrameBuffers):
    """What a camera sees: `FrameBuffers`' channels as numpy arrays, row 0 at the top, and what made them.

    `color` [H, W, 4] linear and premultiplied, `depth` [H, W] in world units, `normal` [H, W, 3], `level`, `gsd_ratio`,
    `samples`, `node`, `clamped` [H, W]; `channels()` has them by name.
    """

    camera: Camera
    stats: RenderStats
    model: SceneModel  # whose background, colour space and distances a picture takes

    def picture(self, view: str = "rgb", exposure: float = 0.0) -> NDArray[np.uint8]:
        """[H, W, 3] sRGB of a view mode (`resolve.VIEW_MODES`), by the window's own resolve step; `exposure` in EV.

        Raises `ValueError` for an unknown mode.
        """
        from .resolve import ResolveSettings, resolve

        settings = ResolveSettings.for_model(self.model, view, self.camera.position)
        return resolve(self, replace(settings, exposure=exposure))

    def save_png(self, path: str | os.PathLike[str], view: str = "rgb", exposure: float = 0.0) -> Path:
        """Writes `picture(view, exposure)`, whole or not at all, with the pose in the text chunk `camera`.

        Returns the path. Raises `ValueError` for an unknown mode, `OSError` if the file can't be written.
        """
        from .cliutil import camera_json
        from .pngmeta import save_png

        return save_png(path, self.picture(view, exposure), {"camera": camera_json(self.camera)})

    def save_npz(self, path: str | os.PathLike[str]) -> Path:
        """Writes every channel as float32, whole or not at all. Returns the path.

        Raises `CommandError` where the folder can't be written.
        """
        from .cliutil import whole_file

        path = Path(path)
        channels: dict[str, Any] = {name: channel.astype(np.float32) for name, channel in self.channels().items()}
        with whole_file(path) as temporary, open(temporary, "xb") as file:
            np.savez_compressed(file, **channels)
        return path


class Renderer:
    """Renders a model, by the fastest executor that can; a context manager that gives the executor's resources back.

    >>> with Renderer.from_checkpoint(DEMO) as renderer:
    ...     image = renderer.render_image(renderer.home_camera(48, 32))
    >>> image.color.shape, image.depth.shape, image.picture("level").shape
    ((32, 48, 4), (32, 48), (32, 48, 3))
    """

    def __init__(
        self,
        model: Model,
        executor: str = "auto",  # one of executors.NAMES
        start: dict[str, Any] | None = None,  # where a viewer starts: a checkpoint's `view`
    ) -> None:
        """`model` may be one that is being trained: every image shows it as it is then.

        Raises `ExecutorUnavailable` if `executor` can't render it on this machine.
        """
        from .executors import make_executor

        self.model, self.start = model, start or {}
        self._name = executor
        self.executor, self.reason = make_executor(executor, model)  # `reason`: why this one, in words

    @classmethod
    def from_checkpoint(cls, checkpoint: str | os.PathLike[str] | Checkpoint, executor: str = "auto") -> Renderer:
        """Of a file, or of a checkpoint that was read already.

        Raises `CheckpointError` for a file that is none, `ExecutorUnavailable` if `executor` can't render it here.
        """
        from ..models.backends import model_of
        from ..models.checkpoint import Checkpoint, load_checkpoint

        read = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
        return cls(model_of(read), executor, read.view)

    def __enter__(self) -> Renderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives back what the executor holds; harmless a second time."""
        self.executor.close()

    def home_camera(self, width: int = 1280, height: int = 720) -> Camera:
        """Where the viewer would start."""
        from .paths import home_camera

        return home_camera(self.model.scene, self.start, width, height)

    def render_image(
        self,
        camera: Camera,
        samples: int = 1,  # frames averaged; 1 is the exact view of pixel centres, unsmoothed
        lod_bias: float = 0.0,  # levels; + is finer
        progress: Callable[[int], None] | None = None,  # called with the number of frames done
    ) -> RenderedImage:
        """All channels of one view, in one pass. Raises `ValueError` for a camera with a lens (render its
        `pinhole()`), for `samples` below 1 and for a bias beyond 16 levels."""
        if self.model.learns:  # it may have learnt since: executors keep copies
            from .executors import make_executor

            self.executor.close()
            self.executor, self.reason = make_executor(self._name, self.model)
        request = RenderRequest(camera, lod_bias=lod_bias)
        buffers, stats = render_accumulated(self.executor, request, samples, progress=progress)
        return RenderedImage(**buffers.channels(), camera=camera, stats=stats, model=self.model)

    def render_video(
        self,
        path: str | os.PathLike[str],  # .mp4, .mkv, .mov, or a folder for PNGs
        frames: Sequence[Camera | Shot],  # a frame each, all of one size
        samples: int = 1,  # frames averaged in each
        view: str = "rgb",  # of frames that ask for none of their own
        fps: float = 30.0,
        lod_bias: float = 0.0,  # levels; a frame's own comes on top
        exposure: float = 0.0,  # EV
        progress: Callable[[int], None] | None = None,  # called with the number of frames written
    ) -> VideoWriter:
        """Writes a video of a camera path. What an exception (Ctrl-C too) leaves is a video of the frames so far.

        Returns the writer, which knows its `frames` and its `codec`. Raises `ValueError` for no cameras, cameras of
        several sizes, or as `render_image` does; `CommandError` as `VideoWriter` does.
        """
        from .key_path import Shot
        from .video import VideoWriter

        if not frames:
            raise ValueError(f"render_video: {path} needs at least 1 camera, got none")
        shots = [frame if isinstance(frame, Shot) else Shot(frame) for frame in frames]
        writer = VideoWriter(path, shots[0].camera.width, shots[0].camera.height, fps)
        with writer:
            for shot in shots:
                image = self.render_image(shot.camera, samples, lod_bias + shot.lod_bias)
                writer.write(image.picture(shot.view or view, exposure))
                if progress is not None:
                    progress(writer.frames)
        return writer
