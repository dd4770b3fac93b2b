"""What every training run has, whatever it trains: data, pyramid, randomness, time, steps, saving and going on.

A trainer of another kind of model is a subclass, and an entry of `training/backends.py`.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.dataset import Dataset
from ..data.pyramid import ImagePyramid
from ..models.backends import Model
from ..models.checkpoint import Checkpoint, camera_to_entry, save_checkpoint
from .config import SCALES, StepRecord, TrainerConfig
from .resume import restore_state, resume_path, save_state
from .shards import Shard, own_images, ray_seed
from .team import Team

M = TypeVar("M", bound=Model)


def scene_of(data: Dataset, color_space: str = "linear") -> dict[str, Any]:
    """The checkpoint's `scene`: where and how big, and the cameras it was seen from."""
    cameras = [camera_to_entry(name, camera) for name, camera in zip(data.names, data.cameras, strict=True)]
    kept = {key: data.scene[key] for key in ("up", "unit", "aabb", "transform") if key in data.scene}
    return {**kept, "cameras": cameras, "color_space": color_space, "background": [0.62, 0.74, 0.87]}


class BaseTrainer(ABC, Generic[M]):
    """One training run: `train()`, or `step()` as often as wanted, then `save(path)` or `checkpoint()`."""

    def __init__(
        self, model: M, train_set: Dataset, config: TrainerConfig, team: Team | None = None,
        shard: Shard | None = None, color_space: str = "linear",
    ) -> None:  # fmt: skip
        """`team`: the processes that train replicas of this model; None: this one alone. `shard`: the images that this
        one draws from; None: its share among the team's. `color_space`: of the pixels that are trained on."""
        self.config, self.data, self.model, self.team = config, train_set, model, team or Team()
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        with self.team.together():
            self.shard = shard or own_images(train_set, self.team.rank, self.team.size)
            self.pyramid = ImagePyramid.load(
                self.shard.data, SCALES, config.downscale, color_space, config.image_bytes, config.seed,
                regions=self.shard.regions,
            )  # fmt: skip
        self.steps_done: int = 0
        self.fraction = 0.0  # of the run, at the step that is being taken
        self.n_rays = 512  # of the next step
        self.running_mse = 0.1
        self.validation_pixels: int | None = None  # that held-out views may have together; None: as many as they have
        self.part = "whole"  # of the tree that this trains; a state is resumed by the same
        self.stopped = False  # `train` ended before the run was over
        self.seconds, self.seconds_before, self.rays = 0.0, 0.0, 0  # of the run; before this process; drawn by it

    @abstractmethod
    def step(self, fraction: float | None = None) -> StepRecord:
        """One optimiser step, at `fraction` of the whole run; None: as far as the config's `steps` or `minutes` are."""

    def begin_step(self, fraction: float | None) -> float:
        """How far the run is at the step that begins, as `step` was told or by the config; kept in `fraction`."""
        self.fraction = self.config.fraction(self.steps_done, self.seconds) if fraction is None else fraction
        return self.fraction

    @abstractmethod
    def checkpoint(self) -> Checkpoint:
        """What is saved. Changes nothing of the run."""

    @abstractmethod
    def summary(self) -> str:
        """What is trained, in words for a person; `run.train` says it before the first step."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What the next step depends on besides what this class has: plain data and tensors."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave. Raises `KeyError`, `TypeError`, `ValueError` for what is none."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What else than seed, images and their size must be the same in two runs for the state of one to mean anything
        to the other: plain data, the model's config among it."""

    def numbers(self, record: StepRecord) -> dict[str, float]:
        """More curves for the logs."""
        return {}

    def pictures(self, title: str) -> Mapping[str, NDArray[np.uint8]]:
        """Pictures of the model for the logs: name -> [H, W, 3] sRGB."""
        return {}

    def collect(self) -> None:
        """Moves what the ranks have counted to rank 0, before it saves."""

    def seed_rays(self) -> None:
        """In a team: other rays on every rank in this step, and nothing of them to be saved for resuming."""
        if self.team.size > 1:
            self.generator.manual_seed(ray_seed(self.config.seed, self.team.rank, self.steps_done))

    @property
    def rays_per_second(self) -> float:
        """Since this process began."""
        return self.rays / max(self.seconds - self.seconds_before, 1e-9)

    def train(
        self, watch: Callable[[StepRecord], None] = lambda _: None, stop: Callable[[], bool] = lambda: False
    ) -> M:
        """Steps until `steps` or `minutes` are over or `stop()` is true; `watch` sees every step. Returns the model.

        May be called again to go on. Raises `ValueError` if the config has neither `steps` nor `minutes`.
        """
        if self.config.steps is None and self.config.minutes is None:
            raise ValueError("Trainer.train: config.steps or config.minutes must be set, got neither")
        began = time.monotonic() - self.seconds
        self.seconds_before, self.rays = self.seconds, 0
        while True:
            fraction, stopped = self.team.pulse(self.config.fraction(self.steps_done, self.seconds), stop())
            if fraction >= 1 or stopped:
                self.stopped = fraction < 1
                break
            record = self.step(fraction)
            self.seconds = time.monotonic() - began
            self.rays += record.rays
            watch(record)
        return self.model

    def save(self, path: str | os.PathLike[str]) -> Checkpoint:
        """Writes what `resume` goes on from (`path` + ".resume"), then the checkpoint, which it returns; each whole or
        not at all. Raises `CheckpointError` or `CommandError` where that fails."""
        checkpoint = self.checkpoint()
        save_state(self, resume_path(Path(path)))  # first: a checkpoint without a state could not be gone on with
        save_checkpoint(checkpoint, path)
        return checkpoint

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Goes on with the run that `save(path)` left: same model config, data and trainer config, bit for bit.

        Raises `DatasetError` for a file that is missing, damaged or of another run.
        """
        restore_state(self, resume_path(Path(path)))
