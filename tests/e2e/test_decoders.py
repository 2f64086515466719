"""Decoders that rank and embed, through the gateway: the same on both engines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from tests.conftest import Paddock
from tests.decoders import DOCUMENTS, INSTRUCTION, LIMIT, QWEN, Decoders
from tests.engines import decoder_gguf
from tests.library import QUERY
from tests.server.http.test_errors import raw

EXACT = 1e-4
FULL = ("--flash_attn", "off", "--cache_type_k", "f32", "--cache_type_v", "f32")
EMBEDDING = {
    "prompts": {"query": "Instruct: Find it\nQuery:", "document": ""},
    "instruct": "Instruct: {instruction}\nQuery:",
    "ends_texts": True,
    "dimensions_from": 8,
}


def spec(name: str, kind: str, ability: str, folder: Path, gguf: Path, **fields: Any) -> str:
    """A spec of the tiny model in both formats."""
    weights = [
        {
            "format": "pytorch",
            "size": "0_001",
            "quantizations": ["none"],
            "engines": ["sentence-transformers"],
            "sources": [{"hub": "path", "id": str(folder)}],
        },
        {
            "format": "ggufv2",
            "size": "0_001",
            "quantizations": ["F32"],
            "engines": ["llama.cpp"],
            "sources": [{"hub": "path", "id": str(gguf.parent), "file_template": gguf.name}],
        },
    ]
    described = {
        "name": name,
        "type": kind,
        "description": "A tiny decoder for tests.",
        "license": "Apache-2.0",
        "released": "2026-12-01",
        "languages": ["en"],
        "abilities": [ability],
        "context_length": 1024,
        "architecture": {"name": "Qwen3ForCausalLM"},
        "weights": weights,
    }
    return str(yaml.safe_dump({**described, **fields}))


@pytest.fixture(scope="module")
def zoo(
    decoders: Decoders, equipped: Paddock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Paddock]:
    """The reranker and the embedder, each on both engines."""
    assert QWEN is not None
    folder = tmp_path_factory.mktemp("specs")
    template = "".join(QWEN.template).replace("{instruction}", QWEN.instruction or "")
    ranker = decoder_gguf.write(decoders.folder / "qwen", folder / "ranker.gguf", template)
    embedder = decoder_gguf.write(decoders.folder / "embedder", folder / "embedder.gguf")
    ranking = {name: value for name, value in QWEN.to_json().items() if value is not None}
    for name, kind, text in (
        (
            "tiny-ranker",
            "rerank",
            spec(
                "tiny-ranker", "rerank", "rerank", decoders.folder / "qwen", ranker,
                ranking=ranking,
            ),
        ),
        (
            "tiny-embedder",
            "embedding",
            spec(
                "tiny-embedder", "embedding", "embed", decoders.folder / "embedder", embedder,
                embedding=EMBEDDING,
            ),
        ),
    ):  # fmt: skip
        file = folder / f"{name}.yaml"
        file.write_text(text)
        equipped.ok("register", "--file", str(file), "--model-type", kind)
    equipped.side_by_side(
        ("launch", "tiny-ranker", "-f", "pytorch", "-u", "rank-library"),
        ("launch", "tiny-ranker", "-f", "ggufv2", "-u", "rank-llama", *FULL),
        ("launch", "tiny-embedder", "-f", "pytorch", "-u", "embed-library"),
        ("launch", "tiny-embedder", "-f", "ggufv2", "-u", "embed-llama", *FULL),
    )
    yield equipped
    for engine in ("library", "llama"):
        for uid in ("rank", "embed"):
            equipped.client().terminate(f"{uid}-{engine}")
    equipped.ok("unregister", "-n", "tiny-ranker", "-t", "rerank")
    equipped.ok("unregister", "-n", "tiny-embedder", "-t", "embedding")


ENGINES = ("library", "llama")


def rank(zoo: Paddock, engine: str, **fields: Any) -> tuple[int, Any]:
    body = {"model": f"rank-{engine}", "query": QUERY, "documents": DOCUMENTS, **fields}
    status, _, text = raw(zoo.client(), "POST", "/v1/rerank", json.dumps(body).encode())
    return status, json.loads(text)


def scores(answer: Any) -> list[float]:
    return [
        one["relevance_score"] for one in sorted(answer["results"], key=lambda one: one["index"])
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_causal_reranker_scores_as_its_card_does(
    zoo: Paddock, decoders: Decoders, engine: str
) -> None:
    """Best first; cut as the card cuts; an instruction of the request where it is taken."""
    status, answer = rank(zoo, engine)
    assert status == 200, answer
    found = [one["relevance_score"] for one in answer["results"]]
    assert found == sorted(found, reverse=True)
    assert scores(answer) == pytest.approx(decoders.scores["qwen"], abs=EXACT)
    _, answer = rank(zoo, engine, truncate_prompt_tokens=LIMIT)
    assert scores(answer) == pytest.approx(decoders.scores["cut"], abs=EXACT)
    status, answer = rank(zoo, engine, instruction=INSTRUCTION)
    if engine == "library":
        assert scores(answer) == pytest.approx(decoders.scores["instructed"], abs=EXACT)
    else:
        assert status == 400
        assert "sentence-transformers" in answer["detail"]
    status, answer = rank(zoo, engine, documents=["a", "ab9?" * 25_000])
    assert status == 400
    assert "1024 tokens" in answer["detail"]
    for side in ("start", "END"):
        assert rank(zoo, engine, documents=["a", "ab9?" * 25_000], truncate=side)[0] == 200


@pytest.fixture
def sdk(zoo: Paddock) -> Any:
    """Untyped: its overloads want literals, and these tests vary the fields."""
    endpoint = zoo.record["endpoint"]
    with openai.OpenAI(base_url=f"{endpoint}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.mark.parametrize("engine", ENGINES)
def test_an_embedder_is_the_librarys_on_each_engine(
    sdk: Any, decoders: Decoders, engine: str
) -> None:
    """Kinds of texts, cuts and shorter vectors alike."""

    def embed(given: Any = DOCUMENTS, **fields: Any) -> list[list[float]]:
        dimensions = {"dimensions": fields.pop("dimensions")} if "dimensions" in fields else {}
        answer = sdk.embeddings.create(
            model=f"embed-{engine}", input=given, extra_body=fields, **dimensions
        )
        return [one.embedding for one in answer.data]

    def near(found: list[list[float]], wanted: list[list[float]]) -> bool:
        return all(
            one == pytest.approx(other, abs=EXACT) for one, other in zip(found, wanted, strict=True)
        )

    assert near(embed(), decoders.vectors)
    assert near(embed(input_type="document"), decoders.vectors)
    for fields in (
        {"input_type": "search_query"},
        {"prompt_name": "query"},
        {"instruction": "Find it"},
    ):
        assert near(embed(**fields), decoders.queries)
    assert near(embed(truncate_prompt_tokens=LIMIT), decoders.right)
    assert near(embed(truncate="START", truncate_prompt_tokens=LIMIT), decoders.left)
    for vector, whole in zip(embed(dimensions=16), decoders.vectors, strict=True):
        length = math.hypot(*whole[:16])
        assert vector == pytest.approx([number / length for number in whole[:16]], abs=EXACT)
    assert len(embed(["ab9?" * 25_000, "a"], truncate=True)) == 2
    for given, says in (
        ({"given": "ab9?" * 25_000}, "maximum context length is 1024 tokens"),
        ({"dimensions": 7}, "8 and more"),
        ({"dimensions": 65}, "64 at most"),
        ({"input_type": "poem"}, "document, query"),
    ):
        with pytest.raises(openai.BadRequestError, match=says):
            embed(**given)
