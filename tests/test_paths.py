"""Camera paths: what they promise about loops, heights, up axes and where they end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infnerf.models.camera import Camera, look_at
from infnerf.models.checkpoint import camera_to_entry
from infnerf.renderer.key_path import KeyFrame, KeyPath
from infnerf.renderer.path_files import write_path
from infnerf.renderer.path_presets import PRESETS, make_shots, powers_of_ten
from infnerf.renderer.paths import SceneFrame, home_camera, orbit, spiral

CITY: dict[str, Any] = {"aabb": [[-60.0, -50.0, -1.0], [60.0, 70.0, 29.0]], "up": [0.0, 0.0, 1.0]}
UPS = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda up: np.linalg.norm(up) > 0.1)


def model(**scene: Any) -> Any:
    """Of a root of 128 m with 64 cells along its edge, three levels deep."""
    octree = SimpleNamespace(depth=3)
    return SimpleNamespace(octree=octree, scene=CITY | {"cameras": []} | scene, gsd=lambda level: 128.0 / 64 / 2**level)


def street_camera(eye: tuple[float, float, float], target: tuple[float, float, float]) -> dict[str, Any]:
    c2w = look_at(np.array(eye), np.array(target), np.array([0.0, 0.0, 1.0]))
    return camera_to_entry("street", Camera.from_fov(c2w, 60, 40, 30))


def test_an_orbit_is_a_seamless_loop() -> None:
    cameras = orbit(CITY, 36, 320, 180)
    eyes = np.stack([camera.position for camera in cameras])
    steps = np.linalg.norm(np.roll(eyes, -1, axis=0) - eyes, axis=1)  # the last one is from the end to the start
    np.testing.assert_allclose(steps, steps[0], rtol=1e-9)
    np.testing.assert_allclose(eyes[:, 2], eyes[0, 2])


@pytest.mark.parametrize("size", [(320, 180), (180, 320)])
def test_an_orbit_sees_the_middle_of_the_scene_from_outside(size: tuple[int, int]) -> None:
    frame = SceneFrame(CITY)
    for camera in orbit(CITY, 8, *size):
        assert np.linalg.norm(camera.position - frame.center) > frame.half_height
        x, y, z = np.linalg.inv(camera.c2w)[:3] @ [*frame.center, 1.0]
        column, row = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
        assert z > 0
        assert 0.3 < column / size[0] < 0.7
        assert 0.2 < row / size[1] < 0.8


def test_a_spiral_comes_down_steadily_to_the_lowest_camera() -> None:
    low = street_camera((10.0, -5.0, 1.7), (30.0, -5.0, 2.0))
    high = street_camera((0.0, 0.0, 80.0), (10.0, 0.0, 0.0))
    cameras = spiral({**CITY, "cameras": [high, low]}, 48, 320, 180)
    eyes = np.stack([camera.position for camera in cameras])
    assert (np.diff(eyes[:, 2]) <= 1e-9).all()
    np.testing.assert_allclose(eyes[-1], [10.0, -5.0, 1.7], atol=1e-9)
    np.testing.assert_allclose(cameras[-1].c2w[:3, 2], [0.999, 0.0, 0.015], atol=0.05)
    assert eyes[0, 2] > 60


def test_a_spiral_is_smooth() -> None:
    """The gaze turns little from frame to frame, and never flips at the end, where the eye stands over its target."""
    forward = np.stack([camera.c2w[:3, 2] for camera in spiral(CITY, 240, 320, 180)])
    right = np.stack([camera.c2w[:3, 0] for camera in spiral(CITY, 240, 320, 180)])
    for axis in (forward, right):
        turns = np.degrees(np.arccos(np.clip((axis[1:] * axis[:-1]).sum(axis=1), -1, 1)))
        assert turns.max() < 8


@given(up=UPS, name=st.sampled_from(sorted(PRESETS)), n=st.integers(1, 6))
def test_any_up_axis_gives_level_cameras(up: tuple[float, float, float], name: str, n: int) -> None:
    axis = np.array(up) / np.linalg.norm(up)
    level = look_at(np.array([9.0, 9, 9]), np.zeros(3), axis)
    seen = [camera_to_entry("a", Camera.from_fov(level, 60, 40, 30))]
    cameras = [shot.camera for shot in make_shots(name, model(up=up, cameras=seen), n, 64, 48)]
    assert len(cameras) == n
    for camera in cameras:
        assert abs(camera.c2w[:3, 0] @ axis) < 1e-6  # the image's horizontal is the scene's
        assert camera.c2w[:3, 1] @ axis < 1e-6  # image down is scene down


def test_home_is_the_checkpoints_own_view_with_its_field_of_view() -> None:
    saved = street_camera((1.0, 2.0, 3.0), (4.0, 2.0, 3.0))
    home = home_camera(CITY, {"camera": saved}, 400, 100)
    np.testing.assert_allclose(home.c2w, saved["c2w"])
    assert (home.width, home.height) == (400, 100)
    assert home.fov_y == pytest.approx(60)
    np.testing.assert_allclose(home_camera(CITY, {}, 64, 48).c2w, orbit(CITY, 1, 64, 48)[0].c2w)


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        ({"aabb": [[0, 0, 0], [1, 1, 0]]}, "aabb"),
        ({"aabb": [[0, 0], [1, 1]]}, "aabb"),
        ({"aabb": [[0, 0, 0], [1, 1, np.nan]]}, "aabb"),
        ({"aabb": [[0, 0, 0], [1, 1, 1]], "up": [0, 0, 0]}, "up"),
    ],
)
def test_bad_scenes_are_named(scene: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        orbit(scene, 4)


def test_bad_requests_are_named() -> None:
    with pytest.raises(ValueError, match="at least 1 frame, got 0"):
        orbit(CITY, 0)
    with pytest.raises(ValueError, match=r"spiral, powers, cameras, or a file, got 'dive'"):
        make_shots("dive", model(), 3, 4, 4)
    with pytest.raises(ValueError, match="no training cameras to go along"):
        make_shots("cameras", model(), 3, 4, 4)
    with pytest.raises(ValueError, match=r"the point must be \[3\]"):
        powers_of_ten(model(), 3, point=np.zeros(2))


def test_powers_of_ten_goes_from_the_roots_gsd_to_the_finest() -> None:
    """In the middle of the picture a pixel's cone has the radius that the level's GSD asks for."""
    point = np.array([3.0, 4.0, 1.0])
    cameras = powers_of_ten(model(), 41, 320, 180, point=point)
    t = np.array([np.linalg.norm(camera.position - point) for camera in cameras])
    radius = t * np.sqrt(1 / (np.pi * cameras[0].fx ** 2))
    np.testing.assert_allclose(radius[[0, -1]], [128.0 / 64, 128.0 / 64 / 2**3], rtol=1e-12)
    np.testing.assert_allclose(radius[1:] / radius[:-1], (1 / 8) ** (1 / 40), rtol=1e-9)  # equal factors
    for camera in cameras:
        np.testing.assert_allclose((point - camera.position) / np.linalg.norm(point - camera.position),
                                   camera.c2w[:3, 2], atol=1e-9)  # fmt: skip


def test_a_turntable_shows_the_whole_footprint() -> None:
    frame = SceneFrame(CITY)
    corners = np.array([[CITY["aabb"][b >> a & 1][a] for a in range(3)] for b in range(8)])
    for shot in make_shots("turntable", model(), 12, 320, 180):
        camera = shot.camera
        x, y, z = np.linalg.inv(camera.c2w)[:3] @ np.vstack([corners.T, np.ones(8)])
        assert (z > 0).all()
        assert (np.abs(camera.fx * x / z) <= camera.cx).all()
        assert (np.abs(camera.fy * y / z) <= camera.cy).all()
        assert (camera.position - frame.center) @ frame.up > 0


def test_along_the_cameras_passes_each_in_turn() -> None:
    eyes = np.array([(0.0, 0, 5), (10, 0, 5), (10, 10, 8), (0, 10, 5)])
    entries = [street_camera(tuple(eye), (5.0, 5.0, 0.0)) | {"name": str(i)} for i, eye in enumerate(eyes)]
    shots = make_shots("cameras", model(cameras=entries), 301, 64, 48)
    positions = np.stack([shot.camera.position for shot in shots])
    nearest = [int(np.linalg.norm(positions - eye, axis=1).argmin()) for eye in eyes]
    assert nearest == sorted(nearest)
    assert nearest[0] == 0
    assert nearest[-1] == 300
    for i, eye in zip(nearest, eyes, strict=True):
        np.testing.assert_allclose(positions[i], eye, atol=0.1)
        assert shots[i].camera.fov_y == pytest.approx(60)


def test_a_files_path_has_its_own_length(tmp_path: Path) -> None:
    place = np.diag([2.0, 2, 2, 1])
    keys = [KeyFrame(look_at(np.array([9.0, i, 4]), np.zeros(3), np.array([0, 0, 1.0])), 40, 2) for i in range(3)]
    write_path(tmp_path / "a.json", KeyPath(keys, fps=5), 64, 48, place)
    shots = make_shots(str(tmp_path / "a.json"), model(transform=place.tolist()), None, 64, 48)
    assert len(shots) == 21
    np.testing.assert_allclose(shots[10].camera.c2w, keys[1].c2w, atol=1e-9)
    assert len(make_shots(str(tmp_path / "a.json"), model(), 7, 64, 48)) == 7
