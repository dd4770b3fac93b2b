"""The controls that panels are made of: a label on the left, the control on the right. Each registers its id here.

The registry is how `tests/test_gui_panels.py` knows that no control is without a test. An id becomes ImGui's `##id`, so
that a test finds the control at `//Panel/##id` whatever its label says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ...renderer.shorten import shortened
from .. import theme

T = TypeVar("T", int, float)

REGISTRY: dict[str, str] = {}  # id -> kind, of every control drawn so far
LABEL_SHARE = 0.40  # of the panel's width


def _row(widget: str, kind: str, label: str, tip: str = "") -> str:
    """Starts a row: the label, the cursor at the control's place. Returns the control's ImGui label."""
    from imgui_bundle import imgui

    REGISTRY[widget] = kind
    width = imgui.get_content_region_avail().x
    start = imgui.get_cursor_pos_x()
    imgui.align_text_to_frame_padding()
    imgui.text_colored(theme.rgba(theme.MUTED), label)
    if tip and imgui.is_item_hovered():
        imgui.set_tooltip(tip)
    imgui.same_line(start + width * LABEL_SHARE)
    imgui.set_next_item_width(-1)
    return f"##{widget}"


def slider(
    widget: str,
    label: str,
    value: float,
    limits: tuple[float, float],
    text: str = "%.2f",
    log: bool = False,
    tip: str = "",
) -> float:
    """A slider; a ctrl-click types a number. Returns the value, always inside `limits`."""
    from imgui_bundle import imgui

    return _slide(imgui.slider_float, _row(widget, "slider", label, tip), float(value), limits, text, log)


def slider_int(
    widget: str,
    label: str,
    value: int,
    limits: tuple[float, float],
    text: str = "%d",
    log: bool = False,
    tip: str = "",
) -> int:
    """A slider over whole numbers; a ctrl-click types one. Returns the value, always inside `limits`."""
    from imgui_bundle import imgui

    whole = int(limits[0]), int(limits[1])
    return _slide(imgui.slider_int, _row(widget, "slider", label, tip), int(value), whole, text, log)


def _slide(draw: Callable[..., tuple[bool, T]], name: str, value: T, limits: tuple[T, T], text: str, log: bool) -> T:
    from imgui_bundle import imgui

    flags = imgui.SliderFlags_.always_clamp.value | (imgui.SliderFlags_.logarithmic.value if log else 0)
    low, high = limits
    return min(max(draw(name, value, low, high, text, flags)[1], low), high)


def checkbox(widget: str, label: str, value: bool, tip: str = "") -> bool:
    """A checkbox."""
    from imgui_bundle import imgui

    return imgui.checkbox(_row(widget, "checkbox", label, tip), value)[1]


def choice(widget: str, label: str, value: str, options: Sequence[str], tip: str = "") -> str:
    """One of several words."""
    from imgui_bundle import imgui

    index = options.index(value) if value in options else -1
    changed, index = imgui.combo(_row(widget, "choice", label, tip), index, list(options))
    return options[index] if changed else value


def color(widget: str, label: str, value: tuple[float, float, float], tip: str = "") -> tuple[float, float, float]:
    """A colour, as it is seen on the screen (sRGB, 0..1)."""
    from imgui_bundle import imgui

    flags = imgui.ColorEditFlags_.no_alpha.value | imgui.ColorEditFlags_.uint8.value
    red, green, blue = imgui.color_edit3(_row(widget, "color", label, tip), list(value), flags)[1][:3]
    return red, green, blue


def vector(
    widget: str, label: str, value: Iterable[float], speed: float, text: str = "%.2f", tip: str = ""
) -> list[float] | None:
    """Three numbers to drag or type. Returns them when they changed, else None."""
    from imgui_bundle import imgui

    changed, numbers = imgui.drag_float3(
        _row(widget, "vector", label, tip), [float(v) for v in value], speed, 0, 0, text
    )
    return list(numbers) if changed else None


def text_field(widget: str, value: str, hint: str, width: float = -1.0) -> tuple[bool, str]:
    """A field for text. Returns (Enter was pressed, the text)."""
    from imgui_bundle import imgui

    REGISTRY[widget] = "text"
    imgui.set_next_item_width(width)
    flags = imgui.InputTextFlags_.enter_returns_true.value
    return imgui.input_text_with_hint(f"##{widget}", hint, value, flags)


def button(widget: str, label: str, width: float = 0.0, tip: str = "", enabled: bool = True) -> bool:
    """A button; true in the frame it is clicked."""
    from imgui_bundle import imgui

    REGISTRY[widget] = "button"
    imgui.begin_disabled(not enabled)
    clicked = imgui.button(f"{label}###{widget}", (width, 0.0))
    imgui.end_disabled()
    if tip and imgui.is_item_hovered(imgui.HoveredFlags_.allow_when_disabled.value):
        imgui.set_tooltip(tip)
    return clicked


def heading(text: str) -> None:
    """A section's title."""
    from imgui_bundle import imgui

    imgui.spacing()
    imgui.separator_text(text)


def _fact(label: str, value: str) -> str:
    """Starts a row that tells something: the label, the cursor at the value's place. Returns what fits of the value."""
    from imgui_bundle import imgui

    width = imgui.get_content_region_avail().x
    start = imgui.get_cursor_pos_x()
    imgui.text_colored(theme.rgba(theme.MUTED), label)
    imgui.same_line(start + width * LABEL_SHARE)
    room = imgui.get_content_region_avail().x
    return shortened(value, lambda line: imgui.calc_text_size(line).x <= room)


def fact(label: str, value: str, tip: str = "") -> None:
    """A row that only tells: a label and a value, cut with an ellipsis where the panel is too narrow."""
    from imgui_bundle import imgui

    shown = _fact(label, value)
    imgui.text(shown)
    if (tip or shown != value) and imgui.is_item_hovered():
        imgui.set_tooltip(tip or value)


def copyable(widget: str, label: str, value: str, reason: str) -> None:
    """A `fact` with its reason; a click copies both, for whoever asks why."""
    from imgui_bundle import imgui

    REGISTRY[widget] = "copyable"
    if imgui.selectable(f"{_fact(label, value)}###{widget}", False)[0]:
        imgui.set_clipboard_text(f"{value}: {reason}")
    if imgui.is_item_hovered():
        imgui.set_tooltip(f"{reason}\n(a click copies it)")


def note(text: str) -> None:
    """A quiet sentence, wrapped."""
    from imgui_bundle import imgui

    imgui.push_style_color(imgui.Col_.text, theme.rgba(theme.MUTED))
    imgui.text_wrapped(text)
    imgui.pop_style_color()


def count(number: float) -> str:
    """A number for people.

    >>> count(950), count(12_345), count(7_340_032)
    ('950', '12.3 k', '7.34 M')
    """
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= limit:
            return f"{number / min(limit, 10 ** (3 * (' kMG'.index(unit)))):.3g} {unit}"
    return f"{number:.0f}"


def size(n_bytes: float) -> str:
    """A number of bytes for people.

    >>> size(1536), size(16 * 2**20)
    ('1.5 KiB', '16.0 MiB')
    """
    for exponent, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if n_bytes >= 1 << exponent:
            return f"{n_bytes / (1 << exponent):.1f} {unit}"
    return f"{n_bytes:.0f} B"
