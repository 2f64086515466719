"""Anthropic's Messages: requests in its words as chats of ours, and answers back in its events.

What Anthropic's API has and a chat cannot say (tools that run at Anthropic, documents, containers)
is refused by name. Fields that it does not have go on to the engine like those of any chat.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.fleet.status import ModelStatus
from paddock.registry.errors import BadValue, FieldRefused, NotAllowed
from paddock.registry.json_codec import encode
from paddock.server.access.keys import principal
from paddock.server.dialects import openai
from paddock.server.dialects.base import Body, Call, Dialect, Model
from paddock.server.dialects.constraints import in_words
from paddock.server.dialects.fields import Neutral, asks_nothing
from paddock.server.dialects.thinking import takes_budget
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.operation import EVENTS, Operation, RouteDoc
from paddock.server.http.shapes import Shape
from paddock.server.proxy.context_excess import CODE
from paddock.server.proxy.steps import Encoder, EngineRequest, Event, plain

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
EFFORT = "high"
"""The effort that is meant where none is named."""
# Fields of OpenAI's that would change the shape of the answer under the encoder.
_FOREIGN = frozenset(
    (
        *("n", "best_of", "stop", "stream_options", "max_completion_tokens", "response_format"),
        *("logprobs", "top_logprobs", "enable_thinking", "reasoning_effort", "functions"),
        *("parallel_tool_calls", "function_call", "reasoning_budget_tokens"),
    )
)
_NEUTRAL: Neutral = {
    "metadata": None,
    "cache_control": None,
    "service_tier": ("auto", "standard_only"),
    "speed": ("standard",),
    "mcp_servers": ([],),
    "context_management": (
        {"edits": []},
        {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    ),
}
# Our error's class → Anthropic's type; what is not here is told apart by its status.
_ERROR_TYPES = {
    "NotLaunched": "not_found_error",
    "NotFound": "not_found_error",
    "QueueFull": "rate_limit_error",
    "NotReady": "overloaded_error",
    "NotAllowed": "permission_error",
    "TooLarge": "request_too_large",
}


class AnthropicTurn(Shape):
    """One message of a conversation in Anthropic's words."""

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class AnthropicChat(Shape):
    """Anthropic's. What only Anthropic's own servers can do is refused by name."""

    model: str = Field(min_length=1)
    messages: list[AnthropicTurn] = Field(min_length=1)
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None


class AnthropicMessages(AnthropicChat):
    """The same, with the length of the answer."""

    max_tokens: int = Field(ge=1)
    stop_sequences: list[str] | None = None
    temperature: float | None = Field(default=None, ge=0)
    stream: bool | None = None


class AnthropicMessage(Shape):
    """An answer in Anthropic's shape."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str
    stop_sequence: str | None
    usage: dict[str, Any]


class CountedTokens(Shape):
    """How long a prompt is."""

    input_tokens: int


class AnthropicModel(Shape):
    """A launched model in Anthropic's shape."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: str
    max_input_tokens: int | None


