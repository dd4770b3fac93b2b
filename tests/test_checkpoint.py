"""The checkpoint: what is written comes back, and whatever else a file may hold is refused in one sentence."""

from __future__ import annotations

import copy
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infnerf.models.camera import Camera, look_at
from infnerf.models.checkpoint import Checkpoint, CheckpointError, camera_to_entry, load_checkpoint, save_checkpoint
from infnerf.models.config import InfNeRFConfig
from infnerf.models.octree import build_octree

CONFIG = InfNeRFConfig(
    n_grid_levels=2, table_size=64, base_resolution=2, resolution=8, hidden_dim=16, sh_degree=1, occupancy_resolution=8
)


def small_checkpoint() -> Checkpoint:
    """Nine nodes of random weights."""
    rng = np.random.default_rng(0)
    tree = build_octree(rng.random((200, 3)) * 8, np.full(200, 0.5), np.zeros(3), 8.0, CONFIG.resolution)
    n = tree.n_nodes
    assert n == 9
    torch.manual_seed(0)
    tensors = {
        "tables": torch.randn(n, 2, 64, 2).half(),
        "mlp": torch.randn(n, CONFIG.mlp_size).half(),
        "occupancy": torch.randint(-(2**31), 2**31 - 1, (n, CONFIG.occupancy_words), dtype=torch.int32),
    }
    camera = Camera.from_fov(look_at(np.array([9, 9, 9]), np.zeros(3), np.array([0, 0, 1])), 50, 40, 30)
    scene = {
        "up": [0, 0, 1],
        "unit": "m",
        "aabb": [[0, 0, 0], [8, 8, 8]],
        "cameras": [camera_to_entry("first", camera), camera_to_entry("second", camera.resized(20, 15))],
        "color_space": "linear",
        "background": [0.0, 0.5, 1.0],
    }
    training = {"step": 7, "optimizer": {"state": {0: {"m": torch.ones(3)}}, "lr": 1e-2}}
    return Checkpoint("infnerf", CONFIG, tree, tensors, scene, {"camera": camera_to_entry("home", camera)}, training)


def stored(checkpoint: Checkpoint) -> dict[str, Any]:
    """The values as they lie in the file, free to be spoiled."""
    return {
        "format": "infnerf",
        "version": 1,
        "backend": "infnerf",
        "config": checkpoint.config.to_dict(),
        "octree": {key: copy.deepcopy(value) for key, value in vars(checkpoint.octree).items()},
        "field": {key: value.clone() for key, value in checkpoint.field.items()},
        "scene": copy.deepcopy(checkpoint.scene),
        "view": {},
    }


@pytest.fixture(scope="module")
def good_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "good.pth"
    save_checkpoint(small_checkpoint(), path)
    return path.read_bytes()


def refusal(path: Path) -> str:
    """The sentence that a file is refused with: one line that begins with the file's name."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 400
    return message.removeprefix(f"{path}: ")


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    saved, path = small_checkpoint(), tmp_path / "model.pth"
    save_checkpoint(saved, path)
    loaded = load_checkpoint(path)
    assert loaded.config == saved.config
    assert loaded.scene == saved.scene
    assert loaded.view == saved.view
    assert loaded.path == path
    assert loaded.octree.root_size == saved.octree.root_size
    for name in ("children", "parent", "level", "corner"):
        assert torch.equal(getattr(loaded.octree, name), getattr(saved.octree, name))
    for name, tensor in saved.field.items():
        assert torch.equal(loaded.field[name], tensor)
        assert loaded.field[name].dtype == tensor.dtype
        assert loaded.field[name].data_ptr() % 64 == 0
    assert loaded.training is not None
    assert torch.equal(loaded.training["optimizer"]["state"][0]["m"], torch.ones(3))
    assert [camera.width for camera in loaded.cameras.values()] == [40, 20]
    save_checkpoint(loaded, path)  # over the very file it is mapped from
    assert torch.equal(loaded.field["tables"], load_checkpoint(path).field["tables"])


def spoil(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Puts a value at a path of keys such as "octree.level"."""

    def change(values: dict[str, Any]) -> None:
        *outer, last = key.split(".")
        for name in outer:
            values = values[name]
        values[last] = value(values[last]) if callable(value) else value

    return change


