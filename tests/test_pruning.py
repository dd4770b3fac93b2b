"""Which nodes can go, and that nobody sees them go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_models import random_octree, view_camera
from small_runs import SMALL, trainer_of

from infnerf.models.infnerf import InfNeRF
from infnerf.models.marching import PackedSamples
from infnerf.models.octree import Octree
from infnerf.renderer.cpu_executor import CpuExecutor
from infnerf.renderer.frame import FrameBuffers, RenderRequest
from infnerf.training import point_prior, pruning
from infnerf.training.occupancy import OccupancyUpdater
from infnerf.training.pruning import Use, droppable, prunable, prune_schedule, pruned
from infnerf.training.resume import restore_state, save_state
from infnerf.training.sampling import make_sampling


def samples_of(node: list[int]) -> PackedSamples:
    n = len(node)
    zeros, integers = torch.zeros(n), torch.zeros(n, dtype=torch.int32)
    return PackedSamples(integers, zeros, zeros, torch.zeros(n, 3), torch.tensor(node).int(), integers, integers)


def test_a_node_is_unused_if_rays_ask_for_it_and_never_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes: seen; hidden; not asked for but trained earlier; never asked for, never trained; new."""
    monkeypatch.setattr(pruning, "SAMPLES_TO_JUDGE", 1)
    use, steps = Use(4), torch.tensor([9, 9, 9, 0, 0])
    use.follow(torch.tensor([0, 1, 2, 3, -1]))
    gradient = torch.zeros(8, 3)
    gradient[:5, 2] = 1e-9
    use.add(samples_of([0, 0, 0, 0, 0, 0, 1, 1]), gradient)
    assert use.asked.tolist() == [6, 2, 0, 0, 0]
    assert use.trained.tolist() == [5, 0, 0, 0, 0]
    assert use.unused(steps).tolist() == [False, True, False, True, False]
    monkeypatch.setattr(pruning, "SAMPLES_TO_JUDGE", 2)
    assert not use.unused(steps).any()  # too few samples to judge by


def subtree(octree: Octree, top: int) -> list[int]:
    return [top, *(node for child in octree.children[top].tolist() if child >= 0 for node in subtree(octree, child))]


@pytest.mark.parametrize("seed", range(4))
def test_what_can_go_are_the_largest_subtrees_of_which_every_node_qualifies(seed: int) -> None:
    octree, generator = random_octree(seed), torch.Generator().manual_seed(seed)
    empty, unused, clear = (torch.rand(octree.n_nodes, generator=generator) < p for p in (0.6, 0.5, 0.7))
    goes = set()
    for top in range(1, octree.n_nodes):
        nodes = torch.tensor(subtree(octree, top))
        if unused[nodes].all() or ((empty | unused)[nodes].all() and clear[top]):
            goes.add(top)
    topmost = {node for node in goes if not any(node in subtree(octree, other) for other in goes - {node})}
    assert 0 < len(topmost) < len(goes)
    assert set(droppable(octree, empty, unused, clear).tolist()) == topmost
    everything = torch.ones_like(empty)
    assert (
        droppable(octree, everything, everything, everything).tolist()
        == octree.children[0, octree.children[0] >= 0].tolist()
    )


def foggy_model() -> InfNeRF:
    """Two levels below the root, matter in every one of their few nodes."""
    config = replace(SMALL, density_shift=-3.0)
    return InfNeRF.random(config, random_octree(3, max_nodes=60, max_depth=2), 3, spread=1.0)


def emptied(model: InfNeRF, nodes: torch.Tensor) -> None:
    """No density in `nodes`: the bias of the density MLP's first output."""
    config = model.config
    shapes = list(config.layer_shapes.values())
    first = shapes[0][0] * shapes[0][1] + shapes[0][1] + config.hidden_dim * (config.geo_dim + 1)
    model.mlp.data[nodes, first] = -60.0


def updater(model: InfNeRF) -> OccupancyUpdater:
    """Of a model that has been trained long enough to be measured."""
    occupancy = OccupancyUpdater(model, make_sampling(model)[0], 0)
    warm(occupancy)
    for _ in range(3):
        occupancy.refresh(model.octree.n_nodes)
    return occupancy


def warm(occupancy: OccupancyUpdater) -> None:
    occupancy.seen += 1_000_000_000
    occupancy.steps += 1_000_000_000


def picture(model: InfNeRF) -> np.ndarray:
    still = InfNeRF(model.config, model.octree, model.tables.data, model.mlp.data, model.occupancy, model.scene)
    out = FrameBuffers.allocate(48, 32)
    CpuExecutor(still).render(RenderRequest(view_camera(48, 32)), out)
    return out.color


