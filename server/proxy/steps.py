"""What happens to an answer between engine and client, where its bytes may not pass as they are.

Steps look at one event of a stream at a time, as JSON. A step names bytes (`needle`) that every
event it may change contains: reads without them pass unchanged. Whole answers are put
together from the same events (`Assembly`), because a stream is the one kind of request that every
engine ends when its client leaves: llama.cpp runs a whole one to its end.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from paddock.registry.json_codec import encode

Event = dict[str, Any]
Ask = Callable[[str, Event], Awaitable[Event]]
"""Asks the replica that serves a request on another of its routes, before it gets the request."""
DONE = b"[DONE]"


class Step(Protocol):
    """One change to a stream of events."""

    needle: bytes | None
    """Bytes that every event has which the step would change; None: it looks at all of them."""

    def event(self, part: int, event: Event) -> Iterable[Event]:
        """What takes the event's place. `part` counts the requests that a client's one became."""
        ...


class Encoder(Protocol):
    """The client's dialect."""

    content_type: bytes

    def event(self, event: Event) -> bytes:
        """An event of OpenAI's as the client's dialect has it."""
        ...

    def close(self) -> bytes:
        """What ends the stream."""
        ...

    def error(self, error: dict[str, Any]) -> bytes:
        """An error in the middle of the stream; nothing follows it."""
        ...

    def encode_answer(self, answer: Event) -> dict[str, Any]:
        """A whole answer of OpenAI's as the client's dialect has it."""
        ...


class OpenAI:
    """No change: events as they are, `[DONE]` at the end."""

    content_type = b"text/event-stream"

    def event(self, event: Event) -> bytes:
        """One `data:` line."""
        return b"data: %b\n\n" % encode(event)

    def close(self) -> bytes:
        """The sentinel."""
        return b"data: [DONE]\n\n"

    def error(self, error: dict[str, Any]) -> bytes:
        """An event that OpenAI's and Xinference's clients raise; the sentinel ends the stream."""
        return b"data: %b\n\ndata: [DONE]\n\n" % encode(error)

    def encode_answer(self, answer: Event) -> dict[str, Any]:
        """As it is."""
        return answer


@dataclass(frozen=True)
class EngineRequest:
    """A client's request, made out for an engine.

    Attributes:
        path: the engine's route.
        bodies: one request body for each part; most requests are one part.
        streamed: whether the client takes events.
        steps: changes to each event, in this order.
        encoder: the client's dialect.
        is_one_object: the answer is not events but one JSON object, and passes as it is, or as
            `reshape` makes it.
        reusable: whether the engine takes another request on the same connection.
        prepare: makes the one body anew with the help of the replica that serves it.
    """

    uid: str
    path: str
    bodies: tuple[bytes, ...]
    streamed: bool = False
    chat: bool = False
    steps: tuple[Step, ...] = ()
    encoder: Encoder = field(default_factory=OpenAI)
    is_one_object: bool = False
    reshape: Callable[[Event], Event] | None = None
    reusable: bool = True
    prepare: Callable[[Ask], Awaitable[bytes]] | None = None

    @cached_property
    def needles(self) -> tuple[bytes, ...] | None:
        """The bytes to look for in a stream that otherwise passes as it is; None: look at all."""
        if len(self.bodies) > 1 or not isinstance(self.encoder, OpenAI):
            return None
        needles = tuple(step.needle for step in self.steps)
        return None if None in needles else tuple(needle for needle in needles if needle)

    def events(self, part: int, event: Event) -> Iterable[Event]:
        """The event after all steps."""
        events: Sequence[Event] = (event,)
        for step in self.steps:
            events = [new for old in events for new in step.event(part, old)]
        return events


def plain(content: Any) -> str:
    """The text of a delta's content, which some endpoints send as a list of parts."""
    if isinstance(content, str):
        return content
    parts = [part.get("text") for part in content or () if isinstance(part, dict)]
    return "".join(text for text in parts if isinstance(text, str))


