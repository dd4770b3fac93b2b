"""A PyNeRF in nerfstudio's layout: what is there has the plugin's names, and read back it is the same field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_pyramids import random_pyramid
from test_pynerf_checkpoint import checkpoint_of

from infnerf.models.checkpoint import save_checkpoint
from infnerf.models.mlp import spherical_harmonics
from infnerf.models.pynerf import PyNeRF
from infnerf.training.cli import main
from infnerf.training.export_nerfstudio import pipeline_state


def exported(model: PyNeRF, folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = checkpoint_of(model)
    checkpoint.training = {"step": 1234}
    save_checkpoint(checkpoint, folder / "py.pth")
    assert main(["convert", "--to", "nerfstudio", str(folder / "py.pth"), str(folder / "run")]) == 0
    saved = torch.load(folder / "run" / "nerfstudio_models" / "step-000001234.ckpt", weights_only=True)
    assert saved["step"] == 1234
    return saved["pipeline"]


def hashed_features(table: torch.Tensor, local: torch.Tensor, resolutions: list[int], size: int) -> torch.Tensor:
    """nerfstudio's `HashEncoding`: every level hashed, corners by floor and ceil."""
    out = []
    for level, resolution in enumerate(resolutions):
        scaled = local * resolution
        low, part, total = scaled.floor().long(), scaled - scaled.floor(), 0.0
        for corner in np.ndindex(2, 2, 2):
            at = torch.where(torch.tensor(corner).bool(), scaled.ceil().long(), low)
            x, y, z = (at * torch.tensor([1, 2654435761, 805459861])).unbind(-1)
            weight = torch.where(torch.tensor(corner).bool(), part, 1 - part).prod(-1, keepdim=True)
            total = total + weight * table[(x ^ y ^ z) % size + level * size]
        out.append(total)
    return torch.cat(out, -1)


