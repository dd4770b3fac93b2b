"""What is drawn over the scene in each frame: which of the overlays, with what in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import overlays, side_labels
from .film import projected
from .inspector import mark_of
from .pane import Pane
from .panels.widgets import count
from .sides import LEFT, RIGHT
from .state import PHOTO

if TYPE_CHECKING:
    from .app import App


def draw(app: App) -> None:
    """Status, legend, both sides' labels, the divider, the list of keys, messages."""
    rect, state = app.layout.scene_rect, app.state
    if app.scene is None:
        title, line = app.followed or "Drop a checkpoint here", "F1 lists keys and mouse"
        if app.session.loading:
            title = f"Loading {app.session.loading} ..."
        elif app.follower is not None:
            line = f"It opens as soon as the run has saved it in {app.follower.folder}"
        overlays.hint(rect, title, line, app.fonts.bold)
    elif state.show_ui:
        overlays.status(rect, _status(app))
    if app.comparison.active:
        _sides(app)
    if app.film.path.keys and state.show_ui and not app.film.playing:
        _path(app)
    if (mark := mark_of(app.inspector.ray, app.camera())) is not None:
        scale = app.window.imgui.get_io().display_framebuffer_scale[0]
        left = app.stage.areas.rect(app.comparison.lead, scale)
        overlays.cross(left, (left[0] + mark[0] / scale, left[1] + mark[1] / scale))
    if state.legend and (legend := app.comparison.legend(state)) is not None:
        overlays.legend(rect, legend)
    if state.show_help:
        state.show_help = overlays.help_window(rect, app.fonts.bold)
    overlays.notices(rect, app.notices)


def _path(app: App) -> None:
    """The film's path and its keys, as the camera sees them."""
    scale, camera, film = app.window.imgui.get_io().display_framebuffer_scale[0], app.camera(), app.film
    rect = app.stage.areas.rect(app.comparison.lead, scale)
    corner = np.array(rect[:2])
    keys = np.stack([key.c2w[:3, 3] for key in film.path.keys])
    curve, dots = (projected(points, camera) / scale + corner for points in (film.curve, keys))
    overlays.path(rect, curve, dots, film.chosen)


def _status(app: App) -> str:
    """The line at the upper left."""
    state = app.state
    parts = [state.view_mode if app.comparison.mode not in ("difference", "error") else "rgb"]
    if app.comparison.active:
        score = app.stage.score.value
        parts.append(app.comparison.mode + ("" if score is None else f", PSNR {side_labels.decibels(score)}"))
    elif PHOTO in (state.left, state.right) and state.compare != "off":
        parts.append("the photograph is seen from its own camera only: V goes there")
    parts.append(app.monitor.progress(state.max_frames))
    parts += [app.followed] if app.followed else []
    parts += [f"loading {app.session.loading}"] if app.session.loading else []
    return "   |   ".join(parts)


def _sides(app: App) -> None:
    """Each side's name and figures on its side, and the divider between them."""
    comparison, state, areas = app.comparison, app.state, app.stage.areas
    scale = app.window.imgui.get_io().display_framebuffer_scale[0]
    for side in (LEFT, RIGHT):
        pane = comparison.pane(side)
        facts = _facts(pane)
        opacity = 0.45 if comparison.mode == "flicker" and comparison.flicker_side != side else 1.0
        own_pane, top = comparison.mode == "side by side", app.layout.scene_rect[1]
        side_labels.label(areas.rect(side, scale), top, side, pane.name, facts, own_pane, opacity)
    if comparison.mode == "wipe":
        state.divider = side_labels.divider(areas.rect(LEFT, scale), state.divider)
    elif comparison.mode == "side by side":
        side_labels.gap(app.layout.scene_rect)


def _facts(pane: Pane) -> str:
    """What a side's picture is or took, in words."""
    if pane.photograph is not None:
        return f"photograph, {pane.photograph.camera.width} x {pane.photograph.camera.height}"
    figures = pane.figures
    if figures is None:
        return "..."
    used = f"{count(figures.active)} of " if figures.active is not None else ""
    return f"{figures.ms:.0f} ms at {figures.width} x {figures.height}, {used}{count(figures.parameters)} parameters"
