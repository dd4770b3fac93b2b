"""Camera paths on disk: nerfstudio's JSON, which is ours too, and others' that are read.

| file | what is read |
| --- | --- |
| nerfstudio's camera path | `keyframes` (else every pose of `camera_path`), `is_cycle`, `fps`, times, OpenGL axes |
| instant-ngp's | `path` [{`R` (x, y, z, w), `T`, `fov`}], in its own coordinates (`NGP_SCALE`, ...) |
| `transforms.json` | every frame's `transform_matrix`, OpenGL axes, in the file's order |
| text | a pose of 16 (or 12) numbers a line, OpenCV axes unless a line `# opengl` stands before |

Poses in files are in the capture's own coordinates; `to_scene` [4, 4] takes them to the scene's, as a checkpoint's
`scene["transform"]` says. A path that nerfstudio saved is in nerfstudio's own: where its `dataparser_transforms.json`
lies beside it, that is undone. What nerfstudio has no word for is kept under the key `infnerf`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.camera import OPENGL_FLIP
from ..models.similarity import inverse, move_pose
from .cliutil import CommandError, whole_file
from .key_path import Array, KeyFrame, KeyPath, Shot
from .quaternions import to_matrix

NGP_SCALE, NGP_OFFSET = 0.33, 0.5  # instant-ngp's defaults: its position is the scene's times scale, plus offset
NGP_AXES = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # scene axes x, y, z from instant-ngp's (y, z, x)
MAX_BYTES = 64 << 20  # of a path's file
MAX_POSES = 100_000
_FOV, _FPS = 50.0, 30.0  # degrees and frames a second where a file tells none


def read_path(path: Path, to_scene: NDArray[np.float64] | None = None) -> KeyPath:
    """The camera path of a file, in the scene's coordinates (see the module's header).

    Raises `CommandError`: one sentence that names the file, the key, what was expected and what was found.
    """
    text = _text(path)
    try:
        result = _from_json(path, text) if text.lstrip()[:1] in ("{", "[") else _from_lines(text)
    except ValueError as error:
        raise CommandError(f"{path}: {error}") from None
    place = np.eye(4) if to_scene is None else to_scene
    result.keys = [replace(key, c2w=move_pose(place, key.c2w)) for key in result.keys]
    return result


def write_path(
    out: Path, path: KeyPath, width: int, height: int, to_scene: NDArray[np.float64] | None = None, n_frames: int = 0
) -> None:
    """Writes nerfstudio's JSON, whole or not at all: key frames, and `n_frames` interpolated poses (0: as `fps` says).

    Raises `CommandError` if the file can't be written, `ValueError` for a path without keys.
    """
    back = np.eye(4) if to_scene is None else inverse(to_scene)
    shots = path.shots(n_frames or path.n_frames, width, height)
    aspect = width / height

    def flat(c2w: Array) -> list[float]:
        return (move_pose(back, c2w) @ OPENGL_FLIP).ravel().tolist()

    keys = [
        {
            "matrix": flat(key.c2w),
            "fov": key.fov_y,
            "aspect": aspect,
            "override_transition_enabled": True,
            "override_transition_sec": key.seconds,
            "infnerf": {"lod_bias": key.lod_bias, "view": key.view},
        }
        for key in path.keys
    ]
    values = {
        "default_fov": path.keys[0].fov_y,
        "default_transition_sec": path.keys[-1].seconds,
        "keyframes": keys,
        "camera_type": "perspective",
        "render_height": height,
        "render_width": width,
        "fps": path.fps,
        "seconds": path.duration,
        "is_cycle": path.loop,
        "smoothness_value": 0.0,
        "camera_path": [
            {"camera_to_world": flat(shot.camera.c2w), "fov": shot.camera.fov_y, "aspect": aspect} for shot in shots
        ],
        "infnerf": {"axes": "opengl", "world": "capture", "constant_speed": path.constant_speed},
    }
    with whole_file(out) as temporary:
        temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")


def write_poses(
    out: Path, shots: Sequence[Shot], axes: str = "opencv", to_scene: NDArray[np.float64] | None = None
) -> None:
    """Writes every pose as a line of 16 numbers, row by row, under a line that states the axes and the coordinates.

    `axes`: "opencv" (+x right, +y down, +z forward) or "opengl" (+y up, -z forward). Raises `ValueError` for another
    word, `CommandError` if the file can't be written.
    """
    if axes not in ("opencv", "opengl"):
        raise ValueError(f"axes must be opencv or opengl, got {axes!r}")
    back = np.eye(4) if to_scene is None else inverse(to_scene)
    flip = np.eye(4) if axes == "opencv" else OPENGL_FLIP
    lines = [f"# {axes}", "# camera to world, 16 numbers a line, row by row, in the capture's coordinates"]
    poses = [move_pose(back, shot.camera.c2w) @ flip for shot in shots]
    lines += [" ".join(f"{x:.12g}" for x in pose.ravel()) for pose in poses]
    with whole_file(out) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise CommandError(f"{path}: no such camera path")
        if path.stat().st_size > MAX_BYTES:
            raise CommandError(f"{path}: a camera path must have at most {MAX_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CommandError(f"{path}: expected a camera path (JSON or lines of numbers), found no text") from None
    except OSError as error:
        raise CommandError(f"{path}: the camera path can't be read: {error.strerror}") from error


def _from_json(path: Path, text: str) -> KeyPath:
    """By the keys that it has. Raises `ValueError`."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON: {error}") from None
    if isinstance(values, dict) and ("keyframes" in values or "camera_path" in values):
        return _from_nerfstudio(path, values)
    if isinstance(values, dict) and "path" in values:
        return _from_ngp(values)
    if isinstance(values, dict) and "frames" in values:
        return _from_transforms(values)
    raise ValueError(
        "expected a camera path with the key keyframes or camera_path (nerfstudio), path (instant-ngp) or frames "
        "(transforms.json), found none of them"
    )


