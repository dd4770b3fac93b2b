"""A new child starts from its parent's function, so that nothing jumps on the screen when the tree grows.

The MLPs are copied, or resized where levels differ in width (`training.width`); density halves its exponent's offset,
because sigma = exp(x) / gsd and the child's GSD is half its parent's. The child's tables are fitted to the features
that the parent's tables give at the same places: a linear problem, solved by a few rounds of SIRT (Gilbert 1972; each
table entry moves by the weighted mean of what its points lack) at points where the parent is occupied. A hash table has
not enough entries for all of them, so some steps of Adam follow on what a ray sees there: opacity over one GSD, and
colour where it is opaque.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..models.hash_grid import corner_entries, encode
from ..models.infnerf import InfNeRF
from ..models.occupancy import unpack_bits
from ..models.volume import segment_rgba
from .occupancy import over_cubes
from .optimizer import AdamConfig, NodeAdam
from .sampling import Sampling, make_sampling, random_directions, samples_at
from .width import copy_mlps

POINTS, ROUNDS = 8192, 4  # of a child's linear fit
NODES_AT_ONCE = 4  # in it
CANDIDATES, PLACES = 1 << 17, 1 << 15  # of a child, for Adam: places drawn, and kept by their opacity
EMPTY_SHARE = 0.05  # opacity that empty places count as
DISTILL_STEPS, DISTILL_SAMPLES, DISTILL_RATE = 200, 1 << 17, 1e-2


def inherit(model: InfNeRF, nodes: Tensor, generator: torch.Generator) -> None:
    """Overwrites the tables and MLPs of `nodes` [n] with their parents' function over their own cubes, in place.

    `model` has float32 parameters.
    """
    if not len(nodes):
        return
    _copy_features(model, nodes, generator)
    sampling, _ = make_sampling(model)
    adam = NodeAdam(model, AdamConfig(table_rate=DISTILL_RATE), sampling.kernels)
    which, local, wanted, directions = _places(model, nodes, sampling, generator)
    gsd = model.gsd(model.octree.level.long()[nodes]).float()[which].to(wanted.device)
    for step in range(DISTILL_STEPS):
        some = torch.randint(len(local), (min(len(local), DISTILL_SAMPLES),), generator=generator)
        seen = segment_rgba(
            *sampling.field(samples_at(model, nodes[which[some]], local[some]), directions[some]), gsd[some]
        )
        (seen - wanted[some]).square().sum(-1).mean().backward()
        adam.step(nodes, 1 - step / DISTILL_STEPS)
    model.tables.grad = model.mlp.grad = None


@torch.no_grad()
def _places(
    model: InfNeRF, nodes: Tensor, sampling: Sampling, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where children are held to their parents, and to what: rows of `nodes` [m] on the host; places in their cubes
    [m, 3], RGBA [m, 4] and directions [m, 3]. Mostly where there is something to see."""
    parents, lower = model.octree.in_parents(nodes)
    parts: list[tuple[Tensor, ...]] = []
    for row, (parent, corner) in enumerate(zip(parents, lower.float(), strict=True)):
        local = _occupied_points(model, parent, corner, CANDIDATES, generator)
        directions = random_directions(CANDIDATES, generator)
        above = parent.expand(CANDIDATES)
        samples = samples_at(model, above, model.to_grid(above, corner + 0.5 * local))
        gsd = model.gsd(model.octree.level.long()[nodes[row]]).float()
        rgba = segment_rgba(*sampling.field(samples, directions), gsd)
        kept = torch.multinomial((rgba[:, 3] + EMPTY_SHARE).cpu(), PLACES, generator=generator)
        chosen = local[kept].to(rgba.device), rgba[kept], directions[kept].to(rgba.device)
        parts.append((torch.full((PLACES,), row), *chosen))
    which, local, rgba, directions = (torch.cat(column) for column in zip(*parts, strict=True))
    return which, local, rgba, directions


@torch.no_grad()
def _copy_features(model: InfNeRF, nodes: Tensor, generator: torch.Generator) -> None:
    """Copies the MLPs and fits the tables."""
    config = model.config
    copy_mlps(model, nodes, generator)
    hidden = config.layer_shapes["density_hidden"]
    bias = hidden[0] * hidden[1] + hidden[1] + config.hidden_dim * (config.geo_dim + 1)
    model.mlp.data[nodes, bias] -= math.log(2.0)
    for part in nodes.split(NODES_AT_ONCE):
        _fit_tables(model, part, generator)


def _fit_tables(model: InfNeRF, nodes: Tensor, generator: torch.Generator) -> None:
    config = model.config
    parents, lower = model.octree.in_parents(nodes)
    lower = lower.float()
    inside = torch.stack([
        _occupied_points(model, parent, corner, POINTS, generator)
        for parent, corner in zip(parents, lower, strict=True)
    ])  # fmt: skip
    device = model.tables.device
    local, which = inside.view(-1, 3), torch.arange(len(nodes)).repeat_interleave(POINTS)
    above = parents[which]
    places = model.to_grid(above, lower[which] + 0.5 * local).to(device)
    own, above, local, which = (values.to(device) for values in (nodes[which], above, local, which))
    wanted = encode(model.tables.data, above, places, config.grid_resolutions, model.table_sizes(above))
    wanted = wanted.view(len(local), config.n_grid_levels, 1, config.features_per_level)
    entries, weights = corner_entries(local, config.grid_resolutions, model.table_sizes(own))
    level = torch.arange(config.n_grid_levels, device=device)[None, :, None]
    rows = (which[:, None, None] * config.n_grid_levels + level) * config.table_size + entries
    n_rows = len(nodes) * config.n_grid_levels * config.table_size
    flat, share = rows.view(-1), weights.reshape(-1, 1)
    total = torch.zeros(n_rows, device=device).index_add_(0, flat, share[:, 0]).clamp(min=1e-6)[:, None]
    tables = torch.zeros(n_rows, config.features_per_level, device=device)
    for _ in range(ROUNDS):
        lacking = wanted - (tables[rows] * weights[..., None]).sum(2, keepdim=True)
        push = (lacking * weights[..., None]).reshape(-1, config.features_per_level)
        tables += torch.zeros_like(tables).index_add_(0, flat, push) / total
    model.tables.data[nodes] = tables.view(len(nodes), config.n_grid_levels, config.table_size, -1).to(
        model.tables.dtype
    )


def _occupied_points(model: InfNeRF, parent: Tensor, lower: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """`n` random positions in a child's cube [0, 1], in cells that its `parent` (a number) has occupied; `lower` [3]:
    the child's corner in its parent's cube. Where the parent has none, anywhere."""
    resolution = model.config.occupancy_resolution
    half = resolution // 2
    z, y, x = (lower.flip(0) * resolution).round().long().tolist()
    cells = over_cubes(model, unpack_bits(model.occupancy[parent][None]), parent[None]).cpu()
    occupied = cells.view(resolution, resolution, resolution)[z : z + half, y : y + half, x : x + half].nonzero()
    if not len(occupied):
        return torch.rand(n, 3, generator=generator)
    chosen = occupied[torch.randint(len(occupied), (n,), generator=generator)].flip(1)
    return (chosen + torch.rand(n, 3, generator=generator)) / half
