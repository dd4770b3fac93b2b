"""Chooses who renders: `auto` takes the fastest executor that supports the model on this machine, and says why."""

from __future__ import annotations

from ..models.backends import Model
from .cpu_executor import CpuExecutor
from .cuda_executor import CudaExecutor
from .frame import Executor
from .gpu_errors import GpuError
from .kernels import n_threads
from .mip_executor import MipExecutor
from .torch_executor import TorchExecutor

#: Fastest first; of several by one name, each knows another kind of model.
EXECUTORS: dict[str, tuple[type, ...]] = {
    "cuda": (CudaExecutor,),
    "cpu": (CpuExecutor,),
    "torch": (TorchExecutor, MipExecutor),
}
NAMES = ("auto", *EXECUTORS)


class ExecutorUnavailable(RuntimeError):
    """The executor asked for can't render this model on this machine; the message says why."""


def make_executor(name: str, model: Model) -> tuple[Executor, str]:
    """An executor for `model`, and one sentence that says which and why. Raises `ExecutorUnavailable`."""
    if name not in NAMES:
        raise ExecutorUnavailable(f"executor must be one of {', '.join(NAMES)}, got {name!r}")
    refusals = []
    for candidate, kinds in EXECUTORS.items():
        if name not in ("auto", candidate):
            continue
        kind = next((kind for kind in kinds if kind.supports(model) is None), kinds[0])
        refusal = kind.supports(model)
        if refusal is None:
            try:
                executor = kind(model)
                return executor, "; ".join([_describe(executor), *refusals])
            except GpuError as error:  # its memory is full, or it went
                refusal = str(error)
        refusals.append(f"not {candidate}: {refusal}")
    raise ExecutorUnavailable("; ".join(refusals))


def _describe(executor: Executor) -> str:
    if isinstance(executor, CudaExecutor):
        return f"cuda: {executor.driver.describe()}"
    if isinstance(executor, CpuExecutor):
        return f"cpu: {executor.kernels.describe()}, {n_threads()} threads"
    if isinstance(executor, MipExecutor):
        return f"torch: {executor.describe()}"
    return f"{executor.name}: the reference in PyTorch, slow"
