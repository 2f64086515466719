"""Brings one file's bytes: taken up where they stopped, checked as they come, ended on demand.

The hubs' clients cannot do this: they begin anew in a new process, or give up at a reset, or check
nothing. Addresses and credentials are theirs; the part stands where they would put it.
"""

from __future__ import annotations

import contextlib
import email.utils
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from errno import EDQUOT, EFBIG, ENOSPC
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.launcher.weights.base import (
    Cancelled,
    Hub,
    Listing,
    RemoteFile,
    Terms,
    cancelled_failure,
    one_line,
)
from paddock.launcher.weights.intermediary import by_proxy, refusal_between
from paddock.launcher.weights.verified import PIECE, Digest
from paddock.registry.errors import HubFailure

if TYPE_CHECKING:
    import httpx2

FULL = {ENOSPC, EDQUOT, EFBIG}
PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Answers that are worth asking again for."""
_RANGE = re.compile(r"bytes ([0-9]+)-[0-9]+/([0-9]+|\*)")
_GUARD_SECONDS = 0.05


@dataclass
class Trouble(Exception):
    """One try that failed and may be repeated, after `retry_after` seconds if the hub said so."""

    cause: str
    reason: str
    retry_after: float | None = None


@dataclass(frozen=True)
class Pulse:
    """Called as bytes come: `present` for those of an earlier try, `received` for new ones."""

    present: Callable[[int], None]
    received: Callable[[int], None]


def disk_full_failure(label: str, error: OSError) -> HubFailure:
    """The failure of a disk that filled while it was written to."""
    reason = f"the disk is full while downloading {label} ({error.strerror}); what came is kept"
    return HubFailure("disk_full", f"{reason}; free some, and launch again")


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that a `Retry-After` asks for, as a number or a date; None without one."""
    text = headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except ValueError:
        return None


def retry(
    attempt: Callable[[], bool], label: str, hub: Hub, terms: Terms, cancelled: Cancelled
) -> None:
    """Calls `attempt` until it is done; it returns whether it got further, and is then called anew.

    Raises:
        HubFailure: the last trouble's, after `Terms.tries` in a row that led no further.
    """
    failed = 0
    while True:
        if cancelled.is_set():
            raise cancelled_failure(label)
        try:
            if attempt():
                return
            failed = 0
            continue
        except Trouble as trouble:
            failed += 1
            last = trouble
        seconds = last.retry_after
        if failed >= terms.tries or (seconds or 0.0) > terms.longest_pause:
            hint = f"; {hub.title} asks to wait {seconds:.0f} s" if seconds else ""
            attempts = f"{hub.title}, {hub.endpoint}: {last.reason} ({failed} times in a row)"
            raise HubFailure(last.cause, f"{label}: {last.reason}{hint}", (attempts,))
        pause = seconds if seconds is not None else terms.pause * 2 ** (failed - 1)
        if cancelled.wait(min(pause, terms.longest_pause)):
            raise cancelled_failure(label)


