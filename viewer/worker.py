"""One background thread for what must not hold up the window: opening scenes, building executors, writing files."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

BACKGROUND_NICE = 4


def step_back() -> None:
    """Lowers the calling thread's priority, and that of the threads it starts, below the window's.

    Where rendering takes all cores, a frame of the window would otherwise wait for its share of them. Linux has
    priorities per thread; elsewhere this does nothing.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            process = os.getpriority(os.PRIO_PROCESS, os.getpid())  # of its main thread, the window's
            os.setpriority(os.PRIO_PROCESS, thread, process + BACKGROUND_NICE)


@dataclass(frozen=True)
class Done:
    """A finished job: `value`, or `error` when it failed."""

    kind: str
    serial: int
    value: Any = None
    error: Exception | None = None


class Worker:
    """Runs jobs one after the other; `wake` is called, from the thread, when one is done.

    >>> worker = Worker()
    >>> serial = worker.submit("add", lambda: 1 + 1)
    >>> worker.drain(5), [done.value for done in worker.poll()]
    (True, [2])
    >>> worker.close()
    """

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self._wake = wake
        self._jobs: queue.Queue[tuple[str, int, Callable[[], Any]] | None] = queue.Queue()
        self._done: queue.Queue[Done] = queue.Queue()
        self._condition = threading.Condition()
        self._pending: dict[int, str] = {}
        self._serial = 0
        self._thread = threading.Thread(target=self._run, name="infnerf-worker", daemon=True)
        self._thread.start()

    def submit(self, kind: str, job: Callable[[], Any]) -> int:
        """Queues a job; returns its serial number, which `Done` repeats."""
        with self._condition:
            self._serial += 1
            self._pending[self._serial] = kind
            self._jobs.put((kind, self._serial, job))
            return self._serial

    def pending(self, kind: str) -> int:
        """How many jobs of a kind are queued, running or not yet polled."""
        with self._condition:
            return sum(1 for name in self._pending.values() if name == kind)

    @property
    def finished(self) -> bool:
        """Whether `poll` would return something."""
        return not self._done.empty()

    def poll(self) -> list[Done]:
        """What was finished since the last call."""
        finished = []
        while not self._done.empty():
            done = self._done.get()
            finished.append(done)
            with self._condition:
                self._pending.pop(done.serial, None)
        return finished

    def drain(self, timeout: float | None = None) -> bool:
        """Waits until no job is queued or running; true if that came about within `timeout` seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: self._done.qsize() >= len(self._pending), timeout)

    def close(self) -> None:
        """Lets the jobs in the queue finish and ends the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        step_back()
        while (item := self._jobs.get()) is not None:
            kind, serial, job = item
            try:
                done = Done(kind, serial, job())
            except Exception as error:
                done = Done(kind, serial, error=error)
            with self._condition:
                self._done.put(done)
                self._condition.notify_all()
            self._wake()
