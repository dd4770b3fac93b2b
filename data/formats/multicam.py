"""mip-NeRF's multiscale Blender scenes: `metadata.json`, {split: {key: a list with an item an image}}.

Keys: file_path, cam2world (OpenGL axes), width, height, focal, pix2cam, lossmult (the area that a pixel stands for),
and label, near, far, which nothing here needs. Up is +z, as in the scenes that these were made from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...models.camera import OPENGL_FLIP
from ..ply import DatasetError
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

_NEEDED = ("file_path", "cam2world", "width", "height")


def read(file: Path) -> Source:
    """Raises `DatasetError`."""
    meta = read_json(file)
    splits = {split: meta[split] for split in ("train", "val", "test") if split in meta}
    if not splits:
        raise DatasetError(f"{file}: expected the keys train, val or test, found {', '.join(meta)[:80] or 'none'}")
    source = Source(file.parent, file)
    for split, columns in splits.items():
        rows = _rows(file, split, columns)
        names: set[str] = set()
        for i in range(rows):
            _add(source, file, f"{split}[{i}]", split, {key: columns[key][i] for key in columns}, names)
    return source


def _rows(file: Path, split: str, columns: Any) -> int:
    """How many images a split has."""
    if not isinstance(columns, dict) or (missing := [key for key in _NEEDED if key not in columns]):
        lacks = f"none of {', '.join(missing)}" if isinstance(columns, dict) else type(columns).__name__
        raise DatasetError(f"{file}: key '{split}': expected an object with {', '.join(_NEEDED)}, found {lacks}")
    if "pix2cam" not in columns and "focal" not in columns:
        raise DatasetError(f"{file}: key '{split}': expected pix2cam or focal, found neither")
    lengths = {key: len(value) if isinstance(value, list) else -1 for key, value in columns.items()}
    if len(set(lengths.values())) != 1 or -1 in lengths.values():
        found = ", ".join(f"{key} {length}" if length >= 0 else f"{key} none" for key, length in lengths.items())
        raise DatasetError(f"{file}: key '{split}': expected lists of one length, found {found[:200]}")
    return lengths["file_path"]


def _add(source: Source, file: Path, where: str, split: str, row: dict[str, Any], names: set[str]) -> None:
    if not isinstance(row["file_path"], str):
        raise DatasetError(f"{file}: key '{where}.file_path': expected a file name, found {row['file_path']!r:.80}")
    image = find_file(source.path, row["file_path"])
    name = relative_name(source.path, image, row["file_path"])
    size = (
        round(number(file, f"{where}.width", row["width"], 1)),
        round(number(file, f"{where}.height", row["height"], 1)),
    )
    weight = number(file, f"{where}.lossmult", row.get("lossmult", 1.0), 0.0)
    lens = _lens(file, where, row, size)
    try:
        c2w = opengl_pose(file, f"'{where}.cam2world'", row["cam2world"])
    except FrameError as error:
        source.skip(str(error), name)
        return
    source.add(Frame(name, image, c2w, lens, split, weight=weight), names)


def _lens(file: Path, where: str, row: dict[str, Any], size: tuple[int, int]) -> Lens:
    """`pix2cam` takes (column, row, 1), pixel centres at +0.5, to a ray in OpenGL axes: the flipped inverse of K."""
    if "pix2cam" not in row:
        focal = number(file, f"{where}.focal", row["focal"], 1e-6)
        return Lens((focal, focal), size=size)
    pix2cam = loose_array(row["pix2cam"])
    m = OPENGL_FLIP[:3, :3] @ pix2cam if pix2cam.shape == (3, 3) and np.isfinite(pix2cam).all() else np.zeros((3, 3))
    off = abs(m[0, 1]) + abs(m[1, 0]) + abs(m[2, 0]) + abs(m[2, 1]) + abs(m[2, 2] - 1)
    if off > 1e-6 or min(m[0, 0], m[1, 1]) < 1e-9:
        raise DatasetError(
            f"{file}: key '{where}.pix2cam': expected [1/f 0 -cx/f; 0 -1/f cy/f; 0 0 -1], found {row['pix2cam']!r:.80}"
        )
    return Lens((1 / m[0, 0], 1 / m[1, 1]), (-m[0, 2] / m[0, 0], -m[1, 2] / m[1, 1]), size)
