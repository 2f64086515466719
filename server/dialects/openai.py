"""OpenAI's completions, chats and embeddings, made out for an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field

from paddock.registry.errors import BadValue, FieldRefused
from paddock.registry.json_codec import encode
from paddock.server.dialects.base import Body, Call, Dialect, Model
from paddock.server.dialects.constraints import constrain
from paddock.server.dialects.embeddings import embeddings
from paddock.server.dialects.fields import (
    MAX_CHOICES,
    MAX_SEED,
    encode_body,
    is_token_ids,
    map_fields,
    validate,
)
from paddock.server.dialects.required_tools import check_strict_tools, require_tool
from paddock.server.dialects.thinking import switch_thinking
from paddock.server.http.operation import EVENTS, RouteDoc
from paddock.server.http.shapes import Shape
from paddock.server.proxy.steps import (
    BareLogprobs,
    Called,
    Echo,
    Encoder,
    EngineRequest,
    LegacyLogprobs,
    Named,
    OpenAI,
    Parts,
    Step,
    StoppedBy,
    Thoughts,
    UsageApart,
    WithoutCalls,
)


class Completion(Shape):
    """OpenAI's. Fields that the model's engine does not know are refused by name."""

    model: str = Field(min_length=1)
    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    stream: bool | None = None


class ChatMessage(Shape):
    """One message of a conversation."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class Chat(Shape):
    """OpenAI's. Fields that the model's engine does not know are refused by name."""

    model: str = Field(min_length=1)
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    stream: bool | None = None


class Embed(Shape):
    """OpenAI's."""

    model: str = Field(min_length=1)
    input: str | list[str] | list[int] | list[list[int]]


class Answered(Shape):
    """An answer in OpenAI's shape."""

    object: str
    model: str


@dataclass
class _SplitRequest:
    """A request taken apart: what is left in `fields` is for the engine."""

    request: Body
    raw: bytes
    fields: Body
    streamed: bool
    usage: bool
    n: int

    @classmethod
    def of(cls, request: Body, raw: bytes) -> _SplitRequest:
        """Takes the gateway's own fields out."""
        fields = {key: value for key, value in request.items() if value is not None}
        fields.pop("model", None)
        streamed = fields.pop("stream", False)
        options = fields.pop("stream_options", None) or {}
        usage = streamed and bool(options.get("include_usage"))
        return cls(request, raw, fields, streamed, usage, fields.pop("n", 1))

    def build_request(
        self,
        path: str,
        bodies: list[Body],
        steps: list[Step],
        model: Model,
        encoder: Encoder | None = None,
    ) -> EngineRequest:
        """The request for the engine, one body a part.

        Engines always stream, so that they end with their client: see `steps.py`.
        """
        parts = len(bodies)
        if parts > 1:
            steps = [*steps, Parts(parts, self.n), UsageApart(self.usage or not self.streamed)]
            for index, body in enumerate(bodies):
                if "seed" in body:  # the same seed would give the same answer n times
                    seed = body["seed"] + index % self.n
                    body["seed"] = seed if seed < MAX_SEED else seed - MAX_SEED
        if model.served:
            steps = [*steps, Named(model.uid)]
        for body in bodies:
            body["stream"] = True
            if self.usage or not self.streamed or parts > 1:
                body["stream_options"] = {"include_usage": True}
        return EngineRequest(
            uid=model.uid,
            path=path,
            bodies=tuple(encode_body(body, self.request, self.raw) for body in bodies),
            streamed=self.streamed,
            chat=path.endswith("/chat/completions"),
            steps=tuple(steps),
            encoder=encoder or OpenAI(),
            reusable=not model.fields.closes_after_stream,
        )


def completions(
    request: Body, model: Model, raw: bytes = b"", encoder: Encoder | None = None
) -> EngineRequest:
    """Makes out a request of `/v1/completions`.

    `raw` is the request as it came: it passes as it is where nothing in it has to change.

    Raises:
        NotAble, BadValue, FieldRefused: it cannot be honoured.
    """
    model.needs("generate")
    validate(request, "prompt")
    split = _SplitRequest.of(request, raw)
    best = split.fields.pop("best_of", split.n)
    if best != split.n:
        reason = f"must equal n ({split.n}): only as many are made as are given"
        raise BadValue("best_of", best, reason)
    prompt = split.fields.pop("prompt")
    prompts = prompt if isinstance(prompt, list) and not is_token_ids(prompt) else [prompt]
    if len(prompts) * split.n > MAX_CHOICES:
        raise BadValue("n", split.n, f"prompts × n must be {MAX_CHOICES} at most")
    steps: list[Step] = []
    if split.fields.pop("echo", False):
        steps.append(_echo(prompts, split, model))
    elif split.fields.get("max_tokens") == 0:
        raise BadValue("max_tokens", 0, "must be at least 1, but for echo")
    constrain(split.fields, model, model.fields.in_completions)
    body = map_fields(split.fields, model, model.fields.in_completions)
    logprobs = body.get("logprobs")
    if logprobs is not None:
        if isinstance(logprobs, bool):
            raise BadValue("logprobs", logprobs, "must be a number in completions")
        if model.fields.chat_logprobs:
            steps.append(LegacyLogprobs(top=logprobs))
            # To it, none beside the chosen one are none at all.
            body["logprobs"] = max(1, logprobs)
    if model.fields.usage_in_completions:
        steps.append(UsageApart(split.usage or not split.streamed or len(prompts) * split.n > 1))
    bodies = [{"model": model.name, "prompt": p, **body} for p in prompts for _ in range(split.n)]
    return split.build_request("/v1/completions", bodies, steps, model, encoder)


