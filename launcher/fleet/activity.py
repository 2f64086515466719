"""The requests that replicas serve, and those that wait: slots, leases, a queue for each model.

Each replica serves as many requests as it has slots; the others wait here and not in an engine: a
request that waits here goes to whichever replica is free first, costs nothing when its client
leaves, and survives the death of a replica. The next slot goes to the client that has the fewest
requests at work, so that one with hundreds does not keep another waiting; a client's own requests
are served in their order. All of it is bookkeeping on the gateway's event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from paddock.launcher.fleet.observation import ReplicaLoad
from paddock.launcher.fleet.status import ModelStatus
from paddock.launcher.fleet.waiting import Ticket, WaitingLine
from paddock.launcher.replicas.status import ReplicaStatus
from paddock.registry.errors import NotReady, PaddockError, QueueFull

QUEUE = 512
"""Requests that may wait for one model; more are refused with 429."""
LOOK_SECONDS = 0.25
"""How often those who wait look whether the model is still there."""
RECOVERY_SECONDS = 30.0
"""How long a request waits for a model that served, and is being started again."""
_NONE_AT_WORK: Mapping[str, int] = {}


class Directory(Protocol):
    """Who can answer."""

    def servable(self, uid: str) -> ModelStatus:
        """The model, if it can answer or is coming back.

        Raises:
            NotLaunched, NotReady: there is no such model, or none that a request may wait for.
        """
        ...


class EngineConnection(Protocol):
    """A connection to an engine, with one request on it."""

    @property
    def heard_at(self) -> float | None:
        """When the engine has sent something of the answer last; None: nothing yet."""
        ...

    @property
    def is_held(self) -> bool:
        """Whether nothing is taken from the engine now, since the client takes nothing."""
        ...


@dataclass(eq=False)
class Lease:
    """One slot of one replica, for one request. Give it back with `release`.

    Attributes:
        connection: the one that the request was sent on; None before and after.
        on_revoked: called with a reason when the replica will not answer any more.
        revoked: that reason, from then on.
    """

    replica: ReplicaStatus
    _queue: SlotQueue
    uid: str
    client: str = ""
    connection: EngineConnection | None = None
    on_revoked: Callable[[str], None] | None = None
    revoked: str = ""
    released: bool = False

    def attach(self, connection: EngineConnection, on_revoked: Callable[[str], None]) -> None:
        """The request was sent on this connection."""
        self.connection, self.on_revoked = connection, on_revoked
        self._queue.attach(self)

    def detach(self) -> None:
        """Nothing more comes of it; again is no error."""
        if self.connection is not None:
            self._queue.detach(self)
            self.connection = self.on_revoked = None

    def release(self) -> None:
        """Gives the slot back; the first who waits gets it. Again is no error."""
        if not self.released:
            self.detach()
            self.released = True
            self._queue.take_back(self)


@dataclass
class _Silence:
    """For how long a replica has had requests and said nothing to any of them.

    Not of one request: clients that give up after ten seconds and ask again would hide an engine
    that hangs. The time in which it has none does not count.
    """

    start: str
    since: float | None = None
    before: float = 0.0

    def begin(self, now: float) -> None:
        """It has a request."""
        if self.since is None:
            self.since = now - self.before

    def hear(self, at: float) -> None:
        """It has said something."""
        self.before = 0.0
        if self.since is not None:
            self.since = max(self.since, at)

    def rest(self, now: float) -> None:
        """It has no request any more."""
        self.before, self.since = self.seconds(now), None

    def seconds(self, now: float) -> float:
        """How long that is."""
        return self.before if self.since is None else now - self.since


class SlotQueue:
    """Hands out slots of replicas, and lets requests wait for one."""

    def __init__(self, directory: Directory, limit: int = QUEUE) -> None:
        self._directory = directory
        self._limit = limit
        self._leases: dict[str, set[Lease]] = {}
        self._waiting: dict[str, WaitingLine[Lease]] = {}
        self._at_work: dict[str, Counter[str]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._probed: dict[str, float] = {}
        self._silences: dict[str, _Silence] = {}
        self._now = time.monotonic
        self._next: dict[str, int] = {}

    def in_flight(self, replica_id: str) -> int:
        """Requests that a replica serves now."""
        return len(self._leases.get(replica_id, ()))

    def waiting(self, uid: str) -> int:
        """Requests that wait for a slot of the model."""
        line = self._waiting.get(uid)
        return line.length if line is not None else 0

    def check(self, uid: str, parts: int = 1) -> None:
        """Refuses a request whose parts would overfill the queue.

        Raises:
            QueueFull: with a time after which to ask again.
        """
        if self.waiting(uid) + parts - 1 >= self._limit:
            raise QueueFull(uid, self._limit, retry_after=1.0)

    async def acquire(
        self,
        uid: str,
        avoid: Sequence[str] = (),
        client: str = "",
        recovery_seconds: float = RECOVERY_SECONDS,
    ) -> Lease:
        """A slot of the replica with the fewest requests; waits for one.

        Replicas in `avoid` have failed this request and are not asked again, unless they were
        started anew meanwhile. `client` is who asks, as far as that can be told.

        Raises:
            NotLaunched, NotReady: there is no such model (any more), none that can answer, or it
                has not come back in time.
        """
        if uid not in self._waiting:
            lease = self._grant(self._directory.servable(uid), avoid, client)
            if lease is not None:
                return lease
        loop = asyncio.get_running_loop()
        ticket: Ticket[Lease] = Ticket(client, avoid, loop.create_future())
        line = self._waiting.setdefault(uid, WaitingLine())
        line.add(ticket)
        if self._timer is None:
            self._timer = loop.call_later(LOOK_SECONDS, self._look)
        try:
            return await self._wait(uid, line, ticket, recovery_seconds)
        except asyncio.CancelledError:
            if ticket.granted is not None:  # in the same moment
                ticket.granted.release()
            raise
        finally:
            if ticket in line:
                self._leave(uid, line, ticket)
                self.wake(uid)

    async def _wait(
        self, uid: str, line: WaitingLine[Lease], ticket: Ticket[Lease], recovery_seconds: float
    ) -> Lease:
        absent_since: float | None = None
        while True:
            status = self._directory.servable(uid)
            if line.next(self._at_work.get(uid, _NONE_AT_WORK)) is ticket:
                lease = self._grant(status, ticket.avoid, ticket.client)
                if lease is not None:
                    return lease
            absent_since = None if status.can_serve else absent_since or time.monotonic()
            if absent_since and time.monotonic() - absent_since >= recovery_seconds:
                note = f"it has not come back within {recovery_seconds:g} s"
                raise NotReady(uid, status.state, note, retry_after=5.0)
            lease = await ticket.turn
            if lease is not None:
                return lease
            ticket.turn = ticket.turn.get_loop().create_future()

    def _leave(self, uid: str, line: WaitingLine[Lease], ticket: Ticket[Lease]) -> None:
        line.remove(ticket)
        if not line.length:
            del self._waiting[uid]

    def _look(self) -> None:
        """Lets those look who wait for a model that may be gone; comes again while any wait."""
        self._timer = None
        for uid, line in list(self._waiting.items()):
            try:
                is_there = self._directory.servable(uid).can_serve
            except PaddockError:
                is_there = False
            if is_there:
                self.wake(uid)
            else:
                for ticket in line:
                    ticket.call(None)
        if self._waiting:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LOOK_SECONDS, self._look)

    def _grant(self, status: ModelStatus, avoid: Sequence[str], client: str) -> Lease | None:
        ready = [one for one in status.replicas if one.endpoint is not None]
        fresh = [one for one in ready if one.start not in avoid] if avoid else ready
        if ready and not fresh:
            raise NotReady(status.uid, status.state, "its engine does not answer", retry_after=1.0)
        loads = {one.replica_id: self.in_flight(one.replica_id) for one in fresh}
        replica = pick(fresh, loads, status.plan.slots, self._next.get(status.uid, 0))
        if replica is None:
            return None
        self._next[status.uid] = self._next.get(status.uid, 0) + 1
        lease = Lease(replica, self, status.uid, client)
        self._leases.setdefault(replica.replica_id, set()).add(lease)
        self._at_work.setdefault(status.uid, Counter())[client] += 1
        line = self._waiting.get(status.uid)
        if line is not None:  # who waits for nobody needs no turns
            line.note_turn(client)
        return lease

    def attach(self, lease: Lease) -> None:
        """See `Lease.attach`."""
        start = lease.replica.start
        silence = self._silences.get(lease.replica.replica_id)
        if silence is None or silence.start != start:
            silence = self._silences[lease.replica.replica_id] = _Silence(start)
        silence.begin(self._now())

    def detach(self, lease: Lease) -> None:
        """See `Lease.detach`."""
        replica_id = lease.replica.replica_id
        silence = self._silences.get(replica_id)
        if silence is None or silence.start != lease.replica.start:
            return
        assert lease.connection is not None
        if lease.connection.heard_at is not None:
            silence.hear(lease.connection.heard_at)
        if not any(one is not lease and one.connection for one in self._leases.get(replica_id, ())):
            silence.rest(self._now())
            if lease.connection.heard_at is not None or not silence.before:
                del self._silences[replica_id]

    def _quiet_seconds(self, replica_id: str, leases: Iterable[Lease]) -> float:
        silence = self._silences.get(replica_id)
        if silence is None:
            return 0.0
        connections = [lease.connection for lease in leases if lease.connection is not None]
        if all(connection.is_held for connection in connections):
            silence.hear(self._now())  # it may have much to say
        for connection in connections:
            if connection.heard_at is not None:
                silence.hear(connection.heard_at)
        return silence.seconds(self._now())

    def take_back(self, lease: Lease) -> None:
        """See `Lease.release`."""
        at_work = self._at_work[lease.uid]
        at_work[lease.client] -= 1
        if at_work[lease.client] <= 0:
            del at_work[lease.client]
            if not at_work:
                del self._at_work[lease.uid]
        leases = self._leases.get(lease.replica.replica_id)
        if leases is not None:
            leases.discard(lease)
            if not leases:
                del self._leases[lease.replica.replica_id]
                self._probed.pop(lease.replica.replica_id, None)
        self.wake(lease.uid)

    def revoke(self, replica_id: str, reason: str) -> None:
        """Ends the requests of a replica that will not answer them."""
        for lease in tuple(self._leases.get(replica_id, ())):
            lease.revoked = reason
            if lease.on_revoked is not None:
                lease.on_revoked(reason)

    def note_probe(self, replica_id: str) -> None:
        """The replica is being asked whether it still works."""
        self._probed[replica_id] = time.monotonic()

    def wake(self, uid: str) -> None:
        """Gives free slots to those who wait: a slot is free, or a replica is back."""
        line = self._waiting.get(uid)
        while line is not None and line.length:
            ticket = line.next(self._at_work.get(uid, _NONE_AT_WORK))
            if ticket is None or ticket.turn.done():
                return  # it is about to look, and wakes the others when it leaves
            try:
                lease = self._grant(self._directory.servable(uid), ticket.avoid, ticket.client)
            except PaddockError:
                ticket.call(None)  # it meets the same error, in its own task
                return
            if lease is None:
                return
            self._leave(uid, line, ticket)
            ticket.call(lease)

    def loads(self, slots: Mapping[str, int]) -> dict[str, ReplicaLoad]:
        """The load of each replica that serves requests. `slots`: model id → slots a replica."""
        for replica_id in [one for one in self._silences if one.rpartition("-rep")[0] not in slots]:
            del self._silences[replica_id]
        return {
            replica_id: ReplicaLoad(
                in_flight=len(leases),
                slots=max(slots.get(lease.uid, 1) for lease in leases),
                quiet_seconds=self._quiet_seconds(replica_id, leases),
                probed_at=self._probed.get(replica_id, 0.0),
            )
            for replica_id, leases in self._leases.items()
        }


def pick(
    ready: Iterable[ReplicaStatus], in_flight: Mapping[str, int], slots: int, turn: int = 0
) -> ReplicaStatus | None:
    """The replica with the fewest requests in flight; None if all are full.

    Equals take turns: always the first would be the one that hangs.
    """
    replicas = tuple(ready)
    if not replicas:
        return None
    fewest = min(in_flight[one.replica_id] for one in replicas)
    equals = [one for one in replicas if in_flight[one.replica_id] == fewest]
    return equals[turn % len(equals)] if fewest < slots else None
