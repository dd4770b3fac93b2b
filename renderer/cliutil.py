"""What both command lines share: errors to one sentence and an exit code, sizes, camera files, whole files, progress.

Imports the standard library only; the rest comes late, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ..models.camera import Camera

MAX_SIDE = 16384  # px, the widest image that a Camera takes
CAMERA_KEYS = ("c2w", "fx", "fy", "cx", "cy", "width", "height")

#: The words that the command lines offer; tests hold them to `renderer.resolve` and `renderer.executors`.
ViewMode = Literal["rgb", "depth", "normal", "alpha", "level", "gsd", "samples", "node"]
ExecutorName = Literal["auto", "cpu", "torch", "cuda"]
PRESET_NAMES = ("orbit", "turntable", "spiral", "powers", "cameras")  # camera paths with a name


class CommandError(Exception):
    """The command failed in a way that one sentence explains: exit code 1."""

    code = 1


class UsageError(CommandError):
    """The command line itself is wrong: exit code 2."""

    code = 2


class Interrupted(CommandError):
    """Ctrl-C, after what was done has been kept; the message says where. Exit code 130, as a shell has it."""

    code = 130


def run_command(program: str, command: Callable[[], int | None]) -> int:
    """Runs `command` and turns every expected failure into one sentence on stderr and an exit code.

    With INFNERF_DEBUG set, the traceback comes too. Errors of our own making (wrong types, wrong names) always show it.
    """
    try:
        return int(command() or 0)
    except KeyboardInterrupt:
        return _say(program, "stopped by Ctrl-C", Interrupted.code)
    except CommandError as error:
        return _say(program, str(error), error.code)
    except BrokenPipeError:
        # The reader of our output went away (`| head`); Python would complain again while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(program, f"{where}{error.strerror or error}", 1)
    except MemoryError:
        return _say(program, "out of memory; a smaller --size needs less", 1)
    except (ValueError, RuntimeError) as error:
        return _say(program, str(error), 1)


def parse_arguments(program: str, settings: Any, argv: Sequence[str] | None, description: str | None = None) -> Any:
    """Reads the command line into `settings` (a dataclass or a union of them) with tyro.

    Raises `SystemExit`: code 0 after `--help`, 2 after a bad argument.
    """
    import tyro

    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    return tyro.cli(settings, prog=program, args=argv, description=description, config=config)


def parse_size(text: str) -> tuple[int, int]:
    """`"1280x720"` as (width, height). Raises `UsageError` for another form, `CommandError` for a side out of range.

    >>> parse_size("1280x720")
    (1280, 720)
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if match is None:
        raise UsageError(f"--size must be WIDTHxHEIGHT in pixels, like 1280x720, got {text!r}")
    width, height = int(match[1]), int(match[2])
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise CommandError(f"--size must have sides of 1 to {MAX_SIDE} pixels, got {text}")
    return width, height


def check_range(flag: str, value: float, low: float, high: float) -> None:
    """Raises `UsageError` if the value of a flag is outside [low, high], or not a number."""
    if not low <= value <= high:
        raise UsageError(f"{flag} must be from {low:g} to {high:g}, got {value:g}")


def read_camera(path: Path, size: tuple[int, int] | None = None) -> Camera:
    """The camera of a JSON file, resized to `size`.

    The file: {"c2w": 4x4 in OpenCV axes, "fx", "fy", "cx", "cy", "width", "height"}, in pixels.
    Raises `CommandError` that names the file and the key.
    """
    import numpy as np

    from ..models.camera import Camera

    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"{path}: the camera file can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{path}: the camera file is not JSON: {error}") from error
    if not isinstance(entry, dict) or (missing := [key for key in CAMERA_KEYS if key not in entry]):
        lacks = ", ".join(missing) if isinstance(entry, dict) else "an object"
        raise CommandError(f"{path}: the camera needs the keys {', '.join(CAMERA_KEYS)}; it lacks {lacks}")
    try:
        numbers = {key: float(entry[key]) for key in CAMERA_KEYS[1:]}
        for key in (key for key, value in numbers.items() if not math.isfinite(value)):
            raise ValueError(f"{key} must be finite, got {numbers[key]}")
        camera = Camera(np.array(entry["c2w"], np.float64), **numbers)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise CommandError(f"{path}: {error}") from error
    return camera.resized(*size) if size else camera


def camera_json(camera: Camera) -> str:
    """A camera as the text that `read_camera` reads."""
    return json.dumps({key: camera.c2w.tolist() if key == "c2w" else getattr(camera, key) for key in CAMERA_KEYS})


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` (same suffix) that is renamed over it at the end, or deleted if the body raises.

    Raises `CommandError` if the folder does not exist or can't be written.
    """
    temporary = temporary_beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def temporary_beside(path: Path) -> Path:
    """A new path in the folder of `path`, same suffix. Raises `CommandError` as `check_output` does."""
    check_output(path)
    return path.parent / f".{path.stem}.{secrets.token_hex(4)}{path.suffix}"


def next_free(folder: Path, start: str, end: str) -> Path:
    """The first path in a folder, numbered from 0001 on between `start` and `end`, that is not taken."""
    number = 1
    while (path := folder / f"{start}{number:04d}{end}").exists():
        number += 1
    return path


def check_path(path: str) -> None:
    """Raises `CommandError` for a --path that is neither a preset nor a file."""
    if path not in PRESET_NAMES and not Path(path).is_file():
        raise CommandError(f"--path must be one of {', '.join(PRESET_NAMES)}, or a file, got {path!r}")


def check_output(path: Path | None) -> None:
    """Raises `CommandError` if a file can't be written at `path`; called before the work. None is fine."""
    if path is None:
        return
    folder = path.parent
    if not folder.is_dir():
        raise CommandError(f"{path}: the folder {folder} does not exist")
    if path.is_dir():
        raise CommandError(f"{path}: is a folder, a file name is needed")
    if not os.access(folder, os.W_OK):
        raise CommandError(f"{path}: the folder {folder} can't be written")


@contextlib.contextmanager
def progress_bar(description: str, total: float, shown: bool = True) -> Iterator[Callable[[float, str], None]]:
    """A progress bar with the time left (lines of text where stderr is no terminal); nothing where it is not `shown`.

    Yields `advance(done, note)`, `done` in units of `total`.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not shown:
        yield lambda done, note="": None
        return
    if not console.is_terminal:
        yield progress_lines(description, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(description, total=total, note="")
        yield lambda done, note="": progress.update(task, completed=done, note=note)


def progress_lines(description: str, total: float, every: float = 30.0) -> Callable[[float, str], None]:
    """What a log gets instead of a bar: a line at each tenth of the work, at most one in `every` seconds, and the last.

    Returns `advance(done, note)` as `progress_bar` does.
    """
    began, told, tenth = time.monotonic(), -math.inf, 0

    def advance(done: float, note: str = "") -> None:
        nonlocal told, tenth
        share, now = done / total, time.monotonic()
        if int(10 * share) <= tenth or (now - told < every and share < 1):
            return
        told, tenth = now, int(10 * share)
        left = (now - began) * (1 - share) / max(share, 1e-9)
        say(f"{description} {100 * share:3.0f} %, {now - began:.0f} s, {left:.0f} s left{', ' if note else ''}{note}")

    return advance


def say(text: str) -> None:
    """A line on stderr: what goes on, as opposed to results, which go to stdout."""
    print(text, file=sys.stderr, flush=True)


def _say(program: str, sentence: str, code: int) -> int:
    if os.environ.get("INFNERF_DEBUG"):
        traceback.print_exc()
    say(f"{program}: {sentence}")
    return code
