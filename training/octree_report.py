"""What is in a checkpoint, as numbers and as text: nodes, parameters and bytes per level, and the tree itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..models.backends import Model
from ..models.checkpoint import Checkpoint
from ..models.octree import Octree
from ..models.pyramid import Pyramid
from ..renderer.resolve import format_length

_SIDES = "xyz"
CAPACITIES = (("level_table_sizes", "table_size"), ("level_hidden_dims", "hidden_dim"))  # per level, or else for all


def inspect(checkpoint: Checkpoint, model: Model) -> dict[str, Any]:
    """The numbers of `infnerf info --json`: plain data. `bytes` counts nodes' rows, not the scene beside them."""
    octree, config, scene = model.octree, checkpoint.config, model.scene
    leaves = np.bincount(octree.level.numpy()[(octree.children < 0).all(1).numpy()], minlength=octree.depth + 1)
    levels = [
        {
            "level": level,
            "nodes": count,
            "leaves": int(leaves[level]),
            "size": float(octree.size(torch.tensor(level))),
            "gsd": float(model.gsd(level)),
            "parameters": count * node_parameters,
            "node_bytes": node_bytes,
            "bytes": count * node_bytes,
        }
        for level, (count, node_parameters, node_bytes) in enumerate(
            zip(octree.level_counts(), model.level_parameters, model.level_bytes, strict=True)
        )
    ]
    return {
        "file": str(checkpoint.path),
        "backend": checkpoint.backend,
        "unit": scene["unit"],
        "up": list(scene["up"]),
        "aabb": scene["aabb"],
        "color_space": scene["color_space"],
        "cameras": len(scene["cameras"]),
        "config": config.to_dict(),
        "nodes": octree.n_nodes,
        "depth": octree.depth,
        "root_size": octree.root_size,
        "gsd_range": [levels[-1]["gsd"], levels[0]["gsd"]],
        "parameters": model.n_parameters,
        "bytes": sum(row["bytes"] for row in levels),
        "levels": levels,
    }


def _grids(config: dict[str, Any]) -> str:
    sizes, widths = (config.get(own) or [config[one]] for own, one in CAPACITIES)
    grids = f"{config['n_grid_levels']} grids of {_listed(sizes)} x {config['features_per_level']}"
    return f"{grids}, finest {config['resolution']}, MLPs {_listed(widths)} wide"


def _network(config: dict[str, Any]) -> str:
    waves = f"waves 2**{config['min_deg']} to 2**{config['max_deg'] - 1}"
    looks = f"{config['num_levels']} x {config['num_samples']} samples on {config['ray_shape']}s"
    return f"{config['net_depth']} layers of {config['net_width']}, {waves}, {looks}"


def _heads(config: dict[str, Any]) -> str:
    sizes = f"{config['base_resolution']} to {config['max_resolution']}"
    grids = f"up to {config['n_grid_levels']} {'shared ' * config['share_grid']}grids of {config['hash_table_size']}"
    mlps = f"MLPs {config['density_hidden_dim']} and {config['hidden_dim']} wide"
    return f"{grids} x {config['features_per_level']}, {sizes} cells, {mlps}, {config['interpolation']} interpolated"


#: By backend: what a node can hold, of its config, in words.
CAPACITY: dict[str, Callable[[dict[str, Any]], str]] = {"infnerf": _grids, "pynerf": _heads, "mipnerf": _network}


