"""OpenAI's Responses: requests in its words as chats of ours, and answers back in its typed events.

Nothing is kept: a conversation is what the request brings. What needs a memory at the server
(`previous_response_id`, `conversation`, `background`) and tools that run at OpenAI are refused by
name; `store` is taken, and the answer says that it was not stored.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

from pydantic import Field

from paddock.registry.errors import BadValue
from paddock.registry.json_codec import encode
from paddock.server.dialects import openai
from paddock.server.dialects.base import Body, Call, Dialect, Model
from paddock.server.dialects.constraints import in_words
from paddock.server.dialects.fields import CHECKS, Neutral, asks_nothing
from paddock.server.http.operation import EVENTS, RouteDoc
from paddock.server.http.shapes import Shape
from paddock.server.proxy.steps import Encoder, EngineRequest, Event, plain

_STATELESS = "asks for what earlier requests left; nothing is kept here"
# Name → why it cannot be honoured, whatever its value.
_REFUSED = {
    "previous_response_id": _STATELESS,
    "conversation": _STATELESS,
    "prompt": _STATELESS,
    "background": "answers are made while the client waits",
    "truncation": "must be disabled: no message is left out in silence",
    "include": "there is nothing more to include",
    "max_tool_calls": "tools are called by the client, who can count them",
    "top_logprobs": "there are no log probabilities in this route; chats have them",
    **dict.fromkeys(
        (
            *("n", "best_of", "logprobs", "functions", "function_call", "messages"),
            *("response_format", "max_tokens", "max_completion_tokens", "reasoning_effort"),
        ),
        "is no field of responses",
    ),
}
_NEUTRAL: Neutral = {
    "store": None,
    "background": (False,),
    "truncation": ("disabled",),
    "include": ([],),
    "top_logprobs": (0,),
}
# What an answer says of its request, and what it says where the request does not.
_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}


class Respond(Shape):
    """OpenAI's. Nothing is stored; what needs an earlier response is refused by name."""

    model: str = Field(min_length=1)
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    tools: list[dict[str, Any]] | None = None
    stream: bool | None = None


class Responded(Shape):
    """A response in OpenAI's shape."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete", "in_progress"]
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None


def to_openai(request: Body) -> tuple[Body, Encoder]:
    """A request of `/v1/responses` as a chat, and the encoder of its answer.

    Raises:
        BadValue: what cannot be translated, by the name that it has in responses.
    """
    chat: Body = {"messages": [*_instructions(request.get("instructions")), *_input(request)]}
    for name, value in request.items():
        if value is None or asks_nothing(_NEUTRAL, name, value):
            continue
        if name in _REFUSED:
            raise BadValue(name, value, _REFUSED[name])
        if name in _TRANSLATIONS:
            chat |= _TRANSLATIONS[name](value)
        elif name not in {"input", "instructions"}:
            chat[name] = value
    options = chat.get("stream_options", {})
    if chat.get("stream") and isinstance(options, dict):
        chat["stream_options"] = {**options, "include_usage": True}
    return chat, Responses(request)


def respond(request: Body, model: Model, raw: bytes, encoder: Encoder) -> EngineRequest:
    """Makes out a translated request; an effort is refused where the model cannot reason."""
    if request.get("reasoning_effort") is not None:
        model.needs("reasoning")
    with in_words("text.format", "parameters"):
        return openai.chat(request, model, raw, encoder)


def _instructions(value: Any) -> Iterator[Body]:
    if value is None:
        return
    if not isinstance(value, str):
        raise BadValue("instructions", value, "must be text")
    yield {"role": "system", "content": value}


def _input(request: Body) -> list[Body]:
    items = request.get("input")
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    if not isinstance(items, list) or not items:
        raise BadValue("input", items, "must be text or a list of items")
    messages: list[Body] = []
    for index, item in enumerate(items):
        name = f"input[{index}]"
        if not isinstance(item, dict):
            raise BadValue(name, item, "must be an object")
        kind = item.get("type", "message")
        if kind not in tuple(_ITEMS):
            known = ", ".join(_ITEMS)
            raise BadValue(f"{name}.type", kind, f"is not understood here; {known} are")
        _ITEMS[kind](item, name, messages)
    return messages


def _message(item: Body, name: str, messages: list[Body]) -> None:
    role = item.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        known = "must be user, assistant, system or developer"
        raise BadValue(f"{name}.role", role, known)
    content = _content(item.get("content"), f"{name}.content")
    if role == "assistant":
        _last_assistant(messages)["content"] = content
    else:
        # Templates know no developers.
        messages.append({"role": "system" if role == "developer" else role, "content": content})


def _last_assistant(messages: list[Body]) -> Body:
    """The assistant's message that the next item of its turn belongs to."""
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant":
        messages.append({"role": "assistant", "content": None})
    return messages[-1]


