"""What training by subtrees costs in quality: one process, and ranks that train subtrees apart, at equal total steps.

    python benchmarks/parallel.py DATA [--ranks 2] [--steps 4000] [--keep FOLDER] [-- train's options]

A step by subtrees is a step of all ranks, of which each takes a K-th of the samples: equal steps are equal samples in
all. Prints machine and commit, PSNR per scale of the test split, the difference, and what rank 0 says of bytes
exchanged and nodes held.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from infnerf.renderer.bench import commit, machine
from infnerf.training.evaluate import EVAL_SCALES, evaluate


def run(command: list[str]) -> None:
    """Prints what the run says of itself, not its progress. Ends the program where it fails."""
    done = subprocess.run([sys.executable, *command], stderr=subprocess.PIPE, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if not line.startswith(("train ", "W", "*", "Setting"))]
    print("\n".join("    " + line for line in told), flush=True)
    if done.returncode:
        raise SystemExit(done.returncode)


def psnr_of(checkpoint: Path, data: Path) -> dict[str, float]:
    """By scale, and their mean as `mean`."""
    result = evaluate(checkpoint, data)
    return {scale: row["psnr"] for scale, row in result["per_scale"].items()} | {"mean": result["psnr"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--keep", type=Path, help="write the checkpoints to this folder")
    told = sys.argv[1:]
    end = told.index("--") if "--" in told else len(told)
    arguments, options = parser.parse_args(told[:end]), told[end + 1 :]  # options: for both runs
    about = machine()
    print(f"{about['cpu']}, {about['threads']} threads, torch {about['torch']}, commit {commit()}")
    with tempfile.TemporaryDirectory() as folder:
        keep = arguments.keep or Path(folder)
        one, many = keep / "one.pth", keep / "subtree.pth"
        print(f"one process, {arguments.steps} steps")
        data = str(arguments.data)
        command = ["-m", "infnerf.training", data, "--out", str(one), "--steps", str(arguments.steps)]
        run([*command, *options])
        print(f"{arguments.ranks} ranks by subtrees, {arguments.steps} steps, a {arguments.ranks}-th of a batch each")
        launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(arguments.ranks)]
        command = ["-m", "infnerf.training", data, "--out", str(many), "--steps", str(arguments.steps)]
        run([*launch, *command, "--parallel", "subtree", *options])
        before, after = psnr_of(one, arguments.data), psnr_of(many, arguments.data)
    print("scale   one process   by subtrees   difference")
    for scale in (*map(str, EVAL_SCALES), "mean"):
        name = scale if scale == "mean" else f"1/{scale}"
        print(f"{name:>5}   {before[scale]:8.2f} dB   {after[scale]:8.2f} dB   {after[scale] - before[scale]:+7.2f} dB")


if __name__ == "__main__":
    main()
