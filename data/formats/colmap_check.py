"""Holds COLMAP's binary files against their own counts before pycolmap reads them.

pycolmap (4.2) takes a count for granted: a truncated `points3D.bin` sends it round for ever, a truncated `cameras.bin`
gives cameras of whatever is in memory. This walks the records (layout: COLMAP's `reconstruction_io_binary.cc`) and
looks at nothing but counts and lengths.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path

from ..ply import DatasetError


class _Reader:
    """A position in a file's bytes that cannot leave them."""

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, 0
        self.raw: bytes | mmap.mmap = b""
        try:
            with path.open("rb") as file:  # mapped: images.bin of a large capture has gigabytes of 2D points
                if os.fstat(file.fileno()).st_size:
                    self.raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DatasetError(f"{path}: expected a readable file, found: {error.strerror or error}") from error

    def take(self, layout: str) -> tuple[int, ...]:
        size = struct.calcsize("<" + layout)
        self.skip(size)
        return struct.unpack_from("<" + layout, self.raw, self.at - size)

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self.raw):
            raise DatasetError(f"{self.path}: expected more than {len(self.raw)} bytes, found the end: it is truncated")

    def skip_name(self) -> None:
        end = self.raw.find(b"\0", self.at)
        self.skip((end if end >= 0 else len(self.raw)) + 1 - self.at)


def check_binary(folder: Path) -> None:
    """Raises `DatasetError` if a binary file of a model is truncated or has a camera model that pycolmap lacks."""
    for name, record in _RECORDS.items():
        path = folder / name
        if not path.exists() and name in ("rigs.bin", "frames.bin"):  # COLMAP before 3.12 has none
            continue
        reader = _Reader(path)
        (count,) = reader.take("Q")
        for _ in range(count):  # a hostile count ends with the file
            record(reader)


def _camera(reader: _Reader) -> None:
    import pycolmap

    identifier, model, width, height = reader.take("IiQQ")
    try:
        camera = pycolmap.Camera.create_from_model_id(identifier, pycolmap.CameraModelId(model), 1.0, 1, 1)
        n_params = len(camera.params)
    except (ValueError, TypeError, IndexError) as error:
        raise DatasetError(f"{reader.path}: expected a camera model of COLMAP, found number {model}") from error
    if not (1 <= width <= 1 << 20 and 1 <= height <= 1 << 20):
        raise DatasetError(f"{reader.path}: camera {identifier}: expected a size in pixels, found {width}x{height}")
    reader.skip(8 * n_params)


def _image(reader: _Reader) -> None:
    reader.skip(4 + 7 * 8 + 4)  # identifier, rotation and translation, camera
    reader.skip_name()
    (points,) = reader.take("Q")
    reader.skip(24 * points)


def _point(reader: _Reader) -> None:
    reader.skip(8 + 3 * 8 + 3 + 8)  # identifier, position, colour, error
    (length,) = reader.take("Q")
    reader.skip(8 * length)


def _rig(reader: _Reader) -> None:
    _, sensors = reader.take("II")
    if sensors:
        reader.skip(8)  # of the reference sensor, which has no pose
    for _ in range(sensors - 1):
        *_, has_pose = reader.take("iIB")
        reader.skip(7 * 8 if has_pose else 0)


def _frame(reader: _Reader) -> None:
    reader.skip(8 + 7 * 8)  # identifiers, pose
    (ids,) = reader.take("I")
    reader.skip(16 * ids)


_RECORDS: dict[str, Callable[[_Reader], None]] = {
    "cameras.bin": _camera,
    "images.bin": _image,
    "points3D.bin": _point,
    "rigs.bin": _rig,
    "frames.bin": _frame,
}
