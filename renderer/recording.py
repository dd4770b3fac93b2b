"""A camera path to a video with progress on the terminal: what both command lines do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..models.similarity import place_of
from .cliutil import Interrupted, UsageError, check_output, progress_bar, say
from .key_path import KeyFrame, KeyPath, Shot
from .path_files import read_path, write_path, write_poses
from .path_presets import PRESETS, make_shots
from .renderer import Renderer


def record(
    renderer: Renderer,
    shots: Sequence[Shot],
    out: Path,  # .mp4, .mkv, .mov, or a folder for PNGs
    title: str,  # what it shows, in a word
    samples: int,  # frames averaged in each
    view: str = "rgb",
    fps: float = 30.0,
    lod_bias: float = 0.0,  # levels
    exposure: float = 0.0,  # EV
) -> None:
    """Writes the video and says so. Ctrl-C keeps the frames so far and raises `Interrupted`."""
    width, height = shots[0].camera.width, shots[0].camera.height
    frames, kept = len(shots), 0
    try:
        with progress_bar(f"{title}, {width}x{height}", frames) as advance:

            def report(written: int) -> None:
                nonlocal kept
                kept = written
                advance(written, f"frame {written}/{frames}")

            video = renderer.render_video(out, shots, samples, view, fps, lod_bias, exposure, report)
    except KeyboardInterrupt:
        what = f"{out} keeps the first {kept} of {frames} frames" if kept else "nothing was written"
        raise Interrupted(f"stopped by Ctrl-C; {what}") from None
    say(f"wrote {out} ({frames} frames of {width}x{height} at {fps:g}/s, {title}, {video.codec})")


def render_path(
    checkpoint: Path,
    path: str,  # one of PRESETS, or a file
    out: Path,
    size: tuple[int, int],  # px
    n_frames: int | None,  # None: as many as the file asks for, of a preset 120
    fps: float,
    samples: int,
    executor: str,
    view: str,
    poses: Path | None,  # .json: nerfstudio's path; .txt: 16 numbers a line
    axes: str,  # of the text
) -> None:
    """`infnerf render --path`. Raises `CommandError`, `CheckpointError`, `ExecutorUnavailable`, `ValueError`."""
    if poses is not None and poses.suffix.lower() not in (".json", ".txt"):
        raise UsageError(f"--poses must end in .json or .txt, got {poses}")
    check_output(poses)
    if out.suffix:
        check_output(out)
    title = Path(path).name
    with Renderer.from_checkpoint(checkpoint, executor) as renderer:
        shots = make_shots(path, renderer.model, n_frames, *size)
        if poses is not None:
            _write_poses(renderer, path, shots, poses, fps, axes)
        record(renderer, shots, out, title, samples, view, fps)


def _write_poses(renderer: Renderer, path: str, shots: Sequence[Shot], out: Path, fps: float, axes: str) -> None:
    place = place_of(renderer.model.scene)
    if out.suffix.lower() == ".txt":
        write_poses(out, shots, axes, place)
    else:
        keys = [KeyFrame(shot.camera.c2w, shot.camera.fov_y, 1 / fps, shot.lod_bias, shot.view) for shot in shots]
        told = KeyPath(keys, fps=fps) if path in PRESETS else read_path(Path(path), place)
        write_path(out, told, shots[0].camera.width, shots[0].camera.height, place, len(shots))
    say(f"wrote {out} ({len(shots)} poses)")
