"""COLMAP's models, text and binary, by pycolmap: cameras, poses, and points with footprints from their tracks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..footprints import tracked_footprint
from ..ply import DatasetError
from ..source import LARGEST, Frame, FrameError, Lens, Source, find_file, inverse_pose, rigid
from .colmap_check import check_binary
from .transforms import trimmed

MODEL_FOLDERS = (".", "0", "sparse/0", "sparse", "colmap/sparse/0", "colmap", "distorted/sparse/0")
MAX_FIT_ERROR = 0.05  # px, to which another model's lens must be met to stand for it
_FIT_SIDE = 24  # pixels across and down at which it is measured
#: model -> where k1 k2 p1 p2 k3 k4 k5 k6, or a fisheye's k1 k2 k3 k4, stand among what follows the principal point.
_PERSPECTIVE = {"SIMPLE_PINHOLE": 0, "PINHOLE": 0, "SIMPLE_RADIAL": 1, "RADIAL": 2, "OPENCV": 4, "FULL_OPENCV": 8}
_FISHEYE = {"SIMPLE_FISHEYE": 0, "FISHEYE": 0, "SIMPLE_RADIAL_FISHEYE": 1, "RADIAL_FISHEYE": 2, "OPENCV_FISHEYE": 4}


def model_folder(root: Path) -> Path | None:
    """Where a model lies: the folder itself, or where COLMAP, nerfstudio and 3D Gaussian splatting put one below it."""
    for inner in MODEL_FOLDERS:
        folder = root / inner
        for ending in (".bin", ".txt"):
            if all((folder / f"{name}{ending}").is_file() for name in ("cameras", "images", "points3D")):
                return folder
    return None


def read(root: Path) -> Source:
    """Reads the model in or below `root`; its images lie in an `images/` beside or above it. Raises `DatasetError`."""
    folder = model_folder(root)
    if folder is None:
        raise DatasetError(f"{root}: expected COLMAP's cameras, images and points3D (.bin or .txt), found none")
    model = _load(folder)
    root, images = _image_folder(root, folder)
    file = next(p for p in (folder / "images.bin", folder / "images.txt") if p.is_file())
    source = Source(root, file, moved=True)
    lenses = {key: _lens(source, folder, camera) for key, camera in model.cameras.items()}
    frames = _add_frames(source, model, images, lenses)
    _add_points(source, model, frames)
    return source


def _load(folder: Path) -> Any:
    try:
        import pycolmap
    except ImportError as error:
        raise DatasetError(f"{folder}: COLMAP's models need pycolmap: pip install 'infnerf-view[train]'") from error
    if (folder / "cameras.bin").is_file():
        check_binary(folder)
    level, pycolmap.logging.minloglevel = pycolmap.logging.minloglevel, 4  # its complaint is in the exception too
    try:
        return pycolmap.Reconstruction(str(folder))
    except (ValueError, IndexError, RuntimeError, OverflowError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DatasetError(f"{folder}: expected a sound COLMAP model, pycolmap found: {reason}") from error
    finally:
        pycolmap.logging.minloglevel = level


def _image_folder(root: Path, folder: Path) -> tuple[Path, Path]:
    """The data folder and its folder of images, from the folder given up to two above the model."""
    for above in (root, folder, *folder.resolve().parents[:2]):
        if (above / "images").is_dir():
            return above, above / "images"
    return root, root


def _add_frames(source: Source, model: Any, images: Path, lenses: dict[int, Lens]) -> dict[int, Frame]:
    """Adds the images that have a pose; returns image id -> frame."""
    names: set[str] = set()
    frames = {}
    masks = source.path / "masks"
    told = _text_names(source.cameras_file) if source.cameras_file.suffix == ".txt" else {}
    called = {key: told.get(key) or str(image.name) for key, image in model.images.items()}
    for key, name in sorted(called.items(), key=lambda item: item[1]):
        image = model.images[key]
        if not image.has_pose:
            source.skip("without a pose", name)
            continue
        pose: Any = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
        try:
            c2w = inverse_pose(rigid(np.asarray(pose.matrix(), np.float64)))
        except FrameError as error:
            source.skip(str(error), name)
            continue
        mask = find_file(masks, f"{name}.png", ("",), inside=True) or find_file(masks, name, ("",), inside=True)
        frame = Frame(name, find_file(images, name), c2w, lenses[image.camera_id], mask=mask)
        source.add(frame, names)
        frames[key] = frame
    if not source.frames:
        raise DatasetError(f"{source.cameras_file}: expected at least one image with a pose, found none")
    return frames


def _text_names(file: Path) -> dict[int, str]:
    """Image id -> name from `images.txt`, where pycolmap takes a name with a space to end at the space."""
    names: dict[int, str] = {}
    lines = iter(file.read_text("utf-8", "replace").splitlines())
    for line in lines:
        words = line.strip().split(maxsplit=9)
        if words and not words[0].startswith("#"):
            if len(words) == 10 and words[0].isdecimal():
                names[int(words[0])] = words[9]
            next(lines, None)  # the line of its points
    return names


def _add_points(source: Source, model: Any, frames: dict[int, Frame]) -> None:
    """Points, and their footprints in the images whose tracks they are in."""
    xyz = np.array([point.xyz for point in model.points3D.values()], np.float64).reshape(-1, 3)
    rgb = np.array([point.color for point in model.points3D.values()], np.uint8).reshape(-1, 3)
    kept = np.abs(np.nan_to_num(xyz, nan=np.inf)).max(axis=1, initial=0.0) < LARGEST
    if (lost := int((~kept).sum())) > 0:
        source.warnings.append(f"{source.cameras_file.parent}: skipped {lost} points that are not finite")
    if not kept.any():
        return
    rows: dict[int, list[int]] = {}
    index = np.cumsum(kept) - 1
    for i, point in enumerate(model.points3D.values()):
        if kept[i]:
            for element in point.track.elements:
                rows.setdefault(element.image_id, []).append(int(index[i]))
    cameras = {}
    for key, frame in frames.items():
        width, height = frame.lens.size or (1, 1)
        try:
            cameras[key] = frame.lens.camera(frame.c2w, width, height)
        except FrameError:
            continue  # said when its image is opened
    tracks = ((cameras[key], np.array(seen, np.int64)) for key, seen in rows.items() if key in cameras)
    source.xyz, source.rgb = xyz[kept], rgb[kept]
    source.footprint, _ = tracked_footprint(source.xyz, tracks, list(cameras.values()))


def _lens(source: Source, folder: Path, camera: Any) -> Lens:
    """COLMAP's camera as our lens: the same formula where there is one, else the closest fisheye if it is close enough.

    Raises `DatasetError` that names the model otherwise.
    """
    name, params, size = camera.model_name, [float(x) for x in camera.params], (int(camera.width), int(camera.height))
    where = f"{folder}: camera {camera.camera_id}: model {name}"
    if not np.isfinite(params).all():
        raise DatasetError(f"{where}: expected finite parameters, found {params}")
    shared = 1 if len(camera.focal_length_idxs()) == 1 else 2  # focal lengths
    focal, center, rest = (
        params[:shared],
        (params[shared], params[shared + 1]) if len(params) > shared + 1 else (),
        params[shared + 2 :],
    )
    if not focal or len(center) != 2 or name == "EQUIRECTANGULAR":
        raise DatasetError(f"{where}: expected a lens with a focal length and a centre, found none")
    both = (focal[0], focal[-1])
    if name in _PERSPECTIVE:
        return Lens(both, center, size, trimmed((*rest, *[0.0] * (8 - len(rest)))))
    if name in _FISHEYE or (name == "THIN_PRISM_FISHEYE" and not any(rest[2:4]) and not any(rest[6:])):
        k = [*rest[:2], *rest[4:6]] if name == "THIN_PRISM_FISHEYE" else rest
        return Lens(both, center, size, (*k, *[0.0] * (4 - len(k))), "fisheye")
    lens, error = fit_fisheye(camera, both, center, size)
    if not error <= MAX_FIT_ERROR:
        raise DatasetError(
            f"{where}: expected a lens that can be met to {MAX_FIT_ERROR} px, found {error:.3g} px at best: "
            "undistort the images (colmap image_undistorter) and read that folder"
        )
    source.warnings.append(f"{where} is read as the fisheye lens closest to it, at most {error:.2g} px off")
    return lens


def fit_fisheye(
    camera: Any, focal: tuple[float, float], center: tuple[float, float], size: tuple[int, int]
) -> tuple[Lens, float]:
    """The fisheye lens whose image of directions is closest, by least squares, to that of any model which depends on
    the angle to the axis alone, and its largest error in px over the image."""
    steps = [np.linspace(0, side, _FIT_SIDE) for side in size]
    pixels = np.stack(np.meshgrid(*steps), axis=-1).reshape(-1, 2)
    rays = np.asarray(camera.cam_from_img(pixels), np.float64).reshape(len(pixels), 2)
    seen = np.isfinite(rays).all(axis=1)
    angle = np.arctan(np.linalg.norm(rays, axis=1))
    image = np.linalg.norm((pixels - center) / focal, axis=1)
    powers = angle[seen, None] ** np.arange(1, 10, 2)
    solution, *_ = np.linalg.lstsq(powers, image[seen], rcond=None)
    if seen.sum() < len(pixels) or not solution[0] > 0:
        return Lens(focal, center, size), float("inf")
    lens = Lens(
        (focal[0] * solution[0], focal[1] * solution[0]), center, size, tuple(solution[1:] / solution[0]), "fisheye"
    )
    world = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
    try:
        fitted, valid = lens.camera(np.eye(4), *size).project(world)
    except FrameError:
        return lens, float("inf")
    error: NDArray[np.float64] = np.linalg.norm(fitted - pixels, axis=1)
    return lens, float(error.max()) if valid.all() else float("inf")
