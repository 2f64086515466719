"""Whether a hub answers at all, found out in bounded time."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def unreachable(endpoint: str, timeout: float) -> str | None:
    """Why nothing answers at the endpoint (or at the proxy that leads to it); None if it does.

    A name look-up has no timeout of its own and can hang for a minute behind a dead resolver,
    so the attempt runs in a thread that is left behind.
    """
    target = urlsplit(endpoint)
    proxy = getproxies().get(target.scheme)
    via = ""
    if proxy and target.hostname and not proxy_bypass(target.hostname):
        target, via = urlsplit(proxy), f" through the proxy {urlsplit(proxy).hostname}"
    host, port = target.hostname or "", target.port or (443 if target.scheme == "https" else 80)
    outcome: list[str | None] = []

    def attempt() -> None:
        try:
            socket.create_connection((host, port), timeout=timeout).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(error.strerror or str(error))

    thread = threading.Thread(target=attempt, daemon=True, name=f"reach {host}")
    thread.start()
    thread.join(timeout)
    if not outcome:
        return f"{host}:{port}{via}: no answer in {timeout:g} s"
    return None if outcome[0] is None else f"{host}:{port}{via}: {outcome[0]}"
