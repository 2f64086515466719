"""Records of verified files and of repositories' lists: small files in PADDOCK_HOME/cache.

The weights themselves stay where the hubs' clients keep them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from paddock.launcher.weights.base import Listing, RemoteFile
from paddock.registry.files import replace_file
from paddock.registry.spec import Source, source_key

PIECE = 1 << 20


class Digest:
    """Computes a file's digest as its bytes pass: `sha256:…`, or `git:…` as git names a blob."""

    def __init__(self, expected: str, size_bytes: int) -> None:
        self._kind = expected.partition(":")[0] if expected else "sha256"
        self.expected = expected
        if self._kind == "git":
            # Not for safety: it is the only digest that hubs tell of small files.
            self._hash = hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
        else:
            self._hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Takes the next bytes."""
        self._hash.update(data)

    @property
    def text(self) -> str:
        """The digest of all bytes so far."""
        return f"{self._kind}:{self._hash.hexdigest()}"

    @property
    def fits(self) -> bool:
        """Whether it is the expected one; true where none is."""
        return not self.expected or self.text == self.expected


def digest_file(path: Path, expected: str, pulse: Callable[[int], None]) -> Digest:
    """Reads a file whole; `pulse` is called with the bytes read, and may raise to end it."""
    digest = Digest(expected, path.stat().st_size)
    read = 0
    with path.open("rb") as file:
        while data := file.read(PIECE):
            digest.add(data)
            read += len(data)
            pulse(read)
    return digest


class Records:
    """The records below one PADDOCK_HOME; safe to use from several processes."""

    def __init__(self, home: Path) -> None:
        self._marks = home / "cache" / "whole"
        self._listings = home / "cache" / "listings"
        self._sources = home / "cache" / "here"

    def is_whole(self, path: Path, digest: str = "") -> bool:
        """Whether the file is unchanged since it was checked, with this digest if one is given.

        Raises nothing: a file that is not there, or was changed since, is not whole.
        """
        real = path.resolve()
        mark = _read(self._mark(real))
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
        mark = _read(self._mark(path.resolve()))
        return str(mark.get("digest", "")) if mark else ""

    def note(self, path: Path, digest: str) -> None:
        """Notes that the file was read and had this digest."""
        real = path.resolve()
        status = real.stat()
        mark = {"path": str(real), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
        _write(self._mark(real), {**mark, "inode": status.st_ino, "digest": digest})

    def forget(self, path: Path) -> None:
        """Forgets what was noted of the file."""
        self._mark(path.resolve()).unlink(missing_ok=True)

    def mark_complete(self, source: Source, paths: Sequence[Path]) -> None:
        """Notes that these files are all that the source has of its variant."""
        key = source_key(source)
        name = hashlib.sha256(key.encode()).hexdigest()[:40]
        _write(self._sources / f"{name}.json", {"key": key, "paths": [str(path) for path in paths]})

    def complete_sources(self) -> dict[str, int]:
        """The settled sources whose files are intact: key → bytes. Asks no hub's client."""
        sizes = {}
        for record in sorted(self._sources.glob("*.json")):
            source = _read(record) or {}
            paths = [Path(path) for path in source.get("paths", ())]
            if paths and all(self.is_whole(path) for path in paths):
                sizes[str(source["key"])] = sum(path.stat().st_size for path in paths)
        return sizes

    def listing(self, hub: str, identity: str, revision: str) -> Listing | None:
        """The repository's list of files as last read; None if it never was."""
        record = _read(self._listing(hub, identity, revision))
        if record is None:
            return None
        try:
            files = tuple(RemoteFile(**file) for file in record["files"])
            return Listing(**{**record, "files": files})
        except (KeyError, TypeError):  # of another version
            return None

    def keep(self, listing: Listing) -> None:
        """Keeps what a repository holds, for launches without a network."""
        path = self._listing(listing.hub, listing.id, listing.revision)
        _write(path, asdict(listing))

    def _mark(self, real: Path) -> Path:
        return self._marks / f"{hashlib.sha256(os.fsencode(real)).hexdigest()[:40]}.json"

    def _listing(self, hub: str, identity: str, revision: str) -> Path:
        name = f"{identity}@{revision}".replace("/", "--")
        return self._listings / hub / f"{name}.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _write(path: Path, data: dict[str, Any]) -> None:
    replace_file(path, json.dumps(data))
