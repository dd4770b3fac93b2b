"""All that the cuda executor asks of CuPy: a device, memory, copies, launches, graphs; with errors by what helps.

CuPy and torch share a device's primary context, so addresses of one are good for the other. Everything is put on one
stream of our own, which does not wait for the default one.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .gpu_errors import DeviceLost, GpuError, GpuMemoryError, GpuUnavailable
from .gpu_loader import MIN_ARCHITECTURE, DevicePointer, KernelLoader

INSTALL = "pip install 'infnerf-view[cuda]'"
OUT_OF_MEMORY = 2  # as both of CUDA's interfaces number it
#: Errors after which nothing on the device can be used by this process (CUDA's "sticky" ones, and a device that went).
LOST = frozenset({46, 100, 101, 214, 219, 220, 226, 304, 700, 702, 709, 710, *range(714, 721), 999})
POLL_S = 2e-4


def import_cupy() -> Any:
    """CuPy. Raises `GpuUnavailable` where it is missing or broken."""
    try:
        return importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name == "cupy":
            raise GpuUnavailable(f"CuPy is missing: {INSTALL}") from error
        raise GpuUnavailable(f"CuPy lacks the module {error.name}: {INSTALL}") from error
    except Exception as error:  # whatever a broken installation raises
        raise GpuUnavailable(f"CuPy does not load ({_first_line(error)}): {INSTALL}") from error


def check_device(cupy: Any, device: int = 0) -> None:
    """Raises `GpuUnavailable` unless driver, device and compiler are there and new enough."""
    runtime = cupy.cuda.runtime
    try:
        spoken, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        if spoken == 0:
            raise GpuUnavailable("no NVIDIA driver answers: install it from nvidia.com/drivers (for WSL, in Windows)")
        if spoken // 1000 < needed // 1000:
            raise GpuUnavailable(
                f"the NVIDIA driver speaks CUDA {_version(spoken)} and CuPy needs {_version(needed)}: update the driver"
            )
        if device >= (count := runtime.getDeviceCount()):
            raise GpuUnavailable(f"CUDA shows {count} devices, not number {device}: look at CUDA_VISIBLE_DEVICES")
        architecture = int(cupy.cuda.Device(device).compute_capability)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise GpuUnavailable(
            f"no CUDA device answers ({_first_line(error)}): look at nvidia-smi and CUDA_VISIBLE_DEVICES"
        ) from error
    if architecture < MIN_ARCHITECTURE:
        raise GpuUnavailable(
            f"the GPU has compute capability {architecture / 10}, the kernels need {MIN_ARCHITECTURE / 10} (2018)"
        )
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # the library is loaded here, by name
        raise GpuUnavailable(f"NVRTC, the compiler of kernels, does not load: {INSTALL}") from error


@functools.cache
def gpu_problem(device: int = 0) -> str | None:
    """None if the machine's GPU number `device` can be used, else what is missing and what mends it."""
    try:
        check_device(import_cupy(), device)
    except GpuUnavailable as error:
        return str(error)
    return None


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class DeviceMemory:
    """Bytes on the device, given back by `free` or with the object."""

    def __init__(self, address: int, n_bytes: int, owner: Any) -> None:
        self.address, self.n_bytes, self._owner = address, n_bytes, owner

    def free(self) -> None:
        self._owner = None


