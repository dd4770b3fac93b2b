"""The wheel: built, installed into a fresh environment and run from another folder, with the kernels inside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from infnerf.renderer import kernel_build

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("viewer", "renderer", "training", "data", "models")


def run(*command: str | Path, cwd: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command without a display and without this process's Python paths; its exit code must be `code`."""
    removed = ("DISPLAY", "WAYLAND_DISPLAY", "PYTHONPATH", "INFNERF_KERNELS", "INFNERF_REQUIRE")
    kept = {key: value for key, value in os.environ.items() if key not in removed}
    result = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == code, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


def copy_sources(to: Path) -> Path:
    """The sources alone, so that nothing built here earlier gets into the wheel, and nothing is built here."""
    left = shutil.ignore_patterns(
        ".*", "build", "dist", "*.egg-info", "__pycache__", "*.so", "tests", "benchmarks", "docs"
    )
    shutil.copytree(REPOSITORY, to, ignore=left)
    return to


def build_wheel(sources: Path, to: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "wheel", sources, "--no-deps", "--no-build-isolation", "-v", "-w", to]
    return run(*command, cwd=sources.parent, code=code, **environment)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build_wheel(copy_sources(folder / "sources"), folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel; its dependencies come from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel, cwd=folder)
    site = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).stdout.strip())
    # A .pth names the folder only: the editable install's own hook in there stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder


def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {path.relative_to(REPOSITORY).as_posix() for room in ROOMS for path in (REPOSITORY / room).rglob("*.py")}
    data = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "cuda").iterdir() if path.is_file()}
    data |= {f"{folder}/{path.name}" for folder in ("shaders", "assets") for path in (REPOSITORY / folder).iterdir()}
    libraries = {f"renderer/{kernel_build.library_name(variant)}" for variant in kernel_build.machine_variants()}
    ours = {name.removeprefix("infnerf/") for name in names if name.startswith("infnerf/")}
    assert ours == modules | data | libraries
    assert "infnerf/__init__.py" not in names
    assert wheel.name.startswith("infnerf_view-0.1.0-py3-none-")


def test_the_commands_answer_from_another_folder(environment: Path, tmp_path: Path) -> None:
    for program in ("infnerf-view", "infnerf"):
        assert f"usage: {program}" in run(environment / "bin" / program, "--help", cwd=tmp_path).stdout


def test_the_kernels_come_with_the_wheel(environment: Path, tmp_path: Path) -> None:
    code = "from infnerf.renderer.kernels import load_kernels as l; print(l().path); print(l().variant)"
    result = run(
        environment / "bin" / "python", "-c", code, cwd=tmp_path, HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path)
    )
    path, variant = result.stdout.split()
    assert Path(path).is_relative_to(environment)
    assert variant == kernel_build.cpu_variants()[0]
    assert list(tmp_path.iterdir()) == []  # nothing was compiled into the user's cache


def test_a_scene_renders_from_another_folder(environment: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    arguments = [tiny_checkpoint, "--headless", "--screenshot", "still.png", "--size", "64x36", "--samples", "1"]
    result = run(environment / "bin" / "infnerf-view", *arguments, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert "executor cpu" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["still.png"]
    assert Image.open(tmp_path / "still.png").size == (64, 36)


def test_the_demo_comes_with_the_wheel(environment: Path, tmp_path: Path) -> None:
    arguments = ["--headless", "--screenshot", "demo.png", "--size", "64x36", "--samples", "1"]
    run(environment / "bin" / "infnerf-view", *arguments, cwd=tmp_path)
    picture = Image.open(tmp_path / "demo.png").convert("RGB")
    assert picture.size == (64, 36)
    assert len(picture.getcolors(64 * 36) or []) > 100  # a city, not a flat sheet


def test_kernels_that_do_not_compile_leave_a_wheel_without_them(tmp_path: Path) -> None:
    """On a machine where the compiler fails the install goes on; with INFNERF_REQUIRE=cc it does not."""
    sources = copy_sources(tmp_path / "sources")
    (sources / "cuda" / kernel_build.ENTRY).write_text("#error deliberately broken\n")
    result = build_wheel(sources, tmp_path)
    assert "no CPU kernels in this build" in result.stdout + result.stderr
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".so")]
    refused = build_wheel(sources, tmp_path / "none", code=1, INFNERF_REQUIRE="gl,cc")
    assert "deliberately broken" in refused.stdout + refused.stderr


def test_the_hash_follows_every_source(tmp_path: Path) -> None:
    """An edit of any file of cuda/ changes the hash, so that no stale library is used."""
    cuda = tmp_path / "cuda"
    shutil.copytree(REPOSITORY / "cuda", cuda)
    before = kernel_build.source_hash(cuda)
    assert before == kernel_build.source_hash(REPOSITORY / "cuda")
    for path in kernel_build.source_files(cuda):
        text = path.read_text()
        path.write_text(text + "\n")
        assert kernel_build.source_hash(cuda) != before, path.name
        path.write_text(text)
    (cuda / "new.cuh").write_text("")
    assert kernel_build.source_hash(cuda) != before
