"""How the viewer feels, in numbers: start, motion, rest, idle.

Runs the real application in a window under Xvfb (where there is none: on GLFW's null platform, whose waits don't wait,
so that its window thread takes a core for nothing).

    python benchmarks/viewer.py [CHECKPOINT] [--seconds 6]

Prints machine, size and commit, then each figure beside what we hold ourselves to. GL is whatever the machine has; on
llvmpipe the window's own rasterising competes with the renderer for the same cores, so the figures are those of a
machine without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from infnerf.renderer.paths import orbit

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 1280, 720


def row(name: str, value: str, target: str) -> None:
    print(f"{name:<44} {value:>22}   {target}", flush=True)


def start(checkpoint: Path) -> None:
    """A fresh process to its first picture, in parts. Run twice; the second, warm one is printed."""
    code = (
        "import time; t = [time.perf_counter()]; mark = lambda: t.append(time.perf_counter())\n"
        "import torch; mark()\n"
        "from infnerf.viewer.app import App; from infnerf.viewer.window import Window\n"
        f"w = Window({WIDTH}, {HEIGHT}, 'x', headless=True); a = App(w); mark()\n"
        f"a.open({str(checkpoint)!r})\n"
        "a.run(until=lambda: a.picture.snapshot is not None); mark()\n"
        "print(*[b - a for a, b in zip(t, t[1:])]); a.close(); w.close()"
    )
    for _ in range(2):
        began = time.perf_counter()
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        whole = time.perf_counter() - began
    torch_s, window_s, picture_s = map(float, out.split())
    row("start to first picture", f"{torch_s + window_s + picture_s:.2f} s", "at most 4 s")
    row("  import torch", f"{torch_s:.2f} s", "")
    row("  viewer, window, ImGui", f"{window_s:.2f} s", "")
    row("  checkpoint, kernels, first picture", f"{picture_s:.2f} s", "")
    row("  whole process with its end", f"{whole:.2f} s", "")
    for name in ("infnerf-view", "infnerf"):
        program = Path(sys.executable).with_name(name)
        times = []
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run([str(program), "--help"], capture_output=True, check=True)
            times.append(time.perf_counter() - began)
        row(f"{name} --help", f"{min(times):.2f} s", "at most 0.5 s")


def motion(app, seconds: float) -> None:
    """Flies an orbit without a pause; counts the pictures that reach the screen and the window thread's work."""
    path = itertools.cycle(orbit(app.scene.model.scene, 600, width=WIDTH, height=HEIGHT))
    began, sequences, work, scales, own = time.perf_counter(), set(), [], [], []
    frame = app.frame

    def timed_frame() -> None:
        before = time.thread_time()
        frame()
        own.append(1e3 * (time.thread_time() - before))

    def turn() -> bool:
        now = time.perf_counter() - began
        app.state.camera.set_c2w(next(path).c2w)
        app.touch()
        if now > 1.0:  # the first second finds the scale
            work.append(app.monitor.window_ms)
            if (snapshot := app.picture.snapshot) is not None:
                sequences.add(snapshot.sequence)
                scales.append(snapshot.scale)
        return now > seconds

    app.frame = timed_frame
    app.run(until=turn)
    del app.frame
    taken = time.perf_counter() - began - 1.0
    row("in motion, pictures a second", f"{len(sequences) / taken:.1f}", "at least 20")
    row("  frames drawn a second", f"{len(work) / taken:.1f}", "")
    row(
        "  window thread's work, median / 95 %",
        f"{np.median(work):.1f} / {np.quantile(work, 0.95):.1f} ms",
        "at most 16 ms",
    )
    row(
        "    of it on a core, median / 95 %",
        f"{np.median(own):.1f} / {np.quantile(own, 0.95):.1f} ms",
        "the rest waited for llvmpipe or a core",
    )
    row("  resolution, share of full size", f"{np.mean(scales):.2f}", "")


def rest(app) -> None:
    """From the last motion to the full-size picture, and to the last accumulated one."""
    began, full = time.perf_counter(), []

    def look() -> bool:
        snapshot = app.picture.snapshot
        if not full and snapshot.scale == 1 and snapshot.accumulated >= 1 and app.picture.is_sharp(app.stage.view):
            full.append(time.perf_counter() - began)
        return app.session.state == "idle" and not app.news()

    app.touch()
    app.run(until=look)
    width, height = app.scene_size
    row(f"rest to full resolution ({width}x{height})", f"{full[0]:.2f} s", "at most 4 s at 1280x720")
    row(f"  to {app.state.max_frames} accumulated frames, then idle", f"{time.perf_counter() - began:.1f} s", "")


def idle(checkpoint: Path, seconds: float) -> None:
    """The program itself, untouched. Needs a display."""
    program = [str(Path(sys.executable).with_name("infnerf-view")), str(checkpoint), "--no-settings"]
    viewer = subprocess.Popen(program)
    try:
        time.sleep(5.0)
        for _ in range(90):  # to its last accumulated frame
            before = cpu_seconds(viewer.pid)
            time.sleep(1.0)
            if cpu_seconds(viewer.pid) - before < 0.1:
                break
        before = cpu_seconds(viewer.pid)
        time.sleep(seconds)
        row(
            f"idle for {seconds:.0f} s, share of a core",
            f"{100 * (cpu_seconds(viewer.pid) - before) / seconds:.2f} %",
            "under 2 %",
        )
    finally:
        viewer.terminate()
        viewer.wait()


@contextlib.contextmanager
def display() -> Iterator[bool]:
    """A display of our own, for this process and those it starts. Yields whether there is one."""
    if shutil.which("Xvfb") is None:
        yield False
        return
    name = ":143"
    server = subprocess.Popen(["Xvfb", name, "-screen", "0", "1400x900x24", "-noreset", "-nolisten", "tcp"])
    try:
        time.sleep(1.0)
        os.environ["DISPLAY"] = name
        yield True
    finally:
        server.terminate()
        server.wait()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("checkpoint", nargs="?", type=Path, default=ROOT / "assets" / "demo.pth")
    parser.add_argument("--seconds", type=float, default=6.0)
    arguments = parser.parse_args()
    from infnerf.renderer.bench import commit, machine

    about = machine()
    print(
        f"{about['cpu']}, {about['threads']} threads, torch {about['torch']}, window {WIDTH}x{HEIGHT}, "
        f"commit {commit()}"
    )
    start(arguments.checkpoint)
    with display() as shown:
        measure(arguments.checkpoint, arguments.seconds, shown)


def measure(checkpoint: Path, seconds: float, shown: bool) -> None:
    """All that needs a window. `shown`: there is a display."""
    from infnerf.viewer.app import App
    from infnerf.viewer.window import Window

    with Window(WIDTH, HEIGHT, "benchmark", headless=not shown) as window:
        from OpenGL import GL

        print(f"GL: {(GL.glGetString(GL.GL_RENDERER) or b'unknown').decode()}")
        app = App(window)
        try:
            app.state.show_ui = False  # the scene fills the whole 1280x720
            app.open(checkpoint)
            app.run(until=lambda: app.scene is not None and app.picture.snapshot is not None)
            motion(app, seconds)
            rest(app)
        finally:
            app.close()
    if shown:
        idle(checkpoint, 10.0)
    else:
        row("idle, share of a core", "no Xvfb", "under 2 %")


if __name__ == "__main__":
    main()
