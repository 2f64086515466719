"""Loaded by schemathesis: half of its reads are of what exists, and nothing that lives is changed.

It learns names from answers and uses them: without this it would terminate the shared model, and
launch the largest of the catalogue.
"""

from __future__ import annotations

import itertools
from typing import Any

import schemathesis

EXISTING = {"uid": "tiny", "type": "LLM", "name": "tiny-mixtral", "engine": "vllm"}
INFERENCE = {"/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/rerank"}
MAX_TOKENS = 4
_calls = itertools.count()


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    """Puts names into a request: of what exists where that is safe, and of nothing elsewhere."""
    path, body = case.operation.path, case.body
    if case.query:
        case.query.pop("follow", None)  # such a log never ends
    if case.method != "GET" and "{uid}" in path:
        case.path_parameters["uid"] = f"no-{case.path_parameters['uid']}"
    if path == "/v1/models" and isinstance(body, dict) and isinstance(body.get("model_name"), str):
        body["model_name"] = f"no-{body['model_name']}"
    if case.method != "GET" and "{engine}" in path:
        case.path_parameters["engine"] = f"no-{case.path_parameters['engine']}"
    if path == "/v1/attached" and isinstance(body, dict) and "endpoint" in body:
        body["endpoint"] = f"no-{body['endpoint']}"  # it would ask whatever host this names
    if next(_calls) % 2:
        return
    if path in {"/v1/specs", "/v1/estimate"}:
        case.query = {"model_name": EXISTING["name"]}
    elif case.method == "GET":
        for name in case.path_parameters or {}:
            case.path_parameters[name] = EXISTING.get(name, case.path_parameters[name])
    elif isinstance(body, dict) and path in INFERENCE:
        body |= {"model": EXISTING["uid"], "max_tokens": MAX_TOKENS}
    elif isinstance(body, dict) and path == "/v1/plan":
        body["model_name"] = EXISTING["name"]
