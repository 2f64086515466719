"""What is wanted, in SQLite under PADDOCK_HOME. The fleet is its only writer.

Every call runs in one thread of its own, so that a file that is locked, or a disk that is slow,
never holds the gateway's event loop. `Store` is the interface: another database is another class.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import paddock
from paddock.launcher.fleet.deployment import (
    Deployment,
    Generation,
    Policy,
    ReplicaRecord,
    new_generation_id,
    replica_name,
)
from paddock.launcher.hosts.host import LOCAL
from paddock.launcher.planning.place import Place
from paddock.launcher.planning.plan import LaunchPlan, MemoryEstimate, PlannedWeights
from paddock.launcher.replicas.diagnosis import Diagnosis
from paddock.registry.errors import BadValue, StateNotWritten, UnknownName
from paddock.registry.json_codec import decode, encode

log = logging.getLogger(__name__)

T = TypeVar("T")

SCHEMA_VERSION = 3
LOCKED_SECONDS = 5.0
"""How long one statement waits for another process that holds the file."""
_SCHEMA = (
    """
CREATE TABLE deployments (
    uid TEXT PRIMARY KEY,
    wanted TEXT NOT NULL,
    created REAL NOT NULL,
    document TEXT NOT NULL
) STRICT
""",
    # Who wrote the file is told to a Paddock that is too old to read it.
    "CREATE TABLE IF NOT EXISTS writer (version TEXT NOT NULL) STRICT",
)


class Store(Protocol):
    """Keeps deployments. All methods but `load` may be called while others are underway."""

    async def load(self) -> tuple[Deployment, ...]:
        """All deployments, oldest first. One that cannot be read has failed, and says why."""
        ...

    async def save(self, deployment: Deployment) -> None:
        """Writes a deployment whole. Raises `StateNotWritten`; then the one before stands."""
        ...

    async def remove(self, uid: str) -> None:
        """Forgets a deployment; one that is not there is no error. Raises `StateNotWritten`."""
        ...

    async def close(self) -> None:
        """Lets go of it once what is underway has ended."""
        ...


class SqliteStore:
    """See `Store`. Opening it blocks.

    Raises:
        BadValue: the file is no state file, or of a newer version.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        self._thread = ThreadPoolExecutor(1, "store")
        # Made before SQLite does, which would let others read it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
        self._db = sqlite3.connect(
            path, timeout=LOCKED_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._open()
        except sqlite3.OperationalError as error:
            self._db.close()
            raise self._not_written(error) from error
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise BadValue("state file", str(path), f"cannot be used: {error}") from error
        except BadValue:
            self._db.close()
            raise

    def _open(self) -> None:
        self._use_wal()
        self._db.execute("PRAGMA synchronous = NORMAL")
        # Looked at within the transaction: two gateways that start at once must not both create.
        with self._transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise BadValue(
                    "state file",
                    str(self._path),
                    f"has version {version}{self._writer()}, and this Paddock knows "
                    f"{SCHEMA_VERSION}; use the Paddock that wrote it, or another PADDOCK_HOME",
                )
            if version == 0:
                self._create()
            elif version < SCHEMA_VERSION:
                self._upgrade(version)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._db.execute("DELETE FROM writer")
            self._db.execute("INSERT INTO writer VALUES (?)", (paddock.__version__,))

    def _use_wal(self) -> None:
        """To change the mode SQLite does not wait for others that change it at the same time."""
        deadline = time.monotonic() + LOCKED_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _create(self) -> None:
        for statement in _SCHEMA:
            self._db.execute(statement)

    def _writer(self) -> str:
        try:
            row = self._db.execute("SELECT version FROM writer").fetchone()
        except sqlite3.DatabaseError:
            return ""
        return f" (written by Paddock {row[0]})" if row else ""

    def _upgrade(self, version: int) -> None:
        """From versions 1 and 2, which had a row for each model and for each replica."""
        documents = [_from_rows(self._db, *row) for row in _old_models(self._db, version)]
        self._db.execute("DROP TABLE replicas")
        self._db.execute("DROP TABLE models")
        self._create()
        for document in documents:
            self._write(document)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    async def load(self) -> tuple[Deployment, ...]:
        """See `Store.load`."""
        return await self._run(self._load)

    def _load(self) -> tuple[Deployment, ...]:
        rows = self._db.execute("SELECT uid, document FROM deployments ORDER BY created, uid")
        return tuple(_read(uid, text) for uid, text in rows)

    async def save(self, deployment: Deployment) -> None:
        """See `Store.save`."""
        document = to_document(deployment)
        await self._run(lambda: self._write(document))

    def _write(self, document: Mapping[str, Any]) -> None:
        self._db.execute(
            "INSERT INTO deployments VALUES (?, ?, ?, ?) ON CONFLICT (uid) DO UPDATE SET"
            " wanted = excluded.wanted, created = excluded.created, document = excluded.document",
            (
                document["uid"],
                document["wanted"],
                document["created"],
                encode(document).decode(),
            ),
        )

    async def remove(self, uid: str) -> None:
        """See `Store.remove`."""
        await self._run(lambda: self._delete(uid))

    def _delete(self, uid: str) -> None:
        self._db.execute("DELETE FROM deployments WHERE uid = ?", (uid,))

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.DatabaseError as error:
            raise self._not_written(error) from error

    def _not_written(self, error: sqlite3.DatabaseError) -> StateNotWritten:
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        reason = os.strerror(errno.ENOSPC) if full else str(error)
        return StateNotWritten(str(self._path), reason)

    async def close(self) -> None:
        """See `Store.close`."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
        self._thread.shutdown()

    def forget_all(self, is_left: Callable[[ReplicaRecord], bool]) -> tuple[list[str], list[str]]:
        """Removes all deployments. Blocks: for `paddock stop`, once no gateway runs.

        Args:
            is_left: whether a replica may still run. Its deployment stays, to be ended later.

        Returns:
            The ids of all deployments, and of the replicas that may still run.

        Raises:
            StateNotWritten: the file is locked, or the disk full.
        """
        try:
            deployments, left = self._load(), []
            for one in deployments:
                names = [record.id for record in one.replicas if is_left(record)]
                if names:
                    self._write(to_document(replace(one, wanted="gone")))
                else:
                    self._delete(one.uid)
                left += names
            return [one.uid for one in deployments], left
        except sqlite3.DatabaseError as error:
            raise self._not_written(error) from error
        finally:
            self._db.close()
            self._thread.shutdown()


def to_document(deployment: Deployment) -> dict[str, Any]:
    """A deployment as JSON."""
    return {
        "uid": deployment.uid,
        "wanted": deployment.wanted,
        "reason": deployment.reason,
        "created": deployment.created,
        "next_number": deployment.next_number,
        "request": dict(deployment.request),
        "policy": deployment.policy.to_json(),
        "generations": [
            {"id": one.id, "plan": one.plan.to_json()} for one in deployment.generations
        ],
        "replicas": [record.to_json() for record in deployment.replicas],
    }


def from_document(document: Mapping[str, Any]) -> Deployment:
    """The inverse of `to_document`.

    Raises:
        ValueError, TypeError, KeyError, BadValue: it is none, or of another version.
    """
    return Deployment(
        uid=document["uid"],
        wanted=document["wanted"],
        reason=document["reason"],
        created=document["created"],
        next_number=document["next_number"],
        request=document["request"],
        policy=Policy.parse(document["policy"]),
        generations=tuple(
            Generation(one["id"], LaunchPlan.from_json(one["plan"]))
            for one in document["generations"]
        ),
        replicas=tuple(ReplicaRecord.from_json(one) for one in document["replicas"]),
    )


def _read(uid: str, text: str) -> Deployment:
    try:
        return from_document(decode(text.encode()))
    except (ValueError, TypeError, KeyError, BadValue, UnknownName) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        log.error("the state of model %s cannot be read: %s", uid, reason)
        return unreadable(uid, text, reason)


def unreadable(uid: str, text: str, reason: str) -> Deployment:
    """What stands for a row that is no deployment of this version: a model that has failed.

    The row itself stays as it is until the model is ended or launched anew.
    """
    raw: Any = {}
    with contextlib.suppress(ValueError):
        raw = decode(text.encode())
    request = raw.get("request") if isinstance(raw, dict) else None
    request = request if isinstance(request, dict) else {}
    name = str(request.get("model_name", uid))
    plan = LaunchPlan(
        model_id=uid,
        model=name,
        type="LLM",
        format=str(request.get("format", "unknown")),
        size="unknown",
        quantization=str(request.get("quantization", "unknown")),
        abilities=(),
        engine="unknown",
        engine_version="",
        options={},
        context_length=0,
        slots=1,
        replicas=1,
        node=LOCAL,
        node_name="",
        weights=PlannedWeights(hub="none", id="", size_bytes=0, here=True),
        memory=MemoryEstimate(weights_bytes=0, cache_bytes=0, overhead_bytes=0, free_bytes=0),
    )
    again = shlex.join(["paddock", "launch", "--model-name", name, "--model-uid", uid])
    message = f"what is kept of it cannot be read by this Paddock ({reason})"
    diagnosis = Diagnosis("internal", message, again).to_json()
    record = ReplicaRecord(
        replica_name(uid, 0), 0, "unknown", Place.of(plan), given_up=True, diagnosis=diagnosis
    )
    return Deployment(uid, (Generation("unknown", plan),), (record,), request=request)


def _old_models(db: sqlite3.Connection, version: int) -> list[tuple[Any, ...]]:
    number = "next_number" if version >= 2 else "0"
    return db.execute(f"SELECT uid, request, plan, created, {number} FROM models").fetchall()  # noqa: S608 - one of two words


def _from_rows(
    db: sqlite3.Connection, uid: str, request: str, plan_text: str, created: float, number: int
) -> dict[str, Any]:
    """A model of version 1 or 2. Its actors had other names: they are ended, and it starts anew."""
    plan = decode(plan_text.encode())
    rows = db.execute(
        "SELECT id, number, state, diagnosis FROM replicas WHERE uid = ? ORDER BY number", (uid,)
    ).fetchall()
    generation_id = new_generation_id()
    records = []
    for replica_id, index, state, text in rows:
        gpus = plan.get("gpus") or []
        place = {
            "node": plan["node"],
            "node_name": plan["node_name"],
            "gpus": gpus[index] if index < len(gpus) else [],
        }
        record = ReplicaRecord(
            id=replica_id,
            number=index,
            generation=generation_id,
            place=Place.from_json(place),
            has_served=state == "ready",
            given_up=state == "failed",
            diagnosis=None if text is None else decode(text.encode()),
        )
        records.append(record.to_json())
    return {
        "uid": uid,
        "wanted": "serving",
        "reason": "",
        "created": created,
        "next_number": max([number, *(row[1] + 1 for row in rows)]),
        "request": decode(request.encode()),
        "policy": Policy().to_json(),
        "generations": [{"id": generation_id, "plan": plan}],
        "replicas": records,
    }
