"""Behind the window: the scenes that are open, and the worker that opens, switches executors and saves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..renderer.cliutil import say
from ..renderer.frame import DeviceLost, Executor
from ..renderer.scheduler import STATES, ProgressiveRenderer
from ..renderer.turns import Turns
from .loaded import Loaded
from .notices import Notices
from .scene import BackgroundExecutor, LoadedScene, Opener
from .worker import Done, Worker

SAFE = ("cpu", "torch")  # executors that no lost device takes away, the faster first


@dataclass(frozen=True)
class _Asked:
    """A file that is being opened."""

    path: Path
    place: Loaded | None  # whose scene it takes the place of; None: one more
    add: bool
    again: bool  # it is followed, and written again and again


class Session:
    """Nothing here waits; `poll`, called once a frame in the window's thread, takes in what was finished."""

    def __init__(self, opener: Opener, notices: Notices, wake: Callable[[], None], executor: str) -> None:
        self.opener, self.notices = opener, notices
        self.worker, self.turns = Worker(wake), Turns()
        self.loaded: list[Loaded] = []  # all that is open, in the order of their numbers
        self.shown: tuple[Loaded, ...] = ()  # on the screen, the one that leads first
        self.executor = executor  # name asked for, "auto" included
        self.chosen = executor  # the same, but by the person: not what a lost device led to
        self.errors: list[Exception] = []  # of files that did not open
        self.handlers: dict[str, Callable[[Done], None]] = {}  # for jobs of others, by kind
        self._asked: dict[int, _Asked] = {}  # by job; what is no longer wanted is taken out
        self._switches: dict[int, Loaded] = {}  # by job

    @property
    def front(self) -> Loaded | None:
        """What leads on the screen."""
        return self.shown[0] if self.shown else next(iter(self.loaded), None)

    @property
    def scene(self) -> LoadedScene | None:
        """The scene that leads."""
        return self.front.scene if self.front is not None else None

    @property
    def renderer(self) -> ProgressiveRenderer:
        """The renderer of the scene that leads; there must be one."""
        assert self.front is not None
        return self.front.renderer

    @property
    def state(self) -> str:
        """What rendering is at: of all that is on the screen, the one that is farthest from rest."""
        return min((loaded.renderer.state for loaded in self.shown), key=STATES.index, default="idle")

    @property
    def loading(self) -> str:
        """Name of the file being opened, empty when none is."""
        return next((asked.path.name for asked in self._asked.values()), "")

    @property
    def count(self) -> int:
        """Scenes that are open, with those that are being added."""
        return len(self.loaded) + sum(asked.place is None for asked in self._asked.values())

    @property
    def news(self) -> bool:
        """Whether `poll` or a renderer's state would show something new."""
        return self.worker.finished or any(loaded.news for loaded in self.shown)

    def show(self, shown: tuple[Loaded, ...]) -> None:
        """What is on the screen from now on, the one that leads first. The renderers of all others sleep."""
        self.shown = shown
        for loaded in self.loaded:
            if loaded not in shown:
                loaded.rest()

    def open(self, path: str | Path, again: bool = False, add: bool = False) -> None:
        """Opens a checkpoint in the background, in place of the scene that leads, which stays until then.

        `add`: as one more. `again`: a file that is followed, whose scene takes the place of the one it had before, in
        the same view.
        """
        path, executor = Path(path).expanduser(), self.executor
        place = None if add else self.front
        if again:
            place = next((loaded for loaded in self.loaded if loaded.scene.path == path), place)
        if not add:  # the newest wins
            self._asked = {job: asked for job, asked in self._asked.items() if asked.add or asked.place is not place}
        self._asked[self.worker.submit("open", lambda: self.opener(path, executor))] = _Asked(path, place, add, again)

    def remove(self, number: int) -> Loaded:
        """Closes an open scene; what it holds is given back in the background."""
        loaded = self.loaded.pop(number)
        self.shown = tuple(other for other in self.shown if other is not loaded)
        self.worker.submit("close", loaded.renderer.close)
        return loaded

    def switch(self, name: str) -> None:
        """Renders all scenes with another executor, as soon as that is ready."""
        self.executor = self.chosen = name
        for loaded in self.loaded:
            self._submit_switch(loaded, name)

    def _submit_switch(self, loaded: Loaded, *names: str) -> None:
        """The first of `names` that can be had."""
        model = loaded.scene.model
        job = self.worker.submit("switch", lambda: (model, *_background(*_first(names, model))))
        loaded.switching = job
        self._switches[job] = loaded

    def poll(self, adopt: Callable[[Loaded, str], None]) -> None:
        """Takes in what was finished. `adopt` is told of a scene that was "opened" in another's place, "reloaded" in
        the same view, or "added"."""
        for done in self.worker.poll():
            if done.kind == "open":
                self._opened(done, adopt)
            elif done.kind == "switch":
                self._switched(done)
            elif done.kind in self.handlers:
                self.handlers[done.kind](done)
            elif done.error is not None:
                self.notices.error(sentence(done.error))
            elif done.value:
                self.notices.add(str(done.value))
        for loaded in self.shown:
            if (failure := loaded.poll()) is not None:
                if isinstance(failure, DeviceLost):
                    self._go_on_without(loaded, failure)
                else:
                    self.notices.error(f"Rendering failed: {sentence(failure)}")

    def _opened(self, done: Done, adopt: Callable[[Loaded, str], None]) -> None:
        asked = self._asked.pop(done.serial, None)
        if asked is None:  # another file was asked for since
            if done.error is None:
                done.value.executor.close()
            return
        if done.error is not None:
            self.errors.append(done.error)
            if asked.again:
                self.notices.add(f"Not readable now, tried again when it changes: {sentence(done.error)}")
            else:
                self.notices.error(sentence(done.error))
            return
        if asked.place in self.loaded:
            assert asked.place is not None
            loaded, how = asked.place, "reloaded" if asked.again else "opened"
            loaded.take_scene(done.value, self.executor)
        else:
            loaded, how = Loaded(done.value, self.executor, self.turns), "added" if self.loaded else "opened"
            self.loaded.append(loaded)
        adopt(loaded, how)
        loaded.renderer.set_executor(done.value.executor, same_place=how == "reloaded")

    def _switched(self, done: Done) -> None:
        loaded = self._switches.pop(done.serial)
        if done.error is not None:
            leads = loaded is self.front
            self.notices.error(("" if leads else f"{loaded.name}: ") + sentence(done.error))
            if leads:
                self.executor = loaded.rendering
        elif loaded in self.loaded and done.value[0] is loaded.scene.model and done.serial == loaded.switching:
            if loaded.scene.executor is loaded.lost:
                self.executor = done.value[1].name
            _, executor, reason = done.value
            loaded.take_executor(executor, reason, self.executor)
        else:  # another scene was opened or another executor asked for since
            done.value[1].close()

    def _go_on_without(self, loaded: Loaded, failure: DeviceLost) -> None:
        """Takes an executor that needs no device; the last picture stays until the first of that one is there."""
        if loaded.scene.executor is loaded.lost:  # it fails again with each view until then
            return
        loaded.lost = loaded.scene.executor
        self.notices.error(f"Going on with the {SAFE[0]} executor, the device was lost: {sentence(failure)}")
        self.executor = SAFE[0]  # for scenes that are opened from now on
        self._submit_switch(loaded, *SAFE)

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Waits until all renderers rest; for tests. Returns whether they all did within `timeout` seconds each."""
        return all(loaded.renderer.wait_idle(timeout) for loaded in self.loaded)

    def close(self) -> None:
        """Ends all threads; executors are closed."""
        for loaded in self.loaded:
            loaded.renderer.close()
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
