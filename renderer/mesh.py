"""A surface of the density: marching cubes (Lewiner et al. 2003, scikit-image's) over occupied space, piece by piece.

One grid over the whole scene, of the spacing that a level asks for, cut into blocks that are looked at one after the
other: only a block and the surface so far are in memory, and neighbours share their vertices, so no seam shows, not
even where the tree's depth changes. Positions are root-local until the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models.infnerf import InfNeRF
from ..models.marching import PackedSamples, to_node
from ..models.occupancy import unpack_bits
from ..models.similarity import inverse, move_points, place_of
from .cliutil import CommandError, whole_file
from .colormaps import srgb_decode, to_bytes
from .kernels import KernelsUnavailable
from .sample_kernels import SampleKernels

SUFFIXES = (".ply", ".obj", ".glb")
CHUNK = 1 << 18  # points evaluated at a time
WELD = 1e-3  # of the grid's spacing: vertices nearer than this are one


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with a normal and a colour at each vertex; counter-clockwise seen from outside."""

    vertices: NDArray[np.float64]  # [n, 3] in the capture's own coordinates
    faces: NDArray[np.int64]  # [m, 3]
    normals: NDArray[np.float64]  # [n, 3] unit
    colors: NDArray[np.uint8]  # [n, 3] sRGB


class Density:
    """A model's density and colour at points, answered by the deepest node not deeper than a level."""

    def __init__(self, model: InfNeRF, level: int) -> None:
        self.model, self.level = model, level
        self._field: Callable[[PackedSamples, Tensor], tuple[Tensor, Tensor]]
        try:
            own = InfNeRF(model.config, model.octree, model.tables.data, model.mlp.data, model.occupancy, model.scene)
            self._field = SampleKernels(own.make_trainable()).field
        except KernelsUnavailable:
            self._field = lambda samples, directions: model.field(samples.node, samples.local, directions)
        self._occupied = unpack_bits(model.occupancy)

    @torch.no_grad()
    def at(self, points: Tensor, directions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`sigma` [n] per world unit and `rgb` [n, 3] at root-local points [n, 3], seen along unit `directions` [n, 3].

        Zero outside the root cube and where occupancy says that there is nothing.
        """
        sigma, rgb = torch.zeros(len(points)), torch.zeros(len(points), 3)
        octree = self.model.octree
        for first in range(0, len(points), CHUNK):
            part = points[first : first + CHUNK]
            node = octree.find(part, torch.full((len(part),), self.level))
            level = octree.level.long()[node]
            local = to_node(octree, part, node, level, self.model.config.background)
            inside = ((part >= 0) & (part <= 1)).all(-1) & self._matter(node, local)
            chosen = inside.nonzero()[:, 0]
            if not len(chosen):
                continue
            zeros, ray = torch.zeros(len(chosen)), torch.arange(len(chosen))
            node, level = node[chosen], level[chosen]
            samples = PackedSamples(ray, zeros, zeros, local[chosen].float().contiguous(), node, level, level)
            along = torch.tensor([[0.0, 0.0, -1.0]]).repeat(len(chosen), 1)
            if directions is not None:
                along = directions[first : first + CHUNK][chosen].contiguous()
            sigma[first + chosen], rgb[first + chosen] = self._field(samples, along)
        return sigma, rgb

    def _matter(self, node: Tensor, local: Tensor) -> Tensor:
        r = self.model.config.occupancy_resolution
        x, y, z = (local * r).long().clamp(0, r - 1).unbind(-1)
        return self._occupied[node, (z * r + y) * r + x]


def default_density(model: InfNeRF, level: int) -> float:
    """The density per world unit at which a ray loses half its light within four cells of a level."""
    return math.log(2) / (4 * float(model.gsd(level)))


def extract_mesh(
    model: InfNeRF,
    level: int | None = None,  # of the octree, no deeper; None: its deepest
    resolution: int | None = None,  # grid cells along the edge of a node on that level; None: half the model's R
    density: float | None = None,  # per world unit, where the surface is; None: `default_density`
    progress: Callable[[int, int], None] = lambda done, total: None,  # blocks; may raise to stop
) -> Mesh:
    """The surface of a model. Raises `ValueError` for numbers out of range, and where there is no surface."""
    octree = model.octree
    level = octree.depth if level is None else level
    resolution = max(model.config.resolution // 2, 4) if resolution is None else resolution
    if not 0 <= level <= octree.depth:
        raise ValueError(f"mesh: the level must be from 0 to {octree.depth}, the tree's depth, got {level}")
    if not 4 <= resolution <= 256:
        raise ValueError(f"mesh: the resolution must be from 4 to 256 cells along a node's edge, got {resolution}")
    density = default_density(model, level) if density is None else density
    if not (math.isfinite(density) and density > 0):
        raise ValueError(f"mesh: the density must be above 0, got {density:g}")
    field = Density(model, level)
    blocks = _blocks_with_matter(model, level, resolution)
    vertices, faces, count = [], [], 0
    for done, block in enumerate(blocks.tolist()):
        progress(done, len(blocks))
        piece = _block_surface(field, np.array(block), level, resolution, density)
        if piece is not None:
            vertices.append(piece[0])
            faces.append(piece[1] + count)
            count += len(piece[0])
    progress(len(blocks), len(blocks))
    if not count:
        raise ValueError(f"mesh: no place reaches the density {density:g}; a lower one may show a surface")
    spacing = 1 / (resolution << level)
    at, triangles = _welded(np.concatenate(vertices), np.concatenate(faces), spacing * WELD)
    return _finished(field, at, triangles, spacing)


def write_mesh(mesh: Mesh, out: Path) -> None:
    """Writes PLY, OBJ or GLB by the file's suffix (trimesh's), whole or not at all.

    Raises `CommandError` for another suffix, or where the file or trimesh is not to be had.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise CommandError(f"{out}: a mesh must end in {', '.join(SUFFIXES)}")
    try:
        import trimesh
    except ImportError:
        raise CommandError("meshes need trimesh: pip install 'infnerf-view[train]'") from None
    surface = trimesh.Trimesh(
        mesh.vertices, mesh.faces, vertex_normals=mesh.normals, vertex_colors=mesh.colors, process=False
    )
    with whole_file(out) as temporary:
        if out.suffix.lower() == ".ply":  # trimesh has two words for it
            surface.export(temporary, vertex_normal=True)
        else:
            surface.export(temporary, include_normals=True)


