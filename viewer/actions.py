"""What keys and buttons do: action -> function. Names are those of `bindings.BINDINGS` and a few of panels only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..renderer.resolve import VIEW_MODES
from . import film_actions, side_actions, sides
from .posetext import format_pose, parse_pose
from .rig import Rig
from .state import TINTS, WIRES, limits

if TYPE_CHECKING:
    from .app import App

EXPOSURE_STEP = 0.25  # EV
BIAS_STEP = 0.25  # levels


def make_actions(app: App) -> dict[str, Callable[..., None]]:
    """All actions of the application."""
    state = app.state

    def view(mode: str) -> Callable[[], None]:
        return lambda: setattr(state, "view_mode", mode)

    actions: dict[str, Callable[..., None]] = {f"view_{mode}": view(mode) for mode in VIEW_MODES}
    for slot in range(1, 10):
        actions[f"store_{slot}"] = lambda slot=slot: store(app, slot)
        actions[f"recall_{slot}"] = lambda slot=slot: recall(app, slot)
        actions[f"show_{slot}"] = lambda slot=slot: side_actions.show(app, slot - 1)
    more: dict[str, Callable[..., None]] = {
        "open": app.open,
        "add": app.add,
        "show": lambda number: side_actions.show(app, number),
        "close": lambda number: side_actions.close(app, number),
        "compare": lambda: side_actions.next_compare(app),
        "swap": lambda: sides.swap(state),
        "open_data": lambda path: side_actions.open_data(app, path),
        "snap": lambda number: side_actions.snap(app, number),
        "to_photo": lambda: side_actions.step_photograph(app, 0),
        "next_photo": lambda: side_actions.step_photograph(app, 1),
        "previous_photo": lambda: side_actions.step_photograph(app, -1),
        "home": lambda: go_home(app),
        "move_to": lambda position: move_to(app, position),
        "forget": lambda slot: forget(app, slot),
        "copy_pose": lambda: copy_pose(app),
        "paste_pose": lambda: paste_pose(app),
        "next_view": lambda: _cycle(state, "view_mode", VIEW_MODES),
        "tint": lambda: _cycle(state, "tint", TINTS),
        "wires": lambda: _cycle(state, "wires", WIRES),
        "legend": lambda: _toggle(state, "legend"),
        "inspect": lambda: _toggle(state, "inspect"),
        "film_add": lambda: film_actions.add(app),
        "film_move": lambda: app.film.move(app.camera()),
        "film_go": lambda: film_actions.go(app),
        "film_preset": lambda name: film_actions.preset(app, name),
        "film_play": lambda: film_actions.play(app),
        "film_record": lambda: film_actions.record(app),
        "export_ray": lambda: app.inspector.export(Path.cwd()),
        "forget_ray": lambda: app.inspector.forget(),
        "brighter": lambda: _step(state, "exposure", EXPOSURE_STEP),
        "darker": lambda: _step(state, "exposure", -EXPOSURE_STEP),
        "finer": lambda: _step(state, "lod_bias", BIAS_STEP),
        "coarser": lambda: _step(state, "lod_bias", -BIAS_STEP),
        "wire_deeper": lambda: _wire_level(app, 1),
        "wire_shallower": lambda: _wire_level(app, -1),
        "screenshot": app.screenshot,
        "toggle_ui": lambda: _toggle(state, "show_ui"),
        "fullscreen": lambda: _toggle(state, "fullscreen"),
        "reset_layout": app.reset_layout,
        "help": lambda: _toggle(state, "show_help"),
        "quit": app.quit,
    }
    return actions | more


def bookmarks(app: App) -> dict[str, list[float]]:
    """The stored poses of the present scene, by slot."""
    return app.state.bookmarks.setdefault(app.scene.key, {}) if app.scene is not None else {}


def store(app: App, slot: int) -> None:
    """Keeps the present view under a number."""
    if app.scene is None:
        return
    rig = app.state.camera
    numbers = [*rig.position, rig.yaw, rig.pitch, rig.roll, rig.fov_y]
    bookmarks(app)[str(slot)] = [float(x) for x in numbers]
    app.notices.add(f"View stored as bookmark {slot}.")


def forget(app: App, slot: int) -> None:
    """Empties a bookmark."""
    bookmarks(app).pop(str(slot), None)


def recall(app: App, slot: int) -> None:
    """Glides to a stored view."""
    numbers = bookmarks(app).get(str(slot))
    if numbers is None:
        app.notices.add(f"Bookmark {slot} is empty; Ctrl+{slot} stores the present view there.")
        return
    yaw, pitch, roll, fov_y = numbers[3:]
    app.control.go_to(app.state.camera, Rig(np.array(numbers[:3]), yaw, pitch, roll, fov_y, app.state.camera.up.copy()))


def go_home(app: App) -> None:
    """Glides to where the scene starts."""
    if app.home is not None:
        app.control.go_to(app.state.camera, app.home)


def move_to(app: App, position: list[float]) -> None:
    """Puts the camera somewhere, looking the same way."""
    app.control.halt()
    app.state.camera.position = np.array(position, np.float64)


def copy_pose(app: App) -> None:
    """The camera as text on the clipboard, in the axes that the camera panel shows."""
    axes = app.fields.get("axes", "OpenCV")
    app.window.imgui.set_clipboard_text(format_pose(app.camera(), axes))
    app.notices.add(f"Pose copied, {axes} axes.")


def paste_pose(app: App) -> None:
    """Takes the camera from the clipboard's text."""
    try:
        pose, fov_y = parse_pose(app.window.imgui.get_clipboard_text() or "", app.fields.get("axes", "OpenCV"))
    except ValueError as error:
        app.notices.error(str(error))
        return
    app.control.halt()
    app.state.camera.set_c2w(pose)
    if fov_y is not None:
        app.state.camera.fov_y = fov_y
    app.notices.add("Pose pasted.")


def _cycle(state: object, name: str, options: tuple[str, ...]) -> None:
    present = getattr(state, name)
    index = options.index(present) + 1 if present in options else 0
    setattr(state, name, options[index % len(options)])


def _toggle(state: object, name: str) -> None:
    setattr(state, name, not getattr(state, name))


def _step(state: object, name: str, step: float) -> None:
    low, high = limits(name)
    setattr(state, name, float(np.clip(getattr(state, name) + step, low, high)))


def _wire_level(app: App, step: int) -> None:
    """Shows wires down to one level more or less, and switches them on."""
    state = app.state
    deepest = len(app.scene.level_counts) - 1 if app.scene is not None else int(limits("wire_max")[1])
    state.wire_max = int(np.clip(min(state.wire_max, deepest) + step, 0, deepest))
    state.wire_min = min(state.wire_min, state.wire_max)
    state.wires = "all" if state.wires == "off" else state.wires
