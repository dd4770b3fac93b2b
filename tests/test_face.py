"""What a person writes in Python: names at the rooms' doors, a model from points, a trainer, a renderer."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_models import random_model, view_camera
from small_runs import SMALL, trainer_of

from infnerf.data import PointCloud, load_dataset
from infnerf.models import CheckpointError, InfNeRF, InfNeRFConfig, load_checkpoint
from infnerf.renderer import ExecutorUnavailable, RenderedImage, Renderer, orbit
from infnerf.renderer.pngmeta import read_metadata
from infnerf.training import Trainer, TrainerConfig

ROOMS = ("data", "models", "renderer", "training")


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_type_checker_sees_at_the_door_is_what_there_is(room: str, repository: Path) -> None:
    package = importlib.import_module(f"infnerf.{room}")
    tree = ast.parse((repository / room / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        (alias.name, node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert sorted(name for name, _ in seen) == dir(package)
    modules = {path.stem for path in (repository / room).iterdir()}
    for name, module in seen:
        home = importlib.import_module(f"infnerf.{room}.{module}")
        assert getattr(package, name) is getattr(home, name)
        assert name not in modules  # else the submodule would hide it
    with pytest.raises(AttributeError, match=f"'infnerf.{room}' has no attribute 'nonsense'"):
        _ = package.nonsense


def test_the_doors_cost_nothing() -> None:
    code = f"import sys; import {', '.join(f'infnerf.{room}' for room in ROOMS)}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


# --- the octree ------------------------------------------------------------------------------------------------------


def plane(n: int = 64, spacing: float = 0.125) -> np.ndarray:
    x, y = np.meshgrid(np.arange(n) * spacing, np.arange(n) * spacing)
    return np.stack([x, y, 0.3 * x], -1).reshape(-1, 3)


def test_points_without_footprints_ask_for_what_their_spacing_shows() -> None:
    """A point a square of 0.125 stands for a disc of radius 0.07."""
    model, points = InfNeRF(InfNeRFConfig(resolution=16, table_size=64)), plane()
    estimated = model.build_octree(points).octree
    known = model.build_octree(points, np.full(len(points), 0.07)).octree
    assert estimated.depth == known.depth == 3
    assert estimated.root_size == pytest.approx(63 * 0.125 * 1.1, rel=0.02)
    finer = model.build_octree(
        np.concatenate([points, plane(256, 0.125 / 4)[:, [0, 1, 2]] * [0.25, 0.25, 0.25]])
    ).octree
    assert finer.depth > estimated.depth


def test_a_point_cloud_brings_its_footprints() -> None:
    model, xyz = InfNeRF(InfNeRFConfig(resolution=16, table_size=64)), plane()
    cloud = PointCloud(xyz, np.zeros(xyz.shape, np.uint8), np.full(len(xyz), 0.03))
    assert model.build_octree(cloud).octree.level_counts() == model.build_octree(xyz, 0.03).octree.level_counts()
    assert model.build_octree(cloud, 0.3).octree.depth < model.build_octree(cloud).octree.depth
    far = np.concatenate([xyz, [[1e4, 0, 0]]])
    assert model.build_octree(far).octree.root_size < 20  # one stray point does not blow up the root


@pytest.mark.parametrize(
    ("points", "footprints", "message"),
    [
        (np.zeros((0, 3)), None, r"points must be \[n, 3\] with n >= 1"),
        (np.zeros((4, 2)), None, r"got \[4, 2\]"),
        (np.full((4, 3), np.nan), None, "finite"),
        (np.zeros((4, 3)), np.ones(3), r"footprints must be \[4\], one a point, finite and above 0, got \[3\]"),
        (np.zeros((4, 3)), np.zeros(4), "above 0"),
    ],
)
def test_points_that_place_no_tree_are_refused(points: np.ndarray, footprints: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InfNeRF(InfNeRFConfig(table_size=64)).build_octree(points, footprints)


# --- training --------------------------------------------------------------------------------------------------------


def test_a_model_built_by_hand_learns_what_its_scene_is(city: Path) -> None:
    data = load_dataset(city)
    assert data.points is not None
    model = InfNeRF(SMALL).build_octree(data.points, max_nodes=9)
    nodes = model.octree.n_nodes
    trainer = Trainer(model, data)
    assert trainer.config.minutes == 20
    assert trainer.model.octree.n_nodes == nodes
    assert [entry["name"] for entry in model.scene["cameras"]] == data.names
    assert model.scene["transform"] == data.scene["transform"]
    told = InfNeRF(SMALL).build_octree(data.points, max_nodes=9, scene={"unit": "ell"})
    assert Trainer(told, data).model.scene["unit"] == "ell"


def test_a_trainer_saves_and_resumes_by_itself(city: Path, tmp_path: Path) -> None:
    trainer = trainer_of(city)
    trainer.step()
    assert trainer.step().fraction == 1 / 40  # by itself, from the config's steps
    trainer.save(tmp_path / "m.pth")
    again = trainer_of(city)
    again.resume(tmp_path / "m.pth")
    assert again.steps_done == 2
    assert again.step().loss == trainer.step().loss
    assert torch.equal(again.model.tables, trainer.model.tables)


def test_training_goes_on_from_a_checkpoint_alone(city: Path, tmp_path: Path) -> None:
    """A file's halves, mapped, become float32 parameters that learn; the file stays."""
    trainer = trainer_of(city)
    trainer.step()
    trainer.save(tmp_path / "m.pth")
    stored = load_checkpoint(tmp_path / "m.pth").field["tables"].float()
    on = Trainer(InfNeRF.load(str(tmp_path / "m.pth")), trainer.data, trainer.config)
    assert torch.equal(on.model.tables, stored)
    on.step()
    assert not torch.equal(on.model.tables, stored)
    assert torch.equal(load_checkpoint(tmp_path / "m.pth").field["tables"].float(), stored)


