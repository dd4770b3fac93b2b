"""The driver of `interop` on real hardware: CUDA's runtime through `cuda.bindings`, OpenGL through PyOpenGL.

CuPy can't wrap an array that was mapped from GL, so these calls go to the runtime itself; the kernel is CuPy's. Both
use the device's primary context. Nothing of either is imported before `open_paths`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from .interop import DevicePaths, InteropError, Layout


def open_paths() -> DevicePaths:
    """The paths from CUDA to the current GL context. Never raises: where there are none, they know why."""
    try:
        runtime = importlib.import_module("cuda.bindings.runtime")
    except ModuleNotFoundError:
        return DevicePaths(None, "cuda-bindings is not installed (extra cuda)")
    except Exception as error:  # a broken install says so in many ways
        return DevicePaths(None, f"cuda-bindings can't be used: {_line(error)}")
    try:
        return DevicePaths(CudaGL(runtime))
    except InteropError as error:
        return DevicePaths(None, str(error))


def gl_formats(layout: Layout) -> tuple[Any, Any, Any]:
    """(internal format, format, type) of a texture with such pixels.

    Three components lie in four, because CUDA takes no textures of three.
    """
    from OpenGL import GL

    if layout.integer:
        return GL.GL_R32I, GL.GL_RED_INTEGER, GL.GL_INT
    internal, outside = {1: ("R32F", "RED"), 3: ("RGBA32F", "RGB"), 4: ("RGBA32F", "RGBA")}[layout.components]
    return getattr(GL, f"GL_{internal}"), getattr(GL, f"GL_{outside}"), GL.GL_FLOAT


def checked_cuda(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """A call of the CUDA runtime: its one result, or None. Raises `InteropError` with the call and what it said."""
    name = function.__name__
    try:
        status, *results = function(*arguments)
    except Exception as error:  # cuda.bindings raises where the driver's library or a function in it is missing
        raise InteropError(f"{name}: {_line(error)}") from error
    if int(status) != 0:
        raise refused(name, status)
    return results[0] if len(results) == 1 else tuple(results) if results else None


def refused(name: str, status: Any) -> InteropError:
    return InteropError(f"{name}: {status.name}")


@contextlib.contextmanager
def _gl(what: str) -> Iterator[Any]:
    """OpenGL's functions; what they complain of becomes an `InteropError`."""
    from OpenGL import GL
    from OpenGL.error import Error

    try:
        yield GL
    except Error as error:
        raise InteropError(f"{what}: {_line(error)}") from error


