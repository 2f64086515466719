"""The logs of a model's engines: their last lines, and what is added to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from paddock.launcher.cluster.cluster import ActorLost, ActorUnavailable, Handle
from paddock.launcher.fleet.deployment import Deployment, ReplicaRecord
from paddock.launcher.fleet.ledger import Ledger
from paddock.launcher.hosts.host import LOCAL
from paddock.launcher.replicas.attached import AttachedHandle
from paddock.launcher.replicas.logs import read_after, read_tail
from paddock.launcher.replicas.status import ReplicaStatus

FOLLOW_SECONDS = 0.2
"""How often a log that is followed is looked at."""


HandleOf = Callable[[ReplicaRecord], Handle | AttachedHandle | None]
"""What a replica's actor is talked to by, if there is one."""


class LogStream:
    """Reads logs: of a replica on this machine from its file, of another through its actor."""

    def __init__(self, ledger: Ledger, handle: HandleOf) -> None:
        self._ledger = ledger
        self._handle = handle

    async def tail(self, uid: str, lines: int) -> dict[str, list[str]]:
        """The last log lines of each replica; of one without a log those of its diagnosis."""
        tails: dict[str, list[str]] = {}
        for record in self._ledger.deployments[uid].replicas:
            tails[record.id] = await self._tail_of(uid, record, lines)
        return tails

    async def _tail_of(self, uid: str, record: ReplicaRecord, lines: int) -> list[str]:
        status = self._status(uid, record.id)
        if self._is_local(uid, record, status):
            local = await asyncio.to_thread(read_tail, Path(status.log), lines)
            if local:
                return local
        handle = self._handle(record)
        if handle is not None:
            with contextlib.suppress(ActorLost, ActorUnavailable, RuntimeError):
                return await handle.tail(lines)
        return list((record.diagnosis or {}).get("lines", []))

    async def follow(
        self, uid: str, is_closed: Callable[[], bool], *, whole: bool = True
    ) -> AsyncIterator[tuple[str, str]]:
        """Replica id and line, until the model is gone or `is_closed`.

        From the beginning of each log on; not `whole`: from the end of those that are there.
        """
        created = self._ledger.deployments[uid].created
        offsets: dict[str, int] = {}
        files: dict[str, int] = {}
        if not whole:
            for record in self._ledger.deployments[uid].replicas:
                offsets[record.id] = await self._end(uid, record)
        while (deployment := self._known(uid, created)) is not None and not is_closed():
            quiet = True
            for record in deployment.replicas:
                offset = offsets.get(record.id, 0)
                # Of a start anew the log is another file, which may be as long as the one before.
                file = await self._file(uid, record)
                if file and file != files.setdefault(record.id, file):
                    offset, files[record.id] = 0, file
                offsets[record.id], text = await self._after(uid, record, offset)
                for line in text.splitlines():
                    quiet = False
                    yield record.id, line
            if quiet:
                await asyncio.sleep(FOLLOW_SECONDS)

    def _known(self, uid: str, created: float) -> Deployment | None:
        deployment = self._ledger.deployments.get(uid)
        return deployment if deployment is not None and deployment.created == created else None

    async def _after(self, uid: str, record: ReplicaRecord, offset: int) -> tuple[int, str]:
        """What was logged after `offset`; a start anew begins a new file, read from its start."""
        status = self._status(uid, record.id)
        if self._is_local(uid, record, status):
            return await asyncio.to_thread(read_after, Path(status.log), offset)
        handle = self._handle(record)
        if handle is not None:
            with contextlib.suppress(ActorLost, ActorUnavailable, RuntimeError):
                return await handle.log_after(offset)
        elif not offset and record.diagnosis is not None:
            text = "\n".join(record.diagnosis.get("lines", []))
            return len(text), text
        return offset, ""

    async def _file(self, uid: str, record: ReplicaRecord) -> int:
        """What tells a log on this machine from the one before it; 0: not known."""
        status = self._status(uid, record.id)
        if self._is_local(uid, record, status):
            with contextlib.suppress(OSError):
                return (await asyncio.to_thread(Path(status.log).stat)).st_ino
        return 0

    async def _end(self, uid: str, record: ReplicaRecord) -> int:
        status = self._status(uid, record.id)
        if self._is_local(uid, record, status):
            with contextlib.suppress(OSError):
                return (await asyncio.to_thread(Path(status.log).stat)).st_size
        offset = 0
        while True:
            offset, text = await self._after(uid, record, offset)
            if not text:
                return offset

    def _status(self, uid: str, replica_id: str) -> ReplicaStatus:
        model = self._ledger.status(uid)
        replicas = model.replicas if model is not None else ()
        return next((r for r in replicas if r.replica_id == replica_id), ReplicaStatus(replica_id))

    def _is_local(self, uid: str, record: ReplicaRecord, status: ReplicaStatus) -> bool:
        deployment = self._ledger.deployments.get(uid)
        if deployment is None or deployment.is_attached:
            return False
        return record.place.node == LOCAL and bool(status.log)
