"""Finds and ends the processes that belong to one PADDOCK_HOME.

Ray's processes, the actors, the wardens and the engines all inherit `PADDOCK_INSTANCE`, a random
id of the home folder. It is how `paddock stop` can say that nothing is left, whatever was killed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Collection, Iterable
from pathlib import Path

import psutil

INSTANCE_VARIABLE = "PADDOCK_INSTANCE"
ROLE_VARIABLE = "PADDOCK_ROLE"
ACTOR_VARIABLE = "PADDOCK_ACTOR"
"""The actor whose warden or engine a process is."""
GATEWAY, BRIDGE, RAY, REPLICA, ENGINE, JOB = "gateway", "bridge", "ray", "replica", "engine", "job"
"""Roles. Ray's workers, and so actors, have `RAY`; a warden has `REPLICA`, and what it runs
`ENGINE` or `REPLICA`; a `JOB` is a download, an install or work on a lock."""
STOP_GRACE = 5.0
"""Seconds that an engine may take to stop by itself."""


def instance_id(home: Path) -> str:
    """The id of the home folder; made at the first call."""
    path = home / "instance"
    with contextlib.suppress(FileNotFoundError):
        return path.read_text("ascii").strip()
    home.mkdir(parents=True, exist_ok=True)
    made = home / f".instance.{os.getpid()}"
    made.write_text(secrets.token_hex(8), "ascii")
    with contextlib.suppress(FileExistsError):
        os.link(made, path)  # atomic, and the first of two wins
    made.unlink()
    return path.read_text("ascii").strip()


def environment(instance: str, role: str) -> dict[str, str]:
    """The environment for a process of ours: this one's, with its instance and its role."""
    own = {INSTANCE_VARIABLE: instance, ROLE_VARIABLE: role}
    return {key: value for key, value in os.environ.items() if key != ACTOR_VARIABLE} | own


def belonging(
    instance: str, roles: Collection[str] | None = None, actor: str | None = None
) -> list[psutil.Process]:
    """Every process that inherited the instance's id, but this one and zombies.

    Args:
        roles: only processes of these roles; an older version's have the role "".
        actor: only the warden and the engine of this actor.
    """
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environ = process.environ()
            if (
                process.pid != os.getpid()
                and environ.get(INSTANCE_VARIABLE) == instance
                and (roles is None or environ.get(ROLE_VARIABLE, "") in roles)
                and (actor is None or environ.get(ACTOR_VARIABLE) == actor)
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                processes.append(process)
    return processes


def end(processes: Iterable[psutil.Process], grace: float) -> None:
    """Asks the processes to end, then ends them; returns when they are gone."""
    left = list(processes)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, left = psutil.wait_procs(left, timeout=grace)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5)


def gone(process: psutil.Process, timeout: float) -> bool:
    """Waits for a process to end; one whose parent has not collected it yet has ended too."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            process.wait(0.05)
            return True
        except psutil.TimeoutExpired:
            with contextlib.suppress(psutil.Error):
                if process.status() == psutil.STATUS_ZOMBIE:
                    return True
    return False


def alive(pid: int, instance: str) -> bool:
    """Whether `pid` is still the process of this instance, and not another that got its number."""
    try:
        process = psutil.Process(pid)
        return (
            process.environ().get(INSTANCE_VARIABLE) == instance
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except (psutil.Error, OSError):
        return False
