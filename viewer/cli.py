"""`infnerf-view`: the command line. Light to import; window and renderer come when the arguments are understood."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..renderer.cliutil import (
    PRESET_NAMES,
    CommandError,
    ExecutorName,
    UsageError,
    ViewMode,
    check_path,
    check_range,
    parse_arguments,
    parse_size,
    run_command,
    say,
)

PROGRAM = "infnerf-view"
MOST_CHECKPOINTS = 9  # as many as have a key
Comparison = Literal["wipe", "side-by-side", "flicker", "difference", "error"]  # renderer.comparison.COMPARISONS
DESCRIPTION = """Fly a trained octree NeRF. Without a CHECKPOINT it shows the demo; without a display it renders a video
(infnerf-view.mp4) and a still (infnerf-view.png) into the working folder instead."""


@dataclass
class Arguments:
    checkpoints: Positional[
        Annotated[tuple[Path, ...], arg(metavar="[CHECKPOINT ...]", help_behavior_hint="(default: the demo)")]
    ] = ()
    """The scene, a .pth file; of several the first is shown, and the keys 1, 2, 3 switch."""
    compare: Annotated[Comparison | None, arg(metavar="MODE")] = None
    """Two CHECKPOINTs against each other, by wipe, side-by-side, flicker, difference or error; windowless a still."""
    data: Annotated[Path | None, arg(metavar="DIR")] = None
    """A data set, whose photographs can be compared with the scene."""
    follow: Annotated[Path | None, arg(metavar="RUN")] = None
    """Open the checkpoint that a training run writes, or its folder, and again whenever it was saved."""
    headless: bool = False
    """No window: render --screenshot and --record, or both of their defaults if neither is given."""
    screenshot: Annotated[Path | None, arg(metavar="OUT.png")] = None
    """Write a still and exit (implies --headless)."""
    record: Annotated[Path | None, arg(metavar="OUT.mp4")] = None
    """Write a video, or PNGs if it is a folder, and exit (implies --headless)."""
    path: Annotated[str, arg(metavar="NAME|FILE")] = "orbit"
    """Camera path of the video: orbit, turntable, spiral, powers (of ten), cameras (along the training cameras), or a
    file of nerfstudio, instant-ngp, a transforms.json or poses as text."""
    frames: Annotated[int | None, arg(metavar="N")] = None
    """Frames of the video, 120 by default; with neither --record nor --frames as many as render in 40 seconds."""
    fps: Annotated[float, arg(metavar="F")] = 30.0
    """Frames per second of the video."""
    view: ViewMode = "rgb"
    """What pixels show."""
    size: Annotated[str | None, arg(metavar="WxH")] = None
    """Pixels of the window, still or video; 1280x720 by default."""
    executor: ExecutorName = "auto"
    """What computes the pixels; auto takes the fastest that works here."""
    samples: Annotated[int | None, arg(metavar="N")] = None
    """Frames averaged per picture; 16 for a still and 4 for a video by default, 1 is exact and unsmoothed."""
    camera: Annotated[Path | None, arg(metavar="CAM.json")] = None
    """Pose of the still: {"c2w": 4x4 OpenCV, "fx", "fy", "cx", "cy", "width", "height"}."""
    lod_bias: Annotated[float, arg(metavar="LEVELS")] = 0.0
    """Added to every sample's level; above 0 is finer."""
    exposure: Annotated[float, arg(metavar="EV")] = 0.0
    """Brightness in stops."""
    no_settings: bool = False
    """Neither read nor write the settings kept per user."""
    doctor: bool = False
    """Say what OpenGL, CUDA and the executors are here, what is in use and why, and what would help; then exit."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Exit codes: 0, 1 (it failed, one sentence on stderr), 2 (bad arguments), 130 (Ctrl-C)."""
    arguments: Arguments = parse_arguments(PROGRAM, Arguments, argv, DESCRIPTION)
    return run_command(PROGRAM, lambda: view(arguments))


def view(arguments: Arguments) -> int:
    """Opens the window, or works without one. Raises `CommandError`."""
    if arguments.doctor:
        return _doctor(arguments)
    size = _check(arguments)
    if arguments.follow is not None:
        _check_follow(arguments, arguments.follow)
    windowless = arguments.headless or arguments.screenshot is not None or arguments.record is not None
    if windowless or not has_display():
        _check_several(arguments)
    if windowless:
        return _headless(arguments, size)
    if not has_display():
        what = f"the path {Path(arguments.path).name}"
        say(f"No display: rendering {what} to infnerf-view.mp4 and a still to infnerf-view.png instead.")
        return _headless(arguments, size)
    _refuse_headless_flags(arguments)
    from .launch import run_window
    from .window import WindowError

    try:
        return run_window(
            [] if arguments.follow is not None else list(_checkpoints(arguments)),
            size=size or (1280, 720),
            view=arguments.view,
            executor=arguments.executor,
            camera=arguments.camera,
            use_settings=not arguments.no_settings,
            follow=arguments.follow,
            compare=_mode(arguments) or "off",
            data=arguments.data,
        )
    except WindowError as error:
        raise CommandError(f"{error}; --headless works without a window") from error


