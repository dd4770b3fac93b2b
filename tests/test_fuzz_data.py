"""Hostile files: whatever stands in them, a scene is read or refused by `DatasetError`, soon and in little memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import format_scenes as make
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infnerf.data.dataset import DatasetError, load_dataset
from infnerf.data.ply import read_ply

MAX_BYTES = 32 << 20  # that one reading may allocate
CI = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

numbers = st.one_of(
    st.integers(-5, 5),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0, 1, -1, 10**400, 1e308, -1e308, 2**31, 2**63, 1e-320, 1e9]),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=6), st.just("../../etc/passwd"), st.just("\0"))
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def paths_of(value: Any, here: tuple = ()) -> list[tuple]:
    """Where something can be changed in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here] * bool(here) + [path for key, item in items for path in paths_of(item, (*here, key))]


def changed(text: str, path: tuple, new: Any, remove: bool) -> str:
    value = json.loads(text)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if remove:
        del holder[path[-1]]
    else:
        holder[path[-1]] = new
    return json.dumps(value)


def read_or_refuse(read: Callable[[], object]) -> None:
    """Anything but `DatasetError` with one line of text fails the test, and so does memory."""
    refusal = "none"
    tracemalloc.start()
    try:
        read()
    except DatasetError as error:
        refusal = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MAX_BYTES
    assert "\n" not in refusal
    assert len(refusal) < 1500


def fuzz_json(root: Path, name: str) -> None:
    file = root / name
    original = file.read_text()
    places = paths_of(json.loads(original))

    @settings(CI, max_examples=40)  # each reads a scene
    @given(st.sampled_from(places), values, st.booleans(), st.sampled_from(["train", "all"]))
    def run(path: tuple, new: Any, remove: bool, split: str) -> None:
        file.write_text(changed(original, path, new, remove), "utf-8", "surrogatepass")
        read_or_refuse(lambda: load_dataset(root, split))

    run()


@pytest.mark.parametrize(
    ("scene", "name"),
    [
        ("nerfstudio", "transforms.json"),
        ("blender", "transforms_train.json"),
        ("multicam", "metadata.json"),
        ("infnerf", "cameras.json"),
    ],
)
def test_json_with_one_value_replaced(scene: str, name: str, tmp_path: Path) -> None:
    writer: Callable = make.WRITERS[scene]
    root = writer(tmp_path, 2)
    if scene == "nerfstudio":
        extra = {"aabb_scale": 2, "applied_transform": np.eye(4).tolist(), "applied_scale": 1.0, "k1": 0.1}
        lists = {"train_filenames": ["images/frame_000.png"], "offset": [0.5, 0.5, 0.5], "scale": 0.33}
        make.edit_json(root / name, lambda m: m.update(extra | lists))
        make.edit_json(root / name, lambda m: m["frames"][0].update(mask_path="m.png", loss_weight=2.0))
    fuzz_json(root, name)


def test_scene_json_with_one_value_replaced(tmp_path: Path) -> None:
    root = make.infnerf(tmp_path, 2)
    scene = {"up": [0, 0, 1], "unit": "m", "aabb": [[-1, -1, -1], [1, 1, 1]], "root_corner": [-2, -2, -2]}
    (root / "scene.json").write_text(json.dumps(scene | {"root_size": 4, "transform": np.eye(4).tolist()}))
    fuzz_json(root, "scene.json")


@CI
@given(st.binary(max_size=40), st.integers(0, 127), st.integers(0, 400))
def test_poses_bounds_with_bytes_replaced(tmp_path: Path, new: bytes, start: int, cut: int) -> None:
    file = tmp_path / "poses_bounds.npy"
    if not (tmp_path / "images").exists():
        make.llff(tmp_path, 2)
        (tmp_path / "raw").write_bytes(file.read_bytes())
    raw = (tmp_path / "raw").read_bytes()
    changed = raw[:start] + new + raw[start + len(new) :]
    file.write_bytes(changed[: len(changed) - cut] if cut > 200 else changed)
    read_or_refuse(lambda: load_dataset(tmp_path))


WORDS = st.sampled_from(
    [
        "ply",
        "format",
        "ascii",
        "binary_little_endian",
        "1.0",
        "element",
        "vertex",
        "face",
        "property",
        "float",
        "double",
    ]
    + ["uchar", "list", "int", "x", "y", "z", "red", "green", "blue", "footprint", "comment", "end_header", "0", "3"]
    + ["-1", "99999999999999999999", "9" * 5000, "nan", "1e400", "\u00b2", ""]
)


@CI
@given(st.lists(st.lists(WORDS, max_size=4), max_size=12), st.binary(max_size=60))
def test_ply_headers_of_its_own_words(tmp_path: Path, lines: list[list[str]], body: bytes) -> None:
    header = "ply\n" + "".join(" ".join(line) + "\n" for line in lines) + "end_header\n"
    (tmp_path / "p.ply").write_bytes(header.encode() + body)
    read_or_refuse(lambda: read_ply(tmp_path / "p.ply"))


@CI
@given(st.integers(0, 12), st.lists(WORDS, max_size=4), st.sampled_from(["ascii", "binary_little_endian"]), st.binary())
def test_ply_headers_with_one_line_replaced(tmp_path: Path, at: int, line: list[str], fmt: str, body: bytes) -> None:
    lines = f"ply\nformat {fmt} 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z".split("\n")
    lines += ["property uchar red", "property uchar green", "property uchar blue", "property float footprint"]
    lines[at % len(lines)] = " ".join(line)
    text = b"1 2 3 4 5 6 7\n4 5 6 7 8 9 1\n" if fmt == "ascii" else np.ones(40, "<f4").tobytes()
    (tmp_path / "p.ply").write_bytes("\n".join([*lines, "end_header\n"]).encode() + text + body)
    read_or_refuse(lambda: read_ply(tmp_path / "p.ply"))
