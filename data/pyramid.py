"""The image pyramid that training draws its rays from.

Every image at every scale is a box average, in linear light and premultiplied by alpha, of the one above it, and has
the camera of that grid (`data/pixels.py`). What of it is in memory, and when, is the store's (`data/image_store.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from .image_store import RAYS_PER_SWAP, ImageStore
from .lens_rays import LensRays
from .masks import Region
from .pixels import PixelReader, box_average, box_camera, linear_to_srgb, read_image, srgb_to_linear
from .ply import DatasetError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from .dataset import Dataset

__all__ = [
    "DEFAULT_FRACTIONS", "ImagePyramid", "RayBatch", "box_average", "box_camera", "check_scales", "linear_to_srgb",
    "read_image", "srgb_to_linear",
]  # fmt: skip

DEFAULT_FRACTIONS = (0.55, 0.25, 0.12, 0.08)  # share of a batch's rays per scale, finest first


@dataclass(frozen=True, eq=False)
class RayBatch:
    """Rays [n] with all that is known of them."""

    rays_o: Tensor  # [n, 3]
    rays_d: Tensor  # [n, 3] of unit length
    cones: Tensor  # [n] radius at unit distance
    rgba: Tensor  # [n, 4] premultiplied
    image: Tensor  # [n] int64, index in the dataset
    scale: Tensor  # [n] int64, index in the pyramid's scales
    weight: Tensor  # [n] float32, the image's weight in the loss


class ImagePyramid:
    """All images of a dataset at several scales, and random rays from them.

    `cameras[s][i]` is image i's camera at scale index s, `scales[s]` its factor. Use `ImagePyramid.load`.
    """

    def __init__(
        self,
        scales: Sequence[int],
        cameras: list[list[Camera]],
        store: ImageStore,
        color_space: str,
        weights: Sequence[float],  # one an image
    ) -> None:
        import torch

        self.scales = tuple(scales)
        self.cameras = cameras
        self.color_space = color_space
        self.store = store
        self.weights = torch.tensor(weights, dtype=torch.float32)  # [n_images]
        self._width: list[Tensor] = []  # [n_images]
        self._camera: list[Tensor] = []  # [n_images, 16] 1/fx, 1/fy, cx, cy, rotation row by row, position
        for row in cameras:
            self._width.append(torch.tensor([c.width for c in row]))
            numbers = [[1 / c.fx, 1 / c.fy, c.cx, c.cy, *c.c2w[:3, :3].ravel(), *c.position] for c in row]
            self._camera.append(torch.tensor(numbers, dtype=torch.float32))
        self._lenses = None if all(c.is_pinhole for c in cameras[0]) else LensRays(cameras)

    @classmethod
    def load(
        cls,
        dataset: Dataset,
        scales: Sequence[int] = (1, 2, 4, 8),
        downscale: int = 1,
        color_space: str = "linear",
        budget_bytes: int | None = None,  # None: every image stays in memory
        seed: int = 0,  # of the order in which images come and go
        rays_per_swap: int = RAYS_PER_SWAP,  # rays drawn for each image exchanged
        report: Callable[[int, int], None] | None = None,  # called with (images read, of how many)
        regions: Sequence[NDArray[np.bool_]] | None = None,  # [h, w] of each image: its tiles that are drawn from
    ) -> ImagePyramid:
        """Reads every image once. `scales` are factors below the image shrunk by `downscale`, each a multiple of the
        one before. If `budget_bytes` can't hold everything, fine scales hold a working set that rotates.

        The dataset's `masks` (an image file or None for each image: zero means no supervision) and `weights` (of each
        image in the loss) are kept to. Raises `DatasetError` as `check_scales` and `ImageStore` do, for an unknown
        colour space, and for a weight that is not a number of at least 0.
        """
        check_scales(dataset, scales, downscale)
        _check_options(color_space, budget_bytes, rays_per_swap)
        reader = PixelReader(scales, downscale, color_space)
        cameras: list[list[Camera]] = [[] for _ in scales]
        for path, camera, weight in zip(dataset.images, dataset.cameras, dataset.weights, strict=True):
            if not 0 <= weight < float("inf"):
                raise DatasetError(f"{path}: expected a weight of at least 0, found {weight}")
            camera = box_camera(camera, downscale)
            for row, ratio in zip(cameras, reader.ratios, strict=True):
                camera = box_camera(camera, ratio)
                row.append(camera)
        masks: list[Path | Region | None] = [*dataset.masks]
        if regions is not None:
            masks = [Region(mask, tiles) for mask, tiles in zip(dataset.masks, regions, strict=True)]
        files = list(zip(dataset.images, masks, dataset.cameras, strict=True))
        store = ImageStore(files, cameras, reader, budget_bytes, seed, rays_per_swap, report)
        return cls(scales, cameras, store, color_space, dataset.weights)

    @property
    def n_images(self) -> int:
        return len(self.cameras[0])

    @property
    def nbytes(self) -> int:
        """Memory that the pixels take, with their masks."""
        return self.store.nbytes

    def image(self, scale_index: int, index: int) -> NDArray[np.float32]:
        """One image at one scale, [H, W, 4] float32, premultiplied; read from its file if it is not in memory."""
        return self.store.image(scale_index, index)

    def state(self) -> dict[str, int]:
        """How far the images have rotated: what `restore` needs to go on bit for bit."""
        return self.store.state()

    def restore(self, state: dict[str, int]) -> None:
        """Back to where `state` was taken, for a pyramid loaded with the same arguments. Raises `ValueError` for
        numbers that are no state."""
        self.store.restore(state)

    def close(self) -> None:
        """Ends the threads that read images ahead."""
        self.store.close()

    def rays_at(
        self,
        scale_index: int,
        image: Tensor,  # [n] int64
        pixel: Tensor,  # [n] int64, y * width + x
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The rays through the centres of given pixels: `rays_o` [n, 3], `rays_d` [n, 3] of unit length, `cones` [n],
        the cone's radius at unit distance as in `Camera.pixel_rays`, and `rgba` [n, 4] premultiplied; all float32.

        Raises `ValueError` for pixels that are not in memory."""
        import torch

        table = self._camera[scale_index].index_select(0, image)
        width = self._width[scale_index].index_select(0, image)
        y = torch.div(pixel, width, rounding_mode="floor")
        x = pixel - y * width
        if self._lenses is None:
            lens = table[:, :4]
            u = (x + 0.5 - lens[:, 2]) * lens[:, 0]
            v = (y + 0.5 - lens[:, 3]) * lens[:, 1]
            inverse = torch.rsqrt(u * u + v * v + 1.0)  # of the length of (u, v, 1)
            local = torch.stack([u * inverse, v * inverse, inverse], dim=-1)
            cones = torch.sqrt(lens[:, 0] * lens[:, 1] * inverse**3 / torch.pi)
        else:
            local, cones = self._lenses.rays(scale_index, image, x, y)
        rays_d = torch.bmm(table[:, 4:13].view(-1, 3, 3), local[:, :, None])[:, :, 0]
        return table[:, 13:], rays_d, cones, self.store.rgba(scale_index, image, pixel)

    def draw(self, scale_index: int, n: int, generator: Generator | None = None) -> RayBatch:
        """`n` rays through random pixels that no mask hides, every image in memory as likely as every other. Where
        masks leave no pixel of a scale, they come from the next finer one."""
        return self._batch([self._pick(scale_index, n, generator)])

    def draw_mixed(
        self, n: int, generator: Generator | None = None, fractions: Sequence[float] | None = None
    ) -> RayBatch:
        """`n` rays, a fixed share of them from each scale (default 55, 25, 12 and 8 %), finest scale first.

        Raises `ValueError` when there is not one fraction, at least 0, for each scale.
        """
        return self._batch(self._pick_mixed(n, generator, fractions))

    def sample_rays(
        self, scale_index: int, n: int, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The rays of `draw`, as `rays_at` returns them."""
        return self.rays_at(*self._pick(scale_index, n, generator))

    def _pick(self, scale_index: int, n: int, generator: Generator | None) -> tuple[int, Tensor, Tensor]:
        self.store.advance(n)
        return self.store.pick(scale_index, n, generator)

    def _pick_mixed(
        self, n: int, generator: Generator | None, fractions: Sequence[float] | None
    ) -> list[tuple[int, Tensor, Tensor]]:
        shares = np.array(DEFAULT_FRACTIONS[: len(self.scales)] if fractions is None else fractions, np.float64)
        if len(shares) != len(self.scales) or not (shares >= 0).all() or shares.sum() <= 0:
            raise ValueError(f"draw_mixed: expected {len(self.scales)} fractions of at least 0, got {shares.tolist()}")
        edges = np.round(np.concatenate([[0.0], np.cumsum(shares / shares.sum())]) * n).astype(int)
        self.store.advance(n)  # once for all, so that no image leaves memory between a pick and its rays
        return [self.store.pick(s, int(b - a), generator) for s, (a, b) in enumerate(pairwise(edges))]

    def _batch(self, picks: list[tuple[int, Tensor, Tensor]]) -> RayBatch:
        import torch

        parts = [self.rays_at(*pick) for pick in picks]
        rays_o, rays_d, cones, rgba = (torch.cat(column) for column in zip(*parts, strict=True))
        image = torch.cat([image for _, image, _ in picks])
        scale = torch.cat([torch.full_like(image, s) for s, image, _ in picks])
        return RayBatch(rays_o, rays_d, cones, rgba, image, scale, self.weights.index_select(0, image))


def check_scales(dataset: Dataset, scales: Sequence[int], downscale: int) -> None:
    """Raises `DatasetError` for scales that can't be made of one another, or of one of the images."""
    if not scales or min(scales) < 1 or downscale < 1 or any(b % a for a, b in pairwise((1, *scales))):
        raise DatasetError(
            f"{dataset.path}: expected scales of at least 1, each a multiple of the one before, and downscale at "
            f"least 1, found {list(scales)} and {downscale}"
        )
    least = downscale * scales[-1]
    for path, camera in zip(dataset.images, dataset.cameras, strict=True):
        if min(camera.width, camera.height) < least:
            raise DatasetError(
                f"{path}: expected at least {least} pixels on each side for downscale {downscale} and "
                f"scale {scales[-1]}, found {camera.width}x{camera.height}"
            )


def _check_options(color_space: str, budget: int | None, rays_per_swap: int) -> None:
    if color_space not in ("linear", "srgb"):
        raise DatasetError(f"ImagePyramid: expected color_space 'linear' or 'srgb', found '{color_space}'")
    if (budget is not None and budget < 1) or rays_per_swap < 1:
        raise DatasetError(
            f"ImagePyramid: expected budget_bytes and rays_per_swap of at least 1, found {budget} and {rays_per_swap}"
        )
