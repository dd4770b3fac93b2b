"""Lens distortion: against OpenCV's own, there and back, cones against differentiated solid angles, and where a lens
shows nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infnerf.data.pyramid import box_camera
from infnerf.models.camera import Camera, look_at
from infnerf.models.lens import lens_numbers, undistort
from infnerf.renderer.frame import RenderRequest

POSE = look_at(np.array([3.0, -4.0, 2.0]), np.zeros(3), np.array([0, 0, 1.0]))
#: uniform within these: a wide phone or action camera; the rational model as calibration writes it; an 190 degree lens
SPREAD = {
    "perspective4": ((0.3, 0.1, 0.01, 0.01), 0.75),
    "perspective5": ((0.3, 0.1, 0.01, 0.01, 0.03), 0.75),
    "perspective8": ((0.5, 0.2, 0.005, 0.005, 0.05, 0.3, 0.1, 0.02), 0.75),
    "fisheye4": ((0.08, 0.02, 0.006, 0.001), 1.35),
}


def random_camera(kind: str, seed: int) -> Camera:
    """A camera with coefficients at random; SPREAD's second number is the half width of the image over f."""
    rng = np.random.default_rng(seed)
    spread, half = SPREAD[kind]
    coefficients = tuple(rng.uniform(-1, 1, len(spread)) * spread)
    f = rng.uniform(300, 3000)
    width, height = int(2 * half * f), int(1.5 * half * f)
    cx, cy = width / 2 + rng.uniform(-20, 20), height / 2 + rng.uniform(-20, 20)
    return Camera(POSE, f, 1.02 * f, cx, cy, width, height, coefficients, kind[:-1])


def matrix(camera: Camera) -> np.ndarray:
    return np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])


def random_pixels(camera: Camera, n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.uniform(0, camera.width, n), rng.uniform(0, camera.height, n)


@pytest.mark.parametrize("kind", SPREAD)
@pytest.mark.parametrize("seed", range(6))
def test_opencv_projects_every_ray_back_to_its_pixel(kind: str, seed: int) -> None:
    camera = random_camera(kind, seed)
    x, y = random_pixels(camera)
    seen = camera.pixel_valid(x, y)
    assert seen.mean() > 0.5
    _, rays_d, _ = camera.pixel_rays(x, y)
    np.testing.assert_allclose(np.linalg.norm(rays_d, axis=1), 1, atol=1e-12)
    local = (rays_d @ camera.c2w[:3, :3])[seen]
    ahead = local[:, 2] > 0.05  # cv2.fisheye divides by z
    pixels = np.stack([x, y], -1)[seen][ahead]
    points, zero, k = local[ahead][:, None] * 5, np.zeros(3), np.array(camera.distortion)
    project = cv2.fisheye.projectPoints if camera.lens == "fisheye" else cv2.projectPoints
    arguments = (zero, zero, matrix(camera), k)
    assert np.abs(project(points, *arguments)[0][:, 0] - pixels).max() < 1e-6
    ours, valid = camera.project(camera.position + 7 * rays_d[seen])
    assert valid.all()
    assert np.abs(ours - np.stack([x, y], -1)[seen]).max() < 1e-6


@pytest.mark.parametrize("kind", SPREAD)
@pytest.mark.parametrize("seed", range(6))
def test_rays_are_opencvs_undistorted_points(kind: str, seed: int) -> None:
    """Where OpenCV's iteration has converged, which its own projection tells."""
    camera = random_camera(kind, seed)
    x, y = random_pixels(camera)
    pixels, k, zero = np.stack([x, y], -1)[:, None], np.array(camera.distortion), np.zeros(3)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-14)
    if camera.lens == "fisheye":
        theirs = cv2.fisheye.undistortPoints(pixels, matrix(camera), k, criteria=criteria)
        project = cv2.fisheye.projectPoints
    else:
        theirs = cv2.undistortPoints(pixels, matrix(camera), k, criteria=criteria)
        project = cv2.projectPoints
    points = np.concatenate([theirs, np.ones_like(theirs[..., :1])], -1)
    again = project(points, zero, zero, matrix(camera), k)[0]
    local = camera.pixel_rays(x, y)[1] @ camera.c2w[:3, :3]
    limit = camera.pixel_valid(x, y) & (np.abs(again - pixels).max((1, 2)) < 1e-7) & (local[:, 2] > 0.3)
    radius = np.linalg.norm(theirs[:, 0], axis=1)
    limit &= (np.arctan(radius) if camera.lens == "fisheye" else radius) < lens_numbers(camera.lens, camera.distortion)[
        -1
    ]
    assert limit.mean() > 0.4
    difference = (local[:, :2] / local[:, 2:] - theirs[:, 0])[limit]
    assert np.abs(difference * [camera.fx, camera.fy]).max() < 1e-6


