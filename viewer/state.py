"""Everything a person edits, in one plain dataclass. Panels are functions of it; nothing is hidden in widgets.

Every number carries its range in the field's metadata: sliders and the reader of the settings file share it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ..renderer.comparison import COMPARISONS
from ..renderer.frame import MAX_LEVEL
from .rig import Rig

TINTS = ("none", "level", "gsd")
EXECUTORS = ("auto", "cuda", "cpu", "torch")
WIRES = ("off", "in use", "all")
COMPARE = ("off", *COMPARISONS)
PHOTO = -1  # as a side: the photograph


def _ranged(default: float, low: float, high: float) -> Any:
    return field(default=default, metadata={"range": (low, high)})


def _choice(default: str, options: tuple[str, ...]) -> Any:
    return field(default=default, metadata={"options": options})


@dataclass
class ViewerState:
    """The viewer's state; the part that is kept between runs is `persistent`."""

    # picture
    view_mode: str = "rgb"  # one of renderer.resolve.VIEW_MODES
    tint: str = _choice("none", TINTS)  # colours of level or GSD laid over rgb
    tint_strength: float = _ranged(0.5, 0.0, 1.0)
    exposure: float = _ranged(0.0, -8.0, 8.0)  # EV
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)  # linear, behind what is transparent
    own_background: bool = False  # true: `background` instead of the scene's
    legend: bool = True
    # level of detail
    lod_bias: float = _ranged(0.0, -4.0, 4.0)  # levels, + is finer
    min_level: int = _ranged(0, 0, MAX_LEVEL)
    max_level: int = _ranged(MAX_LEVEL, 0, MAX_LEVEL)
    step_scale: float = _ranged(1.0, 0.25, 4.0)  # marching step in units of the level's GSD
    # rendering
    resolution: float = _ranged(1.0, 0.25, 1.0)  # share of the window's pixels at rest
    target_frame_ms: float = _ranged(40.0, 10.0, 200.0)  # ms, while moving
    max_frames: int = _ranged(16, 1, 256)  # accumulated samples per pixel
    executor: str = _choice("auto", EXECUTORS)
    # navigation
    camera: Rig = field(default_factory=Rig)
    speed: float = _ranged(1.0, 0.01, 100.0)
    sensitivity: float = _ranged(1.0, 0.1, 5.0)
    bookmarks: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # checkpoint -> slot -> bookmark
    # octree
    wires: str = _choice("off", WIRES)
    wire_min: int = _ranged(0, 0, MAX_LEVEL)
    wire_max: int = _ranged(MAX_LEVEL, 0, MAX_LEVEL)
    # comparison
    compare: str = _choice("off", COMPARE)
    left: int = 0  # what is on each side: a number of an open scene, or PHOTO
    right: int = 1
    divider: float = _ranged(0.5, 0.0, 1.0)  # share of the width that a wipe gives to the left
    flicker_hz: float = _ranged(1.0, 0.2, 5.0)  # changes per second
    difference_limit: float = _ranged(64.0, 4.0, 255.0)  # display value of 255 at the end of the colours
    photo: int = 0  # of the data set's images, the one that is a side
    inspect: bool = False  # figures under the cursor; a click keeps a pixel's ray
    # window
    show_ui: bool = True
    show_help: bool = False
    ui_scale: float = _ranged(1.0, 0.7, 2.0)
    fullscreen: bool = False


#: Kept in the settings file. The camera belongs to the scene, and a window starts with its panels.
PERSISTENT = (
    "tint_strength",
    "legend",
    "resolution",
    "target_frame_ms",
    "max_frames",
    "speed",
    "sensitivity",
    "bookmarks",
    "flicker_hz",
    "difference_limit",
    "ui_scale",
)

_METADATA = {f.name: f.metadata for f in fields(ViewerState)}


def limits(name: str) -> tuple[float, float]:
    """The range of a number of the state.

    >>> limits("exposure")
    (-8.0, 8.0)
    """
    return _METADATA[name]["range"]


def options(name: str) -> tuple[str, ...]:
    """The words a choice of the state may take."""
    return _METADATA[name]["options"]


def checked(name: str, value: Any) -> Any:
    """`value` as the state's field `name` takes it. Raises `ValueError` with one sentence if it does not fit.

    >>> checked("max_frames", 8)
    8
    """
    default = getattr(ViewerState(), name)
    meta = _METADATA[name]
    if name == "bookmarks":
        return _checked_bookmarks(value)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")
        return value
    if "options" in meta:
        if value not in meta["options"]:
            raise ValueError(f"{name} must be one of {', '.join(meta['options'])}, got {value!r}")
        return value
    low, high = meta["range"]
    whole = isinstance(default, int)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, got {value!r}")
    if whole and value != int(value):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    return int(value) if whole else float(value)


def _checked_bookmarks(value: Any) -> dict[str, dict[str, list[float]]]:
    """Bookmarks are [x, y, z, yaw, pitch, roll, fov_y] by slot by checkpoint."""
    if not isinstance(value, dict):
        raise ValueError("bookmarks must be a table")
    for slots in value.values():
        numbers = slots.values() if isinstance(slots, dict) else (slots,)
        for pose in numbers:
            good = isinstance(pose, list) and len(pose) == 7
            if not good or not all(type(x) in (int, float) and abs(x) < 1e12 for x in pose) or not 1 <= pose[6] <= 170:
                raise ValueError("bookmarks must hold 7 numbers a slot: position, yaw, pitch, roll, field of view")
    return value
