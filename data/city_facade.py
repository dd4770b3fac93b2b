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
    """Colours [m, 3], linear, of points on walls `width` [m] wide.

    `params` [m, 16] as in `city_layout`, `side` [m] which of the four walls.
    """
    seed = params[:, 10] * 4 + side
    ground = params[:, 12]
    wall = _wall(u, v, wu, wv, params, seed)
    color = wall.copy()
    shops = ground > 0
    above = np.flatnonzero((v + 0.5 * wv > ground) | ~shops)
    if len(above):
        k = above
        # only the part of the footprint above the shops takes part, and counts by its share
        low = np.where(shops[k], np.maximum(v[k] - 0.5 * wv[k], ground[k]), v[k] - 0.5 * wv[k])
        high = v[k] + 0.5 * wv[k]
        share = np.where(shops[k], interval(v[k], wv[k], ground[k], 1e4), 1.0)
        windows = _windows(wall[k], u[k], 0.5 * (low + high), wu[k], high - low, width[k], params[k], seed[k])
        color[k] += windows * share[:, None]
    below = np.flatnonzero((v - 0.5 * wv < ground) & shops)
    if len(below):
        k = below
        color[k] += _shopfront(wall[k], u[k], v[k], wu[k], wv[k], width[k], params[k], seed[k])
    return color


def _layer(over: Any, under: Any, cover: F32) -> F32:
    """What laying one colour on another changes. Layers are nested or apart, never across each other, so changes just
    add up, and the sum is the exact mean; blending one after another would take their covers for independent."""
    return (over - under) * cover[:, None]


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


def _windows(wall: F32, u: F32, v: F32, wu: F32, wv: F32, width: F32, params: F32, seed: F32) -> F32:
    """What windows change of a wall: trim, frame, mullion, transom, glass, sill, and a string course at each storey."""
    bays = np.maximum(1.0, np.round(width / params[:, 7]))
    bay, storey = width / bays, params[:, 13]
    s, r, ws, wr = u / bay, (v - params[:, 12]) / storey, wu / bay, wv / storey
    lo, hi = 0.5 - 0.5 * params[:, 8], 0.5 + 0.5 * params[:, 8]
    bottom = 0.56 - 0.5 * params[:, 9]
    top = bottom + params[:, 9]
    ex, ey = 0.13 / bay, 0.13 / storey  # 13 cm of trim
    fx, fy = 0.07 / bay, 0.07 / storey  # 7 cm of frame
    trim, frame = params[:, 3:6], params[:, 3:6] * 0.8
    out = _layer(trim * 0.9, wall, pulse(r, wr, 0.0, 0.11 / storey))
    sill = pulse(s, ws, lo - 1.6 * ex, hi + 1.6 * ex) * pulse(r, wr, bottom - 1.9 * ey, bottom - ey)
    out += _layer(_SILL, wall, sill)
    out += _layer(trim, wall, pulse(s, ws, lo - ex, hi + ex) * pulse(r, wr, bottom - ey, top + ey))
    out += _layer(frame, trim, pulse(s, ws, lo, hi) * pulse(r, wr, bottom, top))
    column, row = np.floor(s).astype(np.int32), np.floor(r).astype(np.int32)
    height = np.clip((r - row - bottom) / (top - bottom), 0, 1)
    glass = blend(
        np.broadcast_to(_GLASS_MEAN, wall.shape),
        _glass(column, row, height, wr / (top - bottom), seed),
        fade(ws, 1.0) * fade(wr, 1.0),
    )
    pane_s = pulse(s, ws, lo + fx, hi - fx) - pulse(s, ws, 0.5 - 0.4 * fx, 0.5 + 0.4 * fx)
    split = bottom + 0.68 * (top - bottom)
    pane_r = pulse(r, wr, bottom + fy, top - fy) - pulse(r, wr, split - 0.4 * fy, split + 0.4 * fy)
    return out + _layer(glass, frame, pane_s * pane_r)


def _glass(column: NDArray, row: NDArray, height: F32, w: F32, seed: F32) -> F32:
    """Each window has its own tint, some a curtain or a lamp; `height` is 0 at a window's foot and 1 at its top."""
    pick, lamp, drape = (cell_hash(column, row, seed + 4099 * c) for c in (1, 2, 3))
    tint = _GLASS[(pick * len(_GLASS)).astype(np.int32)]
    tint = tint * (0.8 + 0.45 * height)[:, None]  # a painted sky: lighter towards the top, from wherever it is seen
    tint = np.where((lamp < 0.07)[:, None], _LIT * 0.75, tint)
    drawn = np.where(drape < 0.4, 0.15 + 1.2 * drape, 0.0)
    return blend(tint, _CURTAIN * 0.62, interval(height, w, 1.0 - drawn, 1.2) * (drawn > 0))


