"""The table of formats."""

from __future__ import annotations

import ast
from pathlib import Path

from paddock.registry.formats import FORMATS, weight_format

ROOT = Path(__file__).parents[2]
FOLDERS = ("registry", "launcher", "server", "cli", "client")


def test_only_a_single_file_has_projectors_and_no_code() -> None:
    """What the code takes for granted of GGUF stands in the table."""
    assert [name for name, one in FORMATS.items() if one.is_single_file] == ["ggufv2"]
    assert not FORMATS["ggufv2"].may_have_code
    assert FORMATS["ggufv2"].has_projectors
    assert all(one.engines for one in FORMATS.values())


def test_a_name_that_is_no_format_is_nothing_special() -> None:
    """Attached models have no format."""
    assert not weight_format("attached").is_single_file


def test_no_code_compares_a_format_by_name() -> None:
    """What follows from a format is asked of the table."""
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Compare):
                    names = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                    assert "ggufv2" not in names, f"{path}:{node.lineno}"
