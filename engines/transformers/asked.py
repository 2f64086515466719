"""The messages between `serve.py` and `worker.py`; without torch, which only the worker imports."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


@dataclass(frozen=True)
class Sampling:
    """How one request's tokens are chosen."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    top_logprobs: int | None = None
    grammar: str = ""
    """In llguidance's words; the answer is one of its texts. Empty: any."""

    @cached_property
    def as_is(self) -> bool:
        """Whether the scores are used unchanged."""
        plain = self.presence_penalty == self.frequency_penalty == 0
        return plain and self.repetition_penalty == 1 and not self.logit_bias

    @cached_property
    def drawn(self) -> bool:
        """Whether the token is drawn from the full vocabulary, with only a temperature applied."""
        narrow = self.top_k or self.min_p or self.top_p < 1
        return self.temperature > 0 and not narrow and self.as_is


class Token(NamedTuple):
    """One chosen token, with its log probability and the likeliest ones if the request wants them.

    Probabilities are the model's own, before temperature and penalties, as OpenAI's are.
    """

    id: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


class Ask(NamedTuple):
    """One request: tokens of the prompt, sampling, the most tokens, and the tokens that end it."""

    prompt: list[int]
    sampling: Sampling
    most: int
    ends: list[int]


class Loaded(NamedTuple):
    """Facts about the model for the front: its vocabulary, and the tokens that end its texts."""

    vocabulary: int
    ends: int | list[int] | None
