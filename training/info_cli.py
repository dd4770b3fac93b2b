"""`infnerf info`: the command line. Light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..renderer.cliutil import UsageError, check_output, check_range, say
from .cli_common import check_file, write_json


@dataclass
class Info:
    """Say what is in a checkpoint: nodes, parameters and bytes per level, the tree, a picture of it."""

    checkpoint: Positional[Path]
    """A .pth file."""
    tree: bool = False
    """Print the tree too, whole levels of it."""
    lines: Annotated[int, arg(metavar="N")] = 60
    """At most so many lines of the tree."""
    picture: Annotated[Path | None, arg(metavar="X.png")] = None
    """Draw the octree from above."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the numbers there too."""

    def run(self) -> int:
        if self.picture is not None and self.picture.suffix.lower() != ".png":
            raise UsageError(f"--picture must end in .png, got {self.picture}")
        check_range("--lines", self.lines, 9, 1_000_000)
        check_file(self.checkpoint)
        check_output(self.picture)
        check_output(self.json)
        from ..models.backends import model_of
        from ..models.checkpoint import load_checkpoint
        from .octree_report import describe, inspect, tree_lines

        checkpoint = load_checkpoint(self.checkpoint)
        model = model_of(checkpoint)
        values = inspect(checkpoint, model)
        print("\n".join(describe(values)))
        if self.tree:
            print("\n".join(["", *tree_lines(model.octree, self.lines)]))
        if self.picture is not None:
            from ..renderer.pngmeta import save_png
            from .octree_picture import octree_picture

            save_png(self.picture, octree_picture(model, self.checkpoint.name), {"checkpoint": str(self.checkpoint)})
            say(f"wrote {self.picture}")
        write_json(self.json, values)
        return 0