class GpuDriver:
    """One device and one stream. Raises `GpuUnavailable` if there is none; any method may raise `DeviceLost`."""

    def __init__(self, cupy: Any = None, device: int = 0) -> None:
        self.cupy = cupy if cupy is not None else import_cupy()
        check_device(self.cupy, device)
        self.ordinal = device
        with self._translated("opening the device"):
            self._device = self.cupy.cuda.Device(device)
            with self._device:
                self.stream = self.cupy.cuda.Stream(non_blocking=True)
            self.architecture = int(self._device.compute_capability)
            self.multiprocessors = int(self._device.attributes["MultiProcessorCount"])
            properties = self.cupy.cuda.runtime.getDeviceProperties(device)
            self.name = properties["name"].decode()
        self._loader = KernelLoader(self.cupy)
        self._torch_streams: dict[int, Any] = {}

    def describe(self) -> str:
        """Name and compute capability."""
        return f"{self.name}, compute capability {self.architecture / 10}"

    def free_bytes(self) -> int:
        with self._using("asking for free memory"):
            return int(self.cupy.cuda.runtime.memGetInfo()[0])

    def allocate(self, n_bytes: int) -> DeviceMemory:
        """Raises `GpuMemoryError` if there are not as many bytes."""
        with self._using(f"taking {n_bytes >> 20} MiB"):
            memory = self.cupy.cuda.Memory(max(n_bytes, 1))
            return DeviceMemory(int(memory.ptr), n_bytes, memory)

    def pinned(self, n_bytes: int) -> np.ndarray:
        """Host memory [n_bytes] uint8 that copies can overlap with; ordinary memory where there is none."""
        try:
            with self._using("taking host memory"):
                memory = self.cupy.cuda.alloc_pinned_memory(max(n_bytes, 1))
                return np.frombuffer(memory, np.uint8, n_bytes)
        except GpuMemoryError:
            return np.empty(n_bytes, np.uint8)

    def on_device(self, tensor: Tensor) -> tuple[int, Any]:
        """(address, what keeps it alive) of a tensor's values on this device: itself if it lies there, else a copy."""
        tensor = tensor.detach().contiguous()
        with self._using(f"taking {tensor.nbytes >> 20} MiB"):
            if tensor.is_cuda:
                with self.stream:  # waits for torch's stream
                    array = self.cupy.from_dlpack(tensor)
                return int(array.data.ptr), array
        memory = self.allocate(tensor.nbytes)
        with self._using("copying to the device"):
            runtime = self.cupy.cuda.runtime
            runtime.memcpy(memory.address, tensor.data_ptr(), tensor.nbytes, runtime.memcpyHostToDevice)
        return memory.address, memory

    def array(self, address: int, shape: tuple[int, ...], dtype: type, owner: Any) -> Any:
        """A CuPy array over memory of ours, without a copy; `owner` lives as long as it. torch takes it by DLPack."""
        cupy = self.cupy
        with self._using("wrapping memory"):
            n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            memory = cupy.cuda.UnownedMemory(address, n_bytes, owner)
            return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0))

    def fill(self, address: int, value: int, n_bytes: int) -> None:
        """Sets bytes."""
        with self._using("setting memory"):
            self.cupy.cuda.runtime.memsetAsync(address, value, n_bytes, self.stream.ptr)

    def torch_stream(self) -> Any:
        """The stream that torch puts its work on now, in this thread."""
        pointer = torch.cuda.current_stream(self.ordinal).cuda_stream
        if pointer not in self._torch_streams:
            with self._using("taking torch's stream"):
                self._torch_streams[pointer] = self.cupy.cuda.ExternalStream(pointer, self.ordinal)
        return self._torch_streams[pointer]

    def new_stream(self) -> Any:
        """One more stream, for copies that wait for nothing that is being rendered."""
        with self._using("opening a stream"):
            return self.cupy.cuda.Stream(non_blocking=True)

    def copy_rows(
        self,
        to: int,
        to_pitch: int,
        source: int,
        source_pitch: int,
        width: int,
        rows: int,
        to_host: bool | None,  # None: from the device to the device
        stream: Any = None,
    ) -> None:
        """Copies `rows` rows of `width` bytes, on the stream; pitches are bytes from row to row."""
        if rows and width:
            runtime = self.cupy.cuda.runtime
            kinds = {
                True: runtime.memcpyDeviceToHost, False: runtime.memcpyHostToDevice, None: runtime.memcpyDeviceToDevice
            }  # fmt: skip
            with self._using("copying"):
                runtime.memcpy2DAsync(
                    to, to_pitch, source, source_pitch, width, rows, kinds[to_host], (stream or self.stream).ptr
                )

    def launch(
        self, name: str, grid: tuple[int, int], *arguments: Any, options: tuple[str, ...] = (), stream: Any = None
    ) -> None:
        """Puts a kernel of `gpu_loader.KERNELS` on the stream, or another. `options`: see `KernelLoader.function`."""
        with self._using(name):
            self._loader.launch(name, grid, arguments, stream or self.stream, options)

    def record(self, stream: Any = None) -> Any:
        """An event after all that is on the stream so far."""
        with self._using("recording an event"):
            event = self.cupy.cuda.Event(disable_timing=True)
            event.record(stream or self.stream)
            return event

    def finished(self, event: Any) -> bool:
        """Whether the device has come to `event`."""
        with self._using("rendering"):
            return bool(event.done)

    def wait(self, event: Any, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Until the device has come to `event`, True; or until `cancelled` says so, False."""
        while not self.finished(event):
            if cancelled():
                return False
            time.sleep(POLL_S)
        return True

    def capture(self, work: Callable[[], None]) -> Any:
        """What `work` puts on the stream, as a graph to `replay`; None where that fails. Kernels must be loaded."""
        try:
            with self._using("capturing a graph"):
                self.stream.begin_capture()
                try:
                    work()
                finally:
                    graph = self.stream.end_capture()
                return graph
        except DeviceLost:
            raise
        except GpuError:
            return None

    def replay(self, graph: Any) -> None:
        with self._using("launching a graph"):
            graph.launch(self.stream)

    @contextmanager
    def _using(self, what: str) -> Iterator[None]:
        with self._translated(what), self._device:
            yield

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """CuPy's errors as ours."""
        try:
            yield
        except GpuError:
            raise
        except Exception as error:
            status = getattr(error, "status", OUT_OF_MEMORY if isinstance(error, MemoryError) else None)
            if status is None:
                raise
            if status == OUT_OF_MEMORY:
                raise GpuMemoryError(f"the GPU is out of memory ({what})") from error
            if status in LOST:
                raise DeviceLost(f"the GPU stopped answering ({what}: {_first_line(error)})") from error
            raise GpuError(f"the GPU refused {what}: {_first_line(error)}") from error


def align(n_bytes: int, to: int = 256) -> int:
    """
    >>> align(1), align(256)
    (256, 256)
    """
    return -(-n_bytes // to) * to


class Arena:
    """One allocation, cut into arrays of 4-byte words: `address[name]`. Raises `GpuMemoryError`."""

    def __init__(self, driver: GpuDriver, words: Sequence[tuple[str, int]]) -> None:
        offset, offsets = 0, {}
        for name, count in words:
            offsets[name] = offset
            offset += align(4 * count)
        self.memory = driver.allocate(offset)
        self.address = {name: DevicePointer(self.memory.address + at) for name, at in offsets.items()}
        self.words = dict(words)

    def free(self) -> None:
        self.memory.free()
