"""The CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer, and proof that these would see a fault."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infnerf.renderer import kernel_build

CUDA = Path(__file__).resolve().parents[1] / "cuda"
SANITIZERS = "address,undefined"
FOUND = 99  # exit code of a process in which a sanitizer found something

#: Renders and differentiates through every export, in SIMD, plain, and as the kernels of training on a GPU, block by
#: block. argv: checkpoint, what to cut short if anything.
EXERCISE = """
import sys
import numpy as np, torch
from fake_cupy import host_launcher
from infnerf.models.camera import Camera, look_at
from infnerf.models.infnerf import InfNeRF
from infnerf.models.marching import MarchSettings
from infnerf.renderer.cpu_executor import CpuExecutor
from infnerf.renderer.cuda_samples import CudaSampleKernels
from infnerf.renderer.frame import FrameBuffers, RenderRequest
from infnerf.renderer.kernels import load_kernels, pointer
from infnerf.renderer.sample_kernels import SampleKernels
from infnerf.training.optimizer import AdamConfig, NodeAdam

model, cut = InfNeRF.load(sys.argv[1]), sys.argv[2]
assert load_kernels().origin == "named by INFNERF_KERNELS"
up = np.array([0.0, 0.0, 1.0])
corners, sizes = model.octree.boxes()
last = corners[-1] + sizes[-1] / 2
views = [
    ((1.5, 1.2, 0.8), (0.5, 0.5, 0.2)),  # from outside
    ((0.5, 0.5, 0.2), (0.9, 0.5, 0.2)),  # from inside, along an axis
    ((0.5, 0.5, 9.0), (0.5, 0.5, 0.0)),  # from far above, straight down
    ((2.0, 2.0, 2.0), (3.0, 3.0, 3.0)),  # past the scene
    (last + (0.0, -sizes[-1], 0.0), last),  # close to the last node of the deepest level
]
samples = 0
for plain in (False, True):
    executor = CpuExecutor(model, plain=plain)
    if cut:
        whole = getattr(executor.scene, cut)
        short = whole[:-1].clone()
        setattr(executor.scene, cut, short)
        setattr(executor.scene.struct, cut, pointer(short))
    for eye, target in views:
        camera = Camera.from_fov(look_at(np.array(eye), np.array(target), up), 60, 21, 13)
        for frame, bias, levels in ((0, 0.0, (0, 31)), (1, 16.0, (0, 31)), (2, -16.0, (1, 2))):
            request = RenderRequest(camera, frame=frame, lod_bias=bias, min_level=levels[0], max_level=levels[1])
            samples += executor.render(request, FrameBuffers.allocate(21, 13)).samples
samplers = (SampleKernels, lambda m: SampleKernels(m, plain=True), lambda m: CudaSampleKernels(m, host_launcher()))
for sampler in samplers:
    trained = InfNeRF.load(sys.argv[1])
    tables, mlp = trained.tables.data.float(), trained.mlp.data.float()
    trained = InfNeRF(trained.config, trained.octree, tables, mlp, trained.occupancy, trained.scene)
    kernels = sampler(trained)
    origins = torch.rand(37, 3) * 2 - 0.5
    directions = torch.nn.functional.normalize(torch.rand(37, 3) - 0.5, dim=1)
    directions[0] = torch.tensor([0.0, 0.0, -1.0])
    packed = kernels.march(origins, directions, torch.full((37,), 0.004), torch.arange(37), MarchSettings(frame=3), 64)
    sigmas, rgb = kernels.field(packed, directions)
    kernels.composite(sigmas, rgb, packed, 37, 1e-4).square().sum().backward()
    assert trained.tables.grad.isfinite().all() and trained.mlp.grad.abs().sum() > 0
    NodeAdam(trained, AdamConfig(), kernels.kernels).step(torch.arange(trained.octree.n_nodes))
    assert not trained.tables.grad.any() and trained.tables.isfinite().all()
    samples += len(packed)
print("samples", samples)
"""

#: A library with two faults, for the flags themselves.
FAULTY = """
extern "C" int sum(int a, int b) { return a + b; }
extern "C" int at(const int *values, int i) { return values[i]; }
"""
CALL = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
malloc = ctypes.CDLL(None).malloc
malloc.restype = ctypes.c_void_p
values = ctypes.c_void_p(malloc(16))
name, argument = sys.argv[2], int(sys.argv[3])
print(library.sum(argument, 2**31 - 1) if name == "sum" else library.at(values, argument))
"""


def run_sanitized(code: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code with the sanitizers' runtimes loaded first, which a plain Python does not bring."""
    runtimes = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    changes = {
        "PYTHONPATH": str(Path(__file__).parent),  # of fake_cupy
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": f"detect_leaks=0:exitcode={FOUND}",  # Python frees nothing at its end
        "UBSAN_OPTIONS": f"print_stacktrace=1:halt_on_error=1:exitcode={FOUND}",
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, **changes, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    variant = next(name for name in kernel_build.cpu_variants() if name != "x86_64_v4")  # GCC is slow on 512 bits
    return kernel_build.build("g++", variant, CUDA, tmp_path_factory.mktemp("asan") / "kernels.so", SANITIZERS)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faulty")
    (folder / kernel_build.ENTRY).write_text(FAULTY)
    return kernel_build.build("g++", kernel_build.cpu_variants()[-1], folder, folder / "faulty.so", SANITIZERS)


@pytest.mark.needs("cc")
def test_all_kernels_run_clean(library: Path, tiny_checkpoint: Path) -> None:
    result = run_sanitized(EXERCISE, tiny_checkpoint, "", INFNERF_KERNELS=str(library))
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stderr == ""
    assert int(result.stdout.split()[1]) > 10_000


@pytest.mark.needs("cc")
@pytest.mark.parametrize("cut", ["tables", "mlp", "occupancy"])
def test_a_scene_that_lacks_its_last_node_is_caught(library: Path, tiny_checkpoint: Path, cut: str) -> None:
    """The kernels then read one row past the end of an array: the sanitizer names the file in which they do."""
    result = run_sanitized(EXERCISE, tiny_checkpoint, cut, INFNERF_KERNELS=str(library))
    assert result.returncode == FOUND, result.stderr[-4000:]
    assert "heap-buffer-overflow" in result.stderr
    assert ".cuh" in result.stderr


@pytest.mark.needs("cc")
def test_the_flags_catch_what_they_should(faulty: Path) -> None:
    for name, argument, message in (("sum", "1", "signed integer overflow"), ("at", "4", "heap-buffer-overflow")):
        result = run_sanitized(CALL, faulty, name, argument)
        assert result.returncode == FOUND, result.stderr
        assert message in result.stderr
    assert run_sanitized(CALL, faulty, "sum", "-5").stdout.strip() == str(2**31 - 6)
