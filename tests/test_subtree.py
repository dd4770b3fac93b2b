"""Training by subtrees: who owns what, what a rank holds, and that nothing is exchanged while subtrees are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from team_programs import QUICK, SMALL, config, finish, kill, start

from infnerf.data.city import make_city
from infnerf.data.dataset import load_dataset
from infnerf.data.masks import Region
from infnerf.models.checkpoint import load_checkpoint
from infnerf.models.infnerf import InfNeRF
from infnerf.models.octree import Octree, build_octree, lone_root
from infnerf.renderer.cliutil import CommandError
from infnerf.training import inherit
from infnerf.training.base import scene_of
from infnerf.training.subtree import (
    CLAMPED_WEIGHT,
    SubtreePlan,
    SubtreeTrainer,
    TopTrainer,
    light_of_ranks,
    plan_subtrees,
    shard_of_rank,
)
from infnerf.training.subtree_run import part_path
from infnerf.training.team import Team
from infnerf.training.trainer import Trainer, plan_tree


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUICK.items():
        monkeypatch.setattr(inherit, name, value)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("city") / "city"
    make_city(out, blocks=1, views=7, size=(48, 32), seed=4, test_views=2, workers=1, supersample=1)
    return out


def tree(n: int = 3000) -> Octree:
    points = np.random.default_rng(0).random((n, 3)) * (1.0, 1.0, 0.4)
    return build_octree(points, np.full(n, 2e-3), np.zeros(3), 1.0, 32, max_depth=3)


@pytest.mark.parametrize(("n_ranks", "level"), [(2, 1), (3, 1), (5, 2)])
def test_every_node_below_the_shared_levels_has_one_owner(n_ranks: int, level: int) -> None:
    plan = plan_subtrees(tree(), n_ranks)
    assert plan.level == level
    top = plan.top().n_nodes
    assert (plan.owner[:top] == -1).all()
    assert (plan.owner[top:] >= 0).all()
    held = []
    for rank in range(n_ranks):
        octree, source = plan.part(rank)
        assert torch.equal(source[:top], torch.arange(top))
        assert (plan.owner[source[top:]] == rank).all()
        assert torch.equal(octree.corner, plan.octree.corner[source])
        held += source[top:].tolist()
    assert sorted(held) == list(range(top, plan.octree.n_nodes))
    roots = plan.owner[plan.octree.level == level]
    assert (roots.diff() >= 0).all()  # in Morton order: what a rank owns lies together
    sizes = torch.bincount(plan.owner[top:])
    assert sizes.max() < 2.5 * sizes.min()


def test_trees_without_enough_subtrees_are_refused() -> None:
    with pytest.raises(CommandError, match=r"a node for each of 2 ranks, found \[1\] nodes"):
        plan_subtrees(lone_root(np.zeros(3), 1.0), 2)
    with pytest.raises(
        CommandError, match="--subtree-level: expected a level from 1 to 3 with at least 2 nodes, found 9"
    ):
        plan_subtrees(tree(), 2, 9)


def trainer_of(city: Path) -> tuple[Trainer, SubtreePlan]:
    data = load_dataset(city)
    plan = plan_subtrees(plan_tree(config(), SMALL, data), 2)
    return Trainer(InfNeRF(SMALL).place(plan.top(), scene_of(data)), data, config()), plan


def test_tiles_belong_to_the_rank_whose_cubes_they_show(city: Path) -> None:
    trainer, plan = trainer_of(city)
    model = trainer.model
    bias = [i * o + o for i, o in SMALL.layer_shapes.values()]
    with torch.no_grad():
        model.mlp[:, bias[0] + SMALL.hidden_dim * (SMALL.geo_dim + 1)] = 12.0  # opaque wherever it is occupied
    camera = trainer.data.cameras[0]
    light = light_of_ranks(model, trainer.sampling, plan, 2, camera, 1)
    assert light.shape == (2, camera.height // 8, camera.width // 8)
    assert float(light.sum(0).max()) <= 1 + 1e-5
    assert (light.amax((1, 2)) > 0.9).all()  # each rank has tiles of its own
    with torch.no_grad():
        model.mlp[:, bias[0] + SMALL.hidden_dim * (SMALL.geo_dim + 1)] = -12.0
    crossing = light_of_ranks(model, trainer.sampling, plan, 2, camera, 1)
    assert set(crossing.unique().tolist()) <= {0.0, 1.0}
    assert (crossing[light > 0.9] == 1).all()  # where nothing is known, every rank whose cubes the ray crosses


def test_the_shared_levels_learn_little_from_rays_that_ask_for_finer_ones(city: Path) -> None:
    data = load_dataset(city)
    plan = plan_subtrees(plan_tree(config(), SMALL, data), 2)
    trainer = TopTrainer(InfNeRF(SMALL).place(plan.top(), scene_of(data)), data, config())
    batch, samples = trainer.draw()
    ray, clamped = samples.ray_indices.long(), samples.wanted > samples.level
    n, n_clamped = (torch.bincount(rays, minlength=len(batch.cones)) for rays in (ray, ray[clamped]))
    weight = trainer.render(batch, samples).batch.weight / batch.weight
    finer, answered = (n > 0) & (n_clamped == n), n_clamped == 0
    assert finer.any()
    assert answered.any()
    assert torch.allclose(weight[finer], torch.tensor(CLAMPED_WEIGHT))
    assert torch.allclose(weight[answered], torch.tensor(1.0))
    between = weight[~finer & ~answered]
    assert ((between >= CLAMPED_WEIGHT) & (between <= 1)).all()


def test_a_region_leaves_out_tiles() -> None:
    tiles = np.array([[True, False], [False, True]])
    counts = Region(None, tiles).read((6, 4))
    assert counts.shape == (4, 6)
    assert counts[:2, :3].all()
    assert counts[2:, 3:].all()
    assert counts.sum() == 12


def test_a_rank_reads_only_images_that_show_its_subtrees_and_steps_only_its_nodes(city: Path) -> None:
    first, plan = trainer_of(city)
    tiles = [torch.zeros(2, 4, 6, dtype=torch.bool) for _ in range(7)]
    tiles[2][1] = tiles[5][1] = True
    assert shard_of_rank(first.data, tiles, 0) is None
    shard = shard_of_rank(first.data, tiles, 1)
    assert shard is not None
    assert shard.images.tolist() == [2, 5]
    octree, _ = plan.part(1)
    n = first.model.octree.n_nodes
    trainer = SubtreeTrainer(first, config(), shard, octree)
    before = trainer.model.tables.data.clone()
    batch, samples = trainer.draw()
    assert set(batch.image.tolist()) <= {2, 5}
    own = samples.ray_indices[samples.node >= n]
    assert torch.equal(own.unique().long(), torch.arange(len(batch.cones)))  # every ray meets a node of its own
    trainer.step(0.0)
    changed = (trainer.model.tables.data != before).flatten(1).any(1)
    assert not changed[:n].any()
    assert changed[n:].any()


def results(program: str, out: Path, *arguments: object) -> list[dict[str, Any]]:
    for code, _, said in finish(start(program, 2, *arguments, out)):
        assert code == 0, said
    return [torch.load(f"{out}.{rank}") for rank in range(2)]


@pytest.mark.parametrize("idle", [-1, 1])
def test_two_ranks_train_their_subtrees_and_hand_in_one_checkpoint(city: Path, tmp_path: Path, idle: int) -> None:
    out = tmp_path / "m.pth"
    one, two = results("subtrees", out, idle, city)
    checkpoint = load_checkpoint(out)
    plan = plan_subtrees(plan_tree(config(), SMALL, load_dataset(city)), 2)
    assert plan.level == 1
    if idle >= 0:  # its subtrees are left to their ancestors
        plan = plan.only(plan.owner != idle)
    assert torch.equal(checkpoint.octree.children, plan.octree.children)
    for rank in (one, two):
        for exchanged in rank["exchanged"]:
            assert exchanged.get("subtrees", 0) == 0
            assert exchanged["hand-in"] > 0
        assert rank["exchanged"][0]["shared levels"] > 0
        assert rank["exchanged"][1].get("shared levels", 0) < 9  # resumed after them
    shared = torch.load(f"{out}.resume")
    n = shared["tables"].shape[0]
    assert n == plan.top().n_nodes
    for rank in range(2):
        octree, source = plan.part(rank)
        if rank == idle:
            continue
        part = torch.load(part_path(out, rank))
        assert part["steps"] == 16 - shared["steps"]
        assert part["tables"].shape[0] == octree.n_nodes
        assert part["optimizer"]["mean_tables"].shape == part["tables"].shape
        assert torch.equal(part["tables"][:n], shared["tables"])  # frozen
        assert torch.equal(checkpoint.field["tables"][source[n:]], part["tables"][n:].half())
    assert two["said"] == []
    assert any(line.startswith("bytes exchanged by rank 0:") and "subtrees 0" in line for line in one["said"])
    own = int((plan.owner == 1).sum())
    assert any(line.startswith(f"rank 1 held {own} nodes of its own and {n} that all have") for line in one["said"])


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_dies_among_subtrees_leaves_a_sentence_and_what_resumes(
    city: Path, tmp_path: Path, victim: int
) -> None:
    out = tmp_path / "m.pth"
    ranks = start("long_run", 2, "subtree", city, out)
    assert ranks[0].stdout is not None
    while (line := ranks[0].stdout.readline()).strip() != "4":
        assert line, ranks[0].communicate()
    kill(ranks, victim, out)
    assert torch.load(part_path(out, 1 - victim))["steps"] >= 1


def test_a_team_of_one_meets_at_once() -> None:
    Team().meet("anywhere", lambda: None)
    assert not Team().called_off()
