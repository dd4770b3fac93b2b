"""The camera's arithmetic: level horizon, time-scaled motion, pivots and panned points that keep their place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from infnerf.models.camera import Camera
from infnerf.viewer.camera_control import GLIDE_TIME, CameraControl, Inputs
from infnerf.viewer.posetext import format_pose, in_convention, parse_pose
from infnerf.viewer.rig import MAX_PITCH, Rig, level_axes

SIZE = (640, 360)
UPS = [np.array(up) / np.linalg.norm(up) for up in ((0, 0, 1), (0, 1, 0), (0, -1, 0), (1, 0, 0), (1, 2, 3))]
angles = st.floats(-3.0, 3.0)


def nothing(x: float, y: float) -> float | None:
    return None


def project(rig: Rig, point: NDArray) -> NDArray:
    """Pixel of a world point."""
    camera = rig.camera(*SIZE)
    local = (point - camera.position) @ camera.c2w[:3, :3]
    return np.array([camera.fx * local[0] / local[2] + camera.cx, camera.fy * local[1] / local[2] + camera.cy])


def rig_at(up: NDArray, yaw: float = 0.4, pitch: float = -0.3) -> Rig:
    return Rig(np.array([1.0, -2.0, 3.0]), yaw, pitch, 0.0, 50.0, up)


@given(st.sampled_from(range(len(UPS))), angles, st.floats(-1.5, 1.5), st.floats(-3.0, 3.0))
def test_a_pose_survives_the_way_through_the_rig(up: int, yaw: float, pitch: float, roll: float) -> None:
    rig = Rig(np.array([1.0, 2, 3]), yaw, pitch, roll, 50.0, UPS[up])
    other = Rig(up=UPS[up])
    other.set_c2w(rig.c2w)
    np.testing.assert_allclose(other.c2w, rig.c2w, atol=1e-5)
    Camera(other.c2w, 1, 1, 0, 0, 1, 1)  # a rotation, right-handed


@pytest.mark.parametrize("up", UPS, ids=str)
def test_a_pose_straight_down_keeps_its_heading(up: NDArray) -> None:
    e0, e1, axis = level_axes(up)
    c2w = np.eye(4)
    c2w[:3, 0], c2w[:3, 1], c2w[:3, 2] = e0, -e1, -axis
    rig = Rig(up=up)
    rig.set_c2w(c2w)
    np.testing.assert_allclose(rig.c2w, c2w, atol=1e-6)


@pytest.mark.parametrize("up", UPS, ids=str)
def test_turning_and_orbiting_keep_the_horizon_level_even_from_a_rolled_pose(up: NDArray) -> None:
    rig = Rig(np.array([1.0, 2, 3]), 0.3, 0.2, 0.7, 50.0, up)
    assert abs(rig.right @ up) > 0.1
    rig.turn(0.2, 0.1)
    assert abs(rig.right @ up) < 1e-12
    rig.roll = 0.5
    rig.orbit(np.zeros(3), 0.3, -0.4)
    assert abs(rig.right @ up) < 1e-12
    assert -(rig.c2w[:3, 1] @ up) > 0  # the image's up is up


def test_looking_up_stops_before_the_zenith() -> None:
    rig = Rig()
    rig.turn(0.0, 10.0)
    assert rig.pitch == MAX_PITCH
    rig.orbit(np.array([5.0, 0, 0]), 0.0, -99.0)
    assert rig.pitch == pytest.approx(-MAX_PITCH)


@pytest.mark.parametrize("up", UPS, ids=str)
def test_orbiting_keeps_the_pivot_in_its_place(up: NDArray) -> None:
    rig = rig_at(up)
    pivot = rig.position + 4 * rig.forward + 0.7 * rig.right
    before = project(rig, pivot)
    rig.orbit(pivot, 0.5, -0.2)
    np.testing.assert_allclose(project(rig, pivot), before, atol=1e-6)


@pytest.mark.parametrize("up", UPS, ids=str)
@pytest.mark.parametrize("rate", [24, 60, 240])
def test_a_second_of_flight_leads_to_the_same_place_at_any_frame_rate(up: NDArray, rate: int) -> None:
    def fly(frames: int) -> NDArray:
        rig, control = rig_at(up), CameraControl(reference=3.0)
        for frame in range(2 * frames):  # a second with the keys, a second without
            move = (0.0, 0.0, 1.0) if frame < frames else (0.0, 0.0, 0.0)
            control.update(rig, Inputs(1 / frames, move), nothing, SIZE)
        return rig.position

    np.testing.assert_allclose(fly(rate), fly(1000), rtol=1e-6)


@pytest.mark.parametrize(
    ("move", "axis"),
    [((1, 0, 0), "right"), ((-1, 0, 0), "-right"), ((0, 1, 0), "up"), ((0, 0, 1), "forward"), ((0, 0, -1), "-forward")],
)
def test_each_key_moves_along_its_axis_and_the_flight_comes_to_rest(move: tuple, axis: str) -> None:
    rig, control = rig_at(UPS[0]), CameraControl()
    start = rig.position.copy()
    assert control.update(rig, Inputs(0.1, move), nothing, SIZE)
    for _ in range(200):
        still = not control.update(rig, Inputs(1 / 60), nothing, SIZE)
    assert still
    expected = getattr(rig, axis.lstrip("-")) * (-1 if axis[0] == "-" else 1)
    moved = rig.position - start
    np.testing.assert_allclose(moved / np.linalg.norm(moved), expected, atol=1e-9)


def test_speed_follows_depth_and_the_fast_and_slow_keys() -> None:
    def way(reference: float, **keys: bool) -> float:
        rig, control = Rig(), CameraControl(reference=reference)
        for _ in range(60):
            control.update(rig, Inputs(1 / 60, (0, 0, 1), **keys), nothing, SIZE)
        return float(np.linalg.norm(rig.position))

    assert way(10.0) == pytest.approx(10 * way(1.0))
    assert way(1.0, fast=True) == pytest.approx(4 * way(1.0))
    assert way(1.0, slow=True) == pytest.approx(0.2 * way(1.0))
    control = CameraControl()
    control.follow_depth(np.full((48, 64), 7.0, np.float32), 0.1)
    assert control.reference == 7.0
    control.follow_depth(np.zeros((48, 64), np.float32), 0.1)  # only sky: nothing to learn
    assert control.reference == 7.0
    control.follow_depth(np.full((48, 64), 1e-6, np.float32), 0.1)
    assert control.reference == 0.1


def test_the_wheel_sets_the_speed_in_flight_and_zooms_otherwise() -> None:
    rig, control = Rig(), CameraControl(reference=2.0)
    control.update(rig, Inputs(0.01, (0, 0, 1), wheel=2), nothing, SIZE)
    assert control.speed == pytest.approx(1.25**2)
    control.halt()
    target = rig.position + 5 * rig.forward
    control.update(rig, Inputs(0.01, cursor=(320, 180), wheel=1), lambda x, y: 5.0, SIZE)
    assert np.linalg.norm(target - rig.position) == pytest.approx(5 * 0.88)
    control.update(rig, Inputs(0.01, cursor=(320, 180), wheel=-1), lambda x, y: 5 * 0.88, SIZE)
    assert np.linalg.norm(target - rig.position) == pytest.approx(5)
    assert control.speed == pytest.approx(1.25**2)


def drag(rig: Rig, control: CameraControl, name: str, way: list[tuple[float, float]], depth: float = 4.0) -> None:
    pressed = frozenset({name})
    for cursor in way:
        control.update(
            rig, Inputs(0.01, cursor=cursor, pressed=pressed, held=frozenset({name})), lambda x, y: depth, SIZE
        )
        pressed = frozenset()
    control.update(rig, Inputs(0.01, cursor=way[-1]), nothing, SIZE)


def test_looking_turns_with_the_mouse_and_stays_in_place() -> None:
    rig, control = rig_at(UPS[0]), CameraControl()
    position, yaw, pitch = rig.position.copy(), rig.yaw, rig.pitch
    drag(rig, control, "look", [(300, 100), (400, 150)])
    np.testing.assert_array_equal(rig.position, position)
    assert yaw - rig.yaw == pytest.approx(np.radians(15))  # to the right
    assert pitch - rig.pitch == pytest.approx(np.radians(7.5))  # down
    assert not control.drag


def test_an_orbit_turns_about_the_point_under_the_cursor() -> None:
    rig, control = rig_at(UPS[0]), CameraControl()
    start = rig.c2w
    pivot = control.point_under(rig, (200.0, 120.0), lambda x, y: 4.0, SIZE)
    drag(rig, control, "orbit", [(200, 120), (260, 140), (330, 150)])
    np.testing.assert_allclose(project(rig, pivot), [200, 120], atol=1e-6)
    assert np.abs(rig.c2w - start).max() > 0.1


def test_a_pan_keeps_the_point_under_the_cursor() -> None:
    rig, control = rig_at(UPS[0]), CameraControl()
    grabbed = control.point_under(rig, (200.0, 120.0), lambda x, y: 4.0, SIZE)
    turned = rig.c2w[:3, :3].copy()
    drag(rig, control, "pan", [(200, 120), (260, 140), (330, 90)])
    np.testing.assert_allclose(project(rig, grabbed), [330, 90], atol=1e-6)
    np.testing.assert_array_equal(rig.c2w[:3, :3], turned)


def test_a_glide_ends_exactly_at_its_target_the_short_way_round_and_any_input_ends_it() -> None:
    rig, control = Rig(yaw=3.0), CameraControl()
    target = Rig(np.array([1.0, 2, 3]), -3.0, 0.2, 0.0, 35.0)
    control.go_to(rig, target)
    turns = []
    for _ in range(60):
        control.update(rig, Inputs(GLIDE_TIME / 30), nothing, SIZE)
        turns.append(rig.yaw)
    assert control.glide is None
    np.testing.assert_array_equal(rig.c2w, target.c2w)
    assert rig.fov_y == 35.0
    assert min(np.abs(turns)) > 2.9  # through pi, not through 0
    control.go_to(rig, Rig())
    control.update(rig, Inputs(0.01, (1, 0, 0)), nothing, SIZE)
    assert control.glide is None


@pytest.mark.parametrize("convention", ["OpenCV", "OpenGL"])
def test_a_pose_survives_the_clipboard(convention: str) -> None:
    camera = rig_at(UPS[0]).camera(*SIZE)
    pose, fov_y = parse_pose(format_pose(camera, convention), "OpenGL")  # JSON names its axes itself
    np.testing.assert_allclose(pose, camera.c2w, atol=1e-12)
    assert fov_y == pytest.approx(50.0)
    numbers = " ".join(map(str, in_convention(camera.c2w, convention)[:3].ravel()))
    np.testing.assert_allclose(parse_pose(numbers, convention)[0], camera.c2w, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "12 or 16 numbers"),
        ("hello world", "holds no pose"),
        ("1 2 3", "found 3"),
        ('{"pose": 1}', "has no c2w"),
        ('{"c2w": [[1, 2], [3]]}', "holds no pose"),
        ('{"c2w": null}', "holds no pose"),
        ("2 0 0 0 0 2 0 0 0 0 2 0", "scaled"),
        ("nan 0 0 0 0 1 0 0 0 0 1 0", "finite"),
        ("[" * 100_000, "holds no pose"),
    ],
)
def test_a_clipboard_without_a_pose_is_refused_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_pose(text, "OpenCV")
    assert "\n" not in str(caught.value)
