"""A training run from files to files: `infnerf train`."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

from ..data.dataset import Dataset, DatasetError, load_dataset
from ..data.images import has_alpha
from ..models.checkpoint import save_checkpoint
from ..models.config import InfNeRFConfig
from ..models.infnerf import InfNeRF
from .config import StepRecord, TrainerConfig
from .resume import restore_state, resume_path, save_state
from .trainer import Trainer

SAVE_EVERY_S = 300


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


def save(trainer: Trainer, out: Path) -> None:
    """Writes the checkpoint, and beside it what `--resume` goes on from."""
    save_checkpoint(trainer.checkpoint(), out)
    save_state(trainer, resume_path(out))


def train(
    data: Path,  # a capture in any known format
    out: Path,  # the checkpoint to write
    config: TrainerConfig,
    model: InfNeRFConfig | None = None,
    background: bool | None = None,  # None: if the images are opaque
    resume: bool = False,  # go on with the run that wrote `out`
    report: Callable[[StepRecord], None] = lambda _: None,
    say: Callable[[str], None] = print,
) -> Trainer:
    """Runs until `steps` or `minutes` are over or Ctrl-C is pressed, then writes `out`; also every SAVE_EVERY_S.

    Bad input raises `DatasetError`.
    """
    if not out.parent.is_dir():
        raise DatasetError(f"--out {out}: there is no folder {out.parent}")
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
    saved = time.monotonic()

    def watch(record: StepRecord) -> None:
        nonlocal saved
        report(record)
        if time.monotonic() - saved > SAVE_EVERY_S:
            save(trainer, out)
            saved = time.monotonic()

    with interruptible() as interrupted:
        trainer.train(watch, interrupted)
        stopped = interrupted()
    save(trainer, out)
    say(f"{'stopped' if stopped else 'finished'} after {trainer.steps_done} steps: wrote {out}")
    return trainer
