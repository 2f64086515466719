"""sentence-transformers behind the command line, OpenAI's client and Xinference's."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from xinference_client import RESTfulClient

from tests.conftest import Paddock
from tests.library import QUERY, TEXTS, Told
from tests.server.http.test_errors import raw


@pytest.fixture(scope="module")
def zoo(library: Told, sentences: Path, equipped: Paddock) -> Iterator[Paddock]:
    """The trained model and an untrained ranker, launched by their paths alone."""
    engine = ("--model-engine", "sentence_transformers")
    equipped.side_by_side(
        ("launch", str(sentences), "-u", "minilm"),
        ("launch", str(library.ranker), "-u", "ranker", *engine),
    )
    yield equipped
    for uid in ("minilm", "ranker"):
        equipped.client().terminate(uid)


def test_what_lies_at_a_path_is_served_by_it(zoo: Paddock) -> None:
    """Type, ability and engine follow from the files."""
    found = {model["model_uid"]: model["plan"] for model in zoo.client().instances()}
    assert found["minilm"]["type"] == "embedding"
    assert found["ranker"]["type"] == "rerank"
    assert {plan["engine"] for plan in found.values()} == {"sentence-transformers"}


@pytest.fixture
def sdk(zoo: Paddock) -> Any:
    """Untyped: its overloads want literals, and these tests vary the fields."""
    endpoint = zoo.record["endpoint"]
    with openai.OpenAI(base_url=f"{endpoint}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_clients_embed(zoo: Paddock, sdk: Any) -> None:
    """OpenAI's asks for base64, and gets the same vectors; many at once too."""
    endpoint = zoo.record["endpoint"]
    answer = sdk.embeddings.create(model="minilm", input=TEXTS)
    handle = RESTfulClient(endpoint).get_model("minilm")
    theirs = [row["embedding"] for row in handle.create_embedding(TEXTS)["data"]]
    for row, other in zip(answer.data, theirs, strict=True):
        assert row.embedding == pytest.approx(other, abs=1e-5)
        assert math.hypot(*other) == pytest.approx(1, abs=1e-5)
    with ThreadPoolExecutor(16) as pool:
        asked = [TEXTS[n % len(TEXTS)] for n in range(16)]
        found = pool.map(lambda text: sdk.embeddings.create(model="minilm", input=text), asked)
        for number, one in enumerate(found):
            assert one.model == "minilm"
            assert one.data[0].embedding == pytest.approx(theirs[number % len(TEXTS)], abs=1e-5)
    for fields, says in (
        ({"input": "ab9?" * 200}, "context length is 256 tokens"),
        ({"input": "a", "dimensions": 10}, "dimensions"),
        ({"input": "a", "extra_body": {"truncate": "middle"}}, "none, start or end"),
    ):
        with pytest.raises(openai.BadRequestError, match=says):
            sdk.embeddings.create(model="minilm", **fields)


def test_clients_rank(zoo: Paddock, library: Told) -> None:
    """Best first, with the library's scores."""
    body = {"model": "ranker", "query": QUERY, "documents": TEXTS, "top_n": 3}
    status, _, text = raw(zoo.client(), "POST", "/v1/rerank", json.dumps(body).encode())
    assert status == 200
    answer = json.loads(text)
    scores = {one["index"]: one["relevance_score"] for one in answer["results"]}
    best = sorted(range(len(TEXTS)), key=lambda n: -library.scores[n])[:3]
    assert list(scores) == best
    for index, score in scores.items():
        assert score == pytest.approx(library.scores[index], abs=1e-5)
    assert answer["meta"]["tokens"]["input_tokens"] == library.pair_tokens
