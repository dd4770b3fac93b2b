"""What `infnerf-view` says of several checkpoints, comparisons and data sets before it opens anything."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from infnerf.renderer import renderer
from infnerf.renderer.comparison import COMPARISONS
from infnerf.viewer import cli
from infnerf.viewer.sides import MAX_SCENES

HERE = __file__  # a file that is there, opened by nobody


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["a.pth", "b.pth"], 1, "a.pth, b.pth: no such files"),
        ([HERE] * 10, 2, "at most 9 CHECKPOINTs"),
        ([HERE, HERE, "--headless"], 2, "2 CHECKPOINTs need a window"),
        ([HERE, "--compare", "wipe"], 2, "--compare needs two CHECKPOINTs"),
        ([HERE, HERE, HERE, "--compare", "wipe", "--headless"], 2, "it takes two CHECKPOINTs, got 3"),
        ([HERE, HERE, "--compare", "flicker", "--headless"], 2, "flicker needs a window"),
        ([HERE, HERE, "--compare", "error", "--record", "x.mp4"], 2, "not with --record"),
        ([HERE, "b.pth", "--compare", "error", "--screenshot", "x.png"], 1, "b.pth: no such file"),
        ([HERE, "--data", ".", "--headless"], 2, "--data needs a window"),
        ([HERE, "--data", "nowhere"], 1, "nowhere: expected the folder of a data set"),
    ],
)
def test_what_only_a_window_can_do_is_refused_in_a_sentence(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == code
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_without_a_display_several_scenes_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "has_display", lambda: False)
    assert cli.main([HERE, HERE]) == 2
    assert "need a window" in capsys.readouterr().err


def test_the_demo_brings_its_other_models_where_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "demo.pynerf.pth"
    monkeypatch.setattr(renderer, "DEMO_OTHERS", (other, tmp_path / "demo.mipnerf.pth"))
    assert cli._checkpoints(cli.Arguments()) == (renderer.DEMO,)
    other.touch()
    assert cli._checkpoints(cli.Arguments()) == (renderer.DEMO, other)
    assert cli._checkpoints(cli.Arguments((Path(HERE),))) == (Path(HERE),)


def test_the_command_line_has_the_windows_words_and_numbers() -> None:
    assert tuple(mode.replace("-", " ") for mode in get_args(cli.Comparison)) == COMPARISONS
    assert cli.MOST_CHECKPOINTS == MAX_SCENES
