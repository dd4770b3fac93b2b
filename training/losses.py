"""What a training step is judged by: the inputs of every loss, their weights, and what a person sees of a pixel.

The terms themselves are in `training/loss_terms.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from ..data.dataset import PointCloud
from ..data.pyramid import RayBatch
from ..models.camera import Camera
from ..models.infnerf import InfNeRF
from ..models.marching import MarchSettings, PackedSamples
from ..models.volume import accumulate, render_weights
from ..renderer.cuda_samples import to_device
from .sampling import MAX_SAMPLES_PER_RAY, MIN_TRANSMITTANCE, Sampling


def linear_to_srgb(linear: Tensor) -> Tensor:
    """IEC 61966-2-1 transfer curve, differentiable at 0; inputs are clamped to [0, 1] from below only, so that
    gradients survive above.

    >>> [round(x, 4) for x in linear_to_srgb(torch.tensor([0.0, 0.001, 0.5, 1.0])).tolist()]
    [0.0, 0.0129, 0.7354, 1.0]
    """
    low = linear.clamp(min=0.0)
    return torch.where(low <= 0.0031308, 12.92 * low, 1.055 * low.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def over(premultiplied: Tensor, background: Tensor) -> Tensor:
    """RGBA [n, 4] premultiplied over an opaque background [n, 3] or [3]: [n, 3]."""
    return premultiplied[:, :3] + (1 - premultiplied[:, 3:]) * background


def encoded(rgba: Tensor, background: Tensor, color_space: str) -> Tensor:
    """What a person sees of premultiplied pixels: over the background, as display values [n, 3]."""
    color = over(rgba, background)
    return linear_to_srgb(color) if color_space == "linear" else color


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of values in [0, 1].

    >>> psnr(0.01)
    20.0
    """
    return float(-10 * torch.log10(torch.tensor(max(mse, 1e-12), dtype=torch.float64)))


@dataclass(frozen=True, eq=False)
class LossInputs:
    """One step's rays and what was rendered of them, for functions `(LossInputs) -> Tensor` (a scalar)."""

    prediction: Tensor  # [n_rays, 4] premultiplied RGBA
    batch: RayBatch  # of n_rays
    background: Tensor  # [n_rays, 3]
    color_space: str  # of prediction, target and background
    samples: PackedSamples  # of all rays
    sigmas: Tensor  # [n_samples] per world unit
    rgb: Tensor  # [n_samples, 3]
    model: InfNeRF
    sampling: Sampling
    generator: torch.Generator  # for all that is drawn, so that runs repeat
    frame: int = 0  # of the sampler's jitter
    cameras: Sequence[Camera] = ()  # of the images that rays are drawn from, at their finest scale
    points: PointCloud | None = None  # sparse points of the scene
    nodes: list[Tensor] = field(default_factory=list)  # asked by `field` and `cast`: their parameters get gradients

    @cached_property
    def error(self) -> Tensor:
        """What display values are off by [n_rays, 3]."""
        seen = encoded(self.prediction, self.background, self.color_space)
        return seen - encoded(self.batch.rgba, self.background, self.color_space)

    @cached_property
    def _weights(self) -> tuple[Tensor, Tensor]:
        return render_weights(
            self.sigmas, self.samples.dt, self.samples.ray_indices.long(), len(self.prediction), MIN_TRANSMITTANCE
        )

    @property
    def weights(self) -> Tensor:
        """What each sample adds to its ray's opacity [n_samples]."""
        return self._weights[0]

    @property
    def trans(self) -> Tensor:
        """The transmittance that each sample is reached with [n_samples]."""
        return self._weights[1]

    @cached_property
    def depth(self) -> Tensor:
        """Mean distance to what each ray sees [n_rays], world units; 0 where it sees nothing."""
        sums = torch.stack([self.samples.t, torch.ones_like(self.samples.t)], -1)
        t, alpha = accumulate(self.weights, sums, self.samples.ray_indices.long(), len(self.prediction)).unbind(-1)
        return t / alpha.clamp(min=1e-6)

    def field(self, samples: PackedSamples, directions: Tensor) -> tuple[Tensor, Tensor]:
        """`sigmas` [n] and `rgb` [n, 3] of other samples than the batch's, with gradients to the model. `directions`
        [n_rays, 3]: of the samples' own rays."""
        self.nodes.append(samples.node.unique().long().cpu())
        return self.sampling.field(samples, directions)

    def cast(self, origins: Tensor, directions: Tensor, cones: Tensor) -> tuple[PackedSamples, Tensor, Tensor]:
        """Samples, `sigmas` and `rgb` of other rays than the batch's: `origins`, `directions` [n, 3] world, `cones`
        [n]."""
        counters = torch.randint(1 << 31, (len(cones),), generator=self.generator)
        settings = MarchSettings(frame=self.frame)
        rays = self.model.to_local(origins), directions, cones, counters
        local, directions, cones, counters = (to_device(values, self.prediction.device) for values in rays)
        samples = self.sampling.march(local, directions, cones, counters, settings, MAX_SAMPLES_PER_RAY)
        return samples, *self.field(samples, directions)


