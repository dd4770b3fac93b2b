"""What the pictures of numbers share: the colours of the viewer's panels, text, and a colour bar."""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..renderer.colormaps import SIZE, lookup, to_bytes
from ..renderer.shorten import shortened

Rgb = tuple[int, int, int]

#: sRGB bytes; those of `viewer/theme.py`, which training may not import (a test compares them).
BACKDROP: Rgb = (11, 12, 15)
LINE: Rgb = (42, 45, 54)
TEXT: Rgb = (230, 233, 239)
MUTED: Rgb = (150, 158, 174)


@functools.cache
def font(size: int) -> Any:
    """The font that Pillow brings, at a height in pixels."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> float:
    """Pixels that a line takes."""
    return font(size).getlength(_spaced(text))


def fitted(text: str, size: int, width: float) -> str:
    """The line, or as much of it as fits in `width` pixels, its middle left out.

    >>> fitted("short", 14, 400)
    'short'
    """
    return shortened(text, lambda line: text_width(line, size) <= width)


def write(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, color: Rgb, anchor: str) -> None:
    """A line of text; `anchor` is Pillow's: "ls" left end of the baseline, "rs" right end, "ms" middle."""
    draw.text(at, _spaced(text), fill=color, font=font(size), anchor=anchor)


def _spaced(text: str) -> str:
    """Pillow's font has so narrow a space that words stick to the digits before them."""
    return re.sub(r"(?<=\d) ", "  ", text)


def color_bar(row: str, width: int, height: int) -> Image.Image:
    """A table of `renderer.colormaps` from left to right."""
    return Image.fromarray(to_bytes(lookup(row, np.linspace(0, 1, SIZE)))[None]).resize((width, height))