class CudaGL:
    """See `interop.Driver`. Made with the GL context current whose textures are to be written.

    Raises `InteropError` where CUDA has no device behind this context.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._stream: Any = None
        self._events: dict[int, Any] = {}  # recorded and not yet seen to be finished
        self._free: list[Any] = []  # events
        devices = self.gl_devices()
        if not devices:
            raise InteropError("no CUDA device is behind this OpenGL context")
        self.device = devices[0]
        self._call("cudaSetDevice", self.device)
        _, greatest = self._call("cudaDeviceGetStreamPriorityRange")
        # Not blocking: the default stream's work would else wait for rendering. First in the queue: a copy of a picture
        # that is complete must not stand behind the slices of the next.
        self._stream = self._call("cudaStreamCreateWithPriority", runtime.cudaStreamNonBlocking, greatest)

    def _call(self, name: str, *arguments: Any) -> Any:
        return checked_cuda(getattr(self._runtime, name), *arguments)

    def gl_devices(self) -> list[int]:
        every = self._runtime.cudaGLDeviceList.cudaGLDeviceListAll
        count, devices = self._call("cudaGLGetDevices", 16, every)
        return [int(device) for device in devices[: int(count)]]

    def _registered(self, name: str, *arguments: Any) -> Any:
        resource = self._call(name, *arguments)
        if int(resource) == 0:  # cuda-bindings 12.9.3 answers success and nothing
            raise InteropError(f"{name}: success, but no handle (a fault of cuda-bindings 12.9.3)")
        return resource

    def register_texture(self, texture: int) -> Any:
        from OpenGL import GL

        flag = self._runtime.cudaGraphicsRegisterFlags.cudaGraphicsRegisterFlagsSurfaceLoadStore
        return self._registered("cudaGraphicsGLRegisterImage", texture, int(GL.GL_TEXTURE_2D), int(flag))

    def register_buffer(self, buffer: int) -> Any:
        flag = self._runtime.cudaGraphicsRegisterFlags.cudaGraphicsRegisterFlagsWriteDiscard
        return self._registered("cudaGraphicsGLRegisterBuffer", buffer, int(flag))

    def unregister(self, resource: Any) -> None:
        self._call("cudaGraphicsUnregisterResource", resource)

    def map(self, resource: Any) -> None:
        self._call("cudaGraphicsMapResources", 1, resource, self._stream)

    def unmap(self, resource: Any) -> None:
        self._call("cudaGraphicsUnmapResources", 1, resource, self._stream)

    def array(self, resource: Any) -> Any:
        return self._call("cudaGraphicsSubResourceGetMappedArray", resource, 0, 0)

    def pointer(self, resource: Any) -> tuple[int, int]:
        address, n_bytes = self._call("cudaGraphicsResourceGetMappedPointer", resource)
        return int(address), int(n_bytes)

    def create_surface(self, array: Any) -> Any:
        description = self._runtime.cudaResourceDesc()
        description.resType = self._runtime.cudaResourceType.cudaResourceTypeArray
        description.res.array.array = array
        return self._call("cudaCreateSurfaceObject", description)

    def destroy_surface(self, surface: Any) -> None:
        self._call("cudaDestroySurfaceObject", surface)

    def write_surface(self, surface: Any, source: int, layout: Layout) -> None:
        try:
            _launch(self.device, int(self._stream), int(surface), source, layout)
        except Exception as error:  # CuPy missing, of the wrong CUDA, its compiler's or its launch's errors
            raise InteropError(f"the kernel write_surface: {_line(error)}") from error

    def copy(self, target: int, source: int, n_bytes: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpyAsync", target, source, n_bytes, kind, self._stream)

    def wait_for(self, event: int) -> None:
        self._call("cudaStreamWaitEvent", self._stream, event, 0)

    def record(self) -> Any:
        event = self._free.pop() if self._free else self._new_event()
        self._events[int(event)] = event
        self._call("cudaEventRecord", event, self._stream)
        return event

    def _new_event(self) -> Any:
        return self._call("cudaEventCreateWithFlags", self._runtime.cudaEventDisableTiming)

    def finished(self, event: Any) -> bool:
        (status,) = self._runtime.cudaEventQuery(event)
        if status == self._runtime.cudaError_t.cudaErrorNotReady:
            return False
        if int(status) != 0:
            raise refused("cudaEventQuery", status)
        self._free.append(self._events.pop(int(event)))
        return True

    def synchronize(self) -> None:
        self._call("cudaStreamSynchronize", self._stream)

    def create_buffer(self, n_bytes: int) -> int:
        with _gl("glBufferData") as GL:
            buffer = int(GL.glGenBuffers(1))
            GL.glBindBuffer(GL.GL_PIXEL_UNPACK_BUFFER, buffer)
            try:
                GL.glBufferData(GL.GL_PIXEL_UNPACK_BUFFER, n_bytes, None, GL.GL_STREAM_DRAW)
            finally:
                GL.glBindBuffer(GL.GL_PIXEL_UNPACK_BUFFER, 0)
            return buffer

    def delete_buffer(self, buffer: int) -> None:
        with _gl("glDeleteBuffers") as GL:
            GL.glDeleteBuffers(1, [buffer])

    def fill_texture(self, texture: int, buffer: int, layout: Layout) -> None:
        _, outside, kind = gl_formats(layout)
        with _gl("glTexSubImage2D") as GL:
            GL.glPixelStorei(GL.GL_UNPACK_ALIGNMENT, 4)
            GL.glBindTexture(GL.GL_TEXTURE_2D, texture)
            GL.glBindBuffer(GL.GL_PIXEL_UNPACK_BUFFER, buffer)
            try:
                size = layout.width, layout.height
                GL.glTexSubImage2D(GL.GL_TEXTURE_2D, 0, 0, 0, *size, outside, kind, ctypes.c_void_p(0))
            finally:
                GL.glBindBuffer(GL.GL_PIXEL_UNPACK_BUFFER, 0)

    def close(self) -> None:
        """Gives the stream and all events back; the GL context is still current."""
        for event in [*self._events.values(), *self._free]:
            with contextlib.suppress(InteropError):
                self._call("cudaEventDestroy", event)
        self._events.clear()
        self._free.clear()
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._call("cudaStreamDestroy", stream)


@functools.cache
def _loader() -> Any:
    from .gpu_loader import KernelLoader

    return KernelLoader(importlib.import_module("cupy"))


def _launch(device: int, stream: int, surface: int, source: int, layout: Layout) -> None:
    from .gpu_loader import KERNELS, DevicePointer, SurfaceObject

    cupy, threads = importlib.import_module("cupy"), KERNELS["write_surface"].threads
    width, height = layout.width, layout.height
    grid = -(-width // threads[0]), -(-height // threads[1])
    arguments = SurfaceObject(surface), DevicePointer(source), layout.components, width, height
    with cupy.cuda.Device(device):
        _loader().launch("write_surface", grid, arguments, cupy.cuda.ExternalStream(stream, device))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
