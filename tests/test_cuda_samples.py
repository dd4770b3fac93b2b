"""The CUDA kernels of training against their twins: samples, field, compositing, Adam, and all gradients.

On the stand-in for CuPy (blocks one after the other, on the host), and with a GPU the same on that. Sums over samples
are atomic on a GPU, so gradients are held to a tolerance. What kernels write is poisoned first.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from fake_cupy import FakeCupy, host_launcher
from random_models import random_model
from test_kernels import SHAPES, rays
from torch import Tensor

from infnerf.models.infnerf import InfNeRF
from infnerf.models.marching import MarchSettings, PackedSamples
from infnerf.models.volume import composite
from infnerf.renderer import cuda_samples
from infnerf.renderer.cuda_samples import Buckets, CudaSampleKernels
from infnerf.renderer.gpu_errors import GpuMemoryError, LaunchError
from infnerf.renderer.kernels import AdamStruct, pointer
from infnerf.renderer.sample_kernels import SampleKernels
from infnerf.training.optimizer import AdamConfig, NodeAdam
from infnerf.training.sampling import TorchSampling, gpu_kernels, make_sampling

PLACES = ["host", pytest.param("cuda", marks=pytest.mark.gpu)]
N_RAYS = 200


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    make = torch.empty

    def empty(*size: Any, **options: Any) -> Tensor:
        made = make(*size, **options)
        return made.fill_(float("nan") if made.is_floating_point() else -(2**30))

    monkeypatch.setattr(torch, "empty", empty)


def kernels_on(place: str, model: InfNeRF, fake: FakeCupy | None = None) -> CudaSampleKernels:
    """Of a copy of the model."""
    model = copy.deepcopy(model)
    return CudaSampleKernels(model, host_launcher(fake)) if place == "host" else CudaSampleKernels(model.to("cuda"))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("shape", "frame"), [(0, 0), (0, 3), (4, 0), (4, 3), (5, 2)])
def test_marching_takes_the_cpu_kernels_samples(place: str, shape: int, frame: int) -> None:
    """On the host bit for bit; a GPU contracts multiply and add, so that some samples fall beyond a border."""
    model = random_model(5, half=False, **SHAPES[shape])
    settings = MarchSettings(frame=frame, lod_bias=0.5, step_scale=1.5)
    expected = SampleKernels(model, plain=True).march(*rays(model), settings)
    actual = kernels_on(place, model).march(*rays(model), settings)
    actual = PackedSamples(**{name: values.cpu() for name, values in vars(actual).items()})
    assert len(expected) > 3000
    assert actual.ray_indices.dtype == torch.int32
    if place == "host":
        for name, values in vars(expected).items():
            assert torch.equal(getattr(actual, name), values), name
        return
    counts = [torch.bincount(samples.ray_indices, minlength=500) for samples in (expected, actual)]
    same = counts[0] == counts[1]
    assert float(same.float().mean()) > 0.99
    a, b = (samples.select(same[samples.ray_indices.long()]) for samples in (expected, actual))
    torch.testing.assert_close(a.t, b.t, rtol=2e-5, atol=1e-5)
    assert float((a.node == b.node).float().mean()) > 0.999


def test_a_limit_and_rays_that_miss_are_kept_to() -> None:
    model = random_model(1, half=False)
    origins, directions, cones, counters = rays(model)
    directions = torch.where((torch.arange(500) % 3 == 0)[:, None], -directions, directions)
    samples = [
        sampling.march(origins, directions, cones, counters, MarchSettings(), 2)
        for sampling in (SampleKernels(model, plain=True), kernels_on("host", model))
    ]
    for name, values in vars(samples[0]).items():
        assert torch.equal(getattr(samples[1], name), values), name
    assert set(torch.bincount(samples[1].ray_indices, minlength=500).tolist()) == {0, 1, 2}


def some_samples(model: InfNeRF, n: int = N_RAYS) -> tuple[PackedSamples, Tensor]:
    origins, directions, cones, counters = rays(model, n)
    return SampleKernels(model).march(origins, directions, cones, counters, MarchSettings()), directions


def differentiated(
    sampling: Any, samples: PackedSamples, directions: Tensor, appearance: Tensor | None
) -> list[Tensor]:
    """sigma, rgb and the gradients of tables, MLPs and appearance under fixed cotangents, on the host, float32."""
    rng, model = torch.Generator().manual_seed(0), sampling.model
    d_sigma, d_rgb = torch.randn(len(samples), generator=rng), torch.randn(len(samples), 3, generator=rng)
    d_sigma[::3], d_rgb[::3] = 0, 0  # samples without a gradient are left out
    device = model.tables.device
    samples = PackedSamples(**{name: values.to(device) for name, values in vars(samples).items()})
    own = None if appearance is None else appearance.detach().to(device).requires_grad_()
    sigma, rgb = sampling.field(samples, directions.to(device), own)
    model.zero_grad()
    torch.autograd.backward([sigma, rgb], [d_sigma.to(sigma), d_rgb.to(sigma)])
    results = [sigma, rgb, model.tables.grad, model.mlp.grad, *([] if own is None else [own.grad])]
    return [result.detach().float().cpu() for result in results]


class Float64(TorchSampling):
    """The reference: torch's gradients in double precision."""

    def field(self, samples: PackedSamples, directions: Tensor, appearance: Tensor | None = None) -> Any:
        rows = samples.ray_indices
        own = None if appearance is None else appearance[rows].double()
        return self.model.field(samples.node.long(), samples.local.double(), directions[rows].double(), own)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("appearance_dim", [0, 5])
