"""The CPU build of `cuda/`: finds or compiles the library, and calls it.

Structs mirror `cuda/scene.cuh`, `cuda/samples.cuh` and `cuda/wave.cuh`.

Order: `INFNERF_KERNELS` (a path, for sanitizer builds); a library that the wheel brought, if its source hash is the
sources'; one compiled earlier into the user's cache; one compiled now. With none of these `load_kernels` raises
`KernelsUnavailable` with the reason.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..models.config import MAX_LEVELS, InfNeRFConfig
from ..models.infnerf import InfNeRF
from ..models.pynerf import PyNeRF, grid_starts
from ..models.pynerf_config import PyNeRFConfig, weights_in
from . import kernel_build

CUDA_DIR = Path(__file__).resolve().parents[1] / "cuda"
MAX_GRID_LEVELS = 16
ADAM_CHUNK = 1 << 18  # numbers a call: threads take turns on these

_P, _I, _F = ctypes.c_void_p, ctypes.c_int, ctypes.c_float


class SceneStruct(ctypes.Structure):
    _fields_ = [
        *[(name, _P) for name in ("children", "level", "occupancy", "tables", "mlp")],
        *[(name, _I) for name in ("n_nodes", "depth", "n_grid_levels", "features", "table_size")],
        *[(name, _I) for name in ("hidden", "geo", "sh_degree", "appearance")],
        *[(name, _I) for name in ("mlp_size", "occupancy_resolution", "occupancy_words")],
        ("grid_resolution", _I * MAX_GRID_LEVELS),
        ("table_sizes", _I * MAX_LEVELS),
        ("background", _I),
        *[(name, _F) for name in ("root_size", "root_gsd", "density_shift")],
        ("aabb", _F * 6),
        *[(name, _I) for name in ("heads", "density_hidden", "density_layers", "color_layers", "blends_colors")],
        ("trained_resolution", _I),
        ("unit", _F),
        *[(name, _P) for name in ("grids", "head_layers", "gsds", "trained")],
    ]


class ViewStruct(ctypes.Structure):
    _fields_ = [
        ("origin", _F * 3),
        ("axes", _F * 9),
        *[(name, _F) for name in ("fx", "fy", "cx", "cy")],
        *[(name, _I) for name in ("width", "height", "frame", "min_level", "max_level")],
        *[(name, _F) for name in ("lod_scale", "step_scale", "early_stop")],
    ]


class BuffersStruct(ctypes.Structure):
    _fields_ = [
        (name, _P)
        for name in ("color", "depth", "normal", "level", "gsd_ratio", "samples", "node", "clamped", "node_samples")
    ]


class RaysStruct(ctypes.Structure):
    _fields_ = [
        *[(name, _P) for name in ("origins", "directions", "cones", "counters")],
        *[(name, _I) for name in ("n", "frame", "min_level", "max_level")],
        ("step_scale", _F),
    ]


class PackedStruct(ctypes.Structure):
    _fields_ = [(name, _P) for name in ("ray_indices", "t", "dt", "local", "node", "level", "wanted")]


class FieldSamplesStruct(ctypes.Structure):
    _fields_ = [
        (name, _P)
        for name in (
            "local", "ray_indices", "directions", "appearance", "order", "starts", "sigma", "rgb",
            "d_sigma", "d_rgb", "d_tables", "d_mlp", "d_appearance", "level",
        )
    ]  # fmt: skip


class SegmentsStruct(ctypes.Structure):
    _fields_ = [*[(name, _P) for name in ("starts", "sigma", "dt", "rgb")], ("min_transmittance", _F)]


class AdamStruct(ctypes.Structure):
    _fields_ = [
        *[(name, _P) for name in ("value", "gradient", "mean", "square")],
        *[(name, _I) for name in ("row_size", "block")],
        *[(name, _F) for name in ("decay_mean", "decay_square", "epsilon")],
    ]


class SliceStruct(ctypes.Structure):
    _fields_ = [("view", ViewStruct), ("region", _I * 4), ("first", _I)]


class WaveStruct(ctypes.Structure):
    _fields_ = [
        *[
            (name, _P)
            for name in (
                "slice", "counters", "directions", "step", "sums", "heaviest_node", "living", "alive", "chunk_counts",
                "chunk_starts", "t", "dt", "local", "ray_indices", "node", "wanted", "rank", "order", "sigma", "rgb",
                "node_counts", "starts", "tile_starts", "tiles",
            )
        ],
        *[(name, _I) for name in ("rays", "samples", "max_steps")],
        ("out", BuffersStruct),
        ("level", _P),
    ]  # fmt: skip


STRUCTS = (
    SceneStruct, ViewStruct, BuffersStruct, RaysStruct, PackedStruct, FieldSamplesStruct, SegmentsStruct, AdamStruct,
    SliceStruct, WaveStruct,
)  # fmt: skip


class KernelsUnavailable(RuntimeError):
    """No usable CPU kernels on this machine; the message says why and what mends it."""


def pointer(array: Tensor | np.ndarray | None) -> int | None:
    """The address of a contiguous array; None stays None."""
    if array is None:
        return None
    contiguous = array.is_contiguous() if isinstance(array, Tensor) else array.flags.c_contiguous
    if not contiguous:
        raise ValueError(f"kernels: arrays must be contiguous, got strides for shape {tuple(array.shape)}")
    return array.data_ptr() if isinstance(array, Tensor) else array.ctypes.data


class RowKernels(Protocol):
    """What steps rows of arrays in place: `Kernels`, or `TorchLauncher` on a GPU."""

    def adam_rows(
        self, rows: AdamStruct, numbers: Tensor, rates: Tensor, roots: Tensor, used: Tensor
    ) -> None: ...  # fmt: skip


class Kernels:
    """The loaded library. Calls release the GIL, so a thread pool runs them on all cores."""

    def __init__(self, path: Path, variant: str, origin: str) -> None:
        self.path, self.variant, self.origin = path, variant, origin
        library = ctypes.CDLL(str(path))
        signatures: dict[str, tuple[Any, list[Any]]] = {
            "kernel_source_hash": (ctypes.c_char_p, []),
            "kernel_lanes": (_I, []),
            "kernel_struct_size": (_I, [_I]),
            "render_region": (None, [_P, _P, _P, _P, _I, _P]),
            "fill_normals": (None, [_P, _P, _P, _I, _I, _I]),
            "march_rays": (None, [_P, _P, _I, _I, _I, _P, _P, _P, _I]),
            "bucket_by_node": (None, [_P, _I, _I, _P, _P]),
            "field_forward": (None, [_P, _P, _P, _I, _I, _I]),
            "field_backward": (None, [_P, _P, _P, _I, _I]),
            "encode_head_forward": (None, [_P, _I, _P, _I, _I, _P, _I]),
            "encode_head_backward": (None, [_P, _I, _I, _P, _P, _I, _P, _I]),
            "composite_forward": (None, [_P, _I, _I, _P]),
            "composite_backward": (None, [_P, _I, _I, _P, _P, _P, _P]),
            "adam_rows": (None, [_P, _P, _P, _P, _P, _I, _I, _I]),
            "launch_kernel": (_I, [ctypes.c_char_p, _P, _P, _I]),
            "multiply_add_peak": (ctypes.c_double, [_I, _P]),
        }
        for name, (result, arguments) in signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self.library: Any = library
        self.lanes = int(library.kernel_lanes())
        self.source_hash = library.kernel_source_hash().decode()
        for i, struct in enumerate(STRUCTS):
            if library.kernel_struct_size(i) != ctypes.sizeof(struct):
                raise KernelsUnavailable(f"{path.name} was built from other sources: {struct.__name__} differs in size")

    def adam_rows(
        self, rows: AdamStruct, numbers: Tensor, rates: Tensor, roots: Tensor, used: Tensor
    ) -> None:  # fmt: skip
        """Steps rows `numbers` [n] int32 of the arrays in `rows` (cuda/adam.cuh); the others are of those rows, [n]."""
        n, chunk = len(numbers), max(1, ADAM_CHUNK // rows.row_size)
        arrays = [pointer(array) for array in (numbers, rates, roots, used)]
        address = ctypes.addressof(rows)
        calls = [(address, *arrays, i, min(i + chunk, n), 0) for i in range(0, n, chunk)]
        run_parallel(self.library.adam_rows, calls)

    def describe(self) -> str:
        return f"{self.variant} kernels, {self.lanes} lanes, {self.origin}"


def n_threads() -> int:
    """Cores this process may use, shared with the others that torchrun started on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sharing = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, cores // max(1, int(sharing))) if sharing.isdecimal() else cores


