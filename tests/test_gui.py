"""The window as a person meets it: mouse and keys, files dropped on it, pixels, messages, rest. No display needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gui_harness import QUICK, AnalyticExecutor, Harness, changed
from PIL import Image

from infnerf.models.camera import Camera
from infnerf.renderer.cliutil import read_camera
from infnerf.renderer.frame import MAX_LEVEL
from infnerf.renderer.pngmeta import read_metadata
from infnerf.renderer.resolve import VIEW_MODES, resolve
from infnerf.viewer import app as app_module
from infnerf.viewer.wires import choose_nodes, clip_matrix

pytestmark = pytest.mark.needs("gl")


@pytest.fixture(scope="module")
def shared() -> Iterator[Harness]:
    harness = Harness()
    harness.open()
    yield harness
    harness.close()


@pytest.fixture
def viewer(shared: Harness) -> Harness:
    """The module's viewer, at home and at rest."""
    app = shared.app
    assert app.home is not None
    app.control.halt()
    app.state.camera, app.state.view_mode, app.state.tint, app.state.wires = app.home.copy(), "rgb", "none", "off"
    app.state.exposure, app.state.lod_bias, app.state.speed, app.state.show_ui = 0.0, 0.0, 1.0, True
    app.state.max_frames, app.state.wire_min, app.state.wire_max = 2, 0, MAX_LEVEL
    app.notices.__init__()
    shared.settle()
    return shared


def middle(viewer: Harness) -> tuple[float, float]:
    """The scene's centre, where the sphere is, in ImGui's units."""
    x, y, width, height = viewer.app.layout.scene_rect
    return x + width / 2, y + height / 2


def over_scene(viewer: Harness, act: Callable[[Any], None]) -> None:
    """Does something with the mouse over the scene."""

    def body(context: Any) -> None:
        context.mouse_move_to_pos(middle(viewer))
        act(context)

    viewer.run(body)


def press(viewer: Harness, *keys: Any) -> None:
    chord = 0
    for key in keys:
        chord |= int(key)
    over_scene(viewer, lambda c: c.key_press(chord))


# Pixels


def test_the_windows_pixels_are_those_of_resolve_in_every_mode(viewer: Harness) -> None:
    app = viewer.app
    for mode in VIEW_MODES:
        for tint in ("none", "level") if mode == "rgb" else ("none",):
            app.state.view_mode, app.state.tint = mode, tint
            pixels = viewer.pixels()
            assert app.picture.snapshot is not None
            expected = resolve(app.picture.snapshot.buffers, app.picture.settings(app.state))
            assert pixels.shape == expected.shape
            assert np.abs(pixels.astype(int) - expected).max() <= 1, mode
            assert pixels.std() > 1


@pytest.mark.parametrize("color_space", ["linear", "srgb"])
def test_both_colour_spaces_agree_with_resolve(viewer: Harness, color_space: str) -> None:
    settings = viewer.app.picture.settings(viewer.app.state)
    settings.srgb_input, settings.exposure = color_space == "srgb", 0.7
    viewer.settle()
    assert viewer.app.picture.snapshot is not None
    expected = resolve(viewer.app.picture.snapshot.buffers, settings)
    assert np.abs(viewer.app.picture.texture.read(settings).astype(int) - expected).max() <= 1


def test_the_screen_shows_the_picture_itself_at_full_resolution(viewer: Harness) -> None:
    viewer.app.state.resolution, viewer.app.state.legend = 1.0, False
    try:
        screen, picture = viewer.screen(), viewer.app.read_scene_pixels()
        x, y, width, height = (int(v) for v in viewer.app.layout.scene_rect)
        shown = screen[y : y + height, x : x + width]
        assert shown.shape == picture.shape
        np.testing.assert_array_equal(shown[60:], picture[60:])  # below the status line
    finally:
        viewer.app.state.resolution, viewer.app.state.legend = QUICK["resolution"], True


def test_wires_lie_where_the_camera_projects_the_nodes_and_behind_nothing(viewer: Harness) -> None:
    app = viewer.app
    app.state.legend = False
    bare = viewer.screen()
    app.state.wires, app.state.wire_min, app.state.wire_max = "all", 0, 0
    wired = viewer.screen()
    app.state.legend = True
    camera = app.camera()
    x0, y0 = app.layout.scene_rect[:2]
    on = off = 0
    for z in np.linspace(0.3, 7.7, 24):  # the root's edge that is nearest to the camera, and the one behind the sphere
        for corner, hidden in (((8.0, 0.0), False), ((0.0, 8.0), z < 1.0)):
            local = (np.array([*corner, z]) - camera.position) @ camera.c2w[:3, :3]
            u = int(x0 + camera.fx * local[0] / local[2] + camera.cx)
            v = int(y0 + camera.fy * local[1] / local[2] + camera.cy)
            if not (3 < u < x0 + camera.width - 3 and 60 < v < y0 + camera.height - 3):
                continue
            near = np.s_[v - 1 : v + 2, u - 2 : u + 3]
            differs = changed(bare[near], wired[near]) > 0
            if not hidden:
                on += 1
                off += not differs
    assert on > 10
    assert off <= 0.1 * on


