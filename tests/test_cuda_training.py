"""Training on CUDA: the trainer, growth, pruning, losses and resuming with a model on the device.

On a pretended device (tests/pretend_device.py) with the stand-in for CuPy, and with a GPU the same on that, against the
CPU kernels' run. Both draw the same rays, so losses agree until rounding has grown.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_device import CUDA, place_of, pretended, pretended_cuda
from random_models import random_model
from small_runs import SMALL, config

from infnerf.data.dataset import load_dataset
from infnerf.models.config import InfNeRFConfig
from infnerf.models.infnerf import InfNeRF
from infnerf.renderer.cliutil import CommandError
from infnerf.renderer.cuda_samples import CudaSampleKernels
from infnerf.renderer.gpu_errors import GpuUnavailable
from infnerf.renderer.kernels import SceneArrays
from infnerf.renderer.sample_kernels import SampleKernels
from infnerf.renderer.torch_executor import TorchExecutor
from infnerf.training import cli, device, inherit, point_prior, pruning
from infnerf.training.base import scene_of
from infnerf.training.losses import LossConfig
from infnerf.training.subtree import SubtreeTrainer, TopTrainer, light_of_ranks, plan_subtrees
from infnerf.training.trainer import Trainer, plan_tree

PLACES = ["pretended", pytest.param("cuda", marks=pytest.mark.gpu)]
LOSSES = LossConfig(consistency=0.1, transparency=0.1, distortion=0.1, depth=0.1)
#: Model, with points, trainer config: growing where levels differ, with all that a model may have; and pruned.
CASES: dict[str, tuple[InfNeRFConfig, bool, dict[str, Any]]] = {
    "plain": (SMALL, True, {"octree_prune_schedule": ()}),
    "growing": (
        replace(SMALL, appearance_dim=4, background=True, density_shift=2.0, level_table_sizes=(256, 64),
                level_hidden_dims=(16, 32, 16), hidden_dim=32), False,
        {"losses": LOSSES, "octree_growth_schedule": (0.3, 0.6), "max_depth": 2, "octree_prune_schedule": ()},
    ),
    "pruned": (replace(SMALL, density_shift=2.0), True, {"octree_prune_schedule": (0.6,)}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_prior, "FINEST", 64)
    monkeypatch.setattr(pruning, "SAMPLES_TO_JUDGE", 1)
    sizes = {"DISTILL_STEPS": 3, "CANDIDATES": 1024, "PLACES": 256, "DISTILL_SAMPLES": 512, "POINTS": 256}
    for name, size in sizes.items():
        monkeypatch.setattr(inherit, name, size)


def on(place: str) -> Any:
    return pretended() if place == "pretended" else nullcontext()


def trainer_of(city: Path, case: str, name: str) -> Trainer:
    model, points, options = CASES[case]
    data = load_dataset(city)
    if not points:
        data.points = None
    return Trainer(InfNeRF(model), data, config(device=name, **options))


def steps_of(run: Trainer, n: int = 8) -> list[tuple[float, int, int, int]]:
    """Loss, samples, nodes touched, and nodes of the tree then, of each step."""
    records = []
    for i in range(n):
        record = run.step(i / n)
        records.append((record.loss, record.samples, record.nodes, run.model.octree.n_nodes))
        if i == n // 2:  # as if every node had been trained enough to be measured
            run.occupancy.seen += 10**6
            run.occupancy.steps += 10**3
            run.occupancy.refresh(8)
    return records


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", CASES)
def test_a_run_is_the_cpu_kernels_run(city: Path, case: str, place: str) -> None:
    expected = steps_of(host := trainer_of(city, case, "cpu"))
    with on(place):
        run = trainer_of(city, case, "cuda")
        actual = steps_of(run)
        assert run.model.tables.is_cuda
        assert isinstance(run.sampling, CudaSampleKernels)
        assert run.sampling_name.startswith("cuda: ")
        saved = run.checkpoint()
    assert isinstance(host.sampling, SampleKernels)
    assert (len({n for *_, n in expected}) > 1) == (case != "plain")
    share = 1e-4 if place == "pretended" else 2e-2
    for wanted, found in zip(expected, actual, strict=True):
        assert found == pytest.approx(wanted, rel=share, abs=0 if place == "pretended" else 2)
    assert not any(rows.is_cuda for rows in saved.field.values())
    reference = host.checkpoint().field
    difference = (saved.field["tables"].float() - reference["tables"].float()).abs()
    assert float((difference > 1e-3).float().mean()) < (1e-3 if place == "pretended" else 0.05)


@pytest.mark.parametrize(("before", "after"), [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")])
def test_a_run_goes_on_on_another_device(city: Path, tmp_path: Path, before: str, after: str) -> None:
    with pretended():
        first = trainer_of(city, "growing", before)
        steps_of(first, 4)
        first.save(tmp_path / "model.pth")
        second = trainer_of(city, "growing", after)
        second.resume(tmp_path / "model.pth")
        assert second.model.tables.is_cuda == (after == "cuda")
        assert second.step(0.9).loss == pytest.approx(first.step(0.9).loss, rel=1e-4)
        assert torch.equal(second.occupancy.seen, first.occupancy.seen)


def test_subtrees_train_on_the_device(city: Path) -> None:
    data = load_dataset(city)
    plan = plan_subtrees(plan_tree(config(), SMALL, data), 2)
    lights, losses = [], []
    for name in ("cpu", "cuda"):
        with pretended():
            options = config(device=name, octree_growth_schedule=(), octree_prune_schedule=())
            first = TopTrainer(InfNeRF(SMALL).place(plan.top(), scene_of(data)), data, options)
            losses.append([first.step(0.0).loss])
            lights.append(light_of_ranks(first.model, first.sampling, plan, 2, data.cameras[0], 1))
            second = SubtreeTrainer(first, options, first.shard, plan.part(1)[0])
            losses[-1].append(second.step(0.0).loss)
            assert second.model.tables.is_cuda == (name == "cuda")
            assert not any(rows.is_cuda for rows in second.checkpoint().field.values())
    torch.testing.assert_close(lights[1], lights[0])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_on_a_gpu_ranks_take_rank_0s_children(city: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """On CPUs each rank fits its own, and gets the same."""
    with pretended():
        run = trainer_of(city, "plain", name)
        before, leaf = run.model.octree.n_nodes, int((run.model.octree.children < 0).all(1).nonzero()[-1])
        monkeypatch.setattr(run.team, "broadcast", torch.zeros_like)
        run.split(torch.tensor([leaf]), torch.tensor([5]))
        assert run.model.octree.n_nodes == before + 1
        child = int(run.model.octree.children[:, 5].max())
        for rows in (run.model.tables.detach(), run.model.mlp.detach()):
            assert bool((rows[child] == 0).all()) == (name == "cuda")


def test_the_host_waits_for_the_device_a_few_times_a_step(city: Path) -> None:
    with pretended() as mode:
        run = trainer_of(city, "plain", "cuda")
        run.step(0.5)
        before = mode.waits
        for _ in range(3):
            run.step(0.9)
        assert (mode.waits - before) / 3 <= 6


def test_without_cupy_torch_trains_on_the_device(city: Path) -> None:
    def missing(model: InfNeRF) -> None:
        raise GpuUnavailable("CuPy is missing: pip install 'infnerf-view[cuda]'")

    expected = steps_of(trainer_of(city, "plain", "cpu"), 3)
    with pretended(missing):
        run = trainer_of(city, "plain", "cuda")
        assert run.sampling_name == "torch only (CuPy is missing: pip install 'infnerf-view[cuda]')"
        losses = [loss for loss, *_ in steps_of(run, 3)]
    assert losses == pytest.approx([loss for loss, *_ in expected], rel=2e-2)


@pytest.mark.gpu
def test_a_city_is_learnt(city: Path) -> None:
    run = Trainer(InfNeRF(SMALL), load_dataset(city), config(device="cuda", samples_per_step=1 << 16))
    records = [run.step(i / 300) for i in range(300)]
    assert records[-1].psnr > records[30].psnr + 2
    torch.cuda.synchronize()
    taken = [torch.cuda.memory_allocated() for _ in range(3) if run.step(0.9)]
    assert max(taken) - min(taken) < 1 << 24


def test_what_a_gpu_has_trained_the_host_can_draw() -> None:
    """Device addresses in the CPU kernels would end the process."""
    with pretended_cuda():
        model = random_model(0).to(CUDA)
        arrays = SceneArrays(model)
        for name in ("children", "level", "occupancy", "tables", "mlp"):
            assert place_of(getattr(arrays, name)) != CUDA, name
        assert place_of(SceneArrays(model, device=CUDA).tables) == CUDA
        with pytest.raises(ValueError, match=r"^SampleKernels: parameters must be on the host, got cuda:0$"):
            SampleKernels(model.float())
        assert TorchExecutor.supports(model) == "the torch executor renders models on the host, this one is on cuda:0"


class Cuda:
    """What `training_device` asks of torch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gpus: int, problem: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(device, "gpu_problem", lambda number: problem)
        for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)


