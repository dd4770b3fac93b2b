"""Growing the octree while it trains: where samples ask for a level that is not there, and the loss still pulls.

A sample that is clamped (the tree ends above the level its pixel asks for) votes for a child in its octant with the
size of its colour's gradient: use times gradient, as the InfNeRF paper's growth asks. The children with most votes
appear, each with its parent's function (`training.inherit`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..models.infnerf import InfNeRF
from ..models.marching import PackedSamples
from ..models.occupancy import pack_bits, unpack_bits
from ..models.octree import Octree
from ..models.octree_edit import add_children
from .inherit import inherit
from .occupancy import over_cubes
from .team import Team


class Demand:
    """Votes for children: `votes` [n_nodes, 8], by octant, since they were last cleared."""

    def __init__(self, octree: Octree) -> None:
        self.votes = torch.zeros(octree.n_nodes, 8)

    def add(self, samples: PackedSamples, gradient: Tensor) -> None:
        """Takes in one batch. `gradient` [n_samples, 3]: of the loss by the samples' colours."""
        clamped = samples.wanted > samples.level
        upper = (samples.local[clamped] >= 0.5).long()
        octant = upper[:, 0] | upper[:, 1] << 1 | upper[:, 2] << 2
        slot = samples.node[clamped].long() * 8 + octant
        self.votes.view(-1).index_add_(0, slot.cpu(), gradient[clamped].abs().sum(-1).cpu())

    def follow(self, source: Tensor) -> None:
        """Goes on with a changed tree: node i was `source[i]`, -1 for a new one, which has no votes."""
        self.votes = torch.where((source >= 0)[:, None], self.votes[source.clamp(min=0)], 0.0)

    def collect(self, team: Team) -> None:
        """Moves all ranks' votes to rank 0."""
        team.collect(self.votes)

    def choose(
        self, octree: Octree, room: int, deepest: int, cost: Callable[[int], int] = lambda level: 1,
        team: Team | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The free places with most votes of all ranks that `room` is enough for, none deeper than `deepest`: `node`,
        `octant` [k] each, as rank 0 finds them. `cost`: of a node on a level."""
        team = team or Team()
        self.collect(team)
        best = team.broadcast_rows(self._best(octree, room, deepest, cost))
        return best // 8, best % 8

    def _best(self, octree: Octree, room: int, deepest: int, cost: Callable[[int], int]) -> Tensor:
        allowed = (octree.children < 0) & (octree.level < deepest)[:, None]
        votes = torch.where(allowed, self.votes, 0.0).view(-1)
        best = votes.argsort(descending=True, stable=True)
        best = best[votes[best] > 0]
        costs = torch.tensor([cost(level + 1) for level in range(octree.depth + 1)])[octree.level.long()]
        return best[costs[best // 8].cumsum(0) <= room].sort().values


def grown(model: InfNeRF, node: Tensor, octant: Tensor, generator: torch.Generator) -> tuple[InfNeRF, Tensor]:
    """A model with new children in `octant` [k] of `node` [k] that look like their parents.

    Returns it with `source` [n_nodes]: the old node of each, -1 for a new one. Parameters become float32.
    """
    octree, source = add_children(model.octree, node, octant)
    new = (source < 0).nonzero()[:, 0]
    origin = torch.where(source < 0, 0, source)
    old_parent = source[octree.parent.long()[new]]  # pairs name old nodes, so a new child's parent is one
    tables, mlp = model.tables.data.float()[origin], model.mlp.data.float()[origin]
    result = InfNeRF(model.config, octree, tables, mlp, model.occupancy[origin].clone(), model.scene)
    cells = model.config.occupancy_resolution
    above = over_cubes(model, unpack_bits(model.occupancy[old_parent]), old_parent)
    result.occupancy[new] = pack_bits(octant_values(above, octants(octree, new), cells))
    inherit(result, new, generator)
    return result, source


def octants(octree: Octree, nodes: Tensor) -> Tensor:
    """Which octant of its parent each of `nodes` [n] is: [n] int64."""
    return (octree.children.long()[octree.parent.long()[nodes]] == nodes[:, None]).long().argmax(1)


def octant_values(values: Tensor, octant: Tensor, resolution: int) -> Tensor:
    """Cells of an octant at twice the resolution: `values` [n, cells] of parents -> [n, cells] of their children."""
    half = resolution // 2
    grid = values.view(-1, resolution, resolution, resolution)
    parts = [
        cells[(o >> 2) * half :, (o >> 1 & 1) * half :, (o & 1) * half :][:half, :half, :half]
        for cells, o in zip(grid, octant.tolist(), strict=True)
    ]
    if not parts:
        return values.new_zeros(0, resolution**3)
    fine = torch.stack(parts).repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return fine.reshape(len(parts), -1)
