"""Both command lines: help without heavy imports, exit codes, and one sentence for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from command_lines import CAMERA, error_of

from infnerf.renderer import cliutil
from infnerf.renderer.cliutil import CommandError, UsageError, parse_size, read_camera, run_command, whole_file
from infnerf.training import cli as infnerf
from infnerf.viewer import cli as view

HEAVY = ("torch", "numpy", "imgui_bundle", "OpenGL", "glfw", "av", "PIL")


@pytest.mark.parametrize("module", ["infnerf.viewer.cli", "infnerf.training.cli"])
def test_help_imports_nothing_heavy(module: str) -> None:
    code = f"""
import sys
from {module} import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0, stop.code
print("HEAVY", sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "usage: infnerf" in result.stdout
    assert result.stdout.strip().splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("command", [view.main, infnerf.main])
@pytest.mark.parametrize("argument", ["--no-such-flag", "--size", "--fps=fast"])
def test_bad_flags_exit_2(command, argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command([argument])
    assert stop.value.code == 2
    assert capsys.readouterr().err != ""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["train", "data"],
        ["render", "x.pth"],
        ["city"],
        ["info", "a", "b"],
        ["bench", "x.pth", "--size"],
    ],
)
def test_infnerf_without_what_it_needs_exits_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        infnerf.main(arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.pth"], 1, "missing.pth: no such file"),
        (["--headless", "--size", "0x720"], 1, "sides of 1 to 16384 pixels, got 0x720"),
        (["--headless", "--size", "100000x100000"], 1, "got 100000x100000"),
        (["--headless", "--size", "large"], 2, "WIDTHxHEIGHT"),
        (["--headless", "--size=-4x4"], 2, "WIDTHxHEIGHT"),
        (["--headless", "--frames", "0"], 2, "--frames must be from 1"),
        (["--headless", "--samples", "0"], 2, "--samples must be from 1"),
        (["--headless", "--fps", "0"], 2, "--fps"),
        (["--headless", "--fps", "nan"], 2, "--fps"),
        (["--headless", "--lod-bias", "99"], 2, "--lod-bias"),
        (["--screenshot", "x.jpg"], 2, "must end in .png"),
        (["--follow", ".", "--screenshot", "x.png"], 2, "--follow needs a window"),
        (["--follow", ".", "--headless"], 2, "--follow needs a window"),
        (["--follow", "nowhere/run.pth"], 1, "there is no folder nowhere"),
    ],
)
def test_infnerf_view_says_what_is_wrong(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert view.main(arguments) == code
    line = error_of(code, capsys)
    assert line.startswith("infnerf-view: ")
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["info", "missing.pth"], 1, "missing.pth: no such file"),
        (["train", "missing", "--out", "m.pth", "--steps", "1"], 1, "missing: no such folder"),
        (["train", ".", "--out", "m.pth"], 2, "--steps N or --minutes M"),
        (["train", ".", "--out", "m.pth", "--steps", "0"], 2, "--steps must be from 1"),
        (["train", ".", "--out", "m.pth", "--minutes", "-1"], 2, "--minutes"),
        (["train", ".", "--out", "m.pth", "--steps", "1", "--max-depth", "99"], 2, "--max-depth must be from 0 to 31"),
        (
            ["train", ".", "--out", "m.pth", "--steps", "1", "--table-size", "999"],
            2,
            "--appearance-dim: config.table_size",
        ),
        (["train", ".", "--out", "m.pth", "--steps", "1", "--max-megabytes", "0"], 2, "--max-megabytes"),
        (["train", ".", "--out", "m.pth", "--steps", "1", "--image-gigabytes", "-3"], 2, "--image-gigabytes"),
        (
            ["train", ".", "--out", "m.pth", "--steps", "1", "--loss", "fog=1"],
            2,
            "one of the losses rgb, consistency, transparency, distortion, depth, got 'fog=1'",
        ),
        (
            ["train", ".", "--out", "m.pth", "--steps", "1", "--loss", "rgb=1,depth=x"],
            2,
            "number of at least 0, got 'depth=x'",
        ),
        (["train", ".", "--out", "m.pth", "--steps", "1", "--loss", "depth"], 2, "--loss: expected depth=WEIGHT"),
        (["train", ".", "--out", "m.pth", "--steps", "1", "--loss", "depth=-1"], 2, "got 'depth=-1'"),
        (["train", ".", "--out", "m.pth", "--steps", "1", "--loss", "rgb=0"], 2, "at least one weight must be above 0"),
        (["train", ".", "--out", "m.pth", "--steps", "1", "--save-minutes", "0"], 2, "--save-minutes must be from"),
        (["train", ".", "--out", "m.pth", "--steps", "1", "--wandb", "a", "b"], 2, "one PROJECT, got a b"),
        (["train", ".", "--out", "m.pth", "--steps", "1", "--logs", "no/x"], 1, "no/x: the folder no for the logs"),
        (
            ["train", ".", "--out", "m.pth", "--steps", "1", "--appearance-dim", "17"],
            2,
            "config.appearance_dim must be",
        ),
        (["city", "out", "--size", "0x0"], 1, "got 0x0"),
        (["city", "out", "--blocks", "0"], 2, "--blocks"),
        (["render", "m.pth", "--camera", "c.json", "--out", "x.bmp"], 2, ".png or .npz"),
        (["render", "m.pth", "--out", "x.png"], 2, "render takes --camera CAM.json for a view, or --path NAME|FILE"),
        (["render", "m.pth", "--out", "x.mp4", "--path", "dive"], 1, "or a file, got 'dive'"),
        (["render", "m.pth", "--camera", "c.json", "--out", "no/x.png"], 1, "no does not exist"),
        (["bench", "m.pth", "--executors", "cpu,abacus"], 2, "'abacus'"),
        (["bench", "m.pth", "--size", "100000x2"], 1, "got 100000x2"),
    ],
)
def test_infnerf_says_what_is_wrong(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert infnerf.main(arguments) == code
    assert message in error_of(code, capsys)
    assert list(tmp_path.iterdir()) == []


def test_following_without_a_display_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "has_display", lambda: False)
    assert view.main(["--follow", str(tmp_path)]) == 1
    assert "no display" in error_of(1, capsys)


