"""PNG files that say where they were taken: text chunks hold the camera's pose and what else is worth keeping."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def save_png(
    path: str | os.PathLike[str],
    rgb: NDArray[np.uint8],  # [H, W, 3]
    metadata: Mapping[str, str],  # key -> text, a pose as JSON
) -> Path:
    """Writes a picture to a temporary file beside `path`, then renames it; an older file is whole whatever happens.

    Returns the path. Raises `ValueError` for a wrong array, `OSError` if it cannot be written.
    """
    path = Path(path)
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"save_png: rgb must be [H, W, 3] uint8, got {list(rgb.shape)} {rgb.dtype}")
    info = PngInfo()
    for key, text in metadata.items():
        info.add_itxt(key, text)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb") as file:
            Image.fromarray(np.ascontiguousarray(rgb)).save(file, "PNG", pnginfo=info)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts that `save_png` stored. Raises `OSError` if the file is no picture."""
    with Image.open(path) as image:
        image.load()  # text chunks may follow the pixels
        return {str(key): str(value) for key, value in image.info.items() if isinstance(value, str)}
