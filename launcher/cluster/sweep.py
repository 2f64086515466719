"""Ends what is left of a home folder's processes, whatever state they are in."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from paddock.launcher.cluster.agent import end_actor
from paddock.launcher.cluster.head import FILE, foreign_address, read_record
from paddock.launcher.hosts import processes

RAY_ROLES = frozenset(
    {processes.BRIDGE, processes.RAY, processes.REPLICA, processes.ENGINE, processes.UNKNOWN}
)
"""Roles of the processes that go with the local Ray. Those of unknown role are an older version's:
its jobs end with their gateway."""
RAY_ITSELF = frozenset({processes.BRIDGE, processes.RAY})
POLL_SECONDS = 0.1
KILL_SECONDS = 10.0
"""How long killed processes may take to go: a large engine has its memory given back first."""


@dataclass(frozen=True)
class Ended:
    """Process ids: of all that were ended, of those that did not heed a SIGTERM, of what is left.

    Ray's own processes and the bridge are killed at once and are not among the second.
    """

    all: tuple[int, ...] = ()
    by_force: tuple[int, ...] = ()
    left: tuple[int, ...] = ()


def end_ray(home: Path, grace: float) -> Ended:
    """Ends the bridge, the local Ray, its replicas and their engines; the gateway and jobs go on.

    Args:
        grace: seconds that they get to end by themselves.
    """
    return _sweep(home, grace, RAY_ROLES)


def end_actors(home: Path) -> None:
    """Ends by force the actors whose warden runs on this machine, whoever runs Ray.

    An actor on a foreign cluster is a process of that Ray: only its warden and what that runs carry
    the home's id.
    """
    instance = processes.instance_id(home)
    actors = set()
    for process in processes.belonging(instance):
        with contextlib.suppress(psutil.Error):
            actors.add(process.environ().get(processes.ACTOR_VARIABLE, ""))
    for actor in sorted(actors - {""}):
        end_actor(instance, actor)


def end_all(home: Path, grace: float) -> Ended:
    """Ends every process of the home folder but this one."""
    return _sweep(home, grace, None)


def _sweep(home: Path, grace: float, roles: frozenset[str] | None) -> Ended:
    instance, record = processes.instance_id(home), read_record(home)
    sessions = {record.session} if record is not None and record.session else set()

    def find() -> dict[int, psutil.Process]:
        own = processes.belonging(instance, roles)
        # Ray's agents wipe their environment, and stay for a minute when Ray was killed.
        sessions.update(_sessions(instance))
        return {process.pid: process for process in (*own, *_of_sessions(sessions))}

    ended = _end(find, grace)
    if not ended.left:
        if record is not None:
            shutil.rmtree(record.folder, ignore_errors=True)
        if not foreign_address(home):
            (home / FILE).unlink(missing_ok=True)
    return ended


def _end(find: Callable[[], dict[int, psutil.Process]], grace: float) -> Ended:
    """Ends what `find` finds until it finds nothing: first with grace, then by force."""
    everything: set[int] = set()
    deadline = time.monotonic() + grace
    while (remaining := find()) and time.monotonic() < deadline:
        _ask({pid: process for pid, process in remaining.items() if pid not in everything})
        everything.update(remaining)
        psutil.wait_procs(remaining.values(), timeout=POLL_SECONDS)
    forced: set[int] = set()
    deadline = time.monotonic() + KILL_SECONDS
    while remaining and time.monotonic() < deadline:
        for process in remaining.values():
            with contextlib.suppress(psutil.Error):
                process.kill()
        forced.update(remaining)
        psutil.wait_procs(remaining.values(), timeout=POLL_SECONDS)
        remaining = find()
    return Ended(*(tuple(sorted(pids)) for pids in (everything | forced, forced, remaining)))


def _ask(remaining: dict[int, psutil.Process]) -> None:
    """Kills Ray, which has nothing to lose, and asks the others to end.

    Ray's processes wait for each other when all are asked at once. What a warden runs is left to
    it: when its actor is gone it ends the engine, and many servers break off at a second SIGTERM.
    """
    for process in remaining.values():
        with contextlib.suppress(psutil.Error, OSError):
            environ = process.environ()
            actor = environ.get(processes.ACTOR_VARIABLE)
            parent = remaining.get(process.ppid())
            if _is_titled(process) or environ.get(processes.ROLE_VARIABLE) in RAY_ITSELF:
                process.kill()
            elif (
                not actor
                or parent is None
                or parent.environ().get(processes.ACTOR_VARIABLE) != actor
            ):
                process.terminate()


def _sessions(instance: str) -> set[int]:
    """The sessions of the local Ray's processes: its head starts one, and the others are in it."""
    sessions = set()
    for process in processes.belonging(instance, {processes.RAY}):
        with contextlib.suppress(OSError):
            sessions.add(os.getsid(process.pid))
    return sessions


def _of_sessions(sessions: set[int]) -> list[psutil.Process]:
    """Ray's agents and workers in these sessions. Ray gives them a title of its own."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) in sessions and _is_titled(process):
                members.append(process)
    return members


def _is_titled(process: psutil.Process) -> bool:
    return "".join(process.cmdline()[:1]).startswith("ray::")
