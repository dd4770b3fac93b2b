"""What a run keeps and tells while it goes on: checkpoints every few minutes, the best of them, logs, progress.

Order of writing, so that a kill between any two files harms nothing: first the state that `--resume` needs, then the
checkpoint, then the best. Each is renamed over the old one when it is whole. Whichever state is found, the run from
there is the same run: a checkpoint that is newer or older than it is written again on the way.
"""

from __future__ import annotations

import contextlib
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..models.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from .base import BaseTrainer
from .config import StepRecord
from .evaluate import View
from .logs import Log
from .losses import psnr
from .validation import validate

SCALARS_EVERY = 20  # steps
PICTURES_EVERY_S = 240.0  # s between pictures in the logs, at least


def best_path(out: Path) -> Path:
    """Where the best checkpoint of the run that writes `out` lies.

    >>> best_path(Path("runs/city.pth")).name
    'city.best.pth'
    """
    return out.with_name(f"{out.stem}.best{out.suffix}")


class Watch:
    """Call it with every `StepRecord`; `save` once more when the run is over."""

    def __init__(
        self,
        trainer: BaseTrainer[Any],
        out: Path,
        views: Sequence[View],  # held out; none: the best is told by the running PSNR of training rays
        log: Log | None,
        save_minutes: float,
        report: Callable[[StepRecord], None],
        resumed: bool,
    ) -> None:
        self.trainer, self.out, self.views, self.log = trainer, out, views, log
        self.report, self.save_s = report, 60 * save_minutes
        self.measure = "validation" if views else "training"
        self.validation: float | None = None  # dB, of the last checkpoint
        self.best, self.best_step = known_best(out, self.measure) if resumed else (None, 0)
        self._fresh = not resumed
        self._saved, self._pictured = time.monotonic(), -PICTURES_EVERY_S
        if trainer.team.leads:
            remove_leftovers(out)

    def __call__(self, record: StepRecord) -> None:
        """Reports, logs now and then, and saves when it is time."""
        self.report(replace(record, validation=self.validation))
        if self.log is not None and (record.step % SCALARS_EVERY == 0 or record.step == 1):
            self.log.scalars(record.step, self._numbers(record))
        if self.trainer.team.decides(time.monotonic() - self._saved > self.save_s):
            self.save()

    def save(self, last: bool = False) -> None:
        """Writes state, checkpoint and, when it is the best so far, the best; `last`: with pictures in any case. To be
        called on every rank of a team; rank 0 writes."""
        self.trainer.collect()
        if not self.trainer.team.leads:
            return
        if self._fresh:  # of an earlier run, with whose figures this one must not be compared
            best_path(self.out).unlink(missing_ok=True)
            self._fresh = False
        checkpoint = self.trainer.save(self.out)
        score = self._validate(checkpoint, last)
        if self.best is None or score > self.best:
            self.best, self.best_step = score, self.trainer.steps_done
            assert checkpoint.training is not None
            best = {"best_psnr": score, "best_by": self.measure}
            save_checkpoint(replace(checkpoint, training=checkpoint.training | best), best_path(self.out))
        self._saved = time.monotonic()

    def _validate(self, checkpoint: Checkpoint, last: bool) -> float:
        """What the checkpoint is judged by, dB; also logs it."""
        step, log = self.trainer.steps_done, self.log
        pictures = log is not None and (last or time.monotonic() - self._pictured > PICTURES_EVERY_S)
        if log is not None and pictures:
            self._pictured = time.monotonic()
            for name, picture in self.trainer.pictures(f"{self.out.name}, step {step}").items():
                log.image(step, name, picture)
        if not self.views:
            return psnr(self.trainer.running_mse)
        score = validate(self.views, checkpoint, pictures)
        self.validation = score.psnr
        if log is not None:
            ssim = {} if score.ssim is None else {"validation/ssim": score.ssim}
            log.scalars(step, {"validation/psnr": score.psnr, **ssim})
            for name, picture in score.pictures.items():
                log.image(step, name, picture)
        return score.psnr

    def _numbers(self, record: StepRecord) -> dict[str, float]:
        """The scalars of a step."""
        return {
            "loss/total": record.loss,
            **{f"loss/{name}": value for name, value in record.parts.items()},
            "train/psnr": record.psnr,
            "train/rays": record.rays,
            "train/samples": record.samples,
            "train/rays_per_second": record.rays_per_second,
            "train/memory_MiB": resident_bytes() / 2**20,
            **self.trainer.numbers(record),
        }

    def verdict(self) -> str:
        """The best checkpoint, in words."""
        if self.best is None:
            return ""
        by = "validation PSNR" if self.views else "running PSNR of training rays"
        return f"; the best by {by} ({self.best:.2f} dB at step {self.best_step}) is {best_path(self.out)}"


def known_best(out: Path, measure: str) -> tuple[float | None, int]:
    """Score and step of the best checkpoint that lies beside `out`; None if it has none by this measure."""
    try:
        notes = load_checkpoint(best_path(out)).training or {}
    except CheckpointError:
        return None, 0
    score, step = notes.get("best_psnr"), notes.get("step")
    if notes.get("best_by") != measure or not isinstance(score, float) or not isinstance(step, int):
        return None, 0
    return score, step


def remove_leftovers(out: Path) -> None:
    """Deletes the half-written files of a run that was killed while it saved `out`."""
    names = "|".join(re.escape(name) for name in (f"{out.name}.", f"{best_path(out).name}."))
    ours = re.compile(rf"\.({names})[0-9a-f]{{8}}\.(tmp|resume)")
    for path in out.parent.iterdir():
        if ours.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def resident_bytes() -> int:
    """Memory that this process has in use; where the system does not say, the most it ever had."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
