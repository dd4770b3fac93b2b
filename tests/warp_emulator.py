"""`cuda/cpu_warp.cpp`, the emulated warp, built and called."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import torch
from field_cases import FieldCase

from infnerf.renderer import kernel_build
from infnerf.renderer.kernels import pointer
from infnerf.renderer.tensor_cores import shade_shape

GENERAL = (32, 64, 32)  # the shape that holds every model
ENTRY = "cpu_warp.cpp"


def build_emulator(cuda_dir: Path, folder: Path) -> Path:
    """The library of the emulation, built from the sources in `cuda_dir` into `folder`."""
    variant = kernel_build.cpu_variants()[0]
    return kernel_build.build(kernel_build.compilers()[0], variant, cuda_dir, folder / "warp.so", entry=ENTRY)


class Emulator:
    """A library that `build_emulator` made."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.emulated_pack.argtypes = [ctypes.c_float, ctypes.c_float]
        self.library.emulated_pack.restype = ctypes.c_uint32
        self.library.emulated_mma.argtypes = [ctypes.c_void_p] * 3
        self.library.emulated_shade_tiles.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int] * 5

    def pack(self, low: float, high: float) -> int:
        return self.library.emulated_pack(low, high)

    def mma(self, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        """Words `a` [4, 32] and `b` [2, 32] uint32, sums `c` [4, 32] float32 as lanes hold them -> c + the product."""
        a, b, c = np.ascontiguousarray(a), np.ascontiguousarray(b), np.array(c, np.float32)
        assert (a.shape, b.shape, c.shape) == ((4, 32), (2, 32), (4, 32))
        assert a.dtype == b.dtype == np.uint32
        self.library.emulated_mma(pointer(a), pointer(b), pointer(c))
        return c

    def shade(
        self, case: FieldCase, shape: tuple[int, int, int] | None = None, warps: int = 3
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """sigma [n] and rgb [n, 3] of the tiles' samples, NaN where nothing was written."""
        sigma, rgb, tiles = case.arrays["sigma"].clone(), case.arrays["rgb"].clone(), case.arrays["tiles"]
        struct = case.struct(sigma, rgb)
        status = self.library.emulated_shade_tiles(
            case.scene.address, ctypes.addressof(struct), pointer(tiles), len(tiles), warps,
            *(shape or shade_shape(case.model.config)),
        )  # fmt: skip
        if status != 1:
            raise ValueError(f"emulated_shade_tiles: shape {shape} is {'too small' if status == 0 else 'unknown'}")
        return sigma, rgb