def linear_layers(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    n = sum(key.startswith(f"_model.field.{name}.layers.") for key in state) // 2
    for i in range(n):
        key = f"_model.field.{name}.layers.{i}"
        x = torch.nn.functional.linear(x, state[f"{key}.weight"], state[f"{key}.bias"])
        x = x.relu() if i + 1 < n else x
    return x


@pytest.mark.parametrize("interpolation", ["embedding", "color"])
@pytest.mark.parametrize("share", [False, True])
def test_read_by_the_plugins_formulas_it_is_the_same_field(tmp_path: Path, interpolation: str, share: bool) -> None:
    shape: dict[str, Any] = {
        "base_resolution": 16,
        "n_grid_levels": 4,
        "max_resolution": 128,
    }  # more corners than entries: hashed here too
    model = random_pyramid(1, interpolation=interpolation, share_grid=share, sh_degree=3, **shape)
    state, config = exported(model, tmp_path), model.config
    generator = torch.Generator().manual_seed(0)
    local = torch.rand(50, 3, generator=generator)
    direction = torch.nn.functional.normalize(torch.randn(50, 3, generator=generator), dim=-1)
    for head in range(config.num_levels):
        name = "encoding" if share else f"encodings.{head}"
        resolutions = config.grid_resolutions[: config.grid_counts[-1 if share else head]]
        features = hashed_features(state[f"_model.field.{name}.hash_table"], local, resolutions, config.hash_table_size)
        features = features[:, : config.grid_counts[head] * config.features_per_level]
        out = linear_layers(state, f"mlp_bases.{head}", features)
        colors = f"mlp_heads.{head}" if interpolation == "color" else "mlp_head"
        harmonics = torch.nn.functional.pad(spherical_harmonics(direction, 3), (0, 7))
        rgb = linear_layers(state, colors, torch.cat([harmonics, out[:, 1:]], -1)).sigmoid()
        sigma = torch.exp(out[:, 0] - 1)  # over the cube [-1, 1]
        expected = model.field(torch.full((50,), float(head)), local, direction)
        torch.testing.assert_close(sigma / model.unit, expected[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(rgb, expected[1], rtol=1e-4, atol=1e-5)


def test_names_and_shapes_of_the_layout(tmp_path: Path) -> None:
    model = random_pyramid(0)
    state = exported(model, tmp_path)
    config = model.config
    assert state["_model.field.encodings.2.hash_table"].shape == (config.grid_counts[2] * 1024, 4)
    assert state["_model.field.mlp_bases.3.layers.0.weight"].shape == (16, config.grid_counts[3] * 4)
    assert state["_model.field.mlp_bases.3.layers.1.bias"].shape == (16,)
    assert state["_model.field.mlp_head.layers.0.weight"].shape == (32, 16 + 15)
    assert state["_model.occupancy_grid.binaries"].shape == (1, 16, 16, 16)
    assert state["_model.occupancy_grid.binaries"].dtype == torch.bool
    assert state["_model.device_indicator_param"].shape == (0,)
    least, greatest = state["_model.field.min_trained_level"], state["_model.field.max_trained_level"]
    assert least.shape == greatest.shape == (4, 4, 4)
    index = 1 + 4 * (2 + 4 * 3)  # x, y, z = 1, 2, 3
    own = model.trained[:, index].float() / 16
    expected = own.tolist() if own[0] <= own[1] else [4.0, -1.0]
    assert [float(least[1, 2, 3]), float(greatest[1, 2, 3])] == expected
    bit = int(model.occupancy[0, (1 + 16 * (2 + 16 * 3)) // 32]) >> (1 + 16 * (2 + 16 * 3)) % 32 & 1
    assert int(state["_model.occupancy_grid.binaries"][0, 1, 2, 3]) == bit
    placed = json.loads((tmp_path / "run" / "dataparser_transforms.json").read_text())
    corners = np.array([[-4.0, -4, -4], [4, 4, 4]])
    rotation, translation = np.array(placed["transform"])[:, :3], np.array(placed["transform"])[:, 3]
    np.testing.assert_allclose(placed["scale"] * (corners @ rotation.T + translation), [[-1] * 3, [1] * 3])
    text = (tmp_path / "run" / "config.yml").read_text()
    for line in ("num_scales: 4", "log2_hashmap_size: 10", "output_interpolation: embedding", "hidden_dim_color: 32"):
        assert f"    {line}\n" in text


def test_a_scene_that_was_moved_is_moved_back() -> None:
    from infnerf.training.export_nerfstudio import dataparser_transforms

    model = random_pyramid(0)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    placed = np.eye(4)
    placed[:3, :3], placed[:3, 3] = 2.5 * rotation, [1.0, 2, 3]
    model.scene["transform"] = placed.tolist()
    told = dataparser_transforms(model)
    x = np.random.default_rng(1).normal(size=3)
    ours = (placed[:3, :3] @ x + placed[:3, 3]) / 4  # the root is [-4, 4]
    matrix = np.array(told["transform"])
    np.testing.assert_allclose(told["scale"] * (matrix[:, :3] @ x + matrix[:, 3]), ours)
    np.testing.assert_allclose(matrix[:, :3] @ matrix[:, :3].T, np.eye(3), atol=1e-12)


def test_what_shares_an_entry_is_said() -> None:
    _, notes = pipeline_state(random_pyramid(0))
    assert len(notes) == 1
    assert "grid corners share an entry" in notes[0]


def test_wrong_input_is_refused(tmp_path: Path, city: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(checkpoint_of(random_pyramid(0)), tmp_path / "py.pth")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    convert = ["convert", "--to", "nerfstudio"]
    demo = Path(__file__).parents[1] / "assets" / "demo.pth"
    for arguments, code, message in (
        ([str(tmp_path / "py.pth"), str(tmp_path / "full")], 1, "expected an empty or new folder"),
        ([str(tmp_path / "py.pth"), str(tmp_path / "py.pth")], 1, "expected a folder, found a file"),
        ([str(demo), str(tmp_path / "new")], 1, "takes a PyNeRF, got a model of backend infnerf"),
        ([str(tmp_path / "py.pth"), str(tmp_path / "new"), "--near", "3"], 2, "--near is not for a model"),
    ):
        assert main([*convert, *arguments]) == code
        assert message in capsys.readouterr().err
    assert main([*convert, str(tmp_path / "py.pth"), str(tmp_path / "full"), "--overwrite"]) == 0
