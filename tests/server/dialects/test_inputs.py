"""Cuts, prompts and shorter vectors in every API's words, made out for an engine."""

from __future__ import annotations

import asyncio
import json
import math
import struct
from base64 import b64decode, b64encode
from dataclasses import replace
from typing import Any

import pytest

from paddock.engines import load_engine
from paddock.registry.errors import BadValue, FieldRefused, Refused
from paddock.registry.retrieval import Embedding, Ranking
from paddock.server.dialects.base import Model
from paddock.server.dialects.embeddings import embeddings
from paddock.server.dialects.inputs import take_cut
from paddock.server.dialects.rerank import rerank
from paddock.server.proxy.steps import OpenAI

EMBEDDING = Embedding.model_validate(
    {
        "prompts": {"query": "Q: ", "document": "", "Clustering": "C: "},
        "instruct": "Do {instruction}: ",
        "dimensions_from": "2",
    }
)
RANKING = Ranking(
    template=("{instruction}: {query} / {document}",),
    instruction="Rank",
    true_token="yes",
    false_token="no",
)
LIBRARY = Model(
    "m",
    ("embed", "rerank"),
    "sentence-transformers",
    load_engine("sentence_transformers").fields,
    100,
)
LLAMA = Model("m", ("embed", "rerank"), "llama.cpp", load_engine("llama.cpp").fields, 100)
BOTH = [LIBRARY, LLAMA]


def embed(model: Model, given: Any = "a", **fields: Any) -> dict[str, Any]:
    """The body for the engine."""
    request = {"model": "m", "input": given, **fields}
    made = embeddings(request, model, json.dumps(request).encode())
    return dict(json.loads(made.bodies[0]))


def ranked(model: Model, **fields: Any) -> dict[str, Any]:
    """The body for the engine."""
    request = {"model": "m", "query": "q", "documents": ["a", "b"], **fields}
    return dict(json.loads(rerank(request, model, b"", OpenAI()).bodies[0]))


@pytest.mark.parametrize(
    ("fields", "cut"),
    [
        ({}, None),
        ({"truncate": False}, None),
        ({"truncate": "NONE"}, None),
        ({"truncation": False}, None),
        ({"truncation_direction": "Left"}, None),
        ({"truncate": True}, ("end", None, None)),
        ({"truncate": "END"}, ("end", None, None)),
        ({"truncate": "start"}, ("start", None, None)),
        ({"truncate": "True"}, ("end", None, None)),
        ({"truncation": True}, ("end", None, None)),
        ({"truncate": True, "truncation_direction": "Left"}, ("start", None, None)),
        ({"truncate": True, "truncation_direction": "Right"}, ("end", None, None)),
        ({"truncate_prompt_tokens": -1}, ("end", None, None)),
        ({"truncate_prompt_tokens": 7}, ("end", 7, None)),
        ({"truncate_prompt_tokens": 7, "truncation_side": "left"}, ("start", 7, None)),
        ({"max_tokens_per_doc": 5}, ("end", None, 5)),
    ],
)
def test_a_cut_is_known_by_each_of_its_spellings(fields: dict[str, Any], cut: Any) -> None:
    """Cohere's, NVIDIA's, Voyage's, vLLM's and those of Text Embeddings Inference."""
    wanted = {"other": 1, **fields}
    found = take_cut(wanted)
    assert wanted == {"other": 1}
    assert cut == (found and (found.side, found.most, found.most_of_document))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"truncate": "middle"}, "none, start or end"),
        ({"truncate": 1}, "none, start or end"),
        ({"truncate": ["END"]}, "none, start or end"),
        ({"truncation_direction": "up"}, "left or right"),
        ({"truncate_prompt_tokens": 0}, "1 or more, or -1"),
        ({"truncate_prompt_tokens": True}, "1 or more"),
        ({"max_tokens_per_doc": -1}, "1 or more"),
        ({"truncate": "NONE", "truncate_prompt_tokens": 5}, "contradicts truncate_prompt_tokens"),
        ({"truncate": False, "truncation": True}, "contradicts truncation"),
    ],
)
def test_a_cut_that_is_none_is_a_400_by_name(fields: dict[str, Any], says: str) -> None:
    """With what it may be."""
    with pytest.raises(BadValue, match=says):
        take_cut(dict(fields))


