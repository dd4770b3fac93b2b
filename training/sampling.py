"""Where the trainer gets samples and field values: the CPU kernels, or torch alone where there are none."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..models.infnerf import InfNeRF
from ..models.marching import MarchSettings, PackedSamples
from ..models.volume import composite
from ..renderer.kernels import Kernels, KernelsUnavailable
from ..renderer.sample_kernels import SampleKernels

MAX_SAMPLES_PER_RAY = 768
MIN_TRANSMITTANCE = 1e-4  # samples that less light reaches get no gradient


def samples_at(model: InfNeRF, node: Tensor, local: Tensor) -> PackedSamples:
    """Samples of no length at grid positions `local` [n, 3] of nodes `node` [n], each on a ray of its own."""
    zeros, level = torch.zeros(len(node)), model.octree.level.long()[node]
    return PackedSamples(torch.arange(len(node)), zeros, zeros, local, node, level, level)


def random_directions(n: int, generator: torch.Generator) -> Tensor:
    """Unit vectors [n, 3], uniform over the sphere."""
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)


class Sampling(Protocol):
    """Marches rays and evaluates the field at packed samples, with gradients to the model's parameters."""

    @property
    def kernels(self) -> Kernels | None:
        """That it runs on; None: torch alone."""
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
    """The torch twin of `SampleKernels`."""

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
        return self.model.field(samples.node, samples.local, directions[samples.ray_indices], own)

    def composite(self, sigmas: Tensor, rgb: Tensor, samples: PackedSamples, n_rays: int, early_stop: float) -> Tensor:
        return composite(sigmas, rgb, samples.dt, samples.ray_indices, n_rays, early_stop)


def make_sampling(model: InfNeRF) -> tuple[Sampling, str]:
    """The fastest that this machine has, and one phrase that says which."""
    try:
        kernels = SampleKernels(model)
    except KernelsUnavailable as error:
        return TorchSampling(model), f"torch only ({error})"
    return kernels, kernels.kernels.describe()
