"""The requests that wait for slots of one model: whose turn it is next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Granted = TypeVar("Granted")


@dataclass(eq=False)
class Ticket(Generic[Granted]):
    """A request that waits.

    Attributes:
        client: who asks, as far as that can be told.
        avoid: starts of replicas that have failed this request.
        turn: settled with what it waited for, or with None when it shall look by itself.
    """

    client: str
    avoid: Sequence[str]
    turn: asyncio.Future[Granted | None]

    @property
    def granted(self) -> Granted | None:
        """What it was called with; None: nothing, or not yet."""
        return self.turn.result() if self.turn.done() and not self.turn.cancelled() else None

    def call(self, granted: Granted | None) -> None:
        """Its turn has come. Once it was called, it is not called again before it has looked."""
        if not self.turn.done():
            self.turn.set_result(granted)


class WaitingLine(Generic[Granted]):
    """Who waits for one model. A client's own requests are served in their order."""

    def __init__(self) -> None:
        self._clients: dict[str, deque[Ticket[Granted]]] = {}
        self._turns: dict[str, int] = {}
        self._turn = 0
        self.length = 0

    def __iter__(self) -> Iterator[Ticket[Granted]]:
        for tickets in self._clients.values():
            yield from tickets

    def __contains__(self, ticket: Ticket[Granted]) -> bool:
        return ticket in self._clients.get(ticket.client, ())

    def add(self, ticket: Ticket[Granted]) -> None:
        """Puts it behind the others of its client."""
        self._clients.setdefault(ticket.client, deque()).append(ticket)
        self.length += 1

    def remove(self, ticket: Ticket[Granted]) -> None:
        """Takes it out, wherever it stands."""
        tickets = self._clients[ticket.client]
        tickets.remove(ticket)
        self.length -= 1
        if not tickets:
            del self._clients[ticket.client]

    def note_turn(self, client: str) -> None:
        """The client has got something."""
        self._turn += 1
        self._turns[client] = self._turn

    def next(self, at_work: Mapping[str, int]) -> Ticket[Granted] | None:
        """Whose turn it is: the oldest request of the client with the fewest at work.

        Of equal clients, of the one whose last turn is longest ago. None: nobody waits.
        """
        clients = self._clients
        if len(clients) < 2:
            return next((tickets[0] for tickets in clients.values()), None)
        turns = self._turns
        client = min(clients, key=lambda one: (at_work.get(one, 0), turns.get(one, 0)))
        return clients[client][0]
