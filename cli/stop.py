"""`paddock stop`."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from paddock.cli import gateway
from paddock.cli.options import Output, Settings, connected
from paddock.registry.errors import GatewayUnreachable

if TYPE_CHECKING:
    import psutil

GONE_SECONDS = 30.0
DEAF_SECONDS = 5.0
"""How long a gateway that does not answer is given to end by itself: it may be doing so."""


@click.command(short_help="End the gateway, all models and the local Ray.")
@connected
def stop(settings: Settings, output: Output) -> None:
    """End the gateway, all models and the local Ray.

    Works whatever state they are in: what does not end by itself is ended by force, and only
    processes that this PADDOCK_HOME started.

    \b
    Example:
      paddock stop
    """
    client = gateway.find(settings)
    own = None if settings.endpoint else _gateway(settings, client is not None)
    models: list[str] = []
    if client is not None:
        # A gateway that dies in the middle is dealt with below like one that was dead before.
        with suppress(GatewayUnreachable):
            models = [model["model_uid"] for model in client.instances()]
            client.stop()
    patience = GONE_SECONDS if client is not None else DEAF_SECONDS
    ended = [] if settings.endpoint else _sweep(settings, own, patience)
    stopped = client is not None or bool(ended)
    output.result(
        {"stopped": stopped, "models": models, "ended_by_force": ended},
        f"stopped; models ended: {', '.join(models) or 'none'}"
        if stopped
        else "nothing was running",
    )


def _gateway(settings: Settings, answers: bool) -> psutil.Process | None:
    """The gateway's process, if it answers or holds its home's lock: a number alone may be old."""
    import psutil

    if not answers and not _serving(settings):
        return None
    with suppress(OSError, ValueError, KeyError, psutil.Error):
        return psutil.Process(json.loads((settings.home / "gateway.json").read_text())["pid"])
    return None


def _sweep(settings: Settings, own: psutil.Process | None, patience: float) -> list[int]:
    """Waits for the gateway to be gone, then ends what is left; the process ids of that."""
    from paddock.launcher import processes
    from paddock.launcher.sweep import end_all

    deaf = [own] if own is not None and not processes.gone(own, patience) else []
    processes.end(deaf, processes.STOP_GRACE)
    if not settings.home.exists():
        return []
    left = [*(process.pid for process in deaf), *end_all(settings.home, processes.STOP_GRACE).all]
    (settings.home / "gateway.json").unlink(missing_ok=True)
    _forget_models(settings)
    return left


def _serving(settings: Settings) -> bool:
    """Whether a gateway holds this home's lock."""
    import fcntl

    path = settings.home / "gateway.lock"
    if not path.exists():
        return False
    with path.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _forget_models(settings: Settings) -> None:
    """What was launched shall not come back with the next gateway: the user has stopped it."""
    from paddock.launcher.fleet.store import SqliteStore

    path = settings.home / "paddock.db"
    if path.exists():
        SqliteStore(path).forget_all()
