"""Sparse points in PLY files, written as binary little endian and read as binary little endian or ASCII.

One element `vertex`: `x y z` (float or double), `red green blue` (uchar), and, optionally, `footprint` (float): the
radius in world units of the pixel cone that saw the point, which is what opens octree nodes.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "<i2", "int16": "<i2", "ushort": "<u2",
    "uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4", "float": "<f4", "float32": "<f4",
    "double": "<f8", "float64": "<f8",
}  # fmt: skip
_MAX_HEADER = 65536  # bytes; a header longer than this is not one


class DatasetError(ValueError):
    """A scene on disk that cannot be used; the message is one sentence: the file, the key, what was expected and
    found."""


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Sparse points of a scene. Raises `ValueError` when the arrays disagree in length or are not finite."""

    xyz: NDArray[np.float64]  # [n, 3] world units
    rgb: NDArray[np.uint8]  # [n, 3] sRGB
    footprint: NDArray[np.float64]  # [n] world units, > 0

    def __post_init__(self) -> None:
        n = len(self.xyz)
        if self.xyz.shape != (n, 3) or self.rgb.shape != (n, 3) or self.footprint.shape != (n,):
            raise ValueError(
                f"PointCloud: expected xyz [n, 3], rgb [n, 3], footprint [n], got {list(self.xyz.shape)}, "
                f"{list(self.rgb.shape)}, {list(self.footprint.shape)}"
            )
        if not (np.isfinite(self.xyz).all() and np.isfinite(self.footprint).all() and (self.footprint > 0).all()):
            raise ValueError("PointCloud: positions must be finite and footprints finite and positive")

    def __len__(self) -> int:
        return len(self.xyz)


def atomic_write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: a temporary file in the same folder, flushed to disk, renamed over the old
    one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_ply(path: Path, points: PointCloud) -> None:
    """Writes the points, positions and footprints as float32."""
    record = np.empty(
        len(points),
        [
            ("x", "<f4"),
            ("y", "<f4"),
            ("z", "<f4"),
            ("red", "u1"),
            ("green", "u1"),
            ("blue", "u1"),
            ("footprint", "<f4"),
        ],
    )
    for axis, name in enumerate("xyz"):
        record[name] = points.xyz[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        record[name] = points.rgb[:, channel]
    record["footprint"] = points.footprint
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n"
        "property float x\nproperty float y\nproperty float z\nproperty uchar red\nproperty uchar green\n"
        "property uchar blue\nproperty float footprint\nend_header\n"
    )
    atomic_write(path, header.encode("ascii") + record.tobytes())


def _parse_header(path: Path, raw: bytes) -> tuple[str, int, list[tuple[str, str]], int]:
    """(format, number of vertices, [(property, dtype)], offset of the body)."""
    if not raw.startswith(b"ply"):
        raise DatasetError(f"{path}: expected a PLY file that starts with 'ply', found {raw[:8]!r}")
    end = raw.find(b"end_header", 0, _MAX_HEADER)
    stop = raw.find(b"\n", end) if end >= 0 else -1
    if stop < 0:
        raise DatasetError(f"{path}: expected a PLY header closed by 'end_header', found none")
    fmt, count, element = "", -1, ""
    properties: list[tuple[str, str]] = []
    for line in raw[:end].decode("ascii", "replace").splitlines():
        words = line.split()
        if words[:1] == ["format"] and len(words) >= 2:
            fmt = words[1]
        elif words[:1] == ["element"] and len(words) == 3:
            element = words[1]
            if element == "vertex":
                if not (words[2].isdecimal() and len(words[2]) <= 18):
                    raise DatasetError(f"{path}: expected 'element vertex' with a count, found '{words[2]:.40}'")
                count = int(words[2])
            elif count < 0:
                raise DatasetError(f"{path}: expected 'vertex' as the first element, found '{element:.40}'")
        elif words[:1] == ["property"] and element == "vertex":
            if len(words) != 3 or words[1] not in _TYPES:
                raise DatasetError(f"{path}: expected scalar vertex properties, found '{line.strip():.80}'")
            properties.append((words[2], _TYPES[words[1]]))
    if fmt not in ("binary_little_endian", "ascii"):
        raise DatasetError(f"{path}: expected format binary_little_endian or ascii, found '{fmt:.40}'")
    names = [name for name, _ in properties]
    missing = [name for name in ("x", "y", "z") if name not in names]
    if count < 0 or missing or len(set(names)) != len(names):
        found = ", ".join(names) or "no vertex element"
        raise DatasetError(f"{path}: expected vertex properties x, y, z, each once, found {found:.200}")
    return fmt, count, properties, stop + 1


def read_ply(path: Path) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.float64] | None]:
    """Reads (xyz [n, 3], rgb [n, 3], footprint [n] or None). Raises `DatasetError` for a file that is not whole and
    sound.

    Points without colour come back mid-grey.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: expected a readable file of points, found: {error.strerror or error}") from error
    fmt, count, properties, offset = _parse_header(path, raw)
    dtype = np.dtype(properties)
    if fmt == "binary_little_endian":
        if len(raw) - offset < count * dtype.itemsize:
            whole = (len(raw) - offset) // dtype.itemsize
            raise DatasetError(f"{path}: expected {count} points, found {whole} whole ones: the file is truncated")
        table = np.frombuffer(raw, dtype, count, offset)
        columns = {name: table[name] for name in dtype.names or ()}
    else:
        try:
            lines = raw[offset:].decode("ascii", "replace").splitlines()[:count]
            values = np.array([[float(word) for word in line.split()] for line in lines], np.float64)
            values = values.reshape(len(lines), len(properties))
        except ValueError as error:
            raise DatasetError(
                f"{path}: expected {len(properties)} numbers on each line of a point, found other text"
            ) from error
        if len(values) < count:
            raise DatasetError(f"{path}: expected {count} points, found {len(values)}: the file is truncated")
        columns = {name: values[:, i] for i, (name, _) in enumerate(properties)}
    return _check_columns(path, columns, count)


def _check_columns(
    path: Path, columns: dict[str, NDArray], count: int
) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.float64] | None]:
    xyz = np.stack([columns[name] for name in "xyz"], axis=-1).astype(np.float64).reshape(count, 3)
    bad = int((~np.isfinite(xyz).all(axis=1)).sum())
    if bad:
        raise DatasetError(f"{path}: expected finite x, y, z, found {bad} points with NaN or infinity")
    rgb = np.full((count, 3), 128, np.uint8)
    if all(name in columns for name in ("red", "green", "blue")):
        rgb = np.stack([columns[name] for name in ("red", "green", "blue")], axis=-1)
        if not np.isfinite(rgb).all() or (count and (rgb.min() < 0 or rgb.max() > 255)):
            raise DatasetError(f"{path}: expected red, green, blue from 0 to 255, found values outside")
        rgb = rgb.astype(np.uint8)
    footprint = None
    if "footprint" in columns:
        footprint = columns["footprint"].astype(np.float64)
        if not (np.isfinite(footprint).all() and (footprint > 0).all()):
            raise DatasetError(f"{path}: expected positive finite 'footprint', found zero, negative, NaN or infinity")
    return xyz, rgb, footprint
