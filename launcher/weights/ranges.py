"""Reads small files and the beginnings of large ones of a repository, and keeps nothing.

A header is fetched in blocks that grow, each by a range request; what a server sends beyond that
is not read. Both are bounded, whatever the server answers.
"""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING

from paddock.launcher.weights.base import Hub, Listing, RemoteFile, Terms, one_line
from paddock.launcher.weights.intermediary import by_proxy, refusal_between
from paddock.launcher.weights.transfer import PASSING, Trouble, retry, retry_after
from paddock.launcher.weights.verified import Digest
from paddock.registry.errors import CorruptFile, HubFailure

if TYPE_CHECKING:
    import httpx2

FIRST_BYTES = 256 << 10
MOST_BYTES = 64 << 20
"""Of one header; the largest known is 16 MB."""
_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")


class Reading:
    """Reads files of one listing. Close it at the end."""

    def __init__(self, hub: Hub, listing: Listing, terms: Terms) -> None:
        import httpx2  # here, because the gateway imports this package and reads nothing

        self.hub = hub
        self.listing = listing
        self._terms = terms
        self._client = httpx2.Client(
            follow_redirects=True,
            timeout=httpx2.Timeout(terms.silence, connect=terms.timeout),
        )

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def read_checked(self, file: RemoteFile) -> bytes:
        """A small file, checked by its digest.

        Raises:
            HubFailure: with the cause.
        """
        data = self.part(file, 0, file.size_bytes)
        digest = Digest(file.digest, file.size_bytes)
        digest.add(data)
        if not digest.fits:
            title = self.hub.title
            reason = f"{self.listing.id}: the bytes of {file.name} are not those that {title} lists"
            raise HubFailure("checksum_mismatch", reason)
        return data

    def part(self, file: RemoteFile, start: int, count: int) -> bytes:
        """So many bytes of the file, or all to its end. Raises `HubFailure`."""
        count = min(count, file.size_bytes - start)
        if count <= 0:
            return b""
        data = b""

        def attempt() -> bool:
            nonlocal data
            data = self._ask(file, start, count)
            return True

        label = f"{self.listing.id}, {file.name}"
        retry(attempt, label, self.hub, self._terms, threading.Event())
        return data

    def _ask(self, file: RemoteFile, start: int, count: int) -> bytes:
        import httpx2

        request = self.hub.request(self.listing, file)
        headers = {**request.headers, "Accept-Encoding": "identity"}
        if count < file.size_bytes:
            headers["Range"] = f"bytes={start}-{start + count - 1}"
        try:
            with self._client.stream("GET", request.url, headers=headers) as answer:
                # A server that ignores ranges begins with the first byte.
                before = 0 if self._check(answer, file, start) else start
                return self._take(answer, before, count)
        except httpx2.TimeoutException as error:
            reason = f"no byte for {self._terms.silence:g} s"
            raise Trouble("stalled", reason) from error
        except httpx2.HTTPError as error:
            reason = f"{one_line(error)}{by_proxy(request.url)}"
            raise Trouble("hub_unreachable", reason) from error

    def _take(self, answer: httpx2.Response, before: int, count: int) -> bytes:
        """The `count` bytes behind the first `before`; the rest is not read."""
        data = bytearray()
        for piece in answer.iter_raw():
            data += piece[before:]
            before = max(0, before - len(piece))
            if len(data) >= count:
                return bytes(data[:count])
        raise Trouble("hub_unreachable", "the connection was closed before the end")

    def _check(self, answer: httpx2.Response, file: RemoteFile, start: int) -> bool:
        """Whether the range comes; false if the whole file does."""
        status, size = answer.status_code, file.size_bytes
        if status in PASSING:
            cause = "rate_limited" if status == 429 else "hub_unreachable"
            raise Trouble(cause, f"HTTP {status}", retry_after(answer.headers, time.time()))
        if status == 206:
            match = _RANGE.fullmatch(answer.headers.get("content-range", ""))
            if match is None or int(match[1]) != start or int(match[3]) != size:
                raise Trouble("hub_unreachable", "another range came than the one asked for")
            return True
        if status != 200:
            hub = self.hub
            between = refusal_between(hub.title, hub.endpoint, status, answer.headers)
            if between is not None:
                raise between
            code = answer.headers.get("x-error-code", "")
            raise self.hub.refused(self.listing, file.name, status, code)
        length = answer.headers.get("content-length", "")
        if length.isdigit() and int(length) != size:
            raise HubFailure(
                "checksum_mismatch",
                f"{self.listing.id}: {self.hub.title} lists {file.name} with {size} bytes and "
                f"sends {length}",
            )
        return False


class RangedBytes:
    """The beginning of a file on a hub, as far as it is read: a `registry.gguf.ByteSource`."""

    def __init__(self, reading: Reading, file: RemoteFile) -> None:
        self.name = file.name
        self.length = file.size_bytes
        self._reading = reading
        self._file = file
        self._data = bytearray()

    @property
    def fetched(self) -> bytes:
        """All that was fetched, from the file's first byte on."""
        return bytes(self._data)

    def read(self, start: int, count: int) -> bytes:
        """The bytes from `start` on; what was not fetched yet is, in blocks that double.

        Raises:
            CorruptFile: it is asked for more than any header has.
            HubFailure: with the cause.
        """
        end = min(start + count, self.length)
        if end > MOST_BYTES:
            raise CorruptFile(self.name, f"its header is longer than {MOST_BYTES >> 20} MiB")
        while len(self._data) < end:
            have = len(self._data)
            block = max(FIRST_BYTES, have, end - have)
            self._data += self._reading.part(self._file, have, min(block, MOST_BYTES - have))
        return bytes(self._data[start:end])
