"""What an octree gains over a single hash grid, at equal parameters and steps, and how little of it a frame uses.

    python benchmarks/levels.py DATA [--steps 4000] [--seeds 0,1] [--megabytes 64] [--models octree,grid,fine-grid]

`grid` is the root alone (`--max-depth 0`) with larger tables and the octree's resolution R; `fine-grid` has cells as
fine as the octree's third level. Tables are powers of two, so grids get at least the octree's parameters.

Prints machine and commit; then for every run parameters, PSNR of the test split at full size, 1/2, 1/4 and 1/8, their
mean over views and scales, and the largest share of its nodes' parameters that a test frame used.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from infnerf.models.config import InfNeRFConfig
from infnerf.renderer.bench import commit, machine
from infnerf.training.config import TrainerConfig
from infnerf.training.evaluate import EVAL_SCALES, evaluate
from infnerf.training.run import train

FINE_LEVELS = 3  # octree levels whose cells `fine-grid` matches


def shape_of(name: str, parameters: float) -> InfNeRFConfig:
    """Capacity of a model's nodes. `parameters`: what a single node is to have at least."""
    own = InfNeRFConfig()
    if name == "octree":
        return own
    if name == "fine-grid":
        own = replace(own, resolution=own.resolution << FINE_LEVELS, n_grid_levels=14)
    size = 64
    while size * own.n_features < parameters:
        size *= 2
    return replace(own, table_size=size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--megabytes", type=float, default=64, help="of the octree's checkpoint")
    parser.add_argument("--models", default="octree,grid,fine-grid")
    parser.add_argument("--keep", type=Path, help="write the checkpoints to this folder")
    arguments = parser.parse_args()
    about, max_bytes = machine(), int(arguments.megabytes * 1e6)
    print(f"{about['cpu']}, {about['threads']} threads, torch {about['torch']}, commit {commit()}")
    scales = "".join(f"{'1/' + scale:>8}" for scale in map(str, EVAL_SCALES))
    print(f"{arguments.data}, {arguments.steps} steps")
    print(f"model      seed  parameters{scales}    mean  most of it used  seconds")
    with tempfile.TemporaryDirectory() as folder:
        for seed in map(int, arguments.seeds.split(",")):
            for name in arguments.models.split(","):
                out = (arguments.keep or Path(folder)) / f"{name}-{seed}.pth"
                config = TrainerConfig(steps=arguments.steps, seed=seed, max_bytes=max_bytes)
                if name != "octree":
                    config = replace(config, max_depth=0, max_bytes=16 * max_bytes)
                began = time.monotonic()
                train(arguments.data, out, config, shape_of(name, max_bytes / 2), say=lambda _: None)
                result = evaluate(out, arguments.data)
                numbers = "".join(f"{result['per_scale'][str(scale)]['psnr']:8.2f}" for scale in EVAL_SCALES)
                print(
                    f"{name:<10}{seed:5}{result['parameters']:12,}{numbers}{result['psnr']:8.2f}"
                    f"{100 * result['parameters_used_max']:15.1f} %{time.monotonic() - began:9.0f}",
                    flush=True,
                )  # fmt: skip


if __name__ == "__main__":
    main()
