"""The viewer's work without a window: stills and videos. Imports neither OpenGL nor a toolkit (a test holds that)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from ..models.camera import Camera
from ..renderer.cliutil import (
    camera_json,
    check_output,
    progress_bar,
    read_camera,
    say,
)
from ..renderer.comparison import MAPS, compose, psnr
from ..renderer.frame import FrameBuffers, RenderRequest
from ..renderer.pace import pace_of
from ..renderer.path_presets import make_shots
from ..renderer.pngmeta import save_png
from ..renderer.recording import record
from ..renderer.renderer import Renderer

VIDEO, STILL = Path("infnerf-view.mp4"), Path("infnerf-view.png")
VIDEO_BUDGET, STILL_BUDGET = 40.0, 10.0  # s of an automatic run; with loading about a minute in all
LEAST_FRAMES, MOST_FRAMES = 48, 240
SMALLEST_HEIGHT = 90  # px, below which an automatic video is not worth watching
SLOW_HEIGHT = 18  # px, of a model that is slow by nature: better than an hour


@dataclass(frozen=True)
class HeadlessJob:
    """What to make of one checkpoint."""

    checkpoint: Path
    executor: str = "auto"
    view: str = "rgb"  # one of renderer.resolve.VIEW_MODES
    screenshot: Path | None = None
    record: Path | None = None
    path: str = "orbit"  # one of renderer.path_presets.PRESETS, or a file
    frames: int | None = None  # None: 120, of a file as many as it asks for
    fit: bool = False  # true: `frames`, `video_size` and `samples` as fit the budgets here, at most those given
    fps: float = 30.0
    size: tuple[int, int] = (1280, 720)  # px, of the still
    video_size: tuple[int, int] | None = None  # px; None: `size`
    samples: int = 16  # frames averaged in the still: the window's default at rest
    video_samples: int = 4
    camera: Path | None = None  # JSON, for the still
    lod_bias: float = 0.0  # levels
    exposure: float = 0.0  # EV
    compare: str | None = None  # one of renderer.comparison.COMPARISONS that is a still; then only that is made
    other: Path | None = None  # the scene on the right of it


def run_headless(job: HeadlessJob) -> int:
    """Does the job and says what it wrote. Raises `CommandError` and the errors of `Renderer.from_checkpoint`."""
    for path in (job.screenshot, job.record):
        if path is not None and path.suffix:
            check_output(path)  # refuses a folder that isn't there now, not after a minute of rendering
    start = time.perf_counter()
    with Renderer.from_checkpoint(job.checkpoint, job.executor) as renderer:
        took = time.perf_counter() - start
        nodes = renderer.model.octree.n_nodes
        say(f"{job.checkpoint.name}: {nodes} nodes, opened in {took:.1f} s; executor {renderer.reason}")
        if job.compare is not None and job.other is not None:
            compare_stills(renderer, job, job.compare, job.other)
            return 0
        if job.fit:
            job = fitted(renderer, job)
        if job.screenshot is not None:
            take_still(renderer, job, job.screenshot)
        if job.record is not None:
            record_video(renderer, job, job.record)
    return 0


def take_still(renderer: Renderer, job: HeadlessJob, out: Path) -> None:
    """One converged view as a PNG, its pose in the text chunk `camera` (the JSON that `--camera` reads)."""
    camera = still_camera(renderer, job)
    with progress_bar("still", job.samples) as advance:
        image = renderer.render_image(camera, job.samples, job.lod_bias, lambda done: advance(done, ""))
    image.save_png(out, job.view, job.exposure)
    say(f"wrote {out} ({camera.width}x{camera.height}, {job.view}, {job.samples} samples)")


def compare_stills(renderer: Renderer, job: HeadlessJob, mode: str, other: Path) -> None:
    """One view of two scenes as one PNG, by the camera where the left one would start. Says their PSNR."""
    width, height = job.size
    if mode == "side by side":
        job = replace(job, size=(max(width // 2, 1), height))
    out, view = job.screenshot or STILL, "rgb" if mode in MAPS else job.view
    camera = still_camera(renderer, job)
    pictures, plain = [], []
    with Renderer.from_checkpoint(other, job.executor) as right:
        for checkpoint, side in ((job.checkpoint, renderer), (other, right)):
            with progress_bar(checkpoint.name, job.samples) as advance:
                image = side.render_image(camera, job.samples, job.lod_bias, lambda done: advance(done, ""))
            pictures.append(image.picture(view, job.exposure))
            plain.append(image.picture("rgb", job.exposure))
    score = psnr(*plain)
    facts = {"camera": camera_json(camera), "compare": mode, "left": job.checkpoint.name, "right": other.name}
    save_png(out, compose(mode, *pictures), facts)
    alike = "the same pixels" if score == float("inf") else f"PSNR {score:.2f} dB"
    say(f"wrote {out} ({mode} of {job.checkpoint.name} and {other.name}, {job.samples} samples, {alike})")


def still_camera(renderer: Renderer, job: HeadlessJob) -> Camera:
    """The camera of `--camera` at the size asked for, else where the viewer would start."""
    if job.camera is not None:
        return read_camera(job.camera, job.size)
    return renderer.home_camera(*job.size)


def record_video(renderer: Renderer, job: HeadlessJob, out: Path) -> None:
    """A camera path as a video or a folder of PNGs. Ctrl-C keeps the frames so far and raises `Interrupted`."""
    shots = make_shots(job.path, renderer.model, job.frames, *(job.video_size or job.size))
    title = Path(job.path).name
    record(renderer, shots, out, title, job.video_samples, job.view, job.fps, job.lod_bias, job.exposure)


def fitted(renderer: Renderer, job: HeadlessJob) -> HeadlessJob:
    """The job with the video's size, its frames and the still's samples as fit the budgets on this machine; of a model
    that is slow by nature also with the still's size and the video's samples."""
    slow = pace_of(renderer.executor).ladder
    least, still = (SLOW_HEIGHT if slow else SMALLEST_HEIGHT), job
    while slow and still.size[1] * 3 // 8 * 2 >= least:
        if frame_seconds(renderer, still_camera(renderer, still), job.lod_bias) <= STILL_BUDGET:
            break
        still = replace(still, size=smaller(*still.size))
    samples = int(STILL_BUDGET / frame_seconds(renderer, still_camera(renderer, still), job.lod_bias))
    width, height = job.video_size or job.size
    video_samples = 1 if slow else job.video_samples
    while True:
        camera = make_shots(job.path, renderer.model, 1, width, height)[0].camera
        frames = int(VIDEO_BUDGET / (frame_seconds(renderer, camera, job.lod_bias) * video_samples))
        if frames >= LEAST_FRAMES or smaller(width, height)[1] < least:
            break
        width, height = smaller(width, height)
    return replace(
        still,
        video_size=(width, height),
        video_samples=video_samples,
        frames=min(max(frames, LEAST_FRAMES), MOST_FRAMES),
        samples=min(max(samples, 1), job.samples),
    )


def smaller(width: int, height: int) -> tuple[int, int]:
    """Three quarters of a size, even."""
    return width * 3 // 8 * 2, height * 3 // 8 * 2


def frame_seconds(renderer: Renderer, camera: Camera, lod_bias: float) -> float:
    """An estimate of one frame's time from four bands of it, an eighth in all.

    A smaller frame would mislead: its wider cones take coarser levels and fewer steps. Not so of a model that is slow
    by nature: all its rays take the same, and an eighth of a frame may take hours.
    """
    pace = pace_of(renderer.executor)
    if pace.ladder:
        pixels = camera.width * camera.height
        camera = camera.resized(*(max(2, round(edge * pace.least_scale)) for edge in (camera.width, camera.height)))
        start = time.perf_counter()
        renderer.executor.render(RenderRequest(camera), FrameBuffers.allocate(camera.width, camera.height))
        return (time.perf_counter() - start) * pixels / (camera.width * camera.height)
    buffers = FrameBuffers.allocate(camera.width, camera.height)
    rows = max(1, camera.height // 32)
    tops = [camera.height * k // 8 for k in (1, 3, 5, 7)]
    bands = [(0, top, camera.width, min(top + rows, camera.height)) for top in tops]
    requests = [RenderRequest(camera, region=band, lod_bias=lod_bias) for band in bands]
    renderer.executor.render(requests[0], buffers)  # first: files are read
    start = time.perf_counter()
    for request in requests:
        renderer.executor.render(request, buffers)
    share = sum(y1 - y0 for _, y0, _, y1 in bands) / camera.height
    return max(time.perf_counter() - start, 1e-6) / share


def automatic(job: HeadlessJob, fit: bool) -> HeadlessJob:
    """The job where no output was named: the orbit and a still, into the working folder, to a budget if `fit`."""
    if job.screenshot is not None or job.record is not None:
        return job
    return replace(job, screenshot=STILL, record=VIDEO, fit=fit, video_size=job.video_size or (640, 360))
