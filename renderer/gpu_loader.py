"""The GPU build of `cuda/`: which kernels there are, what they take, and the one place that compiles them.

Nothing here needs a GPU or CuPy until a kernel is asked for. A `.cu` file is compiled by CuPy (NVRTC) for the device at
hand when the first of its kernels is launched, and kept in CuPy's cache on disk. That cache knows the source and the
options but not included files, so the hash of all of `cuda/` is one of the options.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .gpu_errors import GpuUnavailable, LaunchError
from .kernel_build import source_hash
from .kernels import (
    CUDA_DIR,
    AdamStruct,
    BuffersStruct,
    FieldSamplesStruct,
    PackedStruct,
    RaysStruct,
    SceneStruct,
    SegmentsStruct,
    SliceStruct,
    ViewStruct,
    WaveStruct,
)

#: What CuPy does not add by itself; it adds the architecture, -ftz=true and --device-as-default-execution-space.
OPTIONS = ("--std=c++17",)
MIN_ARCHITECTURE = 75  # compute capability times ten: __match_any_sync, and what tests compile for

THREADS, SCAN_THREADS = 256, 1024  # as in cuda/block.cuh
GRAD_SAMPLES, GRAD_THREADS = 64, 64  # as in cuda/train.cuh


class DevicePointer(int):
    """The address of an array on the device."""


class SurfaceObject(DevicePointer):
    """A cudaSurfaceObject_t: what a kernel writes a texture through."""


@dataclass(frozen=True)
class KernelSpec:
    """An entry point of `cuda/`: its file, its parameters in order, and the threads of a block."""

    file: str
    parameters: tuple[tuple[str, type], ...]  # name, type: a struct, int (32 bits) or DevicePointer
    threads: tuple[int, int] = (THREADS, 1)
    architecture: int = MIN_ARCHITECTURE  # the least that it needs
    of_model: bool = False  # compiled for one model's layers (tensor_cores.shade_options)
    of_kind: bool = False  # compiled for one kind of model (tensor_cores.kind_options)


_ROUND = (("scene", SceneStruct), ("wave", WaveStruct), ("round", int))
_REGION = (("x0", int), ("y0", int), ("x1", int), ("y1", int))
_SHADE = (("scene", SceneStruct), ("samples", FieldSamplesStruct), ("tiles", DevicePointer), ("n_tiles", DevicePointer))
_SURFACE = (
    ("surface", SurfaceObject), ("source", DevicePointer), ("components", int), ("width", int), ("height", int),
)  # fmt: skip
_RAYS = (("scene", SceneStruct), ("rays", RaysStruct), ("limit", int), ("counts", DevicePointer))
_TILES = (("scene", SceneStruct), ("samples", FieldSamplesStruct), ("tiles", DevicePointer))
_GRADIENTS = (*_TILES, ("first", int), ("last", int), ("scratch", DevicePointer))
_SEGMENTS = (("segments", SegmentsStruct), ("n_rays", int), ("rgba", DevicePointer))
_ADAM = (("adam", AdamStruct), *((name, DevicePointer) for name in ("rows", "rates", "roots", "used")), ("n", int))

KERNELS: dict[str, KernelSpec] = {
    "render_frame": KernelSpec(
        "render.cu",
        (("scene", SceneStruct), ("view", ViewStruct), ("out", BuffersStruct), *_REGION),
        (8, 8),
        of_kind=True,
    ),
    "fill_normals": KernelSpec("render.cu", (("view", ViewStruct), ("out", BuffersStruct), *_REGION), (32, 8)),
    "wave_begin": KernelSpec(
        "wave.cu", (("scene", SceneStruct), ("wave", WaveStruct), ("slice", SliceStruct)), of_kind=True
    ),
    "wave_rays": KernelSpec("wave.cu", _ROUND, of_kind=True),
    "wave_scan_rays": KernelSpec("wave.cu", _ROUND, (SCAN_THREADS, 1), of_kind=True),
    "wave_compact": KernelSpec("wave.cu", _ROUND, of_kind=True),
    "wave_march": KernelSpec("wave.cu", _ROUND, of_kind=True),
    "wave_scan_nodes": KernelSpec("wave.cu", _ROUND, (SCAN_THREADS, 1), of_kind=True),
    "wave_scatter": KernelSpec("wave.cu", _ROUND, of_kind=True),
    "wave_composite": KernelSpec("wave.cu", _ROUND, of_kind=True),
    "wave_finish": KernelSpec("wave.cu", _ROUND, of_kind=True),
    "shade_tiles": KernelSpec("shade.cu", _SHADE, of_kind=True),
    "shade_tiles_mma": KernelSpec("shade_mma.cu", _SHADE, (128, 1), of_model=True),
    "write_surface": KernelSpec("surface.cu", _SURFACE, (32, 8)),
    "train_march_count": KernelSpec("train.cu", _RAYS),
    "train_march": KernelSpec("train.cu", (*_RAYS, ("starts", DevicePointer), ("out", PackedStruct))),
    "train_field": KernelSpec("train.cu", (*_TILES, ("n", int))),
    "train_field_backward": KernelSpec("train.cu", _GRADIENTS),
    "train_weight_gradients": KernelSpec("train.cu", _GRADIENTS, (GRAD_THREADS, 1)),
    "train_composite": KernelSpec("train.cu", _SEGMENTS),
    "train_composite_backward": KernelSpec(
        "train.cu", (*_SEGMENTS, *((name, DevicePointer) for name in ("d_rgba", "d_sigma", "d_rgb")))
    ),
    "train_adam": KernelSpec("train.cu", _ADAM),
}

#: Kernels that shade tiles, the fastest first; all take the same arguments and compute the same, the first with halves.
SHADERS = ("shade_tiles_mma", "shade_tiles")


def shader_for(architecture: int, tensor_cores: bool = True) -> str:
    """The fastest shading kernel that a device of compute capability `architecture` / 10 runs; `tensor_cores`: whether
    they may be used."""
    runs = [name for name in SHADERS if KERNELS[name].architecture <= architecture]
    return runs[0] if tensor_cores else runs[-1]


def packed_arguments(name: str, arguments: Sequence[Any]) -> list[np.ndarray]:
    """Each argument as a numpy array of size one that holds its bytes: what CuPy passes to a kernel by value.

    Raises `LaunchError` if they are not what `KERNELS[name]` lists.
    """
    parameters = KERNELS[name].parameters
    if len(arguments) != len(parameters):
        wanted = ", ".join(parameter for parameter, _ in parameters)
        raise LaunchError(f"{name}: expected {len(parameters)} arguments ({wanted}), got {len(arguments)}")
    return [_packed(name, *parameter, value) for parameter, value in zip(parameters, arguments, strict=True)]


def _packed(kernel: str, parameter: str, kind: type, value: Any) -> np.ndarray:
    if type(value) is not kind:
        raise LaunchError(f"{kernel}: {parameter} must be {kind.__name__}, got {type(value).__name__}")
    if issubclass(kind, ctypes.Structure):
        return np.frombuffer(bytes(value), np.dtype((np.void, ctypes.sizeof(kind))))
    if issubclass(kind, DevicePointer):
        return np.array([value], np.uint64)
    if not -(2**31) <= value < 2**31:
        raise LaunchError(f"{kernel}: {parameter} must be an int of 32 bits, got {value}")
    return np.array([value], np.int32)


class KernelLoader:
    """Compiles files of `cuda/` when they are first needed. `cupy`: the module, or what stands for it in tests."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._modules: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._functions: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._options = (*OPTIONS, f"-I{CUDA_DIR}", f"-DINFNERF_SOURCE={source_hash(CUDA_DIR)}")

    def function(self, name: str, options: tuple[str, ...] = ()) -> Any:
        """The kernel as CuPy has it. Raises `GpuUnavailable` if its file does not compile here.

        `options`: of the compiler, for a kernel that is `of_model`.
        """
        if (name, options) not in self._functions:
            file = KERNELS[name].file
            module = self._modules.get((file, options))
            if module is None:
                source = (CUDA_DIR / file).read_text()
                module = self._cupy.RawModule(code=source, options=(*self._options, *options), backend="nvrtc")
                self._modules[file, options] = module
            try:
                self._functions[name, options] = module.get_function(name)
            except self._cupy.cuda.compiler.CompileException as error:
                first = next((line for line in str(error).splitlines() if "error" in line), str(error).strip())
                raise GpuUnavailable(f"the CUDA kernels of {file} do not compile here: {first}") from error
        return self._functions[name, options]

    def launch(
        self, name: str, grid: tuple[int, int], arguments: Sequence[Any], stream: Any, options: tuple[str, ...] = ()
    ) -> None:
        """Puts a kernel on a stream. Raises `LaunchError` for arguments that are not its own."""
        packed = packed_arguments(name, arguments)
        with stream:
            self.function(name, options)(grid, KERNELS[name].threads, packed)
