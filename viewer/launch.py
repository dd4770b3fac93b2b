"""The program around the window: from a command line's paths to an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..renderer.cliutil import read_camera
from . import settings
from .app import TITLE, App
from .session import sentence
from .window import Window


def run_window(
    checkpoints: Sequence[Path],
    size: tuple[int, int] = (1280, 720),
    view: str = "rgb",
    executor: str = "auto",
    camera: Path | None = None,
    use_settings: bool = True,
    follow: Path | None = None,  # a run whose checkpoint is opened when it is there, and again when it changed
    compare: str = "off",  # one of state.COMPARE
    data: Path | None = None,  # whose photographs may be a side
) -> int:
    """Opens the window on checkpoints and runs until the person quits. Returns the exit code.

    Those that can't be opened are told of in the window. Raises `WindowError` where no window can be opened, and
    the opener's error, or one sentence of all, if none of the checkpoints can be opened.
    """
    first_camera = read_camera(camera) if camera is not None else None
    with Window(*size, TITLE) as window:
        app = App(
            window,
            settings.config_folder() if use_settings else None,
            executor=executor if executor != "auto" else None,
        )
        try:
            app.state.view_mode, app.state.compare, app.first_camera = view, compare, first_camera
            app.first_data = data
            if checkpoints:
                app.open(*checkpoints)
            if follow is not None:
                app.follow(follow)
            session = app.session

            def none_opened() -> bool:
                return follow is None and bool(session.errors) and not (session.loaded or session.loading)

            app.run(until=none_opened)
            errors = session.errors if none_opened() else []
        finally:
            app.close()
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise RuntimeError(f"none of {len(errors)} checkpoints could be opened: " + "; ".join(map(sentence, errors)))
    return 0
