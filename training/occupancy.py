"""Occupancy grids: a running maximum of trained density, thresholded and dilated, within what sparse points allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.infnerf import InfNeRF
from ..models.marching import PackedSamples
from ..models.occupancy import cube_cells, pack_bits, unpack_bits
from .sampling import Sampling
from .team import Team

THRESHOLD = 0.02  # optical depth of one GSD below which a cell counts as empty
DECAY = 0.5  # of the running maximum, per refresh of the node
WARM_SAMPLES, WARM_STEPS = 600_000, 256  # a node's, before it is measured: earlier, all of it still looks empty


def over_cubes(model: InfNeRF, values: Tensor, nodes: Tensor) -> Tensor:
    """Values [n, cells] in the grids of nodes [n] -> in their cubes, which only differ at a root with a background."""
    if not model.config.background or not (nodes == 0).any():
        return values
    r = model.config.occupancy_resolution
    is_root = (nodes == 0)[:, None].to(values.device)
    return torch.where(is_root, cube_cells(values.view(-1, r, r, r)).reshape(len(values), -1), values)


class OccupancyUpdater:
    """Keeps `model.occupancy` up to date. A node stays as occupied as it began until it has been trained a little."""

    def __init__(self, model: InfNeRF, sampling: Sampling, seed: int) -> None:
        self.model, self.sampling, self.device = model, sampling, model.tables.device
        resolution = model.config.occupancy_resolution
        self.cells = resolution**3
        self.seen = torch.zeros(model.octree.n_nodes, dtype=torch.long)  # samples
        self.steps = torch.zeros(model.octree.n_nodes, dtype=torch.long)  # that had some of those
        self.density = torch.zeros(model.octree.n_nodes, self.cells, device=self.device)
        self.generator = torch.Generator(self.device).manual_seed(seed)  # draws millions at once: not on the host
        axis = torch.arange(resolution)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        self.corner = torch.stack([x, y, z], -1).reshape(-1, 3).float().to(self.device)
        self._next = 0
        self.allowed: Tensor | None = None  # [n_nodes, cells] bool; None: everywhere

    def restrict(self, allowed: Tensor | None) -> None:
        """Keeps occupancy inside `allowed` from now on."""
        self.allowed = None if allowed is None else allowed.to(self.device)
        self.model.occupancy[:] = -1 if allowed is None else pack_bits(allowed)

    def follow(
        self, model: InfNeRF, sampling: Sampling, source: Tensor, inherited: Tensor, allowed: Tensor | None
    ) -> None:
        """Goes on with a changed tree: node i was `source[i]`; new nodes (-1) take `inherited` [n_new, cells]
        densities, and are as warm as their parents. `allowed` is as in `restrict`."""
        kept, new = source.clamp(min=0), (source < 0).nonzero()[:, 0]
        above = kept[model.octree.parent.long()[new]]
        self.model, self.sampling = model, sampling
        seen, steps = self.seen[above], self.steps[above]
        self.seen, self.steps, self.density = self.seen[kept], self.steps[kept], self.density[kept]
        self.seen[new], self.steps[new], self.density[new] = seen, steps, inherited.to(self.device)
        self._next = 0
        self.allowed = None if allowed is None else allowed.to(self.device)
        if self.allowed is not None:
            model.occupancy[new] = pack_bits(unpack_bits(model.occupancy[new]) & self.allowed[new])

    def state_dict(self) -> dict[str, Any]:
        """All that the next refresh depends on, but for the model and `allowed`."""
        arrays = {
            "seen": self.seen,
            "steps": self.steps,
            "density": self.density,
            "generator": self.generator.get_state(),
        }
        return {**arrays, "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises `ValueError` for a state of another model."""
        for name in ("seen", "steps", "density"):
            own, given = getattr(self, name), state[name]
            if given.shape != own.shape or given.dtype != own.dtype:
                raise ValueError(f"occupancy.{name}: expected {list(own.shape)}, found {list(given.shape)}")
            setattr(self, name, given.to(own.device))
        if len(state["generator"]) == len(self.generator.get_state()):  # else of another kind of device: it starts anew
            self.generator.set_state(state["generator"])
        self._next = int(state["next"])

    def count(self, samples: PackedSamples, others: Sequence[Tensor], team: Team) -> Tensor:
        """Notes which nodes a batch has trained on any rank, and returns them [n] with those of `others` [k] each."""
        asked = torch.zeros(2, len(self.seen), dtype=torch.int32)
        asked[0] = torch.bincount(samples.node, minlength=len(self.seen)).cpu()
        for nodes in others:
            asked[1, nodes] = 1
        counts = team.sum(asked)[0]
        self.seen += counts
        self.steps += counts > 0
        return asked.any(0).nonzero()[:, 0]

    def warm(self, nodes: Tensor) -> Tensor:
        """Which of `nodes` [n] have been trained enough to be measured: [n] bool."""
        return (self.seen[nodes] >= WARM_SAMPLES) & (self.steps[nodes] >= WARM_STEPS)

    def refresh(self, n_nodes: int) -> None:
        """Re-measures the next `n_nodes` nodes, in turn."""
        total = self.model.octree.n_nodes
        nodes = torch.arange(self._next, self._next + min(n_nodes, total)) % total
        self._next = int(nodes[-1] + 1) % total
        nodes = nodes[self.warm(nodes)]
        if len(nodes):
            self.density[nodes] = torch.maximum(self.density[nodes] * DECAY, self._measure(nodes, self.generator))
            self._write(nodes)

    def finished(self, rounds: int = 4) -> Tensor:
        """What a checkpoint stores: bits [n_nodes, W] of a thorough measurement of every node, the unseen ones too.

        Changes nothing, generator included: a run goes on the same whenever, and however often, it was saved.
        """
        generator = torch.Generator(self.device)
        generator.set_state(self.generator.get_state())
        words = torch.empty_like(self.model.occupancy)
        for nodes in torch.arange(self.model.octree.n_nodes).split(16):
            measured = torch.stack([self._measure(nodes, generator) for _ in range(rounds)]).amax(0)
            words[nodes] = self._bits(nodes, torch.maximum(self.density[nodes] * DECAY**2, measured))
        return words

    def matter(self, nodes: Tensor) -> Tensor:
        """Cells [n, cells] of `nodes` that hold matter by the running measurement, not dilated; all of a node that is
        not warm yet."""
        cells = self.density[nodes] > THRESHOLD
        if self.allowed is not None:
            cells &= self.allowed[nodes]
        return cells | ~self.warm(nodes)[:, None].to(self.device)

    def measure_again(self, nodes: Tensor, rounds: int = 2) -> None:
        """Puts what `nodes` hold now on top of the running measurement."""
        for part in nodes.split(16):
            for _ in range(rounds):
                self.density[part] = torch.maximum(self.density[part], self._measure(part, self.generator))

    @torch.no_grad()
    def _measure(self, nodes: Tensor, generator: torch.Generator) -> Tensor:
        """sigma * gsd at a random point of every cell of some nodes: [n, cells]."""
        resolution = self.model.config.occupancy_resolution
        jitter = torch.rand(len(nodes) * self.cells, 3, generator=generator, device=self.device)
        local = (self.corner.repeat(len(nodes), 1) + jitter) / resolution
        levels = self.model.octree.level.long()[nodes]
        node, level = (values.to(self.device).repeat_interleave(self.cells) for values in (nodes, levels))
        zeros = torch.zeros(len(node), device=self.device)
        rays = torch.zeros(len(node), dtype=torch.long, device=self.device)
        samples = PackedSamples(rays, zeros, zeros, local, node, level, level)
        sigma, _ = self.sampling.field(samples, torch.tensor([[0.0, 0.0, 1.0]]))
        return (sigma * self.model.gsd(level).float()).view(len(nodes), self.cells)

    def _write(self, nodes: Tensor) -> None:
        self.model.occupancy[nodes] = self._bits(nodes, self.density[nodes])

    def _bits(self, nodes: Tensor, density: Tensor) -> Tensor:
        """Thresholded, dilated and held to what is allowed: densities [n, cells] of `nodes` -> [n, W] int32."""
        resolution = self.model.config.occupancy_resolution
        grid = (density > THRESHOLD).float().view(-1, 1, resolution, resolution, resolution)
        cells = (F.max_pool3d(grid, 3, stride=1, padding=1) > 0).view(len(nodes), -1)
        return pack_bits(cells if self.allowed is None else cells & self.allowed[nodes])
