"""Whether an engine's event has OpenAI's shape, as far as the gateway looks into it.

Attached endpoints are anybody's servers. What they send passes through code that adds texts up and
looks into choices, so that it is checked once, where it comes in. Fields that the gateway only
hands on are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MAX_INDEX = 1000
"""Of a choice or a tool call: lists are made as long as the highest index."""

Fault = str | None
Check = Callable[[Any], Fault]


def fault(event: Mapping[str, Any]) -> Fault:
    """What is wrong with an event, in words; None if nothing is."""
    return None if _is_usual(event) else _fields(event, _EVENT, "")


def _is_usual(event: Mapping[str, Any]) -> bool:
    """Whether it is one choice with text and little else, as nearly all are, and right.

    The tables say the same, and take longer.
    """
    choices = event.get("choices")
    if type(choices) is not list or len(choices) != 1 or "__verbose" in event:
        return False
    if event.get("usage") is not None:
        return False
    choice = choices[0]
    if type(choice) is not dict or choice.get("logprobs") is not None:
        return False
    index, delta = choice.get("index", 0), choice.get("delta", _NO_DELTA)
    return (
        type(index) is int
        and 0 <= index <= MAX_INDEX
        and type(choice.get("text", "")) is str
        and type(choice.get("finish_reason")) in _TEXT_OR_NONE
        and type(delta) is dict
        and "tool_calls" not in delta
        and type(delta.get("content")) in _TEXT_OR_NONE
        and type(delta.get("reasoning_content")) in _TEXT_OR_NONE
    )


_NO_DELTA: Mapping[str, Any] = {}
_TEXT_OR_NONE = frozenset((str, type(None)))


def _fields(value: Mapping[str, Any], checks: Mapping[str, Check], at: str) -> Fault:
    for name, check in checks.items():
        inner = value.get(name)
        wrong = check(inner) if inner is not None else None
        if wrong:
            return f"{at}{name}{wrong}"
    return None


def _object(checks: Mapping[str, Check]) -> Check:
    def check(value: Any) -> Fault:
        if not isinstance(value, dict):
            return " is not an object"
        return _fields(value, checks, ".")

    return check


def _list(checks: Mapping[str, Check], needed: tuple[str, ...] = ()) -> Check:
    def check(value: Any) -> Fault:
        if not isinstance(value, list):
            return " is not a list"
        for index, one in enumerate(value):
            at = f"[{index}]"
            if not isinstance(one, dict):
                return f"{at} is not an object"
            missing = next((name for name in needed if one.get(name) is None), None)
            wrong = f".{missing} is missing" if missing else _fields(one, checks, ".")
            if wrong:
                return at + wrong
        return None

    return check


def _text(value: Any) -> Fault:
    return None if isinstance(value, str) else " is not text"


def _spoken(value: Any) -> Fault:
    # Some send parts, as requests have them; see `steps.plain`.
    return None if isinstance(value, str | list) else " is neither text nor a list"


def _number(value: Any) -> Fault:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if is_number else " is not a number"


def _count(value: Any) -> Fault:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    return None if is_count else " is not a count"


def _index(value: Any) -> Fault:
    is_index = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INDEX
    return None if is_index else f" is not a whole number up to {MAX_INDEX}"


def _logprobs(value: Any) -> Fault:
    """In the shape of chats, or in that of old completions, where every field is a list."""
    if not isinstance(value, dict):
        return " is not an object"
    for name, inner in value.items():
        if inner is not None and not isinstance(inner, list):
            return f".{name} is not a list"
    return _fields(value, {"content": _list(_TOKEN, ("token", "logprob"))}, ".")


_TOP: Mapping[str, Check] = {"token": _text, "logprob": _number}
_TOKEN: Mapping[str, Check] = {**_TOP, "top_logprobs": _list(_TOP, ("token", "logprob"))}
_CALL: Mapping[str, Check] = {
    "index": _index,
    "id": _text,
    "function": _object({"name": _text, "arguments": _text}),
}
_DELTA: Mapping[str, Check] = {
    "content": _spoken,
    "reasoning_content": _spoken,
    "tool_calls": _list(_CALL),
}
_CHOICE: Mapping[str, Check] = {
    "index": _index,
    "text": _text,
    "delta": _object(_DELTA),
    "finish_reason": _text,
    "logprobs": _logprobs,
}
_USAGE: Mapping[str, Check] = {
    "prompt_tokens": _count,
    "completion_tokens": _count,
    "prompt_tokens_details": _object({"cached_tokens": _count}),
    "completion_tokens_details": _object({"reasoning_tokens": _count}),
}
_EVENT: Mapping[str, Check] = {
    "choices": _list(_CHOICE),
    "usage": _object(_USAGE),
    "__verbose": _object({"stopping_word": _text}),
}
