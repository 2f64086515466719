"""Decoders that rank and embed, on each engine: as their cards' code and their library have it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paddock.engines import load_engine
from paddock.engines.base import Host
from paddock.engines.llama_cpp.pooled_check import why_unfit
from paddock.registry.gguf import read_gguf
from paddock.registry.retrieval import Ranking
from tests.decoders import DOCUMENTS, GEMMA, INSTRUCTION, LIMIT, LONG, QWEN, Decoders
from tests.engines import decoder_gguf
from tests.engines.child import Child, serving
from tests.library import QUERY

LIBRARY = load_engine("sentence_transformers")
LLAMA = load_engine("llama.cpp")
HOST = Host("local", "here", 2, 10**11, 10**11, 10**11, {})
EXACT = 1e-4
HALF = 2e-3
"""What llama.cpp's attention in 16 bits may change in a number of a vector, or in a score."""
FULL: dict[str, Any] = {"flash_attn": "off", "cache_type_k": "f32", "cache_type_v": "f32"}
"""Its options for attention in 32 bits."""
DEFAULT: dict[str, Any] = {}


@pytest.fixture(scope="module", autouse=True)
def home(sentence_transformers_home: Path) -> Iterator[Path]:
    """The home with the environment, in place of one of each test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADDOCK_HOME", str(sentence_transformers_home))
        yield sentence_transformers_home


def started(
    weights: Path,
    log: Path,
    ability: str,
    ranking: Ranking | None = None,
    engine: Any = LIBRARY,
    **options: Any,
) -> Child:
    settled = engine.fill_defaults(engine.options.parse(engine.name, options), HOST, 0)
    given = {"abilities": (ability,), "context_length": 1024, "ranking": ranking}
    return Child(engine, serving(settled, weights=weights, **given), log)


def scores(child: Child, documents: list[str] = DOCUMENTS, **fields: Any) -> list[float]:
    asked = {"query": QUERY, "documents": documents, **fields}
    status, answer = child.post("/v1/rerank", asked)
    assert status == 200, answer
    ranked = sorted(answer["results"], key=lambda one: one["index"])
    assert [one["index"] for one in ranked] == list(range(len(documents)))
    return [one["relevance_score"] for one in ranked]


def vectors(child: Child, given: Any = DOCUMENTS, **fields: Any) -> list[list[float]]:
    status, answer = child.post("/v1/embeddings", {"input": given, **fields})
    assert status == 200, answer
    return [row["embedding"] for row in answer["data"]]


def apart(some: list[list[float]], others: list[list[float]]) -> float:
    """The largest difference of two numbers."""
    return max(
        abs(a - b)
        for one, other in zip(some, others, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_a_causal_reranker_scores_as_its_card_does(decoders: Decoders, tmp_path: Path) -> None:
    """By yes and no after the spec's prompt, one by one and together, with an instruction too."""
    with started(decoders.folder / "qwen", tmp_path / "log", "rerank", QWEN) as child:
        child.await_health()
        wanted = decoders.scores["qwen"]
        assert len({round(one, 3) for one in wanted}) > 4  # they tell documents apart
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _: scores(child), range(4)):
                assert found == pytest.approx(wanted, abs=EXACT)
        assert [scores(child, [one])[0] for one in DOCUMENTS] == pytest.approx(wanted, abs=EXACT)
        instructed = scores(child, instruction=INSTRUCTION)
        assert instructed == pytest.approx(decoders.scores["instructed"], abs=EXACT)
        assert instructed != pytest.approx(wanted, abs=1e-2)
        status, answer = child.post("/v1/rerank", {"query": QUERY, "documents": ["a", LONG * 9]})
        assert status == 400
        assert "documents[1] has" in answer["error"]["message"]
        cut = scores(child, truncate="end", max_tokens=LIMIT)
        assert cut == pytest.approx(decoders.scores["cut"], abs=EXACT)
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
            assert scores(child) == pytest.approx(decoders.scores[wanted], abs=EXACT), name
            if name == "saved":  # the library takes an instruction for a system message
                found = scores(child, instruction=INSTRUCTION)
                assert found == pytest.approx(decoders.scores["asked"], abs=EXACT)
                assert found != pytest.approx(decoders.scores["saved"], abs=1e-3)