@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_field_and_its_gradients_are_torchs(place: str, shape: int, appearance_dim: int) -> None:
    model = random_model(shape, half=False, appearance_dim=appearance_dim, **SHAPES[shape])
    samples, directions = some_samples(model)
    appearance = torch.randn(N_RAYS, appearance_dim) if appearance_dim else None
    expected = differentiated(Float64(model), samples, directions, appearance)
    actual = differentiated(kernels_on(place, model), samples, directions, appearance)
    assert len(samples) > 1500
    for wanted, found in zip(expected, actual, strict=True):
        largest = float(wanted.abs().max())
        off = (found - wanted).abs() > 1e-4 * wanted.abs() + 2e-5 * largest
        assert float(off.float().mean()) < 1e-3  # a hidden unit so near zero that rounding decides if it passes
        torch.testing.assert_close(found, wanted, rtol=0, atol=0.1 * largest)


def test_the_order_of_blocks_and_the_size_of_slices_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(0, half=False)
    samples, directions = some_samples(model)
    fake = FakeCupy()
    expected = differentiated(kernels_on("host", model, fake), samples, directions, None)
    launches = fake.launched.count("train_weight_gradients")
    backwards = FakeCupy()
    backwards.backwards = True
    monkeypatch.setattr(cuda_samples, "TILES_AT_ONCE", 3)
    actual = differentiated(kernels_on("host", model, backwards), samples, directions, None)
    assert launches == 1
    assert backwards.launched.count("train_weight_gradients") > 10
    for i, (wanted, found) in enumerate(zip(expected, actual, strict=True)):
        if i < 2:
            assert torch.equal(found, wanted)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6 * float(wanted.abs().max()))


def test_gradients_add_up_and_only_touched_nodes_get_any() -> None:
    model = random_model(0, half=False)
    samples, directions = some_samples(model)
    kernels = kernels_on("host", model)
    differentiated(kernels, samples, directions, None)
    assert kernels.model.mlp.grad is not None
    once = kernels.model.mlp.grad.clone()
    untouched = torch.bincount(samples.node, minlength=model.octree.n_nodes) == 0
    assert untouched.any()
    assert not once[untouched].any()
    sigma, rgb = kernels.field(samples, directions)
    rng = torch.Generator().manual_seed(0)
    d_sigma, d_rgb = torch.randn(len(samples), generator=rng), torch.randn(len(samples), 3, generator=rng)
    d_sigma[::3], d_rgb[::3] = 0, 0
    torch.autograd.backward([sigma, rgb], [d_sigma, d_rgb])
    torch.testing.assert_close(kernels.model.mlp.grad, 2 * once)


def test_samples_without_a_gradient_are_in_no_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(0, half=False)
    samples, directions = some_samples(model)
    bucketed: list[Tensor] = []
    make = Buckets.of
    monkeypatch.setattr(Buckets, "of", lambda node, n: make(bucketed.append(node) or node, n))
    differentiated(kernels_on("host", model), samples, directions, None)
    forward, backward = bucketed
    assert torch.equal(forward, samples.node)
    without = torch.arange(len(samples)) % 3 == 0
    assert torch.equal(backward, torch.where(without, model.octree.n_nodes, samples.node))


@pytest.mark.parametrize("n_nodes", [1, 3, 300])
@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 1000])
def test_buckets_hold_every_sample_once_and_tiles_cover_them(n: int, n_nodes: int) -> None:
    node = torch.randint(n_nodes + 1, (n,), generator=torch.Generator().manual_seed(n))  # n_nodes: left out
    buckets = Buckets.of(node, n_nodes)
    counts = torch.bincount(node, minlength=n_nodes + 1)[:n_nodes]
    assert buckets.starts.tolist() == [0, *counts.cumsum(0).tolist()]
    taken = buckets.order[: int(counts.sum())].long()
    assert torch.equal(node[taken], node[node < n_nodes].sort().values)
    covered = []
    for owner, first in buckets.tiles.tolist():
        covered += range(first, min(first + 64, int(buckets.starts[owner + 1])))
    assert covered == list(range(len(taken)))


