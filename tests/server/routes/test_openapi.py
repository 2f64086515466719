"""The OpenAPI document says what the routes are, and the page shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest

from paddock.client import Client
from paddock.server.http.operation import Operation
from paddock.server.routes.openapi import operation_id
from tests.server.asgi import gateway
from tests.server.http.test_errors import raw


def operations(home: Path) -> list[Operation]:
    """The routes of a gateway."""
    with gateway(home) as app:
        return cast(list[Operation], list(app.routes))


def test_every_route_is_documented(home: Path) -> None:
    """Each brings its documentation, and no two have one name in it."""
    routes = operations(home)
    assert all(isinstance(route, Operation) for route in routes)
    assert len(set(map(operation_id, routes))) == len(routes)


def document(client: Client) -> dict[str, Any]:
    status, headers, body = raw(client, "GET", "/openapi.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    return dict(json.loads(body))


def test_document_is_whole(client: Client) -> None:
    """Every operation says what it is in words, and every reference in it leads somewhere."""
    found = document(client)
    assert found["openapi"] == "3.1.0"
    schemas = found["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(found)):
        assert name in schemas
    for item in found["paths"].values():
        for operation in item.values():
            assert operation["summary"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models/tiny", "/v1/models/{uid}"),
        ("/v1/models/instances", "/v1/models/instances"),
        ("/v1/models/tiny/progress", "/v1/models/{uid}/progress"),
        ("/v1/models/tiny/logs", "/v1/models/{uid}/logs"),
        ("/v1/models/tiny/replicas", "/v1/models/{uid}/replicas"),
        ("/v1/models/tiny/events", "/v1/models/{uid}/events"),
        ("/v1/models/families", "/v1/models/families"),
        ("/v1/models/prompts", "/v1/models/prompts"),
        ("/v1/models/tiny-mixtral/versions", "/v1/models/{uid}"),
        ("/v1/models/LLM/tiny-mixtral/versions", "/v1/models/{type}/{name}/versions"),
        ("/v1/engines", "/v1/engines"),
        ("/v1/environments", "/v1/environments"),
        ("/v1/environments/vllm", "/v1/environments/{engine}"),
        ("/v1/environments/llama.cpp", "/v1/environments/{engine}"),
        ("/v1/environments/none", "/v1/environments/{engine}"),
        ("/v1/engines/tiny-mixtral", "/v1/engines/{name}"),
        ("/v1/zoo", "/v1/zoo"),
        ("/v1/zoo?q=mixtral&fits=true", "/v1/zoo"),
        ("/v1/zoo?ability=none", "/v1/zoo"),
        ("/v1/zoo/tiny-mixtral", "/v1/zoo/{name}"),
        ("/v1/zoo/qwen2.5-instruct", "/v1/zoo/{name}"),
        (
            "/v1/estimate?model_name=tiny-mixtral&context_length=64&context_length=128",
            "/v1/estimate",
        ),
        ("/v1/estimate", "/v1/estimate"),
        ("/v1/zoo/none", "/v1/zoo/{name}"),
        ("/v1/zoo/hf:none", "/v1/zoo/{name}"),
        ("/v1/zoo/hf:none/none?offline=true", "/v1/zoo/{name}"),
        ("/v1/model_registrations/LLM", "/v1/model_registrations/{type}"),
        ("/v1/model_registrations/LLM?detailed=true", "/v1/model_registrations/{type}"),
        ("/v1/model_registrations/LLM/tiny-mixtral", "/v1/model_registrations/{type}/{name}"),
        ("/v1/specs?model_name=tiny-mixtral", "/v1/specs"),
        ("/v1/specs?model_name=none", "/v1/specs"),
        ("/v1/specs?model_name=hf:none", "/v1/specs"),
        ("/v1/specs?model_name=hf:none/none&offline=true", "/v1/specs"),
        ("/v1/specs", "/v1/specs"),
        ("/v1/cache/models", "/v1/cache/models"),
        ("/v1/locks", "/v1/locks"),
        ("/v1/locks/none", "/v1/locks/{id}"),
        ("/v1/workers", "/v1/workers"),
        ("/v1/nodes", "/v1/nodes"),
        ("/v1/cluster/info?detailed=1", "/v1/cluster/info"),
        ("/v1/cluster/version", "/v1/cluster/version"),
        ("/v1/cluster/auth", "/v1/cluster/auth"),
        ("/v1/address", "/v1/address"),
        ("/v1/keys", "/v1/keys"),
        ("/v1/whoami", "/v1/whoami"),
        ("/status", "/status"),
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
        ("/readyz?model=tiny", "/readyz"),
    ],
)
def test_answers_have_the_shapes_of_the_document(
    client: Client, tiny: str, path: str, template: str
) -> None:
    """What a real gateway with a real model answers is valid by the document, errors included."""
    found = document(client)
    status, _, body = raw(client, "GET", path)
    responses = found["paths"][template]["get"]["responses"]
    answer = responses.get(str(status)) or responses[f"{status // 100}XX"]
    schema = {**answer["content"]["application/json"]["schema"], "components": found["components"]}
    jsonschema.validate(json.loads(body), schema, jsonschema.Draft202012Validator)


def test_document_for_people_has_every_route(home: Path) -> None:
    """`docs/rest.md` lists each path with its methods, by group, and no other."""
    text = (Path(__file__).parents[3] / "docs" / "rest.md").read_text()
    listed = text.partition("## Routes")[2].partition("## Errors")[0]
    rows: dict[str, list[str]] = {}
    for operation in operations(home):
        rows.setdefault(operation.path_format, []).append(operation.method)
    expected = [f"| `{path}` | {', '.join(taken)} |" for path, taken in rows.items()]
    assert sorted(re.findall(r"^\| `.*$", listed, re.MULTILINE)) == sorted(expected)


def test_events_have_the_shapes_of_the_document(client: Client, tiny: str) -> None:
    """Each event's data is valid by the shape that the document names for it."""
    found = document(client)
    shapes = found["paths"]["/v1/events"]["get"]["x-events"]
    seen = set()
    events = client.events(model="shaped", logs=True)
    for event in events:
        schema = {**shapes[event["event"]], "components": found["components"]}
        jsonschema.validate(event["data"], schema, jsonschema.Draft202012Validator)
        seen.add(event["event"])
        if event["event"] == "snapshot":
            client.launch(
                model_name="tiny-mixtral", model_engine="echo", model_uid="shaped", say="hear"
            )
        if event["event"] == "log":
            break
    events.close()
    assert {"snapshot", "model", "replica", "log"} <= seen
    snapshot = next(client.events())
    schema = {**shapes["snapshot"], "components": found["components"]}
    jsonschema.validate(snapshot["data"], schema, jsonschema.Draft202012Validator)
    client.terminate("shaped")


def test_page_needs_nothing_from_elsewhere(client: Client, home: Path) -> None:
    """`/docs` shows every route, and neither runs a script nor asks another host."""
    status, headers, body = raw(client, "GET", "/docs")
    text = body.decode()
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in text
    assert "//" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)
    for operation in operations(home):
        assert f"<code>{operation.path_format}</code>" in text
