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

from .backends import FORMATS, TITLES, Format
from .camera import Camera
from .checks import Refusal, found, keys, mapping, numbers, plain, short
from .octree import Octree

FORMAT, VERSION = "infnerf", 1
COLOR_SPACES = ("linear", "srgb")
REQUIRED_KEYS = ("format", "version", "backend", "config", "octree", "field", "scene")
OPTIONAL_KEYS = ("view", "training")
PINHOLE_KEYS = ("fx", "fy", "cx", "cy", "width", "height")
LENS_KEYS = ("lens", "distortion")  # of a camera that is no pinhole

#: The only names a pickle of plain data and tensors asks for. Anything else is refused before unpickling starts.
_SAFE_GLOBALS = {"torch._utils _rebuild_tensor_v2", "collections OrderedDict"} | {
    f"torch {kind}Storage"
    for kind in ("Half", "BFloat16", "Float", "Double", "Bool", "Byte", "Char", "Short", "Int", "Long")
}
_UNSAFE_OPCODES = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
_MAX_PICKLE = 256 << 20  # bytes of the structure without its tensors; a city with 10000 cameras needs about 3 MB
_CHUNK = 1 << 22  # numbers per step of the finite check
_BITS = {torch.float16: (torch.int16, 0x7C00), torch.float32: (torch.int32, 0x7F800000)}
_ALIGNMENT = 64  # bytes; torch.save aligns tensors so, and kernels may count on it


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written, in one sentence: file, key, expected, found."""


@dataclass(eq=False)
class Checkpoint:
    """A trained scene. An InfNeRF's `field`: `tables` [N, L, T, F] float16, `mlp` [N, P] float16, `occupancy` [N, W]
    int32; where levels differ in capacity, `tables` or `mlp` is flat (`models/capacity.py`).
    """

    backend: str  # one of `backends.TITLES`
    config: Any  # the backend's: an InfNeRFConfig, ...
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
    pinhole = (entry[key] for key in PINHOLE_KEYS)
    lens = {key: entry[key] for key in LENS_KEYS if key in entry}
    return Camera(np.array(entry["c2w"], np.float64), *pinhole, **lens)


def camera_to_entry(name: str, camera: Camera) -> dict[str, Any]:
    """The entry of `scene["cameras"]` for a camera, the inverse of `camera_from_entry`; a pinhole's has no lens."""
    entry = {"name": name, "c2w": camera.c2w.tolist(), **{key: getattr(camera, key) for key in PINHOLE_KEYS}}
    return entry if camera.is_pinhole else entry | {"lens": camera.lens, "distortion": list(camera.distortion)}


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads and validates a checkpoint; tensors stay mapped to the file. Nothing in the file is ever executed.

    Raises `CheckpointError`, and nothing else, whatever the bytes of the file are.
    """
    path = Path(path)
    try:
        inspect_container(path)
        # mmap: a city's tables may be larger than memory, and a node pool reads rows where they lie.
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        checkpoint = _validate(values)
    except Refusal as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # a damaged file fails anywhere in zipfile, pickle or torch, with any class of exception
        raise CheckpointError(f"{path}: not a readable checkpoint, damaged or cut short ({short(error)})") from error
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
    except Refusal as error:
        raise CheckpointError(f"{path}: not saved, {error}") from None
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb") as file:
            torch.save(values, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        if not isinstance(error, OSError) and isinstance(error.__context__, OSError):
            error = error.__context__  # torch stumbles over the failed write, which says more
        raise CheckpointError(f"{path}: not saved, an older file there is unchanged ({short(error)})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def inspect_container(path: Path) -> None:
    """Looks at what torch.save wrote without unpickling it: a zip of stored records whose pickle asks for plain data
    and tensors only? Raises `Refusal` for a file that is none; damage raises whatever zipfile and pickle do."""
    if path.is_dir():
        raise Refusal("expected a checkpoint file, got a folder")
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise Refusal(f"cannot be read ({short(error)})") from None
    if not path.is_file():
        raise Refusal("expected a checkpoint file, got a device or a pipe")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise Refusal(f"cannot be read ({short(error)})") from None
    if start != b"PK\x03\x04":
        kind = "an empty file" if size == 0 else f"a file of {size} bytes that starts with {start!r}"
        raise Refusal(f"expected a checkpoint (a zip written by torch.save), got {kind}")
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        pickles = [record for record in records if record.filename.partition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise Refusal(f"expected a checkpoint with one data.pkl record, got a zip with {len(pickles)}")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise Refusal("expected uncompressed records, as torch.save writes them, got compressed ones")
        if pickles[0].file_size > _MAX_PICKLE:
            raise Refusal(f"data.pkl must be at most {_MAX_PICKLE} bytes, got {pickles[0].file_size}")
        data = archive.read(pickles[0])
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "PROTO" and argument != 2:
            raise Refusal(f"expected a pickle of protocol 2, as torch.save writes it, got {argument}")
        if opcode.name in _UNSAFE_OPCODES or (opcode.name == "GLOBAL" and argument not in _SAFE_GLOBALS):
            wanted = str(argument or opcode.name).replace(" ", ".")
            raise Refusal(f"expected plain data, got a pickle that wants code ({wanted[:80]}); nothing of it was run")


def _validate(values: Any) -> Checkpoint:
    """Builds a checkpoint from what was stored, or says what is wrong with it. Raises `Refusal`."""
    top = mapping(values, "the file")
    for key, expected in (("format", FORMAT), ("version", VERSION)):
        if type(top.get(key)) is not type(expected) or top[key] != expected:
            raise Refusal(f"{key} must be {expected!r}, got {found(top.get(key))}")
    backend = top.get("backend")
    if not isinstance(backend, str) or backend not in TITLES:
        raise Refusal(f"backend must be one of {', '.join(TITLES)}, got {found(backend)}")
    form = FORMATS[backend]
    keys(top, "the file", REQUIRED_KEYS, OPTIONAL_KEYS)
    for key in ("scene", "view", "training"):
        plain(top.get(key), key)
    config = _config(top["config"], form)
    octree = _octree(top["octree"])
    tensors = _field(top["field"], config, octree, form)
    training = top.get("training")
    return Checkpoint(
        backend=backend,
        config=config,
        octree=octree,
        field=tensors,
        scene=_scene(top["scene"]),
        view=_view(top.get("view", {})),
        training=None if training is None else mapping(training, "training"),
    )


def _config(value: Any, form: Format) -> Any:
    config = mapping(value, "config")
    for key, entry in config.items():
        for item in entry if type(entry) is list else [entry]:
            if type(item) not in (bool, int, float, str):
                raise Refusal(f"config.{key[:40]} must be a number, flag, word or list of them, got {found(entry)}")
    try:
        return form.config(config)
    except ValueError as error:
        raise Refusal(short(error)) from None


def _octree(value: Any) -> Octree:
    octree = mapping(value, "octree")
    keys(octree, "octree", ("children", "parent", "level", "corner", "root_size"))
    tensors = {key: _tensor(octree[key], f"octree.{key}") for key in ("children", "parent", "level", "corner")}
    root_size = numbers(octree["root_size"], "octree.root_size", ())
    try:
        return Octree(**tensors, root_size=float(root_size))
    except ValueError as error:
        raise Refusal(short(error)) from None


def _field(value: Any, config: Any, octree: Octree, form: Format) -> dict[str, Tensor]:
    stored, expected = mapping(value, "field"), form.tensors(config, octree)
    keys(stored, "field", tuple(expected))
    tensors: dict[str, Tensor] = {}
    for key, (shape, dtype) in expected.items():
        tensor = stored[key]
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise Refusal(f"field.{key} must be a tensor {str(dtype)[6:]} {list(shape)}, got {found(tensor)}")
        tensors[key] = _tensor(tensor, f"field.{key}")
    for key, tensor in tensors.items():
        if dtype := _BITS.get(tensor.dtype):
            index = _first_not_finite(tensor, *dtype)
            if index is not None:
                place = form.place(config, octree, key, index)
                raise Refusal(f"field.{key} must be finite, got NaN or infinity in {place}")
    return tensors


def _first_not_finite(tensor: Tensor, bits: torch.dtype, exponent: int) -> int | None:
    """Flat index of the first NaN or infinity, told by an `exponent` of all ones: no copy of a mapped file."""
    numbers = tensor.view(bits).reshape(-1)
    for start in range(0, len(numbers), _CHUNK):
        wrong = (numbers[start : start + _CHUNK] & exponent) == exponent
        if wrong.any():
            return start + int(wrong.int().argmax())
    return None


def _scene(value: Any) -> dict[str, Any]:
    scene = mapping(value, "scene")
    for key in ("up", "unit", "aabb", "cameras", "color_space", "background"):
        if key not in scene:
            raise Refusal(f"scene lacks {key}")
    if np.linalg.norm(numbers(scene["up"], "scene.up", (3,))) < 1e-6:
        raise Refusal(f"scene.up must be a direction, got {scene['up']}")
    if not isinstance(scene["unit"], str) or len(scene["unit"]) > 32:
        raise Refusal(f"scene.unit must be a short string such as 'm', got {found(scene['unit'])}")
    low, high = numbers(scene["aabb"], "scene.aabb", (2, 3))
    if not (low < high).all():
        raise Refusal(f"scene.aabb must be [minimum, maximum] with minimum below maximum, got {scene['aabb']}")
    if "transform" in scene:  # [4, 4] the capture's coordinates to the scene's
        numbers(scene["transform"], "scene.transform", (4, 4))
    space = scene["color_space"]
    if not isinstance(space, str) or space not in COLOR_SPACES:
        raise Refusal(f"scene.color_space must be one of {', '.join(COLOR_SPACES)}, got {found(space)}")
    if (numbers(scene["background"], "scene.background", (3,)) < 0).any():
        raise Refusal(f"scene.background must be three numbers of at least 0, got {scene['background']}")
    if not isinstance(scene["cameras"], list):
        raise Refusal(f"scene.cameras must be a list, got {found(scene['cameras'])}")
    names = set()
    for index, entry in enumerate(scene["cameras"]):
        _camera(entry, f"scene.cameras[{index}]")
        name = entry.get("name")
        if not isinstance(name, str) or name in names:
            raise Refusal(f"scene.cameras[{index}].name must be a string of its own, got {found(name)}")
        names.add(name)
    return scene


def _view(value: Any) -> dict[str, Any]:
    view = mapping(value, "view")
    if "camera" in view:
        _camera(view["camera"], "view.camera")
    return view


def _camera(value: Any, key: str) -> None:
    entry = mapping(value, key)
    keys(entry, key, ("c2w", *PINHOLE_KEYS), ("name", *LENS_KEYS))
    numbers(entry["c2w"], f"{key}.c2w", (4, 4))
    for name in PINHOLE_KEYS:
        numbers(entry[name], f"{key}.{name}", ())
    if not isinstance(entry.get("lens", ""), str):
        raise Refusal(f"{key}.lens must be a word, got {found(entry['lens'])}")
    if "distortion" in entry:
        told = entry["distortion"]
        if not isinstance(told, (list, tuple)):
            raise Refusal(f"{key}.distortion must be a list of numbers, got {found(told)}")
        numbers(told, f"{key}.distortion", (len(told),))
    try:
        camera_from_entry(entry)
    except ValueError as error:
        raise Refusal(f"{key}: {short(error)}") from None


def _tensor(value: Any, key: str) -> Tensor:
    """A dense tensor in memory of its own: an expanded one would declare more numbers than the file holds."""
    if type(value) is not Tensor or value.layout != torch.strided or not value.is_contiguous():
        raise Refusal(f"{key} must be a contiguous tensor, got {found(value)}")
    value = value.detach()
    return value.clone() if value.data_ptr() % _ALIGNMENT else value


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
