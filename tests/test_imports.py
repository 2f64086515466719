"""Imports run one way: from the command line and the server down to the registry."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "web": set(),
    "specs": set(),
    "registry": {"specs"},
    "engines": {"registry"},
    "launcher": {"registry", "engines"},
    "server": {"registry", "engines", "launcher", "web"},
    "client": {"registry"},
    "cli": {"registry", "client", "web"},
}
"""What each folder may import of the others, where a file is loaded."""
WHEN_CALLED = {"cli": {"engines", "launcher", "server"}, "client": {"launcher"}}
"""And what beyond that only inside functions, which keeps a quick command quick."""


ROOMS = (
    "hosts",
    "planning",
    "truth",
    "weights",
    "replicas",
    "cluster",
    "environments",
    "jobs",
    "fleet",
)
"""The rooms of `launcher`, from below: each may import those before it, inside functions too."""


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """The folders of ours that a file imports, and whether it does so where it is loaded."""
    for name, is_loaded in modules(path):
        yield name.split(".")[1], is_loaded


def modules(path: Path) -> Iterator[tuple[str, bool]]:
    """The modules of ours that a file imports, and whether it does so where it is loaded."""
    tree = ast.parse(path.read_text("utf-8"))
    inside = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(block)
    }
    typing = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "paddock":
            names = [f"paddock.{one.name}" for one in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "paddock.launcher":
            names = [f"paddock.launcher.{one.name}" for one in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for name in names:
            if name.startswith("paddock.") and name != "paddock.__version__":
                yield name, id(node) not in inside


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_no_folder_imports_upward(folder: str) -> None:
    """Neither where a file is loaded nor, but for some, when something is called."""
    pattern = "*.py" if folder == "web" else "**/*.py"  # what its tools bring holds Python too
    files = list((ROOT / folder).glob(pattern))
    assert files
    allowed = MAY_IMPORT[folder] | {folder}
    for path in files:
        for target, is_loaded in imports(path):
            may = allowed if is_loaded else allowed | WHEN_CALLED.get(folder, set())
            assert target in may, f"{path.relative_to(ROOT)} imports paddock.{target}"


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_of_the_launcher_imports_upward(room: str) -> None:
    """A question has one room, and what two rooms share stands in the lower one."""
    allowed = ROOMS[: ROOMS.index(room) + 1]
    files = list((ROOT / "launcher" / room).glob("**/*.py"))
    assert files
    for path in files:
        for name, _ in modules(path):
            if name.startswith("paddock.launcher."):
                target = name.split(".")[2]
                assert target in allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_every_room_of_the_launcher_has_its_place() -> None:
    """A new room is put into the order of imports."""
    assert {path.parent.name for path in (ROOT / "launcher").glob("*/__init__.py")} == set(ROOMS)
