"""The models that a checkpoint may hold, by its `backend`: what its file must contain, and what is built from it.

A model of another kind is one more entry of `FORMATS` and one of `model_of`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from .capacity import row_numbers, stored_shapes
from .checks import Refusal
from .config import InfNeRFConfig
from .mipnerf_config import MipNeRFConfig
from .octree import Octree
from .pynerf_config import PyNeRFConfig

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

TITLES = {"infnerf": "InfNeRF", "pynerf": "PyNeRF", "mipnerf": "mip-NeRF"}  # as people write them
#: Of each tensor of a checkpoint's `field`: its shape and type.
Stored = dict[str, tuple[tuple[int, ...], torch.dtype]]


class ModelConfig(Protocol):
    """Every number that a model needs, validated when made."""

    def to_dict(self) -> dict[str, Any]:
        """Numbers, flags, words and lists of numbers, as a checkpoint stores them."""
        ...


class Model(Protocol):
    """What rendering and the viewer need of any model; executors know the kinds that they render."""

    @property
    def octree(self) -> Octree:
        """Where it lies; a model without levels is a lone root around its scene."""
        ...

    @property
    def scene(self) -> dict[str, Any]: ...  # the checkpoint's

    @property
    def n_parameters(self) -> int: ...

    @property
    def level_parameters(self) -> list[int]: ...  # of one node, per level

    @property
    def level_bytes(self) -> list[int]: ...  # of one node in a checkpoint, per level

    @property
    def learns(self) -> bool: ...  # whether its parameters may have changed since they were last looked at

    def gsd(self, level: Tensor | int) -> Tensor:
        """Ground sampling distance at a level, world units, float64."""
        ...


@dataclass(frozen=True)
class Format:
    """What a backend's checkpoint holds besides what all do."""

    config: Callable[[dict[str, Any]], Any]  # raises `ValueError` with one sentence
    tensors: Callable[[Any, Octree], Stored]  # of `field`, by config and octree; raises `Refusal`
    #: Config, octree, tensor, flat index -> where that number is, in words.
    place: Callable[[Any, Octree, str, int], str]


def _infnerf_tensors(config: InfNeRFConfig, octree: Octree) -> Stored:
    shapes = stored_shapes(config, octree)
    return {
        "tables": (shapes["tables"], torch.float16),
        "mlp": (shapes["mlp"], torch.float16),
        "occupancy": ((octree.n_nodes, config.occupancy_words), torch.int32),
    }


def _infnerf_place(config: InfNeRFConfig, octree: Octree, key: str, index: int) -> str:
    first = 0
    for count, size in zip(octree.level_counts(), row_numbers(config, octree.depth)[key], strict=True):
        if index < count * size:
            return f"node {first + index // size}"
        first, index = first + count, index - count * size
    raise IndexError(f"{key} has no number {index} behind its last node")


def _pynerf_tensors(config: PyNeRFConfig, octree: Octree) -> Stored:
    from .pynerf import mlp_size, tables_shape

    if octree.n_nodes != 1:
        raise Refusal(f"octree must be a lone root for a PyNeRF, got {octree.n_nodes} nodes")
    return {
        "tables": (tables_shape(config), torch.float16),
        "mlp": ((mlp_size(config),), torch.float16),
        "occupancy": ((1, config.occupancy_words), torch.int32),
        "trained": ((2, config.trained_resolution**3), torch.uint8),
    }


def _pynerf_place(config: PyNeRFConfig, octree: Octree, key: str, index: int) -> str:
    from .pynerf import grid_starts

    if key != "tables":
        return f"number {index}"
    starts = grid_starts(config)[0]
    entry = index // config.features_per_level
    head, grid = divmod(int((starts * (starts <= entry)).argmax()), config.n_grid_levels)
    return f"grid {grid} of level {head}"


def _mipnerf_tensors(config: MipNeRFConfig, octree: Octree) -> Stored:
    if octree.n_nodes != 1:
        raise Refusal(f"octree of a mip-NeRF must be a lone root, got {octree.n_nodes} nodes")
    return {name: (shape, torch.float32) for name, shape in config.tensor_shapes.items()}


FORMATS: dict[str, Format] = {
    "infnerf": Format(InfNeRFConfig.from_dict, _infnerf_tensors, _infnerf_place),
    "pynerf": Format(PyNeRFConfig.from_dict, _pynerf_tensors, _pynerf_place),
    "mipnerf": Format(MipNeRFConfig.from_dict, _mipnerf_tensors, lambda config, octree, key, index: f"number {index}"),
}


def model_of(checkpoint: Checkpoint) -> Model:
    """The model of a checkpoint, whichever its backend; its tensors stay mapped to the file where they can."""
    from .infnerf import InfNeRF
    from .mipnerf import MipNeRF
    from .pynerf import PyNeRF

    kinds = {"infnerf": InfNeRF, "pynerf": PyNeRF, "mipnerf": MipNeRF}
    return kinds[checkpoint.backend].from_checkpoint(checkpoint)


def load_model(path: str | os.PathLike[str]) -> Model:
    """The model of a file. Raises `CheckpointError`."""
    from .checkpoint import load_checkpoint

    return model_of(load_checkpoint(path))
