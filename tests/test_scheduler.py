"""The progressive renderer with an executor that draws a pattern and a clock that runs on its pixels."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from infnerf.models.camera import Camera
from infnerf.renderer.accumulate import render_accumulated
from infnerf.renderer.frame import FrameBuffers, RenderRequest, RenderStats
from infnerf.renderer.scheduler import ProgressiveRenderer, Snapshot, View

WIDTH, HEIGHT = 320, 192


class PatternExecutor:
    """Each pixel's channels follow from its place, camera and frame; a pixel costs `cost` seconds of the clock."""

    name = "pattern"

    def __init__(self, cost: float = 1e-6) -> None:
        self.cost, self.now = cost, 0.0
        self.calls: list[RenderRequest] = []
        self.threads: set[int] = set()
        self.closed = 0
        self.before: Callable[[RenderRequest], None] = lambda request: None  # runs in the render thread

    def clock(self) -> float:
        return self.now

    def fill_normals(self, camera: Camera, out: FrameBuffers, region: tuple[int, int, int, int]) -> None:
        """Nothing: `render` knows its own."""

    def render(
        self, request: RenderRequest, out: FrameBuffers, cancelled: Callable[[], bool] = lambda: False
    ) -> RenderStats:
        self.threads.add(threading.get_ident())
        self.calls.append(request)
        self.before(request)
        if cancelled():
            return RenderStats(cancelled=True)
        x0, y0, x1, y1 = request.bounds
        y, x = (np.mgrid[y0:y1, x0:x1].astype(np.float32) + np.float32(0.5)) / np.float32(request.camera.height)
        shift = np.float32(0.37 * request.frame + request.camera.position[0])
        wave = [0.5 + 0.5 * np.sin(k * (3 * x + 5 * y) + shift) for k in range(1, 9)]
        out.color[y0:y1, x0:x1] = np.stack(wave[:4], -1) * (x < 1)[..., None]  # the right part is empty
        normal = np.stack(wave[1:4], -1)
        out.normal[y0:y1, x0:x1] = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
        for index, name in enumerate(("depth", "level", "gsd_ratio", "samples", "clamped")):
            getattr(out, name)[y0:y1, x0:x1] = wave[3 + index] * (index + 1)
        out.node[y0:y1, x0:x1] = (100 * wave[2]).astype(np.int32)
        rays = (x1 - x0) * (y1 - y0)
        self.now += rays * self.cost
        return RenderStats(rays=rays, samples=2 * rays, seconds=rays * self.cost, stages={"march": 1.0})

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed += 1


def view(x: float = 0.0, width: int = WIDTH, height: int = HEIGHT, **changes: object) -> View:
    pose = np.eye(4)
    pose[0, 3] = x
    return replace(View(Camera.from_fov(pose, 60, width, height)), **changes)


def until(condition: Callable[[], bool]) -> None:
    """Waits for the render thread. Runs into an error, not into a verdict, on a machine that has stopped."""
    for _ in range(20000):
        if condition():
            return
        time.sleep(0.001)
    raise TimeoutError("the render thread did not get there")


def latest(renderer: ProgressiveRenderer) -> Snapshot:
    snapshot = renderer.latest()
    assert snapshot is not None
    return snapshot


def same(a: FrameBuffers, b: FrameBuffers) -> bool:
    return all(np.array_equal(channel, b.channels()[name]) for name, channel in a.channels().items())


@pytest.fixture
def executor() -> PatternExecutor:
    return PatternExecutor()


@pytest.fixture
def renderer(executor: PatternExecutor) -> Iterator[ProgressiveRenderer]:
    with ProgressiveRenderer(executor, max_frames=4, settle_after_s=0.0, clock=executor.clock) as renderer:
        yield renderer
    assert executor.closed == 1


def settled(renderer: ProgressiveRenderer, wanted: View) -> Snapshot:
    renderer.set_view(wanted)
    assert renderer.wait_idle(60)
    snapshot = latest(renderer)
    assert snapshot.view.shows_same(wanted)
    return snapshot


