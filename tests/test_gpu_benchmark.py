"""The script that a machine with a GPU runs, on the stand-in for CuPy: a fault in it would waste the machine's time."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from fake_cupy import FakeCupy, HostDriver, host_launcher
from pretend_device import pretended
from random_models import random_model
from small_runs import SMALL

from infnerf.data.dataset import load_dataset
from infnerf.renderer import gpu_driver
from infnerf.renderer.gpu_loader import KERNELS
from infnerf.training import point_prior

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture
def script() -> Any:
    spec = importlib.util.spec_from_file_location("benchmarks_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    made = FakeCupy()
    made.cuda.get_elapsed_time = lambda before, after: 0.25
    monkeypatch.setattr(gpu_driver, "import_cupy", lambda: made)
    return made


def kernels_told(said: str) -> dict[str, tuple[float, float]]:
    """Kernel -> launches, milliseconds."""
    lines = [line.split() for line in said.splitlines() if " launches " in line]
    return {words[0]: (float(words[1]), float(words[3])) for words in lines}


def test_it_measures_frames_and_every_kernel(
    script: Any, fake: FakeCupy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "SIZES", ((24, 16),))
    script.measure("small", random_model(1), 1, 2)
    said = capsys.readouterr().out
    assert "24x16: " in said
    told = kernels_told(said)
    assert set(told) >= {"wave_begin", "wave_rays", "wave_march", "shade_tiles_mma", "wave_composite", "fill_normals"}
    assert told["wave_rays"] == (1, 0.25)  # one launch a frame, of a quarter of a millisecond each


def test_it_measures_training(
    script: Any, fake: FakeCupy, city: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(point_prior, "FINEST", 64)
    monkeypatch.setattr(script, "WARM_UP", 1)
    monkeypatch.setattr(script, "InfNeRFConfig", lambda: SMALL)
    monkeypatch.setattr(script, "torch_launcher", lambda number: host_launcher(fake, "cuda:0"))
    monkeypatch.setattr(script.TimedDriver, "torch_stream", HostDriver.torch_stream)
    with pretended():
        script.measure_training(load_dataset(city), 1)
    said = capsys.readouterr().out
    assert "kernels against torch autograd: " in said
    told = kernels_told(said)
    assert set(told) == {name for name, spec in KERNELS.items() if spec.file == "train.cu"}
    assert told["train_field"] == (1, 0.25)
