"""Public functions say what they return and raise; ruff sees to it that they say anything."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("registry", "engines", "launcher", "server", "client")
"""The docstrings of `cli` are its help pages."""
NO_ERRORS = {"NotImplementedError", "SystemExit"}
Function = ast.FunctionDef | ast.AsyncFunctionDef

RETURNING = (*FOLDERS, "cli")
IMPLEMENTS = {
    "Adapter": "Engine",
    "AttachedHandle": "Handle",
    "ClusterLike": "Cluster",
    "HuggingFace": "Hub",
    "ModelScope": "Hub",
}
"""Classes with the methods of another that they do not derive from, and which documents them."""
BUILT_IN = {"Any", "bytes", "dict", "float", "int", "list", "set", "str", "tuple"}
"""Types that do not say what a value is."""
PLURALS = {"Arguments", "Bits", "Bytes", "Events", "Layers", "Names", "Parameters", "Places"}
PLURALS |= {"Processors", "Reasons", "Requests", "Seconds", "Status", "Tokens", "Warnings"}
"""First words that look like verbs: what follows is what is returned."""
SHAPE = re.compile(r"`|JSON|YAML|→|[Pp]lain values|[Pp]ydantic|[Rr]eturns")
"""What tells the shape of a value of type Any: the name of a type, a route or its fields."""
RETURNS = re.compile(r"[Rr]eturns?\b|[Yy]ields|[Gg]ives|[Ss]treams|True|False|None|→|comes? back")
KNOWN = {
    "registry/spec.py stored_bytes: when it is None",
    "server/http/errors.py envelope: the shape",
    "server/http/query.py flag: what True means",
    "server/proxy/engine_errors.py error_body: the shape",
    "server/proxy/sinks.py event_of: the shape",
    "server/proxy/steps.py encode_answer: the shape",
    "server/proxy/upstream.py take: when it is None",
}
"""Gaps that are left. Mend one and take it out; add none."""


def owners(node: ast.Module | ast.ClassDef) -> Iterator[tuple[ast.Module | ast.ClassDef, Function]]:
    """The functions and methods that others may call, each after its module or class."""
    for inner in node.body:
        if isinstance(inner, ast.ClassDef) and not inner.name.startswith("_"):
            yield from owners(inner)
        elif isinstance(inner, Function) and not inner.name.startswith("_"):
            yield node, inner


def public(node: ast.Module) -> Iterator[Function]:
    """The functions and methods that others may call."""
    return (function for _, function in owners(node))


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


def count_parts(annotation: ast.expr) -> int:
    """How many values of different meaning a type has: more than one for `tuple[X, Y]`."""
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple):
        parts = annotation.slice.elts
        is_series = isinstance(parts[-1], ast.Constant)  # tuple[X, ...]
        if ast.unparse(annotation.value) == "tuple" and not is_series:
            return len(parts)
    return 1


def unsaid(function: Function) -> str:
    """What a docstring leaves unsaid of what is returned; empty if nothing.

    A noun phrase says what is returned, and a type of ours what it is made of. So more is asked
    only where the type leaves it open: when it is None, what True means, which part of a tuple is
    which, what an Any holds, and what a function returns whose docstring says what it does.
    """
    if function.returns is None or ast.unparse(function.returns) in {"None", "NoReturn", "Self"}:
        return ""
    text, kind = ast.get_docstring(function) or "", ast.unparse(function.returns)
    joints = re.findall(r",|;|\band\b|\bor\b", text.partition("Raises:")[0])
    verb = re.match(r"[A-Z][a-z]+s\b", text)
    does = verb is not None and verb[0] not in PLURALS
    is_built_in = set(re.findall(r"\w+", kind)) <= BUILT_IN
    gaps = {
        "a docstring": not text,
        "when it is None": kind.endswith("| None") and not re.search(r"\bNone\b", text),
        "what True means": kind == "bool" and not re.search("[Ww]hether|True|False", text),
        "what the parts are": len(joints) < count_parts(function.returns) - 1,
        "the shape": re.search(r"\bAny\b", kind) and not SHAPE.search(text),
        "what comes back": does and is_built_in and not RETURNS.search(text),
    }
    if re.search(r"\b[Ss]ee `|\b[Aa]s `\S+`", text):  # the docstring of another says it
        return ""
    return next((gap for gap, is_there in gaps.items() if is_there), "")


def read_classes(trees: Iterable[ast.Module]) -> dict[str, list[ast.ClassDef]]:
    """The classes of each name."""
    classes: dict[str, list[ast.ClassDef]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, []).append(node)
    return classes


def is_documented_by_base(
    owner: ast.AST, name: str, classes: dict[str, list[ast.ClassDef]]
) -> bool:
    """Whether a class above, or the one that it stands for, documents the method."""
    assert isinstance(owner, ast.ClassDef)
    names = [ast.unparse(base).rpartition(".")[2] for base in owner.bases]
    for base in (b for n in (*names, IMPLEMENTS.get(owner.name)) for b in classes.get(n or "", ())):
        own = (inner for inner in base.body if isinstance(inner, Function) and inner.name == name)
        if any(map(ast.get_docstring, own)) or is_documented_by_base(base, name, classes):
            return True
    return False


def test_public_functions_say_what_they_return() -> None:
    """Each docstring says what the type of the returned value does not; help pages are not read."""
    paths = [p for folder in RETURNING for p in sorted((ROOT / folder).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text("utf-8")) for path in paths}
    classes = read_classes(trees.values())
    missing = set()
    for path, tree in trees.items():
        for owner, function in owners(tree):
            decorators = " ".join(map(ast.unparse, function.decorator_list))
            if "command(" in decorators or "property" in decorators:
                continue
            is_method = isinstance(owner, ast.ClassDef)
            if is_method and is_documented_by_base(owner, function.name, classes):
                continue
            if gap := unsaid(function):
                missing.add(f"{path.relative_to(ROOT)} {function.name}: {gap}")
    assert missing - KNOWN == set()


@pytest.mark.parametrize(
    ("source", "gap"),
    [
        ("def f() -> None: ...", ""),
        ("def f() -> int: ...", "a docstring"),
        ("def f() -> int | None: 'The size.'", "when it is None"),
        ("def f() -> int | None: 'The size; None if it is not known.'", ""),
        ("def f() -> bool: 'Ends it.'", "what True means"),
        ("def f() -> tuple[int, str]: 'A line.'", "what the parts are"),
        ("def f() -> tuple[int, str]: 'The number of a line and its text.'", ""),
        ("def f() -> tuple[int, ...]: 'The numbers.'", ""),
        ("def f() -> dict[str, Any]: 'The row.'", "the shape"),
        ("def f() -> dict[str, Any]: 'A `Row` as JSON.'", ""),
        ("def f() -> str: 'Checks a name.'", "what comes back"),
        ("def f() -> Host: 'Reads the file.'", ""),
        ("def f() -> str | None: 'See `g`.'", ""),
    ],
)
def test_gaps_are_found(source: str, gap: str) -> None:
    """The test itself: each kind of gap, and what is none."""
    (function,) = public(ast.parse(source))
    assert unsaid(function) == gap
