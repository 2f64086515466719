"""One request model for every engine: each field is honoured, translated, emulated or refused.

A field is looked for in this order: asked of the gateway itself (`stream`), neutral (asks nothing
of an engine), emulated here for every engine (`n`, `echo`, lists of prompts), renamed for the
engine, honoured by the engine. What is left is refused with 400, by name: nothing is dropped in
silence. Values that ask for nothing (`best_of` 1, `suffix` null) count as not given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from paddock.engines import attached, load_engine
from paddock.engines.base import RequestFields
from paddock.launcher.fleet.status import ModelStatus
from paddock.registry.errors import BadValue, FieldRefused, NotAble, near
from paddock.registry.json_codec import encode
from paddock.server.http import large
from paddock.server.proxy.steps import (
    Asked,
    Called,
    Echo,
    Encoder,
    LegacyLogprobs,
    Named,
    OpenAI,
    Parts,
    Step,
    StoppedBy,
    UsageApart,
    named,
)
from paddock.server.proxy.upstream import SILENCE_SECONDS

MAX_PARTS = 128
"""Answers that one request may ask for: prompts × `n`."""
MAX_SEED = 2**63
"""Seeds are below: engines read them as signed numbers of 64 bits."""

Body = dict[str, Any]
Check = Callable[[Any], str | None]


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
    if len(texts) > 16 or not all(isinstance(text, str) for text in texts):
        return "must be text, or up to 16 texts"
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


def _ids(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in value)
    )


def _prompt(value: Any) -> str | None:
    one = isinstance(value, str) or _ids(value)
    several = isinstance(value, list) and bool(value) and not _ids(value)
    if one or (several and all(isinstance(p, str) or _ids(p) for p in value)):
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
        content = message.get("content")
        if not (content is None or isinstance(content, str | list)):
            return f"[{index}].content must be text or a list of parts"
        for at, part in enumerate(content if isinstance(content, list) else ()):
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                return f"[{index}].content[{at}] must be an object with a type"
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
    unknown = set(value) - {"include_usage", "include_obfuscation"}
    if unknown:
        return f"has no {sorted(unknown)[0]!r} (known: include_usage)"
    return (
        None
        if isinstance(value.get("include_usage", False), bool)
        else ("include_usage must be true or false")
    )


CHECKS: Mapping[str, Check] = {
    "prompt": _prompt,
    "messages": _messages,
    "stream": _bool,
    "stream_options": _stream_options,
    "n": _whole(1, MAX_PARTS),
    "best_of": _whole(1, MAX_PARTS),
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
# Name → values that ask for nothing of an engine; None: whatever the value.
NEUTRAL: Mapping[str, tuple[Any, ...] | None] = {
    "user": None,
    "metadata": None,
    "safety_identifier": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "request_id": None,
    "service_tier": ("auto", "default"),
    "store": (False,),
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


Standing = Literal["honoured", "translated", "emulated", "refused"]
GATEWAYS = frozenset(("n", "best_of", "echo", "stream", "stream_options"))
"""Fields that the gateway does for every engine."""


def standing(fields: RequestFields, name: str, chat: bool) -> Standing:
    """What becomes of a field of completions or of chats with an engine; docs/engines.md has all.

    Translated are those that reach it by another name, or whose answers are rewritten.
    """
    if name in GATEWAYS:
        return "refused" if chat and name in {"echo", "best_of"} else "emulated"
    taken = fields.in_chats if chat else fields.in_completions
    if name in {"enable_thinking", "reasoning_effort"} and chat:
        name = "chat_template_kwargs"
    its = name if name in taken else fields.renamed.get(name, name)
    if its not in taken or its in fields.refused:
        return "refused"
    if name == "tool_choice" and fields.free_tool_choice:
        return "emulated"
    rewritten = name == "logprobs" and not chat and fields.chat_logprobs
    return "translated" if its != name or rewritten else "honoured"


@dataclass(frozen=True)
class Model:
    """What a dialect must know of the model that a request names."""

    uid: str
    abilities: tuple[str, ...]
    engine: str
    fields: RequestFields
    context_length: int
    served: str = ""
    """The name that requests to an attached endpoint use; empty: the model's id, as everywhere."""
    silence_seconds: float = SILENCE_SECONDS
    """How long its engine may send nothing before a request is given up."""

    @classmethod
    def of(cls, status: ModelStatus) -> Model:
        """From a launched model's status."""
        plan = status.plan
        fields = attached.FIELDS if plan.attached else load_engine(plan.engine).fields
        served = plan.attached.model if plan.attached else ""
        silence = getattr(status, "silence_seconds", None) or SILENCE_SECONDS
        return cls(
            status.uid, plan.abilities, plan.engine, fields, plan.context_length, served, silence
        )

    @property
    def name(self) -> str:
        """What its server calls it."""
        return self.served or self.uid

    def needs(self, ability: str) -> None:
        """Raises `NotAble` if the model lacks the ability."""
        if ability not in self.abilities:
            raise NotAble(self.uid, ability, self.abilities)


