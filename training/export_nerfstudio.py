"""A PyNeRF as nerfstudio's PyNeRF plugin lays a run out: `infnerf convert --to nerfstudio model.pth OUT/`.

Names and shapes follow github.com/hturki/pynerf (its fields and models) and, within an encoding or an MLP, nerfstudio's
own torch implementations (`HashEncoding`, `MLP` with `implementation="torch"`): tiny-cuda-nn, which the plugin asks
for, has no biases and puts its grid points half a cell aside. `docs/checkpoint.md` says what that means, and what could
not be tried here.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models.checkpoint import Checkpoint, load_checkpoint
from ..models.occupancy import cube_cells, unpack_bits
from ..models.pynerf import PyNeRF
from ..models.pyramid import TRAINED_STEPS
from ..models.similarity import place_of, scale_of
from ..renderer.cliutil import CommandError, whole_file

SH = 16  # harmonics that the plugin feeds to its colour MLPs
PRIMES = (1, 2654435761, 805459861)
MODULE = "pynerf.models.pynerf_occupancy_model"


def export_nerfstudio(source: Path, out: Path) -> list[str]:
    """Writes config.yml, dataparser_transforms.json and nerfstudio_models/step-XXXXXXXXX.ckpt into the folder `out`.

    Returns sentences about what the layout can't hold. Raises `CheckpointError` for a file that is none, `CommandError`
    for a model of another kind.
    """
    checkpoint = load_checkpoint(source)
    if checkpoint.backend != "pynerf":
        raise CommandError(f"{source}: --to nerfstudio takes a PyNeRF, got a model of backend {checkpoint.backend}")
    model = PyNeRF.from_checkpoint(checkpoint)
    step = _step(checkpoint)
    state, notes = pipeline_state(model)
    (out / "nerfstudio_models").mkdir(parents=True, exist_ok=True)
    saved = {"step": step, "pipeline": state, "optimizers": {}, "schedulers": {}, "scalers": {}}
    _write(out / "nerfstudio_models" / f"step-{step:09d}.ckpt", lambda file: torch.save(saved, file))
    text = json.dumps(dataparser_transforms(model), indent=4)
    _write(out / "dataparser_transforms.json", lambda file: file.write(text.encode()))
    _write(out / "config.yml", lambda file: file.write(config_yaml(model, step).encode()))
    if model.scene["color_space"] == "linear":
        notes.append("colours are linear: what nerfstudio shows must be encoded to sRGB")
    return notes


def _write(path: Path, write: Callable[[Any], object]) -> None:
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _step(checkpoint: Checkpoint) -> int:
    step = (checkpoint.training or {}).get("step", 0)
    return step if isinstance(step, int) and 0 <= step < 10**9 else 0


def dataparser_transforms(model: PyNeRF) -> dict[str, Any]:
    """From the capture's coordinates to the cube [-1, 1] that is the root: `scale * (rotation @ x + translation)`."""
    told = place_of(model.scene)
    placed = np.eye(4) if told is None else told
    size = scale_of(placed)
    center = model.octree.corner[0].double().numpy() + model.octree.root_size / 2
    rotation, translation = placed[:3, :3] / size, (placed[:3, 3] - center) / size
    transform = np.concatenate([rotation, translation[:, None]], 1)
    return {"transform": transform.tolist(), "scale": size / model.unit}


def pipeline_state(model: PyNeRF) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict of a nerfstudio pipeline around the model, float32, and what it can't hold."""
    config = model.config
    state: dict[str, Tensor] = {"_model.device_indicator_param": torch.empty(0)}
    collisions = 0
    heads = [config.num_levels - 1] if config.share_grid else range(config.num_levels)
    for head in heads:
        name = "encoding" if config.share_grid else f"encodings.{head}"
        state[f"_model.field.{name}.hash_table"], lost = hash_table(model, head)
        collisions += lost
    for head in range(config.num_levels):
        layers = _layers(model, model.density_start(head), config.density_shapes(head))
        layers[-1][1][0] += config.density_shift + 1  # the plugin's density is exp(x - 1)
        _put(state, f"_model.field.mlp_bases.{head}", layers)
    colors = range(config.num_levels) if config.interpolation == "color" else (None,)
    for head in colors:
        layers = _layers(model, model.color_start(head or 0), config.color_shapes)
        layers[0] = _as_plugin(layers[0][0], config.geo_dim), layers[0][1]
        _put(state, "_model.field.mlp_head" if head is None else f"_model.field.mlp_heads.{head}", layers)
    state |= _trained(model) | _occupancy(model)
    notes = []
    if collisions:
        notes.append(f"{collisions} grid corners share an entry there that have their own here: they got the mean")
    return state, notes


