"""Whether an engine that was ready still works: told apart from one that is busy, or slow.

An engine that does not answer is not yet one that hangs: the processor may belong to others, or
its own work keep it from answering. What speaks for it is progress: counters of tokens that move,
and, where it computes on the processor, processor time. On a GPU the time says nothing, since a
deadlocked engine spins. Pure: `replica.py` looks, and tells what it saw.
"""

from __future__ import annotations

from dataclasses import dataclass

HEALTH_SECONDS, AGAIN_SECONDS = 3.0, 0.5
"""Between two looks at the health route; and after one that was not answered."""
COMPUTE_SECONDS = 1.0
"""How long the processor time of an engine that does not answer is watched."""
ANSWER_SECONDS = 3.0
"""How long it may take to answer, of an engine on a processor: three misses take 16 seconds."""
GPU_ANSWER_SECONDS = 10.0
"""The same on a GPU, where no processor time can speak for it."""
TOKEN_SECONDS = 10.0
"""How long one token may take that is asked for where requests hear nothing."""
MISSES = 3
"""Looks in a row without a sign of life after which it hangs."""
IDLE_SHARE = 0.05
"""Up to this part of a core an engine may take while it does nothing: timers, polls."""


@dataclass(frozen=True)
class Look:
    """What one look saw.

    Attributes:
        answered: the health route, or the token asked for, was answered.
        has_moved: counters have moved since the look before; None: there are none, or they could
            not be read.
        computed_seconds: processor time since the look before; None where it does not count.
        seconds: how long that is ago.
    """

    answered: bool
    has_moved: bool | None = None
    computed_seconds: float | None = None
    seconds: float = HEALTH_SECONDS


class Health:
    """Counts the misses of one engine."""

    def __init__(self) -> None:
        self.misses = 0

    @property
    def is_hung(self) -> bool:
        """Whether it has missed so often that it counts as hung."""
        return self.misses >= MISSES

    def note(self, look: Look) -> None:
        """Takes a look into account: any sign of life forgives the misses before it."""
        if (
            look.answered
            or look.has_moved
            or (look.computed_seconds and look.computed_seconds > IDLE_SHARE * look.seconds)
        ):
            self.misses = 0
        else:
            self.misses += 1
