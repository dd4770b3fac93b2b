"""A camera in OpenCV axes, pinhole or with one of OpenCV's lenses (`models/lens.py`), and the cone of every pixel.

Letters: H, W image size in pixels; `c2w` [4, 4] camera to world, +x right, +y down, +z forward; pixel centres at +0.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .lens import check_lens, distort, has_tangential, lens_numbers, undistort

#: OpenGL's camera looks along -z with +y up; OpenCV's along +z with +y down. The flip is its own inverse.
OPENGL_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
MAX_SIDE = 16384  # px, of an image


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera.

    `c2w` [4, 4] float64, a rigid transform; `fx, fy, cx, cy` in pixels. `lens` "perspective": a pinhole with OpenCV's
    `distortion` (k1, k2, p1, p2[, k3[, k4, k5, k6]]), empty for none. `lens` "fisheye": cv2.fisheye's equidistant
    model (k1, k2, k3, k4), a fisheye even if empty. Raises `ValueError` for a wrong shape, a non-rigid or non-finite
    pose, a focal length or a size that is not positive, a lens that OpenCV does not know.

    >>> camera = Camera(np.eye(4), 100, 100, 2, 1, 4, 2)
    >>> camera.resized(8, 4).fx
    200.0
    """

    c2w: NDArray[np.float64]
    fx: float  # px
    fy: float  # px
    cx: float  # px
    cy: float  # px
    width: int  # px
    height: int  # px
    distortion: tuple[float, ...] = ()
    lens: str = "perspective"

    def __post_init__(self) -> None:
        c2w = np.array(self.c2w, dtype=np.float64)
        if c2w.shape != (4, 4):
            raise ValueError(f"Camera: c2w must be [4, 4], got {list(c2w.shape)}")
        rotation = c2w[:3, :3]
        if not np.isfinite(c2w).all():
            raise ValueError("Camera: c2w must be finite, got NaN or infinity")
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
            raise ValueError(
                "Camera: c2w must be a rotation and a translation, got a scaled, skewed or mirrored matrix"
            )
        object.__setattr__(self, "c2w", c2w)
        for name in ("fx", "fy", "cx", "cy"):
            value = float(getattr(self, name))
            if not np.isfinite(value) or (name[0] == "f" and value <= 0):
                raise ValueError(f"Camera: {name} must be {'positive' if name[0] == 'f' else 'finite'}, got {value}")
            object.__setattr__(self, name, value)
        for name in ("width", "height"):
            value = getattr(self, name)
            if not (np.isfinite(value) and int(value) == value and 1 <= value <= MAX_SIDE):
                raise ValueError(f"Camera: {name} must be a whole number from 1 to {MAX_SIDE}, got {value}")
            object.__setattr__(self, name, int(value))
        distortion = tuple(float(d) for d in self.distortion)
        try:
            check_lens(self.lens, distortion)
        except ValueError as error:
            raise ValueError(f"Camera: {error}") from None
        object.__setattr__(self, "distortion", distortion)

    @classmethod
    def from_fov(cls, c2w: NDArray, fov_y: float, width: int, height: int) -> Camera:
        """A camera with square pixels and the principal point in the middle; `fov_y` is vertical, in degrees."""
        focal = 0.5 * height / np.tan(np.radians(fov_y) / 2)
        return cls(c2w, focal, focal, width / 2, height / 2, width, height)

    @property
    def fov_y(self) -> float:
        """Vertical field of view in degrees."""
        return float(np.degrees(2 * np.arctan(0.5 * self.height / self.fy)))

    @property
    def is_pinhole(self) -> bool:
        """Whether straight lines stay straight: a perspective lens with no distortion."""
        return self.lens == "perspective" and not any(self.distortion)

    def pinhole(self) -> Camera:
        """The camera that a renderer of pinhole images puts here: same pose, focal length and size, no distortion."""
        return replace(self, distortion=(), lens="perspective")

    @property
    def position(self) -> NDArray[np.float64]:
        return self.c2w[:3, 3]

    def resized(self, width: int, height: int) -> Camera:
        """The same view on another pixel grid."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self, fx=self.fx * sx, fy=self.fy * sy, cx=self.cx * sx, cy=self.cy * sy, width=width, height=height
        )

    def moved(self, c2w: NDArray) -> Camera:
        """The same lens at another pose."""
        return replace(self, c2w=c2w)

    def pixel_rays(
        self,
        x: NDArray,  # [n] px, centres at +0.5
        y: NDArray,  # [n] px
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Rays through pixel positions.

        Returns `rays_o` [n, 3], `rays_d` [n, 3] of unit length, and `cones` [n], the radius of the pixel's cone at
        unit distance: `sqrt(pixel_area / pi)`, `pixel_area` being the pixel's solid angle (design section 4), by the
        local Jacobian of the lens. Distortion is inverted to 1e-12 of the focal length. A position where the lens
        shows nothing (`pixel_valid`) gets the finite ray at the lens's limit on the same side.

        >>> o, d, cone = Camera(np.eye(4), 100, 100, 2, 1, 4, 2).pixel_rays(np.array([2.0]), np.array([1.0]))
        >>> d.tolist(), round(float(cone[0] ** 2 * np.pi * 100 * 100), 6)
        ([[0.0, 0.0, 1.0]], 1.0)
        """
        if self.is_pinhole:
            ones = np.ones_like(x, dtype=np.float64)
            local = np.stack([(x - self.cx) / self.fx, (y - self.cy) / self.fy, ones], axis=-1)
            length = np.linalg.norm(local, axis=-1)
            rays_d = (local / length[:, None]) @ self.c2w[:3, :3].T
            cones = np.sqrt(1.0 / (self.fx * self.fy * np.pi * length**3))
        else:
            dx, dy, dz, area, _ = self._undistort(x, y)
            rays_d = np.stack([dx, dy, dz], axis=-1) @ self.c2w[:3, :3].T
            cones = np.sqrt(area / (self.fx * self.fy * np.pi))
        return np.broadcast_to(self.position, rays_d.shape), rays_d, cones

    def pixel_valid(self, x: NDArray, y: NDArray) -> NDArray[np.bool_]:
        """Whether the lens shows anything at pixel positions [n]: False beyond the radius where its model folds."""
        return np.ones(np.shape(x), bool) if self.is_pinhole else self._undistort(x, y)[4]

    def project(self, points: NDArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Pixel positions [n, 2] of world `points` [n, 3], the inverse of `pixel_rays`, and whether the lens sees them
        (in front of the camera, within the lens's limit; not whether they lie in the image). Finite for all.

        >>> camera = Camera(np.eye(4), 100, 100, 2, 1, 4, 2)
        >>> camera.project(np.array([[0.1, 0.0, 10.0]]))[0].tolist()
        [[3.0, 1.0]]
        """
        local = (np.asarray(points, np.float64) - self.position) @ self.c2w[:3, :3]
        numbers = lens_numbers(self.lens, self.distortion)
        with np.errstate(all="ignore"):
            a, b, valid = distort(np, self.lens, local[:, 0], local[:, 1], local[:, 2], numbers)
        return np.stack([a * self.fx + self.cx, b * self.fy + self.cy], axis=-1), valid

    def _undistort(self, x: NDArray, y: NDArray) -> tuple[NDArray, ...]:
        numbers = lens_numbers(self.lens, self.distortion)
        a = (np.asarray(x, np.float64) - self.cx) / self.fx
        b = (np.asarray(y, np.float64) - self.cy) / self.fy
        with np.errstate(all="ignore"):  # what overflows far outside the image is caught by the bracket
            return undistort(np, self.lens, a, b, numbers, has_tangential(self.lens, numbers))


def look_at(eye: NDArray, target: NDArray, up: NDArray) -> NDArray[np.float64]:
    """The `c2w` [4, 4] at `eye` that looks at `target`, image up along `up` as far as the view allows.

    >>> look_at(np.zeros(3), np.array([0, 1, 0]), np.array([0, 0, 1]))[:3, 2].tolist()
    [0.0, 1.0, 0.0]
    """
    forward = np.asarray(target, np.float64) - np.asarray(eye, np.float64)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-6:  # looking along `up`: any right will do
        axis = np.eye(3)[np.argmin(np.abs(forward))]
        right = np.cross(forward, axis)
    right = right / np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3, 0], c2w[:3, 1], c2w[:3, 2], c2w[:3, 3] = right, np.cross(forward, right), forward, eye
    return c2w
