"""MLPs of one width from those of another: a child on an octree level that is narrower or wider than its parent's."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.config import InfNeRFConfig
from ..models.infnerf import InfNeRF


def copy_mlps(model: InfNeRF, nodes: Tensor, generator: torch.Generator) -> None:
    """Gives `nodes` [n] their parents' MLPs, level by level from above, resized where levels differ in width."""
    levels, mlp = model.octree.level[nodes], model.mlp.data
    for level in levels.unique().tolist():
        here = nodes[levels == level]
        mlp[here] = resized_mlps(model.config, level, mlp[model.octree.parent.long()[here]], generator)


def resized_mlps(config: InfNeRFConfig, level: int, parents: Tensor, generator: torch.Generator) -> Tensor:
    """MLPs [n, P] for nodes on an octree level, from those of their `parents` [n, P]; rows have the padded layout.

    Wider: the same function; new units listen at random (He et al. 2015), and pass on nothing until they are trained.
    Narrower: the units that can pass on most stay (the norm of their weights in, times that of their weights out, the
    parents' mean: children that appear together keep the same units, and so may be tied, see `training.optimizer`).
    """
    before, after = config.at_level(level - 1).hidden_dim, config.at_level(level).hidden_dim
    if before == after:
        return parents
    layers = parents.split([i * o + o for i, o in config.layer_shapes.values()], dim=1)
    resized = []
    shapes = list(config.layer_shapes.values())
    for first in (0, 2):  # the hidden and the last layer of the density MLP, then of the colour MLP
        listen = layers[first].view(len(parents), -1, config.hidden_dim)  # [n, inputs + 1, hidden], the bias last
        n_weights = config.hidden_dim * shapes[first + 1][1]
        speak = layers[first + 1][:, :n_weights].view(len(parents), config.hidden_dim, -1)  # [n, hidden, outputs]
        listen, speak = (
            _narrowed(listen, speak, after) if after < before else (_widened(listen, before, after, generator), speak)
        )
        resized += [listen.flatten(1), speak.flatten(1), layers[first + 1][:, n_weights:]]
    return torch.cat(resized, 1)


def _narrowed(listen: Tensor, speak: Tensor, width: int) -> tuple[Tensor, Tensor]:
    strength = (listen.norm(dim=1) * speak.norm(dim=2)).mean(0)
    kept = strength.argsort(descending=True, stable=True)[:width].sort().values
    fewer_listen, fewer_speak = torch.zeros_like(listen), torch.zeros_like(speak)
    fewer_listen[:, :, :width], fewer_speak[:, :width] = listen[:, :, kept], speak[:, kept]
    return fewer_listen, fewer_speak


def _widened(listen: Tensor, before: int, after: int, generator: torch.Generator) -> Tensor:
    n_in, more = listen.shape[1] - 1, listen.clone()
    bound = 0.7 * (6 / n_in) ** 0.5
    drawn = torch.rand(n_in, after - before, generator=generator).to(listen.device)
    more[:, :n_in, before:after] = (drawn * 2 - 1) * bound
    return more
