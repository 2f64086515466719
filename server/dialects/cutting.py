"""Cuts inputs that are too long, for an engine that only turns texts into tokens and back.

The engine's own routes are asked (`RequestFields.tokenizes_at`), so that the tokens are its own. An
engine that cuts by itself is not helped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from paddock.registry.errors import BadValue
from paddock.registry.retrieval import DOCUMENT, INSTRUCTION, QUERY
from paddock.server.dialects.base import Body, Model
from paddock.server.dialects.inputs import Cut
from paddock.server.proxy.steps import Ask

MOST_TOKENS = 6
"""Tokens of one byte at most: some characters become eighteen by normalization (U+FDFA)."""
MARKS = 16
"""More tokens than any tokenizer puts around a text."""
SLICE = 1 << 17
"""Characters of a long text that become tokens in one request."""
MARGIN = 64
"""Tokens beyond those that are wanted, since the last ones of a slice may be others."""
RANK_PATH = "/v1/rerank"
_PLACES = re.compile(r"\{(?:query|instruction)\}")


async def cut_texts(model: Model, body: Body, prompt: str, cut: Cut, ask: Ask) -> Body:
    """The body of an embedding request in which each text that is too long is the tokens it keeps.

    `prompt` is what the gateway has put before each text, and stays.

    Raises:
        BadValue: what stays is longer than what may stay.
    """
    given = body["input"]
    texts: list[Any] = [given] if isinstance(given, str) or _is_ids(given) else list(given)
    limit = min(cut.most or model.context_length, model.context_length - 1)
    long = [n for n, text in enumerate(texts) if isinstance(text, list) or _may_exceed(text, limit)]
    if not long:
        return body
    before, behind = await _marks(model, ask)
    if before and behind:  # an encoder's; a decoder's context keeps a place for one token more
        limit = min(cut.most or model.context_length, model.context_length)
    kept = len(await _tokens(model, prompt, ask)) if prompt and cut.side == "start" else 0
    for number in long:
        text = texts[number]
        if isinstance(text, list):
            ids = text[len(before) :] if text[: len(before)] == before else text
            ids = ids[: len(ids) - len(behind)] if behind and ids[-len(behind) :] == behind else ids
            first = 0
        else:
            # Its prompt is in the text, which may be cut from there.
            begun = prompt if prompt and len(text) > 2 * SLICE and cut.side == "start" else ""
            part = await _part(model, text.removeprefix(begun), cut.side, ask)
            ids, first = await _tokens(model, f"{begun}{part}", ask), kept
        room = limit - len(before) - len(behind)
        if len(ids) > room:
            name = f"input[{number}]" if len(texts) > 1 else "input"
            shortened = _shorten(ids, first, room, cut, name, limit)
            texts[number] = [*before, *shortened, *behind]
    return {**body, "input": texts}


def may_be_far_too_long(texts: Any) -> bool:
    """Whether one of them is so long that an engine should not turn all of it into tokens."""
    several = texts if isinstance(texts, list) else [texts]
    return any(isinstance(text, str) and len(text) > 2 * SLICE for text in several)


async def check_lengths(model: Model, field: str, texts: Any, ask: Ask) -> None:
    """Refuses long texts before they become tokens as a whole.

    Raises:
        BadValue: one has more tokens than the model takes.
    """
    several = texts if isinstance(texts, list) else [texts]
    for number, text in enumerate(several):
        if not isinstance(text, str) or len(await _part(model, text, "end", ask)) == len(text):
            continue
        name = f"{field}[{number}]" if len(several) > 1 else field
        reason = f"has more tokens than the {model.context_length} that the model takes"
        raise BadValue(name, text, f"{reason}; shorten it, or send truncate: end or start")


async def cut_documents(model: Model, body: Body, cut: Cut, ask: Ask) -> Body:
    """The body of a ranking request in which each document that is too long is what it keeps.

    Raises:
        BadValue: the query leaves no place for a document.
    """
    query, documents = body["query"], list(body["documents"])
    context = model.context_length - (model.ranking is not None)  # as above
    limit = min(cut.most or context, context)
    around = len(query.encode()) + MARKS
    if model.ranking is not None:
        around += len("".join(model.ranking.template)) + len(model.ranking.instruction or "")
    least = min(limit - around, cut.most_of_document or limit)
    long = [n for n, text in enumerate(documents) if _may_exceed(text, least)]
    if not long:
        return body
    if model.ranking is not None:
        for number in long:
            document = await _part(model, documents[number], cut.side, ask)
            kept = await _cut_in_prompt(model, (query, document), limit, cut, ask)
            if kept is None:
                name = f"documents[{number}]" if len(documents) > 1 else "documents"
                reason = f"nothing of it fits beside the query in {limit} tokens"
                raise BadValue(name, documents[number], f"cannot be truncated: {reason}")
            documents[number] = kept
        return {**body, "documents": documents}
    # Of an empty document it counts the query, the prompt and the marks alone.
    counted = await ask(RANK_PATH, {**body, "documents": [""]})
    room = limit - int(counted["usage"]["prompt_tokens"])
    if cut.most_of_document is not None:
        room = min(room, cut.most_of_document)
    for number in long:
        part = await _part(model, documents[number], cut.side, ask)
        ids = await _tokens(model, part, ask)
        if len(ids) > room:
            name = f"documents[{number}]" if len(documents) > 1 else "documents"
            shortened = _shorten(ids, 0, room, cut, name, limit)
            path = model.fields.tokenizes_at.replace("tokenize", "detokenize")
            documents[number] = (await ask(path, {"tokens": shortened}))["content"]
    return {**body, "documents": documents}


async def _cut_in_prompt(
    model: Model, texts: tuple[str, str], limit: int, cut: Cut, ask: Ask
) -> str | None:
    """What stays of a document, whose tokens depend on what stands before it in the prompt.

    `texts` are the query and the document. None: nothing of it fits.
    """
    ranking, (query, document) = model.ranking, texts
    assert ranking is not None
    head, _, tail = "".join(ranking.template).partition(DOCUMENT)
    words = {QUERY: query, INSTRUCTION: ranking.instruction or ""}
    head, tail = (_fill(part, words) for part in (head, tail))
    asked = {"content": f"{head}{document}{tail}", "add_special": False, "with_pieces": True}
    tokens = (await ask(model.fields.tokenizes_at, asked))["tokens"]
    ends = list(accumulate(len(_bytes(token["piece"])) for token in tokens))
    begin = len(head.encode())
    end = begin + len(document.encode())
    first = sum(at <= begin for at in ends)
    last = sum(at < end for at in ends) + 1
    drop = max(len(tokens) - limit, last - first - (cut.most_of_document or last - first))
    if drop <= 0:
        return document
    if drop >= last - first:
        return None
    raw = document.encode()
    if cut.side == "end":
        return raw[: ends[last - drop - 1] - begin].decode(errors="ignore")
    kept = raw[ends[first + drop - 1] - begin :].decode(errors="ignore")
    # The prompt brings the space before a first word.
    return kept.removeprefix(" ") if head.endswith(" ") else kept


def _fill(part: str, words: Mapping[str, str]) -> str:
    return _PLACES.sub(lambda found: words[found[0]], part)


def _bytes(piece: Any) -> bytes:
    """Of a token; half a character is a list of numbers."""
    return piece.encode() if isinstance(piece, str) else bytes(piece)


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


async def _part(model: Model, text: str, side: str, ask: Ask) -> str:
    """The text, or as much of the side that stays as gives more tokens than the model takes.

    A text of megabytes never becomes tokens as a whole.
    """
    if len(text) <= 2 * SLICE:
        return text
    total = 0
    for at in range(SLICE, len(text), SLICE):
        piece = text[-at : len(text) - at + SLICE] if side == "start" else text[at - SLICE : at]
        total += len(await _tokens(model, piece, ask))
        if total > model.context_length + MARGIN:
            return text[-at:] if side == "start" else text[:at]
    return text


async def _tokens(model: Model, text: str, ask: Ask, add_special: bool = False) -> list[int]:
    path = model.fields.tokenizes_at
    return list((await ask(path, {"content": text, "add_special": add_special}))["tokens"])


def _may_exceed(text: str, limit: int) -> bool:
    return len(text) * MOST_TOKENS + MARKS > limit and (
        len(text.encode("utf-8", "surrogatepass")) * MOST_TOKENS + MARKS > limit
    )


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], int)
