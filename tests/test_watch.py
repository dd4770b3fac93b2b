"""What a run keeps while it goes on: last and best checkpoint, saved without changing the run; kills survived."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import run, same

from infnerf.models.checkpoint import Checkpoint, load_checkpoint
from infnerf.training import validation, watch
from infnerf.training.config import StepRecord
from infnerf.training.evaluate import compare_view
from infnerf.training.losses import psnr
from infnerf.training.resume import resume_path
from infnerf.training.validation import Score, held_out, validate
from infnerf.training.watch import best_path, known_best


@pytest.fixture(scope="module")
def whole(city: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of 18 steps that were saved once."""
    out = tmp_path_factory.mktemp("whole") / "m.pth"
    run(city, out, 18)
    return out


def test_a_run_is_the_same_however_often_it_is_saved(city: Path, whole: Path, tmp_path: Path) -> None:
    """Occupancy is refreshed after 16 steps: saving must neither change it nor draw from its generator."""
    saved: list[int] = []
    trainer = run(city, tmp_path / "m.pth", 18, report=lambda now: saved.append(now.step), save_minutes=0.0)
    assert len(saved) == 18
    assert same(tmp_path / "m.pth", whole)
    before = trainer.occupancy.density.clone(), trainer.occupancy.generator.get_state(), trainer.model.occupancy.clone()
    trainer.checkpoint()
    after = trainer.occupancy.density, trainer.occupancy.generator.get_state(), trainer.model.occupancy
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


@pytest.fixture(scope="module")
def parts(city: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders with what the run of 18 steps had written after 6 and after 12."""
    folder = tmp_path_factory.mktemp("parts")
    for steps in (6, 12):
        (folder / str(steps)).mkdir()
        run(city, folder / str(steps) / "m.pth", steps, planned=18)
    return {steps: folder / str(steps) for steps in (6, 12)}


@pytest.mark.parametrize(("state", "checkpoint"), [(6, 12), (12, 6), (12, None)])
def test_a_kill_between_two_files_harms_nothing(
    city: Path, whole: Path, parts: dict[int, Path], tmp_path: Path, state: int, checkpoint: int | None
) -> None:
    out = tmp_path / "m.pth"
    shutil.copy(resume_path(parts[state] / "m.pth"), resume_path(out))
    if checkpoint is not None:
        shutil.copy(parts[checkpoint] / "m.pth", out)
    halves = [tmp_path / name for name in (".m.pth.0a1b2c3d.tmp", ".m.pth.0a1b2c3d.resume", ".m.best.pth.0a1b2c3d.tmp")]
    others = [tmp_path / name for name in (".m.pth.mine.tmp", ".n.pth.0a1b2c3d.tmp")]
    for path in (*halves, *others):
        path.write_bytes(b"half")
    run(city, out, 18, resume=True)
    assert same(out, whole)
    assert not any(path.exists() for path in halves)
    assert all(path.exists() for path in others)


def scores(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Lets validation find these, one checkpoint after the other."""
    found = iter(values)
    monkeypatch.setattr(watch, "validate", lambda *_: Score(next(found), None))


def test_the_best_checkpoint_is_kept_beside_the_last(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, said = tmp_path / "m.pth", []
    records: list[StepRecord] = []
    scores(monkeypatch, 20.0, 23.0, 22.0, 21.0)  # after each of three steps, and at the end
    run(city, out, 3, save_minutes=0.0, say=said.append, report=records.append)
    assert [record.validation for record in records] == [None, 20.0, 23.0]
    assert known_best(out, "validation") == (23.0, 2)
    assert (load_checkpoint(out).training or {})["step"] == 3
    assert said[-1].endswith(f"the best by validation PSNR (23.00 dB at step 2) is {best_path(out)}")
    assert not same(out, best_path(out))
    scores(monkeypatch, 22.5, 22.5)  # a run that goes on knows what it has reached ...
    run(city, out, 4, resume=True, save_minutes=0.0)
    assert known_best(out, "validation") == (23.0, 2)
    scores(monkeypatch, 19.0, 19.0)  # ... and another one forgets it
    run(city, out, 1, save_minutes=0.0)
    assert known_best(out, "validation") == (19.0, 1)


def test_without_held_out_views_the_best_is_told_by_training(city: Path, tmp_path: Path) -> None:
    data, said = tmp_path / "data", []
    shutil.copytree(city, data)
    shutil.rmtree(data / "test")
    cameras = json.loads((data / "cameras.json").read_text())
    few = dict(list(cameras.items())[:6])  # of eight one would be held out
    (data / "cameras.json").write_text(json.dumps(few))
    out = tmp_path / "m.pth"
    trainer = run(data, out, 2, say=said.append)
    assert any("no validation, the best checkpoint is told by training PSNR" in line for line in said)
    assert "the best by running PSNR of training rays" in said[-1]
    assert known_best(out, "training") == (psnr(trainer.running_mse), 2)
    assert known_best(out, "validation") == (None, 0)


def test_validation_pools_a_few_small_held_out_views(city: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "SIDE", 32)
    monkeypatch.setattr(validation, "VIEWS", 2)
    checkpoint: Checkpoint = load_checkpoint(whole)
    views = held_out(city, checkpoint.scene, 1)
    assert [view.images[0].shape for view in views] == [(24, 32, 4)] * 2
    seen = [camera.c2w for camera in checkpoint.cameras.values()]
    assert not any(np.array_equal(view.cameras[0].c2w, c2w) for view in views for c2w in seen)
    model = validation.model_of(checkpoint)
    executor, _ = validation.make_executor("auto", model)
    squared = [compare_view(executor, model.scene, view, 0, 1)[0].squared for view in views]
    score = validate(views, checkpoint, pictures=True)
    assert score.psnr == pytest.approx(psnr(float(np.mean(squared))))
    assert score.ssim is not None
    assert list(score.pictures) == [f"validation/level_{level}" for level in range(model.octree.depth + 1)]
    assert held_out(city, checkpoint.scene, 2)[0].images[0].shape == (24, 32, 4)
    assert held_out(city, checkpoint.scene, 3)[0].images[0].shape == (16, 21, 4)
