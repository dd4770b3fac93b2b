"""A driver for interop without hardware: it refuses what CUDA refuses, counts what is held, and fails to order."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from infnerf.renderer.device_picture import DevicePicture
from infnerf.renderer.frame import CHANNELS, FrameBuffers
from infnerf.renderer.interop import InteropError, Layout


class FakeDriver:
    """Textures, buffers and device memory as dictionaries; what CUDA would not allow is an assertion here."""

    def __init__(self, devices: tuple[int, ...] = (0,)) -> None:
        self.devices = list(devices)
        self.memory: dict[int, bytes] = {}  # address -> device memory
        self.textures: dict[int, bytes] = {}
        self.buffers: dict[int, bytes] = {}
        self.resources: dict[int, tuple[str, int]] = {}  # registered: handle -> kind and GL object
        self.mapped: set[int] = set()
        self.surfaces: dict[int, int] = {}  # surface -> texture
        self.in_use: set[int] = set()  # surfaces of kernels that run
        self.events: set[int] = set()
        self.busy = False  # nothing in the stream finishes
        self.failing: dict[str, int] = {}  # call -> how many calls of it still work; then all fail
        self.calls: list[str] = []
        self._numbers = itertools.count(1000)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            self.failing[name] -= 1
            if self.failing[name] < 0:
                raise InteropError(f"{name}: out of luck")

    def gl_devices(self) -> list[int]:
        self._call("gl_devices")
        return self.devices

    def _register(self, kind: str, number: int) -> int:
        self._call(f"register_{kind}")
        assert (kind, number) not in self.resources.values(), "registered twice"
        handle = next(self._numbers)
        self.resources[handle] = (kind, number)
        return handle

    def register_texture(self, texture: int) -> int:
        return self._register("texture", texture)

    def register_buffer(self, buffer: int) -> int:
        return self._register("buffer", buffer)

    def unregister(self, resource: int) -> None:
        del self.resources[resource]  # CUDA lets go of it whatever it answers
        self.mapped.discard(resource)
        self._call("unregister")

    def map(self, resource: int) -> None:
        self._call("map")
        assert resource not in self.mapped
        self.mapped.add(resource)

    def unmap(self, resource: int) -> None:
        assert resource in self.mapped
        self._call("unmap")
        self.mapped.discard(resource)

    def array(self, resource: int) -> int:
        self._call("array")
        assert resource in self.mapped
        return self.resources[resource][1]

    def pointer(self, resource: int) -> tuple[int, int]:
        self._call("pointer")
        assert resource in self.mapped
        buffer = self.resources[resource][1]
        return buffer, len(self.buffers[buffer])

    def create_surface(self, array: int) -> int:
        self._call("create_surface")
        surface = next(self._numbers)
        self.surfaces[surface] = array
        return surface

    def destroy_surface(self, surface: int) -> None:
        assert surface not in self.in_use, "the kernel still writes through it"
        del self.surfaces[surface]
        self._call("destroy_surface")

    def write_surface(self, surface: int, source: int, layout: Layout) -> None:
        self._call("write_surface")
        if self.busy:
            self.in_use.add(surface)
        self.textures[self.surfaces[surface]] = self.memory[source]

    def copy(self, target: int, source: int, n_bytes: int) -> None:
        self._call("copy")
        assert n_bytes == len(self.memory[source])
        self.buffers[target] = self.memory[source]

    def wait_for(self, event: int) -> None:
        self._call("wait_for")

    def record(self) -> int:
        self._call("record")
        event = next(self._numbers)
        self.events.add(event)
        return event

    def finished(self, event: int) -> bool:
        self._call("finished")
        if self.busy:
            return False
        self.events.discard(event)
        return True

    def synchronize(self) -> None:
        self.in_use.clear()
        self._call("synchronize")

    def create_buffer(self, n_bytes: int) -> int:
        self._call("create_buffer")
        buffer = next(self._numbers)
        self.buffers[buffer] = bytes(n_bytes)
        return buffer

    def delete_buffer(self, buffer: int) -> None:
        assert ("buffer", buffer) not in self.resources.values(), "deleted while registered"
        del self.buffers[buffer]
        self._call("delete_buffer")

    def fill_texture(self, texture: int, buffer: int, layout: Layout) -> None:
        assert not self.mapped, "GL reads what CUDA has mapped"
        self._call("fill_texture")
        self.textures[texture] = self.buffers[buffer]

    def close(self) -> None:
        self._call("close")

    def assert_nothing_is_held(self) -> None:
        assert (self.resources, self.mapped, self.surfaces, self.buffers) == ({}, set(), {}, {})


def make_picture(
    driver: FakeDriver, seed: int = 0, device: int = 0, size: tuple[int, int] = (5, 3)
) -> tuple[DevicePicture, FrameBuffers]:
    """A picture of noise in the fake's memory, and the same on the host."""
    rng = np.random.default_rng(seed)
    host = FrameBuffers.allocate(*size)
    for channel in host.channels().values():
        channel[:] = (3 * rng.random(channel.shape)).astype(channel.dtype)
    addresses = {name: 10_000 * (seed + 1) + i for i, name in enumerate(CHANNELS)}
    driver.memory |= {addresses[name]: channel.tobytes() for name, channel in host.channels().items()}
    return DevicePicture(device, *size, addresses, lambda name: getattr(host, name), ready=7), host


class GLFakeDriver(FakeDriver):
    """The same with real textures of the current GL context: what the device would write is uploaded."""

    def write_surface(self, surface: int, source: int, layout: Layout) -> None:
        super().write_surface(surface, source, layout)
        self._put(self.surfaces[surface], layout)

    def fill_texture(self, texture: int, buffer: int, layout: Layout) -> None:
        super().fill_texture(texture, buffer, layout)
        self._put(texture, layout)

    def _put(self, texture: int, layout: Layout) -> None:
        from OpenGL import GL

        from infnerf.renderer.interop_cuda import gl_formats

        _, outside, kind = gl_formats(layout)
        data: NDArray = np.frombuffer(self.textures[texture], np.int32 if layout.integer else np.float32)
        GL.glBindTexture(GL.GL_TEXTURE_2D, texture)
        GL.glTexSubImage2D(GL.GL_TEXTURE_2D, 0, 0, 0, layout.width, layout.height, outside, kind, data)