def test_a_file_that_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.pth"
    path.write_text("not a checkpoint")
    for main, arguments in ((infnerf.main, ["info", str(path)]), (view.main, [str(path), "--screenshot", "x.png"])):
        assert main(arguments) == 1
        assert str(path) in error_of(1, capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fx": None}, "lacks fx"),
        ({"fx": "wide"}, "wide"),
        ({"fx": -3}, "fx must be positive"),
        ({"width": 0}, "width"),
        ({"width": 100_000}, "width"),
        ({"width": 3.5}, "width"),
        ({"height": float("nan")}, "height"),
        ({"c2w": [[1, 2], [3, 4]]}, r"\[4, 4\]"),
        ({"c2w": [[9, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "rotation"),
        ({"c2w": "identity"}, "identity"),
    ],
)
def test_a_bad_camera_file_is_named(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({key: value for key, value in {**CAMERA, **change}.items() if value is not None}))
    with pytest.raises(CommandError, match=message) as error:
        read_camera(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "[" * 100_000])
def test_a_camera_file_that_is_no_camera(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(CommandError, match=r"bad\.json: the camera"):
        read_camera(path)


def test_a_camera_survives_its_text(camera_file: Path, tmp_path: Path) -> None:
    camera = read_camera(camera_file)
    again = tmp_path / "again.json"
    again.write_text(cliutil.camera_json(camera))
    assert {**vars(read_camera(again)), "c2w": 0} == {**vars(camera), "c2w": 0}
    np.testing.assert_array_equal(read_camera(again).c2w, camera.c2w)


@pytest.mark.parametrize("text", ["1280", "1280x", "x", "1e3x2", "1280x720x3", "１x"])
def test_sizes_in_other_forms(text: str) -> None:
    with pytest.raises(UsageError, match="WIDTHxHEIGHT"):
        parse_size(text)


def test_a_whole_file_appears_at_the_end_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"

    def fails() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("full disk")

    path.write_text("old")
    with pytest.raises(RuntimeError, match="full disk"):
        fails()
    assert path.read_text() == "old"
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (CommandError("no"), 1, "p: no"),
        (UsageError("no"), 2, "p: no"),
        (ValueError("no"), 1, "p: no"),
        (FileNotFoundError(2, "No such file", "x.json"), 1, "p: x.json: No such file"),
        (OSError(28, "No space left on device"), 1, "p: No space left on device"),
        (MemoryError(), 1, "p: out of memory; a smaller --size needs less"),
        (KeyboardInterrupt(), 130, "p: stopped by Ctrl-C"),
    ],
)
def test_errors_become_a_sentence(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> int:
        raise error

    assert run_command("p", fails) == code
    assert error_of(code, capsys) == message


def test_a_fault_of_our_own_keeps_its_traceback() -> None:
    def fails() -> int:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        run_command("p", fails)


def test_a_reader_that_leaves_early_makes_no_noise(tiny_checkpoint: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    code = f"import sys; from infnerf.training.cli import main; sys.exit(main(['info', {str(tiny_checkpoint)!r}]))"
    result = subprocess.run(
        [sys.executable, "-u", "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert result.stderr == ""
    assert result.returncode == 1


def test_words_offered_are_the_words_understood() -> None:
    from infnerf.renderer.executors import NAMES
    from infnerf.renderer.path_presets import PRESETS
    from infnerf.renderer.resolve import VIEW_MODES

    assert get_args(cliutil.ViewMode) == VIEW_MODES
    assert set(NAMES) <= set(get_args(cliutil.ExecutorName))
    assert tuple(PRESETS) == cliutil.PRESET_NAMES


def test_info_lists_the_levels(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from infnerf.models.infnerf import InfNeRF

    model = InfNeRF.load(str(tiny_checkpoint))
    assert infnerf.main(["info", str(tiny_checkpoint)]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [int(row[1]) for row in rows] == model.octree.level_counts()
    assert float(rows[2][4]) == pytest.approx(1 / 4 / 32, rel=1e-3)  # gsd = size / resolution
    assert f"parameters  {model.n_parameters}" in out
