"""What the bridge knows of other nodes while some of them are sick."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest

from paddock.engines.base import Host
from paddock.launcher.cluster import nodes
from paddock.launcher.cluster.nodes import AgentHandle, Node, Nodes

HOST = Host("", "", 1, 100, 50, 10, {})
DEADLINE = 30.0


class FakeAgent:
    """An agent that reports once, and then what it is told to; or one that never answers."""

    def __init__(self, node: str, hangs: bool = False) -> None:
        self.host = replace(HOST, node=node)
        self.hangs = hangs
        self.reports: asyncio.Queue[Host] = asyncio.Queue()
        self.reports.put_nowait(self.host)
        self.looks: list[Sequence[str]] = []

    async def report(self, since: int) -> tuple[int, Host]:
        if self.hangs:
            await asyncio.Event().wait()
        return since + 1, await self.reports.get()

    async def look(self, paths: Sequence[str]) -> Host:
        self.looks.append(paths)
        if self.hangs:
            await asyncio.Event().wait()
        return replace(self.host, files=dict.fromkeys(paths, 1))


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


Follow = Callable[..., Nodes]


@pytest.fixture
async def follow() -> AsyncIterator[Follow]:
    """Nodes over fake agents, one a node."""
    built: list[Nodes] = []

    def build(clock: Clock, *agents: FakeAgent) -> Nodes:
        by_node = {agent.host.node: agent for agent in agents}

        async def open_agent(node: Node) -> AgentHandle:
            return by_node[node.id]

        listing = [Node(node, "127.0.0.1") for node in by_node]
        built.append(Nodes(lambda: listing, open_agent, clock))
        return built[-1]

    yield build
    for one in built:
        await one.close()


async def test_a_sick_node_holds_up_nobody(follow: Follow) -> None:
    """A node that never reported is waited for once, when it is new, and is left out after that."""
    clock = Clock()
    followed = follow(clock, FakeAgent("well"), FakeAgent("sick", hangs=True))
    await followed.refresh()
    clock.now = nodes.FIRST_SECONDS
    async with asyncio.timeout(DEADLINE):
        while not (hosts := await followed.hosts(())):  # noqa: ASYNC110 - a turn of the loop
            await asyncio.sleep(0)
    assert [host.node for host in hosts] == ["well"]


async def test_a_new_node_is_waited_for(follow: Follow) -> None:
    """The first question after a node has come gets its first report."""
    followed = follow(Clock(), FakeAgent("new"))
    await followed.refresh()
    assert [host.node for host in await followed.hosts(())] == ["new"]


async def test_facts_have_an_age(follow: Follow) -> None:
    """What a node told stays and grows old until it reports again."""
    clock, agent = Clock(), FakeAgent("node")
    followed = follow(clock, agent)
    await followed.refresh()
    await followed.hosts(())
    clock.now = 12.0
    (host,) = await followed.hosts(())
    assert host.age_seconds == 12.0
    agent.reports.put_nowait(replace(agent.host, memory_free_bytes=7))
    async with asyncio.timeout(DEADLINE):
        while (host := (await followed.hosts(()))[0]).memory_free_bytes != 7:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert host.age_seconds == 0.0


async def test_named_files_are_looked_for_at_once(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents look anew for named files; one that does not answer in time has its last report."""
    monkeypatch.setattr(nodes, "LOOK_SECONDS", 0.05)
    clock, well, sick = Clock(), FakeAgent("well"), FakeAgent("sick")
    followed = follow(clock, well, sick)
    await followed.refresh()
    await followed.hosts(())
    sick.hangs = True
    hosts = {host.node: host for host in await followed.hosts(["/a"])}
    assert hosts["well"].files == {"/a": 1}
    assert hosts["sick"].files == {}
    clock.now = nodes.STALE_SECONDS + 1
    await followed.hosts(["/a"])
    assert len(sick.looks) == 1  # not asked again: its report is old already


async def test_a_node_that_is_gone_is_forgotten(follow: Follow) -> None:
    """A node that Ray does not list any more has no facts, however young."""
    listing = [Node("a", ""), Node("b", "")]
    agents = {name: FakeAgent(name) for name in ("a", "b")}

    async def open_agent(node: Node) -> AgentHandle:
        return agents[node.id]

    followed = Nodes(lambda: list(listing), open_agent, Clock())
    await followed.refresh()
    assert len(await followed.hosts(())) == 2
    del listing[0]
    await followed.refresh()
    assert [host.node for host in await followed.hosts(())] == ["b"]
    await followed.close()


async def test_an_agent_that_cannot_start_is_tried_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A node without Paddock gets a new try after 2 s, 4 s and so on, up to a minute."""
    pauses: asyncio.Queue[float] = asyncio.Queue()
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        pauses.put_nowait(seconds)
        await sleep(0)

    async def open_agent(_: Node) -> AgentHandle:
        raise RuntimeError("no module named paddock")

    monkeypatch.setattr(nodes.asyncio, "sleep", pause)
    followed = Nodes(lambda: [Node("bare", "")], open_agent, Clock())
    await followed.refresh()
    assert [await pauses.get() for _ in range(7)] == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    await followed.close()
