"""Trains an InfNeRF: octree from points, image pyramid, radius perturbation, occupancy, Adam. `infnerf train`.

Every ray carries its own pixel's footprint, so a coarse image supervises coarse levels; each sample's radius is
perturbed by 2**u, u uniform in [-0.5, 0.5] (InfNeRF, section 3), so that neighbouring levels learn the same scene.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.dataset import Dataset
from ..data.pyramid import RayBatch
from ..models.appearance import fold_appearance
from ..models.capacity import compact
from ..models.checkpoint import Checkpoint
from ..models.config import InfNeRFConfig
from ..models.infnerf import InfNeRF, default_scene
from ..models.marching import MarchSettings, PackedSamples
from ..models.octree import Octree, build_octree, lone_root
from ..renderer.cuda_samples import to_device
from .appearance import Appearance
from .base import BaseTrainer, scene_of
from .config import StepRecord, TrainerConfig, node_budget
from .device import batch_on, training_device
from .growth import Demand, grown, octant_values, octants
from .loss_terms import total_loss
from .losses import LossInputs, psnr
from .occupancy import OccupancyUpdater, over_cubes
from .octree_picture import octree_picture
from .optimizer import NodeAdam
from .point_prior import cells_in, voxels_near_points
from .pruning import Use, prunable, prune_schedule, pruned
from .sampling import MAX_SAMPLES_PER_RAY, MIN_TRANSMITTANCE, Sampling, make_sampling
from .shards import Shard
from .team import Team

MIN_COVERAGE = 0.999  # of opaque pixels must see points' cells for points to restrict occupancy
FINER_SHARE, FINER_LEVELS = 0.1, 4.0  # of rays; levels: see `Trainer.finer`
LONG_STEP = 2.0  # times a step of rendering, in the first part of a run
REFRESH_EVERY = 16  # steps between occupancy refreshes
REFRESH_PARTS = 4  # a refresh measures this part of the nodes, ...
REFRESH_NODES = 32  # ... at most so many, so that its cost does not grow with the tree
VOTE_EVERY = 4  # steps between batches that vote for growth and count use
GROWTH_WITHOUT_POINTS = (0.02, 0.04, 0.06, 0.09, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4)  # fractions of the run, ...
GROWTH_STEPS = 60  # ... with at least so many steps before each: children of a parent that knows nothing learn slowly
WARM_UP = 50  # steps until the learning rate is whole


def plan_tree(config: TrainerConfig, model: InfNeRFConfig, data: Dataset) -> Octree:
    """The tree that the sparse points ask for, within `max_bytes`; without points the root alone, which grows."""
    corner, size = np.asarray(data.scene["root_corner"], np.float64), float(data.scene["root_size"])
    if not has_points(data):
        return lone_root(corner, size)
    assert data.points is not None
    return build_octree(
        data.points.xyz, data.points.footprint * config.downscale, corner, size, model.resolution, config.min_points,
        max_depth=config.max_depth, max_cost=node_budget(config, model, len(data.cameras)), cost=model.node_cost,
    )  # fmt: skip


def place_model(model: InfNeRF, data: Dataset, config: TrainerConfig) -> None:
    """Gives a model the tree that the data ask for."""
    model.place(plan_tree(config, model.config, data), scene_of(data))


def has_points(data: Dataset) -> bool:
    return data.points is not None and len(data.points.xyz) > 0


class Trainer(BaseTrainer[InfNeRF]):
    """One run that trains an InfNeRF."""

    def __init__(
        self, model: InfNeRF, train_set: Dataset, config: TrainerConfig | None = None, team: Team | None = None,
        shard: Shard | None = None,
    ) -> None:  # fmt: skip
        """A model that was not placed yet takes the tree that the data ask for, and one that knows nothing of its scene
        what the data tell of it. Without a config a run takes 20 minutes.

        `team`: the processes that train replicas of this model; None: this one alone. `shard`: the images that this one
        draws from; None: its share among the team's.
        """
        config = config or TrainerConfig(minutes=20)
        super().__init__(model, train_set, config, team, shard)
        self.device = training_device(config.device)
        if not model.placed:
            place_model(model, train_set, config)
        elif model.scene == default_scene(model.octree):
            model.scene = model.scene | scene_of(train_set)
        if not model.tables.requires_grad:
            model.make_trainable()
        model.to(self.device)
        self.sampling: Sampling
        self.sampling, self.sampling_name = make_sampling(model)
        self.occupancy = OccupancyUpdater(model, self.sampling, config.seed)
        self.optimizer = NodeAdam(model, config.adam, self.sampling.kernels)
        self.appearance = Appearance(len(train_set), model.config.appearance_dim, self.device)
        self.demand = Demand(model.octree)
        self.growths = list(self._growth_schedule())
        self.grown_at = 0  # the step of the last growth
        self.use = Use(model.octree.n_nodes)
        self.prunes = list(prune_schedule(config.octree_prune_schedule))
        points = has_points(train_set)
        self.prior = self.use_points() if points else "no points: the tree grows where the images ask for it"

    @functools.cached_property
    def _voxels(self) -> Tensor:
        """What sparse points allow of the root, which stays the same however its tree grows."""
        assert self.data.points is not None  # who asks has asked has_points
        return voxels_near_points(self.model.to_local(torch.from_numpy(self.data.points.xyz).double()))

    def near_points(self) -> Tensor:
        """Occupancy cells [n_nodes, cells] that sparse points allow."""
        return cells_in(self.model, self._voxels)

    def use_points(self) -> str:
        """Restricts occupancy to what is near sparse points, unless opaque pixels contradict.

        Returns a phrase that says what it did.
        """
        self.occupancy.restrict(self.near_points())
        origins, directions, cones, rgba = self.pyramid.sample_rays(0, 20_000, torch.Generator().manual_seed(0))
        opaque = (rgba[:, 3] > 0.99).nonzero()[:, 0]
        rays = self.model.to_local(origins[opaque]), directions[opaque], cones[opaque], torch.arange(len(opaque))
        local, directions, cones, counters = (to_device(values, self.device) for values in rays)
        samples = self.sampling.march(local, directions, cones, counters, MarchSettings(), MAX_SAMPLES_PER_RAY)
        meeting, seen = self.team.totals([len(samples.ray_indices.unique()), len(opaque)])
        coverage = meeting / max(seen, 1)
        if coverage >= MIN_COVERAGE:
            return f"matter only near points ({100 * coverage:.2f} % of opaque pixels agree)"
        self.occupancy.restrict(None)
        return f"points too sparse to restrict matter ({100 * coverage:.2f} % of opaque pixels agree)"

    def _growth_schedule(self) -> tuple[float, ...]:
        if self.config.octree_growth_schedule is not None:
            return tuple(sorted(self.config.octree_growth_schedule))
        return () if has_points(self.data) else GROWTH_WITHOUT_POINTS

    def grow(self) -> int:
        """Splits the leaves that samples ask to be split, within the node budget. Returns the number of new nodes.

        Half of the room that is left, until the last growth of the schedule takes the rest.
        """
        cost, octree = self.model.config.node_cost, self.model.octree
        room = node_budget(self.config, self.model.config, len(self.data.cameras))
        room -= sum(n * cost(level) for level, n in enumerate(octree.level_counts()))
        share = room if not self.growths else room // 2
        node, octant = self.demand.choose(octree, share, self.config.max_depth, cost, self.team)
        self.split(node, octant)
        self.demand = Demand(self.model.octree)
        return len(node)

    def split(self, node: Tensor, octant: Tensor) -> None:
        """Gives nodes [k] children in their octants [k] that look like them."""
        if not len(node):
            return
        density = self.occupancy.density
        generator = torch.Generator().manual_seed(self.config.seed + self.steps_done)  # the same on all ranks
        model, source = grown(self.model, node, octant, generator)
        new = (source < 0).nonzero()[:, 0]
        if self.device.type == "cuda":  # sums by atomics differ in their last bits from rank to rank
            for rows in (model.tables.data, model.mlp.data):
                rows[new] = self.team.broadcast(rows[new])
        parent = source[model.octree.parent.long()[new]]
        above = over_cubes(model, density[parent], parent)
        inherited = octant_values(above, octants(model.octree, new), model.config.occupancy_resolution)
        self.adopt(model, source, inherited)

    def keep_schedule(self, fraction: float) -> None:
        """Changes the tree where the run is far enough: prunes it, or grows it by what the images ask for."""
        if self.prunes and fraction >= self.prunes[0]:  # first, so that growth has the room
            self.prunes.pop(0)
            self.prune()
        patience = GROWTH_STEPS if self.config.octree_growth_schedule is None else 0
        if self.growths and fraction >= self.growths[0] and self.steps_done - self.grown_at >= patience:
            self.growths = [later for later in self.growths if later > fraction]  # those missed are one with this
            self.grown_at = self.steps_done
            self.grow()

    def prune(self) -> int:
        """Drops the subtrees that hold nothing or that nobody sees. Returns by how many nodes the tree shrank."""
        before = self.model.octree.n_nodes
        self.use.collect(self.team)
        unused = self.team.broadcast(self.use.unused(self.optimizer.steps["tables"]).byte()).bool()
        tops = self.prunable(unused)
        if len(tops):
            self.adopt(*pruned(self.model, tops), self.occupancy.density[:0])
        self.use = Use(self.model.octree.n_nodes)
        return before - self.model.octree.n_nodes

    def prunable(self, unused: Tensor) -> Tensor:
        """The topmost nodes [k] of subtrees that can go."""
        return prunable(self.model, self.occupancy, unused)

    def adopt(self, model: InfNeRF, source: Tensor, inherited: Tensor) -> None:
        """Goes on with another tree: sampler, occupancy, optimiser state, votes and use follow the nodes.

        `self.model` stays the same object and takes up `model`'s tree and parameters.
        """
        self.model.take(model.to(self.device))
        self.sampling, self.sampling_name = make_sampling(self.model)
        allowed = None if self.occupancy.allowed is None else self.near_points()
        self.occupancy.follow(self.model, self.sampling, source, inherited, allowed)
        self.optimizer.follow(self.model, source)
        self.demand.follow(source)
        self.use.follow(source)

    def rate(self, fraction: float) -> float:
        """Factor on the learning rates at a fraction of the run: a short warm-up, then exponential decay."""
        return min(1.0, (self.steps_done + 1) / WARM_UP) * self.config.final_rate**fraction

    def draw(self) -> tuple[RayBatch, PackedSamples]:
        """The rays of a step, each with the cone that it is rendered with, and their samples, jittered by the step.

        While there is still fog where surfaces will be, steps twice as long see it as well.
        """
        n = self.n_rays
        self.seed_rays()
        batch = self.shard.renumbered(self.pyramid.draw_mixed(n, self.generator))
        counters = torch.randint(1 << 31, (n,), generator=self.generator)
        batch = replace(batch, cones=batch.cones * self.finer(n))
        local = to_device(self.model.to_local(batch.rays_o), self.device)
        batch, counters = batch_on(batch, self.device), to_device(counters, self.device)
        step_scale = LONG_STEP if self.fraction < self.config.long_steps_share else 1.0
        settings = MarchSettings(frame=self.steps_done + 1, step_scale=step_scale)
        samples = self.sampling.march(local, batch.rays_d, batch.cones, counters, settings, MAX_SAMPLES_PER_RAY)
        return batch, samples

    def render(self, batch: RayBatch, samples: PackedSamples) -> LossInputs:
        """What the losses look at: a batch's rays rendered over random backgrounds."""
        background = to_device(torch.rand(len(batch.cones), 3, generator=self.generator), self.device)
        sigmas, rgb = self.sampling.field(samples, batch.rays_d, self.appearance.of(batch.image))
        if self.steps_done % VOTE_EVERY == 0:
            for counted, left in ((self.demand, self.growths), (self.use, self.prunes)):
                if left:
                    rgb.register_hook(lambda gradient, add=counted.add: add(samples, gradient))
        prediction = self.sampling.composite(sigmas, rgb, samples, len(batch.cones), MIN_TRANSMITTANCE)
        return LossInputs(
            prediction, batch, background, "linear", samples, sigmas, rgb, self.model, self.sampling, self.generator,
            self.steps_done + 1, self.pyramid.cameras[0], self.data.points,
        )  # fmt: skip

    def trained(self, inputs: LossInputs) -> Tensor:
        """The nodes [n] that a batch steps, on all ranks together."""
        return self.occupancy.count(inputs.samples, inputs.nodes, self.team)

    def finer(self, n: int) -> Tensor:
        """Factors [n] on the cones: most rays are answered at their own level, some up to FINER_LEVELS below it.

        Without these a node that no camera sees at its own level would keep its initial weights and show as noise from
        close by; with them it learns at least what its parent knows.
        """
        chosen = torch.rand(n, generator=self.generator) < FINER_SHARE
        return torch.exp2(-FINER_LEVELS * torch.rand(n, generator=self.generator) * chosen)

    def step(self, fraction: float | None = None) -> StepRecord:
        fraction = self.begin_step(fraction)
        batch, samples = self.draw()
        inputs = self.render(batch, samples)
        loss, parts = total_loss(inputs, self.config.losses)
        loss.backward()
        nodes, rate = self.trained(inputs), self.rate(fraction)
        self.team.average_gradients((self.model.tables, self.model.mlp), nodes)
        active = torch.bincount(self.model.octree.level[nodes]).tolist()  # before the tree changes
        self.optimizer.step(nodes, rate, tied=fraction < self.config.tied_share)
        self.appearance.step(rate, self.team)
        self.keep_schedule(fraction)
        self.steps_done += 1
        errors = inputs.error.detach()[batch.scale == 0].square()
        own = [len(samples), float(errors.sum()), errors.numel(), len(batch.cones)]
        own += [float(part.detach()) for part in parts.values()]
        taken, squares, n_errors, n_rays, *values = self.team.totals(own)
        self.running_mse += (squares / n_errors - self.running_mse) * 0.03 if n_errors else 0.0
        n, wanted = self.n_rays, self.n_rays * self.config.samples_per_step * self.team.size / max(taken, 1)
        self.n_rays = int(min(max(wanted, n / 1.3, 256), n * 1.3, 65536))
        if self.steps_done % REFRESH_EVERY == 0:
            self.occupancy.refresh(min(-(-self.model.octree.n_nodes // REFRESH_PARTS), REFRESH_NODES))
        means = {name: value / self.team.size for name, value in zip(parts, values, strict=True)}
        return StepRecord(
            self.steps_done, fraction, self.seconds, round(n_rays), round(taken), len(nodes), sum(means.values()),
            means, psnr(self.running_mse), rate, self.rays_per_second, tuple(active),
        )  # fmt: skip

    def collect(self) -> None:
        self.demand.collect(self.team)
        self.use.collect(self.team)

    def checkpoint(self) -> Checkpoint:
        """What is saved: half precision, in the mean appearance, with the occupancy measured anew. Changes nothing
        of the run."""
        model = self.model
        tables = model.tables.detach().clamp(-65000, 65000).half().cpu()
        config, mlp = fold_appearance(model.config, model.mlp.detach().cpu(), self.appearance.mean.cpu())
        mlp = mlp.clamp(-65000, 65000).half()
        notes = {"step": self.steps_done, "seed": self.config.seed, "downscale": self.config.downscale}
        tables, mlp = compact(config, model.octree, tables, mlp)
        field = {"tables": tables, "mlp": mlp, "occupancy": self.occupancy.finished().cpu()}
        return Checkpoint("infnerf", config, model.octree, field, model.scene, {}, notes)

    def summary(self) -> str:
        counts, millions = self.model.octree.level_counts(), self.model.n_parameters / 1e6
        return (
            f"{self.model.octree.n_nodes} nodes on levels {counts}, {millions:.1f} M parameters; "
            f"{'a background; ' * self.model.config.background}{self.sampling_name}; {self.prior}"
        )

    def identity(self) -> dict[str, Any]:
        return {"model": self.model.config.to_dict(), "samples_per_step": self.config.samples_per_step}

    def numbers(self, record: StepRecord) -> dict[str, float]:
        """The tree, the nodes that were stepped, and their rates."""
        octree, adam = self.model.octree, self.config.adam
        levels = range(octree.depth + 1) if adam.level_rate != 1 else (0,)
        rates = {"tables": adam.table_rate, "mlp": adam.mlp_rate}
        return {
            "octree/nodes": octree.n_nodes,
            "octree/depth": octree.depth,
            **{f"octree/level_{level}": count for level, count in enumerate(octree.level_counts())},
            **{f"active/level_{level}": count for level, count in enumerate(record.active)},
            **{
                f"rate/{name}_level_{level}": rate * adam.level_rate**level * record.rate
                for name, rate in rates.items()
                for level in levels
            },
        }

    def pictures(self, title: str) -> dict[str, NDArray[np.uint8]]:
        return {"octree": octree_picture(self.model, title)}

    def state(self) -> dict[str, Any]:
        model = self.model
        return {
            "octree": dict(vars(model.octree)),
            "tables": model.tables.data,
            "mlp": model.mlp.data,
            "optimizer": self.optimizer.state_dict(),
            "occupancy": {"words": model.occupancy, **self.occupancy.state_dict()},
            "appearance": self.appearance.state_dict(),
            "votes": self.demand.votes,
            "growths": list(self.growths),
            "grown_at": self.grown_at,
            "use": self.use.state_dict(),
            "prunes": list(self.prunes),
        }

    def restore(self, state: dict[str, Any]) -> None:
        octree = Octree(**state["octree"])
        words = state["occupancy"]["words"]
        model = InfNeRF(self.model.config, octree, state["tables"], state["mlp"], words, self.model.scene)
        anyone = torch.zeros(octree.n_nodes, dtype=torch.long)  # arrays of the right size, whose contents follow below
        self.adopt(model, anyone, self.occupancy.density[:0])
        self.optimizer.load_state_dict(state["optimizer"])
        self.occupancy.load_state_dict(state["occupancy"])
        self.appearance.load_state_dict(state["appearance"])
        self.demand.votes = state["votes"]
        self.growths = [float(fraction) for fraction in state["growths"]]
        self.grown_at = int(state["grown_at"])
        self.use.load_state_dict(state["use"])
        if not self.team.leads:  # rank 0 has what all have counted
            for counts in (self.demand.votes, self.use.asked, self.use.trained):
                counts.zero_()
        self.prunes = [float(fraction) for fraction in state["prunes"]]
