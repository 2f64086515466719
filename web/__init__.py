"""The dashboard. Its build lies in `dist`, which is not committed and which the wheel carries."""

from __future__ import annotations

from pathlib import Path

INDEX = "index.html"


def build_folder() -> Path:
    """Where the build is: beside the code in a checkout, in the package of an installed wheel."""
    return Path(__file__).parent / "dist"


def is_built() -> bool:
    """Whether a build is there."""
    return (build_folder() / INDEX).is_file()
