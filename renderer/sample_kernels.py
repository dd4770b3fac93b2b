"""Packed samples through the CPU kernels: marching, and the radiance field with its gradient.

Twins: `InfNeRF.march`, `InfNeRF.field`, `models.volume.composite`.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from ..models.infnerf import InfNeRF
from ..models.marching import MarchSettings, PackedSamples
from .kernels import (
    FieldSamplesStruct,
    Kernels,
    PackedStruct,
    RaysStruct,
    SceneArrays,
    SegmentsStruct,
    load_kernels,
    n_threads,
    pointer,
    run_parallel,
)

CHUNK = 1024  # rays a call: threads take turns on these


class FieldFunctions(ABC):
    """Field and compositing as differentiable functions on one float32 model's parameters, whichever kernels do it."""

    model: InfNeRF
    kernels: Any

    @abstractmethod
    def functions(self) -> tuple[type[torch.autograd.Function], type[torch.autograd.Function]]:
        """What computes the field, and what composites."""

    def field(
        self, samples: PackedSamples, directions: Tensor, appearance: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`sigmas` [n] and `rgb` [n, 3] of packed samples; gradients flow to the model's `tables` and `mlp`, and to
        `appearance`.

        `directions`: [n_rays, 3]. `appearance`: [n_rays, appearance_dim]; None: zeros.
        """
        model, (function, _) = self.model, self.functions()
        expected = model.config.appearance_dim
        if appearance is not None and appearance.shape[-1] != expected:
            raise ValueError(f"field: appearance must be [n_rays, {expected}], got {list(appearance.shape)}")
        return function.apply(model.tables, model.mlp, appearance, samples, directions, self)  # type: ignore[return-value]

    def gradients(self) -> tuple[Tensor, Tensor]:
        """`.grad` of tables and MLPs, which the kernels add to in place.

        Made once: clearing arrays of the whole model in every step would make a step cost what the tree holds.
        """
        for parameter in (self.model.tables, self.model.mlp):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        assert self.model.tables.grad is not None
        assert self.model.mlp.grad is not None
        return self.model.tables.grad, self.model.mlp.grad

    def composite(self, sigmas: Tensor, rgb: Tensor, samples: PackedSamples, n_rays: int, early_stop: float) -> Tensor:
        """Premultiplied RGBA [n_rays, 4] of packed samples; differentiable in `sigmas` and `rgb`.

        Twin: `models.volume.composite`.
        """
        _, function = self.functions()
        return function.apply(sigmas, rgb, samples, n_rays, early_stop, self.kernels)  # type: ignore[return-value]


class SampleKernels(FieldFunctions):
    """Marching and field of one float32 model whose parameters are updated in place. `plain`: without SIMD (tests)."""

    def __init__(self, model: InfNeRF, plain: bool = False) -> None:
        if model.tables.dtype != torch.float32 or model.mlp.dtype != torch.float32:
            raise ValueError(f"SampleKernels: parameters must be float32, got {model.tables.dtype}, {model.mlp.dtype}")
        if model.tables.device.type != "cpu":
            raise ValueError(f"SampleKernels: parameters must be on the host, got {model.tables.device}")
        self.kernels: Kernels = load_kernels()
        self.model, self.plain = model, int(plain)
        self.scene = SceneArrays(model, float_tables=True)

    def march(
        self,
        origins: Tensor,  # [n, 3] float32, root-local
        directions: Tensor,  # [n, 3] float32, unit
        cones: Tensor,  # [n] float32
        counters: Tensor,  # [n] int64
        settings: MarchSettings,
        limit: int = 1024,  # samples a ray
    ) -> PackedSamples:
        """As `InfNeRF.march`, in two passes: count, then write. Integers are int32."""
        n = len(cones)
        origins, directions = origins.contiguous(), directions.contiguous()
        cones = (cones * 2.0**-settings.lod_bias).contiguous()
        numbers = counters.int().contiguous()
        rays = RaysStruct(
            pointer(origins), pointer(directions), pointer(cones), pointer(numbers),
            n, settings.frame, settings.min_level, settings.max_level, settings.step_scale,
        )  # fmt: skip
        counts = torch.zeros(n, dtype=torch.int32)
        self._march(rays, limit, counts, None, None)
        ends = counts.cumsum(0, dtype=torch.int32)
        starts = ends - counts
        total = int(ends[-1]) if n else 0
        integers = torch.empty(4, total, dtype=torch.int32)
        t, dt, local = torch.empty(total), torch.empty(total), torch.empty(total, 3)
        ray_indices, node, level, wanted = integers.unbind(0)
        packed = PackedStruct(*[pointer(a) for a in (ray_indices, t, dt, local, node, level, wanted)])
        self._march(rays, limit, counts, starts, packed)
        return PackedSamples(ray_indices, t, dt, local, node, level, wanted)

    def _march(
        self, rays: RaysStruct, limit: int, counts: Tensor, starts: Tensor | None, packed: PackedStruct | None
    ) -> None:
        out = None if packed is None else ctypes.addressof(packed)
        run_parallel(
            self.kernels.library.march_rays,
            [
                (self.scene.address, ctypes.addressof(rays), first, min(first + CHUNK, rays.n), limit, pointer(counts),
                 pointer(starts), out, self.plain)
                for first in range(0, rays.n, CHUNK)
            ],
        )  # fmt: skip

    def functions(self) -> tuple[type[torch.autograd.Function], type[torch.autograd.Function]]:
        return _Field, _Composite


class _Call:
    """Arrays of one field call, bucketed by node, and the nodes dealt out to threads by their number of samples."""

    def __init__(
        self, owner: SampleKernels, samples: PackedSamples, directions: Tensor, appearance: Tensor | None
    ) -> None:
        n, n_nodes = len(samples), owner.model.octree.n_nodes
        self.owner = owner
        self.local, self.directions = samples.local.contiguous(), directions.contiguous()
        self.appearance = None if appearance is None else appearance.detach().contiguous()
        self.rays, self.node = samples.ray_indices.int(), samples.node.int()
        self.starts = torch.empty(n_nodes + 1, dtype=torch.int32)
        self.order = torch.empty(n, dtype=torch.int32)
        owner.kernels.library.bucket_by_node(pointer(self.node), n, n_nodes, pointer(self.starts), pointer(self.order))
        self.sigma: Tensor | None = torch.empty(n)
        self.rgb: Tensor | None = torch.empty(n, 3)

    def struct(self, **gradients: Tensor) -> FieldSamplesStruct:
        arrays: dict[str, Any] = {
            "local": self.local, "ray_indices": self.rays, "directions": self.directions,
            "appearance": self.appearance, "order": self.order, "starts": self.starts, "sigma": self.sigma,
            "rgb": self.rgb, **gradients,
        }  # fmt: skip
        return FieldSamplesStruct(**{name: pointer(array) for name, array in arrays.items()})

    def run(self, function: Any, struct: FieldSamplesStruct, *rest: int) -> None:
        shares = _deal(self.starts, n_threads())
        address = ctypes.addressof(struct)
        run_parallel(function, [(self.owner.scene.address, address, pointer(s), len(s), *rest) for s in shares])


def _deal(starts: Tensor, n: int) -> list[Tensor]:
    """Nodes that have samples, in `n` lists of about equal work: the largest first, each to the list with least."""
    counts = starts.diff()
    nodes = counts.argsort(descending=True)[: int((counts > 0).sum())]
    lists: list[list[int]] = [[] for _ in range(n)]
    loads = [0] * n
    for node, count in zip(nodes.tolist(), counts[nodes].tolist(), strict=True):
        i = loads.index(min(loads))
        lists[i].append(node)
        loads[i] += count
    return [torch.tensor(nodes, dtype=torch.int32) for nodes in lists if nodes]


class _Field(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tables: Tensor, mlp: Tensor, appearance: Tensor | None, samples: PackedSamples, directions: Tensor,
        owner: SampleKernels,
    ):  # fmt: skip
        call = _Call(owner, samples, directions, appearance)
        call.run(owner.kernels.library.field_forward, call.struct(), 0, owner.plain)
        sigma, rgb, call.sigma, call.rgb = call.sigma, call.rgb, None, None  # outputs kept on ctx would never be freed
        ctx.call = call
        return sigma, rgb

    @staticmethod
    def backward(ctx: Any, d_sigma: Tensor, d_rgb: Tensor):  # type: ignore[override]
        call: _Call = ctx.call
        owner = call.owner
        d_tables, d_mlp = owner.gradients()
        d_sigma, d_rgb = d_sigma.contiguous(), d_rgb.contiguous()
        gradients = {"d_sigma": d_sigma, "d_rgb": d_rgb, "d_tables": d_tables, "d_mlp": d_mlp}
        appearance = call.appearance if ctx.needs_input_grad[2] else None
        if appearance is not None:
            gradients["d_appearance"] = torch.zeros(len(d_sigma), appearance.shape[1])
        call.run(owner.kernels.library.field_backward, call.struct(**gradients), owner.plain)
        d_appearance = None
        if appearance is not None:
            d_appearance = torch.zeros_like(appearance).index_add_(0, call.rays, gradients["d_appearance"])
        return None, None, d_appearance, None, None, None  # tables' and mlp's are in .grad already


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sigmas: Tensor, rgb: Tensor, samples: PackedSamples, n_rays: int, early_stop: float, kernels: Kernels
    ):
        counts = torch.bincount(samples.ray_indices, minlength=n_rays)
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
        arrays = starts, sigmas.detach().contiguous(), samples.dt.contiguous(), rgb.detach().contiguous()
        struct = SegmentsStruct(*[pointer(a) for a in arrays], early_stop)
        rgba = torch.empty(n_rays, 4)
        _per_ray(kernels.library.composite_forward, struct, n_rays, rgba)
        ctx.arrays, ctx.struct, ctx.kernels = arrays, struct, kernels
        ctx.save_for_backward(rgba)
        return rgba

    @staticmethod
    def backward(ctx: Any, d_rgba: Tensor):  # type: ignore[override]
        (rgba,) = ctx.saved_tensors
        sigmas, rgb = ctx.arrays[1], ctx.arrays[3]
        d_rgba, d_sigma, d_rgb = d_rgba.contiguous(), torch.empty_like(sigmas), torch.empty_like(rgb)
        _per_ray(ctx.kernels.library.composite_backward, ctx.struct, len(d_rgba), rgba, d_rgba, d_sigma, d_rgb)
        return d_sigma, d_rgb, None, None, None, None


def _per_ray(function: Any, struct: SegmentsStruct, n_rays: int, *arrays: Tensor) -> None:
    pointers = [pointer(a) for a in arrays]
    address = ctypes.addressof(struct)
    run_parallel(function, [(address, i, min(i + CHUNK, n_rays), *pointers) for i in range(0, n_rays, CHUNK)])
