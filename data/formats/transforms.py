"""`transforms.json`, in its dialects: nerfstudio's, instant-ngp's, and the NeRF-synthetic scenes' made with Blender.

All have OpenGL axes. instant-ngp's has no camera model, often no size and no endings, and `aabb_scale`; Blender's has
one file a split, `camera_angle_x`, and RGBA images.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from ..ply import DatasetError, read_ply
from ..source import (
    Frame,
    FrameError,
    Lens,
    Source,
    find_file,
    loose_array,
    number,
    opengl_pose,
    read_json,
    relative_name,
)
from ..transform import check_similarity

SPLITS = ("train", "val", "test")
_PERSPECTIVE = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "PERSPECTIVE")
_FISHEYE = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "FISHEYE")
_NGP_SCALE = 0.33  # instant-ngp puts a scene into its unit cube by this factor, about (0.5, 0.5, 0.5)
_MAX_COEFFICIENT = 1e6


def read_nerfstudio(file: Path) -> Source:
    """nerfstudio's or instant-ngp's file. Raises `DatasetError`."""
    meta = read_json(file)
    root = file.parent
    source = Source(root, file, moved=True)
    listed = _file_lists(file, meta)
    _add_frames(source, file, meta, listed)
    if "applied_transform" in meta:
        where = f"{file}: key 'applied_transform'"
        source.capture = check_similarity(where, loose_array(meta["applied_transform"]))
    if "applied_scale" in meta:
        source.capture = (
            np.diag([number(file, "applied_scale", meta["applied_scale"], 1e-9)] * 3 + [1.0]) @ source.capture
        )
    _read_points(source, file, meta)
    if "aabb_scale" in meta:
        source.scene["aabb"] = _ngp_box(file, meta)
    return source


def read_blender(root: Path) -> Source:
    """The NeRF-synthetic scenes: `transforms_{train,val,test}.json`, up is +z. Raises `DatasetError`."""
    files = {split: root / f"transforms_{split}.json" for split in SPLITS}
    present = {split: file for split, file in files.items() if file.is_file()}
    if not present:
        raise DatasetError(f"{files['train']}: expected this file, found none")
    source = Source(root, next(iter(present.values())))
    for split, file in present.items():
        _add_frames(source, file, read_json(file), {}, split)
    return source


def _add_frames(
    source: Source, file: Path, meta: dict[str, Any], listed: dict[str, str], split: str | None = None
) -> None:
    frames = meta.get("frames")
    if not isinstance(frames, list) or not frames:
        found = (
            "none"
            if frames is None
            else f"a {type(frames).__name__} of {len(frames)}"
            if hasattr(frames, "__len__")
            else frames
        )
        raise DatasetError(f"{file}: key 'frames': expected a list of at least one frame, found {found}")
    names: set[str] = set()
    masks = []
    for i, entry in enumerate(frames):
        where = f"frames[{i}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str):
            raise DatasetError(f"{file}: key '{where}': expected an object with 'file_path', found {entry!r:.80}")
        path = entry["file_path"]
        image = find_file(source.path, path)
        name = relative_name(source.path, image, path)
        lens = _lens(file, where, {**meta, **entry})
        try:
            c2w = opengl_pose(file, f"'{where}.transform_matrix'", entry.get("transform_matrix"))
        except FrameError as error:
            source.skip(str(error), name)
            continue
        mask = find_file(source.path, str(entry["mask_path"]), ("",)) if entry.get("mask_path") else None
        if entry.get("mask_path") and mask is None:
            masks.append(str(entry["mask_path"]))
        weight = number(file, f"{where}.loss_weight", entry.get("loss_weight", 1.0), 0.0)
        source.add(Frame(name, image, c2w, lens, listed.get(path, split), mask, weight), names)
    if masks:
        source.warnings.append(
            f"{file}: {len(masks)} masks are missing, their images count whole: {', '.join(masks[:4])}"
        )


def _file_lists(file: Path, meta: dict[str, Any]) -> dict[str, str]:
    """file_path -> split, by `train_filenames`, `val_filenames`, `test_filenames`."""
    splits: dict[str, str] = {}
    for split in SPLITS:
        names = meta.get(f"{split}_filenames", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DatasetError(f"{file}: key '{split}_filenames': expected a list of file names, found {names!r:.80}")
        for name in names:
            splits.setdefault(name, split)
    return splits


def _lens(file: Path, where: str, entry: dict[str, Any]) -> Lens:
    """The lens of a frame, whose keys stand in the frame or, for all, in the file."""

    def get(key: str, low: float = -1e9, high: float = 1e9) -> float | None:
        return None if entry.get(key) is None else number(file, f"{where}.{key}", entry[key], low, high)

    fx, fy = get("fl_x", 1e-6), get("fl_y", 1e-6)
    angle = get("camera_angle_x", 1e-6, 3.1415), get("camera_angle_y", 1e-6, 3.1415)
    one = fx or fy
    focal = (fx or one, fy or one) if one else None
    if focal is None and not any(angle):
        raise DatasetError(
            f"{file}: key '{where}': expected fl_x or camera_angle_x, in the frame or in the file, found neither"
        )
    width, height = get("w", 1), get("h", 1)
    kind, distortion = _distortion(file, where, entry, get)
    return Lens(
        focal, (get("cx"), get("cy")), (round(width), round(height)) if width and height else None, distortion, kind,
        (angle[0] or 0.0, angle[1] or 0.0),
    )  # fmt: skip


def _distortion(file: Path, where: str, entry: dict[str, Any], get: Any) -> tuple[str, tuple[float, ...]]:
    """`Camera`'s lens and distortion. nerfstudio's k4 of a perspective lens multiplies r^8, a term that OpenCV's model
    lacks; OpenCV's own k4, k5, k6 are meant only where the file says FULL_OPENCV."""
    model = entry.get("camera_model", "OPENCV_FISHEYE" if entry.get("is_fisheye") else "OPENCV")
    if model not in _PERSPECTIVE + _FISHEYE:
        known = ", ".join(_PERSPECTIVE + _FISHEYE)
        raise DatasetError(f"{file}: key '{where}.camera_model': expected one of {known}, found {model!r:.80}")
    k1, k2, k3, k4, k5, k6, p1, p2 = (
        get(key, -_MAX_COEFFICIENT, _MAX_COEFFICIENT) or 0.0 for key in ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
    )
    if model in _FISHEYE:
        return "fisheye", (k1, k2, k3, k4)
    if model != "FULL_OPENCV" and (k4 or k5 or k6):
        raise DatasetError(
            f"{file}: key '{where}.k4': expected 0 for a lens of model {model}, found {k4:g}: "
            "no lens here has a term of the eighth power, undistort these images first"
        )
    return "perspective", trimmed((k1, k2, p1, p2, k3, k4, k5, k6))


