"""The shape of engines' events: what is usual is decided quickly, and never wrongly."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from paddock.server.proxy.shape import _EVENT, _fields, _is_usual

ODD: st.SearchStrategy[Any] = st.sampled_from([None, 0, 1, -1, 10**6, True, 0.5, "a", "", [], {}])


def fields(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), ODD)


DELTAS = fields(["content", "reasoning_content", "tool_calls", "role"])
CHOICES = st.builds(
    lambda choice, delta: {**choice, **({} if delta is None else {"delta": delta})},
    fields(["index", "text", "finish_reason", "logprobs", "delta"]),
    st.none() | DELTAS,
)
EVENTS = st.builds(
    lambda event, choices: {**event, "choices": choices},
    fields(["usage", "__verbose", "id"]),
    st.lists(CHOICES | ODD, max_size=2) | ODD,
)


@given(EVENTS)
def test_what_is_usual_is_right(event: dict[str, Any]) -> None:
    """The short way passes nothing that the tables refuse."""
    if _is_usual(event):
        assert _fields(event, _EVENT, "") is None


def test_a_chunk_is_usual() -> None:
    """What engines send for each token takes the short way."""
    for part in ({"text": "a"}, {"delta": {"content": "a", "role": "assistant"}}, {"text": ""}):
        for end in (None, "stop"):
            assert _is_usual({"id": "x", "choices": [{"index": 0, **part, "finish_reason": end}]})
