"""A camera path in the making: key frames at the views that a person chose, played back, kept in files, filmed.

Filming is a process of its own, `infnerf render`: the window goes on while it works, its frames are that command's, and
an interruption leaves a video of the frames so far.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from ..models.similarity import place_of
from ..renderer.cliutil import CommandError
from ..renderer.key_path import Journey, KeyFrame, KeyPath
from ..renderer.path_files import read_path, write_path
from ..renderer.path_presets import PRESETS
from .notices import Notices
from .rig import Rig
from .scene import LoadedScene
from .state import EXECUTORS, ViewerState
from .worker import Done, Worker

PRESET_KEYS = {"orbit": 8, "turntable": 8, "spiral": 24, "powers": 12, "cameras": 60}  # key frames taken of each
PRESET_SECONDS = 12.0  # of a preset's path
LOOPS = ("orbit", "turntable")
CURVE_STEPS = 8  # of the drawn path, between two keys
_COMMAND = "from infnerf.training.cli import main; raise SystemExit(main())"


class Film:
    """The path, the key that is chosen, the moment that is shown."""

    def __init__(self, worker: Worker, notices: Notices) -> None:
        self._worker, self._notices = worker, notices
        self.path = KeyPath()
        self.chosen = 0
        self.seconds = 0.0  # of the moment that was shown last
        self.playing = False
        self.recording: Recording | None = None
        self._journey: tuple[int, Journey, NDArray[np.float64]] | None = None  # of a version, and its curve
        self._version = 0  # grows with every change of the path
        self.handlers: dict[str, Callable[[Done], None]] = {"path": self._loaded}

    def changed(self) -> None:
        """To be called after the path was edited from outside."""
        self._version += 1
        self.chosen = min(self.chosen, max(len(self.path.keys) - 1, 0))
        self.seconds = min(self.seconds, self.path.duration)

    def add(self, camera: Camera, lod_bias: float) -> None:
        """A key at a view, behind the chosen one."""
        at = self.chosen + 1 if self.path.keys else 0
        seconds = self.path.keys[self.chosen].seconds if self.path.keys else 2.0
        self.path.keys.insert(at, KeyFrame(camera.c2w, camera.fov_y, seconds, lod_bias))
        self.chosen = at
        self.changed()

    def move(self, camera: Camera) -> None:
        """The chosen key comes to a view."""
        if self.path.keys:
            self.edit(c2w=camera.c2w, fov_y=camera.fov_y)

    def edit(self, **values: object) -> None:
        """Changes fields of the chosen key."""
        key = replace(self.path.keys[self.chosen], **values)  # type: ignore[arg-type]
        self.path.keys[self.chosen] = key
        self.changed()

    def remove(self) -> None:
        """Drops the chosen key."""
        if self.path.keys:
            del self.path.keys[self.chosen]
            self.changed()

    def take_preset(self, name: str, scene: LoadedScene) -> None:
        """Key frames of a named path, to be changed at will. Raises `ValueError` where the scene has no such path."""
        cameras = PRESETS[name](scene.model, PRESET_KEYS[name], 1280, 720)
        loop = name in LOOPS
        each = PRESET_SECONDS / max(len(cameras) - (not loop), 1)
        keys = [KeyFrame(camera.c2w, camera.fov_y, each) for camera in cameras]
        self.path = KeyPath(keys, loop, constant_speed=name == "cameras", fps=self.path.fps)
        self.chosen, self.seconds = 0, 0.0
        self.changed()

    def show(self, state: ViewerState, seconds: float) -> None:
        """Puts the view to a moment of the path."""
        self.seconds = min(max(seconds, 0.0), self.path.duration)
        if not self.path.keys:
            return
        c2w, fov_y, lod_bias, view = self._ready()[0].at(self.seconds)
        state.camera = Rig.of(Camera.from_fov(c2w, float(np.clip(fov_y, 1, 170)), 2, 2), state.camera.up)
        state.lod_bias = float(np.clip(lod_bias, -4, 4))
        state.view_mode = view or state.view_mode

    def advance(self, state: ViewerState, dt: float, moved: bool) -> bool:
        """Plays on by `dt` seconds; a person who moves the camera takes it. Returns whether the view moves."""
        if not self.playing:
            return moved
        if moved or len(self.path.keys) < 2:
            self.playing = False
            return moved
        seconds = self.seconds + dt
        if seconds >= self.path.duration:
            self.playing = self.path.loop
            seconds = seconds % self.path.duration if self.path.loop else self.path.duration
        self.show(state, seconds)
        return True

    @property
    def curve(self) -> NDArray[np.float64]:
        """[n, 3] points of the path as it is drawn."""
        return self._ready()[1]

    def _ready(self) -> tuple[Journey, NDArray[np.float64]]:
        """The path as it is now, worked out once for each change."""
        if self._journey is None or self._journey[0] != self._version:
            journey = Journey(self.path)
            times = np.linspace(0, self.path.duration, CURVE_STEPS * len(self.path.times()))
            self._journey = self._version, journey, np.array([journey.at(t)[0][:3, 3] for t in times])
        return self._journey[1:]

    def save(self, file: Path, size: tuple[int, int], scene: LoadedScene | None) -> None:
        """Writes nerfstudio's JSON in the worker's thread."""
        path, place = self._copy(), _place(scene)

        def write() -> str:
            _sentence(lambda: write_path(file, path, *size, place))
            return f"Saved the path as {file} ({len(path.keys)} keys)"

        self._worker.submit("path file", write)

    def load(self, file: Path, scene: LoadedScene | None) -> None:
        """Reads a path of any known format in the worker's thread."""
        place = _place(scene)
        self._worker.submit("path", lambda: _sentence(lambda: read_path(file, place)))

    def record(self, scene: LoadedScene, out: Path, size: tuple[int, int], samples: int, view: str) -> None:
        """Films the path in a process of its own, as `infnerf render --path` does."""
        if self.recording is not None and self.recording.running:
            self._notices.error("A film is being made; stop it first.")
        elif not self.path.keys:
            self._notices.error("There is no path to film: set a key frame, or take a preset.")
        else:
            self.recording = Recording(scene, self._copy(), out.absolute(), size, samples, view)

    def poll(self) -> None:
        """Says what came of a film that has ended."""
        done = self.recording.verdict() if self.recording is not None else None
        if done is not None:
            (self._notices.add if done[0] else self._notices.error)(done[1])

    def close(self) -> None:
        if self.recording is not None:
            self.recording.stop()

    def _copy(self) -> KeyPath:
        return replace(self.path, keys=list(self.path.keys))

    def _loaded(self, done: Done) -> None:
        if done.error is not None:
            self._notices.error(str(done.error))
            return
        self.path, self.chosen, self.seconds, self.playing = done.value, 0, 0.0, False
        self.changed()
        self._notices.add(f"Opened a path of {len(self.path.keys)} keys, {self.path.duration:.1f} s.")