QUERY_FIELDS: list[dict[str, Any]] = [
    {"prompt_name": "query"},
    {"input_type": "query"},
    {"input_type": "search_query"},
    {"input_type": "SEARCH_QUERY"},
    {"task": "retrieval.query"},
    {"task_type": "RETRIEVAL_QUERY"},
    {"prompt": "Q: "},
]


@pytest.mark.parametrize("fields", QUERY_FIELDS)
def test_a_query_has_the_specs_prompt_on_each_engine(fields: dict[str, Any]) -> None:
    """The library is told of it, since pooling may leave it out; llama.cpp gets texts with it."""
    body = embed(replace(LIBRARY, embedding=EMBEDDING), ["a", "b"], **fields)
    assert body == {"model": "m", "input": ["a", "b"], "prompt": "Q: "}
    body = embed(replace(LLAMA, embedding=EMBEDDING), ["a", "b"], **fields)
    assert body == {"model": "m", "input": ["Q: a", "Q: b"]}
    assert embed(replace(LLAMA, embedding=EMBEDDING), "a", **fields)["input"] == "Q: a"


@pytest.mark.parametrize("model", BOTH)
def test_documents_other_kinds_and_instructions(model: Model) -> None:
    """An empty prompt changes nothing; other kinds are the prompts of their names."""
    model = replace(model, embedding=EMBEDDING)
    for kind in ("document", "passage", "search_document"):
        assert embed(model, input_type=kind) == {"model": "m", "input": "a"}
    for fields, prompt in (
        ({"input_type": "clustering"}, "C: "),
        ({"instruction": "find"}, "Do find: "),
        ({"instruct": "find", "input_type": "query"}, "Do find: "),
    ):
        body = embed(model, **fields)
        assert body.get("prompt", body["input"].removesuffix("a")) == prompt


@pytest.mark.parametrize("model", BOTH)
@pytest.mark.parametrize(
    ("given", "fields", "says"),
    [
        ("a", {"prompt_name": "poem"}, "query, document, Clustering"),
        ("a", {"input_type": "image"}, "query, document, Clustering"),
        ("a", {"input_type": 5}, "must be text"),
        ("a", {"input_type": "query", "prompt": "x"}, "goes without"),
        ("a", {"instruction": "x", "instruct": "y"}, "goes without"),
        ("a", {"instruction": "x", "input_type": "document"}, "is for queries"),
        ([1, 2], {"input_type": "query"}, "token ids"),
        (["a", [1]], {"prompt": "x"}, "token ids"),
        ("a", {"dimensions": 1}, "2 and more"),
        ("a", {"dimensions": "8"}, "2 and more"),
        ("a", {"dimensions": 8, "output_dimension": 8}, "goes without"),
    ],
)
def test_what_the_spec_does_not_know_is_a_400_that_says_what_it_has(
    model: Model, given: Any, fields: dict[str, Any], says: str
) -> None:
    """The same on each engine."""
    with pytest.raises(BadValue, match=says):
        embed(replace(model, embedding=EMBEDDING), given, **fields)


def test_without_a_spec_the_files_prompts_count_where_the_engine_has_them() -> None:
    """The library looks for them itself; llama.cpp has none."""
    body = embed(LIBRARY, input_type="passage")
    assert body["prompt_name"][:2] == ["passage", "document"]
    assert body["prompt_field"] == "input_type"
    assert embed(LIBRARY, prompt_name="poem")["prompt_name"] == ["poem"]
    with pytest.raises(BadValue, match="it has: none"):
        embed(LLAMA, input_type="passage")
    with pytest.raises(BadValue, match="send the whole text as prompt"):
        embed(LIBRARY, instruction="find")


def test_fields_that_ask_for_floats_ask_nothing() -> None:
    """Voyage's, Jina's and Cohere's; others are refused by name."""
    assert embed(LLAMA, output_dtype="float", embedding_type="float") == {
        "model": "m",
        "input": "a",
    }
    with pytest.raises(FieldRefused, match="output_dtype"):
        embed(LLAMA, output_dtype="int8")


