"""Per-node dense layers, many nodes at once, and spherical harmonics. Torch twin of `cuda/mlp.cuh`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TILE = 64  # samples of one node that are multiplied together


@dataclass(frozen=True)
class NodeTiles:
    """Samples sorted by node and cut into tiles of one node each, so that a batched product serves all nodes.

    >>> tiles = NodeTiles.of(torch.tensor([1, 0, 1]), 2)
    >>> tiles.node.tolist(), tiles.slot.tolist()
    ([0, 1], [64, 0, 65])
    """

    node: Tensor  # [n_tiles] int64
    slot: Tensor  # [n] int64, where sample i goes in the padded [n_tiles * TILE] rows

    @classmethod
    def of(cls, node: Tensor, n_nodes: int) -> NodeTiles:
        node = node.long()
        count = torch.bincount(node, minlength=n_nodes)
        n_tiles = (count + TILE - 1) // TILE
        first_tile = n_tiles.cumsum(0) - n_tiles
        first_sample = count.cumsum(0) - count
        order = torch.argsort(node, stable=True)
        sorted_node = node[order]
        rank = torch.arange(len(node), device=node.device) - first_sample[sorted_node]
        slot = torch.empty_like(node)
        slot[order] = first_tile[sorted_node] * TILE + rank
        return cls(torch.repeat_interleave(n_tiles), slot)

    def pad(self, x: Tensor) -> Tensor:
        """[n, c] -> [n_tiles, TILE, c], zeros where no sample is."""
        padded = x.new_zeros(len(self.node) * TILE, x.shape[-1])
        return padded.index_copy(0, self.slot, x).view(len(self.node), TILE, x.shape[-1])

    def unpad(self, x: Tensor) -> Tensor:
        """[n_tiles, TILE, c] -> [n, c]."""
        return x.reshape(-1, x.shape[-1])[self.slot]


def dense(x: Tensor, weights: Tensor, n_out: int) -> Tensor:
    """`x @ W + b` per tile.

    `x` [n_tiles, TILE, n_in]; `weights` [n_tiles, n_in * n_out + n_out], the matrix input-major, then the bias.
    """
    n_in = x.shape[-1]
    matrix = weights[:, : n_in * n_out].reshape(-1, n_in, n_out)
    return torch.baddbmm(weights[:, None, n_in * n_out :], x, matrix)


def spherical_harmonics(directions: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics of unit directions [n, 3], bands 0 to degree - 1 (Sloan 2013). Returns [n, degree**2].

    >>> spherical_harmonics(torch.tensor([[0.0, 0.0, 1.0]]), 2).tolist()[0][2]
    0.48860251903533936
    """
    x, y, z = directions.unbind(-1)
    bands = [torch.full_like(x, 0.28209479177387814)]
    if degree > 1:
        bands += [-0.48860251190291987 * y, 0.48860251190291987 * z, -0.48860251190291987 * x]
    if degree > 2:
        bands += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.94617469575755997 * z * z - 0.31539156525251999,
            -1.0925484305920792 * x * z,
            0.54627421529603959 * (x * x - y * y),
        ]
    if degree > 3:
        bands += [
            0.59004358992664352 * y * (-3 * x * x + y * y),
            2.8906114426405538 * x * y * z,
            0.45704579946446572 * y * (1 - 5 * z * z),
            0.3731763325901154 * z * (5 * z * z - 3),
            0.45704579946446572 * x * (1 - 5 * z * z),
            1.4453057213202769 * z * (x * x - y * y),
            0.59004358992664352 * x * (-x * x + 3 * y * y),
        ]
    return torch.stack(bands, -1)
