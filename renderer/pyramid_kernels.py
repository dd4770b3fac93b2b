"""Packed samples of a PyNeRF through the CPU kernels: marching, hash grids and compositing, with their gradients.

The MLPs are matrix products of whole heads' samples, which torch does at the machine's speed. Twins: `PyNeRF.march`,
`PyNeRF.encode`, `models.volume.composite`.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..models.marching import MarchSettings, PackedSamples
from ..models.pynerf import PyNeRF
from .kernels import pointer, run_parallel
from .sample_kernels import CHUNK, SampleKernels


class PyramidKernels(SampleKernels):
    """Marching, field and compositing of one float32 PyNeRF whose parameters are updated in place."""

    def __init__(self, model: PyNeRF, plain: bool = False) -> None:
        super().__init__(model, plain)  # type: ignore[arg-type]  # what it needs of a model, a PyNeRF has too
        self.pyramid = model

    def march(
        self, origins: Tensor, directions: Tensor, cones: Tensor, counters: Tensor, settings: MarchSettings,
        limit: int = 1024,
    ) -> PackedSamples:  # fmt: skip
        """As `PyNeRF.march`, at levels that need not have been trained yet."""
        samples = super().march(origins, directions, cones, counters, settings, limit)
        return replace(samples, level=samples.level.view(torch.float32), wanted=samples.wanted.view(torch.float32))

    def field(
        self, samples: PackedSamples, directions: Tensor, appearance: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`sigmas` [n] and `rgb` [n, 3] of packed samples, with gradients to the model's parameters.

        `directions`: [n_rays, 3]. A PyNeRF has no `appearance`.
        """
        if appearance is not None:
            raise ValueError("PyramidKernels.field: a PyNeRF has no appearance, got one")
        return self.pyramid.answer(samples, directions[samples.ray_indices.long()], self.encode)

    def encode(self, head: int, local: Tensor) -> Tensor:
        """As `PyNeRF.encode`."""
        return _Encode.apply(self.pyramid.tables, local, head, self)  # type: ignore[return-value]


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tables: Tensor, local: Tensor, head: int, owner: PyramidKernels) -> Tensor:
        config, local = owner.pyramid.config, local.contiguous()
        n = len(local)
        features = torch.empty(n, config.grid_counts[head] * config.features_per_level)
        call = functools.partial(owner.kernels.library.encode_head_forward, owner.scene.address, head, pointer(local))
        ends = [(first, min(first + CHUNK, n)) for first in range(0, n, CHUNK)]
        run_parallel(call, [(*end, pointer(features), owner.plain) for end in ends])
        ctx.local, ctx.head, ctx.owner = local, head, owner
        return features

    @staticmethod
    def backward(ctx: Any, d_features: Tensor):  # type: ignore[override]
        owner, head, d_features = ctx.owner, ctx.head, d_features.contiguous()
        d_tables, _ = owner.gradients()
        arrays = pointer(ctx.local), pointer(d_features), len(ctx.local), pointer(d_tables), owner.plain
        grids = reversed(range(owner.pyramid.config.grid_counts[head]))  # the finest take longest
        run_parallel(
            owner.kernels.library.encode_head_backward, [(owner.scene.address, head, grid, *arrays) for grid in grids]
        )
        return None, None, None, None  # the tables' are in .grad already
