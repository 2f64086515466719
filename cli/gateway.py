"""Finds the gateway, and starts one in the background where none runs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any

from paddock.cli.errors import ALREADY_RUNS
from paddock.cli.output import Output
from paddock.client import Client
from paddock.registry.errors import (
    GatewayError,
    GatewayNotStarted,
    GatewaySilent,
    GatewayUnreachable,
    NotWritten,
)
from paddock.registry.settings import Settings
from paddock.web import is_built

START_SECONDS = 30.0
POLL_SECONDS = 0.02
ANSWER_SECONDS = 600.0
"""The time limit of one answer: a large model may take minutes for a long one."""


HEALTH_SECONDS = 15.0
"""The time limit of a gateway's health, which its event loop answers at once."""


def find(
    settings: Settings, timeout: float = ANSWER_SECONDS, patience: float = HEALTH_SECONDS
) -> Client | None:
    """A client for the gateway that runs, or None. One that is named has to answer.

    `patience` is the time limit of its health, in seconds.

    Raises:
        GatewayUnreachable: nobody answers at a named endpoint, or another server does.
    """
    if settings.endpoint:
        return _named(settings, timeout, patience)
    with suppress(GatewayUnreachable, GatewayError):
        return _answering(settings, timeout, patience)
    return None


def _named(settings: Settings, timeout: float, patience: float) -> Client:
    client = Client(settings.endpoint, settings.api_key, timeout)
    client.identify(patience)
    return client


def _answering(settings: Settings, timeout: float, patience: float) -> Client | None:
    """The same, but of one that does not answer the error. Raises `GatewaySilent` in time."""
    record = _record(settings)
    if "endpoint" not in record:
        return None
    # The key that the gateway makes at each start for commands of its user.
    key = settings.api_key or str(record.get("key", ""))
    endpoint = str(record["endpoint"])
    try:
        Client(endpoint, key).health(patience)
    except GatewayUnreachable as error:
        if isinstance(error.__cause__, TimeoutError):
            raise GatewaySilent(endpoint, f"{patience:g} s") from None
        raise
    return Client(endpoint, key, timeout)


def recorded(settings: Settings) -> str | None:
    """The endpoint that the last gateway of this home recorded; None without a record."""
    endpoint = _record(settings).get("endpoint")
    return None if endpoint is None else str(endpoint)


def _record(settings: Settings) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        record = json.loads((settings.home / "gateway.json").read_text())
        return record if isinstance(record, dict) else {}
    return {}


def introduced(key: str) -> str:
    """The message that shows the first key."""
    return (
        "Others can reach this gateway, so every request needs an API key. This is the first one, "
        f"and it is shown this once:\n\n    {key}\n\nSend it as 'Authorization: Bearer KEY'; "
        "paddock takes it as --api-key or PADDOCK_API_KEY. More: paddock keys --help\n"
    )


def say_dashboard(endpoint: str, output: Output) -> None:
    """Says where the dashboard is, if it is built here."""
    if is_built():
        output.talk(f"dashboard: {dashboard_address(endpoint)}")


def dashboard_address(endpoint: str) -> str:
    """The dashboard's page. Its files lie beside it, so the address ends in a slash."""
    return f"{endpoint}/"


def open_home(settings: Settings) -> None:
    """Makes the home folder, or closes it to other users, and checks that it can be written.

    Raises:
        NotWritten: it cannot.
    """
    from paddock.launcher.hosts import processes
    from paddock.registry.files import make_home, make_private

    try:
        make_home(settings.home)
        make_private(settings.logs)
        processes.instance_id(settings.home)
        with tempfile.TemporaryFile(dir=settings.home) as file:
            _check_locks(settings, file.fileno())
    except (OSError, NotWritten) as error:
        raise unusable(settings, error) from None


def _check_locks(settings: Settings, handle: int) -> None:
    """Raises `NotWritten` on a file system without locks: the gateway and its store need them."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        reason = f"its file system takes no locks ({error.strerror})"
        raise NotWritten(str(settings.home), reason) from None


def unusable(settings: Settings, error: Exception) -> NotWritten:
    """The error of a home folder that cannot be written."""
    reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)
    return NotWritten(str(settings.home), reason)


def ensure(settings: Settings, output: Output) -> Client:
    """A client for the gateway; starts one in the background if none runs, and says so.

    Raises:
        NotWritten: the home folder cannot be written.
        GatewayNotStarted: none could be started; with its last words.
        GatewaySilent: one runs, and does not answer.
        GatewayUnreachable: nobody answers at a named endpoint, or another server does.
    """
    if settings.endpoint:
        return _named(settings, ANSWER_SECONDS, HEALTH_SECONDS)
    try:
        client = _answering(settings, ANSWER_SECONDS, HEALTH_SECONDS)
    except GatewaySilent:
        raise
    except (GatewayUnreachable, GatewayError):
        client = None
    if client is not None:
        return client
    open_home(settings)
    from paddock.launcher.hosts import processes
    from paddock.registry.files import open_private
    from paddock.server.access.keys import first_key

    # Made here and not by the gateway, whose output goes to its log.
    minted = first_key(settings)
    if minted is not None:
        output.talk(introduced(minted.secret))
    path = settings.logs / "gateway.log"
    own = processes.environment(processes.instance_id(settings.home), processes.GATEWAY)
    environ = {**own, "PADDOCK_HOME": str(settings.home)}
    if settings.api_key:  # which may have been a flag
        environ["PADDOCK_API_KEY"] = settings.api_key
    with open_private(path, "ab") as log:
        began = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "paddock", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environ,
            start_new_session=True,
            cwd="/",
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        client = find(settings)
        if client is not None:
            output.talk(f"gateway started in the background at {client.endpoint} (log: {path})")
            return client
        code = process.poll()
        # Another command may have been faster: its gateway is the one, and will answer soon.
        if code is not None and code != ALREADY_RUNS:
            log_lines = path.read_bytes()[began:].decode("utf-8", "replace").strip().splitlines()
            reason = log_lines[-1].removeprefix("paddock: ") if log_lines else f"exit code {code}"
            raise GatewayNotStarted(reason, str(path))
        time.sleep(POLL_SECONDS)
    raise GatewayNotStarted(f"it did not answer within {START_SECONDS:g} s", str(path))
