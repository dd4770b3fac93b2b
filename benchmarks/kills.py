"""What a run loses that is killed again and again: resumed each time, it is held to one that was left alone.

    python benchmarks/kills.py [DATA] [--kills 20] [--steps 400] [--seed 0]

Every kill is a SIGKILL at a random step of its share of the run, some milliseconds into it; every third one waits until
a file is being written. After each the files must load, in the end PSNR is compared, and the parameters themselves: on
one machine both runs are the same, bit for bit. Prints machine and commit. Without DATA it makes a city.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from infnerf.data.city import make_city
from infnerf.models.checkpoint import CheckpointError, load_checkpoint
from infnerf.renderer.bench import commit, machine
from infnerf.training.config import TrainerConfig
from infnerf.training.evaluate import evaluate
from infnerf.training.resume import resume_path
from infnerf.training.run import train
from infnerf.training.watch import best_path

SAVE_MINUTES = 0.05
WAIT_FOR_SAVE_S = 120.0  # s that a kill waits for a file to be written, at most
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); import kills; kills.child(*sys.argv[2:])"


def child(data: str, out: str, steps: str, resume: str) -> None:
    """The run that is killed: a step's number a line."""
    config = TrainerConfig(steps=int(steps), samples_per_step=1 << 15, max_bytes=3_000_000, device="cpu")
    train(
        Path(data), Path(out), config, resume=resume == "resume", save_minutes=SAVE_MINUTES,
        report=lambda now: print(now.step, flush=True), say=lambda text: print(text, file=sys.stderr),
    )  # fmt: skip


@dataclass
class Tally:
    """What the kills did."""

    kills: int = 0
    while_saving: int = 0
    before_a_save: int = 0  # nothing was there yet: the run began anew
    unreadable: list[str] = field(default_factory=list)


def start(data: Path, out: Path, steps: int) -> subprocess.Popen[str]:
    """Begins the run, or goes on with it where there is a state."""
    resume = "resume" if resume_path(out).is_file() else "fresh"
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(data), str(out), str(steps), resume]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until_step(process: subprocess.Popen[str], step: int) -> bool:
    """Reads the run's lines until it has done `step`; false if it ends before."""
    assert process.stdout is not None
    return any(int(line) >= step for line in process.stdout)


def until_writing(process: subprocess.Popen[str], folder: Path) -> bool:
    """Waits until a half-written file that was not there before lies in the folder."""
    before, limit = set(folder.glob(".*")), time.monotonic() + WAIT_FOR_SAVE_S
    while process.poll() is None and time.monotonic() < limit:
        if set(folder.glob(".*")) - before:
            return True
        time.sleep(1e-3)
    return False


def check(out: Path, tally: Tally) -> None:
    """Counts the files that do not load."""
    if not resume_path(out).is_file():
        tally.before_a_save += 1
    for path in (out, best_path(out)):
        try:
            if path.exists():
                load_checkpoint(path)
        except CheckpointError as error:
            tally.unreadable.append(str(error))
    try:
        if resume_path(out).exists():
            torch.load(resume_path(out), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the damage provokes
        tally.unreadable.append(f"{resume_path(out)}: {error}")


def finish(process: subprocess.Popen[str]) -> None:
    """Waits for the end of a run that is not killed. Raises `RuntimeError` if it failed."""
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a run ended with code {process.returncode}: {errors.strip()[-400:]}")


def killed_run(data: Path, out: Path, steps: int, kills: int, seed: int) -> Tally:
    """Trains `out`, killed `kills` times and resumed."""
    chance, tally = random.Random(seed), Tally()
    for k in range(kills):
        step = int((k + chance.random()) * steps / (kills + 1)) + 1
        process = start(data, out, steps)
        if not until_step(process, step):
            finish(process)
            raise RuntimeError(f"the run ended before step {step} of kill {k + 1}")
        saving = k % 3 == 2 and until_writing(process, out.parent)
        time.sleep(chance.random() * (0.02 if saving else 0.3))
        process.kill()
        process.communicate()
        tally.kills += 1
        tally.while_saving += bool(set(out.parent.glob(".*.*")))  # a half-written file is left
        check(out, tally)
        print(f"kill {k + 1:>2} after step {step:>4}{', while saving' if saving else ''}", flush=True)
    finish(start(data, out, steps))
    return tally


def same(a: Path, b: Path) -> bool:
    """Whether two checkpoints have the same tree, parameters and occupancy."""
    one, other = load_checkpoint(a), load_checkpoint(b)
    return torch.equal(one.octree.children, other.octree.children) and all(
        torch.equal(one.field[name], other.field[name]) for name in one.field
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    about = machine()
    print(f"{about['cpu']}, {about['threads']} threads, torch {about['torch']}, commit {commit()}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = arguments.data or folder / "city"
        if arguments.data is None:
            make_city(data, blocks=2, views=24, size=(96, 72), test_views=8)
        began = time.monotonic()
        outs = [folder / name / "city.pth" for name in ("whole", "killed")]
        for out in outs:
            out.parent.mkdir()
        finish(start(data, outs[0], arguments.steps))
        tally = killed_run(data, outs[1], arguments.steps, arguments.kills, arguments.seed)
        whole, killed = (evaluate(out, data, samples=1)["psnr"] for out in outs)
        moments = f"{tally.while_saving} left a half-written file, {tally.before_a_save} came before the first save"
        print(f"{tally.kills} kills ({moments}), {len(tally.unreadable)} unreadable; {time.monotonic() - began:.0f} s")
        for line in tally.unreadable:
            print(f"  {line}")
        print(
            f"PSNR left alone {whole:.3f} dB, killed {killed:.3f} dB, difference {killed - whole:+.3f} dB (at most 0.1)"
        )
        print(f"parameters {'equal, bit for bit' if same(*outs) else 'differ'}")


if __name__ == "__main__":
    main()
