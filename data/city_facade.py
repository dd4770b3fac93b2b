"""The colour of the city's facades: bricks or plaster, windows, floors, shops and doors, down to a door handle.

Coordinates on a wall: `u` metres along it, `v` metres up; `wu`, `wv` the footprint in them. Bays and storeys divide
the wall evenly. Every layer is a flat colour times an exact coverage, so the mean over a coarse pixel is right too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .city_filter import blend, cell_hash, disc, fade, interval, noise2, pulse
from .city_world import SHOPS, srgb

F32 = NDArray[Any]  # float32; numpy's stubs widen mixed arithmetic to float64

_GLASS = srgb("3f5366", "56707f", "6d8794", "4a5f58").astype(np.float32)
_LIT, _CURTAIN, _SILL, _MORTAR, _HANDLE = srgb("ffd98a", "d9d0bd", "cfc8b8", "b7ab9b", "e3c46a").astype(np.float32)
_DOORS = srgb("6b4226", "2f4a3a", "31435e", "7a2f2a", "8a6a45").astype(np.float32)
_SHOPS = SHOPS.astype(np.float32)
_SHOP_GLASS = srgb("4b5a63").astype(np.float32)[0]
_SIGN_INK = srgb("f4efe0").astype(np.float32)[0]

_BRICK_LENGTH, _BRICK_HEIGHT, _JOINT = 0.25, 0.075, 0.011  # m
_DOOR_WIDTH, _DOOR_HEIGHT = 1.1, 2.35  # m


def facade_wall(u: F32, v: F32, wu: F32, wv: F32, width: F32, params: F32, side: NDArray[np.int32]) -> F32:
    """Colours [m, 3], linear, of points on walls `width` [m] wide; `params` [m, 16] as in `city_layout`, `side` [m] 0
    to 3."""
    seed = params[:, 10] * 4 + side
    ground = params[:, 12]
    color = _wall(u, v, wu, wv, params, seed)
    upper = interval(v, wv, ground, 1e4)
    above = np.flatnonzero(upper > 0)
    if len(above):
        k = above
        color[k] = _windows(color[k], u[k], v[k], wu[k], wv[k], width[k], params[k], seed[k], upper[k])
    below = np.flatnonzero((upper < 1) & (ground > 0))
    if len(below):
        k = below
        shop = _shopfront(color[k], u[k], v[k], wu[k], wv[k], width[k], params[k], seed[k])
        color[k] = blend(shop, color[k], upper[k])
    return color


def _wall(u: F32, v: F32, wu: F32, wv: F32, params: F32, seed: F32) -> F32:
    base = params[:, :3]
    grime = 1.0 - 0.16 * np.exp(-v / 1.2) + 0.05 * noise2(u + 17 * seed, v, 2.7, np.maximum(wu, wv))
    out = base * grime[:, None]
    k = np.flatnonzero(params[:, 6] > 0.5)
    if len(k):
        row = v[k] / _BRICK_HEIGHT
        row_index = np.floor(row).astype(np.int32)
        along = u[k] / _BRICK_LENGTH + 0.5 * (row_index & 1)
        w_along, w_row = wu[k] / _BRICK_LENGTH, wv[k] / _BRICK_HEIGHT
        brick = pulse(along, w_along, _JOINT / _BRICK_LENGTH, 1.0) * pulse(row, w_row, _JOINT / _BRICK_HEIGHT, 1.0)
        tone = cell_hash(np.floor(along).astype(np.int32), row_index, seed[k]) - 0.5
        tone = 1.0 + 0.34 * tone * fade(w_along, 1.0) * fade(w_row, 1.0)
        mortar = 0.35 * base[k] + 0.5 * _MORTAR
        out[k] = blend(mortar * grime[k, None], out[k] * tone[:, None], brick)
    k = np.flatnonzero(params[:, 6] <= 0.5)
    if len(k):
        w = np.maximum(wu[k], wv[k])
        out[k] *= (1.0 + 0.035 * noise2(u[k], v[k], 0.31, w) + 0.03 * noise2(u[k], v[k], 0.045, w))[:, None]
    return out


def _windows(
    color: F32, u: F32, v: F32, wu: F32, wv: F32, width: F32, params: F32, seed: F32, upper: F32
) -> F32:  # fmt: skip
    """Windows with trim, frame, mullion, transom, sill, and a string course at each storey."""
    bays = np.maximum(1.0, np.round(width / params[:, 7]))
    bay, storey = width / bays, params[:, 13]
    s, r, ws, wr = u / bay, (v - params[:, 12]) / storey, wu / bay, wv / storey
    lo, hi = 0.5 - 0.5 * params[:, 8], 0.5 + 0.5 * params[:, 8]
    bottom = 0.56 - 0.5 * params[:, 9]
    top = bottom + params[:, 9]
    ex, ey = 0.13 / bay, 0.13 / storey  # 13 cm of trim
    fx, fy = 0.07 / bay, 0.07 / storey  # 7 cm of frame
    trim, frame_color = params[:, 3:6], params[:, 3:6] * 0.8
    color = blend(color, trim * 0.9, pulse(r, wr, 0.0, 0.11 / storey) * upper)
    color = blend(color, trim, pulse(s, ws, lo - ex, hi + ex) * pulse(r, wr, bottom - ey, top + ey) * upper)
    color = blend(
        color, _SILL, pulse(s, ws, lo - 1.6 * ex, hi + 1.6 * ex) * pulse(r, wr, bottom - 1.9 * ey, bottom - ey) * upper
    )
    column, row = np.floor(s).astype(np.int32), np.floor(r).astype(np.int32)
    glass = _glass(column, row, r, wr, bottom, top, seed, fade(ws, 1.0) * fade(wr, 1.0))
    hole = pulse(s, ws, lo, hi) * pulse(r, wr, bottom, top) * upper
    pane_s = pulse(s, ws, lo + fx, hi - fx) - pulse(s, ws, 0.5 - 0.4 * fx, 0.5 + 0.4 * fx)
    split = bottom + 0.68 * (top - bottom)
    pane_r = pulse(r, wr, bottom + fy, top - fy) - pulse(r, wr, split - 0.4 * fy, split + 0.4 * fy)
    pane = np.maximum(pane_s * pane_r, 0.0) * upper
    # hole and pane are nested: the frame is what lies between them
    return color * (1 - hole)[:, None] + frame_color * (hole - pane)[:, None] + glass * pane[:, None]


def _glass(column: NDArray, row: NDArray, r: F32, wr: F32, bottom: F32, top: F32, seed: F32, keep: F32) -> F32:
    """Each window has its own tint, some a curtain or a lamp; `keep` fades that to the mean in coarse pixels."""
    pick, lamp, drape = (cell_hash(column, row, seed + 4099 * c) for c in (1, 2, 3))
    tint = _GLASS[(pick * len(_GLASS)).astype(np.int32)]
    height = np.clip((r - np.floor(r) - bottom) / (top - bottom), 0, 1)
    tint = tint * (0.8 + 0.45 * height)[:, None]  # a painted sky: lighter towards the top, from wherever it is seen
    tint = np.where((lamp < 0.07)[:, None], _LIT * 0.75, tint)
    drawn = np.where(drape < 0.4, 0.15 + 1.2 * drape, 0.0)
    tint = blend(tint, _CURTAIN * 0.62, interval(height, wr / (top - bottom), 1.0 - drawn, 1.2) * (drawn > 0))
    mean = _GLASS.mean(axis=0) * 1.02 * 0.80 + _LIT * 0.75 * 0.06 + _CURTAIN * 0.62 * 0.15
    return blend(np.broadcast_to(mean, tint.shape), tint, keep)


def _shopfront(color: F32, u: F32, v: F32, wu: F32, wv: F32, width: F32, params: F32, seed: F32) -> F32:
    """Shops: plinth, glass, a sign with something like letters, a door with panels and a handle."""
    shops = np.maximum(1.0, np.round(width / 4.6))
    size = width / shops
    s, ws = u / size, wu / size
    index = np.floor(s).astype(np.int32)
    zero = np.zeros_like(index)
    pick, style = cell_hash(index, zero, seed + 77), cell_hash(index, zero, seed + 78)
    x = (s - index) * size  # m from the shop's left edge
    keep = fade(ws, 1.0)
    paint = blend(
        np.broadcast_to(_SHOPS.mean(axis=0), color.shape), _SHOPS[(pick * len(_SHOPS)).astype(np.int32)], keep
    )
    edge = 0.28 / size
    across = pulse(s, ws, edge, 1 - edge)
    color = blend(color, params[:, 3:6] * 0.6, interval(v, wv, 0.0, 0.42))
    color = blend(color, paint * 0.8, across * interval(v, wv, 0.42, 2.86))
    door = 0.45 / size
    door_hi = door + _DOOR_WIDTH / size
    glass_lo = door_hi + 0.22 / size
    inner = 1 - edge - 0.1 / size
    panes = pulse(s, ws, glass_lo, inner) - pulse(
        s, ws, 0.5 * (glass_lo + inner) - 0.03 / size, 0.5 * (glass_lo + inner) + 0.03 / size
    )
    glass = _SHOP_GLASS * (0.75 + 0.5 * style)[:, None]
    goods = 0.16 * noise2(u + 3 * seed, v * 1.3, 0.42, np.maximum(wu, wv)) + 0.22 * interval(v, wv, 0.55, 1.1)
    glass = glass * (1 + goods)[:, None] + paint * 0.10
    color = blend(color, glass, panes * interval(v, wv, 0.55, 2.72))
    color = _door(color, s, ws, x, v, wu, wv, door, door_hi, size, style)
    sign = across * interval(v, wv, 3.0, 3.58)
    color = blend(color, paint, sign)
    letter = u / 0.34
    some = cell_hash(np.floor(letter).astype(np.int32), index, seed + 5)
    ink = pulse(letter, wu / 0.34, 0.18, 0.82) * interval(v, wv, 3.14, 3.44) * interval(x, wu, 0.8, size - 0.8)
    ink = (
        ink
        * blend(np.full((len(u), 1), 0.7, np.float32), (some > 0.3).astype(np.float32)[:, None], fade(wu, 0.34))[:, 0]
    )
    return blend(color, _SIGN_INK, ink * 0.85)


def _door(
    color: F32, s: F32, ws: F32, x: F32, v: F32, wu: F32, wv: F32, lo: F32, hi: F32, size: F32, style: F32
) -> F32:
    wood = _DOORS[(style * 17.0).astype(np.int32) % len(_DOORS)]
    wood = blend(np.broadcast_to(_DOORS.mean(axis=0), color.shape), wood, fade(ws, 1.0))
    color = blend(color, wood, pulse(s, ws, lo, hi) * interval(v, wv, 0.02, _DOOR_HEIGHT))
    left = lo * size  # m
    for low, high in ((0.25, 0.95), (1.25, 2.1)):
        panel = interval(x, wu, left + 0.16, left + _DOOR_WIDTH - 0.16) * interval(v, wv, low, high)
        color = blend(color, wood * 0.62, panel)
    plate = interval(x, wu, left + _DOOR_WIDTH - 0.12, left + _DOOR_WIDTH - 0.05) * interval(v, wv, 0.98, 1.2)
    color = blend(color, _HANDLE * 0.5, plate)
    return blend(color, _HANDLE, disc(np.hypot(x - left - _DOOR_WIDTH + 0.085, v - 1.1), np.hypot(wu, wv) * 0.7, 0.026))
