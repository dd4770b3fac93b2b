"""Which samples a ray takes through a pyramid: steps as through an octree (models/marching.py), levels between two.

Torch twin of `cuda/march.cuh` with `PyramidModel` of `cuda/pyramid.cuh`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .contraction import background_edges, background_t, contract
from .empty_space import EmptySpace
from .marching import (
    JITTER_STEP,
    MAX_STRIDE_LOG2,
    MarchSettings,
    PackedSamples,
    Steps,
    box_span,
    covered_steps,
    merge_samples,
    occupied,
    random_uniform,
    ranges,
    steps_near_matter,
)
from .octree import floor_log2
from .pyramid import PIXEL_WIDTH, Pyramid, trained_cells, within_trained


class PyramidMarch:
    """Marches rays through one pyramid as it is now."""

    def __init__(
        self,
        pyramid: Pyramid,
        occupancy: Tensor,  # [1, W] int32
        occupancy_resolution: int,
        aabb: Tensor,  # [2, 3] root-local
        trained: Tensor | None,  # [2, trained_resolution**3] uint8; None: every level answers
        trained_resolution: int,
        background: bool,
    ) -> None:
        self.pyramid, self.occupancy, self.occupancy_resolution = pyramid, occupancy, occupancy_resolution
        self.aabb, self.trained, self.trained_resolution = aabb, trained, trained_resolution
        self.background = background

    def __call__(
        self,
        origins: Tensor,  # [n_rays, 3] root-local
        directions: Tensor,  # [n_rays, 3] world, unit
        cones: Tensor,  # [n_rays] radius at unit distance
        counters: Tensor,  # [n_rays] int64, pixel numbers for the generator
        settings: MarchSettings,
        space: EmptySpace | None = None,
    ) -> PackedSamples:
        """All samples of the rays. `node` is the coarser of the two levels that answer, `level` and `wanted` are
        fractional, of `cones`' type."""
        pyramid = self.pyramid
        cones = cones * 2.0**-settings.lod_bias
        deepest = min(pyramid.depth, settings.max_level)
        dt_min = settings.step_scale * pyramid.gsds[deepest]
        dt_max = settings.step_scale * pyramid.gsds[min(settings.min_level, deepest)]
        steps = Steps(cones, dt_min, dt_max, settings.step_scale)
        local_d = directions * (1 / pyramid.root_size)
        near, far = box_span(origins, local_d, self.aabb)
        offset = torch.zeros_like(cones)
        if settings.frame:
            offset = random_uniform(counters, JITTER_STEP, settings.frame).to(cones)
        first = (steps.index(near) - offset - 1).clamp(min=0).long()
        last = (steps.index(far.clamp(min=0)) - offset + 1).ceil().long()
        count = torch.where(near < far, last - first, 0).clamp(min=0)
        if space is None:
            ray, k = ranges(first, count)
        else:
            ray, k = steps_near_matter(steps, first, count, offset, origins, local_d, pyramid.root_size, space)
        start = k.to(cones) + offset[ray]
        ta, tb = steps.at(ray, start), steps.at(ray, start + 1)
        t = 0.5 * (ta + tb)
        cube = (origins[ray] + local_d[ray] * t[:, None]).clamp(0.0, 1.0)
        local = 0.25 + 0.5 * cube if self.background else cube
        level, wanted = self._levels(cones[ray] * t, local, settings)
        taken = self._occupied(local) & (t >= near[ray]) & (t < far[ray])

        dt = (steps.growth[ray] * t).clamp(dt_min, dt_max)
        own = self._finest_gsd(level) * settings.step_scale
        stride = 1 << floor_log2(own / dt).clamp(0, MAX_STRIDE_LOG2)
        aligned = k & -k
        stride = torch.where((aligned == 0) | (aligned > stride), stride, aligned)
        taken = taken & ~covered_steps(taken, stride, k, first[ray])

        ray, k, start, stride, level = (x[taken] for x in (ray, k, start, stride, level))
        te = torch.where(stride > 1, steps.at(ray, start + stride.to(cones)), tb[taken])
        middle = 0.5 * (ta[taken] + te)
        shift = (middle - t[taken]) * (0.5 if self.background else 1.0)
        moved = (local[taken] + local_d[ray] * shift[:, None]).clamp(0.0, 1.0)
        inside = PackedSamples(ray, middle, te - ta[taken], moved, level.long(), level, wanted[taken])
        if not self.background:
            return inside
        return merge_samples(inside, self._around(origins, local_d, cones, far.clamp(min=0), offset, settings))

    def _levels(self, radius: Tensor, local: Tensor, settings: MarchSettings) -> tuple[Tensor, Tensor]:
        """What answers samples with cones of `radius` [n] at grid positions [n, 3], and what they ask for."""
        asked = self.pyramid.level_of(radius * PIXEL_WIDTH)
        level = asked.clamp(max=float(self.pyramid.depth))
        if self.trained is not None:
            level = within_trained(level, self.trained, trained_cells(local, self.trained_resolution))
        deepest = float(self.pyramid.depth)
        level = level.clamp(min(settings.min_level, deepest), min(settings.max_level, deepest))
        return level, asked.clamp(settings.min_level, settings.max_level)

    def _finest_gsd(self, level: Tensor) -> Tensor:
        """Edge of the cells of the finer level that answers."""
        return torch.tensor(self.pyramid.gsds, dtype=level.dtype, device=level.device)[level.ceil().long()]

    def _occupied(self, local: Tensor) -> Tensor:
        row = torch.zeros(len(local), dtype=torch.long, device=local.device)
        return occupied(self.occupancy, self.occupancy_resolution, row, local)

    def _around(
        self, origins: Tensor, local_d: Tensor, cones: Tensor, t_out: Tensor, offset: Tensor, settings: MarchSettings
    ) -> PackedSamples:
        """Samples around the root cube, ray behind ray. Their levels follow their widths as inside."""
        edges, reach = background_edges(offset), 0.5 * self.pyramid.root_size
        length = edges.diff(dim=1)
        t = background_t(0.5 * (edges[:, 1:] + edges[:, :-1]), t_out[:, None], reach)
        ray = torch.arange(len(t_out), device=t.device)[:, None].expand_as(t)
        local = contract((origins[:, None] + local_d[:, None] * t[..., None]).reshape(-1, 3))
        ray, t, length = ray.reshape(-1), t.reshape(-1), length.reshape(-1)
        taken = (length > 0) & self._occupied(local)
        ray, t, local = ray[taken], t[taken], local[taken]
        level, wanted = self._levels(cones[ray] * t, local, settings)
        return PackedSamples(ray, t, reach * length[taken], local, level.long(), level, wanted)
