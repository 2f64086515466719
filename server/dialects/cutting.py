"""Cuts inputs that are too long, for an engine that only turns texts into tokens and back.

The engine's own routes are asked (`RequestFields.tokenizes_at`), so that the tokens are its own. An
engine that cuts by itself is not helped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paddock.registry.errors import BadValue
from paddock.server.dialects.base import Body, Model
from paddock.server.dialects.inputs import Cut
from paddock.server.proxy.steps import Ask

MOST_TOKENS = 6
"""Tokens of one byte at most: some characters become eighteen by normalization (U+FDFA)."""
MARKS = 16
"""More tokens than any tokenizer puts around a text."""
RANK_PATH = "/v1/rerank"


async def cut_texts(model: Model, body: Body, prompt: str, cut: Cut, ask: Ask) -> Body:
    """The body of an embedding request in which each text that is too long is the tokens it keeps.

    `prompt` is what the gateway has put before each text, and stays.

    Raises:
        BadValue: what stays is longer than what may stay.
    """
    given = body["input"]
    texts: list[Any] = [given] if isinstance(given, str) or _is_ids(given) else list(given)
    limit = min(cut.most or model.context_length, model.context_length)
    long = [n for n, text in enumerate(texts) if isinstance(text, list) or _may_exceed(text, limit)]
    if not long:
        return body
    before, behind = await _marks(model, ask)
    kept = len(await _tokens(model, prompt, ask)) if prompt and cut.side == "start" else 0
    for number in long:
        text = texts[number]
        if isinstance(text, list):
            ids = text[len(before) :] if text[: len(before)] == before else text
            ids = ids[: len(ids) - len(behind)] if behind and ids[-len(behind) :] == behind else ids
            first = 0
        else:
            ids, first = await _tokens(model, text, ask), kept
        room = limit - len(before) - len(behind)
        if len(ids) > room:
            name = f"input[{number}]" if len(texts) > 1 else "input"
            shortened = _shorten(ids, first, room, cut, name, limit)
            texts[number] = [*before, *shortened, *behind]
    return {**body, "input": texts}


async def cut_documents(model: Model, body: Body, cut: Cut, ask: Ask) -> Body:
    """The body of a ranking request in which each document that is too long is what it keeps.

    Raises:
        BadValue: the query leaves no place for a document.
    """
    query, documents = body["query"], list(body["documents"])
    limit = min(cut.most or model.context_length, model.context_length)
    least = min(limit - len(query.encode()), cut.most_of_document or limit)
    long = [n for n, text in enumerate(documents) if _may_exceed(text, least - MARKS)]
    if not long:
        return body
    # Of an empty document it counts the query, the prompt and the marks alone.
    counted = await ask(RANK_PATH, {**body, "documents": [""]})
    room = limit - int(counted["usage"]["prompt_tokens"])
    if cut.most_of_document is not None:
        room = min(room, cut.most_of_document)
    for number in long:
        ids = await _tokens(model, documents[number], ask)
        if len(ids) > room:
            name = f"documents[{number}]" if len(documents) > 1 else "documents"
            shortened = _shorten(ids, 0, room, cut, name, limit)
            path = model.fields.tokenizes_at.replace("tokenize", "detokenize")
            documents[number] = (await ask(path, {"tokens": shortened}))["content"]
    return {**body, "documents": documents}


def _shorten(
    ids: Sequence[int], first: int, room: int, cut: Cut, name: str, limit: int
) -> list[int]:
    """`room` of the ids: without their end, or without what follows the `first` of them."""
    if room <= first:
        reason = f"cannot be truncated: nothing of it fits beside its prompt in {limit} tokens"
        raise BadValue(name, f"of {len(ids)} tokens", reason)
    if cut.side == "end":
        return list(ids[:room])
    return [*ids[:first], *ids[len(ids) - room + first :]]


async def _marks(model: Model, ask: Ask) -> tuple[list[int], list[int]]:
    """The tokens that the engine puts before and behind a text."""
    bare = await _tokens(model, "a", ask)
    marked = await _tokens(model, "a", ask, add_special=True)
    at = next(n for n in range(len(marked)) if marked[n : n + len(bare)] == bare)
    return marked[:at], marked[at + len(bare) :]


async def _tokens(model: Model, text: str, ask: Ask, add_special: bool = False) -> list[int]:
    path = model.fields.tokenizes_at
    return list((await ask(path, {"content": text, "add_special": add_special}))["tokens"])


def _may_exceed(text: str, limit: int) -> bool:
    return len(text) * MOST_TOKENS + MARKS > limit and (
        len(text.encode("utf-8", "surrogatepass")) * MOST_TOKENS + MARKS > limit
    )


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], int)
