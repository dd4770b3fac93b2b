"""Captures as people have them: what one image lacks is skipped and counted, what all lack is refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import format_scenes as make
import numpy as np
import pytest

from infnerf.data.dataset import DatasetError, load_dataset

NAN, INF = float("nan"), float("inf")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


IMAGE_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "skipped 1 missing or unreadable of 3 images"),
    "empty": (lambda p: p.write_bytes(b""), "skipped 1 missing or unreadable of 3 images"),
    "truncated": (cut, "skipped 1 missing or unreadable of 3 images"),
    "text": (lambda p: p.write_text("hello"), "skipped 1 missing or unreadable of 3 images"),
    "hostile size": (
        lambda p: p.write_bytes(p.read_bytes()[:16] + b"\x7f\xff\xff\xff\x7f\xff\xff\xff" + p.read_bytes()[24:]),
        "skipped 1 missing or unreadable of 3 images",
    ),
    "another shape": (lambda p: make.save_image(p, (12, 16)), "skipped 1 of 3 images of another size than their"),
}


@pytest.mark.parametrize("fault", IMAGE_FAULTS)
@pytest.mark.parametrize("name", ["nerfstudio", "colmap"])
def test_images_that_cannot_be_used_are_counted(name: str, fault: str, tmp_path: Path) -> None:
    root = make.WRITERS[name](tmp_path)
    victim = sorted((root / "images").rglob("*.png"))[1]
    change, message = IMAGE_FAULTS[fault]
    change(victim)
    data = load_dataset(root)
    assert len(data) == 2
    assert any(message in line and victim.name in line for line in data.warnings), data.warnings


def test_truncated_jpegs_are_found_and_whole_ones_are_not_decoded(tmp_path: Path, monkeypatch) -> None:
    root = make.nerfstudio(tmp_path)
    for i in range(3):
        make.save_image(root / "images" / f"frame_{i:03}.jpg", seed=i)
        (root / "images" / f"frame_{i:03}.png").unlink()
    make.edit_json(root / "transforms.json", lambda m: [f.update(file_path=f["file_path"][:-4]) for f in m["frames"]])
    decoded = []
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: decoded.append(image))
    assert len(load_dataset(root)) == 3
    assert decoded == []
    monkeypatch.undo()
    cut(root / "images" / "frame_000.jpg")
    assert load_dataset(root).names == ["images/frame_001.jpg", "images/frame_002.jpg"]


def test_images_made_smaller_scale_their_intrinsics(tmp_path: Path) -> None:
    root = make.nerfstudio(tmp_path)
    make.save_image(root / "images" / "frame_000.png", (8, 6))
    data = load_dataset(root)
    small = data.cameras[0]
    assert (small.fx, small.fy, small.cx, small.cy, small.width, small.height) == (10, 10.5, 4.25, 2.75, 8, 6)
    assert any("1 images are smaller or larger than it says" in line for line in data.warnings)


def test_our_format_checks_a_size_that_it_has(tmp_path: Path) -> None:
    root = make.infnerf(tmp_path)
    make.edit_json(root / "cameras.json", lambda c: [e.update(size=[16, 12]) for e in c.values()])
    assert len(load_dataset(root)) == 3
    make.save_image(root / "images" / "train_1.png", (16, 20))
    assert load_dataset(root).names == ["train_0.png", "train_2.png"]


POSE_FAULTS: dict[str, tuple[Callable[[list], object], str]] = {
    "nan": (lambda m: m[0].__setitem__(0, NAN), "with a pose that is not finite"),
    "none": (lambda m: m[0].__setitem__(3, None), "with a pose that is not finite"),
    "infinite": (lambda m: m[1].__setitem__(3, INF), "with a pose that is not finite"),
    "far": (lambda m: m[1].__setitem__(3, 1e300), "with a pose that is not finite"),
    "skewed": (lambda m: m[0].__setitem__(1, m[0][1] + 0.1), "with a pose that is not a rotation"),
    "mirrored": (lambda m: [row.__setitem__(0, -row[0]) for row in m[:3]], "with a pose that is mirrored or flat"),
    "flat": (lambda m: m[0].__setitem__(slice(0, 3), [0, 0, 0]), "with a pose that is mirrored or flat"),
    "last row": (lambda m: m[3].__setitem__(0, 1), "with a pose whose last row is not 0 0 0 1"),
}


@pytest.mark.parametrize("fault", POSE_FAULTS)
def test_poses_that_are_none(fault: str, tmp_path: Path) -> None:
    root = make.nerfstudio(tmp_path)
    change, message = POSE_FAULTS[fault]
    make.edit_json(root / "transforms.json", lambda m: change(m["frames"][1]["transform_matrix"]))
    data = load_dataset(root)
    assert len(data) == 2
    assert any(f"skipped 1 of 3 images {message}: images/frame_001.png" in line for line in data.warnings)
    make.edit_json(root / "transforms.json", lambda m: [change(f["transform_matrix"]) for f in m["frames"][::2]])
    with pytest.raises(DatasetError, match=f"found none of 3 readable .*{message}"):
        load_dataset(root)


def test_rounded_and_scaled_rotations_are_meant_as_rotations(tmp_path: Path) -> None:
    root = make.nerfstudio(tmp_path)

    def change(meta: dict) -> None:
        first, second, third = (np.array(f["transform_matrix"]) for f in meta["frames"])
        first[:3, :3] *= 2.5  # Blender lets a camera have a scale; it sees the same
        second[:3, :3] = second[:3, :3].round(4)
        for frame, matrix in zip(meta["frames"], (first, second, third[:3]), strict=True):
            frame["transform_matrix"] = matrix.tolist()

    make.edit_json(root / "transforms.json", change)
    data = load_dataset(root)
    for i, pose in enumerate(make.poses(3)):
        rotation = data.cameras[i].c2w[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(data.capture_camera(i).c2w, pose, atol=1e-4)


def test_duplicates(tmp_path: Path) -> None:
    root = make.nerfstudio(tmp_path / "a")
    make.edit_json(root / "transforms.json", lambda m: m["frames"].append(m["frames"][0]))
    data = load_dataset(root)
    assert (len(data), "skipped 1 of 4 images named twice: images/frame_000.png" in data.warnings[0]) == (3, True)
    ours = make.infnerf(tmp_path / "b")
    make.edit_json(ours / "cameras.json", lambda c: c.update(train_0=c["train_0.png"]))
    assert len(load_dataset(ours)) == 3
    text = (ours / "cameras.json").read_text()
    (ours / "cameras.json").write_text(text.replace('"train_1.png"', '"train_0.png"'))
    with pytest.raises(DatasetError, match=r"cameras.json: expected every key once, found 'train_0.png' twice"):
        load_dataset(ours)


@pytest.mark.parametrize(
    "path", ["/home/me/fox/images/frame_001.png", "C:\\fox\\images\\frame_001.png", "/elsewhere/frame_001.png"]
)
def test_paths_of_another_machine(path: str, tmp_path: Path) -> None:
    root = make.nerfstudio(tmp_path)
    make.edit_json(root / "transforms.json", lambda m: m["frames"][1].update(file_path=path))
    assert load_dataset(root).names == [f"images/frame_00{i}.png" for i in range(3)]


def test_points_that_are_not_there(tmp_path: Path) -> None:
    root = make.nerfstudio(tmp_path / "a")
    make.save_ply(root / "sparse_pc.ply", np.zeros((0, 3)))
    data = load_dataset(root)
    assert (data.points, any("no points in this file" in line for line in data.warnings)) == (None, True)
    (root / "sparse_pc.ply").unlink()
    data = load_dataset(root)
    assert (data.points, any("there is no file 'sparse_pc.ply'" in line for line in data.warnings)) == (None, True)
    lo, hi = np.array(data.scene["aabb"])
    assert (lo < 0).all()
    assert (hi > 0).all()
    ours = make.infnerf(tmp_path / "b")
    (ours / "sparse_points.ply").unlink()
    with pytest.raises(DatasetError, match=r"sparse_points.ply: expected this file of sparse points, found none"):
        load_dataset(ours)
    (ours / "scene.json").write_text(json.dumps({"root_corner": [-4, -3, -4], "root_size": 10}))
    data = load_dataset(ours)
    assert (data.points, data.scene["aabb"]) == (None, [[-4, -3, -4], [6, 7, 6]])


@pytest.mark.parametrize("name", make.WRITERS)
def test_one_image_is_a_scene(name: str, tmp_path: Path) -> None:
    writer: Callable = make.WRITERS[name]
    data = load_dataset(writer(tmp_path, 1))
    assert len(data) == (2 if name == "multicam" else 1)
    assert np.isfinite(data.scene["aabb"]).all()
    assert data.scene["root_size"] > 0


LLFF_FAULTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray | bytes], str]] = {
    "columns": (lambda a: a[:, :15], r"expected numbers \[n, 17\], found float64 \[9, 15\]"),
    "flat": (lambda a: a.ravel(), r"expected numbers \[n, 17\]"),
    "objects": (lambda a: a.astype(object), r"expected numbers \[n, 17\], found object"),
    "text": (lambda a: b"hello", r"expected a NumPy array \[n, 17\]"),
    "zip": (lambda a: b"PK\x03\x04" + bytes(100), r"expected a NumPy array \[n, 17\]"),
    "rows": (lambda a: a[:5], "expected a row for each of the 9 images in .*images, found 5 rows"),
    "none": (lambda a: a[:0], r"expected numbers \[n, 17\], found float64 \[0, 17\]"),
}


@pytest.mark.parametrize("fault", LLFF_FAULTS)
def test_bad_poses_bounds(fault: str, tmp_path: Path) -> None:
    file = make.llff(tmp_path) / "poses_bounds.npy"
    change, message = LLFF_FAULTS[fault]
    changed = change(np.load(file))
    if isinstance(changed, bytes):
        file.write_bytes(changed)
    else:
        np.save(file, changed)
    with pytest.raises(DatasetError, match=message):
        load_dataset(tmp_path)


def test_poses_bounds_that_lie_about_their_length(tmp_path: Path) -> None:
    file = make.llff(tmp_path) / "poses_bounds.npy"
    raw = file.read_bytes()
    for old, new in ((b"(9, 17)", b"(9999999999999, 17)"), (b"(9, 17)", b"(12, 17)")):
        file.write_bytes(raw.replace(old + b" " * (len(new) - len(old)), new).replace(old, new))
        with pytest.raises(DatasetError, match=r"the file is truncated|expected a NumPy array"):
            load_dataset(tmp_path)
    rows = np.frombuffer(raw[-9 * 17 * 8 :], np.float64).reshape(9, 17).copy()
    rows[2, 3], rows[3, 14] = NAN, 0
    np.save(file, rows)
    data = load_dataset(tmp_path, "all")
    assert len(data) == 7
    assert "skipped 1 of 9 images with a pose that is not finite: images/IMG_0002.png" in " ".join(data.warnings)
