"""Similarities between coordinates: a rotation times one positive scale, and a translation, as a matrix [4, 4]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def scale_of(transform: NDArray[np.float64]) -> float:
    """The factor by which a similarity enlarges.

    >>> round(scale_of(np.diag([2.0, 2.0, 2.0, 1.0])), 12)
    2.0
    """
    scale = float(np.cbrt(np.linalg.det(transform[:3, :3])))
    return 1.0 if abs(scale - 1) < 1e-12 else scale


def inverse(transform: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of a similarity, exact to rounding.

    >>> round(float(inverse(np.diag([2.0, 2.0, 2.0, 1.0]))[0, 0]), 12)
    0.5
    """
    result = np.eye(4)
    result[:3, :3] = transform[:3, :3].T / scale_of(transform) ** 2
    result[:3, 3] = -result[:3, :3] @ transform[:3, 3]
    return result


def move_points(transform: NDArray[np.float64], xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points [n, 3] in other coordinates."""
    return xyz @ transform[:3, :3].T + transform[:3, 3]


def move_pose(transform: NDArray[np.float64], c2w: NDArray[np.float64]) -> NDArray[np.float64]:
    """A pose [4, 4] in other coordinates; the pose stays rigid whatever the scale."""
    if np.array_equal(transform, np.eye(4)):
        return c2w
    pose = transform @ c2w
    pose[:3, :3] /= scale_of(transform)
    return pose


def place_of(scene: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """From the capture's own coordinates to the scene's [4, 4], as a checkpoint's `scene` says; None: they are one."""
    return np.array(scene["transform"], np.float64) if "transform" in scene else None
