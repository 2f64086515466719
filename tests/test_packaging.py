"""What gets into the wheel."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parent.parent
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS = ("cli", "client", "engines", "launcher", "registry", "server", "specs", "web")
PACKAGES = find_packages(str(ROOT / "src"), include=SETUP["packages"]["find"]["include"])


def test_every_folder_with_code_is_a_package() -> None:
    """A folder that holds Python files and no `__init__.py` would miss in the wheel."""
    code = {
        path.parent.relative_to(ROOT)
        for top in FOLDERS
        for path in (ROOT / top).rglob("*.py")
        if "node_modules" not in path.parts
    }
    assert {"paddock." + ".".join(folder.parts) for folder in code} | {"paddock"} == set(PACKAGES)


def test_each_top_folder_is_linked_into_the_package() -> None:
    """By a relative link: a clone may lie anywhere."""
    links = {
        one.name: str(one.readlink())
        for one in (ROOT / "src/paddock").iterdir()
        if one.is_symlink()
    }
    assert links == {folder: f"../../{folder}" for folder in FOLDERS}


def test_every_package_imports() -> None:
    """Each package can be imported by its installed name."""
    for name in PACKAGES:
        import_module(name)


def test_the_wheel_carries_one_set_of_weights() -> None:
    """Of tiny-mixtral's files only the Q4_K_M GGUF is package data, and it is there."""
    patterns = SETUP["package-data"]["paddock.specs"]
    weights = [pattern for pattern in patterns if pattern.startswith("weights/")]
    assert weights == ["weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf"]
    assert (ROOT / "specs" / weights[0]).stat().st_size > 1_000_000