@pytest.mark.parametrize("kind", SPREAD)
@pytest.mark.parametrize("seed", range(3))
def test_a_cone_has_the_solid_angle_of_its_pixel(kind: str, seed: int) -> None:
    camera = random_camera(kind, seed)
    x, y = random_pixels(camera, 200)
    x[0], y[0] = camera.cx, camera.cy  # the axis, where a fisheye divides nothing by nothing
    h = 1e-3
    corners = [(x - h, y), (x + h, y), (x, y - h), (x, y + h)]
    inside = np.all([camera.pixel_valid(*corner) for corner in corners], axis=0)
    left, right, above, below = (camera.pixel_rays(*corner)[1] for corner in corners)
    area = np.linalg.norm(np.cross((right - left) / (2 * h), (below - above) / (2 * h)), axis=-1)
    cones = camera.pixel_rays(x, y)[2]
    assert inside[0]
    assert inside.mean() > 0.5
    np.testing.assert_allclose((np.pi * cones**2)[inside], area[inside], rtol=2e-4)


def test_a_fisheye_sees_behind_itself() -> None:
    camera = Camera(np.eye(4), 100, 100, 200, 200, 400, 400, lens="fisheye")
    x = 200 + 100 * np.radians([0.0, 90.0, 120.0])
    _, rays_d, cones = camera.pixel_rays(x, np.full(3, 200.0))
    expected = [[0, 0, 1], [1, 0, 0], [np.sin(np.radians(120)), 0, -0.5]]
    np.testing.assert_allclose(rays_d, expected, atol=1e-12)
    # the solid angle of an equidistant pixel is sin(t) / t of the one in the middle
    t = np.radians([90.0, 120.0])
    np.testing.assert_allclose(cones[1:] ** 2 / cones[0] ** 2, np.sin(t) / t, rtol=1e-12)
    pixels, valid = camera.project(rays_d * 3)
    assert valid.all()
    np.testing.assert_allclose(pixels[:, 0], x, atol=1e-9)


def test_beyond_the_fold_there_is_nothing() -> None:
    """r - r^3 / 3 rises up to 2/3 at r = 1 and falls after that."""
    camera = Camera(np.eye(4), 300, 300, 300, 300, 600, 600, (-1 / 3, 0, 0, 0))
    x = 300 + 300 * np.array([0.0, 0.3, 0.66, 0.67, 0.9, 1e9])
    y = np.full(6, 300.0)
    assert camera.pixel_valid(x, y).tolist() == [True, True, True, False, False, False]
    _, rays_d, cones = camera.pixel_rays(x, y)
    assert np.isfinite(rays_d).all()
    assert np.isfinite(cones).all()
    np.testing.assert_allclose(rays_d[3:, 0] / rays_d[3:, 2], 0.9999)
    points = np.array([[0.5, 0, 1], [1.2, 0, 1], [2.0, 0, 1], [0, 0, -1], [1, 0, -1], [0, 0, 0]])
    pixels, valid = camera.project(points)
    assert valid.tolist() == [True, False, False, False, False, False]
    assert np.isfinite(pixels).all()


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["perspective4", "perspective5", "perspective8", "fisheye4"]),
    st.lists(st.floats(-1e6, 1e6) | st.floats(-2, 2), min_size=8, max_size=8),
)
def test_no_coefficients_hang_or_give_nan(kind: str, coefficients: list[float]) -> None:
    k = tuple(coefficients[: int(kind[-1])])
    camera = Camera(np.eye(4), 50, 60, 32, 32, 64, 64, k, kind[:-1])
    x, y = (v.ravel() + 0.5 for v in np.meshgrid(np.arange(0.0, 64, 7), np.arange(0.0, 64, 7)))
    _, rays_d, cones = camera.pixel_rays(x, y)
    assert np.isfinite(rays_d).all()
    assert np.isfinite(cones).all()
    np.testing.assert_allclose(np.linalg.norm(rays_d, axis=1), 1, atol=1e-9)
    seen = camera.pixel_valid(x, y)
    pixels, _ = camera.project(3 * rays_d[seen])
    assert np.abs(pixels - np.stack([x, y], -1)[seen]).max(initial=0) < 1e-6


