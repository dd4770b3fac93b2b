"""`infnerf-view --doctor`: looks at OpenGL, CUDA and the executors, and says what would help. Never raises."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..renderer.cliutil import say
from .diagnosis import VARIABLES, Facts, report


def run_doctor() -> int:
    """Prints the report. Returns the exit code: 0, or 1 where nothing can be shown at all."""
    facts = gather()
    print("\n".join(report(facts)))
    if facts.can_show:
        return 0
    say("infnerf-view: nothing can be shown here, no executor works")
    return 1


def gather() -> Facts:
    """Looks everywhere; what fails is a fact as well."""
    found: dict[str, Any] = {}
    for look in (_system, _cuda_packages, _cuda_devices, _executor, _opengl):  # OpenGL last: it tries the paths
        try:
            found |= look(found)
        except Exception as error:
            found.setdefault("devices_error", f"{look.__name__.strip('_')}: {_line(error)}")
    return Facts(**found)


def _system(_: dict[str, Any]) -> dict[str, Any]:
    display = " ".join(
        f"{name} {os.environ[variable]}"
        for name, variable in (("X", "DISPLAY"), ("Wayland", "WAYLAND_DISPLAY"))
        if os.environ.get(variable)
    )
    return {
        "platform": sys.platform,
        "wsl": "microsoft" in platform.release().lower(),
        "container": any(Path(path).exists() for path in ("/.dockerenv", "/run/.containerenv")),
        "display": display if sys.platform.startswith("linux") else "the system's",
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "cards": _cards(Path("/sys/bus/pci/devices")),
        "driver": _driver(),
    }


def _cards(folder: Path) -> tuple[str, ...]:
    """Vendors of the display controllers in `folder`, as Linux lists the PCI bus."""
    vendors = []
    for device in sorted(folder.iterdir()) if folder.is_dir() else []:
        with contextlib.suppress(OSError):
            if (device / "class").read_text().startswith("0x03"):
                vendors.append((device / "vendor").read_text().strip())
    return tuple(vendors)


def _driver() -> str:
    """Number of NVIDIA's driver as its kernel module tells it, or nvidia-smi where there is no such module (WSL)."""
    with contextlib.suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text()
        if number := re.search(r"\b(\d{3}\.\d+(\.\d+)?)\b", text):
            return number[1]
    import subprocess

    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        out = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()
        return out[0] if out else ""
    return ""


def _cuda_packages(_: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = (str(distribution.name or "") for distribution in importlib.metadata.distributions())
    found["cupy_packages"] = tuple(sorted({name for name in names if re.fullmatch(r"cupy(-cuda\d+x?)?", name)}))
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["bindings"] = importlib.metadata.version("cuda-bindings")
    if "bindings" in found:
        try:
            runtime = importlib.import_module("cuda.bindings.runtime")
            found["bindings_cuda"] = int(runtime.cudaRuntimeGetVersion()[1])
        except Exception as error:
            found["bindings_error"] = f"does not load: {_line(error)}"
    if found["cupy_packages"]:
        try:
            cupy = importlib.import_module("cupy")
            found["cupy"] = str(cupy.__version__)
            found["cupy_cuda"] = int(cupy.cuda.runtime.runtimeGetVersion())
            cupy.cuda.nvrtc.getVersion()  # loads the compiler, which is what is missing most often
        except Exception as error:
            found["cupy_error"] = _line(error)
    return found


def _cuda_devices(found: dict[str, Any]) -> dict[str, Any]:
    """By torch's, CuPy's or cuda-bindings' runtime, whichever is there."""
    if found.get("bindings_cuda"):
        runtime = importlib.import_module("cuda.bindings.runtime")
        return _devices(
            lambda: int(runtime.cudaDriverGetVersion()[1]),
            lambda: _count(runtime.cudaGetDeviceCount()),
            lambda number: runtime.cudaGetDeviceProperties(number)[1].name,
        )
    if found.get("cupy_cuda"):
        runtime = importlib.import_module("cupy").cuda.runtime
        return _devices(
            runtime.driverGetVersion, runtime.getDeviceCount, lambda number: runtime.getDeviceProperties(number)["name"]
        )
    import torch

    if torch.version.cuda is None or not torch.cuda.is_available():
        return {"devices_error": "nothing is installed that could ask for one"} if found.get("driver") else {}
    major, minor = (int(part) for part in torch.version.cuda.split(".")[:2])
    return _devices(lambda: 1000 * major + 10 * minor, torch.cuda.device_count, torch.cuda.get_device_name)


def _count(answer: tuple[Any, Any]) -> int:
    if int(answer[0]) != 0:
        raise RuntimeError(answer[0].name)
    return int(answer[1])


def _devices(version: Callable[[], int], count: Callable[[], int], name: Callable[[int], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"driver_cuda": version()}
    if not found["driver_cuda"]:
        return found | {"devices_error": "no driver"}
    try:
        names = [name(number) for number in range(count())]
        found["devices"] = tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names)
    except Exception as error:
        found["devices_error"] = _line(error)
    return found


def _executor(_: dict[str, Any]) -> dict[str, Any]:
    """What `auto` takes for the demo, which is what opens without a checkpoint."""
    from ..renderer import kernels

    found: dict[str, Any] = {}
    try:
        found["kernels"] = f"{kernels.load_kernels().describe()}, {kernels.n_threads()} threads"
    except Exception as error:
        found["kernels"] = f"none: {_line(error)}"
    try:
        from ..renderer.renderer import DEMO, Renderer

        with Renderer.from_checkpoint(DEMO, "auto") as renderer:
            found |= {"executor": renderer.executor.name, "executor_reason": renderer.reason}
    except Exception as error:
        found["executor_reason"] = _line(error)
    return found


def _opengl(found: dict[str, Any]) -> dict[str, Any]:
    """In a window that is not shown; without a display on a device."""
    from .window import Window, WindowError

    looked: dict[str, Any] = {}
    try:
        if found.get("display"):
            with Window(64, 64, "infnerf-view --doctor", visible=False):
                return _context("a window", found)
    except WindowError as error:
        looked["gl_error"] = _line(error)
    try:
        from .windowless import windowless_context

        with windowless_context() as where:
            return looked | _context(f"{where}, no window", found)
    except WindowError as error:
        return {"gl_error": _line(error)} | looked


def _context(where: str, found: dict[str, Any]) -> dict[str, Any]:
    """What the current context says of itself, and whether CUDA reaches it."""
    from OpenGL import GL

    text = functools.partial(_gl_text, GL)
    looked: dict[str, Any] = {"gl_on": where, "gl_error": ""}
    looked |= {"gl_vendor": text("VENDOR"), "gl_renderer": text("RENDERER"), "gl_version": text("VERSION")}
    if not found.get("bindings_cuda") or not found.get("devices"):
        return looked
    from ..renderer.interop import InteropError
    from ..renderer.interop_cuda import CudaGL
    from .path_check import check_paths

    try:
        driver = CudaGL(importlib.import_module("cuda.bindings.runtime"))
        looked["gl_devices"] = tuple(driver.gl_devices())
        driver.close()
    except InteropError as error:
        return looked | {"gl_devices_error": _line(error)}
    return looked | {"paths": check_paths()}


def _gl_text(GL: Any, name: str) -> str:
    value = GL.glGetString(getattr(GL, f"GL_{name}")) or b"unknown"
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
