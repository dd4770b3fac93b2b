"""Devices and the progressive renderer: whose pictures stay on them, and what is said when one is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from test_scheduler import WIDTH, PatternExecutor, latest, view

from infnerf.renderer.device_picture import DevicePicture
from infnerf.renderer.frame import DeviceLost, FrameBuffers, RenderRequest, RenderStats
from infnerf.renderer.scheduler import ProgressiveRenderer


@pytest.fixture
def executor() -> PatternExecutor:
    return PatternExecutor()


@pytest.fixture
def renderer(executor: PatternExecutor) -> Iterator[ProgressiveRenderer]:
    with ProgressiveRenderer(executor, max_frames=4, settle_after_s=0.01) as renderer:
        yield renderer


def test_only_moving_pictures_are_left_on_the_device(renderer: ProgressiveRenderer, executor: PatternExecutor) -> None:
    """Those of an executor that can; what is averaged is made in host memory, over the fetched moving picture."""
    targets: list[tuple[int, FrameBuffers]] = []
    plain, on_device = executor.render, DevicePicture(0, 1, 1, {}, lambda name: np.zeros(0))

    class OnDevice(FrameBuffers):
        device = on_device  # type: ignore[assignment]

    def allocate(width: int, height: int) -> FrameBuffers:
        return OnDevice(**FrameBuffers.allocate(width, height).channels())

    def render(request: RenderRequest, out: FrameBuffers, cancelled: Callable[[], bool]) -> RenderStats:
        targets.append((request.camera.width, out))
        return plain(request, out, cancelled)

    executor.allocate, executor.render = allocate, render
    renderer.set_view(view(1))
    assert renderer.wait_idle(60)
    assert [out.device is on_device for width, out in targets] == [width < WIDTH for width, _ in targets]
    assert {width < WIDTH for width, _ in targets} == {True, False}
    assert latest(renderer).buffers.device is None


def test_what_a_replaced_executor_fails_with_is_not_the_new_ones_error(
    renderer: ProgressiveRenderer, executor: PatternExecutor
) -> None:
    begun, gate = threading.Event(), threading.Event()

    def fail_late(request: RenderRequest) -> None:
        begun.set()
        assert gate.wait(30)
        raise DeviceLost("the device fell out")

    executor.before = fail_late
    renderer.set_view(view(1))
    assert begun.wait(30)
    renderer.set_executor(other := PatternExecutor())
    gate.set()
    assert renderer.wait_idle(60)
    assert (renderer.error, renderer.executor, executor.closed) == (None, other, 1)
    assert latest(renderer).accumulated == 4