class AnthropicModels(Shape):
    """One page, which is the only one."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


def to_openai(request: Body) -> tuple[Body, Encoder]:
    """A request of `/v1/messages` as a chat, and the encoder of its answer.

    Raises:
        BadValue: what cannot be translated, by Anthropic's name of it.
    """
    if request.get("max_tokens") is None:
        raise BadValue("max_tokens", None, "is needed: the most tokens that the answer may have")
    chat = _chat(request)
    if chat.get("stream"):
        chat["stream_options"] = {"include_usage": True}
    return chat, Messages(request["model"])


def count_to_openai(request: Body) -> tuple[Body, Encoder]:
    """A request of `/v1/messages/count_tokens` as a chat, and the encoder of its answer."""
    chat = _chat(request)
    chat.pop("stream", None)
    return chat, Messages(request["model"])


def messages(request: Body, model: Model, raw: bytes, encoder: Encoder) -> EngineRequest:
    """Makes out a translated request. Thinking that nobody asked for is nothing to turn off."""
    wanted = dict(request)
    if wanted.get("enable_thinking") or wanted.get("reasoning_effort"):
        model.needs("reasoning")
    elif "reasoning" not in model.abilities:
        wanted.pop("enable_thinking", None)
    if not takes_budget(model):
        # Anthropic calls it a target that an answer may miss.
        wanted.pop("reasoning_budget_tokens", None)
    with in_words("output_config.format", "input_schema"):
        return openai.chat(wanted, model, raw, encoder)


def count(request: Body, model: Model, raw: bytes, encoder: Encoder) -> EngineRequest:
    """Makes out a request for the number of tokens that the chat's prompt has.

    Raises:
        FieldRefused: the engine does not count without answering.
    """
    engine_request = messages(request, model, raw, encoder)
    if not model.fields.counts_at:
        raise FieldRefused("count_tokens", model.engine, "it does not count without answering")
    return replace(
        engine_request,
        path=model.fields.counts_at,
        is_one_object=True,
        reshape=_counted,
        reusable=True,
    )


def _counted(answer: Event) -> Event:
    # vLLM's route gives the tokens themselves too, under other names.
    return {"input_tokens": answer.get("input_tokens", answer.get("count"))}


def render_error(body: Body) -> Body:
    """One of our error bodies in Anthropic's envelope, with our fields beside its own."""
    error = body.get("error") or {}
    its = "invalid_request_error" if error.get("type") == "invalid_request_error" else "api_error"
    its = _ERROR_TYPES.get(str(error.get("code")), its)
    message = str(error.get("message", ""))
    if error.get("code") == CODE:  # by these words its clients compact what they have
        message = (
            f"prompt is too long: {error['n_prompt_tokens']} tokens > {error['n_ctx']} maximum"
        )
    detail = body.get("detail", message)
    return {"type": "error", "error": {**error, "type": its, "message": message}, "detail": detail}


def _chat(request: Body) -> Body:
    chat: Body = {
        "messages": [*_system(request.get("system")), *_messages(request.get("messages"))]
    }
    for name, value in request.items():
        if value is None or asks_nothing(_NEUTRAL, name, value):
            continue
        if name in _FOREIGN:
            raise BadValue(name, value, "is no field of Anthropic's messages")
        if name in _TRANSLATIONS:
            chat |= _TRANSLATIONS[name](value)
        elif name not in {"messages", "system"}:
            chat[name] = value
    return chat


def _system(value: Any) -> Iterator[Body]:
    if value:
        yield {"role": "system", "content": _text(value, "system")}


def _text(value: Any, name: str) -> str:
    """The text of a text or of blocks of text."""
    if isinstance(value, str):
        return value
    return "\n".join(_field(block, "text", name) for block in _blocks(value, name, ["text"]))


def _blocks(value: Any, name: str, types: Sequence[str]) -> list[Body]:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if not isinstance(value, list):
        raise BadValue(name, value, "must be text or a list of blocks")
    for index, block in enumerate(value):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind not in types:
            known = ", ".join(types)
            raise BadValue(f"{name}[{index}].type", kind, f"is not understood here; {known} are")
    return value


