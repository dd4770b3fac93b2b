"""What keys and buttons do about the film."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .rig import Rig

if TYPE_CHECKING:
    from .app import App


def add(app: App) -> None:
    """A key frame at the present view."""
    if app.scene is not None:
        app.film.add(app.camera(), app.state.lod_bias)


def go(app: App) -> None:
    """Glides to the chosen key."""
    film = app.film
    if film.path.keys:
        film.playing = False
        key = film.path.keys[film.chosen]
        camera = app.camera()
        there = Rig.of(type(camera).from_fov(key.c2w, key.fov_y, camera.width, camera.height), app.state.camera.up)
        app.control.go_to(app.state.camera, there)


def preset(app: App, name: str) -> None:
    """Key frames of a named path."""
    if app.scene is None:
        return
    try:
        app.film.take_preset(name, app.scene)
    except ValueError as error:
        app.notices.error(f"No such path here: {error}")


def play(app: App) -> None:
    """Flies along the path from the present moment, from its end again from the start; or pauses."""
    film = app.film
    film.playing = not film.playing and len(film.path.keys) > 1
    if film.playing:
        app.control.halt()
        if film.seconds >= film.path.duration:
            film.seconds = 0.0


def record(app: App) -> None:
    """Films the path as the panel says."""
    if app.scene is None:
        return
    from .panels.film import SIZES

    fields = app.fields
    width, height = map(int, fields.get("film_size", SIZES[1]).split("x"))
    out = Path(fields.get("film_out", "film.mp4").strip() or "film.mp4").expanduser()
    try:
        app.film.record(app.scene, out, (width, height), int(fields.get("film_samples", "4")), app.state.view_mode)
    except (OSError, ValueError) as error:
        app.notices.error(f"The film could not be started: {error}")
