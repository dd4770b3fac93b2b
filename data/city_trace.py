"""Exact visibility in the synthetic city: which primitive each sample of an image sees, and which points the sun
reaches.

Both are analytic (slabs, quadrics), in float32. A view tests a primitive only against the samples inside its screen
rectangle, nearest first, and skips what lies behind everything already found there. A sun ray tests only the
primitives that overlap its cell of a grid laid at right angles to the sun.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from .city_world import Material, Shape, World

SUN = np.array([-0.56, -0.38, 0.74]) / np.linalg.norm([-0.56, -0.38, 0.74])  # unit, towards the sun
_NEAR = 0.05  # m, the nearest depth that is projected
_CELL = 2.0  # m, of the grid for sun rays
_TINY = 1e-9  # the smallest direction component, so that its inverse stays finite

F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ViewHits:
    """What every sample of a view sees; sample rows and columns, `n` to a pixel each way."""

    directions: tuple[F32, F32, F32]  # [H*n, W*n] each, world, of unit depth: not of unit length
    depth: F32  # [H*n, W*n] along the camera's axis, inf where nothing is hit
    prim: NDArray[np.int32]  # [H*n, W*n] -1 where nothing is hit


def sample_offsets(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions of a pixel's n x n samples, x and y [n, n] in (0, 1): one in each cell, and no two in one row or
    column of the finer n^2 x n^2 grid (correlated multi-jittered, Kensler 2013, without the shuffle); an odd n has one
    at the centre.

    >>> sample_offsets(1)[0].tolist()
    [[0.5]]
    """
    row, column = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    return (column + (row + 0.5) / n) / n, (row + (column + 0.5) / n) / n


def _box(p: Sequence[Any], h: Sequence[Any], inverse: Sequence[Any], absolute: Sequence[Any]) -> tuple[Any, Any]:
    """Entry and exit of lines into boxes: `p` centre minus origin, `h` half size, `inverse` 1/direction, `absolute`
    its size."""
    a, b = p[0] * inverse[0], h[0] * absolute[0]
    near, far = a - b, a + b
    for i in (1, 2):
        a, b = p[i] * inverse[i], h[i] * absolute[i]
        near = np.maximum(near, a - b)
        far = np.minimum(far, a + b)
    return near, far


def _ellipsoid(p: Sequence[Any], h: Sequence[Any], d: Sequence[Any]) -> tuple[Any, Any]:
    """Entry and exit of lines into axis-aligned ellipsoids; entry is inf where a line misses."""
    qd = qq = dd = 0.0
    for i in range(3):
        q, e = p[i] / h[i], d[i] / h[i]
        qd, qq, dd = qd + q * e, qq + q * q, dd + e * e
    disc = qd * qd - dd * (qq - 1.0)
    root = np.sqrt(np.maximum(disc, 0.0))
    return np.where(disc > 0, (qd - root) / dd, np.float32(np.inf)), (qd + root) / dd


def _slopes(p: Sequence[Any], h: Sequence[Any], d: Sequence[Any], axis: Any, near: Any, far: Any) -> tuple[Any, Any]:
    """Cuts the entry and exit of a box down to the gable inside it; `axis` is the ridge's."""
    cross_p, cross_h, cross_d = (np.where(axis == 0, v[1], v[0]) for v in (p, h, d))
    for sign in (-1.0, 1.0):
        # inside where sign * (x - c) / h + (z - bottom) / (2 hz) <= 1
        value = -sign * cross_p / cross_h + (h[2] - p[2]) / (2 * h[2]) - 1.0
        slope = sign * cross_d / cross_h + d[2] / (2 * h[2])
        t = -value / np.where(np.abs(slope) < _TINY, np.float32(_TINY), slope)
        near = np.where(slope < 0, np.maximum(near, t), near)
        far = np.where(slope > 0, np.minimum(far, t), far)
    return near, far