def _field(block: Body, name: str, of: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise BadValue(f"{of}: {block.get('type', 'block')}.{name}", value, "is needed, as text")
    return value


def _messages(value: Any) -> Iterator[Body]:
    if not isinstance(value, list) or not value:
        raise BadValue("messages", value, "must be a list with a message or more")
    for index, message in enumerate(value):
        name = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in tuple(_ROLES):
            raise BadValue(f"{name}.role", role, f"must be one of {', '.join(_ROLES)}")
        yield from _ROLES[role](message.get("content"), f"{name}.content")


def _from_system(content: Any, name: str) -> Iterator[Body]:
    yield {"role": "system", "content": _text(content, name)}


def _from_user(content: Any, name: str) -> Iterator[Body]:
    parts: list[Body] = []
    for block in _blocks(content, name, ["text", "image", "tool_result"]):
        if block["type"] == "tool_result":
            if parts:
                yield _spoken(parts)
                parts = []
            yield _tool_result(block, name)
        else:
            parts.append(_part(block, name))
    if parts:
        yield _spoken(parts)


def _spoken(parts: list[Body]) -> Body:
    if all(part["type"] == "text" for part in parts):
        return {"role": "user", "content": "\n".join(part["text"] for part in parts)}
    return {"role": "user", "content": parts}


def _part(block: Body, name: str) -> Body:
    if block["type"] == "text":
        return {"type": "text", "text": _field(block, "text", name)}
    source = block["source"] if isinstance(block.get("source"), dict) else {}
    kind = source.get("type")
    if kind == "base64":
        url = f"data:{_field(source, 'media_type', name)};base64,{_field(source, 'data', name)}"
    elif kind == "url":
        url = _field(source, "url", name)
    else:
        raise BadValue(f"{name}: image.source.type", kind, "must be base64 or url")
    return {"type": "image_url", "image_url": {"url": url}}


def _tool_result(block: Body, name: str) -> Body:
    parts = [
        _part(part, name) for part in _blocks(block.get("content") or "", name, ["text", "image"])
    ]
    if block.get("is_error"):  # a chat has no other place for it
        parts.insert(0, {"type": "text", "text": "Error:"})
    content: Any = parts
    if all(part["type"] == "text" for part in parts):
        content = "\n".join(part["text"] for part in parts)
    return {
        "role": "tool",
        "tool_call_id": _field(block, "tool_use_id", name),
        "content": content,
    }


def _from_assistant(content: Any, name: str) -> Iterator[Body]:
    message: Body = {"role": "assistant", "content": None}
    for block in _blocks(content, name, ["text", "thinking", "tool_use"]):
        if block["type"] == "text":
            message["content"] = (message["content"] or "") + _field(block, "text", name)
        elif block["type"] == "thinking":
            thought = message.get("reasoning_content", "") + _field(block, "thinking", name)
            message["reasoning_content"] = thought
        else:
            message.setdefault("tool_calls", []).append(_tool_call(block, name))
    yield message


def _tool_call(block: Body, name: str) -> Body:
    arguments = block.get("input")
    if not isinstance(arguments, dict):
        raise BadValue(f"{name}: tool_use.input", arguments, "must be an object")
    called = _field(block, "name", name)
    function = {"name": called, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": _field(block, "id", name), "type": "function", "function": function}


_ROLES: dict[str, Callable[[Any, str], Iterator[Body]]] = {
    "user": _from_user,
    "assistant": _from_assistant,
    "system": _from_system,
}


def _tools(value: Any) -> Body:
    if not isinstance(value, list):
        raise BadValue("tools", value, "must be a list")
    tools = []
    for index, tool in enumerate(value):
        name = f"tools[{index}]"
        if not isinstance(tool, dict):
            raise BadValue(name, tool, "must be an object")
        if tool.get("type") not in (None, "custom"):
            why = "runs at Anthropic; only tools of your own (custom) are here"
            raise BadValue(f"{name}.type", tool["type"], why)
        if not isinstance(tool.get("name"), str):
            raise BadValue(f"{name}.name", tool.get("name"), "is needed, as text")
        if not isinstance(tool.get("input_schema"), dict):
            raise BadValue(f"{name}.input_schema", tool.get("input_schema"), "must be an object")
        function = {"name": tool["name"], "parameters": tool["input_schema"]}
        if isinstance(tool.get("description"), str):
            function["description"] = tool["description"]
        tools.append({"type": "function", "function": function})
    return {"tools": tools}


def _tool_choice(value: Any) -> Body:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "tool":
        named = {"name": _field(value, "name", "tool_choice")}
        choice: Any = {"type": "function", "function": named}
    elif kind in ("auto", "any", "none"):
        choice = "required" if kind == "any" else kind
    else:
        raise BadValue("tool_choice", value, "must be an object of type auto, any, tool or none")
    if value.get("disable_parallel_tool_use"):
        return {"tool_choice": choice, "parallel_tool_calls": False}
    return {"tool_choice": choice}


def _thinking(value: Any) -> Body:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "adaptive":  # the model decides, as it does unasked
        return {}
    if kind == "disabled":
        return {"enable_thinking": False}
    if kind == "enabled":
        fields: Body = {"enable_thinking": True}
        if value.get("budget_tokens") is not None:
            fields["reasoning_budget_tokens"] = value["budget_tokens"]
        return fields
    raise BadValue("thinking", value, "must be an object of type enabled, disabled or adaptive")


def _output_config(value: Any) -> Body:
    if not isinstance(value, dict):
        raise BadValue("output_config", value, "must be an object")
    unknown = sorted(set(value) - {"effort", "format"})
    if unknown:
        raise BadValue(f"output_config.{unknown[0]}", value[unknown[0]], "cannot be done here")
    fields: Body = {}
    if value.get("effort") not in (None, EFFORT):
        fields["reasoning_effort"] = value["effort"]
    if value.get("format") is not None:
        fields["response_format"] = _format(value["format"])
    return fields


def _format(value: Any) -> Body:
    schema = value.get("schema") if isinstance(value, dict) else None
    if not isinstance(schema, dict) or value.get("type") != "json_schema":
        raise BadValue("output_config.format", value, "must be of type json_schema, with a schema")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def _stop_sequences(value: Any) -> Body:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise BadValue("stop_sequences", value, "must be a list of texts")
    return {"stop": value}


_TRANSLATIONS: dict[str, Callable[[Any], Body]] = {
    "stop_sequences": _stop_sequences,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "thinking": _thinking,
    "output_config": _output_config,
}


class Messages:
    """Encodes one answer: a message, its content in blocks that open and close one by one."""

    content_type = b"text/event-stream"

    def __init__(self, model: str) -> None:
        self._id = f"msg_{secrets.token_hex(12)}"
        self._model = model
        self._block = -1
        self._open: tuple[str, int] | None = None  # kind, and number of the tool call
        self._begun = False
        self._over = False
        self._stop: Body = {"stop_reason": "end_turn", "stop_sequence": None}
        self._usage: Body = {}

    def event(self, event: Event) -> bytes:
        """An event of a chat as no, one or several of Anthropic's."""
        if self._over:
            return b""
        written = self._begin()
        self._usage = event.get("usage") or self._usage
        for choice in event.get("choices", ()):
            written += self._grow(choice.get("delta") or {})
            if choice.get("finish_reason"):
                self._stop = _stop(choice)
        return b"".join(written)

    def close(self) -> bytes:
        """The end of the last block and of the message, with its usage."""
        if self._over:
            return b""
        self._over = True
        end = {"type": "message_delta", "delta": self._stop, "usage": _usage(self._usage)}
        stopped = [_sse(end), _sse({"type": "message_stop"})]
        return b"".join([*self._begin(), *self._end_block(), *stopped])

    def error(self, error: dict[str, Any]) -> bytes:
        """An event `error`; nothing comes after it."""
        self._over = True
        return _sse(render_error(error))

    def encode_answer(self, answer: Event) -> dict[str, Any]:
        """The message as JSON, with all of its blocks."""
        choice = answer["choices"][0]
        return {
            **self._message(),
            "content": list(_content(choice["message"])),
            **_stop(choice),
            "usage": _usage(answer.get("usage") or {}),
        }

    def _message(self) -> Body:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self._model}

    def _begin(self) -> list[bytes]:
        if self._begun:
            return []
        self._begun = True
        unfinished: Body = {"content": [], "stop_reason": None, "stop_sequence": None}
        message = {**self._message(), **unfinished, "usage": _usage({})}
        return [_sse({"type": "message_start", "message": message})]

    def _grow(self, delta: Body) -> list[bytes]:
        written: list[bytes] = []
        if delta.get("reasoning_content"):
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            written += self._in_block(("thinking", 0), empty)
            written += self._piece("thinking_delta", "thinking", plain(delta["reasoning_content"]))
        if delta.get("content"):
            written += self._in_block(("text", 0), {"type": "text", "text": ""})
            written += self._piece("text_delta", "text", plain(delta["content"]))
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            at = ("tool_use", call.get("index", 0))
            written += self._in_block(at, _tool_use(call.get("id"), function.get("name"), {}))
            if function.get("arguments"):
                written += self._piece("input_json_delta", "partial_json", function["arguments"])
        return written

    def _in_block(self, at: tuple[str, int], empty: Body) -> list[bytes]:
        if self._open == at:
            return []
        written = self._end_block()
        self._open = at
        self._block += 1
        begin = {"type": "content_block_start", "index": self._block, "content_block": empty}
        return [*written, _sse(begin)]

    def _piece(self, kind: str, field: str, text: str) -> list[bytes]:
        delta = {"type": kind, field: text}
        return [_sse({"type": "content_block_delta", "index": self._block, "delta": delta})]

    def _end_block(self) -> list[bytes]:
        if self._open is None:
            return []
        self._open = None
        return [_sse({"type": "content_block_stop", "index": self._block})]


def _sse(event: Body) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), encode(event))


