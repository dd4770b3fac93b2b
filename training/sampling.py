"""Where the trainer gets samples and field values: the kernels of the model's device, or torch alone where it has none.

Parameters, rays, samples and occupancy lie on the model's device. The tree, and what is counted for each of its nodes,
stay on the host, and so do generators (but that of occupancy): a run draws the same rays on every device.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..models.infnerf import InfNeRF
from ..models.marching import MarchSettings, PackedSamples
from ..models.volume import composite
from ..renderer.cuda_samples import CudaSampleKernels
from ..renderer.gpu_errors import GpuUnavailable
from ..renderer.kernels import KernelsUnavailable, RowKernels
from ..renderer.sample_kernels import SampleKernels

MAX_SAMPLES_PER_RAY = 768
MIN_TRANSMITTANCE = 1e-4  # samples that less light reaches get no gradient


def samples_at(model: InfNeRF, node: Tensor, local: Tensor) -> PackedSamples:
    """Samples of no length at grid positions `local` [n, 3] of nodes `node` [n], each on a ray of its own; on the
    model's device. `node` lies on the host."""
    device = model.tables.device
    level, node = model.octree.level.long()[node].to(device), node.to(device)
    zeros = torch.zeros(len(node), device=device)
    return PackedSamples(torch.arange(len(node), device=device), zeros, zeros, local.to(device), node, level, level)


def random_directions(n: int, generator: torch.Generator) -> Tensor:
    """Unit vectors [n, 3], uniform over the sphere."""
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)


class Sampling(Protocol):
    """Marches rays and evaluates the field at packed samples, with gradients to the model's parameters."""

    @property
    def kernels(self) -> RowKernels | None:
        """What the optimiser steps with; None: torch alone."""
        ...

    def march(
        self, origins: Tensor, directions: Tensor, cones: Tensor, counters: Tensor, settings: MarchSettings, limit: int
    ) -> PackedSamples: ...

    def field(
        self, samples: PackedSamples, directions: Tensor, appearance: Tensor | None = None
    ) -> tuple[Tensor, Tensor]: ...

    def composite(
        self, sigmas: Tensor, rgb: Tensor, samples: PackedSamples, n_rays: int, early_stop: float
    ) -> Tensor: ...


class TorchSampling:
    """The torch twin of `SampleKernels` and `CudaSampleKernels`."""

    def __init__(self, model: InfNeRF) -> None:
        self.model = model
        self.kernels = None

    def march(
        self, origins: Tensor, directions: Tensor, cones: Tensor, counters: Tensor, settings: MarchSettings, limit: int
    ) -> PackedSamples:
        return self.model.march(origins, directions, cones, counters, settings)

    def field(
        self, samples: PackedSamples, directions: Tensor, appearance: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        own = None if appearance is None else appearance[samples.ray_indices]
        directions = directions.to(samples.local.device)
        return self.model.field(samples.node, samples.local, directions[samples.ray_indices], own)

    def composite(self, sigmas: Tensor, rgb: Tensor, samples: PackedSamples, n_rays: int, early_stop: float) -> Tensor:
        return composite(sigmas, rgb, samples.dt, samples.ray_indices, n_rays, early_stop)


def make_sampling(model: InfNeRF) -> tuple[Sampling, str]:
    """The fastest that the model's device has, and one phrase that says which. Raises `GpuError` where a GPU fails."""
    try:
        on_gpu = gpu_kernels(model)
        if on_gpu is not None:
            return on_gpu, on_gpu.kernels.describe()
        kernels = SampleKernels(model)
    except (GpuUnavailable, KernelsUnavailable) as error:
        return TorchSampling(model), f"torch only ({error})"
    return kernels, kernels.kernels.describe()


def gpu_kernels(model: InfNeRF) -> CudaSampleKernels | None:
    """None for a model on the host. Raises `GpuUnavailable`."""
    return CudaSampleKernels(model) if model.tables.is_cuda else None
