"""The colour of every surface of the synthetic city but its facades, and the dispatch by material.

Colours are linear albedos, functions of position alone, filtered by the footprint (see `city_filter`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .city_facade import facade_wall
from .city_filter import blend, cell_hash, disc, fade, interval, noise2, noise3, pulse
from .city_layout import roof_color
from .city_world import INNER_HALF, LOT_HALF, PITCH, Material, srgb

F32 = NDArray[Any]  # float32; numpy's stubs widen mixed arithmetic to float64

_PAINT, _GRASS, _SOIL, _GRAVEL, _COURT, _TILE, _GRANITE = srgb(
    "c9c9c2", "6d9440", "7d5f45", "c9b48c", "bfa68a", "aaa69e", "8f8f90"
).astype(np.float32)
_FLOWERS = srgb("d9534f", "e8c547", "e9e4ef", "b06fc4").astype(np.float32)
_CAR_GLASS = srgb("2c3a44").astype(np.float32)[0]
_TYRE, _HUB, _LAMP, _TAIL = srgb("1e1f21", "a8abad", "f3efdc", "b0241f").astype(np.float32)


@dataclass
class Surface:
    """Points on primitives of one material. `p`, `w`, `n` three arrays [m] each: position, footprint along each world
    axis, normal."""

    p: tuple[F32, F32, F32]
    w: tuple[F32, F32, F32]
    n: tuple[F32, F32, F32]
    centre: F32  # [m, 3] of the primitive
    half: F32  # [m, 3]
    params: F32  # [m, 16]

    def take(self, k: NDArray[np.int64]) -> Surface:
        p, w, n = (tuple(v[k] for v in t) for t in (self.p, self.w, self.n))
        return Surface(p, w, n, self.centre[k], self.half[k], self.params[k])  # type: ignore[arg-type]

    def local(self, axis: int) -> F32:
        """Metres from the primitive's centre."""
        return self.p[axis] - self.centre[:, axis]

    def __len__(self) -> int:
        return len(self.p[0])


def albedo(material: Material, surface: Surface, extent: float) -> F32:
    """Colours [m, 3] of points that share a material; `extent` is half the slab's edge."""
    if material == Material.GROUND:
        return _ground(surface, extent)
    return _FUNCTIONS[material](surface)


def _faces(surface: Surface) -> tuple[NDArray, NDArray, NDArray]:
    """Indices of points whose normal is mostly along x, along y, along z."""
    nx, ny, nz = (np.abs(v) for v in surface.n)
    top = nz >= np.maximum(nx, ny)
    return np.flatnonzero(~top & (nx > ny)), np.flatnonzero(~top & (nx <= ny)), np.flatnonzero(top)


# --- ground ----------------------------------------------------------------------------------------------------------


def _ground(s: Surface, extent: float) -> F32:
    out = np.empty((len(s), 3), np.float32)
    side_x, side_y, top = _faces(s)
    side = np.concatenate([side_x, side_y])
    if len(side):  # the cut through the ground: layers of soil
        q = s.take(side)
        layers = noise2(q.p[0] + q.p[1], q.p[2] * 9, 1.1, np.maximum(q.w[0], q.w[1]))
        out[side] = _SOIL * (1 + 0.25 * layers + 0.5 * q.p[2])[:, None]
    if len(top):
        out[top] = _street(s.take(top), extent)
    return out


def _street(s: Surface, extent: float) -> F32:
    x, y = s.p[0], s.p[1]
    w = np.maximum(s.w[0], s.w[1])
    grain = 0.10 * noise2(x, y, 4.1, w) + 0.08 * noise2(x, y, 0.63, w) + 0.16 * noise2(x, y, 0.035, w)
    color = s.params[:, :3] * (1 + grain)[:, None]
    sx = np.mod(x + extent + PITCH / 2, PITCH) - PITCH / 2  # 0 in the middle of a street that runs along y
    sy = np.mod(y + extent + PITCH / 2, PITCH) - PITCH / 2
    half = PITCH / 2 - LOT_HALF
    inner_x, inner_y = np.abs(x) < extent - half, np.abs(y) < extent - half  # the rim's half streets have no markings
    patch = cell_hash(np.floor(x / 3.7).astype(np.int32), np.floor(y / 5.3).astype(np.int32), 11)
    color *= (1 - 0.10 * (patch > 0.82) * fade(w, 3.7))[:, None]
    paint = np.zeros(len(x), np.float32)
    for across, along, wa, wl, allowed in (
        (sx, sy, s.w[0], s.w[1], inner_x & inner_y), (sy, sx, s.w[1], s.w[0], inner_x & inner_y)
    ):  # fmt: skip
        street = allowed & (np.abs(across) < half)
        paint += np.where(street, _markings(np.abs(across), across, np.abs(along), along, wa, wl), 0.0)
    worn = 0.78 + 0.16 * noise2(x, y, 0.22, w)
    color = blend(color, _PAINT, np.minimum(paint, 1.0) * worn)
    return _manholes(color, x, y, w)