def _stop(choice: Body) -> Body:
    reason = STOP_REASONS.get(choice.get("finish_reason") or "stop", "end_turn")
    word = choice.get("stop_reason")
    if reason == "end_turn" and isinstance(word, str) and word:
        return {"stop_reason": "stop_sequence", "stop_sequence": word}
    return {"stop_reason": reason, "stop_sequence": None}


def _usage(usage: Body) -> Body:
    """Anthropic's count; what an engine found in its cache is counted as read like the rest."""
    return {
        "input_tokens": usage.get("prompt_tokens") or 0,
        "output_tokens": usage.get("completion_tokens") or 0,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }


def _content(message: Body) -> Iterator[Body]:
    if message.get("reasoning_content"):
        yield {"type": "thinking", "thinking": plain(message["reasoning_content"]), "signature": ""}
    if message.get("content"):
        yield {"type": "text", "text": message["content"]}
    for call in message.get("tool_calls") or ():
        function = call["function"]
        arguments: Any = {}
        with suppress(ValueError):  # max_tokens cut it off, and the stop reason says so
            arguments = json.loads(function["arguments"] or "{}")
        yield _tool_use(call["id"], function["name"], arguments)


def _tool_use(id: str | None, name: str | None, arguments: Any) -> Body:
    id = id or f"toolu_{secrets.token_hex(12)}"
    return {"type": "tool_use", "id": id, "name": name or "", "input": arguments}


