"""`infnerf eval`: a model measured against its own pictures, what the JSON holds, pictures, and bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from infnerf.data.dataset import DatasetError, PointCloud, write_cameras
from infnerf.data.ply import write_ply
from infnerf.models.camera import Camera, look_at
from infnerf.models.checkpoint import load_checkpoint, save_checkpoint
from infnerf.models.config import InfNeRFConfig
from infnerf.models.infnerf import InfNeRF
from infnerf.renderer.executors import make_executor
from infnerf.renderer.frame import FrameBuffers, RenderRequest
from infnerf.training import cli
from infnerf.training.evaluate import evaluate, node_parameters, shown

KEYS = {
    "psnr", "ssim", "lpips", "lpips_why", "per_scale", "per_image", "per_level", "parameters_used", "split", "views",
    "checkpoint", "data", "executor", "commit", "samples", "downscale", "warnings",
}  # fmt: skip
SIZE = (48, 32)


def cameras(n: int) -> list[Camera]:
    """Around the tiny checkpoint's box; the first one near, the others from further away."""
    target, up = np.array([0.5, 0.5, 0.2]), np.array([0.0, 0, 1.0])
    eyes = [
        target + np.array([np.cos(a), np.sin(a), 0.7]) * (0.5 if i == 0 else 1.4) for i, a in enumerate(np.arange(n))
    ]
    return [Camera.from_fov(look_at(eye, target, up), 45, *SIZE) for eye in eyes]


