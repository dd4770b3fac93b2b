"""A run that is stopped or killed goes on as if it had not been, bit for bit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_runs import SMALL, config, trainer_of

from infnerf.data.dataset import DatasetError
from infnerf.models.checkpoint import load_checkpoint
from infnerf.training.resume import VERSION, restore_state, resume_path, save_state
from infnerf.training.run import train
from infnerf.training.trainer import Trainer


def steps(trainer: Trainer, first: int, last: int) -> Trainer:
    for i in range(first, last):
        trainer.step(i / 40)
    return trainer


@pytest.mark.parametrize("growth", [None, (0.2, 0.7)])
def test_a_resumed_run_is_the_uninterrupted_one(city: Path, tmp_path: Path, growth: tuple[float, ...] | None) -> None:
    """With growth before and after the cut; the state is written in the middle of both runs."""
    chosen: dict[str, object] = {"octree_growth_schedule": growth, "max_depth": 2 if growth else 16}
    whole = steps(trainer_of(city, **chosen), 0, 20)
    state = tmp_path / "m.pth.resume"
    whole.seconds = 12.5
    save_state(whole, state)
    steps(whole, 20, 40)
    resumed = trainer_of(city, **chosen)
    restore_state(resumed, state)
    assert resumed.seconds == 12.5
    steps(resumed, 20, 40)
    assert resumed.model.octree.n_nodes == whole.model.octree.n_nodes
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(whole.model.occupancy, resumed.model.occupancy)
    assert whole.running_mse == resumed.running_mse


def test_resuming_goes_on_to_the_same_number_of_steps(city: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.pth"
    train(city, out, config(steps=8), SMALL, say=lambda _: None)
    seen: list[int] = []
    train(city, out, config(steps=12), SMALL, resume=True, report=lambda p: seen.append(p.step), say=lambda _: None)
    assert seen == [9, 10, 11, 12]
    training = load_checkpoint(out).training
    assert training is not None
    assert training["step"] == 12


def test_a_killed_run_leaves_files_that_load_and_resume(city: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.pth"
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3]); import test_resume as t\n"
        "from infnerf.training import run\n"
        "run.train(Path(sys.argv[1]), Path(sys.argv[2]), t.config(steps=100000), t.SMALL,\n"
        "          report=lambda p: print(p.step, flush=True), say=lambda _: None, save_minutes=0.0)"
    )
    command = [sys.executable, "-c", code, str(city), str(out), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(6):
        line = process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    step = int(line)
    assert load_checkpoint(out).octree.n_nodes >= 1
    resumed = trainer_of(city)
    restore_state(resumed, resume_path(out))
    assert resumed.seconds > 0
    assert step - 1 <= resumed.steps_done
    resumed.step(0.5)


def test_states_that_are_none_are_refused_by_a_sentence(city: Path, tmp_path: Path) -> None:
    trainer = trainer_of(city)
    state = resume_path(tmp_path / "m.pth")
    with pytest.raises(DatasetError, match="expected the state of a run to resume, found none"):
        restore_state(trainer, state)
    save_state(trainer, state)
    other = trainer_of(city, seed=9)
    with pytest.raises(DatasetError, match="differs in seed"):
        restore_state(other, state)
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="found a damaged file"):
        restore_state(trainer, state)
    torch.save({"version": 1}, state)
    with pytest.raises(DatasetError, match=f"version {VERSION}"):
        restore_state(trainer, state)