@pytest.mark.parametrize("place", PLACES)
def test_compositing_and_its_gradients_are_torchs(place: str) -> None:
    model = random_model(0, half=False)
    samples, _ = some_samples(model)
    kernels = kernels_on(place, model)
    rng = torch.Generator().manual_seed(0)
    sigma = (torch.rand(len(samples), generator=rng) * 20).requires_grad_()
    rgb = torch.rand(len(samples), 3, generator=rng).requires_grad_()
    cotangent = torch.randn(N_RAYS, 4, generator=rng)
    moved = PackedSamples(**{name: values.to(kernels.device) for name, values in vars(samples).items()})
    results = []
    for rgba in (
        composite(sigma, rgb, samples.dt, samples.ray_indices, N_RAYS, 1e-2),
        kernels.composite(sigma.to(kernels.device), rgb.to(kernels.device), moved, N_RAYS, 1e-2).cpu(),
    ):
        gradients = torch.autograd.grad(rgba, [sigma, rgb], cotangent)
        results.append((rgba.detach(), *gradients))
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_adam_is_torchs(place: str) -> None:
    models = [random_model(3, half=False, level_table_sizes=(1024, 64, 256)) for _ in range(2)]
    models[1] = kernels_on(place, models[1]).model
    launcher = kernels_on(place, models[1]).kernels
    nodes = torch.arange(0, models[0].octree.n_nodes, 2)
    config, rng = AdamConfig(level_rate=0.5, clip=1.0), torch.Generator().manual_seed(0)
    gradients = [[torch.randn(p.shape, generator=rng) for p in models[0].parameters()] for _ in range(3)]
    for model, kernels in zip(models, (None, launcher), strict=True):
        adam = NodeAdam(model, config, kernels)
        unused = torch.arange(1024) >= model.table_sizes(torch.arange(model.octree.n_nodes))[:, None]  # type: ignore[index]
        for step in range(3):
            for parameter, gradient in zip(model.parameters(), gradients[step], strict=True):
                parameter.grad = gradient.clone().to(parameter.device)
            assert model.tables.grad is not None
            model.tables.grad[unused[:, None, :, None].expand(model.tables.shape)] = 0
            adam.step(nodes, factor=0.3, tied=step == 1)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-5, atol=1e-6)


def test_rows_beyond_a_grids_height_are_stepped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infnerf.renderer.torch_launch.ADAM_ROWS", 2)
    value, gradient = torch.zeros(7, 600), torch.ones(7, 600)
    mean, square = torch.zeros(2, 7, 600).unbind(0)
    rows = AdamStruct(*map(pointer, (value, gradient, mean, square)), 600, 300, 0.9, 0.99, 1e-15)
    numbers, used = torch.tensor([6, 0, 2, 3, 5], dtype=torch.int32), torch.full((5,), 290, dtype=torch.int32)
    host_launcher().adam_rows(rows, numbers, torch.full((5,), 0.5), torch.ones(5), used)
    stepped = torch.zeros(7, 600, dtype=torch.bool)
    stepped[numbers.long()] = (torch.arange(600) % 300 < 290)[None]
    assert torch.equal(value < 0, stepped)
    assert torch.equal(gradient == 0, stepped)


@pytest.mark.parametrize("place", PLACES)
def test_nothing_comes_of_nothing(place: str) -> None:
    model = random_model(0, half=False)
    kernels = kernels_on(place, model)
    samples = kernels.march(*(values[:0] for values in rays(model)), MarchSettings())
    sigma, rgb = kernels.field(samples, torch.zeros(0, 3))
    rgba = kernels.composite(sigma, rgb, samples, 5, 0.0)
    assert (len(samples), tuple(sigma.shape), tuple(rgb.shape)) == (0, (0,), (0, 3))
    assert rgba.tolist() == [[0.0] * 4] * 5
    rgba.sum().backward()
    assert kernels.model.mlp.grad is not None
    assert not kernels.model.mlp.grad.any()


def test_bad_arguments_get_one_sentence() -> None:
    half, model = random_model(0), random_model(0, half=False)
    with pytest.raises(ValueError, match=r"^CudaSampleKernels: parameters must be float32, got torch.float16, .*16$"):
        CudaSampleKernels(half, host_launcher())
    with pytest.raises(ValueError, match=r"^CudaSampleKernels: parameters must be on a CUDA device, got cpu$"):
        CudaSampleKernels(model)
    kernels = kernels_on("host", model)
    samples, directions = some_samples(model)
    with pytest.raises(ValueError, match=r"field: appearance must be \[n_rays, 0\], got \[200, 3\]"):
        kernels.field(samples, directions, torch.zeros(N_RAYS, 3))
    with pytest.raises(LaunchError, match=r"train_composite: expected 3 arguments \(segments, n_rays, rgba\), got 1"):
        kernels.kernels.launch("train_composite", 1, 5)
    with pytest.raises(LaunchError, match=r"^train_composite: tensors must be on cuda:1, got one on cpu$"):
        host_launcher(device="cuda:1").launch("train_composite", 1, torch.zeros(4))
    with pytest.raises(ValueError, match="kernels: arrays must be contiguous"):
        kernels.kernels.launch("train_composite", 1, torch.zeros(4, 4).T, 1, None)


def test_a_gpu_out_of_memory_says_so_and_the_host_takes_the_cpu_kernels() -> None:
    model, fake = random_model(0, half=False), FakeCupy()
    fake.fail_on = "train_march_count"
    with pytest.raises(GpuMemoryError, match=r"^the GPU is out of memory \(train_march_count\)$"):
        kernels_on("host", model, fake).march(*rays(model), MarchSettings())
    assert gpu_kernels(model) is None
    assert isinstance(make_sampling(model)[0], SampleKernels)
