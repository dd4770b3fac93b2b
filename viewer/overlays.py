"""What lies over the scene: the status line, the legend, messages, the list of keys, the hint when nothing is open."""

from __future__ import annotations

from itertools import pairwise
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..renderer.resolve import Legend
from . import bindings, theme
from .inputs import Rect
from .notices import Notices

MARGIN = 14.0  # px at scale 1, from the scene's edge
BAR_SIZE = (220.0, 12.0)  # px at scale 1
KEYS_WIDTH = 176.0  # px at scale 1, of the column of keys in the list of keys
BAR_STEPS = 48  # of the drawn colour bar


def unit() -> float:
    """Pixels per design pixel: what the theme was scaled by."""
    from imgui_bundle import imgui

    return imgui.get_font_size() / theme.FONT_SIZE


def status(rect: Rect, text: str) -> None:
    """A quiet line at the scene's top left."""
    from imgui_bundle import imgui

    size, s = imgui.calc_text_size(text), unit()
    x, y = rect[0] + MARGIN * s, rect[1] + MARGIN * s
    canvas = imgui.get_background_draw_list()
    pad = 7 * s
    canvas.add_rect_filled((x, y), (x + size.x + 2 * pad, y + size.y + pad), theme.u32(theme.BACKDROP, 0.62), 4 * s)
    canvas.add_text((x + pad, y + pad / 2), theme.u32(theme.TEXT, 0.92), text)


def hint(rect: Rect, title: str, line: str, font: Any) -> None:
    """Two lines in the middle of an empty scene."""
    from imgui_bundle import imgui

    canvas = imgui.get_background_draw_list()
    center, s = (rect[0] + rect[2] / 2, rect[1] + rect[3] / 2), unit()
    imgui.push_font(font, theme.FONT_SIZE * 1.5)
    size = imgui.calc_text_size(title)
    canvas.add_text((center[0] - size.x / 2, center[1] - size.y), theme.u32(theme.TEXT), title)
    imgui.pop_font()
    size = imgui.calc_text_size(line)
    canvas.add_text((center[0] - size.x / 2, center[1] + 8 * s), theme.u32(theme.MUTED), line)


def legend(rect: Rect, content: Legend) -> None:
    """The colours' meaning at the scene's bottom left; nothing where colours are what a camera sees."""
    from imgui_bundle import imgui

    if not content.entries and content.bar is None:
        return
    s, line = unit(), imgui.get_text_line_height() + 3 * unit()
    pad, bar_width, bar_height = 10 * s, BAR_SIZE[0] * s, BAR_SIZE[1] * s
    labels = [entry.label for entry in content.entries]
    widest = max([imgui.calc_text_size(content.title).x, *(imgui.calc_text_size(text).x + line for text in labels)])
    if content.bar is not None:
        widest = max(
            widest, bar_width + max(imgui.calc_text_size(content.ticks[-1][1]).x if content.ticks else 0.0, 0.0)
        )
    height = line * (1 + len(labels)) + (bar_height + line + 4 * s if content.bar is not None else 0.0)
    x, y = rect[0] + MARGIN * s, rect[1] + rect[3] - MARGIN * s - height - 1.6 * pad
    canvas = imgui.get_background_draw_list()
    corner = (x + widest + 2 * pad, y + height + 1.6 * pad)
    canvas.add_rect_filled((x, y), corner, theme.u32(theme.BACKDROP, 0.78), 6 * s)
    x, y = x + pad, y + 0.8 * pad
    canvas.add_text((x, y), theme.u32(theme.TEXT), content.title)
    y += line + 2 * s
    if content.bar is not None:
        _bar(canvas, x, y, content)
        y += bar_height + line + 4 * s
    for entry in content.entries:
        rgb = theme.from_bytes(entry.color)
        side = line - 5 * s
        canvas.add_rect_filled((x, y + s), (x + side, y + s + side), theme.u32(rgb), 3 * s)
        canvas.add_text((x + line, y), theme.u32(theme.MUTED), entry.label)
        y += line


