"""Small scenes of images for tests of what training draws from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from infnerf.data.dataset import Dataset
from infnerf.data.pyramid import RayBatch, srgb_to_linear
from infnerf.models.camera import Camera, look_at

SIZE = (64, 48)
N_IMAGES = 24


def make_camera(i: int, size: tuple[int, int] = SIZE, **lens: Any) -> Camera:
    eye = np.array([3.0 + i, -4.0, 2.0])
    pose = look_at(eye, np.zeros(3), np.array([0, 0, 1.0]))
    return Camera(pose, 40.0 + i, 41.0, size[0] / 2, size[1] / 2, *size, **lens)


def make_data(folder: Path, n: int = N_IMAGES, size: tuple[int, int] = SIZE, **more: Any) -> Dataset:
    """Image i is red i * 5 everywhere, noise otherwise: a ray's colour tells which image it was read from."""
    rng = np.random.default_rng(3)
    for i in range(n):
        values = rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
        values[..., 0] = 5 * i
        Image.fromarray(values).save(folder / f"{i:03d}.png", compress_level=1)
    images = [folder / f"{i:03d}.png" for i in range(n)]
    cameras, names = [make_camera(i, size) for i in range(n)], [image.name for image in images]
    optional = {"masks": [None] * n, "weights": [1.0] * n} | more
    return Dataset(folder, "train", cameras, images, names, None, {}, **optional)


def write_mask(path: Path, mask: np.ndarray) -> Path:
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    return path


def check_colours(batch: RayBatch) -> None:
    red = srgb_to_linear(5 * batch.image.numpy() / 255)
    np.testing.assert_allclose(batch.rgba[:, 0], red, rtol=1e-3, atol=1e-4)
    assert (batch.rgba[:, 3] == 1).all()
