"""A picture of an octree: from above, along the scene's up, and from the side, every node in its level's colour."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..models.backends import Model
from ..renderer.colormaps import level_color
from ..renderer.resolve import format_length
from .drawing import BACKDROP, LINE, MUTED, TEXT, Rgb, fitted, write

PLAN, SIDE = 880, 380  # px, the longer edges of both views
SUPERSAMPLING = 2  # drawn so much larger, then averaged
MARGIN, GAP = 32, 40  # px
HEADER, FOOTER = 84, 56  # px
_TITLE, _BODY, _SMALL = 24, 16, 14  # px, heights of text
_HEAD, _ROW = 26, 34  # px of a legend's first line and of the others
_LEAST_EDGE = 5.0  # px: smaller nodes get no outline, which would be all that is seen
_DARKER = 0.55  # an outline's colour over its node's


def octree_picture(model: Model, title: str) -> NDArray[np.uint8]:
    """The plan, a legend and an elevation, [H, W, 3] sRGB. Where nodes lie over one another the deepest level shows.

    An up that is no world axis shows cubes as hexagons, as they are from there.
    """
    octree, unit = model.octree, model.scene["unit"]
    right, forward, up = plan_axes(np.asarray(model.scene["up"], np.float64))
    plan, pixels_per_unit = _view(model, right, forward, PLAN)
    side, _ = _view(model, right, up, SIDE)
    levels = octree.depth + 1
    column = MARGIN + plan.width + GAP
    legend = _HEAD + levels * _ROW
    body = max(plan.height, legend + GAP + side.height)
    sheet = Image.new("RGB", (column + SIDE + MARGIN, HEADER + body + FOOTER), BACKDROP)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, 44), fitted(title, _TITLE, sheet.width - 2 * MARGIN), _TITLE, TEXT, "ls")
    n_levels = f"{levels} level{'s' if levels > 1 else ''}"
    line = f"octree of {octree.n_nodes:,} nodes on {n_levels}, root cube {format_length(octree.root_size, unit)}"
    write(draw, (MARGIN, 68), line, _BODY, MUTED, "ls")
    bottom = HEADER + body
    sheet.paste(plan, (MARGIN, bottom - plan.height))
    _scale_bar(draw, (MARGIN, bottom + 24), pixels_per_unit, unit, plan.width)
    seen = f"from above, {_axis_name(right)} to the right, {_axis_name(forward)} upwards"
    write(draw, (MARGIN + plan.width, bottom + 26), seen, _SMALL, MUTED, "rs")
    _legend(draw, (column, HEADER), model)
    sheet.paste(side, (column, bottom - side.height))
    seen = f"from the side, {_axis_name(right)} to the right, {_axis_name(up)} upwards"
    write(draw, (column, bottom + 26), seen, _SMALL, MUTED, "ls")
    return np.asarray(sheet)


def plan_axes(up: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The world directions [3] that lie to the right and upwards on the plan, and up itself as it is drawn.

    An up within a degree of a world axis counts as that axis; the plan is right-handed seen from above.

    >>> [axis.tolist() for axis in plan_axes(np.array([0.0, 0.0, 2.0]))]
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    up = up / np.linalg.norm(up)
    axis = int(np.argmax(np.abs(up)))
    if abs(up[axis]) > math.cos(math.radians(1)):
        up = np.sign(up[axis]) * np.eye(3)[axis]
    right = np.eye(3)[1 if axis == 0 else 0]
    right = right - up * (right @ up)
    right = right / np.linalg.norm(right)
    return right, np.asarray(np.cross(up, right), np.float64), up


def _axis_name(direction: NDArray[np.float64]) -> str:
    """ "+x" for a world axis, else the one that it is nearest to: "near +x"."""
    axis = int(np.argmax(np.abs(direction)))
    name = f"{'+' if direction[axis] > 0 else '-'}{'xyz'[axis]}"
    return name if abs(direction[axis]) > 1 - 1e-9 else f"near {name}"


def cube_outline(right: NDArray[np.float64], upwards: NDArray[np.float64]) -> NDArray[np.float64]:
    """The outline of the unit cube on the picture, [4 or 6, 2] in order, relative to where its minimum corner lies.

    The shadow of a cube is the sum of the shadows of its edges (a zonogon): turned into the upper half plane and
    sorted by angle they walk up one side of it from its lowest point, and backwards down the other.
    """
    edges = np.stack([right, upwards], -1)  # [3, 2] a world axis each
    edges = edges[np.linalg.norm(edges, axis=-1) > 1e-9]
    turned = (edges[:, 1] < 0) | ((edges[:, 1] == 0) & (edges[:, 0] < 0))
    start = edges[turned].sum(0)
    walk = np.where(turned[:, None], -edges, edges)
    walk = walk[np.argsort(np.arctan2(walk[:, 1], walk[:, 0]))]
    return start + np.cumsum(np.concatenate([np.zeros((1, 2)), walk, -walk[:-1]]), axis=0)


def _view(
    model: Model, right: NDArray[np.float64], upwards: NDArray[np.float64], longest: int
) -> tuple[Image.Image, float]:
    """The tree on the plane of two world directions, `longest` pixels in its longer edge, and pixels per world unit."""
    octree = model.octree
    corners, edges = octree.boxes()
    outline = cube_outline(right, upwards)
    at = np.stack([corners @ right, corners @ upwards], -1)  # [n_nodes, 2] of minimum corners
    whole = at[0] + outline * octree.root_size
    low, extent = whole.min(0), np.ptp(whole, axis=0)
    factor = (longest - 1) * SUPERSAMPLING / float(extent.max())
    width, height = (math.ceil(e * factor / SUPERSAMPLING) + 1 for e in extent)
    image = Image.new("RGB", (width * SUPERSAMPLING, height * SUPERSAMPLING), BACKDROP)
    draw = ImageDraw.Draw(image)
    bottom = image.height - 1
    level = octree.level.numpy()
    for depth in range(octree.depth + 1):
        nodes = np.flatnonzero(level == depth)
        size = float(edges[nodes[0]]) * factor
        corner = np.unique(np.rint((at[nodes] - low) * factor).astype(np.int64), axis=0)  # a stack of nodes is one
        fill, line = _fill(depth), _outline(depth)
        for polygon in (corner[:, None] + outline * size).tolist():
            points = [(x, bottom - y) for x, y in polygon]
            draw.polygon(points, fill, line if size > _LEAST_EDGE * SUPERSAMPLING else fill, SUPERSAMPLING)
    return image.resize((width, height), Image.Resampling.BOX), factor / SUPERSAMPLING


def _fill(level: int) -> Rgb:
    return level_color(level)


def _outline(level: int) -> Rgb:
    red, green, blue = (round(channel * _DARKER) for channel in level_color(level))
    return red, green, blue


def _legend(draw: ImageDraw.ImageDraw, at: tuple[int, int], model: Model) -> None:
    """A line a level: colour, number, GSD, nodes and their share."""
    x, y = at
    columns = (x + 78, x + 210, x + 300, x + SIDE)  # right ends
    for right, head in zip(columns, ("level", "GSD", "nodes", "share"), strict=True):
        write(draw, (right, y + 14), head, _SMALL, MUTED, "rs")
    draw.line((x, y + _HEAD, x + SIDE, y + _HEAD), LINE)
    for level, count in enumerate(model.octree.level_counts()):
        middle = y + _HEAD + _ROW * level + _ROW // 2
        draw.rectangle((x, middle - 9, x + 18, middle + 9), _fill(level), _outline(level))
        gsd = format_length(float(model.gsd(level)), model.scene["unit"])
        texts = (str(level), gsd, f"{count:,}", f"{100 * count / model.octree.n_nodes:.1f} %")
        for right, text in zip(columns, texts, strict=True):
            write(draw, (right, middle), text, _BODY, TEXT, "rm")


def _scale_bar(draw: ImageDraw.ImageDraw, at: tuple[int, int], pixels_per_unit: float, unit: str, room: int) -> None:
    """A round length, about a fifth of the plan."""
    x, y = at
    wanted = room / 5 / pixels_per_unit
    power = 10.0 ** math.floor(math.log10(wanted))
    length = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    end = x + length * pixels_per_unit
    draw.line([(x, y - 6), (x, y), (end, y), (end, y - 6)], MUTED, 2)
    write(draw, (end + 12, y + 2), format_length(length, unit), _SMALL, MUTED, "ls")
