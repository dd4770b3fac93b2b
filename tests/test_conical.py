"""Mip-NeRF's geometry against brute force in float64: sampled cones, averaged waves, a plain inverse of a CDF."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from infnerf.models.camera import Camera, look_at
from infnerf.models.conical import (
    cylinder_moments,
    frustum_moments,
    gaussians,
    integrated_encoding,
    plane_rays,
    sinusoids,
)
from infnerf.models.resampling import blurred, even_fenceposts, interval_weights, resampled_fenceposts

GRID = 48  # points along each of t, radius, angle of a sampled piece
RAYS = [(t0, t1) for t0 in (0.0, 0.05, 1.0, 7.0, 300.0) for t1 in (t0 + 0.02 * max(t0, 0.1), 1.5 * t0 + 1.0)]


def sampled(
    t0: float, t1: float, origin: np.ndarray, d: np.ndarray, radius: float, shape: str
) -> tuple[np.ndarray, np.ndarray]:
    """Points [n, 3] of a piece and the volume each stands for [n]: a midpoint rule in t, area and angle."""
    u, v, w = ((grid.ravel() + 0.5) / GRID for grid in np.indices((GRID, GRID, GRID)))
    t = t0 + u * (t1 - t0)
    away = radius * np.sqrt(v) * (t if shape == "cone" else 1.0)
    x = np.cross(d, [0.3, -0.5, 0.8])
    x /= np.linalg.norm(x)
    y = np.cross(d, x) / np.linalg.norm(d)
    around = np.cos(2 * np.pi * w)[:, None] * x + np.sin(2 * np.pi * w)[:, None] * y
    return origin + t[:, None] * d + away[:, None] * around, t**2 if shape == "cone" else np.ones_like(t)


@pytest.mark.parametrize("shape", ["cone", "cylinder"])
@pytest.mark.parametrize("radius", [1e-5, 1e-3, 0.1, 2.0])
def test_pieces_of_rays_have_the_mean_and_covariance_of_their_points(shape: str, radius: float) -> None:
    """To 1e-3 of their extent, and of each variance: what the midpoint rule leaves."""
    rng = np.random.default_rng(3)
    for t0, t1 in RAYS:
        origin, d = rng.normal(size=3), rng.normal(size=3) * 1.7
        points, volume = sampled(t0, t1, origin, d, radius, shape)
        middle = np.average(points, 0, volume)
        spread = np.average((points - middle) ** 2, 0, volume)
        arrays = [torch.tensor(np.array(x), dtype=torch.float64) for x in ([[t0, t1]], [origin], [d], [radius])]
        mean, variance = (x[0, 0].numpy() for x in gaussians(*arrays, shape))
        extent = (t1 - t0) * float(np.linalg.norm(d)) + radius * max(t1, 1.0)
        np.testing.assert_allclose(mean, middle, rtol=0, atol=1e-3 * extent)
        np.testing.assert_allclose(variance, spread, rtol=2e-3, atol=1e-12)


def exact_moments(t0: Fraction, t1: Fraction) -> tuple[float, float, float]:
    """Equation 7 as printed, in rational numbers; the variance across for radius 1."""
    cube = t1**3 - t0**3
    mean = Fraction(3, 4) * (t1**4 - t0**4) / cube
    square = Fraction(3, 5) * (t1**5 - t0**5) / cube
    return float(mean), float(square - mean**2), float(square / 4)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_short_frusta_keep_their_digits(dtype: torch.dtype, rtol: float) -> None:
    """The printed difference of fifth powers loses all of them: lengths down to a millionth of the distance."""
    for t0 in (Fraction(1, 64), Fraction(1), Fraction(100)):
        for share in (Fraction(1, 2), Fraction(1, 1024), Fraction(1, 1 << 17)):
            t1 = t0 * (1 + share)
            given = [torch.tensor(float(x), dtype=dtype) for x in (t0, t1, 1)]
            for got, expected in zip(frustum_moments(*given), exact_moments(t0, t1), strict=True):
                assert float(got) == pytest.approx(expected, rel=rtol)


def test_degenerate_pieces_are_finite() -> None:
    zero = torch.zeros(3)
    for moments in (frustum_moments, cylinder_moments):
        assert all(torch.isfinite(x).all() for x in moments(zero, zero, zero))


@pytest.mark.parametrize("deviation", [0.0, 1e-4, 1e-2, 0.3, 5.0])
def test_the_encoding_is_the_mean_wave_over_a_gaussian(deviation: float) -> None:
    """Of 40,000 points at even quantiles of the Gaussian, to 1e-3."""
    quantiles = torch.special.ndtri((torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000)
    for seed in range(3):
        mean = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2
        wide = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64) * deviation
        points = mean + quantiles[:, None] * wide
        got = integrated_encoding(mean, wide**2, 0, 8)
        assert got.shape == (48,)
        assert torch.allclose(got, sinusoids(points, 0, 8).mean(0), rtol=0, atol=1e-3)


def test_the_encoding_s_order_and_range() -> None:
    """Sines of all scales, x, y, z within each, then cosines."""
    x = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    expected = [f(2.0**k * v) for f in (np.sin, np.cos) for k in (2, 3, 4) for v in x.tolist()]
    np.testing.assert_allclose(sinusoids(x, 2, 5).numpy(), expected, atol=1e-15)
    far = integrated_encoding(torch.full((3,), 1e3), torch.full((3,), 1e6), 0, 16)
    assert torch.isfinite(far).all()
    assert float(far.abs().max()) < 1e-30


def test_radii_and_depths_are_those_of_the_published_rays() -> None:
    """There directions reach the plane at depth 1, and the radius is 2 / sqrt(12) of the distance between neighbours'.

    The same to 1e-12 for every pixel of a camera of square pixels; ours have unit length and solid angles.
    """
    camera = Camera(look_at(np.array([3.0, 1, 2]), np.zeros(3), np.array([0.0, 0, 1])), 50, 50, 20, 13, 37, 29)
    row, column = (grid.ravel() + 0.5 for grid in np.indices((29, 37)))
    _, rays_d, cones = camera.pixel_rays(column, row)
    plane = np.stack([(column - 20) / 50, (row - 13) / 50, np.ones(29 * 37)], -1) @ camera.c2w[:3, :3].T
    spacing = np.linalg.norm(np.diff(plane.reshape(29, 37, 3), axis=0), axis=-1)
    axis = torch.from_numpy(camera.c2w[:3, 2].copy())
    directions, radii = plane_rays(torch.from_numpy(rays_d), torch.from_numpy(cones), axis)
    np.testing.assert_allclose(directions.numpy(), plane, atol=1e-12)
    np.testing.assert_allclose(radii.numpy(), spacing[0, 0] * 2 / np.sqrt(12), rtol=1e-12)
    disc = float(frustum_moments(*torch.tensor([1.0, 1.0 + 1e-9, float(radii[0])], dtype=torch.float64))[2])
    assert disc == pytest.approx(spacing[0, 0] ** 2 / 12, rel=1e-6)  # the variance of a square pixel


def test_rays_that_no_plane_meets_stay_finite() -> None:
    sideways = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    directions, radii = plane_rays(sideways, torch.full((2,), 1e-3), torch.tensor([0.0, 0.0, 1.0]))
    assert directions.norm(dim=-1).tolist() == pytest.approx([10.0, 10.0])
    assert torch.isfinite(radii).all()


# --- fenceposts ------------------------------------------------------------------------------------------------------


def test_even_fenceposts() -> None:
    like = torch.zeros((), dtype=torch.float64)
    in_disparity = even_fenceposts(1, 10, 9, disparity=True, like=like)[0]
    np.testing.assert_allclose(1 / in_disparity.numpy(), np.linspace(1, 0.1, 10), rtol=1e-12)
    uniform = torch.rand(5, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    jittered, exact = even_fenceposts(1, 10, 9, uniform=uniform), even_fenceposts(1, 10, 9)[0]
    assert (jittered.diff() > 0).all()
    assert ((jittered - exact).abs() <= 0.5 + 1e-6).all()
    assert float(even_fenceposts(1, 10, 9, uniform=torch.zeros(1, 10))[0, 0]) == 1.0


def test_weights_are_spread_to_both_neighbours() -> None:
    weights = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.5, 0.0]])
    expected = []
    for i in range(6):
        left, here, right = (float(weights[0, min(max(j, 0), 5)]) for j in (i - 1, i, i + 1))
        expected.append((max(left, here) + max(here, right)) / 2 + 0.01)
    assert blurred(weights, 0.01)[0].tolist() == pytest.approx(expected)
    assert expected[:4] == pytest.approx([0.01, 0.51, 1.01, 0.76])


def direct(t: np.ndarray, density: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The inverse of the CDF, by straight lines between its corners."""
    mass = density + max(0.0, 1e-5 - density.sum()) / len(density)
    return np.interp(u, np.concatenate([[0], np.cumsum(mass / mass.sum())]), t)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [0.0, 1e-8, 1.0, 1e4])
