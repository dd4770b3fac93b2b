"""Mip-NeRF against the published formulas in float64, and public state dicts converted, good and bad."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import format_scenes as make
import numpy as np
import pytest
import torch
from mip_reference import Shape, public_state, render_ray

from infnerf.models.backends import load_model
from infnerf.models.camera import OPENGL_FLIP, Camera, look_at
from infnerf.models.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from infnerf.models.mipnerf import Look, MipNeRF, MipRays, look_along
from infnerf.models.mipnerf_config import MipNeRFConfig
from infnerf.training import cli
from infnerf.training.evaluate import open_split

TINY = MipNeRFConfig(net_depth=3, skip_layer=1, net_width=8, view_width=8, max_deg=4, num_samples=6)


def camera_at(eye: tuple[float, float, float] = (1.5, -3.4, 1.1)) -> Camera:
    return Camera(look_at(np.array(eye), np.zeros(3), np.array([0.0, 0, 1])), 9, 9, 6, 4, 12, 8)


def published_rays(camera: Camera) -> tuple[np.ndarray, float]:
    """Directions [n, 3] that reach the plane at depth 1, and the radius there."""
    row, column = (grid.ravel() + 0.5 for grid in np.indices((camera.height, camera.width)))
    local = np.stack([(column - camera.cx) / camera.fx, (row - camera.cy) / camera.fy, np.ones(row.size)], -1)
    return local @ camera.c2w[:3, :3].T, 2 / np.sqrt(12) / camera.fx


def our_rays(model: MipNeRF, camera: Camera) -> MipRays:
    row, column = (grid.ravel() + 0.5 for grid in np.indices((camera.height, camera.width)))
    arrays = (torch.from_numpy(np.array(a)) for a in camera.pixel_rays(column, row))
    return model.place_rays(*arrays, torch.from_numpy(camera.c2w[:3, 2].copy()))


def convert(state: dict[str, torch.Tensor], folder: Path, *options: str) -> MipNeRF:
    source, out = folder / "model.pt", folder / "out.pth"
    torch.save(state, source)
    assert cli.main(["convert", str(source), str(out), "--overwrite", *options]) == 0
    model = load_model(out)
    assert isinstance(model, MipNeRF)
    return model


@pytest.mark.parametrize("ray_shape", ["cone", "cylinder"])
@pytest.mark.parametrize("viewdirs", [True, False])
def test_a_converted_model_is_the_published_one(viewdirs: bool, ray_shape: str, tmp_path: Path) -> None:
    """Colours, depth and weights of coarse and fine looks, to 1e-5 (in float64 they agree to about 1e-9)."""
    shape = Shape(viewdirs=viewdirs, ray_shape=ray_shape)
    state = public_state(shape)
    model = convert(state, tmp_path, "--ray-shape", ray_shape, "--samples", str(shape.samples))
    assert (model.config.num_samples, model.config.net_depth, model.config.skip_layer) == (shape.samples, 8, 4)
    camera = camera_at()
    looks = look_along(model.network(torch.float64), our_rays(model, camera))
    directions, radius = published_rays(camera)
    opacities = []
    for i, d in enumerate(directions):
        for look, expected in zip(looks, render_ray(state, shape, camera.position, d, radius), strict=True):
            got = {
                "t": look.t[i], "weights": look.weights[i], "rgb": look.color[i], "opacity": look.opacity[i],
                "depth": look.depth[i] / look.opacity[i],
            }  # fmt: skip
            for name, value in got.items():
                np.testing.assert_allclose(value.numpy(), expected[name], rtol=0, atol=1e-5, err_msg=name)
            opacities.append(float(look.opacity[i]))
    assert np.ptp(opacities) > 0.05  # there was something to see


def test_what_a_state_dict_tells(tmp_path: Path) -> None:
    shape = Shape(hidden=12, samples=9, layers=(2, 3), max_deg=5, view_deg=2)
    model = convert(public_state(shape), tmp_path)
    config = model.config
    assert (config.net_depth, config.skip_layer, config.net_width, config.view_width) == (5, 2, 12, 9)
    assert (config.min_deg, config.max_deg, config.view_max_deg, config.num_samples) == (0, 5, 2, 9)
    assert (config.near, config.far, config.ray_shape) == (2.0, 6.0, "cone")
    assert model.scene["background"] == [1.0, 1.0, 1.0]
    assert model.scene["color_space"] == "srgb"
    assert model.scene["aabb"] == [[-2.0] * 3, [2.0] * 3]
    assert model.n_parameters == sum(p.numel() for p in model.parameters())
    assert convert(public_state(replace(shape, viewdirs=False)), tmp_path).config.num_samples == 128


def test_what_options_tell(tmp_path: Path) -> None:
    model = convert(
        public_state(Shape(hidden=8, samples=8)), tmp_path, "--near", "0.5", "--far", "9", "--background", "0,0.5,1",
        "--linear", "--disparity", "--samples", "33", "--box", "0,0,0,1,2,3", "--ray-shape", "cylinder",
        "--placement", "0,2,0,1,-2,0,0,2,0,0,2,3",
    )  # fmt: skip
    told = asdict(model.config)
    assert (told["near"], told["far"], told["num_samples"], told["disparity"]) == (0.5, 9.0, 33, True)
    assert told["ray_shape"] == "cylinder"
    assert model.scene["aabb"] == [[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]
    assert (model.scene["background"], model.scene["color_space"]) == ([0.0, 0.5, 1.0], "linear")
    assert model.config.scale == pytest.approx(2.0)


def test_a_placed_model_is_the_same_picture_from_the_placed_camera(tmp_path: Path) -> None:
    """World -> model turns, doubles and moves: the same colours, to 1e-6."""
    state = public_state(Shape(hidden=8, samples=8))
    plain = convert(state, tmp_path)
    moved = convert(state, tmp_path, "--placement", "0,2,0,1,-2,0,0,2,0,0,2,3")
    camera = camera_at()
    inverse = np.linalg.inv(np.vstack([moved.config.matrix, [0, 0, 0, 1]]))
    c2w = inverse @ camera.c2w
    c2w[:3, :3] *= 2
    for a, b in zip(
        look_along(plain.network(torch.float64), our_rays(plain, camera)),
        look_along(moved.network(torch.float64), our_rays(moved, camera.moved(c2w))),
        strict=True,
    ):
        assert torch.allclose(a.color, b.color, atol=1e-6)
        assert torch.allclose(a.depth, b.depth, atol=1e-6)  # both in model units


def test_its_data_set_is_read_in_the_coordinates_it_was_trained_in(tmp_path: Path) -> None:
    """A Blender scene's poses as its file has them, in OpenCV's axes, and its focal length: not moved, not scaled."""
    model = convert(public_state(Shape(hidden=8, samples=8)), tmp_path)
    scene = make.blender(tmp_path / "scene")
    stored = json.loads((scene / "transforms_test.json").read_text())
    data, _ = open_split(scene, "test", model.scene)
    assert len(data) == len(stored["frames"]) > 0
    for camera, frame in zip(data.cameras, stored["frames"], strict=True):
        np.testing.assert_allclose(camera.c2w, np.array(frame["transform_matrix"]) @ OPENGL_FLIP, atol=1e-9)
        assert camera.fx == pytest.approx(0.5 * camera.width / np.tan(0.5 * stored["camera_angle_x"]))


# --- files that are none ---------------------------------------------------------------------------------------------


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = cli.main(["convert", *arguments])
    said = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in said
    return code, said


def broken(name: str) -> Any:
    """A state dict with one thing wrong."""
    state: dict[str, Any] = dict(public_state(Shape(hidden=8, samples=8)))
    changes: dict[str, Any] = {
        "missing": lambda: state.pop("final_rgb.0.bias"),
        "unknown": lambda: state.update({"extra.weight": torch.zeros(2)}),
        "wrong size": lambda: state.update({"density_net1.0.weight": torch.zeros(8, 8)}),
        "gap": lambda: [state.pop(f"density_net0.2.{part}") for part in ("weight", "bias")],
        "nan": lambda: state["density_net0.0.weight"].fill_(float("nan")),
        "whole numbers": lambda: state.update({"final_density.0.bias": torch.zeros(1, dtype=torch.int64)}),
        "scales": lambda: state.update({"positional_encoding.scales": torch.tensor([1, 2, 5])}),
        "no scales": lambda: state.pop("viewdirs_encoding.scales"),
        "a vector": lambda: state.update({"rgb_net1.0.weight": torch.zeros(8)}),
        "no tensor": lambda: state.update({"final_rgb.0.bias": 3}),
    }
    changes[name]()
    return state


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", r"final_rgb.0.bias must be a float tensor \[3\], got nothing"),
        ("unknown", "got unknown extra.weight"),
        ("wrong size", r"density_net1.0.weight must be a float tensor \[8, 104\], got a tensor float32 \[8, 8\]"),
        ("gap", r"density_net0 must have layers 0, 2, 4, ..., got \[0, 4, 6\]"),
        ("nan", "density_net0.0.weight must be finite"),
        ("whole numbers", r"final_density.0.bias must be a float tensor \[1\], got a tensor int64"),
        ("scales", r"positional_encoding.scales must be powers of two, each twice the one before, got \[1, 2, 5\]"),
        ("no scales", "viewdirs_encoding.scales must be a list of 1 to 40 powers of two, got nothing"),
        ("a vector", r"rgb_net1.0.weight must be a matrix, got a tensor float32 \[8\]"),
        ("no tensor", "final_rgb.0.bias must be a dense tensor, got 3"),
    ],
)
def test_a_state_dict_with_something_wrong(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "model.pt"
    torch.save(broken(name), source)
    code, said = refusal(capsys, str(source), str(tmp_path / "out.pth"))
    assert code == 1
    assert re.search(message, said), said
    assert said.startswith(f"infnerf: {source}: ")
    assert not (tmp_path / "out.pth").exists()


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_files_that_are_no_state_dicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "model.pt", str(tmp_path / "out.pth")
    for value, message in (
        ([1, 2], "expected the state dict of a mip-NeRF, got a list of 2"),
        ({"a": 1}, r"expected the state dict of a mip-NeRF \(density_net0.0.weight, ...\), got one of a"),
        ({"density_net0.0.weight": Hostile(tmp_path / "ran")}, "nothing of it was run"),
    ):
        torch.save(value, source)
        code, said = refusal(capsys, str(source), out)
        assert code == 1
        assert re.search(message, said), said
    assert not (tmp_path / "ran").exists()
    source.write_bytes(b"not a zip")
    assert "that starts with b'not '" in refusal(capsys, str(source), out)[1]


def test_damaged_files_are_refused_by_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut short, and with bytes changed at 40 random places: refused, or read where the change did no harm."""
    source, out = tmp_path / "model.pt", tmp_path / "out.pth"
    torch.save(public_state(Shape(hidden=4, samples=4, max_deg=2, view_deg=1)), source)
    whole, rng = source.read_bytes(), np.random.default_rng(0)
    for cut in (10, len(whole) // 2, len(whole) - 30):
        source.write_bytes(whole[:cut])
        assert refusal(capsys, str(source), str(out))[0] == 1
    for _ in range(40):
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            changed[place] = rng.integers(0, 256)
        source.write_bytes(changed)
        assert refusal(capsys, str(source), str(out), "--overwrite")[0] in (0, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--near", "7"], 1, "config.near must be below far, got 7.0 and 6.0"),
        (["--near", "nan"], 1, "config.near must be 0 to 1e"),
        (["--samples", "1"], 2, "--samples"),
        (["--placement", "1,2"], 2, "--placement takes 12 finite numbers"),
        (["--placement", "1,0,0,0,0,2,0,0,0,0,1,0"], 1, "config.placement must turn, scale and move"),
        (["--background", "blue"], 2, "--background takes 3 finite numbers"),
        (["--box", "0,0,0,1,1,0"], 2, "--box must be a minimum below a maximum"),
        (["--split", "all"], 2, "--split is for data sets, got the model"),
    ],
)
def test_options_of_a_model(
    arguments: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "model.pt"
    torch.save(public_state(Shape(hidden=4, samples=4)), source)
    got, said = refusal(capsys, str(source), str(tmp_path / "out.pth"), *arguments)
    assert got == code
    assert message in said


def test_models_and_data_sets_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refusal(capsys, str(tmp_path), str(tmp_path / "out"), "--near", "1")
    assert code == 2
    assert f"--near is for a model (.pt, .pth, .ckpt), got {tmp_path}" in said
    source, out = tmp_path / "weights", tmp_path / "out.pth"  # a zip, whatever its name
    torch.save(public_state(Shape(hidden=4, samples=4)), source)
    assert refusal(capsys, str(source), str(out))[0] == 0
    code, said = refusal(capsys, str(source), str(out))
    assert code == 1
    assert "there is a file already (--overwrite replaces it)" in said
    assert "a model is written as OUT.pth" in refusal(capsys, str(source), str(tmp_path / "out"))[1]


# --- the model -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_brings_the_model_back(tmp_path: Path) -> None:
    model = MipNeRF(TINY, seed=3)
    save_checkpoint(model.checkpoint({"step": 1}), tmp_path / "m.pth")
    again = load_model(tmp_path / "m.pth")
    assert isinstance(again, MipNeRF)
    assert again.config == TINY
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not again.learns
    assert again.make_trainable().learns
    assert float(again.gsd(0)) == pytest.approx(np.pi / 8)
    checkpoint = load_checkpoint(tmp_path / "m.pth")
    checkpoint.field["trunk0_weight"] = torch.zeros(3, 3)
    with pytest.raises(CheckpointError, match=r"field.trunk0_weight must be a tensor float32 \[8, 24\]"):
        save_checkpoint(checkpoint, tmp_path / "n.pth")


def test_half_of_the_published_numbers() -> None:
    """Of the paper's network, and what its file takes: under 4 MB."""
    config = MipNeRFConfig()
    assert list(config.layer_shapes.items())[:6][4:] == [("trunk4", (352, 256)), ("trunk5", (256, 256))]
    assert config.layer_shapes["view"] == (283, 128)
    assert 4 * config.n_parameters < 4e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net_width": 0}, "config.net_width must be a whole number from 1 to 4096, got 0"),
        ({"skip_layer": 8}, "config.skip_layer must be a whole number from 1 to 7, got 8"),
        ({"max_deg": 0}, "config.max_deg must be above min_deg 0, got 0"),
        ({"far": 1.0}, "config.near must be below far"),
        ({"near": 0.0, "disparity": True}, "config.near must be below far and above 0"),
        ({"ray_shape": "prism"}, "config.ray_shape must be cone or cylinder, got 'prism'"),
        ({"use_viewdirs": 1}, "config.use_viewdirs must be true or false"),
        ({"density_bias": float("nan")}, "config.density_bias must be -100 to 100, got nan"),
        ({"placement": (1.0,) * 11}, "config.placement must be a list of 12 finite numbers"),
        ({"placement": (-1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)}, "config.placement must turn, scale and move"),
    ],
)
def test_configs_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(MipNeRFConfig(), **change)
    values = MipNeRFConfig().to_dict() | {k: list(v) if isinstance(v, tuple) else v for k, v in change.items()}
    with pytest.raises(ValueError, match=message):
        MipNeRFConfig.from_dict(values)


