"""The routes of locks: what they refuse, and how. Nothing is launched and no hub is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.server.asgi import call, gateway

ENTRY = {
    "model": "mixtral-v0.1",
    "format": "ggufv2",
    "size": "46_7",
    "quantization": "Q4_K_M",
    "hub": "huggingface",
    "id": "a/b",
    "engine": "llama.cpp",
    "engine_version": "1",
    "files": [{"name": "m.gguf", "size_bytes": 1, "sha256": "a" * 64}],
}


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/locks", {}, "model_name"),
        ("/v1/locks", [], "must be a JSON object"),
        ("/v1/locks", {"model_nam": "x"}, "unknown field 'model_nam'; did you mean model_name"),
        ("/v1/locks", {"model_name": "mixtrel"}, "unknown model 'mixtrel'"),
        ("/v1/locks", {"model_name": "mixtral-v0.1", "newest": "x"}, "newest 'x'"),
        ("/v1/locks", {"launched": 7}, "launched 7"),
        ("/v1/locks", {"launched": "x", "quantization": "Q8_0"}, "is locked as it is"),
        ("/v1/locks", {"model_name": "mixtral-v0.1", "model_format": "awq"}, "unknown format"),
        ("/v1/lockfile/verify", {"model": []}, "unknown field 'model'"),
        ("/v1/lockfile/verify", {"models": {}}, "must be a list"),
        ("/v1/lockfile/verify", {"models": [1]}, "must be a mapping"),
        ("/v1/lockfile/verify", {"models": [ENTRY | {"id": "a"}]}, "id: 'a' is not owner/name"),
        ("/v1/lockfile/outdated", {"models": [ENTRY, ENTRY]}, "is there twice"),
        ("/v1/lockfile/outdated", {"models": [{**ENTRY, "hub": "moon"}]}, "hub: must be"),
        ("/v1/plan", {"model_name": "mixtral-v0.1", "lock": {}}, "is missing"),
        ("/v1/plan", {"model_name": "mixtral-v0.1", "lock": ENTRY | {"x": 1}}, "x: unknown field"),
        ("/v1/plan", {"model_name": "mixtral-v0.1", "lock": ENTRY}, "the engine llama.cpp in 1"),
        ("/v1/pulls", {"model_name": "tiny-mixtral", "lock": ENTRY}, "is locked to model"),
    ],
)
async def test_bad_input_is_refused_by_name(home: Path, path: str, body: Any, says: str) -> None:
    """With 400, the field and the way out."""
    with gateway(home) as app:
        answer = await call(app, "POST", path, body=body)
    assert answer.status == 400, answer.body
    assert says in answer.json["error"]["message"]


async def test_what_is_not_there_is_not_found(home: Path) -> None:
    """Neither a model that is not launched, nor work that nobody has asked for."""
    with gateway(home) as app:
        answer = await call(app, "POST", "/v1/locks", body={"launched": "none"})
        assert answer.status == 404
        for method in ("GET", "DELETE"):
            answer = await call(app, method, "/v1/locks/none")
            assert answer.status == 404
            assert "unknown work on locks 'none'" in answer.json["error"]["message"]
        answer = await call(app, "GET", "/v1/locks")
        assert answer.json == {"data": []}
