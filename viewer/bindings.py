"""The one table of keys and mouse buttons. The help overlay and `docs/viewer.md` list it; dispatch reads it.

A key is written `ctrl+shift+x` with ImGui's names; `?` is the character, wherever a keyboard has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

MODIFIERS = ("ctrl", "shift", "alt")
#: Printed names of keys whose ImGui name is not what stands on the key.
_PRINTED = {
    "left_bracket": "[",
    "right_bracket": "]",
    "comma": "Comma",
    "period": "Period",
    "equal": "+",
    "keypad_add": "Keypad +",
    "keypad_subtract": "Keypad -",
    "minus": "-",
    "escape": "Esc",
    "page_up": "PgUp",
    "page_down": "PgDn",
    "left_shift": "Shift",
    "right_shift": "Shift",
    "left_ctrl": "Ctrl",
    "right_ctrl": "Ctrl",
}


@dataclass(frozen=True)
class Binding:
    """One line of the table: `action` is done when one of `keys` goes down, or as long as it is held."""

    action: str
    keys: tuple[str, ...]
    name: str  # what it does, for people
    group: str
    hold: bool = False
    mouse: bool = False  # a mouse gesture: listed here, read by `inputs.py`


BINDINGS: tuple[Binding, ...] = (
    Binding("forward", ("w", "up_arrow"), "Fly forward", "Camera", hold=True),
    Binding("back", ("s", "down_arrow"), "Fly back", "Camera", hold=True),
    Binding("left", ("a", "left_arrow"), "Fly left", "Camera", hold=True),
    Binding("right", ("d", "right_arrow"), "Fly right", "Camera", hold=True),
    Binding("up", ("e", "page_up"), "Fly up", "Camera", hold=True),
    Binding("down", ("q", "page_down"), "Fly down", "Camera", hold=True),
    Binding("fast", ("left_shift", "right_shift"), "Four times faster", "Camera", hold=True),
    Binding("slow", ("left_ctrl", "right_ctrl"), "Five times slower", "Camera", hold=True),
    Binding("look", ("right drag",), "Look around", "Camera", mouse=True),
    Binding("orbit", ("left drag",), "Orbit about the point under the cursor", "Camera", mouse=True),
    Binding("pan", ("middle drag", "shift+left drag"), "Pan: the point stays under the cursor", "Camera", mouse=True),
    Binding("zoom", ("wheel",), "Towards the point under the cursor", "Camera", mouse=True),
    Binding("speed", ("wheel in flight",), "Flying speed", "Camera", mouse=True),
    Binding("home", ("h", "home"), "Home view", "Camera"),
    Binding("copy_pose", ("ctrl+c",), "Copy the pose", "Camera"),
    Binding("paste_pose", ("ctrl+v",), "Paste a pose", "Camera"),
    *(Binding(f"store_{i}", (f"ctrl+_{i}",), f"Store bookmark {i}", "Bookmarks") for i in range(1, 10)),
    *(Binding(f"recall_{i}", (f"shift+_{i}",), f"Go to bookmark {i}", "Bookmarks") for i in range(1, 10)),
    *(Binding(f"show_{i}", (f"_{i}",), f"Show scene {i}", "Scenes") for i in range(1, 10)),
    Binding("compare", ("c",), "Compare: the next way, or off", "Scenes"),
    Binding("swap", ("x",), "Swap left and right", "Scenes"),
    Binding("divide", ("drag the divider",), "Move the wipe's divider", "Scenes", mouse=True),
    Binding("to_photo", ("v",), "To the photograph's camera", "Scenes"),
    Binding("next_photo", ("n",), "Next photograph", "Scenes"),
    Binding("previous_photo", ("b",), "Previous photograph", "Scenes"),
    Binding("view_rgb", ("f2",), "rgb", "View mode"),
    Binding("view_depth", ("f3",), "depth", "View mode"),
    Binding("view_normal", ("f4",), "normal", "View mode"),
    Binding("view_alpha", ("f5",), "alpha", "View mode"),
    Binding("view_level", ("f6",), "level", "View mode"),
    Binding("view_gsd", ("f7",), "gsd", "View mode"),
    Binding("view_samples", ("f8",), "samples", "View mode"),
    Binding("view_node", ("f9",), "node", "View mode"),
    Binding("next_view", ("m",), "Next view mode", "View mode"),
    Binding("tint", ("t",), "Tint over rgb: none, level, gsd", "View mode"),
    Binding("legend", ("g",), "Legend", "View mode"),
    Binding("brighter", ("equal", "keypad_add"), "Exposure up", "Picture"),
    Binding("darker", ("minus", "keypad_subtract"), "Exposure down", "Picture"),
    Binding("wires", ("o",), "Octree: off, nodes in use, all", "Octree"),
    Binding("wire_deeper", ("right_bracket",), "Octree one level deeper", "Octree"),
    Binding("wire_shallower", ("left_bracket",), "Octree one level shallower", "Octree"),
    Binding("finer", ("period",), "Level of detail finer", "Octree"),
    Binding("coarser", ("comma",), "Level of detail coarser", "Octree"),
    Binding("inspect", ("i",), "Inspect the pixel under the cursor", "Octree"),
    Binding("pin", ("click",), "Keep the ray of a pixel, while inspecting", "Octree", mouse=True),
    Binding("film_add", ("k",), "Add this view as a key frame", "Film"),
    Binding("film_play", ("space",), "Play or pause the path", "Film"),
    Binding("screenshot", ("f12", "p"), "Screenshot to a PNG", "Window"),
    Binding("toggle_ui", ("tab",), "Panels on and off", "Window"),
    Binding("fullscreen", ("f11",), "Full screen", "Window"),
    Binding("reset_layout", ("ctrl+l",), "Default panel layout", "Window"),
    Binding("help", ("?", "f1"), "This list", "Window"),
    Binding("quit", ("escape", "ctrl+q"), "Quit", "Window"),
)


def by_action(action: str) -> Binding:
    """The line of an action. Raises `KeyError` for one that is not in the table."""
    return next(b for b in BINDINGS if b.action == action) if action in _ACTIONS else _unknown(action)


_ACTIONS = frozenset(b.action for b in BINDINGS)


def _unknown(action: str) -> Binding:
    raise KeyError(f"no binding named {action!r}")


def printed(key: str) -> str:
    """A key as people write it.

    >>> printed("ctrl+_1"), printed("left_bracket"), printed("f12")
    ('Ctrl+1', '[', 'F12')
    """
    *modifiers, last = key.split("+") if key != "+" else ["+"]
    name = _PRINTED.get(last) or last.lstrip("_").replace("_arrow", "").replace("_", " ")
    name = name.upper() if len(name) == 1 or (name[0] == "f" and name[1:].isdigit()) else name[0].upper() + name[1:]
    return "+".join([m.capitalize() for m in modifiers] + [name])


def help_rows() -> dict[str, list[tuple[str, str]]]:
    """Group -> (keys, what they do), in the table's order; bookmarks and view modes take one row each."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for binding in BINDINGS:
        family = [b for b in BINDINGS if b.action.partition("_")[0] == binding.action.partition("_")[0]]
        group = rows.setdefault(binding.group, [])
        if binding.action.partition("_")[0] in ("store", "recall", "show", "view"):
            if binding is family[0]:
                keys = f"{printed(binding.keys[0])} .. {printed(family[-1].keys[0])}"
                name = binding.name.rstrip(" 1")
                group.append((keys, f"{name} .. {family[-1].name}" if binding.group == "View mode" else name))
            continue
        names = list(dict.fromkeys(printed(key) for key in binding.keys))
        group.append((", ".join(names), binding.name))
    return rows


