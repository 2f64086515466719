"""`paddock stop`."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import click

from paddock.cli import gateway
from paddock.cli.options import Output, Settings, connected
from paddock.registry.errors import (
    GatewayError,
    GatewayUnreachable,
    ModelsLeft,
    PaddockError,
    ReplicasLeft,
    StopFailed,
)

if TYPE_CHECKING:
    import psutil

STOP_SECONDS = 60.0
"""How long a gateway may take to end its models: an engine has 5 s, its actor 15 s beyond that."""
GONE_SECONDS = 35.0
"""How long it may take to finish the requests that run: a little more than it gives them itself."""
DEAF_SECONDS = 5.0
"""How long a gateway that does not answer is given to end by itself: it may be doing so."""
QUIET_SECONDS = 2.0
"""After so long the command says what it waits for."""


@click.command(short_help="End the gateway, all models and the local Ray.")
@connected
def stop(settings: Settings, output: Output) -> None:
    """End the gateway, all models and the local Ray.

    Works whatever state they are in: what does not end by itself is ended by force, and only
    processes that this PADDOCK_HOME started. Requests that run get 30 seconds to finish. Replicas
    on a Ray cluster of somebody else's that cannot be ended are named, with exit code 1.

    \b
    Example:
      paddock stop
    """
    client = gateway.find(settings, STOP_SECONDS, STOP_SECONDS)
    own = None if settings.endpoint else _gateway(settings, client is not None)
    models: set[str] = set()
    heeds = False
    if client is not None:
        # One that dies or hangs in the middle is dealt with below like one that was dead before.
        with nullcontext() if settings.endpoint else suppress(GatewayUnreachable, GatewayError):
            models.update(model["model_uid"] for model in client.instances())
            client.stop()
            heeds = True
    by_force: list[int] = []
    everything: list[int] = []
    if not settings.endpoint:
        by_force = _end_gateway(own, GONE_SECONDS if heeds else DEAF_SECONDS, output)
        try:
            everything, rest = _sweep(settings, models)
        except (OSError, sqlite3.Error) as error:
            raise gateway.unusable(settings, error) from None
        by_force += rest
    stopped = client is not None or bool(everything or by_force)
    names = ", ".join(sorted(models)) or "none"
    forced = f"; processes ended by force: {len(by_force)}" if by_force else ""
    output.result(
        {"stopped": stopped, "models": sorted(models), "ended_by_force": by_force},
        f"stopped; models ended: {names}{forced}" if stopped else "nothing was running",
    )


def _gateway(settings: Settings, answers: bool) -> psutil.Process | None:
    """The gateway's process, if it answers or holds its home's lock: a number alone may be old."""
    import psutil

    if not answers and not _serving(settings):
        return None
    with suppress(OSError, ValueError, KeyError, psutil.Error):
        return psutil.Process(json.loads((settings.home / "gateway.json").read_text())["pid"])
    return None


def _end_gateway(own: psutil.Process | None, patience: float, output: Output) -> list[int]:
    """Waits for the gateway to be gone, then ends it; its process id if that was by force."""
    from paddock.launcher.hosts import processes

    if own is None or processes.gone(own, QUIET_SECONDS):
        return []
    output.talk(f"the gateway still ends, or requests run; waiting for {patience:g} s at most")
    deadline = time.monotonic() + patience - QUIET_SECONDS
    if processes.gone(own, max(0.1, deadline - time.monotonic())):
        return []
    processes.end([own], processes.STOP_GRACE)
    return [own.pid]


def _sweep(settings: Settings, models: set[str]) -> tuple[list[int], list[int]]:
    """Ends what is left, and adds the models that it was to `models`.

    Returns:
        The ids of all processes that were ended, and of those that were ended by force.

    Raises:
        StopFailed: some cannot be ended.
        ModelsLeft: all have ended, but the state file cannot be used.
        ReplicasLeft: some may still run on other nodes. All else is done.
    """
    from paddock.launcher.cluster.head import FILE
    from paddock.launcher.cluster.sweep import end_all
    from paddock.launcher.hosts import processes

    if not (settings.home / "instance").exists():  # nothing has ever run
        return [], []
    foreign = _end_foreign(settings, models)
    ended = end_all(settings.home, processes.STOP_GRACE)
    if ended.left:
        raise StopFailed(ended.left)
    (settings.home / "gateway.json").unlink(missing_ok=True)
    # Downloads and installs shall not go on with the next gateway either.
    shutil.rmtree(settings.home / "jobs", ignore_errors=True)
    try:
        forgotten, left = _forget_models(settings, foreign)
    except (OSError, sqlite3.Error) as error:
        raise ModelsLeft(str(gateway.unusable(settings, error))) from None
    except PaddockError as error:
        raise ModelsLeft(str(error)) from None
    if ended.all:
        models.update(forgotten)
    if left:
        record = str(settings.home / FILE)
        raise ReplicasLeft(tuple(left), foreign.address, foreign.reason, record)
    (settings.home / FILE).unlink(missing_ok=True)
    return list(ended.all), list(ended.by_force)


@dataclass
class _Foreign:
    """A cluster of somebody else's, and what could not be ended there.

    Attributes:
        actors: those that could not be ended; None: the cluster cannot be reached.
    """

    address: str = ""
    actors: set[str] | None = field(default_factory=set)
    reason: str = ""


def _end_foreign(settings: Settings, models: set[str]) -> _Foreign:
    """Ends the replicas that a gateway has left on a cluster of somebody else's.

    They do not end with the processes of this machine. Where the cluster cannot be reached, those
    that run on this machine are ended all the same.
    """
    import asyncio

    from paddock.launcher.cluster.cluster import Cluster, RayFailed
    from paddock.launcher.cluster.head import FILE, foreign_address
    from paddock.launcher.cluster.sweep import end_actors
    from paddock.launcher.fleet.reconciler import FAILURES

    foreign = _Foreign(foreign_address(settings.home))
    if not foreign.address:
        return foreign
    # The shell that stops need not have the variable that the gateway had.
    origin = str(settings.home / FILE)
    cluster = Cluster(replace(settings, ray_address=foreign.address, ray_address_from=origin))

    async def end_one(actor: str) -> None:
        try:
            await cluster.end(actor, "")
        except FAILURES as error:
            assert foreign.actors is not None
            foreign.actors.add(actor)
            foreign.reason = str(error) or "it does not answer in time"
        else:
            models.add(actor.rpartition("-rep")[0])

    async def end() -> None:
        await cluster.connect()
        await asyncio.gather(*map(end_one, await cluster.actors()))
        await cluster.shutdown()

    try:
        asyncio.run(end())
    except (RayFailed, *FAILURES) as error:
        foreign.actors, foreign.reason = None, str(error)
        end_actors(settings.home)
    return foreign


def _serving(settings: Settings) -> bool:
    """Whether a gateway holds this home's lock."""
    import fcntl

    path = settings.home / "gateway.lock"
    if not path.exists():
        return False
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _forget_models(settings: Settings, foreign: _Foreign) -> tuple[list[str], list[str]]:
    """What was launched shall not come back with the next gateway: the user has stopped it.

    Returns:
        The models, and the replicas that may still run: those are ended by the next gateway, or
        by the next stop.
    """
    from paddock.launcher.fleet.deployment import ReplicaRecord, replica_of
    from paddock.launcher.fleet.store import SqliteStore
    from paddock.launcher.hosts.host import LOCAL

    def is_left(record: ReplicaRecord) -> bool:
        if foreign.actors is None:
            return record.place.node != LOCAL and not record.given_up
        return record.actor in foreign.actors

    left = [replica_of(actor) for actor in foreign.actors or ()]
    path = settings.home / "paddock.db"
    if not path.exists():
        return [], left
    uids, known = SqliteStore(path).forget_all(is_left)
    return uids, sorted({*left, *known})
