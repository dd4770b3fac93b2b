"""Every control of every panel, clicked or typed into by name: each changes a pixel or the state.

`covers` names the controls that a test is about; the last test fails if a panel has a control that no test names.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gui_controls import COVERED, covers, pick, type_number, use
from gui_harness import Harness, changed

from infnerf.renderer.resolve import VIEW_MODES
from infnerf.viewer.panels import all_panels, widgets
from infnerf.viewer.posetext import parse_pose
from infnerf.viewer.state import EXECUTORS, limits

pytestmark = pytest.mark.needs("gl")


@covers("render_mode")
def test_every_view_mode_is_another_picture(viewer: Harness) -> None:
    seen = [viewer.pixels()]
    for mode in VIEW_MODES[1:]:
        pick(viewer, "Render", "render_mode", mode)
        assert viewer.app.state.view_mode == mode
        picture = viewer.pixels()
        assert min(changed(picture, other) for other in seen) > 0.05, mode
        seen.append(picture)


@covers("render_tint", "render_tint_strength")
def test_the_tint_lies_over_rgb_as_strongly_as_asked(viewer: Harness) -> None:
    plain = viewer.pixels().astype(int)
    pick(viewer, "Render", "render_tint", "level")
    half = viewer.pixels().astype(int)
    type_number(viewer, "Render", "render_tint_strength", 0.1)
    assert viewer.app.state.tint_strength == pytest.approx(0.1)
    weak = viewer.pixels().astype(int)
    assert np.abs(half - plain).mean() > 2 * np.abs(weak - plain).mean() > 0


@covers("render_exposure")
def test_exposure_brightens_the_scene(viewer: Harness) -> None:
    before = viewer.pixels()
    type_number(viewer, "Render", "render_exposure", 1.0)
    assert viewer.app.state.exposure == 1.0
    assert viewer.pixels().mean() > before.mean() + 3


@covers("render_own_background", "render_background")
def test_the_background_is_the_scenes_or_an_own_one(viewer: Harness) -> None:
    scene = viewer.pixels()
    use(viewer, "Render", lambda c: c.item_click("##render_own_background"))
    assert viewer.app.state.own_background
    np.testing.assert_array_equal(viewer.pixels()[0, 0], [0, 0, 0])
    use(viewer, "Render", lambda c: c.item_click("##render_own_background"))
    np.testing.assert_array_equal(viewer.pixels(), scene)
    use(viewer, "Render", lambda c: c.item_input_value("##render_background/##X", 255))
    assert viewer.app.state.own_background
    np.testing.assert_array_equal(viewer.pixels()[0, 0], [255, 0, 0])


@covers("render_legend")
def test_the_legend_comes_and_goes(viewer: Harness) -> None:
    viewer.app.state.view_mode = "level"
    shown = viewer.screen()
    use(viewer, "Render", lambda c: c.item_click("##render_legend"))
    assert not viewer.app.state.legend
    x, _, width, height = viewer.app.layout.scene_rect
    corner = np.s_[int(height) - 140 : int(height), int(x) : int(x + width / 2)]
    assert changed(shown[corner], viewer.screen()[corner]) > 0.2


@covers("render_resolution")
def test_resolution_scales_the_picture_at_rest(viewer: Harness) -> None:
    width = viewer.pixels().shape[1]
    type_number(viewer, "Render", "render_resolution", 25)
    assert viewer.app.state.resolution == 0.25
    assert viewer.pixels().shape[1] == pytest.approx(width / 2, abs=1)


@covers("render_target")
def test_the_target_time_reaches_the_renderer(viewer: Harness) -> None:
    type_number(viewer, "Render", "render_target", 75)
    assert viewer.app.state.target_frame_ms == 75
    assert viewer.app.session.renderer.target_frame_ms == 75


@covers("render_samples")
def test_samples_are_averaged(viewer: Harness) -> None:
    before = viewer.pixels()
    type_number(viewer, "Render", "render_samples", 5)
    after = viewer.pixels()
    snapshot = viewer.app.picture.snapshot
    assert snapshot is not None
    assert snapshot.accumulated == 5
    assert changed(before, after) > 0


@covers("render_executor")
def test_the_executor_is_switched_in_the_background_or_refused(
    viewer: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gui_harness import AnalyticExecutor

    from infnerf.renderer import executors

    def make(name: str, model: Any) -> tuple[AnalyticExecutor, str]:
        if name == "cpu":
            raise executors.ExecutorUnavailable("not cpu: no kernels on this machine")
        return AnalyticExecutor(model), f"asked for {name}"

    monkeypatch.setattr(executors, "make_executor", make)
    assert viewer.app.scene is not None
    old = viewer.app.scene.executor
    pick(viewer, "Render", "render_executor", "torch")
    viewer.settle()
    assert viewer.app.scene.reason == "asked for torch"
    assert isinstance(old, AnalyticExecutor)
    assert old.closed
    kept = viewer.app.scene.executor
    pick(viewer, "Render", "render_executor", "cpu")
    viewer.settle()
    assert "no kernels on this machine" in viewer.app.notices.current()[-1].text
    assert viewer.app.scene.executor is kept
    viewer.frame()
    assert viewer.app.state.executor == viewer.app.session.executor
    viewer.app.state.executor = EXECUTORS[0]
    viewer.settle()


@covers("render_ui_scale")
def test_the_interface_can_be_larger(viewer: Harness) -> None:
    paddings = []  # read while the test runs: the engine restores the style afterwards

    def enlarge(context: Any) -> None:
        paddings.append(viewer.imgui.get_style().frame_padding.x)
        context.item_input_value("##render_ui_scale", 1.5)
        context.yield_(3)
        paddings.append(viewer.imgui.get_style().frame_padding.x)

    use(viewer, "Render", enlarge)
    assert viewer.app.state.ui_scale == 1.5
    assert paddings[1] == pytest.approx(1.5 * paddings[0])


@covers("render_screenshot")
def test_the_screenshot_button_saves_the_picture(
    viewer: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    use(viewer, "Render", lambda c: c.item_click("###render_screenshot"))
    picture = viewer.pixels()
    with Image.open(tmp_path / "infnerf-0001.png") as image:
        np.testing.assert_array_equal(np.asarray(image), picture)


@covers("lod_bias")
def test_a_bias_changes_the_levels_of_the_picture(viewer: Harness) -> None:
    viewer.app.state.view_mode = "level"
    before = viewer.pixels()
    type_number(viewer, "Level of detail", "lod_bias", -1.0)
    assert viewer.app.state.lod_bias == -1.0
    assert changed(before, viewer.pixels()) > 0.1


@covers("lod_min", "lod_max")
def test_levels_are_clamped_and_the_limits_never_cross(viewer: Harness) -> None:
    state = viewer.app.state
    state.view_mode = "level"
    before = viewer.pixels()
    type_number(viewer, "Level of detail", "lod_max", 1)
    assert (state.min_level, state.max_level) == (0, 1)
    coarse = viewer.pixels()
    assert changed(before, coarse) > 0.1
    type_number(viewer, "Level of detail", "lod_min", 2)
    assert (state.min_level, state.max_level) == (2, 2)
    assert changed(coarse, viewer.pixels()) > 0.1
    type_number(viewer, "Level of detail", "lod_max", 1)
    assert (state.min_level, state.max_level) == (1, 1)


@covers("lod_step")
def test_the_step_changes_the_samples(viewer: Harness) -> None:
    viewer.app.state.view_mode = "samples"
    before = viewer.pixels()
    type_number(viewer, "Level of detail", "lod_step", 0.5)
    assert changed(before, viewer.pixels()) > 0.5


def scene_part(viewer: Harness) -> np.ndarray:
    """The window's pixels where the scene is, without the status line."""
    viewer.app.state.legend = False
    x, _, width, _ = viewer.app.layout.scene_rect
    return viewer.screen()[50:, int(x) : int(x + width)]


