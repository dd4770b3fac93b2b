"""The statistics panel: frame times, stages, executor and path to the screen with reasons, the scheduler's state."""

from __future__ import annotations

import numpy as np

from .. import theme
from . import Context, widgets

TITLE = "Statistics"
TICKS = {1.0: "1", 10.0: "10", 100.0: "100", 1000.0: "1 s", 10000.0: "10 s"}
FLOOR_MS = 1.0  # of the logarithmic scale
PLOT_HEIGHT = 96.0  # px at scale 1


def draw(context: Context) -> None:
    """Plot of frame times, then the figures of the newest picture."""
    monitor, scene = context.monitor, context.scene
    _plot(context)
    widgets.fact("Window", f"{monitor.window_ms:.1f} ms a frame", "The window thread's own work")
    if scene is not None:
        widgets.copyable("stats_executor", "Executor", scene.executor.name, scene.reason)
        if context.path is not None and monitor.snapshot is not None:
            widgets.copyable("stats_path", "To the screen", context.path.name, context.path.reason)
    widgets.fact("Renderer", monitor.progress(context.state.max_frames))
    snapshot = monitor.snapshot
    if snapshot is not None:
        widgets.fact("Picture", f"{snapshot.width} x {snapshot.height}, {snapshot.frame_ms:.0f} ms")
        widgets.fact("Samples/ray", f"{snapshot.stats.samples / max(snapshot.stats.rays, 1):.1f}")
        if snapshot.stats.seconds > 0:
            widgets.fact("Samples/s", widgets.count(snapshot.stats.samples / snapshot.stats.seconds))
    if scene is not None:
        widgets.note(f"Executor {scene.reason}")
        if context.path is not None and monitor.snapshot is not None:
            widgets.note(f"To the screen by {context.path.name}: {context.path.reason}")
    if snapshot is not None and snapshot.stats.stages:
        _stages(snapshot.stats.stages)


def _plot(context: Context) -> None:
    from imgui_bundle import imgui, implot

    monitor = context.monitor
    scale = imgui.get_font_size() / theme.FONT_SIZE
    flags = implot.Flags_.no_menus.value | implot.Flags_.no_box_select.value | implot.Flags_.no_mouse_text.value
    if not implot.begin_plot("##frame times", (-1, PLOT_HEIGHT * scale), flags | implot.Flags_.no_inputs.value):
        return
    values = np.maximum(monitor.render_history.values(), FLOOR_MS)
    window = np.maximum(monitor.window_history.values(), FLOOR_MS)
    top = max(100.0, float(values.max()), float(window.max())) * 3  # room for the legend
    implot.setup_axes("", "ms", implot.AxisFlags_.no_decorations.value, implot.AxisFlags_.no_highlight.value)
    implot.setup_axis_scale(implot.ImAxis_.y1.value, implot.Scale_.log10.value)
    implot.setup_axes_limits(0, monitor.render_history.length - 1, FLOOR_MS, top, implot.Cond_.always.value)
    implot.setup_axis_ticks(implot.ImAxis_.y1.value, list(TICKS), list(TICKS.values()), False)
    implot.setup_legend(implot.Location_.north_west.value, implot.LegendFlags_.horizontal.value)
    implot.plot_line("picture", values, spec=implot.Spec(line_color=theme.rgba(theme.ACCENT), line_weight=1.5 * scale))
    implot.plot_line("window", window, spec=implot.Spec(line_color=theme.rgba(theme.GOOD), line_weight=1.5 * scale))
    target = implot.Spec(line_color=theme.rgba(theme.WARN, 0.7), flags=implot.InfLinesFlags_.horizontal.value)
    implot.plot_inf_lines("target", np.array([context.state.target_frame_ms]), spec=target)
    implot.end_plot()


def _stages(stages: dict[str, float]) -> None:
    """A bar a stage, longest first."""
    from imgui_bundle import imgui

    widgets.heading("Time per stage")
    total = max(sum(stages.values()), 1e-9)
    for name, seconds in sorted(stages.items(), key=lambda item: -item[1]):
        width = imgui.get_content_region_avail().x
        start = imgui.get_cursor_pos_x()
        imgui.text_colored(theme.rgba(theme.MUTED), name)
        imgui.same_line(start + width * widgets.LABEL_SHARE)
        imgui.push_style_color(imgui.Col_.plot_histogram, theme.rgba(theme.ACCENT_DIM))
        imgui.progress_bar(seconds / total, (-1, imgui.get_text_line_height()), f"{1000 * seconds:.1f} ms")
        imgui.pop_style_color()