def _from_nerfstudio(path: Path, values: dict[str, Any]) -> KeyPath:
    own = _own(values)
    entries, name = _entries(values, "keyframes"), "keyframes"
    fps = _number(values, "fps", _FPS, 1e-3, 1000)
    if not entries:
        entries, name = _entries(values, "camera_path"), "camera_path"
    if not entries:
        raise ValueError("expected keyframes or camera_path to hold a pose, found both empty")
    loop = values.get("is_cycle") is True
    ways = len(entries) - (not loop)
    each = _number(values, "seconds", ways / fps, 0, 1e6) / max(ways, 1)
    each = _number(values, "default_transition_sec", each, 0, 1e5) if name == "keyframes" else each
    place = np.eye(4) if own.get("world") == "capture" else _dataparser(path)
    keys = []
    for i, entry in enumerate(entries):
        where = f"{name}[{i}]"
        pose = _gl_pose(entry.get("matrix" if name == "keyframes" else "camera_to_world"), where)
        more = _own(entry)
        seconds = each
        if entry.get("override_transition_enabled") is True:
            seconds = _number(entry, "override_transition_sec", each, 0, 1e5)
        fov = _number(entry, "fov", _number(values, "default_fov", _FOV, 0.1, 175), 0.1, 175)
        bias, view = _number(more, "lod_bias", 0, -16, 16), more.get("view", "")
        keys.append(
            KeyFrame(move_pose(place, pose), fov, max(seconds, 1e-3), bias, view if isinstance(view, str) else "")
        )
    return KeyPath(keys, loop, own.get("constant_speed") is True, fps)


def _own(values: dict[str, Any]) -> dict[str, Any]:
    """What only we write."""
    own = values.get("infnerf")
    return own if isinstance(own, dict) else {}


def _dataparser(path: Path) -> Array:
    """From nerfstudio's coordinates to the capture's, by the file that it writes beside a run's config."""
    file = path.parent / "dataparser_transforms.json"
    if not file.is_file():
        return np.eye(4)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        transform = np.vstack([np.array(values["transform"], np.float64)[:3], [0, 0, 0, 1]])
        transform[:3] *= float(values["scale"])
        result = inverse(transform)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, IndexError, np.linalg.LinAlgError):
        result = np.full((4, 4), np.nan)
    if not np.isfinite(result).all():
        raise ValueError(f"expected {file.name} beside it to hold transform [3, 4] and scale, found something else")
    return result


def _from_ngp(values: dict[str, Any]) -> KeyPath:
    """instant-ngp's key frames; its quaternions turn cameras that look along +z with y down, like ours."""
    keys, entries = [], _entries(values, "path")
    if not entries:
        raise ValueError("expected path to hold a key frame, found none")
    loop = values.get("loop") is True
    duration = _number(values, "duration_seconds", float(len(entries)), 1e-3, 1e6)
    each = duration / max(len(entries) - (not loop), 1)
    for i, entry in enumerate(entries):
        q, t = _array(entry.get("R"), f"path[{i}].R", (4,)), _array(entry.get("T"), f"path[{i}].T", (3,))
        if not np.linalg.norm(q) > 1e-6:
            raise ValueError(f"path[{i}].R: expected a quaternion, found zeros")
        x, y, z, w = q / np.linalg.norm(q)
        pose = np.eye(4)
        pose[:3, :3] = NGP_AXES @ to_matrix(np.array([w, x, y, z]))
        pose[:3, 3] = NGP_AXES @ ((t - NGP_OFFSET) / NGP_SCALE)
        keys.append(KeyFrame(pose, _number(entry, "fov", _FOV, 0.1, 175), max(each, 1e-3)))
    return KeyPath(keys, loop)


def _from_transforms(values: dict[str, Any]) -> KeyPath:
    entries = _entries(values, "frames")
    if not entries:
        raise ValueError("expected frames to hold a pose, found none")
    place = np.eye(4)
    if "applied_transform" in values:
        applied = np.eye(4)
        applied[:3] = _array(values["applied_transform"], "applied_transform", (3, 4), (4, 4))[:3]
        if abs(np.linalg.det(applied[:3, :3])) < 1e-12:
            raise ValueError("applied_transform: expected a similarity, found a singular matrix")
        place = np.linalg.inv(applied)
    keys = []
    for i, entry in enumerate(entries):
        pose = place @ _gl_pose(entry.get("transform_matrix"), f"frames[{i}]")
        keys.append(KeyFrame(pose, _fov_of(entry, values)))
    return KeyPath(keys)


