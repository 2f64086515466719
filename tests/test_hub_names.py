"""A hub is one row of the table and one adapter: nothing else names one, or imports its client."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.registry.hubs import BUILT_IN

ROOT = Path(__file__).parent.parent
FOLDERS = ("registry", "engines", "launcher", "server", "client", "cli", "tools")
NAMES = re.compile("|".join(re.escape(site.name) for site in BUILT_IN), re.IGNORECASE)
ALLOWED = {
    "registry/hubs.py": "the table",
    **{
        f"{site.adapter.partition(':')[0].removeprefix('paddock.').replace('.', '/')}.py": "adapter"
        for site in BUILT_IN
    },
    "registry/xinference.py": "the hub that Xinference's format means where it names none",
    "tools/docs.py": "the page of settings tells of variables that hubs' clients read",
}


def mentions(path: Path) -> Iterator[str]:
    """The texts and imports of a file that name a hub; docstrings may."""
    tree = ast.parse(path.read_text("utf-8"))
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        texts = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts = [] if id(node) in docstrings else [node.value]
        elif isinstance(node, ast.Import):
            texts = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            texts = [node.module or ""]
        line = getattr(node, "lineno", 0)
        yield from (f"{text} in line {line}" for text in texts if NAMES.search(text))


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_other_module_names_a_hub(folder: str) -> None:
    """A hub that is added by one file would be missing there."""
    naming = {
        name: list(mentions(path))
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (name := path.relative_to(ROOT).as_posix()) not in ALLOWED
    }
    assert {name: lines for name, lines in naming.items() if lines} == {}


def test_the_exceptions_are_needed() -> None:
    """Each file that may name a hub is there, and does."""
    assert all(list(mentions(ROOT / name)) for name in ALLOWED)


def test_the_dashboard_names_no_hub() -> None:
    """It shows what the gateway tells."""
    sources = [path for end in ("ts", "tsx") for path in (ROOT / "web/src").rglob(f"*.{end}")]
    assert sources
    naming = [
        path.name
        for path in sources
        if path.name != "schema.d.ts" and NAMES.search(path.read_text("utf-8"))
    ]
    assert naming == []
