"""The script that a machine with a GPU runs, on the stand-in for CuPy: a fault in it would waste the machine's time."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from fake_cupy import FakeCupy
from random_models import random_model

from infnerf.renderer import gpu_driver

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


def test_it_measures_frames_and_every_kernel(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("benchmarks_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    fake = FakeCupy()
    fake.cuda.get_elapsed_time = lambda before, after: 0.25
    monkeypatch.setattr(gpu_driver, "import_cupy", lambda: fake)
    monkeypatch.setattr(script, "SIZES", ((24, 16),))
    script.measure("small", random_model(1), 1, 2)
    said = capsys.readouterr().out
    assert "24x16: " in said
    told = {line.split()[0]: float(line.split()[3]) for line in said.splitlines() if " launches " in line}
    assert set(told) >= {"wave_begin", "wave_rays", "wave_march", "shade_tiles_mma", "wave_composite", "fill_normals"}
    assert told["wave_rays"] == 0.25  # one launch a frame, of a quarter of a millisecond each
