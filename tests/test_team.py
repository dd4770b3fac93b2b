"""Training by several processes: replicas stay equal, only touched nodes are exchanged, and a lost rank is survived."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from team_programs import SMALL, config, finish, kill, start

from infnerf.data.city import make_city
from infnerf.data.dataset import DatasetError, load_dataset
from infnerf.models.checkpoint import load_checkpoint
from infnerf.models.infnerf import InfNeRF
from infnerf.training.resume import restore_state, resume_path
from infnerf.training.shards import own_images
from infnerf.training.team import open_team
from infnerf.training.trainer import Trainer


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("city") / "city"
    make_city(out, blocks=1, views=7, size=(48, 32), seed=4, test_views=2, workers=1, supersample=1)
    return out


def results(program: str, out: Path, *arguments: object) -> list[dict[str, Any]]:
    """What the program left on two ranks."""
    for code, _, said in finish(start(program, 2, *arguments, out)):
        assert code == 0, said
    return [torch.load(f"{out}.{rank}") for rank in range(2)]


def test_exchanges_give_every_rank_the_same(tmp_path: Path) -> None:
    one, two = results("collectives", tmp_path / "found")
    assert one["grad"][:, 0].tolist() == [1, 1.5, 1, 1.5]  # rows 1 and 3: the mean; the others stay
    assert two["grad"][:, 0].tolist() == [2, 1.5, 2, 1.5]
    assert one["bytes"] == two["bytes"] == 2 * 3 * 4 + 8 + 5 * 8  # two rows; a count and five numbers
    assert one["rows"].tolist() == two["rows"].tolist() == [0, 1, 2, 3, 4]
    assert one["pulse"] == two["pulse"] == (0.25, True)
    assert one["decides"] is two["decides"] is True
    assert one["received"].tolist() == [7, 8]


def test_what_fails_on_one_rank_fails_on_all_and_rank_0_says_why() -> None:
    (code, said, _), (other, silence, _) = finish(start("one_fails", 2))
    assert (code, said) == (0, "CommandError: rank 1: images/7.png: expected an image, found noise\n")
    assert (other, silence) == (1, "")


def test_replicas_stay_equal_through_growth_and_resuming_and_exchange_touched_nodes_only(
    city: Path, tmp_path: Path
) -> None:
    one, two = results("replicas", tmp_path / "found", city)
    for name, value in one["states"][0].items():
        assert torch.equal(value, two["states"][0][name]), f"{name} differs between the ranks"
        for rank in (one, two):
            assert torch.equal(value, rank["states"][1][name]), f"{name} differs after resuming"
    before, after = one["nodes"]
    assert before < after  # it grew
    assert one["prior"] == two["prior"]
    assert (one["images"].tolist(), two["images"].tolist()) == ([0, 2, 4, 6], [1, 3, 5])
    assert (one["read"], two["read"]) == (4, 3)
    row = 4 * (SMALL.n_features * SMALL.table_size + SMALL.mlp_size)
    expected = sum(touched * row + 8 * n + 5 * 8 for touched, n in one["touched"])  # a row; of all nodes; of the step
    assert one["exchanged"] == two["exchanged"] == expected
    assert one["touched"][0][0] < before


def test_a_process_alone_is_a_team_that_exchanges_nothing(city: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with open_team() as team:
        trainer = Trainer(InfNeRF(SMALL), load_dataset(city), config(), team)
        trainer.step(0.0)  # before the tree's first growth
    assert (team.rank, team.size, sum(team.traffic.values())) == (0, 1, 0)
    assert trainer.shard.images.tolist() == list(range(7))


def test_more_ranks_than_images_are_refused(city: Path) -> None:
    with pytest.raises(DatasetError, match="expected an image for each of 8 ranks, found 7"):
        own_images(load_dataset(city), 0, 8)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_dies_leaves_a_sentence_and_a_run_that_resumes(city: Path, tmp_path: Path, victim: int) -> None:
    out = tmp_path / "m.pth"
    ranks = start("long_run", 2, "data", city, out)
    assert ranks[0].stdout is not None
    while not (line := ranks[0].stdout.readline()).strip().isdigit():
        assert line, ranks[0].communicate()
    ranks[0].stdout.readline()
    kill(ranks, victim, out)
    resumed = Trainer(InfNeRF(SMALL), load_dataset(city), config())
    restore_state(resumed, resume_path(out))
    assert resumed.steps_done >= 1


def test_a_signal_to_any_rank_stops_all(city: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.pth"
    ranks = start("long_run", 2, "data", city, out)
    assert ranks[0].stdout is not None
    while (line := ranks[0].stdout.readline()).strip() != "2":
        assert line, ranks[0].communicate()
    ranks[1].send_signal(signal.SIGINT)
    (code, said, _), (other, silence, _) = finish(ranks)
    assert (code, other) == (0, 0)
    assert "stopped after" in said
    assert silence == ""
    assert load_checkpoint(out).octree.n_nodes > 1


def test_torchrun_trains_and_only_rank_0_speaks(city: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.pth"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "infnerf.training"]
    done = subprocess.run(
        [*launch, city, "--out", out, "--steps", "3", "--table-size", "256", "--grid-levels", "3"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("finished after 3 steps") == 1
    assert load_checkpoint(out).training is not None
