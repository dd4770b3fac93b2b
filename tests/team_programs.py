"""What the ranks of tests/test_team.py run, each in its own process, and how they are started without torchrun."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from infnerf.data.dataset import DatasetError, load_dataset
from infnerf.models.checkpoint import load_checkpoint
from infnerf.models.config import InfNeRFConfig
from infnerf.models.infnerf import InfNeRF
from infnerf.renderer.cliutil import run_command
from infnerf.training import inherit, subtree_run
from infnerf.training.config import TrainerConfig
from infnerf.training.resume import restore_state, save_state
from infnerf.training.run import train
from infnerf.training.subtree_run import train_subtrees
from infnerf.training.team import Team, open_team
from infnerf.training.trainer import Trainer

SMALL = InfNeRFConfig(
    n_grid_levels=3, table_size=256, base_resolution=4, resolution=16, hidden_dim=16, occupancy_resolution=8
)


QUICK = {"DISTILL_STEPS": 2, "CANDIDATES": 1024, "PLACES": 256, "POINTS": 256}  # of fitting children to parents


def config(**changes: Any) -> TrainerConfig:
    base = TrainerConfig(samples_per_step=1 << 11, max_bytes=400_000, steps=12, device="cpu")
    return replace(base, **changes)


def start(program: str, size: int, *arguments: object) -> list[subprocess.Popen[str]]:
    """`program` of this module on `size` ranks."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import team_programs as t; t.run()"
    command = [sys.executable, "-c", code, program, *map(str, arguments)]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            command, env=os.environ | shared | {"RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of every rank."""
    said = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def kill(ranks: list[subprocess.Popen[str]], victim: int, out: Path) -> None:
    """Kills one of two ranks: the other must end with a sentence, and leave a checkpoint that loads."""
    ranks[victim].kill()
    code, _, said = finish(ranks)[1 - victim]
    assert code == 1
    assert f"rank {victim} of 2 died after step" in said
    assert "Traceback" not in said
    assert load_checkpoint(out).octree.n_nodes > 1


def run() -> None:
    for name, value in QUICK.items():
        setattr(inherit, name, value)
    with open_team() as team:
        globals()[sys.argv[1]](team, *sys.argv[2:])


def collectives(team: Team, out: str) -> None:
    """Each rank writes what it got of the exchanges."""
    team.stage = "testing"
    parameter = torch.nn.Parameter(torch.zeros(4, 3))
    parameter.grad = torch.full((4, 3), float(team.rank + 1))
    team.average_gradients([parameter], torch.tensor([1, 3]))
    rows = team.broadcast_rows(torch.arange(5) if team.leads else torch.zeros(0, dtype=torch.long))
    found = {"grad": parameter.grad, "bytes": team.traffic["testing"], "rows": rows}
    found |= {"pulse": team.pulse(0.25 if team.leads else 0.75, not team.leads), "decides": team.decides(team.leads)}
    if team.leads:
        found["received"] = team.receive(torch.zeros(2), 1)
    else:
        team.send(torch.tensor([7.0, 8.0]))
    torch.save(found, f"{out}.{team.rank}")


def one_fails(team: Team) -> None:
    try:
        with team.together():
            if team.rank == 1:
                raise DatasetError("images/7.png: expected an image, found noise")
    except ValueError as error:
        print(error)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")


def steps(trainer: Trainer, first: int, last: int) -> list[tuple[int, int]]:
    """Touched nodes of each step, and all nodes before it."""
    found = []
    for i in range(first, last):
        n = trainer.model.octree.n_nodes
        found.append((trainer.step(i / 12).nodes, n))
    return found


def replicas(team: Team, city: str, out: str) -> None:
    """Steps before and after a growth, with a state saved and resumed in between."""
    data = load_dataset(city)
    chosen = config(octree_growth_schedule=(0.7,), octree_prune_schedule=(0.6,), max_depth=2)
    whole = Trainer(InfNeRF(SMALL), data, chosen, team)
    team.stage, before = "steps", whole.model.octree.n_nodes
    whole.model.occupancy[-1] = 0  # no sample falls into this node
    touched = steps(whole, 0, 6)
    exchanged = team.traffic["steps"]
    team.stage = "rest"
    whole.collect()
    if team.leads:
        save_state(whole, Path(f"{out}.resume"))
    team.sum(torch.zeros(1))  # the file is there
    steps(whole, 6, 12)
    resumed = Trainer(InfNeRF(SMALL), data, chosen, team)
    restore_state(resumed, Path(f"{out}.resume"))
    steps(resumed, 6, 12)
    found = {
        "nodes": (before, whole.model.octree.n_nodes), "touched": touched, "exchanged": exchanged,
        "images": whole.shard.images, "prior": whole.prior, "read": len(whole.pyramid.cameras[0]),
        "states": [vars_of(trainer) for trainer in (whole, resumed)],
    }  # fmt: skip
    torch.save(found, f"{out}.{team.rank}")


def vars_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """All that must be equal on every rank."""
    model, occupancy = trainer.model, trainer.occupancy
    return {
        "tables": model.tables.data, "mlp": model.mlp.data, "words": model.occupancy, "seen": occupancy.seen,
        "density": occupancy.density, "children": model.octree.children, "steps": trainer.optimizer.steps["tables"],
        "numbers": torch.tensor([trainer.steps_done, trainer.n_rays, trainer.running_mse], dtype=torch.float64),
    }  # fmt: skip


def long_run(team: Team, how: str, city: str, out: str) -> None:
    """Goes on until it is stopped, or left by another rank. By subtrees, their stage begins after one step."""

    def report(record: Any) -> None:
        print(record.step, flush=True)

    def command() -> None:
        chosen = config(steps=1_000_000)
        if how == "data":
            train(Path(city), Path(out), chosen, SMALL, report=report, say=print, team=team)
        else:
            train_subtrees(Path(city), Path(out), chosen, team, SMALL, report=report, say=print, shared_fraction=1e-6)

    sys.exit(run_command("infnerf", command))


def subtrees(team: Team, idle: str, city: str, out: str) -> None:
    """A run and its continuation. `idle`: a rank whose subtrees no image shows; -1 for none."""
    if team.rank == int(idle):
        subtree_run.shard_of_rank = lambda *_: None
    said: list[str] = []
    exchanged = []
    for chosen, resume in ((config(), False), (config(steps=16), True)):
        team.traffic.clear()
        train_subtrees(Path(city), Path(out), chosen, team, SMALL, resume=resume, say=said.append)
        exchanged.append(dict(team.traffic))
    torch.save({"said": said, "exchanged": exchanged}, f"{out}.{team.rank}")
