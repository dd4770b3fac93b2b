"""Processes that train one model together: who is who, and the few exchanges that training needs.

`torchrun` starts them and says so in environment variables; without those a process is a team of its own, whose
exchanges return what they were given. Tensors go through gloo, or through NCCL where they lie on a GPU; what is said
about the run itself (who is there, who is done, stop) goes through torchrun's key-value store and is not counted.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..renderer.cliutil import CommandError

TIMEOUT = timedelta(minutes=10)  # that ranks wait for each other: longer than rank 0 takes to write a checkpoint
LOOK_EVERY_S = 1.0  # at the store, while nothing is exchanged
SENTENCE = 1000  # bytes of an error that reach rank 0
SETTLE_S = 2.0  # after an exchange failed, until a dead process shows as dead


class LostRank(CommandError):
    """A process of the team died, or did not answer in time: exit code 1."""


class Team:
    """Rank `rank` of `size` processes; `Team()` is one alone.

    >>> Team().sum(torch.ones(2)).tolist(), Team().leads, dict(Team().traffic)
    ([1.0, 1.0], True, {})
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Any = None, device: torch.device | None = None) -> None:
        """`store`: a `torch.distributed.Store` that all ranks share; `device`: where exchanged tensors must lie."""
        self.rank, self.size, self.store = rank, size, store
        self.device = device or torch.device("cpu")
        self.stage = "setup"  # under which `traffic` is booked
        self.traffic: Counter[str] = Counter()  # stage -> bytes of tensors that this rank handed in
        self._looked = 0.0  # when `called_off` last did
        self._processes: list[tuple[str, int]] = []  # machine and process number of each rank
        if size > 1:
            store.set(f"process/{rank}", f"{socket.gethostname()} {os.getpid()}")
            for other in range(size):
                machine, number = store.get(f"process/{other}").decode().split()
                self._processes.append((machine, int(number)))

    @property
    def leads(self) -> bool:
        """Whether this rank prints and writes."""
        return self.rank == 0

    @contextlib.contextmanager
    def _exchange(self, tensor: Tensor) -> Iterator[Tensor]:
        """The tensor where the backend takes it, copied back afterwards. Raises `LostRank`."""
        self.traffic[self.stage] += tensor.nbytes
        moved = tensor.to(self.device)
        try:
            yield moved
        except RuntimeError as error:  # gloo's or NCCL's: a connection was closed, or the time is over
            raise LostRank(self._who_is_lost()) from error
        if moved is not tensor:
            tensor.copy_(moved)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sums a contiguous tensor over the ranks, in place: the same bits everywhere."""
        if self.size > 1:
            with self._exchange(tensor) as moved:
                dist.all_reduce(moved)
        return tensor

    def collect(self, counts: Tensor) -> None:
        """Moves what the ranks have counted to rank 0, in place: the others start from 0 again."""
        self.sum(counts)
        if not self.leads:
            counts.zero_()

    def totals(self, values: Sequence[float]) -> list[float]:
        """Sums some numbers over the ranks."""
        return list(values) if self.size == 1 else self.sum(torch.tensor(values, dtype=torch.float64)).tolist()

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor for everyone, in place."""
        if self.size > 1:
            with self._exchange(tensor) as moved:
                dist.broadcast(moved, 0)
        return tensor

    def broadcast_rows(self, rows: Tensor) -> Tensor:
        """Rank 0's rows [n, ...], where the others may have another n."""
        if self.size == 1:
            return rows
        n = int(self.broadcast(torch.tensor([len(rows)])))
        return self.broadcast(rows if self.leads else rows.new_zeros(n, *rows.shape[1:]))

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[torch.nn.Parameter], rows: Tensor) -> None:
        """Replaces some `rows` [n] of each parameter's gradient by its mean over the ranks; no other row is sent.

        `rows` are the same on every rank, those that it did not touch itself (of zeros there) included.
        """
        if self.size == 1 or not len(rows):
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad[rows] = self.sum(parameter.grad[rows]) / self.size

    def send(self, tensor: Tensor) -> None:
        """To rank 0, which calls `receive`."""
        with self._exchange(tensor.contiguous()) as moved:
            dist.send(moved, 0)

    def receive(self, tensor: Tensor, rank: int) -> Tensor:
        """Fills a tensor with what `rank` sends."""
        with self._exchange(tensor) as moved:
            dist.recv(moved, rank)
        return tensor

    def pulse(self, fraction: float, stop: bool) -> tuple[float, bool]:
        """What all ranks go by in the next step: rank 0's fraction of the run, and whether any of them is to stop."""
        fraction, stops = self.totals([fraction if self.leads else 0.0, float(stop)])
        return fraction, stops > 0

    def decides(self, yes: bool) -> bool:
        """Rank 0's answer."""
        return bool(self.broadcast(torch.tensor([yes]).byte())) if self.size > 1 else yes

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Where the body fails on any rank it fails on all: rank 0 says why, the others exit.

        The body must not exchange anything.
        """
        if self.size == 1:
            yield
            return
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        said = torch.zeros(self.size, SENTENCE, dtype=torch.uint8)
        if failure is not None:
            sentence = (str(failure) or type(failure).__name__).encode()[:SENTENCE]
            said[self.rank, : len(sentence)] = torch.frombuffer(bytearray(sentence), dtype=torch.uint8)
        sentences = [bytes(row.tolist()).rstrip(b"\0").decode(errors="replace") for row in self.sum(said)]
        failed = [rank for rank, sentence in enumerate(sentences) if sentence]
        if not failed:
            return
        if not self.leads:
            raise SystemExit(1) from failure
        everyone = len(failed) == self.size and len(set(sentences)) == 1
        raise CommandError(sentences[failed[0]] if everyone else f"rank {failed[0]}: {sentences[failed[0]]}")

    def call_off(self) -> None:
        """Asks all ranks to stop, without an exchange: they see it in `called_off`."""
        with self._store_use():
            self.store.set("called off", "")

    def called_off(self) -> bool:
        """Whether a rank asked to stop; looks once a second. Raises `LostRank` where one died."""
        if self.size == 1 or time.monotonic() - self._looked < LOOK_EVERY_S:
            return False
        self._looked = time.monotonic()
        if self.missing():
            raise LostRank(self._who_is_lost())
        with self._store_use():
            return self.store.check(["called off"])

    def meet(self, where: str, watch: Callable[[], object]) -> None:
        """Waits until all ranks have come here, however long that takes; calls `watch` meanwhile. Raises `LostRank`."""
        if self.size == 1:
            return
        with self._store_use():
            self.store.set(f"{where}/{self.rank}", "")
        while True:
            with self._store_use():
                if self.store.check([f"{where}/{rank}" for rank in range(self.size)]):
                    return
            watch()
            time.sleep(0.05)

    @contextlib.contextmanager
    def _store_use(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # the process that kept the store is gone
            raise LostRank(self._who_is_lost()) from error

    def missing(self) -> list[int]:
        """Ranks on this machine whose process is gone."""
        here = socket.gethostname()
        return [
            rank for rank, (machine, number) in enumerate(self._processes) if machine == here and not _lives(number)
        ]

    def _who_is_lost(self) -> str:
        until = time.monotonic() + SETTLE_S
        while not (gone := self.missing()) and time.monotonic() < until:
            time.sleep(0.05)
        if not gone:
            return "a rank was lost: it closed its connection or did not answer in time"
        return f"{'ranks' if len(gone) > 1 else 'rank'} {', '.join(map(str, gone))} of {self.size} died"

    def takes_over(self) -> bool:
        """After a loss: whether this rank is the first that is known to live, and so the one that writes and speaks."""
        return self.rank == min(set(range(self.size)) - set(self.missing()))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):  # no /proc: a dead child that nobody waited for counts as living
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


@contextlib.contextmanager
def open_team(device: torch.device | None = None) -> Iterator[Team]:
    """The team that torchrun's environment variables describe; without them a team of one.

    The backend follows the device: NCCL for CUDA, else gloo. Raises `CommandError` for variables that are none, and
    `LostRank` if the ranks do not find each other.
    """
    if "WORLD_SIZE" not in os.environ:
        yield Team()
        return
    rank, size = environment_rank(), _whole_number("WORLD_SIZE")
    if size < 2:
        yield Team()
        return
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(rendezvous("env://", rank, size, timeout=TIMEOUT))
        backend = "nccl" if device is not None and device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        team = Team(rank, size, dist.PrefixStore("infnerf", store), device)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise LostRank(f"rank {rank} did not find the other {size - 1}: {reason}") from error
    try:
        yield team
    finally:
        dist.destroy_process_group()


def environment_rank() -> int:
    """The rank that torchrun gave this process, 0 without torchrun."""
    return _whole_number("RANK") if "RANK" in os.environ else 0


def _whole_number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise CommandError(f"{name}: expected the whole number that torchrun sets, found {value!r}")
    return int(value)
