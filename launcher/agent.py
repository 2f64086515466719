"""What is done on an actor's own node: ends what is left of an actor, and proves it."""

from __future__ import annotations

import contextlib
import time

import psutil

from paddock.launcher import processes

END_SECONDS = 8.0
"""How long killed processes may take to go: a large engine has its memory given back first."""


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
    known = {process.pid: process for root in roots for process in _tree(root)}
    while True:
        for process in known.values():
            with contextlib.suppress(psutil.Error):
                process.kill()
        _, alive = psutil.wait_procs(known.values(), timeout=0.1, callback=None)
        # What was started between the look and the kill carries the actor's name too.
        again = processes.belonging(instance, actor=actor)
        known = {process.pid: process for process in (*alive, *again) if not _is_over(process)}
        if not known or time.monotonic() > deadline:
            return sorted(known)


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