def _markings(off: F32, across: F32, dist: F32, along: F32, wa: F32, wl: F32) -> F32:
    """Coverage by paint in a street; `across` from its middle line, `along` from the middle of the crossing street."""
    half = PITCH / 2 - LOT_HALF
    run = interval(dist, wl, half + 5.4, PITCH / 2 + 1)  # between the stop lines
    dashes = interval(across, wa, -0.08, 0.08) * pulse(along / 4.0, wl / 4.0, 0.2, 0.7) * run
    zebra = (
        interval(off, wa, 0.0, 5.4)
        * pulse(across / 1.2 + 0.25, wa / 1.2, 0.0, 0.5)
        * interval(dist, wl, half + 0.8, half + 3.8)
    )
    stop = interval(off, wa, 0.3, 3.5) * interval(dist, wl, half + 4.6, half + 5.0)
    parking = interval(off, wa, 3.72, 3.84) * run
    bays = interval(off, wa, 3.84, 5.9) * pulse(along / 5.6 + 0.5, wl / 5.6, 0.49, 0.51) * run
    return np.clip(dashes + zebra + stop + parking + bays, 0, 1)


def _manholes(color: F32, x: F32, y: F32, w: F32) -> F32:
    i, j = np.floor(x / 13.0), np.floor(y / 13.0)
    a, b = (cell_hash(i.astype(np.int32), j.astype(np.int32), c) for c in (21, 22))
    distance = np.hypot(x - (i + 0.1 + 0.8 * a) * 13.0, y - (j + 0.1 + 0.8 * b) * 13.0)
    color = blend(color, np.array([0.10, 0.095, 0.09], np.float32), disc(distance, w, 0.36))
    grid = pulse(x / 0.06, w / 0.06, 0.0, 0.5) * pulse(y / 0.06, w / 0.06, 0.0, 0.5)
    return blend(color, np.array([0.03, 0.03, 0.03], np.float32), disc(distance, w, 0.29) * grid)


def _tiles(s: Surface, size: float, color: F32, joint: float = 0.014, spread: float = 0.22) -> F32:
    """Square tiles with dark joints, each of its own shade."""
    x, y, wx, wy = s.p[0] / size, s.p[1] / size, s.w[0] / size, s.w[1] / size
    tone = cell_hash(np.floor(x).astype(np.int32), np.floor(y).astype(np.int32), 31) - 0.5
    cover = pulse(x, wx, joint / size, 1.0) * pulse(y, wy, joint / size, 1.0)
    tone = (1 + spread * tone * fade(wx, 1.0) * fade(wy, 1.0)) * (0.45 + 0.55 * cover)
    return color * tone[:, None]


def _lot(s: Surface) -> F32:
    w = np.maximum(s.w[0], s.w[1])
    lx, ly = np.abs(s.local(0)), np.abs(s.local(1))
    edge = np.maximum(lx, ly)
    grain = 1 + 0.05 * noise2(s.p[0], s.p[1], 0.9, w) + 0.05 * noise2(s.p[0], s.p[1], 0.05, w)
    color = _tiles(s, 0.6, _TILE)
    inside = interval(edge, w, -1.0, INNER_HALF)
    k = np.flatnonzero(inside > 0)
    if len(k):
        q = s.take(k)
        park = q.params[:, 3] > 0.5
        inner = np.where(park[:, None], _lawn(q, lx[k], ly[k], w[k]), _tiles(q, 1.1, _COURT, 0.02))
        color[k] = blend(color[k], inner, inside[k])
    color = blend(color, _GRANITE, interval(edge, w, LOT_HALF - 0.28, LOT_HALF + 1))
    joint = pulse(s.p[0] / 1.0, s.w[0], 0.0, 0.015) * (ly > lx) + pulse(s.p[1] / 1.0, s.w[1], 0.0, 0.015) * (lx >= ly)
    color = blend(color, _GRANITE * 0.5, joint * (edge > LOT_HALF - 0.28))
    return color * grain[:, None]