def _mean_glass() -> F32:
    """The mean of `_glass` over many windows, which coarse pixels fade to."""
    i = np.arange(40000, dtype=np.int32)
    height = ((i % 200) + 0.5).astype(np.float32) / 200
    return (
        _glass(i, i // 7, height, np.full(len(i), 1e-3, np.float32), np.full(len(i), 5.0))
        .mean(axis=0)
        .astype(np.float32)
    )


_GLASS_MEAN = _mean_glass()


def _shopfront(wall: F32, u: F32, v: F32, wu: F32, wv: F32, width: F32, params: F32, seed: F32) -> F32:
    """What shops change of a wall: plinth, glass, a sign with something like letters, a door."""
    shops = np.maximum(1.0, np.round(width / 4.6))
    size = width / shops
    s, ws = u / size, wu / size
    index = np.floor(s).astype(np.int32)
    zero = np.zeros_like(index)
    pick, style = cell_hash(index, zero, seed + 77), cell_hash(index, zero, seed + 78)
    mean_paint = np.broadcast_to(_SHOPS.mean(axis=0), wall.shape)
    paint = blend(mean_paint, _SHOPS[(pick * len(_SHOPS)).astype(np.int32)], fade(ws, 1.0))
    plinth, panel = params[:, 3:6] * 0.6, paint * 0.8
    edge, bar = 0.28 / size, 0.03 / size
    door, glass_lo, glass_hi = 0.45 / size, (0.45 + _DOOR_WIDTH + 0.22) / size, 1 - edge - 0.1 / size
    across = pulse(s, ws, edge, 1 - edge)
    out = _layer(plinth, wall, interval(v, wv, 0.0, 0.42))
    out += _layer(panel, wall, across * interval(v, wv, 0.42, 2.86))
    middle = 0.5 * (glass_lo + glass_hi)
    panes = pulse(s, ws, glass_lo, glass_hi) - pulse(s, ws, middle - bar, middle + bar)
    goods = 0.16 * noise2(u + 3 * seed, v * 1.3, 0.42, np.maximum(wu, wv)) + 0.22 * interval(v, wv, 0.55, 1.1)
    glass = _SHOP_GLASS * ((0.75 + 0.5 * style) * (1 + goods))[:, None] + paint * 0.10
    out += _layer(glass, panel, panes * interval(v, wv, 0.55, 2.72))
    out += _door(plinth, panel, s, ws, v, wv, door, size, style)
    sign = interval(v, wv, 3.0, 3.58)
    out += _layer(paint, wall, across * sign)
    letter = u / 0.34
    some = cell_hash(np.floor(letter).astype(np.int32), index, seed + 5) > 0.3
    there = 0.7 + (some - 0.7) * fade(wu, 0.34)
    inside = (s - index > 0.8 / size) & (s - index < 1 - 0.8 / size)
    line = np.where(ws < 0.5, inside, 1 - 1.6 / size)
    ink = pulse(letter, wu / 0.34, 0.18, 0.82) * interval(v, wv, 3.14, 3.44) * line * there
    return out + _layer(_SIGN_INK, paint, ink * 0.85)


def _door(plinth: F32, panel: F32, s: F32, ws: F32, v: F32, wv: F32, lo: F32, size: F32, style: F32) -> F32:
    """What a door changes of the plinth and the panel it stands in: wood, two fields, a plate and a handle."""
    wood = _DOORS[(style * 17.0).astype(np.int32) % len(_DOORS)]
    wood = blend(np.broadcast_to(_DOORS.mean(axis=0), panel.shape), wood, fade(ws, 1.0))

    def stripe(a: float, b: float) -> F32:  # metres from the door's left edge
        return pulse(s, ws, lo + a / size, lo + b / size)

    leaf = stripe(0.0, _DOOR_WIDTH)
    out = _layer(wood, plinth, leaf * interval(v, wv, 0.02, 0.42))
    out += _layer(wood, panel, leaf * interval(v, wv, 0.42, _DOOR_HEIGHT))
    fields = stripe(0.16, _DOOR_WIDTH - 0.16) * (interval(v, wv, 0.25, 0.95) + interval(v, wv, 1.25, 2.1))
    out += _layer(wood * 0.62, wood, fields)
    out += _layer(_HANDLE * 0.5, wood, stripe(_DOOR_WIDTH - 0.12, _DOOR_WIDTH - 0.05) * interval(v, wv, 0.98, 1.2))
    x = (s - np.floor(s) - lo) * size
    knob = disc(np.hypot(x - _DOOR_WIDTH + 0.085, v - 1.1), np.maximum(ws * size, wv), 0.026)
    return out + _layer(_HANDLE, _HANDLE * 0.5, knob)
