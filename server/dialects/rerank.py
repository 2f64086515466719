"""Reranking: Cohere's request, with Xinference's additions, through an engine's `/v1/rerank`.

The engine scores the documents; their order, `top_n` and the texts are put in here, the same for
every engine. Scores are the engine's own: larger is nearer, and between 0 and 1 only where the
model's head makes them so.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from pydantic import Field

from paddock.registry.errors import BadValue, FieldRefused
from paddock.registry.json_codec import decode
from paddock.registry.retrieval import DOCUMENT
from paddock.server.dialects.base import Body, Call, Dialect, Model
from paddock.server.dialects.cutting import check_lengths, cut_documents, may_be_far_too_long
from paddock.server.dialects.fields import Neutral, asks_nothing
from paddock.server.dialects.inputs import CUT_FIELDS, Cut, take_cut, take_instruction
from paddock.server.http import large
from paddock.server.http.operation import RouteDoc
from paddock.server.http.shapes import Shape
from paddock.server.proxy.steps import Ask, Encoder, EngineRequest, Event

_NEUTRAL: Neutral = {
    "user": None,
    "request_id": None,
    "return_len": None,  # Xinference's: the answer always has it
    "kwargs": ("", "{}", {}),
}
_OWN = ("model", "query", "documents", "top_n", "return_documents")


class Rerank(Shape):
    """Cohere's. A query or document may be an object with `text`."""

    model: str = Field(min_length=1)
    query: str | dict[str, Any]
    documents: list[str | dict[str, Any]] = Field(min_length=1)
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool | None = None


class Ranked(Shape):
    """One document: its place in the request, and the model's score."""

    index: int
    relevance_score: float
    document: dict[str, str] | None


class Reranked(Shape):
    """The documents, the nearest first."""

    id: str
    results: list[Ranked]
    meta: dict[str, Any]


def rerank(request: Body, model: Model, raw: bytes, encoder: Encoder) -> EngineRequest:
    """Makes out a request of `/v1/rerank`.

    Raises:
        NotAble, BadValue, FieldRefused: it cannot be honoured.
    """
    model.needs("rerank")
    wanted = {key: value for key, value in _with_kwargs(request).items() if value is not None}
    own = dict(wanted)
    instruction = cut = None
    if not model.served:
        cut = take_cut(own)
        instruction = take_instruction(own)
    further: Body = {}
    for name, value in own.items():
        if name in _OWN or asks_nothing(_NEUTRAL, name, value):
            continue
        if name not in model.fields.rerank:
            raise FieldRefused(name, model.engine)
        further[name] = value
    query = _text(wanted.get("query"), "query")
    documents = _documents(wanted.get("documents"))
    if model.ranking is not None and model.fields.tokenizes_at and DOCUMENT in query:
        # The engine fills its prompt in twice, and would put a document into the query.
        raise BadValue("query", query, f"must not have {DOCUMENT}, where {model.engine} ranks")
    top = wanted.get("top_n", len(documents))
    if isinstance(top, str) and top.strip().isdecimal():
        top = int(top)
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise BadValue("top_n", top, "must be a whole number of 1 or more")
    returns_documents = _flag(wanted.get("return_documents", False))
    if returns_documents is None:
        raise BadValue("return_documents", wanted["return_documents"], "must be true or false")
    body = {"model": model.name, "query": query, "documents": documents, **further}
    if instruction is not None:
        body |= _instructed(instruction, model)
    if cut is not None and "truncate" in model.fields.rerank:
        body |= cut.fields
    elif cut is not None and not model.fields.tokenizes_at:
        raise FieldRefused(next(name for name in CUT_FIELDS if name in wanted), model.engine)
    reshape = partial(answer, model.uid, documents if returns_documents else [], top)
    return EngineRequest(
        model.uid,
        "/v1/rerank",
        (large.dumps(body),),
        is_one_object=True,
        reshape=reshape,
        prepare=_preparation(model, body, cut) if model.fields.tokenizes_at else None,
    )


