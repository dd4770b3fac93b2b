"""Nodes of different capacity in rows of one size, and without the padding, as a checkpoint stores them.

In memory every row has room for the largest node. On an octree level with smaller tables a node uses the first entries
of each; with narrower MLPs the first hidden units. What is left over stays zero: no position hashes to those entries,
and a unit without weights in and out passes no value and, by ReLU, no gradient. A checkpoint holds levels behind each
other, each with rows of its own size (nodes are breadth-first, so a level is a slice).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .config import InfNeRFConfig
from .octree import Octree


def unit_places(config: InfNeRFConfig, level: int) -> Tensor:
    """Where in a padded row of MLPs the numbers of a node on an octree level are: [P of that level] int64.

    >>> config = InfNeRFConfig(n_grid_levels=1, hidden_dim=32, level_hidden_dims=(32, 16))
    >>> unit_places(config, 1)[[0, 15, 16, 32]].tolist()
    [0, 15, 32, 64]
    """
    places, start = [], 0
    own = config.at_level(level).layer_shapes.values()
    for (n_in, n_out), (own_in, own_out) in zip(config.layer_shapes.values(), own, strict=True):
        matrix = start + torch.arange(n_in * n_out).view(n_in, n_out)
        bias = start + n_in * n_out + torch.arange(n_out)
        places += [matrix[:own_in, :own_out].reshape(-1), bias[:own_out]]
        start += n_in * n_out + n_out
    return torch.cat(places)


def row_numbers(config: InfNeRFConfig, depth: int) -> dict[str, list[int]]:
    """Numbers of one node's tables and MLPs, per octree level down to `depth`."""
    own = [config.at_level(level) for level in range(depth + 1)]
    return {"tables": [c.n_features * c.table_size for c in own], "mlp": [c.mlp_size for c in own]}


def stored_shapes(config: InfNeRFConfig, octree: Octree) -> dict[str, tuple[int, ...]]:
    """Shapes of a checkpoint's `tables` and `mlp`: flat where levels differ."""
    counts, numbers = octree.level_counts(), row_numbers(config, octree.depth)
    total = {name: sum(n * size for n, size in zip(counts, sizes, strict=True)) for name, sizes in numbers.items()}
    tables = octree.n_nodes, config.n_grid_levels, config.table_size, config.features_per_level
    return {
        "tables": (total["tables"],) if config.level_table_sizes else tables,
        "mlp": (total["mlp"],) if config.level_hidden_dims else (octree.n_nodes, config.mlp_size),
    }


def compact(config: InfNeRFConfig, octree: Octree, tables: Tensor, mlp: Tensor) -> tuple[Tensor, Tensor]:
    """Padded rows `tables` [N, L, T, F] and `mlp` [N, P] -> as a checkpoint stores them (`stored_shapes`)."""
    if config.level_table_sizes:
        parts = tables.split(octree.level_counts())
        sizes = [config.at_level(level).table_size for level in range(len(parts))]
        tables = torch.cat([part[:, :, :size].reshape(-1) for part, size in zip(parts, sizes, strict=True)])
    if config.level_hidden_dims:
        parts = mlp.split(octree.level_counts())
        mlp = torch.cat([part[:, unit_places(config, level)].reshape(-1) for level, part in enumerate(parts)])
    return tables, mlp


def padded(config: InfNeRFConfig, octree: Octree, tables: Tensor, mlp: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `compact`. Where all levels have the same capacity the tensors stay as they are."""
    counts, numbers = octree.level_counts(), row_numbers(config, octree.depth)
    if config.level_table_sizes:
        shape = octree.n_nodes, config.n_grid_levels, config.table_size, config.features_per_level
        rows = tables.new_zeros(shape)
        parts = tables.split([n * size for n, size in zip(counts, numbers["tables"], strict=True)])
        for level, (room, part) in enumerate(zip(rows.split(counts), parts, strict=True)):
            size = config.at_level(level).table_size
            room[:, :, :size] = part.view(len(room), config.n_grid_levels, size, config.features_per_level)
        tables = rows
    if config.level_hidden_dims:
        rows = mlp.new_zeros(octree.n_nodes, config.mlp_size)
        parts = mlp.split([n * size for n, size in zip(counts, numbers["mlp"], strict=True)])
        for level, (room, part) in enumerate(zip(rows.split(counts), parts, strict=True)):
            room[:, unit_places(config, level)] = part.view(len(room), -1)
        mlp = rows
    return tables, mlp
