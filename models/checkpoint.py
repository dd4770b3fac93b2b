"""The checkpoint: one `.pth` of plain data (format version 1, `docs/checkpoint.md`), read with distrust, written whole.

Letters: N nodes, L grid levels, T table entries, F features, P numbers of one node's MLPs, W occupancy words.
"""

from __future__ import annotations

import contextlib
import os
import pickletools
import secrets
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .camera import Camera
from .config import InfNeRFConfig
from .octree import Octree

FORMAT, VERSION = "infnerf", 1
BACKENDS = ("infnerf", "pynerf", "mipnerf")
COLOR_SPACES = ("linear", "srgb")
REQUIRED_KEYS = ("format", "version", "backend", "config", "octree", "field", "scene")
OPTIONAL_KEYS = ("view", "training")

#: The only names a pickle of plain data and tensors asks for. Anything else is refused before unpickling starts.
_SAFE_GLOBALS = {"torch._utils _rebuild_tensor_v2", "collections OrderedDict"} | {
    f"torch {kind}Storage"
    for kind in ("Half", "BFloat16", "Float", "Double", "Bool", "Byte", "Char", "Short", "Int", "Long")
}
_UNSAFE_OPCODES = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
_MAX_PICKLE = 256 << 20  # bytes of the structure without its tensors; a city with 10000 cameras needs about 3 MB
_CHUNK = 1 << 22  # numbers per step of the finite check
_ALIGNMENT = 64  # bytes; torch.save aligns tensors so, and kernels may count on it


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written, in one sentence: file, key, expected, found."""


@dataclass(eq=False)
class Checkpoint:
    """A trained scene. `field`: `tables` [N, L, T, F] float16, `mlp` [N, P] float16, `occupancy` [N, W] int32."""

    backend: str
    config: InfNeRFConfig
    octree: Octree
    field: dict[str, Tensor]
    scene: dict[str, Any]  # "up", "unit", "aabb", "cameras", "color_space", "background", and more plain data
    view: dict[str, Any] = dataclass_field(default_factory=dict)  # where a viewer starts: "camera", like scene's
    training: dict[str, Any] | None = None  # optimiser and schedule, for resuming
    path: Path | None = None  # the file it came from

    @property
    def cameras(self) -> dict[str, Camera]:
        """The training cameras by name."""
        return {entry["name"]: camera_from_entry(entry) for entry in self.scene["cameras"]}


def camera_from_entry(entry: Mapping[str, Any]) -> Camera:
    """The `Camera` of one entry of `scene["cameras"]`. Raises `ValueError` for bad numbers."""
    numbers = (entry[key] for key in ("fx", "fy", "cx", "cy", "width", "height"))
    return Camera(np.array(entry["c2w"], np.float64), *numbers)


def camera_to_entry(name: str, camera: Camera) -> dict[str, Any]:
    """The entry of `scene["cameras"]` for a camera, the inverse of `camera_from_entry`."""
    numbers = {key: getattr(camera, key) for key in ("fx", "fy", "cx", "cy", "width", "height")}
    return {"name": name, "c2w": camera.c2w.tolist(), **numbers}


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads and validates a checkpoint; tensors stay mapped to the file. Nothing in the file is ever executed.

    Raises `CheckpointError`, and nothing else, whatever the bytes of the file are.
    """
    path = Path(path)
    try:
        _inspect(path)
        # mmap: a city's tables may be larger than memory, and a node pool reads rows where they lie.
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        checkpoint = _validate(values)
    except _Refusal as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # a damaged file fails anywhere in zipfile, pickle or torch, with any class of exception
        raise CheckpointError(f"{path}: not a readable checkpoint, damaged or cut short ({_short(error)})") from error
    checkpoint.path = path
    return checkpoint