def trimmed(distortion: tuple[float, ...]) -> tuple[float, ...]:
    """OpenCV's eight coefficients without the zeros at their end: 0, 4, 5 or 8 of them.

    >>> trimmed((0.1, 0, 0, 0, 0, 0, 0, 0))
    (0.1, 0, 0, 0)
    """
    for count in (0, 4, 5):
        if not any(distortion[count:]):
            return distortion[:count]
    return distortion


def _read_points(source: Source, file: Path, meta: dict[str, Any]) -> None:
    """`ply_file_path`, in the same coordinates as the cameras. A file named but missing is worth a word, no more: many
    data sets were made without."""
    name = meta.get("ply_file_path")
    if name is None:
        return
    path = find_file(source.path, name, ("",)) if isinstance(name, str) else None
    if path is None:
        source.warnings.append(f"{file}: key 'ply_file_path': there is no file {name!r:.80}")
        return
    source.xyz, source.rgb, source.footprint = read_ply(path)
    if not len(source.xyz):
        source.warnings.append(f"{path}: no points in this file")
        source.xyz = source.rgb = source.footprint = None


def _ngp_box(file: Path, meta: dict[str, Any]) -> list[list[float]]:
    """The cube that instant-ngp trains in, in the file's coordinates: `aabb_scale` unit cubes wide (nerf_loader.cu)."""
    edge = number(file, "aabb_scale", meta["aabb_scale"], 1e-3, 1e4)
    scale = number(file, "scale", meta.get("scale", _NGP_SCALE), 1e-6, 1e6)
    offset = loose_array(meta.get("offset", [0.5, 0.5, 0.5]))
    if offset.shape != (3,) or not np.isfinite(offset).all() or np.abs(offset).max() > 1e6:
        raise DatasetError(f"{file}: key 'offset': expected 3 numbers, found {meta['offset']!r:.80}")
    center, half = (0.5 - offset) / scale, 0.5 * edge / scale
    return [(center - half).tolist(), (center + half).tolist()]


def is_split_file(name: str) -> bool:
    """Whether a file is one of Blender's.

    >>> is_split_file("transforms_train.json")
    True
    """
    return re.fullmatch(r"transforms_(train|val|test)\.json", name) is not None