def shortened(vector: Any, size: Any) -> Any:
    request = {"model": "m", "input": "a", "dimensions": size}
    made = embeddings(request, replace(LLAMA, embedding=EMBEDDING), b"")
    assert "dimensions" not in json.loads(made.bodies[0])
    assert made.reshape is not None
    return made.reshape({"data": [{"index": 0, "embedding": vector}]})["data"][0]["embedding"]


def test_vectors_are_cut_and_scaled_again() -> None:
    """As numbers and as base64; one that was not of length 1 stays as it is."""
    unit = [0.5, 0.5, 0.5, 0.5]
    half = math.sqrt(0.5)
    assert shortened(unit, 2) == pytest.approx([half, half])
    packed = shortened(b64encode(struct.pack("<4f", *unit)).decode(), 2)
    assert struct.unpack("<2f", b64decode(packed)) == pytest.approx([half, half])
    assert shortened(unit, 4) == pytest.approx(unit)
    assert shortened([3.0, 4.0, 5.0], 2) == [3.0, 4.0]
    with pytest.raises(BadValue, match="4 at most"):
        shortened(unit, 5)


def test_dimensions_are_the_engines_where_the_spec_is_silent() -> None:
    """The library's files may allow it; a GGUF says nothing of it."""
    assert embed(LIBRARY, output_dimension=8)["dimensions"] == 8
    with pytest.raises(FieldRefused, match="dimensions"):
        embed(LLAMA, dimensions=8)
    listed = Embedding.model_validate({"dimensions": ["64", "128"]})
    with pytest.raises(BadValue, match="64, 128"):
        embed(replace(LLAMA, embedding=listed), dimensions=100)


def test_an_instruction_of_a_ranking() -> None:
    """It goes where it is taken; the model's own asks for nothing anywhere."""
    model = replace(LIBRARY, ranking=RANKING)
    fields: dict[str, Any]
    for fields in ({"instruction": "x"}, {"instruct": "x"}, {"kwargs": '{"instruction": "x"}'}):
        assert ranked(model, **fields)["instruction"] == "x"
    for one in BOTH:
        assert "instruction" not in ranked(replace(one, ranking=RANKING), instruction="Rank")
    with pytest.raises(FieldRefused, match="GGUF"):
        ranked(replace(LLAMA, ranking=RANKING), instruction="x")
    with pytest.raises(BadValue, match="not trained with any"):
        ranked(LLAMA, instruction="x")
    with pytest.raises(BadValue, match="must not have"):
        ranked(replace(LLAMA, ranking=RANKING), query="{document}")
    assert ranked(model, query="{document}")["query"] == "{document}"
    for fields in ({"instruction": 5}, {"instruction": "x", "instruct": "y"}, {"kwargs": "{"}):
        with pytest.raises(Refused):
            ranked(model, **fields)


def test_the_library_cuts_by_itself() -> None:
    """It is told the side and the numbers."""
    body = embed(LIBRARY, "a " * 500, truncate="START", truncate_prompt_tokens=9)
    assert (body["truncate"], body["max_tokens"]) == ("start", 9)
    body = ranked(LIBRARY, truncate=True, max_tokens_per_doc=9)
    assert (body["truncate"], body["max_document_tokens"]) == ("end", 9)
    with pytest.raises(FieldRefused, match="max_tokens_per_doc"):
        embed(LIBRARY, max_tokens_per_doc=9)


