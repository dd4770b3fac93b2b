"""A picture in a CUDA device's memory into GL textures, without a way over the host where the machine allows it.

The paths, in order; one that fails is given up for good, its reason is kept, and the next one takes the same picture:

    surface       a kernel writes the registered texture through a surface object
    pixel buffer  the device copies into a registered pixel buffer object, GL from there into the texture
    host copy     `DevicePaths.write` returns False, and the caller uploads from host memory

Every call belongs to the thread whose GL context is current, the window's. It never waits for rendering: copies run on
a stream of their own (see `Driver`), behind the event that the picture's writer recorded. docs/decisions.md says why.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from .device_picture import COMPONENTS, INTEGER, DevicePicture

SURFACE, PIXEL_BUFFER, HOST = "surface", "pixel buffer", "host copy"


class InteropError(RuntimeError):
    """A call that CUDA or GL refused; the message names the call and what it said."""


@dataclass(frozen=True)
class Layout:
    """How an image lies in memory and in its texture: 32 bits a component, rows tight, row 0 first."""

    width: int
    height: int
    components: int  # 1, 3 or 4
    integer: bool = False

    @staticmethod
    def of(image: NDArray) -> Layout:
        """Of an array [H, W] or [H, W, C]."""
        return Layout(image.shape[1], image.shape[0], 1 if image.ndim == 2 else image.shape[2], image.dtype.kind == "i")

    @staticmethod
    def of_channel(name: str, picture: DevicePicture) -> Layout:
        return Layout(picture.width, picture.height, COMPONENTS.get(name, 1), name in INTEGER)

    @property
    def n_bytes(self) -> int:
        return 4 * self.width * self.height * self.components


@dataclass(frozen=True)
class PathStatus:
    """Which path pictures take to the screen, and why no faster one."""

    name: str
    reason: str


class Driver(Protocol):
    """The calls to CUDA and GL that interop is made of; any may raise `InteropError`. `interop_cuda` has the real one.

    CUDA work goes to one stream of the driver's own: one that never waits for other streams by itself and is served
    before them. Resources, arrays, surfaces and events are whatever the driver's calls return for them.
    """

    def gl_devices(self) -> list[int]: ...  # CUDA ordinals of the GPUs behind the current GL context
    def register_texture(self, texture: int) -> Any: ...
    def register_buffer(self, buffer: int) -> Any: ...
    def unregister(self, resource: Any) -> None: ...
    def map(self, resource: Any) -> None: ...
    def unmap(self, resource: Any) -> None: ...
    def array(self, resource: Any) -> Any: ...  # of a mapped texture
    def pointer(self, resource: Any) -> tuple[int, int]: ...  # address and bytes of a mapped buffer
    def create_surface(self, array: Any) -> Any: ...
    def destroy_surface(self, surface: Any) -> None: ...
    def write_surface(self, surface: Any, source: int, layout: Layout) -> None: ...
    def copy(self, target: int, source: int, n_bytes: int) -> None: ...
    def wait_for(self, event: int) -> None: ...  # the stream waits, the caller does not
    def record(self) -> Any: ...  # an event behind everything in the stream
    def finished(self, event: Any) -> bool: ...  # gives the event back if so
    def synchronize(self) -> None: ...  # the caller waits; only when paths are given up
    def create_buffer(self, n_bytes: int) -> int: ...
    def delete_buffer(self, buffer: int) -> None: ...
    def fill_texture(self, texture: int, buffer: int, layout: Layout) -> None: ...
    def close(self) -> None: ...


class Resource:
    """A GL object and its registration: unregistered -> registered <-> mapped; `failed` ends it, `release` is due then.

    >>> Resource.STATES
    ('unregistered', 'registered', 'mapped', 'failed')
    """

    STATES = ("unregistered", "registered", "mapped", "failed")

    def __init__(self, driver: Driver, register: Callable[[], Any]) -> None:
        self._driver, self._register = driver, register
        self._handle: Any = None
        self.state = "unregistered"

    @contextlib.contextmanager
    def mapped(self) -> Iterator[Any]:
        """The handle, mapped for the block's CUDA work; registered before the first time. Raises `InteropError`."""
        try:
            if self.state == "unregistered":
                self._handle = self._register()
                self.state = "registered"
            self._driver.map(self._handle)
            self.state = "mapped"
        except Exception:
            self.state = "failed"
            raise
        try:
            yield self._handle
        finally:
            self._unmap()

    def _unmap(self) -> None:
        self.state = "failed"
        self._driver.unmap(self._handle)
        self.state = "registered"

    def release(self) -> None:
        """Unregisters. What the driver says against it is of no use: nothing will be done with the handle any more."""
        handle, self._handle, self.state = self._handle, None, "unregistered"
        if handle is not None:
            with contextlib.suppress(InteropError):
                self._driver.unregister(handle)


