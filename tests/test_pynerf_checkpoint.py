"""A PyNeRF's checkpoint: what is written comes back, and what a file gets wrong is refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_pyramids import VARIETIES, random_pyramid

from infnerf.models.backends import load_model
from infnerf.models.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from infnerf.models.octree import build_octree, lone_root
from infnerf.models.pynerf import PyNeRF
from infnerf.renderer.bench import sample_flops
from infnerf.training.cli import main


def checkpoint_of(model: PyNeRF) -> Checkpoint:
    names = "tables", "mlp", "occupancy", "trained"
    field = {name: getattr(model, name).detach() for name in names}
    root = lone_root(model.octree.corner[0].numpy(), model.octree.root_size)
    return Checkpoint("pynerf", model.config, root, field, model.scene)


@pytest.mark.parametrize("variety", range(len(VARIETIES)))
def test_what_is_written_comes_back(tmp_path: Path, variety: int) -> None:
    model = random_pyramid(variety, **VARIETIES[variety])
    save_checkpoint(checkpoint_of(model), tmp_path / "py.pth")
    read = load_model(tmp_path / "py.pth")
    assert isinstance(read, PyNeRF)
    assert read.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(read.state_dict()[name], value), name
    assert read.octree.gsds == model.octree.gsds
    assert read.n_parameters == sum(read.level_parameters)
    payload = sum(tensor.nbytes for tensor in checkpoint_of(model).field.values())
    assert payload == sum(read.level_bytes)
    assert not read.learns
    assert read.make_trainable().learns


def tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, Any]], None]:
    def spoil(values: dict[str, Any]) -> None:
        values["field"][name] = change(values["field"][name])

    return spoil


def poke(name: str, index: int) -> Callable[[dict[str, Any]], None]:
    def spoil(values: dict[str, Any]) -> None:
        values["field"][name].view(-1)[index] = float("nan")

    return spoil


def config(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda values: values["config"].update(changes)


def tree(values: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    octree = build_octree(rng.random((200, 3)) * 8, np.full(200, 0.5), np.zeros(3), 8.0, 8)
    values["octree"] = dict(vars(octree))


SPOILED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "tree": (tree, "octree must be a lone root for a PyNeRF, got 9 nodes"),
    "tables": (tensor("tables", lambda x: x[:-1].clone()), "field.tables must be a tensor float16 ["),
    "tables type": (tensor("tables", lambda x: x.float()), "got a tensor float32"),
    "trained": (tensor("trained", lambda x: x.int()), "field.trained must be a tensor uint8 [2, 64]"),
    "occupancy": (tensor("occupancy", lambda x: x[:, 1:].clone()), "field.occupancy must be a tensor int32 [1, 128]"),
    "levels": (config(num_levels=3), "field.tables must be a tensor float16 ["),
    "word": (config(interpolation="none"), "config.interpolation must be one of embedding, color"),
    "resolutions": (config(resolutions=[1, 2]), "config.resolutions must be empty or a list of num_levels 4"),
    "code": (config(resolutions=[[1], 2]), "config.resolutions must be a number, flag, word or list of them"),
    "unknown": (config(colour=1), "config has unknown keys: colour"),
    "finite first": (poke("tables", 0), "NaN or infinity in grid 0 of level 0"),
    "finite last": (poke("tables", -1), "NaN or infinity in grid 4 of level 3"),
    "finite mlp": (poke("mlp", 7), "field.mlp must be finite, got NaN or infinity in number 7"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_wrong_values_are_refused_by_name(tmp_path: Path, name: str) -> None:
    change, message = SPOILED[name]
    save_checkpoint(checkpoint_of(random_pyramid(0)), tmp_path / "good.pth")
    values = torch.load(tmp_path / "good.pth", weights_only=True)
    change(values)
    torch.save(values, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "bad.pth")
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "bad.pth"))
    assert "\n" not in str(caught.value)


def test_info_and_bench_tell_of_a_pynerf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = random_pyramid(0)
    save_checkpoint(checkpoint_of(model), tmp_path / "py.pth")
    told, timed, picture = tmp_path / "told.json", tmp_path / "timed.json", tmp_path / "picture.png"
    arguments = ["info", str(tmp_path / "py.pth"), "--tree", "--json", str(told), "--picture", str(picture)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "up to 5 grids of 1024 x 4, 4 to 64 cells, MLPs 16 and 32 wide, embedding interpolated" in text
    assert "level 3, the whole cube" in text
    values = json.loads(told.read_text())
    assert [row["gsd"] for row in values["levels"]] == pytest.approx([1.0, 0.5, 0.25, 0.125])
    assert [row["size"] for row in values["levels"]] == [8.0] * 4
    assert values["parameters"] == sum(row["parameters"] for row in values["levels"])
    assert picture.stat().st_size > 1000
    assert main(["bench", str(tmp_path / "py.pth"), "--size", "32x24", "--executors", "cpu", "--json", str(timed)]) == 0
    assert json.loads(timed.read_text())["executors"][0]["samples"] > 0


def test_the_work_of_a_sample_is_that_of_two_heads() -> None:
    model = random_pyramid(0)
    heads = sum(count * 8 * (2 * 4 + 3) for count in model.config.grid_counts[-2:])
    layers = [*model.config.density_shapes(2), *model.config.density_shapes(3), *model.config.color_shapes]
    assert sample_flops(model) == heads + sum(2 * a * b for a, b in layers)