@cache
def _parsed(key: str) -> tuple[frozenset[str], str]:
    *modifiers, last = key.split("+")
    return frozenset(modifiers), last


@cache
def _imgui_key(name: str) -> Any:
    from imgui_bundle import imgui

    return getattr(imgui.Key, name)


def held(io: Any) -> set[str]:
    """Actions whose keys are down now; none while a person types into a field."""
    from imgui_bundle import imgui

    if io.want_text_input:
        return set()
    return {b.action for b in BINDINGS if b.hold and any(imgui.is_key_down(_imgui_key(key)) for key in b.keys)}


class Keyboard:
    """Does the actions of keys that go down."""

    def __init__(self, actions: dict[str, Callable[..., None]]) -> None:
        self._actions = actions
        self._modifiers: frozenset[str] = frozenset()  # of the frame before

    def update(self, io: Any) -> list[str]:
        """To be called once a frame. Modifiers must match exactly. Returns what was done.

        A modifier let go in the frame in which the key went down still counts: within one frame the order is unknown,
        and whoever is that quick meant the chord.
        """
        from imgui_bundle import imgui

        states = (io.key_ctrl, io.key_shift, io.key_alt)
        now = frozenset(name for name, down in zip(MODIFIERS, states, strict=True) if down)
        modifiers, self._modifiers = now | self._modifiers, now
        if io.want_text_input:
            return []
        typed = {chr(code) for code in io.input_queue_characters}
        done = []
        for binding in BINDINGS:
            if binding.hold or binding.mouse:
                continue
            for key in binding.keys:
                wanted, name = _parsed(key)
                hit = (
                    key in typed
                    if key == "?"
                    else wanted == modifiers and imgui.is_key_pressed(_imgui_key(name), False)
                )
                if hit:
                    self._actions[binding.action]()
                    done.append(binding.action)
                    break
        return done
