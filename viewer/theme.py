"""The look: colours, spacing and fonts, at any scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FONT_SIZE = 15.0  # px at scale 1
Rgb = tuple[float, float, float]

BACKDROP = (0.043, 0.047, 0.059)  # behind the scene, before there is one
PANEL = (0.086, 0.094, 0.114)
FIELD = (0.145, 0.157, 0.188)
RAISED = (0.196, 0.212, 0.251)
LINE = (0.165, 0.176, 0.212)
TEXT = (0.902, 0.914, 0.937)
MUTED = (0.588, 0.620, 0.682)
ACCENT = (0.310, 0.616, 0.976)
ACCENT_DIM = (0.192, 0.392, 0.651)
GOOD = (0.408, 0.804, 0.561)
WARN = (0.973, 0.706, 0.325)
BAD = (0.957, 0.443, 0.435)


def rgba(color: Rgb, alpha: float = 1.0) -> Any:
    """An ImVec4."""
    from imgui_bundle import ImVec4

    return ImVec4(*color, alpha)


def from_bytes(color: tuple[int, int, int]) -> Rgb:
    """A colour from sRGB bytes.

    >>> from_bytes((255, 0, 51))
    (1.0, 0.0, 0.2)
    """
    red, green, blue = color
    return red / 255, green / 255, blue / 255


def u32(color: Rgb, alpha: float = 1.0) -> int:
    """A packed colour for draw lists."""
    from imgui_bundle import imgui

    return imgui.get_color_u32(rgba(color, alpha))


class Fonts:
    """The interface's fonts: text, bold for headings, monospace for numbers in columns."""

    def __init__(self) -> None:
        import imgui_bundle
        from imgui_bundle import imgui

        folder = Path(str(imgui_bundle.__file__)).parent / "assets" / "fonts"
        atlas = imgui.get_io().fonts
        files = ("Roboto/Roboto-Regular.ttf", "Roboto/Roboto-Bold.ttf", "Inconsolata-Medium.ttf")
        self.text, self.bold, self.mono = (
            atlas.add_font_from_file_ttf(str(folder / name), FONT_SIZE) for name in files
        )


def apply(scale: float) -> None:
    """Sets every size for `scale` (monitor times the person's own), and the colours."""
    from imgui_bundle import imgui, implot

    style = imgui.get_style()
    style.font_size_base, style.font_scale_dpi = FONT_SIZE, scale
    for name, value in _SIZES.items():
        setattr(
            style, name, value * scale if not isinstance(value, tuple) else imgui.ImVec2(*(v * scale for v in value))
        )
    style.window_border_size = style.popup_border_size = 1.0
    style.frame_border_size = style.tab_border_size = style.tab_bar_border_size = 0.0
    style.window_menu_button_position = imgui.Dir.none
    style.window_title_align = imgui.ImVec2(0.0, 0.5)
    for name, color in _colors().items():
        style.set_color_(getattr(imgui.Col_, name), color)
    plot = implot.get_style()
    plot.plot_padding = imgui.ImVec2(6 * scale, 6 * scale)
    plot.label_padding = imgui.ImVec2(4 * scale, 4 * scale)
    plot.legend_padding = imgui.ImVec2(4 * scale, 4 * scale)
    plot.legend_inner_padding = imgui.ImVec2(4 * scale, 2 * scale)
    for name, color in {
        "frame_bg": rgba(PANEL, 0.0),
        "plot_bg": rgba(FIELD, 0.55),
        "plot_border": rgba(LINE),
        "legend_bg": rgba(PANEL, 0.8),
        "legend_border": rgba(LINE, 0.0),
        "axis_text": rgba(MUTED),
        "axis_grid": rgba(MUTED, 0.16),
    }.items():
        plot.set_color_(getattr(implot.Col_, name), color)


_SIZES: dict[str, float | tuple[float, float]] = {
    "window_padding": (12.0, 10.0),
    "frame_padding": (8.0, 4.0),
    "item_spacing": (8.0, 6.0),
    "item_inner_spacing": (6.0, 4.0),
    "cell_padding": (6.0, 3.0),
    "indent_spacing": 16.0,
    "scrollbar_size": 10.0,
    "grab_min_size": 10.0,
    "window_rounding": 6.0,
    "child_rounding": 5.0,
    "frame_rounding": 4.0,
    "popup_rounding": 5.0,
    "grab_rounding": 3.0,
    "scrollbar_rounding": 6.0,
    "tab_rounding": 4.0,
    "tab_bar_overline_size": 2.0,
    "docking_separator_size": 2.0,
    "separator_text_border_size": 1.0,
    "separator_text_padding": (0.0, 6.0),
}


def _colors() -> dict[str, Any]:
    return {
        "text": rgba(TEXT),
        "text_disabled": rgba(MUTED),
        "text_link": rgba(ACCENT),
        "text_selected_bg": rgba(ACCENT, 0.35),
        "window_bg": rgba(PANEL),
        "child_bg": rgba(PANEL, 0.0),
        "popup_bg": rgba(PANEL, 0.98),
        "border": rgba(LINE),
        "frame_bg": rgba(FIELD),
        "frame_bg_hovered": rgba(RAISED),
        "frame_bg_active": rgba(RAISED),
        "title_bg": rgba(BACKDROP),
        "title_bg_active": rgba(BACKDROP),
        "title_bg_collapsed": rgba(BACKDROP),
        "menu_bar_bg": rgba(PANEL),
        "scrollbar_bg": rgba(PANEL, 0.0),
        "scrollbar_grab": rgba(RAISED),
        "scrollbar_grab_hovered": rgba(MUTED, 0.6),
        "scrollbar_grab_active": rgba(MUTED),
        "check_mark": rgba(TEXT),
        "checkbox_selected_bg": rgba(ACCENT_DIM),
        "slider_grab": rgba(ACCENT_DIM),
        "slider_grab_active": rgba(TEXT),
        "button": rgba(RAISED),
        "button_hovered": rgba(ACCENT_DIM, 0.8),
        "button_active": rgba(ACCENT_DIM),
        "header": rgba(ACCENT_DIM, 0.55),
        "header_hovered": rgba(ACCENT_DIM, 0.75),
        "header_active": rgba(ACCENT_DIM),
        "separator": rgba(LINE),
        "separator_hovered": rgba(ACCENT_DIM),
        "separator_active": rgba(ACCENT),
        "resize_grip": rgba(RAISED, 0.0),
        "resize_grip_hovered": rgba(ACCENT_DIM),
        "resize_grip_active": rgba(ACCENT),
        "tab": rgba(BACKDROP),
        "tab_hovered": rgba(RAISED),
        "tab_selected": rgba(PANEL),
        "tab_selected_overline": rgba(ACCENT),
        "tab_dimmed": rgba(BACKDROP),
        "tab_dimmed_selected": rgba(PANEL),
        "tab_dimmed_selected_overline": rgba(ACCENT_DIM),
        "docking_preview": rgba(ACCENT, 0.4),
        "docking_empty_bg": rgba(BACKDROP, 0.0),
        "plot_lines": rgba(ACCENT),
        "plot_histogram": rgba(ACCENT),
        "table_header_bg": rgba(PANEL),
        "table_border_strong": rgba(LINE),
        "table_border_light": rgba(LINE, 0.6),
        "table_row_bg": rgba(PANEL, 0.0),
        "table_row_bg_alt": rgba(FIELD, 0.35),
        "nav_cursor": rgba(ACCENT),
        "modal_window_dim_bg": rgba(BACKDROP, 0.6),
    }
