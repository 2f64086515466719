"""A dialect and an ability of other packages: one file each, and the whole gateway knows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from paddock.registry.catalog import specs_root
from tests.conftest import Paddock
from tests.examples import install

SPEC = specs_root() / "llm" / "tiny-mixtral.yaml"


def ask(paddock: Paddock, path: str, **fields: Any) -> tuple[int, str, str]:
    """Status, content type and body of a request."""
    headers = {"Content-Type": "application/json"}
    request = Request(paddock.record["endpoint"] + path, json.dumps(fields).encode(), headers)
    try:
        with urlopen(request) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def test_one_file_adds_a_dialect_and_one_an_ability(paddock: Paddock, tmp_path: Path) -> None:
    """Routes, documents, keys, specs and refusals follow from the two files."""
    site = install(tmp_path / "site", "example-dialect", "example-ability")
    paddock.environ["PYTHONPATH"] = str(site)
    text = SPEC.read_text().replace("name: tiny-mixtral\n", "name: short\n", 1)
    text = text.replace("[generate, chat]", "[generate, chat, summarize]")
    spec = tmp_path / "short.yaml"
    spec.write_text(text)
    paddock.ok("register", "--file", str(spec))
    assert "summarize" in paddock.ok("show", "short")
    paddock.ok("launch", "short", "--model-engine", "echo")
    paddock.ok("launch", "tiny-mixtral", "--model-engine", "echo", "-u", "other")

    status, _, body = ask(paddock, "/ask", model="short", question="who is there")
    assert (status, json.loads(body)) == (200, {"answer": "who is there"})
    status, kind, body = ask(paddock, "/ask", model="short", question="who is there", stream=True)
    assert (status, kind) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in body.splitlines()]
    assert "".join(line.get("text", "") for line in lines) == "who is there"
    assert lines[-1] == {"done": True}
    status, _, body = ask(paddock, "/ask", model="short", question="a", colour="red")
    assert (status, json.loads(body)["error"]["param"]) == (400, "colour")

    status, _, body = ask(paddock, "/v1/summaries", model="short", text="once upon a time")
    assert (status, json.loads(body)) == (200, {"summary": "once upon a time In short:"})
    status, _, body = ask(paddock, "/v1/summaries", model="other", text="once")
    assert status == 400
    assert "summarize" in json.loads(body)["error"]["message"]

    with urlopen(paddock.record["endpoint"] + "/openapi.json") as answer:
        paths = json.load(answer)["paths"]
    assert paths["/ask"]["post"]["summary"] == "Answers a question"
    assert "/v1/summaries" in paths
    secret = paddock.json("keys", "create", "--name", "app", "--scope", "inference")["key"]
    paddock.environ["PADDOCK_API_KEY"] = ""
    request = Request(
        paddock.record["endpoint"] + "/ask",
        json.dumps({"model": "short", "question": "a"}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"},
    )
    with urlopen(request) as answer:
        assert answer.status == 200


def test_an_unknown_ability_is_refused_with_those_there_are(
    paddock: Paddock, tmp_path: Path
) -> None:
    """Without the package, a spec with its ability is wrong, and the message lists the others."""
    spec = tmp_path / "short.yaml"
    text = SPEC.read_text().replace("[generate, chat]", "[generate, chat, summarize]")
    spec.write_text(text)
    refused = paddock.run("register", "--file", str(spec))
    assert refused.returncode == 2
    assert "not 'summarize'" in refused.stderr
    assert "'reasoning'" in refused.stderr
