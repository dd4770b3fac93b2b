"""The image pyramid that training draws its rays from.

Every image at every scale is a box average, in linear light and premultiplied by alpha, of the one above it, and has
the camera of that grid. A scale's pixels lie in one flat float16 array, so that a batch of random rays is one gather.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..models.camera import Camera
from .ply import DatasetError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from .dataset import Dataset

DEFAULT_FRACTIONS = (0.55, 0.25, 0.12, 0.08)  # share of a batch's rays per scale, finest first


def srgb_to_linear(encoded: NDArray) -> NDArray:
    """IEC 61966-2-1 decoding of values in [0, 1].

    >>> srgb_to_linear(np.array([0.0, 1.0])).tolist()
    [0.0, 1.0]
    """
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: NDArray) -> NDArray:
    """IEC 61966-2-1 encoding of values in [0, 1]; the inverse of `srgb_to_linear`."""
    clipped = np.maximum(linear, 0.0)
    return np.where(clipped <= 0.0031308, clipped * 12.92, 1.055 * clipped ** (1 / 2.4) - 0.055)


def box_average(image: NDArray, factor: int) -> NDArray:
    """The mean of every factor x factor block of `image` [H, W, C]; a remainder at the right and at the bottom is
    dropped.

    >>> box_average(np.arange(4.0).reshape(2, 2, 1), 2).tolist()
    [[[1.5]]]
    """
    if factor == 1:
        return image
    height, width = image.shape[0] // factor * factor, image.shape[1] // factor * factor
    total = np.zeros((height // factor, width // factor, image.shape[2]), np.result_type(image.dtype, np.float32))
    for y in range(factor):  # whole strided images at a time: ten times as fast as a mean over two axes
        for x in range(factor):
            total += image[y:height:factor, x:width:factor]
    return total / total.dtype.type(factor * factor)


def box_camera(camera: Camera, factor: int) -> Camera:
    """The camera of `box_average`'s grid. Dropping the remainder moves nothing, so the principal point only scales."""
    width, height = camera.width // factor, camera.height // factor
    return replace(
        camera, fx=camera.fx / factor, fy=camera.fy / factor, cx=camera.cx / factor, cy=camera.cy / factor,
        width=width, height=height,
    )  # fmt: skip


def read_image(path: str | object, color_space: str = "linear") -> NDArray[np.float32]:
    """An image file as [H, W, 4] float32 premultiplied; colours decoded to linear light, or kept as they are for
    "srgb"."""
    with Image.open(str(path)) as file:
        pixels = np.asarray(file.convert("RGBA"))
    table = np.arange(256) / 255.0
    if color_space == "linear":
        table = srgb_to_linear(table)
    alpha = pixels[..., 3:].astype(np.float32) / np.float32(255)
    return np.concatenate([table.astype(np.float32)[pixels[..., :3]] * alpha, alpha], axis=-1)


