"""Lens distortion, OpenCV's two models, forwards and backwards; one text for numpy and torch (`xp` is either module).

Letters: (a, b) a pixel as `((x - cx) / fx, (y - cy) / fy)`; (x, y) the undistorted point at z = 1; s = x^2 + y^2;
`k` the nine numbers of `lens_numbers`, each a number or an array like a.

perspective  a = x f(s) + 2 p1 x y + p2 (s + 2 x^2),  b = y f(s) + p1 (s + 2 y^2) + 2 p2 x y,
             f(s) = (1 + k1 s + k2 s^2 + k3 s^3) / (1 + k4 s + k5 s^2 + k6 s^3)          (cv2.projectPoints)
fisheye      hypot(a, b) = t (1 + k1 t^2 + k2 t^4 + k3 t^6 + k4 t^8), t the angle from the axis  (cv2.fisheye)

Both are one to one only up to some radius or angle, the limit, where the image folds back onto itself: positions
beyond are no image of anything and come back as invalid, with the numbers of the nearest point within the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

LENSES = {"perspective": (0, 4, 5, 8), "fisheye": (0, 4)}  # model -> how many coefficients it may have
MAX_COEFFICIENT = 1e6
MAX_RADIUS = 1e6  # of (x, y): a pixel further out sees along the image plane
N_NUMBERS = 9  # k1 k2 p1 p2 k3 k4 k5 k6 limit; of a fisheye k1 k2 k3 k4 0 0 0 0 limit
_TOLERANCE = 1e-12  # of (a, b): 1e-8 px of a focal length of 10,000
_MAX_STEPS = 120  # bisection alone needs 60 from the widest bracket
_MAX_NEWTON = 20
_FOLD_MARGIN = 1e-4  # of the radius of the fold: the cone of a pixel on the fold itself is infinite
_MIN_AREA = (
    1e-4  # of a step in (a, b) over the one in (x, y): where pixels are a hundred times as wide, images are none
)


def check_lens(lens: str, distortion: Sequence[float]) -> None:
    """Raises `ValueError` for an unknown model, a number of coefficients it does not have, or numbers out of range."""
    if lens not in LENSES:
        raise ValueError(f"lens must be one of {', '.join(LENSES)}, got {lens!r}")
    if len(distortion) not in LENSES[lens]:
        counts = ", ".join(map(str, LENSES[lens]))
        raise ValueError(f"distortion of a {lens} lens must have {counts} coefficients, got {len(distortion)}")
    if not all(abs(value) <= MAX_COEFFICIENT for value in distortion):
        raise ValueError(f"distortion must be numbers within {MAX_COEFFICIENT:g}, got {list(distortion)}")


@lru_cache(maxsize=4096)
def lens_numbers(lens: str, distortion: tuple[float, ...]) -> tuple[float, ...]:
    """Coefficients filled up with zeros, and the limit: the largest radius (perspective, of (x, y)) or angle (fisheye,
    in radians) up to which the model is one to one.

    >>> lens_numbers("perspective", (-1 / 3, 0.0, 0.0, 0.0))[-1]  # r - r^3 / 3 turns back at r = 1
    0.9999
    """
    k = (*distortion, *[0.0] * (N_NUMBERS - 1 - len(distortion)))
    if lens == "fisheye":
        derivative = np.array([1.0, 3 * k[0], 5 * k[1], 7 * k[2], 9 * k[3]])
        return (*k, min(_first_root(derivative) * (1 - _FOLD_MARGIN), float(np.pi) * (1 - _FOLD_MARGIN)))
    over, under = np.array([1.0, k[0], k[1], k[4]]), np.array([1.0, *k[5:8]])
    powers = np.arange(4)
    # d/dr [r n(s) / d(s)] = (n d + 2 s (n' d - n d')) / d^2, polynomials in s; s n' has the coefficients i n_i
    derivative = np.convolve(over, under)
    derivative += 2 * (np.convolve(powers * over, under) - np.convolve(over, powers * under))
    fold = min(_first_root(derivative), _first_root(under))
    return (*k, min(fold * (1 - _FOLD_MARGIN), MAX_RADIUS))


def _first_root(coefficients: np.ndarray) -> float:
    """The square root of the smallest positive root of a polynomial, lowest power first; infinity without one."""
    n = len(coefficients)
    while (
        n > 1 and abs(coefficients[n - 1]) * MAX_RADIUS ** (2 * (n - 1)) < 1e-20
    ):  # too small to count, or to divide by
        n -= 1
    roots = np.roots(coefficients[:n][::-1])
    real = roots.real[(np.abs(roots.imag) <= 1e-7 * np.abs(roots)) & (roots.real > 0)]
    return float(np.sqrt(real.min())) if len(real) else float("inf")


def has_tangential(lens: str, k: Sequence[float]) -> bool:
    """Whether p1 or p2 is not 0: without them a perspective lens is a function of the radius alone."""
    return lens == "perspective" and bool(k[2] or k[3])


def undistort(xp: Any, lens: str, a: Any, b: Any, k: Sequence[Any], tangential: bool) -> tuple[Any, ...]:
    """Unit directions in camera axes (dx, dy, dz), `area`, and `valid`, all like `a` [n] (float64).

    `area` is the solid angle of a pixel times fx fy, from the local Jacobian. Iterated until (a, b) is met to 1e-12.
    Where nothing is seen at (a, b) `valid` is False and the direction is that of the limit, on the same side.
    """
    if lens == "fisheye":
        return _undistort_fisheye(xp, a, b, k)
    target = xp.hypot(a, b)
    top = _radial(k[8] + 0 * a, k)[0]
    valid = target <= top
    r = _invert(xp, xp.where(valid, target, top), lambda r: _radial(r, k), k[8])
    ratio = r / xp.where(target > 0, target, 1.0)
    x, y = a * ratio, b * ratio
    if tangential:
        x, y, valid = _refine(xp, a, b, x, y, k)
    _, _, ax, ay, by = _distort_perspective(x, y, k)
    area = ax * by - ay * ay
    inverse = 1 / xp.sqrt(1 + x * x + y * y)
    return x * inverse, y * inverse, inverse, inverse**3 / xp.where(area > _MIN_AREA, area, _MIN_AREA), valid


def distort(xp: Any, lens: str, x: Any, y: Any, z: Any, k: Sequence[Any]) -> tuple[Any, Any, Any]:
    """(a, b) of points [n] in camera axes, and whether the lens sees them: within the limit, in front of the camera.
    The others get the numbers of the nearest direction within the limit."""
    rho = xp.hypot(x, y)
    if lens == "fisheye":
        angle = xp.arctan2(rho, z)
        within = angle <= k[8]
        image, _ = _fisheye(xp.where(within, angle, k[8]), k)
        ratio = image / xp.where(rho > 0, rho, 1.0)
        return x * ratio, y * ratio, within & ((rho > 0) | (z > 0))
    front = z > 1e-9 * rho
    u, v = x / xp.where(front, z, 1e-9 * rho + (rho == 0)), y / xp.where(front, z, 1e-9 * rho + (rho == 0))
    r = xp.hypot(u, v)
    within = r <= k[8]
    shrink = xp.where(within, 1.0, k[8] / xp.where(within, 1.0, r))
    a, b, ax, ay, by = _distort_perspective(u * shrink, v * shrink, k)
    return a, b, front & within & (ax * by - ay * ay > _MIN_AREA)


def _radial(r: Any, k: Sequence[Any]) -> tuple[Any, Any]:
    """r f(r^2) and its derivative."""
    s = r * r
    f, slope = _factor(s, k)
    return r * f, f + 2 * s * slope


def _factor(s: Any, k: Sequence[Any]) -> tuple[Any, Any]:
    """f(s) and df/ds."""
    k1, k2, _, _, k3, k4, k5, k6 = k[:8]
    over, under = 1 + s * (k1 + s * (k2 + s * k3)), 1 + s * (k4 + s * (k5 + s * k6))
    d_over, d_under = k1 + s * (2 * k2 + 3 * s * k3), k4 + s * (2 * k5 + 3 * s * k6)
    f = over / under
    return f, (d_over - f * d_under) / under


def _fisheye(t: Any, k: Sequence[Any]) -> tuple[Any, Any]:
    """The distance from the centre of what is seen at angle t, and its derivative."""
    s = t * t
    value = t * (1 + s * (k[0] + s * (k[1] + s * (k[2] + s * k[3]))))
    return value, 1 + s * (3 * k[0] + s * (5 * k[1] + s * (7 * k[2] + s * 9 * k[3])))


def _distort_perspective(x: Any, y: Any, k: Sequence[Any]) -> tuple[Any, Any, Any, Any, Any]:
    """(a, b) and the Jacobian da/dx, da/dy = db/dx, db/dy."""
    p1, p2 = k[2], k[3]
    s = x * x + y * y
    f, slope = _factor(s, k)
    a = x * f + 2 * p1 * x * y + p2 * (s + 2 * x * x)
    b = y * f + p1 * (s + 2 * y * y) + 2 * p2 * x * y
    ax = f + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
    ay = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    by = f + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
    return a, b, ax, ay, by


def _invert(xp: Any, target: Any, forward: Callable[[Any], tuple[Any, Any]], limit: Any) -> Any:
    """Where the rising `forward` (value, slope) reaches `target` within [0, limit]: Newton, bisecting where it leaves
    the bracket, so that it always ends."""
    low, high = 0 * target, limit + 0 * target
    r = xp.where(target < high, target, high)
    for _ in range(_MAX_STEPS):
        value, slope = forward(r)
        error = value - target
        newton = r - error / xp.where(slope > 1e-12, slope, 1.0)
        if not bool((abs(error) > _TOLERANCE * (1 + target)).any()):
            return xp.where((newton >= low) & (newton <= high), newton, r)
        low, high = xp.where(error < 0, r, low), xp.where(error > 0, r, high)
        inside = (newton > low) & (newton < high) & (slope > 1e-12)
        r = xp.where(inside, newton, (low + high) / 2)
    return r


def _refine(xp: Any, a: Any, b: Any, x0: Any, y0: Any, k: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Newton in the plane with the analytic Jacobian, from the solution without tangential terms. Returns x, y, valid;
    (x0, y0) where it finds nothing."""
    x, y = x0, y0
    scale = _TOLERANCE * (1 + xp.hypot(a, b))
    for _ in range(_MAX_NEWTON):
        at_a, at_b, ax, ay, by = _distort_perspective(x, y, k)
        ea, eb = at_a - a, at_b - b
        area = ax * by - ay * ay
        if not bool((abs(ea) + abs(eb) > scale).any()):
            break
        safe = xp.where(abs(area) > 1e-9, area, 1e-9)
        dx, dy = (by * ea - ay * eb) / safe, (ax * eb - ay * ea) / safe
        reach = 0.5 * (0.1 + xp.hypot(x, y))  # a longer step has left the model's neighbourhood
        length = xp.hypot(dx, dy)
        part = xp.where(length > reach, reach / xp.where(length > reach, length, 1.0), 1.0)
        x, y = x - part * dx, y - part * dy
    at_a, at_b, ax, ay, by = _distort_perspective(x, y, k)
    met = abs(at_a - a) + abs(at_b - b) <= 100 * scale
    valid = met & (ax * by - ay * ay > _MIN_AREA) & (xp.hypot(x, y) <= k[8])
    return xp.where(valid, x, x0), xp.where(valid, y, y0), valid


def _undistort_fisheye(xp: Any, a: Any, b: Any, k: Sequence[Any]) -> tuple[Any, ...]:
    target = xp.hypot(a, b)
    top = _fisheye(k[8] + 0 * a, k)[0]
    valid = target <= top
    reached = xp.where(valid, target, top)
    t = _invert(xp, reached, lambda t: _fisheye(t, k), k[8])
    slope = _fisheye(t, k)[1]
    sine, middle = xp.sin(t), target < 1e-12
    ratio = xp.where(middle, 1.0, sine / xp.where(middle, 1.0, target))
    # d(solid angle) = sin t dt dphi, da db = |ab| d|ab| dphi
    spread = xp.where(middle, 1.0, sine / xp.where(middle, 1.0, reached))
    area = spread / xp.where(slope > _MIN_AREA, slope, _MIN_AREA)
    return a * ratio, b * ratio, xp.cos(t), area, valid
