"""Public functions say what they raise; ruff sees to it that they say anything at all."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("registry", "engines", "launcher", "server", "client")
"""The docstrings of `cli` are its help pages."""
NO_ERRORS = {"NotImplementedError", "SystemExit"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def public(node: ast.Module | ast.ClassDef) -> Iterator[Function]:
    """The functions and methods that others may call."""
    for inner in node.body:
        if isinstance(inner, ast.ClassDef) and not inner.name.startswith("_"):
            yield from public(inner)
        elif isinstance(inner, Function) and not inner.name.startswith("_"):
            yield inner


def raised(node: ast.AST) -> Iterator[str]:
    """The classes that a function raises itself, by name."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, Function | ast.Lambda):
            continue
        if isinstance(inner, ast.Raise) and inner.exc is not None:
            error: ast.expr = inner.exc
            if isinstance(error, ast.Call):
                error = error.func
            if isinstance(error, ast.Attribute) and not error.attr[0].isupper():
                error = error.value  # such as UnknownName.among(…)
            name = error.attr if isinstance(error, ast.Attribute) else getattr(error, "id", "")
            if name[:1].isupper():
                yield name
        yield from raised(inner)


def test_public_functions_say_what_they_raise() -> None:
    """Each error that is raised in a function stands in its docstring, or that of another does."""
    missing = []
    for path in (p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))):
        for function in public(ast.parse(path.read_text("utf-8"))):
            text = ast.get_docstring(function) or ""
            refers = "as `" in text and "aise" in text
            for name in sorted(set(raised(function)) - NO_ERRORS):
                if name not in text and not refers:
                    missing.append(f"{path.relative_to(ROOT)}:{function.lineno} {name}")
    assert missing == []


def test_what_is_raised_is_found() -> None:
    """The test itself: in calls, classes, class methods, but not in functions within."""
    source = """
def f():
    if x: raise A("a")
    def g(): raise Inner
    raise B.among("b")
    raise errors.C from None
    raise
"""
    (function,) = public(ast.parse(source))
    assert sorted(raised(function)) == ["A", "B", "C"]