def test_wires_behind_the_sphere_are_hidden(viewer: Harness) -> None:
    app = viewer.app
    app.state.legend = False
    app.state.wires, app.state.wire_min, app.state.wire_max = "all", 1, 1
    with_surface = viewer.screen()
    snapshot = app.picture.snapshot
    assert snapshot is not None
    depth = snapshot.buffers.depth
    kept = depth.copy()
    try:
        depth[:] = 0  # nothing there: nothing hides a wire
        app.picture.texture._fresh.clear()
        without = viewer.screen()
    finally:
        depth[:] = kept
        app.picture.texture._fresh.clear()
        app.state.legend = True
    assert changed(with_surface, without) > 0.001


def test_nodes_are_chosen_by_level_use_and_view() -> None:
    corners = np.array([[-0.5, -0.5, 4.0], [-0.5, -0.5, -6.0], [30.0, 0, 4], [0, 0, 8], [0.0, 0.0, -0.5]])
    edges, levels = np.array([1.0, 1, 1, 1, 1]), np.array([0, 1, 1, 2, 3], np.int32)
    camera = Camera(np.eye(4), 100, 100, 50, 50, 100, 100)
    assert choose_nodes(corners, edges, levels, camera, (0, 9)).tolist() == [0, 3, 4]  # behind and beside are left out
    assert choose_nodes(corners, edges, levels, camera, (1, 2)).tolist() == [3]
    active = np.array([False, True, True, True, False])
    assert choose_nodes(corners, edges, levels, camera, (0, 9), active).tolist() == [3]
    assert sorted(choose_nodes(corners, edges, levels, camera, (0, 9), most=2).tolist()) == [0, 4]  # the largest


def test_the_clip_matrix_agrees_with_the_camera() -> None:
    rng = np.random.default_rng(0)
    camera = Camera(np.eye(4), 90, 80, 70, 50, 160, 120)
    points = rng.uniform([-1, -1, 2], [1, 1, 9], (50, 3))
    clip = np.c_[points, np.ones(50)] @ clip_matrix(camera, 1e-3).T.astype(float)
    u = (clip[:, 0] / clip[:, 3] + 1) / 2 * 160
    v = (1 - clip[:, 1] / clip[:, 3]) / 2 * 120
    np.testing.assert_allclose(u, 90 * points[:, 0] / points[:, 2] + 70, atol=1e-3)
    np.testing.assert_allclose(v, 80 * points[:, 1] / points[:, 2] + 50, atol=1e-3)
    assert (np.abs(clip[:, 2] / clip[:, 3]) < 1).all()


# Mouse and keys


@pytest.mark.parametrize(
    ("key", "axis", "sign"),
    [("w", "forward", 1), ("s", "forward", -1), ("d", "right", 1), ("a", "right", -1), ("e", "up", 1), ("q", "up", -1)],
)
def test_each_flying_key_moves_the_camera_and_the_picture(viewer: Harness, key: str, axis: str, sign: int) -> None:
    rig = viewer.app.state.camera
    start, before = rig.position.copy(), viewer.pixels()
    over_scene(viewer, lambda c: c.key_hold(int(getattr(viewer.imgui.Key, key)), 0.3))
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

        over_scene(viewer, fly)
        viewer.settle()
        ways.append(float(np.linalg.norm(viewer.app.state.camera.position - viewer.app.home.position)))
    assert ways[1] > 2 * ways[0] > 6 * ways[2] > 0


