"""A run by subtrees from files to files: `torchrun ... -m infnerf.training --parallel subtree`.

Stage 1 trains the levels above the subtrees, all ranks together. At the hand-over each rank learns which tiles of which
images show its subtrees. Stage 2 trains each rank's subtrees apart. At the end rank 0 takes in all rows and writes one
checkpoint. Either stage has learning rates of its own, from warm-up to decay.

In stage 2 a rank's share of a step's samples falls on its share of the nodes: each node gets as many samples a step,
and as many steps, as one process would give it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import torch

from ..data.dataset import Dataset
from ..models.checkpoint import Checkpoint, save_checkpoint
from ..models.config import InfNeRFConfig
from ..models.infnerf import InfNeRF
from ..renderer.cliutil import CommandError
from .base import scene_of
from .config import StepRecord, TrainerConfig
from .resume import restore_state, save_state
from .run import interruptible, leave, open_data
from .subtree import SubtreePlan, SubtreeTrainer, TopTrainer, plan_subtrees, seen_tiles, shard_of_rank
from .team import LostRank, Team
from .trainer import Trainer, has_points, plan_tree

SHARED_FRACTION = 0.6
STAGES = ("shared levels", "hand-over", "subtrees", "hand-in")  # under which exchanged bytes are booked


@dataclass
class SubtreeRun:
    """What both stages need."""

    data: Dataset
    out: Path
    config: TrainerConfig
    team: Team
    plan: SubtreePlan
    shared_fraction: float  # of the run that the levels above take
    save_s: float  # between two states that are kept
    report: Callable[[StepRecord], None]
    say: Callable[[str], None]

    def first_config(self) -> TrainerConfig:
        """The run's config with stage 1's share of its steps and minutes, and this rank's share of a step's samples."""
        steps, minutes = self.config.steps, self.config.minutes
        return replace(
            self.config,
            samples_per_step=max(1, self.config.samples_per_step // self.team.size),
            steps=None if steps is None else max(1, round(steps * self.shared_fraction)),
            minutes=None if minutes is None else minutes * self.shared_fraction,
            octree_growth_schedule=(),
            octree_prune_schedule=(),
        )

    def second_config(self, first: Trainer) -> TrainerConfig:
        """With what stage 1 left of them."""
        steps, minutes = self.config.steps, self.config.minutes
        return replace(
            self.config,
            samples_per_step=first.config.samples_per_step,
            steps=None if steps is None else max(1, steps - first.steps_done),
            minutes=None if minutes is None else minutes * (1 - self.shared_fraction),
            octree_growth_schedule=(),
        )

    def stage_report(self, first: Trainer | None = None) -> Callable[[StepRecord], None]:
        """Reports a stage's steps as a part of the whole run's. `first`: stage 1's trainer, in stage 2."""
        share = self.shared_fraction
        if first is None:
            return lambda record: self.report(replace(record, fraction=share * record.fraction))
        return lambda record: self.report(
            replace(record, fraction=share + (1 - share) * record.fraction, step=first.steps_done + record.step)
        )


def part_path(out: Path, rank: int) -> Path:
    """Where a rank keeps its subtrees' state.

    >>> part_path(Path("runs/city.pth"), 1).name
    'city.pth.resume.rank1'
    """
    return out.with_name(f"{out.name}.resume.rank{rank}")


