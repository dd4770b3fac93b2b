"""Writes a scene of any known format as InfNeRF's or as nerfstudio's: `infnerf convert`.

Images are hard-linked where the disk allows it, else copied; cameras and points are written anew. InfNeRF's keep the
scene's coordinates and note the transform; nerfstudio's come in the capture's own. A folder is written whole beside its
place and renamed into it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..models.camera import OPENGL_FLIP, Camera
from .dataset import Dataset, camera_entry, dataset_of, read_source, write_json
from .ply import DatasetError, write_ply
from .splits import SPLITS

FORMATS = ("infnerf", "nerfstudio")
#: What may lie in a folder that --overwrite replaces: what is written here, and nothing that a person put there.
_OURS = {
    "images",
    "masks",
    "test",
    "cameras.json",
    "scene.json",
    "sparse_points.ply",
    "transforms.json",
    "sparse_pc.ply",
}


@dataclass
class Summary:
    """What was written."""

    images: dict[str, int]  # split -> how many
    points: int
    warnings: list[str] = field(default_factory=list)


def convert(
    source: Path,
    out: Path,
    to: str = "infnerf",
    split: str | None = None,  # None: every split, kept apart; "all": every image, for training
    overwrite: bool = False,
    report: Callable[[float, str], None] = lambda fraction, text: None,
) -> Summary:
    """Writes the scene at `source` into the folder `out`. Raises `DatasetError` for a scene that cannot be read or
    written, or a folder that holds something, `OSError` for a disk that is full or not ours."""
    if to not in FORMATS:
        raise DatasetError(f"--to: expected {' or '.join(FORMATS)}, found '{to}'")
    if split is not None and split not in SPLITS:
        raise DatasetError(f"--split: expected {', '.join(SPLITS)}, found '{split}'")
    source, out = Path(source), Path(out)
    _check_out(source, out, overwrite)
    datasets = _splits(source, to, split)
    summary = Summary({}, 0, [])
    with _whole_folder(out) as folder:
        write = _write_infnerf if to == "infnerf" else _write_nerfstudio
        write(folder, datasets, report)
        summary.images = {name: len(data) for name, data in datasets.items()}
        first = next(iter(datasets.values()))
        summary.points = 0 if first.points is None else len(first.points)
    for data in datasets.values():
        summary.warnings += [line for line in data.warnings if line not in summary.warnings]
    return summary


def _splits(path: Path, to: str, split: str | None) -> dict[str, Dataset]:
    """The datasets to write, by split; InfNeRF's format knows train and test only."""
    source = read_source(path)
    if split is not None:
        return {"train" if split == "all" else split: dataset_of(source, split)}
    told = {frame.split for frame in source.frames}
    datasets = {"train": dataset_of(source, "train")}
    for name in ("test", "val"):
        if name == "val" and (to == "infnerf" or not {"test", "val"} <= told):
            continue
        try:
            datasets[name] = dataset_of(source, name)
        except DatasetError as error:  # too few images to hold any out, or none of them opens
            datasets["train"].warnings.append(f"no {name} split is written: {error}")
    if to == "infnerf" and {"test", "val"} <= told:
        datasets["train"].warnings.append(f"{path}: the val split is left out, the InfNeRF format has train and test")
    return datasets


def _check_out(source: Path, out: Path, overwrite: bool) -> None:
    here, there = source.resolve(), out.resolve()
    root = here.parent if here.is_file() else here
    if there == root or there in root.parents:
        raise DatasetError(f"{out}: expected a folder other than the one that is read, and not one that holds it")
    if out.exists() and not out.is_dir():
        raise DatasetError(f"{out}: expected a new folder, found a file")
    if not there.parent.is_dir():
        raise DatasetError(f"{out}: there is no folder {there.parent}")
    if not out.is_dir() or not (found := sorted(path.name for path in out.iterdir())):
        return
    if not overwrite:
        raise DatasetError(f"{out}: expected an empty or new folder, found files in it: give another, or --overwrite")
    if foreign := [name for name in found if name not in _OURS]:
        raise DatasetError(f"{out}: --overwrite replaces converted scenes only, found {', '.join(foreign[:4])} in it")


@contextlib.contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that takes its place at the end, or is deleted if the body raises."""
    out = out.resolve()
    folder = out.parent / f".{out.name}.{secrets.token_hex(4)}"
    folder.mkdir()
    old = out.parent / f"{folder.name}.old"
    try:
        yield folder
        if out.exists():
            os.rename(out, old)
        try:
            os.rename(folder, out)
        except BaseException:
            if old.exists():
                os.rename(old, out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def _out_name(data: Dataset, index: int, taken: set[str]) -> str:
    """What an image is called below images/: its name without the folder, with its file's ending, once only."""
    image, parts = data.images[index], list(PurePosixPath(data.names[index].replace("\\", "/")).parts)
    parts = [part for part in parts if part not in ("/", "..", ".")]
    if len(parts) > 1 and parts[0].startswith("images"):
        parts = parts[1:]
    name = PurePosixPath(*parts) if parts else PurePosixPath(image.name)
    if name.suffix.lower() != image.suffix.lower():
        name = name.with_name(name.name + image.suffix)
    candidate, count = name, 1
    while candidate.as_posix().casefold() in taken:
        prefix = data.split if count == 1 else f"{data.split}_{count}"
        candidate, count = PurePosixPath(prefix) / name, count + 1
    taken.add(candidate.as_posix().casefold())
    return candidate.as_posix()


