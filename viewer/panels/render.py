"""The render panel: what is shown and how, and how much work goes into it."""

from __future__ import annotations

import numpy as np

from ...renderer.colormaps import srgb_decode, srgb_encode
from ...renderer.resolve import VIEW_MODES
from ..state import EXECUTORS, TINTS, limits
from . import Context, widgets

TITLE = "Render"


def draw(context: Context) -> None:
    """View mode, tint, exposure, background, resolution, timing, executor."""
    state = context.state
    widgets.heading("Picture")
    state.view_mode = widgets.choice("render_mode", "View mode", state.view_mode, tuple(VIEW_MODES), "F2 to F9")
    state.tint = widgets.choice("render_tint", "Tint", state.tint, TINTS, "Level or GSD laid over rgb")
    state.tint_strength = widgets.slider(
        "render_tint_strength", "Tint strength", state.tint_strength, limits("tint_strength")
    )
    state.exposure = widgets.slider("render_exposure", "Exposure", state.exposure, limits("exposure"), "%+.2f EV")
    state.own_background = widgets.checkbox("render_own_background", "Own background", state.own_background)
    red, green, blue = srgb_encode(np.array(state.background)).tolist()
    edited = widgets.color("render_background", "Background", (red, green, blue), "Behind what is transparent")
    if max(abs(a - b) for a, b in zip(edited, (red, green, blue), strict=True)) > 1e-4:
        red, green, blue = srgb_decode(np.array(edited)).tolist()
        state.background, state.own_background = (red, green, blue), True
    state.legend = widgets.checkbox("render_legend", "Legend", state.legend)
    widgets.heading("Work")
    share = widgets.slider(
        "render_resolution", "Resolution", 100 * state.resolution, (25.0, 100.0), "%.0f %%", tip="At rest"
    )
    state.resolution = round(share) / 100
    state.target_frame_ms = widgets.slider(
        "render_target",
        "Target time",
        state.target_frame_ms,
        limits("target_frame_ms"),
        "%.0f ms",
        tip="Of a frame in motion",
    )
    state.max_frames = widgets.slider_int(
        "render_samples",
        "Samples",
        state.max_frames,
        limits("max_frames"),
        "%d per pixel",
        log=True,
        tip="Averaged at rest",
    )
    state.executor = widgets.choice(
        "render_executor", "Executor", state.executor, EXECUTORS, "What computes the picture"
    )
    widgets.heading("Interface")
    state.ui_scale = widgets.slider("render_ui_scale", "Size", state.ui_scale, limits("ui_scale"), "%.2f x")
    if widgets.button("render_screenshot", "Screenshot", -1.0, "Without panels, with the pose in the PNG (F12)"):
        context.actions["screenshot"]()
