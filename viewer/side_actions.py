"""What keys and buttons do about open scenes, sides and photographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import sides
from .state import COMPARE

if TYPE_CHECKING:
    from .app import App


def show(app: App, number: int) -> None:
    """Another open scene leads; the last frame stays until it has a picture."""
    count = len(app.session.loaded)
    if number < count:
        sides.show(app.state, number)
    else:
        app.notices.add(f"There is no scene {number + 1}: {count} {'is' if count == 1 else 'are'} open.")


def close(app: App, number: int) -> None:
    """Closes an open scene; the only one stays."""
    if len(app.session.loaded) > 1:
        app.comparison.forget(app.session.remove(number))
        sides.removed(app.state, number)


def next_compare(app: App) -> None:
    """The next way to compare, or a word about what is missing for it."""
    state = app.state
    state.compare = COMPARE[(COMPARE.index(state.compare) + 1) % len(COMPARE)]
    if state.compare != "off" and len(app.session.loaded) < 2 and app.photographs.data is None:
        state.compare = "off"
        app.notices.add("To compare, add a second checkpoint, or open a data set in the Compare panel.")


def snap(app: App, number: int) -> None:
    """Glides to where a photograph was taken from, and shows it beside the scene that leads."""
    there = app.stage.snap(number)
    if there is None:
        app.notices.add("Open a data set in the Compare panel to see its photographs.")
    else:
        app.control.go_to(app.state.camera, there)


def step_photograph(app: App, step: int) -> None:
    """The photograph before or after the one that is chosen, round the end; the chosen one first if none was shown."""
    data = app.photographs.data
    step = step if app.stage.snapped is not None else 0
    snap(app, (app.state.photo + step) % len(data) if data is not None else 0)


def open_data(app: App, path: str | Path) -> None:
    """Opens a data set, whose photographs may then be one side."""
    if app.scene is None:
        app.notices.error("Open a checkpoint first: it says where its data set's photographs are.")
    else:
        app.fields["data"] = str(path)
        app.photographs.open(path, app.scene)
    app.touch()
