"""Chooses who renders: `auto` takes the fastest executor that supports the model on this machine, and says why."""

from __future__ import annotations

from ..models.infnerf import InfNeRF
from .cpu_executor import CpuExecutor
from .frame import Executor
from .torch_executor import TorchExecutor

EXECUTORS: dict[str, type] = {"cpu": CpuExecutor, "torch": TorchExecutor}  # fastest first
NAMES = ("auto", *EXECUTORS)


class ExecutorUnavailable(RuntimeError):
    """The executor asked for can't render this model on this machine; the message says why."""


def make_executor(name: str, model: InfNeRF) -> tuple[Executor, str]:
    """An executor for `model`, and one sentence that says which and why. Raises `ExecutorUnavailable`."""
    if name == "cuda":
        raise ExecutorUnavailable("the cuda executor is not part of this version yet; use --executor cpu")
    if name not in NAMES:
        raise ExecutorUnavailable(f"executor must be one of {', '.join(NAMES)}, got {name!r}")
    refusals = []
    for candidate, kind in EXECUTORS.items():
        if name not in ("auto", candidate):
            continue
        refusal = kind.supports(model)
        if refusal is None:
            return kind(model), "; ".join([_describe(candidate, kind, model), *refusals])
        refusals.append(f"not {candidate}: {refusal}")
    raise ExecutorUnavailable("; ".join(refusals))


def _describe(name: str, kind: type, model: InfNeRF) -> str:
    if kind is CpuExecutor:
        from .kernels import load_kernels, n_threads

        return f"cpu: {load_kernels().describe()}, {n_threads()} threads"
    return f"{name}: the reference in PyTorch, slow"
