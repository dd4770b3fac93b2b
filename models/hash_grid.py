"""The multiresolution hash grid of many nodes at once (Mueller et al. 2022, section 3).

Torch twin of `cuda/hash_grid.cuh`.
"""

from __future__ import annotations

import torch
from torch import Tensor

_PRIMES = (1, 2654435761, 805459861)


def corner_entries(
    local: Tensor,  # [n, 3] in [0, 1]
    resolutions: list[int],
    table_size: int | Tensor,  # [n] where nodes differ
) -> tuple[Tensor, Tensor]:
    """The eight entries around each point on every grid level, and their trilinear weights.

    A level whose `(resolution + 1)**3` corners fit the table is dense, else hashed. Returns `entries` [n, L, 8] int64
    and `weights` [n, L, 8] of `local`'s type.

    >>> entries, weights = corner_entries(torch.tensor([[0.25, 0.0, 0.0]]), [2], 64)
    >>> entries[0, 0, :2].tolist(), weights[0, 0, :2].tolist()
    ([0, 1], [0.5, 0.5])
    """
    res = torch.tensor(resolutions, device=local.device)
    position = local[:, None, :] * res[None, :, None].to(local)
    cell = torch.minimum(position.long(), (res - 1)[None, :, None])
    fraction = position - cell
    bits = torch.tensor([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], device=local.device)
    corner = cell[:, :, None, :] + bits  # [n, L, 8, 3]
    weights = torch.where(bits.bool(), fraction[:, :, None, :], 1 - fraction[:, :, None, :]).prod(-1)
    size = torch.as_tensor(table_size, device=local.device).view(-1, 1)  # [n or 1, 1]
    is_dense = (res + 1) ** 3 <= size  # [n or 1, L]
    stride = torch.stack([torch.ones_like(res), res + 1, (res + 1) ** 2], -1)
    dense = (corner * stride[None, :, None, :]).sum(-1)
    prime = torch.tensor(_PRIMES, device=local.device)
    scaled = corner * prime & 0xFFFFFFFF
    hashed = (scaled[..., 0] ^ scaled[..., 1] ^ scaled[..., 2]) & (size[..., None] - 1)
    return torch.where(is_dense[..., None], dense, hashed), weights


def encode(
    tables: Tensor,  # [n_nodes, L, T, F]
    node: Tensor,  # [n] int64
    local: Tensor,  # [n, 3] in [0, 1], in the node's cube
    resolutions: list[int],
    table_size: int | Tensor | None = None,  # [n] entries that the points' nodes use; None: all T
) -> Tensor:
    """Features of each point in its node's grid. Returns [n, L * F] of `local`'s type; differentiable in `tables`."""
    n_nodes, n_levels, n_entries, n_features = tables.shape
    entries, weights = corner_entries(local, resolutions, n_entries if table_size is None else table_size)
    level = torch.arange(n_levels, device=local.device)
    row = (node[:, None] * n_levels + level)[:, :, None] * n_entries + entries
    values = tables.reshape(n_nodes * n_levels * n_entries, n_features)[row.reshape(-1)]
    values = values.to(local.dtype).reshape(*row.shape, n_features)
    return (values * weights[..., None]).sum(2).reshape(local.shape[0], n_levels * n_features)
