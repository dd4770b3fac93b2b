"""`infnerf bench`.

Executors side by side on the same frames, in turn, with the share of the machine's multiply-add peak.
"""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..models.checkpoint import camera_from_entry
from ..models.infnerf import InfNeRF
from ..models.pynerf import PyNeRF
from ..models.pynerf_config import PyNeRFConfig
from .cliutil import say
from .executors import make_executor
from .frame import Executor, FrameBuffers, RenderRequest
from .kernels import load_kernels, n_threads, pointer, run_parallel
from .paths import orbit

ROUNDS = 3  # of all executors in turn; the fastest round counts
MATCH = 2 / 255  # display values; pixels within this count as the same image


def machine() -> dict[str, Any]:
    """What a figure needs beside it: processor, threads, versions."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as info:
            name = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), name)
    except OSError:
        pass
    return {"cpu": name, "threads": n_threads(), "torch": torch.__version__, "python": platform.python_version()}


def commit() -> str:
    """The commit that this code stands on, `-dirty` with changes; `unknown` outside a repository."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return "unknown"
    return result.stdout.strip() or "unknown"


def peak_flops() -> float:
    """Multiply-add peak of all threads, FLOP/s, measured now."""
    library = load_kernels().library
    sinks = np.zeros((n_threads(), 16), np.float32)
    rounds, best = 4_000_000, 0.0
    for _ in range(3):
        began = time.perf_counter()
        run_parallel(library.multiply_add_peak, [(rounds, pointer(sink)) for sink in sinks])
        lanes = load_kernels().lanes
        best = max(best, n_threads() * 2.0 * 12 * lanes * rounds / (time.perf_counter() - began))
    return best


def sample_flops(model: InfNeRF | PyNeRF) -> int:
    """Floating-point operations of one sample: trilinear interpolation and MLPs. A PyNeRF's is between its two finest
    heads."""
    config = model.config
    if isinstance(config, PyNeRFConfig):
        return _pyramid_flops(config)
    encode = config.n_grid_levels * 8 * (2 * config.features_per_level + 3)
    return encode + sum(2 * n_in * n_out for n_in, n_out in config.layer_shapes.values())


def _pyramid_flops(config: PyNeRFConfig) -> int:
    heads = range(max(config.num_levels - 2, 0), config.num_levels)
    encode = sum(config.grid_counts[head] * 8 * (2 * config.features_per_level + 3) for head in heads)
    densities = [layer for head in heads for layer in config.density_shapes(head)]
    colors = config.color_shapes * (len(heads) if config.interpolation == "color" else 1)
    return encode + sum(2 * n_in * n_out for n_in, n_out in [*densities, *colors])


def bench_cameras(model: InfNeRF | PyNeRF, width: int, height: int) -> list[tuple[str, RenderRequest]]:
    """The view of the whole scene, and two of the cameras that the model was trained on, if it knows any."""
    views = [("orbit", orbit(model.scene, 8, width=width, height=height)[1])]
    entries = model.scene["cameras"]
    if entries:
        for entry in (entries[len(entries) // 2], entries[-1]):
            camera = camera_from_entry(entry)
            views.append((entry["name"], type(camera).from_fov(camera.c2w, camera.fov_y, width, height)))
    return [(name, RenderRequest(camera)) for name, camera in views]


def _measure(executor: Executor, request: RenderRequest) -> tuple[float, FrameBuffers, int]:
    out = FrameBuffers.allocate(request.camera.width, request.camera.height)
    stats = executor.render(request, out)
    return stats.seconds, out, stats.samples


def run_bench(model: InfNeRF | PyNeRF, size: tuple[int, int], names: Sequence[str]) -> dict[str, Any]:
    """Renders the bench views with each executor, in turn, and prints a table.

    Returns {"machine", "commit", "size", "views", "peak_gflops", "executors": [{"executor", "frame_ms",
    "samples_per_second", "peak_share", ...}], "ratios": {...}}; `frame_ms` is the mean over the views of each view's
    fastest round.
    """
    executors = {name: make_executor(name, model) for name in names}
    views = bench_cameras(model, *size)
    seconds: dict[str, list[float]] = {name: [float("inf")] * len(views) for name in names}
    samples = dict.fromkeys(names, 0)
    pictures: dict[str, list[FrameBuffers]] = {name: [] for name in names}
    for i, (_, request) in enumerate(views):
        for round_ in range(ROUNDS):
            for name, (executor, _) in executors.items():
                if name == "torch" and round_ > 0 and seconds[name][i] > 5:
                    continue  # one round of a frame that takes so long is steady enough
                taken, picture, count = _measure(executor, request)
                seconds[name][i] = min(seconds[name][i], taken)
                if round_ == 0:
                    pictures[name].append(picture)
                    samples[name] += count
    peak = peak_flops() if "cpu" in names else 0.0
    rows = [_row(name, executors[name][1], seconds[name], samples[name], peak, model) for name in names]
    result: dict[str, Any] = {
        "machine": machine(), "commit": commit(), "size": list(size),
        "views": [name for name, _ in views], "peak_gflops": peak / 1e9, "executors": rows,
    }  # fmt: skip
    if len(names) > 1:
        result["ratios"] = _ratios(rows, pictures, names)
    _print(result)
    return result


def _row(
    name: str, why: str, seconds: list[float], samples: int, peak: float, model: InfNeRF | PyNeRF
) -> dict[str, Any]:
    per_second = samples / sum(seconds)
    row = {
        "executor": name, "description": why, "frame_ms": 1e3 * sum(seconds) / len(seconds),
        "frame_ms_per_view": [1e3 * s for s in seconds], "samples": samples, "samples_per_second": per_second,
    }  # fmt: skip
    if peak:
        row["peak_share"] = per_second * sample_flops(model) / peak
    return row


def _ratios(
    rows: list[dict[str, Any]], pictures: dict[str, list[FrameBuffers]], names: Sequence[str]
) -> dict[str, Any]:
    first, last = rows[0], rows[-1]
    pairs = zip(pictures[names[0]], pictures[names[-1]], strict=True)
    differences = np.concatenate([np.abs(a.color - b.color).max(-1).ravel() for a, b in pairs])
    return {
        "of": [first["executor"], last["executor"]],
        "samples_per_second": first["samples_per_second"] / last["samples_per_second"],
        "frame_rate": last["frame_ms"] / first["frame_ms"],
        "same_pixels": float((differences <= MATCH).mean()),
        "median_difference": float(np.median(differences)),
    }


def _print(result: dict[str, Any]) -> None:
    about = result["machine"]
    size = "x".join(map(str, result["size"]))
    say(f"{about['cpu']}, {about['threads']} threads, torch {about['torch']}, {size}, commit {result['commit']}")
    say(f"views: {', '.join(result['views'])}")
    for row in result["executors"]:
        share = (
            f", {100 * row['peak_share']:.0f} % of {result['peak_gflops']:.0f} GFLOP/s" if "peak_share" in row else ""
        )
        say(
            f"{row['executor']:>6}  {row['frame_ms']:9.1f} ms a frame  "
            f"{row['samples_per_second'] / 1e6:7.2f} M samples/s{share}"
        )
    if ratios := result.get("ratios"):
        a, b = ratios["of"]
        say(
            f"{a} over {b}: {ratios['samples_per_second']:.1f}x the samples a second, "
            f"{ratios['frame_rate']:.1f}x the frame rate; {100 * ratios['same_pixels']:.3f} % of pixels within 2/255, "
            f"median difference {ratios['median_difference']:.1e}"
        )
