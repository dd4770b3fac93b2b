"""What the GUI tests share: an analytic scene with a real octree, and a viewer that ImGui's test engine drives.

The scene is a sphere on a chequered ground, exact in every channel, so a test can say which pixels must change.
"""

from __future__ import annotations

import ctypes
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infnerf.models.camera import Camera
from infnerf.models.octree import Octree, build_octree
from infnerf.renderer.frame import DeviceLost, FrameBuffers, RenderRequest, RenderStats
from infnerf.viewer.app import App
from infnerf.viewer.scene import LoadedScene
from infnerf.viewer.state import ViewerState
from infnerf.viewer.window import Window

CENTER, RADIUS = np.array([4.0, 4.0, 1.5]), 1.5
ROOT_SIZE, RESOLUTION = 8.0, 128
SCENE = {
    "up": [0.0, 0.0, 1.0],
    "unit": "m",
    "aabb": [[0.0, 0.0, 0.0], [8.0, 8.0, 3.0]],
    "cameras": [],
    "color_space": "linear",
    "background": [0.35, 0.5, 0.75],
}


#: State that keeps tests quick, the executor being numpy: two frames are enough to see that they are averaged.
QUICK = {"max_frames": 2, "resolution": 0.5}


def surface_points(n: int = 4000) -> NDArray[np.float64]:
    """Points on the ground and the sphere, [2n, 3]."""
    rng = np.random.default_rng(0)
    ground = np.column_stack([rng.random((n, 2)) * 8, np.full(n, 1e-3)])
    ball = rng.normal(size=(n, 3))
    ball = CENTER + RADIUS * 0.999 * ball / np.linalg.norm(ball, axis=1, keepdims=True)
    return np.concatenate([ground, ball])


