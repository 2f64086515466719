"""sentence-transformers for real, in its environment: vectors and scores are the library's own."""

from __future__ import annotations

import base64
import json
import math
import shutil
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paddock.engines import load_engine
from paddock.engines.base import Host
from paddock.launcher.planning.plan import LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.replicas.diagnosis import Diagnosis, diagnose_exit
from paddock.registry.errors import NoEngine
from tests import tensors
from tests.catalog import CATALOG
from tests.engines.child import Child, serving
from tests.launcher.weights.test_hubs import until
from tests.library import QUERY, TEXTS, Told

ENGINE = load_engine("sentence_transformers")
HOST = Host("local", "here", 2, 10**11, 10**11, 10**11, {})


@pytest.fixture(scope="module")
def home(sentence_transformers_home: Path) -> Iterator[Path]:
    """The home with the environment, in place of one of each test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADDOCK_HOME", str(sentence_transformers_home))
        yield sentence_transformers_home


def started(weights: Path, log: Path, ability: str = "embed", **options: Any) -> Child:
    settled = ENGINE.fill_defaults(ENGINE.options.parse(ENGINE.name, options), HOST, 0)
    wanted = serving(settled, weights=weights, abilities=(ability,), context_length=512)
    return Child(ENGINE, wanted, log)


@pytest.fixture(scope="module")
def child(home: Path, sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """The trained model; a budget that takes several batches for what the tests ask."""
    log = tmp_path_factory.mktemp("child") / "log"
    with started(sentences, log, batch_tokens="300") as made:
        made.await_health()
        yield made


def embed(child: Child, given: Any, **fields: Any) -> dict[str, Any]:
    status, answer = child.post("/v1/embeddings", {"model": "m", "input": given, **fields})
    assert status == 200, answer
    assert [row["index"] for row in answer["data"]] == list(range(len(answer["data"])))
    return answer


def vectors(child: Child, given: Any, **fields: Any) -> list[list[float]]:
    return [row["embedding"] for row in embed(child, given, **fields)["data"]]


def near(one: list[float], other: list[float]) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) < 1e-5


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_vectors_are_the_librarys_own(child: Child, library: Told) -> None:
    """Pooled and scaled as the files' modules say; usage counts what the tokenizer counts."""
    answer = embed(child, TEXTS)
    assert answer["model"] == "m"
    assert answer["usage"] == {k: sum(library.tokens) for k in ("prompt_tokens", "total_tokens")}
    for row, wanted in zip(answer["data"], library.vectors, strict=True):
        assert near(row["embedding"], wanted)
        assert math.hypot(*row["embedding"]) == pytest.approx(1, abs=1e-5)
    one, like, other, *_ = library.vectors
    assert cosine(one, like) > 0.4
    assert abs(cosine(one, other)) < 0.2


def test_requests_side_by_side_are_not_mixed_up(child: Child) -> None:
    """Sixteen at once, of all lengths, have the vectors that they have one by one."""
    asked = [[f"{n} {TEXTS[n % 5]}", f"{TEXTS[(n + 1) % 5]} {n}"] for n in range(16)]
    alone = [vectors(child, texts) for texts in asked]
    before = child.get("/health")
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda texts: vectors(child, texts), asked))
    after = child.get("/health")
    for ones, others in zip(alone, together, strict=True):
        assert all(near(one, other) for one, other in zip(ones, others, strict=True))
    assert after["tokens"] - before["tokens"] > 300
    assert 0 < after["batches"] - before["batches"] <= 32


def test_input_is_taken_in_each_of_its_shapes(child: Child, library: Told) -> None:
    """A text, ids with and without what marks their ends, lists of either; floats or base64."""
    hello = vectors(child, "Hello")[0]
    for ids in ([101, 7592, 102], [7592]):
        assert near(vectors(child, ids)[0], hello)
        assert near(vectors(child, [ids, ids])[1], hello)
    packed = embed(child, TEXTS[:2], encoding_format="base64")["data"][1]["embedding"]
    assert near(list(struct.unpack("<384f", base64.b64decode(packed))), library.vectors[1])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"input": "xyzzy " * 200}, "has 602 tokens, and the model takes 256"),
        ({"input": ["a", "xyzzy " * 200]}, "input[1] has 602 tokens"),
        ({"input": [7592] * 300}, "has 302 tokens, and the model takes 256"),
        ({"input": [99_999_999]}, "beyond the model's 30522"),
        ({"dimensions": 128}, "384 dimensions"),
        ({"prompt_name": "search"}, "no such prompt"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    child: Child, fields: dict[str, Any], says: str
) -> None:
    """Nothing is cut in silence: 400, with the numbers."""
    status, answer = child.post("/v1/embeddings", {"model": "m", "input": "a", **fields})
    assert status == 400
    assert says in answer["error"]["message"]
    assert embed(child, "a", dimensions=384)


