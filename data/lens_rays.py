"""Rays of cameras of which some have distortion: `Camera.pixel_rays` for a batch.

To invert a lens takes longer than to train on the ray. Most captures have one lens for all their images, so each
lens is inverted once, for all its pixels, as long as those fit; what is looked up is what would have been computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..models.camera import Camera
from ..models.lens import N_NUMBERS, has_tangential, lens_numbers, undistort

if TYPE_CHECKING:
    from torch import Tensor

TABLE_PIXELS = 16_000_000  # of all lenses at all scales: 16 bytes each
AT_ONCE = 1 << 17  # pixels inverted


class LensRays:
    """Directions and cones by image, scale and pixel."""

    def __init__(self, cameras: list[list[Camera]]) -> None:
        """`cameras[s][i]`: image i at scale index s."""
        import torch

        rows = cameras[0]  # a lens is the same at every scale
        numbers = np.array([lens_numbers(c.lens, c.distortion) for c in rows]).reshape(-1, N_NUMBERS)
        self.numbers = torch.from_numpy(numbers)  # [n_images, 9]
        self.fisheye = torch.tensor([c.lens == "fisheye" for c in rows])
        self.tangential = any(has_tangential(c.lens, k) for c, k in zip(rows, numbers.tolist(), strict=True))
        self.intrinsics = [
            torch.tensor([[c.fx, c.fy, c.cx, c.cy] for c in row], dtype=torch.float64) for row in cameras
        ]
        self.table: Tensor | None = None  # [pixels, 4] direction and cone
        self._fill_table(cameras)

    def rays(self, scale_index: int, image: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Directions in camera axes [n, 3] and cones [n] of pixels (x, y), float32."""
        if self.table is None:
            return self._invert(scale_index, image, x, y)
        start, width = self.places[scale_index][:, image]
        row = self.table.index_select(0, start + y * width + x)
        return row[:, :3], row[:, 3]

    def _fill_table(self, cameras: list[list[Camera]]) -> None:
        """Sets `table`, and `places` [2, n_images] of each scale: where a lens begins in it, and its image's width."""
        import torch

        parts: list[tuple[int, int]] = []  # scale, and an image that has the lens
        starts: dict[tuple, int] = {}
        self.places: list[Tensor] = []
        total = 0
        for scale, row in enumerate(cameras):
            begin = []
            for image, c in enumerate(row):
                lens = scale, c.fx, c.fy, c.cx, c.cy, c.width, c.height, c.lens, *c.distortion
                if lens not in starts:
                    starts[lens] = total
                    total += c.width * c.height
                    parts.append((scale, image))
                begin.append(starts[lens])
            self.places.append(torch.tensor([begin, [c.width for c in row]]))
        if total > TABLE_PIXELS:
            return
        table = []
        for scale, image in parts:
            camera = cameras[scale][image]
            for pixels in torch.arange(camera.width * camera.height).split(AT_ONCE):
                y = torch.div(pixels, camera.width, rounding_mode="floor")
                which = torch.full_like(pixels, image)
                directions, cones = self._invert(scale, which, pixels - y * camera.width, y)
                table.append(torch.cat([directions, cones[:, None]], dim=1))
        self.table = torch.cat(table)

    def _invert(self, scale_index: int, image: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """As `rays`, in float64 until the end."""
        import torch

        fx, fy, cx, cy = self.intrinsics[scale_index].index_select(0, image).unbind(1)
        a, b = (x + 0.5 - cx) / fx, (y + 0.5 - cy) / fy
        numbers, fisheye = self.numbers.index_select(0, image), self.fisheye.index_select(0, image)
        result = torch.empty(len(image), 4, dtype=torch.float64)
        for lens, chosen in (("perspective", ~fisheye), ("fisheye", fisheye)):
            index = chosen.nonzero()[:, 0]
            if len(index):
                k = numbers.index_select(0, index).unbind(1)
                values = undistort(torch, lens, a[index], b[index], k, self.tangential)
                result[index] = torch.stack(values[:4], dim=1)
        cones = torch.sqrt(result[:, 3] / (fx * fy * torch.pi))
        return result[:, :3].float(), cones.float()
