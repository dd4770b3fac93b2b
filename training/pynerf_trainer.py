"""Trains a PyNeRF: rays of all scales at once, or coarse images first (`MultiScaleTrainer`). `infnerf train --backend
pynerf`.

A ray's pixel tells the levels of its samples, so a coarse image supervises coarse heads. Which levels were trained
where is noted as the run goes on: rendering keeps to them (PyNeRF, section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..data.pyramid import DEFAULT_FRACTIONS, RayBatch
from ..models.checkpoint import Checkpoint
from ..models.marching import MarchSettings, PackedSamples
from ..models.octree import lone_root
from ..models.pynerf import PyNeRF
from ..models.pyramid import note_trained, trained_cells
from ..renderer.cliutil import CommandError
from .base import BaseTrainer, scene_of
from .config import SCALES, StepRecord, TrainerConfig
from .loss_terms import total_loss
from .losses import LossInputs, psnr
from .point_prior import voxels_near_points
from .pyramid_losses import PYRAMID_TERMS
from .pyramid_sampling import PyramidOccupancy, cells_near_points, make_pyramid_sampling
from .sampling import MAX_SAMPLES_PER_RAY, MIN_TRANSMITTANCE
from .team import Team
from .trainer import LONG_STEP, MIN_COVERAGE, REFRESH_EVERY, WARM_UP, has_points

#: From a step on, the finest images that are drawn from, as factors below full size.
SCALE_SCHEDULE: Mapping[int, int] = {0: 8, 2000: 4, 5000: 2, 10000: 1}


@dataclass
class PyNeRFTrainerConfig(TrainerConfig):
    """The knobs of a PyNeRF's run."""

    samples_per_step: int = 1 << 16
    table_rate: float = 2e-2  # of Adam, for the hash grids
    mlp_rate: float = 2e-3  # of Adam, for the MLPs
    #: STEP:FACTOR, ...: from a step on, the finest images that are drawn from, shrunk by a factor. (): all at once;
    #: "published": SCALE_SCHEDULE.
    scale_schedule: tuple[str, ...] = ()

    def schedule(self) -> dict[int, int]:
        """`scale_schedule` as numbers. Raises `ValueError` with one sentence.

        >>> PyNeRFTrainerConfig(scale_schedule=("0:8", "500:1")).schedule()
        {0: 8, 500: 1}
        """
        if self.scale_schedule == ("published",):
            return dict(SCALE_SCHEDULE)
        schedule = {}
        for word in self.scale_schedule:
            step, _, factor = word.partition(":")
            if not step.isdecimal() or factor not in map(str, SCALES):
                factors = ", ".join(map(str, SCALES))
                raise ValueError(
                    f"scale_schedule takes STEP:FACTOR with FACTOR one of {factors}, or published, got {word!r}"
                )
            schedule[int(step)] = int(factor)
        if schedule and 0 not in schedule:
            raise ValueError(f"scale_schedule must begin at step 0, got {', '.join(self.scale_schedule)}")
        return schedule

    def __post_init__(self) -> None:
        self.schedule()


