"""`infnerf-view --follow`: the window waits for a run, and takes up each checkpoint with the view as it is."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gui_harness import Harness, changed
from test_gui_program import null_window

from infnerf.models.checkpoint import load_checkpoint, save_checkpoint
from infnerf.viewer import app as app_module
from infnerf.viewer.launch import run_window
from infnerf.viewer.scene import open_checkpoint

pytestmark = pytest.mark.needs("gl")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "city.pth"


@pytest.fixture
def following(run: Path) -> Iterator[Harness]:
    """A viewer with the real opener, which follows a run that has saved nothing yet."""
    harness = Harness(size=(480, 300), opener=open_checkpoint)
    harness.app.state.resolution = 0.25
    harness.app.follow(run)
    try:
        yield harness
    finally:
        harness.close()


def write(tiny: Path, run: Path, step: int, dimmed: float = 1.0) -> None:
    """The tiny model as the run would save it after so many steps; `dimmed` changes what its tables say."""
    checkpoint = load_checkpoint(tiny)
    field = dict(checkpoint.field) | {"tables": (checkpoint.field["tables"].float() * dimmed).half()}
    save_checkpoint(replace(checkpoint, field=field, training={"step": step}), run)


def look(viewer: Harness) -> None:
    """The follower's next look, and all that comes of it."""
    assert viewer.app.follower is not None
    viewer.app.follower.look()
    viewer.settle()


def texts(viewer: Harness) -> list[str]:
    return [notice.text for notice in viewer.app.notices.current()]


def mapped_but_replaced(path: Path) -> list[str]:
    """Files at `path` that this process still maps although another took their place."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if f"{path} (deleted)" in line]


def test_a_run_is_awaited_and_each_checkpoint_taken_up_in_the_view_of_now(
    following: Harness, run: Path, tiny_checkpoint: Path
) -> None:
    app = following.app
    following.frame(3)
    assert app.following() == "Waiting for city.pth"
    assert app.scene is None
    write(tiny_checkpoint, run, 100)
    look(following)
    assert app.scene is not None
    assert app.following() == "Following city.pth: step 100, saved just now"
    app.state.camera.turn(0.2, 0.05)
    app.state.lod_bias, app.state.max_level, app.state.view_mode = 0.5, 3, "depth"
    before, pose, old = following.pixels(), app.state.camera.c2w, weakref.ref(app.scene.model)

    write(tiny_checkpoint, run, 1200, dimmed=-1.0)
    look(following)
    assert changed(before, following.pixels()) > 0.1
    np.testing.assert_array_equal(app.state.camera.c2w, pose)
    assert (app.state.lod_bias, app.state.max_level, app.state.view_mode) == (0.5, 3, "depth")
    assert texts(following)[-1] == "Reloaded: step 1,200"
    assert app.following().startswith("Following city.pth: step 1,200, saved")

    following.run(lambda c: c.window_focus("//Scene"))  # the panel shows it
    gc.collect()
    assert old() is None
    assert mapped_but_replaced(run) == []


def test_a_file_that_is_broken_is_passed_over_until_it_changes(
    following: Harness, run: Path, tiny_checkpoint: Path
) -> None:
    app = following.app
    half = run.with_name("half")
    half.write_bytes(tiny_checkpoint.read_bytes()[:5000])
    os.replace(half, run)
    look(following)  # the window stays open, although it has nothing to show yet
    assert app.scene is None
    assert texts(following)[-1].startswith("Not readable now, tried again when it changes: ")
    write(tiny_checkpoint, run, 1)
    look(following)
    scene, before = app.scene, following.pixels()
    assert scene is not None
    half.write_bytes(b"")
    os.replace(half, run)
    look(following)
    assert app.scene is scene
    np.testing.assert_array_equal(following.pixels(), before)
    assert "an empty file" in texts(following)[-1]
    write(tiny_checkpoint, run, 2)
    look(following)
    assert app.scene is not scene
    assert app.following().startswith("Following city.pth: step 2")


def test_opening_another_file_ends_it(following: Harness, run: Path, tiny_checkpoint: Path) -> None:
    app = following.app
    write(tiny_checkpoint, run, 1)
    look(following)
    app.open(tiny_checkpoint)
    following.settle()
    assert app.follower is None
    assert app.following() == ""
    assert texts(following)[-1] == f"No longer following {run}."
    assert app.scene is not None
    assert app.scene.path == tiny_checkpoint


def test_the_program_follows_a_run_that_begins_later(
    run: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    null_window(monkeypatch)
    frame, steps, waiting = app_module.App.frame, [], []

    def scripted(app: app_module.App, render_ui: object = None) -> None:
        """Writes a checkpoint once the window waits, another once that one is shown, and closes after it."""
        frame(app)
        step = None if app.scene is None else app.scene.step
        waiting.append(app.scene is None)
        if app.following() == "Waiting for a checkpoint" and not run.exists():
            write(tiny_checkpoint, run, 5)
        if step is not None and step not in steps:
            steps.append(step)
            write(tiny_checkpoint, run, 6)
        if steps == [5, 6] or len(waiting) > 5000:
            app.window.request_close()

    monkeypatch.setattr(app_module.App, "frame", scripted)
    monkeypatch.setattr("infnerf.viewer.follow.LOOK_EVERY_S", 0.01)
    assert run_window([], (320, 240), use_settings=False, follow=run.parent) == 0
    assert steps == [5, 6]
    assert waiting[0]