class Models:
    """The launched models as Anthropic's clients list them."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def routes(self) -> list[Operation]:
        """The list, and one model."""
        return [
            Operation(
                "GET",
                "/anthropic/v1/models",
                self.listing,
                RouteDoc("anthropic", AnthropicModels, scope="inference"),
            ),
            Operation(
                "GET",
                "/anthropic/v1/models/{uid:path}",
                self.describe,
                RouteDoc("anthropic", AnthropicModel, scope="inference"),
            ),
        ]

    async def listing(self, request: Request) -> Response:
        """The models that can answer, in Anthropic's shape; all of them are one page."""
        caller = principal(request.scope)
        models = [
            _model(one) for one in self._fleet.models() if one.can_serve and caller.may_use(one.uid)
        ]
        ids = [model["id"] for model in models] or [None]
        page = {"has_more": False, "first_id": ids[0], "last_id": ids[-1]}
        return JSONResponse({"data": models, **page})

    async def describe(self, request: Request) -> Response:
        """A launched model in Anthropic's shape.

        Raises:
            NotAllowed: the key is for other models.
        """
        uid = request.path_params["uid"]
        if not principal(request.scope).may_use(uid):
            raise NotAllowed(f"model '{uid}'", "the key is for other models")
        return JSONResponse(_model(self._fleet.get(uid)))


def _model(status: ModelStatus) -> Body:
    return {
        "type": "model",
        "id": status.uid,
        "display_name": status.plan.model,
        "created_at": datetime.fromtimestamp(status.created, UTC).isoformat(timespec="seconds"),
        "lifecycle": "active",
        "max_input_tokens": status.plan.context_length or None,
        "max_tokens": status.plan.context_length or None,
    }


_MESSAGES = RouteDoc(
    "anthropic",
    AnthropicMessage,
    AnthropicMessages,
    summary="Answers a conversation, in Anthropic's words",
    media=EVENTS,
)
_COUNT = RouteDoc(
    "anthropic",
    CountedTokens,
    AnthropicChat,
    summary="Counts the tokens that such a conversation has",
)
ANTHROPIC = Dialect(
    "anthropic",
    tuple(
        call
        for root in ("", "/anthropic")
        for call in (
            Call(f"{root}/v1/messages", "chat", _MESSAGES, messages, to_openai),
            Call(f"{root}/v1/messages/count_tokens", "chat", _COUNT, count, count_to_openai),
        )
    ),
    render_error,
    lambda fleet: Models(fleet).routes(),
)