@dataclass
class _Flight:
    """Work in the stream, and what must outlive it."""

    picture: DevicePicture
    surfaces: list[Any] = field(default_factory=list)
    event: Any = None


class _Path(ABC):
    """One way from the device into textures: its registrations, one a texture, and its work in flight."""

    name: str

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._resources: dict[int, Resource] = {}  # texture -> what is registered for it
        self._flights: list[_Flight] = []

    def write(self, texture: int, source: int, layout: Layout, picture: DevicePicture) -> None:
        """Fills `texture`, of storage `layout`, from the address `source` in `picture`. Raises `InteropError`."""
        self._land()
        if texture not in self._resources:
            self._resources[texture] = self.resource(texture, layout)
        flight = _Flight(picture)
        self._flights.append(flight)
        with self._resources[texture].mapped() as handle:
            if picture.ready:
                self.driver.wait_for(picture.ready)
            self.transfer(handle, source, layout, flight)
            flight.event = self.driver.record()
        self.after(texture, layout)

    @abstractmethod
    def resource(self, texture: int, layout: Layout) -> Resource:
        """What is to be registered for a texture."""

    @abstractmethod
    def transfer(self, handle: Any, source: int, layout: Layout, flight: _Flight) -> None:
        """Puts the copy into the mapped resource on the stream."""

    @abstractmethod
    def after(self, texture: int, layout: Layout) -> None:
        """What is left for GL to do when the resource is its own again."""

    def forget(self, texture: int) -> None:
        """The texture's storage is about to be another one."""
        if (resource := self._resources.pop(texture, None)) is not None:
            resource.release()

    def _land(self) -> None:
        """Lets go of what finished work needed."""
        while self._flights and self.driver.finished(self._flights[0].event):
            for surface in self._flights.pop(0).surfaces:
                self.driver.destroy_surface(surface)

    def close(self) -> None:
        """Gives everything back, whatever state it is in."""
        with contextlib.suppress(InteropError):
            self.driver.synchronize()
        for surface in [surface for flight in self._flights for surface in flight.surfaces]:
            with contextlib.suppress(InteropError):
                self.driver.destroy_surface(surface)
        self._flights.clear()
        for texture in list(self._resources):
            self.forget(texture)


class _SurfacePath(_Path):
    name = SURFACE

    def resource(self, texture: int, layout: Layout) -> Resource:
        return Resource(self.driver, lambda: self.driver.register_texture(texture))

    def transfer(self, handle: Any, source: int, layout: Layout, flight: _Flight) -> None:
        # A surface stands for this mapping's array only, and is in use until the kernel is done: it flies along.
        surface = self.driver.create_surface(self.driver.array(handle))
        flight.surfaces.append(surface)
        self.driver.write_surface(surface, source, layout)

    def after(self, texture: int, layout: Layout) -> None:
        """Nothing: the kernel has written the texture itself."""


