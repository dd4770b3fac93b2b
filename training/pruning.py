"""Pruning the octree while it trains: nodes that hold nothing, and nodes that no ray gets to see, give their room back.

A dropped node's place is answered by its parent, at half the resolution. Two kinds of subtrees can go without that
showing:

- **empty**: none of its nodes holds matter, and neither does its parent in that octant. Where the parent has fog in a
  place that its child found to be empty, the child stays: it is what keeps that fog out of the picture.
- **unused**: no sample of its nodes has taken gradient since the last look. Samples of the rays that ask below their
  own level (`Trainer.finer`) count, so a node is not unused only because cameras are far. It must have been asked for
  and always been behind something opaque, or else never have been trained: then it holds nothing that its parent lacks.
  A trained node with matter that no ray asked for is left alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.infnerf import InfNeRF
from ..models.marching import PackedSamples
from ..models.octree import Octree
from ..models.octree_edit import drop_subtrees
from .growth import octant_values, octants
from .occupancy import OccupancyUpdater, over_cubes
from .team import Team

PRUNES = (0.3, 0.6)  # fractions of the run
LAST_PRUNE = 0.8  # later there is no time to mend what a prune changes
EMPTY_SHARE = 1 / 2048  # of its cells may still hold matter in an empty node: specks
AT_ONCE = 64  # nodes whose cells are looked at together
SAMPLES_TO_JUDGE = 1000  # with gradient, a node on average: before, chance alone leaves nodes out


def prune_schedule(chosen: tuple[float, ...] | None) -> tuple[float, ...]:
    """When to prune, as sorted fractions of the run; None: PRUNES. Raises `ValueError` outside (0, LAST_PRUNE]."""
    schedule = tuple(sorted(PRUNES if chosen is None else chosen))
    if schedule and not (schedule[0] > 0 and schedule[-1] <= LAST_PRUNE):
        raise ValueError(f"octree_prune_schedule: fractions must be above 0 and at most {LAST_PRUNE}, got {schedule}")
    return schedule


class Use:
    """What rays asked of each node [n_nodes] since the last look."""

    def __init__(self, n_nodes: int) -> None:
        self.asked = torch.zeros(n_nodes, dtype=torch.long)  # samples
        self.trained = torch.zeros(n_nodes, dtype=torch.long)  # samples that took gradient
        self.joined = torch.zeros(n_nodes, dtype=torch.bool)  # was not there yet at the last look

    def add(self, samples: PackedSamples, gradient: Tensor) -> None:
        """Takes in one batch. `gradient` [n_samples, 3]: of the loss by the samples' colours."""
        n = len(self.asked)
        self.asked += torch.bincount(samples.node, minlength=n).cpu()
        self.trained += torch.bincount(samples.node[(gradient != 0).any(-1)], minlength=n).cpu()

    def collect(self, team: Team) -> None:
        """Moves all ranks' counts to rank 0."""
        team.collect(self.asked)
        team.collect(self.trained)

    def follow(self, source: Tensor) -> None:
        """Goes on with a changed tree: node i was `source[i]`, -1 for a new one."""
        kept, rows = source >= 0, source.clamp(min=0)
        self.asked = torch.where(kept, self.asked[rows], 0)
        self.trained = torch.where(kept, self.trained[rows], 0)
        self.joined = torch.where(kept, self.joined[rows], True)

    def unused(self, steps: Tensor) -> Tensor:
        """Which nodes [n_nodes] nobody needs, see above; `steps` [n_nodes]: of the optimiser, over the whole run."""
        if int(self.trained.sum()) < SAMPLES_TO_JUDGE * len(self.trained):
            return torch.zeros_like(self.joined)
        return ~self.joined & (self.trained == 0) & ((self.asked > 0) | (steps == 0))

    def state_dict(self) -> dict[str, Tensor]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Raises `ValueError` for a state of another tree."""
        for name, own in self.state_dict().items():
            given = state[name]
            if given.shape != own.shape or given.dtype != own.dtype:
                raise ValueError(f"use.{name}: expected {own.dtype} {list(own.shape)}, found {list(given.shape)}")
            setattr(self, name, given)


def droppable(octree: Octree, empty: Tensor, unused: Tensor, clear_above: Tensor) -> Tensor:
    """The topmost nodes [k] whose whole subtrees can go, never the root. All [n_nodes] bool.

    `empty`, `unused`: of each node by itself; `clear_above`: its parent holds nothing in its octant.
    """
    goes = whole_subtrees(octree, unused) | (whole_subtrees(octree, empty | unused) & clear_above)
    goes[0] = False
    covered = torch.zeros_like(goes)
    for nodes, parents in _families(octree):
        covered[nodes] = (covered | goes)[parents]
    return (goes & ~covered).nonzero()[:, 0]


def whole_subtrees(octree: Octree, chosen: Tensor) -> Tensor:
    """Which nodes [n_nodes] are `chosen` [n_nodes] with everything below them."""
    whole = chosen.clone()
    for nodes, parents in reversed(_families(octree)):
        whole[parents[~whole[nodes]]] = False
    return whole


def _families(octree: Octree) -> list[tuple[Tensor, Tensor]]:
    """Per level below the root, from above: its nodes and their parents."""
    levels = [(octree.level == level).nonzero()[:, 0] for level in range(1, octree.depth + 1)]
    return [(nodes, octree.parent.long()[nodes]) for nodes in levels]


def prunable(model: InfNeRF, occupancy: OccupancyUpdater, unused: Tensor) -> Tensor:
    """The topmost nodes [k] of subtrees that can be dropped. `unused` [n_nodes], see `Use.unused`.

    What looks empty by the occupancy's running measurement is measured afresh, and so is what its parent holds there.
    """
    octree, n = model.octree, model.octree.n_nodes
    suspects = _empty(occupancy, torch.arange(n))
    tops = droppable(octree, suspects, unused, torch.ones(n, dtype=torch.bool))
    tops = tops[~whole_subtrees(octree, unused)[tops]]
    below = _subtrees(octree, tops)
    again = (below & suspects).nonzero()[:, 0]
    occupancy.measure_again(again)
    occupancy.measure_again(octree.parent.long()[tops].unique())
    empty, clear = torch.zeros(2, n, dtype=torch.bool)
    empty[again] = _empty(occupancy, again)
    for nodes in below.nonzero()[:, 0].split(AT_ONCE):
        parents = octree.parent.long()[nodes]
        above = over_cubes(model, occupancy.matter(parents), parents)
        clear[nodes] = _hardly_any(octant_values(above, octants(octree, nodes), model.config.occupancy_resolution))
    return droppable(octree, empty, unused, clear)


def _empty(occupancy: OccupancyUpdater, nodes: Tensor) -> Tensor:
    return torch.cat([_hardly_any(occupancy.matter(part)) for part in nodes.split(AT_ONCE)])


def _hardly_any(cells: Tensor) -> Tensor:
    """Which rows of cells [n, cells] hold next to no matter: [n] bool, on the host."""
    return (cells.sum(1) <= EMPTY_SHARE * cells.shape[1]).cpu()


def _subtrees(octree: Octree, tops: Tensor) -> Tensor:
    """Which nodes are in the subtrees of `tops`: [n_nodes] bool."""
    inside = torch.zeros(octree.n_nodes, dtype=torch.bool)
    inside[tops] = True
    for nodes, parents in _families(octree):
        inside[nodes] |= inside[parents]
    return inside


def pruned(model: InfNeRF, tops: Tensor) -> tuple[InfNeRF, Tensor]:
    """A model without the subtrees of `tops` [k], and `source` [n_nodes]: the old node of each."""
    octree, source = drop_subtrees(model.octree, tops)
    rows = model.tables.data[source], model.mlp.data[source], model.occupancy[source]
    return InfNeRF(model.config, octree, *rows, model.scene), source