def test_auto_takes_a_gpu_that_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    Cuda(monkeypatch, gpus=2)
    assert device.training_device("auto") == device.training_device("cuda") == torch.device("cuda", 0)
    assert device.training_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert device.training_device("auto") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match=r"^device must be one of auto, cpu, cuda, got 'gpu'$"):
        device.training_device("gpu")


@pytest.mark.parametrize(
    ("gpus", "processes", "problem", "sentence"),
    [
        (0, 1, None, "torch finds no GPU"),
        (1, 2, None, "expected a GPU for each of 2 processes on this machine, found 1"),
        (1, 1, "CuPy is missing: pip install it", "CuPy is missing: pip install it"),
    ],
)
def test_where_there_is_none_auto_takes_the_host_and_cuda_says_why_not(
    monkeypatch: pytest.MonkeyPatch, gpus: int, processes: int, problem: str | None, sentence: str
) -> None:
    Cuda(monkeypatch, gpus, problem)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert device.training_device("auto") == torch.device("cpu")
    with pytest.raises(CommandError, match=f"^--device cuda: {sentence}$"):
        device.training_device("cuda")


def test_the_command_line_says_in_a_sentence_what_a_device_lacks(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", str(city), "--out", str(tmp_path / "m.pth"), "--steps", "1"]
    assert cli.Train(city, tmp_path / "m.pth", steps=1, device="cuda").settings()[1].device == "cuda"
    Cuda(monkeypatch, gpus=0)
    assert cli.main([*arguments, "--device", "cuda"]) == 1
    assert capsys.readouterr().err == "infnerf: --device cuda: torch finds no GPU\n"
    with pytest.raises(SystemExit) as left:
        cli.main([*arguments, "--device", "gpu"])
    assert left.value.code == 2

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 3 GiB")

    monkeypatch.setattr("infnerf.training.run.train", full)
    assert cli.main(arguments) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("infnerf: the GPU is out of memory: a smaller --max-meg")


def test_the_pretended_device_fails_where_a_gpu_would() -> None:
    with pretended_cuda():
        host, there = torch.rand(4, 3), torch.rand(4, 3, device="cuda")
        assert (place_of(there * 2), there.is_cuda, (there + 1).cpu().is_cuda) == (CUDA, True, False)
        assert there[torch.tensor([0, 2])].is_cuda
        there[:2] = host[:2]
        there[0] += torch.tensor(1.0)
        for wrong in (
            lambda: host + there,
            lambda: torch.cat([host, there]),
            lambda: host[there[:, 0] > 0.5],
            lambda: there.__setitem__(torch.tensor([1]), host[:1]),
            lambda: torch.rand(3, generator=torch.Generator(), device="cuda"),
            lambda: there @ torch.eye(3),
        ):
            with pytest.raises(RuntimeError):
                wrong()
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            there.numpy()
