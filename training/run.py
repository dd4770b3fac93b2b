"""A training run from files to files: `infnerf train`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ..data.dataset import Dataset, DatasetError, load_dataset
from ..data.images import has_alpha
from ..models.backends import ModelConfig
from .backends import BACKENDS
from .base import BaseTrainer
from .config import StepRecord, TrainerConfig
from .evaluate import View
from .logs import LogConfig, check_logs, open_logs
from .team import LostRank, Team
from .validation import held_out
from .watch import Watch


@contextlib.contextmanager
def interruptible(team: Team) -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C into a flag, so that a step is never cut in half; a second one interrupts as usual.

    In a team also the signals by which torchrun ends its processes, however often they come: it kills after 30 s.
    """
    pressed = False
    signals = (signal.SIGINT, signal.SIGTERM) if team.size > 1 else (signal.SIGINT,)

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        if team.size == 1:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in signals}
    try:
        yield lambda: pressed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wants_background(data: Dataset) -> bool:
    """Whether what lies around the scene is in its images: photographs show it, cut-out renderings do not."""
    return not any(has_alpha(path) for path in data.images)


def open_data(
    data: Path,
    out: Path,
    background: bool | None,
    team: Team,
    say: Callable[[str], None],
    logs: LogConfig | None = None,
) -> tuple[Dataset, bool]:
    """The training split, and whether the model is to know of what lies around. Raises as `train` does."""
    with team.together():
        if not out.parent.is_dir():
            raise DatasetError(f"--out {out}: there is no folder {out.parent}")
        if logs is not None:
            check_logs(logs)
        train_set = load_dataset(data)
        background = wants_background(train_set) if background is None else background
    for warning in train_set.warnings:
        say(warning)
    return train_set, background


def train(
    data: Path,  # a capture in any known format
    out: Path,  # the checkpoint to write
    config: TrainerConfig,
    model: ModelConfig | None = None,  # the backend's; None: its default
    background: bool | None = None,  # None: if the images are opaque
    resume: bool = False,  # go on with the run that wrote `out`
    report: Callable[[StepRecord], None] = lambda _: None,
    say: Callable[[str], None] = print,
    team: Team | None = None,  # the processes that call this together; None: this one alone
    *,
    save_minutes: float = 5.0,  # between two checkpoints
    logs: LogConfig | None = None,  # None: no logs
    backend: str = "infnerf",  # one of BACKENDS
) -> BaseTrainer[Any]:
    """Runs until `steps` or `minutes` are over or Ctrl-C is pressed, then writes `out`; also every `save_minutes`.

    The best checkpoint so far lies beside it (`watch.best_path`). Bad input raises `DatasetError`, a log that can't be
    had `LogError`. Of a team rank 0 alone speaks, logs and writes; there a failure raises `CommandError` on rank 0, and
    a process that is lost `LostRank`, after `out` was written once more.
    """
    team = team or Team()
    if not team.leads:
        report, say, logs = (lambda _: None), (lambda _: None), None
    kind = BACKENDS[backend]
    train_set, background = open_data(data, out, background, team, say, logs)
    trainer = kind.make(kind.shaped(model, background), train_set, config, team)
    ranks = f"{team.size} ranks, {len(trainer.shard.images)} images on this one; " if team.size > 1 else ""
    say(f"{len(train_set)} images, {ranks}{trainer.summary()}")
    with team.together():
        if resume:
            trainer.resume(out)
        views = _held_out(data, trainer, say) if team.leads else []
        log = open_logs(logs, trainer.steps_done + 1, resume, say) if logs is not None else None
    team.stage = "training"
    try:
        watch = Watch(trainer, out, views, log, save_minutes, report, resume)
        with interruptible(team) as interrupted:
            try:
                trainer.train(watch, interrupted)
                watch.save(last=True)
            except LostRank as error:
                leave(trainer, out, error)
    finally:
        if log is not None:
            log.close()
    how = "stopped" if trainer.stopped else "finished"
    say(f"{how} after {trainer.steps_done} steps: wrote {out}{watch.verdict()}")
    return trainer


def leave(trainer: BaseTrainer[Any], out: Path, error: LostRank) -> NoReturn:
    """After another rank was lost: the first of those that are left writes what it has and raises, the others exit."""
    if not trainer.team.takes_over():
        raise SystemExit(1) from error
    trainer.save(out)
    raise LostRank(f"{error} after step {trainer.steps_done}: wrote {out}, --resume goes on from there") from None


def _held_out(data: Path, trainer: BaseTrainer[Any], say: Callable[[str], None]) -> list[View]:
    try:
        return held_out(data, trainer.model.scene, trainer.config.downscale, trainer.validation_pixels)
    except DatasetError as error:
        say(f"no validation, the best checkpoint is told by training PSNR: {error}")
        return []
