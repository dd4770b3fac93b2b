"""Builds the CPU kernels into the wheel, so that a user needs no compiler; everything else is in `pyproject.toml`."""

from __future__ import annotations

import importlib.util
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def load_kernel_build() -> ModuleType:
    """`renderer/kernel_build.py` by its path: the package itself can't be imported before it is installed."""
    spec = importlib.util.spec_from_file_location("kernel_build", ROOT / "renderer" / "kernel_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class BuildKernels(build_ext):
    """Compiles every variant for this kind of machine. A failure leaves the libraries out: the viewer then compiles
    them on first use or renders with torch, and says so. With INFNERF_REQUIRE=cc it fails the build instead.
    """

    def run(self) -> None:
        self._built: list[Path] = []
        kernels = load_kernel_build()
        in_place = bool(self.inplace or self.editable_mode)
        folder = ROOT / "renderer" if in_place else Path(self.build_lib) / "infnerf" / "renderer"
        try:
            self._built = self._compile(kernels, folder)
        except (kernels.KernelBuildError, OSError) as error:
            if "cc" in os.environ.get("INFNERF_REQUIRE", "").split(","):
                raise SystemExit(f"infnerf-view: INFNERF_REQUIRE=cc, and {error}") from error
            print(f"infnerf-view: no CPU kernels in this build ({error}); the install goes on without them", flush=True)

    def _compile(self, kernels: ModuleType, folder: Path) -> list[Path]:
        cuda = ROOT / "cuda"
        variants = kernels.machine_variants()
        compilers = kernels.compilers()
        if not variants:
            raise kernels.KernelBuildError("no variant of the kernels is known for this kind of processor")
        if not compilers:
            raise kernels.KernelBuildError("neither ziglang nor a C++ compiler was found")

        def one(variant: str) -> Path:
            path = kernels.build(compilers[0], variant, cuda, folder / kernels.library_name(variant))
            print(f"infnerf-view: built {path.name} ({path.stat().st_size // 1024} KiB)", flush=True)
            return path

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, variants))

    def get_outputs(self) -> list[str]:
        return [str(path) for path in getattr(self, "_built", [])]

    def get_output_mapping(self) -> dict[str, str]:
        return {}  # an editable install writes the libraries in place: nothing to map

    def get_source_files(self) -> list[str]:
        return [str(path.relative_to(ROOT)) for path in load_kernel_build().source_files(ROOT / "cuda")]


class PlatformWheel(bdist_wheel):
    """The libraries are called by ctypes: they depend on the processor, not on the version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


ROOMS = ("viewer", "renderer", "training", "data", "models")
DATA = ("cuda", "shaders", "assets")  # no __init__.py there: they are found beside the rooms, by path

packages = [f"infnerf.{name}" for name in (*ROOMS, *DATA)]
for room in ROOMS:
    packages += [f"infnerf.{room}.{inner}" for inner in find_packages(str(ROOT / room))]

setup(
    packages=packages,
    package_dir={f"infnerf.{name}": name for name in (*ROOMS, *DATA)},
    ext_modules=[Extension("infnerf.renderer._kernels", sources=[])],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
)
