"""The field on tensor cores, by an emulated warp (`cuda/warp.cuh` on the CPU): mma is a matrix product, tiles are the
portable field's, and a wrong reading of the fragments' layout would be noticed. On a GPU: `test_gpu_mma.py`.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from field_cases import CONFIGS, LOGIT, RGB, FieldCase
from random_models import random_model
from warp_emulator import ENTRY, GENERAL, Emulator, build_emulator
from warp_layout import fragments, hard_numbers, random_matrices

from infnerf.models.config import InfNeRFConfig
from infnerf.renderer.kernels import CUDA_DIR
from infnerf.renderer.tensor_cores import shade_shape

EMULATED = {(16, 16, 16), (16, 32, 16), GENERAL}  # shapes that cpu_warp.cpp is built for


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator(build_emulator(CUDA_DIR, tmp_path_factory.mktemp("warp")))


def test_mma_is_a_matrix_product(emulator: Emulator) -> None:
    a, b, c = random_matrices()
    word_a, word_b, sums = fragments(a, b, c)
    np.testing.assert_array_equal(emulator.mma(word_a, word_b, sums), fragments(a, b, c + a @ b)[2])


def test_halves_are_rounded_as_ieee_says_and_saturate(emulator: Emulator) -> None:
    every = hard_numbers()
    packed = np.array([emulator.pack(float(x), -float(x)) for x in every], np.uint32)
    low, high = ((packed >> shift & 0xFFFF).astype(np.uint16) for shift in (0, 16))
    np.testing.assert_array_equal(low, every.astype(np.float16).view(np.uint16))
    np.testing.assert_array_equal(high, (-every).astype(np.float16).view(np.uint16))
    assert emulator.pack(1e6, -3e38) == 0xFBFF7BFF  # 65504 and -65504


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_tiles_are_the_portable_fields(emulator: Emulator, config: dict[str, Any]) -> None:
    """In the shape that holds every model, and in the model's own where the emulation is built for it."""
    for seed in (0, 1):
        case = FieldCase.random(config, seed)
        shapes = {GENERAL, shade_shape(case.model.config)} & EMULATED
        for shape in shapes:
            logit, rgb = case.errors(*emulator.shade(case, shape))
            assert logit < LOGIT, shape
            assert rgb < RGB, shape


@pytest.mark.parametrize("warps", [1, 2, 7, 64])
def test_any_number_of_warps_shades_every_tile_once(emulator: Emulator, warps: int) -> None:
    """Long runs restage at each change of node; more warps than tiles leave some idle."""
    case = FieldCase.random({"hidden_dim": 16}, counts=(1, 200, 33, 0, 32, 400))
    sigma, rgb = emulator.shade(case, warps=warps)
    expected = emulator.shade(case, warps=5)
    assert torch.equal(sigma, expected[0])
    assert torch.equal(rgb, expected[1])
    assert case.errors(sigma, rgb)[0] < LOGIT


def test_only_the_tiles_samples_are_written(emulator: Emulator) -> None:
    case = FieldCase.random({})
    kept, order, starts = case.arrays["tiles"][1::2], case.arrays["order"], case.arrays["starts"]
    case.arrays["tiles"] = kept.contiguous()
    written = torch.zeros(len(order), dtype=torch.bool)
    for node, first in kept.tolist():
        written[order[first : min(first + 32, int(starts[node + 1]))].long()] = True
    sigma, rgb = emulator.shade(case)
    assert torch.equal(sigma.isfinite(), written)
    assert torch.equal(rgb.isfinite(), written[:, None].expand(-1, 3))
    case.arrays["tiles"] = case.arrays["tiles"][:0]
    assert emulator.shade(case)[0].isnan().all()


def test_activations_beyond_half_precision_stay_finite(emulator: Emulator) -> None:
    model = random_model(0)
    model.mlp.data *= 400  # hidden units of 1e5 and more
    sigma, rgb = emulator.shade(FieldCase(model))
    assert sigma.isfinite().all()
    assert rgb.isfinite().all()


def test_a_shape_refuses_models_that_it_has_no_room_for(emulator: Emulator) -> None:
    small = 16, 16, 16
    for config in ({"hidden_dim": 32}, {"hidden_dim": 16, "geo_dim": 16}, {"hidden_dim": 16, "n_grid_levels": 9}):
        with pytest.raises(ValueError, match="too small"):
            emulator.shade(FieldCase.random(config), small)
    assert emulator.shade(FieldCase.random({"hidden_dim": 16}), small)[0].isfinite().all()


def test_the_shapes_of_all_configs_hold_them() -> None:
    for levels, features, hidden, geo in itertools.product((1, 8, 16), (2, 4), (16, 32, 64), (1, 15, 16, 31)):
        if levels * features <= 32:
            config = InfNeRFConfig(n_grid_levels=levels, features_per_level=features, hidden_dim=hidden, geo_dim=geo)
            shape = shade_shape(config)
            assert all(size % 16 == 0 and size <= most for size, most in zip(shape, GENERAL, strict=True))
            assert shape[0] >= config.n_features
            assert shape[2] > geo


#: (in which file, what stands there, a plausible wrong reading). Another order of rows is none: mma treats all alike.
FAULTS = {
    "sums column by column": ("warp.cuh", "row = i < 2 ? g : g + 8, column = 2 * t + (i & 1)",
                              "row = i % 2 ? g + 8 : g, column = 2 * t + i / 2"),
    "inputs of a lane next to each other": ("warp.cuh", "2 * (l % 4) + i % 2 + 8 * (i / 2)", "4 * (l % 4) + i"),
    "outputs of a lane four apart": ("warp.cuh", "return 2 * (l % 4) + i;", "return l % 4 + 4 * i;"),
    "b transposed": ("warp.cuh", "return l / 4; }", "return l % 8; }"),
    "words 1 and 2 of a swapped": ("warp.cuh", "a[row + 2 * pair][l] =", "a[2 * row + pair][l] ="),
    "words of b swapped": ("mlp_mma.cuh", "words, b[1][l] = (u32)(words >> 32)", "(words >> 32), b[1][l] = (u32)words"),
    "halves of b swapped": ("mlp_mma.cuh", "pack(w[0], w[1]) | (u64)", "pack(w[1], w[0]) | (u64)"),
    "log density of other rows": ("mlp_mma.cuh", "log_density[1] = c[0][2]", "log_density[1] = c[0][1]"),
    "harmonics a pair on": ("mlp_mma.cuh", "input_of(l, 2 * pair) == 2 * j", "input_of(l, 2 * pair) == 2 * j + 2"),
    "another node's weights kept": ("mlp_mma.cuh", "if (node != staged)", "if (staged < 0)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_seeded_fault_is_noticed(fault: str, tmp_path: Path) -> None:
    """The kernel's sources with one line wrong: the very comparison above must reject what they compute."""
    shutil.copytree(CUDA_DIR, tmp_path / "cuda")
    name, right, wrong = FAULTS[fault]
    source = (tmp_path / "cuda" / name).read_text()
    assert source.count(right) == 1
    (tmp_path / "cuda" / name).write_text(source.replace(right, wrong))
    entry = (tmp_path / "cuda" / ENTRY).read_text()
    (tmp_path / "cuda" / ENTRY).write_text(
        "\n".join(line for line in entry.splitlines() if not line.strip().startswith(("TRY(16, 16", "TRY(32, 64")))
    )
    case = FieldCase.random({"sh_degree": 3})
    logit, rgb = case.errors(*Emulator(build_emulator(tmp_path / "cuda", tmp_path)).shade(case))
    assert logit > LOGIT or rgb > RGB
