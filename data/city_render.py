"""A view of the synthetic city as an image: visibility, normals, albedo, sun and sky, averaged over each pixel.

Light is linear and Lambertian: one sun with hard shadows, and a sky that walls close by take away from. Nothing
depends on where it is seen from, so the images are one radiance field exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from .city_texture import Surface, albedo
from .city_trace import SUN, SunGrid, ViewHits, trace_view
from .city_world import PITCH, Material, Shape, World

F32 = NDArray[Any]  # float32; numpy's stubs widen mixed arithmetic to float64

_SUN_COLOR = np.array([1.02, 0.93, 0.79], np.float32)
_SKY_COLOR = np.array([0.46, 0.51, 0.60], np.float32)
_BOUNCE_COLOR = np.array([0.40, 0.36, 0.31], np.float32)
_CHUNK = 1 << 15  # samples shaded at a time, so that their columns stay in the cache
_LIFT = 2e-3  # m, how far off its surface a sun ray starts
_MAX_FOOTPRINT = 60.0  # m, at grazing angles


def render_view(world: World, sun: SunGrid, camera: Camera, supersample: int = 3) -> tuple[F32, ViewHits]:
    """The image [H, W, 4] float32, linear, premultiplied by alpha (0 where no ray of a pixel hits, 1 where all do),
    and the hits."""
    hits = trace_view(world, camera, supersample)
    color = np.zeros((hits.prim.size, 4), np.float32)
    prim = hits.prim.ravel()
    seen = np.flatnonzero(prim >= 0)
    material = world.material[prim[seen]]
    order = np.argsort(material, kind="stable")
    seen, material = seen[order], material[order]
    bounds = np.searchsorted(material, np.arange(len(Material) + 1))
    for m in Material:
        for start in range(int(bounds[m]), int(bounds[m + 1]), _CHUNK):
            k = seen[start : min(start + _CHUNK, int(bounds[m + 1]))]
            color[k, :3] = _shade(world, sun, camera, hits, k, prim[k], m, supersample)
            color[k, 3] = 1.0
    n = supersample
    return color.reshape(camera.height, n, camera.width, n, 4).mean(axis=(1, 3)), hits


def _shade(
    world: World, sun: SunGrid, camera: Camera, hits: ViewHits, k: NDArray, prim: NDArray, material: Material, n: int
) -> F32:
    """Radiance [m, 3] of the samples `k`, all of one material."""
    t = hits.depth.ravel()[k]
    d = tuple(v.ravel()[k] for v in hits.directions)
    eye = camera.position.astype(np.float32)
    p = tuple(eye[i] + t * d[i] for i in range(3))
    centre, half, params = world.centre[prim], world.half[prim], world.params[prim]
    normal = _normals(p, centre, half, world.shape[prim], params[:, 15])
    surface = Surface(p, _footprints(camera, t, d, normal, n), normal, centre, half, params)  # type: ignore[arg-type]
    base = albedo(material, surface, world.extent)
    cosine = _dot(normal, SUN.astype(np.float32))
    direct = np.zeros(len(k), np.float32)
    facing = np.flatnonzero(cosine > 0)
    if len(facing):
        q = [(p[i] + normal[i] * np.float32(_LIFT))[facing] for i in range(3)]
        direct[facing] = cosine[facing] * sun.lit(q[0], q[1], q[2])
    up = 0.5 + 0.5 * normal[2]
    open_sky = _openness(world, p, normal, material)
    ambient = (_SKY_COLOR * up[:, None] + _BOUNCE_COLOR * (1 - up)[:, None]) * open_sky[:, None]
    return base * (_SUN_COLOR * direct[:, None] + ambient)


def _dot(a: Sequence[Any] | F32, b: Sequence[Any] | F32) -> F32:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _normals(p: tuple[F32, ...], centre: F32, half: F32, shape: NDArray, ridge: F32) -> tuple[F32, F32, F32]:
    """Outward unit normals at points on primitives: of the face that is nearest."""
    local = [p[i] - centre[:, i] for i in range(3)]
    gap = np.stack([half[:, i] - np.abs(local[i]) for i in range(3)])
    axis = np.argmin(gap, axis=0)
    out = [np.where(axis == i, np.sign(local[i]), np.float32(0)).astype(np.float32) for i in range(3)]
    k = np.flatnonzero(shape == Shape.ELLIPSOID)
    if len(k):
        g = [local[i][k] / half[k, i] ** 2 for i in range(3)]
        length = np.sqrt(g[0] ** 2 + g[1] ** 2 + g[2] ** 2)
        for i in range(3):
            out[i][k] = g[i] / length
    k = np.flatnonzero(shape == Shape.GABLE)
    if len(k):
        across = np.where(ridge[k] > 0.5, 0, 1)
        x, h, hz = np.where(across == 0, local[0][k], local[1][k]), half[k, across], half[k, 2]
        length = np.sqrt(1 / h**2 + 1 / (2 * hz) ** 2)
        slope_gap = (1.0 - (np.abs(x) / h + (local[2][k] + hz) / (2 * hz))) / length
        other = np.where(across == 0, gap[1, k], gap[0, k])  # the gable ends
        on_slope = (slope_gap <= other) & (slope_gap <= local[2][k] + hz)
        s = np.where(on_slope)[0]
        for i in range(2):
            out[i][k[s]] = np.where(across[s] == i, np.sign(x[s]) / h[s] / length[s], 0)
        out[2][k[s]] = 1 / (2 * hz[s]) / length[s]
    return out[0], out[1], out[2]


def _footprints(camera: Camera, t: F32, d: tuple[F32, ...], normal: tuple[F32, ...], n: int) -> tuple[F32, ...]:
    """Widths [m] along each world axis of the patch that one of n x n samples of a pixel covers on its surface.

    The derivative of the hit point over the sample's square, on the tangent plane (Igehy 1999); its two edges combine
    as the standard deviations of two uniform spreads do.
    """
    facing = _dot(normal, d)
    facing = np.where(np.abs(facing) < 1e-5, np.float32(1e-5), facing)
    squares = [np.zeros_like(t) for _ in range(3)]
    for column, step in ((0, 1 / (camera.fx * n)), (1, 1 / (camera.fy * n))):
        edge = (camera.c2w[:3, column] * step).astype(np.float32)
        slide = _dot(normal, edge) / facing
        for i in range(3):
            squares[i] += np.square(t * (edge[i] - d[i] * slide))
    return tuple(np.minimum(np.sqrt(s), np.float32(_MAX_FOOTPRINT)) for s in squares)


def _openness(world: World, p: tuple[F32, ...], normal: tuple[F32, ...], material: Material) -> F32:
    """How much of the sky's light arrives: less near the foot of walls, and deep in a street."""
    low = 1.0 - 0.30 * np.exp(-np.maximum(p[2], 0) / 1.5)
    if material == Material.FACADE:
        return np.where(normal[2] > 0.5, 1.0, low * (0.88 + 0.12 * np.clip(p[2] / 20.0, 0, 1))).astype(np.float32)
    if material not in (Material.GROUND, Material.LOT):
        return np.where(normal[2] > 0.5, 1.0, low).astype(np.float32)
    cell = [np.clip(((p[i] + world.extent) / PITCH).astype(np.int32), 0, world.blocks - 1) for i in range(2)]
    near = np.full(len(p[0]), 1e4, np.float32)
    for slot in range(world.walls.shape[2]):
        x0, y0, x1, y1 = world.walls[cell[0], cell[1], slot].T
        gap_x = np.maximum(np.maximum(x0 - p[0], p[0] - x1), 0)
        gap_y = np.maximum(np.maximum(y0 - p[1], p[1] - y1), 0)
        near = np.minimum(near, np.hypot(gap_x, gap_y))
    return (0.92 * (1.0 - 0.5 * np.exp(-near / 1.4))).astype(np.float32)
