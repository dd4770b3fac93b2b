"""Models by their `--backend`: the options and settings of each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infnerf.training import cli as infnerf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--setting", "geo_dim"], "--setting: expected NAME=VALUE with NAME one of .*geo_dim.*, got 'geo_dim'"),
        (["--setting", "colour=1"], "--setting: expected NAME=VALUE .* got 'colour=1'"),
        (["--setting", "geo_dim=x"], "--setting: geo_dim takes a whole number, got 'x'"),
        (["--setting", "geo_dim=99"], "config.geo_dim must be a whole number from 1 to 31, got 99"),
        (["--setting", "background=true"], "got 'background=true'"),  # that is --background
    ],
)
def test_settings_by_name_are_checked(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(tmp_path), "--out", str(tmp_path / "m.pth"), "--steps", "1", *arguments]
    assert infnerf.main(command) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