def test_resampling_inverts_the_distribution(seed: int, scale: float) -> None:
    """To 1e-9 of the range, for densities from nothing to much, exact and jittered."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(2, 6, (20, 33)), axis=1)
    density = rng.uniform(0, 1, (20, 32)) ** 4 * scale
    given = torch.from_numpy(t), torch.from_numpy(density)
    exact = resampled_fenceposts(*given, 33).numpy()
    u = np.linspace(0, 1 - float(np.finfo(np.float32).eps), 33)
    np.testing.assert_allclose(exact, [direct(a, b, u) for a, b in zip(t, density, strict=True)], atol=4e-9)
    uniform = rng.uniform(size=(20, 33))
    jittered = resampled_fenceposts(*given, 33, torch.from_numpy(uniform)).numpy()
    places = np.minimum((np.arange(33) + uniform) / 33, u[-1])
    expected = [direct(a, b, c) for a, b, c in zip(t, density, places, strict=True)]
    np.testing.assert_allclose(jittered, expected, atol=4e-9)
    assert (np.diff(jittered) >= 0).all()
    assert (exact >= t[:, :1]).all()
    assert (exact <= t[:, -1:]).all()


def test_a_lone_weight_draws_the_posts() -> None:
    t = torch.linspace(0, 10, 11)[None].double()
    density = torch.zeros(1, 10).double()
    density[0, 4] = 1.0
    posts = resampled_fenceposts(t, density, 21)
    assert ((posts >= 4) & (posts <= 5)).all()


def test_weights_follow_from_the_transmittance() -> None:
    """Against a loop over the intervals; they sum to at most 1."""
    rng = np.random.default_rng(0)
    sigmas, posts = rng.exponential(2.0, (7, 12)), np.sort(rng.uniform(0, 3, (7, 13)), axis=1)
    lengths = rng.uniform(1, 2, 7)
    got: Tensor = interval_weights(*map(torch.from_numpy, (sigmas, posts, lengths)))
    for i in range(7):
        left = 1.0
        for k in range(12):
            alpha = 1 - np.exp(-sigmas[i, k] * (posts[i, k + 1] - posts[i, k]) * lengths[i])
            assert float(got[i, k]) == pytest.approx(left * alpha, abs=1e-12)
            left *= 1 - alpha
    assert (got.sum(-1) <= 1 + 1e-12).all()
