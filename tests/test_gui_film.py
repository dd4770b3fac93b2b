"""The film panel: keys, the chosen key's numbers, playing, files, and the film itself, each control by its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gui_controls import covers, pick, type_number, use
from gui_harness import Harness, changed

from infnerf.renderer.path_files import read_path
from infnerf.viewer.film import Film

pytestmark = pytest.mark.needs("gl")


@pytest.fixture
def film(viewer: Harness) -> Iterator[Film]:
    """The viewer's film, without a path."""
    made = viewer.app.film
    yield made
    made.close()
    made.__init__(viewer.app.session.worker, viewer.app.notices)
    viewer.app.session.handlers |= made.handlers


def click(viewer: Harness, control: str) -> None:
    use(viewer, "Film", lambda c: c.item_click(f"###{control}"))


def three_keys(viewer: Harness) -> list[np.ndarray]:
    """Adds a key from each of three views; the last one is chosen. Returns their poses."""
    poses = []
    for turn in (0.0, 0.3, 0.3):
        viewer.app.state.camera.turn(turn, -0.05)
        click(viewer, "film_add")
        poses.append(viewer.app.camera().c2w)
    return poses


@covers("film_add", "film_key", "film_move", "film_remove")
def test_keys_are_added_chosen_moved_and_removed(viewer: Harness, film: Film) -> None:
    poses = three_keys(viewer)
    for key, pose in zip(film.path.keys, poses, strict=True):
        np.testing.assert_allclose(key.c2w, pose, atol=1e-9)
    assert film.chosen == 2
    pick(viewer, "Film", "film_key", f"1: {film.path.keys[0].fov_y:.0f} deg")
    viewer.settle()  # the camera glides there
    np.testing.assert_allclose(viewer.app.state.camera.c2w, poses[0], atol=1e-6)
    viewer.app.state.camera.turn(-0.5, 0)
    click(viewer, "film_move")
    np.testing.assert_allclose(film.path.keys[0].c2w, viewer.app.camera().c2w, atol=1e-9)
    click(viewer, "film_remove")
    assert len(film.path.keys) == 2
    np.testing.assert_allclose(film.path.keys[0].c2w, poses[1], atol=1e-9)
    viewer.press(viewer.imgui.Key.k)
    assert len(film.path.keys) == 3


@covers("film_seconds", "film_fov", "film_bias", "film_view")
def test_the_chosen_key_has_numbers_of_its_own(viewer: Harness, film: Film) -> None:
    three_keys(viewer)
    type_number(viewer, "Film", "film_seconds", 3.5)
    type_number(viewer, "Film", "film_fov", 33)
    type_number(viewer, "Film", "film_bias", -1.5)
    pick(viewer, "Film", "film_view", "depth")
    key, other = film.path.keys[2], film.path.keys[1]
    assert (key.seconds, key.fov_y, key.lod_bias, key.view) == pytest.approx((3.5, 33, -1.5, "depth"))
    assert other.fov_y == pytest.approx(viewer.app.state.camera.fov_y)
    film.show(viewer.app.state, film.path.duration)
    state = viewer.app.state
    assert (state.camera.fov_y, state.lod_bias, state.view_mode) == (pytest.approx(33), -1.5, "depth")
    pick(viewer, "Film", "film_view", "as filmed")
    assert film.path.keys[2].view == ""


@covers("film_time", "film_play", "film_loop", "film_speed", "film_fps")
def test_moments_are_shown_and_the_path_is_played(viewer: Harness, film: Film) -> None:
    poses = three_keys(viewer)
    type_number(viewer, "Film", "film_time", 2.0)
    np.testing.assert_allclose(viewer.app.state.camera.c2w, poses[1], atol=1e-3)
    type_number(viewer, "Film", "film_time", 0.0)
    before = viewer.pixels()
    click(viewer, "film_play")
    assert film.playing
    viewer.frame(20)
    assert 0 < film.seconds < film.path.duration
    assert viewer.app.moving
    viewer.press(viewer.imgui.Key.space)
    assert not film.playing
    assert changed(before, viewer.pixels()) > 0.01
    use(viewer, "Film", lambda c: c.item_click("##film_loop"))
    assert film.path.loop
    assert film.path.duration == pytest.approx(6.0)
    use(viewer, "Film", lambda c: c.item_click("##film_speed"))
    assert film.path.constant_speed
    type_number(viewer, "Film", "film_fps", 12)
    assert film.path.n_frames == 72


