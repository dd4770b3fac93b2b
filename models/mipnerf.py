"""Mip-NeRF (Barron et al. 2021, arXiv 2103.13415): one large MLP that is asked about pieces of cones.

Torch reference, float64-capable, differentiable. World units become the model's by `config.placement`; `near`, `far`
and all t are depths of planes in the model's units (`models/conical.py`). A checkpoint's colours are premultiplied by
opacity: what lies behind is the scene's `background`, as for every model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoint import Checkpoint, load_checkpoint
from .conical import gaussians, integrated_encoding, plane_rays, sinusoids
from .infnerf import default_scene
from .marching import random_uniform
from .mipnerf_config import MipNeRFConfig
from .octree import Octree, lone_root
from .resampling import blurred, even_fenceposts, interval_weights, resampled_fenceposts

Layer = tuple[Tensor, Tensor]  # weight [outputs, inputs], bias [outputs]


@dataclass(frozen=True, eq=False)
class MipRays:
    """Rays [n] in the model's coordinates."""

    origins: Tensor  # [n, 3]
    directions: Tensor  # [n, 3] of length 1 / cos to the camera's axis: t is a depth
    radii: Tensor  # [n] of the cones at t = 1

    def __len__(self) -> int:
        return len(self.radii)

    def select(self, index: Tensor) -> MipRays:
        """Some of them: index [m] int64 or mask [n]."""
        return MipRays(self.origins[index], self.directions[index], self.radii[index])

    @property
    def lengths(self) -> Tensor:
        """Of the directions [n]."""
        return self.directions.norm(dim=-1)


@dataclass(frozen=True, eq=False)
class Look:
    """What one look along n rays found in k intervals of each."""

    t: Tensor  # [n, k + 1] depths, model units
    sigmas: Tensor  # [n, k] per model unit
    weights: Tensor  # [n, k]
    rgb: Tensor | None  # [n, k, 3]; None: was not asked for

    @property
    def opacity(self) -> Tensor:
        """[n]"""
        return self.weights.sum(-1)

    @property
    def color(self) -> Tensor:
        """Premultiplied [n, 3]."""
        assert self.rgb is not None  # asked for by whoever asks for it here
        return (self.weights[..., None] * self.rgb).sum(1)

    @property
    def depth(self) -> Tensor:
        """Sum of weight times depth [n], model units: `opacity` times the mean depth."""
        return (self.weights * (self.t[:, 1:] + self.t[:, :-1]) / 2).sum(-1)


