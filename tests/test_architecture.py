"""The rules of docs/design: who may import whom, how long a file may be, what may be skipped, and that examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
#: room -> the rooms that it may import (design section 2); arrows run down only.
MAY_IMPORT = {
    "viewer": {"renderer", "models", "data"},
    "renderer": {"models"},
    "training": {"models", "data", "renderer"},
    "data": {"models"},
    "models": set(),
}
#: data knows nothing of models but their geometry (and how a package names what it has).
GEOMETRY = {f"infnerf.models.{name}" for name in ("camera", "lens", "octree", "similarity", "lazy")}
MAX_LINES = 400


def modules(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (REPOSITORY / room).rglob("*.py"))


def module_name(path: Path) -> str:
    """`renderer/frame.py` -> `infnerf.renderer.frame`."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(("infnerf", *(part for part in parts if part != "__init__")))


def imported(source: str, name: str, is_package: bool = False) -> Iterator[str]:
    """Absolute names of what a module imports anywhere in it, functions and `import_module("...")` included."""
    package = name if is_package else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            # `from ..models import camera` names a module, `from ..models.camera import Camera` a thing in one.
            yield from (f"{stem}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield from (str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant))


def violations(source: str, name: str, is_package: bool = False) -> list[str]:
    """The imports of a module that its room must not have."""
    room = name.split(".")[1]
    wrong = []
    for target in imported(source, name, is_package):
        parts = target.split(".")
        if parts[0] in MAY_IMPORT:
            wrong.append(f"{name} imports {target} without `infnerf`: that resolves in the repository only")
        if parts[0] != "infnerf" or len(parts) < 2 or parts[1] == room:
            continue
        if parts[1] not in MAY_IMPORT[room]:
            wrong.append(f"{name} imports {target}")
        elif room == "data" and ".".join(parts[:3]) not in GEOMETRY:
            wrong.append(f"{name} imports {target}, which is not geometry")
    return wrong


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    paths = modules(room)
    assert paths, f"{room}/ has no modules"
    found = [
        line for path in paths for line in violations(path.read_text(), module_name(path), path.name == "__init__.py")
    ]
    assert found == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("infnerf.models.x", "from ..renderer.frame import CHANNELS"),
        ("infnerf.models.x", "def f():\n    import infnerf.renderer.frame"),
        ("infnerf.viewer.panels.x", "from ...training import trainer"),
        ("infnerf.viewer.x", "from .. import training"),
        ("infnerf.renderer.x", "import importlib\nimportlib.import_module('infnerf.data.city')"),
        ("infnerf.data.x", "from ..models.infnerf import InfNeRF"),
        ("infnerf.data.x", "from models.camera import Camera"),
    ],
)
def test_a_wrong_import_is_found(name: str, source: str) -> None:
    assert len(violations(source, name)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("infnerf.data.x", "from ..models.camera import Camera"),
        ("infnerf.viewer.panels.x", "from ..state import ViewerState\nfrom ...renderer import frame"),
        ("infnerf.models.x", "from .camera import Camera\nimport numpy.random"),
    ],
)
def test_a_right_import_is_let_through(name: str, source: str) -> None:
    assert violations(source, name) == []


@pytest.mark.parametrize("folder", ["cuda", "shaders", "assets"])
def test_data_folders_are_no_packages(folder: str) -> None:
    assert (REPOSITORY / folder).is_dir()
    assert list((REPOSITORY / folder).rglob("*.py")) == []


def test_no_file_is_too_long() -> None:
    suffixes = {".py", ".cu", ".cuh", ".h", ".cpp", ".glsl", ".vert", ".frag"}
    folders = (*MAY_IMPORT, "cuda", "shaders", "tests", "benchmarks", "examples")
    paths = [path for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.suffix in suffixes]
    lengths = {path.relative_to(REPOSITORY).as_posix(): len(path.read_text().splitlines()) for path in paths}
    assert len(lengths) > 30
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_only_conftest_skips() -> None:
    """A skip is a marker that .ci/run can turn into a failure; none hides inside a test."""
    words = ("skip", "skipif", "importorskip", "xfail")
    found = []
    for path in modules("tests"):
        if path.name == "conftest.py":
            continue
        found += [
            f"{path.name}:{node.lineno} {ast.unparse(node)}"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) and node.attr in words and "pytest" in ast.unparse(node)
        ]
    assert found == []


@pytest.mark.parametrize("name", [module_name(path) for path in modules(*MAY_IMPORT)])
def test_docstring_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples of {name} failed, see the output above"