@functools.cache
def thread_pool() -> ThreadPoolExecutor:
    """Kernels' worker threads, one a core, shared by all executors."""
    return ThreadPoolExecutor(n_threads(), thread_name_prefix="kernel")


def run_parallel(function: Any, calls: Iterable[tuple[Any, ...]]) -> None:
    """Runs `function(*arguments)` for every tuple on the pool; the first exception is raised here."""
    for future in [thread_pool().submit(function, *arguments) for arguments in calls]:
        future.result()


@functools.cache
def load_kernels() -> Kernels:
    """The best library for this processor (see the module's header). Raises `KernelsUnavailable`."""
    forced = os.environ.get("INFNERF_KERNELS")
    if forced:
        try:
            return Kernels(Path(forced), Path(forced).stem, "named by INFNERF_KERNELS")
        except (OSError, AttributeError) as error:
            raise KernelsUnavailable(f"INFNERF_KERNELS={forced} is not a kernel library: {error}") from error
    variants = kernel_build.cpu_variants()
    if not variants:
        raise KernelsUnavailable(f"no CPU kernels for this kind of machine ({os.uname().machine})")
    wanted = kernel_build.source_hash(CUDA_DIR)
    from platformdirs import user_cache_path

    cache = user_cache_path("infnerf-view") / "kernels" / wanted
    for folder, origin in ((Path(__file__).parent, "prebuilt"), (cache, "compiled on this machine")):
        for variant in variants:
            path = folder / kernel_build.library_name(variant)
            if path.is_file() and (kernels := _try_load(path, variant, origin, wanted)):
                return kernels
    return _compile(variants[0], cache, wanted)


