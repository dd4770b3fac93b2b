"""Camera paths through key frames: poses computed by hand, smoothness, constant speed, loops."""

from __future__ import annotations

import numpy as np
import pytest

from infnerf.models.camera import look_at
from infnerf.renderer import quaternions
from infnerf.renderer.key_path import KeyFrame, KeyPath


def pose(position: tuple[float, ...], yaw: float = 0.0) -> np.ndarray:
    c, s = np.cos(yaw), np.sin(yaw)
    c2w = np.eye(4)
    c2w[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    c2w[:3, 3] = position
    return c2w


def yaw_of(c2w: np.ndarray) -> float:
    return float(np.arctan2(c2w[0, 2], c2w[2, 2]))


def rotations(n: int, seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, 3, 3)))
    return q * np.sign(np.linalg.det(q))[:, None, None]


def test_quaternions_go_there_and_back() -> None:
    turns = rotations(200, 0)
    half_turns = np.stack([np.diag(d) for d in ([1.0, -1, -1], [-1.0, 1, -1], [-1.0, -1, 1])])
    for matrices in (turns, half_turns):
        np.testing.assert_allclose(quaternions.to_matrix(quaternions.from_matrix(matrices)), matrices, atol=1e-12)
    a, b = quaternions.from_matrix(turns[:100]), quaternions.from_matrix(turns[100:])
    np.testing.assert_allclose(quaternions.to_matrix(quaternions.product(a, b)), turns[:100] @ turns[100:], atol=1e-12)
    np.testing.assert_allclose(quaternions.exponential(quaternions.logarithm(a)), a, atol=1e-12)


def test_slerp_by_hand() -> None:
    quarter = quaternions.from_matrix(pose((0, 0, 0), np.pi / 2)[:3, :3])
    third = quaternions.slerp(np.array([1.0, 0, 0, 0]), quarter, 1 / 3)
    np.testing.assert_allclose(quaternions.to_matrix(third), pose((0, 0, 0), np.pi / 6)[:3, :3], atol=1e-12)


def test_a_path_passes_its_keys() -> None:
    turns = rotations(5, 1)
    keys = []
    for i, turn in enumerate(turns):
        c2w = np.eye(4)
        c2w[:3, :3], c2w[:3, 3] = turn, np.random.default_rng(i).normal(size=3)
        keys.append(KeyFrame(c2w, fov_y=30 + 5 * i, seconds=0.5 + i, lod_bias=i / 4, view=f"mode {i}"))
    for loop in (False, True):
        path = KeyPath(keys, loop=loop)
        assert path.duration == 12.0 + 0.5 * loop
        for key, seconds in zip(keys, (0.0, 1.5, 4.0, 7.5, 12.0), strict=True):
            c2w, fov_y, lod_bias, view = path.at(seconds)
            np.testing.assert_allclose(c2w, key.c2w, atol=1e-9)
            assert (round(fov_y, 9), round(lod_bias, 9), view) == (key.fov_y, key.lod_bias, key.view)


def test_two_keys_are_joined_by_a_straight_line_and_one_turn() -> None:
    path = KeyPath([KeyFrame(pose((1, 0, 0))), KeyFrame(pose((3, 4, 0), 1.0), seconds=4)])
    for u in (0.25, 0.5, 0.8):
        c2w = path.at(4 * u)[0]
        np.testing.assert_allclose(c2w[:3, 3], [1 + 2 * u, 4 * u, 0], atol=1e-12)
        assert yaw_of(c2w) == pytest.approx(u, abs=1e-12)


def test_catmull_rom_by_hand() -> None:
    """Equal chords make equal knots: the textbook's matrix form, (-p0 + 9 p1 + 9 p2 - p3) / 16 in the middle."""
    points = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 0)]
    path = KeyPath([KeyFrame(pose(p)) for p in points])
    middle = path.at(1.5)[0][:3, 3]
    np.testing.assert_allclose(middle, (-1 * np.array(points[0]) + 9 * np.array(points[1])
                                        + 9 * np.array(points[2]) - np.array(points[3])) / 16, atol=1e-12)  # fmt: skip


def test_a_steady_turn_stays_steady() -> None:
    path = KeyPath([KeyFrame(pose((0, 0, 0), 0.5 * i)) for i in range(6)])
    for seconds in np.linspace(1, 4, 31):  # away from the ends
        assert yaw_of(path.at(seconds)[0]) == pytest.approx(0.5 * seconds, abs=1e-9)


def test_positions_and_turns_have_no_corner_at_a_key() -> None:
    rng = np.random.default_rng(3)
    keys = [KeyFrame(look_at(rng.normal(size=3) * 3, np.zeros(3), np.array([0, 0, 1.0]))) for _ in range(6)]
    for loop in (False, True):
        path, h = KeyPath(keys, loop=loop), 1e-6
        inner = range(6) if loop else range(1, 5)
        for k in inner:
            t = k or path.duration
            before = (path.at(t)[0] - path.at(t - h)[0]) / h
            after = (path.at((t + h) % path.duration)[0] - path.at(t)[0]) / h
            a, b = before[:3].ravel(), after[:3].ravel()
            # Keys in equal times: the direction is the same on both sides, of position and rotation together.
            assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 1 - 1e-6


