"""Training a mip-NeRF: it learns, goes on bit for bit, and `infnerf train`, `eval` and `info` take it as any other."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import format_scenes as make
import numpy as np
import pytest
import torch

from infnerf.data.dataset import load_dataset
from infnerf.models.backends import load_model
from infnerf.models.camera import look_at
from infnerf.models.checkpoint import load_checkpoint
from infnerf.models.mipnerf import MipNeRF
from infnerf.models.mipnerf_config import MipNeRFConfig
from infnerf.training import cli
from infnerf.training.mip_trainer import MipNeRFTrainer, MipTrainerConfig, placed
from infnerf.training.resume import resume_path
from infnerf.training.run import train
from infnerf.training.team import Team

TINY = MipNeRFConfig(net_depth=3, skip_layer=1, net_width=24, view_width=12, max_deg=6, num_samples=12)


def config(**changes: object) -> MipTrainerConfig:
    base = MipTrainerConfig(steps=20, rays_per_step=96, mip_rate=5e-3, mip_final_rate=1e-3, device="cpu")
    return replace(base, **changes)  # type: ignore[arg-type]


def trainer_of(city: Path, **changes: object) -> MipNeRFTrainer:
    return MipNeRFTrainer.of(TINY, load_dataset(city), config(**changes), Team())


def test_the_loss_falls(city: Path) -> None:
    trainer = trainer_of(city, steps=30)
    records = []
    trainer.train(records.append)
    losses = [record.loss for record in records]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert list(records[0].parts) == ["fine", "coarse"]
    assert records[0].rays == 96
    assert records[0].samples == 96 * 24
    assert records[-1].psnr > records[0].psnr


def test_a_resumed_run_is_the_uninterrupted_one(city: Path, tmp_path: Path) -> None:
    whole, out = trainer_of(city), tmp_path / "m.pth"
    for i in range(6):
        whole.step(i / 12)
    whole.save(out)
    resumed = trainer_of(city)
    resumed.resume(out)
    assert (resumed.steps_done, resumed.running_mse) == (6, whole.running_mse)
    for trainer in (whole, resumed):
        for i in range(6, 12):
            trainer.step(i / 12)
    assert whole.running_mse == resumed.running_mse
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_every_scale_counts_alike(city: Path) -> None:
    """A quarter of the loss for each scale, as where pixels are drawn alike and weighed by their area."""
    batch = trainer_of(city, rays_per_step=2000).draw()
    sums = [float(batch.weight[batch.scale == s].sum()) for s in range(4)]
    assert sums == pytest.approx([sum(sums) / 4] * 4, rel=0.02)


def test_the_rate_is_held_back_then_falls_log_linearly(city: Path) -> None:
    trainer = trainer_of(city, mip_rate=1e-2, mip_final_rate=1e-4, delay_steps=100, delay_factor=0.1)
    assert trainer.rate(0.0) == pytest.approx(1e-3)
    trainer.steps_done = 50
    assert trainer.rate(0.0) == pytest.approx(1e-2 * (0.1 + 0.9 * np.sin(np.pi / 4)))
    trainer.steps_done = 100
    assert [trainer.rate(f) for f in (0.0, 0.5, 1.0)] == pytest.approx([1e-2, 1e-3, 1e-4])
    trainer.steps_done = 1
    assert trainer.rate(0.05) == pytest.approx(1e-2 * 0.01**0.05)  # a short run is not all delay


def test_the_background_is_random_or_the_scene_s(city: Path) -> None:
    for over in ("random", "scene"):
        trainer = trainer_of(city, over=over)
        trainer.model.scene["background"] = [0.25, 0.5, 0.75]
        batch = trainer.draw()
        clear = replace(batch, rgba=torch.zeros_like(batch.rgba))
        opaque = torch.tensor([0.25, 0.5, 0.75, 1.0]).expand_as(batch.rgba)
        parts, _ = trainer.losses(clear, [opaque])
        assert (float(parts["fine"]) < 1e-12) == (over == "scene")
        assert list(parts) == ["fine"]


def test_where_a_model_lies(city: Path) -> None:
    data = load_dataset(city)
    own = placed(TINY, data)
    box = np.array(data.scene["aabb"])
    inside = box @ own.matrix[:, :3].T + own.matrix[:, 3]
    assert np.abs(inside).max() == pytest.approx(1.0)
    assert data.points is not None
    for camera in data.cameras:
        pixels, valid = camera.project(data.points.xyz)
        seen = valid & (pixels >= 0).all(-1) & (pixels < (camera.width, camera.height)).all(-1)
        depth = (data.points.xyz[seen] - camera.position) @ camera.c2w[:3, 2] * own.scale
        assert ((depth > own.near) & (depth < own.far)).sum() >= 0.98 * len(depth)
    told = replace(TINY, near=0.5, far=3.0)
    assert (placed(told, data).near, placed(told, data).far) == (0.5, 3.0)
    assert placed(replace(own, near=1.0), data).placement == own.placement
    assert placed(TINY, replace(data, points=None)).far == pytest.approx(own.far)


@pytest.mark.parametrize("name", ["nerfstudio", "blender", "llff", "colmap"])
def test_it_trains_on_every_format(name: str, tmp_path: Path) -> None:
    """InfNeRF's own is the city's, in the other tests; Multicam's images are too small here for a pyramid."""
    trainer = trainer_of(make.WRITERS[name](tmp_path / "scene"))
    assert 0 < trainer.model.config.near < trainer.model.config.far < 100
    assert np.isfinite(trainer.step(0.0).loss)


