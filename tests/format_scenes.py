"""Tiny scenes in every format that is read, written by the numbers of each format's own documentation.

All hold the same capture: cameras on a ring that look at (1, 2, 0.5), 16x12 images, and points about there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from infnerf.models.camera import look_at

WIDTH, HEIGHT, FOCAL = 16, 12, 20.0
TARGET = np.array([1.0, 2.0, 0.5])
GL = np.diag([1.0, -1.0, -1.0, 1.0])


def poses(n: int) -> list[np.ndarray]:
    """OpenCV poses around the target, 4 away and 1.5 above it."""
    angles = 2 * np.pi * np.arange(n) / n + 0.1
    eyes = TARGET + np.stack([4 * np.cos(angles), 4 * np.sin(angles), np.full(n, 1.5)], axis=-1)
    return [look_at(eye, TARGET, np.array([0.0, 0.0, 1.0])) for eye in eyes]


def points(n: int = 60) -> np.ndarray:
    return TARGET + np.random.default_rng(3).uniform(-1, 1, (n, 3))


def save_image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), mode: str = "RGB", seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], len(mode))).astype(np.uint8)
    Image.fromarray(pixels.squeeze()).save(path)


def save_ply(path: Path, xyz: np.ndarray) -> None:
    """As Open3D writes it: doubles, colours, no footprint."""
    record = np.zeros(len(xyz), [*((axis, "<f8") for axis in "xyz"), *((c, "u1") for c in ("red", "green", "blue"))])
    for i, axis in enumerate("xyz"):
        record[axis] = xyz[:, i]
    properties = "".join(f"property double {axis}\n" for axis in "xyz")
    properties += "".join(f"property uchar {c}\n" for c in ("red", "green", "blue"))
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(xyz)}\n{properties}end_header\n"
    path.write_bytes(header.encode() + record.tobytes())


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def nerfstudio(root: Path, n: int = 3, **meta: object) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    frames = []
    for i, pose in enumerate(poses(n)):
        save_image(root / "images" / f"frame_{i:03}.png", seed=i)
        frames.append({"file_path": f"images/frame_{i:03}.png", "transform_matrix": (pose @ GL).tolist()})
    save_ply(root / "sparse_pc.ply", points())
    lens = {"fl_x": FOCAL, "fl_y": 21.0, "cx": 8.5, "cy": 5.5, "w": WIDTH, "h": HEIGHT}
    value = {"camera_model": "OPENCV", **lens, "ply_file_path": "sparse_pc.ply", **meta, "frames": frames}
    (root / "transforms.json").write_text(json.dumps(value))
    return root


def blender(root: Path, n: int = 3) -> Path:
    for split in ("train", "val", "test"):
        frames = []
        for i, pose in enumerate(poses(n)):
            save_image(root / split / f"r_{i}.png", mode="RGBA", seed=i)
            frames.append({"file_path": f"./{split}/r_{i}", "rotation": 0.1, "transform_matrix": (pose @ GL).tolist()})
        angle = 2 * np.arctan(0.5 * WIDTH / FOCAL)
        (root / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    return root


def multicam(root: Path, n: int = 2) -> Path:
    """Each view at two scales, as mip-NeRF's convert_blender_data.py writes them."""
    meta: dict = {}
    for split in ("train", "val", "test"):
        keys = ("file_path", "cam2world", "width", "height", "focal", "label", "near", "far", "lossmult", "pix2cam")
        columns: dict[str, list] = {key: [] for key in keys}
        for i, pose in enumerate(poses(n)):
            for j in range(2):
                w, h, f = WIDTH // 2**j, HEIGHT // 2**j, FOCAL / 2**j
                name = f"{split}/r_{i}_d{j}.png"
                save_image(root / name, (w, h), "RGBA", i)
                pix2cam = [[1 / f, 0, -0.5 * w / f], [0, -1 / f, 0.5 * h / f], [0, 0, -1]]
                row = (name, (pose @ GL).tolist(), w, h, f, j, 2.0, 6.0, 4.0**j, pix2cam)
                for key, value in zip(keys, row, strict=True):
                    columns[key].append(value)
        meta[split] = columns
    (root / "metadata.json").write_text(json.dumps(meta))
    return root


def llff(root: Path, n: int = 9, folder: str = "images", factor: int = 1) -> Path:
    """Rows [down, right, back, position, (h, w, f)] and depths; images in `folder`, `factor` times smaller."""
    rows = []
    for i, pose in enumerate(poses(n)):
        save_image(root / folder / f"IMG_{i:04}.png", (WIDTH // factor, HEIGHT // factor), seed=i)
        right, down, forward, position = pose[:3].T
        matrix = np.stack([down, right, -forward, position, [HEIGHT, WIDTH, FOCAL]], axis=1)
        rows.append(np.concatenate([matrix.ravel(), [2.0, 8.0]]))
    np.save(root / "poses_bounds.npy", np.stack(rows))
    return root


def colmap(root: Path, n: int = 3, model: str = "OPENCV", params: tuple = (), text: bool = False) -> Path:
    """sparse/0/, images in two subfolders; each point is matched in the first two images."""
    import pycolmap

    reconstruction = pycolmap.Reconstruction()
    params = params or (FOCAL, 21.0, 8.5, 5.5, 0.01, -0.002, 0.0003, 0.0004)
    camera = pycolmap.Camera(model=model, width=WIDTH, height=HEIGHT, params=list(params), camera_id=1)
    reconstruction.add_camera_with_trivial_rig(camera)
    xyz = points()
    for i, pose in enumerate(poses(n)):
        name = f"cam {i % 2}/ü_{i}.png"
        save_image(root / "images" / name, seed=i)
        marks = pycolmap.Point2DList([pycolmap.Point2D(np.array([8.0, 6.0])) for _ in xyz])
        w2c = np.linalg.inv(pose)
        where = pycolmap.Rigid3d(pycolmap.Rotation3d(w2c[:3, :3]), w2c[:3, 3])
        image = pycolmap.Image(name=name, camera_id=1, image_id=i + 1, points2D=marks)
        reconstruction.add_image_with_trivial_frame(image, where)
    for j, point in enumerate(xyz):
        track = pycolmap.Track()
        for i in range(min(n, 2)):
            track.add_element(i + 1, j)
        reconstruction.add_point3D(point, track, np.array([10, 20, 30], np.uint8))
    folder = root / "sparse" / "0"
    folder.mkdir(parents=True)
    (reconstruction.write_text if text else reconstruction.write_binary)(str(folder))
    return root


def infnerf(root: Path, n: int = 3) -> Path:
    """By hand, and not by our own writer: the reader is what is tested."""
    for split, folder in (("train", root), ("test", root / "test")):
        cameras = {}
        for i, pose in enumerate(poses(n)):
            save_image(folder / "images" / f"{split}_{i}.png", seed=i)
            k = [[FOCAL, 0, 8.5], [0, 21.0, 5.5], [0, 0, 1]]
            cameras[f"{split}_{i}.png"] = {"intrinsic": k, "extrinsic": np.linalg.inv(pose).tolist()}
        (folder / "cameras.json").write_text(json.dumps(cameras))
    save_ply(root / "sparse_points.ply", points())
    return root


WRITERS: dict[str, Callable[[Path], Path]] = {
    "infnerf": infnerf,
    "nerfstudio": nerfstudio,
    "blender": blender,
    "multicam": multicam,
    "llff": llff,
    "colmap": colmap,
}
