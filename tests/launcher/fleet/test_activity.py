"""Slots and those who wait for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from paddock.launcher.fleet.activity import SlotQueue, pick
from paddock.launcher.replicas.status import ReplicaStatus
from paddock.registry.errors import NotLaunched, NotReady, QueueFull


class Models:
    """A directory with one model, `m`."""

    def __init__(self, *endpoints: str | None, slots: int = 1) -> None:
        self.plan = SimpleNamespace(slots=slots)
        self.known = True
        self.put(*endpoints)

    def put(self, *endpoints: str | None) -> None:
        """Its replicas answer here, or not at all."""
        self.replicas = tuple(
            ReplicaStatus(f"m-rep{number}", endpoint=endpoint)
            for number, endpoint in enumerate(endpoints)
        )

    def servable(self, uid: str) -> Any:
        """See `Directory.servable`."""
        if not self.known:
            raise NotLaunched(uid)
        can_serve = any(one.endpoint for one in self.replicas)
        return SimpleNamespace(
            uid=uid, plan=self.plan, state="ready", can_serve=can_serve, replicas=self.replicas
        )


async def turns() -> None:
    """Lets everything that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_slots_are_given_to_the_least_busy_and_equals_take_turns() -> None:
    """Always the first of equals would be the one that hangs (1.9)."""
    queue = SlotQueue(Models("a", "b", slots=9))
    leases = [await queue.acquire("m") for _ in range(4)]
    assert [queue.in_flight(f"m-rep{number}") for number in (0, 1)] == [2, 2]
    for lease in leases:
        lease.release()
    taken = set()
    for _ in range(4):
        lease = await queue.acquire("m")
        taken.add(lease.replica.replica_id)
        lease.release()
    assert taken == {"m-rep0", "m-rep1"}


async def test_who_waits_is_served_in_turn() -> None:
    """First come, first served; a slot given back twice counts once."""
    queue = SlotQueue(Models("a"))
    first = await queue.acquire("m")
    order: list[int] = []

    async def ask(number: int) -> None:
        lease = await queue.acquire("m")
        order.append(number)
        lease.release()

    waiting = [asyncio.create_task(ask(number)) for number in range(4)]
    await turns()
    assert queue.waiting("m") == 4
    waiting[1].cancel()
    first.release()
    first.release()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert order == [0, 2, 3]
    assert (queue.waiting("m"), queue.in_flight("m-rep0")) == (0, 0)


async def test_client_with_many_requests_does_not_keep_another_waiting() -> None:
    """The next slot goes to whoever has the fewest at work; one's own requests keep their order."""
    queue = SlotQueue(Models("a"))
    first = await queue.acquire("m", client="busy")
    order: list[str] = []

    async def ask(client: str, name: str) -> None:
        lease = await queue.acquire("m", client=client)
        order.append(name)
        await asyncio.sleep(0)
        lease.release()

    waiting = [asyncio.create_task(ask("busy", f"busy {number}")) for number in range(3)]
    await turns()
    waiting.append(asyncio.create_task(ask("rare", "rare")))
    await turns()
    first.release()
    await asyncio.gather(*waiting)
    assert order[0] in {"busy 0", "rare"}
    assert order.index("rare") <= 1
    assert [name for name in order if name != "rare"] == ["busy 0", "busy 1", "busy 2"]


async def test_replica_that_failed_a_request_is_not_asked_again_until_it_was_started_anew() -> None:
    """The endpoint tells one start from the next."""
    models = Models("old", slots=9)
    queue = SlotQueue(models)
    lease = await queue.acquire("m")
    lease.release()
    avoid = [lease.replica.start]
    with pytest.raises(NotReady):
        await queue.acquire("m", avoid)
    models.put("new")
    assert (await queue.acquire("m", avoid)).replica.endpoint == "new"


async def test_model_that_is_coming_back_is_waited_for_up_to_a_limit() -> None:
    """Then the request ends with a time to ask again; a replica in time takes it."""
    models = Models(None)
    queue = SlotQueue(models)
    with pytest.raises(NotReady, match="has not come back") as refusal:
        await asyncio.wait_for(queue.acquire("m", recovery_seconds=0.05), 5)
    assert refusal.value.retry_after
    asking = asyncio.create_task(queue.acquire("m"))
    await turns()
    models.put("a")
    queue.wake("m")
    assert (await asyncio.wait_for(asking, 5)).replica.endpoint == "a"


async def test_those_who_wait_for_a_model_that_goes_are_told() -> None:
    """All of them, one after the other."""
    models = Models("a")
    queue = SlotQueue(models)
    await queue.acquire("m")
    waiting = [asyncio.create_task(queue.acquire("m")) for _ in range(3)]
    await turns()
    models.known = False
    queue.wake("m")
    ended = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert [type(one) for one in ended] == [NotLaunched] * 3
    assert queue.waiting("m") == 0


async def test_queue_has_a_limit() -> None:
    """A request that would pass it, with all of its parts, is refused at once."""
    queue = SlotQueue(Models("a"), limit=2)
    await queue.acquire("m")
    waiting = [asyncio.create_task(queue.acquire("m")) for _ in range(2)]
    await turns()
    with pytest.raises(QueueFull):
        queue.check("m")
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    queue.check("m", 2)


