"""The terms of the training loss. Each is a function `(LossInputs) -> Tensor`, a scalar, small where all is well.

Terms about the field itself (`consistency`, `transparency`) look at random places of a few random nodes, in cells that
are occupied, since no ray sees the others. `depth` casts rays of its own. Each costs a few percent of a step.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..models.camera import Camera
from ..models.infnerf import InfNeRF
from ..models.occupancy import unpack_bits
from ..models.volume import ray_starts, render_weights, segment_rgba
from .losses import LossConfig, LossFunction, LossInputs
from .sampling import random_directions, samples_at

CHARBONNIER = 1e-3  # display values, below which an error counts squared (Zip-NeRF's)
NODES = 8  # looked at in one step
PLACES = 128  # in each, for consistency; each costs nine samples
POINTS = 512  # in each, for transparency
DEPTH_CAMERAS = 4  # of one step
DEPTH_SHARE = 1 / 16  # of a batch's rays are cast to sparse points on top of it
DEPTH_CANDIDATES = 20_000  # points that are projected
DEPTH_MARGIN = 8.0  # footprints before and behind a point in which light may end
OCCLUSION_CELL = 12.0  # mean points in a cell of the image, by whose nearest others count as hidden
OCCLUSION_SLACK = 1.1  # times the nearest point's distance


def rgb_l2(inputs: LossInputs) -> Tensor:
    """Mean squared error of display values over random backgrounds, which teaches alpha as well."""
    return (inputs.error.square().mean(-1) * inputs.batch.weight).mean()


def rgb_charbonnier(inputs: LossInputs) -> Tensor:
    """Mean of `sqrt(e**2 + eps**2)` (Charbonnier et al. 1994) of the same errors: outliers don't pull harder."""
    return (torch.sqrt(inputs.error.square() + CHARBONNIER**2).mean(-1) * inputs.batch.weight).mean()


def distortion(inputs: LossInputs) -> Tensor:
    """Mean over rays of mip-NeRF 360's distortion (Barron et al. 2022, eq. 15): a ray's weights gather in one place.

    Distances are s = u up to u = 1 and 2 - 1 / u behind, u being root edges from the ray's first sample, so that what
    is far off behind everything counts like what is near. O(n): with m ascending, the sum over pairs is
    `2 sum_i w_i (m_i sum_{j<i} w_j - sum_{j<i} w_j m_j)`.
    """
    samples, w = inputs.samples, inputs.weights.double()
    n_rays, ray = len(inputs.prediction), samples.ray_indices.long()
    first = ray_starts(ray, n_rays)[ray, 0]
    u = (samples.t - samples.t[first]).double() / inputs.model.octree.root_size
    m = torch.where(u > 1, 2 - 1 / u.clamp(min=1.0), u)
    ds = samples.dt.double() / inputs.model.octree.root_size / u.clamp(min=1.0).square()
    before, before_m = _sum_before(w, first), _sum_before(w * m, first)
    total = (2 * w * (m * before - before_m) + w.square() * ds / 3).sum()
    return (total / max(n_rays, 1)).to(inputs.prediction.dtype)


def _sum_before(values: Tensor, first: Tensor) -> Tensor:
    """Sums [n_samples] over the samples of the same ray that come before; `first` [n_samples]: the ray's first."""
    total = torch.cat([values.new_zeros(1), values.cumsum(0)])
    return total[:-1] - total[first]


def transparency(inputs: LossInputs) -> Tensor:
    """Mean opacity of one GSD at random places of random nodes: what no image asks for becomes empty, not fog.

    After InfNeRF's published code (sail-sg/InfNeRF, `get_transparency_loss`: the L1 distance of transparency from 1 at
    random places of some nodes).
    """
    model, n_nodes = inputs.model, inputs.model.octree.n_nodes
    nodes = torch.randint(n_nodes, (NODES,), generator=inputs.generator)
    node, local = places(model, nodes, POINTS, inputs.generator)
    sigmas, _ = inputs.field(samples_at(model, node, local), random_directions(len(node), inputs.generator))
    return (1 - torch.exp(-sigmas * model.gsd(model.octree.level.long()[node]).to(sigmas))).mean()