def test_dragging_with_each_button_orbits_looks_and_pans(viewer: Harness) -> None:
    rig, buttons = viewer.app.state.camera, viewer.imgui.MouseButton_
    start = rig.copy()
    over_scene(viewer, lambda c: c.mouse_drag_with_delta((60, 20), buttons.right.value))
    np.testing.assert_array_equal(rig.position, start.position)
    assert rig.yaw < start.yaw - 0.05
    assert rig.pitch < start.pitch - 0.02
    rig.yaw, rig.pitch = start.yaw, start.pitch
    viewer.settle()
    over_scene(viewer, lambda c: c.mouse_drag_with_delta((60, 20), buttons.middle.value))
    assert (rig.yaw, rig.pitch) == (start.yaw, start.pitch)
    assert np.linalg.norm(rig.position - start.position) > 0.1
    rig.position = start.position.copy()
    viewer.settle()
    over_scene(viewer, lambda c: c.mouse_drag_with_delta((60, 20), buttons.left.value))
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

    over_scene(viewer, pan)
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
    over_scene(viewer, lambda c: c.mouse_wheel_y(3))
    assert np.linalg.norm(rig.position - [4.0, 4.0, 1.5]) < 0.9 * start
    assert viewer.app.state.speed == 1.0

    def look(context: Any) -> None:
        context.mouse_down(1)
        context.mouse_wheel_y(2)
        context.mouse_up(1)

    over_scene(viewer, look)
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
        press(viewer, getattr(key, f"f{number}"))
        assert state.view_mode == mode
    press(viewer, key.m)
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
        press(viewer, *keys)
        assert getattr(state, name) == expected, name
    assert not viewer.window.should_close


def test_the_question_mark_lists_the_keys(viewer: Harness) -> None:
    before = viewer.screen()
    over_scene(viewer, lambda c: c.key_chars("?"))
    assert viewer.app.state.show_help
    assert changed(before, viewer.screen()) > 0.2
    viewer.run(lambda c: c.window_close("//###keys"))
    assert not viewer.app.state.show_help


def test_tab_hides_the_panels_and_the_scene_takes_their_place(viewer: Harness) -> None:
    width = viewer.app.scene_size[0]
    press(viewer, viewer.imgui.Key.tab)
    viewer.frame(2)
    assert viewer.app.scene_size == viewer.window.framebuffer_size
    press(viewer, viewer.imgui.Key.tab)
    viewer.frame(2)
    assert viewer.app.scene_size[0] == width
    assert not viewer.imgui.get_io().want_text_input


def test_bookmark_and_home_keys(viewer: Harness) -> None:
    rig, key, ctrl = viewer.app.state.camera, viewer.imgui.Key, viewer.imgui.Key.mod_ctrl
    rig.turn(0.3, 0.0)
    pose = rig.c2w
    press(viewer, ctrl, key._4)
    press(viewer, key.h)
    viewer.settle()
    assert viewer.app.home is not None
    np.testing.assert_allclose(viewer.app.state.camera.c2w, viewer.app.home.c2w, atol=1e-9)
    press(viewer, key._4)
    viewer.settle()
    np.testing.assert_allclose(viewer.app.state.camera.c2w, pose, atol=1e-9)
    press(viewer, key._5)
    assert "empty" in viewer.app.notices.current()[-1].text


def test_the_default_layout_can_be_had_again(viewer: Harness) -> None:
    width = viewer.app.scene_size[0]
    viewer.app.layout.reset()
    press(viewer, viewer.imgui.Key.mod_ctrl, viewer.imgui.Key.l)
    viewer.frame(3)
    assert viewer.app.scene_size[0] == width


# Files