def describe(values: dict[str, Any]) -> list[str]:
    """What `infnerf info` prints of `inspect`: file, scene, sizes, and a line a level."""
    config, unit = values["config"], values["unit"]
    low, high = values["aabb"]
    extent = " x ".join(f"{h - m:.4g}" for m, h in zip(low, high, strict=True))
    up = " ".join(f"{x:.3g}" for x in values["up"])
    node_bytes = _listed([row["node_bytes"] for row in values["levels"]])
    finest, coarsest = (format_length(gsd, unit) for gsd in values["gsd_range"])
    lines = [
        f"file        {values['file']}",
        f"backend     {values['backend']}",
        f"scene       {extent} {unit}, up {up}, {values['color_space']} colour, {values['cameras']} cameras",
        f"octree      {values['nodes']} nodes, levels 0 to {values['depth']}, root {values['root_size']:.4g} {unit}",
        f"gsd         {coarsest} down to {finest} a pixel",
        f"node        {CAPACITY[values['backend']](config)}, {node_bytes} bytes",
        f"parameters  {values['parameters']}",
        f"bytes       {values['bytes']}",
        "",
        f"level   nodes   {'size':>10}  {'gsd':>12}   {'parameters':>12}  {'bytes':>12}   leaves",
    ]
    for row in values["levels"]:
        size, gsd = f"{row['size']:.4g} {unit}", f"{row['gsd']:.4g} {unit}"
        lines.append(
            f"{row['level']:>5} {row['nodes']:>7}   {size:>10}  {gsd:>12}   {row['parameters']:>12}  "
            f"{row['bytes']:>12}   {row['leaves']:>6}"
        )
    return lines


def _listed(values: list[int]) -> str:
    """Root first, without repeating the last ones.

    >>> _listed([4096, 1024, 1024, 1024])
    '4096, 1024'
    """
    last = next((i for i in range(len(values), 0, -1) if values[i - 1] != values[-1]), 0)
    return ", ".join(map(str, values[: last + 1]))


def tree_lines(octree: Octree, max_lines: int) -> list[str]:
    """The tree as text, a line a node: its octant (x-y+z-: low in x, high in y, low in z) and its index.

    Whole levels only, as many as fit in `max_lines` (the root and its children always); what is cut off is counted
    on the line of the node that it hangs from, and in a last line.
    """
    counts = np.cumsum(octree.level_counts())
    last = max(int(np.searchsorted(counts, max_lines, "right")) - 1, min(1, octree.depth))
    below, deepest = _descendants(octree)
    children, level = octree.children.numpy(), octree.level.numpy()

    def label(node: int) -> str:
        if level[node] < last or not below[node]:
            return f"node {node}"
        return f"node {node}, {below[node]} below down to level {deepest[node]}"

    if isinstance(octree, Pyramid):  # nothing hangs from anything
        return [f"level {level}, the whole cube" for level in range(octree.n_nodes)]
    lines = [f"root, {label(0)}"]
    stack = [(0, "")]  # a node whose children come next, and what stands left of them
    while stack:
        node, prefix = stack.pop()
        if node < 0:  # a line that waited for its turn
            lines.append(prefix)
            continue
        if level[node] >= last:
            continue
        there = [(octant, int(child)) for octant, child in enumerate(children[node]) if child >= 0]
        for octant, child in reversed(there):  # a stack gives back the last first
            ends = child == there[-1][1]
            stack.append((child, prefix + ("    " if ends else "│   ")))
            stack.append((-1, f"{prefix}{'└── ' if ends else '├── '}{_octant(octant)}  {label(child)}"))
    shown = int(counts[last])
    if shown < octree.n_nodes:
        lines.append(f"levels 0 to {last} of {octree.depth}, {octree.n_nodes - shown} more nodes below them")
    return lines


def _octant(octant: int) -> str:
    """x-y+z- for octant 2.

    >>> _octant(2)
    'x-y+z-'
    """
    return "".join(f"{axis}{'+' if octant >> bit & 1 else '-'}" for bit, axis in enumerate(_SIDES))


def _descendants(octree: Octree) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per node: how many nodes are below it, and the deepest level that they reach."""
    parent, level = octree.parent.numpy(), octree.level.numpy()
    below, deepest = np.zeros(len(parent), np.int64), level.astype(np.int64)
    for depth in range(octree.depth, 0, -1):
        nodes = np.flatnonzero(level == depth)
        np.add.at(below, parent[nodes], below[nodes] + 1)
        np.maximum.at(deepest, parent[nodes], deepest[nodes])
    return below, deepest
