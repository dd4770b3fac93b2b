"""The paths that have a name: orbit, turntable, spiral, powers of ten, along the cameras; and those of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..models.camera import Camera, look_at
from ..models.similarity import place_of
from .key_path import KeyFrame, KeyPath, Shot
from .path_files import read_path
from .paths import FOV_Y, SceneFrame, Vector, check_frames, framing_distance, orbit, spiral, street
from .resolve import SceneModel

POWERS_ELEVATION = 50.0  # degrees above the horizon, from which powers of ten looks at its point
MOST_KEYS = 200  # training cameras that a path goes through


def turntable(
    model: SceneModel,
    n_frames: int,
    width: int = 1280,
    height: int = 720,
    fov_y: float = FOV_Y,  # degrees
    elevation: float = 12.0,  # degrees above the horizon
) -> list[Camera]:
    """One turn around the middle of the scene, seen from just above its horizon and whole: as if it stood on a disc.

    Raises `ValueError` for fewer than 1 frame.
    """
    check_frames(n_frames)
    frame = SceneFrame(model.scene)
    tilt = np.radians(elevation)
    distance = 4 / 3 * framing_distance(frame, width, height, fov_y)  # the footprint's far rim is in the picture too
    cameras = []
    for angle in 2 * np.pi * np.arange(n_frames) / n_frames:
        eye = frame.center + distance * (np.cos(tilt) * frame.radial(angle) + np.sin(tilt) * frame.up)
        cameras.append(Camera.from_fov(look_at(eye, frame.center, frame.up), fov_y, width, height))
    return cameras


def powers_of_ten(
    model: SceneModel,
    n_frames: int,
    width: int = 1280,
    height: int = 720,
    fov_y: float = FOV_Y,  # degrees
    point: Vector | None = None,  # [3] world, what stays in the middle; None: below the most central street camera
) -> list[Camera]:
    """Towards a point, by equal factors in equal times: from where a pixel's footprint on it is the root's GSD to where
    it is the finest level's. Each level of the octree is then shown for the same time.

    Raises `ValueError` for fewer than 1 frame or a point that is not [3].
    """
    check_frames(n_frames)
    frame = SceneFrame(model.scene)
    if point is None:
        end, ahead, _ = street(model.scene, frame)
        point = end + ((frame.center - end) @ frame.up - frame.half_height) * frame.up
        side = -ahead
    else:
        point = np.asarray(point, np.float64)
        side = frame.radial(-np.pi / 4)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise ValueError(f"powers of ten: the point must be [3] and finite, got {point.tolist()}")
    tilt = np.radians(POWERS_ELEVATION)
    away = np.cos(tilt) * side + np.sin(tilt) * frame.up
    # A pixel's cone has the radius t * sqrt(1 / (pi * f**2)) at distance t (design, section 4).
    focal = 0.5 * height / np.tan(np.radians(fov_y) / 2)
    far, near = (float(model.gsd(level)) * focal * np.sqrt(np.pi) for level in (0, model.octree.depth))
    cameras = []
    for s in np.linspace(0.0, 1.0, n_frames):
        eye = point + far * (near / far) ** s * away
        cameras.append(Camera.from_fov(look_at(eye, point, frame.up), fov_y, width, height))
    return cameras


def along_cameras(model: SceneModel, n_frames: int, width: int = 1280, height: int = 720) -> list[Camera]:
    """Through the training cameras in their order, with their fields of view, at constant speed.

    Of more than `MOST_KEYS` cameras evenly chosen ones. Raises `ValueError` for a scene without cameras.
    """
    check_frames(n_frames)
    entries = model.scene["cameras"]
    if not entries:
        raise ValueError("the checkpoint holds no training cameras to go along")
    chosen = np.linspace(0, len(entries) - 1, min(len(entries), MOST_KEYS)).round().astype(int)
    keys = []
    for index in chosen.tolist():
        entry = entries[index]
        fov_y = np.degrees(2 * np.arctan(0.5 * entry["height"] / entry["fy"]))
        keys.append(KeyFrame(np.array(entry["c2w"], np.float64), float(np.clip(fov_y, 0.1, 175))))
    return [shot.camera for shot in KeyPath(keys, constant_speed=True).shots(n_frames, width, height)]


PRESETS: dict[str, Callable[..., list[Camera]]] = {
    "orbit": lambda model, *size: orbit(model.scene, *size),
    "turntable": turntable,
    "spiral": lambda model, *size: spiral(model.scene, *size),
    "powers": powers_of_ten,
    "cameras": along_cameras,
}


def make_shots(path: str, model: SceneModel, n_frames: int | None, width: int, height: int) -> list[Shot]:
    """The frames of a preset, or of a file that `path_files.read_path` reads, in the checkpoint's scene.

    `n_frames` None: as many as the file's own duration and rate ask for, of a preset 120. Raises `ValueError` for a
    name that is neither, and as the presets do; `CommandError` for a bad file.
    """
    if path in PRESETS:
        return [Shot(camera) for camera in PRESETS[path](model, 120 if n_frames is None else n_frames, width, height)]
    file = Path(path)
    if not file.suffix and not file.is_file():
        raise ValueError(f"the path must be one of {', '.join(PRESETS)}, or a file, got {path!r}")
    keys = read_path(file, place_of(model.scene))
    return keys.shots(keys.n_frames if n_frames is None else n_frames, width, height)
