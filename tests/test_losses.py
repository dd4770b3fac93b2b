"""Every term of the loss against its definition in plain loops, what it does to a run, and terms of one's own."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_models import random_model, view_camera

from infnerf.data.city import make_city
from infnerf.data.dataset import PointCloud, load_dataset
from infnerf.data.pyramid import RayBatch
from infnerf.models.camera import Camera
from infnerf.models.config import InfNeRFConfig
from infnerf.models.infnerf import InfNeRF
from infnerf.models.marching import MarchSettings, PackedSamples
from infnerf.training import loss_terms
from infnerf.training.config import TrainerConfig
from infnerf.training.loss_terms import in_parent, places, seen_points, total_loss
from infnerf.training.losses import LossConfig, LossInputs, encoded
from infnerf.training.optimizer import AdamConfig, NodeAdam
from infnerf.training.sampling import TorchSampling, make_sampling, samples_at
from infnerf.training.trainer import Trainer

SMALL = InfNeRFConfig(
    n_grid_levels=3, table_size=256, base_resolution=4, resolution=16, hidden_dim=16, occupancy_resolution=8
)


def batch_of(target: torch.Tensor, weight: float = 1.0) -> RayBatch:
    n = len(target)
    ray = torch.tensor([[0.0, 0.0, 1.0]]).expand(n, 3)
    index = torch.zeros(n, dtype=torch.long)
    return RayBatch(ray, ray, torch.full((n,), 0.01), target, index, index, torch.full((n,), weight))


def inputs_of(
    prediction: torch.Tensor, target: torch.Tensor | None = None, samples: PackedSamples | None = None,
    sigmas: torch.Tensor | None = None, model: InfNeRF | None = None, seed: int = 0,
) -> LossInputs:  # fmt: skip
    """Inputs by hand; what is not told is empty."""
    model = model or random_model(0, half=False)
    none = torch.zeros(0)
    integers = torch.zeros(0, dtype=torch.long)
    empty = PackedSamples(integers, none, none, torch.zeros(0, 3), integers, integers, integers)
    batch = batch_of(torch.zeros_like(prediction) if target is None else target)
    return LossInputs(
        prediction, batch, torch.ones(len(prediction), 3), "linear", samples or empty,
        none if sigmas is None else sigmas, none, model, TorchSampling(model), torch.Generator().manual_seed(seed),
    )  # fmt: skip


def random_samples(counts: list[int], seed: int = 0, reach: float = 30.0) -> tuple[PackedSamples, torch.Tensor]:
    """Intervals with gaps between them along rays, and densities that let some light through."""
    rng = torch.Generator().manual_seed(seed)
    ray = torch.repeat_interleave(torch.tensor(counts))
    edges = [(torch.rand(2 * n, generator=rng) * reach).sort().values.view(n, 2) for n in counts]
    ends = torch.cat(edges)
    dt = ends[:, 1] - ends[:, 0]
    none = torch.zeros(len(ray), dtype=torch.long)
    samples = PackedSamples(ray, ends.mean(1), dt, torch.zeros(len(ray), 3), none, none, none)
    return samples, torch.rand(len(ray), generator=rng) / dt


def test_the_loss_teaches_alpha_through_random_backgrounds() -> None:
    rgba = torch.tensor([[0.2, 0.2, 0.2, 0.5]], requires_grad=True)
    target = torch.tensor([[0.2, 0.2, 0.2, 0.9]])
    loss, parts = total_loss(inputs_of(rgba, target), LossConfig())
    loss.backward()
    white = torch.ones(1, 3)
    expected = (encoded(rgba, white, "linear") - encoded(target, white, "linear")).square().mean()
    assert list(parts) == ["rgb"]
    assert float(loss.detach()) == pytest.approx(float(expected.detach()))
    assert rgba.grad is not None
    assert float(rgba.grad[0, 3]) < 0


def test_charbonnier_is_its_formula_and_weighs_images() -> None:
    rng = torch.Generator().manual_seed(0)
    rgba, target = torch.rand(5, 4, generator=rng), torch.rand(5, 4, generator=rng)
    inputs = inputs_of(rgba, target)
    loss, _ = total_loss(replace(inputs, batch=batch_of(target, 0.5)), LossConfig(rgb=3.0, rgb_form="charbonnier"))
    errors = (encoded(rgba, torch.ones(5, 3), "linear") - encoded(target, torch.ones(5, 3), "linear")).flatten()
    assert float(loss.detach()) == pytest.approx(
        1.5 * float(np.mean([math.sqrt(e * e + 1e-6) for e in errors.tolist()]))
    )


def test_distortion_is_equation_15_over_all_pairs() -> None:
    samples, sigmas = random_samples([5, 0, 9, 1])
    sigmas.requires_grad_()
    inputs = inputs_of(torch.zeros(4, 4), samples=samples, sigmas=sigmas)
    size, total = inputs.model.octree.root_size, torch.zeros((), dtype=torch.float64)
    for ray in range(4):
        rows = (samples.ray_indices == ray).nonzero()[:, 0].tolist()
        u = [(samples.t[i] - samples.t[rows[0]]).double() / size for i in rows]
        s = [2 - 1 / x if x > 1 else x for x in u]
        for a, i in enumerate(rows):
            stretch = size * max(1.0, float(u[a])) ** 2
            total = total + inputs.weights[i] ** 2 * samples.dt[i] / stretch / 3
            for b, j in enumerate(rows):
                total = total + inputs.weights[i] * inputs.weights[j] * (s[a] - s[b]).abs()
    (expected,) = torch.autograd.grad(total / 4, sigmas, retain_graph=True)
    actual = loss_terms.distortion(inputs)
    (gradient,) = torch.autograd.grad(actual, sigmas)
    assert max(map(float, u)) > 1 or samples.t.max() > size  # the far branch is met
    torch.testing.assert_close(actual.double(), total / 4, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_depth_and_transmittance_are_the_sums_along_each_ray() -> None:
    samples, sigmas = random_samples([4, 0, 3])
    inputs = inputs_of(torch.zeros(3, 4), samples=samples, sigmas=sigmas)
    for ray in range(3):
        light, mean = 1.0, 0.0
        for i in (samples.ray_indices == ray).nonzero()[:, 0].tolist():
            assert float(inputs.trans[i]) == pytest.approx(light, rel=1e-5)
            alpha = 1 - math.exp(-(sigmas[i] * samples.dt[i]).item())
            mean += light * alpha * float(samples.t[i])
            light *= 1 - alpha
        assert float(inputs.depth[ray]) == pytest.approx(mean / max(1 - light, 1e-6), rel=1e-5)


def test_places_are_in_occupied_cells() -> None:
    model = random_model(2)
    nodes = torch.tensor([0, 3, 3])
    node, local = places(model, nodes, 50, torch.Generator().manual_seed(0))
    assert node.tolist() == [0] * 50 + [3] * 100
    cell = (local * 32).long()
    index = (cell[:, 2] * 32 + cell[:, 1]) * 32 + cell[:, 0]
    assert (model.occupancy[node, index // 32] >> index % 32 & 1).bool().all()


@pytest.mark.parametrize("background", [False, True])
def test_a_place_is_the_same_in_the_parents_grid(background: bool) -> None:
    model = random_model(2, background=background)
    octree, node = model.octree, torch.arange(1, model.octree.n_nodes)
    local = torch.rand(len(node), 3)
    parent, there = in_parent(model, node, local)
    for n, p, a, b in zip(node.tolist(), parent.tolist(), local, there, strict=True):
        assert p == int(octree.parent[n])
        world = octree.corner[n] + a * octree.size(octree.level[n])
        cube = 2 * (b - 0.25) if background and p == 0 else b
        torch.testing.assert_close(octree.corner[p] + cube * octree.size(octree.level[p]), world, rtol=0, atol=1e-4)


def test_consistency_is_the_mean_over_each_parent_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen through the places that it asks for: eight of the child, in the octants of a cell around the parent's."""
    model = random_model(1, half=False)
    asked: list[PackedSamples] = []
    answers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def field(self: TorchSampling, samples: PackedSamples, directions: torch.Tensor):
        asked.append(samples)
        answers.append(self.model.field(samples.node, samples.local, directions))
        return answers[-1]

    monkeypatch.setattr(TorchSampling, "field", field)
    inputs = inputs_of(torch.zeros(1, 4), model=model)
    loss = loss_terms.consistency(inputs)
    n, octree = loss_terms.NODES * loss_terms.PLACES, model.octree
    (samples,), ((sigmas, rgb),) = asked, answers
    expected = 0.0
    size = octree.size(octree.level)
    world = octree.corner[samples.node] + samples.local * size[samples.node][:, None]
    for i in range(0, n, 7):
        parent, children = int(samples.node[i]), slice(n + 8 * i, n + 8 * i + 8)
        gsd = float(size[parent]) / model.config.resolution
        assert (octree.parent[samples.node[children]] == parent).all()
        offset = (world[children] - world[i]) / gsd
        assert float(offset.abs().max()) <= 0.5 + 1e-3
        assert len({tuple(row) for row in (offset > 0).tolist()}) == 8
        alpha = [1 - math.exp(-sigmas[j].item() * gsd) for j in [i, *range(children.start, children.stop)]]
        rows = [i, *range(children.start, children.stop)]
        seen = np.array([[*(a * rgb[j].detach().numpy()), a] for a, j in zip(alpha, rows, strict=True)])
        expected += float(np.square(seen[0] - seen[1:].mean(0)).mean())
    every = len(range(0, n, 7))
    assert float(loss.detach()) == pytest.approx(expected / every, rel=0.2)  # a seventh of the places
    loss.backward()
    touched = torch.cat(inputs.nodes).unique()
    assert model.mlp.grad is not None
    assert model.mlp.grad.abs().sum(1).nonzero()[:, 0].tolist() == touched.tolist()


