"""What the commands of `infnerf` share. Light to import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..renderer.cliutil import CommandError, say, whole_file


def check_file(path: Path) -> None:
    """Raises `CommandError` if there is no such file."""
    if not path.is_file():
        raise CommandError(f"{path}: no such file")


def check_folder(path: Path) -> None:
    """Raises `CommandError` if there is no such folder."""
    if not path.is_dir():
        raise CommandError(f"{path}: no such folder")


def write_json(path: Path | None, values: Any) -> None:
    """Writes numbers as JSON, whole or not at all, and says so. None is fine."""
    if path is not None:
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")
        say(f"wrote {path}")
