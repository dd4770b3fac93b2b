"""Photographs through the pinhole that renderers have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera


def pinhole_truth(
    image: NDArray[np.float32],  # [H, W, 4] premultiplied
    camera: Camera,
    counts: NDArray[np.bool_] | None = None,  # [H, W] pixels that count; None: all
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The image as `camera.pinhole()` would have taken it, bilinear, and which of its pixels [H, W] count.

    A pinhole camera's image comes back as it is.
    """
    if counts is None:
        counts = np.ones(image.shape[:2], bool)
    if camera.is_pinhole:
        return image, counts
    rows, columns = (grid.ravel() + 0.5 for grid in np.indices(image.shape[:2]))
    _, directions, _ = camera.pinhole().pixel_rays(columns, rows)
    pixels, seen = camera.project(camera.position + directions)
    at = pixels - 0.5  # of pixel centres
    limit = np.array([camera.width - 1, camera.height - 1])
    inside = (seen & (at >= 0).all(-1) & (at <= limit).all(-1)).reshape(image.shape[:2])
    low = np.clip(np.floor(at), 0, np.maximum(limit - 1, 0)).astype(np.intp)
    share = np.clip(at - low, 0, 1).astype(np.float32)
    high = np.minimum(low + 1, limit)
    (x0, y0), (x1, y1), (u, v) = low.T, high.T, share.T[..., None]
    upper = image[y0, x0] * (1 - u) + image[y0, x1] * u
    lower = image[y1, x0] * (1 - u) + image[y1, x1] * u
    known = counts[y0, x0] & counts[y0, x1] & counts[y1, x0] & counts[y1, x1]
    return (upper * (1 - v) + lower * v).reshape(image.shape), inside & known.reshape(inside.shape)
