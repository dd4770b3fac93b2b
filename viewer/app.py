"""The application: one window, its loop, and what moves between state, renderer, worker and panels.

The window's thread draws and nothing else: the scheduler renders in its own, opening and saving happen in the worker's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from ..renderer.cliutil import read_camera
from ..renderer.device_picture import prefer_device
from ..renderer.interop_cuda import open_paths
from ..renderer.paths import home_camera
from ..renderer.pngmeta import save_png
from ..renderer.scheduler import View
from . import overlays, settings, theme
from .actions import bookmarks, make_actions
from .bindings import Keyboard
from .camera_control import CameraControl
from .follow import Follower
from .inputs import read_inputs
from .layout import Layout
from .monitor import Monitor, picker
from .notices import Notices
from .panels import Context, all_panels
from .picture import Picture, write_screenshot
from .rig import Rig
from .scene import LoadedScene, Opener, open_checkpoint
from .session import Session
from .state import ViewerState
from .window import SETTLE_FRAMES, Window, software_gl

TITLE = "infnerf-view"
FRAME_S = 1 / 60  # s between two frames at most, in motion
SOFTWARE_FRAME_S = 1 / 30  # where the processor rasterises: it has the scene to render as well
IDLE_WAIT_S = 0.5  # s; every event ends the wait, but Ctrl-C in the terminal only takes effect after it
LONGEST_STEP_S = 0.1  # s of motion a single frame may stand for


class App:
    """A running viewer. Make it with an open `Window`; `run` returns when the person quits."""

    def __init__(
        self,
        window: Window,
        folder: Path | None = None,  # of the settings; None: keep none
        opener: Opener = open_checkpoint,
        executor: str | None = None,  # None: as the settings have it
    ) -> None:
        self.window, self.folder = window, folder
        self.state = ViewerState()
        self.notices, self.monitor, self.control = Notices(), Monitor(), CameraControl()
        stored = ""
        if folder is not None:
            stored, problems = settings.load_layout(folder)
            for problem in settings.load_settings(self.state, folder) + problems:
                self.notices.error(problem)
        self._executor = self.state.executor = executor or self.state.executor  # as the session was last told
        self.home: Rig | None = None
        self.first_camera: Camera | None = None  # where to start instead of the scene's home
        self.fields: dict[str, str] = {}  # texts being typed
        self.actions = make_actions(self)
        self.keyboard = Keyboard(self.actions)
        self.panels = all_panels()
        self.fonts = theme.Fonts()
        self.layout = Layout(stored)
        paths = open_paths()
        prefer_device(paths.device)
        self.picture = Picture(paths)
        self.session = Session(opener, self.notices, window.wake, self._executor)
        self.follower: Follower | None = None
        self._followed = ""  # as the panels last showed it
        self.moving = False
        self._view: View | None = None  # as the renderer was last told
        self._scale = 0.0  # the theme's
        self._rested = False  # the last wait was for an event: its length is not motion
        self._shot_wanted = False
        self._capture: Path | None = None
        self._frame_s = SOFTWARE_FRAME_S if software_gl() else FRAME_S

    @property
    def scene(self) -> LoadedScene | None:
        """What is open."""
        return self.session.scene

    # What actions and callers ask for.

    def open(self, path: str | Path) -> None:
        """Opens a checkpoint in the background; the present scene stays until the new one is there. Ends following."""
        if self.follower is not None:
            self.notices.add(f"No longer following {self.follower.run}.")
            self.follower.close()
            self.follower = None
        self.session.open(path)
        self._touch()

    def follow(self, run: Path) -> None:
        """Opens the checkpoint that a run writes as soon as it is there, and again whenever it was replaced."""
        self.follower = Follower(run, self.window.wake)
        self.follower.start()
        self._touch()

    def following(self) -> str:
        """What is followed, and how old it is, in words; empty when nothing is."""
        return "" if self.follower is None else self.follower.words(self.scene)

    def _touch(self) -> None:
        """One more frame is to be drawn."""
        self.window.activity = max(self.window.activity, 1)

    def screenshot(self) -> None:
        """Saves the picture, without panels, into the working folder as soon as it has its full resolution."""
        if self.scene is None:
            self.notices.error("There is no picture to save yet.")
        else:
            self._shot_wanted = True

    def capture_window(self, path: Path) -> None:
        """Saves the next frame as the window shows it, panels included."""
        self._capture = Path(path)
        self._touch()

    def read_scene_pixels(self) -> NDArray[np.uint8]:
        """[H, W, 3] of the present picture at its own resolution, as the window's shader resolves it."""
        return self.picture.read(self.state)

    def reset_layout(self) -> None:
        self.state.show_ui = True
        self.layout.reset()

    def quit(self) -> None:
        """Escape closes the list of keys first; Ctrl+Q is also "slowly down" while flying, and then does not quit."""
        if self.state.show_help:
            self.state.show_help = False
        elif not self.moving:
            self.window.request_close()

    def camera(self) -> Camera:
        """The camera of the view, in the scene's pixels on the screen."""
        return self.state.camera.camera(*self.scene_size)

    @property
    def scene_size(self) -> tuple[int, int]:
        """Width and height of the scene on the screen, px."""
        scale = self.window.imgui.get_io().display_framebuffer_scale
        _, _, width, height = self.layout.scene_rect
        return max(round(width * scale[0]), 1), max(round(height * scale[1]), 1)

    # One frame.

    def frame(self, render_ui: Callable[[], None] | None = None) -> None:
        """Takes in what happened, draws, shows."""
        start = time.perf_counter()
        self._take_in()
        drawn = self.window.draw(self._gui, self._draw_scene, render_ui)
        if drawn and self._capture is not None:
            save_png(self._capture, self.window.read_pixels(), {})
            self._capture = None
        if drawn and self._shot_wanted and self.picture.is_sharp(self._view):
            self._shot_wanted = False
            self._take_screenshot()
        self.monitor.window_frame((time.perf_counter() - start) * 1000)
        # ImGui takes a quick press and release in two frames: what is left must not wait for the next event.
        self.window.activity = max(self.window.activity - 1, 1 if self.window.has_pending_input else 0)
        self.window.swap()

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Until the window is closed, or `until` holds: draws when something changed, sleeps when nothing does."""
        while not (self.window.should_close or until()):
            start = time.perf_counter()
            if self.news():
                self.frame()
            renderer = self.session.renderer
            busy = self.moving or self.window.activity > 0 or renderer.state != "idle"
            wait = self._frame_s - (time.perf_counter() - start) if busy else IDLE_WAIT_S
            if (change := self.notices.next_change()) is not None:
                wait = min(wait, change)
            self._rested = not (self.moving or self.window.activity)
            self.window.wait(wait)

    def news(self) -> bool:
        """Whether the next frame would differ from the last."""
        fading = (change := self.notices.next_change()) is not None and change <= 1 / 30
        followed = self.follower is not None and (self.follower.changed or self._followed != self.following())
        drawn = self.window.activity > 0 or self.window.dropped or self.moving
        return bool(drawn or self.session.news or fading or followed)

    def _take_in(self) -> None:
        dropped, self.window.dropped = self.window.dropped, []
        if dropped:
            self.open(dropped[-1])
            if len(dropped) > 1:
                self.notices.add(f"One scene at a time: opening {dropped[-1].name}.")
        # One at a time: a run that saves faster than files open must not keep the newest from ever being shown.
        if self.follower is not None and not self.session.loading and (path := self.follower.take()) is not None:
            self.session.open(path, again=True)
        snapshot = self.session.poll(self._adopt)
        self.monitor.state = self.session.renderer.state
        if snapshot is not None and self.scene is not None:
            self.picture.show(snapshot)
            self.monitor.picture(snapshot, self.scene)
            self.control.follow_depth(snapshot.buffers.depth, 1e-4 * self.scene.root_size)
            self.monitor.reference = self.control.reference

    def _adopt(self, scene: LoadedScene, keep: bool = False) -> None:
        """Shows another scene from its home view; `keep`: the same scene further trained, in the view of now."""
        self.monitor.forget()
        if keep:
            self.picture.replace(scene)
            self.home = Rig.of(home_camera(scene.model.scene, scene.view, *self.scene_size), scene.up)
            self.notices.add("Reloaded" if scene.step is None else f"Reloaded: step {scene.step:,}")
            self._view = None
            return
        self.picture.open(scene)
        self.control.halt()
        self.home = Rig.of(home_camera(scene.model.scene, scene.view, *self.scene_size), scene.up)
        self.state.camera = Rig.of(self.first_camera, scene.up) if self.first_camera is not None else self.home.copy()
        self.first_camera = None
        self.control.reference = 0.25 * float(np.linalg.norm(scene.aabb[1] - scene.aabb[0]))
        self.fields["path"] = str(scene.path)
        self._view = None
        self.window.set_title(f"{scene.path.name} - {TITLE}")
        self.window.activity = SETTLE_FRAMES

    def _gui(self) -> None:
        imgui, state = self.window.imgui, self.state
        io = imgui.get_io()
        self._followed = self.following()
        self._apply_scale()
        # Tab belongs to the panels' switch; ImGui would move the focus between fields with it.
        imgui.internal.set_key_owner(imgui.Key.tab, imgui.get_id("tab"))
        self.layout.begin(tuple(self.panels), state.show_ui, self._scale)
        dt = min(io.delta_time, FRAME_S if self._rested else LONGEST_STEP_S)
        self._rested = False
        self.keyboard.update(io)
        self._navigate(dt)
        if state.show_ui:
            self._draw_panels()
        self._draw_overlays()
        self._apply()
        if io.want_save_ini_settings:
            io.want_save_ini_settings = False
            if self.folder is not None:
                self.session.worker.submit("settings", self._settings_writer())

    def _navigate(self, dt: float) -> None:
        control, state = self.control, self.state
        control.speed, control.sensitivity = state.speed, state.sensitivity
        inputs = read_inputs(self.window.imgui.get_io(), self.layout.scene_rect, dt)
        if self.scene is not None:
            size = self.scene_size
            self.moving = control.update(state.camera, inputs, picker(self.picture.snapshot, size), size)
            state.speed = control.speed

    def _draw_panels(self) -> None:
        imgui = self.window.imgui
        context = Context(
            self.state, self.scene, self.monitor, self.fonts, self.actions, self.scene_size, self.fields,
            frozenset(int(slot) for slot in bookmarks(self)), self.session.loading, self._followed,
            self.picture.texture.path,
        )  # fmt: skip
        for title, draw in self.panels.items():
            imgui.set_next_window_size((COLUMN, COLUMN), imgui.Cond_.first_use_ever.value)
            if imgui.begin(title)[0]:
                try:
                    draw(context)
                except Exception as error:  # one panel's fault must not take the others and the scene with it
                    self.notices.error(f"The panel {title} failed: {' '.join(str(error).split())[:200]}")
            imgui.end()

    def _draw_overlays(self) -> None:
        rect, state = self.layout.scene_rect, self.state
        if self.scene is None:
            title, line = self._followed or "Drop a checkpoint here", "F1 lists keys and mouse"
            if self.session.loading:
                title = f"Loading {self.session.loading} ..."
            elif self.follower is not None:
                line = f"It opens as soon as the run has saved it in {self.follower.folder}"
            overlays.hint(rect, title, line, self.fonts.bold)
        elif state.show_ui:
            loading = f"   |   loading {self.session.loading}" if self.session.loading else ""
            following = f"   |   {self._followed}" if self._followed else ""
            progress = self.monitor.progress(state.max_frames)
            overlays.status(rect, f"{state.view_mode}   |   {progress}{following}{loading}")
        if state.legend and (legend := self.picture.legend(state)) is not None:
            overlays.legend(rect, legend)
        if state.show_help:
            state.show_help = overlays.help_window(rect, self.fonts.bold)
        overlays.notices(rect, self.notices)

    def _apply(self) -> None:
        """Hands what the state says to the renderer and the window."""
        state, renderer = self.state, self.session.renderer
        renderer.target_frame_ms = state.target_frame_ms
        if renderer.max_frames != state.max_frames:
            renderer.max_frames = state.max_frames
        renderer.max_scale = state.resolution
        if state.fullscreen != self.window.fullscreen:
            self.window.set_fullscreen(state.fullscreen)
            state.fullscreen = self.window.fullscreen
        if state.executor != self._executor:
            self._executor = state.executor
            self.session.switch(state.executor)
        elif self.session.executor != self._executor:  # it could not be had
            self._executor = state.executor = self.session.executor
        if self.scene is None:
            return
        view = View(self.camera(), state.lod_bias, state.min_level, state.max_level, state.step_scale, self.moving)
        if self._view is None or view.moving != self._view.moving or not view.shows_same(self._view):
            self._view = view
            renderer.set_view(view)

    def _apply_scale(self) -> None:
        scale = self.window.content_scale * self.state.ui_scale
        if scale != self._scale and not self.window.imgui.is_any_item_active():
            theme.apply(scale)
            self._scale = scale

    def _draw_scene(self) -> None:
        from OpenGL import GL

        GL.glClearColor(*theme.BACKDROP, 1.0)
        GL.glClear(GL.GL_COLOR_BUFFER_BIT)
        width, height = self.scene_size
        scale = self.window.imgui.get_io().display_framebuffer_scale
        x, y = round(self.layout.scene_rect[0] * scale[0]), round(self.layout.scene_rect[1] * scale[1])
        viewport = (x, self.window.framebuffer_size[1] - y - height, width, height)
        self.picture.draw(self.state, viewport)

    # Files.

    def _take_screenshot(self) -> None:
        pixels, metadata = self.read_scene_pixels(), self.picture.metadata(self.state)
        samples = self.picture.snapshot.accumulated if self.picture.snapshot is not None else 0
        self.session.worker.submit("screenshot", lambda: write_screenshot(Path.cwd(), pixels, metadata, samples))

    def _settings_writer(self) -> Callable[[], None]:
        """Writes the settings as they are now, in whatever thread it is called."""
        assert self.folder is not None
        folder, layout = self.folder, self.window.imgui.save_ini_settings_to_memory()
        bookmarks = {key: dict(slots) for key, slots in self.state.bookmarks.items()}
        state = replace(self.state, bookmarks=bookmarks, executor=self.session.chosen)
        return lambda: settings.save_settings(state, folder, layout)

    def close(self) -> None:
        """Saves the settings and gives threads and textures back."""
        if self.follower is not None:
            self.follower.close()
        if self.folder is not None:
            self.session.worker.submit("settings", self._settings_writer())
        self.session.close()
        self.picture.close()


COLUMN = 372.0  # px, of a panel that is in no dock


def run_window(
    checkpoints: Sequence[Path],
    size: tuple[int, int] = (1280, 720),
    view: str = "rgb",
    executor: str = "auto",
    camera: Path | None = None,
    use_settings: bool = True,
    follow: Path | None = None,  # a run whose checkpoint is opened when it is there, and again when it changed
) -> int:
    """Opens the window on a checkpoint and runs until the person quits. Returns the exit code.

    Raises `WindowError` where no window can be opened, and the opener's error if the first checkpoint can't be opened.
    """
    first_camera = read_camera(camera) if camera is not None else None
    with Window(*size, TITLE) as window:
        app = App(
            window,
            settings.config_folder() if use_settings else None,
            executor=executor if executor != "auto" else None,
        )
        try:
            app.state.view_mode, app.first_camera = view, first_camera
            if checkpoints:
                app.open(checkpoints[-1])
            if follow is not None:
                app.follow(follow)
            session = app.session
            app.run(until=lambda: follow is None and session.scene is None and session.open_error is not None)
            error = session.open_error if session.scene is None and follow is None else None
        finally:
            app.close()
    if error is not None:
        raise error
    return 0