class Events:
    """Cuts a stream of bytes into the payloads of its `data:` lines."""

    def __init__(self) -> None:
        self._tail = b""

    @property
    def held_bytes(self) -> int:
        """The size of the event that is not whole yet."""
        return len(self._tail)

    @property
    def is_clean(self) -> bool:
        """Whether the last event is whole."""
        return not self._tail

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are whole now."""
        joined = self._tail + data
        if b"\r" in joined:  # of an attached endpoint: no engine of ours ends its lines so
            joined = joined.replace(b"\r\n", b"\n")
        whole, separator, self._tail = joined.rpartition(b"\n\n")
        if not separator:
            return []
        return [
            line[5:].strip()
            for line in whole.split(b"\n")
            if line.startswith(b"data:") and len(line) > 6
        ]


class UsageApart:
    """llama.cpp puts usage into the last choice of every stream of completions.

    OpenAI's streams have it only where asked for, in an event of its own without choices.
    """

    needle: bytes | None = b'"usage":'  # a generated text has it only with the quote escaped

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted

    def event(self, part: int, event: Event) -> Iterable[Event]:
        """Takes usage out, and lets it follow where it is wanted."""
        usage = event.pop("usage", None)
        if not usage or not self._wanted:
            return (event,) if event.get("choices") else ()
        apart = {key: value for key, value in event.items() if key not in {"choices", "timings"}}
        apart = {**apart, "choices": [], "usage": usage}
        return (event, apart) if event.get("choices") else (apart,)


class StoppedBy:
    """Puts the stop text that has ended a choice into its `stop_reason`, where vLLM has it too.

    llama.cpp tells it, among much else, in a field of its own that goes no further.
    """

    needle: bytes | None = b'"__verbose":'

    def event(self, part: int, event: Event) -> Iterable[Event]:
        """Takes the engine's field out."""
        word = (event.pop("__verbose", None) or {}).get("stopping_word")
        for choice in event.get("choices", ()):
            if word and choice.get("finish_reason"):
                choice["stop_reason"] = word
        return (event,)


class Thoughts:
    """Thoughts as `reasoning_content`, for engines that have another name for them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.needle: bytes | None = b'"%b":' % name.encode()

    def event(self, part: int, event: Event) -> Iterable[Event]:
        """Renames them."""
        for choice in event.get("choices", ()):
            delta = choice.get("delta") or {}
            if self._name in delta:
                delta["reasoning_content"] = delta.pop(self._name)
        return (event,)


class WithoutCalls:
    """An end for the sake of calls is none where there were no calls.

    vLLM tells it of every answer to `required`, also of one that ended within its thoughts.
    """

    needle: bytes | None = b'"tool_calls"'

    def __init__(self) -> None:
        self._called: set[tuple[int, int]] = set()

    def event(self, part: int, event: Event) -> Iterable[Event]:
        """Mends the reason."""
        for choice in event.get("choices", ()):
            at = (part, choice.get("index", 0))
            if (choice.get("delta") or {}).get("tool_calls"):
                self._called.add(at)
            if choice.get("finish_reason") == "tool_calls" and at not in self._called:
                choice["finish_reason"] = "stop"
        return (event,)


class LegacyLogprobs:
    """llama.cpp gives completions the chat's `logprobs`; this is the shape of the old route.

    Offsets count characters from the beginning of the text, of each choice.
    """

    needle: bytes | None = b'"logprobs":'

    def __init__(self, top: int) -> None:
        self._top = top
        self._offsets: dict[tuple[int, int], int] = {}

    def event(self, part: int, event: Event) -> Iterable[Event]:
        """Translates the choices' log probabilities."""
        for choice in event.get("choices", ()):
            found = choice.get("logprobs")
            if found and "content" in found:
                at = (part, choice.get("index", 0))
                choice["logprobs"], self._offsets[at] = _legacy(
                    found["content"] or (), self._offsets.get(at, 0), self._top
                )
        return (event,)


class BareLogprobs:
    """No alternatives beside the chosen tokens of a chat, where none were asked for."""

    needle: bytes | None = b'"logprobs":'

    def event(self, part: int, event: Event) -> Iterable[Event]:
        """Empties them."""
        for choice in event.get("choices", ()):
            for token in (choice.get("logprobs") or {}).get("content") or ():
                token["top_logprobs"] = []
        return (event,)


def _legacy(
    content: Iterable[dict[str, Any]], offset: int, count: int
) -> tuple[dict[str, Any], int]:
    logprobs: dict[str, list[Any]] = {
        "tokens": [],
        "token_logprobs": [],
        "top_logprobs": [],
        "text_offset": [],
    }
    for token in content:
        logprobs["tokens"].append(token["token"])
        logprobs["token_logprobs"].append(token["logprob"])
        top = {one["token"]: one["logprob"] for one in (token.get("top_logprobs") or ())[:count]}
        logprobs["top_logprobs"].append(top)
        logprobs["text_offset"].append(offset)
        offset += len(token["token"])
    return logprobs, offset


