"""The application: one window, its loop, and what moves between state, renderer, worker and panels.

The window's thread draws and nothing else: the scheduler renders in its own, opening and saving happen in the worker's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from ..renderer.device_picture import prefer_device
from ..renderer.interop_cuda import open_paths
from ..renderer.paths import home_camera
from ..renderer.pngmeta import save_png
from . import above, settings, sides, theme
from .actions import bookmarks, make_actions
from .bindings import Keyboard
from .camera_control import CameraControl
from .comparison import Comparison
from .film import Film
from .follow import Follower
from .inputs import looked_at, read_inputs
from .inspector import Inspector, clicked
from .layout import COLUMN_WIDTH, Layout
from .loaded import Loaded
from .monitor import Monitor, picker
from .notices import Notices
from .panels import Context, all_panels
from .photographs import Photographs
from .picture import Picture, write_screenshot
from .rig import Rig
from .scene import LoadedScene, Opener, open_checkpoint
from .session import Session
from .stage import Stage
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
        self.first_data: Path | None = None  # a data set to open as soon as a scene says where it lies
        self.fields: dict[str, str] = {}  # texts being typed
        self.actions = make_actions(self)
        self.keyboard = Keyboard(self.actions)
        self.panels = all_panels()
        self.fonts = theme.Fonts()
        self.layout = Layout(stored)
        paths = open_paths()
        prefer_device(paths.device)
        first = [paths]  # of the first picture; one of a comparison opens its own
        self.comparison = Comparison(lambda: first.pop() if first else open_paths())
        self.session = Session(opener, self.notices, window.wake, self._executor)
        self.photographs = Photographs(self.session.worker, self.notices)
        self.inspector = Inspector(self.session.worker, self.notices)
        self.film = Film(self.session.worker, self.notices)
        self.session.handlers |= self.inspector.handlers | self.film.handlers
        self.stage = Stage(self.state, self.session, self.comparison, self.photographs)
        self.follower: Follower | None = None
        self.followed = ""  # as the panels last showed it
        self.moving = False
        self._led: Loaded | None = None  # as `home` and the title are of
        self._flicker = 0  # side that was drawn last
        self._drag_side = 0  # that the cursor is over, or a drag began on
        self._scale = 0.0  # the theme's
        self._rested = False  # the last wait was for an event: its length is not motion
        self._shot_wanted = False
        self._capture: Path | None = None
        self._frame_s = SOFTWARE_FRAME_S if software_gl() else FRAME_S

    @property
    def scene(self) -> LoadedScene | None:
        """The scene that leads: shown alone, or on one side of a comparison."""
        return self.session.scene

    @property
    def picture(self) -> Picture:
        """Of the scene that leads."""
        return self.comparison.front.picture

    # What actions and callers ask for.

    def open(self, *paths: str | Path) -> None:
        """Opens checkpoints in the background: the first in place of the scene that leads, which stays until then, the
        others beside it. Ends following."""
        if self.follower is not None:
            self.notices.add(f"No longer following {self.follower.run}.")
            self.follower.close()
            self.follower = None
        self.session.open(paths[0])
        for path in paths[1:]:
            self.add(path)
        self.touch()

    def add(self, path: str | Path) -> None:
        """Opens one more checkpoint beside those that are open."""
        if self.session.count >= sides.MAX_SCENES:
            self.notices.error(f"{Path(path).name}: {sides.MAX_SCENES} scenes are open, close one first.")
        else:
            self.session.open(path, add=True)
        self.touch()

    def follow(self, run: Path) -> None:
        """Opens the checkpoint that a run writes as soon as it is there, and again whenever it was replaced."""
        self.follower = Follower(run, self.window.wake)
        self.follower.start()
        self.touch()

    def following(self) -> str:
        """What is followed, and how old it is, in words; empty when nothing is."""
        if self.follower is None:
            return ""
        scenes = (loaded.scene for loaded in self.session.loaded if loaded.scene.path == self.follower.path)
        return self.follower.words(next(scenes, None))

    def touch(self) -> None:
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
        self.touch()

    def read_scene_pixels(self) -> NDArray[np.uint8]:
        """[H, W, 3] of the present picture at its own resolution, as the window's shader resolves it."""
        return self.comparison.read(self.state)

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
        """The camera of the view."""
        return self.stage.camera()

    @property
    def scene_size(self) -> tuple[int, int]:
        """Width and height of one picture on the screen, px."""
        return self.stage.areas.left[2:]

    # One frame.

    def frame(self, render_ui: Callable[[], None] | None = None) -> None:
        """Takes in what happened, draws, shows."""
        start = time.perf_counter()
        self._take_in()
        drawn = self.window.draw(self._gui, self._draw_scene, render_ui)
        if drawn and self._capture is not None:
            save_png(self._capture, self.window.read_pixels(), {})
            self._capture = None
        if drawn and self._shot_wanted and self.comparison.is_sharp(self.stage.view):
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
            busy = self.moving or self.window.activity > 0 or self.session.state != "idle"
            wait = self._frame_s - (time.perf_counter() - start) if busy else IDLE_WAIT_S
            for change in (self.notices.next_change(), self.comparison.next_flicker()):
                wait = min(wait, change if change is not None else wait)
            self._rested = not (self.moving or self.window.activity)
            self.window.wait(wait)

    def news(self) -> bool:
        """Whether the next frame would differ from the last."""
        fading = (change := self.notices.next_change()) is not None and change <= 1 / 30
        followed = self.follower is not None and (self.follower.changed or self.followed != self.following())
        drawn = self.window.activity > 0 or self.window.dropped or self.moving
        flicker = self.comparison.mode == "flicker" and self.comparison.flicker_side != self._flicker
        return bool(drawn or self.session.news or fading or followed or flicker)

    def _take_in(self) -> None:
        dropped, self.window.dropped = self.window.dropped, []
        if dropped:
            self.open(*dropped)
        # One at a time: a run that saves faster than files open must not keep the newest from ever being shown.
        if self.follower is not None and not self.session.loading and (path := self.follower.take()) is not None:
            self.session.open(path, again=True)
        self.session.poll(self._adopt)
        self.film.poll()
        self._arrange()
        self.monitor.state = self.session.state
        for pane in self.comparison.shown:
            snapshot = pane.take_in(self.stage.view)
            if snapshot is not None and pane is self.comparison.front and self.scene is not None:
                self.monitor.picture(snapshot, self.scene)
                self.control.follow_depth(snapshot.buffers.depth, 1e-4 * self.scene.root_size)
                self.monitor.reference = self.control.reference
        self.stage.score.update(self.comparison, self.state, self.session.state == "idle" and not self.moving)

    def _arrange(self) -> None:
        self.stage.arrange()
        if self.session.front is not None and self.session.front is not self._led:
            self._lead(self.session.front)

    def _adopt(self, loaded: Loaded, how: str) -> None:
        """Takes in a scene that was "opened" in another's place, "reloaded" in the same view, or "added"."""
        scene, name = loaded.scene, loaded.name
        self.comparison.reopen(loaded, keep=how == "reloaded")
        if how == "added":
            number = self.session.loaded.index(loaded) + 1
            self.notices.add(f"{name} is open beside the others: key {number} shows it.")
            return
        self.stage.view = None
        if loaded is not self.session.front:
            return
        self._lead(loaded)
        if how == "reloaded":
            self.notices.add("Reloaded" if scene.step is None else f"Reloaded: step {scene.step:,}")
            return
        assert self.home is not None
        self.control.halt()
        self.state.camera = Rig.of(self.first_camera, scene.up) if self.first_camera is not None else self.home.copy()
        self.first_camera = None
        self.control.reference = 0.25 * float(np.linalg.norm(scene.aabb[1] - scene.aabb[0]))
        self.window.activity = SETTLE_FRAMES

    def _lead(self, loaded: Loaded) -> None:
        """What belongs to the scene that leads: its home, its name, what was measured on it."""
        self._led, scene = loaded, loaded.scene
        self.monitor.forget()
        self.inspector.forget()
        self.home = Rig.of(home_camera(scene.model.scene, scene.view, *self.scene_size), scene.up)
        self.fields["path"] = str(scene.path)
        if self.first_data is not None:
            path, self.first_data = self.first_data, None
            self.actions["open_data"](path)
        self.window.set_title(f"{scene.path.name} - {TITLE}")

    def _gui(self) -> None:
        imgui, state = self.window.imgui, self.state
        io = imgui.get_io()
        self.followed = self.following()
        self._apply_scale()
        # Tab belongs to the panels' switch; ImGui would move the focus between fields with it.
        imgui.internal.set_key_owner(imgui.Key.tab, imgui.get_id("tab"))
        self.layout.begin(tuple(self.panels), state.show_ui, self._scale)
        self.stage.divide(self.layout.scene_box(io.display_framebuffer_scale))
        dt = min(io.delta_time, FRAME_S if self._rested else LONGEST_STEP_S)
        self._rested = False
        self.keyboard.update(io)
        self._navigate(dt)
        if state.show_ui:
            self._draw_panels()
        self.stage.divide(self.layout.scene_box(io.display_framebuffer_scale))
        self._arrange()
        above.draw(self)
        self._apply()
        if io.want_save_ini_settings:
            io.want_save_ini_settings = False
            if self.folder is not None:
                self.session.worker.submit("settings", self._settings_writer())

    def _navigate(self, dt: float) -> None:
        control, state = self.control, self.state
        control.speed, control.sensitivity = state.speed, state.sensitivity
        io, areas = self.window.imgui.get_io(), self.stage.areas
        scale = io.display_framebuffer_scale[0]
        if not control.drag:
            self._drag_side = areas.side_at(io.mouse_pos.x * scale, self.comparison.lead)
        rect = areas.rect(self._drag_side, scale)
        inputs = read_inputs(io, rect, dt)
        for loaded in self.session.loaded:
            loaded.renderer.focus = looked_at(io, rect)
        if self.scene is not None:
            size = self.scene_size
            moved = control.update(state.camera, inputs, picker(self.picture.snapshot, size), size)
            self.moving = self.film.advance(state, dt, moved)
            state.speed = control.speed
            pane = self.comparison.pane(self._drag_side) if self.comparison.active else self.comparison.front
            if state.inspect:
                self.inspector.follow(pane, looked_at(io, rect), clicked(self.window.imgui))

    def _draw_panels(self) -> None:
        imgui = self.window.imgui
        context = Context(
            self.state, self.scene, self.monitor, self.fonts, self.actions, self.scene_size, self.fields,
            frozenset(int(slot) for slot in bookmarks(self)), self.session.loading, self.followed,
            self.picture.texture.path, tuple(loaded.scene for loaded in self.session.loaded),
            self.photographs.data, self.photographs.loading, self.stage.at_photograph, self.stage.score.value,
            self.inspector, self.film,
        )  # fmt: skip
        for title, draw in self.panels.items():
            imgui.set_next_window_size((COLUMN_WIDTH, COLUMN_WIDTH), imgui.Cond_.first_use_ever.value)
            if imgui.begin(title)[0]:
                try:
                    draw(context)
                except Exception as error:  # one panel's fault must not take the others and the scene with it
                    self.notices.error(f"The panel {title} failed: {' '.join(str(error).split())[:200]}")
            imgui.end()

    def _apply(self) -> None:
        """Hands what the state says to the renderer and the window."""
        state = self.state
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
        self.stage.render(self.moving)

    def _apply_scale(self) -> None:
        scale = self.window.content_scale * self.state.ui_scale
        if scale != self._scale and not self.window.imgui.is_any_item_active():
            theme.apply(scale)
            self._scale = scale

    def _draw_scene(self) -> None:
        from OpenGL import GL

        GL.glClearColor(*theme.BACKDROP, 1.0)
        GL.glClear(GL.GL_COLOR_BUFFER_BIT)
        bottom = self.window.framebuffer_size[1]
        places = self.stage.areas.left, self.stage.areas.right
        left, right = ((x, bottom - y - height, width, height) for x, y, width, height in places)
        self._flicker = self.comparison.flicker_side
        self.comparison.draw(self.state, (left, right))

    # Files.

    def _take_screenshot(self) -> None:
        pixels, metadata = self.read_scene_pixels(), self.comparison.metadata(self.state)
        samples = self.picture.snapshot.accumulated if self.picture.snapshot is not None else 0
        self.session.worker.submit("screenshot", lambda: write_screenshot(Path.cwd(), pixels, metadata, samples))

    def _settings_writer(self) -> Callable[[], None]:
        """Writes the settings as they are now, in whatever thread it is called."""
        assert self.folder is not None
        layout = self.window.imgui.save_ini_settings_to_memory()
        state = replace(self.state, executor=self.session.chosen)
        return settings.writer(state, self.folder, layout)

    def close(self) -> None:
        """Saves the settings and gives threads and textures back."""
        if self.follower is not None:
            self.follower.close()
        if self.folder is not None:
            self.session.worker.submit("settings", self._settings_writer())
        self.film.close()
        self.session.close()
        self.comparison.close()
