"""The viewer's work without a window: stills and videos. Imports neither OpenGL nor a toolkit (a test holds that)."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

from ..models.camera import Camera
from ..renderer.cliutil import (
    CAMERA_KEYS,
    Interrupted,
    progress_bar,
    read_camera,
    say,
    temporary_beside,
)
from ..renderer.offline import OpenScene, open_scene
from ..renderer.paths import home_camera, make_path
from ..renderer.video import VideoWriter, write_png

VIDEO, STILL = Path("infnerf-view.mp4"), Path("infnerf-view.png")
VIDEO_BUDGET = 45.0  # s that the video of an automatic run may take; with loading and the still about a minute in all
LEAST_FRAMES, MOST_FRAMES = 48, 240
SMALLEST_HEIGHT = 90  # px, below which an automatic video is not worth watching


@dataclass(frozen=True)
class HeadlessJob:
    """What to make of one checkpoint."""

    checkpoint: Path
    executor: str = "auto"
    view: str = "rgb"  # one of renderer.resolve.VIEW_MODES
    screenshot: Path | None = None
    record: Path | None = None
    path: str = "orbit"  # one of renderer.paths.PATHS
    frames: int = 120
    fit: bool = False  # true: `frames` and `video_size` as fit VIDEO_BUDGET on this machine, `video_size` at most
    fps: float = 30.0
    size: tuple[int, int] = (1280, 720)  # px, of the still
    video_size: tuple[int, int] | None = None  # px; None: `size`
    samples: int = 16  # frames averaged in the still: the window's default at rest
    video_samples: int = 4
    camera: Path | None = None  # JSON, for the still
    lod_bias: float = 0.0  # levels
    exposure: float = 0.0  # EV


def run_headless(job: HeadlessJob) -> int:
    """Does the job and says what it wrote. Raises `CommandError` and the errors of `open_scene`."""
    for path in (job.screenshot, job.record):
        if path is not None and path.suffix:
            temporary_beside(path)  # refuses a folder that isn't there now, not after a minute of rendering
    start = time.perf_counter()
    with open_scene(job.checkpoint, job.executor) as scene:
        took = time.perf_counter() - start
        nodes = scene.model.octree.n_nodes
        say(f"{job.checkpoint.name}: {nodes} nodes, opened in {took:.1f} s; executor {scene.reason}")
        if job.screenshot is not None:
            take_still(scene, job, job.screenshot)
        if job.record is not None:
            record_video(scene, job, job.record)
    return 0


def take_still(scene: OpenScene, job: HeadlessJob, out: Path) -> None:
    """One converged view as a PNG, its pose in the text chunk `camera` (the JSON that `--camera` reads)."""
    camera = still_camera(scene, job)
    with progress_bar("still", job.samples) as advance:
        buffers, _ = scene.render(camera, job.samples, job.lod_bias, progress=lambda done: advance(done, ""))
    write_png(out, scene.picture(buffers, job.view, job.exposure), {"camera": camera_json(camera)})
    say(f"wrote {out} ({camera.width}x{camera.height}, {job.view}, {job.samples} samples)")


def still_camera(scene: OpenScene, job: HeadlessJob) -> Camera:
    """The camera of `--camera` at the size asked for, else where the viewer would start."""
    if job.camera is not None:
        return read_camera(job.camera, job.size)
    return home_camera(scene.model.scene, scene.checkpoint.view, *job.size)


def camera_json(camera: Camera) -> str:
    """A camera as the JSON that `read_camera` reads."""
    return json.dumps({key: camera.c2w.tolist() if key == "c2w" else getattr(camera, key) for key in CAMERA_KEYS})


def record_video(scene: OpenScene, job: HeadlessJob, out: Path) -> None:
    """A camera path as a video or a folder of PNGs. Ctrl-C keeps the frames so far and raises `Interrupted`."""
    (width, height), frames = plan_video(scene, job) if job.fit else (job.video_size or job.size, job.frames)
    cameras = make_path(job.path, scene.model.scene, frames, width, height)
    writer = VideoWriter(out, width, height, job.fps)
    try:
        with writer, progress_bar(f"{job.path}, {width}x{height}", frames) as advance:
            for camera in cameras:
                buffers, _ = scene.render(camera, job.video_samples, job.lod_bias)
                writer.write(scene.picture(buffers, job.view, job.exposure))
                advance(writer.frames, f"frame {writer.frames}/{frames}")
    except KeyboardInterrupt:
        kept = f"{out} keeps the first {writer.frames} of {frames} frames" if writer.frames else "nothing was written"
        raise Interrupted(f"stopped by Ctrl-C; {kept}") from None
    say(f"wrote {out} ({frames} frames of {width}x{height} at {job.fps:g}/s, {job.path}, {writer.codec})")


def plan_video(scene: OpenScene, job: HeadlessJob) -> tuple[tuple[int, int], int]:
    """The size and number of frames that fit VIDEO_BUDGET on this machine, from one small frame's time."""
    width, height = job.video_size or job.size
    small = max(1, width // 4), max(1, height // 4)
    camera = make_path(job.path, scene.model.scene, 1, *small)[0]
    scene.render(camera, 1, job.lod_bias)  # the first call may compile kernels or read the file
    start = time.perf_counter()
    scene.render(camera, job.video_samples, job.lod_bias)
    per_pixel = (time.perf_counter() - start) / (small[0] * small[1])
    while True:
        frames = int(VIDEO_BUDGET / max(per_pixel * width * height, 1e-6))
        if frames >= LEAST_FRAMES or height // 2 < SMALLEST_HEIGHT:
            return (width, height), min(max(frames, LEAST_FRAMES), MOST_FRAMES)
        width, height = width // 2, height // 2


def automatic(job: HeadlessJob, fit: bool) -> HeadlessJob:
    """The job where no output was named: the orbit and a still, into the working folder, to a budget if `fit`."""
    if job.screenshot is not None or job.record is not None:
        return job
    return replace(job, screenshot=STILL, record=VIDEO, fit=fit, video_size=job.video_size or (640, 360))
