"""The program around the window: what it keeps, how it starts and ends. Each test opens windows of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gui_controls import both
from gui_harness import AnalyticOpener, Harness

from infnerf.models.checkpoint import load_checkpoint, save_checkpoint
from infnerf.models.mipnerf import MipNeRF
from infnerf.models.mipnerf_config import MipNeRFConfig
from infnerf.renderer.comparison import compose
from infnerf.viewer import app as app_module
from infnerf.viewer import launch
from infnerf.viewer.launch import run_window
from infnerf.viewer.scene import open_checkpoint
from infnerf.viewer.settings import LAYOUT, SETTINGS
from infnerf.viewer.window import Window, WindowError

pytestmark = pytest.mark.needs("gl")


def test_layout_and_settings_are_kept_and_damaged_ones_reset(tmp_path: Path) -> None:
    for damaged in (False, True):
        if damaged:
            (tmp_path / SETTINGS).write_text("{")
            (tmp_path / LAYOUT).write_text("nonsense")
        harness = Harness(tmp_path, opener=AnalyticOpener())
        try:
            harness.frame(3)
            texts = [notice.text for notice in harness.app.notices.current()]
            assert len(texts) == (2 if damaged else 0)
            harness.app.state.speed = 2.0
        finally:
            harness.close()
        assert "[Docking][Data]" in (tmp_path / LAYOUT).read_text()
    assert not (tmp_path / "imgui.ini").exists()
    again = Harness(tmp_path, opener=AnalyticOpener())
    try:
        again.frame(3)
        assert again.app.state.speed == 2.0
        assert again.app.notices.current() == []
        assert again.app.scene_size[0] < 0.8 * again.window.framebuffer_size[0]  # the panels are where they were
    finally:
        again.close()


# The program


def null_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the real program open its window where there is no display."""

    def hidden(width: int, height: int, title: str) -> Window:
        return Window(width, height, title, headless=True)

    monkeypatch.setattr(launch, "Window", hidden)


def test_the_program_refuses_a_first_checkpoint_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    null_window(monkeypatch)
    (tmp_path / "no.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="expected a checkpoint"):
        run_window([tmp_path / "no.pth"], (320, 240), use_settings=False)


def test_the_program_opens_the_checkpoints_that_open_and_tells_of_the_others(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    null_window(monkeypatch)
    (tmp_path / "no.pth").write_bytes(b"not a checkpoint")
    frame, said, names = app_module.App.frame, [], []

    def until_open(app: Any, render_ui: Any = None) -> None:
        frame(app, render_ui)
        if not app.session.loading:
            said.extend(notice.text for notice in app.notices.current() if notice.kind == "error")
            names.extend(loaded.name for loaded in app.session.loaded)
            app.window.request_close()

    monkeypatch.setattr(app_module.App, "frame", until_open)
    checkpoints = [tmp_path / "no.pth", tiny_checkpoint, tmp_path / "gone.pth"]
    assert run_window(checkpoints, (320, 240), use_settings=False, compare="wipe") == 0
    assert names == [tiny_checkpoint.name]
    assert len(said) == 2
    assert "no.pth" in said[0]
    assert "gone.pth" in said[1]


def test_the_program_ends_with_every_reason_if_no_checkpoint_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    null_window(monkeypatch)
    (tmp_path / "no.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(RuntimeError, match=r"none of 2 checkpoints.*no\.pth.*; .*gone\.pth"):
        run_window([tmp_path / "no.pth", tmp_path / "gone.pth"], (320, 240), use_settings=False)


def test_the_program_runs_until_its_window_is_closed(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    null_window(monkeypatch)
    frame = app_module.App.frame
    seen: list[np.ndarray] = []

    def until_seen(app: Any, render_ui: Any = None) -> None:
        frame(app, render_ui)
        if app.picture.snapshot is not None:
            seen.append(app.read_scene_pixels())
            app.window.request_close()

    monkeypatch.setattr(app_module.App, "frame", until_seen)
    assert run_window([tiny_checkpoint], (320, 240), view="depth", use_settings=False) == 0
    assert seen[0].std() > 1


def test_without_a_display_the_window_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WindowError, match="no window can be opened") as caught:
        Window(320, 240, "test")
    assert "\n" not in str(caught.value)


def test_missing_libraries_are_named_with_the_line_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "OpenGL.GL", None)
    with pytest.raises(WindowError, match="apt-get install"):
        Window(320, 240, "test", headless=True)


def test_real_checkpoints_of_two_kinds_are_compared(tiny_checkpoint: Path, tmp_path: Path) -> None:
    scene = load_checkpoint(tiny_checkpoint).scene
    config = MipNeRFConfig(net_depth=3, skip_layer=1, net_width=8, view_width=8, max_deg=4, num_samples=6)
    save_checkpoint(MipNeRF(config, scene={"aabb": scene["aabb"], "unit": "m"}).checkpoint(), tmp_path / "mip.pth")
    with Harness(size=(700, 320), opener=open_checkpoint) as viewer:
        app = viewer.app
        app.state.resolution = 0.25
        app.open(tiny_checkpoint, tmp_path / "mip.pth")
        app.state.compare = "side by side"
        picture = viewer.pixels()
        assert [loaded.scene.backend for loaded in app.session.loaded] == ["infnerf", "mipnerf"]
        np.testing.assert_allclose(picture.astype(int), compose("side by side", *both(viewer)), atol=1)
        first, second = (pane.figures for pane in app.comparison.shown)
        assert first is not None
        assert second is not None
        assert first.active is not None
        assert 0 < first.active < first.parameters
        assert second.active == second.parameters  # a model without nodes uses all of itself
        assert app.stage.score.value is not None
