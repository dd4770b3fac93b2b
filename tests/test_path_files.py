"""Camera paths on disk: round trips, poses computed by hand, other programs' files, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infnerf.models.camera import OPENGL_FLIP, look_at
from infnerf.renderer.cliutil import CommandError
from infnerf.renderer.key_path import KeyFrame, KeyPath
from infnerf.renderer.path_files import MAX_POSES, read_path, write_path, write_poses
from infnerf.renderer.quaternions import from_matrix

#: Twice as large, a quarter turn about z, moved.
PLACE = np.array([[0, -2.0, 0, 1], [2, 0, 0, -3], [0, 0, 2, 0.5], [0, 0, 0, 1]])


def some_path(loop: bool = False) -> KeyPath:
    eyes = [(3, 0, 1), (0, 2, 2), (-4, 0, 1.5)]
    keys = [
        KeyFrame(look_at(np.array(eye, float), np.zeros(3), np.array([0, 0, 1.0])), 40 + 10 * i, 1 + i, i / 2, view)
        for i, (eye, view) in enumerate(zip(eyes, ("", "level", "rgb"), strict=True))
    ]
    return KeyPath(keys, loop, constant_speed=True, fps=12)


def assert_same(path: KeyPath, other: KeyPath) -> None:
    assert (path.loop, path.constant_speed, path.fps) == (other.loop, other.constant_speed, other.fps)
    for a, b in zip(path.keys, other.keys, strict=True):
        np.testing.assert_allclose(a.c2w, b.c2w, atol=1e-9)
        assert (a.fov_y, a.seconds, a.lod_bias, a.view) == (b.fov_y, b.seconds, b.lod_bias, b.view)


@pytest.mark.parametrize("loop", [False, True])
def test_nerfstudios_json_there_and_back(tmp_path: Path, loop: bool) -> None:
    path, file = some_path(loop), tmp_path / "path.json"
    write_path(file, path, 64, 48, PLACE)
    assert_same(read_path(file, PLACE), path)
    values = json.loads(file.read_text())
    assert len(values["camera_path"]) == path.n_frames
    shots = path.shots(path.n_frames, 64, 48)
    for shot, entry in zip(shots, values["camera_path"], strict=True):
        pose = np.array(entry["camera_to_world"]).reshape(4, 4) @ OPENGL_FLIP
        np.testing.assert_allclose(PLACE @ pose @ [0, 0, 0, 1], [*shot.camera.position, 1], atol=1e-9)
        assert entry["fov"] == pytest.approx(shot.camera.fov_y)


def test_a_pose_in_nerfstudios_json_by_hand(tmp_path: Path) -> None:
    """A camera at (1, -3, 0.5) of the scene stands at the capture's origin; OpenGL's looks along -z."""
    c2w = np.eye(4)
    c2w[:3, 3] = 1, -3, 0.5
    write_path(tmp_path / "a.json", KeyPath([KeyFrame(c2w, 60)]), 20, 10, PLACE)
    values = json.loads((tmp_path / "a.json").read_text())
    assert np.round(values["keyframes"][0]["matrix"], 9).tolist() == [
        0, -1, 0, 0,  -1, 0, 0, 0,  0, 0, -1, 0,  0, 0, 0, 1,
    ]  # fmt: skip
    assert (values["keyframes"][0]["fov"], values["keyframes"][0]["aspect"], values["default_fov"]) == (60, 2, 60)


def test_nerfstudios_own_coordinates_are_undone(tmp_path: Path) -> None:
    c2w = look_at(np.array([3.0, 1, 2]), np.zeros(3), np.array([0, 0, 1.0]))
    turn = np.array([[0.0, 1, 0, 0.5], [-1, 0, 0, 0.25], [0, 0, 1, 2]])  # the capture's to nerfstudio's, ...
    theirs = np.vstack([turn, [0, 0, 0, 1]]) @ c2w @ OPENGL_FLIP
    theirs[:3, 3] *= 0.1  # ... and a scale
    entry = {"matrix": theirs.ravel().tolist(), "fov": 70, "aspect": 1.5}
    values = {"keyframes": [entry, entry], "seconds": 4, "fps": 24, "is_cycle": False}
    (tmp_path / "cam.json").write_text(json.dumps(values))
    (tmp_path / "dataparser_transforms.json").write_text(json.dumps({"transform": turn.tolist(), "scale": 0.1}))
    path = read_path(tmp_path / "cam.json")
    np.testing.assert_allclose(path.keys[0].c2w, c2w, atol=1e-12)
    assert (path.keys[0].fov_y, path.duration, path.fps) == (70, 4, 24)


def test_older_nerfstudios_columns_as_text_and_a_path_without_key_frames(tmp_path: Path) -> None:
    c2w = look_at(np.array([3.0, 1, 2]), np.zeros(3), np.array([0, 0, 1.0]))
    columns = (c2w @ OPENGL_FLIP).T.ravel().tolist()
    (tmp_path / "a.json").write_text(json.dumps({"keyframes": [{"matrix": json.dumps(columns), "fov": 50}]}))
    np.testing.assert_allclose(read_path(tmp_path / "a.json").keys[0].c2w, c2w, atol=1e-12)
    poses = [{"camera_to_world": (c2w @ OPENGL_FLIP).tolist(), "fov": 30}] * 3
    (tmp_path / "b.json").write_text(json.dumps({"camera_path": poses, "fps": 10}))
    path = read_path(tmp_path / "b.json")
    assert (len(path.keys), path.keys[0].fov_y, path.n_frames) == (3, 30, 3)


def test_instant_ngps_path_by_hand(tmp_path: Path) -> None:
    """instant-ngp's own rule: columns y and z negated, position times 0.33 plus 0.5, rows x, y, z from y, z, x."""
    gl = look_at(np.array([3.0, 1, 2]), np.zeros(3), np.array([0, 0, 1.0])) @ OPENGL_FLIP
    ngp = gl[:3].copy()
    ngp[:, 1:3] *= -1
    ngp[:, 3] = ngp[:, 3] * 0.33 + 0.5
    ngp = ngp[[1, 2, 0]]
    w, x, y, z = from_matrix(ngp[:, :3]).tolist()
    key = {"R": [x, y, z, w], "T": ngp[:, 3].tolist(), "slice": 0, "scale": 1, "fov": 45, "aperture_size": 0}
    (tmp_path / "base_cam.json").write_text(json.dumps({"path": [key] * 3, "time": 0.5, "duration_seconds": 8}))
    path = read_path(tmp_path / "base_cam.json")
    np.testing.assert_allclose(path.keys[0].c2w, gl @ OPENGL_FLIP, atol=1e-9)
    assert (path.keys[0].fov_y, path.duration) == (45, 8)


