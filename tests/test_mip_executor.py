"""Rendering a mip-NeRF: the published pictures, every channel, jitter, cancelling, and first pictures at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mip_reference import Shape, public_state, render_ray
from test_mipnerf import TINY, camera_at, convert, published_rays

from infnerf.models.checkpoint import save_checkpoint
from infnerf.models.infnerf import InfNeRF
from infnerf.models.mipnerf import MipNeRF
from infnerf.models.mipnerf_config import MipNeRFConfig
from infnerf.renderer.executors import ExecutorUnavailable, make_executor
from infnerf.renderer.frame import DeviceLost, FrameBuffers, RenderRequest, RenderStats
from infnerf.renderer.mip_executor import LEAST_SCALE, MipExecutor, working_device
from infnerf.renderer.pace import FIRST_SCALE, MIN_SCALE, pace_of
from infnerf.viewer.scene import open_checkpoint


def rendered(executor: MipExecutor, request: RenderRequest) -> tuple[FrameBuffers, RenderStats]:
    out = FrameBuffers.allocate(request.camera.width, request.camera.height)
    return out, executor.render(request, out)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_picture_is_the_published_one(dtype: torch.dtype, tmp_path: Path) -> None:
    """Colours and distances to 1e-5; in float32, whose finest waves have lost digits, to 2e-3 of most pixels."""
    shape = Shape(max_deg=16 if dtype == torch.float64 else 8)
    state = public_state(shape)
    model = convert(state, tmp_path)
    camera = camera_at()
    out, stats = rendered(MipExecutor(model, dtype), RenderRequest(camera, early_stop=0.0))
    directions, radius = published_rays(camera)
    looks = [render_ray(state, shape, camera.position, d, radius)[1] for d in directions]
    color = np.array([[*look["rgb"], look["opacity"]] for look in looks]).reshape(8, 12, 4)
    distance = np.array([look["depth"] for look in looks]) * np.linalg.norm(directions, axis=-1)
    atol = 1e-5 if dtype == torch.float64 else 2e-3
    np.testing.assert_allclose(out.color, color, rtol=0, atol=atol)
    np.testing.assert_allclose(out.depth.ravel(), distance, rtol=0, atol=4 * atol)
    assert stats.samples == 96 * 40 == out.samples.sum()
    assert stats.node_samples is not None
    assert stats.node_samples.tolist() == [96 * 40]


def test_all_channels_mean_something() -> None:
    model = MipNeRF(replace(TINY, density_bias=3.0), seed=2)
    camera = camera_at()
    out, _ = rendered(MipExecutor(model), RenderRequest(camera))
    assert (out.node == 0).all()
    assert (out.level == 0).all()
    assert (out.clamped == 0).all()
    assert ((out.color[..., 3] > 0.5) & (out.color[..., 3] <= 1 + 1e-5)).all()
    lengths = np.linalg.norm(out.normal, axis=-1)
    assert ((np.abs(lengths - 1) < 1e-4) | (lengths == 0)).all()
    assert lengths.any()
    _, _, cones = camera.pixel_rays(np.array([6.5]), np.array([4.5]))
    expected = np.log2(cones[0] * out.depth[4, 6] / (np.pi / 8))  # a footprint over half of the finest wave's period
    assert out.gsd_ratio[4, 6] == pytest.approx(expected, abs=0.1)
    finer, _ = rendered(MipExecutor(model), RenderRequest(camera, lod_bias=2.0))
    assert finer.gsd_ratio[4, 6] == pytest.approx(out.gsd_ratio[4, 6] - 2, abs=0.1)


def test_pieces_make_the_whole_and_frames_repeat() -> None:
    model = MipNeRF(TINY, seed=2)
    executor, camera = MipExecutor(model, torch.float64), camera_at()
    for frame in (0, 3):
        whole, _ = rendered(executor, RenderRequest(camera, frame=frame))
        pieces = FrameBuffers.allocate(12, 8)
        for region in ((0, 0, 5, 8), (5, 0, 12, 3), (5, 3, 12, 8)):
            executor.render(RenderRequest(camera, region, frame), pieces)
        executor.fill_normals(camera, pieces, (0, 0, 12, 8))
        for name, channel in whole.channels().items():
            np.testing.assert_allclose(getattr(pieces, name), channel, atol=1e-6, err_msg=name)
    first, third = (rendered(executor, RenderRequest(camera, frame=i))[0].color for i in (1, 3))
    assert np.abs(first - third).max() > 1e-4
    mean = np.mean([rendered(executor, RenderRequest(camera, frame=i))[0].color for i in range(1, 40)], axis=0)
    exact = rendered(MipExecutor(model, torch.float64), RenderRequest(camera))[0].color
    assert np.abs(mean - exact).max() < 0.05


def test_it_polls_and_stops() -> None:
    model, asked = MipNeRF(MipNeRFConfig(net_width=64, num_samples=32), seed=1), 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    out = FrameBuffers.allocate(64, 48)
    stats = MipExecutor(model).render(RenderRequest(camera_at().resized(64, 48)), out, cancelled)
    assert stats.cancelled
    assert asked == 6
    assert stats.rays < 64 * 48


def test_a_hurried_picture_has_fewer_samples() -> None:
    model = MipNeRF(replace(TINY, num_samples=64))
    camera = camera_at()
    assert rendered(MipExecutor(model), RenderRequest(camera, step_scale=4.0))[0].samples.max() == 32
    assert rendered(MipExecutor(model), RenderRequest(camera, step_scale=8.0))[0].samples.max() == 16  # no fewer


def test_the_larger_the_network_the_smaller_its_first_picture() -> None:
    large, small = (MipExecutor(MipNeRF(config), device="cpu").pace for config in (MipNeRFConfig(), TINY))
    assert LEAST_SCALE <= large.first_scale == large.least_scale < 1 / 50
    assert (small.first_scale, small.least_scale) == (FIRST_SCALE, MIN_SCALE)
    assert large.ladder
    assert large.hurry > 1


def test_who_renders_it() -> None:
    model = MipNeRF(TINY)
    executor, why = make_executor("auto", model)
    assert isinstance(executor, MipExecutor)
    assert why.startswith("torch: mip-NeRF in batches on ")
    assert "not cpu: the cpu executor renders InfNeRF and PyNeRF models, not MipNeRF" in why
    for name in ("cpu", "cuda"):
        with pytest.raises(
            ExecutorUnavailable, match=f"the {name} executor renders InfNeRF and PyNeRF models, not MipNeRF"
        ):
            make_executor(name, model)
    assert MipExecutor.supports(InfNeRF.load) is not None


def test_behind_the_window_it_keeps_its_pace(tmp_path: Path) -> None:
    save_checkpoint(MipNeRF(TINY).checkpoint(), tmp_path / "m.pth")
    scene = open_checkpoint(tmp_path / "m.pth", "auto")
    assert pace_of(scene.executor) == MipExecutor(MipNeRF(TINY)).pace
    assert (scene.backend, scene.n_parameters) == ("mipnerf", TINY.n_parameters)


def test_a_lost_device_is_told_and_the_next_executor_takes_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object, **_options: object) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    executor, request = MipExecutor(MipNeRF(TINY), device="cpu"), RenderRequest(camera_at())
    monkeypatch.setattr(executor, "_batch", broken)
    with pytest.raises(RuntimeError, match="unspecified"):  # of the processor's it would be a bug of ours
        rendered(executor, request)
    executor.device = torch.device("cuda")
    with pytest.raises(DeviceLost, match="the CUDA device failed while a mip-NeRF was rendered"):
        rendered(executor, request)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", broken)
    assert working_device() == "cpu"


@pytest.mark.gpu
def test_halves_on_a_gpu_show_the_same() -> None:
    """Against float32 on the CPU, on waves that halves can follow: display-sized differences only."""
    model = MipNeRF(replace(TINY, net_width=64, num_samples=32, density_bias=1.0), seed=4)
    camera = camera_at()
    device = MipExecutor(model, device="cuda")
    assert (device.dtype, device.device.type) == (torch.float16, "cuda")
    for frame in (0, 2):
        request = RenderRequest(camera, frame=frame)
        expected, actual = rendered(MipExecutor(model, device="cpu"), request)[0], rendered(device, request)[0]
        np.testing.assert_allclose(actual.color, expected.color, rtol=0, atol=1e-2)
        np.testing.assert_allclose(actual.depth, expected.depth, rtol=2e-2)
