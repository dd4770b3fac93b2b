"""Mip-NeRF's published formulas in numpy float64, written from the paper (arXiv 2103.13415), and random weights in the
layout of the public PyTorch re-implementation. Nothing here calls what it is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Shape:
    """Of a network and its rays."""

    hidden: int = 24
    samples: int = 20  # the public code makes the view branch as wide as rays have samples
    layers: tuple[int, int] = (4, 4)
    max_deg: int = 16
    view_deg: int = 4
    viewdirs: bool = True
    ray_shape: str = "cone"
    near: float = 2.0
    far: float = 6.0


def public_state(shape: Shape, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict of random weights, with the public names, shapes and types."""
    rng = np.random.default_rng(seed)
    encoded, viewed = 6 * shape.max_deg, 3 + 6 * shape.view_deg
    state = {"positional_encoding.scales": torch.tensor([2**i for i in range(shape.max_deg)])}

    def layer(name: str, n_in: int, n_out: int) -> None:
        bound = (6 / (n_in + n_out)) ** 0.5
        state[f"{name}.weight"] = torch.from_numpy(rng.uniform(-bound, bound, (n_out, n_in))).float()
        state[f"{name}.bias"] = torch.from_numpy(rng.uniform(-0.3, 0.3, n_out)).float()

    for half, (count, n_in) in enumerate(zip(shape.layers, (encoded, encoded + shape.hidden), strict=True)):
        for i in range(count):
            layer(f"density_net{half}.{2 * i}", n_in if i == 0 else shape.hidden, shape.hidden)
    layer("final_density.0", shape.hidden, 1)
    if shape.viewdirs:
        layer("rgb_net0.0", shape.hidden, shape.hidden)
        state["viewdirs_encoding.scales"] = torch.tensor([2**i for i in range(shape.view_deg)])
        layer("rgb_net1.0", shape.hidden + viewed, shape.samples)
    layer("final_rgb.0", shape.samples if shape.viewdirs else shape.hidden, 3)
    points = waves(rng.uniform(-2, 2, (200, 3)), shape.max_deg)
    state["final_density.0.weight"] *= 4 / trunk(state, shape, points)[0].std()  # so that there are surfaces, ...
    state["final_density.0.bias"] -= trunk(state, shape, points)[0].mean() + 2  # ... and air
    return state


def waves(x: Array, count: int, variance: Array | None = None) -> Array:
    """[..., 3] -> [..., 6 count], the mean sine and cosine of each component at each scale (equations 9 to 14)."""
    parts = []
    for wave in (np.sin, np.cos):
        for k in range(count):
            shrink = 1.0 if variance is None else np.exp(-0.5 * 4.0**k * variance)
            parts.append(shrink * wave(2.0**k * x))
    return np.concatenate(parts, -1)


def gaussian(t: Array, origin: Array, d: Array, radius: float, ray_shape: str) -> tuple[Array, Array]:
    """Means and variances [k, 3] of the pieces of one ray (equations 7 and 8), in long doubles for the differences."""
    t0, t1 = t[:-1].astype(np.longdouble), t[1:].astype(np.longdouble)
    if ray_shape == "cone":
        cube = t1**3 - t0**3
        mean = 3 * (t1**4 - t0**4) / (4 * cube)
        square = 3 * (t1**5 - t0**5) / (5 * cube)
        along, across = square - mean**2, radius**2 * square / 4
    else:
        mean, along = (t0 + t1) / 2, (t1 - t0) ** 2 / 12
        across = np.full_like(mean, radius**2 / 4)
    sideways = np.eye(3) - np.outer(d, d) / (d @ d)
    covariance = along[:, None, None] * np.outer(d, d) + across[:, None, None] * sideways
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    return (origin + mean[:, None] * d).astype(np.float64), variance.astype(np.float64)


def dense(state: dict[str, torch.Tensor], name: str, x: Array) -> Array:
    return x @ state[f"{name}.weight"].double().numpy().T + state[f"{name}.bias"].double().numpy()


def trunk(state: dict[str, torch.Tensor], shape: Shape, encoded: Array) -> tuple[Array, Array]:
    """What becomes the density [k], and the last hidden layer [k, hidden]."""
    x = encoded
    for i in range(shape.layers[0]):
        x = np.maximum(dense(state, f"density_net0.{2 * i}", x), 0)
    x = np.concatenate([x, encoded], -1)
    for i in range(shape.layers[1]):
        x = np.maximum(dense(state, f"density_net1.{2 * i}", x), 0)
    return dense(state, "final_density.0", x)[:, 0], x


def network(state: dict[str, torch.Tensor], shape: Shape, encoded: Array, view: Array) -> tuple[Array, Array]:
    """Densities [k] and colours [k, 3] of encoded pieces of one ray."""
    raw, x = trunk(state, shape, encoded)
    if shape.viewdirs:
        seen = np.concatenate([waves(view, shape.view_deg), view])
        x = np.concatenate([dense(state, "rgb_net0.0", x), np.tile(seen, (len(x), 1))], -1)
        x = np.maximum(dense(state, "rgb_net1.0", x), 0)
    rgb = 1 / (1 + np.exp(-dense(state, "final_rgb.0", x)))
    return np.log1p(np.exp(raw - 1)), rgb * 1.002 - 0.001


def spread(weights: Array) -> Array:
    """Equation 17."""
    padded = np.concatenate([weights[:1], weights, weights[-1:]])
    larger = np.maximum(padded[:-1], padded[1:])
    return 0.5 * (larger[:-1] + larger[1:]) + 0.01


def render_ray(
    state: dict[str, torch.Tensor], shape: Shape, origin: Array, d: Array, radius: float
) -> list[dict[str, Array]]:
    """Coarse, then fine, of one ray whose direction reaches the plane at depth 1: `t`, `weights`, `rgb` premultiplied,
    `depth` (the mean t), `opacity`."""
    t = np.linspace(shape.near, shape.far, shape.samples + 1)
    looks: list[dict[str, Array]] = []
    for level in range(2):
        if level:
            density = spread(looks[0]["weights"])
            cdf = np.concatenate([[0], np.cumsum(density / density.sum())])
            t = np.interp(np.linspace(0, 1 - EPS, shape.samples + 1), cdf, t)
        mean, variance = gaussian(t, origin, d, radius, shape.ray_shape)
        sigma, rgb = network(state, shape, waves(mean, shape.max_deg, variance), d / np.linalg.norm(d))
        optical = sigma * np.diff(t) * np.linalg.norm(d)
        through = np.exp(-np.concatenate([[0], np.cumsum(optical)[:-1]]))
        weights = through * (1 - np.exp(-optical))
        opacity = weights.sum()
        depth = (weights * (t[1:] + t[:-1]) / 2).sum() / opacity
        looks.append({"t": t, "weights": weights, "rgb": weights @ rgb, "depth": depth, "opacity": opacity})
    return looks
