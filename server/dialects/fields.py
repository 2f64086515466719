"""Request fields, the same for every engine: each is honoured, translated, emulated or refused.

`openai.py` first takes out what the gateway does itself (`stream`, `n`, `echo`, lists of prompts).
Then a value that asks for nothing (`best_of` 1, `suffix` null) is dropped; a field that the engine
has is passed; one that it has under another name is renamed. The rest is refused with 400, by name:
nothing is dropped in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from paddock.engines.base import RequestFields
from paddock.registry.errors import BadValue, FieldRefused, near
from paddock.registry.json_codec import encode
from paddock.server.dialects.base import Body, Model
from paddock.server.http import large

MAX_CHOICES = 128
"""Answers that one request may ask for: prompts × `n`."""
MAX_SEED = 2**63
"""Seeds are below: engines read them as signed numbers of 64 bits."""

Check = Callable[[Any], str | None]


Neutral = Mapping[str, tuple[Any, ...] | None]
"""Field → values that ask for nothing; None: whatever the value."""


def asks_nothing(neutral: Neutral, name: str, value: Any) -> bool:
    """Whether a field with this value may be left out."""
    if name not in neutral:
        return False
    values = neutral[name]
    return values is None or value in values


def _number(low: float, high: float) -> Check:
    def check(value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "must be a number"
        # Comparing is exact: a whole number may be too large for a float. NaN lies nowhere.
        if not low <= value <= high:
            return f"must lie between {low:g} and {high:g}"
        return None

    return check


def _whole(low: int, high: int = 2**31 - 1) -> Check:
    def check(value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return "must be a whole number"
        if not low <= value <= high:
            return f"must lie between {low} and {high}"
        return None

    return check


def _bool(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else "must be text"


def _object(value: Any) -> str | None:
    return None if isinstance(value, dict) else "must be an object"


def _logprobs(value: Any) -> str | None:
    return None if isinstance(value, bool) else _whole(0, 20)(value)


def _stop(value: Any) -> str | None:
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        return "must be text, or a list of texts"
    return "must not be empty: every answer would end before it begins" if "" in texts else None


def _bias(value: Any) -> str | None:
    if not isinstance(value, dict):
        return "must map token ids to numbers from -100 to 100"
    for token, bias in value.items():
        if not token.isascii() or not token.isdigit():
            return f"'{token}' is no token id"
        if _number(-100, 100)(bias):
            return f"of token {token} must be a number from -100 to 100"
    return None


def is_token_ids(value: Any) -> bool:
    """Whether it is a prompt of token ids."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in value)
    )


def check_prompt(value: Any) -> str | None:
    """What is wrong with a prompt, or with the prompts; None if nothing is."""
    one = isinstance(value, str) or is_token_ids(value)
    several = isinstance(value, list) and bool(value) and not is_token_ids(value)
    if one or (several and all(isinstance(p, str) or is_token_ids(p) for p in value)):
        return None
    return "must be text, a list of token ids, or a list of either"


def _messages(value: Any) -> str | None:
    if not isinstance(value, list) or not value:
        return "must be a list with a message or more"
    for index, message in enumerate(value):
        if not isinstance(message, dict):
            return f"[{index}] must be an object"
        if not isinstance(message.get("role"), str):
            return f"[{index}].role is needed, as text"
        reason = _content(message.get("content")) or _tool_calls(message.get("tool_calls"))
        if reason:
            return f"[{index}].{reason}"
    return None


def _content(value: Any) -> str | None:
    """What is wrong with a message's content."""
    if not (value is None or isinstance(value, str | list)):
        return "content must be text or a list of parts"
    for at, part in enumerate(value if isinstance(value, list) else ()):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            return f"content[{at}] must be an object with a type"
        kind = part["type"]
        if kind in _PARTS and not isinstance(part.get(kind), _PARTS[kind]):
            return f"content[{at}].{kind} is needed"
    return None


_PARTS: Mapping[str, type | tuple[type, ...]] = {
    "text": str,
    "refusal": str,
    "image_url": (dict, str),
    "input_audio": dict,
}
"""Parts of a message, and what each must have under its own name."""


def _tool_calls(calls: Any) -> str | None:
    if calls is None:
        return None
    if not isinstance(calls, list):
        return "tool_calls must be a list"
    for index, call in enumerate(calls):
        if not isinstance(call, dict):
            return f"tool_calls[{index}] must be an object"
        if call.get("type", "function") != "function":
            continue
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return f"tool_calls[{index}].function.name is needed, as text"
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments.strip():
            try:
                json.loads(arguments)
            except (ValueError, RecursionError):
                return f"tool_calls[{index}].function.arguments must be JSON"
    return None