def _try_load(path: Path, variant: str, origin: str, wanted: str) -> Kernels | None:
    try:
        kernels = Kernels(path, variant, origin)
    except (OSError, AttributeError, KernelsUnavailable):
        return None
    return kernels if kernels.source_hash == wanted else None


def _compile(variant: str, cache: Path, wanted: str) -> Kernels:
    found = kernel_build.compilers()
    if not found:
        raise KernelsUnavailable(
            "the CPU kernels are not built and there is no C++ compiler: install one "
            "(apt-get install g++) or `pip install ziglang`"
        )
    problems = []
    for compiler in found:
        try:
            path = kernel_build.build(compiler, variant, CUDA_DIR, cache / kernel_build.library_name(variant))
        except (kernel_build.KernelBuildError, OSError) as error:
            problems.append(str(error).splitlines()[0])
            continue
        if kernels := _try_load(path, variant, f"compiled now with {Path(compiler[-1]).name}", wanted):
            return kernels
        problems.append(f"{path} does not load")
    raise KernelsUnavailable("the CPU kernels could not be compiled: " + "; ".join(problems))


class SceneArrays:
    """A model as the kernels see it: the struct, and the arrays that it points into.

    `float_tables`: use the model's float32 tables in place (training), where they lie; else half ones, with halves too
    small for the fast unpacking (they would be denormal) set to zero, on `device` (None: the host).
    """

    def __init__(self, model: InfNeRF | PyNeRF, float_tables: bool = False, device: torch.device | None = None) -> None:
        octree = model.octree
        device = model.tables.device if float_tables else device or torch.device("cpu")
        self.model = model
        self.children = octree.children.to(device).contiguous()
        self.level = octree.level.to(device).contiguous()
        self.occupancy = model.occupancy.to(device).contiguous()
        if float_tables:
            self.tables, self.mlp = model.tables.data, model.mlp.data
        else:
            half = model.tables.data.to(device).half()
            small = half.abs() < 6.2e-5
            self.tables = half.masked_fill(small, 0.0) if small.any() else half.contiguous()
            self.mlp = model.mlp.data.to(device).float().contiguous()
        s = SceneStruct()
        s.children, s.level, s.occupancy = pointer(self.children), pointer(self.level), pointer(self.occupancy)
        s.tables, s.mlp = pointer(self.tables), pointer(self.mlp)
        s.n_nodes, s.depth, s.root_size = octree.n_nodes, octree.depth, octree.root_size
        s.aabb[:] = model.local_aabb().flatten().tolist()
        _common(s, model.config)
        if isinstance(model, PyNeRF):
            self.pyramid = pyramid_arrays(model, clamps=not float_tables)
            _pyramid(s, model, self.pyramid)
        else:
            self.pyramid = {}
            _tree(s, model)
        self.struct = s

    @property
    def arrays(self) -> dict[str, Tensor]:
        """What the struct points to, by its fields' names."""
        names = "children", "level", "occupancy", "tables", "mlp"
        return {name: getattr(self, name) for name in names} | self.pyramid

    @property
    def address(self) -> int:
        return ctypes.addressof(self.struct)