def _lawn(s: Surface, lx: F32, ly: F32, w: F32) -> F32:
    """Grass, diagonal paths to a round place, flowers."""
    x, y = s.p[0], s.p[1]
    blades = (
        0.16 * noise2(x, y, 3.3, w)
        + 0.13 * noise2(x, y, 0.7, w)
        + 0.16 * noise2(x, y, 0.09, w)
        + 0.2 * noise2(x, y, 0.02, w)
    )
    color = _GRASS * (1 + blades)[:, None]
    color[:, 0] *= 1 + 0.18 * noise2(x + 50, y, 5.0, w)
    i, j = np.floor(x / 0.45), np.floor(y / 0.45)
    chance, which = (cell_hash(i.astype(np.int32), j.astype(np.int32), c) for c in (41, 42))
    bed = noise2(x + 9, y + 4, 3.0, w) > 0.45
    bloom = disc(np.hypot(x / 0.45 - i - 0.5, y / 0.45 - j - 0.5) * 0.45, w, 0.09) * (chance < 0.5) * bed
    color = blend(color, _FLOWERS[(which * len(_FLOWERS)).astype(np.int32)], bloom * fade(w, 0.45))
    path = np.maximum(interval(np.abs(lx - ly), 1.4 * w, -1.0, 1.2), interval(np.hypot(lx, ly), w, -1.0, 4.0))
    gravel = _GRAVEL * (1 + 0.1 * noise2(x, y, 0.4, w) + 0.2 * noise2(x, y, 0.03, w))[:, None]
    return blend(color, gravel, path)


# --- buildings and things --------------------------------------------------------------------------------------------


def _facade(s: Surface) -> F32:
    out = np.empty((len(s), 3), np.float32)
    *sides, top = _faces(s)
    for axis, k in enumerate(sides):
        if len(k):
            q, other = s.take(k), 1 - axis
            side = (2 * axis + (q.n[axis] > 0)).astype(np.int32)
            width = 2 * q.half[:, other]
            out[k] = facade_wall(
                q.local(other) + q.half[:, other], q.local(2) + q.half[:, 2], q.w[other], q.w[2], width, q.params, side
            )
    if len(top):
        q = s.take(top)
        w = np.maximum(q.w[0], q.w[1])
        grain = 0.06 * noise2(q.p[0], q.p[1], 1.9, w) + 0.12 * noise2(q.p[0], q.p[1], 0.06, w)
        seams = pulse(q.p[0] / 2.0, q.w[0] / 2.0, 0.0, 0.02)
        out[top] = roof_color(q.params[:, 10]) * (q.params[:, 14] * (1 + grain) * (1 - 0.25 * seams))[:, None]
    return out


def _plain(s: Surface) -> F32:
    w = np.maximum(np.maximum(s.w[0], s.w[1]), s.w[2])
    along = s.p[0] + s.p[1]
    grain = s.params[:, 3] * (0.06 * noise2(along, s.p[2], 0.8, w) + 0.08 * noise2(along, s.p[2] + s.p[0], 0.05, w))
    return s.params[:, :3] * (1 + grain)[:, None]


def _roof(s: Surface) -> F32:
    """Rows of tiles down the slopes; the gable ends and the soffit are wall."""
    axis = s.params[:, 15] > 0.5  # the ridge runs along y
    along, w_along = np.where(axis, s.p[1], s.p[0]), np.where(axis, s.w[1], s.w[0])
    row, column = s.p[2] / 0.2, along / 0.32
    w_row, w_column = s.w[2] / 0.2, w_along / 0.32
    tone = cell_hash(np.floor(column).astype(np.int32), np.floor(row).astype(np.int32), s.params[:, 10]) - 0.5
    tone = 1 + 0.3 * tone * fade(w_row, 1.0) * fade(w_column, 1.0) + 0.06 * noise2(along, s.p[2], 1.7, w_along)
    cover = pulse(row, w_row, 0.14, 1.0) * pulse(column, w_column, 0.07, 1.0)
    color = s.params[:, :3] * (tone * (0.55 + 0.45 * cover))[:, None]
    wall = s.n[2] < 0.1
    return np.where(wall[:, None], s.params[:, 3:6] * 0.9, color)


def _leaf(s: Surface) -> F32:
    """Leaves in clumps; parameters 4 and 5 are the foot and the height of the whole tree's crown, darker towards the
    foot."""
    w = np.maximum(np.maximum(s.w[0], s.w[1]), s.w[2])
    x, y, z = s.p[0] + s.params[:, 3], s.p[1], s.p[2]
    clumps = 0.30 * noise3(x, y, z, 0.6, w) + 0.30 * noise3(x, y, z, 0.22, w) + 0.32 * noise3(x, y, z, 0.07, w)
    depth = 0.62 + 0.5 * np.clip((z - s.params[:, 4]) / s.params[:, 5], 0, 1)
    color = s.params[:, :3] * ((1 + clumps) * depth)[:, None]
    color[:, 0] *= 1 + 0.25 * noise3(x, y, z, 1.3, w)
    return color


