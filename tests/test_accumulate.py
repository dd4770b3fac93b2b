"""Means of frames, pictures on another grid, and the sizes that hold a time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resolve import random_buffers
from test_scheduler import PatternExecutor, same, view

from infnerf.renderer.accumulate import Accumulator, add_stats, render_accumulated, resampled
from infnerf.renderer.frame import RenderStats
from infnerf.renderer.pace import (
    FIRST_SCALE,
    MIN_SCALE,
    ScaleController,
    SliceBudget,
    distance,
    render_in_slices,
)


def test_means_are_weighted_as_they_should_be() -> None:
    frames = [random_buffers(seed) for seed in range(5)]
    accumulator = Accumulator(64, 48)
    for frame in frames:
        accumulator.add(frame)
    mean = accumulator.mean()
    alpha = np.stack([frame.color[..., 3] for frame in frames]).astype(np.float64)
    weight = np.divide(alpha, alpha.sum(0), out=np.zeros_like(alpha), where=alpha.sum(0) > 0)
    for name in ("color", "samples"):
        expected = np.mean([frame.channels()[name] for frame in frames], axis=0, dtype=np.float64)
        np.testing.assert_allclose(mean.channels()[name], expected, rtol=1e-4, atol=1e-5)
    for name in ("depth", "level", "gsd_ratio", "clamped"):
        expected = sum(weight[i] * frame.channels()[name] for i, frame in enumerate(frames))
        np.testing.assert_allclose(mean.channels()[name], expected, rtol=1e-4, atol=1e-5)
    normal = sum(weight[i][..., None] * frame.normal for i, frame in enumerate(frames))
    length = np.linalg.norm(normal, axis=-1)
    clear = length > 0.05
    np.testing.assert_allclose(mean.normal[clear], (normal / length[..., None])[clear], atol=1e-4)
    assert np.array_equal(mean.node, frames[0].node)


def test_one_frame_comes_back_bit_for_bit_and_is_a_copy() -> None:
    frame, accumulator = random_buffers(3), Accumulator(64, 48)
    frame.depth[frame.color[..., 3] == 0] = 0  # as the contract has it
    for name in ("normal", "level", "gsd_ratio", "clamped"):
        frame.channels()[name][frame.color[..., 3] == 0] = 0
    accumulator.add(frame)
    first = accumulator.mean()
    assert same(first, frame)
    accumulator.add(random_buffers(4))
    assert same(first, frame)


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="frames must be 10x20, got 64x48"):
        Accumulator(10, 20).add(random_buffers())


def test_rendering_says_how_far_it_is_and_stops_when_told() -> None:
    done: list[int] = []
    request = view(1, width=40, height=24).request(1.0)
    mean, stats = render_accumulated(
        PatternExecutor(), request, 5, cancelled=lambda: len(done) == 2, progress=done.append
    )
    assert done == [1, 2]
    assert stats.cancelled
    assert same(mean, render_accumulated(PatternExecutor(), request, 2)[0])
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        render_accumulated(PatternExecutor(), request, 0)


def test_statistics_add_up() -> None:
    total = RenderStats()
    for part in (
        RenderStats(1, 2, 0.5, {"march": 0.25}, np.array([1, 2])),
        RenderStats(10, 20, 1.0, {"march": 0.25, "mlp": 1.0}, np.array([3, 0]), cancelled=True),
        RenderStats(),
    ):
        add_stats(total, part)
    assert (total.rays, total.samples, total.seconds, total.cancelled) == (11, 22, 1.5, True)
    assert total.stages == {"march": 0.5, "mlp": 1.0}
    assert total.node_samples is not None
    assert total.node_samples.tolist() == [4, 2]


def test_the_same_grid_changes_nothing_and_a_finer_one_interpolates() -> None:
    buffers = random_buffers()
    assert same(resampled(buffers, 64, 48), buffers)
    buffers.color[:] = np.linspace(0, 1, 64)[None, :, None]
    finer = resampled(buffers, 128, 96)
    assert (np.diff(finer.color[..., 0], axis=1)[:, 1:-1] > 0).all()
    assert finer.color.min() == 0
    assert finer.color.max() == 1
    assert np.array_equal(finer.node[::2, ::2], buffers.node)
    assert np.array_equal(finer.node[1::2, 1::2], buffers.node)
    assert np.array_equal(resampled(buffers, 1, 1).node, buffers.node[24:25, 32:33])


@settings(max_examples=100, derandomize=True, deadline=None)
@given(exponent=st.floats(-9, -3), pixels=st.integers(100, 10_000_000))
def test_the_scale_finds_the_target_time_from_any_speed(exponent: float, pixels: int) -> None:
    controller, cost_ms = ScaleController(), 1000 * 10**exponent
    assert controller.scale == FIRST_SCALE
    for _ in range(3):
        area = max(1.0, controller.scale**2 * pixels)
        controller.measured(round(area), round(area) * cost_ms, pixels, 40.0, 1.0)
    frame_ms = controller.scale**2 * pixels * cost_ms
    at_limit = controller.scale in (MIN_SCALE, 1.0)
    assert MIN_SCALE <= controller.scale <= 1.0
    assert at_limit or 0.79 * 40 <= frame_ms <= 1.26 * 40


def test_the_size_stays_inside_the_hysteresis() -> None:
    controller = ScaleController()

    def frame(ms_of_full_size: float) -> float:
        area = round(controller.scale**2 * 1_000_000)
        controller.measured(area, ms_of_full_size * area / 1_000_000, 1_000_000, 40.0, 1.0)
        return controller.scale

    settled = frame(160.0)
    assert settled == pytest.approx(0.5, rel=1e-3)
    for ms in (150.0, 185.0, 140.0, 180.0):
        assert frame(ms) == settled
    for _ in range(8):
        frame(640.0)
    assert controller.scale == pytest.approx(0.25, rel=0.15)


def test_slices_grow_with_the_speed_and_with_the_fixed_cost_of_a_call() -> None:
    fast, slow, costly = SliceBudget(), SliceBudget(), SliceBudget()
    costly.overhead_ms = 40.0
    for _ in range(20):
        fast.measured(10000, 1.0)
        slow.measured(100, 1.0)
        costly.measured(10000, 41.0)  # 1 ms of work in it
    assert fast.area == pytest.approx(80000, rel=0.01)
    assert slow.area == 1024
    assert costly.area == pytest.approx(400000, rel=0.01)  # half of the time is work


def test_a_region_is_rendered_in_slices_and_nothing_beside_it() -> None:
    executor, request = PatternExecutor(cost=1e-4), view(1).request(1.0)
    out, whole = (random_buffers(1, 320, 192) for _ in range(2))
    region = (30, 20, 201, 133)
    stats = render_in_slices(executor, type(request)(request.camera, region), out, SliceBudget(), clock=executor.clock)
    PatternExecutor().render(type(request)(request.camera, region), whole)
    assert same(out, whole)
    assert stats.rays == 171 * 113 + 1  # one more to learn what a call costs
    assert not stats.cancelled
    assert len(executor.calls) > 5


def test_pieces_go_outward_from_where_the_person_looks() -> None:
    """The pieces cover the picture once, nearest first to a piece's diagonal; a focus that moves is followed."""
    executor, request = PatternExecutor(cost=1e-3), view(1).request(1.0)
    out, whole = (random_buffers(1, 320, 192) for _ in range(2))
    places = [(300.0, 20.0)]
    budget = SliceBudget(64)
    render_in_slices(executor, request, out, budget, clock=executor.clock, focus=lambda: places[-1])
    PatternExecutor().render(request, whole)
    assert same(out, whole)
    regions = [call.bounds for call in executor.calls[1:]]
    away = [distance(region, places[0]) for region in regions]
    assert away[0] == 0
    assert all(later >= before - 24 for before, later in pairwise(away))
    assert sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in regions) == 320 * 192
    executor.calls.clear()
    executor.before = lambda _: places.append((10.0, 180.0)) if len(executor.calls) == 20 else None
    render_in_slices(executor, request, out, budget, clock=executor.clock, focus=lambda: places[-1])
    assert distance(executor.calls[19].bounds, (300, 20)) < 80
    assert distance(executor.calls[20].bounds, (10, 180)) == 0
