"""The inspector panel: the pixel under the cursor in numbers, a clicked pixel's ray as plots and a list of nodes."""

from __future__ import annotations

import numpy as np

from ...renderer.colormaps import level_color, to_bytes
from ...renderer.probe import RayProbe
from ...renderer.resolve import format_length
from .. import theme
from ..inspector import Readout
from . import Context, widgets

TITLE = "Inspector"
PLOT_HEIGHT = 92.0  # px at scale 1
STRIP_HEIGHT = 12.0  # px at scale 1
MOST_NODES = 200  # listed


def draw(context: Context) -> None:
    """Switch, figures, and the ray."""
    state, inspector = context.state, context.inspector
    state.inspect = widgets.checkbox(
        "inspect_on", "Under the cursor", state.inspect, "Figures follow the cursor, a click keeps a pixel's ray (I)"
    )
    if inspector is None or inspector.readout is None or context.scene is None:
        widgets.note("Switch it on, move over the picture, and click a pixel to see its ray sample by sample.")
        return
    _figures(inspector.readout, context.scene.unit)
    if inspector.pending:
        widgets.note("Tracing the ray ...")
    if inspector.ray is not None:
        _ray(context, inspector.ray)


def _figures(what: Readout, unit: str) -> None:
    widgets.heading(f"Pixel {what.pixel[0]}, {what.pixel[1]}")
    red, green, blue = what.shown
    widgets.fact("sRGB", f"{red} {green} {blue}   #{red:02x}{green:02x}{blue:02x}", "Of what is there, over black")
    widgets.fact("Linear", " ".join(f"{x:.4f}" for x in what.color))
    widgets.fact("Alpha", f"{what.alpha:.4f}")
    if what.position is None:
        widgets.note("Nothing is there.")
        return
    widgets.fact("Depth", format_length(what.depth, unit))
    widgets.fact(f"Position ({unit})", " ".join(f"{x:.4g}" for x in what.position), "World coordinates")
    widgets.fact("Level", f"{what.level:.2f}", "Mean over the pixel's light")
    widgets.fact("Node", str(what.node), "Of the heaviest sample")
    widgets.fact("GSD", f"{format_length(what.gsd, unit)}/px", "Of that node")
    widgets.fact("Footprint", format_length(what.footprint, unit), "Radius of the pixel's cone there")
    finer = "coarser" if what.ratio < 0 else "finer"
    widgets.fact("Detail", f"{2 ** abs(what.ratio):.2f} times {finer} than the pixel", "Footprint over GSD")
    widgets.fact("Clamped", f"{100 * what.clamped:.0f} %", "Of the light: the tree ends above the level asked for")
    widgets.fact("Samples", str(what.samples))


def _ray(context: Context, ray: RayProbe) -> None:
    from imgui_bundle import imgui

    widgets.heading(f"Ray of pixel {ray.pixel[0]}, {ray.pixel[1]}")
    half = (imgui.get_content_region_avail().x - imgui.get_style().frame_padding.x) / 2
    if widgets.button("inspect_export", "Save as JSON", half, "All samples, in the working folder"):
        context.actions["export_ray"]()
    imgui.same_line(0, imgui.get_style().frame_padding.x)
    if widgets.button("inspect_clear", "Clear", -1.0, "Forget this ray"):
        context.actions["forget_ray"]()
    widgets.fact("Samples", f"{len(ray.samples)}, {int((ray.samples.trans > 0).sum())} reached")
    if len(ray.samples):
        _plots(ray)
        _nodes(ray)


def _plots(ray: RayProbe) -> None:
    samples = ray.samples
    _strip(ray)
    _plot(ray, "share", (("weight", samples.weight), ("light left", samples.trans)), (0.0, 1.5))
    density = np.log10(np.maximum(samples.sigma, 1e-6))
    span = float(density.min()) - 0.5, float(density.max()) + 2.0
    _plot(ray, "log10", ((f"density, 1 / {ray.unit}", density),), span)
    top = float(max(samples.level.max(), samples.wanted.max())) + 2.0  # room for the legend
    _plot(ray, "level", (("asked for", samples.wanted), ("answered", samples.level)), (-0.5, top))