@covers("lod_wires", "lod_wire_min", "lod_wire_max")
def test_wires_are_drawn_for_the_levels_asked_for(viewer: Harness) -> None:
    state = viewer.app.state
    bare = scene_part(viewer)
    pick(viewer, "Level of detail", "lod_wires", "all")
    every = scene_part(viewer)
    assert changed(bare, every) > 0.02
    type_number(viewer, "Level of detail", "lod_wire_max", 1)
    few = scene_part(viewer)
    assert 0 < changed(bare, few) < changed(bare, every)
    type_number(viewer, "Level of detail", "lod_wire_min", 3)
    assert (state.wire_min, state.wire_max) == (3, 3)
    assert changed(few, scene_part(viewer)) > 0
    type_number(viewer, "Level of detail", "lod_wire_max", 2)
    assert (state.wire_min, state.wire_max) == (2, 2)
    state.wire_min, state.wire_max = 0, int(limits("wire_max")[1])
    pick(viewer, "Level of detail", "lod_wires", "in use")
    assert 0 < changed(bare, scene_part(viewer)) < changed(bare, every)


@covers("camera_position")
def test_a_position_can_be_typed(viewer: Harness) -> None:
    before = viewer.pixels()
    use(viewer, "Camera", lambda c: c.item_input_value("##camera_position/$$0", 6.5))
    assert viewer.app.state.camera.position[0] == pytest.approx(6.5)
    assert changed(before, viewer.pixels()) > 0.1


