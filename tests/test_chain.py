"""The commands one after the other, as a person would: a city, a model of it, its numbers, its picture."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from infnerf.models.checkpoint import load_checkpoint
from infnerf.training import cli as infnerf
from infnerf.viewer import cli as view


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chain") / "city"
    assert infnerf.main(["city", str(folder), "--blocks", "1", "--views", "6", "--size", "48x36", "--seed", "5"]) == 0
    return folder


@pytest.fixture(scope="module")
def model(city: Path) -> Path:
    path = city.parent / "model.pth"
    assert infnerf.main(["train", str(city), "--out", str(path), "--steps", "3"]) == 0
    return path


def test_train_writes_a_checkpoint_of_the_city(model: Path, city: Path) -> None:
    checkpoint = load_checkpoint(model)
    assert checkpoint.octree.depth >= 1
    assert len(checkpoint.cameras) == len(json.loads((city / "cameras.json").read_text())) == 6


def test_eval_prints_and_writes_every_scale(model: Path, city: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = city.parent / "eval.json"
    assert infnerf.main(["eval", str(model), str(city), "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert list(result["per_scale"]) == ["1", "2", "4", "8"]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("scale 1/")]
    assert lines == [
        f"scale 1/{s}: PSNR {v['psnr']:.2f} dB over {result['views']} views" for s, v in result["per_scale"].items()
    ]


def test_the_viewer_renders_what_was_trained(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "still.png"
    assert view.main([str(model), "--screenshot", str(out), "--size", "48x36", "--samples", "1"]) == 0
    assert Image.open(out).size == (48, 36)


def test_bench_names_its_executors(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    assert (
        infnerf.main(["bench", str(tiny_checkpoint), "--size", "16x12", "--executors", "cpu,torch", "--json", str(out)])
        == 0
    )
    result = json.loads(out.read_text())
    assert [entry["executor"] for entry in result["executors"]] == ["cpu", "torch"]
    for entry in result["executors"]:
        assert entry["frame_ms"] > 0
        assert entry["samples_per_second"] > 0


def test_ctrl_c_while_training_keeps_a_checkpoint_that_loads(city: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut.pth"
    code = "import sys; from infnerf.training.cli import main; sys.exit(main())"
    arguments = ["train", str(city), "--out", str(out), "--minutes", "30"]
    with subprocess.Popen([sys.executable, "-u", "-c", code, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()  # what was read and built, printed before the first step
        time.sleep(2.0)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, first + err
    assert "stopped after" in err
    assert "Traceback" not in err
    assert load_checkpoint(out).octree.n_nodes >= 1


def test_a_city_is_not_written_over_something_else(city: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in city.iterdir())
    assert infnerf.main(["city", str(city), "--blocks", "1", "--views", "1", "--size", "16x16"]) == 1
    assert str(city) in capsys.readouterr().err
    assert sorted(path.name for path in city.iterdir()) == before