def _plot(ray: RayProbe, title: str, lines: tuple[tuple[str, np.ndarray], ...], limits: tuple[float, float]) -> None:
    from imgui_bundle import imgui, implot

    scale = imgui.get_font_size() / theme.FONT_SIZE
    flags = implot.Flags_.no_menus.value | implot.Flags_.no_box_select.value | implot.Flags_.no_mouse_text.value
    if not implot.begin_plot(f"##ray {title}", (-1, PLOT_HEIGHT * scale), flags | implot.Flags_.no_inputs.value):
        return
    t = ray.samples.t.astype(np.float64)
    implot.setup_axes("", title, 0, implot.AxisFlags_.no_highlight.value)
    implot.setup_axes_limits(float(t[0]), float(t[-1]) + 1e-6, *limits, implot.Cond_.always.value)
    implot.setup_legend(implot.Location_.north_east.value, implot.LegendFlags_.horizontal.value)
    for (name, values), color in zip(lines, (theme.ACCENT, theme.WARN), strict=False):
        spec = implot.Spec(line_color=theme.rgba(color), line_weight=1.5 * scale)
        implot.plot_line(name, t, values.astype(np.float64), spec=spec)
    implot.end_plot()


def _strip(ray: RayProbe) -> None:
    """The samples' colours along the ray, as strong as they count; below it their levels."""
    from imgui_bundle import imgui

    scale = imgui.get_font_size() / theme.FONT_SIZE
    canvas, corner = imgui.get_window_draw_list(), imgui.get_cursor_screen_pos()
    width = imgui.get_content_region_avail().x
    samples = ray.samples
    low, span = float(samples.t[0]), max(float(samples.t[-1] - samples.t[0]), 1e-9)
    height = STRIP_HEIGHT * scale
    canvas.add_rect_filled((corner.x, corner.y), (corner.x + width, corner.y + 2 * height), theme.u32(theme.BACKDROP))
    strength = samples.weight / max(float(samples.weight.max()), 1e-9)
    colors = to_bytes(samples.rgb) / 255
    for t, dt, rgb, level, strong in zip(samples.t, samples.dt, colors, samples.level, strength, strict=True):
        x = corner.x + (float(t - 0.5 * dt) - low) / span * width
        right = max(corner.x + (float(t + 0.5 * dt) - low) / span * width, x + 1.0)
        x, right = max(x, corner.x), min(right, corner.x + width)
        red, green, blue = (float(c) for c in rgb)
        canvas.add_rect_filled((x, corner.y), (right, corner.y + height), theme.u32((red, green, blue), float(strong)))
        ink = theme.u32(theme.from_bytes(level_color(int(level))))
        canvas.add_rect_filled((x, corner.y + height), (right, corner.y + 2 * height), ink)
    imgui.dummy((width, 2 * height))
    if imgui.is_item_hovered():
        imgui.set_tooltip("Above: the samples' colours, as strong as they count. Below: their levels.")


def _nodes(ray: RayProbe) -> None:
    """The nodes on the way, in their order."""
    from imgui_bundle import imgui

    nodes = ray.nodes()
    widgets.heading(f"{len(nodes)} nodes on the way")
    flags = imgui.TableFlags_.row_bg.value | imgui.TableFlags_.sizing_stretch_same.value
    if imgui.begin_table("##ray nodes", 4, flags):
        for title in ("Node", "Level", "Samples", "Light"):
            imgui.table_setup_column(title)
        imgui.table_headers_row()
        for node, level, count, weight in nodes[:MOST_NODES]:
            for cell in (str(node), str(level), str(count), f"{100 * weight:.1f} %"):
                imgui.table_next_column()
                imgui.text(cell)
        imgui.end_table()