def _blocks_with_matter(model: InfNeRF, level: int, resolution: int) -> NDArray[np.int64]:
    """Blocks [n, 3] of the level's grid, x, y, z, that a node answering there has occupied cells in.

    A block is a node's cube on `level`; one whose cells end at its border also has its neighbours.
    """
    octree, r = model.octree, model.config.occupancy_resolution
    corner = octree.local_corner()
    found = []
    for at in range(level + 1):
        nodes = (octree.level == at).nonzero()[:, 0]
        if at < level:  # a node with all its children answers nowhere
            nodes = nodes[(octree.children[nodes] < 0).any(1)]
        per_node = 1 << (level - at)  # blocks along a node's edge
        for node in nodes.tolist():
            cell = unpack_bits(model.occupancy[node][None])[0].nonzero()[:, 0]
            xyz = torch.stack([cell % r, cell // r % r, cell // (r * r)], -1)
            if model.config.background and at == 0:
                xyz = (xyz - r / 4) * 2  # the middle half of the grid is the cube
                xyz = xyz[((xyz > -2) & (xyz < r)).all(-1)]
            width = 2 if model.config.background and at == 0 else 1
            first = ((xyz - 0.5) * per_node / r).floor()
            last = ((xyz + width + 0.5) * per_node / r).floor()
            start = (corner[node] * (1 << level)).round()
            for x in (first[:, 0], last[:, 0]):
                for y in (first[:, 1], last[:, 1]):
                    found += [torch.stack([x, y, z], -1) + start for z in (first[:, 2], last[:, 2])]
            if per_node > 2:  # a cell wider than a block
                found += _inner(first, last, start)
    blocks = torch.unique(torch.cat(found), dim=0) if found else torch.zeros(0, 3)
    side = 1 << level
    return blocks[((blocks >= 0) & (blocks < side)).all(-1)].long().numpy()


def _inner(first: Tensor, last: Tensor, start: Tensor) -> list[Tensor]:
    """Blocks between the first and the last of each cell, where a cell spans more than two along an axis."""
    span = int((last - first).max()) if len(first) else 0
    steps = torch.cartesian_prod(*[torch.arange(span + 1)] * 3)
    return [torch.minimum(first + step, last) + start for step in steps] if span > 1 else []


def _block_surface(
    field: Density, block: NDArray[np.int64], level: int, resolution: int, density: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Vertices [n, 3], root-local, and faces [m, 3] of one block; None where there is no surface."""
    from skimage.measure import marching_cubes

    cells = resolution << level
    axes = [torch.arange(resolution + 1, dtype=torch.float64) + float(first) * resolution for first in block]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 3) / cells
    sigma = field.at(grid)[0].view(*[resolution + 1] * 3)
    # The logarithm: density grows exponentially, and a linear cut between two corners would stick to the denser one.
    volume = torch.log(sigma.clamp(min=1e-12)).clamp(min=math.log(density) - 8, max=math.log(density) + 8).numpy()
    if not volume.min() < math.log(density) < volume.max():
        return None
    iso = math.log(density)  # "ascent": faces look to where it is lower
    vertices, faces, _, _ = marching_cubes(volume, iso, gradient_direction="ascent", allow_degenerate=False)
    return (vertices.astype(np.float64) + block * resolution) / cells, faces.astype(np.int64)


def _welded(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], distance: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """One vertex where blocks meet; triangles that shrink to nothing go."""
    keys = np.round(vertices / distance).astype(np.int64)
    _, first, where = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    faces = where.reshape(-1)[faces]
    whole = (faces != np.roll(faces, 1, axis=1)).all(1)
    return vertices[first], faces[whole]


def _finished(field: Density, vertices: NDArray[np.float64], faces: NDArray[np.int64], spacing: float) -> Mesh:
    """Normals by the density's slope, colours as seen along them, everything in the capture's coordinates."""
    model, at = field.model, torch.from_numpy(vertices)
    slope = np.empty_like(vertices)
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = spacing
        low, high = (torch.log1p(field.at(at + sign * step)[0]) for sign in (-1, 1))
        slope[:, axis] = (high - low).numpy()
    length = np.linalg.norm(slope, axis=1, keepdims=True)
    flat = length[:, 0] < 1e-12
    normals = -slope / np.maximum(length, 1e-12)
    normals[flat] = [0.0, 0.0, 1.0]
    _, rgb = field.at(at - torch.from_numpy(normals) * 0.25 * spacing, torch.from_numpy(-normals).float())
    color = srgb_decode(rgb.numpy()) if model.scene["color_space"] == "srgb" else rgb.numpy()
    world = vertices * model.octree.root_size + model.octree.corner[0].double().numpy()
    place = place_of(model.scene)
    back = np.eye(4) if place is None else inverse(place)
    turned = normals @ back[:3, :3].T
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    return Mesh(move_points(back, world), faces, turned, to_bytes(color))