def train_subtrees(
    data: Path,
    out: Path,
    config: TrainerConfig,
    team: Team,  # of two and more
    model: InfNeRFConfig | None = None,
    background: bool | None = None,
    resume: bool = False,
    report: Callable[[StepRecord], None] = lambda _: None,
    say: Callable[[str], None] = print,
    *,
    level: int | None = None,  # of the subtrees' roots; None: the smallest with a node for each rank
    shared_fraction: float = SHARED_FRACTION,  # of the steps, for the levels above
    save_minutes: float = 5.0,  # between two states that are kept
) -> Checkpoint | None:
    """As `run.train`, by subtrees. In a step every rank takes its share of `samples_per_step`, in both stages, so that
    as many steps are as many samples as with one process. Rank 0 returns the whole model.

    Raises `CommandError` for data without sparse points, or a tree with fewer subtrees than ranks.
    """
    if not team.leads:
        report, say = (lambda _: None), (lambda _: None)
    train_set, background = open_data(data, out, background, team, say)
    shape = replace(model or InfNeRFConfig(), background=background)
    with team.together():
        if not has_points(train_set):
            raise CommandError(f"{data}: --parallel subtree needs sparse points, which say what the tree will be")
        plan = plan_subtrees(plan_tree(config, shape, train_set), team.size, level)
    run = SubtreeRun(train_set, out, config, team, plan, shared_fraction, 60 * save_minutes, report, say)
    with interruptible(team) as interrupted:
        first = _shared_levels(run, InfNeRF(shape, seed=config.seed), resume, interrupted)
        if first.stopped:
            say(f"stopped after {first.steps_done} steps of the shared levels: wrote {out}")
            return None
        second = _hand_over(run, first, resume)
        _own_subtrees(run, first, second, interrupted)
        whole = _hand_in(run, first, second)
    if team.leads:
        steps = first.steps_done + (second.steps_done if second else 0)
        stopped = second is not None and second.stopped
        say(f"{'stopped' if stopped else 'finished'} after {steps} steps on each of {team.size} ranks: wrote {out}")
    return whole


def _shared_levels(run: SubtreeRun, model: InfNeRF, resume: bool, interrupted: Callable[[], bool]) -> Trainer:
    """Stage 1."""
    team, plan = run.team, run.plan
    model.place(plan.top(), scene_of(run.data))
    trainer = TopTrainer(model, run.data, run.first_config(), team)
    trainer.part = f"levels above {plan.level}"
    counts = plan.octree.level_counts()
    run.say(
        f"{len(run.data)} images, {plan.octree.n_nodes} nodes on levels {counts}; {team.size} ranks train levels 0 to "
        f"{plan.level - 1} together, then the {counts[plan.level]} subtrees below apart; {trainer.sampling_name}; "
        f"{trainer.prior}"
    )
    part = part_path(run.out, team.rank)
    with team.together():
        if resume:
            trainer.resume(run.out)
        else:
            part.unlink(missing_ok=True)
    team.stage = "shared levels"
    if team.decides(resume and part.is_file()):  # these levels are done, and stay as the subtrees know them
        return trainer
    report, saved = run.stage_report(), time.monotonic()

    def save() -> None:
        trainer.collect()
        if team.leads:
            trainer.save(run.out)

    def watch(record: StepRecord) -> None:
        nonlocal saved
        report(record)
        if team.decides(time.monotonic() - saved > run.save_s):
            save()
            saved = time.monotonic()

    try:
        trainer.train(watch, interrupted)
        save()
    except LostRank as error:
        leave(trainer, run.out, error)
    return trainer


def _hand_over(run: SubtreeRun, first: Trainer, resume: bool) -> SubtreeTrainer | None:
    """This rank's trainer of stage 2, or None where no image shows its subtrees; and says what every rank has."""
    team, plan = run.team, run.plan
    team.stage = "hand-over"
    tiles = seen_tiles(first, plan, team)
    second: SubtreeTrainer | None = None
    with team.together():
        shard = shard_of_rank(run.data, tiles, team.rank)
        if shard is not None:
            second = SubtreeTrainer(first, run.second_config(first), shard, plan.part(team.rank)[0])
            second.part = f"rank {team.rank} of {team.size}, subtrees of level {plan.level}"
            path = part_path(run.out, team.rank)
            if resume and path.is_file():
                restore_state(second, path)
            else:
                save_state(second, path)
    shown = [sum(float(seen[rank].float().mean()) for seen in tiles) / len(tiles) for rank in range(team.size)]
    images = team.totals([len(second.shard.images) if second and rank == team.rank else 0 for rank in range(team.size)])
    for rank in range(team.size):
        run.say(
            f"rank {rank} is to have {int((plan.owner == rank).sum())} of {plan.octree.n_nodes} nodes; it reads "
            f"{images[rank]:.0f} of {len(tiles)} images: {100 * shown[rank]:.0f} % of all pixels show its subtrees"
        )
    return second


