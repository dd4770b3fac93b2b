"""Opening a data set's images just far enough to know their size and that they are whole."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

from ..models.camera import MAX_SIDE

_ENDS = {"JPEG": (b"\xff\xd9", 4096), "PNG": (b"IEND\xaeB`\x82", 64)}  # format -> its end, looked for in the last bytes


def image_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of an image, or None where it is empty, truncated, too large or no image.

    Thousands of photographs must not be decoded to know that they are there: one whose file ends as its format ends is
    taken as whole, any other is decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                size = image.size
                if not 1 <= min(size) <= max(size) <= MAX_SIDE:
                    return None
                if not _ends_well(path, str(image.format)):
                    image.load()
        return size
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError):
        return None


def has_alpha(path: Path) -> bool:
    """Whether an image that opens may be transparent somewhere."""
    with Image.open(path) as image:
        return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _ends_well(path: Path, kind: str) -> bool:
    if kind not in _ENDS:
        return False
    end, within = _ENDS[kind]
    with path.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(max(0, length - within))
        return end in file.read()
