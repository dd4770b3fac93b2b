"""The CPU build of the kernels against their torch twins: pixels, samples, field, compositing, gradients."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from pictures import assert_same_pictures
from random_models import random_model, view_camera

from infnerf.models.infnerf import MAX_LOG_DENSITY
from infnerf.models.marching import MarchSettings
from infnerf.models.volume import composite
from infnerf.renderer.cpu_executor import CpuExecutor
from infnerf.renderer.frame import CHANNELS, FrameBuffers, RenderRequest
from infnerf.renderer.kernels import CUDA_DIR, STRUCTS, load_kernels
from infnerf.renderer.sample_kernels import SampleKernels
from infnerf.renderer.torch_executor import TorchExecutor
from infnerf.training.sampling import TorchSampling

SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {"features_per_level": 4, "n_grid_levels": 4, "hidden_dim": 64, "sh_degree": 4, "geo_dim": 7},
    {"hidden_dim": 16, "sh_degree": 1, "n_grid_levels": 3, "occupancy_resolution": 16},
    {"sh_degree": 3, "table_size": 256, "base_resolution": 2, "geo_dim": 31},
    {"background": True},
    {"level_table_sizes": (1024, 64, 256), "level_hidden_dims": (32, 16)},
)


def render(executor, **request) -> FrameBuffers:
    camera = request.pop("camera", None) or view_camera()
    out = FrameBuffers.allocate(camera.width, camera.height)
    executor.render(RenderRequest(camera, **request), out)
    return out


@pytest.mark.parametrize("seed", range(20))
def test_cpu_and_torch_executors_agree_on_random_models(seed: int) -> None:
    model = random_model(seed, **SHAPES[seed % len(SHAPES)])
    request = [
        {}, {"frame": 5}, {"lod_bias": 1.5}, {"lod_bias": -2.0, "frame": 2}, {"min_level": 2}, {"max_level": 1},
        {"step_scale": 2.0},
    ][seed % 7]  # fmt: skip
    assert_same_pictures(render(TorchExecutor(model), **request), render(CpuExecutor(model), **request))


@pytest.mark.parametrize("seed", range(4))
def test_plain_and_simd_forms_agree(seed: int) -> None:
    model = random_model(seed, **SHAPES[seed])
    assert_same_pictures(render(CpuExecutor(model, plain=True), frame=seed), render(CpuExecutor(model), frame=seed))


def test_pixels_that_differ_are_samples_across_a_border() -> None:
    """In float64 the reference takes sides anew; where cpu and torch differ, a sample sits within rounding of a
    border."""
    model = random_model(3)
    camera = view_camera(160, 120)
    a, b = render(TorchExecutor(model), camera=camera), render(CpuExecutor(model), camera=camera)
    differs = np.abs(a.color - b.color).max(-1) > 2e-3
    assert differs.mean() < 1e-3
    rows, columns = np.nonzero(differs)
    for row, column in zip(rows, columns, strict=True):
        counters = torch.tensor([row * camera.width + column])
        o, d, cone = camera.pixel_rays(np.array([column + 0.5]), np.array([row + 0.5]))
        origin = model.to_local(torch.from_numpy(o.copy()))
        exact = model.march(origin, torch.from_numpy(d), torch.from_numpy(cone), counters, MarchSettings())
        near = model.march(
            origin * (1 + 3e-7), torch.from_numpy(d), torch.from_numpy(cone) * (1 + 3e-6), counters, MarchSettings()
        )
        cells = [torch.stack([s.node, *(s.local * 32).long().unbind(-1)], -1) for s in (exact, near)]
        slack = (exact.local * 32 - (exact.local * 32).round()).abs().min()
        assert cells[0].shape != cells[1].shape or not torch.equal(*cells) or float(slack) < 1e-3


def test_a_region_is_written_alone_and_equals_the_whole() -> None:
    model = random_model(0)
    whole = render(CpuExecutor(model))
    part = FrameBuffers.allocate(96, 64)
    stats = CpuExecutor(model).render(RenderRequest(view_camera(), region=(10, 7, 51, 40)), part)
    assert stats.rays == 41 * 33
    for name in CHANNELS:
        np.testing.assert_array_equal(getattr(part, name)[7:40, 10:51], getattr(whole, name)[7:40, 10:51])
    assert part.color[:7].max() == 0
    assert (part.node[:, :10] == -1).all()


def test_statistics_count_what_the_channels_say() -> None:
    model = random_model(2)
    for executor in (CpuExecutor(model), TorchExecutor(model)):
        out = FrameBuffers.allocate(96, 64)
        stats = executor.render(RenderRequest(view_camera()), out)
        assert stats.node_samples is not None
        assert stats.samples == stats.node_samples.sum() == int(out.samples.sum())
        assert stats.samples > 1000


def test_cancelling_stops_early_and_says_so() -> None:
    model = random_model(0)
    out = FrameBuffers.allocate(512, 384)
    stats = CpuExecutor(model).render(RenderRequest(view_camera(512, 384)), out, lambda: True)
    assert stats.cancelled
    assert out.color[..., 3].mean() < render(CpuExecutor(model), camera=view_camera(512, 384)).color[..., 3].mean()
    assert TorchExecutor(model).render(RenderRequest(view_camera(512, 384)), out, lambda: True).cancelled


def test_frames_are_reproducible_and_jitter_differs_by_frame() -> None:
    executor = CpuExecutor(random_model(1))
    np.testing.assert_array_equal(render(executor, frame=4).color, render(executor, frame=4).color)
    assert np.abs(render(executor, frame=4).color - render(executor, frame=5).color).max() > 1e-3


def test_an_empty_region_and_a_camera_that_looks_away() -> None:
    model = random_model(0)
    camera = view_camera()
    away = camera.moved(camera.c2w @ np.diag([-1.0, 1, -1, 1]))
    for executor in (CpuExecutor(model), TorchExecutor(model)):
        out = FrameBuffers.allocate(96, 64)
        assert executor.render(RenderRequest(camera, region=(5, 5, 5, 9)), out).rays == 0
        executor.render(RenderRequest(away), out)
        assert out.color.max() == 0
        assert (out.node == -1).all()


def rays(model, n: int = 500):
    rng = np.random.default_rng(0)
    o, d, cone = view_camera().pixel_rays(rng.random(n) * 96, rng.random(n) * 64)
    origins = model.to_local(torch.from_numpy(o.copy())).float()
    return origins, torch.from_numpy(d).float(), torch.from_numpy(cone).float(), torch.arange(n)


@pytest.mark.parametrize("frame", [0, 3])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_marching_takes_the_twins_samples(frame: int, plain: bool, background: bool) -> None:
    model = random_model(5, half=False, background=background)
    settings = MarchSettings(frame=frame)
    expected = model.march(*rays(model), settings)
    actual = SampleKernels(model, plain).march(*rays(model), settings)
    counts = [torch.bincount(s.ray_indices, minlength=500) for s in (expected, actual)]
    same = counts[0] == counts[1]
    assert float(same.float().mean()) > 0.995
    a, b = (s.select(same[s.ray_indices.long()]) for s in (expected, actual))
    torch.testing.assert_close(a.t, b.t, rtol=2e-5, atol=1e-5)
    torch.testing.assert_close(a.dt, b.dt, rtol=2e-3, atol=1e-5)
    assert float((a.node == b.node).float().mean()) > 0.999
    assert int((a.dt > 1.9 * a.dt.min()).sum()) > 0  # merged steps in clamped nodes are among them


@pytest.mark.parametrize("appearance_dim", [0, 5])
@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("plain", [False, True])
def test_field_and_its_gradients_are_the_twins(shape: int, plain: bool, appearance_dim: int) -> None:
    model = random_model(shape, half=False, appearance_dim=appearance_dim, **SHAPES[shape])
    kernels = SampleKernels(model, plain)
    origins, directions, cones, counters = rays(model, 200)
    samples = kernels.march(origins, directions, cones, counters, MarchSettings())
    rng = torch.Generator().manual_seed(0)
    d_sigma, d_rgb = torch.randn(len(samples), generator=rng), torch.randn(len(samples), 3, generator=rng)
    d_sigma[::3], d_rgb[::3] = 0, 0  # samples without a gradient take a short cut
    appearance = torch.randn(200, appearance_dim, generator=rng).requires_grad_() if appearance_dim else None
    results = []
    for sampling in (TorchSampling(model), kernels):
        sigma, rgb = sampling.field(samples, directions, appearance)
        model.zero_grad()
        torch.autograd.backward([sigma, rgb], [d_sigma, d_rgb])
        results.append([sigma.detach(), rgb.detach(), model.tables.grad, model.mlp.grad])
        if appearance is not None:
            results[-1].append(appearance.grad)
            appearance.grad = None
    for expected, actual in zip(*results, strict=True):
        assert expected is not None
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-5 * float(expected.abs().max()))


def test_compositing_and_its_gradients_are_the_twins() -> None:
    model = random_model(0, half=False)
    kernels = SampleKernels(model)
    samples = kernels.march(*rays(model), MarchSettings())
    rng = torch.Generator().manual_seed(0)
    sigma = (torch.rand(len(samples), generator=rng) * 20).requires_grad_()
    rgb = torch.rand(len(samples), 3, generator=rng).requires_grad_()
    cotangent = torch.randn(500, 4, generator=rng)
    results = []
    for rgba in (
        composite(sigma, rgb, samples.dt, samples.ray_indices, 500, 1e-2),
        kernels.composite(sigma, rgb, samples, 500, 1e-2),
    ):
        gradients = torch.autograd.grad(rgba, [sigma, rgb], cotangent)
        results.append((rgba.detach(), *gradients))
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_structs_and_constants_have_one_meaning_in_python_and_cuda() -> None:
    library = load_kernels().library
    for i, struct in enumerate(STRUCTS):
        assert library.kernel_struct_size(i) == ctypes.sizeof(struct), struct.__name__
    header = (CUDA_DIR / "scene.cuh").read_text()
    assert f"MAX_LOG_DENSITY = {MAX_LOG_DENSITY}f" in header
    from infnerf.models.contraction import BACKGROUND_STEPS
    from infnerf.models.marching import JITTER_STEP, JITTER_X, JITTER_Y, MAX_STRIDE_LOG2

    assert f"MAX_STRIDE_LOG2 = {MAX_STRIDE_LOG2}" in header
    assert f"BACKGROUND_STEPS = {BACKGROUND_STEPS}" in header
    march, trace = (CUDA_DIR / "march.cuh").read_text(), (CUDA_DIR / "trace.cuh").read_text()
    assert f"{JITTER_STEP:#x}u" in march
    assert f"{JITTER_X:#x}u" in trace
    assert f"{JITTER_Y:#x}u" in trace


def test_loading_the_kernels_leaves_the_floating_point_mode_alone() -> None:
    code = (
        "import threading, numpy as np\n"
        "from infnerf.renderer.kernels import load_kernels\n"
        "def tiny(): return float(np.float32(1e-38) * np.float32(0.01))\n"
        "before = tiny(); load_kernels(); seen = [tiny()]\n"
        "t = threading.Thread(target=lambda: seen.append(tiny())); t.start(); t.join()\n"
        "assert before > 0 and seen == [before, before], (before, seen)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