@covers("camera_fov")
def test_the_field_of_view_changes_the_picture(viewer: Harness) -> None:
    before = viewer.pixels()
    type_number(viewer, "Camera", "camera_fov", 25.0)
    assert viewer.app.state.camera.fov_y == 25.0
    assert viewer.app.camera().fov_y == pytest.approx(25.0)
    assert changed(before, viewer.pixels()) > 0.1


@covers("camera_speed", "camera_sensitivity")
def test_speed_and_sensitivity_reach_the_camera_control(viewer: Harness) -> None:
    type_number(viewer, "Camera", "camera_speed", 3.0)
    type_number(viewer, "Camera", "camera_sensitivity", 2.0)
    assert (viewer.app.state.speed, viewer.app.state.sensitivity) == (3.0, 2.0)
    viewer.frame()
    assert (viewer.app.control.speed, viewer.app.control.sensitivity) == (3.0, 2.0)


@covers("camera_home")
def test_the_home_button_goes_home(viewer: Harness) -> None:
    home = viewer.pixels()
    viewer.app.state.camera.turn(0.5, 0.1)
    assert changed(home, viewer.pixels()) > 0.1
    use(viewer, "Camera", lambda c: c.item_click("###camera_home"))
    np.testing.assert_array_equal(viewer.pixels(), home)


@covers("camera_axes", "camera_copy", "camera_paste")
def test_a_pose_is_copied_and_pasted_in_the_axes_shown(viewer: Harness) -> None:
    app, imgui = viewer.app, viewer.imgui
    home = app.state.camera.c2w
    texts = []  # the engine has a clipboard of its own while a test runs

    def copy(context: Any) -> None:
        context.item_click("###camera_copy")
        context.yield_(2)
        texts.append(imgui.get_clipboard_text())

    def paste(text: str) -> None:
        def act(context: Any) -> None:
            imgui.set_clipboard_text(text)
            context.item_click("###camera_paste")

        use(viewer, "Camera", act)

    for axes in ("OpenGL", "OpenCV"):
        pick(viewer, "Camera", "camera_axes", axes)
        use(viewer, "Camera", copy)
        np.testing.assert_allclose(parse_pose(texts[-1], axes)[0], home, atol=1e-9)
    assert "opengl" in texts[0]
    before = viewer.pixels()
    for text in texts:
        app.state.camera.turn(0.5, 0.1)
        assert changed(before, viewer.pixels()) > 0.1
        paste(text)
        np.testing.assert_allclose(app.state.camera.c2w, home, atol=1e-6)
    paste("no pose")
    assert "holds no pose" in app.notices.current()[-1].text
    np.testing.assert_allclose(app.state.camera.c2w, home, atol=1e-6)


