"""Inputs as rows of tokens: what may be cut of one that is too long, and the prompts of pairs.

Imports neither torch nor a library: tokenizers are handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Tokens = dict[str, list[int]]
SLICE = 1 << 17
"""Characters of a long text that become tokens in one call, at a hundred bytes for each."""
MARGIN = 64
"""Tokens beyond those that are wanted, since the last ones of a slice may be others."""
_FILLED = re.compile(r"\{(query|document|instruction)\}")


class Refused(Exception):
    """A request that cannot be served; `field` is what is wrong with it."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Cut:
    """What a request allows of inputs that are too long.

    Attributes:
        side: `start` or `end`, from which tokens are dropped; None: they are refused.
        most: tokens of an input, special ones included, if they are fewer than the model takes.
        most_of_document: tokens of a document that is ranked.
    """

    side: str | None = None
    most: int | None = None
    most_of_document: int | None = None

    @classmethod
    def of(cls, body: dict[str, Any]) -> Cut:
        """From a request's fields, as the gateway writes them."""
        return cls(body.get("truncate"), body.get("max_tokens"), body.get("max_document_tokens"))


@dataclass(frozen=True)
class Row:
    """One input. The tokens from `first` to `last` may be dropped: a text, or a document.

    `last` None: it is not known which may be. `is_part`: the input has more tokens than these.
    """

    tokens: Tokens
    first: int = 0
    last: int | None = None
    is_part: bool = False

    @property
    def length(self) -> int:
        """In tokens."""
        return len(self.tokens["input_ids"])

    def drop(self, count: int, side: str) -> Row:
        """Without `count` of those that may be dropped, of their start or their end."""
        assert self.last is not None
        begin, end = self.first, self.first + count
        if side == "end":
            begin, end = self.last - count, self.last
        tokens = {name: ids[:begin] + ids[end:] for name, ids in self.tokens.items()}
        return Row(tokens, self.first, self.last - count, self.is_part)


def fit(row: Row, limit: int, cut: Cut, name: str, field: str) -> Tokens:
    """The row's tokens, `limit` at most. `name` is the input's in messages, `field` its field's.

    Raises:
        Refused: it is too long, and may not be cut, or not so far.
    """
    most = limit if cut.most is None else min(limit, cut.most)
    if cut.most_of_document is not None:
        if row.last is None:
            raise Refused(f"{name}: the model's own template cannot be cut", field)
        excess = row.last - row.first - cut.most_of_document
        row = row.drop(excess, cut.side or "end") if excess > 0 else row
    excess = row.length - most
    if excess <= 0:
        return row.tokens
    more = "more than " if row.is_part else ""
    has = f"{name} has {more}{row.length} tokens, and the model takes {limit}"
    if cut.side is None:
        raise Refused(f"{has}; shorten it, or send truncate: end or start", field)
    if row.last is None:
        raise Refused(f"{has}; truncate: the model's own template cannot be cut", field)
    if row.last - row.first < excess:
        rest = row.length - (row.last - row.first)
        reason = f"{rest} of them are not its own (prompt, query, special tokens), and {most} fit"
        raise Refused(f"{name} cannot be truncated: {reason}", field)
    return row.drop(excess, cut.side).tokens


def part_of(text: str, count: Callable[[str], int], limit: int, side: str | None) -> str:
    """The text, or as much of its beginning as gives more than `limit` tokens.

    Of its end, where the start is cut. A text of megabytes never becomes tokens as a whole.
    """
    if len(text) <= 2 * SLICE:
        return text
    total = 0
    for at in range(SLICE, len(text), SLICE):
        piece = text[-at : len(text) - at + SLICE] if side == "start" else text[at - SLICE : at]
        total += count(piece)
        if total > limit + MARGIN:
            return text[-at:] if side == "start" else text[:at]
    return text


class PairPrompt:
    """The prompt with which a language model ranks: `template` has parts, each cut by itself."""

    def __init__(self, tokenizer: Any, template: Sequence[str], instruction: str | None) -> None:
        self._tokenizer = tokenizer
        self._instruction = instruction
        at = next(number for number, part in enumerate(template) if "{document}" in part)
        self._before, self._behind = template[:at], template[at + 1 :]
        self._head, _, self._tail = template[at].partition("{document}")

    @property
    def instructs(self) -> bool:
        """Whether it takes an instruction."""
        return self._instruction is not None

    def rows(self, query: str, documents: Sequence[str], instruction: str | None) -> list[Row]:
        """Each document's row, of which the document may be cut."""
        words = {"query": query, "instruction": instruction or self._instruction or ""}
        before = [token for part in self._before for token in self._ids(part, words)]
        behind = [token for part in self._behind for token in self._ids(part, words)]
        head, tail = _fill(self._head, words), _fill(self._tail, words)
        encoded = self._tokenizer(
            [f"{head}{document}{tail}" for document in documents],
            add_special_tokens=False,
            return_offsets_mapping=True,
        )
        rows = []
        for document, ids, offsets in zip(
            documents, encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            end = len(head) + len(document)
            first = next((n for n, place in enumerate(offsets) if place[1] > len(head)), len(ids))
            last = next((n for n, place in enumerate(offsets) if place[0] >= end), len(ids))
            whole = [*before, *ids, *behind]
            tokens = {"input_ids": whole, "attention_mask": [1] * len(whole)}
            rows.append(Row(tokens, len(before) + first, len(before) + max(first, last)))
        return rows

    def _ids(self, part: str, words: dict[str, str]) -> list[int]:
        return list(self._tokenizer(_fill(part, words), add_special_tokens=False)["input_ids"])


def _fill(part: str, words: dict[str, str]) -> str:
    # In one pass: a query may have braces of its own.
    return _FILLED.sub(lambda found: words[found[1]], part)
