"""Digests of files, and repositories' lists of files, which are kept in PADDOCK_HOME/cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from paddock.launcher.hosts.file_records import FileRecords, read_record, write_record
from paddock.launcher.weights.base import Listing, RemoteFile

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


class Records(FileRecords):
    """The records below one PADDOCK_HOME, with the lists of hubs."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._listings = home / "cache" / "listings"

    def listing(self, hub: str, identity: str, revision: str) -> Listing | None:
        """The repository's list of files as last read; None if it never was."""
        record = read_record(self._listing(hub, identity, revision))
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
        write_record(path, asdict(listing))

    def _listing(self, hub: str, identity: str, revision: str) -> Path:
        name = f"{identity}@{revision}".replace("/", "--")
        return self._listings / hub / f"{name}.json"
