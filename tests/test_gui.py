"""Files, faults and rest: what a window does between the things that a person does. No display needed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gui_harness import QUICK, AnalyticExecutor, Harness, changed
from PIL import Image

from infnerf.renderer.cliutil import read_camera
from infnerf.renderer.pngmeta import read_metadata
from infnerf.viewer import app as app_module

pytestmark = pytest.mark.needs("gl")


def test_a_screenshot_holds_the_picture_and_a_camera_that_other_commands_read(
    viewer: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    viewer.app.state.max_frames = 1  # the first whole picture is also the last
    viewer.settle()
    viewer.press(viewer.imgui.Key.f12)
    viewer.press(viewer.imgui.Key.p)
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
    from infnerf.renderer.renderer import Renderer
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
        assert scene.memory_bytes == scene.model.config.node_bytes * scene.model.octree.n_nodes
        camera = snapshot.view.camera.resized(snapshot.width, snapshot.height)
        with Renderer.from_checkpoint(tiny_checkpoint, scene.executor.name) as headless:
            expected = headless.render_image(camera, app.state.max_frames).picture()
        assert np.abs(pixels.astype(int) - expected).max() <= 1
    finally:
        app.session.opener, app.state.resolution = opener, QUICK["resolution"]
        app.open("scene.pth")
        viewer.settle()


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


@pytest.mark.parametrize("refused", [(), ("cpu",)])
def test_a_lost_device_is_said_and_the_cpu_goes_on(
    viewer: Harness, monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...]
) -> None:
    from infnerf.renderer import executors

    gate, asked = threading.Event(), []

    def make(name: str, model: Any) -> tuple[AnalyticExecutor, str]:
        asked.append(name)
        assert gate.wait(30)
        if name in refused:
            raise executors.ExecutorUnavailable(f"not {name}")
        made = AnalyticExecutor(model)
        made.name = name
        return made, f"{name}: made for tests"

    monkeypatch.setattr(executors, "make_executor", make)
    app, chosen = viewer.app, viewer.app.session.chosen
    lost = app.scene.executor
    assert isinstance(lost, AnalyticExecutor)
    before = viewer.pixels()
    lost.fail_after = 3  # calls: in mid-flight, some slices of the new picture are there
    app.state.camera.turn(0.2, 0)
    for _ in range(8):  # frames and views go on, and every call fails again
        viewer.frame()
        app.state.camera.turn(0.002, 0)
        app.session.renderer.wait_idle(0.1)
    assert lost.fail is not None
    said = [notice.text for notice in app.notices.current() if "device was lost" in notice.text]
    assert said == ["Going on with the cpu executor, the device was lost: the analytic device fell out"]
    assert asked == ["cpu"]
    assert app.scene.executor is lost
    assert app.picture.snapshot is not None  # the last picture is still drawn
    assert app.read_scene_pixels().shape[2] == 3
    gate.set()
    after = viewer.pixels()
    taken = "torch" if refused else "cpu"
    assert (app.scene.executor.name, app.state.executor, app.session.executor) == (taken, taken, taken)
    assert app.scene.reason == f"{taken}: made for tests"
    assert lost.closed
    assert changed(before, after) > 0.05
    assert app.session.chosen == chosen  # what the settings keep
    assert len([n for n in app.notices.current() if n.kind == "error"]) == 1
    app.session.executor = chosen
    viewer.open()  # an executor without our worker's wrapping, for the tests that follow


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


def test_a_chord_that_comes_at_once_is_taken_in_before_the_window_sleeps(viewer: Harness) -> None:
    io, key, app = viewer.imgui.get_io(), viewer.imgui.Key, viewer.app
    io.add_key_event(key.mod_ctrl, True)
    io.add_key_event(key.left_ctrl, True)
    viewer.frame()
    io.add_key_event(key._7, True)  # as a remote desktop sends it: the rest between two frames, Ctrl let go first
    io.add_key_event(key.mod_ctrl, False)
    io.add_key_event(key.left_ctrl, False)
    io.add_key_event(key._7, False)
    viewer.window.activity = 1
    frames = 0
    while viewer.window.activity:
        viewer.frame()
        frames += 1
    assert 1 < frames < 20
    assert app.scene is not None
    assert "7" in app.state.bookmarks[app.scene.key]
    assert not viewer.imgui.is_key_down(key._7)


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
    assert min(waits[:2]) >= 0.5  # nothing to do: sleeps, looking up twice a second for a Ctrl-C
    assert len(drawn) <= 2
    assert drawn  # the message