def _content(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise BadValue(name, value, "must be text or a list of parts")
    parts = [_part(part, f"{name}[{index}]") for index, part in enumerate(value)]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _part(part: Any, name: str) -> Body:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": _field(part, "text", name)}
    if kind == "refusal":
        return {"type": "text", "text": _field(part, "refusal", name)}
    if kind == "input_image":
        return {"type": "image_url", "image_url": {"url": _field(part, "image_url", name)}}
    known = "is not understood here; input_text, input_image, output_text and refusal are"
    raise BadValue(f"{name}.type", kind, known)


def _field(item: Body, name: str, of: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise BadValue(f"{of}.{name}", value, "is needed, as text")
    return value


def _function_call(item: Body, name: str, messages: list[Body]) -> None:
    function = {key: _field(item, key, name) for key in ("name", "arguments")}
    call = {"id": _field(item, "call_id", name), "type": "function", "function": function}
    _last_assistant(messages).setdefault("tool_calls", []).append(call)


def _function_call_output(item: Body, name: str, messages: list[Body]) -> None:
    content = _content(item.get("output"), f"{name}.output")
    call_id = _field(item, "call_id", name)
    messages.append({"role": "tool", "tool_call_id": call_id, "content": content})


def _reasoning(item: Body, name: str, messages: list[Body]) -> None:
    parts = item.get("content") or item.get("summary") or []
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise BadValue(f"{name}.content", parts, "must be a list of parts")
    text = "\n".join(_field(part, "text", name) for part in parts)
    if text:
        messages.append({"role": "assistant", "content": None, "reasoning_content": text})


_ITEMS: dict[str, Callable[[Body, str, list[Body]], None]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "reasoning": _reasoning,
}


def _max_output_tokens(value: Any) -> Body:
    reason = CHECKS["max_completion_tokens"](value)
    if reason:
        raise BadValue("max_output_tokens", value, reason)
    return {"max_completion_tokens": value}


def _text(value: Any) -> Body:
    if not isinstance(value, dict):
        raise BadValue("text", value, "must be an object")
    fields: Body = {}
    if value.get("verbosity") is not None:
        fields["verbosity"] = value["verbosity"]
    wanted = value.get("format")
    if wanted is None:
        return fields
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_schema":
        if not isinstance(wanted.get("schema"), dict):
            raise BadValue("text.format.schema", wanted.get("schema"), "must be an object")
        schema = {key: value for key, value in wanted.items() if key != "type"}
        return {**fields, "response_format": {"type": kind, "json_schema": schema}}
    if kind in ("text", "json_object"):
        return {**fields, "response_format": {"type": kind}}
    raise BadValue("text.format", wanted, "must be of type text, json_object or json_schema")


def _tools(value: Any) -> Body:
    if not isinstance(value, list):
        raise BadValue("tools", value, "must be a list")
    tools = []
    for index, tool in enumerate(value):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind != "function":
            raise BadValue(f"tools[{index}].type", kind, "only tools of type function are here")
        _field(tool, "name", f"tools[{index}]")
        known = ("name", "description", "parameters", "strict")
        function = {key: tool[key] for key in known if tool.get(key) is not None}
        tools.append({"type": "function", "function": function})
    return {"tools": tools}


def _tool_choice(value: Any) -> Body:
    if value in ("auto", "none", "required"):
        return {"tool_choice": value}
    if isinstance(value, dict) and value.get("type") == "function":
        named = {"name": _field(value, "name", "tool_choice")}
        return {"tool_choice": {"type": "function", "function": named}}
    known = "must be auto, none, required, or an object of type function with a name"
    raise BadValue("tool_choice", value, known)


def _effort(value: Any) -> Body:
    if not isinstance(value, dict):
        raise BadValue("reasoning", value, "must be an object")
    for name, one in value.items():
        if name != "effort" and one is not None and (name, one) != ("summary", "auto"):
            raise BadValue(f"reasoning.{name}", one, "cannot be done here; effort can")
    return {} if value.get("effort") is None else {"reasoning_effort": value["effort"]}


_TRANSLATIONS: dict[str, Callable[[Any], Body]] = {
    "max_output_tokens": _max_output_tokens,
    "text": _text,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "reasoning": _effort,
}


class Responses:
    """Encodes one answer: a response, its output in items that begin and end one by one."""

    content_type = b"text/event-stream"

    def __init__(self, request: Body) -> None:
        self._given = request
        self._id = _new_id("resp")
        self._created = int(time.time())
        self._number = 0
        self._items: list[_Item] = []
        self._open: tuple[str, int] | None = None  # kind, and number of the tool call
        self._over = False
        self._finish = "stop"
        self._usage: Body = {}

    def event(self, event: Event) -> bytes:
        """An event of a chat as no, one or several typed ones."""
        if self._over:
            return b""
        written = self._begin()
        self._usage = event.get("usage") or self._usage
        for choice in event.get("choices", ()):
            written += self._grow(choice.get("delta") or {})
            self._finish = choice.get("finish_reason") or self._finish
        return b"".join(written)

    def close(self) -> bytes:
        """The end of the last item, and the whole response."""
        if self._over:
            return b""
        written = [*self._begin(), *self._end_item()]
        self._over = True
        response = self._response([item.done for item in self._items], self._finish, self._usage)
        end = f"response.{response['status']}"
        return b"".join([*written, self._sse(end, response=response)])

    def error(self, error: dict[str, Any]) -> bytes:
        """An event `error`, which the SDK raises; nothing comes after it."""
        self._over = True
        details = error.get("error") or {}
        fields = {key: details.get(key) for key in ("code", "message", "param")}
        return self._sse("error", **fields, error=details)

    def encode_answer(self, answer: Event) -> dict[str, Any]:
        """The response as JSON, with all of its output."""
        choice = answer["choices"][0]
        message = choice["message"]
        items: list[_Item] = []
        if message.get("reasoning_content"):
            items.append(_Reasoning(plain(message["reasoning_content"])))
        if message.get("content"):
            items.append(_Message(message["content"]))
        for call in message.get("tool_calls") or ():
            items.append(_Call(call["function"]["arguments"], call))
        finish = choice.get("finish_reason") or "stop"
        return self._response([item.done for item in items], finish, answer.get("usage") or {})

    def _response(
        self, output: Sequence[Body], finish: str | None = None, usage: Body | None = None
    ) -> Body:
        """The response, in progress where there is no finish reason yet."""
        status, details = "in_progress", None
        if finish is not None:
            cut = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(finish)
            status = "incomplete" if cut else "completed"
            details = {"reason": cut} if cut else None
        request = {key: value for key, value in self._given.items() if value is not None}
        text = {"format": {"type": "text"}, **(request.get("text") or {})}
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "error": None,
            "incomplete_details": details,
            "model": request["model"],
            "output": list(output),
            **{name: request.get(name, default) for name, default in _ECHOED.items()},
            "background": False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None, **(request.get("reasoning") or {})},
            "store": False,
            "text": text,
            "usage": None if usage is None else _usage(usage),
        }

    def _begin(self) -> list[bytes]:
        if self._number:
            return []
        return [
            self._sse(f"response.{name}", response=self._response([]))
            for name in ("created", "in_progress")
        ]

    def _grow(self, delta: Body) -> list[bytes]:
        written: list[bytes] = []
        if delta.get("reasoning_content"):
            written += self._in_item(("reasoning", 0), _Reasoning)
            written += self._add(plain(delta["reasoning_content"]))
        if delta.get("content"):
            written += self._in_item(("message", 0), _Message)
            written += self._add(plain(delta["content"]))
        for call in delta.get("tool_calls") or ():
            at = ("function_call", call.get("index", 0))
            written += self._in_item(at, partial(_Call, "", call))
            written += self._add((call.get("function") or {}).get("arguments") or "")
        return written

    def _in_item(self, at: tuple[str, int], make: Callable[[], _Item]) -> list[bytes]:
        if self._open == at:
            return []
        written = self._end_item()
        self._open = at
        self._items.append(make())
        return [*written, *self._tell(self._items[-1].begin())]

    def _add(self, text: str) -> list[bytes]:
        return self._tell(self._items[-1].add(text)) if text else []

    def _end_item(self) -> list[bytes]:
        if self._open is None:
            return []
        self._open = None
        return self._tell(self._items[-1].end())

    def _tell(self, events: Iterator[Body]) -> list[bytes]:
        at = len(self._items) - 1
        return [self._sse(output_index=at, **event) for event in events]

    def _sse(self, type: str, **fields: Any) -> bytes:
        event = {"type": type, "sequence_number": self._number, **fields}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (type.encode(), encode(event))


