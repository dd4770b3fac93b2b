"""The window: GLFW with an EGL context, Dear ImGui with docking and its native backends, with and without display.

Import order matters: PYOPENGL_PLATFORM before OpenGL, imgui_bundle before glfw (its libglfw works headless).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if sys.platform.startswith("linux"):
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")

APT_LINE = "apt-get install -y libgl1 libegl1 libgl1-mesa-dri"
SETTLE_FRAMES = 3  # ImGui needs a few frames after an event before the picture stands still


class WindowError(RuntimeError):
    """No window could be opened, in one sentence that says what mends it."""


def import_toolkit() -> tuple[Any, Any]:
    """(imgui, glfw), in the order that works. Raises `WindowError` when a system library is missing."""
    try:
        from imgui_bundle import imgui

        import glfw  # isort: skip
        import OpenGL.GL  # noqa: F401  # fails here, with a sentence, and not in the middle of a frame
    except (ImportError, OSError, AttributeError) as error:
        text = " ".join(str(error).split())
        raise WindowError(f"OpenGL or X libraries are missing ({text}); this installs them: {APT_LINE}") from error
    if glfw.get_version() < (3, 5, 0):
        version = ".".join(map(str, glfw.get_version()))
        raise WindowError(f"the window needs imgui-bundle's GLFW 3.5 or later, but GLFW {version} was loaded before it")
    return imgui, glfw


class Window:
    """A GLFW window with an ImGui context. Use it as a context manager: leaving it gives everything back."""

    def __init__(self, width: int, height: int, title: str, headless: bool = False, visible: bool = True) -> None:
        self.imgui, self.glfw = import_toolkit()
        self.headless, self._visible = headless, visible
        self.activity = SETTLE_FRAMES  # frames that still have to be drawn
        self.dropped: list[Path] = []
        self.framebuffer_size = (0, 0)  # px; kept by a callback, since asking costs a round trip to the X server
        self._windowed: tuple[int, int, int, int] | None = None  # place before full screen
        glfw = self.glfw
        glfw.init_hint(glfw.PLATFORM, glfw.PLATFORM_NULL if headless else glfw.ANY_PLATFORM)
        with _quiet_glfw(glfw) as problems:
            if not glfw.init():
                raise WindowError(f"no window can be opened here ({_reason(glfw, problems)})")
            self.handle = self._create(width, height, title, problems)
        glfw.make_context_current(self.handle)
        glfw.swap_interval(0 if headless else 1)
        self._watch()
        self._open_imgui()

    def _create(self, width: int, height: int, title: str, problems: list[str]) -> Any:
        glfw = self.glfw
        hints = {
            glfw.CONTEXT_VERSION_MAJOR: 3,
            glfw.CONTEXT_VERSION_MINOR: 3,
            glfw.OPENGL_PROFILE: glfw.OPENGL_CORE_PROFILE,
            glfw.OPENGL_FORWARD_COMPAT: True,
            glfw.SCALE_TO_MONITOR: not self.headless,
            glfw.VISIBLE: self._visible,
        }
        if sys.platform.startswith("linux"):
            hints[glfw.CONTEXT_CREATION_API] = glfw.EGL_CONTEXT_API
        for hint, value in hints.items():
            glfw.window_hint(hint, value)
        handle = glfw.create_window(width, height, title, None, None)
        if not handle:
            reason = _reason(glfw, problems)
            glfw.terminate()
            raise WindowError(f"no OpenGL 3.3 window can be opened ({reason}); this installs the libraries: {APT_LINE}")
        return handle

    def _watch(self) -> None:
        """Callbacks of our own, to which ImGui's backend chains its own: they only note that something happened."""
        glfw, handle = self.glfw, self.handle

        def note(*_: object) -> None:
            self.activity = SETTLE_FRAMES

        def resized(_: object, width: int, height: int) -> None:
            self.framebuffer_size, self.activity = (width, height), SETTLE_FRAMES

        def drop(_: object, paths: list[str]) -> None:
            self.dropped += [Path(path) for path in paths]
            self.activity = SETTLE_FRAMES

        for register in (
            glfw.set_cursor_pos_callback,
            glfw.set_mouse_button_callback,
            glfw.set_scroll_callback,
            glfw.set_key_callback,
            glfw.set_char_callback,
            glfw.set_cursor_enter_callback,
            glfw.set_window_focus_callback,
            glfw.set_window_refresh_callback,
        ):
            register(handle, note)
        glfw.set_window_content_scale_callback(handle, note)
        glfw.set_framebuffer_size_callback(handle, resized)
        glfw.set_drop_callback(handle, drop)
        self.framebuffer_size = glfw.get_framebuffer_size(handle)

    def _open_imgui(self) -> None:
        from imgui_bundle import implot

        imgui = self.imgui
        self.context = imgui.create_context()
        implot.create_context()
        io = imgui.get_io()
        io.set_ini_filename(None)  # the layout is the settings' business: nothing is written into the working folder
        io.config_flags = int(io.config_flags) | int(imgui.ConfigFlags_.docking_enable)
        io.config_error_recovery_enable_assert = False  # an exception in a panel must not poison later frames
        io.config_windows_move_from_title_bar_only = True
        imgui.backends.glfw_init_for_opengl(ctypes.cast(self.handle, ctypes.c_void_p).value, True)
        imgui.backends.opengl3_init("#version 330")

    @property
    def has_pending_input(self) -> bool:
        """Whether events wait in ImGui's queue for another frame."""
        return len(self.context.input_events_queue) > 0

    @property
    def content_scale(self) -> float:
        """What the monitor asks interfaces to be scaled by; 1 without a display."""
        scale = self.glfw.get_window_content_scale(self.handle)[0]
        return min(max(float(scale), 0.5), 4.0) if not self.headless else 1.0

    @property
    def should_close(self) -> bool:
        return bool(self.glfw.window_should_close(self.handle))

    def request_close(self) -> None:
        self.glfw.set_window_should_close(self.handle, True)

    def set_title(self, title: str) -> None:
        self.glfw.set_window_title(self.handle, title)

    def wake(self) -> None:
        """Ends a wait. The one function here that other threads may call."""
        self.glfw.post_empty_event()

    def wait(self, seconds: float) -> None:
        """Sleeps until an event comes or the time is over, and takes in what came."""
        if seconds > 0:
            self.glfw.wait_events_timeout(seconds)
        else:
            self.glfw.poll_events()

    @property
    def fullscreen(self) -> bool:
        return self._windowed is not None

    def set_fullscreen(self, on: bool) -> None:
        """The whole of the primary monitor, or the place it had before."""
        glfw = self.glfw
        monitor = glfw.get_primary_monitor()
        if on and self._windowed is None and monitor:
            self._windowed = (*glfw.get_window_pos(self.handle), *glfw.get_window_size(self.handle))
            mode = glfw.get_video_mode(monitor)
            glfw.set_window_monitor(self.handle, monitor, 0, 0, mode.size.width, mode.size.height, mode.refresh_rate)
        elif not on and self._windowed is not None:
            glfw.set_window_monitor(self.handle, None, *self._windowed, 0)
            self._windowed = None
        self.activity = SETTLE_FRAMES

    def draw(
        self, gui: Callable[[], None], scene: Callable[[], None], render_ui: Callable[[], None] | None = None
    ) -> bool:
        """One frame: `gui` lays out panels, `scene` draws below them; not yet shown. False without an area."""
        from OpenGL import GL

        imgui = self.imgui
        width, height = self.framebuffer_size
        if width == 0 or height == 0:
            return False
        imgui.backends.opengl3_new_frame()
        imgui.backends.glfw_new_frame()
        imgui.new_frame()
        gui()
        (render_ui or imgui.render)()
        GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, 0)
        GL.glViewport(0, 0, width, height)
        scene()
        imgui.backends.opengl3_render_draw_data(imgui.get_draw_data())
        return True

    def swap(self) -> None:
        self.glfw.swap_buffers(self.handle)

    def read_pixels(self) -> NDArray[np.uint8]:
        """[H, W, 3] of the frame drawn last, row 0 at the top; call it before `swap`."""
        return read_framebuffer(*self.framebuffer_size)

    def close(self) -> None:
        from imgui_bundle import implot

        imgui = self.imgui
        imgui.backends.opengl3_shutdown()
        imgui.backends.glfw_shutdown()
        implot.destroy_context()
        imgui.destroy_context(self.context)
        self.glfw.destroy_window(self.handle)
        self.glfw.terminate()

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_framebuffer(width: int, height: int) -> NDArray[np.uint8]:
    """[H, W, 3] of the bound framebuffer, row 0 at the top."""
    from OpenGL import GL

    out = np.empty((height, width, 3), np.uint8)
    GL.glPixelStorei(GL.GL_PACK_ALIGNMENT, 1)
    GL.glReadPixels(0, 0, width, height, GL.GL_RGB, GL.GL_UNSIGNED_BYTE, out)
    return np.ascontiguousarray(out[::-1])


def software_gl() -> bool:
    """Whether the processor rasterises in the current context."""
    from OpenGL import GL

    name = GL.glGetString(GL.GL_RENDERER)
    return b"llvmpipe" in (name or b"") or b"softpipe" in (name or b"")


@contextlib.contextmanager
def _quiet_glfw(glfw: Any) -> Any:
    """Collects GLFW's messages instead of letting it print warnings: they go into our one sentence."""
    problems: list[str] = []

    def keep(_: int, text: bytes | str) -> None:
        problems.append(text.decode(errors="replace") if isinstance(text, bytes) else str(text))

    callback = glfw.set_error_callback(keep)
    try:
        yield problems
    finally:
        glfw.set_error_callback(callback)


def _reason(glfw: Any, problems: list[str]) -> str:
    return " ".join((problems[0] if problems else "GLFW gave no reason").split()).rstrip(".")