def write_split(folder: Path, model: InfNeRF, views: dict[str, Camera]) -> None:
    """What the model itself shows, as images: an evaluation of it must find them right but for their 8 bits."""
    (folder / "images").mkdir(parents=True)
    executor, _ = make_executor("cpu", model)
    for name, camera in views.items():
        buffers = FrameBuffers.allocate(camera.width, camera.height)
        executor.render(RenderRequest(camera), buffers)
        pixels = np.rint(shown(buffers.color, model.scene) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
    write_cameras(folder / "cameras.json", views)


@pytest.fixture(scope="module")
def data(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval") / "data"
    model = InfNeRF.load(str(tiny_checkpoint))
    near, far, *train = cameras(4)
    write_split(folder / "test", model, {"near.png": near, "far [b].png": far})
    write_split(folder, model, {f"train_{i}.png": camera for i, camera in enumerate(train)})
    xyz = np.random.default_rng(0).random((20, 3)) * [1, 1, 0.4]
    write_ply(folder / "sparse_points.ply", PointCloud(xyz, np.zeros((20, 3), np.uint8), np.full(20, 0.01)))
    return folder


@pytest.fixture(scope="module")
def result(tiny_checkpoint: Path, data: Path) -> dict[str, Any]:
    return evaluate(tiny_checkpoint, data, scales=(1, 2), samples=1)


def test_a_model_measures_its_own_pictures_as_right(result: dict[str, Any]) -> None:
    assert result["views"] == 2
    assert result["per_scale"]["1"]["psnr"] > 50  # 8 bits: 59 dB at best
    assert result["per_scale"]["1"]["ssim"] > 0.999
    assert result["per_scale"]["2"]["psnr"] < 45  # a coarse frame is not the mean of a fine one
    for key in ("psnr", "ssim", "parameters_used"):
        assert result[key] == pytest.approx(np.mean([row[key] for row in result["per_scale"].values()]))
        for scale, row in result["per_scale"].items():
            per_view = [view["per_scale"][scale][key] for view in result["per_image"]]
            assert row[key] == pytest.approx(np.mean(per_view))
    assert [row["name"] for row in result["per_image"]] == ["near.png", "far [b].png"]


def test_levels_and_parameters_are_those_of_the_frames(
    result: dict[str, Any], tiny_checkpoint: Path, data: Path
) -> None:
    model = InfNeRF.load(str(tiny_checkpoint))
    executor, _ = make_executor("cpu", model)
    pixels: dict[str, int] = {}
    for view, camera in zip(result["per_image"], cameras(2), strict=True):
        for scale in (1, 2):
            camera = camera.resized(SIZE[0] // scale, SIZE[1] // scale)
            buffers = FrameBuffers.allocate(camera.width, camera.height)
            stats = executor.render(RenderRequest(camera), buffers)
            assert stats.node_samples is not None
            used = np.count_nonzero(stats.node_samples) / model.octree.n_nodes
            assert view["per_scale"][str(scale)]["parameters_used"] == pytest.approx(used)
            there = buffers.color[..., 3] >= 0.5 / 255
            for level, count in zip(*np.unique(np.rint(buffers.level[there]), return_counts=True), strict=True):
                pixels[str(int(level))] = pixels.get(str(int(level)), 0) + int(count)
    near, far = (view["per_scale"]["1"]["parameters_used"] for view in result["per_image"])
    assert 0 < far < near < 1
    assert {level: row["pixels"] for level, row in result["per_level"].items()} == pixels
    assert len(pixels) > 1
    every = [*result["per_level"].values(), result["no_level"]]
    assert sum(row["pixels"] for row in every if row) == 2 * (48 * 32 + 24 * 16)


def test_the_command_prints_writes_and_draws(
    tiny_checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, pictures = tmp_path / "eval.json", tmp_path / "pictures"
    arguments = ["eval", str(tiny_checkpoint), str(data), "--samples", "2", "--downscale", "2", "--executor", "cpu"]
    assert cli.main([*arguments, "--json", str(out), "--pictures", str(pictures)]) == 0
    result = json.loads(out.read_text())
    assert set(result) >= KEYS
    assert (result["split"], result["executor"], result["samples"], result["downscale"]) == ("test", "cpu", 2, 2)
    assert (result["lpips"] is None) == bool(result["lpips_why"])
    printed = capsys.readouterr()
    for scale, row in result["per_scale"].items():
        assert f"scale 1/{scale}: PSNR {row['psnr']:.2f} dB over 2 views" in printed.out.splitlines()
    assert "far [b].png" in printed.out  # not taken for markup
    assert ("no LPIPS: " in printed.err) == (result["lpips"] is None)
    files = sorted(path.name for path in pictures.iterdir())
    assert files == sorted(
        f"000{i}_{name}_scale{s}.png" for i, name in enumerate(("near", "far_b")) for s in (1, 2, 4, 8)
    )
    assert len({Image.open(path).tobytes() for path in pictures.iterdir()}) == 8


def test_several_checkpoints_are_shown_beside_each_other(
    tiny_checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coarse = load_checkpoint(tiny_checkpoint)
    coarse.field["tables"] = torch.zeros_like(coarse.field["tables"])
    save_checkpoint(coarse, tmp_path / "coarse.pth")
    out, pictures = tmp_path / "eval.json", tmp_path / "pictures"
    paths = [str(tiny_checkpoint), str(tmp_path / "coarse.pth"), str(data)]
    options = ["--samples", "1", "--json", str(out), "--pictures", str(pictures), "--downscale", "2"]
    assert cli.main(["eval", *paths, *options]) == 0
    good, bad = json.loads(out.read_text())
    assert good["psnr"] > bad["psnr"] + 1
    assert all(row["frame_ms"] > 0 for row in good["per_scale"].values())
    rows = {line.split("  ")[1].strip(): line.split() for line in capsys.readouterr().out.splitlines() if "  " in line}
    for scale, row in good["per_scale"].items():
        assert rows[f"1/{scale} PSNR dB"][-2:] == [f"{row['psnr']:.2f}", f"{bad['per_scale'][scale]['psnr']:.2f}"]
    assert rows["parameters"][-2:] == [f"{good['parameters']:,}"] * 2
    assert rows["backend"][-2:] == ["InfNeRF", "InfNeRF"]
    assert sorted(path.name for path in pictures.iterdir()) == ["coarse", tiny_checkpoint.stem]
    assert len(list((pictures / "coarse").iterdir())) == 8


def test_the_share_of_parameters_counts_what_nodes_hold(tiny_checkpoint: Path) -> None:
    """Large nodes count more than small ones."""
    config = InfNeRFConfig(
        n_grid_levels=2, table_size=256, base_resolution=4, resolution=8, level_table_sizes=(256, 64)
    )
    model = InfNeRF.random(config, InfNeRF.load(str(tiny_checkpoint)).octree, 0)
    each = node_parameters(model)
    assert each.sum() == model.n_parameters
    assert each[0] - each[1] == 2 * 2 * (256 - 64)


def test_a_picture_holds_truth_render_and_error(tiny_checkpoint: Path, data: Path, tmp_path: Path) -> None:
    evaluate(tiny_checkpoint, data, scales=(1,), samples=1, pictures=tmp_path)
    truth = np.asarray(Image.open(data / "test" / "images" / "near.png")).astype(int)
    sheet = np.asarray(Image.open(tmp_path / "0000_near_scale1.png")).astype(int)
    zoom = -(-280 // SIZE[0])
    panels = [
        sheet[58 : 58 + SIZE[1] * zoom : zoom, x : x + SIZE[0] * zoom : zoom]
        for x in (16 + i * (SIZE[0] * zoom + 8) for i in range(3))
    ]
    np.testing.assert_array_equal(panels[0], truth)
    assert np.abs(panels[1] - truth).max() <= 1
    assert panels[2].max() < 80  # nearly no error: the dark end of the map


def test_all_measures_the_training_images_too(tiny_checkpoint: Path, data: Path) -> None:
    result = evaluate(tiny_checkpoint, data, scales=(8,), samples=1, split="all")
    assert {view["name"] for view in result["per_image"]} == {"near.png", "far [b].png", "train_0.png", "train_1.png"}
    assert result["views"] == 4
    assert result["ssim"] is None  # 6x4 pixels


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.pth", "."], 1, "missing.pth: no such file"),
        (["MODEL", "missing"], 1, "missing: no such folder"),
        (["MODEL"], 2, "eval takes one or several checkpoints and then a data set's folder"),
        (["MODEL", "missing.pth", "DATA"], 1, "missing.pth: no such file"),
        (["MODEL", "."], 1, "--split all measures every image"),
        (["MODEL", "DATA", "--downscale", "0"], 2, "--downscale must be from 1"),
        (["MODEL", "DATA", "--downscale", "8"], 1, "expected at least 64 pixels on each side"),
        (["MODEL", "DATA", "--samples", "0"], 2, "--samples must be from 1"),
        (["MODEL", "DATA", "--json", "no/x.json"], 1, "no does not exist"),
        (["MODEL", "DATA", "--pictures", "no/x"], 1, "no does not exist"),
        (["MODEL", "DATA", "--pictures", "MODEL"], 1, "expected a folder for pictures"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], code: int, message: str, tiny_checkpoint: Path, data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    names = {"MODEL": str(tiny_checkpoint), "DATA": str(data)}
    assert cli.main(["eval", *(names.get(word, word) for word in arguments)]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err.strip().splitlines()[-1]
    assert "Traceback" not in printed.err
    assert list(tmp_path.iterdir()) == []


def test_too_few_images_without_a_test_split(tiny_checkpoint: Path, data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    shutil.rmtree(copy / "test")
    with pytest.raises(DatasetError, match=r"cameras\.json: expected this file.*--split all"):
        evaluate(tiny_checkpoint, copy)
    assert evaluate(tiny_checkpoint, copy, scales=(4,), samples=1, split="all")["views"] == 2


def test_data_of_another_place_are_moved_to_the_models(tiny_checkpoint: Path, data: Path, tmp_path: Path) -> None:
    """A checkpoint that says how its scene lies in the capture's coordinates takes data in those coordinates."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    place = np.diag([2.0, 2.0, 2.0, 1.0])  # the capture's to the scene's: the capture is half as large
    place[:3, 3] = 0.25, -1, 3
    checkpoint.scene = {**checkpoint.scene, "transform": place.tolist()}
    moved = tmp_path / "moved.pth"
    save_checkpoint(checkpoint, moved)
    capture = tmp_path / "capture"
    shutil.copytree(data, capture)

    def back(camera: Camera) -> Camera:
        pose = camera.c2w.copy()
        pose[:3, 3] = (pose[:3, 3] - place[:3, 3]) / 2
        return camera.moved(pose)

    write_cameras(capture / "test" / "cameras.json", {"near.png": back(cameras(2)[0])})
    assert evaluate(moved, capture, scales=(1,), samples=1)["psnr"] > 50


def test_masked_pixels_are_left_out(
    tiny_checkpoint: Path, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wrong corner costs nothing where a mask covers it."""
    from infnerf.training import evaluate as module

    spoilt, mask = tmp_path / "spoilt.png", tmp_path / "mask.png"
    pixels = np.array(Image.open(data / "test" / "images" / "near.png"))
    pixels[:16, :16] = 255 - pixels[:16, :16]
    Image.fromarray(pixels).save(spoilt)
    covered = np.full((SIZE[1], SIZE[0]), 255, np.uint8)
    covered[:16, :16] = 0
    Image.fromarray(covered).save(mask)
    found = {}
    for masks in ([None, None], [mask, None]):
        dataset, _ = module.open_split(data, "test", InfNeRF.load(str(tiny_checkpoint)).scene)
        dataset.images[0] = spoilt
        monkeypatch.setattr(dataset, "masks", masks, raising=False)
        monkeypatch.setattr(module, "open_split", lambda *_, dataset=dataset: (dataset, []))
        found[masks[0]] = evaluate(tiny_checkpoint, data, scales=(1,), samples=1)["per_image"][0]["psnr"]
        monkeypatch.undo()
    assert found[None] < 25
    assert found[mask] > 50
