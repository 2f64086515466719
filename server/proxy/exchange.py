"""One client's request while engines work on it."""

from __future__ import annotations

import asyncio
import time

from starlette.types import Scope

from paddock.launcher.fleet.activity import Lease
from paddock.registry.errors import Aborted, KeyRevoked, PaddockError
from paddock.server.access.keys import principal
from paddock.server.access.revocation import is_revoked
from paddock.server.http.protocol import outlet
from paddock.server.proxy.sinks import PartSink, UpstreamLost
from paddock.server.proxy.steps import Encoder, OpenAI
from paddock.server.proxy.upstream import SILENCE_SECONDS, Upstream
from paddock.server.telemetry.timeline import Timeline


class Exchange:
    """One client's request, and the connections to engines that work on it."""

    def __init__(self, scope: Scope, timeline: Timeline) -> None:
        self.out = out = outlet(scope)
        self.timeline = timeline
        self.caller = principal(scope)
        # Without keys, all that can be told is the machine.
        self.client = self.caller.id or str((scope.get("client") or ("",))[0])
        self.content_type = ""
        for name, value in scope["headers"]:
            if name == b"content-type":
                self.content_type = value.decode("latin-1")
                break
        self.encoder: Encoder = OpenAI()
        self.silence_seconds = SILENCE_SECONDS
        self.aborted = False
        self._live: set[Upstream] = set()
        self._sinks: list[PartSink] = []
        self._task = asyncio.current_task()
        out.on_disconnect = self._on_disconnect
        out.on_backpressure = self._on_backpressure
        out.on_drain = self._on_drain

    async def send_and_wait(
        self, upstream: Upstream, lease: Lease, request: bytes, sink: PartSink, reusable: bool
    ) -> PartSink:
        """Sends the request and waits until the sink has the whole answer.

        However it ends before that, the connection is closed, which tells the engine to stop. So
        it is when the engine sends nothing for `silence_seconds`. The lease knows meanwhile how
        long its engine has been silent, and can end the work of one that hangs.

        Raises:
            UpstreamLost: the connection broke off, or the lease was revoked.
            EngineRefused, EngineSilent, AlreadyTold: as the sink says.
        """
        if lease.revoked:
            raise UpstreamLost(lease.revoked)
        lease.attach(upstream, upstream.break_off)
        self._live.add(upstream)
        self._sinks.append(sink)
        try:
            self.timeline.sent = time.perf_counter()
            upstream.ask(request, sink, reusable, self.silence_seconds)
            if self.out.is_full:  # told by a callback only when that changes
                upstream.pause()
            await sink.done
        except Exception as error:  # whatever it is, its traceback must not hold the sink
            if isinstance(error, UpstreamLost):
                self._sinks.remove(sink)  # another connection or replica takes its place
            sink.drop_error()
            raise
        finally:
            self._live.discard(upstream)
            upstream.release()
            lease.detach()
        return sink

    @property
    def is_complete(self) -> bool:
        """Whether the client has the whole answer."""
        return bool(self._sinks) and all(sink.is_complete for sink in self._sinks)

    def abort(self) -> None:
        """Ends it as if its client had left; the client is told."""
        self.aborted = True
        self._on_disconnect()

    def _on_disconnect(self) -> None:
        # At once, and not when the task comes to it: the engine shall stop within milliseconds.
        for upstream in self._live:
            upstream.abort()
        if self._task is not None:
            self._task.cancel()

    def _on_backpressure(self) -> None:
        for upstream in self._live:
            upstream.pause()

    def _on_drain(self) -> None:
        for upstream in self._live:
            upstream.resume()


def reason_of_cancel(exchange: Exchange, scope: Scope) -> PaddockError | None:
    """Why the gateway itself cancelled a request; None if it did not."""
    if is_revoked(scope):
        return KeyRevoked(exchange.caller.id)
    return Aborted() if exchange.aborted else None