class Echo:
    """`echo` for engines without it: the prompt before each part's first text.

    `silent` drops what was generated: `max_tokens` 0, which engines do not take.
    """

    needle: bytes | None = None

    def __init__(self, prompts: Sequence[str], silent: bool) -> None:
        self._prompts: dict[int, str] = dict(enumerate(prompts))
        self._silent = silent

    def event(self, part: int, event: Event) -> Iterable[Event]:
        """Adds the prompt."""
        for choice in event.get("choices", ()):
            text = "" if self._silent else choice.get("text") or ""
            choice["text"] = self._prompts.pop(part, "") + text
        usage = event.get("usage")
        if usage and self._silent:
            usage |= {"completion_tokens": 0, "total_tokens": usage.get("prompt_tokens")}
        return (event,)


class Named:
    """The model's id in the place of the name that it has at an attached endpoint."""

    needle: bytes | None = b'"model"'

    def __init__(self, uid: str) -> None:
        self._uid = uid

    def event(self, part: int, event: Event) -> Iterable[Event]:
        """Puts it in."""
        event["model"] = self._uid
        return (event,)


def named(uid: str, answer: Event) -> Event:
    """The same, of an answer that is one object."""
    return {**answer, "model": uid}


class Called:
    """A required tool call, for engines that leave the choice to the model all the same.

    The engine was held to a JSON object `{"name", "arguments"}` by its schema; this makes a tool
    call of it. It comes in one piece: half an object has no arguments yet.
    """

    needle: bytes | None = None

    def __init__(self) -> None:
        self._texts: dict[tuple[int, int], str] = {}

    def event(self, part: int, event: Event) -> Iterable[Event]:
        """Holds the text back until it is whole."""
        passed = "usage" in event
        for choice in event.get("choices", ()):
            at = (part, choice.get("index", 0))
            delta = choice["delta"] = choice.get("delta") or {}
            self._texts[at] = self._texts.get(at, "") + plain(delta.pop("content", None))
            if choice.get("finish_reason"):
                choice.update(_called(self._texts.pop(at), choice["finish_reason"]))
            passed = passed or bool(choice["delta"]) or bool(choice.get("finish_reason"))
        return (event,) if passed else ()


def _called(text: str, reason: str) -> dict[str, Any]:
    try:
        call = json.loads(text)
        function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
    except (ValueError, KeyError, TypeError):  # cut off by max_tokens
        begun = _BEGUN_CALL.match(text)
        if begun is None:  # before its name was whole: there is no call
            return {"delta": {} if _is_call(text) else {"content": text}, "finish_reason": reason}
        function = {"name": json.loads(begun["name"]), "arguments": begun["arguments"] or ""}
        finish_reason = reason
    else:
        finish_reason = "tool_calls"
    call = {"index": 0, "id": f"call_{secrets.token_hex(12)}", "type": "function"}
    return {
        "delta": {"tool_calls": [{**call, "function": function}]},
        "finish_reason": finish_reason,
    }


_BEGUN_CALL = re.compile(
    r"\s*\{\s*\"name\"\s*:\s*(?P<name>\"[^\"\\]+\")\s*(?:,\s*(?:\"arguments\"\s*:\s*(?P<arguments>.*))?)?",
    re.DOTALL,
)


def _is_call(text: str) -> bool:
    """Whether the text is the beginning of a call, as far as it goes."""
    plain = re.sub(r"\s", "", text)
    return '{"name":"'.startswith(plain) or plain.startswith('{"name":"')


class Parts:
    """Several requests to an engine as one answer: `n`, and lists of prompts.

    Choices are numbered as OpenAI numbers them, prompt by prompt; id and time are those of the
    first event; usage comes once, as the sum. A prompt that was asked `n` times counts once.
    """

    needle: bytes | None = None

    def __init__(self, count: int, n: int) -> None:
        self._left = count
        self._n = n
        self._same: dict[str, Any] = {}
        self._usage: dict[str, int] = {}

    def event(self, part: int, event: Event) -> Iterable[Event]:
        """Renumbers, and holds usage back until the last part's."""
        if not self._same:
            self._same = {key: event[key] for key in ("id", "created") if key in event}
        event.update(self._same)
        event.pop("timings", None)
        for choice in event.get("choices", ()):
            choice["index"] = part
        usage = event.pop("usage", None)
        if not usage:
            return (event,)
        self._left -= 1
        counted = {"completion_tokens": usage.get("completion_tokens") or 0}
        if part % self._n == 0:
            counted["prompt_tokens"] = usage.get("prompt_tokens") or 0
        for name, tokens in counted.items():
            self._usage[name] = self._usage.get(name, 0) + tokens
        if self._left == 0:
            event["usage"] = {
                "prompt_tokens": self._usage.get("prompt_tokens", 0),
                "completion_tokens": self._usage["completion_tokens"],
                "total_tokens": sum(self._usage.values()),
            }
        return (event,) if event.get("choices") or "usage" in event else ()


