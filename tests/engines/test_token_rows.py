"""Rows of tokens: what is dropped of one that is too long, and prompts of pairs."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from paddock.engines.sentence_transformers import token_rows
from paddock.engines.sentence_transformers.token_rows import (
    Cut,
    PairPrompt,
    Refused,
    Row,
    fit,
    part_of,
)


def row(count: int, first: int, last: int | None) -> Row:
    """A row of the numbers from 0 on."""
    return Row({"input_ids": list(range(count)), "attention_mask": [1] * count}, first, last)


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        (Cut("end"), [0, 1, 2, 3, 4, 9]),
        (Cut("start"), [0, 5, 6, 7, 8, 9]),
        (Cut("end", most=4), [0, 1, 2, 9]),
        (Cut("end", most=400), [0, 1, 2, 3, 4, 9]),
        (Cut("end", most_of_document=2), [0, 1, 2, 9]),
        (Cut("start", most_of_document=2), [0, 7, 8, 9]),
        (Cut(most_of_document=4), [0, 1, 2, 3, 4, 9]),
    ],
)
def test_what_stands_around_a_text_stays(cut: Cut, kept: list[int]) -> None:
    """Six of ten fit; eight of them may be dropped."""
    tokens = fit(row(10, 1, 9), 6, cut, "input", "input")
    assert tokens == {"input_ids": kept, "attention_mask": [1] * len(kept)}


@pytest.mark.parametrize(
    ("given", "cut", "says"),
    [
        (row(10, 1, 9), Cut(), "input has 10 tokens, and the model takes 6; shorten it, or send"),
        (row(10, 8, 9), Cut("end"), "9 of them are not its own"),
        (row(10, 0, None), Cut("end"), "own template cannot be cut"),
        (row(5, 0, None), Cut(most_of_document=2), "own template cannot be cut"),
        (Row(row(10, 1, 9).tokens, 1, 9, is_part=True), Cut(), "more than 10 tokens"),
    ],
)
def test_what_cannot_be_cut_is_refused(given: Row, cut: Cut, says: str) -> None:
    """With the numbers; what fits is not even looked at."""
    with pytest.raises(Refused, match=says):
        fit(given, 6, cut, "input", "input")
    assert fit(given, 10, Cut(), "input", "input") == given.tokens


def test_a_long_text_is_read_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of it has the same first, or last, tokens as the whole."""
    monkeypatch.setattr(token_rows, "SLICE", 100)
    monkeypatch.setattr(token_rows, "MARGIN", 5)
    chance = random.Random(0)
    for _ in range(200):
        words = [chance.choice("ab") * chance.randint(1, 9) for _ in range(chance.randint(1, 400))]
        text, limit = " ".join(words), chance.randint(1, 60)
        first = part_of(text, count, limit, chance.choice((None, "end")))
        assert first.split()[:limit] == words[:limit]
        last = part_of(text, count, limit, "start")
        assert last.split()[-limit:] == words[-limit:]
        longest = 200 + 2 * 10 * (limit + 100)
        assert max(len(first), len(last)) <= longest
        assert text.startswith(first)
        assert text.endswith(last)


def count(text: str) -> int:
    return len(text.split())


class Words:
    """A tokenizer that takes a word with the space before it for a token."""

    def __call__(self, texts: Any, **_: Any) -> dict[str, Any]:
        if isinstance(texts, str):
            return {"input_ids": [self._id(found[0]) for found in self._of(texts)]}
        return {
            "input_ids": [[self._id(found[0]) for found in self._of(text)] for text in texts],
            "offset_mapping": [[found.span() for found in self._of(text)] for text in texts],
        }

    @staticmethod
    def _of(text: str) -> list[re.Match[str]]:
        return list(re.finditer(r" ?\w+| ?[^\w ]| ", text))

    @staticmethod
    def _id(word: str) -> int:
        return sum(word.encode())


def test_a_prompts_places_are_filled_at_once() -> None:
    """A query may name places of its own; the tokens of the document are known."""
    prompt = PairPrompt(Words(), ("<", "{instruction} {query} / {document} .", ">"), "Rank")
    (one, other) = prompt.rows("what {document} is", ["a b", ""], None)
    text = "Rank what {document} is / a b ."
    ids = Words()(text)["input_ids"]
    assert one.tokens["input_ids"] == [ord("<"), *ids, ord(">")]
    assert [one.tokens["input_ids"][at] for at in range(one.first, one.last or 0)] == [
        Words()(" a")["input_ids"][0],
        Words()(" b")["input_ids"][0],
    ]
    assert other.first == other.last
    (told,) = prompt.rows("q", ["a"], "Sort")
    assert told.tokens["input_ids"][1] == Words()("Sort")["input_ids"][0]
