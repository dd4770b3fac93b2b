"""A training run from files to files: `infnerf train`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

from ..data.dataset import Dataset, DatasetError, load_dataset
from ..data.images import has_alpha
from ..models.config import InfNeRFConfig
from ..models.infnerf import InfNeRF
from .config import StepRecord, TrainerConfig
from .evaluate import View
from .logs import LogConfig, check_logs, open_logs
from .resume import restore_state, resume_path
from .trainer import Trainer
from .validation import held_out
from .watch import Watch


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C into a flag, so that a step is never cut in half; a second one interrupts as usual."""
    pressed = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def wants_background(data: Dataset) -> bool:
    """Whether what lies around the scene is in its images: photographs show it, cut-out renderings do not."""
    return not any(has_alpha(path) for path in data.images)


def train(
    data: Path,  # a capture in any known format
    out: Path,  # the checkpoint to write
    config: TrainerConfig,
    model: InfNeRFConfig | None = None,
    background: bool | None = None,  # None: if the images are opaque
    resume: bool = False,  # go on with the run that wrote `out`
    report: Callable[[StepRecord], None] = lambda _: None,
    say: Callable[[str], None] = print,
    *,
    save_minutes: float = 5.0,  # between two checkpoints
    logs: LogConfig | None = None,  # None: no logs
) -> Trainer:
    """Runs until `steps` or `minutes` are over or Ctrl-C is pressed, then writes `out`; also every `save_minutes`.

    The best checkpoint so far lies beside it (`watch.best_path`). Bad input raises `DatasetError`, a log that can't be
    had `LogError`.
    """
    if not out.parent.is_dir():
        raise DatasetError(f"--out {out}: there is no folder {out.parent}")
    if logs is not None:
        check_logs(logs)
    train_set = load_dataset(data)
    for warning in train_set.warnings:
        say(warning)
    background = wants_background(train_set) if background is None else background
    shape = replace(model or InfNeRFConfig(), background=background)
    trainer = Trainer(InfNeRF(shape, seed=config.seed), train_set, config)
    say(
        f"{len(train_set)} images, {trainer.model.octree.n_nodes} nodes on levels "
        f"{trainer.model.octree.level_counts()}, {trainer.model.n_parameters / 1e6:.1f} M parameters; "
        f"{'a background; ' * background}{trainer.sampling_name}; {trainer.prior}"
    )
    if resume:
        restore_state(trainer, resume_path(out))
    views = _held_out(data, trainer, say)
    log = open_logs(logs, trainer.steps_done + 1, resume, say) if logs is not None else None
    try:
        watch = Watch(trainer, out, views, log, save_minutes, report, resume)
        with interruptible() as interrupted:
            trainer.train(watch, interrupted)
            stopped = interrupted()
        watch.save(last=True)
    finally:
        if log is not None:
            log.close()
    say(f"{'stopped' if stopped else 'finished'} after {trainer.steps_done} steps: wrote {out}{watch.verdict()}")
    return trainer


def _held_out(data: Path, trainer: Trainer, say: Callable[[str], None]) -> list[View]:
    try:
        return held_out(data, trainer.model.scene, trainer.config.downscale)
    except DatasetError as error:
        say(f"no validation, the best checkpoint is told by training PSNR: {error}")
        return []
