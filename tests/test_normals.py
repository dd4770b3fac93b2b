"""Normals from depth: exact on planes, right on a ball, blind across an edge, the same by kernel and by torch."""

from __future__ import annotations

import numpy as np
import pytest
from random_models import random_model

from infnerf.models.camera import Camera, look_at
from infnerf.renderer.cpu_executor import CpuExecutor
from infnerf.renderer.frame import FrameBuffers, RenderRequest
from infnerf.renderer.normals import fill_normals
from infnerf.renderer.pace import SliceBudget, render_in_slices

CAMERA = Camera.from_fov(look_at(np.array([3.0, -4.0, 2.5]), np.zeros(3), np.array([0.0, 0, 1.0])), 50, 60, 40)
WHOLE = (0, 0, CAMERA.width, CAMERA.height)


def rays() -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.arange(CAMERA.width) + 0.5, np.arange(CAMERA.height) + 0.5)
    origins, directions, _ = CAMERA.pixel_rays(x.ravel(), y.ravel())
    return origins[0], directions.reshape(CAMERA.height, CAMERA.width, 3)


def plane(normal: list[float], offset: float) -> np.ndarray:
    """Depth along the rays to the plane normal . p = offset; 0 where they miss."""
    origin, directions = rays()
    t = (offset - origin @ normal) / (directions @ normal)
    return np.where(t > 0, t, 0)


def buffers(depth: np.ndarray) -> FrameBuffers:
    out = FrameBuffers.allocate(CAMERA.width, CAMERA.height)
    out.depth[:], out.color[..., 3] = depth, depth > 0
    out.normal[:] = np.nan  # poison
    return out


FILLS = {
    "torch": fill_normals,
    "simd": CpuExecutor(random_model(0)).fill_normals,
    "plain": CpuExecutor(random_model(0), plain=True).fill_normals,
}


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("normal", [[0.0, 0.0, 1.0], [0.6, -0.8, 0.0], [0.48, -0.6, 0.64]])
def test_a_planes_normal_is_exact_up_to_the_regions_border(fill: str, normal: list[float]) -> None:
    out = buffers(plane(normal, 0.1))
    FILLS[fill](CAMERA, out, WHOLE)
    seen = out.depth > 0
    assert seen.mean() > 0.5
    angle = np.degrees(np.arccos(np.clip(out.normal[seen] @ normal, -1, 1)))
    assert np.median(angle) < 0.1
    assert angle.max() < 1.0
    assert not out.normal[~seen].any()


@pytest.mark.parametrize("fill", FILLS)
def test_a_balls_normals_point_outward_and_face_the_eye(fill: str) -> None:
    origin, directions = rays()
    b = directions @ origin
    root = b * b - (origin @ origin - 1.5**2)
    depth = np.where(root > 0, -b - np.sqrt(np.maximum(root, 0)), 0)
    out = buffers(depth)
    FILLS[fill](CAMERA, out, WHOLE)
    expected = (origin + depth[..., None] * directions) / 1.5
    inner = (expected * directions).sum(-1) < -0.5
    inner &= depth > 0
    assert inner.sum() > 200
    assert ((out.normal[inner] * expected[inner]).sum(-1) > np.cos(np.radians(3))).all()
    assert ((out.normal[depth > 0] * directions[depth > 0]).sum(-1) < 0).all()


@pytest.mark.parametrize("fill", FILLS)
def test_what_lies_behind_an_edge_does_not_count(fill: str) -> None:
    """A wall before a ground: no normal in between, neither blended nor bent."""
    ground, wall = plane([0.0, 0, 1.0], 0.0), plane([0.6, -0.8, 0.0], 2.0)
    left = np.arange(CAMERA.width)[None, :] < 30
    out = buffers(np.where(left, wall, ground))
    FILLS[fill](CAMERA, out, WHOLE)
    far = np.abs(wall / np.where(ground > 0, ground, 1) - 1) > 0.2
    for side, normal in ((slice(26, 30), [0.6, -0.8, 0.0]), (slice(30, 34), [0.0, 0, 1.0])):
        seen = far[:, side] & (out.depth[:, side] > 0)
        assert seen.sum() > 40
        assert (out.normal[:, side][seen] @ normal > np.cos(np.radians(3))).all()


def test_kernel_and_twin_agree_on_rough_depth() -> None:
    rng = np.random.default_rng(0)
    depth = plane([0.0, 0, 1.0], 0.0) * (1 + 0.02 * rng.normal(size=(CAMERA.height, CAMERA.width)))
    results = []
    for fill in FILLS.values():
        out = buffers(depth * (rng.random(depth.shape) < 0.9) if not results else results[0].depth)
        fill(CAMERA, out, (3, 2, 55, 39))
        results.append(out)
    assert np.isnan(results[0].normal[:2]).all()
    for other in results[1:]:
        np.testing.assert_allclose(other.normal, results[0].normal, atol=2e-4)


def test_an_image_made_in_pieces_has_the_normals_of_the_whole() -> None:
    executor, camera = CpuExecutor(random_model(3)), CAMERA.resized(120, 80)
    whole, pieces = (FrameBuffers.allocate(120, 80) for _ in range(2))
    executor.render(RenderRequest(camera), whole)
    calls: list[object] = []
    render_in_slices(executor, RenderRequest(camera), pieces, SliceBudget(), after_slice=calls.append)
    assert len(calls) > 1
    assert whole.normal.any()
    np.testing.assert_array_equal(pieces.normal, whole.normal)
