"""Unit quaternions (w, x, y, z) for camera paths: to and from rotations, slerp (Shoemake 1985)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SMALL = 1e-8  # radians, below which an angle's sine is the angle


def from_matrix(rotations: Array) -> Array:
    """Rotations [..., 3, 3] -> quaternions [..., 4] with w >= 0.

    The eigenvector of the largest eigenvalue of Bar-Itzhack's matrix: no branch, and the nearest for a matrix that is
    not quite a rotation.

    >>> from_matrix(np.eye(3)).tolist()
    [1.0, 0.0, 0.0, 0.0]
    """
    m = np.asarray(rotations, np.float64)
    k = np.zeros((*m.shape[:-2], 4, 4))
    skew = np.stack([m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], -1)
    trace = np.trace(m, axis1=-2, axis2=-1)
    k[..., 0, 0] = trace
    k[..., 0, 1:] = k[..., 1:, 0] = skew
    k[..., 1:, 1:] = m + np.swapaxes(m, -1, -2) - trace[..., None, None] * np.eye(3)
    q = np.linalg.eigh(k)[1][..., -1]
    return np.where(q[..., :1] < 0, -q, q) + 0.0


def to_matrix(q: Array) -> Array:
    """Unit quaternions [..., 4] -> rotations [..., 3, 3]."""
    w, x, y, z = np.moveaxis(np.asarray(q, np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def product(a: Array, b: Array) -> Array:
    """Hamilton's product of quaternions [..., 4]."""
    w = a[..., 0] * b[..., 0] - (a[..., 1:] * b[..., 1:]).sum(-1)
    v = a[..., :1] * b[..., 1:] + b[..., :1] * a[..., 1:] + np.cross(a[..., 1:], b[..., 1:])
    return np.concatenate([w[..., None], v], -1)


def conjugate(q: Array) -> Array:
    """The inverse of a unit quaternion."""
    return q * [1.0, -1.0, -1.0, -1.0]


def logarithm(q: Array) -> Array:
    """Half the rotation vector [..., 3] of a unit quaternion."""
    length = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = np.arctan2(length, q[..., :1])
    return q[..., 1:] * np.where(length > _SMALL, angle / np.maximum(length, _SMALL), 1.0)


def exponential(half: Array) -> Array:
    """The unit quaternion of half a rotation vector [..., 3]."""
    angle = np.linalg.norm(half, axis=-1, keepdims=True)
    return np.concatenate([np.cos(angle), half * np.sinc(angle / np.pi)], -1)


def slerp(a: Array, b: Array, u: float) -> Array:
    """From a to b along the great circle through both, without choosing the shorter way."""
    return product(a, exponential(u * logarithm(product(conjugate(a), b))))


def same_hemisphere(q: Array) -> Array:
    """Signs of [n, 4] such that each quaternion is on the side of the one before: the shorter way between them."""
    signs = np.where((q[1:] * q[:-1]).sum(-1) < 0, -1.0, 1.0)
    return q * np.concatenate([[1.0], np.cumprod(signs)])[:, None]


def angle_between(a: Array, b: Array) -> Array:
    """Angles [...] in radians, 0 to pi, of the rotations from unit quaternions a [..., 4] to b."""
    turn = product(conjugate(a), b)
    return 2 * np.arctan2(np.linalg.norm(turn[..., 1:], axis=-1), np.abs(turn[..., 0]))
