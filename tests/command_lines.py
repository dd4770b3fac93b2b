"""What tests of the command lines share: a camera's file, and what a failed command says."""

from __future__ import annotations

import pytest

CAMERA = {
    "c2w": [[1, 0, 0, 0.5], [0, 0, 1, -1.5], [0, -1, 0, 0.2], [0, 0, 0, 1]],
    "fx": 40,
    "fy": 40,
    "cx": 24,
    "cy": 16,
    "width": 48,
    "height": 32,
}


def error_of(code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a failed command printed on stderr."""
    out, err = capsys.readouterr()
    assert out == ""
    assert code != 0
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    return lines[0]