def make_octree(depth: int = 4) -> Octree:
    points = surface_points()
    footprints = np.where(np.arange(len(points)) < len(points) // 2, 0.01, 0.0025)
    return build_octree(points, footprints, np.zeros(3), ROOT_SIZE, RESOLUTION, max_depth=depth)


class AnalyticExecutor:
    """Fills all channels of a request from the sphere and the ground. `slow` seconds are spent on each call; after
    `fail_after` more calls its device is lost."""

    name = "analytic"

    def __init__(self, model: Any, slow: float = 0.0, light: float = 1.0) -> None:
        self.model, self.slow, self.light = model, slow, light
        self._children, self._level = model.octree.children.numpy(), model.octree.level.numpy()
        self.closed = False
        self.fail: Exception | None = None
        self.fail_after: int | None = None

    @classmethod
    def supports(cls, model: Any) -> str | None:
        return None

    def close(self) -> None:
        self.closed = True

    def fill_normals(self, camera: Camera, out: FrameBuffers, region: tuple[int, int, int, int]) -> None:
        """Nothing: `render` knows its own."""

    def render(
        self, request: RenderRequest, out: FrameBuffers, cancelled: Callable[[], bool] = lambda: False
    ) -> RenderStats:
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                self.fail = DeviceLost("the analytic device fell out")
        if self.fail is not None:
            raise self.fail
        start = time.perf_counter()
        time.sleep(self.slow)
        x0, y0, x1, y1 = request.bounds
        x, y = np.meshgrid(np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5)
        if request.frame:  # a jitter that depends on the frame alone
            x, y = x + 0.4 * np.sin(request.frame), y + 0.4 * np.cos(request.frame)
        origin, rays, cones = request.camera.pixel_rays(x.ravel(), y.ravel())
        distance, normal, color = trace(origin[0], rays)
        hit = np.isfinite(distance)
        point = origin[0] + np.where(hit, distance, 0)[:, None] * rays
        ratio = ROOT_SIZE / RESOLUTION * 2.0**request.lod_bias / np.where(hit, cones * distance, 1.0)
        wanted = np.clip(np.floor(np.log2(ratio)).astype(int), request.min_level, request.max_level)
        node = find(self._children, point, wanted)
        level = self._level[node]
        shape = y1 - y0, x1 - x0
        steps = 8 / request.step_scale
        shade = self.light * (1 - 0.06 * (wanted - level))  # what a bias changes shows in the colour too
        values = {
            "color": np.column_stack([color * shade[:, None], np.ones(len(hit))]) * hit[:, None],
            "depth": np.where(hit, distance, 0),
            "normal": normal * hit[:, None],
            "level": level * hit,
            "gsd_ratio": np.where(hit, 0.3 * (level - wanted), 0),
            "samples": np.full(len(hit), steps) + 4 * hit,
            "node": np.where(hit, node, -1),
            "clamped": hit * (wanted > level),
        }
        for name, value in values.items():
            target = getattr(out, name)
            target[y0:y1, x0:x1] = value.reshape(*shape, *target.shape[2:])
        seconds = time.perf_counter() - start
        counts = np.bincount(node[hit], minlength=len(self._level))
        stages = {"march": 0.6 * seconds, "encode and MLP": 0.3 * seconds, "composite": 0.1 * seconds}
        return RenderStats(len(hit), int(steps * len(hit)), seconds, stages, counts)


def find(children: NDArray, points: NDArray, wanted: NDArray) -> NDArray:
    """`Octree.find` in numpy: torch's own threads would fight with those of the viewer for the cores."""
    node = np.zeros(len(points), np.int64)
    local, alive = np.clip(points / ROOT_SIZE, 0, 1), np.ones(len(points), bool)
    for level in range(8):
        local = local * 2
        upper = local >= 1
        child = children[node, upper @ np.array([1, 2, 4])]
        alive &= (child >= 0) & (wanted > level)
        node = np.where(alive, child, node)
        local = local - upper
    return node


def trace(origin: NDArray, rays: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Distance [n] (inf: sky), normal [n, 3] and linear colour [n, 3] along unit rays."""
    ground = np.full(len(rays), np.inf)
    down = rays[:, 2] < -1e-9
    ground[down] = -origin[2] / rays[down, 2]
    place = origin + np.where(np.isfinite(ground), ground, 0)[:, None] * rays
    ground[((place[:, :2] < 0) | (place[:, :2] > 8)).any(1) | (ground <= 0)] = np.inf
    offset = origin - CENTER
    b = rays @ offset
    under = b * b - (offset @ offset - RADIUS**2)
    ball = np.where(under > 0, -b - np.sqrt(np.maximum(under, 0)), np.inf)
    ball[ball <= 0] = np.inf
    distance = np.minimum(ground, ball)
    on_ball = ball < ground
    place = origin + np.where(np.isfinite(distance), distance, 0)[:, None] * rays
    normal = np.where(on_ball[:, None], (place - CENTER) / RADIUS, [0.0, 0.0, 1.0])
    light = 0.35 + 0.65 * np.clip(normal @ np.array([0.48, -0.6, 0.64]), 0, 1)
    checks = (np.floor(place[:, 0]) + np.floor(place[:, 1])) % 2
    tiles = np.where(checks[:, None] > 0, [0.5, 0.5, 0.46], [0.12, 0.14, 0.16])
    return distance, normal, np.where(on_ball[:, None], [0.75, 0.28, 0.1], tiles) * light[:, None]


@dataclasses.dataclass
class AnalyticOpener:
    """Stands in for `open_checkpoint`: any path gives the analytic scene, one with "bad" in it is refused, one with
    "dim" in it is darker."""

    depth: int = 4
    opened: list[tuple[Path, str]] = dataclasses.field(default_factory=list)

    def __call__(self, path: Path, executor: str) -> LoadedScene:
        self.opened.append((path, executor))
        if "bad" in path.name:
            raise ValueError(f"{path}: expected a checkpoint (a zip written by torch.save), got 12 bytes")
        octree = make_octree(self.depth)
        model = SimpleNamespace(octree=octree, gsd=lambda level: octree.root_size / 2**level / RESOLUTION, scene=SCENE)
        model.level_parameters = [8000] * (octree.depth + 1)
        reason = f"analytic: made for tests, asked for {executor}"
        return LoadedScene(
            path,
            model,
            AnalyticExecutor(model, light=0.5 if "dim" in path.name else 1.0),
            reason,
            {},
            "infnerf",
            123456,
            7_340_032,
            level_bytes=[17000] * (model.octree.depth + 1),
        )


class Harness:
    """A viewer on GLFW's null platform with the test engine. `run` runs a test function in ImGui's own coroutine.

    The engine runs tests in a second thread, out of `ImGui::Render`. Called through ctypes that lets go of the GIL,
    without which the two would wait for each other for ever.
    """

    def __init__(self, folder: Path | None = None, size: tuple[int, int] = (900, 640), opener: Any = None) -> None:
        import imgui_bundle._imgui_bundle as native

        self.window = Window(*size, "test", headless=True)
        self.imgui = self.window.imgui
        self.opener = opener or AnalyticOpener()
        self.app = App(self.window, folder, self.opener)
        for name, value in QUICK.items():
            setattr(self.app.state, name, value)
        self._render = ctypes.CDLL(native.__file__)["_ZN5ImGui6RenderEv"]
        self._render.restype = None
        self._te = self.imgui.test_engine
        self._engine = self._te.create_context()
        io = self._te.get_io(self._engine)
        io.config_run_speed = self._te.TestRunSpeed.fast
        io.config_fixed_delta_time = 1 / 60
        io.config_log_to_tty = False
        self._te.start(self._engine, self.window.context)
        self._serial = 0

    def frame(self, count: int = 1) -> None:
        for _ in range(count):
            self.app.frame(self._render)
            self._te.post_swap(self._engine)

    def open(self, path: str = "scene.pth") -> None:
        """Opens the analytic scene and waits for its final picture."""
        self.app.open(path)
        self.settle()

    def settle(self) -> None:
        """Until nothing is being opened or rendered, and the picture is the final one of the present state."""
        deadline = time.monotonic() + 60
        quiet = 0
        while quiet < 3:
            assert time.monotonic() < deadline, f"the viewer did not come to rest: {self.app.session.state}"
            assert self.app.session.worker.drain(30)
            self.frame()
            if not self.app.session.wait_idle(0.02 if self.app.moving else 30):
                continue
            quiet = 0 if self.app.news() or self.app.session.worker.finished else quiet + 1
            if self.window.activity:
                quiet = 0

    def run(self, test: Callable[[Any], None]) -> None:
        """Runs `test(context)`; what it raises, and what the engine itself finds, fails the caller."""
        raised: list[BaseException] = []

        def body(context: Any) -> None:
            try:
                test(context)
            except BaseException as error:
                raised.append(error)

        self._serial += 1
        registered = self._te.register_test(self._engine, "ui", f"test {self._serial}")
        registered.test_func = body
        self._te.queue_test(self._engine, registered)
        for number in range(4000):
            self.frame()
            if number > 2 and self._te.is_test_queue_empty(self._engine):
                break
        else:
            raise TimeoutError("the test engine did not finish")
        if raised:
            raise raised[0]
        log = registered.output.log.get_text()
        assert registered.output.status == self._te.TestStatus.success, log

    def at_home(self) -> Harness:
        """Puts state, camera and messages back to where a test may expect them, and waits for rest."""
        app = self.app
        while len(app.session.loaded) > 1:
            app.actions["close"](1)
        for name, value in (vars(ViewerState()) | QUICK).items():
            if name != "camera":
                setattr(app.state, name, value)
        assert app.home is not None
        app.control.halt()
        app.state.camera = app.home.copy()
        app.fields.clear()
        app.notices.__init__()
        self.settle()
        return self

    def middle(self) -> tuple[float, float]:
        """The scene's centre, where the sphere is, in ImGui's units."""
        x, y, width, height = self.app.layout.scene_rect
        return x + width / 2, y + height / 2

    def over_scene(self, act: Callable[[Any], None]) -> None:
        """Does something with the mouse over the scene."""

        def body(context: Any) -> None:
            context.mouse_move_to_pos(self.middle())
            act(context)

        self.run(body)

    def press(self, *keys: Any) -> None:
        """Presses a key, or a chord with its modifiers."""
        chord = 0
        for key in keys:
            chord |= int(key)
        self.over_scene(lambda c: c.key_press(chord))

    def pixels(self) -> NDArray[np.uint8]:
        """[H, W, 3] of the final picture of the present state."""
        self.settle()
        return self.app.read_scene_pixels()

    def screen(self) -> NDArray[np.uint8]:
        """[H, W, 3] of the window, panels included, once all is at rest."""
        self.settle()
        taken: list[NDArray[np.uint8]] = []
        swap = self.window.swap
        self.window.swap = lambda: (taken.append(self.window.read_pixels()), swap())[1]
        try:
            self.frame()
        finally:
            del self.window.swap
        return taken[0]

    def glfw_open(self) -> None:
        """Takes back a request to close the window."""
        self.window.glfw.set_window_should_close(self.window.handle, False)

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._te.stop(self._engine)
        self.app.close()
        self.window.close()
        self._te.destroy_context(self._engine)


def changed(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Share of pixels that differ; 1 for another size."""
    if before.shape != after.shape:
        return 1.0
    return float((before != after).any(axis=-1).mean())