class Words:
    """An engine's tokenizer: each word is a token, between 1 and 2; it counts the requests."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(path)
        if path == "/tokenize":
            ids = [int(word) if word.isdigit() else 9 for word in body["content"].split()]
            return {"tokens": [1, *ids, 2] if body["add_special"] else ids}
        if path == "/detokenize":
            return {"content": " ".join(map(str, body["tokens"]))}
        assert path == "/v1/rerank"
        assert body["documents"] == [""]
        return {"usage": {"prompt_tokens": 90}}


def numbers(count: int) -> str:
    return " ".join(str(number) for number in range(100, 100 + count))


def prepared(made: Any) -> tuple[dict[str, Any], list[str]]:
    engine = Words()
    return json.loads(asyncio.run(made.prepare(engine))), engine.asked


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"truncate": "end"}, [*range(100, 198)]),
        ({"truncate": "start"}, [*range(402, 500)]),
        ({"truncate_prompt_tokens": 5}, [100, 101, 102]),
        ({"truncate": "start", "truncate_prompt_tokens": 5}, [497, 498, 499]),
    ],
)
def test_texts_are_cut_by_the_engines_own_tokens(fields: dict[str, Any], kept: list[int]) -> None:
    """What stands around a text stays; short texts stay texts."""
    request = {"model": "m", "input": ["a", numbers(400), [1, 5, 2]], **fields}
    body, asked = prepared(embeddings(request, LLAMA, b""))
    assert body["input"][1] == [1, *kept, 2]
    assert body["input"][2] == [1, 5, 2]
    if "truncate_prompt_tokens" not in fields:
        assert body["input"][0] == "a"
        assert asked.count("/tokenize") == 3


def test_a_prompt_stays_where_the_start_is_cut() -> None:
    """It stands before the text, and says what the text is."""
    fields = {"truncate": "start", "truncate_prompt_tokens": 6, "prompt": "7 8 "}
    request = {"model": "m", "input": numbers(400), **fields}
    body, _ = prepared(embeddings(request, LLAMA, b""))
    assert body["input"] == [[1, 7, 8, 498, 499, 2]]


def test_no_engine_is_asked_where_nothing_can_be_too_long() -> None:
    """The request goes as it is."""
    body, asked = prepared(embeddings({"model": "m", "input": "a", "truncate": True}, LLAMA, b""))
    assert (body["input"], asked) == ("a", [])
    request = {"model": "m", "input": numbers(50), "truncate": "start", "prompt": numbers(99)}
    made = embeddings(request, LLAMA, b"")
    with pytest.raises(BadValue, match="nothing of it fits"):
        prepared(made)


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"truncate": "end"}, [*range(100, 110)]),
        ({"truncate": "start"}, [*range(490, 500)]),
        ({"max_tokens_per_doc": 3}, [100, 101, 102]),
        ({"truncate_prompt_tokens": 92}, [100, 101]),
    ],
)
def test_documents_are_cut_and_the_query_is_not(fields: dict[str, Any], kept: list[int]) -> None:
    """The engine itself counts what stands around a document."""
    request = {"model": "m", "query": "q", "documents": ["a", numbers(400)], **fields}
    body, _ = prepared(rerank(request, LLAMA, b"", OpenAI()))
    assert body["query"] == "q"
    assert body["documents"] == ["a", " ".join(map(str, kept))]


@pytest.mark.parametrize("field", ["input", "query", "documents"])
def test_a_text_of_megabytes_never_becomes_tokens_as_a_whole(field: str) -> None:
    """It is refused, or cut, by its first or last slices."""
    text = numbers(10) + " a" * 2_000_000 + " " + numbers(3)
    if field == "input":
        request = {"model": "m", "input": ["a", text]}
        with pytest.raises(BadValue, match=r"has 2000013 words|more than 300000 words"):
            embeddings(request, LLAMA, b"")
        request["input"] = ["a", "x" * 4_000_000]
        made = embeddings(request, LLAMA, b"")
        cut = embeddings({**request, "input": text, "truncate": "start"}, LLAMA, b"")
        body, asked = prepared(cut)
        assert body["input"][0][-4:] == [100, 101, 102, 2]
        assert len(asked) < 6
    else:
        request = {"model": "m", "query": "q", "documents": ["a"], field: text}
        request["documents"] = [text] if field == "documents" else ["a"]
        made = rerank(request, LLAMA, b"", OpenAI())
        with pytest.raises(BadValue, match=f"{field}.*more tokens than the 100"):
            prepared(made)
        return
    body, _ = prepared(made)  # to this tokenizer it is one word
    assert body["input"] == request["input"]


def test_an_attached_endpoint_gets_its_fields_as_they_are() -> None:
    """What they mean there is its own."""
    from paddock.engines import attached

    model = replace(LLAMA, fields=attached.FIELDS, served="there")
    fields = {"truncate": "END", "input_type": "query", "truncate_prompt_tokens": 5}
    assert embed(model, **fields) == {"model": "there", "input": "a", **fields}
    fields = {"truncate": True, "instruction": "x", "max_tokens_per_doc": 5}
    assert {**ranked(model, **fields), **fields} == ranked(model, **fields)