def _bar(canvas: Any, x: float, y: float, content: Legend) -> None:
    from imgui_bundle import imgui

    assert content.bar is not None
    s = unit()
    width, height = BAR_SIZE[0] * s, BAR_SIZE[1] * s
    step = width / BAR_STEPS
    for i in range(BAR_STEPS):
        red, green, blue = (content.bar[round((i + 0.5) / BAR_STEPS * (len(content.bar) - 1))] / 255).tolist()
        canvas.add_rect_filled((x + i * step, y), (x + (i + 1) * step + 0.5, y + height), theme.u32((red, green, blue)))
    taken: list[tuple[float, float]] = []  # by labels; one that would touch another is left out, the ends last
    ends = (content.ticks[0], content.ticks[-1]) if content.ticks else ()
    for at, label in (*ends, *content.ticks[len(content.ticks) // 2 :], *content.ticks):
        tick = x + at * width
        canvas.add_line((tick, y + height), (tick, y + height + 3 * s), theme.u32(theme.MUTED))
        size = imgui.calc_text_size(label).x
        left = max(x, tick - size / 2)
        if all(left >= end + 6 * s or left + size + 6 * s <= start for start, end in taken):
            canvas.add_text((left, y + height + 3 * s), theme.u32(theme.MUTED), label)
            taken.append((left, left + size))


def cross(rect: Rect, at: tuple[float, float]) -> None:
    """A mark at a point of the scene, if it is within `rect`."""
    from imgui_bundle import imgui

    x, y = at
    if not (rect[0] <= x < rect[0] + rect[2] and rect[1] <= y < rect[1] + rect[3]):
        return
    s, canvas = unit(), imgui.get_background_draw_list()
    for color, width in ((theme.u32(theme.BACKDROP, 0.9), 3.5 * s), (theme.u32(theme.ACCENT), 1.5 * s)):
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            canvas.add_line((x + 4 * s * dx, y + 4 * s * dy), (x + 11 * s * dx, y + 11 * s * dy), color, width)


def path(rect: Rect, curve: NDArray[np.float64], keys: NDArray[np.float64], chosen: int) -> None:
    """A camera path: `curve` [n, 2] and `keys` [m, 2] in ImGui's units, NaN where they are behind the camera."""
    from imgui_bundle import imgui

    s, canvas = unit(), imgui.get_background_draw_list()
    canvas.push_clip_rect((rect[0], rect[1]), (rect[0] + rect[2], rect[1] + rect[3]))
    for (ax, ay), (bx, by) in pairwise(curve.tolist()):
        if not (isnan(ax) or isnan(bx)):
            canvas.add_line((ax, ay), (bx, by), theme.u32(theme.ACCENT, 0.8), 2 * s)
    for number, (x, y) in enumerate(keys.tolist()):
        if not isnan(x):
            color = theme.WARN if number == chosen else theme.ACCENT
            canvas.add_circle_filled((x, y), 5 * s, theme.u32(theme.BACKDROP, 0.9))
            canvas.add_circle_filled((x, y), 3.5 * s, theme.u32(color))
    canvas.pop_clip_rect()


def notices(rect: Rect, messages: Notices) -> None:
    """Messages at the scene's bottom right, the newest lowest."""
    from imgui_bundle import imgui

    s = unit()
    width = min(420 * s, rect[2] - 2 * MARGIN * s)
    y = rect[1] + rect[3] - MARGIN * s
    canvas = imgui.get_foreground_draw_list()
    for notice in reversed(messages.current()):
        shown, pad, stripe = messages.opacity(notice), 10 * s, 3 * s
        text_width = width - 2 * pad - stripe
        size = imgui.calc_text_size(notice.text, False, text_width)
        box = min(size.x, text_width) + 2 * pad + stripe, size.y + 1.6 * pad
        x, y = rect[0] + rect[2] - MARGIN * s - box[0], y - box[1]
        color = theme.BAD if notice.kind == "error" else theme.ACCENT
        canvas.add_rect_filled((x, y), (x + box[0], y + box[1]), theme.u32(theme.RAISED, 0.97 * shown), 5 * s)
        canvas.add_rect_filled((x, y), (x + stripe, y + box[1]), theme.u32(color, shown), 5 * s)
        font, ink = imgui.get_font(), theme.u32(theme.TEXT, shown)
        canvas.add_text(font, imgui.get_font_size(), (x + stripe + pad, y + 0.8 * pad), ink, notice.text, text_width)
        y -= 8 * s


def help_window(rect: Rect, font: Any) -> bool:
    """All keys, generated from the table of bindings. Returns whether it stays open."""
    from imgui_bundle import imgui

    s = unit()
    center = rect[0] + rect[2] / 2, rect[1] + rect[3] / 2
    imgui.set_next_window_pos(center, imgui.Cond_.always.value, (0.5, 0.5))
    imgui.set_next_window_bg_alpha(0.96)
    flags = (
        imgui.WindowFlags_.no_docking.value
        | imgui.WindowFlags_.always_auto_resize.value
        | imgui.WindowFlags_.no_collapse.value
        | imgui.WindowFlags_.no_saved_settings.value
    )
    _, still_open = imgui.begin("Keys and mouse###keys", True, flags)
    for column, groups in enumerate(help_columns()):
        if column:
            imgui.same_line(0, 28 * s)
        imgui.begin_group()
        for group, lines in groups:
            imgui.push_font(font, theme.FONT_SIZE)
            imgui.text_colored(theme.rgba(theme.ACCENT), group)
            imgui.pop_font()
            for keys, name in lines:
                imgui.text(keys)
                imgui.same_line(KEYS_WIDTH * s)
                imgui.text_colored(theme.rgba(theme.MUTED), name)
            imgui.dummy((1, 4 * s))
        imgui.end_group()
    imgui.end()
    return bool(still_open)


def help_columns() -> list[list[tuple[str, list[tuple[str, str]]]]]:
    """The groups of keys in two columns of about the same length."""
    groups = list(bindings.help_rows().items())
    columns: list[list[tuple[str, list[tuple[str, str]]]]] = [[], []]
    heights = [0, 0]
    for group in groups:
        column = 0 if heights[0] <= heights[1] else 1
        columns[column].append(group)
        heights[column] += len(group[1]) + 2
    return columns