class Assembly:
    """One answer from the events of a stream, which it takes as they come.

    Texts are kept as pieces and joined once: what it holds is the answer, not its events.
    Everything that an event has beside its choices is kept as it came last, such as `usage`.
    """

    def __init__(self, chat: bool) -> None:
        self._chat = chat
        self._fields: Event = {}
        self._choices: dict[int, _Choice] = {}

    def add(self, event: Event) -> None:
        """Takes one event in."""
        choices = event.pop("choices", ())
        self._fields.update(event)
        for choice in choices:
            index = choice.get("index") or 0
            self._choices.setdefault(index, _Choice()).add(choice)

    def event(self) -> Event:
        """All events as one, on which a `Step` does what it does on each of them."""
        choices = [
            {**choice, "delta": held.delta.joined()} if self._chat else choice
            for choice, held in self._joined()
        ]
        return {**self._fields, "choices": choices}

    def answer(self) -> Event:
        """The answer, in OpenAI's shape."""
        kind = "chat.completion" if self._chat else "text_completion"
        choices = [
            {**choice, "message": held.delta.message()} if self._chat else choice
            for choice, held in self._joined()
        ]
        return {**self._fields, "object": kind, "choices": choices}

    def _joined(self) -> Iterator[tuple[dict[str, Any], _Choice]]:
        """Each choice, which a chat's delta or message is yet to join."""
        for index in sorted(self._choices):
            held = self._choices[index]
            text = {} if self._chat else {"text": "".join(held.text)}
            yield {"index": index, **held.fields, **text}, held


class _Choice:
    """One choice of an answer that is put together."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {"logprobs": None, "finish_reason": None}
        self.text: list[str] = []
        self.delta = _Delta()

    def add(self, choice: dict[str, Any]) -> None:
        if choice.get("finish_reason"):
            self.fields["finish_reason"] = choice["finish_reason"]
            if "stop_reason" in choice:
                self.fields["stop_reason"] = choice["stop_reason"]
        if choice.get("logprobs"):
            self.fields["logprobs"] = _joined(self.fields["logprobs"], choice["logprobs"])
        if choice.get("text"):
            self.text.append(choice["text"])
        self.delta.add(choice.get("delta") or {})


class _Delta:
    """A message: texts grow, tool calls grow by their index, the rest is as it came last."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._rest: dict[str, Any] = {}
        self._calls: list[_Call] = []

    def add(self, delta: dict[str, Any]) -> None:
        for key, value in delta.items():
            if value is None or key == "role":
                continue
            if key == "tool_calls":
                for call in value:
                    self._call(call.get("index")).add(call)
            elif isinstance(value, str) or key == "content":
                self._texts.setdefault(key, []).append(plain(value))
            else:
                self._rest[key] = value

    def joined(self) -> dict[str, Any]:
        texts = {key: "".join(pieces) for key, pieces in self._texts.items()}
        delta = {**self._rest, **texts}
        if self._calls:
            calls = [{"index": at, **call.joined()} for at, call in enumerate(self._calls)]
            delta["tool_calls"] = calls
        return delta

    def message(self) -> dict[str, Any]:
        message = {"role": "assistant", **self.joined()}
        message.setdefault("content", None)
        for call in message.get("tool_calls", ()):
            del call["index"]
        return message

    def _call(self, index: int | None) -> _Call:
        if index is None:
            index = len(self._calls)
        while len(self._calls) <= index:
            self._calls.append(_Call())
        return self._calls[index]


class _Call:
    """One tool call of a message."""

    def __init__(self) -> None:
        self._id = ""
        self._name = ""
        self._arguments: list[str] = []

    def add(self, delta: dict[str, Any]) -> None:
        function = delta.get("function") or {}
        self._id = delta.get("id") or self._id
        self._name += function.get("name") or ""
        self._arguments.append(function.get("arguments") or "")

    def joined(self) -> dict[str, Any]:
        function = {"name": self._name, "arguments": "".join(self._arguments)}
        return {"id": self._id, "type": "function", "function": function}


def _joined(held: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Lists grow in place: a copy for each token would take time with the square of them."""
    if held is None:
        return {key: list(v) if isinstance(v, list) else v for key, v in new.items()}
    for key, values in new.items():
        if isinstance(values, list) and isinstance(held.get(key), list):
            held[key].extend(values)
        elif values is not None:
            held[key] = values
    return held
