"""Making models: trainer, losses, and the `infnerf` command line."""

from typing import TYPE_CHECKING

from ..models.lazy import lazy_names

if TYPE_CHECKING:
    from .base import BaseTrainer as BaseTrainer
    from .config import StepRecord as StepRecord
    from .config import TrainerConfig as TrainerConfig
    from .losses import LossConfig as LossConfig
    from .losses import LossInputs as LossInputs
    from .mip_trainer import MipNeRFTrainer as MipNeRFTrainer
    from .mip_trainer import MipTrainerConfig as MipTrainerConfig
    from .optimizer import AdamConfig as AdamConfig
    from .pynerf_trainer import MultiScaleTrainer as MultiScaleTrainer
    from .pynerf_trainer import PyNeRFTrainer as PyNeRFTrainer
    from .pynerf_trainer import PyNeRFTrainerConfig as PyNeRFTrainerConfig
    from .trainer import Trainer as Trainer
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        base=("BaseTrainer",),
        config=("StepRecord", "TrainerConfig"),
        losses=("LossConfig", "LossInputs"),
        mip_trainer=("MipNeRFTrainer", "MipTrainerConfig"),
        optimizer=("AdamConfig",),
        pynerf_trainer=("MultiScaleTrainer", "PyNeRFTrainer", "PyNeRFTrainerConfig"),
        trainer=("Trainer",),
    )
