"""Rays through lenses, looked up and computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from infnerf.data import lens_rays
from infnerf.data.lens_rays import LensRays
from infnerf.data.pixels import box_camera
from infnerf.models.camera import Camera


def cameras() -> list[list[Camera]]:
    """Two images of one lens, one of another, one without any, at two scales."""
    shared = {"distortion": (0.06, -0.08, -1e-3, 2e-4)}
    row = [
        Camera(np.eye(4), 40, 41, 16, 12, 32, 24, **shared),
        Camera(np.eye(4), 30, 30, 10, 9, 20, 18, distortion=(0.02, 0.01, 0.0, 0.0), lens="fisheye"),
        Camera(np.eye(4), 40, 41, 16, 12, 32, 24, **shared),
        Camera(np.eye(4), 40, 40, 16, 12, 32, 24),
    ]
    return [row, [box_camera(c, 2) for c in row]]


@pytest.mark.parametrize("room", [10_000, 100])
def test_rays_are_the_cameras_own_whether_looked_up_or_not(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens_rays, "TABLE_PIXELS", room)
    rows = cameras()
    rays = LensRays(rows)
    assert (rays.table is not None) == (room == 10_000)
    for scale, row in enumerate(rows):
        for i, camera in enumerate(row):
            x, y = torch.tensor([0, 3, camera.width - 1]), torch.tensor([1, 0, camera.height - 1])
            directions, cones = rays.rays(scale, torch.full((3,), i), x, y)
            _, expected, radius = camera.pixel_rays(x.numpy() + 0.5, y.numpy() + 0.5)
            np.testing.assert_allclose(directions.numpy(), expected, atol=1e-6)
            np.testing.assert_allclose(cones.numpy(), radius, rtol=1e-5)


def test_a_lens_that_images_share_is_inverted_once() -> None:
    table = LensRays(cameras()).table
    assert table is not None
    assert len(table) == 32 * 24 * 2 + 20 * 18 + 16 * 12 * 2 + 10 * 9