def at(index: Any, value: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """A copy of a tensor with one element changed."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor[index] = value
        return tensor

    return change


def without(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda values: {name: value for name, value in values.items() if name != key}


def test_a_camera_keeps_its_lens(tmp_path: Path) -> None:
    checkpoint = small_checkpoint()
    pose = look_at(np.array([9, 9, 9]), np.zeros(3), np.array([0, 0, 1]))
    lenses = [
        Camera(pose, 50, 51, 20, 15, 40, 30, (0.1, -0.02, 1e-3, 0), "perspective"),
        Camera(pose, 50, 51, 20, 15, 40, 30, (0.1, 0, 0, 0), "fisheye"),
        Camera(pose, 50, 51, 20, 15, 40, 30),
    ]
    checkpoint.scene["cameras"] = [camera_to_entry(str(i), camera) for i, camera in enumerate(lenses)]
    save_checkpoint(checkpoint, tmp_path / "lens.pth")
    for camera, saved in zip(lenses, load_checkpoint(tmp_path / "lens.pth").cameras.values(), strict=True):
        assert (saved.lens, saved.distortion, saved.fx, saved.fy) == (camera.lens, camera.distortion, 50, 51)
    assert set(checkpoint.scene["cameras"][2]) == {"name", "c2w", "fx", "fy", "cx", "cy", "width", "height"}


def camera_with(**changes: Any) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda cameras: [cameras[0] | changes, cameras[1]]


NAN = float("nan")
SPOILED = {
    "format": (spoil("format", "other"), "format must be 'infnerf', got 'other'"),
    "version 2": (spoil("version", 2), "version must be 1, got 2"),
    "version true": (spoil("version", True), "version must be 1, got True"),
    "version is a tensor": (spoil("version", torch.ones(2)), "version must be 1, got a tensor float32"),
    "backend": (spoil("backend", "gaussians"), "backend must be one of infnerf, pynerf, mipnerf, got 'gaussians'"),
    "pynerf": (spoil("backend", "pynerf"), "config lacks background, density_hidden_dim, density_layers"),
    "mipnerf": (spoil("backend", "mipnerf"), "config lacks density_bias, disparity, far"),
    "config type": (spoil("config", [1]), "config must be a dict"),
    "config value": (spoil("config.table_size", "many"), "config.table_size must be a whole number from 64"),
    "config range": (spoil("config.table_size", 100000), "config.table_size must be a power of two, got 100000"),
    "config size 0": (spoil("config.resolution", 0), "config.resolution must be a whole number from 2"),
    "config missing": (spoil("config", without("hidden_dim")), "config lacks hidden_dim"),
    "octree missing": (spoil("octree", without("level")), "octree lacks level"),
    "children type": (spoil("octree.children", [[-1] * 8]), "octree.children must be a contiguous tensor, got a list"),
    "children dtype": (spoil("octree.children", lambda c: c.long()), "octree.children must be int32"),
    "children range": (spoil("octree.children", at((0, 0), 77)), "must be -1 or a node from 1 to 8, got 77"),
    "loop": (spoil("octree.children", at((1, 0), 1)), "loops or orphans"),
    "loop to the root": (spoil("octree.children", at((1, 0), 0)), "octree.children must be -1 or a node"),
    "orphan": (spoil("octree.children", at((0, 3), -1)), "loops or orphans"),
    "parent": (spoil("octree.parent", at(3, 2)), "children and parent do not agree"),
    "level": (spoil("octree.level", at(slice(1, None), 2)), "a child's level must be its parent's plus one"),
    "corner": (spoil("octree.corner", at((0, 0), NAN)), "octree.corner must be finite"),
    "root size": (spoil("octree.root_size", float("inf")), "octree.root_size must be a finite number, got inf"),
    "root size 0": (spoil("octree.root_size", 0), "octree.root_size must be between"),
    "expanded": (
        spoil("octree.children", torch.full((1, 1), -1, dtype=torch.int32).expand(10**9, 8)),
        "octree.children must be a contiguous tensor, got a tensor int32 [1000000000, 8]",
    ),
    "field missing": (spoil("field", without("mlp")), "field lacks mlp"),
    "tables shape": (spoil("field.tables", lambda t: t[:5].clone()), "must be a tensor float16 [9, 2, 64, 2], got"),
    "tables dtype": (spoil("field.tables", lambda t: t.float()), "got a tensor float32 [9, 2, 64, 2]"),
    "tables size 0": (spoil("field.tables", lambda t: t[:, :, :0].clone()), "got a tensor float16 [9, 2, 0, 2]"),
    "tables huge": (
        spoil("field.tables", torch.zeros(1, 1, 1, 1).half().expand(100000, 100000, 64, 2)),
        "got a tensor float16 [100000, 100000, 64, 2]",
    ),
    "tables expanded": (
        spoil("field.tables", torch.zeros(1, 1, 1, 1).half().expand(9, 2, 64, 2)),
        "field.tables must be a contiguous tensor",
    ),
    "tables nan": (spoil("field.tables", at((4, 1, 5, 0), NAN)), "must be finite, got NaN or infinity in node 4"),
    "mlp infinite": (spoil("field.mlp", at((8, 0), -np.inf)), "mlp must be finite, got NaN or infinity in node 8"),
    "occupancy": (spoil("field.occupancy", lambda o: o.float()), "field.occupancy must be a tensor int32"),
    "scene missing": (spoil("scene", without("aabb")), "scene lacks aabb"),
    "up": (spoil("scene.up", [0, 0, 0]), "scene.up must be a direction"),
    "up shape": (spoil("scene.up", [0, 1]), "scene.up must be a list of 3 finite numbers, got a list of 2"),
    "unit": (spoil("scene.unit", 1), "scene.unit must be a short string"),
    "aabb": (spoil("scene.aabb", [[0, 0, 0], [1, -1, 1]]), "minimum below maximum"),
    "colour space": (spoil("scene.color_space", "cmyk"), "color_space must be one of linear, srgb, got 'cmyk'"),
    "background": (spoil("scene.background", [0, 0, -1]), "scene.background must be three numbers of at least 0"),
    "background nan": (spoil("scene.background", [0, 0, NAN]), "scene.background must be a list of 3 finite"),
    "cameras": (spoil("scene.cameras", {}), "scene.cameras must be a list"),
    "camera pose": (spoil("scene.cameras", camera_with(c2w=[[1, 0], [0, 1]])), "c2w must be a list of 4 x 4"),
    "camera scaled": (
        spoil("scene.cameras", camera_with(c2w=np.diag([2.0, 2, 2, 1]).tolist())),
        "scene.cameras[0]: Camera: c2w must be a rotation and a translation",
    ),
    "camera size": (spoil("scene.cameras", camera_with(width=100000)), "width must be a whole number from 1 to 16384"),
    "camera size 0": (spoil("scene.cameras", camera_with(height=0)), "height must be a whole number from 1 to 16384"),
    "camera name": (spoil("scene.cameras", camera_with(name="second")), "cameras[1].name must be a string of its own"),
    "camera lens": (spoil("scene.cameras", camera_with(lens="anamorphic")), "scene.cameras[0]: Camera: lens must be"),
    "camera lens type": (spoil("scene.cameras", camera_with(lens=3)), "scene.cameras[0].lens must be a word, got 3"),
    "camera distortion": (
        spoil("scene.cameras", camera_with(lens="perspective", distortion=[0.1, "x", 0, 0])),
        "scene.cameras[0].distortion must be a list of 4 finite numbers",
    ),
    "camera distortion type": (
        spoil("scene.cameras", camera_with(distortion=0.1)),
        "scene.cameras[0].distortion must be a list of numbers",
    ),
    "view": (spoil("view", {"camera": {"fx": 1}}), "view.camera lacks c2w"),
    "view code": (spoil("view", {1.5: 0}), "view must have strings"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_wrong_values_are_refused_by_name(tmp_path: Path, name: str) -> None:
    change, message = SPOILED[name]
    values = stored(small_checkpoint())
    change(values)
    torch.save(values, tmp_path / "bad.pth")
    assert message in refusal(tmp_path / "bad.pth")


def test_unknown_and_missing_keys_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    for change, message in (
        (lambda v: v | {"extra": 1}, "the file has unknown keys: extra"),
        (lambda v: {k: x for k, x in v.items() if k != "octree"}, "the file lacks octree"),
        (lambda v: v | {"config": v["config"] | {"more": 1}}, "config has unknown keys: more"),
        (lambda v: list(v), "the file must be a dict"),
    ):
        torch.save(change(stored(small_checkpoint())), path)
        assert message in refusal(path)


def test_a_tree_of_depth_60_is_refused(tmp_path: Path) -> None:
    values, n = stored(small_checkpoint()), 61
    children = torch.full((n, 8), -1, dtype=torch.int32)
    children[: n - 1, 0] = torch.arange(1, n)
    order = torch.arange(n, dtype=torch.int32)
    values["octree"] |= {"children": children, "parent": order - 1, "level": order, "corner": torch.zeros(n, 3)}
    torch.save(values, tmp_path / "deep.pth")
    assert "octree.level must be at most 31, got 60" in refusal(tmp_path / "deep.pth")


class _Bomb:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_wants_code_is_refused_and_never_run(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    values = stored(small_checkpoint()) | {"training": {"state": _Bomb(trap)}}
    torch.save(values, tmp_path / "bad.pth")
    assert "got a pickle that wants code (posix.mkdir); nothing of it was run" in refusal(tmp_path / "bad.pth")
    torch.save(values, tmp_path / "modern.pth", pickle_protocol=4)
    assert "expected a pickle of protocol 2, as torch.save writes it, got 4" in refusal(tmp_path / "modern.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Bomb(trap)))
    assert "expected a checkpoint (a zip written by torch.save)" in refusal(tmp_path / "plain.pth")
    torch.save(values, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    assert "expected a checkpoint (a zip written by torch.save)" in refusal(tmp_path / "legacy.pth")
    assert not trap.exists()
    pickle.loads(pickle.dumps(_Bomb(trap)))  # the trap itself works
    assert trap.exists()


def test_data_that_would_never_end_is_refused(tmp_path: Path) -> None:
    laughs: list[Any] = ["ha"]
    for _ in range(60):
        laughs = [laughs, laughs]
    loop: list[Any] = []
    loop.append(loop)
    for key, value in (("scene", {"up": laughs}), ("view", {"camera": loop}), ("config", {"table_size": laughs})):
        torch.save(stored(small_checkpoint()) | {key: value}, tmp_path / "bad.pth")
        assert key in refusal(tmp_path / "bad.pth")


def test_what_is_no_checkpoint_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    for content, message in (
        (b"", "an empty file"),
        (b"hello, this is text\n", "a file of 20 bytes that starts with b'hell'"),
        (b"PK\x03\x04 and then nothing of the kind", "damaged or cut short"),
        (bytes(1000), "a file of 1000 bytes"),
    ):
        path.write_bytes(content)
        assert message in refusal(path)
    assert "got a folder" in refusal(tmp_path)
    assert "cannot be read" in refusal(tmp_path / "missing.pth")
    assert "cannot be read" in refusal(tmp_path / "file.pth" / "below.pth")
    os.mkfifo(tmp_path / "pipe")
    assert "a device or a pipe" in refusal(tmp_path / "pipe")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "not a model")
    assert "one data.pkl record" in refusal(path)


def test_a_compressed_pickle_is_not_inflated(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(1 << 24))
    assert "uncompressed records" in refusal(path)


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short_is_refused(tmp_path: Path, good_bytes: bytes, share: float) -> None:
    path = tmp_path / "short.pth"
    path.write_bytes(good_bytes[: int(len(good_bytes) * share)])
    refusal(path)


@settings(
    max_examples=200, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), inside=st.booleans())
def test_no_bytes_raise_anything_but_a_checkpoint_error(
    tmp_path: Path, good_bytes: bytes, data: st.DataObject, inside: bool
) -> None:
    path = tmp_path / "flipped.pth"
    path.write_bytes(good_bytes)
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: archive.read(record) for record in archive.infolist()}
    changed = bytearray(records["archive/data.pkl"] if inside else good_bytes)
    flips = st.tuples(st.integers(0, len(changed) - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(flips, min_size=1, max_size=6)):
        changed[place] = value
    if inside:  # a good checksum over a bad pickle, or else zipfile alone would catch it all
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (records | {"archive/data.pkl": bytes(changed)}).items():
                archive.writestr(name, content)
    else:
        path.write_bytes(changed)
    try:
        loaded = load_checkpoint(path)
    except CheckpointError as error:
        message = str(error)
    else:  # a flip in a weight or a camera may load, and rightly
        message = f"{path}: {loaded.octree.n_nodes} nodes"
    assert message.startswith(f"{path}: ")
