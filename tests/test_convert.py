"""`infnerf convert`: every format to InfNeRF's to nerfstudio's with nothing lost, and nothing written over."""

from __future__ import annotations

import json
import os
from pathlib import Path

import format_scenes as make
import numpy as np
import pytest

from infnerf.data.convert import convert
from infnerf.data.dataset import Dataset, DatasetError, load_dataset
from infnerf.models.camera import Camera
from infnerf.training import cli


def lens(camera: Camera) -> tuple:
    k = (*camera.distortion, *[0.0] * (8 - len(camera.distortion)))
    return camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height, camera.lens, k


def assert_same(got: Dataset, expected: Dataset) -> None:
    """Same images by content, same capture poses to 1e-9, same lenses, same points to float32."""
    assert len(got) == len(expected) > 0
    assert got.weights == expected.weights
    assert [mask is None for mask in got.masks] == [mask is None for mask in expected.masks]
    for i in range(len(got)):
        assert got.images[i].read_bytes() == expected.images[i].read_bytes()
        np.testing.assert_allclose(got.capture_camera(i).c2w, expected.capture_camera(i).c2w, rtol=0, atol=1e-9)
        assert lens(got.cameras[i]) == lens(expected.cameras[i])
    a, b = got.capture_points(), expected.capture_points()
    assert (a is None) == (b is None)
    if a is not None and b is not None:
        np.testing.assert_allclose(a.xyz, b.xyz, atol=1e-5)
        np.testing.assert_allclose(a.footprint, b.footprint, rtol=1e-5)
        np.testing.assert_array_equal(a.rgb, b.rgb)


