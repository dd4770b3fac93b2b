"""The two sides of a comparison: which scene, or the photograph, is left and which is right. Arithmetic on the state.

A side is the number of an open scene (0 is the first) or `PHOTO`; both are never the same. The scene on the left leads
(on the right, where the photograph is left): it is the one that is shown alone, whose facts the panels tell, and that
the keys 1, 2, 3 exchange.
"""

from __future__ import annotations

from .state import PHOTO, ViewerState

LEFT, RIGHT = 0, 1
NAMES = ("left", "right")
MAX_SCENES = 9  # open at once: as many as have a key


def leading(state: ViewerState) -> int:
    """The side whose scene leads.

    >>> leading(ViewerState(left=PHOTO, right=0))
    1
    """
    return RIGHT if state.left == PHOTO else LEFT


def scene_number(state: ViewerState) -> int:
    """The number of the scene that leads."""
    return (state.left, state.right)[leading(state)]


def choose(state: ViewerState, side: int, what: int) -> None:
    """Puts a scene or the photograph on a side; what the other side has comes over from there in exchange.

    >>> state = ViewerState(left=0, right=1)
    >>> choose(state, LEFT, 1); state.left, state.right
    (1, 0)
    """
    here, there = (state.left, state.right)[side], (state.left, state.right)[1 - side]
    if what == there:
        there = here
    state.left, state.right = (what, there) if side == LEFT else (there, what)


def show(state: ViewerState, number: int) -> None:
    """Another scene leads, from the side of the one that did."""
    choose(state, leading(state), number)


def swap(state: ViewerState) -> None:
    """Exchanges left and right."""
    state.left, state.right = state.right, state.left


def settle(state: ViewerState, n_scenes: int, data: bool) -> None:
    """Sides that name what is not there take what is. `data`: a data set is open, so that there are photographs.

    The side that follows may name the scene after the last one: nothing yet, and the next that is added.
    """
    for name in ("left", "right"):
        if getattr(state, name) == PHOTO and not data:
            setattr(state, name, n_scenes)
    side = leading(state)
    lead, other = (state.left, state.right)[side], (state.left, state.right)[1 - side]
    if lead >= max(n_scenes, 1):
        lead = other if 0 <= other < n_scenes else 0
    if other != PHOTO and (other == lead or other >= n_scenes):
        other = next((number for number in range(n_scenes) if number != lead), max(n_scenes, 1))
    state.left, state.right = (lead, other) if side == LEFT else (other, lead)


def comparing(state: ViewerState, n_scenes: int, photograph: bool) -> bool:
    """Whether two sides are shown: a mode is chosen, and both have something."""
    have = [0 <= side < n_scenes or (side == PHOTO and photograph) for side in (state.left, state.right)]
    return state.compare != "off" and all(have)


def removed(state: ViewerState, number: int) -> None:
    """The scene of a number was closed; those after it move up."""
    for name in ("left", "right"):
        value = getattr(state, name)
        setattr(state, name, value - 1 if value > number else value)
