"""Which files of weights on this machine were checked: small records in PADDOCK_HOME/cache.

The weights themselves stay where the hubs' clients keep them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paddock.registry.files import replace_file
from paddock.registry.spec import Source, source_key


class FileRecords:
    """The records below one PADDOCK_HOME; safe to use from several processes."""

    def __init__(self, home: Path) -> None:
        self._marks = home / "cache" / "whole"
        self._sources = home / "cache" / "here"

    def is_whole(self, path: Path, digest: str = "") -> bool:
        """Whether the file is unchanged since it was checked, with this digest if one is given.

        Raises nothing: a file that is not there, or was changed since, is not whole.
        """
        real = path.resolve()
        mark = read_record(self._mark(real))
        try:
            status = real.stat()
        except OSError:
            return False
        if mark is None or (digest and mark.get("digest") != digest):
            return False
        now = [status.st_size, status.st_mtime_ns, status.st_ino]
        return [mark.get(key) for key in ("size", "mtime_ns", "inode")] == now

    def digest(self, path: Path) -> str:
        """The digest that the file had when it was checked; empty if it never was."""
        mark = read_record(self._mark(path.resolve()))
        return str(mark.get("digest", "")) if mark else ""

    def note(self, path: Path, digest: str) -> None:
        """Notes that the file was read and had this digest."""
        real = path.resolve()
        status = real.stat()
        mark = {"path": str(real), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
        write_record(self._mark(real), {**mark, "inode": status.st_ino, "digest": digest})

    def forget(self, path: Path) -> None:
        """Forgets what was noted of the file."""
        self._mark(path.resolve()).unlink(missing_ok=True)

    def mark_complete(self, source: Source, paths: Sequence[Path]) -> None:
        """Notes that these files are all that the source has of its variant."""
        key = source_key(source)
        name = hashlib.sha256(key.encode()).hexdigest()[:40]
        write_record(
            self._sources / f"{name}.json", {"key": key, "paths": [str(path) for path in paths]}
        )

    def paths(self, key: str) -> tuple[Path, ...]:
        """The files of a complete source, by its `source_key`; none if it is not complete."""
        name = hashlib.sha256(key.encode()).hexdigest()[:40]
        source = read_record(self._sources / f"{name}.json") or {}
        paths = tuple(Path(path) for path in source.get("paths", ()))
        return paths if all(self.is_whole(path) for path in paths) else ()

    def complete_sources(self) -> dict[str, int]:
        """The settled sources whose files are intact: key → bytes. Asks no hub's client."""
        sizes = {}
        for record in sorted(self._sources.glob("*.json")):
            source = read_record(record) or {}
            paths = [Path(path) for path in source.get("paths", ())]
            if paths and all(self.is_whole(path) for path in paths):
                sizes[str(source["key"])] = sum(path.stat().st_size for path in paths)
        return sizes

    def _mark(self, real: Path) -> Path:
        return self._marks / f"{hashlib.sha256(os.fsencode(real)).hexdigest()[:40]}.json"


def read_record(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if it is not there, or is something else."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def write_record(path: Path, data: dict[str, Any]) -> None:
    """Replaces the file in one step."""
    replace_file(path, json.dumps(data))