class Recording:
    """One `infnerf render` at work."""

    def __init__(
        self, scene: LoadedScene, path: KeyPath, out: Path, size: tuple[int, int], samples: int, view: str
    ) -> None:
        self.out, self.line = out, "starting"
        self._folder = tempfile.TemporaryDirectory(prefix="infnerf-film-")
        file = Path(self._folder.name) / "path.json"
        write_path(file, path, *size, place_of(scene.model.scene))
        executor = scene.executor.name if scene.executor.name in EXECUTORS else "auto"
        nice = ["nice", "-n", "5"] if shutil.which("nice") else []  # the window comes first
        arguments = [
            "render", str(scene.path), "--path", str(file), "--out", str(out), "--size", f"{size[0]}x{size[1]}",
            "--fps", f"{path.fps:g}", "--samples", str(samples), "--view", view, "--executor", executor,
        ]  # fmt: skip
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            [*nice, sys.executable, "-c", _COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
        )  # fmt: skip
        self._told = False
        self._reader = threading.Thread(target=self._read, name="infnerf-film", daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Ends it as Ctrl-C does: the frames so far stay as a video."""
        if self.running:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(5)
        self._folder.cleanup()

    def verdict(self) -> tuple[bool, str] | None:
        """Once it has ended: whether it went well, and what it said last. None before, and afterwards."""
        if self._told or self.running:
            return None
        self._told = True
        self._reader.join(5)
        self._folder.cleanup()
        return self._process.returncode == 0, f"Film: {self.line.removeprefix('infnerf: ')}"

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.line = line.strip() or self.line


def projected(points: NDArray[np.float64], camera: Camera) -> NDArray[np.float64]:
    """World points [n, 3] -> pixels [n, 2]; NaN for those behind the camera, or all but in it.

    >>> projected(np.array([[0.0, 0, 2], [0, 0, -2]]), Camera(np.eye(4), 10, 10, 4, 3, 8, 6)).tolist()
    [[4.0, 3.0], [nan, nan]]
    """
    local = (points - camera.position) @ camera.c2w[:3, :3]
    depth = np.where(local[:, 2] > 1e-6, local[:, 2], np.nan)
    return local[:, :2] / depth[:, None] * [camera.fx, camera.fy] + [camera.cx, camera.cy]


def _place(scene: LoadedScene | None) -> NDArray[np.float64] | None:
    return None if scene is None else place_of(scene.model.scene)


def _sentence(work: Callable[[], object]) -> object:
    """`CommandError`, which is a command line's, as the error that a message shows."""
    try:
        return work()
    except (CommandError, OSError, json.JSONDecodeError) as error:
        raise RuntimeError(str(error)) from error
