"""Trains an InfNeRF: octree from points, image pyramid, radius perturbation, occupancy, Adam. `infnerf train`.

Every ray carries its own pixel's footprint, so a coarse image supervises coarse levels; each sample's radius is
perturbed by 2**u, u uniform in [-0.5, 0.5] (InfNeRF, section 3), so that neighbouring levels learn the same scene.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Dataset, DatasetError, load_dataset
from ..data.pyramid import ImagePyramid
from ..models.checkpoint import Checkpoint, camera_to_entry, save_checkpoint
from ..models.config import InfNeRFConfig
from ..models.infnerf import InfNeRF
from ..models.marching import MarchSettings, PackedSamples
from ..models.octree import Octree, build_octree, lone_root
from .growth import Demand, grown, octant_values, octants
from .losses import psnr, rgb_loss
from .occupancy import OccupancyUpdater
from .optimizer import AdamConfig, NodeAdam
from .point_prior import cells_near_points
from .resume import restore_state, resume_path, save_state
from .sampling import Sampling, make_sampling

SCALES = (1, 2, 4, 8)
MAX_SAMPLES_PER_RAY = 768
MIN_TRANSMITTANCE = 1e-4  # samples that less light reaches get no gradient
MIN_COVERAGE = 0.999  # of opaque pixels must see points' cells for points to restrict occupancy
FINER_SHARE, FINER_LEVELS = 0.3, 4.0  # of rays; levels: see `Trainer.finer`
REFRESH_EVERY = 16  # steps between occupancy refreshes
REFRESH_PARTS = 4  # a refresh measures this part of the nodes, ...
REFRESH_NODES = 32  # ... at most so many, so that its cost does not grow with the tree
VOTE_EVERY = 4  # steps between batches that vote for growth
GROWTH_WITHOUT_POINTS = (0.02, 0.04, 0.06, 0.09, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4)  # fractions of the run
SAVE_EVERY_S = 300
WARM_UP = 50  # steps until the learning rate is whole


@dataclass
class TrainConfig:
    """What `infnerf train` takes."""

    data: Path
    out: Path
    steps: int | None = None
    minutes: float | None = None
    resume: bool = False  # go on with the run that wrote `out`
    downscale: int = 1
    seed: int = 0
    image_bytes: int | None = None  # of memory for training images; None: all of them stay
    max_bytes: int = 16_000_000  # of the checkpoint; the octree keeps the nodes that most points ask for
    min_points: int = 12  # a child exists where more points than these ask for it
    samples_per_step: int = 1 << 18  # rays a step follow from the samples they took last
    max_depth: int = 16  # levels below the root
    octree_growth_schedule: tuple[float, ...] | None = None  # fractions of the run; None: growth only without points
    adam: AdamConfig = field(default_factory=AdamConfig)
    final_rate: float = 0.03  # of the initial learning rates, reached exponentially
    model: InfNeRFConfig = field(default_factory=InfNeRFConfig)


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows."""

    step: int
    fraction: float  # of the whole run
    psnr: float  # dB, running mean over full-size rays of training batches
    rays_per_second: float
    seconds: float


