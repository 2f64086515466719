"""Asks an attached endpoint: what it lists, what it can do, whether it still answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import shlex
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import SplitResult, urlsplit

from paddock.launcher.planning.plan import (
    Attached,
)
from paddock.launcher.replicas.diagnosis import Cause, Diagnosis, Failure
from paddock.registry.abilities import probed_abilities
from paddock.registry.errors import printable

ANSWER_SECONDS = 5.0
"""How long a look may take in all, once it is connected."""
PROBE_SECONDS = 60.0
"""The same of a request that shows an ability: its model may have to be loaded first."""
MAX_ANSWER_BYTES = 16_000_000
BUSY = 429


@dataclass(frozen=True)
class RemoteAnswer:
    """What came back. `location` is where a redirect leads."""

    status: int
    data: bytes
    location: str = ""

    def message(self) -> str:
        """An error in words."""
        text = self.data.decode("utf-8", "replace").strip()
        with contextlib.suppress(ValueError):
            document = json.loads(text)
            document = document.get("error", document) if isinstance(document, dict) else document
            text = str(
                document.get("message", document) if isinstance(document, dict) else document
            )
        return printable(" ".join(text.split()), 200)


@dataclass(frozen=True)
class Remote:
    """An endpoint and its key. Its methods block, and raise `Failure` with a diagnosis."""

    url: str
    key: str = field(default="", repr=False)

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> RemoteAnswer:
        """One request. Redirects are not followed: the key is for this host alone.

        Raises:
            Failure: nobody answers, or not in time, which is a `TimeoutError` inside.
        """
        parts = urlsplit(self.url)
        seconds = ANSWER_SECONDS if body is None else PROBE_SECONDS
        headers = {"Accept": "application/json", "User-Agent": "paddock"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        expired = threading.Event()
        method = "GET" if data is None else "POST"
        try:
            with _connected(parts, seconds, expired) as connection:
                connection.request(method, parts.path + path, data, headers)
                answer = connection.getresponse()
                read = answer.read(MAX_ANSWER_BYTES)
                location = answer.headers.get("Location", "")
                if expired.is_set():  # the end of a body without a length was none
                    raise TimeoutError
        except (OSError, http.client.HTTPException) as error:
            reason = TimeoutError() if expired.is_set() else error
            raise self._failed("endpoint_unreachable", _explain(reason, parts.scheme)) from error
        if self.key:
            read = read.replace(self.key.encode(), b"(key)")
        return RemoteAnswer(answer.status, read, location)

    def models(self) -> dict[str, dict[str, Any]] | None:
        """Model name → its row in `/v1/models`; None if the endpoint has no such list."""
        answer = self._check_answer(self.ask("/models"))
        if answer.status in {404, 405, 501}:
            return None
        document: Any = None
        with contextlib.suppress(ValueError):
            document = json.loads(answer.data)
        rows = document.get("data") if isinstance(document, dict) else None
        if answer.status != 200 or not isinstance(rows, list):
            raise self.unfit(f"answers {answer.status} without a list of models")
        return {str(row["id"]): row for row in rows if isinstance(row, dict) and "id" in row}

    def able(self, model: str, ability: str) -> str | None:
        """Why it cannot do for the model what the ability needs; None if it can."""
        probed = probed_abilities()[ability]
        refusal = ""
        for body in probed.probes:
            answer = self._check_answer(self.ask(probed.path, {**body, "model": model}))
            if answer.status == 200:
                return None
            refusal = refusal or f"{probed.path} says {answer.status} {answer.message()}"
        return refusal

    def check(self, attached: Attached) -> None:
        """Raises `Failure` unless it answers and has the model; one that is busy answers too."""
        if attached.listed:
            models = self._models_unless_busy()
            if models is not None and attached.model not in models:
                raise self.unfit(f"has no model {attached.model} any more{name_some(models)}")
        elif (answer := self.ask("/models")).status != BUSY:
            self._check_answer(answer)

    def _models_unless_busy(self) -> dict[str, dict[str, Any]] | None:
        try:
            return self.models()
        except Failure as failure:
            if failure.diagnosis.cause == "rate_limited":
                return None
            raise

    def _check_answer(self, answer: RemoteAnswer) -> RemoteAnswer:
        """The answer. Raises `Failure` if its status rules out every request."""
        if answer.status in {401, 403}:
            reason = f"does not take the key ({answer.status} {answer.message()})"
            if not self.key:
                reason = f"asks for a key ({answer.status}); name it with --api-key-env"
            raise self._failed("endpoint_refused", reason)
        if 300 <= answer.status < 400:
            to = f" to {printable(answer.location)}" if answer.location else ""
            raise self.unfit(f"redirects{to}, which is not followed with a key")
        if answer.status == BUSY:
            raise self._failed("rate_limited", f"asks to come again later (429 {answer.message()})")
        if answer.status >= 500 and answer.status != 501:
            raise self._failed("endpoint_unreachable", f"says {answer.status} {answer.message()}")
        return answer

    def unfit(self, reason: str) -> Failure:
        """What answers is not what is wanted."""
        return self._failed("endpoint_unfit", reason)

    def _failed(self, cause: Cause, reason: str) -> Failure:
        again = ["paddock", "attach", self.url]
        if cause == "endpoint_refused":
            again += ["--api-key-env", "VARIABLE"]
        if cause == "endpoint_unfit":
            again[-1] = "URL"
        return Failure(Diagnosis(cause, f"{self.url} {reason}", shlex.join(again)))


@contextlib.contextmanager
def _connected(
    parts: SplitResult, seconds: float, expired: threading.Event
) -> Iterator[http.client.HTTPConnection]:
    """A connection that is cut off after so many seconds; then `expired` is set.

    A socket's own timeout begins anew with each byte that comes.
    """
    host, is_tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    # TLS takes the socket over, and leaves an empty one: hence the second handle.
    with socket.create_connection((host, port), seconds) as plain, plain.dup() as handle:

        def cut() -> None:
            expired.set()
            with contextlib.suppress(OSError):  # it is closed already
                handle.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        connection = (
            http.client.HTTPSConnection(host, port, context=_tls())
            if is_tls
            else http.client.HTTPConnection(host, port)
        )
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sock = _tls().wrap_socket(plain, server_hostname=host) if is_tls else plain
            yield connection
        finally:
            connection.close()
            timer.cancel()
            timer.join()  # `cut` must not meet another socket of the same number


@cache
def _tls() -> ssl.SSLContext:
    """Certificates are verified."""
    return ssl.create_default_context()


def _explain(error: Exception, scheme: str) -> str:
    """A connection's failure in words, with the way out where there is one."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"has a certificate that is not trusted ({error.verify_message}); an authority of "
            "your own is named to the gateway by SSL_CERT_FILE"
        )
    if isinstance(error, ssl.SSLError):
        return f"does not speak TLS ({error.reason}); an http:// endpoint?"
    if isinstance(error, TimeoutError):
        return "does not answer in time"
    if isinstance(error, http.client.RemoteDisconnected | http.client.BadStatusLine):
        return "does not speak HTTP" + ("; an https:// endpoint?" if scheme == "http" else "")
    return f"cannot be reached ({getattr(error, 'strerror', None) or error})"


def name_some(models: Iterable[str]) -> str:
    """The first few names, in brackets."""
    names = sorted(models)
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (
        f" (it has: {', '.join(map(printable, names[:12]))}{more})" if names else " (it has none)"
    )
