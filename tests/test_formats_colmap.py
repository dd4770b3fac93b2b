"""COLMAP's models: text and binary, every camera model, footprints from tracks, and files that are not whole."""

from __future__ import annotations

import struct
from pathlib import Path

import format_scenes as make
import numpy as np
import pycolmap
import pytest

from infnerf.data.dataset import DatasetError, load_dataset

HEAD = (20.0, 21.0, 8.5, 5.5)
#: model -> parameters, the lens and the distortion that they are exactly.
EXACT = {
    "SIMPLE_PINHOLE": ((20.0, 8.5, 5.5), "perspective", ()),
    "PINHOLE": (HEAD, "perspective", ()),
    "SIMPLE_RADIAL": ((20.0, 8.5, 5.5, 0.1), "perspective", (0.1, 0, 0, 0)),
    "RADIAL": ((20.0, 8.5, 5.5, 0.1, -0.02), "perspective", (0.1, -0.02, 0, 0)),
    "OPENCV": ((*HEAD, 0.1, -0.02, 0.003, 0.004), "perspective", (0.1, -0.02, 0.003, 0.004)),
    "FULL_OPENCV": (
        (*HEAD, 0.1, -0.02, 0.003, 0.004, 0.05, 0.06, -0.01, 0.002),
        "perspective",
        (0.1, -0.02, 0.003, 0.004, 0.05, 0.06, -0.01, 0.002),
    ),
    "SIMPLE_FISHEYE": ((20.0, 8.5, 5.5), "fisheye", (0, 0, 0, 0)),
    "FISHEYE": (HEAD, "fisheye", (0, 0, 0, 0)),
    "SIMPLE_RADIAL_FISHEYE": ((20.0, 8.5, 5.5, 0.1), "fisheye", (0.1, 0, 0, 0)),
    "RADIAL_FISHEYE": ((20.0, 8.5, 5.5, 0.1, -0.02), "fisheye", (0.1, -0.02, 0, 0)),
    "OPENCV_FISHEYE": ((*HEAD, 0.1, -0.02, 0.003, 0.004), "fisheye", (0.1, -0.02, 0.003, 0.004)),
    "THIN_PRISM_FISHEYE": ((*HEAD, 0.1, -0.02, 0, 0, 0.003, 0.004, 0, 0), "fisheye", (0.1, -0.02, 0.003, 0.004)),
}
FITTED = {
    "FOV": (*HEAD, 0.6),
    "SIMPLE_DIVISION": (20.0, 8.5, 5.5, -0.1),
    "DIVISION": (*HEAD, -0.1),
    "EUCM": (*HEAD, 0.5, 1.1),
}
REFUSED = {
    "THIN_PRISM_FISHEYE": (*HEAD, 0.1, -0.02, 0.05, 0.04, 0.003, 0.004, 0.1, 0.2),
    "RAD_TAN_THIN_PRISM_FISHEYE": (*HEAD, 0.1, 0, 0, 0, 0, 0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1),
    "EQUIRECTANGULAR": (16.0, 12.0),
}


def test_every_camera_model_is_accounted_for() -> None:
    known = set(EXACT) | set(FITTED) | set(REFUSED)
    assert set(pycolmap.CameraModelId.__members__) - {"INVALID"} <= known


@pytest.mark.parametrize("model", EXACT)
def test_models_that_are_ours_in_other_words(model: str, tmp_path: Path) -> None:
    """The numbers, and that both project alike: pycolmap is the reference."""
    params, lens, distortion = EXACT[model]
    data = load_dataset(make.colmap(tmp_path, model=model, params=params))
    camera = data.cameras[0]
    assert (camera.lens, camera.distortion) == (lens, distortion)
    assert data.warnings == []
    theirs = pycolmap.Camera(model=model, width=16, height=12, params=list(params))
    local = np.array([[-0.3, 0.2, 1.0], [0.1, -0.25, 1.0], [0.35, 0.25, 1.0]])
    pixels, valid = camera.moved(np.eye(4)).project(local)
    assert valid.all()
    np.testing.assert_allclose(pixels, np.asarray(theirs.img_from_cam(local)), atol=1e-9)


@pytest.mark.parametrize("model", FITTED)
def test_models_that_a_fisheye_can_stand_for(model: str, tmp_path: Path) -> None:
    data = load_dataset(make.colmap(tmp_path, model=model, params=FITTED[model]))
    assert any(f"model {model} is read as the fisheye lens closest to it" in line for line in data.warnings)
    theirs = pycolmap.Camera(model=model, width=16, height=12, params=list(FITTED[model]))
    x, y = np.random.default_rng(0).uniform(0, 1, (2, 50)) * [[16], [12]]
    rays = np.asarray(theirs.cam_from_img(np.stack([x, y], axis=-1)))
    pixels, valid = data.cameras[0].moved(np.eye(4)).project(np.c_[rays, np.ones(50)])
    assert valid.all()
    assert np.linalg.norm(pixels - np.stack([x, y], axis=-1), axis=1).max() < 0.05


