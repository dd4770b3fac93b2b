"""What the doctor makes of a machine: facts in, findings and a report out. Pure: `doctor.py` gathers the facts.

Lines that mend a case are quoted from the vendors: NVIDIA's driver README (PRIME render offload), its table of drivers
and CUDA versions, Mesa's environment variables, WSLg's wiki (choice of a GPU), CuPy's installation guide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .window import APT_LINE

SOFTWARE = ("llvmpipe", "softpipe", "swrast", "SwiftShader")
NVIDIA_PCI = "0x10de"
DRIVER_OF = {12: "525", 13: "580"}  # CUDA major -> the oldest driver that runs it
PIP_CUDA = {
    12: 'pip install "cupy-cuda12x>=14,<15" "cuda-bindings>=12.9.4,<13"',  # 12.9.3 hands out null handles
    13: 'pip install "cupy-cuda13x>=14,<15" "cuda-bindings>=13,<14"',
}
PRIME = "__NV_PRIME_RENDER_OFFLOAD=1 __GLX_VENDOR_LIBRARY_NAME=nvidia infnerf-view"
VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "GALLIUM_DRIVER", "LIBGL_ALWAYS_SOFTWARE", "MESA_D3D12_DEFAULT_ADAPTER_NAME",
    "NVIDIA_DRIVER_CAPABILITIES", "__EGL_VENDOR_LIBRARY_FILENAMES", "__GLX_VENDOR_LIBRARY_NAME",
    "__NV_PRIME_RENDER_OFFLOAD",
)  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """What was found. An empty text or tuple means that there is none; `*_error` says why where that is known."""

    platform: str = "linux"  # as sys.platform
    wsl: bool = False
    container: bool = False
    display: str = ""  # "X :0"
    environment: Mapping[str, str] = field(default_factory=dict)  # those of VARIABLES that are set
    cards: tuple[str, ...] = ()  # PCI vendors of display controllers
    gl_vendor: str = ""
    gl_renderer: str = ""
    gl_version: str = ""
    gl_on: str = ""  # "a window" or the EGL device
    gl_error: str = ""
    driver: str = ""  # NVIDIA's, "580.65.06"
    driver_cuda: int = 0  # newest CUDA that it runs, 13000 for 13.0
    devices: tuple[str, ...] = ()  # names of CUDA devices, by ordinal
    devices_error: str = ""
    gl_devices: tuple[int, ...] = ()  # CUDA ordinals behind the OpenGL context
    gl_devices_error: str = ""
    bindings: str = ""  # version of cuda-bindings
    bindings_cuda: int = 0
    bindings_error: str = ""
    cupy: str = ""  # version
    cupy_cuda: int = 0
    cupy_packages: tuple[str, ...] = ()  # installed distributions
    cupy_error: str = ""
    executor: str = ""  # that `auto` takes
    executor_reason: str = ""  # or why there is none
    kernels: str = ""  # the CPU kernels
    paths: Mapping[str, str] = field(default_factory=dict)  # path tried -> why it does not work; empty: it works

    @property
    def software(self) -> bool:
        """OpenGL is drawn by the processor."""
        return any(name.lower() in self.gl_renderer.lower() for name in SOFTWARE)

    @property
    def nvidia_gl(self) -> bool:
        return "nvidia" in self.gl_vendor.lower()

    @property
    def can_show(self) -> bool:
        """Whether a picture can be made at all, if only into a file."""
        return bool(self.executor)


@dataclass(frozen=True)
class Finding:
    """A sentence, and the line to type that mends it; empty where nothing does."""

    text: str
    line: str = ""


def diagnose(facts: Facts) -> list[Finding]:
    """What keeps this machine from more, most important first; empty where nothing does."""
    checks = (_executor, _opengl, _software, _adapter, _driver, _cuda, _cupy, _bindings, _paths, _display)
    return [finding for check in checks if (finding := check(facts)) is not None]


def _executor(facts: Facts) -> Finding | None:
    if facts.can_show:
        return None
    return Finding(
        f"Nothing can be shown: no executor works ({facts.executor_reason}).",
        "pip install --force-reinstall infnerf-view",
    )


def _opengl(facts: Facts) -> Finding | None:
    if facts.gl_renderer:
        return None
    return Finding(
        f"There is no OpenGL 3.3 ({facts.gl_error}): no window, but stills and videos work.",
        f"sudo {APT_LINE}" if facts.platform == "linux" else "",
    )


def _software(facts: Facts) -> Finding | None:
    """The processor draws the window."""
    if not facts.software:
        return None
    if facts.environment.get("LIBGL_ALWAYS_SOFTWARE", "0").lower() not in ("", "0", "false", "no"):
        return Finding(
            "OpenGL runs on the processor because LIBGL_ALWAYS_SOFTWARE asks for it.", "unset LIBGL_ALWAYS_SOFTWARE"
        )
    if facts.environment.get("GALLIUM_DRIVER", "") in ("llvmpipe", "softpipe"):
        return Finding("OpenGL runs on the processor because GALLIUM_DRIVER asks for it.", "unset GALLIUM_DRIVER")
    if facts.wsl:
        return Finding(
            "OpenGL runs on the processor: Mesa in WSL did not take Windows' graphics driver.",
            "GALLIUM_DRIVER=d3d12 infnerf-view",
        )
    if facts.devices and facts.container:
        return Finding(
            "OpenGL runs on the processor: this container was given the NVIDIA driver's CUDA part only.",
            "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=all ...",
        )
    if facts.devices or facts.driver:
        return Finding("OpenGL runs on the processor although there is an NVIDIA driver.", PRIME)
    if facts.cards:
        return Finding(
            "OpenGL runs on the processor although there is a graphics card: its driver is missing.",
            "" if NVIDIA_PCI in facts.cards else "sudo apt-get install -y libgl1-mesa-dri",
        )
    return Finding("OpenGL runs on the processor, and no graphics card is there to do it instead.")


def _adapter(facts: Facts) -> Finding | None:
    """A graphics card draws the window, but not the one that CUDA has."""
    if not facts.gl_renderer or facts.software or facts.nvidia_gl or not (facts.devices or facts.driver):
        return None
    if facts.wsl:
        if "nvidia" in facts.gl_renderer.lower():
            return Finding(
                "OpenGL in WSL is drawn through Direct3D, which CUDA can't write to: pictures are copied over the host."
            )
        return Finding(
            f"OpenGL is drawn by {facts.gl_renderer}, not by the NVIDIA GPU.",
            "MESA_D3D12_DEFAULT_ADAPTER_NAME=NVIDIA infnerf-view",
        )
    text = f"OpenGL is drawn by {facts.gl_renderer}, CUDA computes on another GPU: pictures are copied over the host."
    if facts.platform == "win32":
        return Finding(f"{text} Settings > System > Display > Graphics: choose high performance for python.exe.")
    return Finding(text, PRIME)


def _driver(facts: Facts) -> Finding | None:
    """NVIDIA's driver is missing or too old."""
    if not facts.driver and not facts.driver_cuda:
        if NVIDIA_PCI not in facts.cards:
            return None
        if facts.wsl:
            return Finding("There is an NVIDIA GPU without a driver: install it in Windows, and none in WSL.")
        return Finding("There is an NVIDIA GPU without its driver.", "sudo ubuntu-drivers install")
    needed, found = max(facts.cupy_cuda, facts.bindings_cuda) // 1000, facts.driver_cuda // 1000
    if not 0 < found < needed:
        return None
    text = (
        f"The NVIDIA driver {facts.driver} runs CUDA {_version(facts.driver_cuda)} and older, but CuPy and "
        f"cuda-bindings are for CUDA {needed}, which takes driver {DRIVER_OF.get(needed, 'newer')} or later"
    )
    if found not in PIP_CUDA:
        return Finding(
            f"{text}: update the driver.", "sudo ubuntu-drivers install" if facts.platform == "linux" else ""
        )
    uninstall = f"pip uninstall -y {' '.join(facts.cupy_packages)} && " if facts.cupy_packages else ""
    return Finding(f"{text}. Update the driver, or take those for CUDA {found}.", f"{uninstall}{PIP_CUDA[found]}")