@dataclass
class Wire:
    """A connection to an engine; see `activity.EngineConnection`."""

    heard_at: float | None = None
    is_held: bool = False


class Quiet:
    """A queue with a clock, and how quiet its one replica is."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.queue = SlotQueue(Models("a", slots=4))
        self.queue._now = lambda: self.now

    async def ask(self, wire: Wire) -> Any:
        """A request that is sent on this connection."""
        lease = await self.queue.acquire("m")
        lease.attach(wire, lambda _: None)
        return lease

    @property
    def seconds(self) -> float:
        """For how long the replica has been quiet."""
        return self.queue.loads({"m": 4})["m-rep0"].quiet_seconds


async def test_load_is_as_quiet_as_the_least_quiet_request() -> None:
    """One stream that moves shows that the engine works; a request not yet sent counts as none."""
    quiet = Quiet()
    unsent = await quiet.queue.acquire("m")
    assert quiet.seconds == 0
    one, two = Wire(), Wire()
    leases = [await quiet.ask(one), await quiet.ask(two)]
    quiet.now += 50.0
    assert quiet.seconds == 50.0
    one.heard_at = quiet.now - 20.0
    load = quiet.queue.loads({"m": 4})["m-rep0"]
    assert (load.in_flight, load.slots, load.quiet_seconds) == (3, 4, 20.0)
    quiet.queue.note_probe("m-rep0")
    assert quiet.queue.loads({"m": 4})["m-rep0"].probed_at > 0
    for lease in (*leases, unsent):
        lease.release()
    assert quiet.queue.loads({"m": 4}) == {}
    assert quiet.queue._silences  # the last one has heard nothing
    quiet.queue.loads({})
    assert quiet.queue._silences == {}  # of a model that is gone nothing is kept


async def test_impatient_clients_do_not_hide_a_silent_engine() -> None:
    """Each asks for ten seconds and gives up; the time between them does not count."""
    quiet = Quiet()
    for number in range(3):
        lease = await quiet.ask(Wire())
        quiet.now += 10.0
        assert quiet.seconds == 10.0 * (number + 1)
        lease.release()
        quiet.now += 100.0
    lease = await quiet.ask(Wire(heard_at=quiet.now))
    assert quiet.seconds == 0
    lease.release()
    assert quiet.queue._silences == {}


async def test_client_that_takes_nothing_does_not_hide_a_silent_engine() -> None:
    """While its request is the only one, nothing is known; beside another it counts as none."""
    quiet = Quiet()
    slow = await quiet.ask(Wire(heard_at=quiet.now, is_held=True))
    quiet.now += 60.0
    assert quiet.seconds == 0
    other = await quiet.ask(Wire())
    quiet.now += 30.0
    assert quiet.seconds == 30.0
    for lease in (slow, other):
        lease.release()


async def test_replica_that_was_started_anew_begins_with_no_silence() -> None:
    """Its engine is another."""
    quiet = Quiet()
    lease = await quiet.ask(Wire())
    quiet.now += 10.0
    lease.release()
    lease = await quiet.queue.acquire("m")
    lease.replica = replace(lease.replica, endpoint="http://another")
    lease.attach(Wire(), lambda _: None)
    assert quiet.seconds == 0
    lease.release()


async def test_revoked_leases_are_told_once_and_keep_the_reason() -> None:
    """Also one that has not been sent to an engine yet."""
    queue = SlotQueue(Models("a", slots=4))
    one, two = [await queue.acquire("m") for _ in range(2)]
    reasons: list[str] = []
    one.on_revoked = reasons.append
    queue.revoke("m-rep0", "it hangs")
    assert reasons == ["it hangs"]
    assert (one.revoked, two.revoked) == ("it hangs", "it hangs")


def test_full_replicas_are_not_picked() -> None:
    """Nor is any of none."""
    one, two = ReplicaStatus("a"), ReplicaStatus("b")
    assert pick([one, two], {"a": 1, "b": 0}, 2) is two
    assert pick([one, two], {"a": 2, "b": 2}, 2) is None
    assert pick([], {}, 2) is None


async def test_a_slot_given_to_one_who_has_just_left_goes_to_the_next() -> None:
    """A request that is cancelled in the moment of its turn keeps no slot."""
    queue = SlotQueue(Models("a"))
    first = await queue.acquire("m")
    leaving, staying = (asyncio.create_task(queue.acquire("m")) for _ in range(2))
    await turns()
    first.release()
    leaving.cancel()
    lease = await asyncio.wait_for(staying, 5)
    assert leaving.cancelled()
    assert (queue.in_flight("m-rep0"), queue.waiting("m")) == (1, 0)
    lease.release()
    assert queue.in_flight("m-rep0") == 0


async def test_slots_go_to_as_many_as_there_are_at_once() -> None:
    """A replica that comes back with three slots takes three of those who wait."""
    models = Models(None, slots=3)
    queue = SlotQueue(models)
    waiting = [asyncio.create_task(queue.acquire("m")) for _ in range(4)]
    await turns()
    models.put("a")
    queue.wake("m")
    await turns()
    assert [task.done() for task in waiting] == [True, True, True, False]
    waiting[0].result().release()
    await asyncio.wait_for(waiting[3], 5)