def test_an_empty_node_goes_only_where_its_parent_is_empty_too() -> None:
    model = foggy_model()
    octree = model.octree
    unused, second = torch.zeros(octree.n_nodes, dtype=torch.bool), octree.level == 2
    leaves = second & (octree.children < 0).all(1)
    emptied(model, leaves.nonzero()[:, 0])
    assert prunable(model, updater(model), unused).tolist() == []  # the random field of level 1 is fog everywhere
    some = octree.parent.long()[leaves.nonzero()[:, 0]].unique()[:2]
    emptied(model, some)
    gone = prunable(model, updater(model), unused)
    assert torch.equal(gone, (leaves & torch.isin(octree.parent, some)).nonzero()[:, 0])
    before = picture(model)
    smaller, source = pruned(model, gone)
    assert smaller.octree.n_nodes == octree.n_nodes - len(gone)
    assert torch.equal(smaller.tables, model.tables[source])
    error = np.square(picture(smaller) - before).mean()
    assert error < 1e-4  # 40 dB
    careless, _ = pruned(model, leaves.nonzero()[:, 0])
    assert np.square(picture(careless) - before).mean() > 10 * error


def test_a_node_that_was_not_measured_yet_is_not_empty() -> None:
    model = foggy_model()
    nobody = torch.zeros(model.octree.n_nodes, dtype=torch.bool)
    emptied(model, torch.arange(model.octree.n_nodes))
    occupancy = OccupancyUpdater(model, make_sampling(model)[0], 0)
    assert prunable(model, occupancy, nobody).tolist() == []
    warm(occupancy)
    assert len(prunable(model, occupancy, nobody)) == int((model.octree.level == 1).sum())


def test_an_unused_node_goes_whatever_it_holds() -> None:
    model = foggy_model()
    unused = torch.zeros(model.octree.n_nodes, dtype=torch.bool)
    deepest = (model.octree.level == model.octree.depth).nonzero()[:, 0]
    unused[deepest] = True
    assert prunable(model, updater(model), unused).tolist() == deepest.tolist()


def test_state_follows_the_nodes_that_stay_and_the_run_goes_on(city: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_prior, "FINEST", 64)
    monkeypatch.setattr(pruning, "SAMPLES_TO_JUDGE", 0)
    trainer = trainer_of(city, min_points=3)
    for i in range(6):
        trainer.step(i / 40)
    n, depth = trainer.model.octree.n_nodes, trainer.model.octree.depth
    hidden = (trainer.model.octree.level == depth).nonzero()[::2, 0]
    trainer.use.asked += 1
    trainer.use.trained += 1
    trainer.use.trained[hidden] = 0
    means, density = trainer.optimizer.means["mlp"].clone(), trainer.occupancy.density.clone()
    kept = torch.tensor([i for i in range(n) if i not in hidden])  # the deepest level's order stays
    assert trainer.prune() == len(hidden)
    assert trainer.model.octree.n_nodes == n - len(hidden)
    assert torch.equal(trainer.optimizer.means["mlp"], means[kept])
    assert torch.equal(trainer.occupancy.density, density[kept])
    assert len(trainer.use.asked) == len(trainer.demand.votes) == n - len(hidden)
    assert not trainer.use.asked.any()
    trainer.step(0.5)


def test_a_resumed_run_prunes_as_the_uninterrupted_one(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By counts that began before the cut."""
    monkeypatch.setattr(point_prior, "FINEST", 64)
    monkeypatch.setattr(Use, "unused", lambda use, _: use.trained <= use.trained.median())
    chosen: dict[str, object] = {"min_points": 3, "octree_prune_schedule": (0.1, 0.25)}
    whole, resumed = trainer_of(city, **chosen), trainer_of(city, **chosen)
    counts = []
    for i in range(14):
        if i == 8:
            save_state(whole, tmp_path / "state")
        whole.step(i / 40)
        counts.append(whole.model.octree.n_nodes)
    assert len(set(counts)) > 2
    assert counts[7] != counts[13]
    restore_state(resumed, tmp_path / "state")
    assert resumed.prunes == [0.25]
    for i in range(8, 14):
        resumed.step(i / 40)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_schedule_keeps_to_the_first_four_fifths() -> None:
    assert prune_schedule(None) == pruning.PRUNES
    assert prune_schedule(()) == ()
    assert prune_schedule((0.7, 0.2)) == (0.2, 0.7)
    for wrong in ((0.5, 0.9), (0.0,), (-1.0, 0.5)):
        with pytest.raises(ValueError, match=r"fractions must be above 0 and at most 0\.8"):
            prune_schedule(wrong)
