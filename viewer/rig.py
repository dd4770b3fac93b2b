"""Where the person stands: a camera pose that keeps the horizon level, for any up axis.

Letters: `up` [3] the scene's unit up axis; `yaw`, `pitch`, `roll` in radians; `c2w` [4, 4] OpenCV camera to world.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera

MAX_PITCH = np.radians(89.5)  # straight up or down has no heading, so navigation stops just short of it


def level_axes(up: NDArray) -> NDArray[np.float64]:
    """Rows e0, e1, up: a right-handed frame whose third axis is `up`; yaw turns from e0 to e1.

    >>> level_axes(np.array([0.0, 0.0, 1.0])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    up = np.asarray(up, np.float64)
    length = np.linalg.norm(up)
    if up.shape != (3,) or not np.isfinite(length) or length < 1e-9:
        raise ValueError(f"level_axes: up must be a direction of 3 numbers, got {np.asarray(up).tolist()}")
    up = up / length
    helper = np.eye(3)[0] if abs(up[0]) < 0.9 else np.eye(3)[1]
    e0 = helper - up * (helper @ up)
    e0 /= np.linalg.norm(e0)
    return np.stack([e0, np.cross(up, e0), up])


def rotate(vector: NDArray, axis: NDArray, angle: float) -> NDArray[np.float64]:
    """`vector` [3] turned by `angle` radians about the unit `axis` [3] (Rodrigues).

    >>> rotate(np.array([1.0, 0, 0]), np.array([0, 0, 1.0]), np.pi / 2).round(9).tolist()
    [0.0, 1.0, 0.0]
    """
    cos, sin = np.cos(angle), np.sin(angle)
    return vector * cos + np.cross(axis, vector) * sin + axis * (axis @ vector) * (1 - cos)


@dataclass
class Rig:
    """A pose as a person thinks of it. `roll` is 0 unless a rolled pose was pasted; the first turn levels it again."""

    position: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))  # [3] world
    yaw: float = 0.0  # radians about `up`
    pitch: float = 0.0  # radians above the horizon
    roll: float = 0.0  # radians about the view axis
    fov_y: float = 50.0  # vertical field of view, degrees
    up: NDArray[np.float64] = field(default_factory=lambda: np.array([0.0, 0.0, 1.0]))  # [3] unit

    @classmethod
    def of(cls, camera: Camera, up: NDArray[np.float64]) -> Rig:
        """The pose of a camera in a scene whose up axis is `up` [3]."""
        rig = cls(fov_y=camera.fov_y, up=up)
        rig.set_c2w(camera.c2w)
        return rig

    @property
    def forward(self) -> NDArray[np.float64]:
        e0, e1, up = level_axes(self.up)
        return np.cos(self.pitch) * (np.cos(self.yaw) * e0 + np.sin(self.yaw) * e1) + np.sin(self.pitch) * up

    @property
    def right(self) -> NDArray[np.float64]:
        """The camera's +x; horizontal when there is no roll."""
        return self.c2w[:3, 0]

    @property
    def c2w(self) -> NDArray[np.float64]:
        """[4, 4] OpenCV camera to world."""
        e0, e1, _ = level_axes(self.up)
        forward = self.forward
        right = np.sin(self.yaw) * e0 - np.cos(self.yaw) * e1
        if self.roll:
            right = rotate(right, forward, self.roll)
        out = np.eye(4)
        out[:3, 0], out[:3, 1], out[:3, 2], out[:3, 3] = right, np.cross(forward, right), forward, self.position
        return out

    def set_c2w(self, c2w: NDArray) -> None:
        """Takes over a pose, roll included. Raises `ValueError` if it is not a rotation and a translation."""
        pose = Camera(c2w, 1.0, 1.0, 0.5, 0.5, 1, 1).c2w
        e0, e1, up = level_axes(self.up)
        forward = pose[:3, 2] / np.linalg.norm(pose[:3, 2])
        self.position = pose[:3, 3].copy()
        self.pitch = float(np.arcsin(np.clip(forward @ up, -1, 1)))
        if abs(forward @ up) < 1 - 1e-9:
            self.yaw = float(np.arctan2(forward @ e1, forward @ e0))
        else:  # straight up or down: the heading comes from the camera's right
            self.yaw = float(np.arctan2(pose[:3, 0] @ e0, -(pose[:3, 0] @ e1)))
        self.roll = 0.0
        level = self.c2w
        roll = float(np.arctan2(pose[:3, 0] @ level[:3, 1], pose[:3, 0] @ level[:3, 0]))
        self.roll = roll if abs(roll) > 1e-6 else 0.0

    def camera(self, width: int, height: int) -> Camera:
        """This pose as a camera of `width` x `height` pixels."""
        return Camera.from_fov(self.c2w, self.fov_y, width, height)

    def turn(self, yaw: float, pitch: float) -> None:
        """Looks further left (+yaw) and up (+pitch), radians; levels the horizon."""
        self.yaw = float((self.yaw + yaw + np.pi) % (2 * np.pi) - np.pi)
        self.pitch = float(np.clip(self.pitch + pitch, -MAX_PITCH, MAX_PITCH))
        self.roll = 0.0

    def orbit(self, pivot: NDArray, yaw: float, pitch: float) -> None:
        """Moves rigidly about `pivot` [3] (it keeps its place in the picture), radians; the horizon stays level."""
        self.roll = 0.0
        pitch = float(np.clip(pitch, -MAX_PITCH - self.pitch, MAX_PITCH - self.pitch))
        up = level_axes(self.up)[2]
        arm = rotate(self.position - pivot, self.right, pitch)
        self.position = pivot + rotate(arm, up, yaw)
        self.turn(yaw, pitch)

    def blended(self, other: Rig, amount: float) -> Rig:
        """The pose `amount` (0..1) of the way to `other`, turning the short way round."""
        turn = (other.yaw - self.yaw + np.pi) % (2 * np.pi) - np.pi
        mix = lambda a, b: a + (b - a) * amount  # noqa: E731
        return Rig(
            mix(self.position, other.position),
            float(self.yaw + turn * amount),
            mix(self.pitch, other.pitch),
            mix(self.roll, other.roll),
            mix(self.fov_y, other.fov_y),
            other.up.copy(),
        )

    def copy(self) -> Rig:
        return Rig(self.position.copy(), self.yaw, self.pitch, self.roll, self.fov_y, self.up.copy())
