"""`infnerf render`: every channel, pictures, camera paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_lines import error_of
from PIL import Image

from infnerf.training import cli as infnerf
from infnerf.viewer import cli as view

CHANNELS = ("color", "depth", "normal", "level", "gsd_ratio", "samples", "node", "clamped")


def test_render_writes_every_channel(tiny_checkpoint: Path, camera_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "view.npz"
    assert infnerf.main(["render", str(tiny_checkpoint), "--camera", str(camera_file), "--out", str(out)]) == 0
    with np.load(out) as channels:
        assert tuple(channels) == CHANNELS
        for name in CHANNELS:
            assert channels[name].shape[:2] == (32, 48), name
            assert channels[name].dtype == np.float32, name
        assert channels["color"].shape == (32, 48, 4)
        assert channels["color"][..., 3].max() > 0.5
        assert channels["samples"].max() > 0


@pytest.mark.parametrize("executor", ["cpu", "torch"])
def test_render_writes_a_picture(tiny_checkpoint: Path, camera_file: Path, tmp_path: Path, executor: str) -> None:
    out = tmp_path / "view.png"
    arguments = [
        "render",
        str(tiny_checkpoint),
        "--camera",
        str(camera_file),
        "--out",
        str(out),
        "--executor",
        executor,
    ]
    assert infnerf.main(arguments) == 0
    assert np.asarray(Image.open(out)).shape == (32, 48, 3)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_cuda_executor_says_where_it_stands(
    tiny_checkpoint: Path, camera_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["render", str(tiny_checkpoint), "--camera", str(camera_file), "--out", str(tmp_path / "x.png")]
    assert infnerf.main([*arguments, "--executor", "cuda"]) == 1
    assert "cuda" in error_of(1, capsys)


def test_render_films_a_path_as_the_viewer_does(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """`infnerf render --path` and `infnerf-view --record` give the same frames, and the poses say where they were."""
    model, poses = str(tiny_checkpoint), str(tmp_path / "poses.json")
    a, b, c = (str(tmp_path / name) for name in "abc")
    same = ["--size", "24x16", "--frames", "3", "--samples", "2", "--executor", "cpu"]
    assert infnerf.main(["render", model, "--path", "turntable", "--out", a, "--poses", poses, *same]) == 0
    assert view.main([model, "--path", "turntable", "--record", b, *same]) == 0
    assert infnerf.main(["render", model, "--path", poses, "--out", c, *same]) == 0
    frames = {name: [file.read_bytes() for file in sorted((tmp_path / name).iterdir())] for name in "abc"}
    assert len(set(frames["a"])) == 3
    assert frames["a"] == frames["b"]
    assert len(frames["c"]) == 3
    near = [np.asarray(Image.open(tmp_path / name / "frame_00001.png")).astype(int) for name in "ac"]
    assert np.abs(near[0] - near[1]).max() <= 2  # poses went through a file
