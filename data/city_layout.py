"""Lays the synthetic city out: a pure function of the number of blocks and the seed."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .city_world import (
    BARK,
    BRICKS,
    CARS,
    DARK,
    FLAT_ROOFS,
    INNER_HALF,
    KERB,
    LEAVES,
    LOT_HALF,
    MAX_HEIGHT,
    METAL,
    PITCH,
    SHOPS,
    SLAB,
    STONE,
    TILE_ROOFS,
    TRIMS,
    WALLS,
    Builder,
    Material,
    Shape,
    World,
)  # fmt: skip

_FLOOR = 3.2  # m, height of a storey
_GROUND_FLOOR = 3.9  # m, height of the storey with the shops


@lru_cache(maxsize=4)
def make_world(blocks: int, seed: int) -> World:
    """The city of `blocks` x `blocks` blocks."""
    build = Builder()
    half = blocks * PITCH / 2
    build.box(
        Material.GROUND, (-half, -half, -SLAB), (half, half, 0.0), np.array([0.075, 0.078, 0.085]), blocks, seed % 97
    )
    walls = np.full((blocks, blocks, 4, 4), 1e4, np.float32)
    kinds = np.zeros((blocks, blocks), np.uint8)
    parks = _park_blocks(np.random.default_rng([seed, 1]), blocks)
    for j in range(blocks):
        for i in range(blocks):
            rng = np.random.default_rng([seed, 2, i, j])
            x, y = (i + 0.5) * PITCH - half, (j + 0.5) * PITCH - half
            kinds[i, j] = (i, j) in parks
            lot = build.box(Material.LOT, (x - LOT_HALF, y - LOT_HALF, 0), (x + LOT_HALF, y + LOT_HALF, KERB), STONE)
            lot[3] = kinds[i, j]
            rects = _park(build, rng, x, y) if kinds[i, j] else _block(build, rng, x, y)
            walls[i, j, : len(rects)] = rects
            _street_trees(build, rng, x, y)
            _cars(build, rng, x, y)
            _lamps(build, x, y)
    return World(
        blocks, np.array(build.centre, np.float32), np.array(build.half, np.float32), np.array(build.shape, np.uint8),
        np.array(build.material, np.uint8), np.array(build.params, np.float32), walls, kinds,
    )  # fmt: skip


def _park_blocks(rng: Generator, blocks: int) -> set[tuple[int, int]]:
    """About one block in nine is a park."""
    picks = rng.choice(blocks * blocks, size=max(1, round(blocks * blocks / 9)) if blocks > 1 else 0, replace=False)
    return {(int(p) % blocks, int(p) // blocks) for p in picks}


def _pick(rng: Generator, colors: NDArray, spread: float = 0.08) -> NDArray:
    """One of the colours, its brightness and hue moved a little."""
    return colors[rng.integers(len(colors))] * (1 + rng.uniform(-spread, spread)) * (1 + rng.uniform(-0.04, 0.04, 3))


# --- buildings -------------------------------------------------------------------------------------------------------


def _plots(rng: Generator) -> list[tuple[float, float, float, float]]:
    """One to four plots (x0, y0, x1, y1) inside [-INNER_HALF, INNER_HALF]^2, alleys between them."""
    a = INNER_HALF
    gap, cut = rng.uniform(1.2, 2.0), rng.uniform(-2.5, 2.5)
    kind = rng.choice(4, p=[0.2, 0.3, 0.25, 0.25])
    if kind == 0:
        inset = rng.uniform(0, 1.5)
        return [(-a + inset, -a + inset, a - inset, a - inset)]
    if kind == 1:
        plots = [(-a, -a, cut - gap, a), (cut + gap, -a, a, a)]
    elif kind == 2:
        plots = [(-a, -a, cut - gap, a), (cut + gap, -a, a, -gap), (cut + gap, gap, a, a)]
    else:
        c2 = rng.uniform(-2, 2)
        plots = [(-a, -a, cut - gap, c2 - gap), (cut + gap, -a, a, c2 - gap), (-a, c2 + gap, cut - gap, a),
                 (cut + gap, c2 + gap, a, a)]  # fmt: skip
    if rng.random() < 0.5:
        plots = [(y0, x0, y1, x1) for x0, y0, x1, y1 in plots]
    return plots


def _block(build: Builder, rng: Generator, x: float, y: float) -> list[tuple[float, float, float, float]]:
    rects = []
    plots = _plots(rng)
    court = int(rng.integers(len(plots))) if len(plots) == 4 and rng.random() < 0.4 else -1
    for k, (x0, y0, x1, y1) in enumerate(plots):
        rect = (x + x0, y + y0, x + x1, y + y1)
        if k == court:  # a court with trees in the place of the fourth house
            for _ in range(2):
                _tree(build, rng, rng.uniform(rect[0] + 2, rect[2] - 2), rng.uniform(rect[1] + 2, rect[3] - 2), 0.9)
            continue
        _building(build, rng, rect, tall=len(plots) < 3)
        rects.append(rect)
    return rects


def _facade(
    build: Builder, rng: Generator, rect: tuple[float, ...], z0: float, z1: float, style: NDArray, shops: bool
) -> None:
    """A box with windows; `style` holds the parameters that a building's parts share."""
    params = build.box(Material.FACADE, (rect[0], rect[1], z0), (rect[2], rect[3], z1), style[:3])
    params[:] = style
    params[12] = _GROUND_FLOOR if shops else 0.0
    storeys = max(1, round((z1 - z0 - params[12]) / _FLOOR))
    params[13] = (z1 - z0 - params[12]) / storeys


