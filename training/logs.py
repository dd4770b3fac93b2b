"""Where a run writes its curves and pictures: TensorBoard and wandb behind one small protocol, `Log`."""

from __future__ import annotations

import importlib
import importlib.util
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

WANDB_PROJECT = "infnerf"
WANDB_ID = "wandb-id"  # in the logs' folder: the run that `--resume` goes on with


class LogError(RuntimeError):
    """A log that was asked for and can't be had, in one sentence."""


class Log(Protocol):
    """Takes what a run tells; `step` is the number of steps done."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name, `group/name`."""

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """A picture [H, W, 3] sRGB."""

    def close(self) -> None:
        """Everything is on disk afterwards."""


@dataclass(frozen=True)
class LogConfig:
    """Which logs a run writes."""

    folder: Path  # made when it is not there
    tensorboard: bool = True
    wandb: str | None = None  # the project
    name: str = ""  # of the run
    about: Mapping[str, Any] = field(default_factory=dict)  # plain data: the run's configuration


def check_logs(config: LogConfig) -> None:
    """Raises `LogError` for what can be told before anything is read."""
    if config.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise LogError("--wandb needs wandb, which is not installed: pip install wandb, or leave --wandb out")
    if not config.folder.parent.is_dir():
        raise LogError(f"{config.folder}: the folder {config.folder.parent} for the logs does not exist")
    if config.folder.exists() and not config.folder.is_dir():
        raise LogError(f"{config.folder}: expected a folder for logs, found a file")


def open_logs(config: LogConfig, first_step: int, resume: bool, say: Callable[[str], None]) -> Log:
    """All logs that `config` asks for, as one.

    What an earlier run, or a part of this one that was lost in a kill, logged from `first_step` on is hidden.
    A missing TensorBoard is said, and no reason to stop. Raises `LogError` for a folder that can't be made and for
    wandb's refusals.
    """
    logs: list[Log] = []
    try:
        config.folder.mkdir(exist_ok=True)
    except OSError as error:
        raise LogError(f"{config.folder}: the folder for logs can't be made: {error.strerror}") from error
    if config.tensorboard:
        try:
            logs.append(TensorBoardLog(config.folder, first_step))
        except ImportError:
            say("no TensorBoard logs: tensorboard is not installed (pip install 'infnerf-view[train]')")
    if config.wandb is not None:
        logs.append(WandbLog(config, resume))
    return Logs(logs, say)


class Logs:
    """Several logs as one. One that fails in the middle of a run is said and dropped: training is worth more."""

    def __init__(self, logs: list[Log], say: Callable[[str], None]) -> None:
        self._logs, self._say = logs, say

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._each(lambda log: log.scalars(step, values))

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        self._each(lambda log: log.image(step, name, image))

    def close(self) -> None:
        self._each(lambda log: log.close())
        self._logs = []

    def _each(self, act: Callable[[Log], None]) -> None:
        for log in tuple(self._logs):
            try:
                act(log)
            except Exception as error:  # a full disk, a network that is gone: whatever the library makes of it
                self._logs.remove(log)
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                self._say(f"{type(log).__name__} failed and is left out from now on: {reason}")


class TensorBoardLog:
    """Event files in a folder, written by TensorBoard's own thread."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Raises `ImportError` where there is no TensorBoard."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first_step, flush_secs=10)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WandbLog:
    """A run of Weights & Biases; `WANDB_MODE=offline` keeps it on this machine.

    Its curves are over our `step`, not over wandb's own counter, which can't go back to where a run is resumed.
    """

    def __init__(self, config: LogConfig, resume: bool) -> None:
        """Raises `LogError` where wandb refuses."""
        try:
            wandb: Any = importlib.import_module("wandb")

            self._image = wandb.Image
            self._run = wandb.init(
                project=config.wandb,
                name=config.name or None,
                id=_run_id(config.folder / WANDB_ID, resume),
                resume="allow",
                dir=str(config.folder),
                config=dict(config.about),
            )
        except Exception as error:  # wandb's classes of errors differ between its versions
            raise LogError(f"wandb refuses to start: {' '.join(str(error).split())[:200]}") from error
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        self._run.log({"step": step, name: self._image(image)})

    def close(self) -> None:
        self._run.finish()


def _run_id(path: Path, resume: bool) -> str:
    """The id that the run before had if this one goes on with it, else a new one, which is kept."""
    if resume and path.is_file() and (known := path.read_text(encoding="utf-8").strip()):
        return known
    made = secrets.token_hex(4)
    path.write_text(made, encoding="utf-8")
    return made
