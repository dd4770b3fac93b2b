"""Image files as linear, premultiplied, area-averaged pixels of every scale, a strip of rows at a time.

Every scale is a box average, in linear light and premultiplied by alpha, of the one above it, and has the camera of
that grid. Strips keep the working memory at a few megabytes however large the image, and give the very numbers that
averaging whole images would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..models.camera import Camera
from .ply import DatasetError

STRIP_PIXELS = 1 << 16  # at full size
STRIP_BYTES = 64  # per pixel of a strip, in float32 and its products
DECODER_BYTES = 12  # per pixel of the file: Pillow's 4, up to 6 inside libjpeg for progressive files, a margin
MASK_BYTES = 4  # per pixel of the file, while a mask is read


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


def decoding_table(color_space: str) -> NDArray[np.float32]:
    """What the 256 values of a channel mean: linear light, or for "srgb" themselves."""
    table = np.arange(256) / 255.0
    return (srgb_to_linear(table) if color_space == "linear" else table).astype(np.float32)


def premultiply(pixels: NDArray[np.uint8], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """[..., 4] bytes of straight alpha as [..., 4] float32 premultiplied."""
    alpha = pixels[..., 3:].astype(np.float32) / np.float32(255)
    return np.concatenate([np.take(table, pixels[..., :3]) * alpha, alpha], axis=-1)


def read_image(path: str | object, color_space: str = "linear") -> NDArray[np.float32]:
    """An image file as [H, W, 4] float32 premultiplied; colours decoded to linear light, or kept as they are for
    "srgb"."""
    with Image.open(str(path)) as file:
        pixels = np.asarray(file.convert("RGBA"))
    return premultiply(pixels, decoding_table(color_space))


def read_strips(path: Path, size: tuple[int, int], rows: int) -> Iterator[NDArray[np.uint8]]:
    """An image as RGBA bytes [<= rows, W, 4], strip after strip.

    Raises `DatasetError` for a file that does not open, is cut short or has another size than (width, height).
    """
    try:
        with Image.open(path) as file:
            _check_size(path, file.size, size)
            file.load()
            for y in range(0, size[1], rows):
                yield np.asarray(file.crop((0, y, size[0], min(y + rows, size[1]))).convert("RGBA"))
    except DatasetError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path}: expected an image that opens, found: {error}") from error


def read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask image as [H, W], True where it is not zero: where the image counts.

    Raises `DatasetError` for a file that does not open or has another size than its image.
    """
    try:
        with Image.open(path) as file:
            _check_size(path, file.size, size)
            single = file.mode in ("1", "L", "F") or file.mode.startswith("I")
            return np.asarray(file if single else file.convert("L")) != 0
    except DatasetError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path}: expected a mask image that opens, found: {error}") from error


def _check_size(path: Path, found: tuple[int, int], expected: tuple[int, int]) -> None:
    if found != expected:  # before anything of the size that the file claims is allocated
        raise DatasetError(
            f"{path}: expected an image of {expected[0]}x{expected[1]} as its camera, found {found[0]}x{found[1]}"
        )


class PixelReader:
    """Reads image files of (width, height) into arrays of every scale.

    `scales` are factors below the image shrunk by `downscale`, each a multiple of the one before.
    """

    def __init__(self, scales: Sequence[int], downscale: int, color_space: str) -> None:
        self.downscale = downscale
        self.ratios = [b // a for a, b in zip([1, *scales], scales, strict=False)]
        self.step = downscale * scales[-1]  # rows that end on a row of every scale
        self.table = decoding_table(color_space)

    def strip_rows(self, width: int) -> int:
        """Rows of a strip: about STRIP_PIXELS, a multiple of the coarsest pixel."""
        return max(1, STRIP_PIXELS // (width * self.step)) * self.step

    def scratch_bytes(self, width: int, height: int, masked: bool) -> int:
        """An upper estimate of the memory that reading one image takes besides what it fills."""
        strip = min(height, self.strip_rows(width)) * width
        return width * height * (DECODER_BYTES + MASK_BYTES * masked) + strip * STRIP_BYTES

    def read(
        self,
        path: Path,
        size: tuple[int, int],
        out: Sequence[NDArray | None],
    ) -> None:
        """Fills `out[s]`, None where scale s is not wanted: [H*W of the scale, 4], float16 premultiplied, or uint8 for
        the file's own pixels (scale 1 of downscale 1). Raises `DatasetError` as `read_strips` does."""
        wanted = [s for s, array in enumerate(out) if array is not None]
        if not wanted:
            return
        filled = [0] * len(out)
        averaged = any(array is not None and array.dtype != np.uint8 for array in out)
        for strip in read_strips(path, size, self.strip_rows(size[0])):
            image = box_average(premultiply(strip, self.table), self.downscale) if averaged else None
            for s in range(wanted[-1] + 1):
                target = out[s]
                if image is not None:
                    image = box_average(image, self.ratios[s])
                if target is None:
                    continue
                source = strip if target.dtype == np.uint8 else image
                assert source is not None
                n = source.shape[0] * source.shape[1]
                target[filled[s] : filled[s] + n] = source.reshape(-1, 4)
                filled[s] += n
