"""The InfNeRF data format: what is written is read back, what is broken is refused in one sentence, and the pyramid is
exact."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from infnerf.data.dataset import DatasetError, load_dataset, write_cameras, write_json
from infnerf.data.ply import PointCloud, atomic_write, read_ply, write_ply
from infnerf.data.pyramid import ImagePyramid, linear_to_srgb, read_image, srgb_to_linear
from infnerf.models.camera import Camera, look_at

SIZES = [(24, 16), (19, 13), (24, 16)]


def make_camera(i: int, size: tuple[int, int]) -> Camera:
    eye = np.array([3.0 + i, -4.0, 2.0 + 0.3 * i])
    return Camera(
        look_at(eye, np.zeros(3), np.array([0, 0, 1.0])), 30.0 + i, 31.0, size[0] / 2 - 0.3, size[1] / 2 + 0.2, *size
    )


def make_points(n: int = 40) -> PointCloud:
    rng = np.random.default_rng(5)
    return PointCloud(rng.normal(size=(n, 3)), rng.integers(0, 256, (n, 3)).astype(np.uint8), rng.uniform(0.01, 0.1, n))


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    cameras = {}
    for i, size in enumerate(SIZES):
        pixels = rng.integers(0, 256, (size[1], size[0], 4)).astype(np.uint8)
        Image.fromarray(pixels, "RGBA").save(tmp_path / "images" / f"view_{i}.png")
        cameras[f"view_{i}.png"] = make_camera(i, size)
    write_cameras(tmp_path / "cameras.json", cameras)
    write_ply(tmp_path / "sparse_points.ply", make_points())
    return tmp_path


def edit(scene: Path, change: Callable[[dict], object]) -> None:
    path = scene / "cameras.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


# --- reading back ----------------------------------------------------------------------------------------------------


def test_cameras_and_points_come_back(scene: Path) -> None:
    data = load_dataset(scene)
    assert data.names == ["view_0.png", "view_1.png", "view_2.png"]
    assert data.warnings == []
    for i, (size, camera) in enumerate(zip(SIZES, data.cameras, strict=True)):
        expected = make_camera(i, size)
        np.testing.assert_allclose(camera.c2w, expected.c2w, atol=1e-12)
        for name in ("fx", "fy", "cx", "cy", "width", "height"):
            assert getattr(camera, name) == getattr(expected, name)
    points = make_points()
    assert data.points is not None
    np.testing.assert_array_equal(data.points.rgb, points.rgb)
    np.testing.assert_allclose(data.points.xyz, points.xyz, rtol=1e-6)
    np.testing.assert_allclose(data.points.footprint, points.footprint, rtol=1e-6)


def test_an_extrinsic_takes_the_world_to_opencv_axes(scene: Path) -> None:
    """The origin, which the cameras look at, lies straight ahead; a point above it lies higher in the image (smaller
    y)."""
    w2c = np.array(json.loads((scene / "cameras.json").read_text())["view_0.png"]["extrinsic"])
    ahead, above = w2c @ [0, 0, 0, 1], w2c @ [0, 0, 1, 1]
    np.testing.assert_allclose(ahead[:2], 0, atol=1e-12)
    assert ahead[2] == pytest.approx(np.linalg.norm([3, -4, 2]))
    assert above[1] < 0


def test_names_without_an_ending_find_their_file(scene: Path) -> None:
    edit(scene, lambda c: c.update({"view_1": c.pop("view_1.png")}))
    assert [p.name for p in load_dataset(scene).images] == ["view_0.png", "view_2.png", "view_1.png"]


def test_a_root_cube_is_made_where_no_scene_says_one(scene: Path) -> None:
    far = make_points(2000)
    far.xyz[0] = 1e6  # an outlier of the reconstruction
    write_ply(scene / "sparse_points.ply", far)
    made = load_dataset(scene).scene
    assert made["root_size"] < 20
    lo, hi = np.array(made["aabb"])
    corner = np.array(made["root_corner"])
    assert (corner < lo).all()
    assert (corner + made["root_size"] > hi).all()
    write_json(scene / "scene.json", {"up": [0, 1, 0], "unit": "metre", "root_corner": [-8, -8, -8], "root_size": 16})
    told = load_dataset(scene).scene
    assert (told["up"], told["unit"], told["root_size"], told["root_corner"]) == ([0, 1, 0], "metre", 16, [-8, -8, -8])


def test_footprints_come_from_the_nearest_camera_when_the_file_has_none(scene: Path) -> None:
    body = b"".join(struct.pack("<3f3B", *xyz, 1, 2, 3) for xyz in ((0, 0, 0), (1, 1, 0)))
    header = (
        b"ply\nformat binary_little_endian 1.0\ncomment ours\nelement vertex 2\nproperty float x\nproperty float y\n"
        b"property float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    )
    (scene / "sparse_points.ply").write_bytes(header + body)
    data = load_dataset(scene)
    assert data.points is not None
    expected = min(np.linalg.norm(c.position) / np.sqrt(np.pi * c.fx * c.fy) for c in data.cameras)
    assert data.points.footprint[0] == pytest.approx(expected)
    assert data.points.rgb.tolist() == [[1, 2, 3]] * 2


def test_ascii_points_are_read(tmp_path: Path) -> None:
    (tmp_path / "p.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 2\nproperty double x\nproperty double y\nproperty double z\n"
        "property float footprint\nend_header\n1 2 3 0.5\n4 5 6 0.25\n"
    )
    xyz, rgb, footprint = read_ply(tmp_path / "p.ply")
    assert xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (rgb == 128).all()
    assert footprint is not None
    assert footprint.tolist() == [0.5, 0.25]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scene.json"
    atomic_write(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["scene.json"]


# --- refusals --------------------------------------------------------------------------------------------------------


def test_missing_images_are_named_and_skipped(scene: Path) -> None:
    (scene / "images" / "view_1.png").unlink()
    (scene / "images" / "view_2.png").write_bytes(b"\x89PNG\r\n\x1a\nnot one")
    data = load_dataset(scene)
    assert data.names == ["view_0.png"]
    (warning,) = data.warnings
    assert "skipped 2 missing or unreadable of 3 images: view_1.png, view_2.png" in warning


def test_a_name_cannot_leave_the_folder(scene: Path) -> None:
    Image.new("RGB", (8, 8)).save(scene / "secret.png")
    edit(scene, lambda c: c.update({"../secret.png": c["view_0.png"]}))
    data = load_dataset(scene)
    assert len(data) == 3
    assert "../secret.png" in data.warnings[0]


def test_no_image_left(scene: Path) -> None:
    for path in (scene / "images").iterdir():
        path.unlink()
    with pytest.raises(
        DatasetError, match=r"images: expected the images named in cameras.json, found none of 3 readable"
    ):
        load_dataset(scene)


CAMERA_FAULTS = {
    "gone": (lambda c: c.clear(), r"cameras.json: expected at least one camera, found none"),
    "list": (lambda c: c.update(a=[1]), r"'a': expected keys 'intrinsic' and 'extrinsic', found list"),
    "key": (lambda c: c["view_0.png"].pop("extrinsic"), r"'view_0.png': expected keys .* found \['intrinsic'\]"),
    "shape": (
        lambda c: c["view_0.png"].update(intrinsic=[[1, 2], [3, 4]]),
        r"'view_0.png' key 'intrinsic': expected a 3x3 matrix, found \[2, 2\]",
    ),
    "text": (
        lambda c: c["view_0.png"].update(extrinsic="x"),
        r"key 'extrinsic': expected a 4x4 matrix, found no matrix of numbers",
    ),
    "ragged": (lambda c: c["view_0.png"]["extrinsic"].pop(), r"key 'extrinsic': expected a 4x4 matrix, found \[3, 4\]"),
    "nan": (
        lambda c: c["view_0.png"]["extrinsic"][0].__setitem__(3, float("nan")),
        r"expected finite numbers, found NaN",
    ),
    "focal": (
        lambda c: c["view_0.png"]["intrinsic"][0].__setitem__(0, -3),
        r"expected positive focal lengths, found -3, 31",
    ),
    "skew": (lambda c: c["view_0.png"]["intrinsic"][0].__setitem__(1, 0.5), r"found skew or another last row"),
    "row": (
        lambda c: c["view_0.png"]["extrinsic"][3].__setitem__(0, 1),
        r"expected the last row 0 0 0 1, found \[1.0, 0",
    ),
    "scaled": (
        lambda c: c["view_0.png"]["extrinsic"][0].__setitem__(0, 3),
        r"expected a rigid transform, found a scaled, skewed or mirrored one",
    ),
}


@pytest.mark.parametrize("fault", CAMERA_FAULTS)
def test_bad_cameras_are_refused(scene: Path, fault: str) -> None:
    change, message = CAMERA_FAULTS[fault]
    edit(scene, change)
    with pytest.raises(DatasetError, match=message) as caught:
        load_dataset(scene)
    assert str(scene / "cameras.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON, found text that is not"),
        ("[1]", "expected a JSON object, found list"),
        ("[" * 100000, "expected JSON, found text that is not"),
        ("\udc80", "expected readable UTF-8 text"),
    ],
)
def test_files_that_are_not_json(scene: Path, text: str, message: str) -> None:
    (scene / "cameras.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DatasetError, match=message):
        load_dataset(scene)


def test_missing_files_and_folders(scene: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere: expected a folder with"):
        load_dataset(scene / "nowhere")
    with pytest.raises(DatasetError, match="expected split 'train', 'test', 'val' or 'all', found 'dev'"):
        load_dataset(scene, "dev")
    with pytest.raises(DatasetError, match=r"test/cameras.json: expected this file, found none"):
        load_dataset(scene, "test")
    (scene / "sparse_points.ply").unlink()
    with pytest.raises(DatasetError, match=r"sparse_points.ply: expected this file of sparse points, found none"):
        load_dataset(scene)


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda raw: raw.replace(old, new, 1)


POINT_FAULTS = {
    "truncated": (lambda raw: raw[:-1], "expected 40 points, found 39 whole ones: the file is truncated"),
    "header only": (lambda raw: raw[:60], "expected a PLY header closed by 'end_header', found none"),
    "not one": (lambda raw: b"hello" + raw, "expected a PLY file that starts with 'ply', found"),
    "empty file": (lambda raw: b"", "expected a PLY file that starts with 'ply', found"),
    "big endian": (
        replaced(b"little", b"big"),
        "expected format binary_little_endian or ascii, found 'binary_big_endian'",
    ),
    "no z": (replaced(b"float z", b"float q"), "expected vertex properties x, y, z, each once, found x, y, q"),
    "list": (replaced(b"float footprint", b"list uchar int f"), "expected scalar vertex properties"),
    "count": (replaced(b"vertex 40", b"vertex -4"), "expected 'element vertex' with a count, found '-4'"),
    "huge count": (replaced(b"vertex 40", b"vertex 99999999999999"), "found 40 whole ones: the file is truncated"),
    "none": (replaced(b"vertex 40", b"vertex 0"), "expected at least one point, found 0"),
    "nan": (lambda raw: raw[:-19] + struct.pack("<f", float("nan")) + raw[-15:], "found 1 points with NaN or infinity"),
    "footprint": (lambda raw: raw[:-4] + struct.pack("<f", -1), "expected positive finite 'footprint'"),
}


@pytest.mark.parametrize("fault", POINT_FAULTS)
def test_bad_points_are_refused(scene: Path, fault: str) -> None:
    change, message = POINT_FAULTS[fault]
    path = scene / "sparse_points.ply"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DatasetError, match=message) as caught:
        load_dataset(scene)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"root_size": -1, "root_corner": [0, 0, 0]}, "key 'root_size': expected a positive number, found -1"),
        ({"root_size": "big", "root_corner": [0, 0, 0]}, "key 'root_size': expected a positive number"),
        ({"up": [0, 0]}, "key 'up': expected 3 finite numbers"),
        ({"up": [0, 0, 0]}, "key 'up': expected a direction"),
        ({"aabb": [[1, 1, 1], [0, 0, 0]]}, "key 'aabb': expected a box with a size, minimum first"),
        ({"aabb": "x"}, "key 'aabb': expected 2x3 finite numbers"),
    ],
)
def test_bad_scenes_are_refused(scene: Path, value: dict, message: str) -> None:
    write_json(scene / "scene.json", value)
    with pytest.raises(DatasetError, match=message):
        load_dataset(scene)


def test_a_point_cloud_checks_itself() -> None:
    with pytest.raises(ValueError, match=r"expected xyz \[n, 3\], rgb \[n, 3\], footprint \[n\], got"):
        PointCloud(np.zeros((2, 3)), np.zeros((3, 3), np.uint8), np.ones(2))
    with pytest.raises(ValueError, match="footprints finite and positive"):
        PointCloud(np.zeros((1, 3)), np.zeros((1, 3), np.uint8), np.zeros(1))


# --- the pyramid -----------------------------------------------------------------------------------------------------


def test_srgb_round_trip() -> None:
    encoded = np.arange(256) / 255
    assert (np.round(linear_to_srgb(srgb_to_linear(encoded)) * 255) == np.arange(256)).all()


def test_every_scale_is_the_mean_of_the_pixels_it_covers(scene: Path) -> None:
    data = load_dataset(scene)
    pyramid = ImagePyramid.load(data)
    assert (pyramid.n_images, pyramid.scales) == (3, (1, 2, 4, 8))
    for i, path in enumerate(data.images):
        full = read_image(path)
        pixels = np.asarray(Image.open(path)) / 255
        np.testing.assert_allclose(full[..., :3], srgb_to_linear(pixels[..., :3]) * pixels[..., 3:], atol=1e-6)
        for s, scale in enumerate(pyramid.scales):
            image = pyramid.image(s, i)
            height, width = full.shape[0] // scale, full.shape[1] // scale
            assert image.shape == (height, width, 4)
            for y, x in ((0, 0), (height - 1, width - 1)):
                block = full[y * scale : (y + 1) * scale, x * scale : (x + 1) * scale]
                np.testing.assert_allclose(image[y, x], block.mean(axis=(0, 1)), atol=1e-3)
        if full.shape == (16, 24, 4):  # divides by 8: the mean of the whole image is kept
            np.testing.assert_allclose(pyramid.image(3, i).mean((0, 1)), full.mean((0, 1)), atol=1e-3)


def test_a_scale_sees_what_the_full_image_sees(scene: Path) -> None:
    """A coarse pixel's ray is the full image's ray through the middle of the block; odd sizes shift nothing."""
    data = load_dataset(scene)
    pyramid = ImagePyramid.load(data)
    for i, camera in enumerate(data.cameras):
        for s, scale in enumerate(pyramid.scales):
            small = pyramid.cameras[s][i]
            x, y = np.array([0.5, small.width - 0.5]), np.array([0.5, small.height - 0.5])
            _, coarse, cones = small.pixel_rays(x, y)
            _, fine, fine_cones = camera.pixel_rays(x * scale, y * scale)
            np.testing.assert_allclose(coarse, fine, atol=1e-12)
            np.testing.assert_allclose(cones, fine_cones * scale, rtol=1e-12)


def test_rays_equal_the_cameras_own(scene: Path) -> None:
    data = load_dataset(scene)
    pyramid = ImagePyramid.load(data, scales=(1, 2))
    for s in range(2):
        for i, camera in enumerate(pyramid.cameras[s]):
            n = camera.width * camera.height
            pixel = torch.arange(n)
            rays_o, rays_d, cones, rgba = pyramid.rays_at(s, torch.full((n,), i), pixel)
            y, x = np.divmod(np.arange(n), camera.width)
            want_o, want_d, want_cones = camera.pixel_rays(x + 0.5, y + 0.5)
            np.testing.assert_allclose(rays_o, want_o, rtol=1e-6)
            np.testing.assert_allclose(rays_d, want_d, atol=1e-6)
            np.testing.assert_allclose(cones, want_cones, rtol=1e-5)
            np.testing.assert_array_equal(rgba, pyramid.image(s, i).reshape(-1, 4))
            assert {t.dtype for t in (rays_o, rays_d, cones, rgba)} == {torch.float32}


def test_random_rays_repeat_and_reach_everything(scene: Path) -> None:
    pyramid = ImagePyramid.load(load_dataset(scene))
    first = pyramid.draw_mixed(1000, torch.Generator().manual_seed(1))
    again = pyramid.draw_mixed(1000, torch.Generator().manual_seed(1))
    other = pyramid.draw_mixed(1000, torch.Generator().manual_seed(2))
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(again).values(), strict=True))
    assert not torch.equal(first.rays_d, other.rays_d)
    assert [tuple(t.shape) for t in vars(first).values()] == [(1000, 3), (1000, 3), (1000,), (1000, 4)] + [(1000,)] * 3
    np.testing.assert_allclose(first.rays_d.norm(dim=1), 1, atol=1e-6)
    # the coarsest scale of 24 x 16 has 6 pixels an image and 2 of the odd one: all of them turn up
    rays = pyramid.sample_rays(3, 500, torch.Generator().manual_seed(0))
    assert len(torch.unique((rays[1] * 1e4).round(), dim=0)) == 6 + 2 + 6
    assert len(torch.unique(pyramid.draw_mixed(500, fractions=(0, 0, 0, 1)).cones)) <= 14
    with pytest.raises(ValueError, match=r"expected 4 fractions of at least 0, got \[1.0\]"):
        pyramid.draw_mixed(10, fractions=(1,))


def test_downscale_and_colour_space(scene: Path) -> None:
    data = load_dataset(scene)
    plain, half = ImagePyramid.load(data), ImagePyramid.load(data, scales=(1, 2), downscale=2)
    np.testing.assert_allclose(half.image(0, 1), plain.image(1, 1), atol=1e-3)
    assert half.cameras[0][1].fx == plain.cameras[1][1].fx
    kept = ImagePyramid.load(data, scales=(1,), color_space="srgb")
    pixels = np.asarray(Image.open(data.images[0])) / 255
    np.testing.assert_allclose(kept.image(0, 0)[..., :3], pixels[..., :3] * pixels[..., 3:], atol=1e-3)
    assert kept.nbytes == sum(w * h for w, h in SIZES) * 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": (1, 3, 4)}, "each a multiple of the one before"),
        ({"scales": ()}, "expected scales of at least 1"),
        ({"downscale": 0}, "downscale at least 1"),
        ({"color_space": "rgb"}, "expected color_space 'linear' or 'srgb', found 'rgb'"),
        ({"downscale": 4}, r"view_0.png: expected at least 32 pixels on each side .* found 24x16"),
    ],
)
def test_pyramids_that_make_no_sense(scene: Path, arguments: dict, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        ImagePyramid.load(load_dataset(scene), **arguments)
