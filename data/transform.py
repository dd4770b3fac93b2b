"""Where a scene lies: up from the cameras, and the part of space that they look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from ..models.similarity import move_points, scale_of
from .ply import DatasetError
from .source import LARGEST, RIGID, FrameError, rigid

OUTLIERS = (0.5, 99.5)  # percentiles of the points that a box made from them keeps
_PARALLEL = 0.01  # eigenvalue below which optical axes do not say where they meet: all within about 6 degrees
_FAR = 4.0  # spreads of the cameras: how far ahead a scene is put when nothing tells


def check_similarity(where: str, value: NDArray[np.float64]) -> NDArray[np.float64]:
    """`value` [4, 4] or [3, 4] as a similarity [4, 4]. Raises `DatasetError`: '{where}: expected ...'."""
    try:
        if value.shape not in ((4, 4), (3, 4)) or np.abs(value).max() > LARGEST:
            raise FrameError("")
        pose = rigid(value)
        scale = scale_of(value)
        if abs(scale - 1) > RIGID / 1000:
            pose[:3, :3] *= scale
    except FrameError:
        raise DatasetError(
            f"{where}: expected a 4x4 similarity (a rotation, one scale, a translation), found another matrix"
        ) from None
    return pose


def up_of(c2ws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Which way is up, [3], from poses [n, 4, 4] in OpenCV axes.

    People and drones hold cameras level: up is what the images' horizontal axes are least along. Where those do not
    tell (all cameras look one way), it is the mean of the cameras' own up, or away from where they look.
    """
    right, own, back = c2ws[:, :3, 0], -c2ws[:, :3, 1].mean(axis=0), -c2ws[:, :3, 2].mean(axis=0)
    values, vectors = np.linalg.eigh(right.T @ right / len(right))
    if values[1] > 0.1 and values[0] < 0.2 * values[1]:
        level = vectors[:, 0]
        sign = own @ level if abs(own @ level) > 0.05 else back @ level
        return level if sign >= 0 else -level
    for direction, least in ((own, 0.3), (back, 0.5), (own, 1e-3)):
        length = float(np.linalg.norm(direction))
        if length > least:
            return direction / length
    return np.array([0.0, 0.0, 1.0])


def turn_up(up: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shortest rotation [3, 3] that takes `up` [3], of length 1, to +z.

    >>> (turn_up(np.array([0.0, 1.0, 0.0])) @ [0, 1, 0]).round(12).tolist()
    [0.0, 0.0, 1.0]
    """
    x, y, z = up
    if z < -1 + 1e-12:
        return np.diag([1.0, -1.0, -1.0])
    # Rodrigues' formula for the axis up x z; 1 / (1 + cos) = (1 - cos) / sin^2
    k = 1 / (1 + z)
    turn = np.array([[1 - k * x * x, -k * x * y, -x], [-k * x * y, 1 - k * y * y, -y], [x, y, 1 - k * (x * x + y * y)]])
    u, _, vt = np.linalg.svd(turn)  # a rotation to the last digit, so that its transpose is its inverse
    return u @ vt


def look_at_point(c2ws: NDArray[np.float64]) -> NDArray[np.float64]:
    """The point [3] nearest to all optical axes, by least squares; ahead of the cameras where the axes do not meet
    (parallel, or looking outwards: then amid the cameras)."""
    position, forward = c2ws[:, :3, 3], c2ws[:, :3, 2]
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    middle = position.mean(axis=0)
    system = across.mean(axis=0)
    spread = float(np.linalg.norm(position - middle, axis=1).max()) if len(position) > 1 else 1.0
    if np.linalg.eigvalsh(system)[0] < _PARALLEL:
        return middle + forward.mean(axis=0) * _FAR * (spread or 1.0)
    point = np.linalg.solve(system, (across @ (position - middle)[:, :, None])[:, :, 0].mean(axis=0)) + middle
    return point if np.median(((point - position) * forward).sum(axis=1)) > 0 else middle


def look_at_box(cameras: Sequence[Camera]) -> NDArray[np.float64]:
    """The cube [2, 3] that the cameras show whole: around their common point, as wide as their images are there."""
    c2ws = np.stack([camera.c2w for camera in cameras])
    point = look_at_point(c2ws)
    offset = point - c2ws[:, :3, 3]
    distance = np.linalg.norm(offset, axis=1)
    if np.median((offset * c2ws[:, :3, 2]).sum(axis=1)) <= 0:  # looking outwards: all around the cameras
        half = _FAR * float(distance.max())
    else:
        reach = [max(camera.width / camera.fx, camera.height / camera.fy) / 2 for camera in cameras]
        half = float(np.median(distance * np.minimum(reach, 1.0)))
    half = half if half > 1e-6 else 1.0
    return np.stack([point - half, point + half])


def frustum_box(cameras: Sequence[Camera], near_far: NDArray[np.float64]) -> NDArray[np.float64]:
    """The box [2, 3] around what the cameras see between their nearest and farthest depths [n, 2], outliers cut."""
    corners = []
    for camera, depths in zip(cameras, near_far, strict=True):
        x, y = np.array([(0, 0), (camera.width, 0), (0, camera.height), (camera.width, camera.height)], np.float64).T
        local = np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones(4)], axis=-1)
        corners += [camera.position + depth * local @ camera.c2w[:3, :3].T for depth in depths]
    return np.percentile(np.concatenate(corners), OUTLIERS, axis=0)


def moved_box(transform: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """The box [2, 3] around a box in other coordinates."""
    corners = np.stack(np.meshgrid(*box.T, indexing="ij"), axis=-1).reshape(-1, 3)
    moved = move_points(transform, corners)
    return np.stack([moved.min(axis=0), moved.max(axis=0)])
