"""What `--follow RUN` means, and when a file counts as changed. Each look is made by hand: no thread, no waiting."""

from __future__ import annotations

import os
from pathlib import Path

from infnerf.viewer.follow import Follower, run_checkpoint


def put(path: Path, content: bytes) -> None:
    """As checkpoints are written: whole, renamed over the old one."""
    temporary = path.with_name(".new")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def test_a_run_is_its_checkpoint_its_state_its_logs_or_its_folder(tmp_path: Path) -> None:
    out = tmp_path / "city.pth"
    assert run_checkpoint(tmp_path) is None
    for path in (out, tmp_path / "city.best.pth", tmp_path / ".city.pth.0a.pth"):
        path.write_bytes(b"")
    (tmp_path / "city.logs").mkdir()
    for run in (out, tmp_path / "city.pth.resume", tmp_path / "city.logs", tmp_path):
        assert run_checkpoint(run) == out
    newer = tmp_path / "later.pth"
    newer.write_bytes(b"")
    os.utime(newer, ns=(0, out.stat().st_mtime_ns + 1))
    assert run_checkpoint(tmp_path) == newer


def test_every_replacement_is_told_once(tmp_path: Path) -> None:
    path, woken = tmp_path / "m.pth", []
    follower = Follower(path, lambda: woken.append(1))
    follower.look()
    assert follower.take() is None
    for content in (b"one", b"two"):
        put(path, content)
        assert not follower.changed
        follower.look()
        assert follower.changed
        assert follower.take() == path
        follower.look()
        assert follower.take() is None
    path.unlink()
    follower.look()
    assert follower.take() is None
    assert len(woken) == 2


def test_a_file_that_is_being_copied_is_told_when_it_rests(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    put(path, b"")
    follower = Follower(path)
    follower.look()
    assert follower.take() == path
    for size in range(1, 4):
        with path.open("ab") as file:
            file.write(b"more" * size)
        follower.look()
        assert follower.take() is None
    follower.look()
    assert follower.take() == path


def test_a_folder_is_followed_to_its_first_checkpoint_and_no_further(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    follower.look()
    assert follower.take() is None
    assert follower.words(None) == "Waiting for a checkpoint"
    assert follower.folder == tmp_path
    put(tmp_path / "a.pth", b"a")
    follower.look()
    assert follower.take() == tmp_path / "a.pth"
    put(tmp_path / "b.pth", b"b")
    follower.look()
    assert follower.take() is None