def test_the_final_picture_is_the_accumulated_one(renderer: ProgressiveRenderer) -> None:
    shown = settled(renderer, view(0.3))
    expected, stats = render_accumulated(PatternExecutor(), view(0.3).request(1.0), 4)
    assert (shown.state, shown.accumulated, shown.scale) == ("refining", 4, 1.0)
    assert same(shown.buffers, expected)
    assert stats.rays == 4 * WIDTH * HEIGHT
    assert shown.stats.rays == WIDTH * HEIGHT
    assert renderer.state == "idle"


def test_one_frame_is_the_exact_view(renderer: ProgressiveRenderer) -> None:
    renderer.max_frames = 1
    shown, expected = settled(renderer, view(0.3)), FrameBuffers.allocate(WIDTH, HEIGHT)
    PatternExecutor().render(view(0.3).request(1.0), expected)
    assert shown.accumulated == 1
    assert same(shown.buffers, expected)


def test_the_first_picture_is_coarse_and_the_next_ones_take_their_time(
    renderer: ProgressiveRenderer, executor: PatternExecutor
) -> None:
    executor.cost = 4e-6  # 10000 pixels in 40 ms
    sizes = []
    for step in range(6):
        wanted = view(step, moving=True)
        renderer.set_view(wanted)
        until(lambda wanted=wanted: renderer.latest() is not None and latest(renderer).view is wanted)
        sizes.append((latest(renderer).width, latest(renderer).height))
        assert latest(renderer).state == renderer.state == "moving"
    assert sizes[0] == (WIDTH // 8, HEIGHT // 8)
    assert sizes[1:] == [(129, 77)] * 5
    assert latest(renderer).frame_ms == pytest.approx(40, rel=0.05)


def test_a_held_drag_does_not_settle_until_it_is_let_go(
    renderer: ProgressiveRenderer, executor: PatternExecutor
) -> None:
    renderer.set_view(view(1, moving=True))
    until(lambda: renderer.latest() is not None)
    time.sleep(0.05)
    assert (renderer.state, len(executor.calls)) == ("moving", 1)
    assert settled(renderer, view(1)).accumulated == 4
    assert sum(request.camera.width < WIDTH for request in executor.calls) == 1


def test_a_view_that_rests_is_still_moving_for_a_while(executor: PatternExecutor) -> None:
    with ProgressiveRenderer(executor, max_frames=1, settle_after_s=3600, clock=executor.clock) as renderer:
        renderer.set_view(view())
        until(lambda: renderer.latest() is not None)
        time.sleep(0.05)
        assert (renderer.state, len(executor.calls)) == ("moving", 1)
        executor.now += 3601
        renderer.max_frames = 2  # anything that wakes the thread lets it look at the clock
        assert renderer.wait_idle(60)
        assert latest(renderer).accumulated == 2


def test_another_view_cancels_the_sharp_picture(renderer: ProgressiveRenderer, executor: PatternExecutor) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def block(request: RenderRequest) -> None:
        if request.camera.width == WIDTH and request.camera.position[0] == 1 and len(executor.calls) > 6:
            reached.set()
            go_on.wait(60)

    executor.before = block
    renderer.set_view(view(1))
    assert reached.wait(60)
    renderer.set_view(view(2))
    assert renderer.state == "moving"
    outdated = len(executor.calls)
    go_on.set()
    assert renderer.wait_idle(60)
    assert {request.camera.position[0] for request in executor.calls[outdated:]} == {2.0}
    assert latest(renderer).view.shows_same(view(2))
    assert same(latest(renderer).buffers, render_accumulated(PatternExecutor(), view(2).request(1.0), 4)[0])


def test_a_moving_frame_is_finished_although_outdated(renderer: ProgressiveRenderer, executor: PatternExecutor) -> None:
    executor.before = lambda request: (
        renderer.set_view(view(len(executor.calls) + 1)) if len(executor.calls) < 20 else None
    )
    renderer.set_view(view(1))
    until(lambda: len(executor.calls) >= 20)
    assert renderer.wait_idle(60)
    assert latest(renderer).sequence >= 20  # a drag without a pause shows every frame


def test_a_hopeless_moving_frame_is_given_up(renderer: ProgressiveRenderer, executor: PatternExecutor) -> None:
    def slow_then_moved(request: RenderRequest) -> None:
        if len(executor.calls) == 1:
            executor.now += 10
            renderer.set_view(view(2))

    executor.before = slow_then_moved
    renderer.set_view(view(1))
    assert renderer.wait_idle(60)
    assert executor.calls[1].camera.width == WIDTH // 16
    assert executor.calls[1].camera.position[0] == 2


def test_an_idle_renderer_makes_no_calls(renderer: ProgressiveRenderer, executor: PatternExecutor) -> None:
    shown = settled(renderer, view(1))
    calls = len(executor.calls)
    for _ in range(5):
        renderer.set_view(view(1))
        time.sleep(0.01)
    assert (renderer.state, len(executor.calls)) == ("idle", calls)
    assert latest(renderer) is shown


def test_slices_are_small_cover_the_picture_once_and_show_on_the_way(
    renderer: ProgressiveRenderer, executor: PatternExecutor
) -> None:
    executor.cost = 2e-5  # a slice of 8 ms has 400 pixels, below the smallest; a frame takes 1.2 s
    parts: dict[int, Snapshot] = {}

    def look(request: RenderRequest) -> None:
        if request.frame == 0 and request.camera.width == WIDTH and (shown := renderer.latest()) is not None:
            parts[shown.sequence] = shown

    executor.before = look
    renderer.max_frames = 1
    final = settled(renderer, view(1))
    slices = [request.bounds for request in executor.calls if request.camera.width == WIDTH][1:]  # without the probe
    covered = np.zeros((HEIGHT, WIDTH), int)
    for x0, y0, x1, y1 in slices:
        covered[y0:y1, x0:x1] += 1
        assert (x1 - x0) * (y1 - y0) <= 1.5 * 1024 or (x0, y0, x1, y1) == slices[0]
    assert (covered == 1).all()
    partial = [part for part in parts.values() if part.state == "settling"]
    assert 3 <= len(partial) <= 8
    for part in partial:
        exact = (part.buffers.color == final.buffers.color).all(-1)
        assert 0.05 < exact.mean() < 0.95
        assert part.accumulated == 0
        assert np.abs(part.buffers.color - final.buffers.color).mean() < 0.05  # the rest is the upscaled coarse picture


def test_pictures_handed_out_are_never_written_again(renderer: ProgressiveRenderer, executor: PatternExecutor) -> None:
    kept: dict[int, tuple[Snapshot, bytes]] = {}

    def keep(request: RenderRequest) -> None:
        if (shown := renderer.latest()) is not None and shown.sequence not in kept:
            kept[shown.sequence] = shown, shown.buffers.color.tobytes()

    executor.before, executor.cost = keep, 1e-5
    settled(renderer, view(1))
    settled(renderer, view(2))
    assert len(kept) > 6
    assert all(shown.buffers.color.tobytes() == color for shown, color in kept.values())


def test_more_frames_go_on_where_the_picture_was(renderer: ProgressiveRenderer, executor: PatternExecutor) -> None:
    settled(renderer, view(1))
    calls = len(executor.calls)
    renderer.max_frames = 6
    assert renderer.wait_idle(60)
    assert {request.frame for request in executor.calls[calls:]} == {4, 5}
    assert same(latest(renderer).buffers, render_accumulated(PatternExecutor(), view(1).request(1.0), 6)[0])
    calls = len(executor.calls)
    renderer.max_frames = 2
    assert renderer.wait_idle(60)
    assert len(executor.calls) == calls


def test_a_changed_model_is_rendered_over_the_present_picture(
    renderer: ProgressiveRenderer, executor: PatternExecutor
) -> None:
    first = settled(renderer, view(1))
    calls = len(executor.calls)
    renderer.invalidate()
    assert renderer.wait_idle(60)
    assert {request.camera.width for request in executor.calls[calls:]} == {WIDTH}
    assert latest(renderer).sequence > first.sequence
    assert same(latest(renderer).buffers, first.buffers)


def test_level_of_detail_size_and_resolution_make_another_picture(renderer: ProgressiveRenderer) -> None:
    settled(renderer, view(1))
    for changed in (
        view(1, lod_bias=1.0),
        view(1, max_level=3),
        view(1, step_scale=2.0),
        view(1, width=200, height=100),
    ):
        before = latest(renderer).sequence
        assert settled(renderer, changed).sequence > before
    renderer.max_scale = 0.5
    assert renderer.wait_idle(60)
    assert (latest(renderer).width, latest(renderer).height, latest(renderer).scale) == (100, 50, 0.5)
    renderer.max_scale = 2.0
    assert renderer.wait_idle(60)
    assert (latest(renderer).width, latest(renderer).height) == (400, 200)


def test_an_executor_that_fails_is_told_and_the_thread_lives_on(
    renderer: ProgressiveRenderer, executor: PatternExecutor
) -> None:
    def fail(request: RenderRequest) -> None:
        raise RuntimeError("no memory")

    executor.before = fail
    renderer.set_view(view(1))
    assert renderer.wait_idle(60)
    assert str(renderer.error) == "no memory"
    assert (renderer.latest(), len(executor.calls)) == (None, 1)
    executor.before = lambda request: None
    assert settled(renderer, view(2)).accumulated == 4
    assert renderer.error is None


def test_another_executor_takes_over_and_the_old_one_is_closed(
    renderer: ProgressiveRenderer, executor: PatternExecutor
) -> None:
    settled(renderer, view(1))
    other = PatternExecutor()
    renderer.set_executor(other)
    assert renderer.wait_idle(60)
    until(lambda: executor.closed == 1)
    assert other.calls[0].camera.width == WIDTH // 8  # its speed is not known
    assert executor.threads == other.threads
    renderer.set_executor(None)
    until(lambda: other.closed == 1)
    assert renderer.wait_idle(60)
    assert latest(renderer).accumulated == 4  # the last picture stays


def test_without_a_view_or_an_executor_there_is_nothing_to_do(executor: PatternExecutor) -> None:
    with ProgressiveRenderer(max_frames=2, settle_after_s=0.0, clock=executor.clock) as renderer:
        renderer.set_view(view(1))
        renderer.invalidate()
        assert renderer.wait_idle(60)
        assert renderer.latest() is None
        renderer.set_executor(executor)
        assert renderer.wait_idle(60)
        assert latest(renderer).accumulated == 2


def test_closing_ends_a_call_in_progress_and_all_calls_come_from_one_thread() -> None:
    executor, reached, go_on = PatternExecutor(), threading.Event(), threading.Event()

    def block(request: RenderRequest) -> None:
        reached.set()
        go_on.wait(60)

    executor.before = block
    renderer = ProgressiveRenderer(executor, settle_after_s=0.0, clock=executor.clock)
    renderer.set_view(view(1))
    assert reached.wait(60)
    closing = threading.Thread(target=renderer.close)
    closing.start()
    until(lambda: renderer._closing)
    go_on.set()
    closing.join(60)
    assert not closing.is_alive()
    assert (executor.closed, len(executor.calls)) == (1, 1)
    assert len(executor.threads) == 1
    assert threading.get_ident() not in executor.threads
    renderer.set_view(view(2))
    renderer.close()
    assert (executor.closed, len(executor.calls)) == (1, 1)
    assert renderer.state == "idle"