def node_budget(data: Dataset, config: TrainConfig) -> int:
    """Nodes that `max_bytes` of a checkpoint have room for."""
    overhead = 40_000 + 400 * len(data.cameras)
    return max(1, (config.max_bytes - overhead) // (config.model.node_bytes + 60))


def plan_octree(data: Dataset, config: TrainConfig) -> Octree:
    """The tree that the sparse points ask for, within `max_bytes`; without points the root alone, which grows."""
    scene, model = data.scene, config.model
    corner, size = np.asarray(scene["root_corner"], np.float64), float(scene["root_size"])
    if not has_points(data):
        return lone_root(corner, size)
    assert data.points is not None
    return build_octree(
        data.points.xyz, data.points.footprint * config.downscale, corner, size, model.resolution,
        config.min_points, node_budget(data, config), config.max_depth,
    )  # fmt: skip


def has_points(data: Dataset) -> bool:
    return data.points is not None and len(data.points.xyz) > 0


def scene_of(data: Dataset) -> dict[str, Any]:
    """The checkpoint's `scene`: where and how big, and the cameras it was seen from."""
    cameras = [camera_to_entry(name, camera) for name, camera in zip(data.names, data.cameras, strict=True)]
    kept = {key: data.scene[key] for key in ("up", "unit", "aabb", "transform") if key in data.scene}
    return {**kept, "cameras": cameras, "color_space": "linear", "background": [0.62, 0.74, 0.87]}


class Trainer:
    """One training run; `step()` as often as wanted, then `checkpoint()`."""

    def __init__(self, config: TrainConfig, data: Dataset) -> None:
        self.config, self.data = config, data
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.pyramid = ImagePyramid.load(
            data, SCALES, config.downscale, budget_bytes=config.image_bytes, seed=config.seed
        )
        self.model = InfNeRF.random(config.model, plan_octree(data, config), config.seed, scene_of(data))
        self.sampling: Sampling
        self.sampling, self.sampling_name = make_sampling(self.model)
        self.occupancy = OccupancyUpdater(self.model, self.sampling, config.seed)
        self.optimizer = NodeAdam(self.model, config.adam, self.sampling.kernels)
        self.demand = Demand(self.model.octree)
        self.growths = list(self._growth_schedule())
        self.steps_done = 0
        self.n_rays = 512
        self.prior = self.use_points() if has_points(data) else "no points: the tree grows where the images ask for it"
        self.running_mse = 0.1

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
        room = node_budget(self.data, self.config) - self.model.octree.n_nodes
        share = room if not self.growths else -(-room // 2)
        node, octant = self.demand.choose(self.model.octree, share, self.config.max_depth)
        if len(node):
            density = self.occupancy.density
            model, source = grown(self.model, node, octant, self.generator)
            new = (source < 0).nonzero()[:, 0]
            parent = source[model.octree.parent.long()[new]]
            resolution = model.config.occupancy_resolution
            inherited = octant_values(density[parent], octants(model.octree, new), resolution)
            self.adopt(model, source, inherited)
        self.demand = Demand(self.model.octree)
        return len(node)

    def adopt(self, model: InfNeRF, source: Tensor, inherited: Tensor) -> None:
        """Goes on with another tree: sampler, occupancy and optimiser state follow the nodes."""
        self.model = model
        self.sampling, self.sampling_name = make_sampling(model)
        self.occupancy.follow(model, self.sampling, source, inherited)
        if self.occupancy.allowed is not None and self.data.points is not None:
            self.occupancy.allowed = cells_near_points(model, torch.from_numpy(self.data.points.xyz))
        self.optimizer.follow(model, source)

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

    def step(self, fraction: float) -> int:
        """One optimiser step. Returns the number of rays."""
        n = self.n_rays
        batch = self.pyramid.draw_mixed(n, self.generator)
        counters = torch.randint(1 << 31, (n,), generator=self.generator)
        background = torch.rand(n, 3, generator=self.generator)
        cones = batch.cones * self.finer(n)
        prediction, samples = self.render(batch.rays_o, batch.rays_d, cones, counters)
        loss, error = rgb_loss(prediction, batch.rgba, background, "linear", batch.weight)
        loss.backward()
        self.optimizer.step(self.occupancy.count(samples), self.rate(fraction))
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
        return n

    def checkpoint(self) -> Checkpoint:
        """What is saved: half precision, with the occupancy measured anew."""
        self.occupancy.finish()
        model = self.model
        tables = model.tables.detach().clamp(-65000, 65000).half()
        mlp = model.mlp.detach().clamp(-65000, 65000).half()
        notes = {"step": self.steps_done, "seed": self.config.seed, "downscale": self.config.downscale}
        field = {"tables": tables, "mlp": mlp, "occupancy": model.occupancy.clone()}
        return Checkpoint("infnerf", self.config.model, model.octree, field, model.scene, {}, notes)

    def save(self, seconds: float) -> None:
        """Writes the checkpoint, and beside it what `--resume` goes on from. `seconds`: the run's so far."""
        save_checkpoint(self.checkpoint(), self.config.out)
        save_state(self, resume_path(self.config.out), seconds)


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C into a flag, so that a step is never cut in half; a second one interrupts as usual."""
    pressed = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def train(
    config: TrainConfig, report: Callable[[Progress], None] = lambda _: None, say: Callable[[str], None] = print
) -> Trainer:
    """Runs until `steps` or `minutes` are over or Ctrl-C is pressed, then writes `config.out`.

    Bad input raises `DatasetError`.
    """
    if not config.out.parent.is_dir():
        raise DatasetError(f"--out {config.out}: there is no folder {config.out.parent}")
    data = load_dataset(config.data)
    for warning in data.warnings:
        say(warning)
    trainer = Trainer(config, data)
    say(
        f"{len(data)} images, {trainer.model.octree.n_nodes} nodes on levels {trainer.model.octree.level_counts()}, "
        f"{trainer.model.n_parameters / 1e6:.1f} M parameters; {trainer.sampling_name}; {trainer.prior}"
    )
    state = resume_path(config.out)
    before = restore_state(trainer, state) if config.resume else 0.0
    began, rays, saved = time.monotonic() - before, 0, time.monotonic()
    with interruptible() as interrupted:
        while True:
            seconds = time.monotonic() - began
            by_steps = trainer.steps_done / config.steps if config.steps else 0.0
            fraction = max(by_steps, seconds / (60 * config.minutes) if config.minutes else 0.0)
            if fraction >= 1 or interrupted():
                break
            rays += trainer.step(fraction)
            elapsed = time.monotonic() - began
            rate = rays / max(elapsed - before, 1e-9)
            report(Progress(trainer.steps_done, fraction, psnr(trainer.running_mse), rate, elapsed))
            if time.monotonic() - saved > SAVE_EVERY_S:
                trainer.save(time.monotonic() - began)
                saved = time.monotonic()
        stopped = interrupted()
    trainer.save(time.monotonic() - began)
    say(f"{'stopped' if stopped else 'finished'} after {trainer.steps_done} steps: wrote {config.out}")
    return trainer
