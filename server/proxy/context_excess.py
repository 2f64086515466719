"""Tells a prompt that is longer than the context from an engine's other errors, by its words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CODE = "context_length_exceeded"
"""OpenAI's; clients cut their history, or give up, by it."""
# Each names the prompt's tokens and the context's, in whatever order.
_WORDS = (
    re.compile(
        r"maximum context length is (?P<context>\d+) tokens.*?"
        r"(?:requested|resulted in|has|contains)\D{0,40}?(?P<prompt>\d+) (?:input )?tokens",
        re.DOTALL | re.IGNORECASE,
    ),
    re.compile(
        r"\((?:length )?(?P<prompt>\d+)(?: tokens)?\)\D{0,60}(?:longer than|exceeds)\D{0,80}"
        r"(?P<context>\d+)",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?P<input>(?:input|documents)(?:\[\d+\])?)? ?"
        r"has (?P<prompt>\d+) tokens, and the (?:context|model takes) (?P<context>\d+)",
        re.IGNORECASE,
    ),
)


@dataclass(frozen=True)
class ContextExcess:
    """A prompt of `prompt` tokens for a context of `context`.

    `input`: where it stands, of several texts or documents.
    """

    prompt: int
    context: int
    input: str = ""

    @property
    def message(self) -> str:
        """In OpenAI's words, by which many clients know it."""
        subject, cut = ("the prompt", "")
        if self.input:
            subject, cut = self.input, "send truncate: end or start, "
        return (
            f"This model's maximum context length is {self.context} tokens. However, {subject} "
            f"has {self.prompt} tokens. Please shorten it, {cut}or launch the model with a longer "
            "--context-length."
        )


def find_excess(message: str, fields: Mapping[str, Any]) -> ContextExcess | None:
    """The excess that an engine's error tells of, by its fields or its words; None of others."""
    prompt, context = fields.get("n_prompt_tokens"), fields.get("n_ctx")
    if type(prompt) is int and type(context) is int:
        return ContextExcess(prompt, context)
    for pattern in _WORDS:
        if match := pattern.search(message[:2000]):
            place = match.groupdict().get("input") or ""
            return ContextExcess(int(match["prompt"]), int(match["context"]), place)
    return None