def has_display() -> bool:
    """Whether a window could be opened: on Linux an X or Wayland display is named."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


def _check(arguments: Arguments) -> tuple[int, int] | None:
    """Everything that can be wrong before a file is opened. Returns the size."""
    size = parse_size(arguments.size) if arguments.size is not None else None
    if arguments.frames is not None:
        check_range("--frames", arguments.frames, 1, 100_000)
    if arguments.samples is not None:
        check_range("--samples", arguments.samples, 1, 65_536)
    check_range("--fps", arguments.fps, 0.1, 1000)
    check_path(arguments.path)
    check_range("--lod-bias", arguments.lod_bias, -16, 16)
    check_range("--exposure", arguments.exposure, -20, 20)
    if len(arguments.checkpoints) > MOST_CHECKPOINTS:
        raise UsageError(f"at most {MOST_CHECKPOINTS} CHECKPOINTs at once, got {len(arguments.checkpoints)}")
    if arguments.compare is not None and len(arguments.checkpoints) < 2 and arguments.data is None:
        raise UsageError(f"--compare needs two CHECKPOINTs, or one and --data, got {len(arguments.checkpoints)}")
    if arguments.data is not None and not arguments.data.exists():
        raise CommandError(f"{arguments.data}: expected the folder of a data set, there is none")
    if arguments.screenshot is not None and arguments.screenshot.suffix.lower() != ".png":
        raise UsageError(f"--screenshot must end in .png, got {arguments.screenshot}")
    missing = [str(path) for path in arguments.checkpoints if not path.is_file()]
    if missing and len(missing) == len(arguments.checkpoints):  # else the window tells of them beside the others
        raise CommandError(f"{', '.join(missing)}: no such file{'s' if len(missing) > 1 else ''}")
    if arguments.camera is not None and not arguments.camera.is_file():
        raise CommandError(f"{arguments.camera}: no such file")
    return size


def _check_several(arguments: Arguments) -> None:
    """What only a window can do with several scenes. Raises `UsageError`."""
    count = len(arguments.checkpoints)
    if arguments.data is not None:
        raise UsageError("--data needs a window; infnerf eval compares with photographs without one")
    if arguments.compare is None:
        if count > 1:
            raise UsageError(f"{count} CHECKPOINTs need a window; without one name one, or two and --compare MODE")
        return
    if count != 2 or arguments.compare == "flicker":
        what = "flicker needs a window" if count == 2 else f"it takes two CHECKPOINTs, got {count}"
        raise UsageError(f"--compare without a window makes a still of two scenes: {what}")
    if arguments.record is not None:
        raise UsageError("--compare without a window makes a still: it goes with --screenshot, not with --record")
    for path in arguments.checkpoints:
        if not path.is_file():
            raise CommandError(f"{path}: no such file")


def _mode(arguments: Arguments) -> str | None:
    """The way to compare, as the state has it."""
    return arguments.compare.replace("-", " ") if arguments.compare is not None else None


def _check_follow(arguments: Arguments, run: Path) -> None:
    """Raises `CommandError` where there is nothing to follow, or no window to follow it in."""
    if arguments.checkpoints:
        raise UsageError(f"either a CHECKPOINT or --follow RUN, got both: {arguments.checkpoints[0]} and {run}")
    if arguments.headless or arguments.screenshot is not None or arguments.record is not None:
        raise UsageError("--follow needs a window, it does not go with --headless, --screenshot or --record")
    if not run.exists() and not run.parent.is_dir():
        raise CommandError(f"{run}: expected a run's checkpoint or its folder, there is no folder {run.parent}")
    if not has_display():
        raise CommandError("--follow needs a window, and there is no display; without --follow a still can be rendered")


def _doctor(arguments: Arguments) -> int:
    """Raises `UsageError` where it is asked for anything else, too."""
    if arguments != Arguments(doctor=True):
        raise UsageError("--doctor goes alone")
    from .doctor import run_doctor

    return run_doctor()


def _refuse_headless_flags(arguments: Arguments) -> None:
    """A flag that a window would ignore is a mistake, said before it opens. Raises `UsageError`."""
    names = ("path", "frames", "fps", "samples", "lod_bias", "exposure")
    default = Arguments()
    if given := [name for name in names if getattr(arguments, name) != getattr(default, name)]:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{flags}: only with --headless, --screenshot or --record (the window has controls for it)")


def _checkpoints(arguments: Arguments) -> tuple[Path, ...]:
    from ..renderer.renderer import DEMO, DEMO_OTHERS

    if not arguments.checkpoints and not DEMO.is_file():
        raise CommandError(f"the demo scene is not installed ({DEMO} is missing); name a CHECKPOINT")
    return arguments.checkpoints or (DEMO, *(path for path in DEMO_OTHERS if path.is_file()))


def _headless(arguments: Arguments, size: tuple[int, int] | None) -> int:
    from .headless import HeadlessJob, automatic, run_headless

    job = HeadlessJob(
        checkpoint=_checkpoints(arguments)[0],
        executor=arguments.executor,
        view=arguments.view,
        screenshot=arguments.screenshot,
        record=arguments.record,
        path=arguments.path,
        fps=arguments.fps,
        size=size or (1280, 720),
        video_size=size,
        camera=arguments.camera,
        lod_bias=arguments.lod_bias,
        exposure=arguments.exposure,
        compare=_mode(arguments),
        other=arguments.checkpoints[1] if arguments.compare is not None else None,
    )
    if arguments.samples is not None:
        job = replace(job, samples=arguments.samples, video_samples=arguments.samples)
    if arguments.frames is not None:
        job = replace(job, frames=arguments.frames)
    fit = arguments.frames is None and size is None and arguments.path in PRESET_NAMES
    return run_headless(automatic(job, fit))