def _bark(s: Surface) -> F32:
    w = np.maximum(s.w[0], s.w[1])
    return s.params[:, :3] * (1 + 0.3 * noise2((s.p[0] + s.p[1]) * 6, s.p[2], 0.25, np.maximum(6 * w, s.w[2])))[:, None]


def _car_axes(s: Surface) -> tuple[F32, F32, F32, F32, NDArray[np.bool_]]:
    """Along the car's length (m from its middle, forwards), half length, footprint along it and up, and where its
    flank is."""
    axis = s.params[:, 3] > 0.5
    along = np.where(axis, s.local(1), s.local(0)) * s.params[:, 4]
    length = np.where(axis, s.half[:, 1], s.half[:, 0])
    flank = np.abs(np.where(axis, s.n[0], s.n[1])) > 0.5
    return along, length, np.where(axis, s.w[1], s.w[0]), s.w[2], flank


def _car(s: Surface) -> F32:
    along, length, wl, wz, flank = _car_axes(s)
    z, top = s.p[2], s.n[2] > 0.5
    color = s.params[:, :3].copy()
    body = np.where(top, 0.0, interval(z, wz, -1.0, 0.19))
    color = blend(color, np.array([0.02, 0.02, 0.022], np.float32), body)
    wheel = np.hypot(np.abs(along) - length * 0.62, z - 0.33)
    w = np.maximum(wl, wz)
    color = blend(color, _TYRE, disc(wheel, w, 0.33) * flank)
    color = blend(color, _HUB, disc(wheel, w, 0.19) * flank)
    doors = pulse(along / 1.1, wl / 1.1, 0.0, 0.018) * interval(np.abs(along), wl, -1, 1.2) * interval(z, wz, 0.3, 0.82)
    color = blend(color, s.params[:, :3] * 0.35, doors * flank)
    end = ~flank & ~top
    across = np.where(s.params[:, 3] > 0.5, s.local(0), s.local(1))
    w_across = np.where(s.params[:, 3] > 0.5, s.w[0], s.w[1])
    lamp = interval(np.abs(across), w_across, 0.45, 0.78) * interval(z, wz, 0.55, 0.72) * end
    return blend(color, np.where((along > 0)[:, None], _LAMP, _TAIL), lamp)


def _cabin(s: Surface) -> F32:
    along, length, wl, wz, flank = _car_axes(s)
    low, high = -s.half[:, 2], s.half[:, 2]
    z, top = s.local(2), s.n[2] > 0.5
    glass = interval(z, wz, low + 0.06, high - 0.09)
    posts = interval(np.abs(along), wl, -1.0, length - 0.1) - interval(along, wl, -0.05, 0.05)
    color = blend(
        s.params[:, :3].copy(), _CAR_GLASS, np.where(top, 0.0, glass * np.where(flank, np.maximum(posts, 0), 1.0))
    )
    return color


def _awning(s: Surface) -> F32:
    axis = s.params[:, 3] < 0.5
    along, w = np.where(axis, s.p[0], s.p[1]), np.where(axis, s.w[0], s.w[1])
    return blend(np.broadcast_to(_PAINT, (len(s), 3)), s.params[:, :3], pulse(along / 0.5, w / 0.5, 0.0, 0.5))


def _panel(s: Surface) -> F32:
    cells = pulse(s.p[0] / 1.0, s.w[0], 0.03, 1.0) * pulse(s.p[1] / 1.6, s.w[1] / 1.6, 0.02, 1.0)
    fine = pulse(s.p[0] / 0.16, s.w[0] / 0.16, 0.06, 1.0) * pulse(s.p[1] / 0.16, s.w[1] / 0.16, 0.06, 1.0)
    color = s.params[:, :3] * (0.7 + 0.3 * fine)[:, None]
    return blend(np.array([0.35, 0.36, 0.37], np.float32), color, cells)


_FUNCTIONS = {
    Material.LOT: _lot, Material.FACADE: _facade, Material.PLAIN: _plain, Material.ROOF: _roof, Material.LEAF: _leaf,
    Material.BARK: _bark, Material.CAR: _car, Material.CABIN: _cabin, Material.AWNING: _awning, Material.PANEL: _panel,
}  # fmt: skip
