"""What a comparison draws over its pictures: each side's label, the wipe's divider that the mouse drags."""

from __future__ import annotations

import math

from ..renderer.shorten import shortened
from . import theme
from .inputs import Rect
from .overlays import MARGIN, unit
from .sides import LEFT

STATUS_ROOM = 30.0  # px at scale 1 below the scene's upper edge, for the status line
HANDLE = 14.0  # px at scale 1, the width in which the mouse takes the divider
DIVIDER = "Divider"  # name of the divider's window


def decibels(value: float) -> str:
    """A PSNR for people.

    >>> decibels(27.346), decibels(math.inf)
    ('27.35 dB', 'infinite (equal pixels)')
    """
    return "infinite (equal pixels)" if math.isinf(value) else f"{value:.2f} dB"


def label(rect: Rect, top: float, side: int, name: str, facts: str, from_the_left: bool, opacity: float) -> None:
    """Two lines at the upper corner of a side, below `top`, the scene's: its name, and what its picture took.

    `from_the_left`: a pane of its own, whose label begins at its left edge.
    """
    from imgui_bundle import imgui

    s = unit()
    pad, line = 7 * s, imgui.get_text_line_height()
    room = rect[2] * (1.0 if from_the_left else 0.5) - 2 * MARGIN * s
    fits = lambda text: imgui.calc_text_size(text).x <= room - 2 * pad  # noqa: E731
    name, facts = shortened(name, fits), shortened(facts, fits)
    width = max(imgui.calc_text_size(name).x, imgui.calc_text_size(facts).x) + 2 * pad
    x = rect[0] + MARGIN * s
    if side != LEFT and not from_the_left:
        x = rect[0] + rect[2] - MARGIN * s - width
    y = top + (MARGIN + STATUS_ROOM) * s
    canvas = imgui.get_background_draw_list()
    backdrop = theme.u32(theme.BACKDROP, 0.7 * opacity)
    canvas.add_rect_filled((x, y), (x + width, y + 2 * line + 1.4 * pad), backdrop, 4 * s)
    canvas.add_text((x + pad, y + 0.5 * pad), theme.u32(theme.TEXT, opacity), name)
    canvas.add_text((x + pad, y + 0.8 * pad + line), theme.u32(theme.MUTED, opacity), facts)


def divider(rect: Rect, share: float) -> float:
    """The wipe's border with a handle that the mouse drags. Returns the share of the width left of it."""
    from imgui_bundle import imgui

    s = unit()
    x, top, bottom = rect[0] + share * rect[2], rect[1], rect[1] + rect[3]
    half = 0.5 * HANDLE * s
    imgui.set_next_window_pos((x - half, top))
    imgui.set_next_window_size((2 * half, rect[3]))
    imgui.push_style_var(imgui.StyleVar_.window_padding.value, (0.0, 0.0))
    imgui.push_style_var(imgui.StyleVar_.window_min_size.value, (1.0, 1.0))
    imgui.push_style_var(imgui.StyleVar_.window_border_size.value, 0.0)
    flags = (
        imgui.WindowFlags_.no_decoration.value
        | imgui.WindowFlags_.no_background.value
        | imgui.WindowFlags_.no_saved_settings.value
        | imgui.WindowFlags_.no_docking.value
        | imgui.WindowFlags_.no_move.value
        | imgui.WindowFlags_.no_nav.value
        | imgui.WindowFlags_.no_focus_on_appearing.value
        | imgui.WindowFlags_.no_bring_to_front_on_focus.value
    )
    imgui.begin(DIVIDER, None, flags)
    imgui.invisible_button("###divider", (2 * half, rect[3]))
    held, hovered = imgui.is_item_active(), imgui.is_item_hovered()
    if held or hovered:
        imgui.set_mouse_cursor(imgui.MouseCursor_.resize_ew.value)
    if held and rect[2] > 0:
        share = min(max((imgui.get_io().mouse_pos.x - rect[0]) / rect[2], 0.0), 1.0)
    imgui.end()
    imgui.pop_style_var(3)
    ink = theme.u32(theme.ACCENT if held or hovered else theme.TEXT, 0.95)
    canvas = imgui.get_background_draw_list()
    x = rect[0] + share * rect[2]
    canvas.add_line((x, top), (x, bottom), theme.u32(theme.BACKDROP, 0.6), 4 * s)
    canvas.add_line((x, top), (x, bottom), ink, 2 * s)
    middle = (top + bottom) / 2
    canvas.add_circle_filled((x, middle), 9 * s, ink)
    for way in (-1, 1):
        tip, base = x + way * 5.5 * s, x + way * 2 * s
        canvas.add_triangle_filled(
            (tip, middle), (base, middle - 3.5 * s), (base, middle + 3.5 * s), theme.u32(theme.BACKDROP)
        )
    return share


def gap(scene: Rect) -> None:
    """The line between two panes."""
    from imgui_bundle import imgui

    x = scene[0] + scene[2] / 2
    canvas = imgui.get_background_draw_list()
    canvas.add_line((x, scene[1]), (x, scene[1] + scene[3]), theme.u32(theme.TEXT, 0.8), 2 * unit())
