"""Finds and ends the processes that belong to one PADDOCK_HOME.

Ray's processes, the actors, the wardens and the engines all inherit `PADDOCK_INSTANCE`, a random
id of the home folder, and `PADDOCK_ROLE`. So `paddock stop` finds what is left, whatever was
killed, and nothing that belongs to others.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import stat
import sys
import time
from collections.abc import Collection, Iterable
from pathlib import Path

import psutil

from paddock.registry.files import make_home, write_atomically

INSTANCE_VARIABLE = "PADDOCK_INSTANCE"
ROLE_VARIABLE = "PADDOCK_ROLE"
ACTOR_VARIABLE = "PADDOCK_ACTOR"
"""The actor whose warden or engine a process is."""
GATEWAY, BRIDGE, RAY, REPLICA, ENGINE, JOB = "gateway", "bridge", "ray", "replica", "engine", "job"
UNKNOWN = ""
"""Roles. Ray's workers, and so actors, have `RAY`; a warden has `REPLICA`, and what it runs
`ENGINE` or `REPLICA`; a `JOB` is a download, an install, work on a lock, or the derivation of a
spec."""
STOP_GRACE = 5.0
"""Seconds that an engine may take to stop by itself."""


def is_private(path: Path) -> bool:
    """Whether a path is its user's own, and nobody else may write there.

    Raises:
        OSError: there is none.
    """
    status = path.stat(follow_symlinks=False)
    others = 0o077 if stat.S_ISDIR(status.st_mode) else 0o022
    return status.st_uid == os.getuid() and not status.st_mode & others


def instance_id(home: Path) -> str:
    """The id of the home folder; made at the first call."""
    path = home / "instance"
    with contextlib.suppress(FileNotFoundError):
        return path.read_text("ascii").strip()
    make_home(home)
    temporary = home / f".instance.{os.getpid()}"
    write_atomically(temporary, secrets.token_hex(8))
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)  # atomic, and the first of two wins
    temporary.unlink()
    return path.read_text("ascii").strip()


def birth(pid: int) -> float | None:
    """A number that tells the process from any other that had or gets its id; None: it has ended.

    A zombie has ended. On Linux it counts from the boot: the clock may be set meanwhile.
    """
    try:
        if sys.platform == "linux":
            # The command's name may hold spaces and brackets: fields count from the last one.
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            return None if fields[0] in {b"Z", b"X"} else float(fields[19])
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (OSError, IndexError, psutil.Error):
        return None


def environment(instance: str, role: str) -> dict[str, str]:
    """The environment for a process of ours: this one's, with its instance and its role."""
    own = {INSTANCE_VARIABLE: instance, ROLE_VARIABLE: role}
    return {key: value for key, value in os.environ.items() if key != ACTOR_VARIABLE} | own


def belonging(
    instance: str, roles: Collection[str] | None = None, actor: str | None = None
) -> list[psutil.Process]:
    """Every process that inherited the instance's id, but this one and zombies.

    Args:
        roles: only processes of these roles; an older version's have `UNKNOWN`.
        actor: only the warden and the engine of this actor.
    """
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environ = process.environ()
            if (
                process.pid != os.getpid()
                and environ.get(INSTANCE_VARIABLE) == instance
                and (roles is None or environ.get(ROLE_VARIABLE, UNKNOWN) in roles)
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


def kill_session(session: int) -> None:
    """Kills every process of a session, whoever its leader was, and does not wait for their end.

    A killed process starts no other, so a look that finds none but killed ones is the last.
    """
    killed: set[int] = set()
    while members := {pid for pid in psutil.pids() if _session(pid) == session} - killed:
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= members


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:  # it has ended, or is of another user where the system tells nothing of those
        return None


def gone(process: psutil.Process, timeout: float) -> bool:
    """Waits for a process to end; False if it has not within `timeout` seconds.

    A zombie has ended.
    """
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
