"""The level-of-detail panel: bias and limits of the levels, the octree's wires, what each level costs in this view."""

from __future__ import annotations

from ...renderer.colormaps import level_color
from .. import theme
from ..state import WIRES, limits
from . import Context, widgets

TITLE = "Level of detail"


def draw(context: Context) -> None:
    """Selection, wires, and the bars of active nodes and bytes per level."""
    state = context.state
    deepest = len(context.scene.level_counts) - 1 if context.scene else int(limits("max_level")[1])
    levels = (0, max(deepest, 1))
    widgets.heading("Selection")
    state.lod_bias = widgets.slider(
        "lod_bias",
        "Bias",
        state.lod_bias,
        limits("lod_bias"),
        "%+.2f levels",
        tip="+ is finer and slower, - is coarser",
    )
    low = widgets.slider_int(
        "lod_min", "Coarsest", min(state.min_level, levels[1]), levels, "level %d", tip="No coarser than this"
    )
    high = widgets.slider_int(
        "lod_max", "Finest", min(state.max_level, levels[1]), levels, "level %d", tip="No finer than this"
    )
    _set_range(state, low, high, levels[1])
    state.step_scale = widgets.slider(
        "lod_step",
        "Step",
        state.step_scale,
        limits("step_scale"),
        "%.2f GSD",
        log=True,
        tip="Marching step, in the level's GSD",
    )
    widgets.heading("Octree")
    state.wires = widgets.choice("lod_wires", "Show nodes", state.wires, WIRES, "Hidden behind the scene's surfaces")
    first = widgets.slider_int("lod_wire_min", "From level", min(state.wire_min, levels[1]), levels)
    last = widgets.slider_int("lod_wire_max", "To level", min(state.wire_max, levels[1]), levels)
    if first != min(state.wire_min, levels[1]):
        state.wire_min, state.wire_max = first, max(first, state.wire_max)
    elif last != min(state.wire_max, levels[1]):
        state.wire_max, state.wire_min = last, min(last, state.wire_min)
    widgets.heading("This view")
    _bars(context)


def _set_range(state: object, low: int, high: int, deepest: int) -> None:
    """Keeps min <= max, moving the end that was not touched. A limit beyond the tree means none and stays so."""
    old_low, old_high = min(state.min_level, deepest), min(state.max_level, deepest)  # type: ignore[attr-defined]
    if low != old_low:
        state.min_level, state.max_level = low, max(low, state.max_level)  # type: ignore[attr-defined]
    elif high != old_high:
        state.max_level, state.min_level = high, min(high, state.min_level)  # type: ignore[attr-defined]


def _bars(context: Context) -> None:
    """A horizontal bar a level: nodes that answered samples of the present picture, out of all, and their bytes."""
    from imgui_bundle import imgui

    scene, usage = context.scene, context.monitor.usage
    if scene is None or usage is None:
        widgets.note("The bars appear with the first picture.")
        return
    most = max(max(usage.active), 1)
    flags = imgui.TableFlags_.sizing_fixed_fit.value | imgui.TableFlags_.no_pad_outer_x.value
    if imgui.begin_table("##usage", 4, flags):
        imgui.table_setup_column("Level")
        imgui.table_setup_column("Active nodes", imgui.TableColumnFlags_.width_stretch.value)
        imgui.table_setup_column("of all")
        imgui.table_setup_column("Memory")
        imgui.table_headers_row()
        for level, active in enumerate(usage.active):
            imgui.table_next_row()
            imgui.table_next_column()
            imgui.text(str(level))
            imgui.table_next_column()
            _bar(active / most, theme.from_bytes(level_color(level)))
            size = widgets.size(active * scene.level_bytes[level])
            for text in (f"{active} / {scene.level_counts[level]}", size):
                imgui.table_next_column()
                imgui.text(text)
        imgui.end_table()
    active, total = sum(usage.active), sum(scene.level_counts)
    widgets.note(
        f"{active} of {total} nodes answer this view: {widgets.size(scene.bytes_of(usage.active))} "
        f"of {widgets.size(scene.memory_bytes)}."
    )


def _bar(share: float, color: theme.Rgb) -> None:
    from imgui_bundle import imgui

    width, height = imgui.get_content_region_avail().x, imgui.get_text_line_height()
    corner = imgui.get_cursor_screen_pos()
    draw_list = imgui.get_window_draw_list()
    rounding = imgui.get_style().grab_rounding
    draw_list.add_rect_filled(corner, (corner.x + width, corner.y + height), theme.u32(theme.FIELD), rounding)
    if share > 0:
        filled = max(width * share, 2 * rounding)
        draw_list.add_rect_filled(
            corner,
            (corner.x + filled, corner.y + height),
            theme.u32(color),
            rounding,
        )
    imgui.dummy((width, height))