@covers(*(f"bookmark_{slot}" for slot in range(1, 10)))
def test_bookmarks_are_stored_recalled_and_forgotten(viewer: Harness) -> None:
    app = viewer.app
    assert app.scene is not None
    poses = {}
    for slot in range(1, 10):
        app.state.camera.turn(0.05 * slot, 0.0)
        poses[slot] = app.state.camera.c2w
        use(viewer, "Camera", lambda c, slot=slot: c.item_click(f"###bookmark_{slot}"))
    assert set(app.state.bookmarks[app.scene.key]) == {str(slot) for slot in poses}
    for slot in (3, 9):
        use(viewer, "Camera", lambda c, slot=slot: c.item_click(f"###bookmark_{slot}"))
        viewer.settle()
        np.testing.assert_allclose(app.state.camera.c2w, poses[slot], atol=1e-9)
    use(viewer, "Camera", lambda c: c.item_click("###bookmark_3", viewer.imgui.MouseButton_.right.value))
    assert "3" not in app.state.bookmarks[app.scene.key]


@covers("scene_path", "scene_open")
def test_a_checkpoint_is_opened_by_its_path(viewer: Harness) -> None:
    opened = viewer.opener.opened
    before = len(opened)
    use(viewer, "Scene", lambda c: c.item_input_value("##scene_path", "other.pth"))  # ends with Enter
    viewer.settle()
    assert [path.name for path, _ in opened[before:]] == ["other.pth"]
    assert viewer.app.scene is not None
    assert viewer.app.scene.path.name == "other.pth"
    use(viewer, "Scene", lambda c: c.item_click("###scene_open"))
    viewer.settle()
    assert len(opened) == before + 2
    scene = viewer.app.scene
    viewer.app.fields["path"] = "bad.pth"
    use(viewer, "Scene", lambda c: c.item_click("###scene_open"))
    viewer.settle()
    assert "expected a checkpoint" in viewer.app.notices.current()[-1].text
    assert viewer.app.scene is scene


@covers("stats_executor", "stats_path")
def test_the_executor_and_the_path_to_the_screen_are_told_with_their_reasons(viewer: Harness) -> None:
    copied: list[str] = []  # read in the test engine, which has a clipboard of its own

    def click(context: Any) -> None:
        for control in ("stats_executor", "stats_path"):
            context.item_click(f"###{control}")
            context.yield_(2)
            copied.append(viewer.imgui.get_clipboard_text())

    use(viewer, "Statistics", click)
    assert viewer.app.scene is not None
    assert copied == [f"analytic: {viewer.app.scene.reason}", "host copy: made in host memory"]


def test_every_panel_draws_and_shows_figures_of_the_scene(viewer: Harness) -> None:
    for panel in all_panels():
        use(viewer, panel, lambda c: c.yield_(2))
    monitor = viewer.app.monitor
    assert monitor.usage is not None
    assert viewer.app.scene is not None
    assert all(0 <= a <= n for a, n in zip(monitor.usage.active, viewer.app.scene.level_counts, strict=True))
    assert sum(monitor.usage.active) > 0
    assert monitor.progress(2) == "idle, 2 of 2 samples"


def test_no_control_is_without_a_test(viewer: Harness) -> None:
    for module in ("scenes", "compare", "photographs", "inspector"):  # their tests say what they cover
        importlib.import_module(f"test_gui_{module}")
    for panel in all_panels():
        use(viewer, panel, lambda c: c.yield_(2))
    assert len(widgets.REGISTRY) > 30
    assert set(widgets.REGISTRY) <= COVERED
    only_with_a_ray = {"inspect_export", "inspect_clear"}
    assert COVERED - set(widgets.REGISTRY) <= only_with_a_ray  # nothing is covered that is gone