@pytest.mark.parametrize("loop", [False, True])
def test_constant_speed_takes_equal_ways_in_equal_times(loop: bool) -> None:
    points = [(0, 0, 0), (0.2, 0, 0), (4, 1, 0), (4.1, 3, 1), (0, 4, 0)]
    keys = [KeyFrame(pose(p, 0.3 * i), seconds=1 + i % 2) for i, p in enumerate(points)]
    path = KeyPath(keys, loop=loop, constant_speed=True)
    uneven = [shot.camera.position for shot in KeyPath(keys, loop=loop).shots(400, 64, 48)]
    before = np.linalg.norm(np.diff(uneven, axis=0), axis=1)
    assert before.max() / before.min() > 10
    still = [KeyFrame(pose(p), seconds=key.seconds) for p, key in zip(points, keys, strict=True)]
    positions = [shot.camera.position for shot in KeyPath(still, loop=loop, constant_speed=True).shots(400, 64, 48)]
    ways = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    assert ways.max() / ways.min() < 1.03
    assert path.duration == KeyPath(keys, loop=loop).duration


def test_a_pan_on_the_spot_takes_its_time() -> None:
    keys = [KeyFrame(pose((1, 2, 3), yaw)) for yaw in (0.0, 0.1, 1.0)]
    path = KeyPath(keys, constant_speed=True)
    yaws = [yaw_of(shot.camera.c2w) for shot in path.shots(51, 64, 48)]
    steps = np.diff(yaws)
    assert steps.max() / steps.min() < 1.05
    np.testing.assert_allclose(path.at(0.7)[0][:3, 3], [1, 2, 3])


def test_a_loop_comes_back_without_showing_its_first_frame_twice() -> None:
    keys = [KeyFrame(pose((np.cos(a), np.sin(a), 0))) for a in (0, 1.2, 2.5, 3.8, 5)]
    path = KeyPath(keys, loop=True, fps=10)
    shots = path.shots(path.n_frames, 64, 48)
    assert (path.duration, path.n_frames) == (5.0, 50)
    np.testing.assert_allclose(shots[0].camera.position, keys[0].c2w[:3, 3], atol=1e-12)
    steps = np.linalg.norm(np.diff([s.camera.position for s in [*shots, shots[0]]], axis=0), axis=1)
    assert steps.max() < 2 * steps.min()
    assert KeyPath(keys, fps=10).n_frames == 41


def test_a_lens_changes_between_its_keys_only() -> None:
    keys = [KeyFrame(pose((i, 0, 0)), fov_y=fov) for i, fov in enumerate((20, 90, 90, 20))]
    fovs = [KeyPath(keys).at(t)[1] for t in np.linspace(0, 3, 61)]
    assert max(fovs) <= 90 + 1e-9
    assert min(fovs) >= 20 - 1e-9
    assert fovs[30] == pytest.approx(90)


def test_few_and_equal_keys() -> None:
    one = KeyPath([KeyFrame(pose((1, 2, 3)))])
    assert (one.duration, one.n_frames) == (0.0, 1)
    assert [shot.camera.position.tolist() for shot in one.shots(2, 8, 8)] == [[1, 2, 3]] * 2
    same = KeyPath([KeyFrame(pose((1, 2, 3)))] * 3, constant_speed=True)
    assert np.isfinite(same.at(0.7)[0]).all()
    doubled = KeyPath([KeyFrame(pose(p)) for p in ((0, 0, 0), (1, 0, 0), (1, 0, 0), (2, 0, 0))])
    np.testing.assert_allclose(doubled.at(1.5)[0][:3, 3], [1, 0, 0], atol=1e-12)
    for wrong in (KeyPath().shots, one.shots):
        with pytest.raises(ValueError, match="at least"):
            wrong(0, 8, 8)
    with pytest.raises(ValueError, match="at least one key frame"):
        KeyPath().at(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"c2w": np.diag([2.0, 2, 2, 1])}, "must be a rotation and a translation"),
        ({"c2w": np.full((4, 4), np.nan)}, "must be finite"),
        ({"fov_y": 0.0}, "fov_y must be from 0.1 to 175, got 0"),
        ({"seconds": float("nan")}, "seconds must be from 0.001 to 100000, got nan"),
        ({"lod_bias": 99.0}, "lod_bias must be from -16 to 16, got 99"),
    ],
)
def test_bad_keys_are_refused_in_a_sentence(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KeyFrame(**({"c2w": np.eye(4)} | change))
