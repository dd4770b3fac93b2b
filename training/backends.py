"""The kinds of model that `infnerf train --backend` trains, and what a person may set of each by name.

Another kind is one more entry of `BACKENDS`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from ..data.dataset import Dataset
from ..models.config import InfNeRFConfig
from ..models.mipnerf_config import MipNeRFConfig
from ..models.pynerf_config import PyNeRFConfig
from .base import BaseTrainer
from .config import TrainerConfig
from .mip_trainer import MipNeRFTrainer, MipTrainerConfig
from .pynerf_trainer import PyNeRFTrainerConfig, make_trainer
from .team import Team

#: Options of `infnerf train` that InfNeRF has and another backend may lack.
OPTIONS = (
    "max_depth", "table_size", "level_table_sizes", "level_hidden_dims", "grid_levels", "resolution", "max_megabytes",
    "background", "prune", "loss", "rgb_loss", "appearance_dim", "parallel", "subtree_level", "shared_fraction",
    "device",
)  # fmt: skip


@dataclass(frozen=True)
class Backend:
    """One kind of model, and how it is trained."""

    shape: type[Any]  # its config: a dataclass of defaults; one with a field `background` learns it from the data
    config: type[TrainerConfig]  # of a run; fields of its own may be set by name
    make: Callable[[Any, Dataset, TrainerConfig, Team], BaseTrainer[Any]]  # shape, images, run, processes
    options: frozenset[str] = frozenset()  # those of OPTIONS that it takes

    def shaped(self, shape: Any, background: bool) -> Any:
        """The model's config for images that show a background or don't; None for `shape`: the default."""
        shape = shape or self.shape()
        return replace(shape, background=background) if hasattr(shape, "background") else shape

    def parse(self, words: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """`NAME=VALUE` words as arguments of `shape` and of `config`. Raises `ValueError` with one sentence.

        >>> BACKENDS["infnerf"].parse(["geo_dim=7", "level_hidden_dims=32,16"])
        ({'geo_dim': 7, 'level_hidden_dims': (32, 16)}, {})
        """
        base = {field.name for field in fields(TrainerConfig)}
        parts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        known = (_kinds(self.shape), {k: v for k, v in _kinds(self.config).items() if k not in base})
        for word in words:
            name, equals, value = word.partition("=")
            place = next((i for i, kinds in enumerate(known) if name in kinds), None)
            if not equals or place is None:
                names = ", ".join([*known[0], *known[1]])
                raise ValueError(f"expected NAME=VALUE with NAME one of {names}, got {word!r}")
            parts[place][name] = _value(name, value, known[place][name])
        return parts


def _kinds(config: type[Any]) -> dict[str, Any]:
    """Name -> type of the fields of a dataclass that a word can say."""
    hints = typing.get_type_hints(config)
    plain = {field.name: hints[field.name] for field in fields(config) if field.default is not MISSING}
    return {name: kind for name, kind in plain.items() if name != "background"}


def _value(name: str, text: str, kind: Any) -> Any:
    """A word as a bool, int, float, str, a tuple of one of these between commas, or None where that is allowed."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if types.NoneType in options and text == "none":
        return None
    kind = next(option for option in options if option is not types.NoneType)
    try:
        if typing.get_origin(kind) is tuple:
            return tuple(_value(name, part, typing.get_args(kind)[0]) for part in text.split(",") if part)
        if kind is bool:
            return {"true": True, "false": False}[text]
        return kind(text) if kind in (int, float) else text
    except (KeyError, ValueError):
        words = {int: "a whole number", float: "a number", bool: "true or false"}
        raise ValueError(f"{name} takes {words[kind]}, got {text!r}") from None


def _infnerf(shape: InfNeRFConfig, data: Dataset, config: TrainerConfig, team: Team) -> BaseTrainer[Any]:
    from ..models.infnerf import InfNeRF
    from .trainer import Trainer

    return Trainer(InfNeRF(shape, seed=config.seed), data, config, team)


def _pynerf(shape: PyNeRFConfig, data: Dataset, config: TrainerConfig, team: Team) -> BaseTrainer[Any]:
    from ..models.pynerf import PyNeRF

    assert isinstance(config, PyNeRFTrainerConfig)
    return make_trainer(PyNeRF(shape, seed=config.seed), data, config, team)


def _mipnerf(shape: MipNeRFConfig, data: Dataset, config: TrainerConfig, team: Team) -> BaseTrainer[Any]:
    return MipNeRFTrainer.of(shape, data, config, team)


BACKENDS: dict[str, Backend] = {
    "infnerf": Backend(InfNeRFConfig, TrainerConfig, _infnerf, frozenset(OPTIONS)),
    "pynerf": Backend(PyNeRFConfig, PyNeRFTrainerConfig, _pynerf, frozenset({"background", "loss", "rgb_loss"})),
    "mipnerf": Backend(MipNeRFConfig, MipTrainerConfig, _mipnerf, frozenset({"device"})),
}
