"""The `torch` executor: the reference that every kernel is held to.

Any machine, any precision, differentiable pieces, slow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..models.camera import Camera
from ..models.infnerf import InfNeRF
from ..models.marching import JITTER_X, JITTER_Y, MarchSettings, PackedSamples, random_uniform
from ..models.pynerf import PyNeRF
from ..models.volume import accumulate, ray_starts, render_weights
from .frame import FrameBuffers, RenderRequest, RenderStats
from .normals import fill_normals

CHUNK = 4096  # rays marched at a time: bounds memory and the time to cancel
FIRST_ROUND = 16  # samples a ray before the first look at who is still alive; doubles each round


@dataclass
class _Rays:
    directions: Tensor  # [n, 3]
    cones: Tensor  # [n], without the bias
    settings: MarchSettings
    early_stop: float


class TorchExecutor:
    """Renders an `InfNeRF` or a `PyNeRF` with torch alone."""

    name = "torch"

    def __init__(self, model: InfNeRF | PyNeRF, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.dtype = model, dtype
        self.space = model.empty_space()

    @classmethod
    def supports(cls, model: object) -> str | None:
        if not isinstance(model, (InfNeRF, PyNeRF)):
            return f"the torch executor does not know {type(model).__name__}"
        device = model.tables.device
        return (
            None if device.type == "cpu" else f"the torch executor renders models on the host, this one is on {device}"
        )

    @torch.no_grad()
    def render(
        self, request: RenderRequest, out: FrameBuffers, cancelled: Callable[[], bool] = lambda: False
    ) -> RenderStats:
        """See `Executor.render`. `cancelled` is polled between chunks of rays."""
        began = time.perf_counter()
        x0, y0, x1, y1 = request.bounds
        stats = RenderStats(
            node_samples=np.zeros(self.model.octree.n_nodes, np.int64), stages={"march": 0.0, "field": 0.0}
        )
        rows = max(1, CHUNK // max(1, x1 - x0))
        for y in range(y0, y1, rows):
            if cancelled():
                stats.cancelled = True
                break
            self._render_rows(request, out, (x0, y, x1, min(y + rows, y1)), stats)
        else:
            self.fill_normals(request.camera, out, request.bounds)
        assert stats.node_samples is not None
        stats.node_samples = self.model.octree.answering(stats.node_samples)
        stats.seconds = time.perf_counter() - began
        return stats

    def _render_rows(
        self, request: RenderRequest, out: FrameBuffers, region: tuple[int, int, int, int], stats: RenderStats
    ) -> None:
        x0, y0, x1, y1 = region
        column, row = torch.arange(x0, x1).repeat(y1 - y0), torch.arange(y0, y1).repeat_interleave(x1 - x0)
        counters = row * request.camera.width + column
        settings = MarchSettings(
            request.frame, request.lod_bias, request.min_level, request.max_level, request.step_scale
        )
        directions, cones = self.camera_rays(request, column, row, counters)
        rays = _Rays(directions, cones, settings, request.early_stop)
        origin = torch.from_numpy(request.camera.position.copy())[None]
        origins = self.model.to_local(origin).to(self.dtype).expand(len(column), 3)
        marked = time.perf_counter()
        samples = self.model.march(origins, directions, cones, counters, settings, self.space)
        stats.stages["march"] += time.perf_counter() - marked
        marked = time.perf_counter()
        pixels = self._shade(samples, rays, stats)
        stats.stages["field"] += time.perf_counter() - marked
        stats.rays += len(column)
        for name, value in pixels.items():
            array = getattr(out, name)
            array[y0:y1, x0:x1] = value.reshape(y1 - y0, x1 - x0, *array.shape[2:]).numpy()

    def camera_rays(
        self, request: RenderRequest, column: Tensor, row: Tensor, counters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Unit directions [n, 3] and cones [n] (radius at unit distance, without bias) of pixels [n], as the frame of
        the request jitters them; `counters`: row * width + column."""
        camera = request.camera
        px, py = column.to(self.dtype) + 0.5, row.to(self.dtype) + 0.5
        if request.frame:
            px = px + random_uniform(counters, JITTER_X, request.frame) - 0.5
            py = py + random_uniform(counters, JITTER_Y, request.frame) - 0.5
        local = torch.stack([(px - camera.cx) / camera.fx, (py - camera.cy) / camera.fy, torch.ones_like(px)], -1)
        length = local.norm(dim=-1)
        axes = torch.from_numpy(camera.c2w[:3, :3].T.copy()).to(self.dtype)
        directions = (local[:, :1] * axes[0] + local[:, 1:2] * axes[1] + axes[2]) / length[:, None]
        on_axis = math.sqrt(1 / (math.pi * camera.fx * camera.fy))
        return directions, on_axis / (length * length.sqrt())

    def _shade(self, samples: PackedSamples, rays: _Rays, stats: RenderStats) -> dict[str, Tensor]:
        """Composites in rounds: some samples of every ray, then more of those that still let light through."""
        n = len(rays.cones)
        through = torch.ones(n, dtype=self.dtype)
        sums = torch.zeros(n, 8, dtype=self.dtype)  # rgb, depth, level, gsd ratio, clamped, samples
        heaviest = torch.zeros(n, dtype=self.dtype)
        best = torch.full((n,), -1, dtype=torch.long)
        start = ray_starts(samples.ray_indices, n)
        rank = torch.arange(len(samples)) - start[samples.ray_indices, 0]
        low, size = 0, FIRST_ROUND
        while low < int(start[:, 1].max() if n else 0):
            alive = through[samples.ray_indices] >= rays.early_stop
            index = ((rank >= low) & (rank < low + size) & alive).nonzero()[:, 0]
            part = samples.select(index)
            sigma, rgb = self.model.answer(part, rays.directions[part.ray_indices])
            weight, trans = render_weights(sigma, part.dt, part.ray_indices, n, rays.early_stop, through)
            used = trans > 0
            sums += accumulate(
                torch.where(used, 1.0, 0.0).to(self.dtype), self._values(part, rays, rgb, weight), part.ray_indices, n
            )
            through = through * torch.exp(
                -torch.zeros_like(through).index_add(0, part.ray_indices[used], (sigma * part.dt)[used])
            )
            stats.samples += int(used.sum())
            assert stats.node_samples is not None
            stats.node_samples += torch.bincount(part.node[used], minlength=len(stats.node_samples)).numpy()
            heaviest, best = _heavier(weight, index, part.ray_indices, heaviest, best)
            low, size = low + size, size * 2
        return self._pixels(samples, sums, through, best)

    def _values(self, part: PackedSamples, rays: _Rays, rgb: Tensor, weight: Tensor) -> Tensor:
        gsd = self.model.gsd(part.level).to(self.dtype)
        footprint = self.model.footprint(rays.cones[part.ray_indices] * part.t)
        channels = torch.stack(
            [part.t, part.level.to(self.dtype), torch.log2(footprint / gsd), (part.wanted > part.level).to(self.dtype)],
            -1,
        )
        return torch.cat([weight[:, None] * torch.cat([rgb, channels], -1), torch.ones_like(weight)[:, None]], -1)

    def _pixels(self, samples: PackedSamples, sums: Tensor, through: Tensor, best: Tensor) -> dict[str, Tensor]:
        alpha = 1 - through
        mean = torch.where(alpha > 1e-6, 1 / alpha.clamp(min=1e-6), torch.zeros_like(alpha))
        hit = best >= 0
        node = torch.full_like(best, -1)
        node[hit] = samples.node[best[hit]]
        return {
            "color": torch.cat([sums[:, :3], alpha[:, None]], -1),
            "depth": sums[:, 3] * mean,
            "level": sums[:, 4] * mean,
            "gsd_ratio": sums[:, 5] * mean,
            "clamped": sums[:, 6] * mean,
            "samples": sums[:, 7],
            "node": node.int(),
        }

    def fill_normals(self, camera: Camera, out: FrameBuffers, region: tuple[int, int, int, int]) -> None:
        """See `Executor.fill_normals`."""
        fill_normals(camera, out, region)

    def close(self) -> None:
        """Nothing to give back."""


def _heavier(weight: Tensor, index: Tensor, ray: Tensor, heaviest: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
    """Updates each ray's heaviest sample; of equal ones the first counts."""
    new = heaviest.scatter_reduce(0, ray, weight, "amax")
    candidate = (weight == new[ray]) & (weight > heaviest[ray])
    first = torch.full_like(best, torch.iinfo(torch.int64).max).scatter_reduce(
        0, ray[candidate], index[candidate], "amin"
    )
    return new, torch.where(new > heaviest, first, best)
