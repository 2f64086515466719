"""Embeddings and reranking by a real BERT, through OpenAI's and Xinference's clients."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import psutil
import pytest
from xinference_client import RESTfulClient

from paddock.client import Client
from paddock.registry.errors import NotAble
from paddock.server.dialects.base import Model
from paddock.server.dialects.rerank import rerank
from paddock.server.proxy.steps import OpenAI
from tests.lazy import Lazy
from tests.server.http.test_errors import raw

openai = Lazy("openai")

TEXTS = [
    "The elephant eats grass.",
    "An animal with a trunk feeds on plants.",
    "The stock market fell today.",
]


@pytest.fixture
def sdk(client: Client) -> Any:
    with openai.OpenAI(base_url=f"{client.endpoint}/v1", api_key="none", max_retries=0) as made:
        yield made


def cosine(one: list[float], other: list[float]) -> float:
    return (
        sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)
    )


def embed(sdk: Any, uid: str, given: Any, **fields: Any) -> list[list[float]]:
    answer = sdk.embeddings.create(model=uid, input=given, **fields)
    assert [one.index for one in answer.data] == list(range(len(answer.data)))
    return [one.embedding for one in answer.data]


def test_near_sentences_have_near_vectors(sdk: Any, embedder: str) -> None:
    """Two sentences of one meaning, without a word in common, are nearer than two of different."""
    one, like, other = embed(sdk, embedder, TEXTS)
    assert len(one) == 384
    assert cosine(one, like) > 0.4
    assert abs(cosine(one, other)) < 0.2
    assert math.hypot(*one) == pytest.approx(1, abs=1e-3)


def test_what_a_file_is_for_is_derived_from_its_header(
    client: Client, sdk: Any, minilm: Path
) -> None:
    """By its path alone, without a spec: a BERT embeds, and with a head it ranks."""
    for name, kind in (("minilm", "embedding"), ("ranker", "rerank")):
        launched = client.launch(model_name=f"{minilm}/{name}.F16.gguf", model_uid=f"told-{name}")
        assert launched["plan"]["type"] == kind
        assert launched["plan"]["derived"]["context_length"] == 512
    (vector,) = embed(sdk, "told-minilm", TEXTS[0])
    assert len(vector) == 384
    asked = {"model": "told-ranker", "query": "grass", "documents": TEXTS}
    status, _, body = raw(client, "POST", "/v1/rerank", json.dumps(asked).encode())
    assert status == 200
    assert len(json.loads(body)["results"]) == len(TEXTS)
    for name in ("minilm", "ranker"):
        client.terminate(f"told-{name}")


def test_list_is_answered_in_its_order(sdk: Any, embedder: str) -> None:
    """Each text has the vector that it has alone; usage counts all."""
    together = sdk.embeddings.create(model=embedder, input=TEXTS)
    assert together.model == embedder
    tokens = 0
    for text, found in zip(TEXTS, together.data, strict=True):
        alone = sdk.embeddings.create(model=embedder, input=text)
        tokens += alone.usage.prompt_tokens
        assert cosine(alone.data[0].embedding, found.embedding) == pytest.approx(1, abs=1e-3)
    assert together.usage.prompt_tokens == together.usage.total_tokens == tokens


def test_base64_is_the_same_vector(sdk: Any, embedder: str) -> None:
    """The SDK asks for base64 unless told; as numbers it is the same."""
    (packed,) = embed(sdk, embedder, TEXTS[0])
    (plain,) = embed(sdk, embedder, TEXTS[0], encoding_format="float")
    assert packed == pytest.approx(plain, abs=1e-6)


def test_token_ids_are_taken(sdk: Any, embedder: str) -> None:
    """One list of ids is one text, a list of such lists several."""
    ids = [101, 7592, 102]  # [CLS] hello [SEP]
    assert embed(sdk, embedder, ids)[0] == pytest.approx(embed(sdk, embedder, "Hello")[0], abs=1e-3)
    assert len(embed(sdk, embedder, [ids, ids])) == 2


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": [[1], []]}, "input"),
        ({"input": [10**6]}, "invalid tokens"),
        ({"input": "word " * 600}, "600 words"),
        ({"input": ["a", "word " * 100_000]}, r"input\[1\].* 512 tokens"),
        ({"input": [7592] * 513}, "513 ids"),
        ({"input": "xyzzy " * 200}, "602 tokens"),
        ({"dimensions": 128}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"extra_body": {"truncate_prompt_tokens": 0}}, "truncate_prompt_tokens"),
        ({"extra_body": {"truncate": "middle"}}, "none, start or end"),
        ({"extra_body": {"input_type": "query"}}, "no such prompt"),
        ({"input": [7592], "extra_body": {"prompt": "a"}}, "token ids"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    sdk: Any, embedder: str, fields: dict[str, Any], says: str
) -> None:
    """A 400 that names the field, or the engine's own reason."""
    with pytest.raises(openai.BadRequestError, match=says):
        sdk.embeddings.create(**{"model": embedder, "input": "a", **fields})