def _style(rng: Generator) -> NDArray:
    """Parameters of a facade: 0:3 wall, 3:6 trim, 6 brick, 7 bay width, 8 window width, 9 window height (shares of bay
    and storey), 10 seed, 11 shop colour index, 12 height of the ground floor, 13 storey height, 14 roof brightness."""
    style = np.zeros(16)
    brick = rng.random() < 0.45
    style[:3] = _pick(rng, BRICKS if brick else WALLS)
    style[3:6] = _pick(rng, TRIMS, 0.03)
    kind = rng.integers(4)
    style[6] = brick
    style[7] = (rng.uniform(2.4, 3.2), rng.uniform(3.2, 4.2), rng.uniform(2.0, 2.6), rng.uniform(2.8, 3.4))[kind]
    style[8] = (0.44, 0.62, 0.5, 0.78)[kind]
    style[9] = (0.54, 0.46, 0.64, 0.56)[kind]
    style[10] = rng.integers(1, 4096)
    style[11] = rng.integers(len(SHOPS))
    style[14] = rng.uniform(0.8, 1.15)
    return style


def _building(build: Builder, rng: Generator, rect: tuple[float, float, float, float], tall: bool) -> None:
    width, depth = rect[2] - rect[0], rect[3] - rect[1]
    style = _style(rng)
    storeys = int(rng.integers(2, 7 if tall else 6))
    if (tall and min(width, depth) > 15) or rng.random() < 0.12:
        storeys = 7
    z0, top = KERB, KERB + _GROUND_FLOOR + _FLOOR * (storeys - 1)
    gabled = storeys <= 4 and min(width, depth) < 12 and rng.random() < 0.6
    setback = not gabled and min(width, depth) > 9 and storeys >= 4 and rng.random() < 0.7
    low = KERB + _GROUND_FLOOR + _FLOOR * int(rng.integers(1, storeys - 1)) if setback else top
    _facade(build, rng, rect, z0, low, style, shops=True)
    _awnings(build, rng, rect)
    if gabled:
        _gable(build, rng, rect, top, style)
        return
    _parapet(build, rect, low, style[3:6] * 0.92)
    crown = rect
    if setback:
        inset = rng.uniform(1.6, min(width, depth) * 0.25)
        crown = (rect[0] + inset, rect[1] + inset, rect[2] - inset, rect[3] - inset)
        _facade(build, rng, crown, low, top, style, shops=False)
        _parapet(build, crown, top, style[3:6] * 0.92)
    _roof_things(build, rng, crown, top, style[:3])


def _parapet(build: Builder, rect: tuple[float, ...], z: float, color: NDArray) -> None:
    """A cornice of four boxes, proud of the wall by 12 cm, so that no two faces lie in one plane."""
    x0, y0, x1, y1 = rect[0] - 0.12, rect[1] - 0.12, rect[2] + 0.12, rect[3] + 0.12
    t, lo, hi = 0.42, z - 0.3, z + 0.75
    for box in ((x0, y0, x1, y0 + t), (x0, y1 - t, x1, y1), (x0, y0 + t, x0 + t, y1 - t), (x1 - t, y0 + t, x1, y1 - t)):
        build.box(Material.PLAIN, (box[0], box[1], lo), (box[2], box[3], hi), color, 0.5)


