"""Subtrees that processes train apart (InfNeRF, section on large scenes): who owns which, and which rays cross them.

The levels above `SubtreePlan.level` are trained by all ranks together. Then each rank holds those, frozen, and the
subtrees that it owns, and nothing else: a sample in anybody else's subtree is answered by its nearest ancestor here, as
in a viewer whose pool lacks a node (design section 7). Nothing has to be exchanged for a ray to be whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.dataset import Dataset
from ..data.pyramid import RayBatch
from ..models.camera import Camera
from ..models.infnerf import InfNeRF
from ..models.marching import MarchSettings, PackedSamples, box_span
from ..models.octree import Octree
from ..models.octree_edit import drop_subtrees
from ..models.volume import accumulate
from ..renderer.cliutil import CommandError
from ..renderer.cuda_samples import to_device
from .config import TrainerConfig
from .losses import LossInputs
from .sampling import MAX_SAMPLES_PER_RAY, Sampling
from .shards import Shard, shard_of
from .team import Team
from .trainer import Trainer
from .width import copy_mlps

TILES, TILE_PIXELS = 64, 8  # of an image: at most along its edge; at least along a tile's
LEAST_LIGHT = 0.03  # share of a tile's light that must come from a rank's subtrees for the rank to look at it
OPAQUE = 0.5  # opacity from which the top levels are believed about what a tile shows
CLAMPED_WEIGHT = 0.005  # of a ray that asks for finer levels than stage 1 has, in its loss
TRIES = 8  # batches drawn in search of a ray with a sample in the rank's own nodes


@dataclass(frozen=True, eq=False)
class SubtreePlan:
    """Who trains which part of a tree."""

    octree: Octree  # all of it
    level: int  # of the subtrees' roots
    owner: Tensor  # [n_nodes] int64: rank; -1 on the levels above, which are everybody's

    def top(self) -> Octree:
        """The levels above the subtrees; their nodes have the same numbers as in the whole tree."""
        return drop_subtrees(self.octree, (self.octree.level == self.level).nonzero()[:, 0])[0]

    def part(self, rank: int) -> tuple[Octree, Tensor]:
        """The levels above and a rank's subtrees; and `source` [n]: the nodes' numbers in the whole tree."""
        roots = self.octree.level == self.level
        return drop_subtrees(self.octree, (roots & (self.owner != rank)).nonzero()[:, 0])

    def nodes_of(self, octree: Octree) -> Tensor:
        """The numbers [n] in the whole tree of the nodes of a part of it."""
        middle = octree.local_corner() + 0.5 / torch.exp2(octree.level.double())[:, None]
        return self.octree.find(middle, octree.level.long())

    def only(self, kept: Tensor) -> SubtreePlan:
        """Without nodes that are not `kept` [n_nodes] bool: what the ranks have pruned, or never had."""
        octree, source = drop_subtrees(self.octree, (~kept).nonzero()[:, 0])
        return SubtreePlan(octree, self.level, self.owner[source])


def plan_subtrees(octree: Octree, n_ranks: int, level: int | None = None) -> SubtreePlan:
    """Deals the subtrees below a level to ranks, by their number of nodes.

    `level`: of their roots; None: the smallest that has one for each rank. Nodes of a level stand in Morton order, and
    each rank gets a run of them, so that what it owns lies together. Raises `CommandError` for a tree or a level
    that has too few.
    """
    counts = octree.level_counts()
    if level is None:
        level = next((i for i, n in enumerate(counts) if i and n >= n_ranks), None)
        if level is None:
            raise CommandError(
                f"--parallel subtree: expected a level with a node for each of {n_ranks} ranks, found {counts} nodes; "
                "the tree follows from the sparse points, --max-depth and --max-megabytes (--parallel data needs none)"
            )
    if not 1 <= level < len(counts) or counts[level] < n_ranks:
        raise CommandError(
            f"--subtree-level: expected a level from 1 to {len(counts) - 1} with at least {n_ranks} nodes, "
            f"found {level} in a tree of {counts} nodes"
        )
    below = torch.ones(octree.n_nodes)  # nodes of each node's subtree
    for node in range(octree.n_nodes - 1, 0, -1):
        below[octree.parent[node]] += below[node]
    roots = (octree.level == level).nonzero()[:, 0]
    owner = torch.full((octree.n_nodes,), -1)
    owner[roots] = _deal(below[roots], n_ranks)
    for node in range(int(roots[-1]) + 1, octree.n_nodes):
        owner[node] = owner[octree.parent[node]]
    return SubtreePlan(octree, level, owner)


def _deal(weight: Tensor, n: int) -> Tensor:
    """Runs of about equal weight: [k] int64, rising from 0 to n - 1, each at least once.

    >>> _deal(torch.tensor([5.0, 1, 1, 1]), 2).tolist(), _deal(torch.tensor([1.0, 1, 9]), 3).tolist()
    ([0, 1, 1, 1], [0, 1, 2])
    """
    middle = weight.cumsum(0) - 0.5 * weight
    rank = (middle * n / weight.sum()).long().clamp(max=n - 1)
    k = len(weight)
    for i in range(k):  # no rank is passed over, and enough are left for those behind
        rank[i] = max(min(int(rank[i]), int(rank[i - 1]) + 1 if i else 0), n - k + i)
    return rank


def light_of_ranks(
    model: InfNeRF, sampling: Sampling, plan: SubtreePlan, n_ranks: int, camera: Camera, downscale: int
) -> Tensor:
    """What share of the light of each tile of an image comes from each rank's cubes, as the top levels know it:
    [n_ranks, h, w]. Where they know of little, 1 for every rank whose cubes the tile's ray crosses."""
    h, w = tile_grid(camera)
    rows, columns = (grid.ravel() + 0.5 for grid in np.indices((h, w)))
    arrays = camera.pixel_rays(columns * (camera.width / w), rows * (camera.height / h))
    origins, directions, cones = (torch.from_numpy(np.ascontiguousarray(a)).float() for a in arrays)
    local = model.to_local(origins)
    counters = torch.arange(len(cones))
    on_device = (to_device(values, model.tables.device) for values in (local, directions, cones * downscale, counters))
    samples = sampling.march(*on_device, settings=MarchSettings(), limit=MAX_SAMPLES_PER_RAY)
    ray = samples.ray_indices.long().cpu()
    place = local[ray] + directions[ray] * (samples.t.cpu() / model.octree.root_size)[:, None]
    node = plan.octree.find(place, torch.full((len(place),), plan.level))
    inside = ((place >= 0) & (place < 1)).all(-1)
    owner = torch.where(inside & (plan.octree.level[node] == plan.level), plan.owner[node], -1)
    light, might = torch.zeros(n_ranks, len(cones)), torch.zeros(n_ranks, len(cones))
    corners, size = plan.octree.local_corner().float(), 0.5**plan.level
    for root in (plan.octree.level == plan.level).nonzero()[:, 0].tolist():
        cube = torch.stack([corners[root], corners[root] + size])
        near, far = box_span(local, directions, cube)
        might[int(plan.owner[root])] += near < far
    with torch.no_grad():
        sigmas, _ = sampling.field(samples, directions)
        for first in range(0, n_ranks, 3):  # three ranks at a time, in the place of red, green and blue
            share = (owner[:, None] == torch.arange(first, first + 3)).to(sigmas)
            rgba = sampling.composite(sigmas, share, samples, len(cones), 0.0)
            light[first : first + 3] = rgba[:, : min(3, n_ranks - first)].T.cpu()
    opacity = light.sum(0)
    return torch.where(opacity > OPAQUE, light / opacity.clamp(min=OPAQUE), might.clamp(max=1)).view(n_ranks, h, w)


