"""A camera path through key frames: smooth, at constant speed if wanted, closed if wanted.

A centripetal Catmull-Rom spline (Yuksel, Schaefer, Keyser 2011), which passes through its points without loops or
cusps, by the pyramid of Barry and Goldman 1988; rotations by the same pyramid with slerp for lerp (Schlag 1991). Both
share their knots, so that position and rotation keep their direction at a key together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from .quaternions import angle_between, from_matrix, same_hemisphere, slerp, to_matrix

Array = NDArray[np.float64]

_FINE = 64  # steps between two keys for measuring length
_SAME = 1e-9  # keys nearer than this times the path's length are in one place


@dataclass(frozen=True, eq=False)
class KeyFrame:
    """Where the camera is at one moment, and how it looks. Raises `ValueError` for numbers out of range."""

    c2w: Array  # [4, 4] OpenCV axes, world units
    fov_y: float = 50.0  # degrees, vertical
    seconds: float = 1.0  # from the key before to this one; of a loop's first key: from the last one to it
    lod_bias: float = 0.0  # levels, + is finer
    view: str = ""  # view mode from here on; "": as the recording is told

    def __post_init__(self) -> None:
        Camera(self.c2w, 1, 1, 0, 0, 1, 1)
        object.__setattr__(self, "c2w", np.array(self.c2w, np.float64))
        for name, low, high in (("fov_y", 0.1, 175.0), ("seconds", 1e-3, 1e5), ("lod_bias", -16.0, 16.0)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"key frame: {name} must be from {low:g} to {high:g}, got {value:g}")


@dataclass(frozen=True, eq=False)
class Shot:
    """One frame of a path."""

    camera: Camera
    lod_bias: float = 0.0  # levels
    view: str = ""  # view mode; "": as the recording is told


@dataclass
class KeyPath:
    """Key frames and how to go through them.

    `constant_speed`: equal ways in equal times, from the first key to the last, instead of each key's `seconds`; the
    whole takes as long in both cases. A way is made of translation and rotation (`turn_radius`), so that a pan on the
    spot takes its time too.

    >>> keys = [KeyFrame(np.eye(4)), KeyFrame(np.diag([1.0, -1, -1, 1]))]
    >>> path = KeyPath(keys)
    >>> path.duration, len(path.shots(5, 64, 48)), float(path.at(1.0)[0][1, 1])
    (1.0, 5, -1.0)
    """

    keys: list[KeyFrame] = field(default_factory=list)
    loop: bool = False
    constant_speed: bool = False
    fps: float = 30.0

    @property
    def duration(self) -> float:
        """Seconds from the first key to the last, of a loop to the first again."""
        return float(self.times()[-1]) if self.keys else 0.0

    @property
    def n_frames(self) -> int:
        """Frames at `fps`: of a loop without the repeated first one."""
        return max(round(self.duration * self.fps) + (not self.loop), 1)

    def at(self, seconds: float) -> tuple[Array, float, float, str]:
        """`Journey(self).at`: for more than a few moments make one `Journey`."""
        return Journey(self).at(seconds)

    def shots(self, n_frames: int, width: int, height: int) -> list[Shot]:
        """`n_frames` cameras at equal times from the first key to the last; a loop ends one frame before its first.

        Raises `ValueError` for no keys or fewer than 1 frame.
        """
        if n_frames < 1:
            raise ValueError(f"a camera path needs at least 1 frame, got {n_frames}")
        if not self.keys:
            raise ValueError("a camera path needs at least one key frame, got none")
        steps, journey = n_frames if self.loop else max(n_frames - 1, 1), Journey(self)
        shots = []
        for seconds in self.duration * np.arange(n_frames) / steps:
            c2w, fov_y, lod_bias, view = journey.at(float(seconds))
            shots.append(Shot(Camera.from_fov(c2w, fov_y, width, height), lod_bias, view))
        return shots

    def times(self) -> Array:
        """When each key is passed, s; of a loop also when the first one is again."""
        seconds = [key.seconds for key in self.keys]
        ways = seconds[1:] + (seconds[:1] if self.loop and len(seconds) > 1 else [])
        return np.concatenate([[0.0], np.cumsum(ways)])


class Journey:
    """A path as it is now, ready to be asked for many moments. Raises `ValueError` for a path without keys."""

    def __init__(self, path: KeyPath) -> None:
        if not path.keys:
            raise ValueError("a camera path needs at least one key frame, got none")
        self._keys, self._times = list(path.keys), path.times()
        self._curve = _Curve(self._keys, path.loop)
        self._way: tuple[Array, Array] | None = None  # places, and how far it is to them
        if path.constant_speed and self._curve.n_segments:
            places = np.linspace(0, self._curve.n_segments, _FINE * self._curve.n_segments + 1)
            way = self._curve.way(places)
            self._way = (places, way / way[-1]) if way[-1] > 0 else None

    def at(self, seconds: float) -> tuple[Array, float, float, str]:
        """Pose [4, 4], vertical field of view (degrees), level bias and view mode at a time, held inside the path."""
        seconds = min(max(seconds, 0.0), float(self._times[-1]))
        if self._way is None:
            place = float(np.interp(seconds, self._times, np.arange(len(self._times))))
        else:
            place = float(np.interp(seconds / self._times[-1], self._way[1], self._way[0]))
        fov_y, lod_bias = self._curve.lens(place)
        return self._curve.pose(place), fov_y, lod_bias, self._keys[min(int(place), len(self._keys) - 1)].view


class _Curve:
    """The curve through the keys, by place: 0 is the first key, 1 the second; of a loop the last place is the first."""

    def __init__(self, keys: Sequence[KeyFrame], loop: bool) -> None:
        poses = np.stack([key.c2w for key in keys])
        lens = np.array([[np.log(np.tan(np.radians(key.fov_y) / 2)), key.lod_bias] for key in keys])
        loop = loop and len(keys) > 1
        self.n_segments = len(keys) - (not loop)
        # Each key, one more before the first and two behind the last, so that every segment has four around it.
        numbers = np.arange(-1, len(keys) + 2)
        around = numbers % len(keys) if loop else np.clip(numbers, 0, len(keys) - 1)
        self._positions, self._lens = poses[:, :3, 3][around], lens[around]
        self._turns = same_hemisphere(from_matrix(poses[:, :3, :3])[around])
        if not loop and len(keys) > 1:  # an open path goes on beyond its ends as it came, so it starts straight
            for end, first, second in ((0, 1, 2), (-2, -3, -4)):
                self._positions[end] = 2 * self._positions[first] - self._positions[second]
                self._turns[end] = slerp(self._turns[first], self._turns[second], -1.0)
        moved = np.linalg.norm(np.diff(self._positions, axis=0), axis=1)
        turned = angle_between(self._turns[:-1], self._turns[1:])
        ways, turns = moved[1:-1].sum(), turned[1:-1].sum()
        self.turn_radius = float(ways / turns) if min(ways, turns) > _SAME * max(ways, turns) else 1.0
        chord = np.hypot(moved, self.turn_radius * turned)
        self._knots = np.sqrt(np.where(chord > _SAME * chord.sum(), chord, 0.0))  # centripetal: the root of the chord

    def pose(self, place: float) -> Array:
        """[4, 4], OpenCV axes."""
        i, u = self._segment(place)
        pose = np.eye(4)
        pose[:3, 3] = self._blend(self._positions, i, u, _lerp)
        turn = self._blend(self._turns, i, u, slerp)
        pose[:3, :3] = to_matrix(turn / np.linalg.norm(turn))
        return pose

    def lens(self, place: float) -> tuple[float, float]:
        """Vertical field of view in degrees, level bias. Between two keys, never beyond them."""
        i, u = self._segment(place)
        focal, lod_bias = _lerp(self._lens[i + 1], self._lens[i + 2], u * u * (3 - 2 * u))
        return float(2 * np.degrees(np.arctan(np.exp(focal)))), float(lod_bias)

    def way(self, places: Array) -> Array:
        """How far it is to each of the ascending places: translation and rotation times `turn_radius`."""
        poses = np.stack([self.pose(place) for place in places])
        moved = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
        turns = from_matrix(poses[:, :3, :3])
        steps = np.hypot(moved, self.turn_radius * angle_between(turns[:-1], turns[1:]))
        return np.concatenate([[0.0], np.cumsum(steps)])

    def _segment(self, place: float) -> tuple[int, float]:
        i = int(np.clip(int(place), 0, max(self.n_segments - 1, 0)))
        return i, float(place) - i

    def _blend(self, points: Array, i: int, u: float, between: Callable[[Array, Array, float], Array]) -> Array:
        """Catmull-Rom between points i + 1 and i + 2, by the pyramid of Barry and Goldman."""
        p, own = points[i : i + 4], self._knots[i + 1]
        if own == 0:  # two keys in one place
            return p[1]
        before, after = (knot or own for knot in (self._knots[i], self._knots[i + 2]))
        t, at = (-before, 0.0, own, own + after), u * own
        a = [between(p[k], p[k + 1], (at - t[k]) / (t[k + 1] - t[k])) for k in range(3)]
        b = [between(a[k], a[k + 1], (at - t[k]) / (t[k + 2] - t[k])) for k in range(2)]
        return between(b[0], b[1], u)


def _lerp(first: Array, second: Array, u: float) -> Array:
    return (1 - u) * first + u * second