def _gable(build: Builder, rng: Generator, rect: tuple[float, ...], z: float, style: NDArray) -> None:
    width, depth = rect[2] - rect[0], rect[3] - rect[1]
    axis = 0 if width > depth else 1
    rise = min(width, depth) * rng.uniform(0.3, 0.42)
    over = 0.45
    params = build.add(
        Shape.GABLE, Material.ROOF, (rect[0] - over, rect[1] - over, z), (rect[2] + over, rect[3] + over, z + rise),
        _pick(rng, TILE_ROOFS),
    )  # fmt: skip
    params[3:6], params[10], params[15] = style[:3], style[10], axis
    along, across = rng.uniform(-0.3, 0.3), rng.choice([-1, 1]) * 0.22
    cx, cy = (rect[0] + rect[2]) / 2, (rect[1] + rect[3]) / 2
    cx, cy = (cx + along * width, cy + across * depth) if axis == 0 else (cx + across * width, cy + along * depth)
    build.box(Material.PLAIN, (cx - 0.5, cy - 0.4, z), (cx + 0.5, cy + 0.4, z + rise + 0.9), BRICKS[0] * 0.9, 1.0)


def _roof_things(build: Builder, rng: Generator, rect: tuple[float, ...], z: float, wall: NDArray) -> None:
    """A stair house, ventilation, solar panels, none in another; all below MAX_HEIGHT."""
    x0, y0, x1, y1 = rect[0] + 1, rect[1] + 1, rect[2] - 1, rect[3] - 1
    if min(x1 - x0, y1 - y0) < 3:
        return
    stair = (Material.PLAIN, rng.uniform(2.2, 3.2), rng.uniform(2.2, 3.2), 0.0, rng.uniform(2.2, 2.8), wall * 0.9)
    things = [stair]
    if x1 - x0 > 6 and y1 - y0 > 6 and rng.random() < 0.6:
        things += [(Material.PANEL, 5.0, 3.2, 0.3, 0.45, np.array([0.035, 0.06, 0.13]))] * int(rng.integers(1, 4))
    for _ in range(int(rng.integers(1, 5))):
        things.append((Material.PLAIN, rng.uniform(0.8, 1.8), rng.uniform(0.8, 1.6), 0.0, rng.uniform(0.6, 1.3), METAL))
    taken: list[tuple[float, float, float, float]] = []
    for material, w, d, low, high, color in things:
        for _ in range(8):
            px, py = rng.uniform(x0, max(x0, x1 - w)), rng.uniform(y0, max(y0, y1 - d))
            if all(px + w < a - 0.2 or px > c + 0.2 or py + d < b - 0.2 or py > e + 0.2 for a, b, c, e in taken):
                taken.append((px, py, px + w, py + d))
                build.box(material, (px, py, z + low), (px + w, py + d, min(z + high, MAX_HEIGHT)), color, 0.3)
                break


def _awnings(build: Builder, rng: Generator, rect: tuple[float, ...]) -> None:
    """Striped awnings over some shops, 1.1 m deep."""
    for side in range(4):
        if rng.random() < 0.6:
            continue
        axis = side // 2  # the wall's normal
        lo, hi = rect[1 - axis] + 0.5, rect[3 - axis] - 0.5
        length = rng.uniform(2.5, 4.5)
        start = rng.uniform(lo, max(lo, hi - length))
        wall = rect[axis] if side % 2 == 0 else rect[axis + 2]
        near, far = (wall - 1.1, wall - 0.02) if side % 2 == 0 else (wall + 0.02, wall + 1.1)
        a, b = [0.0, 0.0, 2.75 + KERB], [0.0, 0.0, 2.95 + KERB]
        a[axis], b[axis], a[1 - axis], b[1 - axis] = near, far, start, min(start + length, hi)
        if b[1 - axis] - a[1 - axis] > 1:
            build.box(Material.AWNING, tuple(a), tuple(b), _pick(rng, SHOPS), float(1 - axis))


# --- greenery, cars, lamps -------------------------------------------------------------------------------------------


def _tree(build: Builder, rng: Generator, x: float, y: float, size: float, z: float = KERB) -> None:
    """A trunk, a crown and two to four lobes around it."""
    height = size * rng.uniform(4.6, 6.4)
    radius = size * rng.uniform(1.05, 1.4)
    r = 0.09 + 0.05 * size
    middle = z + height * 0.68
    build.box(Material.BARK, (x - r, y - r, z), (x + r, y + r, middle), BARK)
    leaves = _pick(rng, LEAVES, 0.15)
    lobes = [(x, y, middle + 0.15 * radius, radius, radius * rng.uniform(1.0, 1.3))]
    turn = rng.uniform(0, 6.28)
    count = int(rng.integers(2, 5))
    for k in range(count):
        angle = turn + 6.283 * k / count + rng.uniform(-0.4, 0.4)
        s = radius * rng.uniform(0.55, 0.78)
        away = radius * rng.uniform(0.55, 0.75)
        lift = radius * rng.uniform(-0.35, 0.55)
        lobes.append((x + away * np.cos(angle), y + away * np.sin(angle), middle + lift, s, s * rng.uniform(0.8, 1.0)))
    for cx, cy, cz, s, sz in lobes:
        color = leaves * rng.uniform(0.9, 1.1)
        lo, hi = (cx - s, cy - s, cz - sz), (cx + s, cy + s, cz + sz)
        build.add(Shape.ELLIPSOID, Material.LEAF, lo, hi, color, rng.uniform(0, 60), middle - radius, 2.4 * radius)


