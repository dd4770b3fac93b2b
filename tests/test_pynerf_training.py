"""Training a PyNeRF: it learns, coarse images first where told, goes on bit for bit, and takes no nonsense."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infnerf.data.dataset import Dataset, load_dataset
from infnerf.models.backends import load_model
from infnerf.models.occupancy import unpack_bits
from infnerf.models.pynerf import PyNeRF
from infnerf.models.pynerf_config import PyNeRFConfig
from infnerf.renderer.cliutil import CommandError
from infnerf.training import point_prior, pyramid_sampling
from infnerf.training.cli import main
from infnerf.training.evaluate import evaluate
from infnerf.training.losses import LossConfig
from infnerf.training.pynerf_trainer import (
    SCALE_SCHEDULE,
    MultiScaleTrainer,
    PyNeRFTrainer,
    PyNeRFTrainerConfig,
    make_trainer,
)
from infnerf.training.team import Team

SHAPE = PyNeRFConfig(
    num_levels=3, base_resolution=8, max_resolution=128, n_grid_levels=3, hash_table_size=1024, hidden_dim=16,
    density_hidden_dim=16, num_layers=2, sh_degree=1, occupancy_resolution=8, trained_resolution=8,
)  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_prior, "FINEST", 64)  # 256 takes most of a second


@pytest.fixture(scope="module")
def images(city: Path) -> Dataset:
    return load_dataset(city)


def trainer_of(images: Dataset, shape: PyNeRFConfig = SHAPE, **changes: Any) -> PyNeRFTrainer:
    config = PyNeRFTrainerConfig(**({"samples_per_step": 1 << 12, "steps": 60} | changes))
    return make_trainer(PyNeRF(shape), images, config)


@pytest.mark.parametrize(
    "shape", [{}, {"interpolation": "color", "share_grid": True}, {"num_levels": 1}, {"background": True}]
)
def test_the_error_falls(images: Dataset, shape: dict[str, Any]) -> None:
    trainer = trainer_of(images, replace(SHAPE, **shape), mlp_rate=3e-2)
    records = [trainer.step() for _ in range(60)]
    first, last = (np.mean([record.parts["rgb"] for record in part]) for part in (records[:9], records[-9:]))
    assert last < 0.8 * first
    assert len(records[-1].active) == trainer.model.config.num_levels


def test_levels_that_were_trained_are_noted(images: Dataset) -> None:
    trainer = trainer_of(images)
    for _ in range(3):
        trainer.step()
    least, greatest = trainer.model.trained
    known = least <= greatest
    assert 0 < int(known.sum()) < len(known)
    assert int(greatest[known].max()) <= 2 * 16
    near, far = trainer_of(images, scale_schedule=("0:1",)), trainer_of(images, scale_schedule=("0:8",))
    levels = []
    for other in (near, far):
        for _ in range(3):
            other.step()
        least, greatest = other.model.trained.float()
        levels.append(float((least + greatest)[least <= greatest].mean() / 32))
    assert levels[1] < levels[0] - 0.5  # coarse pixels train coarse levels


def test_coarse_images_come_first(images: Dataset) -> None:
    trainer = trainer_of(images, scale_schedule=("0:8", "2:2", "3:1"))
    assert isinstance(trainer, MultiScaleTrainer)
    seen = []
    for _ in range(4):
        batch, _ = trainer.draw()
        seen.append({8 >> (3 - int(scale)) for scale in batch.scale.unique()})
        trainer.steps_done += 1
    assert seen == [{8}, {8}, {2, 4, 8}, {1, 2, 4, 8}]
    assert dict(SCALE_SCHEDULE) == {0: 8, 2000: 4, 5000: 2, 10000: 1}
    assert PyNeRFTrainerConfig(scale_schedule=("published",)).schedule() == SCALE_SCHEDULE
    assert type(trainer_of(images)) is PyNeRFTrainer


@pytest.mark.parametrize(
    ("words", "message"),
    [(("0:3",), "FACTOR one of 1, 2, 4, 8"), (("five:8",), "got 'five:8'"), (("100:8",), "must begin at step 0")],
)
def test_schedules_that_are_none_are_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PyNeRFTrainerConfig(scale_schedule=words)


@pytest.mark.parametrize("name", ["consistency", "transparency", "distortion", "depth"])
def test_every_loss_moves_the_parameters(images: Dataset, name: str) -> None:
    trainer = trainer_of(images, losses=LossConfig(rgb=0.0, **{name: 1.0}))
    with torch.no_grad():
        trainer.model.tables.uniform_(-0.5, 0.5)
    before = trainer.model.tables.detach().clone(), trainer.model.mlp.detach().clone()
    record = trainer.step()
    assert record.parts[name] > 0
    assert not torch.equal(before[0], trainer.model.tables)
    assert not torch.equal(before[1], trainer.model.mlp)


def test_levels_that_agree_have_no_inconsistency(images: Dataset) -> None:
    trainer = trainer_of(images, losses=LossConfig(rgb=0.0, consistency=1.0))
    with torch.no_grad():
        trainer.model.tables.zero_()
        trainer.model.mlp.zero_()  # the same everywhere, on all levels
    assert trainer.step().parts["consistency"] < 1e-10


def set_log_density(model: PyNeRF, value: float) -> None:
    """The same everywhere, on all levels."""
    with torch.no_grad():
        model.mlp.zero_()
        end = 0
        for head in range(model.config.num_levels):
            shapes = model.config.density_shapes(head)
            end += sum(n_in * n_out + n_out for n_in, n_out in shapes)
            model.mlp[end - shapes[-1][1]] = value  # a bias of the last layer


def test_occupancy_keeps_what_holds_matter(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid_sampling, "WARM_STEPS", 2)
    trainer = trainer_of(images)
    allowed, words = trainer.occupancy.allowed, trainer.model.occupancy
    everything = words.clone()
    assert torch.equal(unpack_bits(words)[0], allowed)
    set_log_density(trainer.model, -15.0)
    trainer.occupancy.refresh()
    assert torch.equal(words, everything)  # nothing counts as empty yet
    trainer.occupancy.steps = 2
    trainer.occupancy.refresh()
    assert int(unpack_bits(words).sum()) == 0
    set_log_density(trainer.model, 6.0)
    state = trainer.occupancy.generator.get_state()
    assert torch.equal(unpack_bits(trainer.occupancy.finished())[0], allowed)
    assert torch.equal(trainer.occupancy.generator.get_state(), state)
    assert int(unpack_bits(words).sum()) == 0  # measuring for a checkpoint changes nothing
    trainer.occupancy.refresh()
    assert torch.equal(words, everything)


@dataclass
class CutShort(PyNeRFTrainerConfig):
    """A run of `planned` steps that ends after `steps`, as one does that is killed."""

    planned: int = 0

    def fraction(self, steps_done: int, seconds: float) -> float:
        return 1.0 if steps_done >= (self.steps or 0) else steps_done / self.planned


def test_a_run_goes_on_bit_for_bit(images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid_sampling, "WARM_STEPS", 4)
    schedule = ("0:8", "9:1")

    def run(steps: int) -> PyNeRFTrainer:
        config = CutShort(steps=steps, samples_per_step=1 << 11, planned=36, scale_schedule=schedule)
        return make_trainer(PyNeRF(SHAPE), images, config)

    whole, part, rest = run(36), run(20), run(36)
    whole.train()
    part.train()
    part.save(tmp_path / "py.pth")
    part.checkpoint()  # saving changes nothing
    rest.resume(tmp_path / "py.pth")
    rest.train()
    assert rest.steps_done == whole.steps_done == 36
    for name, value in whole.model.state_dict().items():
        assert torch.equal(rest.model.state_dict()[name], value), name
    other = make_trainer(PyNeRF(SHAPE), images, PyNeRFTrainerConfig(steps=3, samples_per_step=1 << 11))
    with pytest.raises(Exception, match="differs in scale_schedule"):
        other.resume(tmp_path / "py.pth")


def test_one_process_trains_a_pynerf(images: Dataset) -> None:
    team = Team()
    team.size = 2
    with pytest.raises(CommandError, match="trained by one process, torchrun started 2"):
        PyNeRFTrainer(PyNeRF(SHAPE), images, PyNeRFTrainerConfig(steps=1), team)


WORDS = [
    "num_levels=3", "base_resolution=8", "max_resolution=128", "n_grid_levels=3", "hash_table_size=1024",
    "hidden_dim=16", "density_hidden_dim=16", "num_layers=2", "occupancy_resolution=8", "trained_resolution=8",
    "scale_schedule=0:8,3:1",
]  # fmt: skip


def test_from_the_command_line_to_a_measured_checkpoint(city: Path, tmp_path: Path) -> None:
    out = tmp_path / "py.pth"
    words = [word for setting in WORDS for word in ("--setting", setting)]
    arguments = ["train", str(city), "--out", str(out), "--backend", "pynerf", "--steps", "6", "--no-logs", *words]
    assert main(arguments) == 0
    model = load_model(out)
    assert isinstance(model, PyNeRF)
    assert model.octree.n_nodes == 3
    measured = evaluate(out, city, (1, 8), samples=1)
    assert 5 < measured["psnr"] < 40
    assert 0 < measured["parameters_used"] <= 1
    assert set(measured["per_level"]) <= {"0", "1", "2"}
    assert measured["parameters"] == model.n_parameters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--setting", "num_levels=99"], "config.num_levels must be a whole number from 1 to 16, got 99"),
        (["--setting", "levels=3"], "expected NAME=VALUE with NAME one of num_levels, base_resolution"),
        (["--setting", "scale_schedule=0:3"], "FACTOR one of 1, 2, 4, 8"),
        (["--max-depth", "3"], "--max-depth is not an option of --backend pynerf"),
        (["--device", "cuda"], "--device is not an option of --backend pynerf"),
    ],
)
def test_wrong_arguments_are_refused(
    city: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    start = ["train", str(city), "--out", str(tmp_path / "x.pth"), "--backend", "pynerf", "--steps", "1"]
    assert main([*start, *arguments]) == 2
    assert message in capsys.readouterr().err
