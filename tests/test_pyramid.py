"""Levels between two heads, against direct formulas in float64: how they follow from a pixel, and what they mix."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from random_pyramids import VARIETIES, random_pyramid

from infnerf.models.infnerf import MAX_LOG_DENSITY
from infnerf.models.marching import MarchSettings
from infnerf.models.mlp import spherical_harmonics
from infnerf.models.octree import lone_root
from infnerf.models.pynerf import PyNeRF
from infnerf.models.pynerf_config import PyNeRFConfig
from infnerf.models.pyramid import UNTRAINED, Pyramid, note_trained, trained_cells, within_trained


def pyramid_of(config: PyNeRFConfig, size: float = 8.0) -> Pyramid:
    return Pyramid.over(lone_root(np.zeros(3), size), config)


@pytest.mark.parametrize("scale", [1.5, 2.0, 4.0])
@pytest.mark.parametrize("levels", [1, 2, 8])
def test_a_level_is_the_log_of_the_pixels_width(scale: float, levels: int) -> None:
    """`L - 1 + log_s(finest cell / width)` over nine decades of radius and six of distance."""
    config = PyNeRFConfig(num_levels=levels, scale_factor=scale, max_resolution=4096)
    pyramid = pyramid_of(config)
    for radius in np.logspace(-9, 0, 40):
        distances = np.logspace(-3, 3, 60)
        width = torch.from_numpy(math.sqrt(math.pi) * radius * distances)  # the pixel's: a square of the cone's area
        level = pyramid.level_of(width)
        expected = [levels - 1 + math.log(8.0 / 4096 / w) / math.log(scale) for w in width.tolist()]
        if levels == 1:  # nothing tells the factor to finer levels: octaves
            expected = [math.log2(8.0 / 4096 / w) for w in width.tolist()]
        np.testing.assert_allclose(level.numpy(), np.maximum(expected, 0.0), atol=1e-12)
        assert bool((level.diff() <= 0).all())


def test_levels_between_free_resolutions_are_linear_in_the_log() -> None:
    resolutions = (5, 9, 40, 64)
    pyramid = pyramid_of(PyNeRFConfig(num_levels=4, base_resolution=4, max_resolution=64, resolutions=resolutions))
    for low, high in ((0, 1), (1, 2), (2, 3)):
        for share in (0.0, 0.25, 0.9):
            width = 8.0 / resolutions[low] * (resolutions[low] / resolutions[high]) ** share
            assert float(pyramid.level_of(torch.tensor([width], dtype=torch.float64))) == pytest.approx(low + share)
            assert float(pyramid.gsd(torch.tensor([low + share]))) == pytest.approx(width)


def test_a_background_doubles_the_cells() -> None:
    widths = torch.logspace(-6, 2, 50, dtype=torch.float64)
    plain, around = (pyramid_of(PyNeRFConfig(background=background)) for background in (False, True))
    assert around.gsds[0] == 2 * plain.gsds[0]
    torch.testing.assert_close(around.level_of(2 * widths), plain.level_of(widths))


def by_hand(model: PyNeRF, level: float, local: torch.Tensor, direction: torch.Tensor) -> tuple[float, np.ndarray]:
    """The field at one place, a grid corner and a weight at a time."""
    config = model.config
    numbers, tables = model.mlp.detach().numpy(), model.tables.detach().numpy()

    def mlp(start: int, shapes: list[tuple[int, int]], x: np.ndarray) -> np.ndarray:
        for i, (n_in, n_out) in enumerate(shapes):
            matrix = numbers[start : start + n_in * n_out].reshape(n_in, n_out)
            x = x @ matrix + numbers[start + n_in * n_out : start + n_in * n_out + n_out]
            x = np.maximum(x, 0) if i + 1 < len(shapes) else x
            start += n_in * n_out + n_out
        return x

    def encoding(head: int) -> np.ndarray:
        first = 0
        if not config.share_grid:
            first = sum(sum(config.grid_entries[: config.grid_counts[h]]) for h in range(head))
        out = []
        for grid in range(config.grid_counts[head]):
            res, entries = config.grid_resolutions[grid], config.grid_entries[grid]
            cell = np.minimum((local.numpy() * res).astype(int), res - 1)
            part, total = local.numpy() * res - cell, np.zeros(config.features_per_level)
            for corner in np.ndindex(2, 2, 2):
                at = cell + corner
                if (res + 1) ** 3 <= config.hash_table_size:
                    entry = at[0] + (res + 1) * (at[1] + (res + 1) * at[2])
                else:
                    hashed = int(at[0]) ^ int(at[1]) * 2654435761 & 0xFFFFFFFF ^ int(at[2]) * 805459861 & 0xFFFFFFFF
                    entry = hashed % config.hash_table_size
                total += tables[first + entry] * np.where(corner, part, 1 - part).prod()
            out.append(total)
            first += entries
        return np.concatenate(out)

    def density(raw: float) -> float:
        return math.exp(min(raw + config.density_shift, MAX_LOG_DENSITY)) / 4.0  # half the root's edge

    def color(head: int, geometry: np.ndarray) -> np.ndarray:
        start = sum((a + 1) * b for h in range(config.num_levels) for a, b in config.density_shapes(h))
        start += head * sum((a + 1) * b for a, b in config.color_shapes)
        harmonics = spherical_harmonics(direction[None], config.sh_degree)[0].numpy()
        return 1 / (1 + np.exp(-mlp(start, config.color_shapes, np.concatenate([geometry, harmonics]))))

    low = int(level)
    outputs, shares = [], []
    for head, share in ((low, 1 - (level - low)), (low + 1, level - low)):
        if share > 0:
            start = sum((a + 1) * b for h in range(head) for a, b in config.density_shapes(h))
            outputs.append((head, mlp(start, config.density_shapes(head), encoding(head))))
            shares.append(share)
    if config.interpolation == "color":
        pairs = [(share, head, out) for share, (head, out) in zip(shares, outputs, strict=True)]
        rgb = np.sum([share * color(head, out[1:]) for share, head, out in pairs], axis=0)
        return sum(share * density(out[0]) for share, _, out in pairs), rgb
    mixed = np.sum([share * out for share, (_, out) in zip(shares, outputs, strict=True)], axis=0)
    return density(mixed[0]), color(0, mixed[1:])


@pytest.mark.parametrize("variety", range(len(VARIETIES)))
def test_the_field_mixes_the_two_heads_around_a_level(variety: int) -> None:
    model = random_pyramid(variety, half=False, **VARIETIES[variety]).double()
    generator = torch.Generator().manual_seed(variety)
    n, top = 40, model.config.num_levels - 1
    level = torch.rand(n, generator=generator, dtype=torch.float64) * top
    level[:4], level[4:8] = torch.arange(4).clamp(max=top).double(), top
    local = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    direction = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=torch.float64), dim=-1)
    sigma, rgb = model.field(level, local, direction)
    for i in range(n):
        expected = by_hand(model, float(level[i]), local[i], direction[i])
        np.testing.assert_allclose(float(sigma[i].detach()), expected[0], rtol=1e-11)
        np.testing.assert_allclose(rgb[i].detach().numpy(), expected[1], rtol=1e-11)


def test_levels_of_a_march_are_those_of_its_distances() -> None:
    model = random_pyramid(0, half=False).double()
    origins = torch.tensor([[0.5, 0.5, -1.0]], dtype=torch.float64).expand(20, 3)
    directions = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(20, 3)
    cones = torch.logspace(-5, 0, 20, dtype=torch.float64)
    samples = model.march(origins, directions, cones, torch.arange(20), MarchSettings(), within_trained=False)
    assert len(samples) > 100
    steps = samples.dt[(samples.ray_indices == 0)]
    width = math.sqrt(math.pi) * cones[samples.ray_indices] * samples.t
    asked = torch.log2(model.gsd(0) / width)
    finest = asked.clamp(0, 3)
    aligned = samples.dt < 1.1 * float(steps.min())  # a merged step's level is that of its first part
    torch.testing.assert_close(samples.level[aligned], finest[aligned], atol=0.1, rtol=0)
    assert torch.equal(samples.node, samples.level.long())
    assert bool((samples.wanted >= samples.level).all())
    assert float(samples.wanted.max()) > 3.5
    limited = model.march(origins, directions, cones, torch.arange(20), MarchSettings(min_level=1, max_level=2))
    assert float(limited.level.min()) >= 1
    assert float(limited.level.max()) <= 2


def test_levels_keep_to_what_was_trained_at_their_place() -> None:
    generator = torch.Generator().manual_seed(0)
    resolution, n = 3, 400
    trained = torch.tensor(UNTRAINED, dtype=torch.uint8)[:, None].repeat(1, resolution**3)
    places = torch.rand(n, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 1.0, 0.6])
    levels = torch.rand(n, generator=generator, dtype=torch.float64) * 7
    cells = trained_cells(places, resolution)
    note_trained(trained, levels[: n // 2], cells[: n // 2])
    kept = within_trained(levels, trained, cells)
    for i in range(n):
        own = levels[: n // 2][cells[: n // 2] == cells[i]].numpy()
        if not len(own):
            assert float(kept[i]) == 0
            continue
        least, greatest = np.floor(own.min() * 16) / 16, np.ceil(own.max() * 16) / 16
        assert float(kept[i]) == np.clip(float(levels[i]), least, greatest)
    assert torch.equal(kept[: n // 2], levels[: n // 2])  # what was trained is left alone
    nowhere = trained_cells(torch.tensor([[0.5, 0.5, 0.99]], dtype=torch.float64), resolution)
    assert float(within_trained(torch.tensor([5.0]), trained, nowhere)) == 0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("hash_table_size", 1000, "power of two"), ("hidden_dim", 48, "one of 16, 32"), ("num_levels", 17, "1 to 16"),
     ("scale_factor", 1.0, "1.1 to 16"), ("interpolation", "nearest", "embedding, color"),
     ("resolutions", (16, 32), "a list of num_levels 8"), ("resolutions", (*range(7, 0, -1), 2048), "must rise"),
     ("resolutions", tuple(range(1, 9)), "end at max_resolution 2048"), ("share_grid", 1, "true or false"),
     ("n_grid_levels", 9, "at most 32"), ("max_resolution", 8, "at least base_resolution")],
)  # fmt: skip
def test_configs_out_of_range_are_refused_by_name(key: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PyNeRFConfig(**{key: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown keys: extra"):
        PyNeRFConfig.from_dict(PyNeRFConfig().to_dict() | {"extra": 1})
    with pytest.raises(ValueError, match="config lacks background, base_resolution"):
        PyNeRFConfig.from_dict({})


def test_defaults_are_the_published_ones() -> None:
    config = PyNeRFConfig()
    assert config.level_resolutions == [16.0 * 2**i for i in range(8)]
    assert config.grid_resolutions == [16 * 2**i for i in range(8)]
    assert (config.hash_table_size, config.features_per_level) == (2**20, 4)
    assert config.color_shapes == [(31, 128), (128, 128), (128, 3)]
    assert config.density_shapes(2) == [(12, 64), (64, 16)]
    assert PyNeRFConfig(num_levels=1).density_shapes(0) == [(32, 64), (64, 16)]