class MipNetwork:
    """The MLP on given weights, in their type and on their device."""

    def __init__(self, config: MipNeRFConfig, layers: dict[str, Layer]) -> None:
        self.config, self.layers = config, layers
        self.dtype, self.device = layers["density"][0].dtype, layers["density"][0].device

    def _dense(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, *self.layers[name])

    def density(self, encoding: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded Gaussians [m, n_encoding] -> sigmas [m] per model unit, and what `color` goes on from [m, width]."""
        encoding = encoding.to(self.dtype)
        x = encoding
        for i in range(self.config.net_depth):
            if i == self.config.skip_layer:
                x = torch.cat([x, encoding], -1)
            x = self._dense(f"trunk{i}", x).relu()
        raw = self._dense("density", x)[:, 0]
        return F.softplus(_widened(raw) + self.config.density_bias), x

    def color(self, hidden: Tensor, views: Tensor) -> Tensor:
        """rgb [m, 3], of what `density` gave and encoded view directions [m, n_view]; linear or not as it was
        trained."""
        if self.config.use_viewdirs:
            hidden = torch.cat([self._dense("bottleneck", hidden), views.to(self.dtype)], -1)
            hidden = self._dense("view", hidden).relu()
        padding = self.config.rgb_padding
        return _widened(self._dense("color", hidden)).sigmoid() * (1 + 2 * padding) - padding

    def encoded_views(self, directions: Tensor) -> Tensor:
        """View directions [n, 3] of any length -> [n, n_view]: their sinusoids, then themselves."""
        unit = F.normalize(directions, dim=-1)
        return torch.cat([sinusoids(unit, self.config.view_min_deg, self.config.view_max_deg), unit], -1)


def _widened(x: Tensor) -> Tensor:
    """Half precision as float32, where what follows needs digits."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


Jitter = Callable[[int, int], Tensor]  # level, count -> [n_rays, count] uniform in [0, 1)


def look_along(
    network: MipNetwork,
    rays: MipRays,
    jitter: Jitter | None = None,  # None: the exact fenceposts
    num_samples: int | None = None,  # intervals; None: the config's
    all_colors: bool = True,  # of every look, as training needs them; else of the last one
    early_stop: float = 0.0,  # where less light than this is left behind, nothing more is looked at
    blocks: int = 1,  # parts of a ray that are looked at one behind the other; early stops are between them
    between: Callable[[], None] = lambda: None,  # called between parts
) -> list[Look]:
    """Looks along rays, each time (but the first) where the look before found something; no gradient goes that way."""
    config, count = network.config, num_samples or network.config.num_samples
    views = network.encoded_views(rays.directions) if config.use_viewdirs else rays.directions
    looks: list[Look] = []
    for level in range(config.num_levels):
        posts = None if jitter is None else jitter(level, count + 1)
        if not looks:
            t = even_fenceposts(config.near, config.far, count, config.disparity, posts, rays.radii)
        else:
            density = blurred(looks[-1].weights.detach(), config.resample_padding)
            t = resampled_fenceposts(looks[-1].t.detach(), density, count + 1, posts)
        colored = all_colors or level == config.num_levels - 1
        looks.append(_look(network, rays, views, t.expand(len(rays), -1), colored, early_stop, blocks, between))
    return looks


def _look(
    network: MipNetwork, rays: MipRays, views: Tensor, t: Tensor, colored: bool, early_stop: float, blocks: int,
    between: Callable[[], None],
) -> Look:  # fmt: skip
    n, k = len(rays), t.shape[1] - 1
    if blocks == 1:
        sigmas, rgb = _field(network, rays, views, t, colored)
        between()
        return Look(t, sigmas, interval_weights(sigmas, t, rays.lengths), rgb)
    sigmas = t.new_zeros(n, k)
    rgb = t.new_zeros(n, k, 3) if colored else None
    through, size = t.new_ones(n), -(-k // blocks)
    for first in range(0, k, size):
        alive = (through >= early_stop).nonzero()[:, 0]
        if not len(alive):
            break
        part = t[alive, first : first + size + 1]
        here = rays.select(alive)
        found, colors = _field(network, here, views[alive], part, colored)
        sigmas[alive, first : first + size] = found
        if rgb is not None and colors is not None:
            rgb[alive, first : first + size] = colors
        through[alive] *= torch.exp(-(found * (part[:, 1:] - part[:, :-1])).sum(-1) * here.lengths)
        between()
    return Look(t, sigmas, interval_weights(sigmas, t, rays.lengths), rgb)


def _field(network: MipNetwork, rays: MipRays, views: Tensor, t: Tensor, colored: bool) -> tuple[Tensor, Tensor | None]:
    """Density [n, k] and colour [n, k, 3] of the pieces of rays between posts [n, k + 1]."""
    config, (n, k) = network.config, (len(t), t.shape[1] - 1)
    means, variances = gaussians(t, rays.origins, rays.directions, rays.radii, config.ray_shape)
    encoding = integrated_encoding(means, variances, config.min_deg, config.max_deg)
    sigmas, hidden = network.density(encoding.flatten(0, 1))
    rgb = network.color(hidden, views[:, None].expand(-1, k, -1).flatten(0, 1)).view(n, k, 3) if colored else None
    return sigmas.view(n, k), rgb


class MipNeRF(nn.Module):
    """A model: `config`, `scene`, the weights, and an `octree` that is a lone root around the scene's box.

    >>> model = MipNeRF(MipNeRFConfig(net_depth=2, skip_layer=1, net_width=16, view_width=8, max_deg=4))
    >>> model.n_parameters, model.octree.n_nodes, model.octree.root_size
    (1724, 1, 4.0)
    """

    def __init__(
        self,
        config: MipNeRFConfig,
        weights: dict[str, Tensor] | None = None,  # by `config.tensor_shapes`; None: initial ones
        scene: dict[str, Any] | None = None,  # what is given overrides the defaults
        octree: Octree | None = None,  # None: around the scene's box
        seed: int = 0,  # of initial weights
    ) -> None:
        super().__init__()
        self.config = config
        root = _default_root(config) if octree is None else octree
        self.scene: dict[str, Any] = default_scene(root) | {"color_space": "srgb"} | (scene or {})
        self.octree = _root_around(self.scene["aabb"]) if octree is None else octree
        weights = initial_weights(config, seed) if weights is None else weights
        for name, shape in config.tensor_shapes.items():
            if name not in weights or tuple(weights[name].shape) != shape:
                found = list(weights[name].shape) if name in weights else "none"
                raise ValueError(f"MipNeRF: {name} must be {list(shape)}, got {found}")
            self.register_parameter(name, nn.Parameter(weights[name], requires_grad=False))

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> MipNeRF:
        return cls(checkpoint.config, checkpoint.field, checkpoint.scene, checkpoint.octree)

    @classmethod
    def load(cls, path: str) -> MipNeRF:
        return cls.from_checkpoint(load_checkpoint(path))

    def checkpoint(self, training: dict[str, Any] | None = None) -> Checkpoint:
        """What is saved: the weights as float32, copied."""
        field = {name: value.detach().float().cpu().clone() for name, value in self.named_parameters()}
        return Checkpoint("mipnerf", self.config, self.octree, field, self.scene, {}, training)

    def make_trainable(self) -> MipNeRF:
        """Gives the model weights of its own, which learn; a file's are mapped. Returns itself."""
        for parameter in self.parameters():
            parameter.data = parameter.data.clone()
            parameter.requires_grad_(True)
        return self

    @property
    def learns(self) -> bool:
        """Whether its weights may change from one look to the next."""
        return any(parameter.requires_grad for parameter in self.parameters())

    @property
    def n_parameters(self) -> int:
        return self.config.n_parameters

    @property
    def level_parameters(self) -> list[int]:
        """One number: there is one node."""
        return [self.n_parameters]

    @property
    def level_bytes(self) -> list[int]:
        return [4 * self.n_parameters]

    def gsd(self, level: Tensor | int) -> Tensor:
        """Half a period of the finest wave in the encoding: world units, float64, the same at every level."""
        return torch.full_like(torch.as_tensor(level), self.config.finest / self.config.scale, dtype=torch.float64)

    def network(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> MipNetwork:
        """The MLP on these weights; in another type or on another device on copies of them."""
        value = dict(self.named_parameters())
        layers = {
            name: (value[f"{name}_weight"].to(device, dtype), value[f"{name}_bias"].to(device, dtype))
            for name in self.config.layer_shapes
        }
        return MipNetwork(self.config, layers)

    def place_rays(
        self,
        rays_o: Tensor,  # [n, 3] world
        rays_d: Tensor,  # [n, 3] world, unit
        cones: Tensor,  # [n] radius at unit distance, as `Camera.pixel_rays` has it
        axis: Tensor,  # [n, 3] or [3] world, unit: the camera's forward axis
    ) -> MipRays:
        """World rays in the model's coordinates. Origins are moved in float64, so that large ones keep their digits."""
        directions, radii = plane_rays(rays_d, cones, axis)
        matrix = torch.from_numpy(self.config.matrix).to(rays_o.device)
        origins = (rays_o.double() @ matrix[:, :3].T + matrix[:, 3]).to(rays_o)
        return MipRays(origins, directions @ (matrix[:, :3].T / self.config.scale).to(directions), radii)


def initial_weights(config: MipNeRFConfig, seed: int) -> dict[str, Tensor]:
    """Glorot & Bengio 2010, uniform, biases 0: as published."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in config.tensor_shapes.items():
        bound = (6 / sum(shape)) ** 0.5 if len(shape) == 2 else 0.0
        weights[name] = (torch.rand(shape, generator=generator) * 2 - 1) * bound
    return weights


def _default_root(config: MipNeRFConfig) -> Octree:
    """Half way between `near` and `far` in all directions around the model's origin: where cameras that look at the
    origin from a sphere around it see something."""
    turn = config.matrix[:, :3]
    middle = -np.linalg.solve(turn, config.matrix[:, 3])
    half = (config.far - config.near) / 2 / config.scale
    return lone_root(middle - half, 2 * half)


def _root_around(box: Any) -> Octree:
    low, high = np.array(box, np.float64)
    size = float((high - low).max())
    return lone_root((low + high) / 2 - size / 2, size)


def frame_jitter(counters: Tensor, frame: int) -> Jitter:
    """The numbers of a frame's rays [n], by the counter-based generator: the same for the same pixel and frame.

    Rays begin and end where the exact ones do, else the mean of frames would lack what is there. (Training moves the
    ends as well, as published.)
    """

    def numbers(level: int, count: int) -> Tensor:
        posts = torch.arange(level * count, (level + 1) * count, device=counters.device)
        uniform = random_uniform(counters[:, None], posts[None], frame)
        uniform[:, 0], uniform[:, -1] = 0, 1
        return uniform

    return numbers