def _common(s: SceneStruct, config: InfNeRFConfig | PyNeRFConfig) -> None:
    s.n_grid_levels, s.features = config.n_grid_levels, config.features_per_level
    s.hidden, s.geo, s.sh_degree = config.hidden_dim, config.geo_dim, config.sh_degree
    s.occupancy_resolution, s.occupancy_words = config.occupancy_resolution, config.occupancy_words
    s.grid_resolution[: config.n_grid_levels] = config.grid_resolutions
    s.background, s.density_shift = config.background, config.density_shift


def _tree(s: SceneStruct, model: InfNeRF) -> None:
    config = model.config
    s.table_size, s.mlp_size, s.appearance = config.table_size, config.mlp_size, config.appearance_dim
    s.table_sizes[:] = [config.at_level(level).table_size for level in range(MAX_LEVELS)]
    s.root_gsd = model.octree.root_size / config.resolution


def _pyramid(s: SceneStruct, model: PyNeRF, arrays: dict[str, Tensor]) -> None:
    config = model.config
    s.table_size, s.heads, s.unit = config.hash_table_size, config.num_levels, model.unit
    s.density_hidden, s.density_layers, s.color_layers = (
        config.density_hidden_dim, config.density_layers, config.num_layers,
    )  # fmt: skip
    s.blends_colors, s.trained_resolution = config.interpolation == "color", config.trained_resolution
    for name, array in arrays.items():
        setattr(s, name, pointer(array))


def pyramid_arrays(model: PyNeRF, clamps: bool) -> dict[str, Tensor]:
    """What `Scene` of cuda/scene.cuh needs of a pyramid beside its parameters. `clamps`: to the levels trained."""
    config = model.config
    density = [weights_in(config.density_shapes(head)) for head in range(config.num_levels)]
    starts = np.cumsum([0, *density[:-1]])
    layers = [[count, int(starts[i]), model.color_start(i)] for i, count in enumerate(config.grid_counts)]
    logs, steps = model.octree.log2_steps
    arrays = {
        "grids": torch.from_numpy(np.maximum(grid_starts(config)[0], 0)).int(),
        "head_layers": torch.tensor(layers, dtype=torch.int32),
        "gsds": torch.from_numpy(np.stack([logs, 1 / steps, model.octree.gsds], -1)).float(),
    }
    if clamps:
        arrays["trained"] = (model.trained[0].int() | model.trained[1].int() << 8).contiguous()
    return {name: array.contiguous() for name, array in arrays.items()}
