"""What is done on a node for the gateway: looks at the host, and ends what is left of an actor.

`Agent` is a named, detached Ray actor, one on each node but the bridge's own, on which the bridge
does the same by itself. The host is looked at in a thread: a driver or a disk that hangs makes the
facts old, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import psutil

from paddock.engines.base import Host
from paddock.launcher.hosts import processes
from paddock.launcher.hosts.host import probe_host
from paddock.registry.settings import read_settings

PREFIX = "agent@"
"""An agent's name is this and its node's id."""
LOOK_SECONDS = 2.0
"""How often the host is looked at: 2 ms where it has no GPU."""
IDLE_SECONDS = 120.0
"""An agent that nobody has asked for so long ends itself: no bridge follows it any more."""
END_SECONDS = 8.0
"""How long killed processes may take to go: a large engine has its memory given back first."""


class Agent:
    """One node's agent. All methods are coroutines on one event loop."""

    def __init__(self, node: str, address: str) -> None:
        self._node = node
        self._address = address
        self._number = 0
        self._host: Host | None = None
        self._looked = asyncio.Event()
        self._polled_at = time.monotonic()
        self._looking: asyncio.Task[None] | None = None

    async def report(self, since: int) -> tuple[int, Host]:
        """The newest look that is newer than `since`, and its number; waits for one."""
        self._polled_at = time.monotonic()
        if self._looking is None:
            self._looking = asyncio.create_task(self._keep_looking())
        while self._host is None or self._number <= since:
            await self._looked.wait()
        return self._number, self._host

    async def look(self, paths: Sequence[str]) -> Host:
        """What is there now; the files at `paths`, which are absolute, are among `Host.files`."""
        return await asyncio.to_thread(self._look, tuple(paths))

    async def end(self, instance: str, actor: str, pid: int, started_at: float) -> list[int]:
        """See `end_actor`."""
        return await asyncio.to_thread(end_actor, instance, actor, pid, started_at)

    def _look(self, paths: tuple[str, ...] = ()) -> Host:
        host = probe_host(read_settings().home, paths, self._node)
        return replace(host, address=self._address)

    async def _keep_looking(self) -> None:
        while True:
            try:
                self._host = await asyncio.to_thread(self._look)
            except OSError as error:
                print(f"the host cannot be looked at: {error}", file=sys.stderr, flush=True)
            else:
                self._number += 1
                looked, self._looked = self._looked, asyncio.Event()
                looked.set()
            if time.monotonic() - self._polled_at > IDLE_SECONDS:
                os._exit(0)  # Ray has no way for an actor to end itself outside a call
            await asyncio.sleep(LOOK_SECONDS)


def end_actor(instance: str, actor: str, pid: int = 0, started_at: float = 0.0) -> list[int]:
    """Kills the actor's process, its warden, its engine and what those started, on this machine.

    Args:
        pid: the actor's process as Ray knows it, or 0.
        started_at: when Ray saw it start, by which a later process of the same number is told.

    Returns:
        The processes that could not be killed; none, as a rule.
    """
    deadline = time.monotonic() + END_SECONDS
    roots = [*_worker(pid, started_at), *processes.belonging(instance, actor=actor)]
    # The warden's parent is the actor, whatever Ray says of it.
    roots += [actor_process for root in roots for actor_process in _parent_worker(root)]
    remaining = {process.pid: process for root in roots for process in _tree(root)}
    while True:
        for process in remaining.values():
            with contextlib.suppress(psutil.Error):
                process.kill()
        _, alive = psutil.wait_procs(remaining.values(), timeout=0.1, callback=None)
        # What was started between the look and the kill carries the actor's name too.
        again = processes.belonging(instance, actor=actor)
        remaining = {process.pid: process for process in (*alive, *again) if not _is_over(process)}
        if not remaining or time.monotonic() > deadline:
            return sorted(remaining)


def _worker(pid: int, started_at: float) -> list[psutil.Process]:
    """The Ray worker of this number that ran at that time."""
    with contextlib.suppress(psutil.Error, ValueError):
        process = psutil.Process(pid)
        title = " ".join(process.cmdline())
        # Ray notes the start when the actor is ready, which its process was before.
        if title.startswith("ray::") and process.create_time() <= started_at + 1.0:
            return [process]
    return []


def _parent_worker(process: psutil.Process) -> list[psutil.Process]:
    """The Ray worker that has started a process; none if either is gone."""
    with contextlib.suppress(psutil.Error):
        return _worker(process.ppid(), process.create_time())
    return []


def _tree(root: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return [root, *root.children(recursive=True)]
    return [root]


def _is_over(process: psutil.Process) -> bool:
    """Whether it has ended; a zombie has, though its parent has not collected it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
