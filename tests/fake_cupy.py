"""What the cuda executor uses of CuPy, on host memory and with the CPU build of the kernels: everything but the GPU.

Any call can be made to fail. Memory comes poisoned, and is counted.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from infnerf.renderer.gpu_driver import GpuDriver
from infnerf.renderer.gpu_loader import KERNELS
from infnerf.renderer.kernels import load_kernels
from infnerf.renderer.torch_launch import TorchLauncher

OUT_OF_MEMORY, LAUNCH_FAILURE, UNSUPPORTED_CAPTURE = 2, 719, 900


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError{status}: made up")
        self.status = status


class CompileException(Exception):
    pass


class _Context(AbstractContextManager):
    def __exit__(self, *_: object) -> None:
        return None


class FakeCupy:
    """Stands for the module `cupy`. `fail_at`: the number of the call that raises `status`, from 1; 0: none."""

    def __init__(self, memory: int = 1 << 30, fail_at: int = 0, status: int = OUT_OF_MEMORY, lasting: bool = False):
        self.memory, self.used, self.fail_at, self.status, self.lasting = memory, 0, fail_at, status, lasting
        self.calls: list[str] = []
        self.launched: list[str] = []
        self.compiled: list[tuple[str, ...]] = []  # options of each module
        self.fail_on = ""  # the name of a call that fails, whenever it comes
        self.backwards = False  # blocks from the last to the first
        self.capturing: list[Callable[[], None]] | None = None
        self.driver_version, self.devices, self.capability = 13020, 1, "90"
        self.cuda = self._cuda()

    def called(self, name: str) -> None:
        self.calls.append(name)
        later = self.lasting and len(self.calls) > self.fail_at
        if (self.fail_at and (len(self.calls) == self.fail_at or later)) or name == self.fail_on:
            raise CUDARuntimeError(self.status)

    def _cuda(self) -> Any:
        fake = self

        class Memory:
            def __init__(self, size: int) -> None:
                self.size = 0
                fake.called("Memory")
                if fake.used + size > fake.memory:
                    raise CUDARuntimeError(OUT_OF_MEMORY)
                self.size = size
                fake.used += size
                self.array = np.full(size, 0xCD, np.uint8)
                self.ptr = self.array.ctypes.data

            def __del__(self) -> None:
                fake.used -= self.size

        class Device(_Context):
            def __init__(self, number: int) -> None:
                self.attributes = {"MultiProcessorCount": 2}
                self.compute_capability = fake.capability

        class Stream(_Context):
            ptr = 7

            def __init__(self, non_blocking: bool) -> None:
                fake.called("Stream")

            def begin_capture(self) -> None:
                fake.called("begin_capture")
                fake.capturing = []

            def end_capture(self) -> Graph:
                assert fake.capturing is not None
                graph, fake.capturing = Graph(fake.capturing), None
                fake.called("end_capture")
                return graph

        class Graph:
            def __init__(self, work: list[Callable[[], None]]) -> None:
                self.work = work

            def launch(self, stream: Stream) -> None:
                fake.called("graph")
                for work in self.work:
                    work()

        class Event:
            done = True

            def __init__(self, disable_timing: bool) -> None:
                fake.called("Event")

            def record(self, stream: Stream) -> None:
                fake.called("record")

        def pinned(size: int) -> Any:
            fake.called("alloc_pinned_memory")
            return np.full(size, 0xCD, np.uint8)

        return SimpleNamespace(
            Memory=Memory, Device=Device, Stream=Stream, Event=Event, alloc_pinned_memory=pinned,
            UnownedMemory=lambda address, size, owner: (address, size, owner), MemoryPointer=lambda memory, at: memory,
            nvrtc=SimpleNamespace(getVersion=lambda: (13, 2)), runtime=self._runtime(),
            compiler=SimpleNamespace(CompileException=CompileException),
        )  # fmt: skip

    def _runtime(self) -> Any:
        def memcpy(to: int, source: int, size: int, kind: int) -> None:
            self.called("memcpy")
            ctypes.memmove(to, source, size)

        def memcpy_rows(to: int, to_pitch: int, source: int, pitch: int, width: int, rows: int, *_: int) -> None:
            self.called("memcpy2DAsync")
            for row in range(rows):
                ctypes.memmove(to + row * to_pitch, source + row * pitch, width)

        def count() -> int:
            if self.devices == 0:
                raise CUDARuntimeError(100)
            return self.devices

        return SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError, memcpyHostToDevice=1, memcpyDeviceToHost=2, memcpyDeviceToDevice=3,
            driverGetVersion=lambda: self.driver_version, runtimeGetVersion=lambda: 13020, getDeviceCount=count,
            getDeviceProperties=lambda device: {"name": b"Fake GPU"}, memcpy=memcpy, memcpy2DAsync=memcpy_rows,
            memsetAsync=lambda to, value, size, stream: ctypes.memset(to, value, size),
            memGetInfo=lambda: (self.memory - self.used, self.memory),
        )  # fmt: skip

    def ndarray(self, shape: tuple[int, ...], dtype: Any, memory: tuple[int, int, Any]) -> np.ndarray:
        address, size, _ = memory
        return np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(address)).view(dtype).reshape(shape)

    def RawModule(self, code: str, options: tuple[str, ...], backend: str) -> Any:
        self.compiled.append(options)
        return SimpleNamespace(get_function=lambda name: self._function(code, options, name))

    def _function(self, code: str, options: tuple[str, ...], name: str) -> Callable[..., None]:
        self.called("get_function")
        assert name in code
        assert any(option.startswith("-DINFNERF_SOURCE=") for option in options)

        def launch(grid: tuple[int, int], block: tuple[int, int], arguments: list[np.ndarray]) -> None:
            self.called(name)
            if self.capturing is not None:
                self.capturing.append(lambda: self._launch(name, grid, arguments))
            else:
                self._launch(name, grid, arguments)

        return launch

    def _launch(self, name: str, grid: tuple[int, int], arguments: list[np.ndarray]) -> None:
        self.launched.append(name)
        launch_on_cpu(name, grid, arguments, self.backwards)


def launch_on_cpu(name: str, grid: tuple[int, int], arguments: list[np.ndarray], backwards: bool = False) -> None:
    """Runs a kernel of `cuda/` with arguments as `packed_arguments` makes them; arrays lie in host memory.

    Tensor cores are the portable kernel's: tests/test_mma.py holds their emulation to it.
    """
    name = name.removesuffix("_mma")
    shape = (ctypes.c_int * 4)(*grid, *KERNELS[name].threads)
    pointers = (ctypes.c_void_p * len(arguments))(*[argument.ctypes.data for argument in arguments])
    assert load_kernels().library.launch_kernel(name.encode(), shape, pointers, int(backwards)) == 1, name


class HostDriver(GpuDriver):
    """Takes torch's tensors on the host for such on the device."""

    def torch_stream(self) -> Any:
        return self.stream


def host_launcher(fake: FakeCupy | None = None, device: str = "cpu") -> TorchLauncher:
    """Runs the kernels of training on tensors in host memory, wherever these say that they are."""
    return TorchLauncher(HostDriver(fake or FakeCupy()), torch.device(device))