def test_a_long_list_holds_nobody_up_and_ends_with_its_client(child: Child) -> None:
    """Who comes later is served in between; whoever has left is not computed."""
    text = TEXTS[4]
    before = child.get("/health")["tokens"]
    body = json.dumps({"input": [text] * 400}).encode()
    head = (
        "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer -the-key\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", child.wanted.port)) as client:
        client.sendall(head.encode() + body)
        until(lambda: child.get("/health")["waiting"] > 0)
        assert embed(child, "short")
        assert embed(child, text)
        assert child.get("/health")["waiting"] > 300
    until(lambda: child.get("/health")["waiting"] == 0)
    tokens = len(embed(child, text)["data"]) * embed(child, text)["usage"]["prompt_tokens"]
    assert child.get("/health")["tokens"] - before < 300 * tokens


def changed(folder: Path, target: Path, name: str = "config.json", **changes: Any) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((target / name).read_text())
    (target / name).write_text(json.dumps({**config, **changes}))
    return target


def test_prompts_and_shorter_vectors_where_the_model_has_them(
    home: Path, sentences: Path, tmp_path: Path
) -> None:
    """A prompt stands before each text; a vector that was trained for it is cut, and scaled."""
    folder = changed(sentences, tmp_path / "m", matryoshka_dimensions=[64, 128])
    prompts = {"prompts": {"query": "Question: "}}
    name = "config_sentence_transformers.json"
    (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **prompts}))
    with started(folder, tmp_path / "log") as child:
        child.await_health()
        asked = vectors(child, "what", prompt_name="query")[0]
        assert near(asked, vectors(child, "Question: what")[0])
        assert not near(asked, vectors(child, "what")[0])
        whole, short = vectors(child, "what")[0], vectors(child, "what", dimensions=64)[0]
        length = math.hypot(*whole[:64])
        assert near(short, [number / length for number in whole[:64]])
        status, answer = child.post("/v1/embeddings", {"input": "a", "dimensions": 100})
        assert status == 400
        assert "64, 128" in answer["error"]["message"]


def test_scores_are_the_librarys_own(home: Path, library: Told, tmp_path: Path) -> None:
    """Of one request and of several at once; a pair that is too long is refused."""
    with started(library.ranker, tmp_path / "log", "rerank", batch_tokens="200") as child:
        child.await_health()

        def scores(texts: list[str]) -> list[float]:
            status, answer = child.post("/v1/rerank", {"query": QUERY, "documents": texts})
            assert status == 200, answer
            assert [one["index"] for one in answer["results"]] == list(range(len(texts)))
            if texts == TEXTS:
                assert answer["usage"]["prompt_tokens"] == library.pair_tokens
            return [one["relevance_score"] for one in answer["results"]]

        assert len(set(library.scores)) == len(TEXTS)
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(scores, [TEXTS, TEXTS[::-1]] * 4):
                same = near(found, library.scores) or near(found[::-1], library.scores)
                assert same
        asked = {"query": QUERY, "documents": ["a", "xyzzy " * 200]}
        status, answer = child.post("/v1/rerank", asked)
        assert status == 400
        assert "documents[1] has" in answer["error"]["message"]
        assert "takes 512" in answer["error"]["message"]
        assert child.post("/v1/embeddings", {"input": "a"})[0] == 404


def failed(folder: Path, log: Path, ability: str = "embed", **options: Any) -> Diagnosis:
    plan = resolve(LaunchRequest(model_name="tiny-mixtral", model_engine="echo"), CATALOG, [ECHO])
    with started(folder, log, ability, **options) as child:
        code = child.await_end()
        return diagnose_exit(ENGINE, plan, code, None, child.lines())


ECHO = Host("local", "here", 2, 10**11, 10**11, 10**11, {"echo": load_engine("echo").detect()})


QUERY_WEIGHT = "encoder.layer.1.attention.self.query.weight"