def test_transparency_is_the_opacity_of_a_gsd() -> None:
    model = random_model(1, half=False)
    inputs = inputs_of(torch.zeros(1, 4), model=model, seed=5)
    loss = loss_terms.transparency(inputs)
    generator = torch.Generator().manual_seed(5)
    nodes = torch.randint(model.octree.n_nodes, (loss_terms.NODES,), generator=generator)
    node, local = places(model, nodes, loss_terms.POINTS, generator)
    sigmas, _ = model.field(node, local, torch.tensor([[0.0, 0.0, 1.0]]).expand(len(node), 3))
    gsd = 8 / 2.0 ** model.octree.level[node] / 32
    assert float(loss.detach()) == pytest.approx((1 - torch.exp(-sigmas * gsd)).mean().item(), rel=1e-4)
    assert torch.cat(inputs.nodes).tolist() == nodes.unique().tolist()


def test_points_behind_nearer_ones_are_not_seen() -> None:
    camera = Camera(np.eye(4), 100, 100, 50, 40, 100, 80)
    rng = np.random.default_rng(0)
    wall = np.stack([rng.uniform(-2, 0, 2000), rng.uniform(-2, 2, 2000), np.full(2000, 5.0)], 1)  # the left half
    back = np.stack([rng.uniform(-4, 4, 2000), rng.uniform(-3, 3, 2000), np.full(2000, 10.0)], 1)
    rows, pixels = seen_points(camera, np.concatenate([wall, back, [[0, 0, -3.0]]]))
    assert (pixels >= 0).all()
    assert (pixels < (100, 80)).all()
    hidden = np.flatnonzero((back[:, 0] / back[:, 2] < -0.05) & (np.abs(back[:, 0] / back[:, 2]) < 0.35)
                            & (np.abs(back[:, 1] / back[:, 2]) < 0.3)) + 2000  # fmt: skip
    free = np.flatnonzero(back[:, 0] / back[:, 2] > 0.1) + 2000
    assert not np.isin(hidden, rows).any()
    inside = np.isin(free, rows).mean()
    assert inside > 0.95
    assert 4000 not in rows


