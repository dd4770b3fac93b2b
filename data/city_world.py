"""What the synthetic city is made of: primitives in flat arrays, and the palette.

The world is z-up in metres, centred on the origin: a square slab of ground, top at z = 0, and `blocks` x `blocks`
blocks at a pitch of 40 m, each a raised lot of 28 m with streets of 12 m between. Nothing exists outside the slab.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

PITCH = 40.0  # m between blocks
LOT_HALF = 14.0  # m, half of a block's raised lot, sidewalk included
INNER_HALF = 11.5  # m, half of what lies inside the sidewalk
KERB = 0.12  # m, height of the lot above the street
SLAB = 1.0  # m, thickness of the ground
MAX_HEIGHT = 28.0  # m, of anything
N_PARAMS = 16


class Shape(IntEnum):
    """How a ray meets a primitive."""

    BOX = 0
    ELLIPSOID = 1
    GABLE = 2  # a box cut by two slopes that meet in a ridge; parameter 15 is the ridge's axis


class Material(IntEnum):
    """How a surface is coloured; each has one function in `city_texture`. Parameters 0:3 are the main colour,
    linear."""

    GROUND = 0
    LOT = 1
    FACADE = 2
    PLAIN = 3
    ROOF = 4
    LEAF = 5
    BARK = 6
    CAR = 7
    CABIN = 8
    AWNING = 9
    PANEL = 10  # solar panels and glass roofs: a dark grid


@dataclass(frozen=True, eq=False)
class World:
    """All primitives. `centre`, `half` [P, 3] float32; `shape`, `material` [P] uint8; `params` [P, 16] float32."""

    blocks: int
    centre: NDArray[np.float32]
    half: NDArray[np.float32]
    shape: NDArray[np.uint8]
    material: NDArray[np.uint8]
    params: NDArray[np.float32]
    walls: NDArray[
        np.float32
    ]  # [blocks, blocks, 4, 4] x0 y0 x1 y1 of the buildings that stand on a lot, far away where fewer
    kinds: NDArray[np.uint8]  # [blocks, blocks] 0 paved court, 1 park

    @property
    def extent(self) -> float:
        """Half the slab's edge."""
        return self.blocks * PITCH / 2

    def __len__(self) -> int:
        return len(self.centre)


@dataclass
class Builder:
    """Collects primitives. Boxes are given by their corners, in metres."""

    centre: list[list[float]] = field(default_factory=list)
    half: list[list[float]] = field(default_factory=list)
    shape: list[int] = field(default_factory=list)
    material: list[int] = field(default_factory=list)
    params: list[NDArray[np.float64]] = field(default_factory=list)

    def add(
        self,
        shape: Shape,
        material: Material,
        lo: tuple[float, ...],
        hi: tuple[float, ...],
        color: NDArray,
        *rest: float,
    ) -> NDArray[np.float64]:
        """Adds a primitive that fills the box; parameters are the colour, then `rest`. Returns the parameters, to be
        filled in."""
        params = np.zeros(N_PARAMS)
        params[:3] = color
        params[3 : 3 + len(rest)] = rest
        self.centre.append([(a + b) / 2 for a, b in zip(lo, hi, strict=True)])
        self.half.append([(b - a) / 2 for a, b in zip(lo, hi, strict=True)])
        self.shape.append(shape)
        self.material.append(material)
        self.params.append(params)
        return params

    def box(
        self, material: Material, lo: tuple[float, ...], hi: tuple[float, ...], color: NDArray, *rest: float
    ) -> NDArray[np.float64]:
        return self.add(Shape.BOX, material, lo, hi, color, *rest)


def srgb(*hexes: str) -> NDArray[np.float64]:
    """Colours [n, 3], linear, from "rrggbb"."""
    encoded = np.array([[int(h[i : i + 2], 16) / 255 for i in (0, 2, 4)] for h in hexes])
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


WALLS = srgb(
    "c8694a", "d98e4f", "e0b15e", "ead6a6", "efe3c8", "8ea3b5", "6f8ba3", "a6483c", "b5583f", "c9a58c", "9db39a",
    "d8b4a0", "e6c9b0", "7f9aa0",
)  # fmt: skip
BRICKS = srgb("a2503c", "8f4536", "b4634a", "9c5a45", "b98a63", "7d4a3d")
TRIMS = srgb("f1eadb", "e4dccb", "d8d2c6", "6b6258", "4c5a61")
FLAT_ROOFS = srgb("8d8a84", "9a938a", "777a7c", "a39a8c", "6f8067")
TILE_ROOFS = srgb("a9553b", "8c4233", "b86a48", "6d5b55", "566270")
LEAVES = srgb("4f7f35", "5f9140", "6fa045", "3f7038", "86a846", "a8a23f", "c78a3a")
CARS = srgb("c0392b", "2e5c8a", "e8e6e1", "2f3338", "9aa3a8", "d9a62e", "3f7f5f", "7a3b52", "5fa3c7")
SHOPS = srgb("b5382d", "2f6690", "2f7a57", "d19a2a", "6a3d7c", "28515c", "c4622d", "87343f")
METAL, DARK, BARK, STONE = srgb("a9adaf", "33363a", "6a4c35", "b9b2a4")