def test_a_config_survives_its_file() -> None:
    assert MipNeRFConfig.from_dict(TINY.to_dict()) == TINY
    with pytest.raises(ValueError, match="config lacks far"):
        MipNeRFConfig.from_dict({k: v for k, v in TINY.to_dict().items() if k != "far"})
    with pytest.raises(ValueError, match="config has unknown keys: depth"):
        MipNeRFConfig.from_dict(TINY.to_dict() | {"depth": 1})


def looks_of(model: MipNeRF, **options: Any) -> list[Look]:
    return look_along(model.network(torch.float64), our_rays(model, camera_at()), **options)


def test_parts_of_rays_are_the_whole_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at in parts: the same; with an early stop: what is left out is less than was to stop at."""
    model = MipNeRF(replace(TINY, density_bias=2.0), seed=1)
    whole, parts = looks_of(model), looks_of(model, blocks=4)
    stopped = looks_of(model, blocks=3, early_stop=0.05)
    for a, b in zip(whole, parts, strict=True):
        assert torch.allclose(a.weights, b.weights, atol=1e-12)
        assert torch.allclose(a.color, b.color, atol=1e-12)
    assert torch.equal(whole[0].weights[:, :2], stopped[0].weights[:, :2])
    assert (stopped[0].opacity >= whole[0].opacity.clamp(max=0.95) - 1e-9).all()
    assert (stopped[0].weights == 0).any()
    coarse = looks_of(model, all_colors=False)
    assert coarse[0].rgb is None
    assert torch.equal(coarse[1].color, whole[1].color)


def test_gradients_do_not_go_through_the_resampling() -> None:
    model = MipNeRF(TINY, seed=1).make_trainable()
    network = model.network()
    rays = our_rays(model, camera_at())
    rays = MipRays(rays.origins.float(), rays.directions.float(), rays.radii.float())
    looks = look_along(network, rays)
    assert not looks[1].t.requires_grad
    looks[1].color.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
