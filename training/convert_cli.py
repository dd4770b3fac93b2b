"""`infnerf convert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from ..renderer.cliutil import CommandError, progress_bar, say


@dataclass
class Convert:
    """Write a scene of any known format as InfNeRF's, or as nerfstudio's."""

    source: Positional[Path]
    """A scene's folder, or its file of cameras: InfNeRF, nerfstudio, instant-ngp, Blender, Multicam, LLFF, COLMAP."""
    out: Positional[Path]
    """The folder to write."""
    to: Literal["infnerf", "nerfstudio"] = "infnerf"
    """The format to write."""
    split: Literal["train", "test", "val", "all"] | None = None
    """Write one split only, or all images as one; without, the splits are kept apart."""
    overwrite: bool = False
    """Replace a converted scene that is there."""

    def run(self) -> int:
        if not self.source.exists():
            raise CommandError(f"{self.source}: no such file or folder")
        from ..data.convert import convert

        with progress_bar("convert", 1.0) as advance:
            summary = convert(self.source, self.out, self.to, self.split, self.overwrite, advance)
        for warning in summary.warnings:
            say(warning)
        counts = ", ".join(f"{count} {split} images" for split, count in summary.images.items())
        points = f"{summary.points} points" if summary.points else "no points"
        say(f"wrote {self.out} ({self.to}): {counts}, {points}")
        return 0
