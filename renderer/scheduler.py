"""The progressive renderer: fast and coarse while the view moves, sharp and finally still when it rests.

    moving    a scaled-down frame of the newest view, the scale held so that a frame takes `target_frame_ms`
    settling  the exact frame at full resolution, in slices, over the upscaled last picture; cancelled by another view
    refining  jittered frames 1..max_frames-1 averaged into it
    idle      the thread sleeps: no polling, no work

All calls to the executor, closing it included, happen in the one render thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from .accumulate import Accumulator, copied, resampled
from .device_picture import allocate
from .frame import Executor, FrameBuffers, RenderRequest, RenderStats
from .pace import ScaleController, SliceBudget, hurried, in_pixels, pace_of, render_in_slices, rungs
from .turns import InTurn, Place, Turns
from .view import Snapshot, View

__all__ = ["STATES", "ProgressiveRenderer", "Snapshot", "View"]

STATES = ("moving", "settling", "refining", "idle")
SETTLE_AFTER_S = 0.15  # s without a change before the exact frame is begun
PUBLISH_S = 0.15  # s between two partial pictures of a settling frame
PUBLISH_SHARE = 0.1  # of the time, at most, goes into copying partial pictures
PATIENCE = 4  # target frame times after which a moving frame that is outdated too is given up


class ProgressiveRenderer:
    """Renders the newest view in a thread of its own; only `wait_idle` and `close` ever wait for it.

    Owns its executor: one that is replaced, and the last one on `close`, is closed in the render thread. An exception
    of the executor ends the work on that picture and is kept in `error` until a frame succeeds; the thread lives on.
    """

    def __init__(
        self,
        executor: Executor | None = None,
        target_frame_ms: float = 40.0,
        max_frames: int = 32,
        max_scale: float = 1.0,
        settle_after_s: float = SETTLE_AFTER_S,
        clock: Callable[[], float] = time.perf_counter,
        turns: Turns | None = None,  # shared by renderers that work side by side; None: this one is alone
    ) -> None:
        self._place = Place(turns or Turns(), clock)
        self.target_frame_ms = target_frame_ms  # ms of a moving frame, read before each
        self._max_frames, self._max_scale = max_frames, max_scale
        self._settle_after_s, self._clock = settle_after_s, clock
        self._condition = threading.Condition()  # guards everything below
        self._executor = executor
        self._retired: list[Executor] = []  # replaced, to be closed by the render thread
        self._view: View | None = None
        self._serial = (
            0  # grows with everything that makes the picture another one; work of an older serial is cancelled
        )
        self._begun = 0  # serial that the render thread has taken up
        self._changed_at = 0.0  # clock of the last change
        self._new_scene = True  # the snapshot is no base for the next picture
        self._closing = False
        self._state = "idle"
        self._snapshot: Snapshot | None = None
        self._error: Exception | None = None
        self.focus: tuple[float, float] | None = None  # where the person looks, 0 to 1 of the window; None: the middle
        self._set_pace()
        self._thread = threading.Thread(target=self._run, name="infnerf-render", daemon=True)
        self._thread.start()

    def set_view(self, view: View) -> None:
        """Shows another view; the same one again changes nothing but the moving hint."""
        with self._condition:
            same = view.shows_same(self._view)
            self._view = view
            if same:
                self._condition.notify_all()
            else:
                self._restart("moving")

    def set_executor(self, executor: Executor | None, same_place: bool = False) -> None:
        """Renders with another executor from now on; the old one is closed when its call has returned.

        `same_place`: it shows the same scene, a little later in its training, so the present picture stays until
        the new one lies over it.
        """
        with self._condition:
            if self._executor is not None and self._executor is not executor:
                self._retired.append(self._executor)
            self._executor = executor
            if same_place:
                self._restart("settling")
                return
            self._set_pace()
            self._new_scene = True
            self._restart("moving")

    def invalidate(self) -> None:
        """The model changed: renders the same view again, over the present picture."""
        with self._condition:
            self._restart("settling")

    def rest(self) -> None:
        """Nobody looks: what is being done is given up. A finished picture stays, and its view; `set_view` goes on."""
        with self._condition:
            if self._state == "idle":
                return
            self._view = None
            self._serial += 1
            self._condition.notify_all()

    @property
    def max_frames(self) -> int:
        """Frames to average; when raised, the present picture goes on being refined."""
        return self._max_frames

    @max_frames.setter
    def max_frames(self, value: int) -> None:
        with self._condition:
            self._max_frames = value
            if self._snapshot is not None and 0 < self._snapshot.accumulated < value and self._state == "idle":
                self._state = "refining"
            self._condition.notify_all()

    @property
    def max_scale(self) -> float:
        """Full resolution over window size, per edge."""
        return self._max_scale

    @max_scale.setter
    def max_scale(self, value: float) -> None:
        with self._condition:
            if value != self._max_scale:
                self._max_scale = value
                self._restart("settling")

    @property
    def executor(self) -> Executor | None:
        return self._executor

    @property
    def state(self) -> str:
        """One of `STATES`."""
        return self._state

    @property
    def error(self) -> Exception | None:
        """What the executor last failed with; None once a frame succeeded."""
        return self._error

    def latest(self) -> Snapshot | None:
        """The newest picture, None before the first."""
        return self._snapshot

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Waits until nothing is left to do. Returns whether that came true within `timeout` seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: self._state == "idle", timeout)

    def close(self) -> None:
        """Cancels what is being done, closes the executor and ends the thread. A second call does nothing."""
        with self._condition:
            self._closing = True
            self._serial += 1
            self._condition.notify_all()
        self._thread.join()

    def __enter__(self) -> ProgressiveRenderer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _set_pace(self) -> None:
        """Nothing is known yet of how fast the executor is, but what it says itself."""
        pace = pace_of(self._executor)
        self._scale, self._budget = ScaleController(pace.first_scale, pace.least_scale), SliceBudget(pace.least_slice)

    def _restart(self, state: str) -> None:
        """Another picture is wanted: called with the lock held. From here on the renderer is not idle."""
        self._serial += 1
        self._changed_at = self._clock()
        if self._view is not None and self._executor is not None and not self._closing:
            self._state = state
        self._condition.notify_all()

    # From here on: the render thread.

    def _run(self) -> None:
        while not self._closing:
            task = self._next_task()
            self._close_retired()
            if task is not None:
                self._guarded(lambda task=task: self._render(task), task.executor)
        self._close_retired()
        if self._executor is not None:
            self._guarded(self._executor.close)
        with self._condition:
            self._executor = None
            self._enter("idle")

    def _close_retired(self) -> None:
        """Closes what was replaced and lets it go: a name that outlived this would keep a whole model."""
        for executor in self._take_retired():
            self._guarded(executor.close)

    def _next_task(self) -> _Task | None:
        """Sleeps until there is a picture to make (None: something else to do)."""
        with self._condition:
            while not (self._closing or self._retired):
                view, executor, last = self._view, self._executor, self._snapshot
                if view is not None and executor is not None and self._begun != self._serial:
                    self._begun = self._serial
                    coarse = self._new_scene or last is None or not last.view.shows_same(view)
                    return _Task(self._serial, view, executor, InTurn(executor, self._place), coarse)
                self._enter("idle")
                self._condition.wait()
            return None

    def _take_retired(self) -> list[Executor]:
        with self._condition:
            retired, self._retired = self._retired, []
            return retired

    def _guarded(self, work: Callable[[], object], executor: Executor | None = None) -> None:
        """Runs calls to an executor, whose faults must not end the thread: the window shows them, unless they are of a
        picture by an `executor` that was replaced meanwhile."""
        try:
            work()
        except Exception as error:
            with self._condition:
                if executor is None or executor is self._executor:
                    self._error = error

    def _enter(self, state: str) -> None:
        """Called with the lock held."""
        self._state = state
        self._condition.notify_all()

    def _render(self, task: _Task) -> None:
        """One picture through its states, until it is no longer the one wanted."""
        if task.coarse and not (self._coarse_frame(task) and self._rests(task)):
            return
        accumulator = self._settle(task)
        scratch: FrameBuffers | None = None  # one for all frames that are averaged
        while accumulator is not None and self._wants_more(task, accumulator.count):
            request = task.view.request(self._max_scale, accumulator.count)
            scratch = scratch or FrameBuffers.allocate(request.camera.width, request.camera.height)
            if not self._refine(task, request, scratch, accumulator):
                return

    def _coarse_frame(self, task: _Task) -> bool:
        """One scaled-down frame, finished even when the view has changed: in a long drag they all would be outdated."""
        scale, start = min(self._scale.scale, self._max_scale), self._place.clock()
        target = self.target_frame_ms

        def cancelled() -> bool:
            too_slow = scale > self._scale.least and self._milliseconds(start) > PATIENCE * target
            return self._closing or self._executor is not task.executor or (too_slow and task.serial != self._serial)

        request = hurried(task.view.request(scale), task.executor)
        frame = allocate(task.executor, request.camera.width, request.camera.height)
        stats = task.rendering.render(request, frame, cancelled)
        if stats.cancelled:
            with self._condition:
                if self._executor is task.executor:
                    self._scale.scale = max(self._scale.least, scale / 2)
            return False
        ms = self._milliseconds(start)
        full = task.view.camera
        with self._condition:
            if self._executor is task.executor:  # another one has another speed
                self._scale.measured(frame.width * frame.height, ms, full.width * full.height, target, self._max_scale)
                self._new_scene = False
            self._publish(task, frame, "moving", 0, stats, ms)
        return True

    def _rests(self, task: _Task) -> bool:
        """Waits until the view has not changed for a while; false as soon as it changes."""
        with self._condition:
            while self._serial == task.serial:
                if self._view is not None and self._view.moving:
                    self._condition.wait()
                    continue
                left = self._changed_at + self._settle_after_s - self._clock()
                if left <= 0 or not self._condition.wait(left):
                    return self._serial == task.serial
        return False

    def _settle(self, task: _Task) -> Accumulator | None:
        """The exact frame at full resolution, over the upscaled last picture. None when cancelled."""
        with self._condition:
            if self._serial == task.serial:
                self._enter("settling")
        for scale in rungs(task.executor, self._snapshot, self._max_scale):
            if self._exact(task, scale, 0) is None:
                return None
        frame = self._exact(task, self._max_scale, 1)
        if frame is None:
            return None
        accumulator = Accumulator(frame.width, frame.height)
        accumulator.add(frame)
        return accumulator

    def _exact(self, task: _Task, scale: float, accumulated: int) -> FrameBuffers | None:
        """The exact frame at a scale, over the upscaled last picture. None when cancelled."""
        request, base, start = task.view.request(scale), self._snapshot, self._place.clock()
        width, height = request.camera.width, request.camera.height
        frame = FrameBuffers.allocate(width, height) if base is None else resampled(base.buffers, width, height)
        published, copy_s = start, 0.0

        def publish_part(stats: RenderStats) -> None:
            nonlocal published, copy_s
            begin = self._clock()
            if begin - published < max(PUBLISH_S, copy_s / PUBLISH_SHARE):
                return
            part = replace(stats, stages=dict(stats.stages))
            with self._condition:
                self._publish(task, copied(frame), "settling", 0, part, self._milliseconds(start))
            published = self._clock()
            copy_s = published - begin

        stats = self._slices(task, request, frame, publish_part)
        if stats.cancelled:
            return None
        with self._condition:
            self._publish(task, frame, "settling", accumulated, stats, self._milliseconds(start))
        return frame

    def _wants_more(self, task: _Task, count: int) -> bool:
        """Sleeps while enough frames are averaged; false when another picture is wanted."""
        with self._condition:
            while self._serial == task.serial and count >= self._max_frames:
                self._enter("idle")
                self._condition.wait()
            if self._serial == task.serial:
                self._enter("refining")
                return True
        return False

    def _refine(self, task: _Task, request: RenderRequest, frame: FrameBuffers, accumulator: Accumulator) -> bool:
        """Averages one more frame in. False when cancelled."""
        start = self._place.clock()
        stats = self._slices(task, request, frame)
        if stats.cancelled:
            return False
        accumulator.add(frame)
        mean = accumulator.mean()
        with self._condition:
            self._publish(task, mean, "refining", accumulator.count, stats, self._milliseconds(start))
        return True

    def _slices(
        self,
        task: _Task,
        request: RenderRequest,
        out: FrameBuffers,
        after_slice: Callable[[RenderStats], None] = lambda stats: None,
    ) -> RenderStats:
        """One full frame of a task. `stats.cancelled`: another picture is wanted by now."""

        def cancelled() -> bool:
            return self._serial != task.serial

        focus = (lambda: in_pixels(self.focus, request.camera)) if pace_of(task.executor).ladder else None
        clock = self._place.clock
        return render_in_slices(task.rendering, request, out, self._budget, cancelled, clock, after_slice, focus)

    def _milliseconds(self, start: float) -> float:
        return (self._place.clock() - start) * 1000

    def _publish(
        self, task: _Task, frame: FrameBuffers, state: str, accumulated: int, stats: RenderStats, ms: float
    ) -> None:
        """Hands a picture to the window; called with the lock held. Sharp pictures of an outdated view are dropped."""
        if self._executor is not task.executor or (state != "moving" and self._serial != task.serial):
            return
        scale = frame.width / task.view.camera.width
        sequence = 1 if self._snapshot is None else self._snapshot.sequence + 1
        self._snapshot = Snapshot(
            frame, task.view, frame.width, frame.height, scale, state, accumulated, sequence, stats, ms
        )
        self._error = None


@dataclass(frozen=True, eq=False)
class _Task:
    """One picture to make."""

    serial: int
    view: View
    executor: Executor  # the renderer's, by which a task is known to be outdated
    rendering: Executor  # the same, in its turn
    coarse: bool  # begin with a scaled-down frame
