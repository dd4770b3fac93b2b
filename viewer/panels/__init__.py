"""The panels: a title and a function of a `Context` each. They read facts, edit the state and call actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...renderer.interop import PathStatus
from ..film import Film
from ..inspector import Inspector
from ..monitor import Monitor
from ..photographs import PhotoSet
from ..scene import LoadedScene
from ..state import ViewerState
from ..theme import Fonts


@dataclass
class Context:
    """What a panel sees in one frame."""

    state: ViewerState
    scene: LoadedScene | None
    monitor: Monitor
    fonts: Fonts
    actions: dict[str, Callable[..., None]]
    scene_size: tuple[int, int]  # px of the scene on the screen
    fields: dict[str, str]  # texts being typed, and which axes the pose is shown in
    bookmarks: frozenset[int] = frozenset()  # slots of this scene that hold a pose
    loading: str = ""  # name of the file being opened
    following: str = ""  # what is followed and how old it is; empty: nothing
    path: PathStatus | None = None  # of the present picture
    scenes: tuple[LoadedScene, ...] = ()  # all that are open, by their numbers
    data: PhotoSet | None = None
    data_loading: str = ""  # name of the data set being opened
    at_photograph: bool = False  # the photograph is a side, and seen from its camera
    score: float | None = None  # PSNR of the two sides, dB
    inspector: Inspector | None = None
    film: Film | None = None


def all_panels() -> dict[str, Callable[[Context], None]]:
    """Title -> panel, in the order of the tabs."""
    from . import camera, compare, film, inspector, lod, render, scene, statistics

    return {module.TITLE: module.draw for module in (render, lod, inspector, compare, scene, camera, film, statistics)}
