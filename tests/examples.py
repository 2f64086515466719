"""The packages in docs/example-…, as they are when they are installed."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def install(folder: Path, *names: str) -> Path:
    """Puts the one file of each example into the folder, with its entry points."""
    for name in names:
        project = tomllib.loads((DOCS / name / "pyproject.toml").read_text("utf-8"))["project"]
        info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
        lines = [
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
            for group, points in project["entry-points"].items()
        ]
        (info / "entry_points.txt").write_text("".join(lines))
        (file,) = (DOCS / name).glob("*.py")
        shutil.copy(file, folder)
    return folder