@pytest.mark.parametrize("model", REFUSED)
def test_models_that_nothing_here_can_stand_for(model: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"camera 1: model {model}: expected a lens"):
        load_dataset(make.colmap(tmp_path, model=model, params=REFUSED[model]))


def test_text_is_binary_in_other_words(tmp_path: Path) -> None:
    binary, text = load_dataset(make.colmap(tmp_path / "a")), load_dataset(make.colmap(tmp_path / "b", text=True))
    assert text.names == binary.names == ["cam 0/ü_0.png", "cam 0/ü_2.png", "cam 1/ü_1.png"]
    for a, b in zip(binary.cameras, text.cameras, strict=True):
        np.testing.assert_allclose(a.c2w, b.c2w, atol=1e-9)
    assert text.points is not None
    assert binary.points is not None
    np.testing.assert_allclose(text.points.footprint, binary.points.footprint, rtol=1e-9)


def test_footprints_come_from_the_tracks(tmp_path: Path) -> None:
    """Each point is matched in images 0 and 1, so image 2, however near, has no say."""
    data = load_dataset(make.colmap(tmp_path, model="PINHOLE", params=HEAD))
    points = data.capture_points()
    assert points is not None
    assert points.rgb.tolist() == [[10, 20, 30]] * 60
    expected = np.full(60, np.inf)
    for pose in make.poses(3)[:2]:
        local = (make.points() - pose[:3, 3]) @ pose[:3, :3]
        t = np.linalg.norm(local, axis=1)
        expected = np.minimum(expected, t * np.sqrt((local[:, 2] / t) ** 3 / (np.pi * 20 * 21)))
    order = np.lexsort(make.points().T)
    np.testing.assert_allclose(points.footprint[np.lexsort(points.xyz.round(9).T)], expected[order], rtol=1e-9)


def test_where_models_and_images_lie(tmp_path: Path) -> None:
    root = make.colmap(tmp_path)
    assert len(load_dataset(root / "sparse" / "0")) == len(load_dataset(root / "sparse")) == 3
    make.save_image(root / "masks" / "cam 0" / "ü_0.png.png", mode="L")
    assert load_dataset(root).masks[:2] == [root / "masks" / "cam 0" / "ü_0.png.png", None]
    (root / "images" / "cam 0" / "ü_0.png").unlink()
    data = load_dataset(root)
    assert (len(data), "skipped 1 missing or unreadable of 3 images: cam 0/ü_0.png" in data.warnings[0]) == (2, True)


BYTES = {
    "half": lambda raw: raw[: len(raw) // 2],
    "empty": lambda raw: b"",
    "one short": lambda raw: raw[:-1],
    "hostile count": lambda raw: struct.pack("<Q", 1 << 60) + raw[8:],
    "all ones": lambda raw: raw[:8] + b"\xff" * (len(raw) - 8),
}


@pytest.mark.parametrize("file", ["cameras", "images", "points3D", "rigs", "frames"])
@pytest.mark.parametrize("fault", BYTES)
def test_binary_files_that_are_not_whole(file: str, fault: str, tmp_path: Path) -> None:
    """pycolmap alone reads a truncated file as if it were whole, or reads on for ever."""
    path = make.colmap(tmp_path) / "sparse" / "0" / f"{file}.bin"
    path.write_bytes(BYTES[fault](path.read_bytes()))
    with pytest.raises(DatasetError, match=f"{tmp_path}.*expected") as caught:
        load_dataset(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("text", ["hello world\n1 2\n", "1\n", "1 OPENCV nan nan nan nan\n"])
def test_text_files_of_something_else(file: str, text: str, tmp_path: Path) -> None:
    path = make.colmap(tmp_path, text=True) / "sparse" / "0" / f"{file}.txt"
    path.write_text(text)
    with pytest.raises(DatasetError, match="expected"):
        load_dataset(tmp_path)


def test_a_model_without_points_or_with_one_image(tmp_path: Path) -> None:
    root = make.colmap(tmp_path / "a", text=True)
    (root / "sparse" / "0" / "points3D.txt").write_text("")
    images = (root / "sparse" / "0" / "images.txt").read_text().splitlines()
    marks = [line if line.startswith("#") or ".png" in line else "" for line in images]
    (root / "sparse" / "0" / "images.txt").write_text("\n".join(marks) + "\n")
    data = load_dataset(root)
    assert data.points is None
    assert data.scene["root_size"] > 0
    assert len(load_dataset(make.colmap(tmp_path / "b", n=1))) == 1