def _cuda(facts: Facts) -> Finding | None:
    """There is a driver but no device."""
    if facts.devices or not facts.driver_cuda:
        return None
    if "CUDA_VISIBLE_DEVICES" in facts.environment:
        hidden = facts.environment["CUDA_VISIBLE_DEVICES"]
        return Finding(f"CUDA_VISIBLE_DEVICES={hidden} leaves no CUDA device.", "unset CUDA_VISIBLE_DEVICES")
    if facts.devices_error:
        return Finding(f"There is an NVIDIA driver, but CUDA has no device ({facts.devices_error}).", "nvidia-smi")
    return None


def _cupy(facts: Facts) -> Finding | None:
    """CuPy is missing, there twice, or does not load."""
    if not facts.driver_cuda:
        return None
    major = min(facts.driver_cuda // 1000, max(PIP_CUDA))
    install = PIP_CUDA.get(major, PIP_CUDA[max(PIP_CUDA)])
    if not facts.cupy_packages and not facts.cupy:
        return Finding("CuPy is not installed: the cuda executor needs it.", install)
    if len(facts.cupy_packages) > 1:
        names = " ".join(facts.cupy_packages)
        text = f"CuPy is installed {len(facts.cupy_packages)} times ({names}), and these overwrite each other."
        return Finding(text, f"pip uninstall -y {names} && {install}")
    if facts.cupy_error:
        toolkit = install.replace("x>=", "x[ctk]>=")
        return Finding(f"CuPy does not work ({facts.cupy_error}).", f"{toolkit} --force-reinstall")
    return None


def _bindings(facts: Facts) -> Finding | None:
    if not facts.driver_cuda or not (facts.cupy or facts.cupy_packages):  # CuPy's line brings both
        return None
    if facts.bindings_cuda and facts.bindings != "12.9.3":
        return None
    major = min(facts.driver_cuda // 1000, max(PIP_CUDA))
    package = PIP_CUDA.get(major, PIP_CUDA[max(PIP_CUDA)]).split(" ")[-1]
    what = facts.bindings_error or ("12.9.3 registers no textures" if facts.bindings else "is not installed")
    return Finding(f"cuda-bindings {what}: pictures are copied over the host.", f"pip install {package}")


def _paths(facts: Facts) -> Finding | None:
    """OpenGL and CUDA are NVIDIA's, and still do not meet."""
    if not facts.nvidia_gl or not facts.devices or not facts.bindings:
        return None
    if not facts.gl_devices:
        line = "unset CUDA_VISIBLE_DEVICES" if "CUDA_VISIBLE_DEVICES" in facts.environment else ""
        why = facts.gl_devices_error or "it is none of CUDA's devices"
        return Finding(f"CUDA can't use the GPU that draws OpenGL ({why}): pictures are copied over the host.", line)
    broken = [f"{name}: {why}" for name, why in facts.paths.items() if why]
    return Finding(f"A path from CUDA to the screen does not work ({'; '.join(broken)}).") if broken else None


def _display(facts: Facts) -> Finding | None:
    if facts.display or facts.platform != "linux":
        return None
    return Finding("There is no display: stills and videos only.", "infnerf-view --headless")


def report(facts: Facts) -> list[str]:
    """The lines that the doctor prints."""
    variables = ", ".join(f"{name}={value}" for name, value in facts.environment.items())
    rows = [
        ("Display", facts.display or "none"),
        ("OpenGL", _opengl_row(facts)),
        ("CUDA", _cuda_row(facts)),
        ("Versions", _versions_row(facts)),
        ("Same GPU", _same_row(facts)),
        ("Executor", facts.executor_reason or "none"),
        ("CPU kernels", facts.kernels or "none"),
        ("To the screen", _path_row(facts)),
        ("Environment", variables or "nothing set that matters here"),
    ]
    findings = diagnose(facts)
    lines = [f"{name + ':':<15}{value}" for name, value in rows]
    lines += ["", "What would help:" if findings else "Nothing to mend."]
    for finding in findings:
        lines.append(f"- {finding.text}")
        if finding.line:
            lines.append(f"      {finding.line}")
    return lines


def _opengl_row(facts: Facts) -> str:
    if not facts.gl_renderer:
        return f"none ({facts.gl_error})"
    return f"{facts.gl_renderer}; {facts.gl_vendor}; {facts.gl_version}; in {facts.gl_on}"


def _cuda_row(facts: Facts) -> str:
    if not facts.devices:
        return f"no device ({facts.devices_error or 'no driver'})"
    return ", ".join(f"device {number}: {name}" for number, name in enumerate(facts.devices))


def _versions_row(facts: Facts) -> str:
    driver = f"driver {facts.driver or 'of unknown number'}, up to CUDA {_version(facts.driver_cuda)}"
    bindings = f"cuda-bindings {facts.bindings}, CUDA {_version(facts.bindings_cuda)}"
    cupy = f"CuPy {facts.cupy}, CUDA {_version(facts.cupy_cuda)}"
    return "; ".join(
        (
            driver if facts.driver or facts.driver_cuda else "no NVIDIA driver",
            bindings if facts.bindings else "no cuda-bindings",
            cupy if facts.cupy else "no CuPy",
        )
    )


def _same_row(facts: Facts) -> str:
    if not facts.gl_renderer:
        return "no, there is no OpenGL"
    if facts.gl_devices:
        return f"yes, CUDA device {', '.join(map(str, facts.gl_devices))} draws OpenGL, too"
    if facts.software:
        return "no, the processor draws OpenGL"
    return f"no, {facts.gl_renderer} is none of CUDA's devices" if facts.devices else "no, there is no CUDA device"


def _path_row(facts: Facts) -> str:
    """The path that a picture takes from the executor that `auto` takes."""
    if not facts.gl_renderer:
        return "files only"
    if facts.executor != "cuda":
        return f"host copy: the {facts.executor or 'missing'} executor renders into host memory"
    refusals = [f"not {name}: {why}" for name, why in facts.paths.items() if why]
    works = next((name for name, why in facts.paths.items() if not why), "host copy")
    if not facts.paths:
        refusals = [facts.gl_devices_error or facts.bindings_error or "CUDA and OpenGL are not on the same GPU"]
    return f"{works}: {'; '.join(refusals) or 'written there and read back'}"


def _version(number: int) -> str:
    """
    >>> _version(13020)
    '13.2'
    """
    return f"{number // 1000}.{number % 1000 // 10}"
