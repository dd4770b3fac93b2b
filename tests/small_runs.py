"""A model and a training run small enough for tests, on the fixture `city` (conftest.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from infnerf.data.dataset import load_dataset
from infnerf.models.config import InfNeRFConfig
from infnerf.models.infnerf import InfNeRF
from infnerf.training.config import TrainerConfig
from infnerf.training.trainer import Trainer

SMALL = InfNeRFConfig(
    n_grid_levels=3, table_size=256, base_resolution=4, resolution=16, hidden_dim=16, occupancy_resolution=8
)


def config(**changes: object) -> TrainerConfig:
    base = TrainerConfig(samples_per_step=1 << 12, max_bytes=400_000, steps=40)
    return replace(base, **changes)  # type: ignore[arg-type]


def trainer_of(city: Path, **changes: object) -> Trainer:
    return Trainer(InfNeRF(SMALL), load_dataset(city), config(**changes))