def test_a_screenshot_holds_the_picture_and_a_camera_that_other_commands_read(
    viewer: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    viewer.app.state.max_frames = 1  # the first whole picture is also the last
    viewer.settle()
    press(viewer, viewer.imgui.Key.f12)
    press(viewer, viewer.imgui.Key.p)
    picture = viewer.pixels()
    assert "infnerf-0002.png" in viewer.app.notices.current()[-1].text
    with Image.open("infnerf-0001.png") as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    (tmp_path / "camera.json").write_text(read_metadata("infnerf-0001.png")["camera"])
    camera = read_camera(tmp_path / "camera.json")
    np.testing.assert_allclose(camera.c2w, viewer.app.state.camera.c2w)
    assert (camera.height, camera.width) == picture.shape[:2]


def test_a_screenshot_into_a_folder_that_is_gone_is_said(
    viewer: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module.Path, "cwd", classmethod(lambda _: tmp_path / "missing"))
    viewer.app.screenshot()
    viewer.settle()
    assert "could not be saved" in viewer.app.notices.current()[-1].text


def test_the_window_itself_can_be_captured(viewer: Harness, tmp_path: Path) -> None:
    viewer.app.capture_window(tmp_path / "window.png")
    viewer.frame()
    with Image.open(tmp_path / "window.png") as image:
        assert image.size == viewer.window.framebuffer_size
        assert np.asarray(image).std() > 10


def test_a_dropped_file_is_opened_and_a_bad_one_leaves_the_scene(viewer: Harness) -> None:
    viewer.window.dropped.append(Path("dropped.pth"))
    assert viewer.app.news()
    viewer.settle()
    scene = viewer.app.scene
    assert scene is not None
    assert scene.path.name == "dropped.pth"
    before = viewer.pixels()
    viewer.window.dropped += [Path("bad.pth")]
    viewer.settle()
    assert viewer.app.scene is scene
    assert "expected a checkpoint" in viewer.app.notices.current()[-1].text
    np.testing.assert_array_equal(viewer.pixels(), before)


def test_the_window_goes_on_while_a_scene_loads_and_the_newest_wins(viewer: Harness) -> None:
    gate = threading.Event()
    opener, made = viewer.app.session.opener, []

    def slow(path: Path, executor: str) -> Any:
        assert gate.wait(30)
        made.append(opener(path, executor))
        return made[-1]

    viewer.app.session.opener = slow
    try:
        viewer.app.open("first.pth")
        viewer.app.open("second.pth")
        viewer.frame(5)  # would hang if a frame waited for the opener
        assert viewer.app.session.loading == "second.pth"
        gate.set()
        viewer.settle()
    finally:
        viewer.app.session.opener = opener
        gate.set()
    assert viewer.app.session.loading == ""
    assert viewer.app.scene is made[1]
    assert made[0].executor.closed


def test_a_real_checkpoint_is_shown_as_headless_work_shows_it(viewer: Harness, tiny_checkpoint: Path) -> None:
    from infnerf.renderer.offline import open_scene
    from infnerf.viewer.scene import open_checkpoint

    app, opener = viewer.app, viewer.app.session.opener
    app.session.opener = open_checkpoint
    app.state.resolution = 0.25
    try:
        app.open(tiny_checkpoint)
        pixels = viewer.pixels()
        snapshot, scene = app.picture.snapshot, app.scene
        assert snapshot is not None
        assert scene is not None
        assert scene.memory_bytes == scene.node_bytes * scene.model.octree.n_nodes
        camera = snapshot.view.camera.resized(snapshot.width, snapshot.height)
        with open_scene(tiny_checkpoint, scene.executor.name) as headless:
            buffers, _ = headless.render(camera, samples=app.state.max_frames)
            expected = headless.picture(buffers)
        assert np.abs(pixels.astype(int) - expected).max() <= 1
    finally:
        app.session.opener, app.state.resolution = opener, QUICK["resolution"]
        app.open("scene.pth")
        viewer.settle()


# Faults and rest


def test_an_executor_that_fails_is_said_and_the_window_goes_on(viewer: Harness) -> None:
    assert viewer.app.scene is not None
    executor = viewer.app.scene.executor
    assert isinstance(executor, AnalyticExecutor)
    executor.fail = RuntimeError("the graphics card fell out")
    viewer.app.state.camera.turn(0.1, 0)
    viewer.settle()
    assert "the graphics card fell out" in viewer.app.notices.current()[-1].text
    executor.fail = None
    before = viewer.app.read_scene_pixels()
    viewer.app.state.camera.turn(0.2, 0)
    assert changed(before, viewer.pixels()) > 0.05


def test_a_panel_that_fails_is_said_and_the_others_are_drawn(viewer: Harness) -> None:
    def broken(_: Any) -> None:
        viewer.imgui.begin_table("##left open", 2)
        raise KeyError("gone")

    statistics = viewer.app.panels["Statistics"]
    viewer.app.panels["Statistics"] = broken
    try:
        viewer.frame(3)
    finally:
        viewer.app.panels["Statistics"] = statistics
    assert "The panel Statistics failed" in viewer.app.notices.current()[-1].text
    viewer.frame(3)
    assert viewer.screen().std() > 10


def test_a_viewer_at_rest_draws_nothing_and_wakes_for_news(viewer: Harness) -> None:
    app = viewer.app
    viewer.settle()
    assert not app.news()
    drawn, waits = [], []
    frame, wait = app.frame, viewer.window.wait
    app.frame = lambda render_ui=None: (drawn.append(1), frame(viewer._render))[1]

    def waited(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            app.notices.add("news")
            viewer.window.activity = 1
        if len(waits) > 5:
            viewer.window.request_close()

    viewer.window.wait = waited
    try:
        app.run()
    finally:
        del app.frame
        viewer.window.wait = wait
        viewer.glfw_open()
    assert min(waits[:2]) > 60  # nothing to do: sleeps until an event comes
    assert len(drawn) <= 2
    assert waits[3] < 10  # the message has to go away again
