"""Mip-NeRFs that others trained: the state dict of the public PyTorch re-implementation, as a checkpoint of ours.

Its modules are `density_net0.{0, 2, 4, 6}`, `density_net1.{0, 2, 4, 6}`, `final_density.0`, `rgb_net0.0`, `rgb_net1.0`,
`final_rgb.0` and `positional_encoding.scales`, `viewdirs_encoding.scales`; a network without view directions lacks
`rgb_net*` and `viewdirs_encoding`. Depths, widths and degrees follow from the shapes; nothing else is in the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models.checkpoint import CheckpointError, inspect_container
from ..models.checks import Refusal, found, short
from ..models.mipnerf import MipNeRF
from ..models.mipnerf_config import IDENTITY, MipNeRFConfig

LAYER = re.compile(r"(density_net[01])\.(\d{1,3})\.weight")
MAX_SCALES = 40
CHECKED = 1 << 28  # numbers of a tensor: more is no mip-NeRF


@dataclass(frozen=True)
class Placement:
    """What a state dict does not tell; the defaults are those of the published Blender scenes."""

    near: float = 2.0  # model units
    far: float = 6.0
    ray_shape: str = "cone"
    disparity: bool = False
    num_samples: int | None = None  # None: as many as the view branch is wide (so the public code makes it), else 128
    background: tuple[float, ...] = (1.0, 1.0, 1.0)
    color_space: str = "srgb"  # of the images it was trained on
    placement: tuple[float, ...] = IDENTITY  # world -> model, [3, 4] row by row
    box: tuple[float, ...] | None = None  # what there is to see: minimum, maximum, world; None: (far - near) / 2 around


def import_mipnerf(path: Path, told: Placement | None = None) -> MipNeRF:
    """The model in a file. Nothing of it is ever executed.

    Raises `CheckpointError` for whatever is not such a state dict, and for numbers in `told` that make no model.
    """
    try:
        inspect_container(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Refusal as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # a damaged file fails anywhere in zipfile, pickle or torch, with any class of exception
        raise CheckpointError(f"{path}: not a readable state dict, damaged or cut short ({short(error)})") from error
    try:
        return _model(_tensors(values), told or Placement())
    except (Refusal, ValueError) as error:
        raise CheckpointError(f"{path}: {short(error)}") from None


def _tensors(values: Any) -> dict[str, Tensor]:
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise Refusal(f"expected the state dict of a mip-NeRF, got {found(values)}")
    if "density_net0.0.weight" not in values:
        names = ", ".join(sorted(values)[:4])
        raise Refusal(f"expected the state dict of a mip-NeRF (density_net0.0.weight, ...), got one of {names}")
    for name, value in values.items():
        if type(value) is not Tensor or value.layout != torch.strided or value.numel() > CHECKED:
            raise Refusal(f"{name} must be a dense tensor, got {found(value)}")
        if not torch.isfinite(value).all():
            raise Refusal(f"{name} must be finite, got NaN or infinity")
    return values


def _model(state: dict[str, Tensor], told: Placement) -> MipNeRF:
    names = _layer_names(state)
    min_deg, max_deg = _degrees(state, "positional_encoding.scales")
    viewed = "rgb_net1.0.weight" in state
    view_degrees = _degrees(state, "viewdirs_encoding.scales") if viewed else (0, 4)
    view_width = _rows(state, "rgb_net1.0.weight") if viewed else 128
    config = MipNeRFConfig(
        float(told.near), float(told.far), told.placement, told.ray_shape, told.disparity,
        told.num_samples or view_width, net_depth=len(names["density_net0"]) + len(names["density_net1"]),
        net_width=_rows(state, "density_net0.0.weight"), skip_layer=len(names["density_net0"]), view_width=view_width,
        use_viewdirs=viewed, min_deg=min_deg, max_deg=max_deg, view_min_deg=view_degrees[0],
        view_max_deg=view_degrees[1],
    )  # fmt: skip
    trunk = [*names["density_net0"], *names["density_net1"]]
    homes = {f"trunk{i}": name for i, name in enumerate(trunk)} | {"density": "final_density.0", "color": "final_rgb.0"}
    if viewed:
        homes |= {"bottleneck": "rgb_net0.0", "view": "rgb_net1.0"}
    known = {f"{home}.{part}" for home in homes.values() for part in ("weight", "bias")}
    known |= {"positional_encoding.scales", *(["viewdirs_encoding.scales"] if viewed else [])}
    if unknown := sorted(set(state) - known):
        raise Refusal(f"expected the state dict of a mip-NeRF, got unknown {', '.join(unknown)}")
    weights = {}
    for name, shape in config.tensor_shapes.items():
        layer, _, part = name.rpartition("_")
        home = f"{homes[layer]}.{part}"
        if home not in state or tuple(state[home].shape) != shape or not state[home].is_floating_point():
            raise Refusal(f"{home} must be a float tensor {list(shape)}, got {found(state.get(home))}")
        weights[name] = state[home].float().contiguous()
    scene: dict[str, Any] = {
        "background": [float(x) for x in told.background],
        "color_space": told.color_space,
        "transform": np.eye(4).tolist(),  # it knows its capture's own coordinates, and so the data set has to be read
    }
    if told.box is not None:
        scene["aabb"] = [list(map(float, told.box[:3])), list(map(float, told.box[3:]))]
    return MipNeRF(config, weights, scene)


def _layer_names(state: dict[str, Tensor]) -> dict[str, list[str]]:
    """Of both halves of the trunk, the names of their layers: every other number, ReLUs being in between."""
    numbers: dict[str, list[int]] = {"density_net0": [], "density_net1": []}
    for name in state:
        if match := LAYER.fullmatch(name):
            numbers[match[1]].append(int(match[2]))
    for half, found_numbers in numbers.items():
        expected = list(range(0, 2 * len(found_numbers), 2))
        if not expected or sorted(found_numbers) != expected:
            raise Refusal(f"{half} must have layers 0, 2, 4, ..., got {sorted(found_numbers)[:40]}")
    return {half: [f"{half}.{i}" for i in sorted(of_half)] for half, of_half in numbers.items()}


def _rows(state: dict[str, Tensor], name: str) -> int:
    if state[name].dim() != 2:
        raise Refusal(f"{name} must be a matrix, got {found(state[name])}")
    return state[name].shape[0]


def _degrees(state: dict[str, Tensor], name: str) -> tuple[int, int]:
    """The first degree and the one behind the last of scales 2**k."""
    scales = state.get(name)
    if scales is None or scales.dim() != 1 or not 1 <= len(scales) <= MAX_SCALES:
        raise Refusal(f"{name} must be a list of 1 to {MAX_SCALES} powers of two, got {found(scales)}")
    degrees = torch.log2(scales.double())
    first = degrees[0]
    if not torch.equal(degrees, first + torch.arange(len(degrees))) or first != first.round():
        raise Refusal(f"{name} must be powers of two, each twice the one before, got {scales.tolist()}")
    return int(first), int(first) + len(degrees)
