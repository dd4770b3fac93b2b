"""The footprints of points: the radius of the pixel cone that saw each, `t * sqrt(pixel_area / pi)` (design, 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera

SMALLEST = 1e-9  # world units; a footprint of 0, of a point in a camera's centre, would ask for endless detail


def footprint_in(camera: Camera, xyz: NDArray[np.float64], pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The footprints [n] of points [n, 3] that a camera sees at `pixels` [n, 2].

    >>> camera = Camera(np.eye(4), 100, 100, 2, 1, 4, 2)
    >>> round(float(footprint_in(camera, np.array([[0, 0, 50.0]]), np.array([[2.0, 1.0]]))[0]), 6)
    0.282095
    """
    cones = camera.pixel_rays(pixels[:, 0], pixels[:, 1])[2]
    return np.linalg.norm(xyz - camera.position, axis=1) * cones


def seen_footprint(xyz: NDArray[np.float64], cameras: Sequence[Camera]) -> tuple[NDArray[np.float64], int]:
    """The smallest footprint [n] of points [n, 3] in the cameras that have them in the image, and how many are in none.

    What is behind a wall counts as seen: sparse points know no walls. A point that no camera sees gets the largest
    footprint of those that are seen, so that it asks for no detail that no image has.
    """
    best = np.full(len(xyz), np.inf)
    for camera in cameras:
        pixels, valid = camera.project(xyz)
        inside = (pixels >= 0).all(axis=1) & (pixels <= (camera.width, camera.height)).all(axis=1) & valid
        rows = np.flatnonzero(inside)
        if len(rows):
            best[rows] = np.minimum(best[rows], footprint_in(camera, xyz[rows], pixels[rows]))
    return _filled(best, xyz, cameras)


def tracked_footprint(
    xyz: NDArray[np.float64], tracks: Iterable[tuple[Camera, NDArray[np.int64]]], cameras: Sequence[Camera]
) -> tuple[NDArray[np.float64], int]:
    """As `seen_footprint`, by tracks: (camera, rows of the points [m] that were matched in its image)."""
    best = np.full(len(xyz), np.inf)
    for camera, rows in tracks:
        pixels, valid = camera.project(xyz[rows])
        rows, pixels = rows[valid], pixels[valid]
        np.minimum.at(best, rows, footprint_in(camera, xyz[rows], pixels))
    return _filled(best, xyz, cameras)


def _filled(
    best: NDArray[np.float64], xyz: NDArray[np.float64], cameras: Sequence[Camera]
) -> tuple[NDArray[np.float64], int]:
    unseen = ~np.isfinite(best)
    if unseen.all():
        for camera in cameras:
            axis = np.broadcast_to((camera.cx, camera.cy), (len(xyz), 2))
            np.minimum(best, footprint_in(camera, xyz, axis), out=best)
    elif unseen.any():
        best[unseen] = best[~unseen].max()
    return np.maximum(best, SMALLEST), int(unseen.sum())
