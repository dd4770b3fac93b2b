"""Every example runs as its docstring says, small."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

TINY = ["--folder", "OUT", "--steps", "3", "--views", "4", "--width", "24"]
#: example -> arguments that keep it short (growth takes seconds, and has tests of its own), what it prints, and writes
EXAMPLES = {
    "00_render_a_view": (["MODEL", "OUT/view.png"], "samples, cpu", ["view.png"]),
    "01_levels_of_a_view": (["MODEL"], "samples per level", []),
    "02_every_view_mode": (["MODEL", "OUT", "32x20"], "8 pictures in", ["aerial-gsd.png"]),
    "03_train_from_python": (
        [*TINY, "--nodes", "5"], "open it with infnerf-view", ["city.pth", "level.png", "orbit.mp4"],
    ),
    "04_your_own_capture": (
        [*TINY, "--views", "10", "--growth", "0.99", "--megabytes", "0.3"],
        "skipped 1 missing or unreadable", ["capture.pth", "eval/0000_images_000_scale1.png"],
    ),
    "05_custom_loss_and_watch": ([*TINY, "--max-depth", "1"], "loss, haze", ["city.pth", "curves.png"]),
}  # fmt: skip


def test_all_examples_are_here(repository: Path) -> None:
    assert sorted(path.stem for path in (repository / "examples").glob("*.py")) == sorted(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(
    name: str,
    repository: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, printed, written = EXAMPLES[name]
    example = repository / "examples" / f"{name}.py"
    filled = [a.replace("MODEL", str(tiny_checkpoint)).replace("OUT", str(tmp_path)) for a in arguments]
    monkeypatch.setattr(sys, "argv", [str(example), *filled])
    runpy.run_path(str(example), run_name="__main__")
    assert printed in capsys.readouterr().out
    for file in written:
        assert (tmp_path / file).stat().st_size > 0, file
