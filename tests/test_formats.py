"""Every format's reader against poses and intrinsics that were computed by hand, and where scenes are put."""

from __future__ import annotations

import json
from pathlib import Path

import format_scenes as make
import numpy as np
import pytest

from infnerf.data.dataset import Dataset, DatasetError, load_dataset
from infnerf.data.footprints import seen_footprint
from infnerf.data.transform import look_at_box, look_at_point, up_of
from infnerf.models.camera import Camera, look_at
from infnerf.models.similarity import inverse, move_points

#: A camera at (0, -4, 1) that looks along +y, image up along +z: OpenGL's and OpenCV's columns, by hand.
BY_HAND_GL = [[1, 0, 0, 0], [0, 0, -1, -4], [0, 1, 0, 1], [0, 0, 0, 1]]
BY_HAND = np.array([[1, 0, 0, 0], [0, 0, 1, -4], [0, -1, 0, 1], [0, 0, 0, 1]], np.float64)


def assert_captured(data: Dataset, expected: list[np.ndarray]) -> None:
    """The cameras, taken back to the capture's coordinates, are where they were."""
    assert len(data) == len(expected)
    for i, pose in enumerate(expected):
        np.testing.assert_allclose(data.capture_camera(i).c2w, pose, atol=1e-9)


def intrinsics(camera: Camera) -> tuple[float, ...]:
    return camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height