def test_a_transforms_json_is_a_path(tmp_path: Path) -> None:
    c2w = look_at(np.array([3.0, 1, 2]), np.zeros(3), np.array([0, 0, 1.0]))
    frame: dict[str, Any] = {"transform_matrix": (c2w @ OPENGL_FLIP).tolist()}
    applied = np.array([[0.0, 1, 0, 1], [1, 0, 0, 2], [0, 0, -1, 3]])
    moved = {"transform_matrix": (np.vstack([applied, [0, 0, 0, 1]]) @ c2w @ OPENGL_FLIP).tolist()}
    for values, fov in (
        ({"frames": [frame], "fl_y": 100.0, "h": 200}, 90.0),
        ({"frames": [frame], "camera_angle_x": np.pi / 2}, 90.0),
        ({"frames": [frame], "camera_angle_x": np.pi / 2, "w": 200, "h": 100}, np.degrees(2 * np.arctan(0.5))),
        ({"frames": [moved], "applied_transform": applied.tolist()}, 50.0),
    ):
        (tmp_path / "transforms.json").write_text(json.dumps(values))
        key = read_path(tmp_path / "transforms.json").keys[0]
        np.testing.assert_allclose(key.c2w, c2w, atol=1e-12)
        assert key.fov_y == pytest.approx(fov)


@pytest.mark.parametrize("axes", ["opencv", "opengl"])
def test_poses_as_text_there_and_back(tmp_path: Path, axes: str) -> None:
    path, file = some_path(), tmp_path / "poses.txt"
    shots = path.shots(7, 32, 24)
    write_poses(file, shots, axes, PLACE)
    assert file.read_text().splitlines()[0] == f"# {axes}"
    read = read_path(file, PLACE)
    for shot, key in zip(shots, read.keys, strict=True):
        np.testing.assert_allclose(key.c2w, shot.camera.c2w, atol=1e-9)
    np.testing.assert_allclose(np.loadtxt(file)[:, [3, 7, 11]] @ PLACE[:3, :3].T + PLACE[:3, 3],
                               [shot.camera.position for shot in shots], atol=1e-9)  # fmt: skip
    with pytest.raises(ValueError, match="axes must be opencv or opengl, got 'maya'"):
        write_poses(file, shots, "maya")


