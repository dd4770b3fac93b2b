"""Camera paths: what they promise about loops, heights, up axes and where they end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infnerf.models.camera import Camera, look_at
from infnerf.models.checkpoint import camera_to_entry
from infnerf.renderer.paths import PATHS, SceneFrame, home_camera, make_path, orbit, spiral

CITY: dict[str, Any] = {"aabb": [[-60.0, -50.0, -1.0], [60.0, 70.0, 29.0]], "up": [0.0, 0.0, 1.0]}
UPS = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda up: np.linalg.norm(up) > 0.1)


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


@given(up=UPS, name=st.sampled_from(sorted(PATHS)), n=st.integers(1, 6))
def test_any_up_axis_gives_level_cameras(up: tuple[float, float, float], name: str, n: int) -> None:
    cameras = make_path(name, {**CITY, "up": up}, n, 64, 48)
    axis = np.array(up) / np.linalg.norm(up)
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
    with pytest.raises(ValueError, match=r"orbit, spiral, got 'dive'"):
        make_path("dive", CITY, 3, 4, 4)