def tile_grid(camera: Camera) -> tuple[int, int]:
    """Tiles of an image: rows, columns."""
    edge = max(TILE_PIXELS, -(-max(camera.width, camera.height) // TILES))
    return max(1, camera.height // edge), max(1, camera.width // edge)


def seen_tiles(trainer: Trainer, plan: SubtreePlan, team: Team) -> list[Tensor]:
    """By image, the tiles that show each rank's subtrees: [n_ranks, h, w] bool. Each rank looks at its share of the
    images, with the top levels that `trainer` has trained."""
    cameras = trainer.data.cameras
    sizes = [tile_grid(camera) for camera in cameras]
    ends = np.cumsum([h * w for h, w in sizes])
    seen = torch.zeros(team.size, int(ends[-1]), dtype=torch.uint8)
    for i in range(team.rank, len(cameras), team.size):
        light = light_of_ranks(
            trainer.model, trainer.sampling, plan, team.size, cameras[i], trainer.config.downscale
        )  # fmt: skip
        around = F.max_pool2d((light > LEAST_LIGHT).float()[None], 3, stride=1, padding=1)[0]
        seen[:, ends[i] - around[0].numel() : ends[i]] = around.flatten(1).byte()
    team.sum(seen)
    parts = seen.bool().split(np.diff(ends, prepend=0).tolist(), dim=1)
    return [part.view(team.size, *size) for part, size in zip(parts, sizes, strict=True)]


def shard_of_rank(data: Dataset, tiles: list[Tensor], rank: int) -> Shard | None:
    """The images that show a rank's subtrees, masked to where they do; None where there are none."""
    images = [i for i, seen in enumerate(tiles) if seen[rank].any()]
    if not images:
        return None
    return replace(shard_of(data, images), regions=[tiles[i][rank].numpy() for i in images])


class TopTrainer(Trainer):
    """Trains the levels above the subtrees, mostly on what they will be asked for when the tree is whole.

    Finer rays are answered here too, by the deepest level there is. They say where matter is, which the hand-over and
    whoever lacks a subtree need; but at full weight these levels would blur what few coarse rays ask of them for the
    detail of many fine ones.
    """

    def render(self, batch: RayBatch, samples: PackedSamples) -> LossInputs:
        inputs = super().render(batch, samples)
        share = answered_share(inputs)
        weight = batch.weight * (CLAMPED_WEIGHT + (1 - CLAMPED_WEIGHT) * share)
        return replace(inputs, batch=replace(batch, weight=weight))


@torch.no_grad()
def answered_share(inputs: LossInputs) -> Tensor:
    """Share of each ray's light [n_rays] that comes from levels as fine as asked for; 1 where a ray meets none."""
    samples, n_rays = inputs.samples, len(inputs.prediction)
    values = torch.stack([(samples.wanted <= samples.level).float(), torch.ones_like(samples.t)], -1)
    answered, light = accumulate(inputs.weights.detach(), values, samples.ray_indices.long(), n_rays).unbind(-1)
    return torch.where(light > 0, answered / light.clamp(min=1e-12), 1.0)


class SubtreeTrainer(Trainer):
    """Trains a rank's own nodes, on the rays that have a sample in them, and exchanges nothing."""

    def __init__(
        self,
        first: Trainer,  # of the levels above
        config: TrainerConfig,
        shard: Shard,
        octree: Octree,  # of `SubtreePlan.part`
    ) -> None:
        above = first.model
        self.n_shared = n = above.octree.n_nodes  # frozen: they come first in every tree of this trainer
        self.restricted = first.occupancy.allowed is not None  # sparse points restrict matter
        model = InfNeRF(above.config, seed=config.seed).place(octree, above.scene)
        model.tables.data[:n], model.mlp.data[:n] = above.tables.data, above.mlp.data
        generator = torch.Generator().manual_seed(config.seed)
        copy_mlps(model, torch.arange(n, octree.n_nodes), generator)  # decoders go on from what those have learnt
        super().__init__(model, first.data, config, shard=shard)
        self.model.occupancy[:n] = above.occupancy
        after, before = self.occupancy, first.occupancy
        after.density[:n], after.seen[:n], after.steps[:n] = before.density, before.seen, before.steps
        self.optimizer.first_tied = n
        self.appearance.load_state_dict(first.appearance.state_dict())

    def use_points(self) -> str:
        if self.restricted:
            self.occupancy.restrict(self.near_points())
        return "as the levels above"

    def draw(self) -> tuple[RayBatch, PackedSamples]:
        """Rays that have a sample in this rank's nodes; after TRIES batches without, a batch that trains nothing."""
        for _ in range(TRIES):
            batch, samples = super().draw()
            own = samples.ray_indices[samples.node >= self.n_shared].long()
            crossing = torch.zeros(len(batch.cones), dtype=torch.bool, device=own.device)
            crossing[own] = True
            if crossing.any():
                return _some_rays(batch, samples, crossing)
        return batch, samples

    def trained(self, inputs: LossInputs) -> Tensor:
        nodes = super().trained(inputs)
        return nodes[nodes >= self.n_shared]

    def prunable(self, unused: Tensor) -> Tensor:
        tops = super().prunable(unused)
        return tops[tops >= self.n_shared]


def _some_rays(batch: RayBatch, samples: PackedSamples, kept: Tensor) -> tuple[RayBatch, PackedSamples]:
    number = kept.cumsum(0) - 1  # of a ray among those kept
    chosen = samples.select(kept[samples.ray_indices.long()])
    rays = number[chosen.ray_indices.long()].to(samples.ray_indices.dtype)
    return RayBatch(**{name: value[kept] for name, value in vars(batch).items()}), replace(chosen, ray_indices=rays)
