"""The wavefront on a real GPU: whole frames against torch, kernels against their twins, lists against numpy, memory.

Everything that kernels write is poisoned first, so that what they leave out shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pictures import assert_same_pictures
from random_models import random_model, view_camera

from infnerf.models.infnerf import InfNeRF
from infnerf.renderer.cpu_executor import CpuExecutor, view_struct
from infnerf.renderer.cuda_executor import CudaExecutor
from infnerf.renderer.frame import CHANNELS, FrameBuffers, RenderRequest, RenderStats
from infnerf.renderer.gpu_buffers import MAX_ROUNDS, MIN_RAYS, TILE_SAMPLES, DeviceBuffers, Plan
from infnerf.renderer.gpu_driver import Arena, GpuDriver
from infnerf.renderer.gpu_frame import RoundCount
from infnerf.renderer.gpu_loader import KERNELS, SHADERS
from infnerf.renderer.kernels import SliceStruct
from infnerf.renderer.normals import fill_normals
from infnerf.renderer.torch_executor import TorchExecutor

pytestmark = pytest.mark.gpu
SIZE = 157, 118  # px: tiles of rays hang over both edges
CASES: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"density_shift": 2.0}, {}),
    ({"background": True}, {"frame": 3}),
    ({"features_per_level": 4, "n_grid_levels": 4, "hidden_dim": 64, "sh_degree": 4}, {"lod_bias": 1.0, "frame": 2}),
    ({"level_table_sizes": (1024, 64, 256), "level_hidden_dims": (32, 16)}, {"region": (9, 3, 140, 101)}),
    ({"hidden_dim": 16, "sh_degree": 1, "n_grid_levels": 3, "geo_dim": 31}, {"early_stop": 0.3}),
)


@pytest.fixture(scope="module")
def driver() -> GpuDriver:
    return GpuDriver()


def poison(driver: GpuDriver, *arenas: Arena) -> None:
    for arena in arenas:
        driver.fill(arena.memory.address, 0xFF, arena.memory.n_bytes)


def rendered(executor: Any, **request: Any) -> tuple[FrameBuffers, RenderStats]:
    camera = request.pop("camera", None) or view_camera(*SIZE)
    out = FrameBuffers.allocate(camera.width, camera.height)
    if isinstance(executor, CudaExecutor):
        buffers = executor.frame.reserve(camera.width * camera.height)
        poison(executor.driver, buffers.image, buffers.wave)
    return out, executor.render(RenderRequest(camera, **request), out)


@pytest.mark.parametrize("shader", SHADERS)
@pytest.mark.parametrize("case", range(len(CASES)))
def test_a_whole_frame_is_torchs(driver: GpuDriver, case: int, shader: str) -> None:
    if KERNELS[shader].architecture > driver.architecture:
        shader = "shade_tiles"
    shape, request = CASES[case]
    model = random_model(case, **shape)
    executor = CudaExecutor(model, driver=driver)
    executor.frame.shader = shader
    expected, actual = rendered(TorchExecutor(model), **request), rendered(executor, **request)
    # Half-precision multipliers on tensor cores: their error is theirs, and is held to its own bound below.
    if shader == "shade_tiles":
        assert_same_pictures(actual[0], expected[0])
    else:
        assert np.quantile(np.abs(actual[0].color - expected[0].color), 0.999) < 5e-3
    assert actual[1].samples == int(actual[0].samples.sum())
    assert actual[1].samples == pytest.approx(expected[1].samples, rel=2e-3)
    assert expected[1].samples > 10_000
    executor.close()


@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_wavefront_is_its_twin_of_one_thread_a_ray(driver: GpuDriver, case: int) -> None:
    shape, request = CASES[case]
    model = random_model(case, **shape)
    executor = CudaExecutor(model, driver=driver)
    executor.frame.shader = "shade_tiles"
    actual, _ = rendered(executor, **request)
    view = view_struct(model, asked := RenderRequest(view_camera(*SIZE), **request))
    buffers = executor.frame.reserve(0)
    poison(driver, buffers.image)
    grid = (-(-SIZE[0] // 8), -(-SIZE[1] // 8))
    driver.fill(buffers.image.address["node_samples"], 0, 4 * model.octree.n_nodes)
    driver.launch("render_frame", grid, executor.frame.scene.struct, view, buffers.out, *asked.bounds)
    executor.frame.normals(view, asked.bounds)
    twin = FrameBuffers.allocate(*SIZE)
    x0, y0, x1, y1 = asked.bounds
    for name, channel in twin.channels().items():
        channel[y0:y1, x0:x1] = (
            downloaded(driver, buffers.image, name, channel.dtype)
            .reshape(-1)[: channel.size]
            .reshape(channel.shape)[y0:y1, x0:x1]
        )
    assert_same_pictures(actual, twin)
    executor.close()


def downloaded(driver: GpuDriver, arena: Arena, name: str, dtype: Any) -> np.ndarray:
    """An array of an arena, whole and flat."""
    host = driver.pinned(4 * arena.words[name])
    size = len(host)
    driver.copy_rows(host.ctypes.data, size, arena.address[name], size, size, 1, to_host=True)
    driver.wait(driver.record())
    return host.view(dtype).copy()


def first_round(driver: GpuDriver, model: InfNeRF) -> tuple[CudaExecutor, DeviceBuffers]:
    """Rays, their first samples, buckets and tiles of a view, on the device."""
    executor = CudaExecutor(model, driver=driver)
    frame, camera = executor.frame, view_camera(*SIZE)
    buffers = frame.reserve(SIZE[0] * SIZE[1])
    poison(driver, buffers.image, buffers.wave)
    begin = SliceStruct(view_struct(model, RenderRequest(camera)), (0, 0, *SIZE), 1)
    driver.launch("wave_begin", frame._grid("wave_begin"), frame.scene.struct, buffers.struct, begin)
    rays = [(name, 0) for name in ("wave_rays", "wave_scan_rays", "wave_compact")]
    for name, number in [*rays, ("wave_march", 1), ("wave_scan_nodes", 1), ("wave_scatter", 1)]:
        driver.launch(name, frame._grid(name), frame.scene.struct, buffers.struct, number)
    return executor, buffers


def test_lists_buckets_and_tiles_are_whole_with_many_threads_at_once(driver: GpuDriver) -> None:
    model = random_model(0)
    executor, buffers = first_round(driver, model)
    array = {
        name: downloaded(driver, buffers.wave, name, np.int32)
        for name in ("counters", "living", "alive", "node", "order", "starts", "tile_starts", "tiles", "node_counts")
    }
    n_rays, n_living = array["counters"][:2]
    alive = np.flatnonzero(array["alive"][:n_rays])
    np.testing.assert_array_equal(array["living"][buffers.plan.rays :][:n_living], alive)
    assert 1000 < n_living < n_rays
    steps = min(16, buffers.plan.samples // n_living)
    node = array["node"][: n_living * steps]
    taken = node[node >= 0]
    assert len(taken) > 3000
    counts = np.bincount(taken, minlength=model.octree.n_nodes)
    starts = array["starts"][: len(counts) + 1]
    np.testing.assert_array_equal(starts, np.concatenate([[0], np.cumsum(counts)]))
    order = array["order"][: len(taken)]
    np.testing.assert_array_equal(node[order], np.sort(taken))
    np.testing.assert_array_equal(np.sort(order), np.flatnonzero(node >= 0))
    n_tiles = array["tile_starts"][len(counts)]
    assert n_tiles == (-(-counts // TILE_SAMPLES)).sum()
    tiles = array["tiles"][: 2 * n_tiles].reshape(-1, 2)
    ends = np.minimum(tiles[:, 1] + TILE_SAMPLES, starts[tiles[:, 0] + 1])
    np.testing.assert_array_equal(np.concatenate([np.arange(a, b) for a, b in zip(tiles[:, 1], ends, strict=True)]),
                                  np.arange(len(taken)))  # fmt: skip
    assert not array["node_counts"][: len(counts)].any()
    executor.close()


@pytest.mark.parametrize("shader", SHADERS)
@pytest.mark.parametrize("case", range(len(CASES)))
def test_shading_is_torchs_in_float64(driver: GpuDriver, case: int, shader: str) -> None:
    if KERNELS[shader].architecture > driver.architecture:
        shader = "shade_tiles"
    model = random_model(case, **CASES[case][0])
    executor, buffers = first_round(driver, model)
    executor.frame.shader = shader
    executor.frame.shade(buffers)
    order = downloaded(driver, buffers.wave, "order", np.int32)
    n = int(downloaded(driver, buffers.wave, "starts", np.int32)[model.octree.n_nodes])
    slots = order[:n]
    floats = {
        name: downloaded(driver, buffers.wave, name, np.float32).reshape(-1, width)
        for name, width in (("local", 3), ("directions", 3), ("sigma", 1), ("rgb", 3))
    }
    rays = downloaded(driver, buffers.wave, "ray_indices", np.int32)[slots]
    node = torch.from_numpy(downloaded(driver, buffers.wave, "node", np.int32)[slots]).long()
    local, directions = (torch.from_numpy(a).double() for a in (floats["local"][slots], floats["directions"][rays]))
    sigma, rgb = model.field(node, local, directions)
    bound = 1e-4 if shader == "shade_tiles" else 5e-3
    np.testing.assert_allclose(floats["sigma"][slots, 0], sigma.numpy(), rtol=5 * bound, atol=1e-6)
    np.testing.assert_allclose(floats["rgb"][slots], rgb.numpy(), atol=bound)
    assert n > 3000
    executor.close()


class AllRounds(RoundCount):
    rounds = MAX_ROUNDS

    def __init__(self) -> None:
        """Stays where it is."""

    def measured(self, used: int, rays_left: int) -> None:
        assert rays_left == 0


def test_small_buffers_rounds_and_graphs_change_no_bit(driver: GpuDriver) -> None:
    model = random_model(1, background=True)
    executor = CudaExecutor(model, driver=driver)
    executor.frame.round_count = AllRounds()  # no ray is finished by the other kernel
    expected, stats = rendered(executor, frame=1)

    def assert_equal() -> None:
        again, counted = rendered(executor, frame=1)
        for name in CHANNELS:
            np.testing.assert_array_equal(getattr(again, name), getattr(expected, name), err_msg=name)
        np.testing.assert_array_equal(counted.node_samples, stats.node_samples)

    for _ in range(3):  # of which the last come from a graph
        assert_equal()
    assert any(graph is not None for graph in executor.frame._graphs.values())
    executor.frame.free()
    executor.frame._at_most = Plan(MIN_RAYS, MIN_RAYS)
    assert_equal()
    executor.close()


def test_rays_that_outlive_the_rounds_are_finished(driver: GpuDriver) -> None:
    model = random_model(1, background=True)
    executor = CudaExecutor(model, driver=driver)
    executor.frame.shader = "shade_tiles"
    executor.frame.round_count.rounds = 2
    assert_same_pictures(rendered(executor)[0], rendered(CpuExecutor(model))[0])
    executor.close()


def test_normals_are_the_twins(driver: GpuDriver) -> None:
    model = random_model(0, density_shift=2.0)
    executor = CudaExecutor(model, driver=driver)
    out, _ = rendered(CpuExecutor(model))
    expected = FrameBuffers(**{name: channel.copy() for name, channel in out.channels().items()})
    out.normal.fill(np.nan)
    region = (3, 5, 150, 110)
    executor.fill_normals(view_camera(*SIZE), out, region)
    fill_normals(view_camera(*SIZE), expected, region)
    inside = np.s_[5:110, 3:150]
    error = np.abs(out.normal[inside] - expected.normal[inside]).max(-1)
    assert np.quantile(error, 0.999) < 1e-3
    assert error.max() < 0.05
    assert np.isnan(out.normal[:5]).all()
    executor.close()


def test_torch_sees_the_frame_without_a_copy_and_the_kernels_torchs_tensors(driver: GpuDriver) -> None:
    executor = CudaExecutor(random_model(0), driver=driver)
    out, _ = rendered(executor)
    frame = executor.render_on_device(RenderRequest(view_camera(*SIZE)))
    color = torch.from_dlpack(frame.array("color"))
    driver.wait(frame.ready)
    assert color.data_ptr() == frame.addresses["color"]
    np.testing.assert_array_equal(color.cpu().numpy(), out.color)
    tensor = torch.arange(10, device="cuda")
    assert driver.on_device(tensor)[0] == tensor.data_ptr()
    executor.close()


def test_a_thousand_frames_take_no_more_memory(driver: GpuDriver) -> None:
    executor = CudaExecutor(random_model(0), driver=driver)
    camera = view_camera(64, 48)
    out = FrameBuffers.allocate(64, 48)
    free = []
    for frame in range(1000):
        executor.render(RenderRequest(camera, frame=frame), out)
        if frame % 100 == 99:
            free.append(driver.free_bytes())
    assert min(free[1:]) >= free[0], free
    before = driver.free_bytes()
    executor.close()
    assert driver.free_bytes() > before