def test_weights_that_do_not_fit_are_a_failed_launch(
    home: Path, sentences: Path, tmp_path: Path
) -> None:
    """Missing ones would be made up, and what is left aside was a part of the model."""
    deeper = changed(sentences, tmp_path / "deeper", num_hidden_layers=8)
    shallow = changed(sentences, tmp_path / "shallow", num_hidden_layers=5)
    headless = changed(
        sentences, tmp_path / "headless", architectures=["BertForSequenceClassification"],
        num_labels=1,
    )  # fmt: skip
    square = tmp_path / "square"
    tensors.changed(sentences, square, tensors.halved(QUERY_WEIGHT))
    wordless = tmp_path / "wordless"
    shutil.copytree(sentences, wordless)
    for file in (*wordless.glob("tokenizer*"), *wordless.glob("vocab*")):
        file.unlink()
    with ThreadPoolExecutor() as pool:  # each takes seconds to import its libraries
        odd = pool.submit(failed, square, tmp_path / "square.log")
        mute = pool.submit(failed, wordless, tmp_path / "wordless.log")
        deep = pool.submit(failed, deeper, tmp_path / "deeper.log")
        less = pool.submit(failed, shallow, tmp_path / "shallow.log")
        head = pool.submit(failed, headless, tmp_path / "headless.log", "rerank")
    for found in (deep, less, head, odd):
        assert found.result().cause == "weights_mismatch"
    assert "32 missing" in deep.result().message
    assert "classifier" in head.result().message
    assert f"{QUERY_WEIGHT} has another shape" in odd.result().message
    # The library makes a blank tokenizer, to which all texts are one unknown word.
    assert (mute.result().cause, "no tokenizer" in mute.result().message) == ("load_failed", True)


def test_what_nothing_is_said_about_is_not_guessed(
    home: Path, sentences: Path, tmp_path: Path
) -> None:
    """How to pool, and a causal model as a ranker: each would answer 200 with nonsense."""
    bare = tmp_path / "bare"
    shutil.copytree(sentences, bare)
    (bare / "modules.json").unlink()
    causal = changed(sentences, tmp_path / "causal", architectures=["LlamaForCausalLM"])
    with ThreadPoolExecutor() as pool:  # each takes seconds to import its libraries
        pooling = pool.submit(failed, bare, tmp_path / "bare.log")
        ranking = pool.submit(failed, causal, tmp_path / "causal.log", "rerank")
        with started(bare, tmp_path / "mean.log", pooling="mean") as child:
            child.await_health()
            assert len(vectors(child, "a")[0]) == 384
    assert pooling.result().cause == "bad_option"
    assert "--pooling mean" in pooling.result().message
    assert ranking.result().cause == "unsupported_arch"
    assert "LlamaForCausalLM" in ranking.result().message


def test_what_needs_code_of_its_own_is_refused_before_it_comes(home: Path) -> None:
    """The installed library says which architectures it knows."""
    host = replace(HOST, engines={ENGINE.name: ENGINE.detect()})
    asked = LaunchRequest(model_name="jina-embeddings-v2-base-en", format="pytorch")
    with pytest.raises(NoEngine, match="does not know the architecture JinaBertModel"):
        resolve(asked, CATALOG, [host])
    known = LaunchRequest(model_name="bge-m3", format="pytorch")
    assert resolve(known, CATALOG, [host]).engine == ENGINE.name


def test_it_is_chosen_for_vectors_and_ranks_and_nothing_else() -> None:
    """By the catalogue's specs; Transformers is not, and both say what they are for."""
    here = {
        name: load_engine("echo").detect() for name in ("sentence-transformers", "Transformers")
    }
    host = Host("local", "here", 2, 10**11, 10**11, 10**11, here)
    for name in ("bge-m3", "bge-reranker-v2-m3"):
        plan = resolve(LaunchRequest(model_name=name, format="pytorch"), CATALOG, [host])
        assert plan.engine == "sentence-transformers"
        assert plan.slots == 256
        assert plan.memory.cache_bytes == 0
        asked = LaunchRequest(model_name=name, format="pytorch", model_engine="transformers")
        with pytest.raises(NoEngine, match="serves models of type LLM"):
            resolve(asked, CATALOG, [host])
    request = LaunchRequest(model_name="bge-m3", model_engine="sentence_transformers")
    assert resolve(request, CATALOG, [host]).engine == "sentence-transformers"
    plan = resolve(LaunchRequest(model_name="qwen3", format="pytorch", size="0_6"), CATALOG, [host])
    assert plan.engine == "Transformers"
    assert "sentence-transformers" not in plan.refused