def hash_table(model: PyNeRF, head: int) -> tuple[Tensor, int]:
    """A head's hash grids as nerfstudio's `HashEncoding` holds them, [grids * T, F]: every one hashed, also those that
    have an entry a corner here. And how many corners of these had to share."""
    config, size = model.config, model.config.hash_table_size
    starts, tables, shared = model.grid_starts[head], [], 0
    for grid in range(config.grid_counts[head]):
        resolution, start = config.grid_resolutions[grid], int(starts[grid])
        own = model.tables[start : start + config.grid_entries[grid]].detach().float()
        if (resolution + 1) ** 3 > size:
            tables.append(own)
            continue
        axis = torch.arange(resolution + 1)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        entry = ((x * PRIMES[0]) ^ (y * PRIMES[1]) ^ (z * PRIMES[2])).reshape(-1) % size
        count = torch.bincount(entry, minlength=size)
        table = torch.zeros(size, own.shape[1]).index_add_(0, entry, own)
        tables.append(table / count.clamp(min=1)[:, None])
        shared += int((count[entry] > 1).sum())
    return torch.cat(tables), shared


def _layers(model: PyNeRF, start: int, shapes: list[tuple[int, int]]) -> list[tuple[Tensor, Tensor]]:
    """(matrix [out, in], bias [out]) of an MLP's layers, as `torch.nn.Linear` holds them."""
    layers = []
    for n_in, n_out in shapes:
        numbers = model.mlp[start : start + (n_in + 1) * n_out].detach().float()
        layers.append((numbers[: n_in * n_out].view(n_in, n_out).T.contiguous(), numbers[n_in * n_out :].clone()))
        start += (n_in + 1) * n_out
    return layers


def _as_plugin(matrix: Tensor, geo_dim: int) -> Tensor:
    """A colour MLP's first matrix with inputs as there: SH harmonics first, then geometry features."""
    harmonics = matrix.new_zeros(len(matrix), SH)
    harmonics[:, : matrix.shape[1] - geo_dim] = matrix[:, geo_dim:]
    return torch.cat([harmonics, matrix[:, :geo_dim]], 1)


def _put(state: dict[str, Tensor], name: str, layers: list[tuple[Tensor, Tensor]]) -> None:
    for i, (matrix, bias) in enumerate(layers):
        state[f"{name}.layers.{i}.weight"], state[f"{name}.layers.{i}.bias"] = matrix, bias


def _xyz(cells: Tensor, resolution: int) -> Tensor:
    """[cells], x fastest -> [x, y, z]."""
    return cells.view(resolution, resolution, resolution).permute(2, 1, 0).contiguous()


def _trained(model: PyNeRF) -> dict[str, Tensor]:
    resolution = model.config.trained_resolution
    least, greatest = (_xyz(bound.float() / TRAINED_STEPS, resolution) for bound in model.trained)
    known = least <= greatest
    return {  # where no sample was, as the plugin begins
        "_model.field.min_trained_level": torch.where(known, least, float(model.config.num_levels)),
        "_model.field.max_trained_level": torch.where(known, greatest, -1.0),
    }


def _occupancy(model: PyNeRF) -> dict[str, Tensor]:
    """nerfacc's `OccGridEstimator` of one level over the cube."""
    resolution = model.config.occupancy_resolution
    cells = unpack_bits(model.occupancy)[0]
    if model.config.background:
        cells = cube_cells(cells.view(resolution, resolution, resolution)).reshape(-1)
    binaries = _xyz(cells, resolution)[None]
    name = "_model.occupancy_grid"
    return {
        f"{name}.resolution": torch.full((3,), resolution, dtype=torch.int32),
        f"{name}.aabbs": torch.tensor([[-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]]),
        f"{name}.occs": binaries.reshape(-1).float(),
        f"{name}.binaries": binaries,
    }


def config_yaml(model: PyNeRF, step: int) -> str:
    """The run's config.yml: the model's numbers by the plugin's names, everything else by its defaults."""
    config = model.config
    numbers: dict[str, Any] = {
        "num_scales": config.num_levels, "scale_factor": config.scale_factor,
        "base_resolution": config.base_resolution, "max_resolution": config.max_resolution,
        "num_levels": config.n_grid_levels, "features_per_level": config.features_per_level,
        "log2_hashmap_size": int(math.log2(config.hash_table_size)), "geo_feat_dim": config.geo_dim,
        "num_layers": config.density_layers, "hidden_dim": config.density_hidden_dim,
        "num_layers_color": config.num_layers, "hidden_dim_color": config.hidden_dim, "appearance_embedding_dim": 0,
        "output_interpolation": config.interpolation, "level_interpolation": "linear",
        "share_feature_grid": str(config.share_grid).lower(),
        "disable_scene_contraction": str(not config.background).lower(), "grid_levels": 1,
        "grid_resolution": config.occupancy_resolution, "background_color": "white",
    }  # fmt: skip
    lines = [
        "!!python/object:nerfstudio.engine.trainer.TrainerConfig",
        "_target: !!python/name:nerfstudio.engine.trainer.Trainer ''",
        "method_name: pynerf-occupancy-grid",
        f"load_step: {step}",
        "pipeline: !!python/object:pynerf.data.pynerf_pipelines.PyNeRFPipelineConfig",
        "  _target: !!python/name:pynerf.data.pynerf_pipelines.PyNeRFPipeline ''",
        f"  model: !!python/object:{MODULE}.PyNeRFOccupancyModelConfig",
        f"    _target: !!python/name:{MODULE}.PyNeRFOccupancyModel ''",
        *(f"    {name}: {value}" for name, value in numbers.items()),
    ]
    return "\n".join(lines) + "\n"