class _Item:
    """One item of the output: the events of its life, and what it is in the end."""

    prefix = ""
    delta = ""

    def __init__(self, text: str = "") -> None:
        self.id = _new_id(self.prefix)
        self.text = text

    @property
    def done(self) -> Body:
        """The item when it is whole."""
        return self._made("completed", [self._part(self.text)])

    def begin(self) -> Iterator[Body]:
        """The item, empty, and its one part."""
        yield {"type": "response.output_item.added", "item": self._made("in_progress", [])}
        yield self._of_part("response.content_part.added", part=self._part(""))

    def add(self, text: str) -> Iterator[Body]:
        """A piece more of its text."""
        self.text += text
        yield self._of_part(f"{self.delta}.delta", delta=text, **self._beside())

    def end(self) -> Iterator[Body]:
        """The text, the part and the item, whole."""
        yield self._of_part(f"{self.delta}.done", text=self.text, **self._beside())
        yield self._of_part("response.content_part.done", part=self._part(self.text))
        yield {"type": "response.output_item.done", "item": self.done}

    def _of_part(self, type: str, **fields: Any) -> Body:
        return {"type": type, "item_id": self.id, "content_index": 0, **fields}

    def _beside(self) -> Body:
        return {}

    def _made(self, status: str, content: list[Body]) -> Body:
        raise NotImplementedError

    def _part(self, text: str) -> Body:
        raise NotImplementedError


