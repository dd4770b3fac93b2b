"""The progressive renderer with an executor that is slow by nature: it says so in `pace`, and sharpens by doublings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from test_scheduler import HEIGHT, WIDTH, PatternExecutor, latest, same, view

from infnerf.renderer.frame import FrameBuffers, RenderRequest
from infnerf.renderer.pace import Pace, distance, pace_of
from infnerf.renderer.scheduler import ProgressiveRenderer

SLOW = Pace(first_scale=1 / 32, least_scale=1 / 64, least_slice=64, hurry=4.0, ladder=True)


class SlowExecutor(PatternExecutor):
    """0.4 s a pixel: the whole picture takes seven hours of the clock, and no longer than any of the test's."""

    pace = SLOW

    def __init__(self) -> None:
        super().__init__(cost=0.4)


def test_a_resting_view_sharpens_by_doublings_from_where_the_person_looks() -> None:
    executor = SlowExecutor()
    with ProgressiveRenderer(executor, max_frames=1, settle_after_s=0.0, clock=executor.clock) as renderer:
        renderer.focus = (0.9, 0.1)
        renderer.set_view(view())
        assert renderer.wait_idle(60)
        final = latest(renderer)
    widths = [call.camera.width for call in executor.calls]
    sizes = sorted(set(widths))
    assert sizes[0] == WIDTH // 32
    assert sizes[-1] == WIDTH
    assert np.allclose(np.divide(sizes[1:], sizes[:-1]), 2, atol=0.01)
    assert widths == sorted(widths)  # one rung after the other
    hurried = {call.step_scale for call in executor.calls if call.camera.width == sizes[0]}
    assert hurried == {4.0}
    assert {call.step_scale for call in executor.calls if call.camera.width > sizes[0]} == {1.0}
    exact = FrameBuffers.allocate(WIDTH, HEIGHT)
    PatternExecutor().render(view().request(1.0), exact)
    assert same(final.buffers, exact)
    assert (final.accumulated, final.scale) == (1, 1.0)
    whole: list[RenderRequest] = [call for call in executor.calls if call.camera.width == WIDTH]
    first = whole[1] if whole[0].bounds == (0, 0, 1, 1) else whole[0]
    assert distance(first.bounds, (0.9 * WIDTH, 0.1 * HEIGHT)) == 0


def test_those_that_are_fast_keep_their_pace() -> None:
    executor = PatternExecutor()
    assert pace_of(executor) == pace_of(None) == Pace()
    with ProgressiveRenderer(executor, max_frames=1, settle_after_s=0.0, clock=executor.clock) as renderer:
        renderer.focus = (0.9, 0.1)
        renderer.set_view(replace(view(), step_scale=2.0))
        assert renderer.wait_idle(60)
    assert {call.camera.width for call in executor.calls} == {WIDTH // 8, WIDTH}
    assert {call.step_scale for call in executor.calls} == {2.0}
