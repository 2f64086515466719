"""The truth store: what replicas took on this machine, what engines and hubs said beforehand.

`PADDOCK_HOME/truth.db`, a SQLite file. It holds nothing that cannot be learned again: a file that
cannot be read is set aside, and planning goes on by its formula.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import platform
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from paddock.engines.evidence import Asked, Evidence, Measurement, Subject
from paddock.registry.errors import BadValue
from paddock.registry.json_codec import decode, encode

log = logging.getLogger(__name__)

T = TypeVar("T")

FILE = "truth.db"
VERSION = 1
MOST_ROWS = 10_000
"""Of each kind; the oldest go."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS measured (
    subject TEXT PRIMARY KEY, at REAL NOT NULL, document TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS asked (
    subject TEXT PRIMARY KEY, at REAL NOT NULL, document TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS sizes (
    subject TEXT PRIMARY KEY, at REAL NOT NULL, document TEXT NOT NULL) STRICT;
"""


def machine() -> str:
    """The name of this machine in an export: the host's, and the kind of processor."""
    return f"{platform.node()} ({platform.machine()}, {os.cpu_count()} processors)"


class TruthStore:
    """Keeps measurements and what engines said.

    Methods block for some milliseconds, `evidence` mostly for microseconds; any thread may call.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / FILE
        self._lock = threading.Lock()
        self._evidence: Evidence | None = None
        self._stamp: tuple[int, ...] = ()

    def evidence(self) -> Evidence:
        """All that is known; read anew only when the file is another one than last time."""
        with self._lock:
            stamp = self._look()
            if self._evidence is None or stamp != self._stamp:
                self._evidence, self._stamp = self._read(), stamp
            return self._evidence

    def note(self, measurement: Measurement) -> None:
        """Keeps a measurement, joined with what was known of its subject."""

        def write(db: sqlite3.Connection) -> None:
            key = _key(measurement.subject)
            row = db.execute("SELECT document FROM measured WHERE subject = ?", (key,)).fetchone()
            joined = measurement
            if row is not None:
                with contextlib.suppress(ValueError, BadValue):
                    before = Measurement.from_json(decode(row[0].encode()))
                    if before.machine == measurement.machine:
                        joined = before.joined(measurement)
            _put(db, "measured", key, joined.at, joined.to_json())

        self._write(write)

    def note_asked(self, subject: Subject, asked: Asked) -> None:
        """Keeps what an engine said."""
        document = {"subject": dataclasses.asdict(subject), **dataclasses.asdict(asked)}
        self._write(lambda db: _put(db, "asked", _key(subject), asked.at, document))

    def note_size(self, source: str, size_bytes: int) -> None:
        """Keeps the bytes of weights on a hub, as the hub said them."""
        document = {"source": source, "size_bytes": size_bytes}
        self._write(lambda db: _put(db, "sizes", source, time.time(), document))

    def forget(self, matching: Callable[[Measurement], bool]) -> int:
        """Forgets measurements, and what engines said of their weights; returns how many."""
        gone = [one for one in self.evidence().measured.values() if matching(one)]
        weights = {one.subject.weights for one in gone}

        def write(db: sqlite3.Connection) -> None:
            for one in gone:
                db.execute("DELETE FROM measured WHERE subject = ?", (_key(one.subject),))
            for subject in self.evidence_of(db).asked:
                if subject.weights in weights:
                    db.execute("DELETE FROM asked WHERE subject = ?", (_key(subject),))

        self._write(write)
        return len(gone)

    def export(self) -> dict[str, Any]:
        """All measurements, with this machine's name, as `take` reads them."""
        rows = [one.to_json() for one in self.evidence().measured.values()]
        return {"version": VERSION, "machine": machine(), "measurements": rows}

    def take(self, document: Any, label: str = "") -> int:
        """Takes what another store has exported; returns how many measurements came.

        Those of another machine are kept under its name, or the `label`, and only where nothing
        was measured here.

        Raises:
            BadValue: it is no export, or of another version, or of another machine and no label was
                given. Nothing is taken then.
        """
        if not isinstance(document, dict) or "measurements" not in document:
            raise BadValue(
                "truth file", _kind(document), "is not what `paddock truth export` wrote"
            )
        if document.get("version") != VERSION:
            reason = f"this Paddock reads version {VERSION}"
            raise BadValue("truth file's version", document.get("version"), reason)
        origin = str(document.get("machine", ""))
        if origin != machine() and not label:
            reason = f"was measured on another machine than {machine()}; to take it: --label NAME"
            raise BadValue("truth file's machine", origin, reason)
        rows = document["measurements"]
        if not isinstance(rows, list):
            raise BadValue("measurements", _kind(rows), "must be a list")
        from_there = [Measurement.from_json(row) for row in rows]
        known = self.evidence().measured
        taken = 0
        for one in from_there:
            there = one.machine or (label if origin != machine() else "")
            here = known.get(one.subject)
            if there and here is not None and not here.machine:
                continue
            self.note(dataclasses.replace(one, machine=there))
            taken += 1
        return taken

    def _look(self) -> tuple[int, ...]:
        stamps: list[int] = []
        for path in (self._path, self._path.with_name(FILE + "-wal")):
            with contextlib.suppress(OSError):
                seen = path.stat()
                stamps += (seen.st_mtime_ns, seen.st_size, seen.st_ino)
        return tuple(stamps)

    def _read(self) -> Evidence:
        if not self._path.exists():
            return Evidence()
        try:
            with self._open() as db:
                return self.evidence_of(db)
        except sqlite3.DatabaseError as error:
            log.warning("what was measured cannot be read, and is not used: %s", error)
            return Evidence()

    @staticmethod
    def evidence_of(db: sqlite3.Connection) -> Evidence:
        """What an open store holds; rows that cannot be read are left out."""
        measured: dict[Subject, Measurement] = {}
        said: dict[Subject, Asked] = {}
        for document in _documents(db, "measured"):
            with contextlib.suppress(BadValue, ValueError, TypeError):
                one = Measurement.from_json(document)
                measured[one.subject] = one
        for document in _documents(db, "asked"):
            with contextlib.suppress(TypeError, ValueError, KeyError):
                subject = Subject(**document.pop("subject"))
                said[subject] = Asked(**document)
        sizes: dict[str, int] = {}
        for document in _documents(db, "sizes"):
            with contextlib.suppress(TypeError, KeyError):
                sizes[document["source"]] = int(document["size_bytes"])
        return Evidence(measured, said, sizes)

    def _write(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Writes; where it cannot (a full disk), the figure is not kept and nothing else fails."""
        try:
            with self._lock, self._open() as db:
                work(db)
                self._evidence = None
        except sqlite3.DatabaseError as error:
            if "malformed" in str(error) or "not a database" in str(error):
                with contextlib.suppress(OSError):
                    self._path.replace(self._path.with_suffix(".db.broken"))
            log.warning("what was measured cannot be kept: %s", error)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        db = sqlite3.connect(self._path, timeout=5.0)
        try:
            self._path.chmod(0o600)
            db.executescript(_SCHEMA)
            with db:
                yield db
        finally:
            db.close()


def _key(subject: Subject) -> str:
    return encode(dataclasses.asdict(subject)).decode()


def _kind(value: object) -> str:
    return type(value).__name__


def _documents(db: sqlite3.Connection, table: str) -> Iterator[Any]:
    for (text,) in db.execute(f"SELECT document FROM {table} ORDER BY at"):  # noqa: S608 - ours
        with contextlib.suppress(ValueError):
            yield decode(text.encode())


def _put(db: sqlite3.Connection, table: str, key: str, at: float, document: Any) -> None:
    values: Iterable[Any] = (key, at, encode(document).decode())
    db.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", tuple(values))  # noqa: S608
    db.execute(
        f"DELETE FROM {table} WHERE subject IN"  # noqa: S608
        f" (SELECT subject FROM {table} ORDER BY at DESC LIMIT -1 OFFSET {MOST_ROWS})"
    )