LossFunction = Callable[[LossInputs], Tensor]


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms of `training/loss_terms.py`; a term of weight 0 is not computed.

    `custom` adds terms of one's own: (name, function, weight). Raises `ValueError` for a weight that is no number of at
    least 0, if all are 0, and for a name that is taken.

    >>> LossConfig(custom=(("fog", lambda inputs: inputs.weights.mean(), 0.1),)).weights()
    {'rgb': 1.0, 'fog': 0.1}
    """

    rgb: float = 1.0
    consistency: float = 0.0
    transparency: float = 0.0
    distortion: float = 0.0
    depth: float = 0.0
    custom: tuple[tuple[str, LossFunction, float], ...] = ()
    rgb_form: Literal["l2", "charbonnier"] = "l2"

    def __post_init__(self) -> None:
        names = [*self.known(), *(name for name, _, _ in self.custom)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"losses: expected a name of its own for each, found {name!r} twice")
        for name, weight in self._all().items():
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
                raise ValueError(f"losses: the weight of {name} must be a number of at least 0, got {weight!r}")
        if not any(self._all().values()):
            raise ValueError("losses: at least one weight must be above 0, got none")
        if self.rgb_form not in ("l2", "charbonnier"):
            raise ValueError(f"losses: rgb_form must be l2 or charbonnier, got {self.rgb_form!r}")

    @classmethod
    def known(cls) -> tuple[str, ...]:
        """Names of the terms that are there without `custom`."""
        return tuple(f.name for f in fields(cls) if f.name not in ("custom", "rgb_form"))

    @classmethod
    def parse(cls, texts: Sequence[str], **others: Any) -> LossConfig:
        """From `NAME=WEIGHT`, several also with commas between. Raises `ValueError`.

        >>> LossConfig.parse(["depth=0.1,rgb=2", "distortion=0.01"]).weights()
        {'rgb': 2.0, 'distortion': 0.01, 'depth': 0.1}
        """
        told: dict[str, Any] = {}
        for text in (part.strip() for whole in texts for part in whole.split(",")):
            name, equals, number = text.partition("=")
            if name not in cls.known():
                raise ValueError(f"expected NAME=WEIGHT with one of the losses {', '.join(cls.known())}, got {text!r}")
            try:
                told[name] = float(number) if equals else math.nan
            except ValueError:
                told[name] = math.nan
            if not 0 <= told[name] < math.inf:
                raise ValueError(f"expected {name}=WEIGHT with a number of at least 0, got {text!r}")
        return replace(cls(**told), **others)

    def _all(self) -> dict[str, float]:
        own = {name: getattr(self, name) for name in self.known()}
        return own | {name: weight for name, _, weight in self.custom}

    def weights(self) -> dict[str, float]:
        """Name -> weight of the terms that count."""
        return {name: weight for name, weight in self._all().items() if weight}
