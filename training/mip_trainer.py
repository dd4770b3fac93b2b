"""Trains a mip-NeRF (Barron et al. 2021, arXiv 2103.13415): images of all scales, each pixel with a cone of its own.

The published run weighs a pixel by its area and draws every pixel of every scale alike. Here coarse scales are drawn
more often and weigh less by as much, which has the same expectation, and less noise in small batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..data.pyramid import DEFAULT_FRACTIONS, RayBatch
from ..models.checkpoint import Checkpoint
from ..models.mipnerf import MipNeRF, look_along
from ..models.mipnerf_config import MipNeRFConfig
from ..models.octree import lone_root
from .base import BaseTrainer, scene_of
from .config import StepRecord, TrainerConfig
from .device import batch_on, training_device
from .losses import encoded, psnr
from .team import Team

STEP_WORK = 1e10  # multiplications of a step on a CPU, unless told: about half a second of a core
PUBLISHED_RAYS = 4096  # of a step
VALIDATION_WORK = 2.5e11  # multiplications that the views of a validation may take, all together
LATEST_DELAY = 0.05  # of the run, after which the learning rate is whole in any case
NEAREST = 1e-3  # of the far plane's depth
BEFORE_POINTS = 0.5  # of the nearest points' depth is where rays begin
OVER = ("random", "scene")


@dataclass
class MipTrainerConfig(TrainerConfig):
    """The knobs of a run: what `TrainerConfig` has of all runs, and these; the defaults are the published ones."""

    rays_per_step: int | None = None  # None: 4096 on a GPU; on a CPU what takes about half a second
    mip_rate: float = 5e-4  # Adam's, at the start
    mip_final_rate: float = 5e-6  # Adam's, reached log-linearly at the end of the run
    delay_steps: int = 2500  # until the rate is whole, ...
    delay_factor: float = 0.01  # ... which begins with this share of it
    coarse_weight: float = 0.1  # of the coarse looks' losses
    color_space: str = "linear"  # of the model's colours; losses look at display values in either
    over: str = "random"  # colour behind the scene: random for each ray, or the scene's background

    def __post_init__(self) -> None:
        if self.rays_per_step is not None and not 1 <= self.rays_per_step <= 1 << 20:
            raise ValueError(f"rays_per_step must be 1 to {1 << 20}, got {self.rays_per_step}")
        if not 0 < self.mip_final_rate <= self.mip_rate <= 1:
            raise ValueError(
                f"mip_final_rate must be above 0 and at most mip_rate, got {self.mip_final_rate} and {self.mip_rate}"
            )
        if self.delay_steps < 0 or not 0 < self.delay_factor <= 1 or not 0 <= self.coarse_weight <= 100:
            raise ValueError(
                "delay_steps must be at least 0, delay_factor in (0, 1] and coarse_weight 0 to 100, got "
                f"{self.delay_steps}, {self.delay_factor}, {self.coarse_weight}"
            )
        for name, allowed in (("color_space", ("linear", "srgb")), ("over", OVER)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be {' or '.join(allowed)}, got {getattr(self, name)!r}")


def placed(config: MipNeRFConfig, data: Dataset) -> MipNeRFConfig:
    """The config for a data set: its box in [-1, 1], rays from before the nearest points to behind the box.

    What differs from the defaults of `near`, `far` and `placement` was told, and stays.
    """
    default = MipNeRFConfig()
    low, high = np.array(data.scene["aabb"], np.float64)
    if config.placement == default.placement:
        scale = 2 / float((high - low).max())
        matrix = np.concatenate([np.eye(3) * scale, (-scale * (low + high) / 2)[:, None]], 1)
        config = replace(config, placement=tuple(matrix.ravel().tolist()))
    if (config.near, config.far) != (default.near, default.far):
        return config
    corners = np.where(np.indices((2, 2, 2)).reshape(3, 8).T, high, low)
    depths = np.array([(corners - camera.position) @ camera.c2w[:3, 2] for camera in data.cameras])
    far = float(depths.max()) if depths.max() > 0 else float(np.linalg.norm(high - low))
    near = float(depths.min())
    if data.points is not None and len(data.points.xyz):
        near = BEFORE_POINTS * min(_nearest(data, i) for i in range(len(data.cameras)))
    near = min(max(near, NEAREST * far), far / 2)
    return replace(config, near=config.scale * near, far=config.scale * far)


def _nearest(data: Dataset, index: int) -> float:
    """Depth of the nearest points that a camera sees, a few stray ones left out; infinite if it sees none."""
    assert data.points is not None
    camera, points = data.cameras[index], data.points.xyz
    pixels, valid = camera.project(points)
    inside = valid & (pixels >= 0).all(-1) & (pixels < (camera.width, camera.height)).all(-1)
    depth = (points[inside] - camera.position) @ camera.c2w[:3, 2]
    return float(np.percentile(depth, 0.5)) if len(depth) else math.inf


class MipNeRFTrainer(BaseTrainer[MipNeRF]):
    """One run that trains a mip-NeRF."""

    def __init__(
        self, model: MipNeRF, train_set: Dataset, config: MipTrainerConfig | None = None, team: Team | None = None
    ) -> None:
        """The model's config says where it lies (see `placed`). Without a config a run takes 20 minutes."""
        self.knobs = config = config or MipTrainerConfig(minutes=20)
        super().__init__(model, train_set, config, team, color_space=config.color_space)
        self.device = training_device(config.device)
        if not model.learns:
            model.make_trainable()
        model.to(self.device)
        self.adam = torch.optim.Adam(model.parameters(), lr=config.mip_rate)
        work = model.n_parameters * model.config.num_samples * model.config.num_levels  # of a ray
        affordable = PUBLISHED_RAYS if self.device.type == "cuda" else int(STEP_WORK / (3 * work))
        self.n_rays = config.rays_per_step or min(max(affordable, 64), PUBLISHED_RAYS)
        self.validation_pixels = max(int(VALIDATION_WORK / work), 1024)
        axes = np.array([camera.c2w[:3, 2] for camera in train_set.cameras])
        self._axes = torch.from_numpy(axes).float().to(self.device)  # [n_images, 3]

    @classmethod
    def of(cls, shape: MipNeRFConfig, data: Dataset, config: TrainerConfig, team: Team) -> MipNeRFTrainer:
        """A trainer of a new model of this shape."""
        assert isinstance(config, MipTrainerConfig)  # the registry's
        scene = scene_of(data, config.color_space)
        root = lone_root(np.asarray(data.scene["root_corner"], np.float64), float(data.scene["root_size"]))
        return cls(MipNeRF(placed(shape, data), None, scene, root, config.seed), data, config, team)

    def rate(self, fraction: float) -> float:
        """Adam's learning rate at a fraction of the run: log-linear, held back at first by a quarter of a sine."""
        knobs = self.knobs
        through = max(self.steps_done / max(knobs.delay_steps, 1), fraction / LATEST_DELAY)
        delay = knobs.delay_factor + (1 - knobs.delay_factor) * math.sin(math.pi / 2 * min(through, 1.0))
        return delay * math.exp(
            (1 - fraction) * math.log(knobs.mip_rate) + fraction * math.log(knobs.mip_final_rate)
        )  # fmt: skip

    def draw(self) -> RayBatch:
        """The rays of a step; their weights are such that each scale counts as much as the others."""
        self.seed_rays()
        batch = self.shard.renumbered(self.pyramid.draw_mixed(self.n_rays, self.generator))
        share = torch.tensor(DEFAULT_FRACTIONS[: len(self.pyramid.scales)])[batch.scale]
        return batch_on(replace(batch, weight=batch.weight / share), self.device)

    def render(self, batch: RayBatch) -> list[Tensor]:
        """Premultiplied RGBA [n, 4] of every look, coarse to fine, with the fenceposts jittered."""
        n = len(batch.cones)

        def jitter(_level: int, count: int) -> Tensor:
            return torch.rand(n, count, generator=self.generator).to(self.device)

        rays = self.model.place_rays(batch.rays_o, batch.rays_d, batch.cones, self._axes[batch.image])
        looks = look_along(self.model.network(), rays, jitter)
        return [torch.cat([look.color, look.opacity[:, None]], -1) for look in looks]

    def losses(self, batch: RayBatch, predictions: list[Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted squared errors of the looks, and the last one's errors of display values [n, 3]."""
        behind = torch.rand(len(batch.cones), 3, generator=self.generator)
        if self.knobs.over == "scene":
            behind = torch.tensor(self.model.scene["background"]).expand_as(behind)
        behind, space = behind.to(self.device), self.knobs.color_space
        truth = encoded(batch.rgba, behind, space)
        errors = [encoded(rgba, behind, space) - truth for rgba in predictions]
        weight = batch.weight[:, None] / batch.weight.sum().clamp(min=1e-12)
        means = [(weight * error.square()).sum() for error in errors]
        parts = {"fine": means[-1]}
        if means[:-1]:
            parts["coarse"] = self.knobs.coarse_weight * torch.stack(means[:-1]).sum()
        return parts, errors[-1].detach()

    def step(self, fraction: float | None = None) -> StepRecord:
        fraction = self.begin_step(fraction)
        batch = self.draw()
        parts, error = self.losses(batch, self.render(batch))
        self.adam.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        rate = self.rate(fraction)
        self.adam.param_groups[0]["lr"] = rate
        self._average_gradients()
        self.adam.step()
        self.steps_done += 1
        squared = error[batch.scale == 0].square()
        own = [float(squared.sum()), squared.numel(), *(float(part.detach()) for part in parts.values())]
        squares, n_errors, *values = self.team.totals(own)
        self.running_mse += (squares / n_errors - self.running_mse) * 0.03 if n_errors else 0.0
        means = {name: value / self.team.size for name, value in zip(parts, values, strict=True)}
        n_rays = len(batch.cones) * self.team.size
        samples = n_rays * self.model.config.num_samples * self.model.config.num_levels
        return StepRecord(
            self.steps_done, fraction, self.seconds, n_rays, samples, 1, sum(means.values()), means,
            psnr(self.running_mse), rate / self.knobs.mip_rate, self.rays_per_second, (1,),
        )  # fmt: skip

    def _average_gradients(self) -> None:
        if self.team.size > 1:
            for parameter in self.model.parameters():
                assert parameter.grad is not None  # every weight has a say in every pixel
                self.team.sum(parameter.grad).div_(self.team.size)

    def numbers(self, record: StepRecord) -> dict[str, float]:
        return {"rate/mlp": record.rate * self.knobs.mip_rate}

    def summary(self) -> str:
        config = self.model.config
        return (
            f"a mip-NeRF of {config.net_depth} layers of {config.net_width}, {self.model.n_parameters / 1e6:.2f} M "
            f"parameters, {config.num_levels} x {config.num_samples} samples on {config.ray_shape}s from "
            f"{config.near / config.scale:.3g} to {config.far / config.scale:.3g}; {self.n_rays} rays a step"
        )

    def identity(self) -> dict[str, Any]:
        return {"model": self.model.config.to_dict(), "rays_per_step": self.n_rays, "over": self.knobs.over}

    def checkpoint(self) -> Checkpoint:
        notes = {"step": self.steps_done, "seed": self.config.seed, "downscale": self.config.downscale}
        return self.model.checkpoint(notes)

    def state(self) -> dict[str, Any]:
        return {"weights": dict(self.model.state_dict()), "adam": self.adam.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["weights"])
        self.adam.load_state_dict(state["adam"])