def test_abilities_are_kept_apart(sdk: Any, client: Client, tiny: str, embedder: str) -> None:
    """A model that embeds does not chat, one that chats does not embed."""
    with pytest.raises(openai.BadRequestError, match="embed"):
        embed(sdk, tiny, "a")
    with pytest.raises(openai.BadRequestError, match="chat"):
        sdk.chat.completions.create(model=embedder, messages=[{"role": "user", "content": "a"}])
    status, _, body = raw(client, "POST", "/v1/rerank", json.dumps(request(embedder)).encode())
    assert status == 400
    assert b"rerank" in body


def test_xinferences_client_embeds(client: Client, embedder: str) -> None:
    """Its `get_model` gives a handle that embeds."""
    handle = RESTfulClient(client.endpoint).get_model(embedder)
    found = handle.create_embedding(TEXTS)
    assert [one["index"] for one in found["data"]] == [0, 1, 2]
    assert len(found["data"][0]["embedding"]) == 384


def request(uid: str, **fields: Any) -> dict[str, Any]:
    return {"model": uid, "query": "What do elephants eat?", "documents": TEXTS, **fields}


def ranked(client: Client, uid: str, **fields: Any) -> tuple[int, Any]:
    body = json.dumps(request(uid, **fields)).encode()
    status, _, found = raw(client, "POST", "/v1/rerank", body)
    return status, json.loads(found)


def test_documents_come_best_first(client: Client, ranker: str) -> None:
    """By falling scores, each with its place in the request, whatever the order there."""
    status, found = ranked(client, ranker)
    assert status == 200
    scores = [one["relevance_score"] for one in found["results"]]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 3
    assert sorted(one["index"] for one in found["results"]) == [0, 1, 2]
    assert [one["document"] for one in found["results"]] == [None] * 3
    assert found["meta"]["tokens"]["input_tokens"] > 30
    turned = ranked(client, ranker, documents=TEXTS[::-1])[1]["results"]
    assert [2 - one["index"] for one in turned] == [one["index"] for one in found["results"]]
    assert [one["relevance_score"] for one in turned] == pytest.approx(scores, abs=1e-3)


def test_top_n_and_documents(client: Client, ranker: str) -> None:
    """The best `top_n`, with their texts where they are asked for."""
    whole = ranked(client, ranker)[1]["results"]
    given = [{"text": text} for text in TEXTS]
    fields = {"top_n": 2, "return_documents": True, "return_len": True}
    _, found = ranked(client, ranker, documents=given, **fields)
    assert [one["index"] for one in found["results"]] == [one["index"] for one in whole[:2]]
    for one in found["results"]:
        assert one["document"] == {"text": TEXTS[one["index"]]}
    assert len(ranked(client, ranker, top_n=9)[1]["results"]) == 3


