"""Which samples a ray takes: every step of every ray at once.

Torch twin of `cuda/march.cuh`, whose header states the rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .contraction import background_edges, background_t, contract, cube_to_grid
from .empty_space import EmptySpace
from .octree import MAX_DEPTH, Octree, floor_log2

MAX_STRIDE_LOG2 = 5
SPAN = 1 << MAX_STRIDE_LOG2  # steps that are passed over together where all of them are in empty space
#: Numbers of the "samples" that the generator gives to a pixel's own jitters; `cuda/` uses the same.
JITTER_X, JITTER_Y, JITTER_STEP = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD


@dataclass(frozen=True)
class MarchSettings:
    """How rays are cut into samples; the fields of `RenderRequest` of the same names."""

    frame: int = 0
    lod_bias: float = 0.0
    min_level: int = 0
    max_level: int = MAX_DEPTH
    step_scale: float = 1.0


@dataclass(frozen=True)
class PackedSamples:
    """Samples of all rays, ray behind ray, front to back."""

    ray_indices: Tensor  # [n_samples] int64
    t: Tensor  # [n_samples] middles, world units
    dt: Tensor  # [n_samples] lengths
    local: Tensor  # [n_samples, 3] grid position in the node, [0, 1] (models/contraction.py)
    node: Tensor  # [n_samples] int64
    level: Tensor  # [n_samples] int64, the node's
    wanted: Tensor  # [n_samples] int64, the level asked for; > level: clamped

    def __len__(self) -> int:
        return len(self.t)

    def select(self, index: Tensor) -> PackedSamples:
        """The samples of a mask or an index."""
        return PackedSamples(**{name: value[index] for name, value in vars(self).items()})


def random_uniform(pixel: Tensor, sample: Tensor | int, frame: int) -> Tensor:
    """The counter-based generator of `cuda/packet.cuh`: uniform in [0, 1), float32, bit for bit."""
    low = 0xFFFFFFFF
    h = (pixel * 0x9E3779B1 ^ torch.as_tensor(sample) * 0x85EBCA6B ^ (frame * 0xC2B2AE35 + 0x27D4EB2F)) & low
    h = h ^ h >> 16
    h = h * 0x85EBCA6B & low
    h = h ^ h >> 13
    h = h * 0xC2B2AE35 & low
    h = h ^ h >> 16
    return (h >> 8).float() / 16777216


class Steps:
    """t(k) of each ray: linear, then geometric, then linear (closed form), and its inverse."""

    def __init__(self, cones: Tensor, dt_min: float, dt_max: float, step_scale: float) -> None:
        self.dt_min, self.dt_max = dt_min, dt_max
        self.growth = cones * (step_scale * math.sqrt(2))
        self.rate = torch.log1p(self.growth.clamp(max=1.0)) / math.log(2)
        self.k1, self.t1, self.t2 = 1 / self.growth, dt_min / self.growth, dt_max / self.growth
        self.k2 = self.k1 + math.log2(dt_max / dt_min) / self.rate

    def at(self, ray: Tensor, k: Tensor) -> Tensor:
        k1, k2 = self.k1[ray], self.k2[ray]
        t = torch.where(
            k > k1, self.t1[ray] * torch.exp2(((k - k1) * self.rate[ray]).clamp(max=126.0)), k * self.dt_min
        )
        return torch.where(k > k2, self.t2[ray] + (k - k2) * self.dt_max, t)

    def index(self, t: Tensor) -> Tensor:
        """One k for every ray: `t` [n_rays]."""
        k = torch.where(t > self.t1, self.k1 + torch.log2((t / self.t1).clamp(min=1.0)) / self.rate, t / self.dt_min)
        return torch.where(t > self.t2, self.k2 + (t - self.t2) / self.dt_max, k)


def box_span(origins: Tensor, directions: Tensor, aabb: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave a box [2, 3]: `near`, `far` [n_rays]; near >= far where they miss."""
    tiny, large = 1e-20, 1e20
    inverse = torch.where(
        directions.abs() > tiny, 1 / directions.abs().clamp(min=tiny), torch.full_like(directions, large)
    )
    inverse = torch.where(directions < 0, -inverse, inverse)
    a, b = (aabb[0] - origins) * inverse, (aabb[1] - origins) * inverse
    return torch.minimum(a, b).amax(-1).clamp(min=0.0), torch.maximum(a, b).amin(-1)


