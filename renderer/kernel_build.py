"""How the kernels in `cuda/` become CPU libraries: variants, flags, hash and command line, in one place.

Used by `setup.py` while a wheel is built (loaded by its path, so this file imports the standard library only), by
`renderer/kernels.py` at run time, and by the sanitizer tests. Flags and their reasons: `docs/dependencies.md`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Variant:
    """One instruction set that the library is built for."""

    name: str
    machine: str  # as `platform.machine()` says it
    march: str  # in GCC's spelling; zig writes the same with underscores
    cpu_flags: frozenset[str]  # names in /proc/cpuinfo that a processor must list


_AVX2 = frozenset({"avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

#: Best first for each machine; the last one of a machine runs on every processor of it.
VARIANTS: dict[str, Variant] = {
    v.name: v
    for v in (
        Variant("x86_64_v4", "x86_64", "x86-64-v4", _AVX512),
        Variant("x86_64_v3", "x86_64", "x86-64-v3", _AVX2),
        Variant("x86_64", "x86_64", "x86-64", frozenset()),
        Variant("aarch64", "aarch64", "armv8-a", frozenset()),
    )
}

#: Never -ffast-math: GCC then links crtfastmath, and loading the library turns denormals off for the whole process.
FLAGS: tuple[str, ...] = (
    "-O2",
    "-std=c++17",
    "-fPIC",
    "-shared",
    "-fno-math-errno",
    "-fno-signed-zeros",
    "-ffinite-math-only",
)
#: Zig links libc++ unless told not to, and builds it first (45 s); the kernels use no `std::`.
ZIG_FLAGS: tuple[str, ...] = ("-nostdlib++", "-g0", "-s")
#: The oldest C library that the prebuilt libraries run with.
ZIG_GLIBC = "linux-gnu.2.17"
SANITIZE_FLAGS: tuple[str, ...] = (
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-fno-sanitize-recover=undefined",
)

ENTRY = "cpu.cpp"
SOURCE_SUFFIXES = (".cpp", ".cu", ".cuh", ".h")


class KernelBuildError(RuntimeError):
    """A compiler is missing, failed or said no; the message holds the first lines of what it said."""


def source_files(cuda_dir: Path) -> list[Path]:
    """Every source in `cuda_dir`, sorted by name, so that a new header can't be forgotten."""
    return sorted(p for p in Path(cuda_dir).iterdir() if p.suffix in SOURCE_SUFFIXES)


def source_hash(cuda_dir: Path) -> str:
    """16 hexadecimal digits over the names and bytes of all sources, the flags and the variants.

    A library exports the hash it was built from (`kernel_source_hash()`), so a stale one is never used.
    """
    digest = hashlib.sha256()
    for path in source_files(cuda_dir):
        data = path.read_bytes()
        digest.update(f"{path.name}\0{len(data)}\0".encode())
        digest.update(data)
    variants = [(v.name, v.march) for v in VARIANTS.values()]
    digest.update(repr((FLAGS, ZIG_FLAGS, ZIG_GLIBC, variants)).encode())
    return digest.hexdigest()[:16]


def library_name(variant: str) -> str:
    """The file name of a variant's library.

    >>> library_name("x86_64_v3")
    '_kernels_x86_64_v3.so'
    """
    return f"_kernels_{_variant(variant).name}.so"


def machine_variants(machine: str | None = None) -> list[str]:
    """The variants of a kind of machine, best first; empty where none is known.

    >>> machine_variants("x86_64")
    ['x86_64_v4', 'x86_64_v3', 'x86_64']
    """
    machine = (machine or platform.machine()).lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    return [v.name for v in VARIANTS.values() if v.machine == machine]


@functools.cache
def cpu_variants() -> list[str]:
    """The variants that this very processor runs, best first (Linux tells; elsewhere only the plain one is safe)."""
    flags: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                flags.update(line.split(":", 1)[1].split())
                break
    except OSError:
        pass
    return [name for name in machine_variants() if VARIANTS[name].cpu_flags <= flags]


def compilers() -> list[list[str]]:
    """The compilers found here, in order of preference: zig (whose output was measured fastest), then the system's."""
    found: list[list[str]] = []
    if importlib.util.find_spec("ziglang") is not None:
        found.append([sys.executable, "-m", "ziglang", "c++"])
    for name in (os.environ.get("CXX", ""), "clang++", "g++"):
        path = shutil.which(name) if name else None
        if path and [path] not in found:
            found.append([path])
    return found


def compile_command(
    compiler: Sequence[str] | str,
    variant: str,
    cuda_dir: Path,
    out: Path,
    sanitize: str | None = None,  # e.g. "address,undefined"
    entry: str = ENTRY,
) -> list[str]:
    """The command line that builds `entry` of `cuda_dir` into `out`. Raises `ValueError` for an unknown variant."""
    command = [compiler] if isinstance(compiler, str) else list(compiler)
    chosen = _variant(variant)
    zig = "ziglang" in command or Path(command[0]).name.startswith("zig")
    if zig:
        march = chosen.march.replace("-", "_") if chosen.machine == "x86_64" else "generic"
        command += ["-target", f"{chosen.machine}-{ZIG_GLIBC}", f"-mcpu={march}"]
    else:
        command += [f"-march={chosen.march}"]
    command += FLAGS
    if zig:
        command += ZIG_FLAGS
    if sanitize:
        command += [f"-fsanitize={sanitize}", *SANITIZE_FLAGS]
    cuda_dir = Path(cuda_dir)
    command += [f"-DKERNEL_SOURCE_HASH={source_hash(cuda_dir)}", f"-I{cuda_dir}"]
    return [*command, "-o", str(out), str(cuda_dir / entry)]


def build(
    compiler: Sequence[str] | str,
    variant: str,
    cuda_dir: Path,
    out: Path,
    sanitize: str | None = None,
    timeout: float = 300.0,  # s; the first run of zig fills its cache
    entry: str = ENTRY,
) -> Path:
    """Compiles one variant into `out` by way of a temporary file, so that no half-written library is ever loaded.

    Raises `KernelBuildError` with the compiler's first lines.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".kernels-") as folder:
        built = Path(folder) / out.name
        command = compile_command(compiler, variant, cuda_dir, built, sanitize, entry)
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KernelBuildError(f"building the {variant} kernels with {command[0]} failed: {error}") from error
        if result.returncode != 0 or not built.is_file():
            said = "\n".join((result.stderr or result.stdout).strip().splitlines()[:20])
            raise KernelBuildError(f"building the {variant} kernels with {' '.join(command[:4])} failed:\n{said}")
        os.replace(built, out)
    return out


def _variant(name: str) -> Variant:
    if name not in VARIANTS:
        raise ValueError(f"kernel variant must be one of {', '.join(VARIANTS)}, got {name!r}")
    return VARIANTS[name]
