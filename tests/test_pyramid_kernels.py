"""The kernels of a pyramid against their torch twins: pixels, samples, hash grids, gradients; the wavefront."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_cupy import FakeCupy
from pictures import assert_same_pictures
from random_models import view_camera
from random_pyramids import VARIETIES, random_pyramid

from infnerf.models.marching import MarchSettings
from infnerf.models.pynerf import PyNeRF
from infnerf.renderer.cpu_executor import CpuExecutor
from infnerf.renderer.cuda_executor import CudaExecutor
from infnerf.renderer.executors import make_executor
from infnerf.renderer.frame import CHANNELS, FrameBuffers, RenderRequest
from infnerf.renderer.gpu_driver import GpuDriver
from infnerf.renderer.kernels import FieldSamplesStruct, SceneArrays, load_kernels, pointer
from infnerf.renderer.pyramid_kernels import PyramidKernels
from infnerf.renderer.torch_executor import TorchExecutor

REQUESTS = (
    {"lod_bias": -2.0}, {"frame": 5, "lod_bias": -1.0}, {"min_level": 2}, {"max_level": 1}, {"step_scale": 2.0}, {},
    {"lod_bias": -3.0, "frame": 2},
)  # fmt: skip


def render(executor, **request) -> FrameBuffers:
    camera = request.pop("camera", None) or view_camera(48, 36, distance=6.0)
    out = FrameBuffers.allocate(camera.width, camera.height)
    executor.render(RenderRequest(camera, **request), out)
    return out


@pytest.mark.parametrize("variety", range(len(VARIETIES)))
def test_cpu_and_torch_executors_agree(variety: int) -> None:
    model = random_pyramid(variety, **VARIETIES[variety])
    for request in (REQUESTS[variety], {"lod_bias": -1.5}):
        expected = render(TorchExecutor(model), **request)
        assert expected.samples.sum() > 1000
        assert_same_pictures(expected, render(CpuExecutor(model), **request))
        assert_same_pictures(expected, render(CpuExecutor(model, plain=True), **request))


@pytest.mark.parametrize("variety", [0, 1, 2, 6])
def test_the_wavefront_takes_the_samples_of_one_thread_a_ray(variety: int) -> None:
    model, cupy = random_pyramid(variety, **VARIETIES[variety]), FakeCupy()
    camera = view_camera(45, 29, distance=6.0)
    pictures = []
    for executor in (CpuExecutor(model, plain=True), CudaExecutor(model, driver=GpuDriver(cupy))):
        out = FrameBuffers.allocate(45, 29)
        request = RenderRequest(camera, frame=variety, lod_bias=-1.5)
        stats = executor.render(request, out)
        assert stats.samples == int(out.samples.sum())
        pictures.append((out, stats))
    (expected, plain), (actual, wave) = pictures
    for name in CHANNELS:
        np.testing.assert_allclose(getattr(actual, name), getattr(expected, name), rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(plain.node_samples, wave.node_samples)
    assert [options[-1] for options in cupy.compiled].count("-DPYRAMID=1") == 2  # wave.cu, shade.cu; not for normals
    assert "shade_tiles" in cupy.launched
    assert "shade_tiles_mma" not in cupy.launched  # tensor cores hold no pyramid


def test_channels_show_levels_of_the_pyramid() -> None:
    model = random_pyramid(0, patches=False)
    near, far = render(CpuExecutor(model)), render(CpuExecutor(model), lod_bias=-9.0)
    seen = far.color[..., 3] > 0.5
    assert seen.mean() > 0.2
    assert float(far.level[seen].max()) < 1e-6  # wider than the coarsest head's cells
    assert float(far.clamped[seen].max()) == 0
    assert float(near.level[seen].max()) < 3 + 1e-5
    assert float(near.clamped[seen].mean()) > 0.9  # finer is asked than the finest head
    between = render(CpuExecutor(model), lod_bias=-3.5)
    level = between.level[seen]
    assert 0.2 < float(level.mean()) < 2.8
    assert float(np.abs(level - level.round()).mean()) > 0.05  # levels are between heads
    assert float(np.abs(between.gsd_ratio[seen]).max()) < 8


def test_heads_that_help_are_counted() -> None:
    model = random_pyramid(0)
    for executor in (CpuExecutor(model), TorchExecutor(model)):
        out = FrameBuffers.allocate(32, 24)
        camera = view_camera(32, 24, distance=6.0)
        stats = executor.render(RenderRequest(camera, min_level=1, max_level=2, lod_bias=-2.0), out)
        assert stats.node_samples is not None
        assert stats.node_samples[0] == 0
        assert stats.node_samples[1] > 0
        assert stats.node_samples[2] > 0
        assert stats.samples == int(out.samples.sum()) < stats.node_samples.sum()


def rays(model: PyNeRF, n: int = 300):
    rng = np.random.default_rng(0)
    o, d, cone = view_camera(distance=6.0).pixel_rays(rng.random(n) * 96, rng.random(n) * 64)
    cone = cone * 10 ** rng.uniform(0, 1.5, n)
    origins = model.to_local(torch.from_numpy(o.copy())).float()
    return origins, torch.from_numpy(d).float(), torch.from_numpy(cone).float(), torch.arange(n)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("variety", [0, 4, 6])
def test_marching_takes_the_twins_samples(variety: int, plain: bool) -> None:
    model = random_pyramid(variety, half=False, **VARIETIES[variety])
    settings = MarchSettings(frame=2 * variety)
    expected = model.march(*rays(model), settings, within_trained=False)
    actual = PyramidKernels(model, plain).march(*rays(model), settings)
    counts = [torch.bincount(s.ray_indices, minlength=300) for s in (expected, actual)]
    same = counts[0] == counts[1]
    assert float(same.float().mean()) > 0.99
    a, b = (s.select(same[s.ray_indices.long()]) for s in (expected, actual))
    assert len(a) > 2000
    assert a.level.dtype == b.level.dtype == torch.float32
    torch.testing.assert_close(a.t, b.t, rtol=2e-5, atol=1e-5)
    torch.testing.assert_close(a.level, b.level, rtol=0, atol=2e-5)
    torch.testing.assert_close(a.wanted, b.wanted, rtol=0, atol=2e-5)
    assert float((a.node == b.node).float().mean()) > 0.999


@pytest.mark.parametrize("variety", range(len(VARIETIES)))
@pytest.mark.parametrize("plain", [False, True])
def test_field_and_its_gradients_are_the_twins(variety: int, plain: bool) -> None:
    model = random_pyramid(variety, half=False, **VARIETIES[variety])
    kernels = PyramidKernels(model, plain)
    origins, directions, cones, counters = rays(model, 60)
    samples = kernels.march(origins, directions, cones, counters, MarchSettings())
    rng = torch.Generator().manual_seed(0)
    d_sigma, d_rgb = torch.randn(len(samples), generator=rng), torch.randn(len(samples), 3, generator=rng)
    results = []
    for field in (
        lambda: model.answer(samples, directions[samples.ray_indices.long()]),
        lambda: kernels.field(samples, directions),
    ):
        model.zero_grad()
        sigma, rgb = field()
        torch.autograd.backward([sigma, rgb], [d_sigma, d_rgb])
        results.append([sigma.detach(), rgb.detach(), model.tables.grad, model.mlp.grad])
    for expected, actual in zip(*results, strict=True):
        assert expected is not None
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("variety", range(len(VARIETIES)))
@pytest.mark.parametrize("plain", [0, 1])
def test_what_renders_samples_is_the_field(variety: int, plain: int) -> None:
    """`field_forward`, which shades as the executors do, MLPs included."""
    model = random_pyramid(variety, half=False, **VARIETIES[variety])
    generator = torch.Generator().manual_seed(0)
    n, n_nodes = 301, model.octree.n_nodes
    level = (torch.rand(n, generator=generator) * (n_nodes - 1)).sort().values
    level[:5] = 0
    local = torch.rand(n, 3, generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)
    starts = torch.cat([torch.zeros(1), torch.bincount(level.long(), minlength=n_nodes).cumsum(0)]).int()
    arrays = {
        "local": local, "ray_indices": torch.arange(n, dtype=torch.int32), "directions": directions,
        "order": torch.arange(n, dtype=torch.int32), "starts": starts, "sigma": torch.full((n,), torch.nan),
        "rgb": torch.full((n, 3), torch.nan), "level": level.view(torch.int32),
    }  # fmt: skip
    struct = FieldSamplesStruct(**{name: pointer(array) for name, array in arrays.items()})
    scene, nodes = SceneArrays(model, float_tables=True), torch.arange(n_nodes, dtype=torch.int32)
    load_kernels().library.field_forward(scene.address, ctypes.addressof(struct), pointer(nodes), n_nodes, 0, plain)
    sigma, rgb = (x.detach() for x in model.field(level, local, directions))
    torch.testing.assert_close(arrays["sigma"], sigma, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(arrays["rgb"], rgb, rtol=1e-4, atol=1e-5)


def test_gradients_do_not_depend_on_who_computes_them() -> None:
    model = random_pyramid(2, half=False, **VARIETIES[2])
    gradients = []
    for _ in range(3):
        kernels = PyramidKernels(model)
        samples = kernels.march(*rays(model, 40), MarchSettings())
        model.zero_grad()
        sigma, rgb = kernels.field(samples, rays(model, 40)[1])
        (sigma.sum() + rgb.sum()).backward()
        assert model.tables.grad is not None
        gradients.append(model.tables.grad.clone())
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


def test_auto_renders_a_pyramid_and_refusals_name_it() -> None:
    model = random_pyramid(0)
    executor, why = make_executor("auto", model)
    assert executor.name == "cpu", why
    trainable = random_pyramid(0, half=False)
    kernels = PyramidKernels(trainable)
    samples = kernels.march(*rays(trainable, 4), MarchSettings())
    with pytest.raises(ValueError, match="a PyNeRF has no appearance"):
        kernels.field(samples, rays(trainable, 4)[1], torch.zeros(4, 2))
    empty = kernels.march(*(x[:0] for x in rays(trainable, 4)), MarchSettings())
    assert [len(part) for part in kernels.field(empty, torch.zeros(0, 3))] == [0, 0]
    assert len(replace(empty)) == 0