def _intersect(
    shape: int,
    p: Sequence[Any],
    h: Sequence[Any],
    d: Sequence[Any],
    inv: Sequence[Any],
    absolute: Sequence[Any],
    axis: Any,
) -> tuple[Any, Any]:
    if shape == Shape.ELLIPSOID:
        return _ellipsoid(p, h, d)
    near, far = _box(p, h, inv, absolute)
    return _slopes(p, h, d, axis, near, far) if shape == Shape.GABLE else (near, far)


def _screen_rects(world: World, camera: Camera) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pixel rectangles [P, 4] (x0, y0, x1, y1, end exclusive) that hold the primitives' boxes, and their least depths
    [P]."""
    signs = np.array([[sx, sy, sz] for sx in (-1, 1) for sy in (-1, 1) for sz in (-1, 1)], np.float64)
    corners = world.centre[:, None].astype(np.float64) + signs * world.half[:, None]
    local = (corners - camera.position) @ camera.c2w[:3, :3]  # [P, 8, 3]
    edges = np.array([(a, a | bit) for a in range(8) for bit in (1, 2, 4) if not a & bit])
    a, b = local[:, edges[:, 0]], local[:, edges[:, 1]]
    crosses = (a[..., 2] > _NEAR) != (b[..., 2] > _NEAR)
    t = (_NEAR - a[..., 2]) / np.where(crosses, b[..., 2] - a[..., 2], 1.0)
    points = np.concatenate([local, a + t[..., None] * (b - a)], axis=1)
    valid = np.concatenate([local[..., 2] > _NEAR, crosses], axis=1)
    z = np.where(valid, np.maximum(points[..., 2], _NEAR), 1.0)
    x = points[..., 0] / z * camera.fx + camera.cx
    y = points[..., 1] / z * camera.fy + camera.cy
    big = 1e9
    bounds = [np.where(valid, v, fill) for v, fill in ((x, big), (y, big), (x, -big), (y, -big))]
    size = np.array([camera.width, camera.height])
    lo = np.clip(np.floor(np.stack([bounds[0].min(1), bounds[1].min(1)], -1) - 0.01), 0, size)
    hi = np.clip(np.ceil(np.stack([bounds[2].max(1), bounds[3].max(1)], -1) + 0.01), 0, size)
    depth = np.where(valid.any(1), np.maximum(local[..., 2].min(1), 0.0), np.inf)
    return np.concatenate([lo, hi], axis=1).astype(np.int64), depth


def trace_view(world: World, camera: Camera, n: int = 1) -> ViewHits:
    """The nearest primitive along n x n rays per pixel. The camera must stand outside of all primitives."""
    offset_x, offset_y = sample_offsets(n)
    height, width = camera.height, camera.width
    x = (np.arange(width)[None, None, :, None] + offset_x[None, :, None, :] - camera.cx) / camera.fx
    y = (np.arange(height)[:, None, None, None] + offset_y[None, :, None, :] - camera.cy) / camera.fy
    rotation = camera.c2w[:3, :3]
    shape = (height * n, width * n)
    d = tuple(
        (rotation[i, 0] * x + rotation[i, 1] * y + rotation[i, 2]).astype(np.float32).reshape(shape) for i in range(3)
    )
    safe = [np.where(np.abs(v) < _TINY, np.float32(_TINY), v) for v in d]
    inv = [np.float32(1.0) / v for v in safe]
    absolute = [np.abs(v) for v in inv]
    depth = np.full(shape, np.inf, np.float32)
    prim = np.full(shape, -1, np.int32)
    rects, least = _screen_rects(world, camera)
    p = (world.centre - camera.position).astype(np.float32)
    order = np.argsort(least, kind="stable")
    order = order[np.isfinite(least[order]) & (rects[order, 2:] > rects[order, :2]).all(axis=1)]
    for k in order.tolist():
        x0, y0, x1, y1 = (rects[k] * n).tolist()
        window = (slice(y0, y1), slice(x0, x1))
        current = depth[window]
        if current.max() <= least[k]:
            continue
        near, far = _intersect(
            int(world.shape[k]), list(p[k]), list(world.half[k]), [v[window] for v in d], [v[window] for v in inv],
            [v[window] for v in absolute], world.params[k, 15],
        )  # fmt: skip
        hit = (near <= far) & (near > 0) & (near < current)
        np.copyto(current, near, where=hit)
        np.copyto(prim[window], k, where=hit)
    return ViewHits((d[0], d[1], d[2]), depth, prim)


class SunGrid:
    """Answers which points lie in the sun."""

    def __init__(self, world: World) -> None:
        u = np.cross(SUN, [0.0, 0.0, 1.0])
        self._u = u / np.linalg.norm(u)
        self._v = np.cross(SUN, self._u)
        solid = np.flatnonzero((world.material != Material.GROUND) & (world.material != Material.LOT))
        solid = solid[
            np.argsort(-np.prod(world.half[solid], axis=1), kind="stable")
        ]  # the largest end most searches first
        self._world = world
        centre, half = world.centre[solid].astype(np.float64), world.half[solid].astype(np.float64)
        lo = np.stack([centre @ a - half @ np.abs(a) for a in (self._u, self._v)], -1)
        hi = np.stack([centre @ a + half @ np.abs(a) for a in (self._u, self._v)], -1)
        self._origin = lo.min(0) if len(solid) else np.zeros(2)
        first = np.floor((lo - self._origin) / _CELL).astype(int)
        last = np.floor((hi - self._origin) / _CELL).astype(int)
        self._shape = last.max(0) + 1 if len(solid) else np.ones(2, int)
        cells: list[list[int]] = [[] for _ in range(int(np.prod(self._shape)))]
        for k, (i0, j0), (i1, j1) in zip(solid.tolist(), first.tolist(), last.tolist(), strict=True):
            for i in range(i0, i1 + 1):
                for j in range(j0, j1 + 1):
                    cells[i * int(self._shape[1]) + j].append(k)
        counts = np.array([len(c) for c in cells])
        self._count = counts.astype(np.int32)
        self._start = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int32)
        self._items = np.array([k for c in cells for k in c], np.int32)
        self._table = np.concatenate([world.centre, world.half], axis=1)

    def lit(self, x: F32, y: F32, z: F32) -> NDArray[np.bool_]:
        """True [m] where nothing stands between a point and the sun. Points on a surface must be moved off it a
        little."""
        i = ((x * self._u[0] + y * self._u[1] + z * self._u[2] - self._origin[0]) / _CELL).astype(np.int32)
        j = ((x * self._v[0] + y * self._v[1] + z * self._v[2] - self._origin[1]) / _CELL).astype(np.int32)
        inside = (i >= 0) & (j >= 0) & (i < self._shape[0]) & (j < self._shape[1])
        cell = np.where(inside, i * self._shape[1] + j, 0)
        count, start = np.where(inside, self._count[cell], 0), self._start[cell]
        lit = np.ones(len(x), bool)
        active = np.flatnonzero(count > 0)
        step = 0
        while len(active):
            blocked = self._blocked(self._items[start[active] + step], x[active], y[active], z[active])
            lit[active[blocked]] = False
            step += 1
            active = active[~blocked]
            active = active[count[active] > step]
        return lit

    def _blocked(self, prim: NDArray[np.int32], x: F32, y: F32, z: F32) -> NDArray[np.bool_]:
        rows = self._table[prim]
        p = [rows[:, 0] - x, rows[:, 1] - y, rows[:, 2] - z]
        h = [rows[:, 3], rows[:, 4], rows[:, 5]]
        d = [np.float32(v) for v in SUN]
        inv = [np.float32(1.0 / v) for v in SUN]
        near, far = _box(p, h, inv, [abs(v) for v in inv])
        hit = (near <= far) & (far > 0)
        for shape in (Shape.ELLIPSOID, Shape.GABLE):
            some = np.flatnonzero(hit & (self._world.shape[prim] == shape))
            if len(some):
                axis = self._world.params[prim[some], 15]
                near, far = _intersect(
                    shape, [v[some] for v in p], [v[some] for v in h], d, inv, [abs(v) for v in inv], axis
                )
                hit[some] = (near <= far) & (far > 0)
        return hit
