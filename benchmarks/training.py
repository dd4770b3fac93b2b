"""What a training step costs as the tree grows: the same rays on a tree, and on one of 16 times its nodes.

    python benchmarks/training.py [DATA] [--factor 16] [--steps 30]

The nodes added lie in the air above the scene, where no sample falls: what they cost is what a step does with nodes it
does not touch. Both trainers take their steps in turn. Prints machine, size and commit. Without DATA it makes a city.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from infnerf.data.city import make_city
from infnerf.data.dataset import Dataset, load_dataset
from infnerf.models.config import InfNeRFConfig
from infnerf.models.infnerf import InfNeRF
from infnerf.models.octree_edit import add_children
from infnerf.renderer.bench import commit, machine
from infnerf.training.config import TrainerConfig
from infnerf.training.trainer import Trainer


def with_unseen_nodes(trainer: Trainer, factor: int) -> None:
    """Splits the upper half of the root until the tree has `factor` times its nodes; nothing is occupied there."""
    octree, n = trainer.model.octree, trainer.model.octree.n_nodes
    old = torch.arange(n)
    while octree.n_nodes < factor * n:
        above = octree.local_corner()[:, 2] >= 0.5
        above[0] = True
        free = ((octree.children < 0) & above[:, None]).nonzero()
        free = free[(free[:, 0] > 0) | (free[:, 1] >= 4)][: factor * n - octree.n_nodes]
        octree, source = add_children(octree, free[:, 0], free[:, 1])
        old = torch.where(source >= 0, old[source.clamp(min=0)], -1)
    kept, added = old.clamp(min=0), int((old < 0).sum())
    tables, mlp = trainer.model.tables.data[kept], trainer.model.mlp.data[kept]
    occupancy = trainer.model.occupancy[kept].clone()
    occupancy[old < 0] = 0
    model = InfNeRF(trainer.model.config, octree, tables, mlp, occupancy, trainer.model.scene)
    trainer.adopt(model, old, torch.zeros(added, trainer.occupancy.cells))


def trainers(data: Dataset, factor: int) -> list[Trainer]:
    both = [Trainer(InfNeRF(InfNeRFConfig()), data, TrainerConfig()) for _ in range(2)]
    with_unseen_nodes(both[1], factor)
    return both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--factor", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    about = machine()
    print(f"{about['cpu']}, {about['threads']} threads, torch {about['torch']}, commit {commit()}")
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.data or Path(folder) / "city"
        if arguments.data is None:
            make_city(path, blocks=3, views=24, size=(200, 150))
        both = trainers(load_dataset(path), arguments.factor)
        times: list[list[float]] = [[], []]
        for step in range(arguments.steps):
            for trainer, taken in zip(both, times, strict=True):
                began = time.perf_counter()
                trainer.step(step / 1000)
                taken.append(time.perf_counter() - began)
    medians = [1e3 * float(np.median(taken[5:])) for taken in times]
    for trainer, median in zip(both, medians, strict=True):
        print(f"{trainer.model.octree.n_nodes:>8} nodes   {median:8.1f} ms a step")
    print(f"ratio {medians[1] / medians[0]:.2f} (at most 1.3)")


if __name__ == "__main__":
    main()