@dataclass
class _Wish:
    """A request taken apart: what is left in `fields` is for the engine."""

    given: Body
    raw: bytes
    fields: Body
    streamed: bool
    usage: bool
    n: int

    @classmethod
    def of(cls, given: Body, raw: bytes) -> _Wish:
        """Takes the gateway's own fields out."""
        fields = {key: value for key, value in given.items() if value is not None}
        fields.pop("model", None)
        streamed = fields.pop("stream", False)
        options = fields.pop("stream_options", None) or {}
        usage = streamed and options.get("include_usage", False)
        n = fields.pop("n", 1)
        best = fields.pop("best_of", n)
        if best != n:
            reason = f"must equal n ({n}): only as many are made as are given"
            raise BadValue("best_of", best, reason)
        return cls(given, raw, fields, streamed, usage, n)

    def asked(
        self,
        path: str,
        bodies: list[Body],
        steps: list[Step],
        model: Model,
        encoder: Encoder | None = None,
    ) -> Asked:
        """The request for the engine, one body a part.

        Engines always stream, so that they end with their client: see `treatment.py`.
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
        return Asked(
            uid=model.uid,
            path=path,
            bodies=tuple(_bytes(body, self.given, self.raw) for body in bodies),
            streamed=self.streamed,
            chat=path.endswith("/chat/completions"),
            steps=tuple(steps),
            encoder=encoder or OpenAI(),
            reusable=not model.fields.closes_after_stream,
        )


def completions(
    given: Body, model: Model, raw: bytes = b"", encoder: Encoder | None = None
) -> Asked:
    """Makes out a request of `/v1/completions`.

    `raw` is the request as it came: it passes as it is where nothing in it has to change.

    Raises:
        NotAble, BadValue, FieldRefused: it cannot be honoured.
    """
    model.needs("generate")
    checked(given, "prompt")
    wish = _Wish.of(given, raw)
    prompt = wish.fields.pop("prompt")
    prompts = prompt if isinstance(prompt, list) and not _ids(prompt) else [prompt]
    if len(prompts) * wish.n > MAX_PARTS:
        raise BadValue("n", wish.n, f"prompts × n must be {MAX_PARTS} at most")
    steps: list[Step] = []
    if wish.fields.pop("echo", False):
        steps.append(_echo(prompts, wish, model))
    elif wish.fields.get("max_tokens") == 0:
        raise BadValue("max_tokens", 0, "must be at least 1, but for echo")
    body = _honoured(wish.fields, model, model.fields.in_completions)
    logprobs = body.get("logprobs")
    if logprobs is not None:
        if isinstance(logprobs, bool):
            raise BadValue("logprobs", logprobs, "must be a number in completions")
        if model.fields.chat_logprobs:
            steps.append(LegacyLogprobs(top=logprobs))
            # To it, none beside the chosen one are none at all.
            body["logprobs"] = max(1, logprobs)
    if model.fields.usage_in_completions:
        steps.append(UsageApart(wish.usage or not wish.streamed or len(prompts) * wish.n > 1))
    bodies = [{"model": model.name, "prompt": p, **body} for p in prompts for _ in range(wish.n)]
    return wish.asked("/v1/completions", bodies, steps, model, encoder)


def chat(given: Body, model: Model, raw: bytes = b"", encoder: Encoder | None = None) -> Asked:
    """Makes out a request of `/v1/chat/completions`, as `completions` does.

    Another dialect gives its own `encoder`, and no `raw`.
    """
    model.needs("chat")
    checked(given, "messages")
    if given.get("tools") and given.get("tool_choice") != "none":
        model.needs("tools")
    if media(given):
        model.needs("vision")
    if given.get("max_tokens") == 0:
        raise BadValue("max_tokens", 0, "must be at least 1")
    if given.get("top_logprobs") and not given.get("logprobs"):
        raise BadValue("top_logprobs", given["top_logprobs"], "needs logprobs: true")
    if not isinstance(given.get("logprobs") or False, bool):
        raise BadValue("logprobs", given["logprobs"], "must be true or false in chats")
    wish = _Wish.of(given, raw)
    messages = wish.fields.pop("messages")
    if wish.fields.get("tool_choice") == "none":
        wish.fields.pop("tools", None)
    steps: list[Step] = [Called()] if _must_call(wish.fields, model) else []
    _template(wish.fields, model)
    body = _honoured(wish.fields, model, model.fields.in_chats)
    if body.get("stop") and model.fields.tells_stop and not isinstance(encoder, OpenAI | None):
        steps.append(StoppedBy())
        body[model.fields.tells_stop] = True
    bodies = [{"model": model.name, "messages": messages, **body} for _ in range(wish.n)]
    return wish.asked("/v1/chat/completions", bodies, steps, model, encoder)


def embeddings(
    given: Body, model: Model, raw: bytes = b"", encoder: Encoder | None = None
) -> Asked:
    """Makes out a request of `/v1/embeddings`, whose answer is one object in any dialect."""
    model.needs("embed")
    texts = given.get("input")
    reason = _prompt(texts)
    if texts == "" or (isinstance(texts, list) and "" in texts):
        reason = "must not be empty"
    if reason:
        raise BadValue("input", texts, reason)
    if given.get("encoding_format") not in (None, "float", "base64"):
        raise BadValue("encoding_format", given["encoding_format"], "must be float or base64")
    _check_length(texts, model)
    wanted = {key: value for key, value in given.items() if value is not None}
    wanted.pop("model")
    kept = {"model": model.name, "input": wanted.pop("input")}
    body = {**kept, **_honoured(wanted, model, model.fields.embeddings)}
    reshape = partial(named, model.uid) if model.served else None
    return Asked(
        model.uid, "/v1/embeddings", (_bytes(body, given, raw),), raw=True, reshape=reshape
    )


def _check_length(given: Any, model: Model) -> None:
    """Refuses what cannot fit the context, however it is cut into tokens: no word is less than one.

    What is left, the engine counts.
    """
    texts = given if isinstance(given, list) and not _ids(given) else [given]
    for index, text in enumerate(texts):
        least, unit = (len(text.split()), "words") if isinstance(text, str) else (len(text), "ids")
        if least > model.context_length > 0:
            name = f"input[{index}]" if texts is given else "input"
            reason = f"has {least} {unit}, and the model takes {model.context_length} tokens"
            raise BadValue(name, text if unit == "words" else "of token ids", reason)


def checked(given: Body, needed: str) -> None:
    """Checks the values of all known fields. Raises `BadValue` for the first wrong one."""
    if given.get(needed) is None:
        raise BadValue(needed, given.get(needed), "is needed")
    for name, value in given.items():
        check = CHECKS.get(name)
        reason = check(value) if check is not None and value is not None else None
        if reason:
            raise BadValue(name, value, reason)


def _echo(prompts: list[Any], wish: _Wish, model: Model) -> Echo:
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise FieldRefused("echo", model.engine, "needs prompts as text, not as token ids")
    if wish.fields.get("logprobs") is not None:
        raise FieldRefused("echo", model.engine, "has no log probabilities of the prompt to give")
    silent = wish.fields.get("max_tokens") == 0
    if silent:
        wish.fields["max_tokens"] = 1
    return Echo([prompt for prompt in prompts for _ in range(wish.n)], silent)


def _must_call(fields: Body, model: Model) -> bool:
    """Whether a tool call is to be had by a schema, which is then put into the fields."""
    choice, tools = fields.get("tool_choice", "auto"), fields.get("tools") or []
    if choice in ("auto", "none"):
        return False
    functions = {tool["function"]["name"]: tool["function"] for tool in tools}
    if choice != "required":
        try:
            functions = {choice["function"]["name"]: functions[choice["function"]["name"]]}
        except (KeyError, TypeError):
            reason = "must be auto, none, required, or an object that names one of the tools"
            raise BadValue("tool_choice", choice, reason) from None
    if not functions:
        raise BadValue("tool_choice", choice, "needs tools")
    if not model.fields.free_tool_choice:
        return False
    if fields.get("response_format"):
        raise FieldRefused("response_format", model.engine, "does not go with a required tool")
    fields["tool_choice"] = "auto"
    schema = {"name": "call", "schema": _call_schema(functions)}
    fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return True


def _call_schema(functions: Mapping[str, Body]) -> Body:
    """One object that is a call of one of the functions. Definitions must stand at its root."""
    definitions: Body = {}
    calls = []
    for name, function in functions.items():
        parameters = {"type": "object", **(function.get("parameters") or {})}
        definitions |= parameters.pop("$defs", None) or {}
        properties = {"name": {"const": name}, "arguments": parameters}
        calls.append(
            {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
        )
    schema: Body = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**schema, "$defs": definitions} if definitions else schema


def media(given: Body) -> list[Body]:
    """The messages, if some have parts that are no text."""
    messages: list[Body] = given.get("messages") or []
    found = any(
        part["type"] not in {"text", "refusal"}
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )
    return messages if found else []


def _template(wanted: Body, model: Model) -> None:
    """Fields that are arguments of the model's chat template."""
    arguments = {
        name: wanted.pop(name) for name in ("enable_thinking", "reasoning_effort") if name in wanted
    }
    if arguments:
        if "chat_template_kwargs" not in model.fields.chat:
            raise FieldRefused(next(iter(arguments)), model.engine)
        given = wanted.get("chat_template_kwargs") or {}
        wanted["chat_template_kwargs"] = {**arguments, **given}


def _honoured(wanted: Body, model: Model, taken: frozenset[str]) -> Body:
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


def _bytes(body: Body, given: Body, raw: bytes) -> bytes:
    if raw and body == given:
        return raw
    is_short = 0 < len(raw) < large.LONG_BYTES  # of another dialect's, nothing is known
    return encode(body) if is_short else large.dumps(body)
