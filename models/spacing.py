"""How far apart points lie, where nothing says how fine they were seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 8  # points that a cell needs to tell a spacing
MAX_DEPTH = 20  # halvings of the box: duplicates would ask for more without end


def point_spacing(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The radius [n] of the surface patch that each of `points` [n, 3] stands for, world units.

    Of a point's cells in halvings of the box, the smallest with at least NEIGHBOURS points counts: a surface crosses a
    cell of edge s in about s**2, which its k points share, so that pi * radius**2 = s**2 / k. O(n log n).

    >>> grid = np.stack(np.meshgrid(np.arange(64.0), np.arange(64.0), [0.0]), -1).reshape(-1, 3)
    >>> spacing = point_spacing(grid)  # a point a unit square: pi * radius**2 = 1
    >>> bool(np.abs(spacing - 0.56).max() < 0.1)
    True
    """
    low = points.min(axis=0)
    edge = float(np.ptp(points, axis=0).max()) or 1.0
    cells = np.minimum((points - low) / edge * 2.0**MAX_DEPTH, 2.0**MAX_DEPTH - 1).astype(np.int64)
    radius = np.full(len(points), edge / np.sqrt(np.pi * len(points)))
    alive = np.arange(len(points))
    group = np.zeros(len(points), np.int64)  # number of each living point's cell
    for depth in range(1, MAX_DEPTH + 1):
        octant = (cells[alive] >> (MAX_DEPTH - depth)) & 1
        keys = group * 8 + (octant @ (1, 2, 4))
        _, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
        enough = counts[group] >= NEIGHBOURS
        alive, group = alive[enough], group[enough]
        if not len(alive):
            break
        radius[alive] = edge / 2**depth / np.sqrt(np.pi * counts[group])
    return radius