class ImagePyramid:
    """All images of a dataset at several scales, and random rays from them.

    `cameras[s][i]` is image i's camera at scale index s, `scales[s]` its factor. Use `ImagePyramid.load`.
    """

    def __init__(
        self, scales: Sequence[int], cameras: list[list[Camera]], pixels: list[NDArray[np.float16]], color_space: str
    ) -> None:
        """`pixels[s]` [sum of H*W over images, 4], image after image, row after row."""
        import torch

        self.scales = tuple(scales)
        self.cameras = cameras
        self.color_space = color_space
        # a pixel's four halves as one word: a random gather then moves whole pixels, three times as fast
        self._words: list[Tensor] = [torch.from_numpy(np.ascontiguousarray(p).view(np.int64)[:, 0]) for p in pixels]
        self._start: list[Tensor] = []  # [n_images] first row of an image
        self._size: list[Tensor] = []  # [n_images, 2] width, number of pixels
        self._camera: list[Tensor] = []  # [n_images, 16] 1/fx, 1/fy, cx, cy, rotation row by row, position
        for row in cameras:
            counts = np.array([c.width * c.height for c in row])
            self._start.append(torch.from_numpy(np.concatenate([[0], np.cumsum(counts)[:-1]])))
            self._size.append(torch.tensor([[c.width, c.width * c.height] for c in row]))
            numbers = [[1 / c.fx, 1 / c.fy, c.cx, c.cy, *c.c2w[:3, :3].ravel(), *c.position] for c in row]
            self._camera.append(torch.tensor(numbers, dtype=torch.float32))

    @classmethod
    def load(
        cls, dataset: Dataset, scales: Sequence[int] = (1, 2, 4, 8), downscale: int = 1, color_space: str = "linear"
    ) -> ImagePyramid:
        """Reads every image once. `scales` are factors below the image shrunk by `downscale`, each a multiple of the
        one before.

        Raises `DatasetError` for factors that are not, for an unknown colour space, and for an image smaller than a
        pixel of the coarsest scale.
        """
        ratios = [b / a for a, b in zip([1, *scales], scales, strict=False)]
        if not scales or min(scales) < 1 or downscale < 1 or any(r != int(r) for r in ratios):
            raise DatasetError(
                f"ImagePyramid: expected scales of at least 1, each a multiple of the one before, and "
                f"downscale at least 1, found {list(scales)} and {downscale}"
            )
        if color_space not in ("linear", "srgb"):
            raise DatasetError(f"ImagePyramid: expected color_space 'linear' or 'srgb', found '{color_space}'")
        cameras: list[list[Camera]] = [[] for _ in scales]
        levels: list[list[NDArray[np.float16]]] = [[] for _ in scales]
        for path, camera in zip(dataset.images, dataset.cameras, strict=True):
            if min(camera.width, camera.height) < downscale * scales[-1]:
                raise DatasetError(
                    f"{path}: expected at least {downscale * scales[-1]} pixels on each side for "
                    f"downscale {downscale} and scale {scales[-1]}, found {camera.width}x{camera.height}"
                )
            image, camera = box_average(read_image(path, color_space), downscale), box_camera(camera, downscale)
            for s, ratio in enumerate(ratios):
                image, camera = box_average(image, int(ratio)), box_camera(camera, int(ratio))
                cameras[s].append(camera)
                levels[s].append(image.astype(np.float16).reshape(-1, 4))
        return cls(scales, cameras, [np.concatenate(level) for level in levels], color_space)

    @property
    def n_images(self) -> int:
        return len(self.cameras[0])

    @property
    def nbytes(self) -> int:
        """Memory that the pixels take."""
        return sum(p.numel() * p.element_size() for p in self._words)

    def image(self, scale_index: int, index: int) -> NDArray[np.float32]:
        """One image at one scale, [H, W, 4] float32, premultiplied."""
        camera = self.cameras[scale_index][index]
        start = int(self._start[scale_index][index])
        rows = self._words[scale_index][start : start + camera.width * camera.height].numpy().view(np.float16)
        return rows.reshape(camera.height, camera.width, 4).astype(np.float32)

    def rays_at(
        self,
        scale_index: int,
        image: Tensor,  # [n] int64
        pixel: Tensor,  # [n] int64, y * width + x
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The rays through the centres of given pixels: `rays_o` [n, 3], `rays_d` [n, 3] of unit length, `cones` [n],
        the cone's radius at unit distance as in `Camera.pixel_rays`, and `rgba` [n, 4] premultiplied; all float32."""
        import torch

        table = self._camera[scale_index].index_select(0, image)
        lens, position = table[:, :4], table[:, 13:]
        width = self._size[scale_index][:, 0].index_select(0, image)
        y = torch.div(pixel, width, rounding_mode="floor")
        x = pixel - y * width
        u = (x + 0.5 - lens[:, 2]) * lens[:, 0]
        v = (y + 0.5 - lens[:, 3]) * lens[:, 1]
        inverse = torch.rsqrt(u * u + v * v + 1.0)  # of the length of (u, v, 1)
        local = torch.stack([u * inverse, v * inverse, inverse], dim=-1)
        rays_d = torch.bmm(table[:, 4:13].view(-1, 3, 3), local[:, :, None])[:, :, 0]
        cones = torch.sqrt(lens[:, 0] * lens[:, 1] * inverse**3 / torch.pi)
        words = self._words[scale_index].index_select(0, self._start[scale_index].index_select(0, image) + pixel)
        return position, rays_d, cones, words.view(torch.float16).view(-1, 4).float()

    def sample_rays(
        self, scale_index: int, n: int, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`n` rays through random pixels, every image as likely as every other; what `rays_at` returns."""
        import torch

        image = torch.randint(self.n_images, (n,), generator=generator)
        count = self._size[scale_index][:, 1].index_select(0, image)
        unit = torch.rand(n, generator=generator, dtype=torch.float64)
        return self.rays_at(scale_index, image, torch.minimum((unit * count).long(), count - 1))

    def sample_mixed(
        self, n: int, generator: Generator | None = None, fractions: Sequence[float] | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`n` rays, a fixed share of them from each scale (default 55, 25, 12 and 8 %), finest scale first.

        Raises `ValueError` when there is not one fraction, at least 0, for each scale.
        """
        import torch

        shares = np.array(DEFAULT_FRACTIONS[: len(self.scales)] if fractions is None else fractions, np.float64)
        if len(shares) != len(self.scales) or not (shares >= 0).all() or shares.sum() <= 0:
            raise ValueError(
                f"sample_mixed: expected {len(self.scales)} fractions of at least 0, got {shares.tolist()}"
            )
        edges = np.round(np.concatenate([[0.0], np.cumsum(shares / shares.sum())]) * n).astype(int)
        parts = [self.sample_rays(s, int(b - a), generator) for s, (a, b) in enumerate(pairwise(edges))]
        o, d, cones, rgba = (torch.cat(column) for column in zip(*parts, strict=True))
        return o, d, cones, rgba