def test_depth_is_what_passes_and_what_stops_before(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(0, half=False)
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-3, 3, (200, 3)) * (1, 1, 0.2)
    points = PointCloud(xyz, np.zeros((200, 3), np.uint8), np.full(200, 0.02))
    blank = inputs_of(torch.zeros(320, 4), model=model)
    assert float(loss_terms.depth(blank)) == 0  # no points, no cameras
    inputs = replace(blank, cameras=[view_camera()], points=points, generator=torch.Generator().manual_seed(3))
    cast: list[tuple[PackedSamples, torch.Tensor, torch.Tensor]] = []
    rays: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(self: LossInputs, origins: torch.Tensor, directions: torch.Tensor, cones: torch.Tensor):
        rays.append((origins, directions))
        counters = torch.randint(1 << 31, (len(cones),), generator=self.generator)
        samples = model.march(model.to_local(origins), directions, cones, counters, MarchSettings())
        cast.append((samples, *model.field(samples.node, samples.local, directions[samples.ray_indices])))
        return cast[-1]

    monkeypatch.setattr(LossInputs, "cast", note)
    loss = loss_terms.depth(inputs)
    (origins, directions), (samples, sigmas, _) = rays[0], cast[0]
    target = torch.from_numpy(xyz).float()
    expected, cone = [], math.sqrt(1 / (view_camera().fx ** 2 * math.pi))
    for ray in range(len(origins)):
        along = ((target - origins[ray]) * directions[ray]).sum(1)
        miss = (target - origins[ray] - along[:, None] * directions[ray]).norm(dim=1)
        assert float(miss.min()) < 1e-4  # the ray meets a point
        distance = float(along[miss.argmin()])
        local = ((directions[ray] @ torch.from_numpy(view_camera().c2w[:3, :3]).float())[2]).item()
        slack = 8 * max(0.02, distance * cone * local**1.5)
        light, before, until = 1.0, 0.0, 0.0
        for i in (samples.ray_indices == ray).nonzero()[:, 0].tolist():
            alpha = 1 - math.exp(-(sigmas[i] * samples.dt[i]).item())
            before += light * alpha * (samples.t[i].item() < distance - slack)
            until += light * alpha * (samples.t[i].item() < distance + slack)
            light *= 1 - alpha
        expected.append(1 - until + 1 - (1 - before**2) ** 2)
    assert len(expected) == 20
    assert float(loss.detach()) == pytest.approx(np.mean(expected), rel=1e-3)
    loss.backward()
    assert model.tables.grad is not None
    assert float(model.tables.grad.abs().sum()) > 0


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("city") / "city"
    make_city(out, blocks=1, views=6, size=(48, 32), seed=4, test_views=2, workers=1, supersample=1)
    return out