EYE = np.eye(4).tolist()
BAD: dict[str, tuple[str, str]] = {
    "empty": ("", "found no pose"),
    "words": ("fly there", "line 1: expected a pose of 16 or 12 numbers, found 'fly there'"),
    "short line": ("1 2 3", "line 1: expected a pose"),
    "nan": (" ".join(["nan"] * 16), "line 1: expected a pose of finite numbers"),
    "not json": ("{", "expected JSON"),
    "list": ("[1]", "found none of them"),
    "deep": ("[" * 99999, "expected JSON"),
    "other": ('{"a": 1}', "found none of them"),
    "no keys": ('{"keyframes": []}', "found both empty"),
    "not a list": ('{"keyframes": 5}', "keyframes: expected a list"),
    "not an object": ('{"keyframes": [5]}', r"keyframes\[0\]: expected an object, found '5'"),
    "no matrix": ('{"keyframes": [{}]}', r"keyframes\[0\]: expected 4x4 or 16 or 3x4 finite numbers, found 'None'"),
    "words as matrix": ('{"keyframes": [{"matrix": "up"}]}', "expected a 4x4 matrix, found 'up'"),
    "mirror": (json.dumps({"frames": [{"transform_matrix": np.diag([1.0, 1, -1, 1]).tolist()}]}), "another matrix"),
    "fov": (json.dumps({"keyframes": [{"matrix": EYE, "fov": 400}]}), "fov: expected a number from 0.1 to 175"),
    "fps": (json.dumps({"keyframes": [{"matrix": EYE}], "fps": "many"}), "fps: expected a number"),
    "infinite": ('{"keyframes": [{"matrix": [' + ",".join(["1e999"] * 16) + "]}]}", "finite numbers"),
    "ngp": ('{"path": [{"R": [0, 0, 0, 0], "T": [0, 0, 0]}]}', "expected a quaternion, found zeros"),
    "ngp empty": ('{"path": []}', "expected path to hold a key frame"),
    "frames": ('{"frames": []}', "expected frames to hold a pose"),
    "singular": (json.dumps({"frames": [{"transform_matrix": EYE}], "applied_transform": [[0.0] * 4] * 3}), "singular"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_one_sentence(tmp_path: Path, name: str) -> None:
    text, message = BAD[name]
    file = tmp_path / "path.json"
    file.write_text(text)
    with pytest.raises(CommandError, match=message) as refusal:
        read_path(file)
    assert str(refusal.value).startswith(f"{file}: ")
    assert "\n" not in str(refusal.value)


def test_files_that_cannot_be_read_or_are_too_much(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no such camera path"):
        read_path(tmp_path / "none.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CommandError, match="found no text"):
        read_path(tmp_path / "binary")
    (tmp_path / "long.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n" * (MAX_POSES + 1))
    with pytest.raises(CommandError, match="found more"):
        read_path(tmp_path / "long.txt")
    (tmp_path / "cam.json").write_text(json.dumps({"keyframes": [{"matrix": EYE}]}))
    (tmp_path / "dataparser_transforms.json").write_text('{"transform": 1}')
    with pytest.raises(CommandError, match=r"expected dataparser_transforms\.json beside it to hold"):
        read_path(tmp_path / "cam.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["keyframes", "camera_path", "path", "frames", "matrix", "R", "T", "fov", "fps", "seconds", "is_cycle",
         "infnerf",
         "transform_matrix", "camera_to_world", "applied_transform", "fl_y", "h", "w", "camera_angle_x"]), inner,
        max_size=5),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("keyframes", "camera_path", "path", "frames", "fps", "seconds", "infnerf"), JSON)
    )
)
def test_any_json_is_a_path_or_one_sentence(tmp_path: Path, values: dict[str, Any]) -> None:
    file = tmp_path / "fuzz.json"
    file.write_text(json.dumps(values))
    try:
        path = read_path(file)
    except CommandError:
        return
    assert path.keys
    assert np.isfinite(path.at(0)[0]).all()