def test_an_embedder_with_last_token_pooling_is_the_librarys(
    decoders: Decoders, tmp_path: Path
) -> None:
    """Texts end in its token, with the files' prompt or the request's, cut on either side."""
    with started(decoders.folder / "embedder", tmp_path / "log", "embed") as child:
        child.await_health()
        answer = child.post("/v1/embeddings", {"input": DOCUMENTS})[1]
        assert answer["usage"]["prompt_tokens"] == sum(decoders.tokens)
        assert apart(vectors(child), decoders.vectors) < EXACT
        by_name = vectors(child, prompt_name="query")
        assert apart(by_name, decoders.queries) < EXACT
        assert apart(by_name, decoders.vectors) > 0.01
        assert apart(vectors(child, prompt="Instruct: Find it\nQuery:"), by_name) == 0
        # By kind, as the gateway asks; what is a document has no prompt where queries have one.
        assert apart(vectors(child, prompt_name=["search_query", "query"]), by_name) == 0
        assert apart(vectors(child, prompt_name=["passage", "document"]), decoders.vectors) < EXACT
        status, refused = child.post("/v1/embeddings", {"input": "a", "prompt_name": ["poem"]})
        assert (status, "query, document" in refused["error"]["message"]) == (400, True)
        for side, wanted in (("end", decoders.right), ("start", decoders.left)):
            found = vectors(child, truncate=side, max_tokens=LIMIT)
            assert apart(found, wanted) < EXACT
            assert apart(found, decoders.vectors) > 0.01
        # The instruction stays where the start is cut.
        short = {"truncate": "start", "max_tokens": 60}
        assert vectors(child, LONG, prompt="Instruct: X\n", **short) != vectors(
            child, LONG, prompt="Instruct: Y\n", **short
        )


def test_llama_cpp_ranks_as_the_card_does(decoders: Decoders, tmp_path: Path) -> None:
    """By the rows of yes and no and the prompt that the converter puts into the file."""
    assert QWEN is not None
    template = "".join(QWEN.template).replace("{instruction}", QWEN.instruction or "")
    source = decoders.folder / "qwen"
    file = decoder_gguf.write(source, tmp_path / "r.gguf", template)
    wanted = decoders.scores["qwen"]
    for options, allowed in ((FULL, 1e-5), (DEFAULT, HALF)):
        with started(file, tmp_path / "log", "rerank", engine=LLAMA, **options) as child:
            child.await_health()
            assert scores(child) == pytest.approx(wanted, abs=allowed)


def test_a_gguf_that_cannot_rank_is_a_failed_launch(decoders: Decoders, tmp_path: Path) -> None:
    """llama.cpp would give numbers that mean nothing."""
    source = decoders.folder / "qwen"
    headless = decoder_gguf.write(source, tmp_path / "n.gguf", "{query} {document}", head=False)
    with started(headless, tmp_path / "log", "rerank", engine=LLAMA) as child:
        assert child.await_end() == 1
        (line,) = child.lines()
    symptom = next(one for one in LLAMA.symptoms if one.pattern.search(line))
    assert symptom.cause == "unsupported_arch"
    assert "no layer that scores pairs" in line
    wordless = decoder_gguf.write(source, tmp_path / "w.gguf", "")
    assert "no prompt of pairs" in (why_unfit("rank", [read_gguf(wordless)]) or "")
    ended = decoder_gguf.write(decoders.folder / "embedder", tmp_path / "e.gguf")
    assert why_unfit("end", [read_gguf(ended)]) is None
    assert "add_eos_token" in (why_unfit("end", [read_gguf(wordless)]) or "")


def test_llama_cpp_embeds_as_the_library_does(decoders: Decoders, tmp_path: Path) -> None:
    """Texts end in the model's token, and the last one's state is the vector."""
    file = decoder_gguf.write(decoders.folder / "embedder", tmp_path / "e.gguf")
    for options, allowed in ((FULL, 1e-5), (DEFAULT, HALF)):
        with started(file, tmp_path / "log", "embed", engine=LLAMA, **options) as child:
            child.await_health()
            assert apart(vectors(child), decoders.vectors) < allowed


def test_quantized_they_stay_near(decoders: Decoders, tmp_path: Path) -> None:
    """As near as docs/embeddings.md says, of weights that nobody trained."""
    assert QWEN is not None
    template = "".join(QWEN.template).replace("{instruction}", QWEN.instruction or "")
    source = decoders.folder
    ranker = decoder_gguf.write(source / "qwen", tmp_path / "r.gguf", template, quantized=True)
    embedder = decoder_gguf.write(source / "embedder", tmp_path / "e.gguf", quantized=True)
    with started(ranker, tmp_path / "log", "rerank", engine=LLAMA) as child:
        child.await_health()
        found = scores(child)
    assert found == pytest.approx(decoders.scores["qwen"], abs=0.05)
    assert found != pytest.approx(decoders.scores["qwen"], abs=EXACT)
    with started(embedder, tmp_path / "log", "embed", engine=LLAMA) as child:
        child.await_health()
        near = vectors(child)
    for one, other in zip(near, decoders.vectors, strict=True):
        assert sum(a * b for a, b in zip(one, other, strict=True)) > 0.99


def test_a_tokenizer_that_would_end_texts_by_code_is_refused(
    decoders: Decoders, tmp_path: Path
) -> None:
    """Without that token the vector would be another one's."""
    folder = tmp_path / "m"
    shutil.copytree(decoders.folder / "embedder", folder)
    words = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**words, "post_processor": None}))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "add_eos_token": True}))
    with started(folder, tmp_path / "log", "embed") as child:
        assert child.await_end() == 1
        assert "add_eos_token" in child.lines()[-1]
