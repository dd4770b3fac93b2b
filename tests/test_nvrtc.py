"""Every kernel of `cuda/` compiled for real GPUs with NVRTC: no GPU and no driver needed, and no register may spill.

NVRTC comes from the wheel nvidia-cuda-nvrtc (extra `dev`), called by ctypes; headers are handed over in memory.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import re
from pathlib import Path

import pytest

CUDA = Path(__file__).resolve().parents[1] / "cuda"
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_120")
#: What CuPy adds by itself when it compiles a RawModule; the same here, so that both see the same program.
OPTIONS = ("--std=c++17", "-default-device", "-ftz=true", "--ptxas-options=-v", "-DINFNERF_SOURCE=test")


@functools.cache
def nvrtc() -> ctypes.CDLL:
    files = importlib.metadata.files("nvidia-cuda-nvrtc") or []
    # Loaded first and for all: libnvrtc looks its builtins up by name.
    for name in ("libnvrtc-builtins.so", "libnvrtc.so"):
        (path,) = [Path(str(file.locate())) for file in files if file.name.startswith(name)]
        library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return library


def compile_cubin(source: str, name: str, architecture: str) -> tuple[bytes, str]:
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
        options = [option.encode() for option in (f"--gpu-architecture={architecture}", *OPTIONS)]
        status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
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


def spills(log: str) -> list[str]:
    """Lines of the log in which ptxas says that registers were spilled."""
    return [line for line in log.splitlines() if re.search(r"[1-9]\d* bytes spill", line)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("path", sorted(CUDA.glob("*.cu")), ids=lambda path: path.name)
def test_every_kernel_compiles_without_spills(path: Path, architecture: str) -> None:
    cubin, log = compile_cubin(path.read_text(), path.name, architecture)
    assert cubin[:4] == b"\x7fELF"
    used = re.findall(r"Compiling entry function '(\w+)'|Used (\d+) registers", log)
    assert used, f"the log names no kernel:\n{log}"
    print(f"{path.name} {architecture}:", ", ".join(name or f"{registers} registers" for name, registers in used))
    assert spills(log) == [], log


def test_a_broken_source_is_refused_with_its_line() -> None:
    path = CUDA / "render.cu"
    broken = path.read_text() + "\n__global__ void broken() { undeclared_name = 1; }\n"
    with pytest.raises(RuntimeError, match="undeclared_name"):
        compile_cubin(broken, "broken.cu", "sm_80")


def test_a_spill_is_seen() -> None:
    """300 live values in at most 32 registers: ptxas must spill, and the check must say so."""
    source = """
    __global__ void __launch_bounds__(1024, 2) crowded(float *x) {
        float v[300];
        #pragma unroll
        for (int i = 0; i < 300; i++) v[i] = x[i * blockDim.x + threadIdx.x];
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < 300; i++) x[i * blockDim.x + threadIdx.x] = v[299 - i] * v[(i * 7) % 300];
    }"""
    _, log = compile_cubin(source, "crowded.cu", "sm_80")
    assert spills(log) != []
