"""One appearance of a model that has many: what checkpoints hold and people see."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .config import InfNeRFConfig


def fold_appearance(config: InfNeRFConfig, mlp: Tensor, appearance: Tensor) -> tuple[InfNeRFConfig, Tensor]:
    """The config and the MLPs [n_nodes, P'] of a model without appearance that looks as `mlp` [n_nodes, P] does under
    one `appearance` [appearance_dim]: its share of the colour MLP's first layer moves to the bias, b' = b + W_a^T a.

    Raises `ValueError` where it has another length.

    >>> config = InfNeRFConfig(appearance_dim=4)
    >>> plain, mlp = fold_appearance(config, torch.zeros(3, config.mlp_size), torch.ones(4))
    >>> plain.appearance_dim, list(mlp.shape) == [3, plain.mlp_size]
    (0, True)
    """
    n = config.appearance_dim
    if tuple(appearance.shape) != (n,):
        raise ValueError(f"fold_appearance: appearance must be [{n}], got {list(appearance.shape)}")
    if n == 0:
        return config, mlp
    sizes = [i * o + o for i, o in config.layer_shapes.values()]
    layers = list(mlp.split(sizes, dim=1))
    n_in, n_out = config.layer_shapes["color_hidden"]
    kept, rows, bias = layers[2].split([(n_in - n) * n_out, n * n_out, n_out], dim=1)
    moved = bias + (rows.view(-1, n, n_out) * appearance[:, None].to(mlp)).sum(1)
    return replace(config, appearance_dim=0), torch.cat([*layers[:2], kept, moved, layers[3]], 1)
