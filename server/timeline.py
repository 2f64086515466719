"""One request's timeline: what `Server-Timing` and the metrics say of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Timeline:
    """Moments of one request, in seconds of `time.perf_counter`; 0.0 where it never came to it.

    Attributes:
        route: the path, such as `/v1/chat/completions`.
        taken: when a replica was free for it; the time before is the queue's.
        sent: when the request was on its way to the engine.
        first: when the engine's first byte of an answer came.
        events: events of a stream that were passed on; about one a token.
        status: the HTTP status that the client got; 499 where it left first.
    """

    route: str
    uid: str = ""
    replica_id: str = ""
    streamed: bool = False
    received: float = field(default_factory=time.perf_counter)
    taken: float = 0.0
    sent: float = 0.0
    first: float = 0.0
    done: float = 0.0
    events: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    status: int = 0

    def header(self) -> str:
        """The `Server-Timing` header, in milliseconds, as it stands when the answer begins.

        `queue` is the wait for a free slot, `engine` the wait for its first byte, `gateway` the
        rest.
        """
        queue = self.taken - self.received if self.taken else 0.0
        engine = self.first - self.sent if self.first and self.sent else 0.0
        total = (self.first or time.perf_counter()) - self.received
        parts = (
            ("queue", queue),
            ("gateway", max(0.0, total - queue - engine)),
            ("engine", engine),
        )
        return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in parts)
