"""Kernels of `cuda/` on torch's tensors, without a copy: put on the stream that torch itself works on.

CuPy and torch share a device's primary context, so an address of torch's is good for a kernel of CuPy's; and on one
stream nothing has to wait, and torch's allocator may give memory out again when Python lets go of it.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from .gpu_driver import GpuDriver
from .gpu_errors import LaunchError
from .gpu_loader import KERNELS, DevicePointer
from .kernels import AdamStruct, pointer

ADAM_BLOCKS, ADAM_ROWS = 64, 65535  # at most: blocks that share a row, and rows at once (what a grid may have in y)


class TorchLauncher:
    """Launches kernels on one device. Raises `GpuUnavailable` if there is none that can be used."""

    def __init__(self, driver: GpuDriver, device: torch.device) -> None:
        """`device`: what torch calls the driver's."""
        self.driver, self.device = driver, device

    def launch(self, name: str, grid: int | tuple[int, int], *arguments: Any) -> None:
        """Puts a kernel of `gpu_loader.KERNELS` on torch's stream; tensors (or None) stand for what they point to.

        Nothing is launched for a grid without blocks. Raises `LaunchError` for a tensor elsewhere, and for arguments
        that are not the kernel's own.
        """
        shape = (grid, 1) if isinstance(grid, int) else grid
        if 0 in shape:
            return
        packed = [self._packed(name, argument) for argument in arguments]
        self.driver.launch(name, shape, *packed, stream=self.driver.torch_stream())

    def blocks(self, name: str, threads: int) -> int:
        """Blocks of a kernel that give it so many threads."""
        return -(-threads // KERNELS[name].threads[0])

    def adam_rows(self, rows: AdamStruct, numbers: Tensor, rates: Tensor, roots: Tensor, used: Tensor) -> None:
        """As `Kernels.adam_rows`, on the device."""
        n = len(numbers)
        grid = min(self.blocks("train_adam", rows.block), ADAM_BLOCKS), min(n, ADAM_ROWS)
        self.launch("train_adam", grid, rows, numbers, rates, roots, used, n)

    def _packed(self, name: str, value: Any) -> Any:
        if isinstance(value, Tensor) and value.device != self.device:
            raise LaunchError(f"{name}: tensors must be on {self.device}, got one on {value.device}")
        return DevicePointer(pointer(value) or 0) if value is None or isinstance(value, Tensor) else value

    def describe(self) -> str:
        return f"cuda: {self.driver.describe()}"


@functools.cache
def torch_launcher(device: int) -> TorchLauncher:
    """The launcher of CUDA device number `device`. Raises `GpuUnavailable`."""
    with torch.cuda.device(device):  # torch makes the context that CuPy then joins
        return TorchLauncher(GpuDriver(device=device), torch.device("cuda", device))