def _preparation(
    model: Model, body: Body, cut: Cut | None
) -> Callable[[Ask], Awaitable[bytes]] | None:
    """What an engine that only has a tokenizer is asked first; None: nothing."""
    if cut is not None:
        return partial(_prepare, model, body, cut)
    long = may_be_far_too_long([body["query"], *body["documents"]])
    return partial(_check, model, body) if long else None


def _with_kwargs(request: Body) -> Body:
    """The request with what Xinference's client sends as JSON text, or as an object, in `kwargs`.

    Raises:
        BadValue: it is neither.
    """
    kwargs = request.get("kwargs")
    if kwargs is None or asks_nothing(_NEUTRAL, "kwargs", kwargs):
        return request
    if isinstance(kwargs, str):
        try:
            kwargs = decode(kwargs.encode())
        except ValueError:
            kwargs = None
    if not isinstance(kwargs, dict):
        raise BadValue("kwargs", request["kwargs"], "must be an object, or JSON text of one")
    rest = {name: value for name, value in request.items() if name != "kwargs"}
    return {**kwargs, **rest}


def _instructed(instruction: str, model: Model) -> Body:
    """The field of an instruction for the engine, if it is not the one that counts anyway.

    Raises:
        BadValue: the model takes none.
        FieldRefused: the engine has its prompt in a file.
    """
    ranking = model.ranking
    if ranking is not None and ranking.instruction == instruction:
        return {}
    if "instruction" in model.fields.rerank:
        return {"instruction": instruction}  # the engine knows what its files take
    if ranking is None or ranking.instruction is None:
        raise BadValue("instruction", instruction, "the model was not trained with any")
    raise FieldRefused("instruction", model.engine, model.fields.refused.get("instruction", ""))


async def _check(model: Model, body: Body, ask: Ask) -> bytes:
    await check_lengths(model, "query", body["query"], ask)
    await check_lengths(model, "documents", body["documents"], ask)
    return large.dumps(body)


async def _prepare(model: Model, body: Body, cut: Cut, ask: Ask) -> bytes:
    return large.dumps(await cut_documents(model, body, cut, ask))


# Xinference takes these for true and false, and some of its clients send them as text.
_FLAGS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0", ""), False),
}


def _flag(value: Any) -> bool | None:
    """A flag, also as text or as 0 and 1; None for what is none."""
    return value if isinstance(value, bool) else _FLAGS.get(str(value).strip().casefold())


def answer(uid: str, documents: list[str], top: int, scored: Event) -> Event:
    """The `top` best of the engine's scores, best first, with the `documents`, if any."""
    ranked = sorted(scored["results"], key=lambda one: (-one["relevance_score"], one["index"]))
    usage = scored.get("usage") or {}
    # As engines count; as Jina's kind of endpoint does; as another Paddock or Cohere does.
    counted = (scored.get("meta") or {}).get("tokens") or {}
    tokens = (
        usage.get("prompt_tokens") or usage.get("total_tokens") or counted.get("input_tokens", 0)
    )
    return {
        "id": f"rerank-{secrets.token_hex(12)}",
        "model": uid,
        "results": [
            {
                "index": one["index"],
                "relevance_score": one["relevance_score"],
                "document": {"text": documents[one["index"]]} if documents else None,
            }
            for one in ranked[:top]
        ],
        "meta": {
            "api_version": None,
            "billed_units": None,
            "tokens": {"input_tokens": tokens, "output_tokens": 0},
            "warnings": None,
        },
    }


def _text(value: Any, name: str) -> str:
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise BadValue(name, value, "must be text, or an object with text")
    return text


def _documents(value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise BadValue("documents", value, "must be a list with a document or more")
    return [_text(one, f"documents[{index}]") for index, one in enumerate(value)]


RERANK = Dialect(
    "rerank",
    (
        Call(
            "/v1/rerank",
            "rerank",
            RouteDoc(
                "inference",
                Reranked,
                Rerank,
                summary="Orders documents by how near they are to a query",
            ),
            rerank,
        ),
    ),
)
