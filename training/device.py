"""Where a run trains: on the host, or on a GPU that torch and our kernels both can use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace

import torch

from ..data.pyramid import RayBatch
from ..renderer.cliutil import CommandError
from ..renderer.cuda_samples import to_device
from ..renderer.gpu_driver import gpu_problem

DEVICES = ("auto", "cpu", "cuda")


def training_device(name: str) -> torch.device:
    """The device that a run is told: "cpu", "cuda", or "auto" for a GPU if there is one that can be used.

    Of the processes that torchrun started on a machine each takes a GPU of its own, or with "auto" none does. Raises
    `ValueError` for another name, and `CommandError` where "cuda" can't be had.
    """
    if name not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {name!r}")
    if name == "cpu":
        return torch.device("cpu")
    problem = _cuda_problem()
    if problem is None:
        return torch.device("cuda", _number("LOCAL_RANK", 0))
    if name == "auto":
        return torch.device("cpu")
    raise CommandError(f"--device cuda: {problem}")


def _cuda_problem() -> str | None:
    """Why this process can't train on a GPU; the same in all processes on a machine."""
    if not torch.cuda.is_available():
        has_cuda = torch.version.cuda is not None
        return "torch finds no GPU" if has_cuda else "this torch was built without CUDA (pytorch.org/get-started)"
    processes = _number("LOCAL_WORLD_SIZE", 1)
    if torch.cuda.device_count() < processes:
        return f"expected a GPU for each of {processes} processes on this machine, found {torch.cuda.device_count()}"
    return next(filter(None, map(gpu_problem, range(processes))), None)


def _number(name: str, otherwise: int) -> int:
    """A number that torchrun puts into the environment."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else otherwise


def batch_on(batch: RayBatch, device: torch.device) -> RayBatch:
    """A batch of rays on a device."""
    return replace(batch, **{part.name: to_device(getattr(batch, part.name), device) for part in fields(batch)})


@contextmanager
def memory_told() -> Iterator[None]:
    """Raises `CommandError` where the body takes more memory than the GPU has."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise CommandError(
            "the GPU is out of memory: a smaller --max-megabytes or --table-size needs less, --device cpu none of it"
        ) from error
