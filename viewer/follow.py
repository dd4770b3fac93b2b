"""Following a training run: a thread of its own notices when the checkpoint that the run writes was replaced.

Checkpoints are renamed over one another, so a new inode is a whole file and is told at once. A file that changes in
place is being copied: it is told when it has been still for one look.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from .scene import LoadedScene

LOOK_EVERY_S = 0.5

Signature = tuple[int, int, int]  # inode, ns of the last change, bytes


def run_checkpoint(run: Path) -> Path | None:
    """The checkpoint that a person means by a run: a file, the `.resume` beside it, the logs' folder, or the folder
    that holds it. Of several in a folder the newest, the best ones left out; None: there is none yet.

    >>> run_checkpoint(Path("nowhere/city.pth.resume")).as_posix()
    'nowhere/city.pth'
    """
    if run.suffix == ".resume":
        return run.with_suffix("")
    if not run.is_dir():
        return run
    if run.suffix == ".logs":
        return run.with_suffix(".pth")
    found = [path for path in run.glob("*.pth") if not path.name.startswith(".") and path.suffixes[-2:-1] != [".best"]]
    return max(found, key=_changed, default=None)


def _changed(path: Path) -> int:
    signature = _signature(path)
    return signature[1] if signature else 0


def _signature(path: Path) -> Signature | None:
    try:
        stat = path.stat()
    except OSError:  # not there yet, or not just now
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


class Follower:
    """Call `take` in the window's thread; nothing here waits for a disk but `look`, which the thread calls."""

    def __init__(self, run: Path, wake: Callable[[], None] = lambda: None) -> None:
        self.run, self.path = run, None if run.is_dir() and run.suffix != ".logs" else run_checkpoint(run)
        self._wake = wake
        self._lock = threading.Lock()
        self._seen: Signature | None = None  # at the last look
        self._told: Signature | None = None  # when it was last said to have changed
        self._changed = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="infnerf-follow", daemon=True)

    def start(self) -> None:
        """Looks every LOOK_EVERY_S from now on, and calls `wake`, in the thread, when something changed."""
        self._thread.start()

    def look(self) -> None:
        """One look at the file."""
        path = self.path or run_checkpoint(self.run)
        signature = _signature(path) if path is not None else None
        with self._lock:
            whole = signature == self._seen or self._seen is None or (signature and signature[0] != self._seen[0])
            self._seen = signature
            if signature is None or signature == self._told or not whole:
                return
            self.path, self._told, self._changed = path, signature, True
        self._wake()

    @property
    def changed(self) -> bool:
        """Whether `take` would return a file."""
        return self._changed

    def take(self) -> Path | None:
        """The file, once after each of its changes."""
        with self._lock:
            changed, self._changed = self._changed, False
            return self.path if changed else None

    @property
    def folder(self) -> Path:
        """Where the checkpoint is, or is awaited."""
        return self.run.resolve() if self.path is None else self.path.resolve().parent

    def words(self, scene: LoadedScene | None) -> str:
        """What is followed and how old it is; `scene` is what is open of it.

        >>> Follower(Path("nowhere/city.pth")).words(None)
        'Waiting for city.pth'
        """
        if scene is None:
            return f"Waiting for {self.path.name if self.path is not None else 'a checkpoint'}"
        step = "" if scene.step is None else f"step {scene.step:,}, "
        return f"Following {scene.path.name}: {step}saved {age(scene.saved)}"

    def close(self) -> None:
        """Ends the thread; does not wait for a disk that hangs."""
        self._ended.set()

    def _watch(self) -> None:
        self.look()
        while not self._ended.wait(LOOK_EVERY_S):
            self.look()


def age(saved: float, now: float | None = None) -> str:
    """How long ago a file was saved, in steps coarse enough that a window at rest is seldom drawn for it.

    >>> age(100.0, 104.0), age(100.0, 147.0), age(100.0, 400.0), age(0.0, 9000.0)
    ('just now', '40 s ago', '5 min ago', '2.5 h ago')
    """
    seconds = (time.time() if now is None else now) - saved
    if seconds < 10:
        return "just now"
    if seconds < 60:
        return f"{int(seconds // 10) * 10} s ago"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    return f"{int(seconds // 360) / 10:g} h ago"
