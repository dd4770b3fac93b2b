"""`infnerf info`: numbers that add up, the tree as text, and the picture of the octree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from random_models import random_model, random_octree
from scipy.spatial import ConvexHull

from infnerf.models.checkpoint import load_checkpoint
from infnerf.models.infnerf import InfNeRF
from infnerf.renderer.colormaps import level_color
from infnerf.training import cli, drawing
from infnerf.training.octree_picture import HEADER, MARGIN, PLAN, cube_outline, octree_picture, plan_axes
from infnerf.training.octree_report import inspect, tree_lines
from infnerf.viewer import theme


def test_levels_add_up(tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    model = InfNeRF.from_checkpoint(checkpoint)
    values = inspect(checkpoint, model)
    for key in ("nodes", "parameters", "bytes"):
        assert sum(row[key] for row in values["levels"]) == values[key], key
    assert values["nodes"] == model.octree.n_nodes
    assert values["depth"] == len(values["levels"]) - 1 == 3
    assert values["gsd_range"] == [1 / 8 / 32, 1 / 32]  # root_size / 2**depth / resolution, root_size / resolution
    childless = (model.octree.children < 0).all(1)
    assert sum(row["leaves"] for row in values["levels"]) == int(childless.sum())


def test_info_writes_its_numbers_and_its_picture(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers, picture = tmp_path / "info.json", tmp_path / "octree.png"
    arguments = ["info", str(tiny_checkpoint), "--tree", "--json", str(numbers), "--picture", str(picture)]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    values = json.loads(numbers.read_text())
    assert values["levels"][0]["nodes"] == 1
    assert f"bytes       {values['bytes']}" in printed.out
    assert "root, node 0" in printed.out
    with Image.open(picture) as image:
        assert min(image.size) > PLAN
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--picture", "x.jpg"], 2, "--picture must end in .png"),
        (["--picture", "no/x.png"], 1, "no does not exist"),
        (["--json", "no/x.json"], 1, "no does not exist"),
        (["--tree", "--lines", "3"], 2, "--lines must be from 9"),
    ],
)
def test_bad_arguments(
    arguments: list[str], code: int, message: str, tiny_checkpoint: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(["info", str(tiny_checkpoint), *arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert list(tmp_path.iterdir()) == []


def test_the_whole_tree_has_a_line_a_node() -> None:
    octree = random_octree(0)
    lines = tree_lines(octree, 10_000)
    assert len(lines) == octree.n_nodes
    # each line says the octants on the way down by its indent: rebuild the parents from them
    path: list[int] = []
    for line in lines[1:]:
        depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
        node = int(line.split("node ")[1])
        parent = 0 if depth == 1 else path[depth - 2]
        path[depth - 1 :] = [node]
        octant = sum((line[4 * depth + 1 + 2 * bit] == "+") << bit for bit in range(3))
        assert int(octree.parent[node]) == parent
        assert int(octree.children[parent, octant]) == node


@pytest.mark.parametrize("limit", [9, 40, 120])
def test_a_big_tree_is_cut_between_levels_and_counted(limit: int) -> None:
    octree = random_octree(0)
    lines = tree_lines(octree, limit)
    assert len(lines) - 1 <= limit
    told = [line for line in lines[:-1] if " below down to level " in line]
    below = sum(int(line.split(", ")[-1].split()[0]) for line in told)
    shown = len(lines) - 1
    assert shown in np.cumsum(octree.level_counts())
    assert shown + below == octree.n_nodes
    assert lines[-1].endswith(f", {below} more nodes below them")


def test_a_lone_root_is_a_tree() -> None:
    octree = random_octree(0, max_nodes=1)
    assert tree_lines(octree, 9) == ["root, node 0"]
    model = random_model(0)
    lone = InfNeRF.random(model.config, octree, 0)
    assert octree_picture(lone, "root").shape[0] > PLAN


def random_direction(seed: int) -> np.ndarray:
    direction = np.random.default_rng(seed).normal(size=3)
    return direction / np.linalg.norm(direction)


@pytest.mark.parametrize("up", [*np.eye(3), *-np.eye(3), *(random_direction(seed) for seed in range(4))])
def test_a_cubes_outline_is_the_hull_of_its_corners(up: np.ndarray) -> None:
    right, forward, drawn = plan_axes(up)
    axes = np.stack([right, forward, drawn])
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.cross(right, forward), drawn, atol=1e-12)  # right-handed, seen from above
    np.testing.assert_allclose(drawn, up, atol=1e-12)
    corners = np.stack(np.meshgrid(*[[0, 1]] * 3), -1).reshape(-1, 3) @ np.stack([right, forward], -1)
    hull = corners[ConvexHull(corners).vertices]
    outline = cube_outline(right, forward)
    start = int(np.argmin(np.linalg.norm(outline - hull[0], axis=1)))
    np.testing.assert_allclose(np.roll(outline, -start, axis=0), hull, atol=1e-9)


@pytest.mark.parametrize("up", [(0, 0, 1), (0, -1, 0), (0.3, 0.5, 0.8)])
def test_the_plan_shows_the_deepest_node_over_a_place(up: tuple[float, float, float]) -> None:
    model = random_model(0)
    model.scene["up"] = list(up)
    octree = model.octree
    sheet = octree_picture(model, "test")
    right, forward, _ = plan_axes(np.asarray(up, np.float64))
    whole = cube_outline(right, forward) * octree.root_size
    corners, edges = octree.boxes()
    low = whole.min(0) + corners[0] @ np.stack([right, forward], -1)
    pixels_per_unit = (PLAN - 1) / np.ptp(whole, axis=0).max()
    bottom = sheet.shape[0] - 56
    deepest = np.flatnonzero(octree.level.numpy() == octree.depth)
    for node in deepest:
        middle = (corners[node] + edges[node] / 2) @ np.stack([right, forward], -1)
        x, y = (middle - low) * pixels_per_unit
        seen = sheet[int(bottom - 1 - y), int(MARGIN + x)].tolist()
        assert seen == list(level_color(octree.depth))
    assert not np.array_equal(
        sheet[HEADER : HEADER + 40], np.broadcast_to(sheet[0, 0], sheet[HEADER : HEADER + 40].shape)
    )


def test_pictures_have_the_viewers_colours() -> None:
    for name in ("BACKDROP", "LINE", "TEXT", "MUTED"):
        ours = getattr(drawing, name)
        assert ours == tuple(round(255 * channel) for channel in getattr(theme, name)), name


def test_a_long_title_keeps_both_its_ends() -> None:
    text = "a" * 100 + "b" * 100
    cut = drawing.fitted(text, 16, 300)
    assert drawing.text_width(cut, 16) <= 300
    assert cut.startswith("aaa")
    assert cut.endswith("bbb")