def _fov_of(entry: dict[str, Any], values: dict[str, Any]) -> float:
    """Vertical, in degrees: from focal length and height, or from Blender's angle, of the frame or of all."""
    for told in (entry, values):
        if "fl_y" in told and ("h" in told or "h" in values):
            focal = _number(told, "fl_y", 1, 1e-6, 1e9)
            height = _number(told if "h" in told else values, "h", 1, 1, 1e6)
            return float(np.clip(2 * math.degrees(math.atan(0.5 * height / focal)), 0.1, 175))
        if "camera_angle_y" in told:
            return float(np.clip(math.degrees(_number(told, "camera_angle_y", 1, 1e-4, 3.1)), 0.1, 175))
        if "camera_angle_x" in told:  # Blender's images are square, unless w and h say otherwise
            aspect = _number(values, "h", 1, 1, 1e6) / _number(values, "w", 1, 1, 1e6) if "w" in values else 1.0
            half = math.tan(_number(told, "camera_angle_x", 1, 1e-4, 3.1) / 2) * aspect
            return float(np.clip(2 * math.degrees(math.atan(half)), 0.1, 175))
    return _FOV


def _from_lines(text: str) -> KeyPath:
    keys, flip = [], np.eye(4)
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip().replace(",", " ")
        if line.startswith("#"):
            flip = {"opengl": OPENGL_FLIP, "opencv": np.eye(4)}.get(line.lstrip("# ").lower(), flip)
            continue
        if not line:
            continue
        try:
            numbers = [float(word) for word in line.split()]
        except ValueError:
            numbers = []
        if len(numbers) not in (12, 16):
            raise ValueError(f"line {number}: expected a pose of 16 or 12 numbers, found {line[:60]!r}")
        pose = np.vstack([np.array(numbers[:12]).reshape(3, 4), [0, 0, 0, 1]])
        keys.append(KeyFrame(_rigid(pose, f"line {number}") @ flip))
        if len(keys) > MAX_POSES:
            raise ValueError(f"expected at most {MAX_POSES} poses, found more")
    if not keys:
        raise ValueError("expected a camera path (JSON or lines of numbers), found no pose")
    return KeyPath(keys)


def _entries(values: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = values.get(key, [])
    if not isinstance(entries, list) or len(entries) > MAX_POSES:
        raise ValueError(f"{key}: expected a list of at most {MAX_POSES} poses, found {str(entries)[:60]!r}")
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"{key}[{i}]: expected an object, found {str(entry)[:60]!r}")
    return entries


def _gl_pose(value: Any, where: str) -> Array:
    """A matrix of nested or flat rows (three.js writes columns, and may write them as text) -> OpenCV axes."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"{where}: expected a 4x4 matrix, found {value[:60]!r}") from None
    matrix = _array(value, where, (4, 4), (16,), (3, 4))
    if matrix.shape == (3, 4):
        matrix = np.vstack([matrix, [0, 0, 0, 1]])
    matrix = matrix.reshape(4, 4)
    if np.abs(matrix[3, :3]).max() > 1e-9 and np.abs(matrix[:3, 3]).max() < 1e-9:
        matrix = matrix.T
    return _rigid(matrix, where) @ OPENGL_FLIP


def _rigid(matrix: Array, where: str) -> Array:
    """The pose with the nearest rotation; rounding and one scale are forgiven."""
    if not np.isfinite(matrix).all():
        raise ValueError(f"{where}: expected a pose of finite numbers, found NaN or infinity")
    u, sizes, vt = np.linalg.svd(matrix[:3, :3])
    affine = np.abs(matrix[3] - [0, 0, 0, 1]).max() <= 1e-6
    if not (affine and sizes[0] < 1.05 * sizes[2] and np.linalg.det(matrix[:3, :3]) > 0):
        raise ValueError(f"{where}: expected a pose (a rotation and a translation), found another matrix")
    pose = matrix.copy()
    pose[:3, :3] = u @ vt
    return pose


def _array(value: Any, where: str, *shapes: tuple[int, ...]) -> Array:
    try:
        result = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        result = np.empty(0)
    if result.shape not in shapes or not np.isfinite(result).all() or np.abs(result).max() > 1e12:
        expected = " or ".join("x".join(map(str, shape)) for shape in shapes)
        raise ValueError(f"{where}: expected {expected} finite numbers, found {str(value)[:60]!r}")
    return result


def _number(values: dict[str, Any], key: str, otherwise: float, low: float, high: float) -> float:
    value = values.get(key, otherwise)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{key}: expected a number from {low:g} to {high:g}, found {str(value)[:40]!r}")
    return float(value)
