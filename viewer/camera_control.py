"""Fly, orbit and pan. Pure arithmetic on a `Rig`: what the person does comes in as `Inputs`, so tests need no window.

Motion is scaled by time, not by frame: velocity follows the keys exponentially, and the path is its exact integral, so
30 and 144 frames a second lead to the same place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .rig import Rig

SMOOTHING = 0.07  # s, time constant of starting and stopping
SPEED_PER_DEPTH = 0.7  # 1/s: full speed crosses this share of the depth ahead in a second
FAST, SLOW = 4.0, 0.2  # what the fast and slow keys do to the speed
LOOK_ANGLE = np.radians(0.15)  # per pixel of mouse look at sensitivity 1
WHEEL_SPEED = 1.25  # speed factor of one wheel step
WHEEL_ZOOM = 0.12  # share of the way to the point under the cursor, one wheel step
GLIDE_TIME = 0.45  # s, length of the way to a bookmark

#: World distance along the ray through a pixel of the scene (x, y, in pixels), None where there is nothing.
Pick = Callable[[float, float], float | None]


@dataclass
class Inputs:
    """What the person does in one frame. Pixels count from the scene's top left corner."""

    dt: float  # s since the last frame
    move: tuple[float, float, float] = (0.0, 0.0, 0.0)  # right, up, forward: -1, 0 or 1
    fast: bool = False
    slow: bool = False
    cursor: tuple[float, float] = (0.0, 0.0)  # px
    wheel: float = 0.0  # steps, + away from the person
    pressed: frozenset[str] = frozenset()  # drags that begin: "look", "orbit", "pan"
    held: frozenset[str] = frozenset()  # mouse buttons still held, by the drag they stand for


@dataclass
class CameraControl:
    """Navigation in progress: velocity, the drag under way, the glide to a bookmark."""

    speed: float = 1.0  # the person's multiplier, as in the state
    sensitivity: float = 1.0
    reference: float = 1.0  # world distance that speed follows
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))  # world units / s
    drag: str = ""
    pivot: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    cursor: tuple[float, float] = (0.0, 0.0)
    glide: tuple[Rig, Rig, float] | None = None  # from, to, seconds gone

    def update(self, rig: Rig, inputs: Inputs, pick: Pick, size: tuple[int, int]) -> bool:
        """Moves `rig` by one frame of `inputs` in a scene of `size` (width, height) px; true while it is in motion."""
        if inputs.pressed or inputs.wheel or any(inputs.move):
            self.glide = None
        self._drag(rig, inputs, pick, size)
        if inputs.wheel:
            self._wheel(rig, inputs, pick, size)
        moving = self._fly(rig, inputs)
        gliding = self._glide(rig, inputs.dt)
        return moving or gliding or bool(self.drag)

    def go_to(self, rig: Rig, target: Rig) -> None:
        """Starts a short glide from `rig` to `target`."""
        self.velocity = np.zeros(3)
        self.glide = (rig.copy(), target.copy(), 0.0)

    def halt(self) -> None:
        """Forgets all motion, as when another scene is opened."""
        self.velocity, self.drag, self.glide = np.zeros(3), "", None

    def _fly(self, rig: Rig, inputs: Inputs) -> bool:
        """WASD and QE: horizontal axes turn with the camera, up is the scene's up."""
        right, up, forward = inputs.move
        target = right * rig.right + up * rig.up + forward * rig.forward
        length = np.linalg.norm(target)
        if length > 1e-9:
            factor = (FAST if inputs.fast else 1.0) * (SLOW if inputs.slow else 1.0)
            target = target / length * self.reference * SPEED_PER_DEPTH * self.speed * factor
        decay = np.exp(-inputs.dt / SMOOTHING)
        rig.position = rig.position + target * inputs.dt + (self.velocity - target) * SMOOTHING * (1 - decay)
        self.velocity = target + (self.velocity - target) * decay
        if length <= 1e-9 and np.linalg.norm(self.velocity) < 1e-3 * self.reference:
            rig.position = rig.position + self.velocity * SMOOTHING  # what an endless glide would still have covered
            self.velocity = np.zeros(3)
        return bool(length > 1e-9 or self.velocity.any())

    def _drag(self, rig: Rig, inputs: Inputs, pick: Pick, size: tuple[int, int]) -> None:
        if self.drag and self.drag not in inputs.held:
            self.drag = ""
        if not self.drag and inputs.pressed:
            self.drag = min(inputs.pressed)
            self.pivot = self.point_under(rig, inputs.cursor, pick, size)
            self.cursor = inputs.cursor
        dx, dy = inputs.cursor[0] - self.cursor[0], inputs.cursor[1] - self.cursor[1]
        self.cursor = inputs.cursor
        if not self.drag or not (dx or dy):
            return
        if self.drag == "look":
            angle = LOOK_ANGLE * self.sensitivity
            rig.turn(-dx * angle, -dy * angle)
        elif self.drag == "orbit":
            angle = np.pi / max(size[1], 1) * self.sensitivity  # half a turn over the scene's height
            rig.orbit(self.pivot, -dx * angle, -dy * angle)
        else:
            direction = _ray(rig, inputs.cursor, size)
            depth = float((self.pivot - rig.position) @ rig.forward)
            rig.position = self.pivot - direction * (depth / float(direction @ rig.forward))

    def _wheel(self, rig: Rig, inputs: Inputs, pick: Pick, size: tuple[int, int]) -> None:
        """In flight the wheel sets the speed; otherwise it goes towards the point under the cursor."""
        if self.drag == "look" or any(inputs.move):
            self.speed = float(np.clip(self.speed * WHEEL_SPEED**inputs.wheel, 0.01, 100.0))
            return
        target = self.point_under(rig, inputs.cursor, pick, size)
        share = 1 - (1 - WHEEL_ZOOM) ** inputs.wheel
        rig.position = rig.position + (target - rig.position) * share

    def _glide(self, rig: Rig, dt: float) -> bool:
        if self.glide is None:
            return False
        start, end, gone = self.glide
        gone = min(gone + dt, GLIDE_TIME)
        share = gone / GLIDE_TIME
        pose = start.blended(end, share * share * (3 - 2 * share)) if gone < GLIDE_TIME else end.copy()
        rig.position, rig.yaw, rig.pitch, rig.roll = pose.position, pose.yaw, pose.pitch, pose.roll
        rig.fov_y, rig.up = pose.fov_y, pose.up
        self.glide = (start, end, gone) if gone < GLIDE_TIME else None
        return True

    def point_under(
        self, rig: Rig, cursor: tuple[float, float], pick: Pick, size: tuple[int, int]
    ) -> NDArray[np.float64]:
        """The world point [3] under the cursor; where there is nothing, the point at the reference distance."""
        distance = pick(*cursor)
        return rig.position + _ray(rig, cursor, size) * (distance if distance else self.reference)

    def follow_depth(self, depth: NDArray[np.float32], floor: float) -> None:
        """Sets the reference distance from a depth image [H, W]: near things slow the flight, sky does not count."""
        grid = depth[:: max(1, depth.shape[0] // 24), :: max(1, depth.shape[1] // 24)]
        grid = grid[grid > 0]
        if len(grid):
            self.reference = max(float(np.percentile(grid, 30)), floor)


def _ray(rig: Rig, cursor: tuple[float, float], size: tuple[int, int]) -> NDArray[np.float64]:
    """Unit direction [3] through a position in a scene of `size` px."""
    camera = rig.camera(max(size[0], 1), max(size[1], 1))
    return camera.pixel_rays(np.array([cursor[0]]), np.array([cursor[1]]))[1][0]