@pytest.mark.parametrize("kind", SPREAD)
def test_torch_and_numpy_agree(kind: str) -> None:
    """The same text runs in both; each ray of torch has its own coefficients."""
    cameras = [random_camera(kind, seed) for seed in range(4)]
    a, b = np.random.default_rng(0).uniform(-0.7, 0.7, (2, 4, 50))
    numbers = [lens_numbers(c.lens, c.distortion) for c in cameras]
    k = torch.tensor(numbers, dtype=torch.float64).repeat_interleave(50, 0).unbind(1)
    got = undistort(torch, kind[:-1], torch.from_numpy(a).ravel(), torch.from_numpy(b).ravel(), k, True)
    for i, one in enumerate(numbers):
        for value, expected in zip(got, undistort(np, kind[:-1], a[i], b[i], one, True), strict=True):
            np.testing.assert_allclose(value[i * 50 : i * 50 + 50], expected, atol=1e-9)


def test_a_resized_camera_keeps_its_lens() -> None:
    camera = random_camera("perspective8", 0)
    small = box_camera(camera, 4)
    assert (small.distortion, small.lens) == (camera.distortion, camera.lens)
    x, y = np.array([3.5, 10.5]), np.array([7.5, 2.5])
    np.testing.assert_allclose(small.pixel_rays(x, y)[1], camera.pixel_rays(4 * x, 4 * y)[1], atol=1e-12)
    np.testing.assert_allclose(small.pixel_rays(x, y)[2], 4 * camera.pixel_rays(4 * x, 4 * y)[2], rtol=1e-9)


def test_what_is_a_pinhole() -> None:
    plain = Camera(POSE, 50, 50, 8, 8, 16, 16, (0, 0, 0, 0))
    assert plain.is_pinhole
    assert not Camera(POSE, 50, 50, 8, 8, 16, 16, lens="fisheye").is_pinhole
    bent = Camera(POSE, 50, 50, 8, 8, 16, 16, (0.1, 0, 0, 0))
    assert bent.pinhole().is_pinhole
    x, y = np.array([1.5]), np.array([2.5])
    np.testing.assert_array_equal(bent.pinhole().pixel_rays(x, y)[1], plain.pixel_rays(x, y)[1])
    # no coefficients, seen through the code of those that have some
    nothing = undistort(np, "perspective", np.array([0.3]), np.array([-2.0]), lens_numbers("perspective", ()), True)
    np.testing.assert_allclose(np.array(nothing[:3])[:, 0], np.array([0.3, -2, 1]) / np.sqrt(5.09), rtol=1e-12)


def test_renderers_of_pinhole_images_say_so() -> None:
    for camera in (random_camera("fisheye4", 0), Camera(POSE, 50, 50, 8, 8, 16, 16, lens="fisheye")):
        with pytest.raises(ValueError, match=r"RenderRequest: only pinhole images are rendered, .* Camera.pinhole"):
            RenderRequest(camera)
        RenderRequest(camera.pinhole())


@pytest.mark.parametrize(
    ("lens", "distortion", "message"),
    [
        ("perspective", (0.1,), "distortion of a perspective lens must have 0, 4, 5, 8 coefficients, got 1"),
        ("perspective", (0.0,) * 14, "must have 0, 4, 5, 8 coefficients, got 14"),
        ("fisheye", (0.1,) * 5, "distortion of a fisheye lens must have 0, 4 coefficients, got 5"),
        ("perspective", (0.1, float("nan"), 0, 0), "distortion must be numbers within 1e.06, got"),
        ("fisheye", (float("inf"), 0, 0, 0), "distortion must be numbers within 1e.06, got"),
        ("mirror", (), "lens must be one of perspective, fisheye, got 'mirror'"),
    ],
)
def test_lenses_that_make_no_sense(lens: str, distortion: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"Camera: .*{message}"):
        Camera(POSE, 50, 50, 8, 8, 16, 16, distortion, lens)
