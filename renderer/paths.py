"""Camera paths that a scene's box suggests: an orbit about it, and a spiral from high above down to the street.

Letters: n frames, s the position on the path in [0, 1], `up` the scene's unit up axis, e1, e2 the axes across it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera, look_at

Vector = NDArray[np.float64]

FOV_Y = 50.0  # degrees, the lens of a path unless told
EYE_HEIGHT = 0.02  # of the scene's height, where the spiral ends in a scene that has no cameras


class SceneFrame:
    """A scene's box seen along its own up axis: centre, axes and half sizes. Raises `ValueError` for a bad box or axis.

    >>> frame = SceneFrame({"aabb": [[0, 0, 0], [4, 2, 1]], "up": [0, 0, 1]})
    >>> frame.center.tolist(), round(frame.radius, 3), frame.half_height
    ([2.0, 1.0, 0.5], 2.236, 0.5)
    """

    def __init__(self, scene: Mapping[str, Any]) -> None:
        aabb = np.asarray(scene["aabb"], np.float64)  # [2, 3] minimum and maximum corner
        up = np.asarray(scene.get("up", (0.0, 0.0, 1.0)), np.float64)  # [3]
        if aabb.shape != (2, 3) or not np.isfinite(aabb).all() or not (aabb[1] > aabb[0]).all():
            raise ValueError(f'scene["aabb"] must be [2, 3], minimum below maximum, got {aabb.tolist()}')
        if up.shape != (3,) or not np.isfinite(up).all() or np.linalg.norm(up) < 1e-6:
            raise ValueError(f'scene["up"] must be [3] and not zero, got {up.tolist()}')
        self.up: Vector = up / np.linalg.norm(up)
        first = np.eye(3)[np.argmin(np.abs(self.up))]
        self.e1: Vector = first - self.up * (first @ self.up)
        self.e1 /= np.linalg.norm(self.e1)
        self.e2: Vector = np.cross(self.up, self.e1)
        self.center: Vector = aabb.mean(axis=0)
        corners = np.array([[aabb[b >> a & 1, a] for a in range(3)] for b in range(8)]) - self.center  # [8, 3]
        height = corners @ self.up
        self.half_height = float(height.max())
        self.radius = float(np.linalg.norm(corners - height[:, None] * self.up, axis=1).max())  # of the footprint

    def radial(self, angle: float) -> Vector:
        """The unit vector across `up` at an angle in radians, anticlockwise seen from above."""
        return np.cos(angle) * self.e1 + np.sin(angle) * self.e2

    def angle(self, direction: Vector) -> float:
        """The angle of a direction, the inverse of `radial`; 0 for one along `up`."""
        return float(np.arctan2(direction @ self.e2, direction @ self.e1))


def orbit(
    scene: Mapping[str, Any],
    n_frames: int,
    width: int = 1280,
    height: int = 720,
    fov_y: float = FOV_Y,  # degrees
    elevation: float = 32.0,  # degrees above the horizon
    start: float = -np.pi / 4,  # radians
) -> list[Camera]:
    """One turn about the middle of the scene at a constant height. Frame n is frame 0 again: the loop is seamless.

    >>> cameras = orbit({"aabb": [[-1, -1, 0], [1, 1, 1]], "up": [0, 0, 1]}, 4, 64, 48)
    >>> len({round(float(c.position[2]), 6) for c in cameras})
    1
    """
    check_frames(n_frames)
    frame = SceneFrame(scene)
    distance = framing_distance(frame, width, height, fov_y)
    tilt = np.radians(elevation)
    # A little below the middle: a scene stands on its ground, and most of what there is to see is down there.
    target = frame.center - 0.3 * frame.half_height * frame.up
    cameras = []
    for angle in start + 2 * np.pi * np.arange(n_frames) / n_frames:
        eye = target + distance * (np.cos(tilt) * frame.radial(angle) + np.sin(tilt) * frame.up)
        cameras.append(Camera.from_fov(look_at(eye, target, frame.up), fov_y, width, height))
    return cameras


def spiral(
    scene: Mapping[str, Any],
    n_frames: int,
    width: int = 1280,
    height: int = 720,
    fov_y: float = FOV_Y,  # degrees
    turns: float = 1.5,
) -> list[Camera]:
    """From high above down to the street: height and radius shrink together, the gaze lifts from the ground to ahead.

    It ends at the lowest, most central camera that the scene was trained from, so that it never ends inside a wall; in
    a scene without cameras it ends just above the ground in the middle. Height falls by equal factors in equal times:
    the level of detail then changes at a constant rate.
    """
    check_frames(n_frames)
    frame = SceneFrame(scene)
    end, ahead, end_pitch = street(scene, frame)
    far = 1.1 * framing_distance(frame, width, height, fov_y)
    ground = float((frame.center - end) @ frame.up) - frame.half_height  # of the scene's floor over `end`, negative
    end_height = max(-ground, 1e-3 * frame.radius)  # of the last eye over the floor
    end_angle = frame.angle(-ahead)
    gaze = 0.25 * frame.radius  # how far ahead the last frame looks
    floor = end + ground * frame.up
    cameras = []
    for s in _ease(np.linspace(0.0, 1.0, n_frames)):
        eye_height = end_height * (far / end_height) ** (1 - s)
        # The radius is a fixed share of the height still to lose: near the ground the path is all but vertical.
        radius = 0.6 * (eye_height - end_height)
        radial = frame.radial(end_angle - 2 * np.pi * turns * (1 - s) ** 2)
        eye = floor + radius * radial + eye_height * frame.up
        # Never straight down: the target stands across the axis from the eye.
        rise = end_height + np.tan(end_pitch) * gaze
        target = floor - (gaze * s + 0.05 * frame.radius * (1 - s)) * radial + s**3 * rise * frame.up
        cameras.append(Camera.from_fov(look_at(eye, target, frame.up), fov_y, width, height))
    return cameras


def home_camera(
    scene: Mapping[str, Any],
    view: Mapping[str, Any] | None,  # the checkpoint's "view"
    width: int,
    height: int,
) -> Camera:
    """Where a viewer starts: the checkpoint's own camera, with its vertical field of view, or else the orbit's first.

    >>> home_camera({"aabb": [[-1, -1, 0], [1, 1, 1]], "up": [0, 0, 1]}, None, 64, 48).width
    64
    """
    entry = (view or {}).get("camera")
    if entry is None:
        return orbit(scene, 1, width, height)[0]
    numbers = (entry[key] for key in ("fx", "fy", "cx", "cy", "width", "height"))
    saved = Camera(np.asarray(entry["c2w"], np.float64), *numbers)
    return Camera.from_fov(saved.c2w, saved.fov_y, width, height)


def check_frames(n_frames: int) -> None:
    """Raises `ValueError` for a path without frames."""
    if n_frames < 1:
        raise ValueError(f"a camera path needs at least 1 frame, got {n_frames}")


def framing_distance(frame: SceneFrame, width: int, height: int, fov_y: float) -> float:
    """From where the scene's footprint just about fills the narrower side of the image, in world units."""
    half = np.radians(fov_y) / 2
    narrow = min(half, np.arctan(np.tan(half) * width / height))
    return 0.75 * frame.radius / float(np.tan(narrow)) + frame.half_height


def street(scene: Mapping[str, Any], frame: SceneFrame) -> tuple[Vector, Vector, float]:
    """The lowest, most central of the scene's cameras: position [3], direction across `up` [3], pitch in radians
    (above the horizon positive)."""
    poses = [np.asarray(entry["c2w"], np.float64) for entry in scene.get("cameras") or ()]
    if not poses:
        lift = EYE_HEIGHT * 2 * frame.half_height - frame.half_height
        return frame.center + lift * frame.up, frame.e1, 0.0
    offsets = np.stack([pose[:3, 3] for pose in poses]) - frame.center  # [n, 3]
    heights = offsets @ frame.up
    across = np.linalg.norm(offsets - heights[:, None] * frame.up, axis=1)
    low = heights <= np.quantile(heights, 0.1)
    pose = poses[int(np.argmin(np.where(low, across, np.inf)))]
    forward = pose[:3, 2]
    rise = float(np.clip(forward @ frame.up, -0.5, 0.5))
    return pose[:3, 3], frame.radial(frame.angle(forward)), float(np.arcsin(rise))


def _ease(s: Vector) -> Vector:
    """Starts and ends at rest (smoothstep)."""
    return s * s * (3 - 2 * s)
