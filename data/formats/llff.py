"""LLFF: `poses_bounds.npy` [n, 17], an image a row, in the order of the sorted names of `images/`.

A row is a 3x5 matrix (columns: camera y down, camera x right, camera z backwards, position, (height, width, focal)) and
the nearest and the farthest depth.
"""

from __future__ import annotations

import re
from io import BytesIO
from math import prod
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..ply import DatasetError
from ..source import IMAGE_SUFFIXES, LARGEST, Frame, FrameError, Lens, Source, rigid

MAX_BYTES = 1 << 28  # of the file: a million images
MAX_HEADER = 16384  # bytes


def read(root: Path, folder: Path | None = None) -> Source:
    """Reads a scene with the images of `folder`: by default the finest `images_N/`, else `images/`.

    Raises `DatasetError`.
    """
    file = root / "poses_bounds.npy"
    rows = read_rows(file)
    source = Source(root, file, moved=True, held_out_by_format=True)
    folder = folder or _choose_folder(source, len(rows))
    files = _images(folder)
    if len(files) != len(rows):
        raise DatasetError(
            f"{file}: expected a row for each of the {len(files)} images in {folder}, found {len(rows)} rows"
        )
    for image, row in zip(files, rows, strict=True):
        name = image.relative_to(root).as_posix()
        pose, (height, width, focal) = row[:15].reshape(3, 5)[:, :4], row[[4, 9, 14]]
        near, far = row[15:]
        try:
            c2w = rigid(pose[:, [1, 0, 2, 3]] * [1, 1, -1, 1])
            if not (np.isfinite(row).all() and focal > 0 and 1 <= width <= LARGEST and 1 <= height <= LARGEST):
                raise FrameError("with no sound size and focal length")
        except FrameError as error:
            source.skip(str(error), name)
            continue
        depths = (float(near), float(far)) if 0 < near < far <= LARGEST else None
        lens = Lens((float(focal), float(focal)), size=(round(width), round(height)))
        source.frames.append(Frame(name, image, c2w, lens, near_far=depths))
    return source


def _choose_folder(source: Source, rows: int) -> Path:
    """The finest `images_N/` with as many images as there are rows; `images/` where there is none."""
    root = source.path
    found = [
        (int(m[1]), p) for p in root.glob("images_*") if p.is_dir() and (m := re.fullmatch(r"images_(\d{1,4})", p.name))
    ]
    smaller = [path for _, path in sorted(found) if len(_images(path)) == rows]
    if not smaller:
        return root / "images"
    if (root / "images").is_dir():
        source.warnings.append(f"{root}: reads {smaller[0].name}/; for the full size give the folder {root / 'images'}")
    return smaller[0]


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected this folder of images, found none")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def read_rows(file: Path) -> NDArray[np.float64]:
    """The array [n, 17] of the file, whose header is held against the file's size before anything is allocated."""
    try:
        with file.open("rb") as stream:
            size = file.stat().st_size
            head = BytesIO(stream.read(MAX_HEADER))  # a header's own length may be hostile too
            version = npy.read_magic(head)
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = header(head)
            stream.seek(head.tell())
            if len(shape) != 2 or shape[1] != 17 or shape[0] < 1 or dtype.kind not in "fiu" or dtype.hasobject:
                raise DatasetError(f"{file}: expected numbers [n, 17], found {dtype} {list(shape)}"[:300])
            expected = prod(shape) * dtype.itemsize
            if expected > min(MAX_BYTES, size - stream.tell()):
                left = (size - stream.tell()) // (17 * dtype.itemsize)
                raise DatasetError(f"{file}: expected {shape[0]} rows, found {left} whole ones: the file is truncated")
            values = np.frombuffer(stream.read(expected), dtype)
    except DatasetError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"{file}: expected this file, found none") from error
    except (
        OSError,
        ValueError,
        TypeError,
        SyntaxError,
        EOFError,
        KeyError,
        MemoryError,
        RecursionError,
        TokenError,
    ) as error:
        raise DatasetError(
            f"{file}: expected a NumPy array [n, 17], found: {' '.join(str(error).split())[:120]}"
        ) from error
    return values.reshape(shape, order="F" if fortran else "C").astype(np.float64)
