"""What the user asked for, in SQLite under PADDOCK_HOME. The controller is its only writer."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.registry.errors import BadValue

SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE models (
    uid TEXT PRIMARY KEY,
    request TEXT NOT NULL,
    plan TEXT NOT NULL,
    created REAL NOT NULL,
    next_number INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE replicas (
    id TEXT PRIMARY KEY,
    uid TEXT NOT NULL REFERENCES models (uid) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    state TEXT NOT NULL,
    diagnosis TEXT
) STRICT;
"""
# Statements that bring a file of the version before to the version of the key.
_UPGRADES = {
    2: (
        "ALTER TABLE models ADD COLUMN next_number INTEGER NOT NULL DEFAULT 0",
        "UPDATE models SET next_number = (SELECT coalesce(max(number) + 1, 0) FROM replicas"
        " WHERE replicas.uid = models.uid)",
    )
}


def replica_name(uid: str, number: int | str) -> str:
    """The id of a model's replica, which is also the name of its actor."""
    return f"{uid}-rep{number}"


def replica_number(replica_id: str) -> int:
    """The inverse: which of its model's replicas it is."""
    return int(replica_id.rpartition("-rep")[2])


@dataclass(frozen=True)
class ReplicaRow:
    """One wanted copy, and the last that was known of it."""

    id: str
    number: int
    state: str
    diagnosis: dict[str, Any] | None


@dataclass(frozen=True)
class ModelRow:
    """One launched model."""

    uid: str
    request: dict[str, Any]
    plan: dict[str, Any]
    created: float
    replicas: tuple[ReplicaRow, ...]


class Store:
    """Rows of launched models and their replicas.

    Raises:
        BadValue: the file is no state file, or of another version.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._open(path)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise BadValue("state file", str(path), f"cannot be used: {error}") from error
        except BadValue:
            self._db.close()
            raise

    def _open(self, path: Path) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        # Looked at within the transaction: two gateways that start at once must not both create.
        with self._transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._db.execute(statement)
            elif version in range(1, SCHEMA_VERSION):
                for step in range(version + 1, SCHEMA_VERSION + 1):
                    for statement in _UPGRADES[step]:
                        self._db.execute(statement)
            elif version != SCHEMA_VERSION:
                raise BadValue(
                    "state file",
                    str(path),
                    f"has version {version}, and this Paddock knows {SCHEMA_VERSION}; use the "
                    "Paddock that wrote it, or another PADDOCK_HOME",
                )
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def add(self, model: ModelRow) -> None:
        """Writes a model and its replicas in one transaction; replaces a row of the same uid."""
        with self._transaction():
            self._db.execute("DELETE FROM models WHERE uid = ?", (model.uid,))
            self._db.execute(
                "INSERT INTO models (uid, request, plan, created, next_number)"
                " VALUES (?, ?, ?, ?, ?)",
                (
                    model.uid,
                    json.dumps(model.request),
                    json.dumps(model.plan),
                    model.created,
                    max((row.number + 1 for row in model.replicas), default=0),
                ),
            )
            self._db.executemany(
                "INSERT INTO replicas VALUES (?, ?, ?, ?, ?)",
                [
                    (row.id, model.uid, row.number, row.state, _text(row.diagnosis))
                    for row in model.replicas
                ],
            )

    def set_state(self, replica_id: str, state: str, diagnosis: dict[str, Any] | None) -> None:
        """Writes what became of a replica."""
        self._db.execute(
            "UPDATE replicas SET state = ?, diagnosis = ? WHERE id = ?",
            (state, _text(diagnosis), replica_id),
        )

    def grow(self, uid: str, count: int, plan: dict[str, Any]) -> tuple[ReplicaRow, ...]:
        """Adds `count` replicas to a model and writes its plan anew.

        Their numbers are beyond all that the model ever had: an id never stands for two replicas.
        """
        with self._transaction():
            (first,) = self._db.execute(
                "SELECT next_number FROM models WHERE uid = ?", (uid,)
            ).fetchone()
            numbers = range(first, first + count)
            rows = tuple(ReplicaRow(replica_name(uid, n), n, "pending", None) for n in numbers)
            self._db.executemany(
                "INSERT INTO replicas VALUES (?, ?, ?, ?, ?)",
                [(row.id, uid, row.number, row.state, None) for row in rows],
            )
            self._db.execute(
                "UPDATE models SET next_number = ?, plan = ? WHERE uid = ?",
                (first + count, json.dumps(plan), uid),
            )
        return rows

    def shrink(self, uid: str, replica: str, plan: dict[str, Any]) -> None:
        """Forgets one replica of a model and writes its plan anew."""
        with self._transaction():
            self._db.execute("DELETE FROM replicas WHERE id = ? AND uid = ?", (replica, uid))
            self._db.execute("UPDATE models SET plan = ? WHERE uid = ?", (json.dumps(plan), uid))

    def remove(self, uid: str) -> None:
        """Forgets a model and its replicas."""
        self._db.execute("DELETE FROM models WHERE uid = ?", (uid,))

    def models(self) -> tuple[ModelRow, ...]:
        """All launched models, oldest first."""
        replicas: dict[str, list[ReplicaRow]] = {}
        rows = self._db.execute(
            "SELECT uid, id, number, state, diagnosis FROM replicas ORDER BY uid, number"
        )
        for uid, replica_id, number, state, text in rows:
            diagnosis = None if text is None else json.loads(text)
            replicas.setdefault(uid, []).append(ReplicaRow(replica_id, number, state, diagnosis))
        return tuple(
            ModelRow(
                uid, json.loads(request), json.loads(plan), created, tuple(replicas.get(uid, ()))
            )
            for uid, request, plan, created in self._db.execute(
                "SELECT uid, request, plan, created FROM models ORDER BY created, uid"
            )
        )

    def close(self) -> None:
        """Closes the file."""
        self._db.close()


def _text(diagnosis: dict[str, Any] | None) -> str | None:
    return None if diagnosis is None else json.dumps(diagnosis)
