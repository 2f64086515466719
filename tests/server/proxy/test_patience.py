"""Silent engines are given up, by one timer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from paddock.server.proxy.patience import Patience


@dataclass(eq=False)
class Connection:
    """Is silent for as long as it says; leaves when it is given up, as upstreams do."""

    patience: Patience
    silent_seconds: float = 0.0
    given_up: asyncio.Event = field(default_factory=asyncio.Event)

    def give_up(self) -> None:
        self.patience.leave(self)
        self.given_up.set()


async def test_each_has_its_own_limit() -> None:
    """A short limit that comes second is not kept waiting by a long one."""
    patience = Patience()
    patient, impatient = Connection(patience, 5.0), Connection(patience, 5.0)
    patience.enter(patient, 1000.0)
    patience.enter(impatient, 0.001)
    async with asyncio.timeout(30):
        await impatient.given_up.wait()
    assert not patient.given_up.is_set()
    patience.close()


async def test_one_that_speaks_is_looked_at_again() -> None:
    """The timer comes back when the silence of a connection may be too long, and not before."""
    patience = Patience()
    talker, other = Connection(patience), Connection(patience, 5.0)
    patience.enter(talker, 0.001)
    patience.enter(other, 0.002)
    async with asyncio.timeout(30):
        await other.given_up.wait()
        assert not talker.given_up.is_set()
        talker.silent_seconds = 1.0
        await talker.given_up.wait()


async def test_nothing_is_left_when_all_are_done() -> None:
    """No timer runs on for nobody."""
    patience = Patience()
    done = Connection(patience, 5.0)
    patience.enter(done, 0.001)
    patience.leave(done)
    asked = Connection(patience, 5.0)
    patience.enter(asked, 0.002)
    async with asyncio.timeout(30):
        await asked.given_up.wait()
    assert not done.given_up.is_set()
    assert patience._timer is None