# --- rendering -------------------------------------------------------------------------------------------------------


def test_an_image_has_every_channel_and_saves_what_it_shows(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with Renderer.from_checkpoint(tiny_checkpoint) as renderer:
        camera = renderer.home_camera(48, 32)
        image = renderer.render_image(camera, samples=2)
    shapes = {name: channel.shape for name, channel in image.channels().items()}
    assert shapes == {
        "color": (32, 48, 4), "depth": (32, 48), "normal": (32, 48, 3), "level": (32, 48), "gsd_ratio": (32, 48),
        "samples": (32, 48), "node": (32, 48), "clamped": (32, 48),
    }  # fmt: skip
    assert image.camera is camera
    assert image.stats.rays == 2 * 32 * 48
    path = image.save_png(tmp_path / "level.png", "level")
    np.testing.assert_array_equal(np.asarray(Image.open(path)), image.picture("level"))
    assert "c2w" in read_metadata(path)["camera"]
    with np.load(image.save_npz(tmp_path / "view.npz")) as stored:
        np.testing.assert_array_equal(stored["depth"], image.depth)
    with pytest.raises(ValueError, match="view mode must be one of rgb, depth"):
        image.save_png(tmp_path / "x.png", "heat")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["level.png", "view.npz"]


def test_a_video_has_a_frame_a_camera(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with Renderer.from_checkpoint(load_checkpoint(tiny_checkpoint)) as renderer:
        cameras = orbit(renderer.model.scene, 3, 32, 24)
        video = renderer.render_video(tmp_path / "frames", cameras, view="depth")
        assert (video.frames, video.codec) == (3, "png")
        frame = np.asarray(Image.open(tmp_path / "frames" / "frame_00001.png"))
        np.testing.assert_array_equal(frame, renderer.render_image(cameras[1]).picture("depth"))
        with pytest.raises(ValueError, match="at least 1 camera, got none"):
            renderer.render_video(tmp_path / "none.mp4", [])
        with pytest.raises(ValueError, match="a frame must be"):
            renderer.render_video(tmp_path / "mixed", [cameras[0], cameras[0].resized(16, 12)])


@pytest.mark.parametrize("executor", ["cpu", "torch"])
def test_a_model_in_training_is_shown_as_it_is_now(executor: str) -> None:
    """Executors copy what they render: one of before a step must not be asked."""
    model = random_model(0, half=False)
    with Renderer(model, executor) as renderer:
        before = renderer.render_image(view_camera(24, 16))
        with torch.no_grad():
            model.tables.mul_(0.25)
        after = renderer.render_image(view_camera(24, 16))
        assert isinstance(after, RenderedImage)
        np.testing.assert_array_equal(after.color, Renderer(model, executor).render_image(view_camera(24, 16)).color)
    assert np.abs(after.color - before.color).max() > 0.01


def test_what_can_not_be_rendered_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        Renderer.from_checkpoint(tmp_path / "none.pth")
    with pytest.raises(ExecutorUnavailable, match="one of auto, cuda, cpu, torch, got 'gpu'"):
        Renderer(random_model(0), "gpu")
    lens = replace(view_camera(), distortion=(0.1, 0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match=r"give Camera.pinhole\(\)"):
        Renderer(random_model(0)).render_image(lens)
    assert TrainerConfig().steps is None
