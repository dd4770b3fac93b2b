"""Behind the window: the scene that is open, its renderer, and the worker that opens, switches executors and saves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..renderer.cliutil import say
from ..renderer.frame import DeviceLost, Executor
from ..renderer.scheduler import ProgressiveRenderer, Snapshot
from .notices import Notices
from .scene import BackgroundExecutor, LoadedScene, Opener
from .worker import Done, Worker

SAFE = ("cpu", "torch")  # executors that no lost device takes away, the faster first


class Session:
    """Nothing here waits; `poll`, called once a frame in the window's thread, takes in what was finished."""

    def __init__(self, opener: Opener, notices: Notices, wake: Callable[[], None], executor: str) -> None:
        self.opener, self.notices = opener, notices
        self.worker = Worker(wake)
        self.renderer = ProgressiveRenderer()
        self.scene: LoadedScene | None = None
        self.executor = executor  # name asked for, "auto" included
        self.chosen = executor  # the same, but by the person: not what a lost device led to
        self._rendering = executor  # name that the present scene's executor came from
        self.open_error: Exception | None = None  # of the newest checkpoint asked for
        self._opening: tuple[int, Path] = (0, Path())  # job and file, of the newest
        self._again = False  # the newest is a file that is followed
        self._switching = 0  # job of the newest switch of executors
        self._lost: Executor | None = None  # whose device is gone
        self._sequence = 0  # newest snapshot taken in
        self._failure: Exception | None = None  # of the renderer, already said
        self._state = self.renderer.state

    @property
    def loading(self) -> str:
        """Name of the file being opened, empty when none is."""
        return self._opening[1].name if self.worker.pending("open") else ""

    @property
    def news(self) -> bool:
        """Whether `poll` or the scheduler's state would show something new."""
        latest = self.renderer.latest()
        return (
            self.worker.finished
            or (latest is not None and latest.sequence != self._sequence)
            or self.renderer.error is not self._failure
            or self.renderer.state != self._state
        )

    def open(self, path: str | Path, again: bool = False) -> None:
        """Opens a checkpoint in the background; the present scene stays until the new one is there.

        `again`: a file that is followed, whose scene takes the place of the one it had before, in the same view.
        """
        path, executor = Path(path).expanduser(), self.executor
        self.open_error, self._again = None, again
        self._opening = (self.worker.submit("open", lambda: self.opener(path, executor)), path)

    def switch(self, name: str) -> None:
        """Renders the present scene with another executor, as soon as that is ready."""
        self.executor = self.chosen = name
        self._submit_switch(name)

    def _submit_switch(self, *names: str) -> None:
        """The first of `names` that can be had."""
        if self.scene is not None:
            model = self.scene.model
            self._switching = self.worker.submit("switch", lambda: (model, *_background(*_first(names, model))))

    def poll(self, adopt: Callable[[LoadedScene, bool], None]) -> Snapshot | None:
        """Takes in what was finished; `adopt` gets a newly opened scene, and whether the view is kept. Returns a new
        picture of the present scene."""
        for done in self.worker.poll():
            if done.kind == "open":
                self._opened(done, adopt)
            elif done.kind == "switch":
                self._switched(done)
            elif done.error is not None:
                self.notices.error(sentence(done.error))
            elif done.value:
                self.notices.add(str(done.value))
        self._state = self.renderer.state
        if (failure := self.renderer.error) is not self._failure:
            self._failure = failure
            if isinstance(failure, DeviceLost):
                self._go_on_without(failure)
            elif failure is not None:
                self.notices.error(f"Rendering failed: {sentence(failure)}")
        snapshot = self.renderer.latest()
        if snapshot is None or snapshot.sequence == self._sequence:
            return None
        self._sequence = snapshot.sequence
        return snapshot if self.scene is not None else None

    def _opened(self, done: Done, adopt: Callable[[LoadedScene, bool], None]) -> None:
        if done.serial != self._opening[0]:  # another file was asked for since
            if done.error is None:
                done.value.executor.close()
            return
        if done.error is not None:
            self.open_error = done.error
            if self._again:
                self.notices.add(f"Not readable now, tried again when it changes: {sentence(done.error)}")
            else:
                self.notices.error(sentence(done.error))
            return
        keep = self._again and self.scene is not None
        self.scene, self._rendering = done.value, self.executor
        latest = self.renderer.latest()
        self._sequence = latest.sequence if latest is not None else 0  # older pictures are of the old scene
        adopt(done.value, keep)
        self.renderer.set_executor(done.value.executor, same_place=keep)

    def _switched(self, done: Done) -> None:
        if done.error is not None:
            self.notices.error(sentence(done.error))
            self.executor = self._rendering
        elif self.scene is not None and done.value[0] is self.scene.model and done.serial == self._switching:
            if self.scene.executor is self._lost:
                self.executor = done.value[1].name
            self._rendering = self.executor
            self.scene = self.scene.with_executor(*done.value[1:])
            self.renderer.set_executor(self.scene.executor)
        else:  # another scene was opened or another executor asked for since
            done.value[1].close()

    def _go_on_without(self, failure: DeviceLost) -> None:
        """Takes an executor that needs no device; the last picture stays until the first of that one is there."""
        if self.scene is None or self.scene.executor is self._lost:  # it fails again with each view until then
            return
        self._lost = self.scene.executor
        self.notices.error(f"Going on with the {SAFE[0]} executor, the device was lost: {sentence(failure)}")
        self.executor = SAFE[0]  # for scenes that are opened from now on
        self._submit_switch(*SAFE)

    def close(self) -> None:
        """Ends both threads; executors are closed."""
        self.renderer.close()
        self.worker.close()
        for done in self.worker.poll():
            if done.kind == "settings" and done.error is not None:
                say(sentence(done.error))
            elif done.error is None and done.kind in ("open", "switch"):
                (done.value.executor if done.kind == "open" else done.value[1]).close()


def _first(names: tuple[str, ...], model: Any) -> tuple[Executor, str]:
    """`make_executor` of the first name that works. Raises `ExecutorUnavailable`."""
    from ..renderer.executors import ExecutorUnavailable, make_executor

    refusals = []
    for name in names:
        try:
            return make_executor(name, model)
        except ExecutorUnavailable as error:
            refusals.append(str(error))
    raise ExecutorUnavailable("; ".join(refusals))


def _background(executor: Executor, reason: str) -> tuple[BackgroundExecutor, str]:
    return BackgroundExecutor(executor), reason


def sentence(error: Exception) -> str:
    """An error as a person reads it; one that we did not foresee keeps its name.

    >>> sentence(ValueError("no  such file")), sentence(KeyError("x"))
    ('no such file', "KeyError: 'x'")
    """
    text = " ".join(str(error).split())[:400]
    return text if isinstance(error, (ValueError, RuntimeError, OSError)) else f"{type(error).__name__}: {text}"
