"""Checks within bounded time whether a hub answers."""

from __future__ import annotations

import json
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from paddock.launcher.weights.intermediary import by_proxy
from paddock.registry.files import replace_file

REMEMBERED_SECONDS = 600.0


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follows nothing: where the hub points to is no matter."""


def unreachable(endpoint: str, timeout: float) -> str | None:
    """Why the endpoint does not answer HTTP (by the environment's proxy, if any); None if it does.

    Any answer will do, an error as well. Asked before the hub's client is, because that retries
    for a minute and more where connections are taken and nothing is said. A name look-up has no
    timeout of its own and can hang behind a dead resolver, so the attempt runs in a thread that
    is left behind.
    """
    outcome: list[str | None] = []

    def attempt() -> None:
        try:
            opener = build_opener(_Stay)
            opener.open(Request(endpoint, method="HEAD"), timeout=timeout).close()  # noqa: S310
            outcome.append(None)
        except HTTPError as answer:
            answer.close()
            outcome.append(None)
        except URLError as error:
            # A certificate that only the client's own settings trust: there is somebody.
            is_certificate = isinstance(error.reason, ssl.SSLCertVerificationError)
            outcome.append(None if is_certificate else _reason_text(error.reason))
        except (OSError, ValueError) as error:
            outcome.append(_reason_text(error))

    thread = threading.Thread(target=attempt, daemon=True, name=f"reach {endpoint}")
    thread.start()
    thread.join(timeout)
    if not outcome:
        return f"{endpoint}: no answer in {timeout:g} s{by_proxy(endpoint)}"
    return None if outcome[0] is None else f"{endpoint}: {outcome[0]}{by_proxy(endpoint)}"


def _reason_text(reason: object) -> str:
    return getattr(reason, "strerror", None) or str(reason)


class Reach:
    """Checks whether hubs answer. A hub that did not comes last for a while.

    The memory is a file below PADDOCK_HOME/cache; a hub that answers again is forgotten.
    """

    def __init__(self, home: Path, timeout: float) -> None:
        self._path = home / "cache" / "unreachable.json"
        self._timeout = timeout

    def failed_lately(self, endpoint: str) -> bool:
        """Whether the last check of the endpoint failed, not long ago."""
        at = self._failed().get(endpoint)
        return isinstance(at, int | float) and 0 <= time.time() - at < REMEMBERED_SECONDS

    def unreachable(self, endpoint: str) -> str | None:
        """Asks now, and notes the outcome for `failed_lately`. See `reachability.unreachable`."""
        reason = unreachable(endpoint, self._timeout)
        failed = self._failed()
        if reason is not None:
            failed[endpoint] = time.time()
        elif failed.pop(endpoint, None) is None:
            return None
        with suppress(OSError):  # it only decides which hub is asked first
            replace_file(self._path, json.dumps(failed))
        return reason

    def _failed(self) -> dict[str, Any]:
        try:
            document = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}
