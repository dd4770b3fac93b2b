"""The InfNeRF data format (docs/data.md): images/, cameras.json, sparse_points.ply, scene.json, test/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ply import DatasetError, read_ply
from ..source import (
    LARGEST,
    RIGID,
    Frame,
    Lens,
    Source,
    array,
    find_file,
    inverse_pose,
    loose_array,
    number,
    read_json,
    rigid,
)
from ..transform import check_similarity

SCENE_KEYS = ("root_corner", "root_size")  # with them a scene needs no points


def read(root: Path) -> Source:
    """Reads both splits. Raises `DatasetError`: our own writers make no mistakes, so a malformed camera is no accident
    of a reconstruction, and is refused."""
    source = Source(root, root / "cameras.json", scene_file=root / "scene.json")
    for split, folder in (("train", root), ("test", root / "test")):
        if split == "test" and not (folder / "cameras.json").exists():
            continue
        _read_cameras(source, folder, split)
    if (root / "scene.json").exists():
        source.scene = read_json(root / "scene.json")
        if "transform" in source.scene:
            where = f"{root / 'scene.json'}: key 'transform'"
            source.capture = check_similarity(where, loose_array(source.scene.pop("transform")))
    path = root / "sparse_points.ply"
    if path.exists():
        source.xyz, source.rgb, source.footprint = read_ply(path)
        if not len(source.xyz):
            raise DatasetError(f"{path}: expected at least one point, found 0")
    elif not all(key in source.scene for key in SCENE_KEYS):
        raise DatasetError(
            f"{path}: expected this file of sparse points, found none (without points scene.json must have "
            f"{' and '.join(SCENE_KEYS)})"
        )
    return source


def _read_cameras(source: Source, folder: Path, split: str) -> None:
    path = folder / "cameras.json"
    entries = read_json(path)
    if not entries and split == "test":  # a city that was interrupted before its first test view
        return
    if not entries:
        raise DatasetError(f"{path}: expected at least one camera, found none")
    files: set[str] = set()
    for name, entry in entries.items():
        lens, c2w = _check_entry(path, name, entry)
        image = find_file(folder / "images", name, inside=True)
        mask, weight = None, 1.0
        if "mask" in entry:
            mask = find_file(folder, str(entry["mask"]), ("",), inside=True)
            if mask is None:
                source.warnings.append(f"{path}: '{name}' key 'mask': there is no file {entry['mask']!r:.80}")
        if "weight" in entry:
            weight = number(path, f"{name}.weight", entry["weight"], 0.0)
        source.add(Frame(name, image, c2w, lens, split, mask, weight), files)


def _matrix(path: Path, name: str, key: str, value: Any, shape: tuple[int, int]) -> NDArray[np.float64]:
    matrix = loose_array(value)
    if matrix.shape != shape:
        found = list(matrix.shape) if matrix.size else "no matrix of numbers"
        raise DatasetError(f"{path}: '{name}' key '{key}': expected a {shape[0]}x{shape[1]} matrix, found {found}")
    if not np.isfinite(matrix).all():
        raise DatasetError(f"{path}: '{name}' key '{key}': expected finite numbers, found NaN or infinity")
    if np.abs(matrix).max() > LARGEST:
        raise DatasetError(f"{path}: '{name}' key '{key}': expected numbers up to {LARGEST:g}, found larger ones")
    return matrix


def _check_entry(path: Path, name: str, entry: Any) -> tuple[Lens, NDArray[np.float64]]:
    """Validates one camera; returns its lens and its pose, camera to world."""
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
    if error > RIGID or np.linalg.det(rotation) < 0:
        raise DatasetError(
            f"{path}: '{name}' key 'extrinsic': expected a rigid transform, "
            f"found a scaled, skewed or mirrored one (error {error:.2g})"
        )
    return _lens(path, name, entry, k), inverse_pose(rigid(w2c))


def _lens(path: Path, name: str, entry: dict[str, Any], k: NDArray[np.float64]) -> Lens:
    """The lens of an entry; `distortion`, `lens` and `size` are optional keys."""
    distortion: tuple[float, ...] = ()
    if "distortion" in entry:
        values = loose_array(entry["distortion"])
        distortion = tuple(array(path, f"{name}.distortion", entry["distortion"], (min(values.size, 8),)).tolist())
    kind = entry.get("lens", "perspective")
    if kind not in ("perspective", "fisheye"):
        raise DatasetError(f"{path}: '{name}' key 'lens': expected 'perspective' or 'fisheye', found {kind!r:.80}")
    size = None
    if "size" in entry:
        width, height = array(path, f"{name}.size", entry["size"], (2,), "width and height")
        size = int(number(path, f"{name}.size", float(width), 1)), int(number(path, f"{name}.size", float(height), 1))
    return Lens((k[0, 0], k[1, 1]), (k[0, 2], k[1, 2]), size, distortion, kind)
