"""Where a scene is put, and how large it is: its transform, its box, its root cube."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from ..models.similarity import move_points, move_pose, scale_of
from .ply import DatasetError, PointCloud
from .source import FrameError, Source, array, number
from .transform import (
    OUTLIERS,
    frustum_box,
    look_at_box,
    look_at_point,
    moved_box,
    turn_up,
    up_of,
)

MARGIN = 0.05  # of the extent, on each side of a root cube that is made from a box
SMALLEST, LARGEST = 1e-6, 1e9  # of a root cube, as of an `Octree`


def placement(source: Source) -> NDArray[np.float64]:
    """Stored coordinates to ours, [4, 4]: up is +z, the middle of the scene is the origin, lengths stay.

    By all the source's frames, so that every split lies in the same place. Data that say themselves where they lie
    (InfNeRF's, Blender's) stay there.
    """
    place = np.eye(4)
    if not source.moved or not source.frames:
        return place
    c2ws = np.stack([frame.c2w for frame in source.frames])
    place[:3, :3] = turn_up(up_of(c2ws))
    depths = [math.sqrt(math.prod(frame.near_far)) for frame in source.frames if frame.near_far]
    if source.xyz is not None:
        center = np.percentile(move_points(place, source.xyz), OUTLIERS, axis=0).mean(axis=0)
    elif "aabb" in source.scene:
        center = place[:3, :3] @ np.mean(source.scene["aabb"], axis=0)
    elif len(depths) == len(c2ws):
        center = place[:3, :3] @ (c2ws[:, :3, 3] + c2ws[:, :3, 2] * np.array(depths)[:, None]).mean(axis=0)
    else:
        center = place[:3, :3] @ look_at_point(c2ws)
    place[:3, 3] = -center
    return place


def describe_scene(
    source: Source,
    place: NDArray[np.float64],  # [4, 4] stored coordinates to ours
    one: Camera,  # whose image's size stands for the images that were not opened, where the data tell none
    points: PointCloud | None,
) -> dict[str, Any]:
    """`Dataset.scene`, but for its transform: up, unit, aabb, root_corner, root_size; the same for every split. Raises
    `DatasetError` that names the key."""
    path = source.scene_file or source.cameras_file
    scene: dict[str, Any] = {"up": [0.0, 0.0, 1.0], "unit": "unit", **source.scene}
    up = array(path, "up", scene["up"], (3,))
    if np.linalg.norm(up) < 1e-6:
        raise DatasetError(f"{path}: key 'up': expected a direction, found {scene['up']}")
    told = _told_box(source, scene)
    if told is not None and not np.array_equal(place, np.eye(4)):
        if source.moved:  # a cube that is turned stays a cube about its middle
            middle, half = move_points(place, told.mean(axis=0)[None])[0], (told[1] - told[0]) / 2 * scale_of(place)
            told = np.stack([middle - half, middle + half])
        else:
            told = moved_box(place, told)
            scene["up"] = (place[:3, :3] @ up / scale_of(place)).tolist()
        scene = {key: value for key, value in scene.items() if key not in ("root_corner", "root_size")}
    if points is not None and (told is None or source.moved):
        told = np.percentile(points.xyz, OUTLIERS, axis=0)
    elif told is None:
        told = _seen_box(source, place, one)
    lo, hi = told
    if not (hi > lo).any() or (hi < lo).any() or not np.isfinite(told).all():
        raise DatasetError(f"{path}: key 'aabb': expected a box with a size, minimum first, found {told.tolist()}")
    scene["aabb"] = told.tolist()
    if "root_corner" not in scene or "root_size" not in scene:
        size = float((hi - lo).max()) * (1 + 2 * MARGIN)
        if not SMALLEST <= size <= LARGEST:
            raise DatasetError(f"{path}: expected a scene of {SMALLEST:g} to {LARGEST:g} units, found {size:g}")
        scene["root_size"], scene["root_corner"] = size, ((lo + hi) / 2 - size / 2).tolist()
    return scene


def _seen_box(source: Source, place: NDArray[np.float64], one: Camera) -> NDArray[np.float64]:
    """The box [2, 3] that all cameras look at, by their depths where the data tell those."""
    cameras, depths = [], []
    for frame in source.frames:
        with contextlib.suppress(FrameError):  # was said when its image was opened
            size = frame.lens.size or (one.width, one.height)
            cameras.append(frame.lens.camera(move_pose(place, frame.c2w), *size))
            depths += [frame.near_far] if frame.near_far else []
    cameras = cameras or [one]
    return frustum_box(cameras, np.array(depths)) if len(depths) == len(cameras) else look_at_box(cameras)


def _told_box(source: Source, scene: dict[str, Any]) -> NDArray[np.float64] | None:
    """The box [2, 3] that the data tell, in stored coordinates; the root cube where there is nothing else."""
    path = source.scene_file or source.cameras_file
    cube = None
    if "root_corner" in scene:
        array(path, "root_corner", scene["root_corner"], (3,))
    if "root_size" in scene:
        size = scene["root_size"]
        if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < math.inf:
            raise DatasetError(f"{path}: key 'root_size': expected a positive number, found {size!r:.80}")
        number(path, "root_size", size, SMALLEST, LARGEST)
        if "root_corner" in scene:
            corner = np.array(scene["root_corner"], np.float64)
            cube = np.stack([corner, corner + size])
    if "aabb" in scene:
        return array(path, "aabb", scene["aabb"], (2, 3))
    return cube if source.xyz is None else None
