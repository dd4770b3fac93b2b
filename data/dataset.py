"""Scenes in the InfNeRF data format.

A folder with `images/`, `cameras.json` ({image name: {"intrinsic": 3x3, "extrinsic": 4x4 world to camera, OpenCV
axes}}), `sparse_points.ply` (see `data.ply`), `scene.json` (optional: up, unit, aabb, root_corner, root_size), and
`test/images/` with `test/cameras.json` for the views that are kept out of training. Images are sRGB, alpha straight.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..models.camera import Camera
from .ply import DatasetError, PointCloud, atomic_write, read_ply

__all__ = ["Dataset", "DatasetError", "PointCloud", "camera_entry", "load_dataset", "write_cameras", "write_json"]

_SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")
_MARGIN = 0.05  # of the extent, on each side of a root cube that is made from points
_OUTLIERS = (0.5, 99.5)  # percentiles of the points that a box made from them keeps


@dataclass
class Dataset:
    """One split of a scene: `cameras[i]` saw the file `images[i]`, whose key in cameras.json is `names[i]`."""

    path: Path
    split: str
    cameras: list[Camera]
    images: list[Path]
    names: list[str]
    points: PointCloud | None
    scene: dict[str, Any]  # up [3], unit, aabb [2][3], root_corner [3], root_size
    warnings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.cameras)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    atomic_write(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode("utf-8"))


def camera_entry(camera: Camera) -> dict[str, list[list[float]]]:
    """The entry of a camera in cameras.json.

    >>> camera_entry(Camera(np.eye(4), 100, 100, 2, 1, 4, 2))["intrinsic"]
    [[100.0, 0.0, 2.0], [0.0, 100.0, 1.0], [0.0, 0.0, 1.0]]
    """
    intrinsic = [[camera.fx, 0.0, camera.cx], [0.0, camera.fy, camera.cy], [0.0, 0.0, 1.0]]
    rotation = camera.c2w[:3, :3].T
    extrinsic = np.eye(4)
    extrinsic[:3, :3], extrinsic[:3, 3] = rotation, -rotation @ camera.position
    return {"intrinsic": intrinsic, "extrinsic": extrinsic.tolist()}


def write_cameras(path: Path, cameras: Mapping[str, Camera]) -> None:
    """Writes cameras.json."""
    write_json(path, {name: camera_entry(camera) for name, camera in cameras.items()})


def load_dataset(path: Path | str, split: str = "train") -> Dataset:
    """Reads one split, "train" or "test", of a scene folder.

    Images that are missing or unreadable are skipped and named in `warnings`. Raises `DatasetError` for everything
    that leaves no sound scene: no image left, cameras or points that are missing, malformed, not rigid or not finite.
    """
    root = Path(path)
    if split not in ("train", "test"):
        raise DatasetError(f"{root}: expected split 'train' or 'test', found '{split}'")
    if not root.is_dir():
        raise DatasetError(
            f"{root}: expected a folder with images/, cameras.json and sparse_points.ply, found no such folder"
        )
    folder = root if split == "train" else root / "test"
    entries = _read_json(folder / "cameras.json")
    if not entries:
        raise DatasetError(f"{folder / 'cameras.json'}: expected at least one camera, found none")
    data = Dataset(root, split, [], [], [], None, {})
    missing: list[str] = []
    for name, entry in entries.items():
        pose = _check_entry(folder / "cameras.json", name, entry)
        image, size = _find_image(folder / "images", name)
        if image is None:
            missing.append(name)
            continue
        data.cameras.append(pose(*size))
        data.images.append(image)
        data.names.append(name)
    if missing:
        shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        data.warnings.append(
            f"{folder / 'images'}: skipped {len(missing)} missing or unreadable of {len(entries)} images: {shown}"
        )
    if not data.cameras:
        raise DatasetError(
            f"{folder / 'images'}: expected the images named in cameras.json, found none of {len(entries)} readable"
        )
    data.points = _load_points(root / "sparse_points.ply", data.cameras)
    data.scene = _load_scene(root / "scene.json", data)
    return data


def _read_json(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: expected this file, found none") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: expected readable UTF-8 text, found: {error}") from error
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DatasetError(f"{path}: expected JSON, found text that is not: {error}") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _matrix(path: Path, name: str, key: str, value: Any, shape: tuple[int, int]) -> NDArray[np.float64]:
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != shape:
        found = list(matrix.shape) if matrix.size else "no matrix of numbers"
        raise DatasetError(f"{path}: '{name}' key '{key}': expected a {shape[0]}x{shape[1]} matrix, found {found}")
    if not np.isfinite(matrix).all():
        raise DatasetError(f"{path}: '{name}' key '{key}': expected finite numbers, found NaN or infinity")
    return matrix


def _check_entry(path: Path, name: str, entry: Any) -> Callable[[int, int], Camera]:
    """Validates one camera; what comes back needs only the image's width and height."""
    if not isinstance(entry, dict) or not {"intrinsic", "extrinsic"} <= entry.keys():
        found = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise DatasetError(f"{path}: '{name}': expected keys 'intrinsic' and 'extrinsic', found {found}")
    k = _matrix(path, name, "intrinsic", entry["intrinsic"], (3, 3))
    w2c = _matrix(path, name, "extrinsic", entry["extrinsic"], (4, 4))
    if k[0, 0] <= 0 or k[1, 1] <= 0:
        raise DatasetError(
            f"{path}: '{name}' key 'intrinsic': expected positive focal lengths, found {k[0, 0]:g}, {k[1, 1]:g}"
        )
    off = abs(k[0, 1]) + abs(k[1, 0]) + abs(k[2, 0]) + abs(k[2, 1]) + abs(k[2, 2] - 1)
    if off > 1e-6:
        raise DatasetError(
            f"{path}: '{name}' key 'intrinsic': expected [fx 0 cx; 0 fy cy; 0 0 1], found skew or another last row"
        )
    if np.abs(w2c[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise DatasetError(f"{path}: '{name}' key 'extrinsic': expected the last row 0 0 0 1, found {w2c[3].tolist()}")
    rotation = w2c[:3, :3]
    error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if error > 1e-3 or np.linalg.det(rotation) < 0:
        raise DatasetError(
            f"{path}: '{name}' key 'extrinsic': expected a rigid transform, "
            f"found a scaled, skewed or mirrored one (error {error:.2g})"
        )
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = rotation.T, -rotation.T @ w2c[:3, 3]
    return lambda width, height: Camera(c2w, k[0, 0], k[1, 1], k[0, 2], k[1, 2], width, height)


def _find_image(folder: Path, name: str) -> tuple[Path | None, tuple[int, int]]:
    """The file of an image, whose key may lack the ending, and its size; None if there is none that opens."""
    parts = Path(name).parts
    if ".." in parts or Path(name).is_absolute():  # a name stays inside the folder
        return None, (0, 0)
    for suffix in _SUFFIXES:
        file = folder / (name + suffix)
        if file.is_file():
            try:
                with Image.open(file) as image:
                    width, height = image.size
                    image.load()
                return file, (width, height)
            except (OSError, ValueError, SyntaxError):
                return None, (0, 0)
    return None, (0, 0)


def _load_points(path: Path, cameras: list[Camera]) -> PointCloud:
    if not path.exists():
        raise DatasetError(f"{path}: expected this file of sparse points, found none")
    xyz, rgb, footprint = read_ply(path)
    if not len(xyz):
        raise DatasetError(f"{path}: expected at least one point, found 0")
    return PointCloud(xyz, rgb, nearest_footprint(xyz, cameras) if footprint is None else footprint)


def nearest_footprint(xyz: NDArray[np.float64], cameras: list[Camera]) -> NDArray[np.float64]:
    """The footprint [n] of points [n, 3] in the nearest camera, taken on its axis: `t * sqrt(1 / (pi fx fy))`."""
    best = np.full(len(xyz), np.inf)
    for camera in cameras:
        distance = np.linalg.norm(xyz - camera.position, axis=1)
        np.minimum(best, distance / math.sqrt(math.pi * camera.fx * camera.fy), out=best)
    return np.maximum(best, 1e-9)


def _load_scene(path: Path, data: Dataset) -> dict[str, Any]:
    scene: dict[str, Any] = {"up": [0.0, 0.0, 1.0], "unit": "unit"}
    if path.exists():
        scene |= _read_json(path)
    points = data.points
    if points is not None and "aabb" not in scene:
        scene["aabb"] = np.percentile(points.xyz, _OUTLIERS, axis=0).tolist()
    lo, hi = _vectors(path, "aabb", scene["aabb"], (2, 3))
    if not (hi > lo).any() or (hi < lo).any():
        raise DatasetError(f"{path}: key 'aabb': expected a box with a size, minimum first, found {scene['aabb']}")
    if "root_corner" not in scene or "root_size" not in scene:
        size = float((hi - lo).max()) * (1 + 2 * _MARGIN)
        scene["root_size"], scene["root_corner"] = size, ((lo + hi) / 2 - size / 2).tolist()
    _vectors(path, "up", scene["up"], (3,))
    _vectors(path, "root_corner", scene["root_corner"], (3,))
    size = scene["root_size"]
    if isinstance(size, bool) or not isinstance(size, int | float) or not math.isfinite(size) or size <= 0:
        raise DatasetError(f"{path}: key 'root_size': expected a positive number, found {size!r}")
    if np.linalg.norm(np.asarray(scene["up"], np.float64)) < 1e-6:
        raise DatasetError(f"{path}: key 'up': expected a direction, found {scene['up']}")
    return scene


def _vectors(path: Path, key: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != shape or not np.isfinite(array).all():
        raise DatasetError(
            f"{path}: key '{key}': expected {'x'.join(map(str, shape))} finite numbers, found {value!r}"[:300]
        )
    return array
