"""What the commands of `infnerf` share. Light to import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..renderer.cliutil import CommandError, say, whole_file

if TYPE_CHECKING:
    from ..models.infnerf import InfNeRF
    from ..models.pynerf import PyNeRF


def check_file(path: Path) -> None:
    """Raises `CommandError` if there is no such file."""
    if not path.is_file():
        raise CommandError(f"{path}: no such file")


def check_folder(path: Path) -> None:
    """Raises `CommandError` if there is no such folder."""
    if not path.is_dir():
        raise CommandError(f"{path}: no such folder")


def load_infnerf(path: Path, why: str) -> InfNeRF:
    """The InfNeRF of a file. Raises `CheckpointError`, and `CommandError` with `why` for a model of another kind."""
    from ..models.backends import TITLES
    from ..models.checkpoint import load_checkpoint
    from ..models.infnerf import InfNeRF

    checkpoint = load_checkpoint(path)
    if checkpoint.backend != "infnerf":
        raise CommandError(f"{path}: {why}, got a {TITLES[checkpoint.backend]}")
    return InfNeRF.from_checkpoint(checkpoint)


def load_kernel_model(path: Path, why: str) -> InfNeRF | PyNeRF:
    """The model of a file that the kernels render. Raises `CheckpointError`, and `CommandError` with `why` for one of
    another kind."""
    from ..models.backends import TITLES
    from ..models.checkpoint import load_checkpoint
    from ..models.pynerf import PyNeRF

    checkpoint = load_checkpoint(path)
    if checkpoint.backend not in ("infnerf", "pynerf"):
        raise CommandError(f"{path}: {why}, got a {TITLES[checkpoint.backend]}")
    return PyNeRF.from_checkpoint(checkpoint) if checkpoint.backend == "pynerf" else load_infnerf(path, why)


def write_json(path: Path | None, values: Any) -> None:
    """Writes numbers as JSON, whole or not at all, and says so. None is fine."""
    if path is not None:
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")
        say(f"wrote {path}")