def test_xinferences_client_ranks(client: Client, ranker: str) -> None:
    """Its `get_model` gives a handle that ranks."""
    handle = RESTfulClient(client.endpoint).get_model(ranker)
    found = handle.rerank(TEXTS, "What do elephants eat?", top_n=1, return_documents=True)
    (best,) = found["results"]
    assert best["document"]["text"] == TEXTS[best["index"]]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"query": None}, "query"),
        ({"query": 5}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": ["a", 5]}, "documents[1]"),
        ({"documents": [{"image": "x"}]}, "documents[0]"),
        ({"top_n": 0}, "top_n"),
        ({"return_documents": "maybe"}, "return_documents"),
        ({"max_chunks_per_doc": 3}, "max_chunks_per_doc"),
        ({"query": "xyzzy " * 200}, "tokens"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    client: Client, ranker: str, fields: dict[str, Any], says: str
) -> None:
    """A 400 that names the field."""
    status, found = ranked(client, ranker, **fields)
    assert status == 400
    assert says in found["detail"]


def test_rerank_needs_the_ability() -> None:
    """It is refused before anything is asked of the engine."""
    from paddock.engines.base import RequestFields

    model = Model("m", ("generate",), "some", RequestFields(), 2048)
    with pytest.raises(NotAble):
        rerank(request("m"), model, b"", OpenAI())


def test_text_without_spaces_beyond_the_context_is_the_callers_fault(
    sdk: Any, embedder: str
) -> None:
    """llama.cpp blames itself (500) for an input of too many tokens; it is a 400."""
    with pytest.raises(openai.BadRequestError, match=r"input has [0-9]+ tokens"):
        sdk.embeddings.create(model=embedder, input="ab9?" * 2000)


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"truncate": True}, slice(0, 510)),
        ({"truncate": "END"}, slice(0, 510)),
        ({"truncate": "start"}, slice(-510, None)),
        ({"truncate_prompt_tokens": -1}, slice(0, 510)),
        ({"truncate_prompt_tokens": 10}, slice(0, 8)),
        ({"truncate": "START", "truncate_prompt_tokens": 10}, slice(-8, None)),
    ],
)
def test_a_text_that_is_too_long_is_cut_as_asked(
    sdk: Any, embedder: str, minilm: Path, fields: dict[str, Any], kept: slice
) -> None:
    """By its tokens, with those around it kept; beside it a short one stays whole."""
    words = words_of(minilm, 700)
    long, short = embed(sdk, embedder, [" ".join(words), "Hello"], extra_body=fields)
    (wanted,) = embed(sdk, embedder, [[101, *list(words.values())[kept], 102]])
    assert long == pytest.approx(wanted, abs=1e-3)
    assert short == pytest.approx(embed(sdk, embedder, "Hello")[0], abs=1e-3)


def words_of(folder: Path, count: int) -> dict[str, int]:
    """Words that are one token each, and those tokens."""
    listed = (folder / "vocab.txt").read_text().splitlines()
    plain = {word: at for at, word in enumerate(listed) if word.isascii() and word.isalpha()}
    return dict(list(plain.items())[2000 : 2000 + count])


def test_a_document_that_is_too_long_is_cut_and_the_query_is_not(
    client: Client, ranker: str, minilm: Path
) -> None:
    """The score is that of the text that is left; a query without room for any is a 400."""
    words = list(words_of(minilm, 700))
    texts = ["Elephants eat grass.", " ".join(words)]
    query = "What do elephants eat?"
    _, found = ranked(client, ranker, query=query, documents=[""])
    room = 512 - found["meta"]["tokens"]["input_tokens"]
    for fields, kept in (
        ({"truncate": "END"}, slice(0, room)),
        ({"truncate": "start"}, slice(-room, None)),
        ({"max_tokens_per_doc": 20}, slice(0, 20)),
    ):
        status, found = ranked(client, ranker, query=query, documents=texts, **fields)
        assert status == 200, found
        short = [texts[0], " ".join(words[kept])]
        _, wanted = ranked(client, ranker, query=query, documents=short)
        assert scores_of(found) == pytest.approx(scores_of(wanted), abs=1e-3)
    assert ranked(client, ranker, documents=texts)[0] == 400
    asked = {"query": " ".join(words), "documents": texts, "truncate": True}
    assert ranked(client, ranker, **asked)[0] == 400


def scores_of(found: Any) -> dict[int, float]:
    return {one["index"]: one["relevance_score"] for one in found["results"]}


def test_a_hundred_thousand_characters_take_no_memory(
    client: Client, sdk: Any, embedder: str
) -> None:
    """A 400, or cut as asked; again and again, and the engine does not grow."""
    (replica,) = client._call("GET", f"/v1/models/{embedder}/replicas")
    engine = psutil.Process(replica["pid"])
    text = "ab9?" * 25_000

    def ask() -> None:
        with pytest.raises(openai.BadRequestError, match="maximum context length is 512 tokens"):
            embed(sdk, embedder, text)
        assert len(embed(sdk, embedder, [text, "a"], extra_body={"truncate": True})) == 2

    for _ in range(12):  # each of its threads keeps some of what it once had
        ask()
    before = engine.memory_info().rss
    for _ in range(10):
        ask()
    assert engine.memory_info().rss - before < 30_000_000