def consistency(inputs: LossInputs) -> Tensor:
    """Mean squared difference between what a parent shows over one of its cells (a GSD wide) and the mean of what its
    child shows there, at one place in each of the cell's octants: premultiplied colour and opacity over the parent's
    GSD. Opacity stands for optical depth, which of opaque matter means nothing.

    InfNeRF's published code (`get_interlevel_loss`) compares transparency so. Both sides learn.
    """
    model, octree, generator = inputs.model, inputs.model.octree, inputs.generator
    if octree.n_nodes < 2:
        return inputs.prediction.new_zeros(())
    children = 1 + torch.randint(octree.n_nodes - 1, (NODES,), generator=generator)
    child, center = places(model, children, PLACES, generator)
    cell = 2 / model.config.resolution  # the parent's GSD in the child's cube
    center = center.clamp(cell / 2, 1 - cell / 2)
    octant = torch.cartesian_prod(*[torch.arange(2)] * 3)
    inside = (octant + torch.rand(len(child), 8, 3, generator=generator)) / 2 - 0.5
    around = (center[:, None] + cell * inside).reshape(-1, 3)
    parent, local = in_parent(model, child, center)
    node, local = torch.cat([parent, child.repeat_interleave(8)]), torch.cat([local, around])
    directions = random_directions(len(child), generator)
    directions = torch.cat([directions, directions.repeat_interleave(8, 0)])
    gsd = model.gsd(octree.level.long()[parent]).float()
    sigmas, rgb = inputs.field(samples_at(model, node, local), directions)
    seen = segment_rgba(sigmas, rgb, torch.cat([gsd, gsd.repeat_interleave(8)]).to(sigmas))
    return (seen[: len(child)] - seen[len(child) :].view(-1, 8, 4).mean(1)).square().mean()