def test_a_camera_that_sees_nothing_leaves_the_planes_finite(city: Path) -> None:
    data = load_dataset(city)
    assert data.points is not None
    away = [
        camera.moved(look_at(np.array([0.0, 0, 900]), np.array([0.0, 0, 999]), np.ones(3))) for camera in data.cameras
    ]
    config = placed(TINY, replace(data, cameras=away))
    assert 0 < config.near < config.far < 1e3


def test_from_files_to_files(city: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """train, its resumption, info and eval by the command line."""
    out = tmp_path / "m.pth"
    settings = [f"--setting={name}={value}" for name, value in (
        ("net_depth", 3), ("skip_layer", 1), ("net_width", 16), ("view_width", 8), ("num_samples", 8), ("max_deg", 4),
        ("rays_per_step", 32), ("min_deg", 0),
    )]  # fmt: skip
    command = ["train", str(city), "--out", str(out), "--backend", "mipnerf", "--device", "cpu", *settings]
    assert cli.main([*command, "--steps", "3", "--no-logs"]) == 0
    said = capsys.readouterr().err
    assert re.search(r"10 images, a mip-NeRF of 3 layers of 16, .* 2 x 8 samples on cones .* 32 rays a step", said)
    assert cli.main([*command, "--steps", "5", "--resume"]) == 0  # with logs
    notes = load_checkpoint(out).training
    assert notes is not None
    assert notes["step"] == 5
    assert isinstance(load_model(out), MipNeRF)
    assert resume_path(out).is_file()
    assert cli.main(["info", str(out)]) == 0
    assert "3 layers of 16, waves 2**0 to 2**3, 2 x 8 samples on cones" in capsys.readouterr().out
    assert cli.main(["bench", str(out)]) == 1
    assert (
        "m.pth: bench times InfNeRFs and PyNeRFs (infnerf eval says what a frame takes), got a mip-NeRF"
        in capsys.readouterr().err
    )
    numbers = tmp_path / "eval.json"
    assert cli.main(["eval", str(out), str(city), "--samples", "1", "--downscale", "2", "--json", str(numbers)]) == 0
    assert "psnr" in numbers.read_text()
    assert json.loads(numbers.read_text())


def test_a_run_saves_and_tells_the_best(city: Path, tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "m.pth"
    trainer = train(city, out, config(steps=2), TINY, say=said.append, save_minutes=0.0, backend="mipnerf")
    assert trainer.steps_done == 2
    assert "the best by validation PSNR" in said[-1]
    assert (tmp_path / "m.best.pth").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--setting", "net_width=0"], "config.net_width must be a whole number from 1 to 4096, got 0"),
        (["--setting", "over=black"], "over must be random or scene, got 'black'"),
        (["--setting", "mip_rate=fast"], "mip_rate takes a number, got 'fast'"),
        (["--setting", "mip_final_rate=0"], "mip_final_rate must be above 0 and at most mip_rate"),
        (["--table-size", "1024"], "--table-size is not an option of --backend mipnerf; --setting NAME=VALUE"),
        (["--loss", "depth=1"], "--loss is not an option of --backend mipnerf"),
    ],
)
def test_options_of_another_backend_and_bad_settings(
    arguments: list[str], message: str, city: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(city), "--out", str(tmp_path / "m.pth"), "--backend", "mipnerf", "--steps", "1"]
    assert cli.main([*command, *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