def _street_trees(build: Builder, rng: Generator, x: float, y: float) -> None:
    """Trees on the sidewalk, 1.3 m from the kerb."""
    line = LOT_HALF - 1.3
    for side in range(4):
        for along in (-8.0, -2.7, 2.7, 8.0):
            if rng.random() < 0.62:
                continue
            across = line if side % 2 else -line
            px, py = (along, across) if side < 2 else (across, along)
            _tree(build, rng, x + px, y + py, rng.uniform(0.7, 0.95))


def _park(build: Builder, rng: Generator, x: float, y: float) -> list[tuple[float, float, float, float]]:
    """Grass, a pavilion, a fountain and many trees."""
    sx, sy = rng.choice([-1, 1], 2)
    px, py = x + sx * 6.5, y + sy * 6.5
    rect = (px - 2.5, py - 2.5, px + 2.5, py + 2.5)
    style = _style(rng)
    _facade(build, rng, rect, KERB, KERB + 4.4, style, shops=False)
    _gable(build, rng, rect, KERB + 4.4, style)
    build.add(Shape.ELLIPSOID, Material.PLAIN, (x - 2.2, y - 2.2, -0.3), (x + 2.2, y + 2.2, 0.75), STONE * 0.9, 0.4)
    build.add(Shape.ELLIPSOID, Material.PLAIN, (x - 0.5, y - 0.5, 0.4), (x + 0.5, y + 0.5, 2.2), STONE, 0.4)
    placed = [(px, py), (x, y)]
    for _ in range(60):
        tx, ty = x + rng.uniform(-10.5, 10.5), y + rng.uniform(-10.5, 10.5)
        on_path = abs(abs(tx - x) - abs(ty - y)) < 1.2
        if not on_path and all((tx - a) ** 2 + (ty - b) ** 2 > 4.2**2 for a, b in placed):
            placed.append((tx, ty))
            _tree(build, rng, tx, ty, rng.uniform(0.8, 1.25))
        if len(placed) >= 11:
            break
    return [rect]


def _cars(build: Builder, rng: Generator, x: float, y: float) -> None:
    """Cars parked along the four kerbs, each two boxes."""
    for side in range(4):
        for along in (-8.4, -2.8, 2.8, 8.4):
            if rng.random() < 0.66:
                continue
            axis = 0 if side < 2 else 1  # the car's length
            across = (LOT_HALF + 1.1) * (1 if side % 2 else -1)
            centre = np.array([x, y])
            centre[axis] += along + rng.uniform(-0.3, 0.3)
            centre[1 - axis] += across
            _car(build, rng, centre, axis)


def _car(build: Builder, rng: Generator, centre: NDArray, axis: int) -> None:
    color = _pick(rng, CARS)
    length, width = rng.uniform(1.95, 2.25), rng.uniform(0.82, 0.92)
    shift = rng.uniform(-0.25, 0.1)
    for material, a, b, w, z0, z1 in (
        (Material.CAR, -length, length, width, 0.04, 0.86),
        (Material.CABIN, -length * 0.55 + shift, length * 0.5 + shift, width - 0.09, 0.86, rng.uniform(1.4, 1.6)),
    ):
        lo, hi = [0.0, 0.0, z0], [0.0, 0.0, z1]
        lo[axis], hi[axis] = centre[axis] + a, centre[axis] + b
        lo[1 - axis], hi[1 - axis] = centre[1 - axis] - w, centre[1 - axis] + w
        params = build.box(material, tuple(lo), tuple(hi), color, float(axis))
        params[4] = rng.choice([-1, 1])


def _lamps(build: Builder, x: float, y: float) -> None:
    """Two lamps a block, at opposite corners."""
    for s in (-1, 1):
        px, py = x + s * (LOT_HALF - 0.6), y + s * (LOT_HALF - 0.6)
        build.box(Material.PLAIN, (px - 0.07, py - 0.07, KERB), (px + 0.07, py + 0.07, 5.2), DARK, 0.0)
        arm = s * 1.6
        build.box(
            Material.PLAIN, (min(px, px + arm), py - 0.09, 5.2), (max(px, px + arm), py + 0.09, 5.34), DARK * 1.3, 0.0
        )


def roof_color(index: NDArray) -> NDArray:
    """Colours [n, 3] of flat roofs by a building's seed [n]."""
    return FLAT_ROOFS[index.astype(np.int64) % len(FLAT_ROOFS)].astype(np.float32)
