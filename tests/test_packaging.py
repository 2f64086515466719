"""What gets into the wheel."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS = ("cli", "client", "engines", "launcher", "registry", "server", "specs")


def test_every_folder_with_code_is_a_package() -> None:
    """A folder that holds Python files and is missing in `packages` would miss in the wheel."""
    code = {path.parent.relative_to(ROOT) for top in FOLDERS for path in (ROOT / top).rglob("*.py")}
    named = {"paddock." + ".".join(folder.parts) for folder in code}
    # Of the dashboard only its build is carried; what its tools bring holds Python too.
    assert named | {"paddock", "paddock.web"} == set(SETUP["packages"])


def test_every_package_imports() -> None:
    """Each listed package can be imported by its installed name."""
    for name in SETUP["packages"]:
        import_module(name)


def test_the_wheel_carries_one_set_of_weights() -> None:
    """Of tiny-mixtral's files only the Q4_K_M GGUF is package data, and it is there."""
    patterns = SETUP["package-data"]["paddock.specs"]
    weights = [pattern for pattern in patterns if pattern.startswith("weights/")]
    assert weights == ["weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf"]
    assert (ROOT / "specs" / weights[0]).stat().st_size > 1_000_000
