"""The field on tensor cores, on a GPU: first that hardware deals fragments out as `cuda/warp.cuh` says, then tiles
against the portable field of the CPU. Without a GPU the same code runs in test_mma.py, on an emulated warp.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
import torch
from field_cases import CONFIGS, LOGIT, RGB, FieldCase
from warp_layout import PROBES, fragments, hard_numbers, random_matrices

from infnerf.renderer.kernel_build import source_hash
from infnerf.renderer.kernels import CUDA_DIR, FieldSamplesStruct, SceneStruct
from infnerf.renderer.tensor_cores import shade_options

GUARD = 64  # numbers behind each output, which must stay as they are
SHAPES = ((1, 32), (3, 64), (2, 128), (500, 256))  # blocks, threads of each


def kernel(source: str, name: str, *options: str) -> Any:
    """A kernel as a function of (grid, block, arguments)."""
    import cupy

    options = ("--std=c++17", f"-I{CUDA_DIR}", f"-DINFNERF_SOURCE={source_hash(CUDA_DIR)}", *options)
    return cupy.RawModule(code=source, options=options, backend="nvrtc").get_function(name)


def by_value(struct: ctypes.Structure) -> np.ndarray:
    """A struct as CuPy passes it to a kernel."""
    return np.frombuffer(bytes(struct), np.dtype((np.void, ctypes.sizeof(struct))))


def shade_on_device(case: FieldCase, function: Any, blocks: int, threads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """sigma [n] and rgb [n, 3]. The outputs start as NaN, and so must what lies behind them end."""
    import cupy

    scene = SceneStruct.from_buffer_copy(case.scene.struct)
    names = "children", "level", "occupancy", "tables", "mlp"
    kept = {name: cupy.asarray(getattr(case.scene, name).numpy()) for name in names}
    for name, array in kept.items():
        setattr(scene, name, array.data.ptr)
    arrays = {name: cupy.asarray(tensor.numpy()) for name, tensor in case.arrays.items()}
    n = len(case.arrays["sigma"])
    arrays["sigma"], arrays["rgb"] = cupy.full(n + GUARD, np.nan, "f4"), cupy.full(3 * n + GUARD, np.nan, "f4")
    tiles, n_tiles = arrays.pop("tiles"), cupy.asarray(np.array([len(case.arrays["tiles"])], np.int32))
    samples = FieldSamplesStruct(**{name: array.data.ptr for name, array in arrays.items()})
    function((blocks,), (threads,), (by_value(scene), by_value(samples), tiles, n_tiles))
    sigma, rgb = torch.from_numpy(arrays["sigma"].get()), torch.from_numpy(arrays["rgb"].get())
    assert sigma[n:].isnan().all()
    assert rgb[3 * n :].isnan().all()
    return sigma[:n], rgb[: 3 * n].view(n, 3)


@pytest.mark.gpu
def test_the_hardware_deals_fragments_out_as_we_read_it() -> None:
    """Where this fails no other result of the tensor cores means anything."""
    import cupy

    a, b, c = random_matrices()
    words_a, words_b, sums = map(cupy.asarray, fragments(a, b, c))
    kernel(PROBES, "probe_mma")((1,), (32,), (words_a, words_b, sums))
    np.testing.assert_array_equal(sums.get(), fragments(a, b, c + a @ b)[2])


@pytest.mark.gpu
def test_the_hardware_rounds_halves_as_ieee_says() -> None:
    import cupy

    every = np.concatenate([hard_numbers(), np.array([1e6, -3e38], np.float32)])
    expected = np.clip(every, -65504, 65504).astype(np.float16)
    packed, unpacked = cupy.zeros(len(every), "u4"), cupy.full((len(every), 2), np.nan, "f4")
    arguments = cupy.asarray(every), cupy.asarray(-every), np.int32(len(every)), packed, unpacked
    kernel(PROBES, "probe_pack")((1,), (32,), arguments)
    bits = packed.get()
    np.testing.assert_array_equal((bits & 0xFFFF).astype(np.uint16), expected.view(np.uint16))
    np.testing.assert_array_equal((bits >> 16).astype(np.uint16), (-expected).view(np.uint16))
    np.testing.assert_array_equal(unpacked.get()[:, 0], expected.astype(np.float32))
    np.testing.assert_array_equal(unpacked.get()[:, 1], -expected.astype(np.float32))


@pytest.mark.gpu
@pytest.mark.parametrize("own_shape", [True, False])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_tiles_are_the_portable_fields(config: dict[str, Any], own_shape: bool) -> None:
    """Compiled for the model and for every model, in launches with idle warps, with long runs and with room left."""
    case = FieldCase.random(config)
    options = shade_options(case.model.config) if own_shape else ()
    function = kernel((CUDA_DIR / "shade_mma.cu").read_text(), "shade_tiles_mma", *options)
    for blocks, threads in SHAPES:
        logit, rgb = case.errors(*shade_on_device(case, function, blocks, threads))
        assert logit < LOGIT, (blocks, threads)
        assert rgb < RGB, (blocks, threads)


@pytest.mark.gpu
def test_many_tiles_come_out_the_same_every_time() -> None:
    """Weights are staged in shared memory between warps' steps: a missing barrier shows as a result that changes."""
    case = FieldCase.random({}, counts=(5000, 33, 700, 1, 31, 12000, 64))
    function = kernel((CUDA_DIR / "shade_mma.cu").read_text(), "shade_tiles_mma", *shade_options(case.model.config))
    sigma, rgb = shade_on_device(case, function, 7, 128)
    logit_error, rgb_error = case.errors(sigma, rgb)
    assert logit_error < LOGIT
    assert rgb_error < RGB
    for blocks, threads in ((7, 128), (1, 32), (264, 128)):
        again = shade_on_device(case, function, blocks, threads)
        assert torch.equal(sigma, again[0])
        assert torch.equal(rgb, again[1])
