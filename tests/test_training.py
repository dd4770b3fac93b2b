"""Training: losses, occupancy, the octree's plan, a short run that must learn, and Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from infnerf.data.dataset import DatasetError, load_dataset
from infnerf.models.checkpoint import load_checkpoint
from infnerf.models.config import InfNeRFConfig
from infnerf.models.infnerf import InfNeRF
from infnerf.models.occupancy import pack_bits
from infnerf.training.config import TrainerConfig
from infnerf.training.evaluate import evaluate
from infnerf.training.losses import encoded, linear_to_srgb, over
from infnerf.training.occupancy import OccupancyUpdater
from infnerf.training.run import train
from infnerf.training.sampling import TorchSampling, make_sampling
from infnerf.training.trainer import Trainer, place_model

SMALL = InfNeRFConfig(
    n_grid_levels=4, table_size=1024, base_resolution=4, resolution=32, hidden_dim=16, occupancy_resolution=16
)


def config(**changes: object) -> TrainerConfig:
    return TrainerConfig(**({"steps": 5, "samples_per_step": 1 << 14, "max_bytes": 600_000} | changes))  # type: ignore[arg-type]


def trainer_of(city: Path, **changes: object) -> Trainer:
    return Trainer(InfNeRF(SMALL), load_dataset(city), config(**changes))


def test_a_short_run_learns_and_its_checkpoint_loads_and_evaluates(city: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pth"
    seen = []
    train(city, out, config(steps=250), SMALL, report=seen.append, say=lambda _: None)
    assert [p.step for p in seen] == list(range(1, 251))
    assert seen[-1].psnr > seen[30].psnr + 2
    result = evaluate(out, city)
    assert result["views"] == 3
    assert result["per_scale"]["1"]["psnr"] > 13
    checkpoint = load_checkpoint(out)
    assert checkpoint.octree.depth >= 2
    assert checkpoint.training is not None
    assert checkpoint.training["step"] == 250
    assert out.stat().st_size < 600_000
    empty = torch.tensor(np.unpackbits(checkpoint.field["occupancy"].numpy().view(np.uint8))).float().mean()
    assert 0.01 < float(empty) < 0.95


def test_the_same_seed_gives_the_same_first_steps(city: Path, tmp_path: Path) -> None:
    losses = []
    for _ in range(2):
        trainer = trainer_of(city)
        trainer.step(0.0)
        losses.append(trainer.running_mse)
    assert losses[0] == losses[1]


def test_the_torch_twin_trains_to_the_same_loss(city: Path, tmp_path: Path) -> None:
    results = []
    for twin in (False, True):
        trainer = trainer_of(city)
        if twin:
            trainer.sampling = TorchSampling(trainer.model)
        for _ in range(3):
            trainer.step(0.0)
        results.append((trainer.running_mse, trainer.model.mlp.detach().clone()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-3)


def test_training_releases_the_samples_of_each_step(city: Path, tmp_path: Path) -> None:
    """Outputs kept by an autograd context once leaked every step's samples."""
    import gc

    trainer = trainer_of(city)
    counts = []
    for _ in range(4):
        trainer.step(0.0)
        gc.collect()
        counts.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
    assert counts[-1] <= counts[1] + 2


