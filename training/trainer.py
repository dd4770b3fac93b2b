"""Trains an InfNeRF: octree from points, image pyramid, radius perturbation, occupancy, Adam. `infnerf train`.

Every ray carries its own pixel's footprint, so a coarse image supervises coarse levels; each sample's radius is
perturbed by 2**u, u uniform in [-0.5, 0.5] (InfNeRF, section 3), so that neighbouring levels learn the same scene.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..data.pyramid import ImagePyramid, RayBatch
from ..models.appearance import fold_appearance
from ..models.capacity import compact
from ..models.checkpoint import Checkpoint, camera_to_entry, save_checkpoint
from ..models.infnerf import InfNeRF, default_scene
from ..models.marching import MarchSettings
from ..models.octree import lone_root
from .appearance import Appearance
from .config import SCALES, StepRecord, TrainerConfig, node_budget
from .growth import Demand, grown, octant_values, octants
from .loss_terms import total_loss
from .losses import LossInputs, psnr
from .occupancy import OccupancyUpdater, over_cubes
from .optimizer import NodeAdam
from .point_prior import cells_near_points
from .pruning import Use, prunable, prune_schedule, pruned
from .resume import restore_state, resume_path, save_state
from .sampling import MAX_SAMPLES_PER_RAY, MIN_TRANSMITTANCE, Sampling, make_sampling

MIN_COVERAGE = 0.999  # of opaque pixels must see points' cells for points to restrict occupancy
FINER_SHARE, FINER_LEVELS = 0.3, 4.0  # of rays; levels: see `Trainer.finer`
REFRESH_EVERY = 16  # steps between occupancy refreshes
REFRESH_PARTS = 4  # a refresh measures this part of the nodes, ...
REFRESH_NODES = 32  # ... at most so many, so that its cost does not grow with the tree
VOTE_EVERY = 4  # steps between batches that vote for growth and count use
GROWTH_WITHOUT_POINTS = (0.02, 0.04, 0.06, 0.09, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4)  # fractions of the run
WARM_UP = 50  # steps until the learning rate is whole


def place_model(model: InfNeRF, data: Dataset, config: TrainerConfig) -> None:
    """Gives a model the tree that the sparse points ask for, within `max_bytes`; without points the root alone, which
    grows."""
    scene = data.scene
    corner, size = np.asarray(scene["root_corner"], np.float64), float(scene["root_size"])
    if not has_points(data):
        model.place(lone_root(corner, size), scene_of(data))
        return
    assert data.points is not None
    model.build_octree(
        data.points.xyz, data.points.footprint * config.downscale, corner=corner, root_size=size,
        min_points=config.min_points, max_bytes=node_budget(config, model.config, len(data.cameras)),
        max_depth=config.max_depth, scene=scene_of(data),
    )  # fmt: skip


def has_points(data: Dataset) -> bool:
    return data.points is not None and len(data.points.xyz) > 0


def scene_of(data: Dataset) -> dict[str, Any]:
    """The checkpoint's `scene`: where and how big, and the cameras it was seen from."""
    cameras = [camera_to_entry(name, camera) for name, camera in zip(data.names, data.cameras, strict=True)]
    kept = {key: data.scene[key] for key in ("up", "unit", "aabb", "transform") if key in data.scene}
    return {**kept, "cameras": cameras, "color_space": "linear", "background": [0.62, 0.74, 0.87]}


