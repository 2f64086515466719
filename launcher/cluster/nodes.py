"""The bridge's knowledge of the cluster's other nodes: the last report of each node's agent.

Nobody who asks for hosts waits for a node: an agent is followed in a task of its own, and what it
has reported last is there, with its age. Only a node that has just come is waited for, and only
where files are named is an agent asked to look at once.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from paddock.engines.base import Host

LIST_SECONDS = 2.0
"""How often Ray is asked which nodes there are."""
FIRST_SECONDS = 5.0
"""How long a new node is waited for: its agent starts in a second, unless the node is sick."""
LOOK_SECONDS = 5.0
"""How long an agent may take to look at named files."""
STALE_SECONDS = 10.0
"""A node whose last report is older is not asked to look at files: it would not answer either."""
PAUSE_SECONDS = 60.0
"""The longest pause between two starts of an agent: on a node without Paddock each one fails."""
REPORT_SECONDS = 30.0
"""How long one report may take before the agent is looked up anew."""


class AgentHandle(Protocol):
    """An agent as it is called from the bridge; see `agent.Agent`."""

    async def report(self, since: int) -> tuple[int, Host]:
        """The newest report that is newer than `since`, and its number."""

    async def look(self, paths: Sequence[str]) -> Host:
        """What is there now, with the named files."""


@dataclass(frozen=True)
class Node:
    """A node that lives, as Ray lists it."""

    id: str
    address: str


@dataclass
class _Followed:
    """What is known of one node. `host` is its last report, heard at `heard_at`."""

    node: Node
    seen_at: float
    host: Host | None = None
    heard_at: float = 0.0
    reported: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Nodes:
    """Follows the agents of all other nodes. Use from one event loop only.

    Args:
        listing: the other nodes that live; runs in a thread.
        open_agent: the agent of a node, started where it does not run.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        listing: Callable[[], list[Node]],
        open_agent: Callable[[Node], Awaitable[AgentHandle]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listing = listing
        self._open_agent = open_agent
        self._clock = clock
        self._followed: dict[str, _Followed] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to follow the nodes."""
        self._task = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Lets go of all."""
        tasks = [self._task, *(followed.task for followed in self._followed.values())]
        for task in filter(None, tasks):
            task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)

    async def hosts(self, paths: Sequence[str]) -> list[Host]:
        """What each node has reported last; nodes that never have are left out."""
        news = [one for one in self._followed.values() if one.host is None]
        left = [FIRST_SECONDS - (self._clock() - one.seen_at) for one in news]
        if news and max(left) > 0:
            waits = [asyncio.create_task(one.reported.wait()) for one in news]
            _, late = await asyncio.wait(waits, timeout=max(left))
            for task in late:
                task.cancel()
        followed = [one for one in self._followed.values() if one.host is not None]
        if paths:
            return list(await asyncio.gather(*(self._look(one, paths) for one in followed)))
        return [self._last(one) for one in followed]

    def _last(self, followed: _Followed) -> Host:
        assert followed.host is not None
        return replace(followed.host, age_seconds=self._clock() - followed.heard_at)

    async def refresh(self) -> None:
        """Follows nodes that have come, and lets go of those that have gone."""
        alive = {node.id: node for node in await asyncio.to_thread(self._listing)}
        for node_id in [one for one in self._followed if one not in alive]:
            task = self._followed.pop(node_id).task
            if task is not None:
                task.cancel()
        for node_id, node in alive.items():
            if node_id not in self._followed:
                followed = self._followed[node_id] = _Followed(node, self._clock())
                followed.task = asyncio.create_task(self._follow(followed))

    async def _keep(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001 - Ray's own; it may answer the next time
                _note(f"the nodes cannot be listed: {error}")
            await asyncio.sleep(LIST_SECONDS)

    async def _follow(self, followed: _Followed) -> None:
        """Takes one report after another, for as long as the node is listed."""
        pause = LIST_SECONDS
        while True:
            try:
                agent, since = await self._open_agent(followed.node), -1
                while True:
                    async with asyncio.timeout(REPORT_SECONDS):
                        since, followed.host = await agent.report(since)
                    followed.heard_at = self._clock()
                    followed.reported.set()
                    pause = LIST_SECONDS
            except Exception as error:  # noqa: BLE001 - a node's border: whatever it is, it ages
                _note(f"node {followed.node.id} does not report: {type(error).__name__}: {error}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS)

    async def _look(self, followed: _Followed, paths: Sequence[str]) -> Host:
        """What is there now with the named files; without them where the node does not answer."""
        if self._clock() - followed.heard_at > STALE_SECONDS:
            return self._last(followed)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                agent = await self._open_agent(followed.node)
                return await agent.look(paths)
        except Exception as error:  # noqa: BLE001 - a node's border: its last report has to do
            _note(f"node {followed.node.id} did not look: {type(error).__name__}: {error}")
            return self._last(followed)


def _note(text: str) -> None:
    print(text.splitlines()[0], file=sys.stderr, flush=True)
