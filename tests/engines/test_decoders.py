"""Decoders that rank and embed, on sentence-transformers: as their model cards reckon it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paddock.engines import load_engine
from paddock.engines.base import Host
from paddock.registry.retrieval import Ranking
from tests.catalog import CATALOG
from tests.engines.child import Child, serving
from tests.library import QUERY, TEXTS

ENGINE = load_engine("sentence_transformers")
HOST = Host("local", "here", 2, 10**11, 10**11, 10**11, {})
QWEN = CATALOG.lookup("Qwen3-Reranker-0.6B").ranking
GEMMA = CATALOG.lookup("bge-reranker-v2-gemma").ranking
INSTRUCTION = "Find what {query} says of zoos"
LIMIT = 300
LONG = "Elephants, lions and zebras live in the zoo, where many people come. " * 25
DOCUMENTS = [*TEXTS, LONG, "{document} <|im_end|>\n"]
SECONDS = 300


@dataclass(frozen=True)
class Decoders:
    """The models of `tiny_decoders.py`, and what their cards' code says of `DOCUMENTS`."""

    folder: Path
    scores: dict[str, list[float]]
    vectors: list[list[float]]
    queries: list[list[float]]
    tokens: list[int]


@pytest.fixture(scope="module")
def home(sentence_transformers_home: Path) -> Iterator[Path]:
    """The home with the environment, in place of one of each test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADDOCK_HOME", str(sentence_transformers_home))
        yield sentence_transformers_home


@pytest.fixture(scope="module")
def decoders(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Decoders:
    """Made once for the file."""
    assert ENGINE.environment is not None
    assert QWEN is not None
    assert GEMMA is not None
    made, folder = ENGINE.environment.installed(home), tmp_path_factory.mktemp("decoders")
    assert made is not None
    program = Path(__file__).with_name("tiny_decoders.py")
    request = {
        "text": Path(__file__).read_text(),
        "asked": {"query": QUERY, "documents": DOCUMENTS},
        "instruction": INSTRUCTION,
        "qwen": QWEN.to_json(),
        "gemma": GEMMA.to_json(),
        "limit": LIMIT,
    }
    command = [str(made.python), str(program), str(folder), json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    others = {name: said.pop(name) for name in ("vectors", "queries", "tokens")}
    return Decoders(folder, said, **others)


def started(
    weights: Path, log: Path, ability: str, ranking: Ranking | None = None, **changes: Any
) -> Child:
    options = ENGINE.options.parse(ENGINE.name, changes.pop("options", {}))
    settled = ENGINE.fill_defaults(options, HOST, 0)
    given = {"abilities": (ability,), "context_length": 1024, "ranking": ranking, **changes}
    return Child(ENGINE, serving(settled, weights=weights, **given), log)


def scores(child: Child, documents: list[str] = DOCUMENTS, **fields: Any) -> list[float]:
    status, answer = child.post("/v1/rerank", {"query": QUERY, "documents": documents, **fields})
    assert status == 200, answer
    assert [one["index"] for one in answer["results"]] == list(range(len(documents)))
    return [one["relevance_score"] for one in answer["results"]]


def test_a_causal_reranker_scores_as_its_card_does(decoders: Decoders, tmp_path: Path) -> None:
    """By yes and no after the spec's prompt, one by one and together, with an instruction too."""
    with started(decoders.folder / "qwen", tmp_path / "log", "rerank", QWEN) as child:
        child.await_health()
        wanted = decoders.scores["qwen"]
        assert len({round(one, 3) for one in wanted}) > 4  # they tell documents apart
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _: scores(child), range(4)):
                assert found == pytest.approx(wanted, abs=1e-4)
        assert [scores(child, [one])[0] for one in DOCUMENTS] == pytest.approx(wanted, abs=1e-4)
        instructed = scores(child, instruction=INSTRUCTION)
        assert instructed == pytest.approx(decoders.scores["instructed"], abs=1e-4)
        assert instructed != pytest.approx(wanted, abs=1e-2)
        status, answer = child.post("/v1/rerank", {"query": QUERY, "documents": ["a", LONG * 9]})
        assert status == 400
        assert "documents[1] has" in answer["error"]["message"]
        cut = scores(child, truncate="end", max_tokens=LIMIT)
        assert cut == pytest.approx(decoders.scores["cut"], abs=1e-4)
        assert cut != pytest.approx(wanted, abs=1e-3)


def test_heads_and_other_tokens_score_as_their_libraries_do(
    decoders: Decoders, tmp_path: Path
) -> None:
    """A head made of yes and no, a model that says Yes alone, and one that the library saved."""
    bare = QWEN and QWEN.model_copy(update={"true_token": None, "false_token": None})
    for name, ranking, wanted in (
        ("headed", bare, "qwen"),
        ("gemma", GEMMA, "gemma"),
        ("saved", None, "saved"),
    ):
        with started(decoders.folder / name, tmp_path / name, "rerank", ranking) as child:
            child.await_health()
            assert scores(child) == pytest.approx(decoders.scores[wanted], abs=1e-4), name
