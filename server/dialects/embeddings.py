"""Embeddings: OpenAI's request, with what other servers take beside it.

Prompts, cuts and shorter vectors are the same on every engine: an engine that lacks one of them
gets texts with their prompts, tokens that are cut, and its vectors are shortened here.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import islice
from typing import Any

from paddock.registry.errors import BadValue, FieldRefused
from paddock.server.dialects.base import Body, Model
from paddock.server.dialects.cutting import check_lengths, cut_texts, may_be_far_too_long
from paddock.server.dialects.fields import (
    Neutral,
    asks_nothing,
    check_prompt,
    encode_body,
    is_token_ids,
    map_fields,
)
from paddock.server.dialects.inputs import (
    CUT_FIELDS,
    Cut,
    Prompting,
    take_cut,
    take_prompt,
    take_size,
)
from paddock.server.dialects.vectors import shorten
from paddock.server.http import large
from paddock.server.proxy.steps import Ask, Encoder, EngineRequest, Event, named

MOST_COUNTED = 300_000
"""Words of a text that are counted; contexts are shorter."""
_WORD = re.compile(r"\S+")
ONE_INPUT = ("truncate_prompt_tokens",)
"""Fields of `inputs.COUNTS` that make sense for a single text."""
_NEUTRAL: Neutral = {
    "output_dtype": ("float",),  # Voyage's
    "embedding_type": ("float",),  # Jina's
    "embedding_types": (["float"],),  # Cohere's
    "modality": ("text", ["text"]),  # NVIDIA's
}


def embeddings(
    request: Body, model: Model, raw: bytes = b"", encoder: Encoder | None = None
) -> EngineRequest:
    """Makes out a request of `/v1/embeddings`, whose answer is one object in any dialect.

    Raises:
        NotAble, BadValue, FieldRefused: it cannot be honoured.
    """
    model.needs("embed")
    texts = request.get("input")
    reason = check_prompt(texts)
    if texts == "" or (isinstance(texts, list) and "" in texts):
        reason = "must not be empty"
    if reason:
        raise BadValue("input", texts, reason)
    if request.get("encoding_format") not in (None, "float", "base64"):
        raise BadValue("encoding_format", request["encoding_format"], "must be float or base64")
    wanted = {
        name: value
        for name, value in request.items()
        if value is not None and not asks_nothing(_NEUTRAL, name, value)
    }
    wanted.pop("model")
    kept = {"model": model.name, "input": wanted.pop("input")}
    if model.served:  # what an attached endpoint makes of its fields is its own
        _check_length(texts, model)
        body = {**kept, **map_fields(wanted, model, model.fields.embeddings)}
        return _one_object(model, body, request, raw, [partial(named, model.uid)])
    cut = take_cut(wanted, ONE_INPUT)
    if cut is None:
        _check_length(texts, model)
    elif "truncate" not in model.fields.embeddings and not model.fields.tokenizes_at:
        raise FieldRefused(_first(request, CUT_FIELDS), model.engine)
    prompting = take_prompt(wanted, model.embedding, "prompt_name" in model.fields.embeddings)
    size = take_size(wanted, model.embedding)
    prepare = None
    body = {**kept, **map_fields(wanted, model, model.fields.embeddings)}
    before = _prompt(body, prompting, model)
    if cut is not None and "truncate" in model.fields.embeddings:
        body |= cut.fields
    elif cut is not None:
        prepare = partial(_prepare, model, body, before, cut)
    elif model.fields.tokenizes_at and may_be_far_too_long(body["input"]):
        prepare = partial(_check, model, body)
    reshape = [] if size is None else [partial(shorten, size)]
    return _one_object(model, body, request, raw, reshape, prepare)


async def _prepare(model: Model, body: Body, prompt: str, cut: Cut, ask: Ask) -> bytes:
    return large.dumps(await cut_texts(model, body, prompt, cut, ask))


async def _check(model: Model, body: Body, ask: Ask) -> bytes:
    await check_lengths(model, "input", body["input"], ask)
    return large.dumps(body)


def _one_object(
    model: Model, body: Body, request: Body, raw: bytes, changes: list[Any], prepare: Any = None
) -> EngineRequest:
    def reshape(answer: Event) -> Event:
        for change in changes:
            answer = change(answer)
        return answer

    return EngineRequest(
        model.uid,
        "/v1/embeddings",
        (encode_body(body, request, raw),),
        is_one_object=True,
        reshape=reshape if changes else None,
        prepare=prepare,
    )


def _prompt(body: Body, prompting: Prompting, model: Model) -> str:
    """Puts the prompt into the body; what it has put before the texts itself.

    Raises:
        BadValue: there are token ids, before which no text can be put.
    """
    if not prompting.text and not prompting.names:
        return ""
    given = body["input"]
    several = isinstance(given, list) and not is_token_ids(given)
    texts = given if several else [given]
    if not all(isinstance(text, str) for text in texts):
        reason = "is put before texts, and the input has token ids"
        raise BadValue(prompting.field, prompting.value, reason)
    if prompting.names:
        body["prompt_name"] = list(prompting.names)
        body["prompt_field"] = prompting.field
    elif "prompt" in model.fields.embeddings:
        body["prompt"] = prompting.text
    else:
        prompted = [prompting.text + text for text in texts]
        body["input"] = prompted if several else prompted[0]
        return prompting.text
    return ""


def _words(text: str) -> int:
    """How many there are; no list of them is made, which would be larger than the text."""
    return sum(1 for _ in islice(_WORD.finditer(text), MOST_COUNTED))


def _first(request: Body, names: tuple[str, ...]) -> str:
    return next(name for name in names if request.get(name) is not None)


def _check_length(value: Any, model: Model) -> None:
    """Refuses what cannot fit the context, however it is cut into tokens: no word is less than one.

    What is left, the engine counts.
    """
    texts = value if isinstance(value, list) and not is_token_ids(value) else [value]
    for index, text in enumerate(texts):
        least, unit = (_words(text), "words") if isinstance(text, str) else (len(text), "ids")
        if least > model.context_length > 0:
            name = f"input[{index}]" if texts is value else "input"
            more = "more than " if least == MOST_COUNTED else ""
            reason = f"has {more}{least} {unit}, and the model takes {model.context_length} tokens"
            raise BadValue(name, text if unit == "words" else "of token ids", reason)