def held_bytes(trainer: Trainer) -> int:
    """Memory of a trainer's nodes: parameters, gradients, Adam's moments, occupancy."""
    model, occupancy = trainer.model, trainer.occupancy
    moments = [*trainer.optimizer.means.values(), *trainer.optimizer.squares.values()]
    grids = [model.occupancy, occupancy.density, *([] if occupancy.allowed is None else [occupancy.allowed])]
    return sum(t.nbytes for t in (*moments, *grids)) + 2 * (model.tables.nbytes + model.mlp.nbytes)


def _own_subtrees(
    run: SubtreeRun, first: Trainer, second: SubtreeTrainer | None, interrupted: Callable[[], bool]
) -> None:
    """Stage 2, in which no tensor is exchanged."""
    team, saved = run.team, time.monotonic()
    team.stage = "subtrees"
    report, path = run.stage_report(first), part_path(run.out, team.rank)

    def stop() -> bool:
        if interrupted():
            team.call_off()
        return team.called_off()

    def watch(record: StepRecord) -> None:
        nonlocal saved
        report(record)
        if second is not None and time.monotonic() - saved > run.save_s:
            save_state(second, path)
            saved = time.monotonic()

    try:
        if second is not None:
            second.train(watch, stop)
            save_state(second, path)
        team.meet("subtrees", stop)
    except LostRank as error:
        _leave(run, second or first, error)


def _leave(run: SubtreeRun, trainer: Trainer, error: LostRank) -> NoReturn:
    """The others' rows are out of reach; what this rank has is a model, too, of less detail where it owns nothing."""
    if isinstance(trainer, SubtreeTrainer):
        save_state(trainer, part_path(run.out, run.team.rank))
    if not run.team.takes_over():
        raise SystemExit(1) from error
    save_checkpoint(trainer.checkpoint(), run.out)
    raise LostRank(
        f"{error} after step {trainer.steps_done} of its subtrees: wrote {run.out} without the other ranks' subtrees, "
        "--resume goes on from what every rank has saved"
    ) from None


def _hand_in(run: SubtreeRun, first: Trainer, second: SubtreeTrainer | None) -> Checkpoint | None:
    """Rank 0 takes in every rank's rows, and writes them. Where no image showed a subtree its ancestors answer."""
    team, last = run.team, second or first
    team.stage = "hand-in"
    n_shared = first.model.octree.n_nodes
    mine = torch.zeros(team.size, 2, dtype=torch.int64)
    mine[team.rank] = torch.tensor([last.model.octree.n_nodes - n_shared, held_bytes(last)])
    kept = torch.zeros(run.plan.octree.n_nodes, dtype=torch.int32)
    kept[run.plan.nodes_of(last.model.octree)] = 1
    own = last.checkpoint()
    whole: Checkpoint | None = None
    try:
        nodes, held = team.sum(mine).unbind(1)
        team.sum(kept)
        if team.leads:
            whole = _collect(run, own, run.plan.only(kept > 0), n_shared)
            notes = {"step": first.steps_done + (second.steps_done if second else 0), "ranks": team.size}
            whole.training = {**(own.training or {}), **notes}
            save_checkpoint(whole, run.out)
        else:
            for rows in own.field.values():
                team.send(rows[n_shared:])
        team.pulse(0.0, False)  # nobody leaves before the file is there
    except LostRank as error:
        _leave(run, last, error)
    for rank in range(team.size):
        run.say(
            f"rank {rank} held {nodes[rank]} nodes of its own and {n_shared} that all have, "
            f"{float(held[rank]) / 1e6:.1f} MB with gradients and Adam's state"
        )
    run.say("bytes exchanged by rank 0: " + ", ".join(f"{stage} {team.traffic[stage]}" for stage in STAGES))
    return whole


def _collect(run: SubtreeRun, own: Checkpoint, plan: SubtreePlan, n_shared: int) -> Checkpoint:
    field = {name: rows.new_zeros(plan.octree.n_nodes, *rows.shape[1:]) for name, rows in own.field.items()}
    for rank in range(run.team.size):
        _, source = plan.part(rank)
        for name, rows in own.field.items():
            if rank == 0:
                field[name][source] = rows
            else:
                theirs = rows.new_empty(len(source) - n_shared, *rows.shape[1:])
                field[name][source[n_shared:]] = run.team.receive(theirs, rank)
    return replace(own, octree=plan.octree, field=field)