class _PixelBufferPath(_Path):
    name = PIXEL_BUFFER

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self._buffers: dict[int, int] = {}  # texture -> pixel buffer

    def resource(self, texture: int, layout: Layout) -> Resource:
        buffer = self._buffers[texture] = self.driver.create_buffer(layout.n_bytes)
        return Resource(self.driver, lambda: self.driver.register_buffer(buffer))

    def transfer(self, handle: Any, source: int, layout: Layout, flight: _Flight) -> None:
        target, n_bytes = self.driver.pointer(handle)
        if n_bytes < layout.n_bytes:
            raise InteropError(f"the pixel buffer was mapped with {n_bytes} bytes of {layout.n_bytes}")
        self.driver.copy(target, source, layout.n_bytes)

    def after(self, texture: int, layout: Layout) -> None:
        self.driver.fill_texture(texture, self._buffers[texture], layout)

    def forget(self, texture: int) -> None:
        super().forget(texture)
        if (buffer := self._buffers.pop(texture, None)) is not None:
            with contextlib.suppress(InteropError):
                self.driver.delete_buffer(buffer)


PATHS: dict[str, type[_Path]] = {SURFACE: _SurfacePath, PIXEL_BUFFER: _PixelBufferPath}


class DevicePaths:
    """Writes channels of device pictures into textures by the fastest path that has not failed.

    Owns its driver. Without one, for `reason`, there is the host copy only.
    """

    def __init__(self, driver: Driver | None, reason: str = "", names: tuple[str, ...] = tuple(PATHS)) -> None:
        self._driver = driver
        self._refusals = [] if driver is not None else [reason]
        self._left = [PATHS[name](driver) for name in names] if driver is not None else []
        self._devices: list[int] = []
        if driver is not None:
            try:
                self._devices = driver.gl_devices()
            except InteropError as error:
                self._left, self._refusals = [], [str(error)]
            if not self._devices and not self._refusals:
                self._left, self._refusals = [], ["no CUDA device is behind the window's OpenGL"]

    @property
    def device(self) -> int | None:
        """The CUDA device that pictures should be on; None where that makes no difference."""
        return self._devices[0] if self._left else None

    @property
    def possible(self) -> bool:
        """Whether some device picture could still go without the host."""
        return bool(self._left)

    def write(self, texture: int, name: str, picture: DevicePicture) -> bool:
        """Fills a texture, whose storage has the channel's `Layout`, with a channel. False: the host has to."""
        if picture.device not in self._devices:
            return False
        layout = Layout.of_channel(name, picture)
        while self._left:
            try:
                self._left[0].write(texture, picture.addresses[name], layout, picture)
                return True
            except InteropError as error:
                self._give_up(error)
        return False

    def _give_up(self, error: InteropError) -> None:
        path = self._left.pop(0)
        self._refusals.append(f"not {path.name}: {error}")
        path.close()

    def forget(self, texture: int) -> None:
        """The texture's storage is about to change: whatever is registered with CUDA would keep the old one."""
        for path in self._left:
            path.forget(texture)

    def status(self, picture: DevicePicture | None) -> PathStatus:
        """The path of a picture; None: one that was made in host memory."""
        if picture is None:
            return PathStatus(HOST, "made in host memory")
        if self._left and picture.device not in self._devices:
            drawing = ", ".join(map(str, self._devices))
            return PathStatus(HOST, f"it is on CUDA device {picture.device}, the window is drawn by {drawing}")
        if not self._left:
            return PathStatus(HOST, "; ".join(self._refusals))
        fastest = f"CUDA device {picture.device} draws the window, too"
        return PathStatus(self._left[0].name, "; ".join(self._refusals) or fastest)

    def close(self) -> None:
        """Gives everything back; from here on there is the host copy only."""
        for path in self._left:
            path.close()
        self._left = []
        if self._driver is not None:
            with contextlib.suppress(InteropError):
                self._driver.close()
            self._driver = None