class PyNeRFTrainer(BaseTrainer[PyNeRF]):
    """One run that trains a PyNeRF on images of all scales at once."""

    def __init__(
        self, model: PyNeRF, train_set: Dataset, config: PyNeRFTrainerConfig | None = None, team: Team | None = None
    ) -> None:
        """A model that was not placed yet lies over the data's root cube. Without a config a run takes 20 minutes.

        Raises `CommandError` for a team of several processes.
        """
        if team is not None and team.size > 1:
            raise CommandError(f"a PyNeRF is trained by one process, torchrun started {team.size}")
        self.settings = config or PyNeRFTrainerConfig(minutes=20)
        super().__init__(model, train_set, self.settings, team)
        if not model.placed:
            corner = np.asarray(train_set.scene["root_corner"], np.float64)
            model.place(lone_root(corner, float(train_set.scene["root_size"])), scene_of(train_set))
        if not model.learns:
            model.make_trainable()
        self.sampling, self.sampling_name = make_pyramid_sampling(model)
        self.occupancy = PyramidOccupancy(model, self.sampling, config.seed if config else 0)
        rates = (model.tables, self.settings.table_rate), (model.mlp, self.settings.mlp_rate)
        adam = self.settings.adam
        self.optimizer = torch.optim.Adam(
            [{"params": [parameter], "lr": rate} for parameter, rate in rates],
            betas=(adam.decay_mean, adam.decay_square), eps=adam.epsilon, fused=True,
        )  # fmt: skip
        for parameter, _ in rates:
            parameter.grad = torch.zeros_like(parameter)  # which the kernels add to
        self.prior = self._use_points() if has_points(train_set) else "no points"

    def _use_points(self) -> str:
        """Restricts occupancy to what is near sparse points, unless opaque pixels contradict."""
        assert self.data.points is not None  # who asks has asked has_points
        voxels = voxels_near_points(self.model.to_local(torch.from_numpy(self.data.points.xyz).double()))
        self.occupancy.restrict(cells_near_points(self.model, voxels))
        origins, directions, cones, rgba = self.pyramid.sample_rays(0, 20_000, torch.Generator().manual_seed(0))
        opaque = (rgba[:, 3] > 0.99).nonzero()[:, 0]
        rays = self.model.to_local(origins[opaque]), directions[opaque], cones[opaque], torch.arange(len(opaque))
        samples = self.sampling.march(*rays, MarchSettings(), MAX_SAMPLES_PER_RAY)
        coverage = len(samples.ray_indices.unique()) / max(len(opaque), 1)
        if coverage >= MIN_COVERAGE:
            return f"matter only near points ({100 * coverage:.2f} % of opaque pixels agree)"
        self.occupancy.restrict(None)
        return f"points too sparse to restrict matter ({100 * coverage:.2f} % of opaque pixels agree)"

    def fractions(self) -> tuple[float, ...]:
        """Shares of a batch's rays from each of SCALES, at the step that comes."""
        return DEFAULT_FRACTIONS

    def rate(self, fraction: float) -> float:
        """Factor on the learning rates at a fraction of the run: a short warm-up, then exponential decay."""
        return min(1.0, (self.steps_done + 1) / WARM_UP) * self.config.final_rate**fraction

    def draw(self) -> tuple[RayBatch, PackedSamples]:
        """The rays of a step and their samples; steps are longer while there is still fog."""
        n = self.n_rays
        batch = self.shard.renumbered(self.pyramid.draw_mixed(n, self.generator, self.fractions()))
        counters = torch.randint(1 << 31, (n,), generator=self.generator)
        step_scale = LONG_STEP if self.fraction < self.config.long_steps_share else 1.0
        settings = MarchSettings(frame=self.steps_done + 1, step_scale=step_scale)
        local = self.model.to_local(batch.rays_o)
        samples = self.sampling.march(local, batch.rays_d, batch.cones, counters, settings, MAX_SAMPLES_PER_RAY)
        return batch, samples

    def render(self, batch: RayBatch, samples: PackedSamples) -> LossInputs:
        """What the losses look at: a batch's rays rendered over random backgrounds."""
        background = torch.rand(len(batch.cones), 3, generator=self.generator)
        sigmas, rgb = self.sampling.field(samples, batch.rays_d)
        prediction = self.sampling.composite(sigmas, rgb, samples, len(batch.cones), MIN_TRANSMITTANCE)
        model: Any = self.model  # the terms that need an InfNeRF are replaced
        return LossInputs(
            prediction, batch, background, "linear", samples, sigmas, rgb, model, self.sampling, self.generator,
            self.steps_done + 1, self.pyramid.cameras[0], self.data.points,
        )  # fmt: skip

    def note_levels(self, inputs: LossInputs) -> Tensor:
        """Notes where which levels have taken gradient; returns the heads that did, [k] int64."""
        reached = inputs.trans.detach() > MIN_TRANSMITTANCE
        level, local = inputs.samples.level[reached], inputs.samples.local[reached]
        note_trained(self.model.trained, level, trained_cells(local, self.model.config.trained_resolution))
        return torch.cat([level.floor(), level.ceil()]).long().unique()

    def step(self, fraction: float | None = None) -> StepRecord:
        fraction = self.begin_step(fraction)
        batch, samples = self.draw()
        inputs = self.render(batch, samples)
        loss, parts = total_loss(inputs, self.config.losses, PYRAMID_TERMS)
        rate = self.rate(fraction)
        if loss.requires_grad:  # rays that meet nothing at all teach nothing
            loss.backward()
            self._adam(rate)
        heads = self.note_levels(inputs)
        self.steps_done += 1
        self.occupancy.steps += 1
        errors = inputs.error.detach()[batch.scale == 0].square()
        if errors.numel():
            self.running_mse += (float(errors.mean()) - self.running_mse) * 0.03
        n, wanted = self.n_rays, self.n_rays * self.config.samples_per_step / max(len(samples), 1)
        self.n_rays = int(min(max(wanted, n / 1.3, 256), n * 1.3, 65536))
        if self.steps_done % REFRESH_EVERY == 0:
            self.occupancy.refresh()
        values = {name: float(part.detach()) for name, part in parts.items()}
        active = torch.bincount(heads, minlength=self.model.config.num_levels).tolist()
        return StepRecord(
            self.steps_done, fraction, self.seconds, n, len(samples), len(heads), sum(values.values()), values,
            psnr(self.running_mse), rate, self.rays_per_second, tuple(active),
        )  # fmt: skip

    def _adam(self, rate: float) -> None:
        rates = self.settings.table_rate, self.settings.mlp_rate
        for group, own in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = own * rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)

    def checkpoint(self) -> Checkpoint:
        model = self.model
        root = lone_root(model.octree.corner[0].numpy(), model.octree.root_size)
        notes = {"step": self.steps_done, "seed": self.config.seed, "downscale": self.config.downscale}
        field = {
            "tables": model.tables.detach().clamp(-65000, 65000).half(),
            "mlp": model.mlp.detach().clamp(-65000, 65000).half(),
            "occupancy": self.occupancy.finished(),
            "trained": model.trained.clone(),
        }
        return Checkpoint("pynerf", model.config, root, field, model.scene, {}, notes)

    def summary(self) -> str:
        config = self.model.config
        low, high = config.level_resolutions[0], config.level_resolutions[-1]
        return (
            f"{config.num_levels} levels from {low:g} to {high:g} cells, {self.model.n_parameters / 1e6:.1f} M "
            f"parameters; {'a background; ' * config.background}{self.sampling_name}; {self.prior}"
        )

    def identity(self) -> dict[str, Any]:
        schedule = [f"{step}:{factor}" for step, factor in self.settings.schedule().items()]
        return {
            "model": self.model.config.to_dict(), "samples_per_step": self.config.samples_per_step,
            "scale_schedule": schedule,
        }  # fmt: skip

    def numbers(self, record: StepRecord) -> dict[str, float]:
        """The heads that were stepped, rates, and how much of space is occupied."""
        return {
            **{f"active/level_{level}": count for level, count in enumerate(record.active)},
            "rate/tables": self.settings.table_rate * record.rate,
            "rate/mlp": self.settings.mlp_rate * record.rate,
        }

    def state(self) -> dict[str, Any]:
        model = self.model
        return {
            "tables": model.tables.data,
            "mlp": model.mlp.data,
            "trained": model.trained,
            "optimizer": self.optimizer.state_dict()["state"],
            "occupancy": self.occupancy.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        for name in ("tables", "mlp", "trained"):
            own, given = getattr(self.model, name).data, state[name]
            if given.shape != own.shape or given.dtype != own.dtype:
                raise ValueError(f"{name}: expected {list(own.shape)}, found {list(given.shape)}")
            own.copy_(given)
        self.occupancy.load_state_dict(state["occupancy"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})


class MultiScaleTrainer(PyNeRFTrainer):
    """One run that trains on coarse images first: from each step of a schedule on, finer ones join."""

    def fractions(self) -> tuple[float, ...]:
        """The usual shares, of the scales that are drawn from yet."""
        schedule = self.settings.schedule() or SCALE_SCHEDULE
        finest = schedule[max(step for step in schedule if step <= self.steps_done)]
        return tuple(share if scale >= finest else 0.0 for scale, share in zip(SCALES, DEFAULT_FRACTIONS, strict=True))


def make_trainer(
    model: PyNeRF, train_set: Dataset, config: PyNeRFTrainerConfig, team: Team | None = None
) -> PyNeRFTrainer:
    """The trainer that a config asks for."""
    kind = MultiScaleTrainer if config.schedule() else PyNeRFTrainer
    return kind(model, train_set, config, team)
