"""Tiny decoders, made in the engine's environment, and asked there by their cards' code."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from paddock.engines import load_engine
from tests.catalog import CATALOG
from tests.library import QUERY, TEXTS

QWEN = CATALOG.lookup("Qwen3-Reranker-0.6B").ranking
GEMMA = CATALOG.lookup("bge-reranker-v2-gemma").ranking
INSTRUCTION = "Find what {query} says of zoos"
LIMIT = 300
LONG = "Elephants, lions and zebras live in the zoo, where many people come. " * 25
DOCUMENTS = [*TEXTS, LONG, "{document} <|im_end|>\n"]
PROGRAM = Path(__file__).parent / "engines" / "tiny_decoders.py"
SECONDS = 300


@dataclass(frozen=True)
class Decoders:
    """The models of `tiny_decoders.py`, and what their cards' code says of `DOCUMENTS`.

    `right` and `left`: vectors of texts that were cut to `LIMIT` tokens on that side.
    """

    folder: Path
    scores: dict[str, list[float]]
    vectors: list[list[float]]
    queries: list[list[float]]
    right: list[list[float]]
    left: list[list[float]]
    tokens: list[int]


def make(home: Path, folder: Path) -> Decoders:
    """Writes the models into the folder."""
    environment = load_engine("sentence_transformers").environment
    assert environment is not None
    assert QWEN is not None
    assert GEMMA is not None
    made = environment.installed(home)
    assert made is not None
    request = {
        "text": "\n".join([*DOCUMENTS, QUERY, PROGRAM.read_text()]),
        "asked": {"query": QUERY, "documents": DOCUMENTS},
        "instruction": INSTRUCTION,
        "qwen": QWEN.to_json(),
        "gemma": GEMMA.to_json(),
        "limit": LIMIT,
    }
    command = [str(made.python), str(PROGRAM), str(folder), json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    others = {name: said.pop(name) for name in ("vectors", "queries", "right", "left", "tokens")}
    return Decoders(folder, said, **others)
