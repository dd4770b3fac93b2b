"""What all tests share: what they need of the machine, a tiny checkpoint and a tiny city.

A test that needs something which a machine may lack says so by a marker: `@pytest.mark.gpu` (a CUDA device) or
`@pytest.mark.needs("gl")`, `@pytest.mark.needs("cc")`. It is skipped where that is missing, and fails there if the
environment variable INFNERF_REQUIRE (for example `gl,cc`, as .ci/run sets it) says that it must not be.
"""

from __future__ import annotations

import ctypes.util
import functools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from command_lines import CAMERA

if TYPE_CHECKING:
    from gui_harness import Harness

REPOSITORY = Path(__file__).resolve().parents[1]


def _has_gl() -> bool:
    return all(ctypes.util.find_library(name) for name in ("GL", "EGL"))


def _has_compiler() -> bool:
    return shutil.which("g++") is not None


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


#: need -> (test for it, how to get it)
NEEDS = {
    "gl": (_has_gl, "OpenGL libraries: apt-get install libgl1 libegl1 libgl1-mesa-dri"),
    "cc": (_has_compiler, "a C++ compiler: apt-get install g++"),
    "gpu": (_has_gpu, "a CUDA device"),
}


@functools.cache
def _missing(need: str) -> str | None:
    present, how = NEEDS[need]
    return None if present() else how


def required() -> set[str]:
    """The needs that INFNERF_REQUIRE lists."""
    return {word.strip() for word in os.environ.get("INFNERF_REQUIRE", "").split(",") if word.strip()}


def pytest_configure(config: pytest.Config) -> None:
    if unknown := required() - set(NEEDS):
        raise pytest.UsageError(f"INFNERF_REQUIRE knows {', '.join(NEEDS)}, got {', '.join(sorted(unknown))}")


def _needs(item: pytest.Item) -> list[str]:
    needs = [str(mark.args[0]) for mark in item.iter_markers("needs")]
    return needs + ["gpu"] * (item.get_closest_marker("gpu") is not None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for need in _needs(item):
        if how := _missing(need):
            if need in required():
                pytest.fail(f"INFNERF_REQUIRE={need}, but this machine lacks {how}", pytrace=False)
            pytest.skip(f"needs {how}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [
        report for report in terminalreporter.stats.get("skipped", []) if "a CUDA device" in str(report.longrepr)
    ]
    terminalreporter.write_line(f"gpu tests skipped for want of a CUDA device: {len(skipped)}")


@pytest.fixture(autouse=True)
def training_on_the_host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a GPU, runs that are told no device train on the CPU all the same, but for tests of the GPU: what
    they hold runs to, bit for bit, a GPU's atomics don't keep."""
    if request.node.get_closest_marker("gpu") is None and _missing("gpu") is None:
        from infnerf.training import device

        monkeypatch.setattr(device, "_cuda_problem", lambda: "tests train on the host")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with structure in its field: 4 levels, about 100 nodes, 2 MB. Read-only by agreement."""
    from infnerf.models.checkpoint import Checkpoint, save_checkpoint
    from infnerf.models.config import InfNeRFConfig
    from infnerf.models.infnerf import InfNeRF
    from infnerf.models.octree import build_octree

    rng = np.random.default_rng(0)
    points = rng.random((3000, 3)) * (1.0, 1.0, 0.4)
    octree = build_octree(points, np.full(len(points), 2e-3), np.zeros(3), 1.0, 32, max_depth=3)
    config = InfNeRFConfig(density_shift=-2.0, resolution=32, table_size=256, occupancy_resolution=16, hidden_dim=16)
    scene = {"aabb": [[0.0, 0.0, 0.0], [1.0, 1.0, 0.4]], "unit": "m"}
    model = InfNeRF.random(config, octree, seed=0, scene=scene, spread=2.0)
    field = {"tables": model.tables.data.half(), "mlp": model.mlp.data.half(), "occupancy": model.occupancy}
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    save_checkpoint(Checkpoint("infnerf", config, octree, field, model.scene), path)
    return path


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A city of one block in ten small images, three more for tests. Read-only by agreement."""
    from infnerf.data.city import make_city

    out = tmp_path_factory.mktemp("city") / "city"
    make_city(out, blocks=1, views=10, size=(64, 48), seed=3, test_views=3, workers=1, supersample=2)
    return out


@pytest.fixture(scope="module")
def shared() -> Iterator[Harness]:
    """A viewer on the analytic scene, one a module."""
    from gui_harness import Harness

    with Harness() as harness:
        harness.open()
        yield harness


@pytest.fixture
def viewer(shared: Harness) -> Harness:
    """The module's viewer, at home and at rest."""
    return shared.at_home()


@pytest.fixture
def two(viewer: Harness) -> Iterator[Harness]:
    """The module's viewer with a second scene, which is darker."""
    viewer.app.add("dim.pth")
    viewer.settle()
    assert len(viewer.app.session.loaded) == 2
    yield viewer
    viewer.app.photographs.data = None
    viewer.at_home()


@pytest.fixture
def on_checkpoint(viewer: Harness, tiny_checkpoint: Path) -> Iterator[Harness]:
    """The viewer on a checkpoint instead of the analytic scene, small."""
    from gui_harness import QUICK

    from infnerf.viewer.scene import open_checkpoint

    app, opener = viewer.app, viewer.app.session.opener
    app.session.opener, app.state.resolution = open_checkpoint, 0.25
    try:
        app.open(tiny_checkpoint)
        viewer.settle()
        yield viewer
    finally:
        app.session.opener, app.state.resolution = opener, QUICK["resolution"]
        app.open("scene.pth")
        viewer.settle()


@pytest.fixture
def camera_file(tmp_path: Path) -> Path:
    """A camera as `--camera` reads it."""
    path = tmp_path / "camera.json"
    path.write_text(json.dumps(CAMERA))
    return path
