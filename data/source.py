"""What every reader of a format hands over, and the checks that all of them share.

A reader looks at text and numbers only; images are opened by `data.dataset`, for the split that is asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.camera import OPENGL_FLIP, Camera
from .ply import DatasetError

LARGEST = 1e9  # world units or pixels; an octree's root is no larger either
RIGID = 1e-3  # how far a rotation may be from orthonormal and still be meant as one
ROUNDED = 1e-5  # how far one may be after rounding to float32
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
_ENDINGS = ("", *IMAGE_SUFFIXES, ".PNG", ".JPG", ".JPEG")
_SIZE_ERROR = 0.01  # by which the two sides of an image that was made smaller may disagree


class FrameError(ValueError):
    """One image that cannot be used while others can; the message is a phrase: 'with a pose that is not finite'."""


@dataclass(frozen=True)
class Lens:
    """Intrinsics as a format states them: in pixels of an image of `size`, or of the image itself if that is None.

    `focal` None: it follows from `angle`, the full horizontal and vertical field of view in radians (0: not given).
    `center` None: the middle of the image. `distortion` and `kind` are `Camera`'s `distortion` and `lens`.
    """

    focal: tuple[float, float] | None
    center: tuple[float | None, float | None] = (None, None)
    size: tuple[int, int] | None = None
    distortion: tuple[float, ...] = ()
    kind: str = "perspective"
    angle: tuple[float, float] = (0.0, 0.0)

    def camera(self, c2w: NDArray, width: int, height: int) -> Camera:
        """The camera of an image of this size. An image that is a smaller or larger copy of the one that `size` tells
        of scales the intrinsics; any other size raises `FrameError`."""
        w, h = self.size or (width, height)
        sx, sy = width / w, height / h
        if (width, height) != (w, h) and abs(sx / sy - 1) > _SIZE_ERROR + 1 / min(width, height):
            raise FrameError("of another size than their cameras say")
        fx, fy = self.focal or self._from_angle(w, h)
        cx, cy = (middle / 2 if c is None else c for c, middle in zip(self.center, (w, h), strict=True))
        try:
            return Camera(c2w, fx * sx, fy * sy, cx * sx, cy * sy, width, height, self.distortion, self.kind)
        except (ValueError, OverflowError) as error:
            raise FrameError(f"whose camera makes no sense ({error})") from error

    def scaled(self, width: int, height: int) -> bool:
        """Whether an image of this size is not of the size that the intrinsics are for."""
        return self.size is not None and self.size != (width, height)

    def _from_angle(self, width: int, height: int) -> tuple[float, float]:
        x, y = (0.5 * side / math.tan(a / 2) if a else 0.0 for side, a in zip((width, height), self.angle, strict=True))
        return x or y, y or x


@dataclass
class Frame:
    """One image of a source."""

    name: str
    image: Path | None  # None: no such file
    c2w: NDArray[np.float64]  # [4, 4] rigid, OpenCV axes, the stored coordinates
    lens: Lens
    split: str | None = None  # "train", "val", "test"; None where the data do not say
    mask: Path | None = None
    weight: float = 1.0  # of its pixels' loss
    near_far: tuple[float, float] | None = None  # depths between which it sees the scene


@dataclass
class Source:
    """A scene as a format stores it."""

    path: Path
    cameras_file: Path  # that names the images
    frames: list[Frame] = field(default_factory=list)
    xyz: NDArray[np.float64] | None = None  # [n, 3] points, the stored coordinates
    rgb: NDArray[np.uint8] | None = None  # [n, 3]
    footprint: NDArray[np.float64] | None = None  # [n]
    scene: dict[str, Any] = field(default_factory=dict)  # what the data say of: up, unit, aabb, root_corner, root_size
    scene_file: Path | None = None
    capture: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))  # the capture's to the stored coordinates
    moved: bool = False  # whether the scene is to be turned upright and centred
    held_out_by_format: bool = False  # every eighth image is the test split by convention, however few there are
    skipped: dict[str, list[str]] = field(default_factory=dict)  # why -> names
    warnings: list[str] = field(default_factory=list)

    def skip(self, reason: str, name: str) -> None:
        self.skipped.setdefault(reason, []).append(name)

    def add(self, frame: Frame, names: set[str]) -> None:
        """Adds a frame, unless one of the same name, or of the same file, is there already."""
        key = str(frame.image) if frame.image else f"{frame.split}:{frame.name}"
        if key in names:
            self.skip("named twice", frame.name)
            return
        names.add(key)
        self.frames.append(frame)


def shown(names: list[str]) -> str:
    """Names for a sentence, eight at most.

    >>> shown(["a", "b"])
    'a, b'
    """
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise KeyError(key)
        value[key] = item
    return value


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `DatasetError`, also where a key stands twice in an object."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: expected this file, found none") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: expected readable UTF-8 text, found: {error}") from error
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except KeyError as error:
        raise DatasetError(f"{path}: expected every key once, found {str(error)[:80]} twice") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: expected JSON, found text that is not: {error}") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def number(path: Path, key: str, value: Any, low: float = -LARGEST, high: float = LARGEST) -> float:
    """A finite number within [low, high]. Raises `DatasetError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise DatasetError(f"{path}: key '{key}': expected a number from {low:g} to {high:g}, found {value!r:.80}")
    return float(value)


def array(path: Path, key: str, value: Any, shape: tuple[int, ...], what: str = "") -> NDArray[np.float64]:
    """Finite numbers of this shape. Raises `DatasetError`."""
    result = loose_array(value)
    what = what or f"{'x'.join(map(str, shape))} finite numbers"
    if result.shape != shape or not np.isfinite(result).all():
        raise DatasetError(f"{path}: key '{key}': expected {what}, found {value!r:.120}")
    return result


def loose_array(value: Any) -> NDArray[np.float64]:
    """Numbers of any shape; an empty array where the value is none of numbers."""
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.empty(0)


def rigid(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The pose [4, 4] nearest to a matrix [3, 4] or [4, 4], which may scale evenly, as a camera in Blender may, and may
    have been rounded; one that is rigid to float32's precision is kept to the last digit. Raises `FrameError` for one
    that is not finite, mirrored or skewed."""
    if not np.isfinite(matrix).all() or np.abs(matrix[:3, 3]).max() > LARGEST:
        raise FrameError("with a pose that is not finite")
    if len(matrix) == 4 and np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise FrameError("with a pose whose last row is not 0 0 0 1")
    turn = matrix[:3, :3]
    scale = float(np.abs(turn).max())
    size = float(np.cbrt(np.linalg.det(turn / scale))) * scale if scale > 0 else 0.0
    if not 1e-6 < size < 1e6:
        raise FrameError("with a pose that is mirrored or flat")
    u, s, vt = np.linalg.svd(turn / size)
    if np.abs(s - 1).max() > RIGID:
        raise FrameError("with a pose that is not a rotation")
    pose = np.eye(4)
    exact = np.abs(turn @ turn.T - np.eye(3)).max() <= ROUNDED
    pose[:3, :3], pose[:3, 3] = turn if exact else u @ vt, matrix[:3, 3]
    return pose


def inverse_pose(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse [4, 4] of a pose, such that inverting twice gives the pose back even if it was rounded.

    >>> inverse_pose(np.array([[1, 0, 0, 2.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))[:, 3].tolist()
    [-2.0, 0.0, 0.0, 1.0]
    """
    turn, result = pose[:3, :3], np.eye(4)
    rounded = np.abs(turn @ turn.T - np.eye(3)).max() > 1e-14
    result[:3, :3] = np.linalg.inv(turn) if rounded else turn.T
    result[:3, 3] = -result[:3, :3] @ pose[:3, 3] + 0.0  # no negative zeros in files
    return result


def opengl_pose(path: Path, key: str, value: Any) -> NDArray[np.float64]:
    """The OpenCV pose of a camera-to-world matrix in OpenGL axes. Raises `DatasetError` where it is no 4x4 (or 3x4)
    matrix of numbers, `FrameError` where it is no pose."""
    matrix = loose_array(value)
    if matrix.shape not in ((4, 4), (3, 4)):
        found = list(matrix.shape) if matrix.size else "no matrix of numbers"
        raise DatasetError(f"{path}: {key}: expected a 4x4 matrix, found {found}")
    return rigid(matrix) @ OPENGL_FLIP


def find_file(folder: Path, name: str, endings: tuple[str, ...] = _ENDINGS, inside: bool = False) -> Path | None:
    """The file that a data set names, whose ending may be left out.

    A path of another machine, `/home/me/fox/images/1.jpg` or `C:\\fox\\images\\1.jpg`, is looked for below the folder
    by its last parts, then in images/. `inside`: a name that leaves the folder names nothing.
    """
    if "\0" in name:
        return None
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".")]
    if inside and (".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()):
        return None
    candidates = [folder / name]
    if not inside and ("\\" in name or PurePosixPath(name).is_absolute()):
        candidates += [folder.joinpath(*parts[i:]) for i in range(max(0, len(parts) - 8), len(parts))]
        candidates += [folder / "images" / part for part in parts[-1:]]
    for path in candidates:
        for ending in endings:
            file = path.with_name(path.name + ending) if ending and path.name else path
            try:
                if file.is_file():
                    return file
            except (OSError, ValueError):  # a name too long, or with characters that no file can have
                return None
    return None


def relative_name(root: Path, image: Path | None, name: str) -> str:
    """What an image is called: its path below the data folder, with `/`; its last part where it lies elsewhere."""
    if image is None:
        return name
    try:
        return image.relative_to(root).as_posix()
    except ValueError:
        return image.name
