"""An OpenGL context without a window, display server or toolkit: EGL on a device. For the doctor and for tests.

GLFW's own windowless EGL asks for a display that NVIDIA's driver does not have; its devices it does enumerate.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

from .window import APT_LINE, WindowError  # and PYOPENGL_PLATFORM with it

PLATFORM_DEVICE, PLATFORM_SURFACELESS = 0x313F, 0x31DD  # EGL_EXT_platform_device, EGL_MESA_platform_surfaceless
MOST_DEVICES = 16


@contextlib.contextmanager
def windowless_context() -> Iterator[str]:
    """A current OpenGL 3.3 core context, on the first device that has one; yields what it is on.

    It has no framebuffer of its own. Raises `WindowError` where nothing gives a context.
    """
    try:
        from OpenGL import EGL
    except (ImportError, OSError, AttributeError) as error:
        raise WindowError(f"EGL is missing ({' '.join(str(error).split())}); this installs it: {APT_LINE}") from error
    problems: list[str] = []
    for platform, native, what in _displays(EGL):
        try:
            display, context = _create(EGL, platform, native)
        except Exception as error:  # PyOpenGL's errors, and what a driver makes of a call it does not know
            problems.append(f"{what}: {' '.join(str(error).split())[:80]}")
            continue
        try:
            yield what
        finally:
            EGL.eglMakeCurrent(display, EGL.EGL_NO_SURFACE, EGL.EGL_NO_SURFACE, EGL.EGL_NO_CONTEXT)
            EGL.eglDestroyContext(display, context)
            EGL.eglTerminate(display)
        return
    raise WindowError(f"EGL gives no OpenGL 3.3 context ({'; '.join(problems)}); this installs one: {APT_LINE}")


def _displays(EGL: Any) -> Iterator[tuple[int, Any, str]]:
    """(platform, native display, name): every device, then Mesa's own way without one."""
    with contextlib.suppress(Exception):
        address = ctypes.cast(EGL.eglGetProcAddress(b"eglQueryDevicesEXT"), ctypes.c_void_p).value
        signature = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))
        query = signature(address or 0)
        devices, count = (ctypes.c_void_p * MOST_DEVICES)(), ctypes.c_int()
        if address and query(MOST_DEVICES, devices, ctypes.byref(count)):
            for number in range(count.value):
                yield PLATFORM_DEVICE, ctypes.c_void_p(devices[number]), f"EGL device {number}"
    yield PLATFORM_SURFACELESS, EGL.EGL_DEFAULT_DISPLAY, "EGL without a surface"


def _create(EGL: Any, platform: int, native: Any) -> tuple[Any, Any]:
    """(display, current context)."""

    def attributes(*values: int) -> Any:
        return (EGL.EGLint * (len(values) + 1))(*values, EGL.EGL_NONE)

    display = EGL.eglGetPlatformDisplay(platform, native, None)
    if not display:
        raise RuntimeError("no display")
    EGL.eglInitialize(display, EGL.EGLint(), EGL.EGLint())
    try:
        EGL.eglBindAPI(EGL.EGL_OPENGL_API)
        wanted = EGL.EGL_SURFACE_TYPE, EGL.EGL_PBUFFER_BIT, EGL.EGL_RENDERABLE_TYPE, EGL.EGL_OPENGL_BIT
        configs, count = (EGL.EGLConfig * 1)(), EGL.EGLint()
        EGL.eglChooseConfig(display, attributes(*wanted), configs, 1, count)
        if count.value == 0:
            raise RuntimeError("no configuration for OpenGL")
        version = 0x3098, 3, 0x30FB, 3, 0x30FD, 1  # major, minor, core profile
        context = EGL.eglCreateContext(display, configs[0], EGL.EGL_NO_CONTEXT, attributes(*version))
        if not context or not EGL.eglMakeCurrent(display, EGL.EGL_NO_SURFACE, EGL.EGL_NO_SURFACE, context):
            raise RuntimeError("no OpenGL 3.3 context")
        return display, context
    except Exception:
        EGL.eglTerminate(display)
        raise
