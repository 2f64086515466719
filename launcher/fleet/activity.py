"""The requests that replicas serve, and those that wait: slots, leases, a queue for each model.

Each replica serves as many requests as it has slots; the others wait here and not in an engine: a
request that waits here goes to whichever replica is free first, costs nothing when its client
leaves, and survives the death of a replica. The next slot goes to the client that has the fewest
requests at work, so that one with hundreds does not keep another waiting; a client's own requests
are served in their order. All of it is bookkeeping on the gateway's event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from paddock.launcher.fleet.observation import ReplicaLoad
from paddock.launcher.fleet.status import ModelStatus
from paddock.launcher.replicas.status import ReplicaStatus
from paddock.registry.errors import NotReady, QueueFull

QUEUE = 512
"""Requests that may wait for one model; more are refused with 429."""
LOOK_SECONDS = 0.25
"""How often the first who waits looks whether the model is still there."""
RECOVERY_SECONDS = 30.0
"""How long a request waits for a model that served, and is being started again."""


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


@dataclass(eq=False)
class _Ticket:
    """A request that waits; `turn` is settled when it shall look again."""

    client: str
    turn: asyncio.Future[None]


class SlotQueue:
    """Hands out slots of replicas, and lets requests wait for one."""

    def __init__(self, directory: Directory, limit: int = QUEUE) -> None:
        self._directory = directory
        self._limit = limit
        self._leases: dict[str, set[Lease]] = {}
        self._waiting: dict[str, list[_Ticket]] = {}
        self._at_work: Counter[tuple[str, str]] = Counter()
        self._turns: dict[tuple[str, str], int] = {}
        self._count = itertools.count(1)
        self._probed: dict[str, float] = {}
        self._silences: dict[str, _Silence] = {}
        self._now = time.monotonic
        self._next: dict[str, int] = {}

    def in_flight(self, replica_id: str) -> int:
        """Requests that a replica serves now."""
        return len(self._leases.get(replica_id, ()))

    def waiting(self, uid: str) -> int:
        """Requests that wait for a slot of the model."""
        return len(self._waiting.get(uid, ()))

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
        if not self._waiting.get(uid):
            lease = self._grant(self._directory.servable(uid), avoid, client)
            if lease is not None:
                return lease
        loop = asyncio.get_running_loop()
        ticket = _Ticket(client, loop.create_future())
        self._waiting.setdefault(uid, []).append(ticket)
        absent_since: float | None = None
        try:
            while True:
                status = self._directory.servable(uid)
                is_next = self._next_ticket(uid) is ticket
                lease = self._grant(status, avoid, client) if is_next else None
                if lease is not None:
                    return lease
                absent_since = None if status.can_serve else absent_since or time.monotonic()
                if absent_since and time.monotonic() - absent_since >= recovery_seconds:
                    note = f"it has not come back within {recovery_seconds:g} s"
                    raise NotReady(uid, status.state, note, retry_after=5.0)
                # The others are woken in turn, once the next has got its slot or given up.
                pause = LOOK_SECONDS if is_next else recovery_seconds
                await asyncio.wait((ticket.turn,), timeout=pause)
                if ticket.turn.done():
                    ticket.turn = loop.create_future()
        finally:
            tickets = self._waiting[uid]
            tickets.remove(ticket)
            if not tickets:
                del self._waiting[uid]
                self._turns = {key: at for key, at in self._turns.items() if key[0] != uid}
            else:
                self.wake(uid)

    def _next_ticket(self, uid: str) -> _Ticket | None:
        """Who gets the next slot: the oldest request of the client with the fewest at work.

        Of equal ones, of the one whose last turn is longest ago.
        """
        tickets = self._waiting.get(uid)

        def claim(ticket: _Ticket) -> tuple[int, int]:
            key = uid, ticket.client
            return self._at_work[key], self._turns.get(key, 0)

        return min(tickets, key=claim) if tickets else None

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
        self._at_work[status.uid, client] += 1
        if status.uid in self._waiting:  # who waits for nobody needs no turns
            self._turns[status.uid, client] = next(self._count)
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
        key = lease.uid, lease.client
        self._at_work[key] -= 1
        if self._at_work[key] <= 0:
            del self._at_work[key]
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
        """Lets the next who waits look again: a slot is free, or a replica is back."""
        ticket = self._next_ticket(uid)
        if ticket is not None and not ticket.turn.done():
            ticket.turn.set_result(None)

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