def places(model: InfNeRF, nodes: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`n` random places in occupied cells of each of `nodes` [k], anywhere in a node that has none: their nodes
    [k * n], and grid positions [k * n, 3], both on the host."""
    resolution = model.config.occupancy_resolution
    chances = unpack_bits(model.occupancy[nodes]).float().cpu() + 1e-12
    cell = torch.multinomial(chances, n, replacement=True, generator=generator).view(-1)
    corner = torch.stack([cell % resolution, cell // resolution % resolution, cell // resolution**2], -1)
    local = (corner + torch.rand(len(cell), 3, generator=generator)) / resolution
    return nodes.repeat_interleave(n), local


def in_parent(model: InfNeRF, node: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
    """The parents [n] of nodes, and there the grid positions of what is at `local` [n, 3] in the nodes' grids."""
    parent, lower = model.octree.in_parents(node)
    return parent, model.to_grid(parent, lower.to(local) + 0.5 * local)


def depth(inputs: LossInputs) -> Tensor:
    """Light ends at sparse points: mean over rays from cameras to points of what passes and of what stops before.

    A `PointCloud` does not know which images its points were matched in. What passes a point is wrong whoever looks
    (if something hides the point, nothing arrives there), and counts as it is. What stops before it may be something
    that hides it: that counts only for points that no nearer ones stand before (`seen_points`), and as
    1 - (1 - a**2)**2 (Tukey's biweight) of the opacity a before, which leaves alone what is opaque. Neither counts
    within DEPTH_MARGIN footprints of the point.
    """
    found = depth_rays(inputs)
    if found is None:
        return inputs.prediction.new_zeros(())
    origins, directions, cones, distance, slack = found
    samples, sigmas, _ = inputs.cast(origins, directions, cones)
    ray, n = samples.ray_indices.long(), len(distance)
    distance, slack, none = distance.to(sigmas), slack.to(sigmas), sigmas.new_zeros(n)
    weights, _ = render_weights(sigmas, samples.dt, ray, n)
    before = none.index_add(0, ray, weights * (samples.t < (distance - slack)[ray]))
    until = none.index_add(0, ray, weights * (samples.t < (distance + slack)[ray]))
    return (1 - until + 1 - (1 - before.square()).square()).mean()


def depth_rays(inputs: LossInputs) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor] | None:
    """Rays from a few random cameras to sparse points that they see: origins and directions [n, 3], cones, distances of
    the points and what these may be off by [n]. None where there is nothing to see."""
    if inputs.points is None or not len(inputs.points) or not inputs.cameras:
        return None
    some = torch.randint(len(inputs.points), (DEPTH_CANDIDATES,), generator=inputs.generator).unique().numpy()
    xyz, footprint = inputs.points.xyz[some], inputs.points.footprint[some]
    per_camera = max(1, round(len(inputs.prediction) * DEPTH_SHARE / DEPTH_CAMERAS))
    columns: list[tuple[np.ndarray, ...]] = []
    for index in torch.randint(len(inputs.cameras), (DEPTH_CAMERAS,), generator=inputs.generator).tolist():
        camera = inputs.cameras[index]
        rows, pixels = seen_points(camera, xyz)
        chosen = torch.randperm(len(rows), generator=inputs.generator)[:per_camera].numpy()
        rows, pixels = rows[chosen], pixels[chosen]
        origins, directions, cones = camera.pixel_rays(pixels[:, 0], pixels[:, 1])
        distance = np.linalg.norm(xyz[rows] - origins, axis=1)
        slack = DEPTH_MARGIN * np.maximum(footprint[rows], distance * cones)
        columns.append((origins, directions, cones, distance, slack))
    arrays = (torch.from_numpy(np.concatenate(column)).float() for column in zip(*columns, strict=True))
    origins, directions, cones, distance, slack = arrays
    return (origins, directions, cones, distance, slack) if len(cones) else None


def seen_points(camera: Camera, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `xyz` [n, 3] that are in a camera's image and not hidden, and their pixels [m, 2].

    Hidden: farther than OCCLUSION_SLACK times the nearest point in the same cell of the image, whose cells are so large
    that they hold OCCLUSION_CELL points on average.
    """
    pixels, valid = camera.project(xyz)
    size = np.array([camera.width, camera.height], np.float64)
    rows = np.flatnonzero(valid & (pixels >= 0).all(axis=1) & (pixels < size).all(axis=1))
    pixels = pixels[rows]
    edge = max(1.0, float(np.sqrt(size.prod() * OCCLUSION_CELL / max(len(rows), 1))))
    cell = (pixels // edge).astype(np.int64)
    number = cell[:, 1] * (camera.width + 1) + cell[:, 0]
    distance = np.linalg.norm(xyz[rows] - camera.position, axis=1)
    _, where = np.unique(number, return_inverse=True)
    nearest = np.full(len(rows), np.inf)
    np.minimum.at(nearest, where, distance)
    kept = distance <= OCCLUSION_SLACK * nearest[where]
    return rows[kept], pixels[kept]


TERMS: dict[str, LossFunction] = {
    "consistency": consistency, "transparency": transparency, "distortion": distortion, "depth": depth,
}  # fmt: skip


def total_loss(
    inputs: LossInputs, config: LossConfig, terms: Mapping[str, LossFunction] = TERMS
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of all terms, and each one's weighted value by name, in the config's order.

    `terms`: those of the model's kind."""
    rgb = rgb_l2 if config.rgb_form == "l2" else rgb_charbonnier
    functions = {"rgb": rgb, **terms, **{name: function for name, function, _ in config.custom}}
    parts = {name: weight * functions[name](inputs) for name, weight in config.weights().items()}
    total = sum(parts.values(), start=inputs.prediction.new_zeros(()))
    return total, parts