class Transfer:
    """Downloads files of one listing. Use from several threads; close at the end."""

    def __init__(self, hub: Hub, listing: Listing, terms: Terms, cancelled: Cancelled) -> None:
        import httpx2  # here, because the gateway imports this module and downloads nothing

        self._hub = hub
        self._listing = listing
        self._terms = terms
        self._cancelled = cancelled
        self._client = httpx2.Client(
            follow_redirects=True,
            timeout=httpx2.Timeout(terms.silence, connect=terms.timeout),
            # Each request on a connection of its own, which the guard then knows.
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def bring(self, file: RemoteFile, part: Path, pulse: Pulse) -> str:
        """Fills the part until it is the whole file, and returns its digest.

        A part of an earlier process is read and built upon. What turns out wrong is deleted and
        fetched once more from its beginning.

        Raises:
            HubFailure: with the cause; the part is left for the next time, unless it is wrong.
        """
        for _ in range(2):
            digest = self._filled(file, part, pulse)
            if digest.fits:
                return digest.text
            part.unlink()
            pulse.present(0)
        address = f"{self._hub.title}, {self._hub.endpoint}"
        raise HubFailure(
            "checksum_mismatch",
            f"{self._listing.id}: the bytes of {file.name} are not those that {self._hub.title} "
            f"lists (it says {digest.expected}, they are {digest.text}); nothing of them is kept",
            (f"{address}: {file.name} twice",),
        )

    def _filled(self, file: RemoteFile, part: Path, pulse: Pulse) -> Digest:
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("a+b", buffering=0) as out:
                stream = _Stream(file, out, pulse, Digest(file.digest, file.size_bytes))
                stream.take_up(self._cancelled, self._listing.id)
                what = f"{self._listing.id}, {file.name}"
                if stream.have < file.size_bytes:
                    retry(
                        lambda: self._go_on(stream), what, self._hub, self._terms, self._cancelled
                    )
                return stream.digest
        except OSError as error:
            if error.errno in FULL:
                raise disk_full_failure(f"{self._listing.id}, {file.name}", error) from error
            raise

    def _go_on(self, stream: _Stream) -> bool:
        """One request; whether the file is complete now. Raises `Trouble` if it got nowhere."""
        begin = stream.have
        try:
            self._request(stream)
        except Trouble:
            if stream.have == begin:
                raise
        if stream.have == begin:
            raise Trouble("hub_unreachable", "the connection was closed before the end")
        return stream.have == stream.file.size_bytes

    def _request(self, stream: _Stream) -> None:
        import httpx2

        request = self._hub.request(self._listing, stream.file)
        headers = {**request.headers, "Accept-Encoding": "identity"}
        if stream.have:
            headers["Range"] = f"bytes={stream.have}-"
        guard = _Guard(self._cancelled)
        try:
            with (
                guard,
                self._client.stream(
                    "GET", request.url, headers=headers, extensions={"trace": guard.trace}
                ) as answer,
            ):
                self._check(answer, stream)
                for data in answer.iter_raw():
                    stream.add(data)
        except httpx2.TimeoutException as error:
            connecting = isinstance(error, httpx2.ConnectTimeout)
            seconds = self._terms.timeout if connecting else self._terms.silence
            cause = "hub_unreachable" if connecting else "stalled"
            raise Trouble(cause, f"no byte for {seconds:g} s") from error
        except httpx2.HTTPError as error:
            reason = f"{one_line(error)}{by_proxy(request.url)}"
            raise Trouble("hub_unreachable", reason) from error
        finally:
            if self._cancelled.is_set():
                raise cancelled_failure(self._listing.id)

    def _check(self, answer: httpx2.Response, stream: _Stream) -> None:
        """Checks that the answer is the requested file, from the requested byte."""
        status, size = answer.status_code, stream.file.size_bytes
        if status in PASSING:
            cause = "rate_limited" if status == 429 else "hub_unreachable"
            wait = retry_after(answer.headers, time.time())
            raise Trouble(cause, f"HTTP {status}", wait)
        if status == 206:
            match = _RANGE.fullmatch(answer.headers.get("content-range", ""))
            if match is None or int(match[1]) != stream.have:
                stream.restart()
                raise Trouble("hub_unreachable", "another range came than the one asked for")
            self._check_size(match[2], stream.file)
        elif status == 200:
            self._check_size(answer.headers.get("content-length", "*"), stream.file)
            stream.restart()  # it ignores ranges and sends the whole file
        elif status == 416:
            stream.restart()
            raise Trouble("hub_unreachable", f"HTTP 416 for a range within {size} bytes")
        else:
            hub = self._hub
            between = refusal_between(hub.title, hub.endpoint, status, answer.headers)
            if between is not None:
                raise between
            code = answer.headers.get("x-error-code", "")
            raise self._hub.refused(self._listing, stream.file.name, status, code)

    def _check_size(self, length: str, file: RemoteFile) -> None:
        if length.isdigit() and int(length) != file.size_bytes:
            raise HubFailure(
                "checksum_mismatch",
                f"{self._listing.id}: {self._hub.title} lists {file.name} with {file.size_bytes} "
                f"bytes and sends {length}",
            )


class _Stream:
    """A part that grows, with its digest so far."""

    def __init__(self, file: RemoteFile, out: FileIO, pulse: Pulse, digest: Digest) -> None:
        self.file = file
        self.digest = digest
        self.have = 0
        self._out = out
        self._pulse = pulse

    def take_up(self, cancelled: Cancelled, label: str) -> None:
        """Reads what an earlier process left."""
        if os.fstat(self._out.fileno()).st_size > self.file.size_bytes:
            self._out.truncate(0)
        self._out.seek(0)
        while data := self._out.read(PIECE):
            if cancelled.is_set():
                raise cancelled_failure(label)
            self.digest.add(data)
            self.have += len(data)
            self._pulse.present(self.have)

    def restart(self) -> None:
        """Back to the first byte."""
        if self.have:
            self._out.truncate(0)
            self.have = 0
            self.digest = Digest(self.file.digest, self.file.size_bytes)
            self._pulse.present(0)

    def add(self, data: bytes) -> None:
        """The next bytes; more than the file has are an error of the hub, and are cut off."""
        data = data[: self.file.size_bytes - self.have]
        view = memoryview(data)
        while view:
            written = self._out.write(view)
            self.digest.add(bytes(view[:written]) if written < len(data) else data)
            self.have += written
            view = view[written:]
        self._pulse.received(self.have)


class _Guard:
    """Breaks a connection off as soon as its download is called off, whatever it waits for."""

    def __init__(self, cancelled: Cancelled) -> None:
        self._cancelled = cancelled
        self._done = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True, name="download guard")

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Hears from the client of each connection that it makes."""
        stream = info.get("return_value")
        if event.endswith(("connect_tcp.complete", "start_tls.complete")) and stream is not None:
            raw = stream.get_extra_info("socket")
            if raw is not None:
                # A handle of our own: Python's objects are not to be closed under their user.
                self._close()
                self._socket = socket.socket(fileno=os.dup(raw.fileno()))

    def __enter__(self) -> _Guard:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._close()

    def _watch(self) -> None:
        while not self._done.wait(_GUARD_SECONDS):
            if self._cancelled.is_set() and self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
