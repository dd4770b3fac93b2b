"""Scenes on disk, in any format that is known (docs/data.md): `load_dataset` reads one split of one, in place.

Images are sRGB, alpha straight. Cameras and points come in the scene's coordinates: upright (+z), centred, and never
scaled without need; `Dataset.transform` takes the capture's own coordinates there. Data in the InfNeRF format are not
moved: `scene.json` says how they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from ..models.similarity import inverse, move_points, move_pose, scale_of
from .footprints import seen_footprint
from .images import image_size
from .placement import describe_scene, placement
from .ply import DatasetError, PointCloud, atomic_write
from .source import Frame, FrameError, Source, inverse_pose, shown
from .splits import choose
from .transform import check_similarity

__all__ = [
    "Dataset", "DatasetError", "PointCloud", "camera_entry", "dataset_of", "load_dataset", "read_source",
    "write_cameras", "write_json",
]  # fmt: skip


@dataclass
class Dataset:
    """One split of a scene: `cameras[i]` saw the file `images[i]`, which the data call `names[i]`."""

    path: Path
    split: str
    cameras: list[Camera]
    images: list[Path]
    names: list[str]
    points: PointCloud | None  # None: the data have none; the scene's box then follows from the cameras
    scene: dict[str, Any]  # up [3], unit, aabb [2][3], root_corner [3], root_size, transform [4][4]
    warnings: list[str] = field(default_factory=list)
    masks: list[Path | None] = field(default_factory=list)  # 0: leave the pixel out of training
    weights: list[float] = field(default_factory=list)  # of an image's pixels in the loss
    transform: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))  # [4, 4] the capture's to the scene's

    def __len__(self) -> int:
        return len(self.cameras)

    def select(self, images: Sequence[int]) -> Dataset:
        """Some of the images, by their numbers, in the same scene."""
        columns = ("cameras", "images", "names", "masks", "weights")
        return replace(
            self, **{n: [values[i] for i in images] if (values := getattr(self, n)) else [] for n in columns}
        )

    def capture_camera(self, index: int) -> Camera:
        """A camera in the capture's own coordinates."""
        camera = self.cameras[index]
        return camera.moved(move_pose(inverse(self.transform), camera.c2w))

    def capture_points(self) -> PointCloud | None:
        """The points in the capture's own coordinates."""
        if self.points is None or np.array_equal(self.transform, np.eye(4)):
            return self.points
        back = inverse(self.transform)
        return PointCloud(move_points(back, self.points.xyz), self.points.rgb, self.points.footprint * scale_of(back))


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    atomic_write(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode("utf-8"))


def camera_entry(camera: Camera) -> dict[str, Any]:
    """The entry of a camera in cameras.json; `distortion` and `lens` only for a camera that is no pinhole.

    >>> camera_entry(Camera(np.eye(4), 100, 100, 2, 1, 4, 2))["intrinsic"]
    [[100.0, 0.0, 2.0], [0.0, 100.0, 1.0], [0.0, 0.0, 1.0]]
    """
    intrinsic = [[camera.fx, 0.0, camera.cx], [0.0, camera.fy, camera.cy], [0.0, 0.0, 1.0]]
    entry: dict[str, Any] = {"intrinsic": intrinsic, "extrinsic": inverse_pose(camera.c2w).tolist()}
    if not camera.is_pinhole:
        entry |= {"distortion": list(camera.distortion), "lens": camera.lens}
    return entry


def write_cameras(path: Path, cameras: Mapping[str, Camera]) -> None:
    """Writes cameras.json."""
    write_json(path, {name: camera_entry(camera) for name, camera in cameras.items()})


def read_source(path: Path | str) -> Source:
    """Recognises the format of a folder, or of a file in it, and reads all but the images. Raises `DatasetError`."""
    from .formats import colmap, infnerf, llff, multicam, transforms

    given = Path(path)
    root = given.parent if given.is_file() else given
    if not root.is_dir():
        raise DatasetError(
            f"{root}: expected a folder with images/, cameras.json and sparse_points.ply, found no such folder"
        )
    name = given.name if given.is_file() else ""
    if name.endswith(".json") and name not in ("cameras.json", "metadata.json", "scene.json"):
        return transforms.read_blender(root) if transforms.is_split_file(name) else transforms.read_nerfstudio(given)
    if (root / "cameras.json").is_file():
        return infnerf.read(root)
    if (root / "transforms.json").is_file():
        return transforms.read_nerfstudio(root / "transforms.json")
    if any(transforms.is_split_file(file.name) for file in root.glob("transforms_*.json")):
        return transforms.read_blender(root)
    if (root / "metadata.json").is_file():
        return multicam.read(root / "metadata.json")
    if colmap.model_folder(root) is not None:  # before LLFF, whose scenes may have both: a model has points
        return colmap.read(root)
    if (root / "poses_bounds.npy").is_file():
        return llff.read(root)
    if root.name.startswith("images") and (root.parent / "poses_bounds.npy").is_file():
        return llff.read(root.parent, root)
    if (root / "images").is_dir() or (root / "sparse_points.ply").is_file():
        return infnerf.read(root)  # says what is missing
    raise DatasetError(
        f"{root}: expected a scene: cameras.json (InfNeRF), transforms.json (nerfstudio), transforms_train.json "
        "(Blender), metadata.json (Multicam), poses_bounds.npy (LLFF) or a COLMAP model, found none of them"
    )


