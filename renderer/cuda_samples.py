"""Packed samples through the CUDA kernels: what `SampleKernels` does, on a model whose parameters lie on a GPU.

Twins: `SampleKernels`, `TorchSampling`. Samples are sorted by node and cut into tiles on the device; the host waits for
it once a march, to learn how many samples there are. Gradients of tables and MLPs are sums by atomics, whose order, and
so whose last bits, differ from run to run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..models.infnerf import InfNeRF
from ..models.marching import MarchSettings, PackedSamples
from .gpu_loader import GRAD_SAMPLES
from .kernels import FieldSamplesStruct, PackedStruct, RaysStruct, SceneArrays, SegmentsStruct, pointer
from .sample_kernels import FieldFunctions
from .torch_launch import TorchLauncher, torch_launcher

TILES_AT_ONCE = 2048  # of GRAD_SAMPLES, in a backward pass: bounds what it keeps of them, about 100 MB


class CudaSampleKernels(FieldFunctions):
    """Marching and field of one float32 model whose parameters are updated in place, on their device."""

    def __init__(self, model: InfNeRF, launcher: TorchLauncher | None = None) -> None:
        """`launcher`: None for the one of the parameters' device. Raises `GpuError` where that can't be used."""
        if model.tables.dtype != torch.float32 or model.mlp.dtype != torch.float32:
            raise ValueError(
                f"CudaSampleKernels: parameters must be float32, got {model.tables.dtype}, {model.mlp.dtype}"
            )
        self.device = model.tables.device
        if launcher is None and self.device.type != "cuda":
            raise ValueError(f"CudaSampleKernels: parameters must be on a CUDA device, got {self.device}")
        self.kernels = torch_launcher(self.device.index or 0) if launcher is None else launcher
        self.model = model
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
        """As `InfNeRF.march`, in two passes: count, then write. Integers are int32. Rays may lie on the host."""
        n, device = len(cones), self.device
        arrays = origins, directions, cones * 2.0**-settings.lod_bias, counters.int()
        arrays = tuple(to_device(array, device).contiguous() for array in arrays)
        rays = RaysStruct(
            *map(pointer, arrays), n, settings.frame, settings.min_level, settings.max_level, settings.step_scale
        )
        counts = torch.zeros(n, dtype=torch.int32, device=device)
        blocks = self.kernels.blocks("train_march", n)
        self.kernels.launch("train_march_count", blocks, self.scene.struct, rays, limit, counts)
        ends = counts.cumsum(0, dtype=torch.int32)
        starts = ends - counts
        total = int(ends[-1]) if n else 0
        ray_indices, node, level, wanted = torch.empty(4, total, dtype=torch.int32, device=device).unbind(0)
        t, dt = torch.empty(2, total, device=device).unbind(0)
        local = torch.empty(total, 3, device=device)
        packed = PackedStruct(*map(pointer, (ray_indices, t, dt, local, node, level, wanted)))
        self.kernels.launch("train_march", blocks, self.scene.struct, rays, limit, counts, starts, packed)
        return PackedSamples(ray_indices, t, dt, local, node, level, wanted)

    def functions(self) -> tuple[type[torch.autograd.Function], type[torch.autograd.Function]]:
        return _Field, _Composite


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; from the host by way of page-locked memory, without waiting for the copy."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.contiguous().pin_memory()
    return tensor.to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class Buckets:
    """Samples by node, in tiles of GRAD_SAMPLES of one node."""

    order: Tensor  # [n] int32, sample numbers
    starts: Tensor  # [n_nodes + 1] int32 into order
    tiles: Tensor  # [n_tiles, 2] int32 node, first position in order; those behind their node's samples are empty

    @classmethod
    def of(cls, node: Tensor, n_nodes: int) -> Buckets:
        """`node` [n]; samples of node `n_nodes` are left out. Nothing here waits for the device.

        >>> buckets = Buckets.of(torch.tensor([1, 0, 1]), 2)
        >>> buckets.order.tolist(), buckets.starts.tolist(), buckets.tiles.tolist()
        ([1, 0, 2], [0, 1, 3], [[0, 0], [1, 1]])
        """
        n = len(node)
        sorted_node, order = node.int().sort(stable=True)
        numbers = torch.arange(n_nodes + 1, dtype=torch.int32, device=node.device)
        starts = torch.searchsorted(sorted_node, numbers)
        n_tiles = (starts.diff() + GRAD_SAMPLES - 1) // GRAD_SAMPLES
        ends = n_tiles.cumsum(0)
        tile = torch.arange(n // GRAD_SAMPLES + min(n, n_nodes), device=node.device)  # as many as there may be
        owner = torch.searchsorted(ends, tile, right=True).clamp(max=n_nodes - 1)
        first = starts[owner] + (tile - (ends - n_tiles)[owner]) * GRAD_SAMPLES
        return cls(order.int(), starts.int(), torch.stack([owner, first], 1).int())


class _Call:
    """Arrays of one field call."""

    def __init__(
        self, owner: CudaSampleKernels, samples: PackedSamples, directions: Tensor, appearance: Tensor | None
    ) -> None:
        device = owner.device
        self.owner, self.n = owner, len(samples)
        self.local = samples.local.to(device).contiguous()
        self.directions = directions.to(device).contiguous()
        self.appearance = None if appearance is None else appearance.detach().to(device).contiguous()
        self.rays, self.node = samples.ray_indices.to(device).int(), samples.node.to(device).int()

    def struct(self, buckets: Buckets, **others: Tensor) -> FieldSamplesStruct:
        arrays: dict[str, Any] = {
            "local": self.local, "ray_indices": self.rays, "directions": self.directions,
            "appearance": self.appearance, "order": buckets.order, "starts": buckets.starts, **others,
        }  # fmt: skip
        return FieldSamplesStruct(**{name: pointer(array) for name, array in arrays.items()})

    def forward(self) -> tuple[Tensor, Tensor]:
        owner, kernels = self.owner, self.owner.kernels
        sigma, rgb = torch.empty(self.n, device=owner.device), torch.empty(self.n, 3, device=owner.device)
        buckets = Buckets.of(self.node, owner.model.octree.n_nodes)
        blocks = kernels.blocks("train_field", len(buckets.tiles) * GRAD_SAMPLES)
        struct = self.struct(buckets, sigma=sigma, rgb=rgb)
        kernels.launch("train_field", blocks, owner.scene.struct, struct, buckets.tiles, len(buckets.tiles))
        return sigma, rgb

    def backward(self, d_sigma: Tensor, d_rgb: Tensor, wants_appearance: bool) -> Tensor | None:
        """Adds to the gradients of tables and MLPs; returns that of the appearance of each sample, or None.

        Samples without a gradient are left out of the tiles.
        """
        owner, kernels, n_nodes = self.owner, self.owner.kernels, self.owner.model.octree.n_nodes
        pulled = (d_sigma != 0) | (d_rgb != 0).any(-1)
        buckets = Buckets.of(torch.where(pulled, self.node, n_nodes), n_nodes)
        d_tables, d_mlp = owner.gradients()
        arrays = {"d_sigma": d_sigma, "d_rgb": d_rgb, "d_tables": d_tables, "d_mlp": d_mlp}
        d_appearance = None
        if wants_appearance and self.appearance is not None:
            d_appearance = self.appearance.new_zeros(self.n, self.appearance.shape[1])
            arrays["d_appearance"] = d_appearance
        struct, n_tiles = self.struct(buckets, **arrays), len(buckets.tiles)
        columns = min(n_tiles, TILES_AT_ONCE) * GRAD_SAMPLES
        scratch = torch.empty(scratch_rows(owner.model), columns, device=owner.device)
        for first in range(0, n_tiles, TILES_AT_ONCE):
            last = min(first + TILES_AT_ONCE, n_tiles)
            arguments = owner.scene.struct, struct, buckets.tiles, first, last, scratch
            blocks = kernels.blocks("train_field_backward", (last - first) * GRAD_SAMPLES)
            kernels.launch("train_field_backward", blocks, *arguments)
            kernels.launch("train_weight_gradients", last - first, *arguments)
        return d_appearance


def scratch_rows(model: InfNeRF) -> int:
    """Numbers of a sample that weight gradients need: inputs and outputs of every layer (`layer_rows` in
    cuda/train.cuh)."""
    return sum(n_in + n_out for n_in, n_out in model.config.layer_shapes.values())


class _Field(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tables: Tensor, mlp: Tensor, appearance: Tensor | None, samples: PackedSamples, directions: Tensor,
        owner: CudaSampleKernels,
    ):  # fmt: skip
        ctx.call = _Call(owner, samples, directions, appearance)
        return ctx.call.forward()

    @staticmethod
    def backward(ctx: Any, d_sigma: Tensor, d_rgb: Tensor):  # type: ignore[override]
        call: _Call = ctx.call
        each = call.backward(d_sigma.contiguous(), d_rgb.contiguous(), ctx.needs_input_grad[2])
        d_appearance = None
        if each is not None and call.appearance is not None:
            d_appearance = torch.zeros_like(call.appearance).index_add_(0, call.rays, each)
        return None, None, d_appearance, None, None, None  # tables' and mlp's are in .grad already


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sigmas: Tensor, rgb: Tensor, samples: PackedSamples, n_rays: int, early_stop: float,
        kernels: TorchLauncher,
    ):  # fmt: skip
        device = sigmas.device
        numbers = torch.arange(n_rays + 1, dtype=torch.int32, device=device)
        starts = torch.searchsorted(samples.ray_indices.int(), numbers).int()
        arrays = starts, sigmas.detach().contiguous(), samples.dt.contiguous(), rgb.detach().contiguous()
        struct = SegmentsStruct(*map(pointer, arrays), early_stop)
        rgba = torch.empty(n_rays, 4, device=device)
        kernels.launch("train_composite", kernels.blocks("train_composite", n_rays), struct, n_rays, rgba)
        ctx.arrays, ctx.struct, ctx.kernels = arrays, struct, kernels
        ctx.save_for_backward(rgba)
        return rgba

    @staticmethod
    def backward(ctx: Any, d_rgba: Tensor):  # type: ignore[override]
        (rgba,), kernels, n_rays = ctx.saved_tensors, ctx.kernels, len(d_rgba)
        sigmas, rgb = ctx.arrays[1], ctx.arrays[3]
        d_rgba, d_sigma, d_rgb = d_rgba.contiguous(), torch.empty_like(sigmas), torch.empty_like(rgb)
        blocks = kernels.blocks("train_composite_backward", n_rays)
        kernels.launch("train_composite_backward", blocks, ctx.struct, n_rays, rgba, d_rgba, d_sigma, d_rgb)
        return d_sigma, d_rgb, None, None, None, None