def _tools(value: Any) -> str | None:
    if not isinstance(value, list):
        return "must be a list"
    for index, tool in enumerate(value):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return f"[{index}].function.name is needed, as text"
        parameters = function.get("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            return f"[{index}].function.parameters must be an object"
        definitions = (parameters or {}).get("$defs")
        if definitions is not None and not isinstance(definitions, dict):
            return f"[{index}].function.parameters.$defs must be an object"
    return None


def _stream_options(value: Any) -> str | None:
    if not isinstance(value, dict):
        return "must be an object"
    known = {"include_usage", "include_obfuscation"}
    unknown = {name for name in set(value) - known if value[name] not in (None, False)}
    if unknown:
        return f"has no {sorted(unknown)[0]!r} (known: include_usage)"
    return (
        None
        if isinstance(value.get("include_usage") or False, bool)
        else ("include_usage must be true or false")
    )


CHECKS: Mapping[str, Check] = {
    "prompt": check_prompt,
    "messages": _messages,
    "stream": _bool,
    "stream_options": _stream_options,
    "n": _whole(1, MAX_CHOICES),
    "best_of": _whole(1, MAX_CHOICES),
    "echo": _bool,
    "max_tokens": _whole(0),
    "max_completion_tokens": _whole(1),
    "temperature": _number(0, 100),
    "top_p": _number(0, 1),
    "min_p": _number(0, 1),
    "top_k": _whole(-1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "repetition_penalty": _number(0.01, 100),
    "repeat_penalty": _number(0.01, 100),
    "seed": _whole(-MAX_SEED, MAX_SEED - 1),
    "stop": _stop,
    "logit_bias": _bias,
    "logprobs": _logprobs,
    "top_logprobs": _whole(0, 20),
    "response_format": _object,
    "tools": _tools,
    "chat_template_kwargs": _object,
    "parallel_tool_calls": _bool,
    "user": _text,
    "request_id": _text,
    "ignore_eos": _bool,
}
# What asks nothing of an engine.
NEUTRAL: Neutral = {
    "user": None,
    "metadata": None,
    "safety_identifier": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "request_id": None,
    "service_tier": ("auto", "default"),
    "store": None,
    "best_of": (1,),
    "suffix": ("",),
    "echo": (False,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "tools": ([],),
    "tool_choice": ("none",),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "lora_name": ("",),
    "stop": ([],),
    "stop_token_ids": ([],),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "extra_body": ({},),
}


THINKING = frozenset(("enable_thinking", "reasoning_effort", "thinking", "reasoning", "think"))
"""Fields that `thinking.py` makes arguments of the chat template of."""
FieldSupport = Literal["honoured", "translated", "emulated", "refused"]
EMULATED_FIELDS = frozenset(("n", "best_of", "echo", "stream", "stream_options"))
"""Fields that the gateway does for every engine."""


def field_support(fields: RequestFields, name: str, chat: bool) -> FieldSupport:
    """What becomes of a field of completions or of chats with an engine; docs/engines.md has all.

    Translated are those that reach it by another name, or whose answers are rewritten.
    """
    if name in EMULATED_FIELDS:
        return "refused" if chat and name in {"echo", "best_of"} else "emulated"
    taken = fields.in_chats if chat else fields.in_completions
    if name in THINKING and chat:
        name = "chat_template_kwargs"
    its = name if name in taken else fields.renamed.get(name, name)
    if its not in taken or its in fields.refused:
        return "refused"
    if name == "tool_choice" and fields.free_tool_choice:
        return "emulated"
    rewritten = name == "logprobs" and not chat and fields.chat_logprobs
    return "translated" if its != name or rewritten else "honoured"


def validate(request: Body, needed: str) -> None:
    """Checks the values of all known fields. Raises `BadValue` for the first wrong one."""
    if request.get(needed) is None:
        raise BadValue(needed, request.get(needed), "is needed")
    for name, value in request.items():
        check = CHECKS.get(name)
        reason = check(value) if check is not None and value is not None else None
        if reason:
            raise BadValue(name, value, reason)


def map_fields(wanted: Body, model: Model, taken: frozenset[str]) -> Body:
    """The fields as the engine takes them. Raises `FieldRefused` for the first that it does not."""
    fields = model.fields
    found: Body = {}
    for name, value in wanted.items():
        if name in NEUTRAL:
            values = NEUTRAL[name]
            if values is None and name in taken:  # to an endpoint of others it means something
                found[name] = value
                continue
            # By type too: 0 log probabilities are not the same as none.
            if values is None or any(value == v and type(value) is type(v) for v in values):
                continue
        its = name if name in taken else fields.renamed.get(name, name)
        if its not in taken or its in fields.refused:
            known = [*taken, *fields.renamed]
            reason = fields.refused.get(name, "")
            if not reason and name in NEUTRAL:
                reason = f"{model.engine} cannot do that"
            close = () if reason else near(name, known)
            raise FieldRefused(name, model.engine, reason, close)
        found[its] = value
    return found


def encode_body(body: Body, request: Body, raw: bytes) -> bytes:
    """A body for an engine: `raw`, as the request came, where nothing in it has changed."""
    if raw and body == request:
        return raw
    is_short = 0 < len(raw) < large.LONG_BYTES  # of another dialect's, nothing is known
    return encode(body) if is_short else large.dumps(body)
