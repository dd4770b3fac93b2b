"""Trains an InfNeRF: octree from points, image pyramid, radius perturbation, occupancy, Adam. `infnerf train`.

Every ray carries its own pixel's footprint, so a coarse image supervises coarse levels; each sample's radius is
perturbed by 2**u, u uniform in [-0.5, 0.5] (InfNeRF, section 3), so that neighbouring levels learn the same scene.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..data.pyramid import ImagePyramid
from ..models.checkpoint import Checkpoint, camera_to_entry
from ..models.infnerf import InfNeRF
from ..models.marching import MarchSettings, PackedSamples
from ..models.octree import lone_root
from .config import SCALES, StepRecord, TrainerConfig, node_budget
from .growth import Demand, grown, octant_values, octants
from .losses import psnr, rgb_loss
from .occupancy import OccupancyUpdater, over_cubes
from .optimizer import NodeAdam
from .point_prior import cells_near_points
from .sampling import Sampling, make_sampling

MAX_SAMPLES_PER_RAY = 768
MIN_TRANSMITTANCE = 1e-4  # samples that less light reaches get no gradient
MIN_COVERAGE = 0.999  # of opaque pixels must see points' cells for points to restrict occupancy
FINER_SHARE, FINER_LEVELS = 0.3, 4.0  # of rays; levels: see `Trainer.finer`
REFRESH_EVERY = 16  # steps between occupancy refreshes
REFRESH_PARTS = 4  # a refresh measures this part of the nodes, ...
REFRESH_NODES = 32  # ... at most so many, so that its cost does not grow with the tree
VOTE_EVERY = 4  # steps between batches that vote for growth
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
        min_points=config.min_points, max_nodes=node_budget(config, model.config, len(data.cameras)),
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
    """One training run: `train()`, or `step()` as often as wanted, then `checkpoint()`."""

    def __init__(self, model: InfNeRF, train_set: Dataset, config: TrainerConfig) -> None:
        """A model that was not placed yet takes the tree that the data ask for."""
        self.config, self.data, self.model = config, train_set, model
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.pyramid = ImagePyramid.load(
            train_set, SCALES, config.downscale, budget_bytes=config.image_bytes, seed=config.seed
        )
        if not model.placed:
            place_model(model, train_set, config)
        self.sampling: Sampling
        self.sampling, self.sampling_name = make_sampling(model)
        self.occupancy = OccupancyUpdater(model, self.sampling, config.seed)
        self.optimizer = NodeAdam(model, config.adam, self.sampling.kernels)
        self.demand = Demand(model.octree)
        self.growths = list(self._growth_schedule())
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
        room = node_budget(self.config, self.model.config, len(self.data.cameras)) - self.model.octree.n_nodes
        share = room if not self.growths else -(-room // 2)
        node, octant = self.demand.choose(self.model.octree, share, self.config.max_depth)
        if len(node):
            density = self.occupancy.density
            model, source = grown(self.model, node, octant, self.generator)
            new = (source < 0).nonzero()[:, 0]
            parent = source[model.octree.parent.long()[new]]
            resolution = model.config.occupancy_resolution
            above = over_cubes(model, density[parent], parent)
            inherited = octant_values(above, octants(model.octree, new), resolution)
            self.adopt(model, source, inherited)
        self.demand = Demand(self.model.octree)
        return len(node)

    def adopt(self, model: InfNeRF, source: Tensor, inherited: Tensor) -> None:
        """Goes on with another tree: sampler, occupancy and optimiser state follow the nodes.

        `self.model` stays the same object and takes up `model`'s tree and parameters.
        """
        self.model.take(model)
        self.sampling, self.sampling_name = make_sampling(self.model)
        self.occupancy.follow(self.model, self.sampling, source, inherited)
        if self.occupancy.allowed is not None and self.data.points is not None:
            self.occupancy.allowed = cells_near_points(self.model, torch.from_numpy(self.data.points.xyz))
        self.optimizer.follow(self.model, source)

    def rate(self, fraction: float) -> float:
        """Factor on the learning rates at a fraction of the run: a short warm-up, then exponential decay."""
        return min(1.0, (self.steps_done + 1) / WARM_UP) * self.config.final_rate**fraction

    def render(
        self, origins: Tensor, directions: Tensor, cones: Tensor, counters: Tensor
    ) -> tuple[Tensor, PackedSamples]:
        """Premultiplied RGBA [n, 4] of rays with world `origins`, and their samples; jittered by the step."""
        settings = MarchSettings(frame=self.steps_done + 1)
        samples = self.sampling.march(
            self.model.to_local(origins), directions, cones, counters, settings, MAX_SAMPLES_PER_RAY
        )
        sigmas, rgb = self.sampling.field(samples, directions)
        if self.growths and self.steps_done % VOTE_EVERY == 0:
            demand = self.demand
            rgb.register_hook(lambda gradient: demand.add(samples, gradient))
        return self.sampling.composite(sigmas, rgb, samples, len(cones), MIN_TRANSMITTANCE), samples

    def finer(self, n: int) -> Tensor:
        """Factors [n] on the cones: most rays are answered at their own level, some up to FINER_LEVELS below it.

        Without these a node that no camera sees at its own level would keep its initial weights and show as noise from
        close by; with them it learns at least what its parent knows.
        """
        chosen = torch.rand(n, generator=self.generator) < FINER_SHARE
        return torch.exp2(-FINER_LEVELS * torch.rand(n, generator=self.generator) * chosen)

    def step(self, fraction: float) -> StepRecord:
        """One optimiser step, at `fraction` of the whole run."""
        n = self.n_rays
        batch = self.pyramid.draw_mixed(n, self.generator)
        counters = torch.randint(1 << 31, (n,), generator=self.generator)
        background = torch.rand(n, 3, generator=self.generator)
        cones = batch.cones * self.finer(n)
        prediction, samples = self.render(batch.rays_o, batch.rays_d, cones, counters)
        loss, error = rgb_loss(prediction, batch.rgba, background, "linear", batch.weight)
        loss.backward()
        nodes, rate = self.occupancy.count(samples), self.rate(fraction)
        active = torch.bincount(self.model.octree.level[nodes]).tolist()  # before the tree grows
        self.optimizer.step(nodes, rate)
        if self.growths and fraction >= self.growths[0]:
            self.growths.pop(0)
            self.grow()
        self.steps_done += 1
        full_size = float(error[: n // 2].mean())  # finest scale first
        self.running_mse += (full_size - self.running_mse) * 0.03
        wanted = n * self.config.samples_per_step / max(len(samples), 1)
        self.n_rays = int(min(max(wanted, n / 1.3, 256), n * 1.3, 65536))
        if self.steps_done % REFRESH_EVERY == 0:
            self.occupancy.refresh(min(-(-self.model.octree.n_nodes // REFRESH_PARTS), REFRESH_NODES))
        value = float(loss.detach())
        return StepRecord(
            self.steps_done, fraction, self.seconds, n, len(samples), len(nodes), value, {"rgb": value},
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
        """What is saved: half precision, with the occupancy measured anew. Changes nothing of the run."""
        model = self.model
        tables = model.tables.detach().clamp(-65000, 65000).half()
        mlp = model.mlp.detach().clamp(-65000, 65000).half()
        notes = {"step": self.steps_done, "seed": self.config.seed, "downscale": self.config.downscale}
        field = {"tables": tables, "mlp": mlp, "occupancy": self.occupancy.finished()}
        return Checkpoint("infnerf", model.config, model.octree, field, model.scene, {}, notes)
