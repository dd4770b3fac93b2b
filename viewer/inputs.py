"""From ImGui's mouse and keys to the camera's `Inputs`. ImGui's, and not GLFW's, so that tests can inject them."""

from __future__ import annotations

from typing import Any

from . import bindings
from .camera_control import Inputs

Rect = tuple[float, float, float, float]  # x, y, width, height in ImGui's units

_OPPOSITE = (("right", "left"), ("up", "down"), ("forward", "back"))  # the two actions of an axis of `Inputs.move`


def read_inputs(io: Any, rect: Rect, dt: float) -> Inputs:
    """What the person does to the camera in this frame. Drags begin inside `rect` only, and end wherever they end."""
    from imgui_bundle import imgui

    buttons = imgui.MouseButton_
    held = bindings.held(io)
    scale_x, scale_y = io.display_framebuffer_scale
    cursor = (io.mouse_pos.x - rect[0]) * scale_x, (io.mouse_pos.y - rect[1]) * scale_y
    inside = hovers(io, rect)
    left = "pan" if io.key_shift else "orbit"
    gestures = ((buttons.left, left), (buttons.right, "look"), (buttons.middle, "pan"))
    pressed = {gesture for button, gesture in gestures if inside and imgui.is_mouse_clicked(button)}
    down = {gesture for button, gesture in gestures if imgui.is_mouse_down(button)}
    if imgui.is_mouse_down(buttons.left):
        down |= {"orbit", "pan"}  # the shift key says which only when the drag begins
    return Inputs(
        dt=dt,
        move=tuple(float(plus in held) - float(minus in held) for plus, minus in _OPPOSITE),  # type: ignore[arg-type]
        fast="fast" in held,
        slow="slow" in held,
        cursor=cursor,
        wheel=io.mouse_wheel if inside else 0.0,
        pressed=frozenset(pressed),
        held=frozenset(down),
    )


def hovers(io: Any, rect: Rect) -> bool:
    """Whether the cursor is over the scene and not over a panel."""
    x, y = io.mouse_pos.x - rect[0], io.mouse_pos.y - rect[1]
    return 0 <= x < rect[2] and 0 <= y < rect[3] and not io.want_capture_mouse


def looked_at(io: Any, rect: Rect) -> tuple[float, float] | None:
    """Where in the scene the cursor is, 0 to 1 from its upper left corner; None: it is elsewhere."""
    if not hovers(io, rect):
        return None
    return (io.mouse_pos.x - rect[0]) / rect[2], (io.mouse_pos.y - rect[1]) / rect[3]
