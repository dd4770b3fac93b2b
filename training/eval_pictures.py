"""Truth, render and error side by side, with the numbers: what `infnerf eval --pictures` writes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..data.dataset import DatasetError
from ..renderer.colormaps import lookup, to_bytes
from ..renderer.pngmeta import save_png
from .drawing import BACKDROP, MUTED, TEXT, color_bar, fitted, text_width, write
from .metrics import Comparison

ERROR_MAX = 0.25  # of the range of display values: where the error map ends, the same in every picture
NARROWEST = 280  # px of a panel; smaller images are shown with larger pixels
MARGIN, GAP, HEADER, FOOTER = 16, 8, 58, 44  # px
_TITLE, _LABEL = 16, 13  # px, heights of text
_ERROR = "error: RMS of channels, 1 is the full range"


def check_folder(folder: Path) -> None:
    """Makes the folder if it is not there. Raises `DatasetError` if no file can be written into it."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{folder}: expected a folder for pictures, it can't be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise DatasetError(f"{folder}: expected a folder for pictures, it can't be written")


def error_map(pair: Comparison) -> NDArray[np.uint8]:
    """The error of every pixel as a colour, [H, W, 3] sRGB: the root of the mean squared difference of the channels,
    dark for none, lightest from `ERROR_MAX` on; grey where a pixel does not count."""
    colors = to_bytes(lookup("sequential", np.sqrt(pair.squared) / ERROR_MAX))
    return np.where(pair.valid[..., None], colors, np.uint8(70))


def comparison(pair: Comparison, title: str, numbers: str) -> NDArray[np.uint8]:
    """The picture [H, W, 3]: three panels under a line of text, and what the colours of the third mean."""
    height, width = pair.squared.shape
    zoom = max(1, -(-NARROWEST // width))
    width, height = width * zoom, height * zoom
    size = (3 * width + 2 * GAP + 2 * MARGIN, HEADER + height + FOOTER)
    sheet = Image.new("RGB", size, BACKDROP)
    draw = ImageDraw.Draw(sheet)
    room = size[0] - 2 * MARGIN - text_width(numbers, _TITLE) - 24
    write(draw, (MARGIN, 26), fitted(title, _TITLE, room), _TITLE, TEXT, "ls")
    write(draw, (size[0] - MARGIN, 26), numbers, _TITLE, TEXT, "rs")
    images = {"truth": _bytes(pair.truth), "render": _bytes(pair.render), _ERROR: error_map(pair)}
    for i, (label, image) in enumerate(images.items()):
        x = MARGIN + i * (width + GAP)
        write(draw, (x, HEADER - 8), label, _LABEL, MUTED, "ls")
        panel = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(panel, (x, HEADER))
    _legend(sheet, draw, MARGIN + 2 * (width + GAP), HEADER + height + 10, width)
    if zoom > 1:
        write(draw, (MARGIN, HEADER + height + 22), f"each pixel shown {zoom} x {zoom}", _LABEL, MUTED, "ls")
    return np.asarray(sheet)


def save_comparison(folder: Path, index: int, name: str, scale: int, pair: Comparison, scores: dict[str, Any]) -> Path:
    """Writes `folder`/NNNN_NAME_scaleSCALE.png, whole or not at all, and returns its path."""
    numbers = [f"PSNR {scores['psnr']:.2f} dB"]
    numbers += [f"{key.upper()} {scores[key]:.3f}" for key in ("ssim", "lpips") if scores[key] is not None]
    numbers.append(f"{100 * scores['parameters_used']:.1f} % of parameters")
    path = folder / f"{index:04d}_{_file_name(name)}_scale{scale}.png"
    return save_png(path, comparison(pair, f"{name}, scale 1/{scale}", "   ".join(numbers)), {"view": name})


def _legend(sheet: Image.Image, draw: ImageDraw.ImageDraw, x: int, y: int, width: int) -> None:
    """The scale of the error map, under its panel."""
    sheet.paste(color_bar("sequential", width, 8), (x, y))
    for share, anchor in ((0.0, "ls"), (0.5, "ms"), (1.0, "rs")):
        label = f"{share * ERROR_MAX:g}{' and more' if share == 1 else ''}"
        write(draw, (x + share * width, y + 24), label, _LABEL, MUTED, anchor)


def _bytes(display: NDArray[np.float32]) -> NDArray[np.uint8]:
    return (np.clip(display, 0, 1) * 255 + 0.5).astype(np.uint8)


def _file_name(name: str) -> str:
    """An image's key as part of a file name: no folders, no ending, no characters that a system refuses."""
    return re.sub(r"[^\w.-]+", "_", name.removesuffix(Path(name).suffix)).strip("._")[-80:]