def test_a_person_who_moves_takes_the_camera(viewer: Harness, film: Film) -> None:
    three_keys(viewer)
    click(viewer, "film_play")
    viewer.frame(3)
    viewer.over_scene(lambda c: c.key_down(viewer.imgui.Key.w))
    assert not film.playing
    viewer.over_scene(lambda c: c.key_up(viewer.imgui.Key.w))


@covers("film_preset")
def test_presets_bring_keys_and_the_path_is_drawn(viewer: Harness, film: Film) -> None:
    pick(viewer, "Film", "film_preset", "turntable")
    assert (len(film.path.keys), film.path.loop) == (8, True)
    film.path.keys = film.path.keys[:2]
    film.changed()
    viewer.app.state.camera.position = viewer.app.state.camera.position - 6 * viewer.app.state.camera.forward
    drawn = viewer.screen()
    film.path.keys = []
    film.changed()
    assert changed(drawn, viewer.screen()) > 0.0005
    pick(viewer, "Film", "film_preset", "cameras")
    assert film.path.keys == []
    assert any("no training cameras" in notice.text for notice in viewer.app.notices.current())


@covers("film_file", "film_save", "film_load")
def test_paths_go_to_files_and_come_back(viewer: Harness, film: Film, tmp_path: Path) -> None:
    poses, file = three_keys(viewer), tmp_path / "my path.json"
    use(viewer, "Film", lambda c: c.item_input_value("##film_file", str(file)))
    click(viewer, "film_save")
    viewer.settle()
    for key, pose in zip(read_path(file).keys, poses, strict=True):
        np.testing.assert_allclose(key.c2w, pose, atol=1e-9)
    film.path.keys = []
    film.changed()
    click(viewer, "film_load")
    viewer.settle()
    assert len(film.path.keys) == 3
    file.write_text("fly there")
    click(viewer, "film_load")
    viewer.settle()
    assert len(film.path.keys) == 3  # a bad file takes nothing away
    assert any("expected a pose of 16 or 12 numbers" in n.text for n in viewer.app.notices.current())


@covers("film_out", "film_size", "film_samples", "film_record", "film_stop")
def test_a_film_is_made_beside_the_window_and_can_be_stopped(
    on_checkpoint: Harness, film: Film, tmp_path: Path
) -> None:
    three_keys(on_checkpoint)
    film.path.fps, out = 1.0, tmp_path / "frames"
    film.edit(seconds=0.5)
    on_checkpoint.app.fields["film_size"] = "640x360"
    pick(on_checkpoint, "Film", "film_size", "640x360")
    type_number(on_checkpoint, "Film", "film_samples", 1)
    use(on_checkpoint, "Film", lambda c: c.item_input_value("##film_out", str(out)))
    click(on_checkpoint, "film_record")
    recording = film.recording
    assert recording is not None
    click(on_checkpoint, "film_record")  # disabled while one is made
    assert film.recording is recording
    recording._process.wait(120)
    on_checkpoint.settle()
    assert any("Film: wrote" in notice.text for notice in on_checkpoint.app.notices.current())
    assert len(list(out.glob("frame_*.png"))) == film.path.n_frames
    film.path.fps = 120.0
    click(on_checkpoint, "film_record")
    again = film.recording
    assert again is not None
    assert again is not recording
    click(on_checkpoint, "film_stop")
    assert not again.running
    assert not Path(again._folder.name).exists()


def test_what_cannot_be_filmed_is_said(viewer: Harness, film: Film, tmp_path: Path) -> None:
    assert viewer.app.scene is not None
    film.record(viewer.app.scene, tmp_path / "a.mp4", (64, 48), 1, "rgb")
    assert any("no path to film" in notice.text for notice in viewer.app.notices.current())
    three_keys(viewer)
    film.record(viewer.app.scene, tmp_path / "a.mp4", (64, 48), 1, "rgb")  # the analytic scene is no file
    assert film.recording is not None
    film.recording._process.wait(60)
    film.poll()
    assert any("scene.pth: no such file" in notice.text for notice in viewer.app.notices.current())
    assert list(tmp_path.iterdir()) == []
