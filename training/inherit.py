"""A new child starts from its parent's function, so that nothing jumps on the screen when the tree grows.

The MLPs are copied; density halves its exponent's offset, because sigma = exp(x) / gsd and the child's GSD is half its
parent's. The child's tables are fitted to the features that the parent's tables give at the same places: a linear
problem, solved by a few rounds of SIRT (Gilbert 1972; each table entry moves by the weighted mean of what its points
lack) at points where the parent is occupied.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..models.empty_space import unpack_bits
from ..models.hash_grid import corner_entries, encode
from ..models.infnerf import InfNeRF

POINTS = 8192  # of a child
ROUNDS = 16
NODES_AT_ONCE = 4


@torch.no_grad()
def inherit(model: InfNeRF, nodes: Tensor, generator: torch.Generator) -> None:
    """Overwrites the tables and MLPs of `nodes` [n] with their parents' function over their own cubes, in place."""
    config, octree = model.config, model.octree
    parents = octree.parent.long()[nodes]
    model.mlp.data[nodes] = model.mlp.data[parents]
    hidden = config.layer_shapes["density_hidden"]
    bias = hidden[0] * hidden[1] + hidden[1] + config.hidden_dim * (config.geo_dim + 1)
    model.mlp.data[nodes, bias] -= math.log(2.0)
    for part in torch.arange(len(nodes)).split(NODES_AT_ONCE):
        _fit_tables(model, nodes[part], parents[part], generator)


def _fit_tables(model: InfNeRF, nodes: Tensor, parents: Tensor, generator: torch.Generator) -> None:
    config = model.config
    lower = ((model.octree.local_corner()[nodes] - model.octree.local_corner()[parents])
             * torch.exp2(model.octree.level[parents].double())[:, None]).float()  # fmt: skip
    inside = torch.stack([
        _occupied_points(model.occupancy[parent], config.occupancy_resolution, corner, generator)
        for parent, corner in zip(parents.tolist(), lower, strict=True)
    ])  # fmt: skip
    local, which = inside.view(-1, 3), torch.arange(len(nodes)).repeat_interleave(POINTS)
    wanted = encode(model.tables.data, parents[which], lower[which] + 0.5 * local, config.grid_resolutions)
    wanted = wanted.view(len(local), config.n_grid_levels, 1, config.features_per_level)
    entries, weights = corner_entries(local, config.grid_resolutions, config.table_size)
    level = torch.arange(config.n_grid_levels)[None, :, None]
    rows = (which[:, None, None] * config.n_grid_levels + level) * config.table_size + entries
    n_rows = len(nodes) * config.n_grid_levels * config.table_size
    flat, share = rows.view(-1), weights.reshape(-1, 1)
    total = torch.zeros(n_rows).index_add_(0, flat, share[:, 0]).clamp(min=1e-6)[:, None]
    tables = torch.zeros(n_rows, config.features_per_level)
    for _ in range(ROUNDS):
        lacking = wanted - (tables[rows] * weights[..., None]).sum(2, keepdim=True)
        push = (lacking * weights[..., None]).reshape(-1, config.features_per_level)
        tables += torch.zeros_like(tables).index_add_(0, flat, push) / total
    model.tables.data[nodes] = tables.view(len(nodes), config.n_grid_levels, config.table_size, -1).to(
        model.tables.dtype
    )


def _occupied_points(words: Tensor, resolution: int, lower: Tensor, generator: torch.Generator) -> Tensor:
    """POINTS random positions in a child's cube [0, 1], in cells that its parent has occupied; `lower` [3]: the child's
    corner in its parent's cube. Where the parent has none, anywhere."""
    half = resolution // 2
    z, y, x = (lower.flip(0) * resolution).round().long().tolist()
    cells = unpack_bits(words[None]).view(resolution, resolution, resolution)
    occupied = cells[z : z + half, y : y + half, x : x + half].nonzero()
    if not len(occupied):
        return torch.rand(POINTS, 3, generator=generator)
    chosen = occupied[torch.randint(len(occupied), (POINTS,), generator=generator)].flip(1)
    return (chosen + torch.rand(POINTS, 3, generator=generator)) / half
