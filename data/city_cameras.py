"""Where the synthetic city is photographed from: the air, a drone's height, and the street."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..models.camera import Camera, look_at
from .city_world import LOT_HALF, PITCH, Material, World

SHARES = {"aerial": 0.45, "drone": 0.30, "street": 0.25}
_FOV_X = 60.0  # degrees
_CLEARANCE = {"aerial": 20.0, "drone": 4.0, "street": 2.0}  # m to the nearest object
_TRIES = 2000
_UP = np.array([0.0, 0.0, 1.0])


def make_cameras(world: World, n: int, size: tuple[int, int], seed: int, stream: int) -> dict[str, Camera]:
    """`n` cameras by name, such as "aerial_003", kinds in turn; `stream` separates training views from test views."""
    cameras: dict[str, Camera] = {}
    placers = {"aerial": _aerial, "drone": _drone, "street": _street}
    counts = dict.fromkeys(SHARES, 0)
    for _ in range(n):
        # the kind that is furthest behind its share is next, so any number of views is a fair mixture
        kind = max(SHARES, key=lambda k: SHARES[k] * (sum(counts.values()) + 1) - counts[k])
        rng = np.random.default_rng([seed, 3, stream, list(SHARES).index(kind), counts[kind]])
        eye, target = _clear_pose(world, rng, kind, placers[kind])
        cameras[f"{kind}_{counts[kind]:03d}"] = _camera(eye, target, size)
        counts[kind] += 1
    return cameras


def clearance(world: World, point: NDArray) -> float:
    """Metres from a point to the box of the nearest primitive, the ground and the lots aside; 0 inside one."""
    solid = (world.material != Material.GROUND) & (world.material != Material.LOT)
    gap = np.maximum(np.abs(np.asarray(point) - world.centre[solid]) - world.half[solid], 0.0)
    return float(np.linalg.norm(gap, axis=1).min()) if solid.any() else float("inf")


def _camera(eye: NDArray, target: NDArray, size: tuple[int, int]) -> Camera:
    focal = 0.5 * size[0] / np.tan(np.radians(_FOV_X) / 2)
    return Camera(look_at(eye, target, _UP), focal, focal, size[0] / 2, size[1] / 2, size[0], size[1])


def _clear_pose(world: World, rng: Generator, kind: str, place) -> tuple[NDArray, NDArray]:
    for _ in range(_TRIES):
        eye, target = place(world, rng)
        if clearance(world, eye) >= _CLEARANCE[kind]:
            return eye, target
    raise RuntimeError(f"make_cameras: found no free place for a {kind} camera in {_TRIES} tries")


def _aerial(world: World, rng: Generator) -> tuple[NDArray, NDArray]:
    """90 to 170 m up, 30 to 90 degrees down, looking at a point of the city from any side."""
    extent = world.extent
    target = np.append(rng.uniform(-0.65, 0.65, 2) * extent, rng.uniform(0, 8))
    height = rng.uniform(90, 170)
    down = np.radians(rng.uniform(32, 88))
    bearing = np.arctan2(target[1], target[0]) + np.pi + rng.normal(0, 1.1)  # mostly from across the city
    away = np.minimum((height - target[2]) / np.tan(down), 170.0)
    eye = np.array([target[0] - away * np.cos(bearing + np.pi), target[1] - away * np.sin(bearing + np.pi), height])
    return eye, target


def _drone(world: World, rng: Generator) -> tuple[NDArray, NDArray]:
    """25 to 60 m up, over the city, 18 to 60 degrees down, turned to its inside."""
    extent = world.extent
    eye = np.append(rng.uniform(-1.0, 1.0, 2) * extent, rng.uniform(25, 60))
    target = np.append(rng.uniform(-0.75, 0.75, 2) * extent, rng.uniform(0, 10))
    flat = target[:2] - eye[:2]
    direction = flat / max(float(np.linalg.norm(flat)), 1e-6)
    away = (eye[2] - target[2]) / np.tan(np.radians(rng.uniform(18, 60)))
    return eye, np.append(eye[:2] + direction * away, target[2])


def _street(world: World, rng: Generator) -> tuple[NDArray, NDArray]:
    """1.7 to 6 m up, along a walk through the middle streets (one each way for every six blocks), looking down the
    street or at facades. A walk, rather than a scatter over all streets, is how people record streets, and sees each
    wall more than once."""
    extent, half_street = world.extent, PITCH / 2 - LOT_HALF
    lines = np.arange(1, world.blocks) * PITCH - extent
    walked = max(1, world.blocks // 6)
    middle = lines[(len(lines) - walked + 1) // 2 :][:walked] if len(lines) else np.array([extent - half_street / 2])
    axis = int(rng.integers(2))  # the direction of the street
    eye = np.empty(3)
    eye[axis] = rng.uniform(-0.8, 0.8) * extent
    eye[1 - axis] = rng.choice(middle) + rng.uniform(-0.42, 0.42) * half_street
    eye[2] = 1.7 + 4.3 * rng.random() ** 1.6
    heading = rng.choice([-1.0, 1.0])
    if abs(eye[axis]) > 0.55 * extent:
        heading = -np.sign(eye[axis])  # inwards, near the ends
    turn = rng.choice([-1.0, 1.0]) * np.radians(rng.uniform(0, 25) if rng.random() < 0.5 else rng.uniform(35, 90))
    rise = np.radians(rng.uniform(-9, 12))
    look = np.empty(3)
    look[axis], look[1 - axis], look[2] = heading * np.cos(turn), np.sin(turn), np.tan(rise)
    return eye, eye + look