def march(
    octree: Octree,
    occupancy: Tensor,  # [n_nodes, W] int32
    occupancy_resolution: int,
    resolution: int,
    aabb: Tensor,  # [2, 3] root-local
    origins: Tensor,  # [n_rays, 3] root-local, in [0, 1] inside the cube
    directions: Tensor,  # [n_rays, 3] world, unit
    cones: Tensor,  # [n_rays] radius at unit distance
    counters: Tensor,  # [n_rays] int64, pixel numbers for the generator
    settings: MarchSettings,
    space: EmptySpace | None = None,  # of this occupancy: the same samples, sooner
    background: bool = False,  # the root holds what lies around its cube, too
) -> PackedSamples:
    """All samples of the rays, through everything (no early stop).

    The work is the rays' steps, so give it some thousands of rays.
    """
    root_gsd = octree.root_size / resolution
    cones = cones * 2.0**-settings.lod_bias
    deepest = min(octree.depth, settings.max_level)
    dt_min = settings.step_scale * root_gsd / 2**deepest
    dt_max = settings.step_scale * root_gsd / 2 ** min(settings.min_level, deepest)
    steps = Steps(cones, dt_min, dt_max, settings.step_scale)
    local_d = directions * (1 / octree.root_size)
    near, far = box_span(origins, local_d, aabb)
    offset = (
        random_uniform(counters, JITTER_STEP, settings.frame).to(cones) if settings.frame else torch.zeros_like(cones)
    )
    first = (steps.index(near) - offset - 1).clamp(min=0).long()
    count = torch.where(near < far, (steps.index(far.clamp(min=0)) - offset + 1).ceil().long() - first, 0).clamp(min=0)

    if space is None:
        ray, k = ranges(first, count)
    else:
        ray, k = steps_near_matter(steps, first, count, offset, origins, local_d, octree.root_size, space)
    start = k.to(cones) + offset[ray]
    ta, tb = steps.at(ray, start), steps.at(ray, start + 1)
    t = 0.5 * (ta + tb)
    ratio = root_gsd / (cones[ray] * t)
    if settings.frame:  # the radius times 2**u, u uniform in [-0.5, 0.5] (InfNeRF, section 3)
        ratio = ratio * torch.exp2(0.5 - random_uniform(counters[ray], k, settings.frame).to(cones))
    wanted = floor_log2(ratio).clamp(settings.min_level, settings.max_level)
    position = origins[ray] + local_d[ray] * t[:, None]
    node = octree.find(position, wanted)
    level = octree.level.to(node.device).long()[node]
    local = to_node(octree, position, node, level, background)
    taken = occupied(occupancy, occupancy_resolution, node, local) & (t >= near[ray]) & (t < far[ray])

    dt = (steps.growth[ray] * t).clamp(dt_min, dt_max)
    own = dt_min * torch.exp2((deepest - level).to(cones))  # the node's GSD times step_scale
    merged = 1 << floor_log2(own / dt).clamp(0, MAX_STRIDE_LOG2)
    aligned = k & -k
    stride = torch.where((aligned == 0) | (aligned > merged), merged, aligned)
    taken = taken & ~covered_steps(taken, stride, k, first[ray])

    ray, k, start, stride, node, level = (x[taken] for x in (ray, k, start, stride, node, level))
    te = torch.where(stride > 1, steps.at(ray, start + stride.to(cones)), tb[taken])
    middle = 0.5 * (ta[taken] + te)
    shift = (middle - t[taken]) * torch.exp2(level.to(cones))
    if background:
        shift = torch.where(level == 0, 0.5 * shift, shift)
    moved = (local[taken] + local_d[ray] * shift[:, None]).clamp(0.0, 1.0)
    inside = PackedSamples(ray, middle, te - ta[taken], moved, node, level, wanted[taken])
    if not background:
        return inside
    around = _march_background(octree, occupancy, occupancy_resolution, origins, local_d, far.clamp(min=0), offset)
    return merge_samples(inside, around)


