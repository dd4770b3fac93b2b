"""Meshes: a ball of known size in each coordinate system, no seams, colours and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from infnerf.models.config import InfNeRFConfig
from infnerf.models.infnerf import InfNeRF
from infnerf.models.octree import build_octree
from infnerf.renderer import mesh as module
from infnerf.renderer.cliutil import CommandError
from infnerf.renderer.mesh import Density, extract_mesh, write_mesh
from infnerf.renderer.renderer import DEMO
from infnerf.training import cli

CENTER, RADIUS = np.array([0.45, 0.5, 0.55]), 0.3  # root-local
ROOT = 8.0
CONFIG = InfNeRFConfig(n_grid_levels=1, table_size=64, resolution=16, occupancy_resolution=8)


def ball_model(**scene: Any) -> InfNeRF:
    """A tree deeper on one side, whose field is replaced by a ball's (below)."""
    points = np.random.default_rng(0).random((400, 3)) * [0.5, 1, 1] * ROOT
    octree = build_octree(points, np.full(400, 0.3), np.zeros(3), ROOT, 8, min_points=1)
    assert octree.depth == 2
    return InfNeRF(CONFIG, octree, scene=scene)


@pytest.fixture
def ball(monkeypatch: pytest.MonkeyPatch) -> InfNeRF:
    """Density e**(40 (r - d)), so that it is 1 on the sphere; red grows with x, green where it is seen from above."""
    model = ball_model()

    def at(self: Density, points: torch.Tensor, directions: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        distance = (points.double() - torch.from_numpy(CENTER)).norm(dim=-1)
        down = torch.zeros(len(points)) if directions is None else -directions[:, 2]
        rgb = torch.stack([points[:, 0].float(), down.clamp(0, 1), torch.zeros(len(points))], -1)
        return torch.exp(40 * (RADIUS - distance)).float(), rgb

    monkeypatch.setattr(module.Density, "at", at)
    return model


def test_a_ball_is_round_closed_and_looks_outwards(ball: InfNeRF) -> None:
    done = []
    mesh = extract_mesh(ball, resolution=8, density=1.0, progress=lambda *numbers: done.append(numbers))
    local = mesh.vertices / ROOT - CENTER
    np.testing.assert_allclose(np.linalg.norm(local, axis=1), RADIUS, atol=2e-3)
    outwards = local / np.linalg.norm(local, axis=1, keepdims=True)
    assert (mesh.normals * outwards).sum(1).min() > 0.999
    surface = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert surface.is_watertight  # across blocks and across depths of the tree
    assert surface.volume == pytest.approx(4 / 3 * np.pi * (RADIUS * ROOT) ** 3, rel=0.02)  # positive: faces outwards
    assert done[-1][0] == done[-1][1] == len(done) - 1


def test_colours_are_seen_along_the_normal(ball: InfNeRF) -> None:
    mesh = extract_mesh(ball, resolution=8, density=1.0)
    top, left = mesh.vertices[:, 2].argmax(), mesh.vertices[:, 0].argmin()
    assert mesh.colors[top, 1] > 250
    assert mesh.colors[left, 1] < 60
    linear = (mesh.vertices[left, 0]) / ROOT
    assert mesh.colors[left, 0] == pytest.approx(255 * (1.055 * linear ** (1 / 2.4) - 0.055), abs=3)


def test_a_mesh_is_in_the_captures_coordinates(ball: InfNeRF) -> None:
    place = np.array([[0, -2.0, 0, 1], [2, 0, 0, -3], [0, 0, 2, 0.5], [0, 0, 0, 1]])
    here = extract_mesh(ball, level=1, resolution=8, density=1.0)
    ball.scene["transform"] = place.tolist()
    there = extract_mesh(ball, level=1, resolution=8, density=1.0)
    np.testing.assert_allclose(there.vertices @ place[:3, :3].T + place[:3, 3], here.vertices, atol=1e-9)
    np.testing.assert_allclose(there.normals @ place[:3, :3].T / 2, here.normals, atol=1e-9)


def test_every_block_with_matter_is_looked_at() -> None:
    """Against brute force: each point whose occupancy is set lies in a listed block."""
    model = ball_model()
    generator = torch.Generator().manual_seed(2)
    keep = torch.rand(model.octree.n_nodes, CONFIG.occupancy_words, 32, generator=generator) < 0.006
    bits = (keep.long() << torch.arange(32)).sum(-1)
    model.occupancy.copy_(torch.where(bits >= 1 << 31, bits - (1 << 32), bits).int())
    for level in range(3):
        blocks = {tuple(block) for block in module._blocks_with_matter(model, level, 8).tolist()}
        points = torch.rand(40_000, 3, generator=generator, dtype=torch.float64)
        field = Density(model, level)
        node = model.octree.find(points, torch.full((len(points),), level))
        local = module.to_node(model.octree, points, node, model.octree.level.long()[node])
        taken = points[field._matter(node, local)]
        assert 10 < len(taken) < 4000
        assert {tuple(cell) for cell in (taken * (1 << level)).long().tolist()} <= blocks
        assert level < 2 or len(blocks) < 64


@pytest.mark.parametrize("background", [False, True])
def test_density_is_the_fields(background: bool) -> None:
    from random_models import random_model

    model = random_model(3, background=background)
    points = torch.rand(500, 3, dtype=torch.float64)
    directions = torch.nn.functional.normalize(torch.randn(500, 3), dim=-1)
    sigma, rgb = Density(model, 2).at(points, directions)
    node = model.octree.find(points, torch.full((500,), 2))
    local = module.to_node(model.octree, points, node, model.octree.level.long()[node], background).float()
    expected, colors = model.field(node, local, directions)
    some = sigma > 0
    assert 50 < some.sum() < 500
    torch.testing.assert_close(sigma[some], expected[some], rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(rgb[some], colors[some], rtol=0, atol=2e-3)
    assert (Density(model, 2).at(points + 1.5)[0] == 0).all()


@pytest.mark.parametrize("suffix", module.SUFFIXES)
def test_files_there_and_back(ball: InfNeRF, tmp_path: Path, suffix: str) -> None:
    mesh = extract_mesh(ball, level=1, resolution=8, density=1.0)
    write_mesh(mesh, tmp_path / f"ball{suffix}")
    read = trimesh.load(tmp_path / f"ball{suffix}", force="mesh", process=False)
    assert len(read.faces) == len(mesh.faces)
    np.testing.assert_allclose(np.sort(read.vertices, axis=0), np.sort(mesh.vertices, axis=0), atol=1e-5)
    assert len(np.unique(np.asarray(read.visual.vertex_colors)[:, :3], axis=0)) > 10
    assert [path.name for path in tmp_path.iterdir()] == [f"ball{suffix}"]


def test_the_command_writes_a_surface_of_the_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo's ground and roofs: dense below the surface, thin above."""
    out, model = tmp_path / "demo.ply", InfNeRF.load(str(DEMO))
    assert cli.main(["mesh", str(DEMO), "--out", str(out), "--level", "1", "--resolution", "24"]) == 0
    surface = trimesh.load(out, force="mesh", process=False)
    assert len(surface.faces) > 1000
    assert f"{len(surface.faces):,} triangles" in capsys.readouterr().err
    local = (surface.vertices - model.octree.corner[0].double().numpy()) / model.octree.root_size
    step = 0.5 / (24 << 1) * surface.vertex_normals
    inside, outside = (Density(model, 1).at(torch.from_numpy(local + sign * step))[0] for sign in (-1, 1))
    assert (inside > outside).float().mean() > 0.8


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.pth", "--out", "a.ply"], 1, "none.pth: no such file"),
        (["MODEL", "--out", "a.stl"], 1, "a.stl: a mesh must end in .ply, .obj, .glb"),
        (["MODEL", "--out", "no/a.ply"], 1, "no does not exist"),
        (["MODEL", "--out", "a.ply", "--resolution", "1000"], 2, "--resolution must be from 4 to 256"),
        (["MODEL", "--out", "a.ply", "--density", "-1"], 2, "--density must be from"),
        (["MODEL", "--out", "a.ply", "--level", "20"], 1, "the level must be from 0 to"),
    ],
)
def test_the_command_says_what_is_wrong(
    arguments: list[str], code: int, message: str, tiny_checkpoint: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(["mesh", *(str(tiny_checkpoint) if word == "MODEL" else word for word in arguments)]) == code
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_bad_requests_get_one_sentence(ball: InfNeRF, tmp_path: Path) -> None:
    for wrong, message in (
        ({"level": 3}, "level must be from 0 to 2, the tree's depth, got 3"),
        ({"resolution": 2}, "resolution must be from 4 to 256"),
        ({"density": 0.0}, "density must be above 0, got 0"),
        ({"density": float("nan")}, "density must be above 0, got nan"),
        ({"density": 1e30, "level": 0}, "no place reaches the density 1e"),
    ):
        with pytest.raises(ValueError, match=message):
            extract_mesh(ball, **wrong)  # type: ignore[arg-type]
    mesh = extract_mesh(ball, level=0, resolution=8, density=1.0)
    with pytest.raises(CommandError, match=r"must end in \.ply, \.obj, \.glb"):
        write_mesh(mesh, tmp_path / "a.stl")
    with pytest.raises(CommandError, match="does not exist"):
        write_mesh(mesh, tmp_path / "no" / "a.ply")