def _place_images(
    folder: Path, data: Dataset, taken: set[str], report: Callable[[float, str], None]
) -> list[tuple[str, str | None]]:
    """Links images and masks below `folder`; returns (name below images/, mask below folder) of each."""
    placed = []
    for i, image in enumerate(data.images):
        name = _out_name(data, i, taken)
        _link(image, folder / "images" / name)
        mask, at = data.masks[i], None
        if mask is not None:
            at = f"masks/{name}{mask.suffix}"
            _link(mask, folder / at)
        placed.append((name, at))
        report((i + 1) / len(data), f"{data.split} image {i + 1}/{len(data)}")
    return placed


def _write_infnerf(folder: Path, datasets: dict[str, Dataset], report: Callable[[float, str], None]) -> None:
    first = next(iter(datasets.values()))
    for name, data in datasets.items():
        below = folder / "test" if name != "train" and "train" in datasets else folder
        entries: dict[str, Any] = {}
        for i, (out_name, mask) in enumerate(_place_images(below, data, set(), report)):
            camera = data.cameras[i]
            entries[out_name] = camera_entry(camera) | {"size": [camera.width, camera.height]}
            if mask is not None:
                entries[out_name]["mask"] = mask
            if data.weights[i] != 1:
                entries[out_name]["weight"] = data.weights[i]
        write_json(below / "cameras.json", entries)
    write_json(folder / "scene.json", first.scene)
    if first.points is not None:
        write_ply(folder / "sparse_points.ply", first.points)


def _write_nerfstudio(folder: Path, datasets: dict[str, Dataset], report: Callable[[float, str], None]) -> None:
    first = next(iter(datasets.values()))
    lenses = [_lens_keys(data.cameras[i], data.names[i]) for data in datasets.values() for i in range(len(data))]
    models = {lens["camera_model"] for lens in lenses}
    if len(models) > 1:
        raise DatasetError(f"{first.path}: nerfstudio has one lens model a file, found {' and '.join(sorted(models))}")
    shared = lenses[0] if all(lens == lenses[0] for lens in lenses) else {"camera_model": models.pop()}
    meta: dict[str, Any] = dict(shared)
    frames, lists, taken = [], {}, set()
    for name, data in datasets.items():
        placed = _place_images(folder, data, taken, report)
        for i, (out_name, mask) in enumerate(placed):
            camera = data.capture_camera(i)
            frame: dict[str, Any] = {"file_path": f"images/{out_name}"}
            frame |= {key: value for key, value in lenses[len(frames)].items() if key not in shared}
            frame["transform_matrix"] = (camera.c2w @ OPENGL_FLIP).tolist()
            if mask is not None:
                frame["mask_path"] = mask
            if data.weights[i] != 1:
                frame["loss_weight"] = data.weights[i]  # ours: nerfstudio reads past it
            frames.append(frame)
        lists[f"{name}_filenames"] = [f"images/{out_name}" for out_name, _ in placed]
    points = first.capture_points()
    if points is not None:
        meta["ply_file_path"] = "sparse_pc.ply"
        write_ply(folder / "sparse_pc.ply", points)
    write_json(folder / "transforms.json", meta | {"frames": frames} | lists)


def _lens_keys(camera: Camera, name: str) -> dict[str, Any]:
    """A camera's intrinsics in nerfstudio's words. Raises `DatasetError` for a lens that it has no words for."""
    keys: dict[str, Any] = {
        "fl_x": camera.fx, "fl_y": camera.fy, "cx": camera.cx, "cy": camera.cy, "w": camera.width, "h": camera.height,
    }  # fmt: skip
    if camera.lens == "fisheye":
        k = (*camera.distortion, *[0.0] * (4 - len(camera.distortion)))
        return {"camera_model": "OPENCV_FISHEYE"} | keys | dict(zip(("k1", "k2", "k3", "k4"), k, strict=True))
    k = np.array((*camera.distortion, *[0.0] * (8 - len(camera.distortion))))
    if k[5:].any():
        raise DatasetError(f"{name}: nerfstudio has no words for a lens with OpenCV's k4, k5, k6; convert to infnerf")
    return {"camera_model": "OPENCV"} | keys | dict(zip(("k1", "k2", "p1", "p2", "k3"), k[:5].tolist(), strict=True))
