"""Capacity per octree level: narrower nodes in padded rows, compact files, and trees whose levels differ."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_models import random_octree
from small_runs import config as run_config
from test_checkpoint import refusal, small_checkpoint, stored

from infnerf.data.dataset import load_dataset
from infnerf.models.capacity import compact, padded, stored_shapes, unit_places
from infnerf.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from infnerf.models.config import MAX_LEVELS, InfNeRFConfig
from infnerf.models.infnerf import InfNeRF
from infnerf.models.octree import MAX_DEPTH, Octree, build_octree
from infnerf.models.volume import segment_rgba
from infnerf.renderer.kernels import load_kernels
from infnerf.renderer.sample_kernels import SampleKernels
from infnerf.training import inherit, point_prior
from infnerf.training.cli import main
from infnerf.training.growth import Demand, grown
from infnerf.training.optimizer import AdamConfig, NodeAdam
from infnerf.training.resume import restore_state, save_state
from infnerf.training.sampling import TorchSampling, samples_at
from infnerf.training.trainer import Trainer
from infnerf.training.width import resized_mlps

CONFIG = InfNeRFConfig(
    n_grid_levels=3, table_size=512, base_resolution=4, resolution=32, occupancy_resolution=8, density_shift=-3.0,
    level_table_sizes=(512, 64, 256), level_hidden_dims=(32, 16),
)  # fmt: skip
TREE = {"max_nodes": 60, "max_depth": 3}


def model_of(seed: int = 0) -> InfNeRF:
    return InfNeRF.random(CONFIG, random_octree(seed, **TREE), seed, spread=1.0)


def checkpoint_of(model: InfNeRF) -> Checkpoint:
    tables, mlp = compact(model.config, model.octree, model.tables.data.half(), model.mlp.data.half())
    field = {"tables": tables, "mlp": mlp, "occupancy": model.occupancy}
    return Checkpoint("infnerf", model.config, model.octree, field, model.scene)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"level_table_sizes": (100,)}, "config.level_table_sizes must hold 64, 128, 256, 512 only, got 100"),
        ({"level_table_sizes": (512, 1024)}, "got 1024"),
        ({"level_table_sizes": (32,)}, "got 32"),
        ({"level_table_sizes": (True,)}, "got True"),
        ({"level_table_sizes": [512]}, "config.level_table_sizes must be a list of at most 32 numbers"),
        ({"level_table_sizes": (64,) * 33}, "must be a list of at most 32 numbers"),
        ({"level_hidden_dims": (64,)}, "config.level_hidden_dims must hold 16, 32 only, got 64"),
        ({"level_hidden_dims": (16.0,)}, "got 16.0"),
        ({"level_hidden_dims": 16}, "config.level_hidden_dims must be a list"),
    ],
)
def test_capacities_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="config") as caught:
        InfNeRFConfig(table_size=512, **values)
    assert message in str(caught.value)


def test_a_config_of_equal_levels_is_stored_as_it_was_before_levels_could_differ() -> None:
    assert MAX_LEVELS == MAX_DEPTH + 1
    first = {f.name for f in fields(InfNeRFConfig)} - InfNeRFConfig.LATER_FIELDS
    values = InfNeRFConfig().to_dict()
    assert set(values) == first
    assert InfNeRFConfig.from_dict(values) == InfNeRFConfig()
    assert CONFIG.to_dict()["level_hidden_dims"] == [32, 16]
    assert InfNeRFConfig.from_dict(CONFIG.to_dict()) == CONFIG


def test_a_padded_node_is_a_small_node() -> None:
    """The same field from a model whose every node has the capacity of level 1, with those nodes' numbers."""
    model, own = model_of(), CONFIG.at_level(1)
    nodes = (model.octree.level == 1).nonzero()[:, 0]
    small = InfNeRF.random(own, model.octree, 0)
    small.tables.data[nodes] = model.tables.data[nodes][:, :, : own.table_size]
    small.mlp.data[nodes] = model.mlp.data[nodes][:, unit_places(CONFIG, 1)]
    node = nodes[torch.arange(300) % len(nodes)]
    places = torch.rand(300, 3), torch.nn.functional.normalize(torch.randn(300, 3), dim=-1)
    for a, b in zip(model.field(node, *places), small.field(node, *places), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_initial_weights_have_the_bound_of_their_own_width() -> None:
    model = InfNeRF(CONFIG, random_octree(0, **TREE))
    for node in (0, 1):
        config = CONFIG.at_level(int(model.octree.level[node]))
        out = list(config.layer_shapes.values())[1]
        first = config.n_features * config.hidden_dim + config.hidden_dim
        own = model.mlp.data[node, unit_places(CONFIG, int(model.octree.level[node]))]
        weights = own[first : first + out[0] * out[1]]
        assert 0.9 < float(weights.abs().max()) / (0.7 * (6 / out[0]) ** 0.5) <= 1


@pytest.mark.parametrize("plain", [None, False, True])
def test_padding_takes_no_gradient(plain: bool | None) -> None:
    """Exactly none, by torch and by the kernels, so that it stays zero for ever."""
    model = model_of()
    octree = model.octree
    node = torch.arange(octree.n_nodes).repeat(50)
    sampling = TorchSampling(model) if plain is None else SampleKernels(model, plain)
    samples = samples_at(model, node, torch.rand(len(node), 3))
    directions = torch.nn.functional.normalize(torch.randn(len(node), 3), dim=-1)
    sigma, rgb = sampling.field(samples, directions)
    (sigma.sum() + rgb.square().sum()).backward()
    assert model.tables.grad is not None
    assert model.mlp.grad is not None
    counts = octree.level_counts()
    for level, (tables, mlp) in enumerate(
        zip(model.tables.grad.split(counts), model.mlp.grad.split(counts), strict=True)
    ):
        own = CONFIG.at_level(level)
        assert not tables[:, :, own.table_size :].any()
        assert tables[:, :, : own.table_size].any()
        unused = torch.ones(CONFIG.mlp_size, dtype=torch.bool)
        unused[unit_places(CONFIG, level)] = False
        assert not mlp[:, unused].any()
        assert mlp[:, ~unused].any()


def test_files_hold_what_is_real_and_come_back(tmp_path: Path) -> None:
    model, path = model_of(), tmp_path / "m.pth"
    save_checkpoint(checkpoint_of(model), path)
    loaded = InfNeRF.load(str(path))
    assert loaded.config == CONFIG
    assert torch.equal(loaded.tables, model.tables.half())
    assert torch.equal(loaded.mlp, model.mlp.half())
    expected = sum(n * size for n, size in zip(model.octree.level_counts(), model.level_bytes, strict=True))
    tensors = load_checkpoint(path).field.values()
    assert sum(t.nbytes for t in tensors) == expected
    assert expected < 0.6 * CONFIG.node_bytes * model.octree.n_nodes
    assert model.n_parameters == sum(t.numel() for t in compact(CONFIG, model.octree, model.tables, model.mlp))
    everything = InfNeRFConfig(table_size=512)
    same = compact(everything, model.octree, model.tables, model.mlp)
    assert same[0] is model.tables
    assert padded(everything, model.octree, *same)[1] is model.mlp


def test_one_kind_of_capacity_may_differ_alone(tmp_path: Path) -> None:
    octree = random_octree(0, **TREE)
    for name, values in (("level_table_sizes", (64,)), ("level_hidden_dims", (32, 16))):
        config = InfNeRFConfig(n_grid_levels=3, table_size=128, resolution=32, **{name: values})
        shapes = stored_shapes(config, octree)
        assert [len(shapes[key]) for key in ("tables", "mlp")] == ([1, 2] if name == "level_table_sizes" else [4, 1])
        model = InfNeRF.random(config, octree, 1, spread=1.0)
        save_checkpoint(checkpoint_of(model), tmp_path / "m.pth")
        assert torch.equal(InfNeRF.load(str(tmp_path / "m.pth")).tables, model.tables.half())


def spoiled(tmp_path: Path, change: Any) -> str:
    values = stored(checkpoint_of(model_of()))
    change(values)
    torch.save(values, tmp_path / "bad.pth")
    return refusal(tmp_path / "bad.pth")


def test_wrong_sizes_are_refused_by_name(tmp_path: Path) -> None:
    total = stored_shapes(CONFIG, random_octree(0, **TREE))["tables"][0]
    node = 7
    before = sum(CONFIG.at_level(int(level)).table_size * 6 for level in random_octree(0, **TREE).level[:node])
    for change, message in (
        (lambda v: v["field"].update(tables=v["field"]["tables"][:-1].clone()), f"float16 [{total}], got a tensor"),
        (lambda v: v["field"].update(mlp=v["field"]["mlp"].view(1, -1)), "field.mlp must be a tensor float16 ["),
        (lambda v: v["field"].update(tables=torch.zeros(1).half().expand(total)), "must be a contiguous tensor"),
        (lambda v: v["field"]["tables"].__setitem__(before, np.inf), f"NaN or infinity in node {node}"),
        (lambda v: v["field"]["tables"].__setitem__(before - 1, np.nan), f"NaN or infinity in node {node - 1}"),
        (lambda v: v["config"].update(level_table_sizes=[512, "many"]), "level_table_sizes must hold 64, 128, 256"),
        (lambda v: v["config"].update(level_table_sizes=[10**12]), "got 1000000000000"),
        (lambda v: v["config"].update(level_table_sizes=[[64]]), "or list of them, got a list of 1"),
        (lambda v: v["config"].update(level_hidden_dims=16), "config.level_hidden_dims must be a list"),
        (lambda v: v["config"].update(table_size=[64]), "config.table_size must be a whole number from 64 to"),
        (lambda v: v["config"].pop("level_table_sizes"), "field.tables must be a tensor float16 [60, 3, 512, 2]"),
    ):
        assert message in spoiled(tmp_path, change)
    uniform = stored(small_checkpoint())
    uniform["config"]["level_hidden_dims"] = [16]
    torch.save(uniform, tmp_path / "bad.pth")
    assert "field.mlp must be a tensor float16 [" in refusal(tmp_path / "bad.pth")


def field_of(config: InfNeRFConfig, mlp: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one node with these MLPs at a few places."""
    octree = build_octree(np.full((9, 3), 0.5), np.full(9, 0.5), np.zeros(3), 1.0, 2)
    generator = torch.Generator().manual_seed(5)
    tables = torch.randn(1, config.n_grid_levels, config.table_size, 2, generator=generator)
    model = InfNeRF(config.at_level(0), octree, tables, mlp)
    places = torch.rand(200, 3, generator=generator)
    return model.field(torch.zeros(200, dtype=torch.long), places, torch.nn.functional.normalize(places - 0.5, dim=-1))


def test_a_wider_child_begins_as_its_parent_and_can_learn_more() -> None:
    config = InfNeRFConfig(n_grid_levels=3, table_size=64, hidden_dim=32, level_hidden_dims=(16, 32))
    parent = InfNeRF(config).mlp.detach()[:1]
    child = resized_mlps(config, 1, parent, torch.Generator().manual_seed(0)).requires_grad_()
    wide = InfNeRFConfig(n_grid_levels=3, table_size=64, hidden_dim=32)
    for a, b in zip(field_of(wide, child.data), field_of(wide, parent), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert int((child != 0).sum()) > int((parent != 0).sum()) + 16


def test_a_narrower_child_keeps_the_units_that_matter() -> None:
    config = InfNeRFConfig(n_grid_levels=3, table_size=64, hidden_dim=32, level_hidden_dims=(32, 16))
    wide = InfNeRFConfig(n_grid_levels=3, table_size=64, hidden_dim=32)
    parent = InfNeRF(wide).mlp.detach().clone()
    shapes, start = list(config.layer_shapes.values()), 0
    for i, (n_in, n_out) in enumerate(shapes):
        if i % 2:  # every other unit says nothing
            parent[0, start : start + n_in * n_out].view(n_in, n_out)[::2] = 0
        start += n_in * n_out + n_out
    child = resized_mlps(config, 1, parent, torch.Generator())
    unused = torch.ones(config.mlp_size, dtype=torch.bool)
    unused[unit_places(config, 1)] = False
    assert not child[0, unused].any()
    for a, b in zip(field_of(wide, child), field_of(wide, parent), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_children_of_another_capacity_look_like_their_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("DISTILL_STEPS", 60), ("CANDIDATES", 4096), ("PLACES", 2048), ("DISTILL_SAMPLES", 2048)):
        monkeypatch.setattr(inherit, name, value)
    config = InfNeRFConfig(
        n_grid_levels=2, base_resolution=4, resolution=8, table_size=1024, density_shift=-1.0, occupancy_resolution=8,
        level_table_sizes=(1024, 512), level_hidden_dims=(32, 16),
    )  # fmt: skip
    octree = build_octree(np.full((9, 3), 0.5), np.full(9, 0.5), np.zeros(3), 8.0, 16)
    model = InfNeRF.random(config, octree, 3, spread=2.0)
    bigger, _ = grown(model, torch.zeros(2, dtype=torch.long), torch.tensor([1, 6]), torch.Generator().manual_seed(0))
    assert not bigger.tables[1:, :, 512:].any()
    unused = torch.ones(config.mlp_size, dtype=torch.bool)
    unused[unit_places(config, 1)] = False
    assert not bigger.mlp[1:, unused].any()
    local = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0))
    direction = torch.tensor([[0.0, 0.6, 0.8]]).expand(2000, 3)
    upper = torch.tensor([0.5, 0.0, 0.0])
    parent, child = (
        segment_rgba(
            *(x.detach() for x in bigger.field(torch.full((2000,), node), places, direction)), torch.tensor(0.5)
        )
        for node, places in ((0, upper + local / 2), (1, local))
    )
    assert float((parent - child).square().mean().sqrt()) < 0.5 * float(parent.std(0).mean())


def bytes_of(octree: Octree, config: InfNeRFConfig) -> int:
    return sum(n * config.node_cost(level) for level, n in enumerate(octree.level_counts()))


def test_budgets_count_what_nodes_of_each_level_take() -> None:
    rng = np.random.default_rng(0)
    points, footprints = rng.random((4000, 3)), np.full(4000, 1e-3)
    equal = InfNeRFConfig(n_grid_levels=3, table_size=512, resolution=32, occupancy_resolution=8)
    room, trees = 400_000, []
    for config in (equal, CONFIG):
        octree = InfNeRF(config).build_octree(points, footprints, min_points=2, max_bytes=room).octree
        assert room - CONFIG.node_cost(0) < bytes_of(octree, config) <= room
        trees.append(octree)
    assert trees[1].n_nodes > 1.3 * trees[0].n_nodes
    demand = Demand(trees[1])
    demand.votes += 1
    before = bytes_of(trees[1], CONFIG)
    model = InfNeRF(CONFIG, trees[1])
    node, octant = demand.choose(model.octree, 50_000, 16, CONFIG.node_cost)
    added = int(sum(CONFIG.node_cost(int(level) + 1) for level in model.octree.level[node]))
    assert 50_000 - CONFIG.node_cost(0) < added <= 50_000
    assert before + added <= room + 50_000
    assert len(node) == len(octant)


@pytest.mark.parametrize("kernels", [False, True])
def test_tied_decoders_keep_to_their_width(kernels: bool) -> None:
    """All nodes of a width step alike, by their own gradients alone, and padding stays zero."""
    model = model_of()
    octree, first = model.octree, int((model.octree.level == 1).nonzero()[0, 0])
    before = model.mlp.data.clone()
    generator = torch.Generator().manual_seed(0)
    for parameter in (model.tables, model.mlp):
        parameter.grad = torch.zeros_like(parameter)
    assert model.mlp.grad is not None
    some = torch.arange(first, octree.n_nodes, 3)
    for node in some.tolist():
        places = unit_places(CONFIG, int(octree.level[node]))
        model.mlp.grad[node, places] = torch.randn(len(places), generator=generator)
    adam = NodeAdam(model, AdamConfig(), load_kernels() if kernels else None)
    adam.step(some, tied=True)
    moved = model.mlp.data - before
    assert not moved[:first].any()  # the root alone is wider
    torch.testing.assert_close(moved[first:], moved[first].expand(octree.n_nodes - first, -1), atol=1e-6, rtol=0)
    unused = torch.ones(CONFIG.mlp_size, dtype=torch.bool)
    unused[unit_places(CONFIG, 1)] = False
    assert not moved[:, unused].any()
    assert moved[first, ~unused].all()
    assert not model.mlp.grad.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--level-table-sizes", "8192,many"], "--level-table-sizes takes whole numbers with commas between them"),
        (["--level-table-sizes", "8192,100"], "config.level_table_sizes must hold 64, 128"),
        (["--level-hidden-dims", "64,24"], "config.level_hidden_dims must hold 16, 32, 64 only, got 24"),
        (["--level-table-sizes", "512", "--table-size", "512"], "exclude each other"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["train", str(tmp_path), "--out", str(tmp_path / "m.pth"), "--steps", "1", *options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_run_trains_saves_and_resumes_levels_of_their_own(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tie of the decoders ends on the way; the checkpoint keeps to its budget; the padding stays zero."""
    monkeypatch.setattr(point_prior, "FINEST", 64)
    budget = run_config(min_points=3, max_bytes=200_000)
    whole, resumed = (Trainer(InfNeRF(CONFIG), load_dataset(city), budget) for _ in range(2))
    for step in range(8):
        if step == 5:
            save_state(whole, tmp_path / "state")
        whole.step(step / 8)
    restore_state(resumed, tmp_path / "state")
    for step in range(5, 8):
        resumed.step(step / 8)
    model, path = whole.model, tmp_path / "m.pth"
    assert torch.equal(model.tables, resumed.model.tables)
    assert torch.equal(model.mlp, resumed.model.mlp)
    assert model.octree.depth >= 2
    rows = model.tables.data, model.mlp.data
    for again, kept in zip(padded(CONFIG, model.octree, *compact(CONFIG, model.octree, *rows)), rows, strict=True):
        assert torch.equal(again, kept)
    save_checkpoint(whole.checkpoint(), path)
    assert 0.7 * budget.max_bytes < path.stat().st_size <= budget.max_bytes
    assert torch.equal(InfNeRF.load(str(path)).mlp, model.mlp.half())