def chat(
    request: Body, model: Model, raw: bytes = b"", encoder: Encoder | None = None
) -> EngineRequest:
    """Makes out a request of `/v1/chat/completions`, as `completions` does.

    Another dialect gives its own `encoder`, and no `raw`.

    Raises:
        NotAble, BadValue, FieldRefused: it cannot be honoured.
    """
    model.needs("chat")
    validate(request, "messages")
    if request.get("tools") and request.get("tool_choice") != "none":
        model.needs("tools")
    if media(request):
        model.needs("vision")
    if request.get("max_tokens") == 0:
        raise BadValue("max_tokens", 0, "must be at least 1")
    if request.get("top_logprobs") and not request.get("logprobs"):
        raise BadValue("top_logprobs", request["top_logprobs"], "needs logprobs: true")
    if not isinstance(request.get("logprobs") or False, bool):
        raise BadValue("logprobs", request["logprobs"], "must be true or false in chats")
    split = _SplitRequest.of(request, raw)
    messages = [_with_arguments(message) for message in split.fields.pop("messages")]
    if split.fields.get("tool_choice") == "none":
        split.fields.pop("tools", None)
    steps: list[Step] = []
    if split.fields.get("tools"):
        steps.append(Called() if require_tool(split.fields, model) else WithoutCalls())
    else:
        require_tool(split.fields, model)
    check_strict_tools(split.fields, model)
    switch_thinking(split.fields, model)
    constrain(split.fields, model, model.fields.in_chats)
    body = map_fields(split.fields, model, model.fields.in_chats)
    if body.get("logprobs") and not body.get("top_logprobs"):
        steps.append(BareLogprobs())
        if model.fields.chat_logprobs:  # without a number it gives twenty, and none for 0
            body["top_logprobs"] = 1
    if body.get("stop") and model.fields.tells_stop and not isinstance(encoder, OpenAI | None):
        steps.append(StoppedBy())
        body[model.fields.tells_stop] = True
    if model.fields.thoughts:
        steps.append(Thoughts(model.fields.thoughts))
    _add_stops(body, model)
    bodies = [{"model": model.name, "messages": messages, **body} for _ in range(split.n)]
    return split.build_request("/v1/chat/completions", bodies, steps, model, encoder)


def _with_arguments(message: Body) -> Body:
    """The message, with JSON where a tool call has no arguments, or has them as an object."""
    calls = message.get("tool_calls")
    if not calls or not any(_odd_arguments(call) for call in calls):
        return message
    return {
        **message,
        "tool_calls": [
            {**call, "function": {**call["function"], "arguments": arguments}}
            if (arguments := _odd_arguments(call))
            else call
            for call in calls
        ],
    }


def _odd_arguments(call: Body) -> str:
    """What stands for arguments that are no JSON text; empty where they are."""
    function = call.get("function")
    if not isinstance(function, dict):
        return ""
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        return "" if arguments.strip() else "{}"
    return "{}" if arguments is None else encode(arguments).decode()


def _echo(prompts: list[Any], split: _SplitRequest, model: Model) -> Echo:
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise FieldRefused("echo", model.engine, "needs prompts as text, not as token ids")
    if split.fields.get("logprobs") is not None:
        raise FieldRefused("echo", model.engine, "has no log probabilities of the prompt to give")
    silent = split.fields.get("max_tokens") == 0
    if silent:
        split.fields["max_tokens"] = 1
    return Echo([prompt for prompt in prompts for _ in range(split.n)], silent)


def media(request: Body) -> list[Body]:
    """The messages, if some have parts that are no text."""
    messages: list[Body] = request.get("messages") or []
    found = any(
        part["type"] not in {"text", "refusal"}
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )
    return messages if found else []


def _add_stops(body: Body, model: Model) -> None:
    """What ends an answer in the model's chat template and is not known to its engine."""
    ids = model.chat.get("stop_token_ids") or []
    if ids and "stop_token_ids" in model.fields.in_chats:
        body["stop_token_ids"] = [*(body.get("stop_token_ids") or []), *ids]
    texts = model.chat.get("stop") or []
    if texts and "stop" in model.fields.in_chats:
        stop = body.get("stop") or []
        body["stop"] = [*([stop] if isinstance(stop, str) else stop), *texts]


OPENAI = Dialect(
    "openai",
    (
        Call(
            "/v1/completions",
            "generate",
            RouteDoc("inference", Answered, Completion, summary="Continues a prompt", media=EVENTS),
            completions,
        ),
        Call(
            "/v1/chat/completions",
            "chat",
            RouteDoc("inference", Answered, Chat, summary="Answers a conversation", media=EVENTS),
            chat,
        ),
        Call(
            "/v1/embeddings",
            "embed",
            RouteDoc("inference", Answered, Embed, summary="Makes vectors of texts"),
            embeddings,
        ),
    ),
)