def run(city: Path, losses: LossConfig, steps: int, points: bool = True) -> tuple[Trainer, list[dict[str, float]]]:
    config = TrainerConfig(
        samples_per_step=1 << 13, max_bytes=400_000, steps=steps, losses=losses, octree_growth_schedule=()
    )
    data = load_dataset(city)
    trainer = Trainer(InfNeRF(SMALL), data if points else replace(data, points=None), config)
    return trainer, [trainer.step(i / steps).parts for i in range(steps)]


def test_all_terms_together_step_every_node_that_they_touch(city: Path) -> None:
    trainer, parts = run(city, LossConfig(1.0, 0.1, 0.1, 0.1, 0.1), 8)
    assert list(parts[0]) == ["rgb", "consistency", "transparency", "distortion", "depth"]
    assert all(value > 0 for part in parts for value in part.values())
    for parameter in (trainer.model.tables, trainer.model.mlp):
        assert parameter.grad is not None
        assert not parameter.grad.any()  # stepped and cleared


@pytest.mark.parametrize("name", loss_terms.TERMS)
def test_a_term_lowers_what_it_measures(name: str) -> None:
    model = random_model(4, half=False, density_shift=-2.0)
    sampling, _ = make_sampling(model)
    adam = NodeAdam(model, AdamConfig(), sampling.kernels)
    rng = np.random.default_rng(0)
    camera, n = view_camera(), 128
    xyz = rng.uniform(-3, 3, (500, 3)) * (1, 1, 0.2)
    points = PointCloud(xyz, np.zeros((500, 3), np.uint8), np.full(500, 0.02))
    rays = camera.pixel_rays(rng.random(n) * camera.width, rng.random(n) * camera.height)
    origins, directions, cones = (torch.from_numpy(np.array(array)).float() for array in rays)
    blank = inputs_of(torch.zeros(n, 4), model=model)
    values = []
    for _ in range(12):
        generator = torch.Generator().manual_seed(7)  # the same places in every step
        inputs = replace(blank, sampling=sampling, cameras=[camera], points=points, generator=generator, nodes=[])
        samples, sigmas, rgb = inputs.cast(origins, directions, cones)
        loss = loss_terms.TERMS[name](replace(inputs, samples=samples, sigmas=sigmas, rgb=rgb))
        loss.backward()
        adam.step(torch.cat(inputs.nodes).unique())
        values.append(float(loss.detach()))
    assert values[-1] < 0.9 * values[0], values


def test_a_loss_of_ones_own_is_called_and_named(city: Path) -> None:
    seen: list[float] = []

    def brightness(inputs: LossInputs) -> torch.Tensor:
        seen.append(inputs.depth.mean().item())
        return inputs.prediction[:, :3].mean()

    trainer, parts = run(city, LossConfig(custom=(("brightness", brightness, 0.5),)), 12, points=False)
    assert len(seen) == 12
    assert seen[0] > 0
    assert list(parts[0]) == ["rgb", "brightness"]
    assert parts[0]["brightness"] > 0
    record = trainer.step(0.9)
    assert record.loss == pytest.approx(sum(record.parts.values()))


def test_terms_of_weight_0_are_not_computed() -> None:
    def fails(_: LossInputs) -> torch.Tensor:
        raise AssertionError("computed")

    terms = dict.fromkeys(loss_terms.TERMS, fails)
    config = LossConfig(custom=(("mine", fails, 0.0),))
    assert list(total_loss(inputs_of(torch.ones(2, 4)), config, terms)[1]) == ["rgb"]
    with pytest.raises(AssertionError, match="computed"):
        total_loss(inputs_of(torch.ones(2, 4)), replace(config, depth=0.1), terms)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"depth": -1.0}, "weight of depth must be a number of at least 0, got -1.0"), ({"rgb": 0.0}, "at least one"),
     ({"rgb": float("nan")}, "weight of rgb"), ({"custom": (("depth", len, 1.0),)}, "found 'depth' twice"),
     ({"rgb_form": "l1"}, "l2 or charbonnier, got 'l1'")],
)  # fmt: skip
def test_weights_that_are_none_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossConfig(**changes)


def test_samples_at_are_what_the_field_takes() -> None:
    model = random_model(0, half=False)
    node, local = torch.tensor([4, 0]), torch.rand(2, 3)
    samples = samples_at(model, node, local)
    assert samples.level.tolist() == model.octree.level[node].tolist()
    assert samples.ray_indices.tolist() == [0, 1]
