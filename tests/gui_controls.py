"""Using a control by its name, and knowing which have a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from gui_harness import Harness
from numpy.typing import NDArray

from infnerf.renderer.resolve import resolve
from infnerf.viewer.sides import LEFT, RIGHT

Test = TypeVar("Test", bound=Callable[..., None])
COVERED: set[str] = set()


def covers(*controls: str) -> Callable[[Test], Test]:
    """Says which controls a test is about."""
    COVERED.update(controls)
    return lambda test: test


def use(viewer: Harness, panel: str, act: Callable[[Any], None]) -> None:
    """Brings a panel to the front and does something in it; no panel may fail meanwhile."""

    def body(context: Any) -> None:
        context.window_focus(f"//{panel}")
        context.set_ref(f"//{panel}")
        act(context)

    viewer.run(body)
    assert not [notice.text for notice in viewer.app.notices.current() if "panel" in notice.text]


def type_number(viewer: Harness, panel: str, control: str, value: float) -> None:
    use(viewer, panel, lambda c: c.item_input_value(f"##{control}", value))


def pick(viewer: Harness, panel: str, control: str, option: str) -> None:
    use(viewer, panel, lambda c: c.combo_click(f"##{control}/{option}"))


def both(viewer: Harness) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Left and right as `resolve` has them."""
    viewer.settle()
    pictures = []
    for side in (LEFT, RIGHT):
        pane = viewer.app.comparison.pane(side)
        assert pane.snapshot is not None
        pictures.append(resolve(pane.snapshot.buffers, pane.picture.settings(viewer.app.state)))
    return pictures[0], pictures[1]
