"""`infnerf-view --doctor`: every usual case from facts alone, and the whole of it on the machine at hand."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infnerf.viewer import doctor
from infnerf.viewer.diagnosis import PIP_CUDA, PRIME, Facts, diagnose, report
from infnerf.viewer.window import APT_LINE

#: A workstation where all is well.
GOOD = Facts(
    display="X :0", cards=("0x10de",), gl_vendor="NVIDIA Corporation", gl_renderer="NVIDIA RTX A6000/PCIe/SSE2",
    gl_version="4.6.0 NVIDIA 580.65.06", gl_on="a window", driver="580.65.06", driver_cuda=13000,
    devices=("NVIDIA RTX A6000",), gl_devices=(0,), bindings="13.5.0", bindings_cuda=13050, cupy="14.2.0",
    cupy_cuda=13020, cupy_packages=("cupy-cuda13x",), executor="cuda", executor_reason="cuda: NVIDIA RTX A6000",
    kernels="x86_64_v4 kernels, 8 lanes", paths={"surface": "", "pixel buffer": ""},
)  # fmt: skip
#: A laptop with nothing of NVIDIA's.
PLAIN = Facts(
    display="Wayland wayland-0", cards=("0x8086",), gl_vendor="Intel", gl_renderer="Mesa Intel(R) Xe", gl_version="4.6",
    gl_on="a window", executor="cpu", executor_reason="cpu: x86_64_v3 kernels; not cuda: CuPy is missing",
)  # fmt: skip
LLVMPIPE = {"gl_vendor": "Mesa", "gl_renderer": "llvmpipe (LLVM 15.0.6, 256 bits)", "gl_devices": (), "paths": {}}
INTEL = {"gl_vendor": "Intel", "gl_renderer": "Mesa Intel(R) Xe Graphics", "gl_devices": (), "paths": {}}
D3D12 = {"gl_vendor": "Microsoft Corporation", "wsl": True, "gl_devices": (), "paths": {}, "cards": ()}
NO_CUDA = {
    "driver": "", "driver_cuda": 0, "devices": (), "gl_devices": (), "bindings": "", "bindings_cuda": 0, "cupy": "",
    "cupy_cuda": 0, "cupy_packages": (), "paths": {}, "executor": "cpu", "executor_reason": "cpu: kernels",
}  # fmt: skip

#: What differs from GOOD, words of the finding, the line that mends it.
CASES = {
    "hybrid laptop": (INTEL, "drawn by Mesa Intel", PRIME),
    "hybrid laptop, Windows": (INTEL | {"platform": "win32"}, "high performance", ""),
    "llvmpipe by a variable": (
        LLVMPIPE | {"environment": {"LIBGL_ALWAYS_SOFTWARE": "1"}},
        "asks for it",
        "unset LIBGL_ALWAYS_SOFTWARE",
    ),
    "llvmpipe by another variable": (
        LLVMPIPE | {"environment": {"GALLIUM_DRIVER": "llvmpipe"}},
        "asks for it",
        "unset GALLIUM_DRIVER",
    ),
    "llvmpipe in WSL": (LLVMPIPE | {"wsl": True}, "Mesa in WSL", "GALLIUM_DRIVER=d3d12 infnerf-view"),
    "llvmpipe in a container": (
        LLVMPIPE | {"container": True},
        "CUDA part only",
        "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=all ...",
    ),
    "llvmpipe beside NVIDIA": (LLVMPIPE, "although there is an NVIDIA driver", PRIME),
    "llvmpipe beside Intel": (
        LLVMPIPE | NO_CUDA | {"cards": ("0x8086",)},
        "its driver is missing",
        "sudo apt-get install -y libgl1-mesa-dri",
    ),
    "llvmpipe and nothing else": (LLVMPIPE | NO_CUDA | {"cards": ()}, "no graphics card is there", ""),
    "WSL on the wrong adapter": (
        D3D12 | {"gl_renderer": "D3D12 (Intel(R) Iris(R) Xe)"},
        "not by the NVIDIA GPU",
        "MESA_D3D12_DEFAULT_ADAPTER_NAME=NVIDIA infnerf-view",
    ),
    "WSL on NVIDIA": (D3D12 | {"gl_renderer": "D3D12 (NVIDIA GeForce RTX 3050)"}, "CUDA can't write to", ""),
    "no driver": (INTEL | NO_CUDA, "without its driver", "sudo ubuntu-drivers install"),
    "no driver in WSL": (
        NO_CUDA | D3D12 | {"gl_renderer": "D3D12 (Intel)", "cards": ("0x10de",)},
        "install it in Windows",
        "",
    ),
    "driver older than CuPy's CUDA": (
        {"driver": "550.78", "driver_cuda": 12040, "devices": (), "devices_error": "cudaErrorInsufficientDriver"},
        "takes driver 580 or later",
        f"pip uninstall -y cupy-cuda13x && {PIP_CUDA[12]}",
    ),
    "driver too old for all": (
        {"driver": "470.256", "driver_cuda": 11040},
        "update the driver",
        "sudo ubuntu-drivers install",
    ),
    "devices hidden": (
        {"devices": (), "gl_devices": (), "paths": {}, "environment": {"CUDA_VISIBLE_DEVICES": ""}},
        "leaves no CUDA device",
        "unset CUDA_VISIBLE_DEVICES",
    ),
    "device broken": ({"devices": (), "devices_error": "cudaErrorNoDevice"}, "cudaErrorNoDevice", "nvidia-smi"),
    "CuPy missing": ({"cupy": "", "cupy_cuda": 0, "cupy_packages": ()}, "CuPy is not installed", PIP_CUDA[13]),
    "CuPy missing, CUDA 12": (
        {"cupy": "", "cupy_cuda": 0, "cupy_packages": (), "driver_cuda": 12040, "bindings_cuda": 12090},
        "not installed",
        PIP_CUDA[12],
    ),
    "CuPy twice": (
        {"cupy_packages": ("cupy-cuda12x", "cupy-cuda13x")},
        "overwrite each other",
        f"pip uninstall -y cupy-cuda12x cupy-cuda13x && {PIP_CUDA[13]}",
    ),
    "CuPy of the wrong CUDA": (
        {"cupy_packages": ("cupy-cuda12x",), "cupy_error": "failed to load libnvrtc.so.12"},
        "libnvrtc.so.12",
        'pip install "cupy-cuda13x[ctk]>=14,<15" "cuda-bindings>=13,<14" --force-reinstall',
    ),
    "cuda-bindings missing": (
        {"bindings": "", "bindings_cuda": 0},
        "over the host",
        'pip install "cuda-bindings>=13,<14"',
    ),
    "cuda-bindings with the fault": (
        {"bindings": "12.9.3", "driver_cuda": 12090, "cupy_cuda": 12090, "bindings_cuda": 12090},
        "registers no textures",
        'pip install "cuda-bindings>=12.9.4,<13"',
    ),
    "another NVIDIA GPU hidden": (
        {"gl_devices": (), "paths": {}, "environment": {"CUDA_VISIBLE_DEVICES": "1"}},
        "CUDA can't use the GPU",
        "unset CUDA_VISIBLE_DEVICES",
    ),
    "a path that does not work": ({"paths": {"surface": "map: no", "pixel buffer": ""}}, "surface: map: no", ""),
    "no display": ({"display": "", "gl_on": "EGL device 0, no window"}, "no display", "infnerf-view --headless"),
    "no OpenGL": ({"gl_renderer": "", "gl_error": "EGL is missing"}, "EGL is missing", f"sudo {APT_LINE}"),
    "no executor": (
        {"executor": "", "executor_reason": "no kernels"},
        "Nothing can be shown",
        "pip install --force-reinstall infnerf-view",
    ),
}


@pytest.mark.parametrize("facts", [GOOD, PLAIN], ids=["workstation", "laptop"])
def test_where_all_is_well_nothing_is_to_be_mended(facts: Facts) -> None:
    assert diagnose(facts) == []
    assert report(facts)[-1] == "Nothing to mend."


@pytest.mark.parametrize("case", CASES)
def test_each_case_is_found_with_the_line_that_mends_it(case: str) -> None:
    differs, words, line = CASES[case]
    facts = replace(GOOD, **differs)
    findings = diagnose(facts)
    assert [finding.line for finding in findings if words in finding.text] == [line]
    assert findings[0].text.find(words) >= 0, "it is not the first of what is said"
    printed = report(facts)
    assert not line or f"      {line}" in printed
    assert facts.can_show == (case != "no executor")


@pytest.mark.parametrize(
    ("facts", "row"),
    [
        (GOOD, "To the screen: surface: written there and read back"),
        (
            replace(GOOD, paths={"surface": "map: no", "pixel buffer": ""}),
            "To the screen: pixel buffer: not surface: map: no",
        ),
        (
            replace(GOOD, paths={"surface": "a", "pixel buffer": "b"}),
            "To the screen: host copy: not surface: a; not pixel buffer: b",
        ),
        (replace(GOOD, **INTEL), "To the screen: host copy: CUDA and OpenGL are not on the same GPU"),
        (PLAIN, "To the screen: host copy: the cpu executor renders into host memory"),
        (PLAIN, "Same GPU:      no, there is no CUDA device"),
        (replace(GOOD, **INTEL), "Same GPU:      no, Mesa Intel(R) Xe Graphics is none of CUDA's devices"),
        (GOOD, "Same GPU:      yes, CUDA device 0 draws OpenGL, too"),
        (GOOD, "CUDA:          device 0: NVIDIA RTX A6000"),
        (
            GOOD,
            "Versions:      driver 580.65.06, up to CUDA 13.0; cuda-bindings 13.5.0, CUDA 13.5; CuPy 14.2.0, CUDA 13.2",
        ),
        (PLAIN, "CUDA:          no device (no driver)"),
    ],
)
def test_the_report_says_what_is_in_use_and_why(facts: Facts, row: str) -> None:
    assert row in report(facts)


def test_nothing_to_show_is_exit_code_1_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(doctor, "gather", lambda: replace(PLAIN, executor="", executor_reason="no kernels, no torch"))
    assert doctor.run_doctor() == 1
    printed = capsys.readouterr()
    assert "Nothing can be shown: no executor works (no kernels, no torch)." in printed.out
    assert "nothing can be shown here" in printed.err


def test_a_look_that_fails_is_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    def fall(found: dict) -> dict:
        raise OSError("no such device")

    for look in ("_system", "_cuda_packages", "_cuda_devices", "_executor", "_opengl"):
        monkeypatch.setattr(doctor, look, fall)
    assert doctor.gather() == Facts(devices_error="fall: no such device")


def test_cards_are_read_from_the_pci_bus(tmp_path: Path) -> None:
    for name, kind, vendor in (("a", "0x030000", "0x8086"), ("b", "0x020000", "0x1af4"), ("c", "0x030200", "0x10de")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "class").write_text(kind + "\n")
        (tmp_path / name / "vendor").write_text(vendor + "\n")
    (tmp_path / "d").mkdir()
    assert doctor._cards(tmp_path) == ("0x8086", "0x10de")
    assert doctor._cards(tmp_path / "none") == ()


@pytest.mark.needs("gl")
def test_the_doctor_answers_on_this_machine_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of its own: it has torch, OpenGL and, where they are installed, CuPy and cuda-bindings to load."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    command = [sys.executable, "-c", "from infnerf.viewer.cli import main; raise SystemExit(main(['--doctor']))"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Display:       none" in done.stdout
    assert "no window" in done.stdout
    assert "infnerf-view --headless" in done.stdout
    assert "To the screen: " in done.stdout


def test_the_doctor_goes_alone(capsys: pytest.CaptureFixture) -> None:
    from infnerf.viewer.cli import main

    assert main(["--doctor", "--headless"]) == 2
    assert "--doctor goes alone" in capsys.readouterr().err
