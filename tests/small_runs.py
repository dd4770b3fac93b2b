"""Models and training runs small enough for tests, on the fixture `city` (conftest.py)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from infnerf.data.dataset import load_dataset
from infnerf.models.checkpoint import load_checkpoint
from infnerf.models.config import InfNeRFConfig
from infnerf.models.infnerf import InfNeRF
from infnerf.training import point_prior
from infnerf.training.config import TrainerConfig
from infnerf.training.run import train
from infnerf.training.trainer import Trainer

SMALL = InfNeRFConfig(
    n_grid_levels=3, table_size=256, base_resolution=4, resolution=16, hidden_dim=16, occupancy_resolution=8
)


def config(**changes: object) -> TrainerConfig:
    base = TrainerConfig(samples_per_step=1 << 12, max_bytes=400_000, steps=40)
    return replace(base, **changes)  # type: ignore[arg-type]


def trainer_of(city: Path, **changes: object) -> Trainer:
    return Trainer(InfNeRF(SMALL), load_dataset(city), config(**changes))


@dataclass
class CutShort(TrainerConfig):
    """A run of `planned` steps that ends after `steps`, as one does that is killed."""

    planned: int = 0

    def fraction(self, steps_done: int, seconds: float) -> float:
        return 1.0 if steps_done >= (self.steps or 0) else steps_done / self.planned


def run(city: Path, out: Path, steps: int, planned: int | None = None, **options: object) -> Trainer:
    """Trains `steps` of a run of `planned` steps, from files to files. `options` are those of `train`."""
    shape = CutShort(samples_per_step=1 << 12, max_bytes=400_000, steps=steps, planned=planned or steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(point_prior, "FINEST", 64)  # 256 takes most of a second
        return train(city, out, shape, SMALL, **({"say": lambda _: None} | options))  # type: ignore[arg-type]


def same(a: Path, b: Path) -> bool:
    """Whether two checkpoints are of the same model, bit for bit."""
    one, other = load_checkpoint(a).field, load_checkpoint(b).field
    return all(torch.equal(one[name], other[name]) for name in ("tables", "mlp", "occupancy"))