def _march_background(
    octree: Octree, occupancy: Tensor, occupancy_resolution: int, origins: Tensor, local_d: Tensor, t_out: Tensor,
    offset: Tensor,
) -> PackedSamples:  # fmt: skip
    """Samples around the root cube, ray behind ray."""
    edges, reach = background_edges(offset), 0.5 * octree.root_size
    length = edges.diff(dim=1)
    t = background_t(0.5 * (edges[:, 1:] + edges[:, :-1]), t_out[:, None], reach)
    ray = torch.arange(len(t_out), device=t.device)[:, None].expand_as(t)
    local = contract((origins[:, None] + local_d[:, None] * t[..., None]).reshape(-1, 3))
    ray, t, length = ray.reshape(-1), t.reshape(-1), length.reshape(-1)
    root = torch.zeros_like(ray)
    taken = (length > 0) & occupied(occupancy, occupancy_resolution, root, local)
    root = root[taken]
    return PackedSamples(ray[taken], t[taken], reach * length[taken], local[taken], root, root, root)


def merge_samples(first: PackedSamples, second: PackedSamples) -> PackedSamples:
    """Samples of the same rays, those of `second` behind those of `first`."""
    order = torch.cat([first.ray_indices, second.ray_indices]).argsort(stable=True)
    pairs = zip(vars(first).items(), vars(second).values(), strict=True)
    return PackedSamples(**{name: torch.cat([a, b])[order] for (name, a), b in pairs})


def ranges(first: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers first .. first + count - 1 of every row, behind each other: (row, number)."""
    row = torch.repeat_interleave(count)
    return row, torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row] + first[row]


def steps_near_matter(
    steps: Steps, first: Tensor, count: Tensor, offset: Tensor, origins: Tensor, local_d: Tensor, root_size: float,
    space: EmptySpace,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`ranges(first, count)` without the aligned spans of SPAN steps that lie in empty space all along.

    Whole spans, so that a merged step and those it swallows stay together.
    """
    end = first + count
    low = first // SPAN
    ray, span = ranges(low, torch.where(count > 0, (end + SPAN - 1) // SPAN - low, 0))
    start = (span * SPAN).to(offset) + offset[ray]
    ta, tb = steps.at(ray, start), steps.at(ray, start + SPAN)
    middle, half = 0.5 * (ta + tb), 0.5 * (tb - ta)
    near = space.matter_within(origins[ray] + local_d[ray] * middle[:, None], half / root_size)
    ray = ray[near].repeat_interleave(SPAN)
    k = (span[near][:, None] * SPAN + torch.arange(SPAN, device=span.device)).view(-1)
    inside = (k >= first[ray]) & (k < end[ray])
    return ray[inside], k[inside]


def to_node(octree: Octree, position: Tensor, node: Tensor, level: Tensor, background: bool = False) -> Tensor:
    """Root-local positions [n, 3] in the cube -> grid positions in their nodes. Exact where the descent is."""
    corner = octree.local_corner().to(position.device, position.dtype)
    cube = ((position.clamp(0.0, 1.0) - corner[node]) * torch.exp2(level.to(position))[:, None]).clamp(0.0, 1.0)
    return cube_to_grid(node, cube) if background else cube


def occupied(occupancy: Tensor, resolution: int, node: Tensor, local: Tensor) -> Tensor:
    cell = (local * resolution).long().clamp(max=resolution - 1)
    index = (cell[:, 2] * resolution + cell[:, 1]) * resolution + cell[:, 0]
    word = occupancy.view(-1)[node * occupancy.shape[1] + (index >> 5)]
    return (word.long() >> (index & 31) & 1).bool()


def covered_steps(taken: Tensor, stride: Tensor, k: Tensor, first: Tensor) -> Tensor:
    """Steps that an aligned, longer step before them has swallowed.

    Aligned powers of two nest, so one look per size is enough.
    """
    covered = torch.zeros_like(taken)
    here = torch.arange(len(k), device=k.device)
    for j in range(1, MAX_STRIDE_LOG2 + 1):
        back = k & (1 << j) - 1
        exists = (back > 0) & (k - back >= first)
        leader = here - back * exists
        covered |= exists & taken[leader] & (stride[leader] >= 1 << j)
    return covered
