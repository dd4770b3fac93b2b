"""The logs of a run: what stands in TensorBoard and wandb, what a resumed run hides, and what is missing or fails."""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_runs import run

from infnerf.training import cli, watch
from infnerf.training.logs import LogConfig, LogError, Logs, check_logs, open_logs
from infnerf.training.trainer import Trainer

PICTURE = np.zeros((4, 6, 3), np.uint8)


def events(folder: Path) -> Any:
    """What TensorBoard itself would show."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    return accumulator.Reload()


def test_a_run_and_its_resumption_are_one_curve(
    city: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "SCALARS_EVERY", 2)
    out, folder = tmp_path / "m.pth", tmp_path / "m.logs"
    config = LogConfig(folder)
    trainer = run(city, out, 4, planned=8, logs=config)
    log = open_logs(config, 5, True, print)  # what a process logged that was killed before it saved again
    log.scalars(6, {"train/psnr": 99.0})
    log.close()
    run(city, out, 8, resume=True, logs=config)
    shown = events(folder)
    curve = shown.Scalars("train/psnr")
    assert [event.step for event in curve] == [1, 2, 4, 6, 8]
    assert max(event.value for event in curve) < 50
    depth = trainer.model.octree.depth
    levels = {f"{group}/level_{level}" for group in ("octree", "active") for level in range(depth + 1)}
    names = {
        "loss/total", "loss/rgb", "train/psnr", "train/rays", "train/samples", "train/rays_per_second",
        "train/memory_MiB", "octree/nodes", "octree/depth", "rate/tables_level_0", "rate/mlp_level_0",
        "validation/psnr", "validation/ssim",
    }  # fmt: skip
    assert names | levels <= set(shown.Tags()["scalars"])
    nodes = sum(shown.Scalars(f"octree/level_{level}")[-1].value for level in range(depth + 1))
    assert nodes == shown.Scalars("octree/nodes")[-1].value == trainer.model.octree.n_nodes
    active = [shown.Scalars(f"active/level_{level}")[-1].value for level in range(depth + 1)]
    assert 0 < sum(active) <= nodes
    assert 1 < shown.Scalars("train/memory_MiB")[-1].value < 1e6
    assert [event.step for event in shown.Scalars("validation/psnr")] == [4, 8]
    assert set(shown.Tags()["images"]) == {"octree"} | {f"validation/level_{level}" for level in range(depth + 1)}


def test_without_tensorboard_a_sentence_is_said_and_nothing_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said: list[str] = []
    log = open_logs(LogConfig(tmp_path / "m.logs"), 1, False, said.append)
    log.scalars(1, {"a": 1.0})
    log.close()
    assert said == ["no TensorBoard logs: tensorboard is not installed (pip install 'infnerf-view[train]')"]


class FakeWandb(ModuleType):
    """Remembers what it is told; the network is never tried."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
        self.begun: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.metrics: list[tuple[Any, ...]] = []
        self.finished = 0
        self.Image = lambda array: ("image", array.shape)
        self.refusal: Exception | None = None

    def init(self, **options: Any) -> Any:
        if self.refusal is not None:
            raise self.refusal
        self.begun.append(options)

        def finish() -> None:
            self.finished += 1

        return SimpleNamespace(
            log=self.logged.append,
            define_metric=lambda *a, **k: self.metrics.append((*a, *k.values())),
            finish=finish,
        )


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_gets_steps_of_ours_and_a_resumed_run_its_id(wandb: FakeWandb, tmp_path: Path) -> None:
    config = LogConfig(tmp_path / "m.logs", tensorboard=False, wandb="city", name="m", about={"seed": 3})
    for resume in (False, True, False):
        log = open_logs(config, 1, resume, print)
        log.scalars(5, {"train/psnr": 20.0})
        log.image(5, "octree", PICTURE)
        log.close()
    assert wandb.logged[:2] == [{"step": 5, "train/psnr": 20.0}, {"step": 5, "octree": ("image", (4, 6, 3))}]
    ids = [begun["id"] for begun in wandb.begun]
    assert ids[0] == ids[1] != ids[2]
    assert {begun["project"] for begun in wandb.begun} == {"city"}
    assert wandb.begun[0]["config"] == {"seed": 3}
    assert ("*", "step") in wandb.metrics
    assert wandb.finished == 3
    assert [path.name for path in config.folder.iterdir()] == ["wandb-id"]  # no event files: TensorBoard was not asked


def test_wandb_that_refuses_or_is_missing_ends_the_run_before_it_begins(
    city: Path,
    wandb: FakeWandb,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a step was taken")

    monkeypatch.setattr(Trainer, "step", never)
    out = tmp_path / "m.pth"
    wandb.refusal = RuntimeError("api_key not configured\n(no-tty)")
    with pytest.raises(LogError, match=r"wandb refuses to start: api_key not configured \(no-tty\)"):
        run(city, out, 1, logs=LogConfig(tmp_path / "m.logs", wandb="city"))
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert cli.main(["train", str(city), "--out", str(out), "--steps", "1", "--no-logs", "--wandb"]) == 1
    assert "which is not installed: pip install wandb" in capsys.readouterr().err
    assert not out.exists()


def test_a_log_that_fails_is_dropped_and_the_others_go_on() -> None:
    class Kept:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def scalars(self, step: int, values: Mapping[str, float]) -> None:
            self.seen.append((step, values))

        def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
            self.seen.append((step, name))

        def close(self) -> None:
            self.seen.append("closed")

    class Full(Kept):
        def scalars(self, step: int, values: Mapping[str, float]) -> None:
            raise OSError(28, "No space left on device")

    said: list[str] = []
    full, kept = Full(), Kept()
    logs = Logs([full, kept], said.append)
    for step in (1, 2):
        logs.scalars(step, {"a": 1.0})
    logs.image(2, "octree", PICTURE)
    logs.close()
    assert kept.seen == [(1, {"a": 1.0}), (2, {"a": 1.0}), (2, "octree"), "closed"]
    assert full.seen == []
    assert said == ["Full failed and is left out from now on: [Errno 28] No space left on device"]


def test_a_folder_for_logs_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.logs").write_text("")
    for folder, message in (("file.logs", "found a file"), ("no/m.logs", "does not exist")):
        with pytest.raises(LogError, match=message):
            check_logs(LogConfig(tmp_path / folder))