def load_dataset(path: Path | str, split: str = "train", transform: NDArray[np.float64] | None = None) -> Dataset:
    """Reads one split, "train", "test", "val" or "all", of a scene in any known format.

    `transform` [4, 4] places the scene where another one is, by that one's `Dataset.transform`, instead of where this
    one's own points and cameras would: so that two captures of one world share coordinates.

    Images that are missing, unreadable, of a wrong size, named twice or without a sound pose are skipped, and counted
    in `warnings`. Raises `DatasetError` for everything that leaves no sound scene.
    """
    data = dataset_of(read_source(path), split, transform)
    data.path = Path(path) if Path(path).is_dir() else data.path
    return data


def dataset_of(read: Source, split: str = "train", transform: NDArray[np.float64] | None = None) -> Dataset:
    """One split of a source that has been read; `load_dataset` in two steps, for who wants several splits."""
    skipped = {reason: list(names) for reason, names in read.skipped.items()}
    source = replace(read, skipped=skipped, warnings=list(read.warnings))  # a split's own are added to these
    frames, notes = choose(source, split)
    asked = [frame for frame in source.frames if split == "all" or frame.split in (None, split)]
    total = max(len(asked), len(frames)) + sum(map(len, read.skipped.values()))
    for frame in asked:
        if frame.image is None:
            source.skip("missing or unreadable", frame.name)
    if transform is None:
        place = placement(source)
    else:
        place = check_similarity("transform", np.asarray(transform, np.float64)) @ inverse(source.capture)
    data = Dataset(source.path, split, [], [], [], None, {}, transform=place @ source.capture)
    _open_images(source, frames, place, data)
    _report(source, data, notes, total)
    data.points = _points(source, place, data)
    data.scene = describe_scene(source, place, data.cameras[0], data.points)
    data.scene["transform"] = data.transform.tolist()
    return data


def _open_images(source: Source, frames: list[Frame], place: NDArray[np.float64], data: Dataset) -> None:
    """Fills in the images that open, with their cameras."""
    scaled, names = 0, set()
    for frame in frames:
        size = image_size(frame.image) if frame.image is not None else None
        if frame.image is None or size is None:
            source.skip("missing or unreadable", frame.name)
            continue
        try:
            camera = frame.lens.camera(move_pose(place, frame.c2w), *size)
        except FrameError as error:
            source.skip(str(error), frame.name)
            continue
        data.cameras.append(camera)
        data.images.append(frame.image)
        data.names.append(frame.name if frame.name not in names else f"{frame.split}/{frame.name}")
        names.add(frame.name)
        data.masks.append(frame.mask)
        data.weights.append(frame.weight)
        scaled += frame.lens.scaled(*size)
    if scaled:
        source.warnings.append(
            f"{source.cameras_file}: {scaled} images are smaller or larger than it says, their intrinsics are scaled"
        )


def _report(source: Source, data: Dataset, notes: list[str], total: int) -> None:
    """Puts what was skipped of `total` images into words. Raises `DatasetError` if no image is left."""
    images = source.path / "images" if source.scene_file else source.path
    lines = [
        f"{images}: skipped {len(names)} {reason} of {total} images: {shown(names)}"
        if reason == "missing or unreadable"
        else f"{images}: skipped {len(names)} of {total} images {reason}: {shown(names)}"
        for reason, names in source.skipped.items()
    ]
    data.warnings = notes + lines + source.warnings
    if not data.cameras:
        why = "" if set(source.skipped) <= {"missing or unreadable"} else f" ({'; '.join(source.skipped)})"
        raise DatasetError(
            f"{images}: expected the images named in {source.cameras_file.name}, found none of {total} readable{why}"
        )


def _points(source: Source, place: NDArray[np.float64], data: Dataset) -> PointCloud | None:
    if source.xyz is None or source.rgb is None:
        data.warnings.append(f"{data.path}: no sparse points, the scene's extent is told by the cameras")
        return None
    xyz = source.xyz if np.array_equal(place, np.eye(4)) else move_points(place, source.xyz)
    if source.footprint is not None:
        return PointCloud(xyz, source.rgb, source.footprint * scale_of(place))
    footprint, unseen = seen_footprint(xyz, data.cameras)
    if unseen:
        data.warnings.append(f"{data.path}: {unseen} of {len(xyz)} points are in no image, they ask for no detail")
    return PointCloud(xyz, source.rgb, footprint)
