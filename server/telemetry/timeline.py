"""One request's timeline: what `Server-Timing` and the metrics say of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Timeline:
    """Moments of one request, in seconds of `time.perf_counter`; 0.0 where it never came to it.

    Attributes:
        route: the path, such as `/v1/chat/completions`.
        asked: when it was understood, and a replica was looked for.
        taken: when a replica was free for it.
        sent: when the request was on its way to the engine.
        first: when the engine's first byte of an answer came.
        events: events of a stream that were passed on; about one a token.
        cached_tokens: of the prompt, those that the engine had kept; None: it does not say.
        status: the HTTP status that the client got; 499 where it left first.
    """

    route: str
    uid: str = ""
    replica_id: str = ""
    streamed: bool = False
    received: float = field(default_factory=time.perf_counter)
    asked: float = 0.0
    taken: float = 0.0
    sent: float = 0.0
    first: float = 0.0
    done: float = 0.0
    events: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    status: int = 0

    def count(self, usage: Mapping[str, Any]) -> None:
        """Adds what an engine's `usage` says; it was checked to be of OpenAI's shape."""
        self.prompt_tokens += usage.get("prompt_tokens") or 0
        self.completion_tokens += usage.get("completion_tokens") or 0
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        if isinstance(cached, int):
            self.cached_tokens = (self.cached_tokens or 0) + cached

    @property
    def queue_seconds(self) -> float:
        """The wait for a free slot."""
        return max(0.0, self.taken - self.asked) if self.taken else 0.0

    @property
    def gateway_seconds(self) -> float:
        """What the gateway itself took until the request was on its way to the engine."""
        if not self.sent:
            return 0.0
        return max(0.0, self.sent - self.received - self.queue_seconds)

    @property
    def engine_seconds(self) -> float:
        """The wait for the engine's first byte."""
        return self.first - self.sent if self.first and self.sent else 0.0

    def describe(self) -> str:
        """One line for the log: what was asked, of whom, how it ended, and when."""
        seconds = self.done - self.received
        whom = f"{self.uid!r} on {self.replica_id or 'no replica'}"
        return f'"POST {self.route}" {self.status} in {seconds:.3f} s, {whom}: {self.header()}'

    def header(self) -> str:
        """The `Server-Timing` header, in milliseconds, as it stands when the answer begins."""
        queue, gateway, engine = self.queue_seconds, self.gateway_seconds, self.engine_seconds
        return (
            f"queue;dur={queue * 1000:.2f}, gateway;dur={gateway * 1000:.2f}, "
            f"engine;dur={engine * 1000:.2f}"
        )