# --- readers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", make.WRITERS)
def test_every_format_has_the_same_capture(name: str, tmp_path: Path) -> None:
    """All of them hold the same ring of cameras; a reader that errs in an axis or a sign puts them elsewhere."""
    data = load_dataset(make.WRITERS[name](tmp_path), "all")
    expected = {"infnerf": 6, "nerfstudio": 3, "blender": 9, "multicam": 12, "llff": 9, "colmap": 3}[name]
    assert len(data) == len(data.masks) == len(data.weights) == expected
    if name == "colmap":  # sorted by name, of which the two subfolders come first
        assert data.names == ["cam 0/ü_0.png", "cam 0/ü_2.png", "cam 1/ü_1.png"]
        ring = [make.poses(3)[i] for i in (0, 2, 1)]
    elif name == "multicam":
        ring = [pose for pose in make.poses(2) for _ in range(2)] * 3
    else:
        n = 9 if name == "llff" else 3
        ring = make.poses(n) * (expected // n)
    assert_captured(data, ring)
    for camera in data.cameras:  # the ring's middle is straight ahead of each
        at = np.linalg.inv(camera.c2w) @ data.transform @ [*make.TARGET, 1]
        np.testing.assert_allclose(at[:2], 0, atol=1e-9)
        assert at[2] == pytest.approx(np.hypot(4, 1.5))
    corner = np.array(data.scene["root_corner"])
    middle = move_points(data.transform, make.TARGET[None])[0]
    assert (corner < middle).all()
    assert (corner + data.scene["root_size"] > middle).all()


def test_opengl_axes_by_hand(tmp_path: Path) -> None:
    root = make.nerfstudio(tmp_path, 1)
    make.edit_json(root / "transforms.json", lambda m: m["frames"][0].update(transform_matrix=BY_HAND_GL))
    data = load_dataset(root, "all")
    np.testing.assert_allclose(data.capture_camera(0).c2w, BY_HAND, atol=1e-12)


def test_nerfstudio_lenses_per_file_and_per_frame(tmp_path: Path) -> None:
    root = make.nerfstudio(tmp_path, k1=0.1, k2=-0.02, p1=0.001, p2=0.002)
    make.edit_json(root / "transforms.json", lambda m: m["frames"][1].update(fl_x=30.0, cy=4.0, k3=0.3))
    cameras = load_dataset(root).cameras
    assert intrinsics(cameras[0]) == (20, 21, 8.5, 5.5, 16, 12)
    assert (cameras[0].lens, cameras[0].distortion) == ("perspective", (0.1, -0.02, 0.001, 0.002))
    assert intrinsics(cameras[1]) == (30, 21, 8.5, 4.0, 16, 12)
    assert cameras[1].distortion == (0.1, -0.02, 0.001, 0.002, 0.3)
    make.edit_json(root / "transforms.json", lambda m: m.update(camera_model="OPENCV_FISHEYE", k3=0.003, k4=0.004))
    camera = load_dataset(root).cameras[0]
    assert (camera.lens, camera.distortion) == ("fisheye", (0.1, -0.02, 0.003, 0.004))


def test_nerfstudio_applied_transform_leads_back_to_the_capture(tmp_path: Path) -> None:
    """nerfstudio swaps COLMAP's axes and notes how: x, y, z became x, z, -y."""
    root = make.nerfstudio(tmp_path, applied_transform=[[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]])
    data = load_dataset(root)
    swap = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    assert_captured(data, [inverse(swap) @ pose for pose in make.poses(3)])
    points = data.capture_points()
    assert points is not None
    np.testing.assert_allclose(points.xyz, make.points() @ swap[:3, :3], atol=1e-9)


def test_nerfstudio_file_lists_and_masks(tmp_path: Path) -> None:
    names = [f"images/frame_{i:03}.png" for i in range(4)]
    root = make.nerfstudio(tmp_path, 4, train_filenames=names[:2], val_filenames=names[2:])
    make.save_image(root / "masks" / "m.png", mode="L")
    make.edit_json(root / "transforms.json", lambda m: m["frames"][1].update(mask_path="masks/m.png"))
    make.edit_json(root / "transforms.json", lambda m: m["frames"][0].update(mask_path="masks/gone.png"))
    train = load_dataset(root)
    assert (train.names, train.masks) == (names[:2], [None, root / "masks" / "m.png"])
    assert any("1 masks are missing" in line and "masks/gone.png" in line for line in train.warnings)
    assert load_dataset(root, "val").names == names[2:]
    test = load_dataset(root, "test")
    assert (test.names, test.warnings[0]) == (names[2:], f"{root}: there is no test split, val is used")


def test_instant_ngp_without_endings_sizes_or_points(tmp_path: Path) -> None:
    root = make.nerfstudio(tmp_path)

    def as_ngp(meta: dict) -> None:
        for key in ("camera_model", "fl_x", "fl_y", "cx", "cy", "w", "h", "ply_file_path"):
            del meta[key]
        meta.update(camera_angle_x=2 * np.arctan(0.4), aabb_scale=2)
        for frame in meta["frames"]:
            frame["file_path"] = "./" + frame["file_path"].removesuffix(".png")

    make.edit_json(root / "transforms.json", as_ngp)
    data = load_dataset(root)
    assert intrinsics(data.cameras[0]) == pytest.approx((20, 20, 8, 6, 16, 12))
    assert data.points is None
    assert any("no sparse points" in line for line in data.warnings)
    edge = 2 / 0.33  # a cube about the file's origin, which is where ours then is too
    np.testing.assert_allclose(data.scene["aabb"], [[-edge / 2] * 3, [edge / 2] * 3])
    np.testing.assert_allclose(data.transform[:3, 3], 0, atol=1e-12)


def test_blender_keeps_its_world_its_alpha_and_its_splits(tmp_path: Path) -> None:
    root = make.blender(tmp_path)
    data = load_dataset(root, "val")
    assert data.names == ["val/r_0.png", "val/r_1.png", "val/r_2.png"]
    np.testing.assert_array_equal(data.transform, np.eye(4))
    assert intrinsics(data.cameras[0]) == pytest.approx((20, 20, 8, 6, 16, 12))
    middle = np.mean(data.scene["aabb"], axis=0)
    np.testing.assert_allclose(middle, make.TARGET, atol=1e-9)
    half = 0.4 * np.hypot(4, 1.5)  # as far as the images reach at the middle
    assert data.scene["root_size"] == pytest.approx(2 * half * 1.1)


def test_multicam_scales_and_weights(tmp_path: Path) -> None:
    data = load_dataset(make.multicam(tmp_path))
    assert data.weights == [1, 4, 1, 4]
    assert intrinsics(data.cameras[0]) == pytest.approx((20, 20, 8, 6, 16, 12))
    assert intrinsics(data.cameras[1]) == pytest.approx((10, 10, 4, 3, 8, 6))
    root = tmp_path / "metadata.json"
    make.edit_json(root, lambda m: [m[s].pop("pix2cam") for s in m])
    assert intrinsics(load_dataset(tmp_path).cameras[1]) == pytest.approx((10, 10, 4, 3, 8, 6))


def test_llff_holds_out_every_eighth_and_reads_smaller_images(tmp_path: Path) -> None:
    root = make.llff(tmp_path, 9, "images_2", 2)
    assert load_dataset(root, "test").names == ["images_2/IMG_0000.png", "images_2/IMG_0008.png"]
    train = load_dataset(root)
    assert [name[-8:-4] for name in train.names] == [f"000{i}" for i in range(1, 8)]
    assert intrinsics(train.cameras[0]) == (10, 10, 4, 3, 8, 6)
    make.llff(root, 9)  # full images beside: the smaller ones still count, and it is said
    both = load_dataset(root)
    assert (both.cameras[0].width, "reads images_2/" in " ".join(both.warnings)) == (8, True)
    assert load_dataset(root / "images").cameras[0].width == 16


def test_llff_by_hand(tmp_path: Path) -> None:
    """[-u, r, -t]: LLFF's columns are camera y (down), x (right), and z backwards."""
    root = make.llff(tmp_path, 1)
    matrix = [[0, 1, 0, 0, 12], [0, 0, -1, -4, 16], [-1, 0, 0, 1, 20]]
    np.save(root / "poses_bounds.npy", [[*np.ravel(matrix), 1.0, 9.0]])
    data = load_dataset(root)
    np.testing.assert_allclose(data.capture_camera(0).c2w, BY_HAND, atol=1e-12)
    lo, hi = np.array(data.scene["aabb"])
    assert (hi - lo).max() == pytest.approx(8, rel=0.02)  # from 1 to 9 along the axis


# --- splits ----------------------------------------------------------------------------------------------------------


def test_every_eighth_image_is_held_out_where_there_is_no_split(tmp_path: Path) -> None:
    root = make.nerfstudio(tmp_path, 17)
    make.edit_json(root / "transforms.json", lambda m: m["frames"].reverse())
    train, test = load_dataset(root), load_dataset(root, "test")
    assert sorted(test.names) == [f"images/frame_{i:03}.png" for i in (0, 8, 16)]
    assert set(train.names) | set(test.names) == set(load_dataset(root, "all").names)
    assert len(train) == 14
    assert f"{root}: no test split: every eighth of 17 images by name is held out for it" in train.warnings
    np.testing.assert_array_equal(train.transform, test.transform)


def test_few_images_all_train(tmp_path: Path) -> None:
    root = make.nerfstudio(tmp_path, 7)
    assert len(load_dataset(root)) == 7
    with pytest.raises(DatasetError, match="expected a 'test' split, found none, and 7 images are too few to hold"):
        load_dataset(root, "test")


def test_images_in_no_list_are_the_missing_split(tmp_path: Path) -> None:
    names = [f"images/frame_{i:03}.png" for i in range(4)]
    root = make.nerfstudio(tmp_path, 4, train_filenames=names[:3])
    assert load_dataset(root, "test").names == names[3:]
    assert load_dataset(root, "train").names == names[:3]
    make.edit_json(root / "transforms.json", lambda m: m.update(test_filenames=m.pop("train_filenames")))
    train = load_dataset(root)
    assert (train.names, train.warnings[0].endswith("1 images are in no list, they count as train")) == (
        names[3:],
        True,
    )


# --- where scenes are put --------------------------------------------------------------------------------------------


def test_a_scene_is_turned_upright_and_centred_but_not_scaled(tmp_path: Path) -> None:
    root = make.nerfstudio(tmp_path, 8)
    turn = look_at(np.zeros(3), np.array([1.0, 2.0, 0.5]), np.array([0.3, 0.1, 1.0]))  # any rotation

    def turned(meta: dict) -> None:
        for frame in meta["frames"]:
            frame["transform_matrix"] = (turn @ frame["transform_matrix"]).tolist()

    make.edit_json(root / "transforms.json", turned)
    make.save_ply(root / "sparse_pc.ply", np.concatenate([make.points() @ turn[:3, :3].T, [[1e5, 0, 0]]]))
    data = load_dataset(root, "all")
    up = data.transform[:3, :3] @ turn[:3, :3] @ [0, 0, 1]  # the capture's z was up
    np.testing.assert_allclose(up, [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(np.mean(data.scene["aabb"], axis=0), 0, atol=1e-9)
    assert 1 < data.scene["root_size"] < 1e5
    assert np.linalg.det(data.transform[:3, :3]) == pytest.approx(1)
    assert_captured(data, [turn @ pose for pose in make.poses(8)])


def test_another_data_set_can_be_read_into_the_same_place(tmp_path: Path) -> None:
    """Two captures of one world: the second is put where the first one lies, whatever its own points say."""
    first, second = load_dataset(make.nerfstudio(tmp_path / "a")), make.nerfstudio(tmp_path / "b")
    make.save_ply(second / "sparse_pc.ply", make.points() + [3, 0, 0])
    moved = load_dataset(second, transform=first.transform)
    np.testing.assert_allclose([c.c2w for c in moved.cameras], [c.c2w for c in first.cameras], atol=1e-12)
    assert not np.allclose(load_dataset(second).transform, first.transform)
    stored = load_dataset(make.infnerf(tmp_path / "c"), transform=first.transform)
    np.testing.assert_allclose(stored.cameras[0].c2w, first.cameras[0].c2w, atol=1e-12)
    double = load_dataset(second, transform=np.diag([2.0, 2.0, 2.0, 1.0]))
    np.testing.assert_allclose(double.cameras[0].position, 2 * make.poses(3)[0][:3, 3])
    assert_captured(double, make.poses(3))


def test_up_of_level_cameras_of_one_view_and_of_straight_down() -> None:
    ring = np.stack(make.poses(6))
    np.testing.assert_allclose(up_of(ring), [0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(up_of(ring[:1]), -ring[0, :3, 1], atol=1e-12)
    down = [look_at(np.array([x, 0, 9.0]), np.array([x, 0, 0.0]), u) for x, u in enumerate(np.eye(3)[[0, 1, 0, 1]])]
    np.testing.assert_allclose(abs(up_of(np.stack(down))), [0, 0, 1], atol=1e-6)
    assert up_of(np.stack(down))[2] > 0


def test_where_cameras_look() -> None:
    ring = np.stack(make.poses(5))
    np.testing.assert_allclose(look_at_point(ring), make.TARGET, atol=1e-9)
    outwards = ring.copy()
    outwards[:, :3, :3] = ring[:, :3, :3] @ np.diag([-1.0, 1.0, -1.0])
    around = look_at_box([Camera(c2w, 20, 20, 8, 6, 16, 12) for c2w in outwards])
    assert (around[0] < ring[:, :3, 3].min(0)).all()
    assert (around[1] > ring[:, :3, 3].max(0)).all()
    row = np.stack([np.eye(4)] * 3)
    row[:, 0, 3] = 0, 1, 2
    assert look_at_point(row)[2] > 0  # parallel axes never meet: somewhere ahead


def test_only_cameras_that_see_a_point_give_its_footprint() -> None:
    """A camera with its back to a point, however near, says nothing about it; nor one whose image it misses."""
    behind = Camera(np.eye(4), 20, 20, 8, 6, 16, 12)
    far = Camera(look_at(np.array([0, 0, -9.0]), np.array([0, 0, -1.0]), np.array([0, 1.0, 0])), 20, 20, 8, 6, 16, 12)
    xyz = np.array([[0, 0, -1.0], [100.0, 0, 1.0]])
    footprint, unseen = seen_footprint(xyz, [behind, far])
    assert footprint[0] == pytest.approx(8 / np.sqrt(np.pi * 400))
    assert (unseen, footprint[1]) == (1, footprint[0])


def test_files_and_unknown_folders(tmp_path: Path) -> None:
    root = make.nerfstudio(tmp_path / "a")
    (root / "transforms.json").rename(root / "mine.json")
    assert len(load_dataset(root / "mine.json")) == 3
    assert len(load_dataset(make.blender(tmp_path / "b") / "transforms_train.json", "test")) == 3
    (tmp_path / "c").mkdir()
    with pytest.raises(DatasetError, match=r"c: expected a scene: cameras.json \(InfNeRF\), .* found none of them"):
        load_dataset(tmp_path / "c")
    for name in ("metadata", "transforms"):
        (tmp_path / "c" / f"{name}.json").write_text(json.dumps({}))
    with pytest.raises(DatasetError, match="key 'frames': expected a list of at least one frame, found none"):
        load_dataset(tmp_path / "c")
