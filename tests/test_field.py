"""Hash grid, spherical harmonics, volume rendering and the field, against direct formulas in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import random_model
from scipy.special import sph_harm_y

from infnerf.models.config import InfNeRFConfig
from infnerf.models.hash_grid import encode
from infnerf.models.mlp import spherical_harmonics
from infnerf.models.volume import composite, render_weights


def test_dense_grid_levels_interpolate_linear_functions_exactly() -> None:
    resolution = 3
    axis = torch.arange(resolution + 1, dtype=torch.float64) / resolution
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    values = torch.stack([x + 2 * y - z, y * 0 + 1], -1).reshape(-1, 2)
    tables = torch.zeros(1, 1, 64, 2, dtype=torch.float64)
    tables[0, 0, : len(values)] = values
    local = torch.rand(100, 3, dtype=torch.float64)
    out = encode(tables, torch.zeros(100, dtype=torch.long), local, [resolution])
    torch.testing.assert_close(out[:, 0], local[:, 0] + 2 * local[:, 1] - local[:, 2])
    torch.testing.assert_close(out[:, 1], torch.ones(100, dtype=torch.float64))


def test_hashed_levels_spread_over_the_whole_table() -> None:
    tables = torch.arange(1024.0).reshape(1, 1, 1024, 1).repeat(1, 1, 1, 2)
    corner = torch.cartesian_prod(*[torch.arange(0, 64, 3) / 64.0] * 3)
    out = encode(tables, torch.zeros(len(corner), dtype=torch.long), corner, [64])
    assert len(out[:, 0].unique()) > 900


def test_spherical_harmonics_are_scipys() -> None:
    rng = np.random.default_rng(0)
    d = rng.normal(size=(50, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    theta, phi = np.arccos(d[:, 2]), np.arctan2(d[:, 1], d[:, 0])
    columns = []
    for band in range(4):
        for m in range(-band, band + 1):
            y = sph_harm_y(band, abs(m), theta, phi)
            columns.append(y.real if m == 0 else math.sqrt(2) * (y.imag if m < 0 else y.real))
    expected = np.stack(columns, -1)
    actual = spherical_harmonics(torch.from_numpy(d), 4).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e10), min_size=1, max_size=20), st.floats(1e-10, 1e3))
def test_weights_sum_to_at_most_one_and_transmittance_never_rises(sigmas: list[float], dt: float) -> None:
    sigma = torch.tensor(sigmas, dtype=torch.float64)
    index = torch.zeros(len(sigma), dtype=torch.long)
    weights, trans = render_weights(sigma, torch.full_like(sigma, dt), index, 1)
    assert torch.isfinite(weights).all()
    assert float(weights.sum()) <= 1 + 1e-9
    assert bool((trans.diff() <= 1e-12).all())


def test_compositing_is_the_sequential_formula() -> None:
    rng = torch.Generator().manual_seed(1)
    counts = [3, 0, 7]
    index = torch.repeat_interleave(torch.tensor(counts))
    sigma, dt = (
        torch.rand(10, generator=rng, dtype=torch.float64) * 3,
        torch.rand(10, generator=rng, dtype=torch.float64),
    )
    rgb = torch.rand(10, 3, generator=rng, dtype=torch.float64)
    rgba = composite(sigma, rgb, dt, index, 3)
    for ray in range(3):
        light, expected = 1.0, torch.zeros(4, dtype=torch.float64)
        for i in (index == ray).nonzero()[:, 0].tolist():
            alpha = 1 - math.exp(-float(sigma[i] * dt[i]))
            expected += light * alpha * torch.cat([rgb[i], torch.ones(1, dtype=torch.float64)])
            light *= 1 - alpha
        torch.testing.assert_close(rgba[ray], expected)


def test_each_sample_is_answered_by_its_own_nodes_weights() -> None:
    model = random_model(0, half=False)
    node = torch.tensor([0, 5, 5, 9, 0])
    local = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    direction = torch.nn.functional.normalize(torch.rand(5, 3), dim=-1)
    together = model.field(node, local, direction)
    for i in range(5):
        alone = model.field(node[i : i + 1], local[i : i + 1], direction[i : i + 1])
        torch.testing.assert_close(together[0][i : i + 1], alone[0])
        torch.testing.assert_close(together[1][i : i + 1], alone[1])
    with torch.no_grad():
        model.mlp[9] += 1.0
    changed = model.field(node, local, direction)
    assert [bool(x) for x in (changed[0] != together[0])] == [False, False, False, True, False]


def test_density_scales_with_the_nodes_gsd() -> None:
    model = random_model(1, half=False)
    children = (model.octree.parent == 0).nonzero()[:, 0]
    with torch.no_grad():
        model.tables[children[0]] = model.tables[0]
    local, direction = torch.rand(4, 3), torch.tensor([[0.0, 0.0, 1.0]]).expand(4, 3)
    root = model.field(torch.zeros(4, dtype=torch.long), local, direction)[0]
    child = model.field(children[0].expand(4), local, direction)[0]
    torch.testing.assert_close(child, 2 * root)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("table_size", 1000, "power of two"), ("hidden_dim", 48, "one of"), ("n_grid_levels", True, "whole number"),
     ("features_per_level", 3, "one of"), ("resolution", 4, "at least base_resolution"),
     ("density_shift", "x", "number")],
)  # fmt: skip
def test_configs_out_of_range_are_refused_by_name(key: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InfNeRFConfig(**{key: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown keys: extra"):
        InfNeRFConfig.from_dict(InfNeRFConfig().to_dict() | {"extra": 1})
