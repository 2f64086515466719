"""Environments of engines that do not live in ours: what they are made of, and what is there.

Each is a virtual environment under `PADDOCK_HOME/engines/NAME/`, made by `paddock engine install`
(`launcher/environments.py`). `current.json` beside the environments names the one in force; it is
replaced in one step once a new environment has been seen to work.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from paddock.engines.base import Detection
from paddock.registry.settings import read_settings

CURRENT = "current.json"


@dataclass(frozen=True)
class Environment:
    """What an engine's environment is made of.

    Attributes:
        name: its folder, and its name in commands.
        requirements: files of pins for pip, installed in turn; those after the first are built
            against what the first brought.
        distribution: whose version is the engine's.
        modules: what must import for it to be whole.
        complete: the pins name all that is needed, and what they depend on beside it stays out.
        metadata: distributions that a module asks for by name, and their versions; written where
            the pins bring none of that name.
    """

    name: str
    requirements: tuple[Path, ...]
    distribution: str
    modules: tuple[str, ...]
    complete: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of the pins: an environment that was made from others is out of date."""
        pins = b"".join(file.read_bytes() for file in self.requirements)
        beside = json.dumps([self.complete, dict(self.metadata)]).encode()
        has_more = self.complete or bool(self.metadata)
        return hashlib.sha256(pins + beside if has_more else pins).hexdigest()[:16]

    def folder(self, home: Path) -> Path:
        """Where its environments are."""
        return home / "engines" / self.name

    def made(self, home: Path | None = None) -> Made | None:
        """The environment in force; None if there is none."""
        folder = self.folder(home or read_settings().home)
        try:
            record = json.loads((folder / CURRENT).read_text("utf-8"))
            found = Made(folder / record["folder"], record["digest"], record["versions"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if found.python.exists() else None

    def detect(self) -> Detection:
        """The engine's version, or what to do to have it."""
        install = f"paddock engine install {self.name}"
        made = self.made()
        if made is None:
            return Detection(missing=f"it is not installed; to install it: {install}")
        if made.digest != self.digest:
            return Detection(missing=f"it was installed by another Paddock; again: {install}")
        return Detection(version=made.versions.get(self.distribution, ""))


@dataclass(frozen=True)
class Made:
    """An environment on disk. `versions` maps distributions to theirs."""

    folder: Path
    digest: str
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
