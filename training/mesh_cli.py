"""`infnerf mesh`: the command line. Light to import."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..renderer.cliutil import CommandError, check_output, check_range, progress_bar, say
from .cli_common import check_file, load_infnerf


@dataclass
class Mesh:
    """Write a checkpoint's surface as a mesh with colours and normals, in the capture's own coordinates.

    Marching cubes on the density, over occupied space, block by block. Ctrl-C writes nothing.
    """

    checkpoint: Positional[Path]
    """A .pth file."""
    out: Annotated[Path, arg(metavar="X.ply|X.obj|X.glb")]
    """The mesh to write."""
    level: Annotated[int | None, arg(metavar="L")] = None
    """The finest octree level that answers, and whose nodes the grid follows; the deepest by default."""
    resolution: Annotated[int | None, arg(metavar="R")] = None
    """Grid cells along the edge of a node on that level; half the model's by default."""
    density: Annotated[float | None, arg(metavar="D")] = None
    """Density per world unit at the surface; by default one that takes half the light within four cells."""

    def run(self) -> int:
        check_range("--level", self.level or 0, 0, 31)
        check_range("--resolution", self.resolution or 4, 4, 256)
        check_range("--density", 1.0 if self.density is None else self.density, 1e-9, 1e9)
        check_file(self.checkpoint)
        check_output(self.out)
        from ..renderer.mesh import SUFFIXES, extract_mesh, write_mesh

        if self.out.suffix.lower() not in SUFFIXES:  # before an hour of work, not after
            raise CommandError(f"{self.out}: a mesh must end in {', '.join(SUFFIXES)}")
        for package in ("skimage", "trimesh"):
            if importlib.util.find_spec(package) is None:
                raise CommandError(f"meshes need {package}: pip install 'infnerf-view[train]'")
        model = load_infnerf(self.checkpoint, "meshes are made of InfNeRFs")
        with progress_bar("mesh", 1.0) as advance:
            mesh = extract_mesh(
                model, self.level, self.resolution, self.density,
                lambda done, total: advance(done / max(total, 1), f"block {done}/{total}"),
            )  # fmt: skip
        write_mesh(mesh, self.out)
        say(f"wrote {self.out}: {len(mesh.vertices):,} vertices, {len(mesh.faces):,} triangles")
        return 0
