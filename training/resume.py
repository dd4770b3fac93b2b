"""Going on with a run where it was stopped or killed: everything that the next step depends on, in one file.

It lies beside the checkpoint (`model.pth.resume`), is larger than it (float weights and Adam's two moments), and holds
tensors, numbers and strings only. On a CPU the continued run is the uninterrupted one, bit for bit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..data.dataset import DatasetError
from ..renderer.cliutil import whole_file

if TYPE_CHECKING:
    from .base import BaseTrainer

VERSION = 4


def resume_path(checkpoint: Path) -> Path:
    """Where the state of the run that writes `checkpoint` lies.

    >>> resume_path(Path("runs/city.pth")).name
    'city.pth.resume'
    """
    return checkpoint.with_name(checkpoint.name + ".resume")


def save_state(trainer: BaseTrainer[Any], path: Path) -> None:
    """Writes the state whole or not at all."""
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        torch.save(_state(trainer), file)
        file.flush()
        os.fsync(file.fileno())


def restore_state(trainer: BaseTrainer[Any], path: Path) -> None:
    """Puts a fresh trainer of the same run where `save_state` left it.

    Raises `DatasetError` for a file that is missing, damaged or of another run.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: expected the state of a run to resume, found none")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the damage provokes
        raise DatasetError(f"{path}: expected the state of a run, found a damaged file: {_first_line(error)}") from None
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise DatasetError(f"{path}: expected the state of a run, version {VERSION}, found something else")
    theirs, ours = state.get("run"), _run(trainer)
    if theirs != ours:
        differing = [key for key in ours if not isinstance(theirs, dict) or theirs.get(key) != ours[key]]
        raise DatasetError(f"{path}: expected the state of this run, found one that differs in {', '.join(differing)}")
    try:
        _restore(trainer, state)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise DatasetError(f"{path}: expected a complete state of a run, found: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _run(trainer: BaseTrainer[Any]) -> dict[str, Any]:
    """What must be the same in both runs for the state to mean anything."""
    config = trainer.config
    return {
        **trainer.identity(),
        "seed": config.seed,
        "downscale": config.downscale,
        "images": list(trainer.data.names),
        "part": trainer.part,
    }


def _state(trainer: BaseTrainer[Any]) -> dict[str, Any]:
    return {
        **trainer.state(),
        "version": VERSION,
        "run": _run(trainer),
        "seconds": trainer.seconds,
        "generator": trainer.generator.get_state(),
        "pyramid": trainer.pyramid.state(),
        "steps": trainer.steps_done,
        "n_rays": trainer.n_rays,
        "running_mse": trainer.running_mse,
    }


def _restore(trainer: BaseTrainer[Any], state: dict[str, Any]) -> None:
    trainer.restore(state)
    trainer.generator.set_state(state["generator"])
    trainer.pyramid.restore(state["pyramid"])
    trainer.steps_done, trainer.n_rays = int(state["steps"]), int(state["n_rays"])
    trainer.running_mse, trainer.seconds = float(state["running_mse"]), float(state["seconds"])
