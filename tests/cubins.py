"""CUDA sources compiled for real GPUs with NVRTC, which needs neither GPU nor driver, and what each kernel takes there.

NVRTC comes from the wheel nvidia-cuda-nvrtc (extra `dev`), called by ctypes; headers are handed over in memory.
`python tests/cubins.py` writes `tests/kernel_resources.csv` anew: the registers, shared memory and stack that each
kernel may take, one line a kernel and architecture. Read the difference before you commit it.
"""

from __future__ import annotations

import csv
import ctypes
import functools
import importlib.metadata
import re
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

CUDA = Path(__file__).resolve().parents[1] / "cuda"
TABLE = Path(__file__).with_name("kernel_resources.csv")
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_120")
#: What CuPy adds by itself when it compiles a RawModule; the same here, so that both see the same program.
OPTIONS = ("--std=c++17", "-default-device", "-ftz=true", "--ptxas-options=-v", "-DINFNERF_SOURCE=test")
#: Sources that are compiled for a model: the default config's shape beside the one that holds all; or for its kind.
VARIANTS = {
    "shade_mma.cu": ("", "-DSHADE_FEATURES=16 -DSHADE_HIDDEN=32 -DSHADE_OUTPUTS=16"),
    **dict.fromkeys(("render.cu", "shade.cu", "wave.cu"), ("", "-DPYRAMID=1")),
}


@dataclass(frozen=True)
class Resources:
    """What one kernel takes on one architecture."""

    source: str
    options: str
    kernel: str
    architecture: str
    registers: int  # of a thread
    shared: int  # bytes of a block, static
    stack: int  # bytes of a thread, in local memory: arrays with an index that changes
    spills: int  # bytes stored and loaded

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.source, self.options, self.kernel, self.architecture


def programs() -> list[tuple[str, str]]:
    """(source, options) of everything in `cuda/` that is compiled for GPUs."""
    return [(path.name, options) for path in sorted(CUDA.glob("*.cu")) for options in VARIANTS.get(path.name, ("",))]


@functools.cache
def nvrtc() -> ctypes.CDLL:
    files = importlib.metadata.files("nvidia-cuda-nvrtc") or []
    # Loaded first and for all: libnvrtc looks its builtins up by name.
    for name in ("libnvrtc-builtins.so", "libnvrtc.so"):
        (path,) = [Path(str(file.locate())) for file in files if file.name.startswith(name)]
        library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return library


def compile_cubin(source: str, name: str, architecture: str, *options: str) -> tuple[bytes, str]:
    """(cubin, log). Raises `RuntimeError` with the compiler's log."""
    library = nvrtc()
    headers = {path.name: path.read_bytes() for path in CUDA.iterdir() if path.suffix in (".cuh", ".h", ".cu")}
    program = ctypes.c_void_p()
    texts = (ctypes.c_char_p * len(headers))(*headers.values())
    names = (ctypes.c_char_p * len(headers))(*[header.encode() for header in headers])
    check(library.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), name.encode(), len(headers), texts, names
    ))  # fmt: skip
    try:
        every = [option.encode() for option in (f"--gpu-architecture={architecture}", *OPTIONS, *options)]
        status = library.nvrtcCompileProgram(program, len(every), (ctypes.c_char_p * len(every))(*every))
        log = text_of(program, "ProgramLog").decode()
        if status:
            raise RuntimeError(f"{name} for {architecture}: {log}")
        return text_of(program, "CUBIN"), log
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def text_of(program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    check(getattr(nvrtc(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    check(getattr(nvrtc(), f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def check(status: int) -> None:
    assert status == 0, f"NVRTC error {status}"


def resources(log: str, source: str, options: str, architecture: str) -> list[Resources]:
    """What ptxas says of each kernel. Spills of a function that a kernel calls count as the kernel's."""
    found = []
    parts = re.split(r"Compiling entry function '(\w+)'", log)[1:]
    for kernel, said in zip(parts[::2], parts[1::2], strict=True):
        registers = re.search(r"Used (\d+) registers", said)
        assert registers, f"ptxas names no registers of {kernel}:\n{log}"
        shared, stack, spills = (
            sum(map(int, re.findall(rf"(\d+) bytes {what}", said)))
            for what in ("smem", "stack frame", "spill (?:stores|loads)")
        )
        found.append(Resources(source, options, kernel, architecture, int(registers[1]), shared, stack, spills))
    assert found, f"the log names no kernel:\n{log}"
    return found


@functools.cache
def measured(source: str, options: str, architecture: str) -> tuple[list[Resources], bytes, float]:
    """Kernels of one program, its cubin, and the seconds that compiling took."""
    began = time.perf_counter()
    cubin, log = compile_cubin((CUDA / source).read_text(), source, architecture, *options.split())
    return resources(log, source, options, architecture), cubin, time.perf_counter() - began


def version() -> str:
    return importlib.metadata.version("nvidia-cuda-nvrtc")


def read_table(path: Path = TABLE) -> tuple[str, dict[tuple[str, str, str, str], Resources]]:
    """The version of NVRTC that the table is of, and its lines."""
    first, *lines = path.read_text().splitlines()
    rows = []
    for source, options, kernel, architecture, *numbers in list(csv.reader(lines))[1:]:
        registers, shared, stack, spills = map(int, numbers)
        rows.append(Resources(source, options, kernel, architecture, registers, shared, stack, spills))
    return first.removeprefix("# nvrtc "), {row.key: row for row in rows}


def write_table(path: Path = TABLE) -> None:
    """Compiles everything and writes what it takes."""
    with path.open("w", newline="") as file:
        file.write(f"# nvrtc {version()}\n")
        writer = csv.DictWriter(file, [field.name for field in fields(Resources)], lineterminator="\n")
        writer.writeheader()
        for source, options in programs():
            for architecture in ARCHITECTURES:
                for row in measured(source, options, architecture)[0]:
                    print(row)
                    writer.writerow(asdict(row))


if __name__ == "__main__":
    write_table()
