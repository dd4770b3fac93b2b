"""Adam with a state for every node, which steps only the nodes that a batch touched.

The cost of a step then follows the batch, not the tree. A node's moments rest while it is not seen, and its bias
correction counts its own steps, so a node that joins late starts like one that was there from the first.

A node's MLPs see few of a batch's samples, and learn slowly from them. So they may be tied at first: every node's MLPs
then take the step that the samples of all nodes ask for together, as if there were one decoder for the whole tree; or
for each run of octree levels of equal width, where levels differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..models.infnerf import InfNeRF
from ..renderer.kernels import AdamStruct, RowKernels, pointer


@dataclass(frozen=True)
class AdamConfig:
    """Rates and decays of Adam (Kingma & Ba 2015, algorithm 1)."""

    table_rate: float = 2e-2
    mlp_rate: float = 2e-3
    level_rate: float = 1.0  # factor on both rates per octree level below the root
    decay_mean: float = 0.9  # beta_1
    decay_square: float = 0.99  # beta_2
    epsilon: float = 1e-15
    clip: float = 0.0  # largest norm of a step's whole gradient; 0: not clipped


class NodeAdam:
    """Steps `model.tables` and `model.mlp`, whose `.grad` it clears where it stepped."""

    def __init__(self, model: InfNeRF, config: AdamConfig, kernels: RowKernels | None = None) -> None:
        """`kernels`: to step with, on the device of the parameters; None: torch. Numbers of steps stay on the host."""
        self.model, self.config, self.kernels = model, config, kernels
        self.first_tied = 0  # nodes before it are not tied to the others
        n = model.octree.n_nodes
        self.steps = {name: torch.zeros(n, dtype=torch.int64) for name in ("tables", "mlp")}
        self.means = {name: torch.zeros_like(value) for name, value in self._values().items()}
        self.squares = {name: torch.zeros_like(value) for name, value in self._values().items()}

    def _values(self) -> dict[str, Tensor]:
        return {"tables": self.model.tables.data, "mlp": self.model.mlp.data}

    @torch.no_grad()
    def step(self, nodes: Tensor, factor: float = 1.0, tied: bool = False) -> None:
        """One step of some `nodes` [n] int64, their learning rates times `factor`; `tied`: of all nodes' MLPs alike."""
        shrink = self._clipping(nodes)
        if shrink < 1:
            for name in self.steps:
                getattr(self.model, name).grad[nodes] *= shrink
        self._step_rows("tables", nodes, factor * self.config.table_rate)
        if tied:
            self._step_tied(nodes, factor * self.config.mlp_rate)
        else:
            self._step_rows("mlp", nodes, factor * self.config.mlp_rate)

    def _step_rows(self, name: str, nodes: Tensor, rate: float) -> None:
        """Each of `nodes` by its own gradient."""
        config, own = self.config, self.steps[name]
        own[nodes] += 1
        steps = own[nodes].double()
        roots = (1 / torch.sqrt(1 - config.decay_square**steps)).float()
        level = self.model.octree.level.long()[nodes].double()
        rates = rate * config.level_rate**level / (1 - config.decay_mean**steps)
        rows = self._values()[name], getattr(self.model, name).grad, self.means[name], self.squares[name]
        if self.kernels is None:
            device = rows[0].device
            _step_torch(rows, nodes.to(device), rates.float().to(device), roots.to(device), config)
        else:
            self._step_kernels(name, rows, nodes, rates.float(), roots)

    def _step_tied(self, nodes: Tensor, rate: float) -> None:
        """All nodes' MLPs by the sum of the gradients of `nodes`. What they differed by they still differ by."""
        config, gradient = self.config, self.model.mlp.grad
        assert gradient is not None
        for first, last in self._tied_ranges():
            touched = nodes[(nodes >= first) & (nodes < last)]
            own = self.steps["mlp"][first:last]
            leader = int((own == own.max()).nonzero()[0])  # was there from the first: a new node has no moments yet
            own += 1
            steps = float(own[leader])
            slope = gradient[touched].sum(0)
            gradient[touched] = 0
            mean, square = self.means["mlp"][first:last], self.squares["mlp"][first:last]
            mean[:] = mean[leader] * config.decay_mean + slope * (1 - config.decay_mean)
            square[:] = square[leader] * config.decay_square + slope * slope * (1 - config.decay_square)
            root = (square[0] / (1 - config.decay_square**steps)).sqrt() + config.epsilon
            self.model.mlp.data[first:last] -= mean[0] / root * (rate / (1 - config.decay_mean**steps))

    def _tied_ranges(self) -> list[tuple[int, int]]:
        """First and last node (exclusive) of each run of levels whose MLPs have one width, from `first_tied` on."""
        octree, config = self.model.octree, self.model.config
        widths = torch.tensor([config.at_level(level).hidden_dim for level in range(octree.depth + 1)])
        own = widths[octree.level.long()][self.first_tied :]
        counts = own.unique_consecutive(return_counts=True)[1]
        ends = self.first_tied + counts.cumsum(0)
        return list(zip((ends - counts).tolist(), ends.tolist(), strict=True))

    def _clipping(self, nodes: Tensor) -> float:
        """What gradients are multiplied by so that their norm stays within `config.clip`."""
        if not self.config.clip:
            return 1.0
        total = sum(float(getattr(self.model, name).grad[nodes].square().sum()) for name in self.means)
        return min(1.0, self.config.clip / max(total**0.5, 1e-30))

    def _step_kernels(self, name: str, rows: tuple[Tensor, ...], nodes: Tensor, rates: Tensor, roots: Tensor) -> None:
        """Passes over what small tables leave unused of their rows, so that padding costs no time."""
        assert self.kernels is not None
        config, shape, row_size = self.config, self.model.config, rows[0][0].numel()
        block = used = row_size
        if name == "tables":
            block = shape.features_per_level * shape.table_size
            used = shape.features_per_level * self.model.table_sizes(nodes)
        used = torch.as_tensor(used, dtype=torch.int32).expand(len(nodes)).contiguous()
        decays = config.decay_mean, config.decay_square, config.epsilon
        struct = AdamStruct(*[pointer(array) for array in rows], row_size, block, *decays)
        self.kernels.adam_rows(struct, *(values.to(rows[0].device) for values in (nodes.int(), rates, roots, used)))

    def follow(self, model: InfNeRF, source: Tensor) -> None:
        """Goes on with a changed tree: node i takes the state of old node `source[i]`, a fresh one where it is -1."""
        self.model = model
        kept = source >= 0
        rows = source.clamp(min=0)
        self.steps = {name: torch.where(kept, old[rows], 0) for name, old in self.steps.items()}
        for state in (self.means, self.squares):
            for name, old in state.items():
                new = old[rows]
                new[~kept] = 0
                state[name] = new

    def state_dict(self) -> dict[str, Any]:
        """Tensors only: what `load_state_dict` takes up again bit for bit."""
        moments = {f"mean_{name}": value for name, value in self.means.items()}
        steps = {f"steps_{name}": value for name, value in self.steps.items()}
        return {**steps, **moments, **{f"square_{name}": value for name, value in self.squares.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises `ValueError` if the state belongs to another model."""
        own = self.state_dict()
        for name, tensor in own.items():
            given = state.get(name)
            if not isinstance(given, Tensor) or given.shape != tensor.shape or given.dtype != tensor.dtype:
                found = f"{given.dtype} {list(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
                raise ValueError(f"optimizer.{name}: expected {tensor.dtype} {list(tensor.shape)}, found {found}")
            tensor.copy_(given)


def _step_torch(rows: tuple[Tensor, ...], nodes: Tensor, rates: Tensor, roots: Tensor, config: AdamConfig) -> None:
    """The torch twin of `cuda/adam.cuh`."""
    value, gradient, mean, square = rows
    shape = (-1, *[1] * (value.dim() - 1))
    slope = gradient[nodes]
    mean[nodes] = mean[nodes] * config.decay_mean + slope * (1 - config.decay_mean)
    square[nodes] = square[nodes] * config.decay_square + slope * slope * (1 - config.decay_square)
    root = square[nodes].sqrt() * roots.view(shape)
    value[nodes] -= mean[nodes] * rates.view(shape) / (root + config.epsilon)
    gradient[nodes] = 0
