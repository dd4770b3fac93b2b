"""Several scenes in one window: adding, switching, closing, files that do not open."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from gui_controls import covers, pick, use
from gui_harness import AnalyticExecutor, Harness, changed

pytestmark = pytest.mark.needs("gl")


@covers("scene_add")
def test_a_scene_is_added_beside_the_first_and_told_of(viewer: Harness) -> None:
    viewer.app.fields["path"] = "dim.pth"
    before = viewer.pixels()
    use(viewer, "Scene", lambda c: c.item_click("###scene_add"))
    viewer.settle()
    assert [loaded.name for loaded in viewer.app.session.loaded] == ["scene.pth", "dim.pth"]
    assert "key 2" in viewer.app.notices.current()[-1].text
    np.testing.assert_array_equal(viewer.pixels(), before)  # the first one stays on the screen


@covers("scene_shown")
def test_keys_and_the_drop_down_switch_and_no_picture_is_made_twice(two: Harness) -> None:
    key, app = two.imgui.Key, two.app
    first = two.pixels()
    two.press(key._2)
    assert app.scene is not None
    assert app.scene.path.name == "dim.pth"
    second = two.pixels()
    assert second.mean() < first.mean() - 3
    sequences = [loaded.sequence for loaded in app.session.loaded]
    pick(two, "Scene", "scene_shown", "1: scene.pth")
    np.testing.assert_array_equal(two.pixels(), first)
    assert [loaded.sequence for loaded in app.session.loaded] == sequences
    two.press(key._3)
    assert "no scene 3" in app.notices.current()[-1].text
    assert app.scene.path.name == "scene.pth"


def test_the_last_frame_stays_until_the_other_scene_has_a_picture(two: Harness) -> None:
    app, gate = two.app, threading.Event()
    first = two.pixels()
    other = app.session.loaded[1]
    executor = other.scene.executor
    render = executor.render
    executor.render = lambda *a: (gate.wait(30), render(*a))[1]  # type: ignore[method-assign]
    try:
        app.actions["show_2"]()
        two.frame(4)
        assert app.scene is other.scene
        np.testing.assert_array_equal(app.read_scene_pixels(), first)
        gate.set()
        assert changed(first, two.pixels()) > 0.3
    finally:
        gate.set()
        executor.render = render  # type: ignore[method-assign]


def test_a_scene_that_nobody_sees_is_not_rendered(two: Harness) -> None:
    app = two.app
    hidden = app.session.loaded[1]
    app.actions["show_2"]()
    two.settle()
    app.actions["show_1"]()
    two.settle()
    sequence = hidden.sequence
    app.state.camera.turn(0.3, 0)
    two.settle()
    assert (hidden.sequence, hidden.renderer.state) == (sequence, "idle")


@covers("scene_close")
def test_a_scene_is_closed_and_the_others_move_up(two: Harness) -> None:
    app, closed = two.app, two.app.session.loaded[0].scene.executor
    use(two, "Scene", lambda c: c.item_click("###scene_close"))
    two.settle()
    assert [loaded.name for loaded in app.session.loaded] == ["dim.pth"]
    assert app.scene is not None
    assert app.scene.path.name == "dim.pth"
    assert isinstance(closed, AnalyticExecutor)
    assert closed.closed
    app.actions["close"](0)  # the only one stays
    assert len(app.session.loaded) == 1
    two.open()


def test_several_dropped_files_open_and_a_bad_one_leaves_the_rest(viewer: Harness) -> None:
    app = viewer.app
    viewer.window.dropped += [Path("one.pth"), Path("bad.pth"), Path("dim.pth")]
    viewer.settle()
    assert [loaded.name for loaded in app.session.loaded] == ["one.pth", "dim.pth"]
    assert any("expected a checkpoint" in notice.text for notice in app.notices.current())
    viewer.open()


def test_no_more_scenes_open_than_there_are_keys(viewer: Harness) -> None:
    app = viewer.app
    for number in range(9):
        app.add(f"scene{number}.pth")
    viewer.settle()
    assert len(app.session.loaded) == 9
    assert any("close one first" in notice.text for notice in app.notices.current())  # other news does not hide it
