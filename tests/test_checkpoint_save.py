"""Saving a checkpoint: whatever goes wrong, the file that was there is whole and nothing else is left behind."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_checkpoint import small_checkpoint

from infnerf.models.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


def test_only_the_tensors_asked_for_are_written(tmp_path: Path) -> None:
    checkpoint = small_checkpoint()
    checkpoint.field["tables"] = torch.cat([checkpoint.field["tables"]] * 50)[:9]
    save_checkpoint(checkpoint, tmp_path / "model.pth")
    assert (tmp_path / "model.pth").stat().st_size < 100_000


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    save_checkpoint(small_checkpoint(), path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))  # writes beyond fail, as on a full disk
    try:
        with pytest.raises(
            CheckpointError, match=r"model\.pth: not saved, an older file there is unchanged \(.*large\)"
        ):
            save_checkpoint(small_checkpoint(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not saved, .*No such file"):
        save_checkpoint(small_checkpoint(), tmp_path / "nowhere" / "model.pth")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match=r"folder: not saved, .*directory"):
        save_checkpoint(small_checkpoint(), tmp_path / "folder")
    with pytest.raises(CheckpointError, match="not saved"):
        save_checkpoint(small_checkpoint(), "/proc/model.pth")  # even root can't create a file there
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_an_interrupted_save_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(values: object, file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    path = tmp_path / "model.pth"
    path.write_bytes(b"old")
    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(small_checkpoint(), path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model.pth", b"old")]


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    target = tmp_path / "precious.txt"
    target.write_text("keep")
    link = tmp_path / "model.pth"
    link.symlink_to(target)
    save_checkpoint(small_checkpoint(), link)
    assert target.read_text() == "keep"
    assert not link.is_symlink()
    assert load_checkpoint(link).octree.n_nodes == 9


def test_values_that_could_not_be_read_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    for change, message in (
        (lambda c: c.scene.update(up=[0, 0, 0]), "not saved, scene.up must be a direction"),
        (lambda c: c.field["mlp"].fill_(np.nan), "not saved, field.mlp must be finite"),
        (lambda c: c.view.update(home=np.zeros(3)), "not saved, view must hold plain data"),
        (lambda c: c.training.update(at=Path("x")), "not saved, training must hold plain data"),
    ):
        checkpoint = small_checkpoint()
        change(checkpoint)
        with pytest.raises(CheckpointError, match=message):
            save_checkpoint(checkpoint, path)
    assert not path.exists()
