"""Checks the CUDA kernels on the GPU of this machine, then times them. Installs nothing, needs no display.

    python benchmarks/gpu.py [CHECKPOINT] [--rounds 5] [--frames 50] [--steps 50] [--no-checks]

Checks are `pytest -m gpu`. Then, for CHECKPOINT (default: the demo city) and a made-up octree of depth 8 with at least
2,000 nodes: milliseconds a frame with all channels left on the device (frames queued behind each other, the median of
the rounds), with the pictures brought to the host, and what each kernel took, launched one by one between events; and
rates against the torch executor. At the end training on a made city: milliseconds a step and rays a second by our
kernels and by torch's autograd on the same card, and what each kernel took. Prints device, commit and sizes; a check
that fails makes the exit code 1.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from infnerf.data.city import make_city
from infnerf.data.dataset import Dataset, load_dataset
from infnerf.models.config import InfNeRFConfig
from infnerf.models.infnerf import InfNeRF
from infnerf.models.octree import build_octree
from infnerf.renderer.bench import commit, machine, run_bench
from infnerf.renderer.cuda_executor import CudaExecutor
from infnerf.renderer.cuda_samples import CudaSampleKernels
from infnerf.renderer.frame import FrameBuffers, RenderRequest
from infnerf.renderer.gpu_driver import GpuDriver
from infnerf.renderer.paths import orbit
from infnerf.renderer.torch_launch import TorchLauncher, torch_launcher
from infnerf.training.config import TrainerConfig
from infnerf.training.sampling import Sampling, TorchSampling
from infnerf.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
SIZES = ((1920, 1080), (1024, 1024))
WARM_UP = 30  # steps of training: the number of rays settles
DEPTH, NODES, PLACES = 8, 3000, 12  # of the made-up octree; places with detail down to the deepest level


class TimedDriver(GpuDriver):
    """Notes what every launch took: `spans` of (kernel, event before, event after)."""

    def __init__(self, cupy: Any = None) -> None:
        self.spans: list[tuple[str, Any, Any]] = []
        super().__init__(cupy)

    def launch(
        self, name: str, grid: tuple[int, int], *arguments: Any, options: tuple[str, ...] = (), stream: Any = None
    ) -> None:
        before, after = (self.cupy.cuda.Event(disable_timing=False) for _ in range(2))
        before.record(stream or self.stream)
        super().launch(name, grid, *arguments, options=options, stream=stream)
        after.record(stream or self.stream)
        self.spans.append((name, before, after))

    def capture(self, work: Any) -> None:
        """No graphs: kernels are to be launched one by one."""

    def totals(self) -> dict[str, tuple[int, float]]:
        """Kernel -> (launches, milliseconds), the longest first; forgets them."""
        sums: dict[str, tuple[int, float]] = {}
        for name, before, after in self.spans:
            launches, total = sums.get(name, (0, 0.0))
            sums[name] = launches + 1, total + float(self.cupy.cuda.get_elapsed_time(before, after))
        self.spans = []
        return dict(sorted(sums.items(), key=lambda item: -item[1][1]))


def deep_model() -> InfNeRF:
    """A flat, city-like octree, as deep as its points are fine around some places, and random fields."""
    rng = np.random.default_rng(0)
    n = 600_000
    radius, angle = 2.0 ** rng.uniform(-DEPTH, 0, n), rng.uniform(0, 2 * np.pi, n)
    middle = rng.uniform(-0.8, 0.8, (PLACES, 2))[rng.integers(PLACES, size=n)]
    around = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]
    points = np.concatenate([middle + around, 0.1 * radius[:, None] * rng.random((n, 1))], 1)
    inside = (np.abs(points) < 1).all(1)
    config = InfNeRFConfig(density_shift=-4.0)
    octree = build_octree(
        points[inside], radius[inside] / config.resolution / 2, np.full(3, -1.0), 2.0, config.resolution,
        min_points=8, max_nodes=NODES, max_depth=DEPTH,
    )  # fmt: skip
    return InfNeRF.random(config, octree, 0, spread=1.0)


def requests(model: InfNeRF, width: int, height: int) -> list[RenderRequest]:
    return [RenderRequest(camera) for camera in orbit(model.scene, 8, width=width, height=height)]


def on_device(executor: CudaExecutor, views: list[RenderRequest], frames: int) -> float:
    """Milliseconds a frame: `frames` of them behind each other on the stream, without a look in between."""
    began = time.perf_counter()
    for i in range(frames):
        frame = executor.render_on_device(views[i % len(views)])
    executor.driver.wait(frame.ready)
    return 1e3 * (time.perf_counter() - began) / frames


def to_host(executor: CudaExecutor, views: list[RenderRequest], frames: int) -> float:
    out = FrameBuffers.allocate(views[0].camera.width, views[0].camera.height)
    began = time.perf_counter()
    for i in range(frames):
        executor.render(views[i % len(views)], out)
    return 1e3 * (time.perf_counter() - began) / frames


def measure(name: str, model: InfNeRF, rounds: int, frames: int) -> None:
    octree = model.octree
    print(f"\n{name}: {octree.n_nodes} nodes to level {octree.depth}, {model.n_parameters / 1e6:.1f} M parameters")
    executor, timed = CudaExecutor(model), CudaExecutor(model, driver=TimedDriver())
    for width, height in SIZES:
        views = requests(model, width, height)
        on_device(executor, views, len(views))  # compiles, and lets the number of rounds settle
        times = [(on_device(executor, views, frames), to_host(executor, views, frames)) for _ in range(rounds)]
        stay, copied = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"  {width}x{height}: {stay:.2f} ms a frame on the device, {copied:.2f} ms with all channels on the host")
        on_device(timed, views, len(views))
        assert isinstance(timed.driver, TimedDriver)
        timed.driver.totals()
        on_device(timed, views, len(views))
        told(timed.driver, len(views), "frame")
    executor.close()
    timed.close()


def told(driver: TimedDriver, n: int, what: str) -> None:
    """Prints what each kernel took of `n` frames or steps."""
    for kernel, (launches, total) in driver.totals().items():
        print(f"    {kernel:<24}{launches / n:6.1f} launches  {total / n:8.3f} ms a {what}")


def use(trainer: Trainer, sampling: Sampling) -> None:
    trainer.sampling = trainer.occupancy.sampling = sampling
    trainer.optimizer.kernels = sampling.kernels


def stepped(trainer: Trainer, launcher: TorchLauncher, steps: int) -> tuple[float, float]:
    """Milliseconds a step, and rays a second."""
    driver, rays = launcher.driver, 0
    for _ in range(WARM_UP):
        trainer.step(0.7)
    driver.wait(driver.record(driver.torch_stream()))
    began = time.perf_counter()
    for _ in range(steps):
        rays += trainer.step(0.7).rays
    driver.wait(driver.record(driver.torch_stream()))
    seconds = time.perf_counter() - began
    return 1e3 * seconds / steps, rays / seconds


def measure_training(data: Dataset, steps: int) -> None:
    config = TrainerConfig(steps=1000, device="cuda", octree_prune_schedule=())
    trainer = Trainer(InfNeRF(InfNeRFConfig()), data, config)
    launcher, rates = torch_launcher(0), []
    samples = config.samples_per_step
    print(f"\ntraining: {trainer.summary()}; about {samples} samples a step")
    for name, sampling in (("kernels", trainer.sampling), ("torch autograd", TorchSampling(trainer.model))):
        use(trainer, sampling)
        ms, rate = stepped(trainer, launcher, steps)
        rates.append(rate)
        print(f"  {name:<16}{ms:8.2f} ms a step  {rate / 1e6:8.3f} M rays a second")
    print(f"  kernels against torch autograd: {rates[0] / rates[1]:.1f} (at least 10)")
    timed = TimedDriver()
    use(trainer, CudaSampleKernels(trainer.model, TorchLauncher(timed, launcher.device)))
    trainer.step(0.7)
    timed.totals()
    for _ in range(steps):
        trainer.step(0.7)
    timed.wait(timed.record(timed.torch_stream()))
    told(timed, steps, "step")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("checkpoint", nargs="?", type=Path, default=ROOT / "assets" / "demo.pth")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--no-checks", action="store_true")
    arguments = parser.parse_args()
    failed = 0
    if not arguments.no_checks:
        failed = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(ROOT / "tests")], check=False
        ).returncode
    print(f"{GpuDriver().describe()}; {machine()['cpu']}; commit {commit()}")
    model = InfNeRF.load(arguments.checkpoint)
    measure(arguments.checkpoint.name, model, arguments.rounds, arguments.frames)
    measure("made-up", deep_model(), arguments.rounds, arguments.frames)
    print("\nagainst the torch executor, as it is on this machine:", flush=True)
    run_bench(model, (640, 360), ("cuda", "torch"))
    with tempfile.TemporaryDirectory() as folder:
        make_city(Path(folder) / "city", blocks=4, views=60, size=(400, 300))
        measure_training(load_dataset(Path(folder) / "city"), arguments.steps)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
