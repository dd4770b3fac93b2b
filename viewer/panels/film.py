"""The film panel: key frames, the path through them, its files, and the video of it."""

from __future__ import annotations

from pathlib import Path

from ...renderer.path_presets import PRESETS
from ...renderer.resolve import VIEW_MODES
from ..film import Film
from ..state import limits
from . import Context, widgets

TITLE = "Film"
SIZES = ("640x360", "1280x720", "1920x1080", "3840x2160")
UNTOLD = "as filmed"  # the view mode of a key that names none


def draw(context: Context) -> None:
    """Keys, the chosen key, time, files, film."""
    film = context.film
    if film is None or context.scene is None:
        widgets.note("Open a scene first.")
        return
    widgets.heading("Path")
    chosen = widgets.choice("film_preset", "Take from", "", tuple(PRESETS), "Replaces the keys; change them at will")
    if chosen:
        context.actions["film_preset"](chosen)
    if _button("film_add", "Add this view (K)", "A key frame behind the chosen one", True, True):
        context.actions["film_add"]()
    if not film.path.keys:
        widgets.note("Fly somewhere and add the view as a key frame; add more, and play.")
    else:
        _keys(context, film)
        _time(context, film)
    _files(context, film)
    if film.path.keys:
        _record(context, film)


def _keys(context: Context, film: Film) -> None:
    path = film.path
    names = tuple(f"{number}: {key.fov_y:.0f} deg" for number, key in enumerate(path.keys, 1))
    chosen = names.index(widgets.choice("film_key", "Key", names[film.chosen], names, "Its numbers stand below"))
    if chosen != film.chosen:
        film.chosen = chosen
        context.actions["film_go"]()
    if _button("film_move", "Move it here", "The chosen key comes to this view", True):
        context.actions["film_move"]()
    if _button("film_remove", "Remove it", "Drops the chosen key", False):
        film.remove()
        return
    key = path.keys[film.chosen]
    seconds = widgets.slider("film_seconds", "Way to it", key.seconds, (0.1, 30.0), "%.1f s", log=True)
    fov_y = widgets.slider("film_fov", "Field of view", key.fov_y, (5.0, 120.0), "%.0f deg")
    bias = widgets.slider("film_bias", "Bias", key.lod_bias, limits("lod_bias"), "%+.2f levels")
    modes = (UNTOLD, *VIEW_MODES)
    view = widgets.choice("film_view", "View mode", key.view or UNTOLD, modes, "From this key on")
    view = "" if view == UNTOLD else view
    values = {"seconds": seconds, "fov_y": fov_y, "lod_bias": bias, "view": view}
    if new := {name: value for name, value in values.items() if _differs(value, getattr(key, name))}:
        film.edit(**new)


def _differs(value: object, other: object) -> bool:
    """Whether a control changed its value: sliders keep float32."""
    if isinstance(value, float) and isinstance(other, (int, float)):
        return abs(value - other) > 1e-4 * max(1.0, abs(other))
    return value != other


def _time(context: Context, film: Film) -> None:
    path = film.path
    widgets.heading(f"{path.duration:.1f} s, {path.n_frames} frames")
    moment = widgets.slider("film_time", "Moment", film.seconds, (0.0, max(path.duration, 0.01)), "%.2f s")
    if abs(moment - film.seconds) > 1e-3:
        film.playing = False
        film.show(context.state, moment)
    if _button("film_play", "Pause" if film.playing else "Play", "The view flies along the path", True, True):
        context.actions["film_play"]()
    for widget, label, name, tip in (
        ("film_loop", "Loop", "loop", "From the last key to the first"),
        ("film_speed", "Constant speed", "constant_speed", "Equal ways in equal times, instead of each key's own"),
    ):
        value = widgets.checkbox(widget, label, getattr(path, name), tip)
        if value != getattr(path, name):
            setattr(path, name, value)
            film.changed()
    path.fps = widgets.slider("film_fps", "Frame rate", path.fps, (1.0, 120.0), "%.0f /s")


def _files(context: Context, film: Film) -> None:
    fields = context.fields
    widgets.heading("File")
    _, fields["film_file"] = widgets.text_field("film_file", fields.get("film_file", "path.json"), "path.json")
    named = bool(fields["film_file"].strip())
    if _button("film_load", "Open", "nerfstudio, instant-ngp, transforms.json, poses as text", True, enabled=named):
        film.load(Path(fields["film_file"].strip()).expanduser(), context.scene)
    if _button("film_save", "Save", "nerfstudio's JSON", False, enabled=named and bool(film.path.keys)):
        film.save(Path(fields["film_file"].strip()).expanduser(), (1280, 720), context.scene)


def _record(context: Context, film: Film) -> None:
    fields, recording = context.fields, film.recording
    widgets.heading("Film")
    _, fields["film_out"] = widgets.text_field("film_out", fields.get("film_out", "film.mp4"), ".mp4 or a folder")
    fields["film_size"] = widgets.choice("film_size", "Size", fields.get("film_size", SIZES[1]), SIZES)
    samples = widgets.slider_int("film_samples", "Samples", int(fields.get("film_samples", "4")), (1, 64), log=True)
    fields["film_samples"] = str(samples)
    running = recording is not None and recording.running
    if _button("film_record", "Film it", "In the background, by infnerf render", True, enabled=not running):
        context.actions["film_record"]()
    if _button("film_stop", "Stop", "Keeps the frames so far", False, enabled=running) and recording is not None:
        recording.stop()
    if recording is not None:
        widgets.note(recording.line)


def _button(widget: str, label: str, tip: str, first: bool, whole: bool = False, enabled: bool = True) -> bool:
    """One of two buttons side by side, or one over the whole width."""
    from imgui_bundle import imgui

    gap = imgui.get_style().frame_padding.x
    if not first:
        imgui.same_line(0, gap)
    width = (imgui.get_content_region_avail().x - gap) / 2 if first and not whole else -1.0
    return widgets.button(widget, label, width, tip, enabled)