class Trainer:
    """One training run: `train()`, or `step()` as often as wanted, then `save(path)` or `checkpoint()`."""

    def __init__(self, model: InfNeRF, train_set: Dataset, config: TrainerConfig | None = None) -> None:
        """A model that was not placed yet takes the tree that the data ask for, and one that knows nothing of its scene
        what the data tell of it. Without a config a run takes 20 minutes."""
        self.config = config = config or TrainerConfig(minutes=20)
        self.data, self.model = train_set, model
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.pyramid = ImagePyramid.load(
            train_set, SCALES, config.downscale, budget_bytes=config.image_bytes, seed=config.seed
        )
        if not model.placed:
            place_model(model, train_set, config)
        elif model.scene == default_scene(model.octree):
            model.scene = model.scene | scene_of(train_set)
        if not model.tables.requires_grad:
            model.make_trainable()
        self.sampling: Sampling
        self.sampling, self.sampling_name = make_sampling(model)
        self.occupancy = OccupancyUpdater(model, self.sampling, config.seed)
        self.optimizer = NodeAdam(model, config.adam, self.sampling.kernels)
        self.appearance = Appearance(len(train_set), model.config.appearance_dim)
        self.demand = Demand(model.octree)
        self.growths = list(self._growth_schedule())
        self.use = Use(model.octree.n_nodes)
        self.prunes = list(prune_schedule(config.octree_prune_schedule))
        self.steps_done = 0
        self.n_rays = 512
        points = has_points(train_set)
        self.prior = self.use_points() if points else "no points: the tree grows where the images ask for it"
        self.running_mse = 0.1
        self.seconds, self.seconds_before, self.rays = 0.0, 0.0, 0  # of the run; before this process; drawn by it

    def use_points(self) -> str:
        """Restricts occupancy to what is near sparse points, unless opaque pixels contradict.

        Returns a phrase that says what it did.
        """
        assert self.data.points is not None  # __init__ has asked has_points
        self.occupancy.restrict(cells_near_points(self.model, torch.from_numpy(self.data.points.xyz)))
        origins, directions, cones, rgba = self.pyramid.sample_rays(0, 20_000, torch.Generator().manual_seed(0))
        opaque = (rgba[:, 3] > 0.99).nonzero()[:, 0]
        rays = self.model.to_local(origins[opaque]), directions[opaque], cones[opaque], torch.arange(len(opaque))
        samples = self.sampling.march(*rays, MarchSettings(), MAX_SAMPLES_PER_RAY)
        coverage = len(samples.ray_indices.unique()) / max(len(opaque), 1)
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
        node, octant = self.demand.choose(octree, share, self.config.max_depth, cost)
        self.split(node, octant)
        self.demand = Demand(self.model.octree)
        return len(node)

    def split(self, node: Tensor, octant: Tensor) -> None:
        """Gives nodes [k] children in their octants [k] that look like them."""
        if not len(node):
            return
        density = self.occupancy.density
        model, source = grown(self.model, node, octant, self.generator)
        new = (source < 0).nonzero()[:, 0]
        parent = source[model.octree.parent.long()[new]]
        above = over_cubes(model, density[parent], parent)
        inherited = octant_values(above, octants(model.octree, new), model.config.occupancy_resolution)
        self.adopt(model, source, inherited)

    def keep_schedule(self, fraction: float) -> None:
        """Changes the tree where the run is far enough: prunes it, or grows it by what the images ask for."""
        if self.prunes and fraction >= self.prunes[0]:  # first, so that growth has the room
            self.prunes.pop(0)
            self.prune()
        if self.growths and fraction >= self.growths[0]:
            self.growths.pop(0)
            self.grow()

    def prune(self) -> int:
        """Drops the subtrees that hold nothing or that nobody sees. Returns by how many nodes the tree shrank."""
        before = self.model.octree.n_nodes
        tops = prunable(self.model, self.occupancy, self.use.unused(self.optimizer.steps["tables"]))
        if len(tops):
            self.adopt(*pruned(self.model, tops), self.occupancy.density[:0])
        self.use = Use(self.model.octree.n_nodes)
        return before - self.model.octree.n_nodes

    def adopt(self, model: InfNeRF, source: Tensor, inherited: Tensor) -> None:
        """Goes on with another tree: sampler, occupancy, optimiser state, votes and use follow the nodes.

        `self.model` stays the same object and takes up `model`'s tree and parameters.
        """
        self.model.take(model)
        self.sampling, self.sampling_name = make_sampling(self.model)
        allowed = None
        if self.occupancy.allowed is not None and self.data.points is not None:
            allowed = cells_near_points(self.model, torch.from_numpy(self.data.points.xyz))
        self.occupancy.follow(self.model, self.sampling, source, inherited, allowed)
        self.optimizer.follow(self.model, source)
        self.demand.follow(source)
        self.use.follow(source)

    def rate(self, fraction: float) -> float:
        """Factor on the learning rates at a fraction of the run: a short warm-up, then exponential decay."""
        return min(1.0, (self.steps_done + 1) / WARM_UP) * self.config.final_rate**fraction

    def render(self, batch: RayBatch, cones: Tensor, background: Tensor, counters: Tensor) -> LossInputs:
        """What the losses look at: a batch's rays rendered with `cones` [n], jittered by the step."""
        settings = MarchSettings(frame=self.steps_done + 1)
        samples = self.sampling.march(
            self.model.to_local(batch.rays_o), batch.rays_d, cones, counters, settings, MAX_SAMPLES_PER_RAY
        )
        sigmas, rgb = self.sampling.field(samples, batch.rays_d, self.appearance.of(batch.image))
        if self.steps_done % VOTE_EVERY == 0:
            for counted, left in ((self.demand, self.growths), (self.use, self.prunes)):
                if left:
                    rgb.register_hook(lambda gradient, add=counted.add: add(samples, gradient))
        prediction = self.sampling.composite(sigmas, rgb, samples, len(cones), MIN_TRANSMITTANCE)
        return LossInputs(
            prediction, batch, background, "linear", samples, sigmas, rgb, self.model, self.sampling, self.generator,
            settings.frame, self.pyramid.cameras[0], self.data.points,
        )  # fmt: skip

    def finer(self, n: int) -> Tensor:
        """Factors [n] on the cones: most rays are answered at their own level, some up to FINER_LEVELS below it.

        Without these a node that no camera sees at its own level would keep its initial weights and show as noise from
        close by; with them it learns at least what its parent knows.
        """
        chosen = torch.rand(n, generator=self.generator) < FINER_SHARE
        return torch.exp2(-FINER_LEVELS * torch.rand(n, generator=self.generator) * chosen)

    def step(self, fraction: float | None = None) -> StepRecord:
        """One optimiser step, at `fraction` of the whole run; None: as far as the config's `steps` or `minutes` are."""
        if fraction is None:
            fraction = self.config.fraction(self.steps_done, self.seconds)
        n = self.n_rays
        batch = self.pyramid.draw_mixed(n, self.generator)
        counters = torch.randint(1 << 31, (n,), generator=self.generator)
        background = torch.rand(n, 3, generator=self.generator)
        inputs = self.render(batch, batch.cones * self.finer(n), background, counters)
        loss, parts = total_loss(inputs, self.config.losses)
        loss.backward()
        samples, rate = inputs.samples, self.rate(fraction)
        nodes = self.occupancy.count(samples)
        if inputs.nodes:
            nodes = torch.cat([nodes, *inputs.nodes]).unique()
        active = torch.bincount(self.model.octree.level[nodes]).tolist()  # before the tree changes
        self.optimizer.step(nodes, rate, tied=fraction < self.config.tied_share)
        self.appearance.step(rate)
        self.keep_schedule(fraction)
        self.steps_done += 1
        full_size = float(inputs.error.detach()[: n // 2].square().mean(-1).mean())  # finest scale first
        self.running_mse += (full_size - self.running_mse) * 0.03
        wanted = n * self.config.samples_per_step / max(len(samples), 1)
        self.n_rays = int(min(max(wanted, n / 1.3, 256), n * 1.3, 65536))
        if self.steps_done % REFRESH_EVERY == 0:
            self.occupancy.refresh(min(-(-self.model.octree.n_nodes // REFRESH_PARTS), REFRESH_NODES))
        values = {name: float(part.detach()) for name, part in parts.items()}
        return StepRecord(
            self.steps_done, fraction, self.seconds, n, len(samples), len(nodes), float(loss.detach()), values,
            psnr(self.running_mse), rate, self.rays / max(self.seconds - self.seconds_before, 1e-9),
            tuple(active),
        )  # fmt: skip

    def train(
        self, watch: Callable[[StepRecord], None] = lambda _: None, stop: Callable[[], bool] = lambda: False
    ) -> InfNeRF:
        """Steps until `steps` or `minutes` are over or `stop()` is true; `watch` sees every step. Returns the model.

        May be called again to go on. Raises `ValueError` if the config has neither `steps` nor `minutes`.
        """
        if self.config.steps is None and self.config.minutes is None:
            raise ValueError("Trainer.train: config.steps or config.minutes must be set, got neither")
        began = time.monotonic() - self.seconds
        self.seconds_before, self.rays = self.seconds, 0
        while (fraction := self.config.fraction(self.steps_done, self.seconds)) < 1 and not stop():
            record = self.step(fraction)
            self.seconds = time.monotonic() - began
            self.rays += record.rays
            watch(record)
        return self.model

    def checkpoint(self) -> Checkpoint:
        """What is saved: half precision, in the mean appearance, with the occupancy measured anew. Changes nothing
        of the run."""
        model = self.model
        tables = model.tables.detach().clamp(-65000, 65000).half()
        config, mlp = fold_appearance(model.config, model.mlp.detach(), self.appearance.mean)
        mlp = mlp.clamp(-65000, 65000).half()
        notes = {"step": self.steps_done, "seed": self.config.seed, "downscale": self.config.downscale}
        tables, mlp = compact(config, model.octree, tables, mlp)
        field = {"tables": tables, "mlp": mlp, "occupancy": self.occupancy.finished()}
        return Checkpoint("infnerf", config, model.octree, field, model.scene, {}, notes)

    def save(self, path: str | os.PathLike[str]) -> Checkpoint:
        """Writes what `resume` goes on from (`path` + ".resume"), then the checkpoint, which it returns; each whole or
        not at all. Raises `CheckpointError` or `CommandError` where that fails."""
        checkpoint = self.checkpoint()
        save_state(self, resume_path(Path(path)))  # first: a checkpoint without a state could not be gone on with
        save_checkpoint(checkpoint, path)
        return checkpoint

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Goes on with the run that `save(path)` left: same model config, data and trainer config, bit for bit.

        Raises `DatasetError` for a file that is missing, damaged or of another run.
        """
        restore_state(self, resume_path(Path(path)))
