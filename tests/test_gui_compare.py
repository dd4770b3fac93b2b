"""Two scenes on one screen: every way to compare, by pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gui_controls import both, covers, pick, type_number, use
from gui_harness import AnalyticExecutor, Harness, changed
from numpy.typing import NDArray
from PIL import Image

from infnerf.renderer.comparison import compose, psnr
from infnerf.renderer.pngmeta import read_metadata
from infnerf.viewer.sides import LEFT, RIGHT

pytestmark = pytest.mark.needs("gl")


@covers("compare_mode")
def test_every_mode_is_another_picture_and_the_one_that_compose_makes(two: Harness) -> None:
    seen = [two.pixels()]
    for mode in ("wipe", "side by side", "difference", "error"):
        pick(two, "Compare", "compare_mode", mode)
        picture = two.pixels()
        assert min(changed(picture, other) for other in seen) > 0.05, mode
        expected = compose(mode, *both(two))
        assert picture.shape == expected.shape
        assert np.abs(picture.astype(int) - expected).max() <= 2, mode
        seen.append(picture)
    two.press(two.imgui.Key.c)
    assert two.app.state.compare == "off"
    np.testing.assert_array_equal(two.pixels(), seen[0])


def test_maps_are_of_rgb_whatever_the_view_mode(two: Harness) -> None:
    two.app.state.compare = "error"
    before = two.pixels()
    two.app.state.view_mode = "level"
    np.testing.assert_array_equal(two.pixels(), before)
    two.app.state.compare = "wipe"
    assert changed(two.pixels()[:, :100], compose("wipe", *both(two))[:, :100]) < 0.01
    two.app.state.view_mode = "rgb"


@covers("compare_divider")
def test_the_divider_is_set_in_the_panel_and_dragged_in_the_picture(two: Harness) -> None:
    state = two.app.state
    state.compare = "wipe"
    left, right = both(two)
    type_number(two, "Compare", "compare_divider", 25)
    assert state.divider == 0.25
    np.testing.assert_allclose(two.pixels().astype(int), compose("wipe", left, right, 0.25), atol=1)
    camera = state.camera.c2w
    width = two.app.layout.scene_rect[2]
    two.run(lambda c: c.item_drag_with_delta("//Divider/###divider", (0.5 * width, 0.0)))
    assert state.divider == pytest.approx(0.75, abs=0.02)
    np.testing.assert_array_equal(state.camera.c2w, camera)  # and the view stays
    assert changed(two.pixels(), compose("wipe", left, right, 0.25)) > 0.05


@covers("compare_swap", "compare_left", "compare_right")
def test_sides_are_chosen_and_swapped_and_never_the_same(two: Harness) -> None:
    app, state = two.app, two.app.state
    state.compare = "side by side"
    straight = two.pixels()
    half = straight.shape[1] // 2
    use(two, "Compare", lambda c: c.item_click("###compare_swap"))
    assert (state.left, state.right) == (1, 0)
    swapped = two.pixels()
    np.testing.assert_array_equal(swapped[:, :half], straight[:, half:])
    np.testing.assert_array_equal(swapped[:, half:], straight[:, :half])
    pick(two, "Compare", "compare_left", "1: scene.pth")
    assert (state.left, state.right) == (0, 1)
    app.add("third.pth")
    two.settle()
    pick(two, "Compare", "compare_right", "3: third.pth")
    assert (state.left, state.right) == (0, 2)
    two.press(two.imgui.Key._2)
    assert (state.left, state.right) == (1, 2)
    two.press(two.imgui.Key.x)
    assert (state.left, state.right) == (2, 1)
    two.settle()
    assert [app.comparison.pane(side).name for side in (LEFT, RIGHT)] == ["third.pth", "dim.pth"]


@covers("compare_flicker")
def test_flicker_shows_one_after_the_other_at_its_rate_and_renders_nothing(two: Harness) -> None:
    app, state, now, clock = two.app, two.app.state, [100.0], two.app.comparison._clock
    left, right = both_of_wipe(two)
    type_number(two, "Compare", "compare_flicker", 2.0)
    assert state.flicker_hz == pytest.approx(2.0)
    app.comparison._clock = lambda: now[0]
    try:
        state.compare = "flicker"
        two.settle()
        sequences = [loaded.sequence for loaded in app.session.loaded]
        np.testing.assert_allclose(app.read_scene_pixels().astype(int), left, atol=1)
        assert not app.news()
        assert app.comparison.next_flicker() == pytest.approx(0.5)
        now[0] += 0.5
        assert app.news()
        two.frame()
        np.testing.assert_allclose(app.read_scene_pixels().astype(int), right, atol=1)
        assert [loaded.sequence for loaded in app.session.loaded] == sequences
    finally:
        app.comparison._clock = clock
    state.compare = "off"
    two.frame()
    assert app.comparison.next_flicker() is None


def both_of_wipe(viewer: Harness) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    viewer.app.state.compare = "wipe"
    return both(viewer)


@covers("compare_limit")
def test_the_colours_end_where_the_panel_says(two: Harness) -> None:
    two.app.state.compare = "error"
    weak = two.pixels()
    type_number(two, "Compare", "compare_limit", 16)
    assert two.app.state.difference_limit == pytest.approx(16)
    left, right = both(two)
    strong = two.pixels()
    assert strong.astype(int).sum() > 1.1 * weak.astype(int).sum()
    assert np.abs(strong.astype(int) - compose("error", left, right, limit=16.0)).max() <= 8


def test_psnr_is_of_the_two_pictures(two: Harness) -> None:
    left, right = both_of_wipe(two)
    two.settle()
    assert two.app.stage.score.value == pytest.approx(psnr(left, right))
    two.app.state.compare = "off"
    two.settle()
    assert two.app.stage.score.value is None


def test_each_side_tells_its_time_and_its_active_parameters(two: Harness) -> None:
    both_of_wipe(two)
    for pane in two.app.comparison.shown:
        figures = pane.figures
        assert figures is not None
        assert figures.ms > 0
        assert figures.active is not None
        assert 0 < figures.active <= 8000 * sum(pane.loaded.scene.level_counts)
    rect = two.app.layout.scene_rect
    label = np.s_[40:90, int(rect[2] / 2) : int(rect[2])]
    shown = two.screen()[label]
    two.app.comparison.pane(RIGHT).figures = None
    two.window.activity = 1
    assert changed(shown, two.screen()[label]) > 0


def test_a_drag_on_either_pane_moves_the_one_camera(two: Harness) -> None:
    app = two.app
    app.state.compare = "side by side"
    two.settle()
    x, y, width, height = app.layout.scene_rect
    assert app.camera().width == int(width) // 2
    before = app.state.camera.c2w

    def drag(context: Any) -> None:
        context.mouse_move_to_pos((x + 0.75 * width, y + 0.5 * height))
        context.mouse_drag_with_delta((60, 0))

    two.run(drag)
    assert np.abs(app.state.camera.c2w - before).max() > 0.05
    left, right = both(two)
    assert left.shape == right.shape
    shown = [pane.snapshot for pane in app.comparison.shown]
    assert shown[0] is not None
    assert shown[1] is not None
    assert shown[0].view.shows_same(shown[1].view)


def test_a_screenshot_of_a_comparison_names_both_sides(
    two: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    two.app.state.compare = "side by side"
    two.settle()
    two.app.screenshot()
    picture = two.pixels()
    with Image.open("infnerf-0001.png") as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    facts = read_metadata("infnerf-0001.png")
    assert (facts["compare"], facts["left"], facts["right"]) == ("side by side", "scene.pth", "dim.pth")


def test_with_one_scene_there_is_nothing_to_compare(viewer: Harness) -> None:
    before = viewer.pixels()
    viewer.press(viewer.imgui.Key.c)
    assert viewer.app.state.compare == "off"
    assert "add a second checkpoint" in viewer.app.notices.current()[-1].text
    viewer.app.state.compare = "wipe"  # from the panel: it begins when there is a second one
    np.testing.assert_array_equal(viewer.pixels(), before)
    viewer.app.add("dim.pth")
    assert changed(before, viewer.pixels()) > 0.02


def test_a_scene_that_fails_to_render_leaves_the_other_side(two: Harness) -> None:
    app = two.app
    app.state.compare = "wipe"
    two.settle()
    executor = app.session.loaded[1].scene.executor
    assert isinstance(executor, AnalyticExecutor)
    executor.fail = RuntimeError("the second card fell out")
    try:
        app.state.camera.turn(0.2, 0)
        two.settle()
    finally:
        executor.fail = None
    assert "the second card fell out" in app.notices.current()[-1].text
    pane = app.comparison.pane(LEFT)
    assert pane.picture.is_sharp(app.stage.view)
