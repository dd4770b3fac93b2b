"""The camera and the keys as a person uses them, through ImGui's mouse and keyboard. No display needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gui_harness import Harness, changed

from infnerf.renderer.resolve import VIEW_MODES

pytestmark = pytest.mark.needs("gl")


@pytest.mark.parametrize(
    ("key", "axis", "sign"),
    [("w", "forward", 1), ("s", "forward", -1), ("d", "right", 1), ("a", "right", -1), ("e", "up", 1), ("q", "up", -1)],
)
def test_each_flying_key_moves_the_camera_and_the_picture(viewer: Harness, key: str, axis: str, sign: int) -> None:
    rig = viewer.app.state.camera
    start, before = rig.position.copy(), viewer.pixels()
    viewer.over_scene(lambda c: c.key_hold(int(getattr(viewer.imgui.Key, key)), 0.3))
    moved = rig.position - start
    assert sign * (moved @ getattr(rig, axis)) > 0.99 * np.linalg.norm(moved) > 0.1
    assert changed(before, viewer.pixels()) > 0.05
    assert not viewer.app.moving


def test_shift_flies_faster_and_ctrl_slower(viewer: Harness) -> None:
    key = viewer.imgui.Key
    ways = []
    for held in (None, key.left_shift, key.left_ctrl):
        assert viewer.app.home is not None
        viewer.app.state.camera = viewer.app.home.copy()
        viewer.settle()

        def fly(context: Any, held: Any = held) -> None:
            if held is not None:
                context.key_down(int(held))
            context.key_hold(int(key.w), 0.3)
            if held is not None:
                context.key_up(int(held))

        viewer.over_scene(fly)
        viewer.settle()
        ways.append(float(np.linalg.norm(viewer.app.state.camera.position - viewer.app.home.position)))
    assert ways[1] > 2 * ways[0] > 6 * ways[2] > 0


def test_dragging_with_each_button_orbits_looks_and_pans(viewer: Harness) -> None:
    rig, buttons = viewer.app.state.camera, viewer.imgui.MouseButton_
    start = rig.copy()
    viewer.over_scene(lambda c: c.mouse_drag_with_delta((60, 20), buttons.right.value))
    np.testing.assert_array_equal(rig.position, start.position)
    assert rig.yaw < start.yaw - 0.05
    assert rig.pitch < start.pitch - 0.02
    rig.yaw, rig.pitch = start.yaw, start.pitch
    viewer.settle()
    viewer.over_scene(lambda c: c.mouse_drag_with_delta((60, 20), buttons.middle.value))
    assert (rig.yaw, rig.pitch) == (start.yaw, start.pitch)
    assert np.linalg.norm(rig.position - start.position) > 0.1
    rig.position = start.position.copy()
    viewer.settle()
    viewer.over_scene(lambda c: c.mouse_drag_with_delta((60, 20), buttons.left.value))
    assert rig.yaw != start.yaw
    center = np.array([4.0, 4.0, 1.5])
    # about the point on the sphere under the cursor: its distance stays
    assert np.linalg.norm(rig.position - center) == pytest.approx(np.linalg.norm(start.position - center), rel=0.1)
    assert np.linalg.norm(rig.position - start.position) > 1


def test_shift_and_the_left_button_pan(viewer: Harness) -> None:
    rig, key = viewer.app.state.camera, viewer.imgui.Key
    start = rig.copy()

    def pan(context: Any) -> None:
        context.key_down(int(key.left_shift))
        context.mouse_drag_with_delta((50, 0), 0)
        context.key_up(int(key.left_shift))

    viewer.over_scene(pan)
    assert rig.yaw == start.yaw
    assert np.linalg.norm(rig.position - start.position) > 0.1


def test_a_drag_that_begins_on_a_panel_leaves_the_camera_alone(viewer: Harness) -> None:
    pose = viewer.app.state.camera.c2w

    def body(context: Any) -> None:
        context.mouse_move_to_pos((viewer.app.layout.scene_rect[2] + 120, 630))
        context.mouse_wheel_y(2)
        context.mouse_drag_with_delta((-200, -50), 1)

    viewer.run(body)
    np.testing.assert_array_equal(viewer.app.state.camera.c2w, pose)


def test_the_wheel_goes_towards_the_cursor_and_sets_the_speed_in_flight(viewer: Harness) -> None:
    rig = viewer.app.state.camera
    start = np.linalg.norm(rig.position - [4.0, 4.0, 1.5])
    viewer.over_scene(lambda c: c.mouse_wheel_y(3))
    assert np.linalg.norm(rig.position - [4.0, 4.0, 1.5]) < 0.9 * start
    assert viewer.app.state.speed == 1.0

    def look(context: Any) -> None:
        context.mouse_down(1)
        context.mouse_wheel_y(2)
        context.mouse_up(1)

    viewer.over_scene(look)
    assert viewer.app.state.speed == pytest.approx(1.25**2)


def test_typing_into_a_field_does_not_fly(viewer: Harness) -> None:
    pose, mode = viewer.app.state.camera.c2w, viewer.app.state.view_mode

    def body(context: Any) -> None:
        context.window_focus("//Scene")
        context.set_ref("//Scene")
        context.item_click("##scene_path")
        context.key_chars_replace("wasdqe123?m")
        context.key_press(int(viewer.imgui.Key.escape))

    viewer.run(body)
    np.testing.assert_array_equal(viewer.app.state.camera.c2w, pose)
    assert viewer.app.state.view_mode == mode
    assert not viewer.window.should_close


def test_every_view_key_and_toggle_does_what_the_list_says(viewer: Harness) -> None:
    state, key = viewer.app.state, viewer.imgui.Key
    for number, mode in enumerate(VIEW_MODES, start=2):
        viewer.press(getattr(key, f"f{number}"))
        assert state.view_mode == mode
    viewer.press(key.m)
    assert state.view_mode == VIEW_MODES[0]
    for name, keys, expected in (
        ("tint", (key.t,), "level"),
        ("legend", (key.g,), False),
        ("legend", (key.g,), True),
        ("exposure", (key.equal,), 0.25),
        ("exposure", (key.minus,), 0.0),
        ("lod_bias", (key.period,), 0.25),
        ("lod_bias", (key.comma,), 0.0),
        ("wires", (key.o,), "in use"),
        ("wires", (key.o,), "all"),
        ("wire_max", (key.left_bracket,), 3),
        ("wire_max", (key.right_bracket,), 4),
        ("show_help", (key.f1,), True),
        ("show_help", (key.escape,), False),
    ):
        viewer.press(*keys)
        assert getattr(state, name) == expected, name
    assert not viewer.window.should_close


def test_the_question_mark_lists_the_keys(viewer: Harness) -> None:
    before = viewer.screen()
    viewer.over_scene(lambda c: c.key_chars("?"))
    assert viewer.app.state.show_help
    assert changed(before, viewer.screen()) > 0.2
    viewer.run(lambda c: c.window_close("//###keys"))
    assert not viewer.app.state.show_help


def test_tab_hides_the_panels_and_the_scene_takes_their_place(viewer: Harness) -> None:
    width = viewer.app.scene_size[0]
    viewer.press(viewer.imgui.Key.tab)
    viewer.frame(2)
    assert viewer.app.scene_size == viewer.window.framebuffer_size
    viewer.app.state.resolution, viewer.app.state.legend = 1.0, False
    screen = viewer.screen()
    np.testing.assert_array_equal(screen, viewer.app.read_scene_pixels())  # the picture and nothing else
    viewer.press(viewer.imgui.Key.tab)
    viewer.frame(2)
    assert viewer.app.scene_size[0] == width
    assert not viewer.imgui.get_io().want_text_input


def test_bookmark_and_home_keys(viewer: Harness) -> None:
    rig, key, ctrl = viewer.app.state.camera, viewer.imgui.Key, viewer.imgui.Key.mod_ctrl
    rig.turn(0.3, 0.0)
    pose = rig.c2w
    viewer.press(ctrl, key._4)
    viewer.press(key.h)
    viewer.settle()
    assert viewer.app.home is not None
    np.testing.assert_allclose(viewer.app.state.camera.c2w, viewer.app.home.c2w, atol=1e-9)
    viewer.press(key.mod_shift, key._4)
    viewer.settle()
    np.testing.assert_allclose(viewer.app.state.camera.c2w, pose, atol=1e-9)
    viewer.press(key.mod_shift, key._5)
    assert "empty" in viewer.app.notices.current()[-1].text


def test_the_default_layout_can_be_had_again(viewer: Harness) -> None:
    width = viewer.app.scene_size[0]
    viewer.app.layout.reset()
    viewer.press(viewer.imgui.Key.mod_ctrl, viewer.imgui.Key.l)
    viewer.frame(3)
    assert viewer.app.scene_size[0] == width


def test_the_renderer_knows_where_the_cursor_is(viewer: Harness) -> None:
    """Slow models sharpen from there outward; beside the scene there is nowhere that a person looks."""
    renderer = viewer.app.session.front.renderer
    x, y, width, height = viewer.app.layout.scene_rect
    seen = []

    def look(context: Any) -> None:
        for at in ((x + 0.25 * width, y + 0.8 * height), (x - 5, y + 5)):
            context.mouse_move_to_pos(at)
            context.yield_(2)
            seen.append(renderer.focus)

    viewer.run(look)
    assert seen[0] == pytest.approx((0.25, 0.8), abs=0.01)
    assert seen[1] is None