def save_checkpoint(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> None:
    """Writes to a temporary file in the same folder, flushes it to disk, then renames it over `path`.

    A link at `path` is replaced, never written through. Raises `CheckpointError` for values that `load_checkpoint`
    would refuse, a full disk or a folder that cannot be written; a file that was at `path` is then whole.
    """
    path = Path(path)
    values = {
        "format": FORMAT,
        "version": VERSION,
        "backend": checkpoint.backend,
        "config": checkpoint.config.to_dict(),
        "octree": {key: _owned(value) for key, value in vars(checkpoint.octree).items()},
        "field": {key: _owned(value) for key, value in checkpoint.field.items()},
        "scene": _owned(checkpoint.scene),
        "view": _owned(checkpoint.view),
    }
    if checkpoint.training is not None:
        values["training"] = _owned(checkpoint.training)
    try:
        _validate(values)
    except _Refusal as error:
        raise CheckpointError(f"{path}: not saved, {error}") from None
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb") as file:
            torch.save(values, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch turns some failed writes into RuntimeError
        raise CheckpointError(f"{path}: not saved, an older file there is unchanged ({_short(error)})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


class _Refusal(ValueError):
    """One sentence about a key; the public functions put the file's name before it."""


def _inspect(path: Path) -> None:
    """Looks at the container without unpickling: a zip of stored records whose pickle asks for plain data only?"""
    if path.is_dir():
        raise _Refusal("expected a checkpoint file, got a folder")
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise _Refusal(f"cannot be read ({_short(error)})") from None
    if not path.is_file():
        raise _Refusal("expected a checkpoint file, got a device or a pipe")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise _Refusal(f"cannot be read ({_short(error)})") from None
    if start != b"PK\x03\x04":
        found = "an empty file" if size == 0 else f"a file of {size} bytes that starts with {start!r}"
        raise _Refusal(f"expected a checkpoint (a zip written by torch.save), got {found}")
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        pickles = [record for record in records if record.filename.partition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise _Refusal(f"expected a checkpoint with one data.pkl record, got a zip with {len(pickles)}")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise _Refusal("expected uncompressed records, as torch.save writes them, got compressed ones")
        if pickles[0].file_size > _MAX_PICKLE:
            raise _Refusal(f"data.pkl must be at most {_MAX_PICKLE} bytes, got {pickles[0].file_size}")
        data = archive.read(pickles[0])
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _UNSAFE_OPCODES or (opcode.name == "GLOBAL" and argument not in _SAFE_GLOBALS):
            wanted = str(argument or opcode.name).replace(" ", ".")
            raise _Refusal(f"expected plain data, got a pickle that wants code ({wanted[:80]}); nothing of it was run")


def _validate(values: Any) -> Checkpoint:
    """Builds a checkpoint from what was stored, or says what is wrong with it. Raises `_Refusal`."""
    top = _mapping(values, "the file")
    for key, expected in (("format", FORMAT), ("version", VERSION)):
        if type(top.get(key)) is not type(expected) or top[key] != expected:
            raise _Refusal(f"{key} must be {expected!r}, got {_found(top.get(key))}")
    backend = top.get("backend")
    if not isinstance(backend, str) or backend not in BACKENDS:
        raise _Refusal(f"backend must be one of {', '.join(BACKENDS)}, got {_found(backend)}")
    if backend != "infnerf":
        raise _Refusal(f"backend {backend!r} is not supported yet by this version, expected 'infnerf'")
    _keys(top, "the file", REQUIRED_KEYS, OPTIONAL_KEYS)
    for key in ("scene", "view", "training"):
        _plain(top.get(key), key)
    config = _config(top["config"])
    octree = _octree(top["octree"])
    tensors = _field(top["field"], config, octree.n_nodes)
    training = top.get("training")
    return Checkpoint(
        backend=backend,
        config=config,
        octree=octree,
        field=tensors,
        scene=_scene(top["scene"]),
        view=_view(top.get("view", {})),
        training=None if training is None else _mapping(training, "training"),
    )


def _config(value: Any) -> InfNeRFConfig:
    config = _mapping(value, "config")
    for key, number in config.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise _Refusal(f"config.{key[:40]} must be a number, got {_found(number)}")
    try:
        return InfNeRFConfig.from_dict(config)
    except ValueError as error:
        raise _Refusal(_short(error)) from None


def _octree(value: Any) -> Octree:
    octree = _mapping(value, "octree")
    _keys(octree, "octree", ("children", "parent", "level", "corner", "root_size"))
    tensors = {key: _tensor(octree[key], f"octree.{key}") for key in ("children", "parent", "level", "corner")}
    root_size = _numbers(octree["root_size"], "octree.root_size", ())
    try:
        return Octree(**tensors, root_size=float(root_size))
    except ValueError as error:
        raise _Refusal(_short(error)) from None


def _field(value: Any, config: InfNeRFConfig, n_nodes: int) -> dict[str, Tensor]:
    stored = _mapping(value, "field")
    expected: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "tables": ((n_nodes, config.n_grid_levels, config.table_size, config.features_per_level), torch.float16),
        "mlp": ((n_nodes, config.mlp_size), torch.float16),
        "occupancy": ((n_nodes, config.occupancy_words), torch.int32),
    }
    _keys(stored, "field", tuple(expected))
    tensors: dict[str, Tensor] = {}
    for key, (shape, dtype) in expected.items():
        tensor = stored[key]
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise _Refusal(f"field.{key} must be a tensor {str(dtype)[6:]} {list(shape)}, got {_found(tensor)}")
        tensors[key] = _tensor(tensor, f"field.{key}")
    for key in ("tables", "mlp"):
        _check_finite_half(tensors[key], f"field.{key}")
    return tensors


def _check_finite_half(tensor: Tensor, key: str) -> None:
    """Refuses NaN and infinity in float16 by its bits (an exponent of all ones): no float copy of a mapped file."""
    bits = tensor.view(torch.int16).reshape(-1)
    for start in range(0, len(bits), _CHUNK):
        wrong = (bits[start : start + _CHUNK] & 0x7FFF) >= 0x7C00
        if wrong.any():
            node = (start + int(wrong.int().argmax())) // (len(bits) // tensor.shape[0])
            raise _Refusal(f"{key} must be finite, got NaN or infinity in node {node}")


def _scene(value: Any) -> dict[str, Any]:
    scene = _mapping(value, "scene")
    for key in ("up", "unit", "aabb", "cameras", "color_space", "background"):
        if key not in scene:
            raise _Refusal(f"scene lacks {key}")
    if np.linalg.norm(_numbers(scene["up"], "scene.up", (3,))) < 1e-6:
        raise _Refusal(f"scene.up must be a direction, got {scene['up']}")
    if not isinstance(scene["unit"], str) or len(scene["unit"]) > 32:
        raise _Refusal(f"scene.unit must be a short string such as 'm', got {_found(scene['unit'])}")
    low, high = _numbers(scene["aabb"], "scene.aabb", (2, 3))
    if not (low < high).all():
        raise _Refusal(f"scene.aabb must be [minimum, maximum] with minimum below maximum, got {scene['aabb']}")
    space = scene["color_space"]
    if not isinstance(space, str) or space not in COLOR_SPACES:
        raise _Refusal(f"scene.color_space must be one of {', '.join(COLOR_SPACES)}, got {_found(space)}")
    if (_numbers(scene["background"], "scene.background", (3,)) < 0).any():
        raise _Refusal(f"scene.background must be three numbers of at least 0, got {scene['background']}")
    if not isinstance(scene["cameras"], list):
        raise _Refusal(f"scene.cameras must be a list, got {_found(scene['cameras'])}")
    names = set()
    for index, entry in enumerate(scene["cameras"]):
        _camera(entry, f"scene.cameras[{index}]")
        name = entry.get("name")
        if not isinstance(name, str) or name in names:
            raise _Refusal(f"scene.cameras[{index}].name must be a string of its own, got {_found(name)}")
        names.add(name)
    return scene


def _view(value: Any) -> dict[str, Any]:
    view = _mapping(value, "view")
    if "camera" in view:
        _camera(view["camera"], "view.camera")
    return view


def _camera(value: Any, key: str) -> None:
    entry = _mapping(value, key)
    _keys(entry, key, ("c2w", "fx", "fy", "cx", "cy", "width", "height"), ("name",))
    _numbers(entry["c2w"], f"{key}.c2w", (4, 4))
    for name in ("fx", "fy", "cx", "cy", "width", "height"):
        _numbers(entry[name], f"{key}.{name}", ())
    try:
        camera_from_entry(entry)
    except ValueError as error:
        raise _Refusal(f"{key}: {_short(error)}") from None


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if type(value) is not dict or not all(type(name) is str for name in value):
        raise _Refusal(f"{key} must be a dict with strings as keys, got {_found(value)}")
    return value


def _keys(value: dict[str, Any], key: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    if missing := [name for name in required if name not in value]:
        raise _Refusal(f"{key} lacks {', '.join(missing)}")
    if unknown := sorted(set(value) - set(required) - set(optional)):
        raise _Refusal(f"{key} has unknown keys: {_short(', '.join(unknown))}")


def _tensor(value: Any, key: str) -> Tensor:
    """A dense tensor in memory of its own: an expanded one would declare more numbers than the file holds."""
    if type(value) is not Tensor or value.layout != torch.strided or not value.is_contiguous():
        raise _Refusal(f"{key} must be a contiguous tensor, got {_found(value)}")
    value = value.detach()
    return value.clone() if value.data_ptr() % _ALIGNMENT else value


def _numbers(value: Any, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Nested lists of finite numbers, of exactly this shape. Returns float64."""
    expected = f"a list of {' x '.join(map(str, shape))} finite numbers" if shape else "a finite number"
    flat = [value]
    for length in shape:
        if not all(isinstance(row, (list, tuple)) and len(row) == length for row in flat):
            raise _Refusal(f"{key} must be {expected}, got {_found(value)}")
        flat = [item for row in flat for item in row]
    if not all(isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) < 1e300 for x in flat):
        raise _Refusal(f"{key} must be {expected}, got {_found(value)}")
    return np.array(flat, np.float64).reshape(shape)


def _plain(value: Any, key: str) -> None:
    """Refuses all but dicts, lists, tuples, numbers, strings, None and tensors. Shared parts are looked at once."""
    stack, seen = [value], set()
    while stack:
        item = stack.pop()
        if item is None or type(item) in (bool, int, float, str):
            continue
        if type(item) not in (dict, list, tuple, Tensor):
            raise _Refusal(f"{key} must hold plain data and tensors only, got {_found(item)}")
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            if not all(type(name) in (str, int) for name in item):
                raise _Refusal(f"{key} must have strings or whole numbers as keys, got {_found(item)}")
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)


def _owned(value: Any) -> Any:
    """A copy of the structure with tensors on the CPU, each alone in its storage: torch.save writes whole storages."""
    if isinstance(value, Tensor):
        tensor = value.detach().cpu().contiguous()
        return tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor
    if isinstance(value, dict):
        return {key: _owned(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_owned(item) for item in value)
    return value


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut; not every file system and platform can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _found(value: Any) -> str:
    """What was found, in a few words, however large or strange it is."""
    if value is None:
        return "nothing"
    if isinstance(value, Tensor):
        return f"a tensor {str(value.dtype)[6:]} {list(value.shape)}"
    if isinstance(value, (dict, list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return _short(repr(value))


def _short(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 160 else f"{line[:157]}..."
