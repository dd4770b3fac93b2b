"""The kernel loader and the driver's checks, without a GPU: arguments, options, structs, what is said of what is
missing."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from cubins import OPTIONS, compile_cubin
from fake_cupy import CompileException, FakeCupy
from random_models import random_model, view_camera

from infnerf.renderer import gpu_buffers, gpu_driver, gpu_loader
from infnerf.renderer.cuda_executor import CudaExecutor
from infnerf.renderer.frame import FrameBuffers, RenderRequest
from infnerf.renderer.gpu_driver import Arena, GpuDriver, check_device, import_cupy
from infnerf.renderer.gpu_errors import GpuUnavailable, LaunchError
from infnerf.renderer.gpu_loader import KERNELS, DevicePointer, packed_arguments, shader_for
from infnerf.renderer.kernel_build import source_hash
from infnerf.renderer.kernels import CUDA_DIR, STRUCTS, BuffersStruct, SceneStruct, ViewStruct, WaveStruct
from infnerf.renderer.tensor_cores import shade_options


def test_arguments_are_the_bytes_of_what_the_kernel_takes() -> None:
    wave = WaveStruct(rays=5, counters=0x123456789)
    scene, wave_bytes, number = packed_arguments("wave_march", (SceneStruct(n_nodes=3), wave, -2))
    assert wave_bytes.tobytes() == bytes(wave)
    assert SceneStruct.from_buffer_copy(scene.tobytes()).n_nodes == 3
    assert (number.dtype, number.tolist()) == (np.int32, [-2])
    pointer = packed_arguments("shade_tiles", (SceneStruct(), gpu_loader.FieldSamplesStruct(), *POINTERS))[2]
    assert (pointer.dtype, pointer.tolist()) == (np.uint64, [2**40])
    assert {array.size for array in (scene, wave_bytes, number, pointer)} == {1}  # so CuPy passes them by value


POINTERS = DevicePointer(2**40), DevicePointer(1)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("wave_march", (SceneStruct(), WaveStruct()), r"march: expected 3 arguments \(scene, wave, round\), got 2"),
        ("wave_march", (SceneStruct(), ViewStruct(), 0), "wave_march: wave must be WaveStruct, got ViewStruct"),
        ("wave_march", (SceneStruct(), WaveStruct(), 1.5), "wave_march: round must be int, got float"),
        ("wave_march", (SceneStruct(), WaveStruct(), 2**31), "round must be an int of 32 bits, got 2147483648"),
        ("fill_normals", (ViewStruct(), BuffersStruct(), 0, 0, 1, True), "fill_normals: y1 must be int, got bool"),
        ("shade_tiles", (SceneStruct(), gpu_loader.FieldSamplesStruct(), 5, POINTERS[0]),
         "shade_tiles: tiles must be DevicePointer, got int"),
    ],
)  # fmt: skip
def test_a_wrong_launch_names_kernel_argument_expected_and_got(name: str, arguments: Any, message: str) -> None:
    driver = GpuDriver(FakeCupy())
    with pytest.raises(LaunchError, match=message):
        driver.launch(name, (1, 1), *arguments)


def test_every_entry_point_of_the_table_is_in_its_file_with_its_parameters() -> None:
    structs = "Scene", "View", "Buffers", "Wave", "Slice", "FieldSamples", "Rays", "Packed", "Segments"
    names = {f"{name}Struct": name for name in structs} | {"AdamStruct": "AdamRows"}
    names |= {"int": "int", "DevicePointer": r"(?:const )?(?:int|float) \*", "SurfaceObject": "u64"}
    for name, spec in KERNELS.items():
        source = (CUDA_DIR / spec.file).read_text()
        if re.search(rf"^(MODEL_)?KERNEL\({name}, (SCAN_)?THREADS(, 1)?\)", source, re.M):
            name = "NAME"
        parameters = ", ".join(rf"{names[kind.__name__]} ?{parameter}" for parameter, kind in spec.parameters)
        assert re.search(rf"\b{name}\({parameters}\)", source), name


def test_python_and_cuda_agree_on_sizes_and_constants() -> None:
    """NVRTC checks what it will lay out on the device; the CPU build checks itself when it loads."""
    sizes = {
        "Scene": 0, "View": 1, "Buffers": 2, "Rays": 3, "Packed": 4, "FieldSamples": 5, "Segments": 6, "AdamRows": 7,
        "Slice": 8, "Wave": 9,
    }  # fmt: skip
    lines = [f"static_assert(sizeof({name}) == {ctypes.sizeof(STRUCTS[i])});" for name, i in sizes.items()]
    constants = {
        "THREADS": gpu_loader.THREADS, "SCAN_THREADS": gpu_loader.SCAN_THREADS, "CHUNK": gpu_buffers.CHUNK,
        "TILE_SAMPLES": gpu_buffers.TILE_SAMPLES, "MAX_ROUNDS": gpu_buffers.MAX_ROUNDS, "N_SUMS": gpu_buffers.N_SUMS,
        "ROUNDS_USED": gpu_buffers.ROUNDS_USED, "RAYS_LEFT": gpu_buffers.RAYS_LEFT,
        "GRAD_SAMPLES": gpu_loader.GRAD_SAMPLES, "GRAD_THREADS": gpu_loader.GRAD_THREADS,
        "RAY_TILE_W": gpu_buffers.RAY_TILE[0], "RAY_TILE_H": gpu_buffers.RAY_TILE[1],
    }  # fmt: skip
    lines += [f"static_assert({name} == {value});" for name, value in constants.items()]
    source = '#include "train.cuh"\n#include "wave.cuh"\nusing namespace infnerf;\n' + "\n".join(lines)
    compile_cubin(source, "sizes.cu", "sm_80")
    with pytest.raises(RuntimeError, match="static assertion failed"):
        compile_cubin(source.replace("MAX_ROUNDS ==", "1 + MAX_ROUNDS =="), "sizes.cu", "sm_80")


def test_an_edited_header_means_another_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr(FakeCupy, "RawModule", lambda self, code, options, backend: seen.append(options))
    loader = gpu_loader.KernelLoader(FakeCupy())
    with pytest.raises(AttributeError):
        loader.function("wave_march")
    assert f"-DINFNERF_SOURCE={source_hash(CUDA_DIR)}" in seen[0]
    assert set(gpu_loader.OPTIONS) <= set(OPTIONS)  # what tests compile is what runs


def test_kernels_that_do_not_compile_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise CompileException("log of\nwave.cuh(7): error: undeclared_name\nmore")

    cupy = FakeCupy()
    monkeypatch.setattr(cupy, "_function", refuse)
    with pytest.raises(GpuUnavailable, match=r"wave.cu do not compile here: wave.cuh\(7\): error: undeclared_name"):
        GpuDriver(cupy).launch("wave_march", (1, 1), SceneStruct(), WaveStruct(), 0)


def test_a_file_is_compiled_once_and_only_when_needed() -> None:
    cupy = FakeCupy()
    driver = GpuDriver(cupy)
    assert "get_function" not in cupy.calls
    loader = driver._loader
    assert loader.function("wave_march") is loader.function("wave_march")
    loader.function("wave_finish")
    assert len(loader._modules) == 1


def broken_nvrtc(cupy: FakeCupy) -> None:
    def missing() -> None:
        raise OSError("libnvrtc.so.13: cannot open shared object file")

    cupy.cuda.nvrtc.getVersion = missing


@pytest.mark.parametrize(
    ("change", "device", "message"),
    [
        ({"driver_version": 0}, 0, "no NVIDIA driver answers: install it from nvidia.com/drivers"),
        ({"driver_version": 12040}, 0, "the NVIDIA driver speaks CUDA 12.4 and CuPy needs 13.2: update the driver"),
        ({"devices": 0}, 0, r"no CUDA device answers \(cudaError100: made up\): look at nvidia-smi"),
        ({}, 3, "CUDA shows 1 devices, not number 3: look at CUDA_VISIBLE_DEVICES"),
        ({"capability": "61"}, 0, "the GPU has compute capability 6.1, the kernels need 7.5"),
        (broken_nvrtc, 0, r"NVRTC, the compiler of kernels, does not load: pip install 'infnerf-view\[cuda\]'"),
    ],
)
def test_what_is_missing_and_what_mends_it(change: Any, device: int, message: str) -> None:
    cupy = FakeCupy()
    check_device(cupy)
    if callable(change):
        change(cupy)
    else:
        cupy.__dict__.update(change)
    with pytest.raises(GpuUnavailable, match=message):
        check_device(cupy, device)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("no", name="cupy"), r"^CuPy is missing: pip install 'infnerf-view\[cuda\]'$"),
        (ModuleNotFoundError("no", name="fastrlock"), "CuPy lacks the module fastrlock: pip install"),
        (ImportError("libcudart.so: cannot open\nmuch more"), r"CuPy does not load \(libcudart.so: cannot open\): pip"),
    ],
)
def test_cupy_that_is_missing_or_broken(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(gpu_driver.importlib, "import_module", fail)
    with pytest.raises(GpuUnavailable, match=message):
        import_cupy()


def test_importing_the_executor_needs_neither_cupy_nor_a_gpu() -> None:
    code = (
        "import sys; sys.modules['cupy'] = None; sys.modules['cuda'] = None\n"
        "from infnerf.renderer.cuda_executor import CudaExecutor\n"
        "import infnerf.renderer.executors\n"
        "from infnerf.renderer.gpu_driver import gpu_problem; print(gpu_problem())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pip install 'infnerf-view[cuda]'" in done.stdout


def test_memory_is_cut_into_aligned_parts_that_do_not_overlap() -> None:
    cupy = FakeCupy()
    driver = GpuDriver(cupy)
    arena = Arena(driver, [("a", 1), ("b", 100), ("c", 0), ("d", 64)])
    offsets = [address - arena.memory.address for address in arena.address.values()]
    assert offsets == [0, 256, 768, 768]
    assert cupy.used == 1024
    arena.free()
    assert cupy.used == 0


def test_a_tensor_goes_to_the_device_whole() -> None:
    driver = GpuDriver(FakeCupy())
    tensor = torch.arange(12, dtype=torch.int32).reshape(3, 4).T  # not contiguous
    address, owner = driver.on_device(tensor)
    assert owner is not None
    np.testing.assert_array_equal(driver.array(address, (4, 3), np.int32, owner), tensor.numpy())
    driver.fill(address, 0xFF, 4)
    assert driver.array(address, (12,), np.int32, owner)[0] == -1


def test_host_memory_without_page_locking_does_too() -> None:
    cupy = FakeCupy()
    driver = GpuDriver(cupy)
    cupy.fail_on = "alloc_pinned_memory"
    assert driver.pinned(7).shape == (7,)


def test_the_fastest_shader_that_the_device_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shader_for(75) == "shade_tiles_mma"
    fast = gpu_loader.KernelSpec("shade.cu", KERNELS["shade_tiles"].parameters, architecture=90)
    monkeypatch.setitem(gpu_loader.KERNELS, "shade_tiles_mma", fast)
    assert [shader_for(architecture) for architecture in (80, 90, 120)] == [
        "shade_tiles",
        "shade_tiles_mma",
        "shade_tiles_mma",
    ]


def test_shading_on_tensor_cores_is_compiled_for_the_model() -> None:
    cupy = FakeCupy()
    loader = gpu_loader.KernelLoader(cupy)
    small, large = ("-DSHADE_HIDDEN=16",), ("-DSHADE_HIDDEN=64",)
    loader.function("shade_tiles_mma", small)
    loader.function("shade_tiles_mma", large)
    assert loader.function("shade_tiles_mma", small) is loader.function("shade_tiles_mma", small)
    assert [options[-1:] for options in cupy.compiled] == [small, large]
    executor = CudaExecutor(random_model(0), driver=GpuDriver(cupy))
    executor.render(RenderRequest(view_camera(8, 4)), FrameBuffers.allocate(8, 4))
    assert shade_options(executor.model.config) in [options[-3:] for options in cupy.compiled]