class _Message(_Item):
    prefix = "msg"
    delta = "response.output_text"

    def _beside(self) -> Body:
        return {"logprobs": []}

    def _made(self, status: str, content: list[Body]) -> Body:
        head = {"id": self.id, "type": "message", "role": "assistant"}
        return {**head, "status": status, "content": content}

    def _part(self, text: str) -> Body:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


class _Reasoning(_Item):
    prefix = "rs"
    delta = "response.reasoning_text"

    def _made(self, status: str, content: list[Body]) -> Body:
        head: Body = {"id": self.id, "type": "reasoning", "summary": []}
        return {**head, "status": status, "content": content}

    def _part(self, text: str) -> Body:
        return {"type": "reasoning_text", "text": text}


class _Call(_Item):
    """A call has arguments in place of a part."""

    prefix = "fc"
    delta = "response.function_call_arguments"

    def __init__(self, arguments: str, call: Body) -> None:
        super().__init__(arguments)
        self._call_id = call.get("id") or _new_id("call")
        self._name = (call.get("function") or {}).get("name") or ""

    @property
    def done(self) -> Body:
        """The call with its arguments."""
        return self._made("completed", [])

    def begin(self) -> Iterator[Body]:
        """The call, without arguments."""
        yield {"type": "response.output_item.added", "item": self._made("in_progress", [])}

    def add(self, text: str) -> Iterator[Body]:
        """A piece more of the arguments."""
        self.text += text
        yield {"type": f"{self.delta}.delta", "item_id": self.id, "delta": text}

    def end(self) -> Iterator[Body]:
        """The arguments and the call, whole."""
        whole = {"name": self._name, "arguments": self.text}
        yield {"type": f"{self.delta}.done", "item_id": self.id, **whole}
        yield {"type": "response.output_item.done", "item": self.done}

    def _made(self, status: str, content: list[Body]) -> Body:
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": self.text,
        }


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"


def _usage(usage: Body) -> Body:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    prompt, answer = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": answer,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": prompt + answer,
    }


RESPONSES = Dialect(
    "responses",
    (
        Call(
            "/v1/responses",
            "chat",
            RouteDoc(
                "inference",
                Responded,
                Respond,
                summary="Answers a conversation, in the words of OpenAI's responses",
                media=EVENTS,
            ),
            respond,
            to_openai,
        ),
    ),
)