def test_ctrl_c_keeps_a_checkpoint_that_loads(city: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pth"
    code = (
        "import sys; from pathlib import Path; from infnerf.training.run import *\n"
        "train(Path(sys.argv[1]), Path(sys.argv[2]), TrainerConfig(minutes=30),\n"
        "      report=lambda p: print(p.step, flush=True))"
    )
    command = [sys.executable, "-c", code, str(city), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    while (line := process.stdout.readline().strip()) != "3":
        assert process.poll() is None, line
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert "stopped after" in output
    assert load_checkpoint(out).octree.n_nodes >= 1


def test_bad_input_is_refused_before_anything_is_trained(city: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no folder"):
        train(city, tmp_path / "nowhere" / "m.pth", config(steps=1), say=lambda _: None)
    with pytest.raises(DatasetError):
        train(tmp_path, tmp_path / "m.pth", config(steps=1), say=lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_the_tree_stays_within_the_bytes_allowed(city: Path) -> None:
    data = load_dataset(city)
    sizes = []
    for max_bytes in (100_000, 400_000, 10_000_000):
        model = InfNeRF(SMALL)
        place_model(model, data, config(max_bytes=max_bytes))
        sizes.append(model.octree.n_nodes)
    assert sizes[0] < sizes[1] < sizes[2]


def test_srgb_curve_and_compositing_over_a_background() -> None:
    values = torch.tensor([0.0, 0.0031308, 0.2140, 1.0])
    torch.testing.assert_close(linear_to_srgb(values), torch.tensor([0.0, 0.04045, 0.5, 1.0]), atol=1e-3, rtol=0)
    half = torch.tensor([[0.25, 0.0, 0.0, 0.5]])
    torch.testing.assert_close(over(half, torch.tensor([1.0, 1.0, 0.0])), torch.tensor([[0.75, 0.5, 0.0]]))
    assert torch.equal(encoded(half, torch.zeros(3), "srgb"), half[:, :3])


def test_bits_are_packed_as_the_kernels_read_them() -> None:
    cells = torch.rand(3, 512) < 0.5
    words = pack_bits(cells).numpy().view(np.uint8)
    np.testing.assert_array_equal(np.unpackbits(words, axis=1, bitorder="little").astype(bool), cells.numpy())
    assert pack_bits(cells[:0]).shape == (0, 16)  # a resumed run has no new nodes


def test_occupancy_marks_what_is_dense_and_its_neighbours(city: Path, tmp_path: Path) -> None:
    model = InfNeRF(SMALL)
    place_model(model, load_dataset(city), config())
    sampling, _ = make_sampling(model)
    updater = OccupancyUpdater(model, sampling, 0)
    updater.refresh(model.octree.n_nodes)
    assert (model.occupancy == -1).all()  # nothing seen yet: everything stays open
    updater.density[:] = 0
    updater.density[0, 5 + 16 * (6 + 16 * 7)] = 1.0
    updater._write(torch.tensor([0]))
    cells = np.unpackbits(model.occupancy[0].numpy().view(np.uint8), bitorder="little").reshape(16, 16, 16)
    assert cells.sum() == 27
    assert cells[6:9, 5:8, 4:7].all()


def test_growth_waits_until_there_is_something_to_grow_from(city: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_dataset(city)
    data.points = None
    trainer, grown = Trainer(InfNeRF(SMALL), data, config(octree_prune_schedule=())), list[tuple[int, int]]()
    monkeypatch.setattr(trainer, "grow", lambda: grown.append((trainer.steps_done, len(trainer.growths))))
    for trainer.steps_done in range(0, 400, 10):  # the schedule is over before half of these are done
        trainer.keep_schedule(trainer.steps_done / 400)
    assert [step for step, _ in grown] == [60, 120, 180]
    assert [left for _, left in grown] == [5, 1, 0]
    told = Trainer(InfNeRF(SMALL), data, config(octree_growth_schedule=(0.0, 0.01), octree_prune_schedule=()))
    told.keep_schedule(0.02)
    assert told.growths == []


def test_without_points_the_tree_grows_from_its_root_and_goes_on_learning(city: Path, tmp_path: Path) -> None:
    data = load_dataset(city)
    data.points = None
    trainer = Trainer(InfNeRF(SMALL), data, config(octree_growth_schedule=(0.3, 0.5), max_depth=2))
    assert trainer.model.octree.n_nodes == 1
    errors, counts = [], []
    for i in range(120):
        trainer.step(i / 120)
        errors.append(trainer.running_mse)
        counts.append(trainer.model.octree.n_nodes)
    assert counts[30] == 1
    assert 1 < counts[40] < counts[-1]
    assert trainer.model.octree.depth == 2
    assert max(errors[40:]) < errors[20]
    assert trainer.optimizer.steps["mlp"].shape == (counts[-1],)
    assert trainer.checkpoint().octree.n_nodes == counts[-1]