@pytest.mark.parametrize("name", make.WRITERS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    source = make.WRITERS[name](tmp_path / "source")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    convert(source, ours)
    convert(ours, theirs, "nerfstudio")
    for split in ("train", "test") if name not in ("nerfstudio", "colmap") else ("train",):
        expected = load_dataset(source, split)
        stored = load_dataset(ours, split)
        assert_same(stored, expected)
        assert_same(load_dataset(theirs, split), expected)
        for a, b in zip(stored.cameras, expected.cameras, strict=True):  # and in the scene's own coordinates
            np.testing.assert_allclose(a.c2w, b.c2w, atol=1e-9)
        assert stored.scene["root_size"] == pytest.approx(expected.scene["root_size"], rel=1e-6)


def test_poses_in_the_written_file_are_the_ones_in_the_file_that_was_read(tmp_path: Path) -> None:
    """Compared as text, so that no reader can hide what a writer does wrong."""
    source = make.nerfstudio(tmp_path / "source", k1=0.1, p2=0.01)
    convert(source, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", "nerfstudio")
    read, written = (json.loads((tmp_path / f / "transforms.json").read_text()) for f in ("source", "theirs"))
    assert [f["file_path"] for f in written["frames"]] == [f["file_path"] for f in read["frames"]]
    for a, b in zip(read["frames"], written["frames"], strict=True):
        np.testing.assert_allclose(a["transform_matrix"], b["transform_matrix"], atol=1e-9)
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "p2", "camera_model"):
        assert written[key] == read[key]


@pytest.mark.parametrize("model", ["FULL_OPENCV", "OPENCV_FISHEYE", "SIMPLE_FISHEYE"])
def test_lenses_survive_in_our_format(model: str, tmp_path: Path) -> None:
    extra = {"FULL_OPENCV": (0.1, 0.2, 0.01, 0.02, 0.3, 0.4, 0.5, 0.6), "OPENCV_FISHEYE": (0.1, 0.2, 0.3, 0.4)}
    head = (20.0, 8.5, 5.5) if model.startswith("SIMPLE") else (20.0, 21.0, 8.5, 5.5)
    source = make.colmap(tmp_path / "source", model=model, params=head + extra.get(model, ()))
    convert(source, tmp_path / "ours")
    assert_same(load_dataset(tmp_path / "ours"), load_dataset(source))
    if model == "FULL_OPENCV":
        with pytest.raises(DatasetError, match="nerfstudio has no words for a lens with OpenCV's k4, k5, k6"):
            convert(source, tmp_path / "theirs", "nerfstudio")
        assert not (tmp_path / "theirs").exists()
    else:
        convert(source, tmp_path / "theirs", "nerfstudio")
        assert_same(load_dataset(tmp_path / "theirs"), load_dataset(source))


def test_masks_splits_and_odd_names(tmp_path: Path) -> None:
    source = make.nerfstudio(tmp_path / "source", 9)
    odd = "images/ein Bild, ünïcode 图.png"
    (source / "images" / "frame_001.png").rename(source / odd)
    make.save_image(source / "m.png", mode="L")
    make.edit_json(source / "transforms.json", lambda m: m["frames"][1].update(file_path=odd, mask_path="m.png"))
    convert(source, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", "nerfstudio")
    for out in ("ours", "theirs"):
        train, test = load_dataset(tmp_path / out), load_dataset(tmp_path / out, "test")
        assert sum(mask is not None for mask in train.masks) + sum(mask is not None for mask in test.masks) == 1
        names = {Path(name).name for name in train.names + test.names}
        assert (len(train), len(test), Path(odd).name in names) == (7, 2, True)
    (linked,) = (tmp_path / "ours").rglob(Path(odd).name)
    assert os.stat(linked).st_nlink == 3  # linked, not copied


def test_blender_splits_with_equal_names(tmp_path: Path) -> None:
    source = make.blender(tmp_path / "source")
    summary = convert(source, tmp_path / "ours")
    assert summary.images == {"train": 3, "test": 3}
    assert any("the val split is left out" in line for line in summary.warnings)
    assert convert(source, tmp_path / "theirs", "nerfstudio").images == {"train": 3, "test": 3, "val": 3}
    for split in ("train", "val", "test"):
        assert_same(load_dataset(tmp_path / "theirs", split), load_dataset(source, split))
    assert convert(source, tmp_path / "val", split="val").images == {"val": 3}
    assert_same(load_dataset(tmp_path / "val"), load_dataset(source, "val"))
    assert convert(tmp_path / "theirs", tmp_path / "all", split="all").images == {"train": 9}


def test_nothing_is_written_over(tmp_path: Path) -> None:
    source = make.nerfstudio(tmp_path / "source")
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match="out: expected an empty or new folder, found files in it"):
        convert(source, out)
    with pytest.raises(DatasetError, match=r"--overwrite replaces converted scenes only, found thesis.txt in it"):
        convert(source, out, overwrite=True)
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]
    for inside in (source, tmp_path):
        with pytest.raises(DatasetError, match="expected a folder other than the one that is read"):
            convert(source, inside, overwrite=True)
    convert(source, tmp_path / "two")
    convert(source, tmp_path / "two", "nerfstudio", overwrite=True)
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == ["images", "sparse_pc.ply", "transforms.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source", "two"]


def test_a_failed_conversion_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = make.nerfstudio(tmp_path / "source"), tmp_path / "out"
    convert(source, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("infnerf.data.dataset.atomic_write", full)
    with pytest.raises(OSError, match="No space left"):
        convert(source, out, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source"]


def test_copies_where_links_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    source = make.nerfstudio(tmp_path / "source")
    convert(source, tmp_path / "out")
    assert_same(load_dataset(tmp_path / "out"), load_dataset(source))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make.nerfstudio(tmp_path / "source", 8)
    assert cli.main(["convert", str(source), str(tmp_path / "out"), "--to", "nerfstudio"]) == 0
    err = capsys.readouterr().err
    assert f"wrote {tmp_path / 'out'} (nerfstudio): 7 train images, 1 test images, 60 points" in err
    assert "every eighth of 8 images by name is held out" in err
    for arguments, code, message in (
        (["convert", str(tmp_path / "gone"), "x"], 1, "gone: no such file or folder"),
        (["convert", str(source), str(tmp_path / "out")], 1, "expected an empty or new folder"),
        (["convert", str(source), str(tmp_path / "no" / "where")], 1, f"there is no folder {tmp_path / 'no'}"),
    ):
        assert cli.main(arguments) == code
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert message in lines[0]
    with pytest.raises(SystemExit) as stop:
        cli.main(["convert", str(source), str(tmp_path / "z"), "--to", "obj"])
    assert stop.value.code == 2
