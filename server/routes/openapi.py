"""The OpenAPI document: one row for each route, at `/openapi.json`, and as a page at `/docs`.

A test fails when a route has no row or a row no route. What a row says in words is the first line
of its endpoint's docstring, unless it brings its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

import paddock
from paddock.server.routes import schemas as s
from paddock.server.routes.docs_page import page
from paddock.server.routes.events import TYPES
from paddock.server.routes.management import MAX_LINES
from paddock.server.routes.zoo import MAX_SLOTS

JSON = "application/json"
EVENTS = "text/event-stream"
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
FLAG = {"type": "boolean"}
TEXT = {"type": "string"}
PATH_TEXT = {"type": "string", "minLength": 1}


@dataclass(frozen=True)
class Query:
    """A query parameter."""

    name: str
    schema: dict[str, Any]
    description: str
    required: bool = False


@dataclass(frozen=True)
class Operation:
    """What one method of one route takes and answers.

    `body` and `answer` are types; `media` names what it answers besides JSON, or in its place if
    `answer` is None. No `summary`: the first line of the endpoint's docstring.
    """

    method: str
    path: str
    tag: str
    answer: Any = None
    body: Any = None
    query: tuple[Query, ...] = ()
    summary: str = ""
    media: str = ""
    status: int = 200


WAIT = Query("wait_ready", FLAG | {"default": True}, "Answer when all is ready, not at once")
DETAILED = Query("detailed", FLAG | {"default": False}, "All that is known")
WORKER = Query("worker_ip", TEXT, "The machine; only the gateway's own can be asked for")
VERSION = Query("model_version", TEXT, "name--size--format--quantization", required=True)
OFFLINE = Query("offline", FLAG | {"default": False}, "Ask no hub")
LINES = Query(
    "lines", {"type": "integer", "minimum": 1, "maximum": MAX_LINES, "default": 100}, "How many"
)
TYPE_LIST = {"type": "string", "pattern": f"^({'|'.join(TYPES)})(,({'|'.join(TYPES)}))*$"}
TEXTS = {"type": "array", "items": TEXT}
NAMED = dict[str, Any]
ENGINES = dict[str, list[s.EngineVariants] | str]

OPERATIONS: tuple[Operation, ...] = (
    Operation("POST", "/v1/completions", "inference", s.Answered, s.Completion, (),
              "Continues a prompt", EVENTS),
    Operation("POST", "/v1/chat/completions", "inference", s.Answered, s.Chat, (),
              "Answers a conversation", EVENTS),
    Operation("POST", "/v1/embeddings", "inference", s.Answered, s.Embed, (),
              "Makes vectors of texts"),
    Operation("POST", "/v1/rerank", "inference", s.Reranked, s.Rerank, (),
              "Orders documents by how near they are to a query"),
    Operation("POST", "/v1/responses", "inference", s.Responded, s.Respond, (),
              "Answers a conversation, in the words of OpenAI's responses", EVENTS),
    *(
        operation
        for root in ("", "/anthropic")
        for operation in (
            Operation("POST", f"{root}/v1/messages", "anthropic", s.AnthropicMessage,
                      s.AnthropicMessages, (), "Answers a conversation, in Anthropic's words",
                      EVENTS),
            Operation("POST", f"{root}/v1/messages/count_tokens", "anthropic", s.CountedTokens,
                      s.AnthropicChat, (), "Counts the tokens that such a conversation has"),
        )
    ),
    Operation("GET", "/anthropic/v1/models", "anthropic", s.AnthropicModels),
    Operation("GET", "/anthropic/v1/models/{uid}", "anthropic", s.AnthropicModel),
    Operation("GET", "/v1/models", "models", s.Models),
    Operation("POST", "/v1/models", "models", s.Launched, s.Launch, (WAIT,)),
    Operation("POST", "/v1/attached", "models", s.Launched, s.Attach),
    Operation("POST", "/v1/plan", "models", s.Plan, s.Launch),
    Operation("GET", "/v1/models/instances", "models", list[s.Instance], query=(
        Query("model_name", TEXT, "Only of this model"),
        Query("model_uid", TEXT, "Only the one with this id"),
    )),
    Operation("GET", "/v1/models/{uid}", "models", s.Description),
    Operation("DELETE", "/v1/models/{uid}", "models", None),
    Operation("GET", "/v1/models/{uid}/progress", "models", s.Progress),
    Operation("POST", "/v1/models/{uid}/cancel", "models", None),
    Operation("GET", "/v1/models/{uid}/logs", "models", dict[str, list[str]], query=(
        LINES, Query("follow", FLAG | {"default": False}, "The whole log, and what is added to it"),
    ), media=EVENTS),
    Operation("GET", "/v1/models/{uid}/events", "models", list[s.PastEvent]),
    Operation("GET", "/v1/models/{uid}/replicas", "models", list[s.Replica]),
    Operation("POST", "/v1/models/{uid}/replicas", "models", s.Added, s.AddReplicas, (WAIT,)),
    Operation("DELETE", "/v1/models/{uid}/replicas/{number}", "models", s.Remaining),
    Operation("POST", "/v1/models/{uid}/requests/{request_id}/abort", "models", s.Message,
              s.Abort),
    Operation("GET", "/v1/events", "watching", None, query=(
        Query("model", TEXT, "Only of the model with this id"),
        Query("types", TYPE_LIST, f"Only these, with commas between: {', '.join(TYPES)}"),
        Query("logs", FLAG | {"default": False}, "Engines' log lines too"),
        Query("last_event_id", TEXT, "As the header Last-Event-ID: go on after this event"),
    ), media=EVENTS),
    Operation("GET", "/metrics", "watching", None, media="text/plain"),
    Operation("GET", "/healthz", "watching", s.Health),
    Operation("GET", "/readyz", "watching", s.Readiness, query=(
        Query("model", TEXT, "Whether the model with this id can take requests"),
    )),
    Operation("GET", "/v1/zoo", "catalogue", s.ZooList, query=(
        Query("q", TEXT, "Words, all of which must stand in a model's names, ids or description"),
        Query("ability", TEXTS, "What it can do; several: all"),
        Query("type", TEXTS, "LLM, embedding or rerank; several: any"),
        Query("format", TEXTS, "A format of its weights; several: any"),
        Query("engine", TEXTS, "An engine that its spec lists; several: any"),
        Query("language", TEXTS, "A language code, such as en; several: all"),
        Query("size", TEXT, "Billions of parameters, such as 7 or 0_5, or a range: 1..8 or ..8"),
        Query("fits", FLAG | {"default": False}, "Only what can be served in the free memory"),
    )),
    Operation("GET", "/v1/zoo/{name}", "catalogue", s.ZooPage, query=(OFFLINE,)),
    Operation("GET", "/v1/estimate", "catalogue", s.Estimate, query=(
        Query("model_name", TEXT, "A name, or a reference such as hf:owner/name", required=True),
        Query("model_format", TEXT, "Only this format"),
        Query("quantization", TEXT, "Only this quantization"),
        Query("model_size_in_billions", TEXT, "Only this size, such as 46_7 or 46.7"),
        Query("context_length", {"type": "array", "items": {"type": "integer", "minimum": 1}},
              "Tokens; several times"),
        Query("slots", {"type": "integer", "minimum": 1, "maximum": MAX_SLOTS, "default": 1},
              "Requests side by side, each with the whole context"),
        OFFLINE,
    )),
    Operation("GET", "/v1/model_registrations/{type}", "catalogue", list[s.Family],
              query=(DETAILED,)),
    Operation("POST", "/v1/model_registrations/{type}", "catalogue", s.Registered, s.Register),
    Operation("GET", "/v1/model_registrations/{type}/{name}", "catalogue", s.Family),
    Operation("DELETE", "/v1/model_registrations/{type}/{name}", "catalogue", None),
    Operation("GET", "/v1/specs", "catalogue", s.ShownSpec, query=(
        Query("model_name", TEXT, "A name, or a reference such as hf:owner/name", required=True),
        OFFLINE,
    )),
    Operation("GET", "/v1/models/prompts", "catalogue", NAMED),
    Operation("GET", "/v1/models/families", "catalogue", dict[str, list[str]]),
    Operation("GET", "/v1/models/vllm-supported", "catalogue", dict[str, list[str]]),
    Operation("GET", "/v1/models/{type}/{name}/versions", "catalogue", list[s.VariantVersion]),
    Operation("GET", "/v1/engines", "catalogue", s.Engines),
    Operation("GET", "/v1/engines/{name}", "catalogue", ENGINES),
    Operation("GET", "/v1/engines/{type}/{name}", "catalogue", ENGINES),
    Operation("GET", "/v1/environments", "environments", s.EngineEnvironments),
    Operation("GET", "/v1/environments/{engine}", "environments", s.EngineEnvironment),
    Operation("POST", "/v1/environments/{engine}", "environments", s.EngineEnvironment,
              s.NewEnvironment, status=201),
    Operation("DELETE", "/v1/environments/{engine}", "environments", s.EngineEnvironment),
    Operation("POST", "/v1/environments/{engine}/cancel", "environments", s.EngineEnvironment),
    Operation("GET", "/v1/pulls", "pulls", s.Pulls),
    Operation("POST", "/v1/pulls", "pulls", s.Pull, s.Launch, status=201),
    Operation("GET", "/v1/pulls/{id}", "pulls", s.Pull),
    Operation("DELETE", "/v1/pulls/{id}", "pulls", s.Pull),
    Operation("GET", "/v1/locks", "locks", s.LockWorks),
    Operation("POST", "/v1/locks", "locks", s.LockWork, s.MakeLock, status=201),
    Operation("GET", "/v1/locks/{id}", "locks", s.LockWork),
    Operation("DELETE", "/v1/locks/{id}", "locks", s.LockWork),
    Operation("POST", "/v1/lockfile/verify", "locks", s.LockWork, s.LockedModels, status=201),
    Operation("POST", "/v1/lockfile/outdated", "locks", s.LockWork, s.LockedModels, status=201),
    Operation("GET", "/v1/cache/models", "cache", s.CacheList, query=(
        Query("model_name", TEXT, "Only of this model"), WORKER,
    )),
    Operation("DELETE", "/v1/cache/models", "cache", s.Result, query=(VERSION, WORKER)),
    Operation("GET", "/v1/cache/models/files", "cache", s.CacheFiles, query=(VERSION, WORKER)),
    Operation("POST", "/v1/cache/models/verify", "cache", s.Verified, query=(VERSION, WORKER)),
    Operation("GET", "/v1/cache/repositories", "cache", s.Repositories, query=(WORKER,)),
    Operation("GET", "/v1/whoami", "keys", s.Caller),
    Operation("GET", "/v1/keys", "keys", s.Keys),
    Operation("POST", "/v1/keys", "keys", s.MadeKey, s.NewKey, status=201),
    Operation("DELETE", "/v1/keys/{id}", "keys", s.Key),
    Operation("GET", "/status", "cluster", s.Status),
    Operation("GET", "/v1/nodes", "cluster", s.Nodes),
    Operation("GET", "/v1/address", "cluster", str),
    Operation("GET", "/v1/supervisor", "cluster", s.Supervisor),
    Operation("GET", "/v1/workers", "cluster", list[s.Worker]),
    Operation("GET", "/v1/cluster/auth", "cluster", s.Auth),
    Operation("GET", "/v1/cluster/version", "cluster", s.Version),
    Operation("GET", "/v1/cluster/info", "cluster", list[s.Node], query=(DETAILED,)),
    Operation("GET", "/v1/cluster/devices", "cluster", int),
    Operation("DELETE", "/v1/clusters", "cluster", s.Result),
    Operation("GET", "/openapi.json", "documents", NAMED),
    Operation("GET", "/docs", "documents", None, media="text/html"),
    Operation("GET", "/", "dashboard", None, media="text/html"),
    Operation("GET", "/favicon.svg", "dashboard", None, media="image/svg+xml"),
    Operation("GET", "/assets/{name}", "dashboard", None, media="*/*"),
)  # fmt: skip


class OpenAPI:
    """The routes of the document over all routes of an application, which may be added later."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = routes
        self._made: dict[str, Any] = {}

    def routes(self) -> list[Route]:
        """The two routes."""
        return [Route("/openapi.json", self.json), Route("/docs", self.docs)]

    async def json(self, _: Request) -> Response:
        """The OpenAPI document."""
        return JSONResponse(self._document())

    async def docs(self, _: Request) -> Response:
        """The same, to be read in a browser; it needs no script and asks nobody else."""
        return HTMLResponse(page(self._document()), headers={"Content-Security-Policy": POLICY})

    def _document(self) -> dict[str, Any]:
        if not self._made:  # at the first request, when all routes are there
            self._made = document(self._routes)
        return self._made


def methods(routes: Iterable[BaseRoute]) -> list[tuple[str, str]]:
    """Method and path of every route as the document writes them; HEAD goes without saying."""
    return [
        (method, route.path_format)
        for route in routes
        if isinstance(route, Route)
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]


def document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `OPERATIONS`; `routes` give their summaries."""
    said = {
        method_and_path: (route.endpoint.__doc__ or "").partition("\n")[0]
        for route in routes
        if isinstance(route, Route)
        for method_and_path in methods([route])
    }
    bodies = [operation.body for operation in OPERATIONS if operation.body is not None]
    answers = [operation.answer for operation in OPERATIONS if operation.answer is not None]
    events = [s.Snapshot, s.ModelEvent, s.ReplicaEvent, s.LogEvent]
    types = list(dict.fromkeys([*bodies, *answers, *events, s.Error]))
    found, definitions = TypeAdapter.json_schemas(
        [(number, "validation", TypeAdapter(type_)) for number, type_ in enumerate(types)],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Schema,
    )
    schema_of = {type_: found[number, "validation"] for number, type_ in enumerate(types)}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        summary = operation.summary or said.get((operation.method, operation.path), "")
        described = _operation(operation, summary, schema_of)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Paddock",
            "version": paddock.__version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": dict(sorted(definitions["$defs"].items())),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(o.tag for o in OPERATIONS)],
    }


def _operation(
    operation: Operation, summary: str, schema_of: dict[Any, dict[str, Any]]
) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.answer is not None or not operation.media:
        content[JSON] = {
            "schema": {"type": "null"} if operation.answer is None else schema_of[operation.answer]
        }
    if operation.media:
        # A stream has no schema in OpenAPI 3.1: that of each event is in `x-events`.
        content[operation.media] = {} if operation.media == EVENTS else {"schema": TEXT}
    error = {"description": "What went wrong", "content": {JSON: {"schema": schema_of[s.Error]}}}
    refused = error
    if operation.path == "/readyz":
        refused = {"description": "Not ready", "content": content}
    described: dict[str, Any] = {
        "operationId": operation_id(operation),
        "summary": summary,
        "tags": [operation.tag],
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": PATH_TEXT}
                for name in re.findall(r"{(\w+)}", operation.path)
            ),
            *(
                {
                    "name": query.name,
                    "in": "query",
                    "required": query.required,
                    "schema": query.schema,
                    "description": query.description,
                }
                for query in operation.query
            ),
        ],
        "responses": {
            str(operation.status): {"description": "Done", "content": content},
            "4XX": error,
            "5XX": refused,
        },
    }
    if operation.body is not None:
        needed = any(field.is_required() for field in operation.body.model_fields.values())
        schema = {"schema": schema_of[operation.body]}
        described["requestBody"] = {"required": needed, "content": {JSON: schema}}
    if operation.path == "/v1/events":
        described["x-events"] = {
            "snapshot": schema_of[s.Snapshot],
            "model": schema_of[s.ModelEvent],
            "replica": schema_of[s.ReplicaEvent],
            "progress": schema_of[s.ReplicaEvent],
            "log": schema_of[s.LogEvent],
        }
    return described


def operation_id(operation: Operation) -> str:
    """A name for the operation that is a word in any language, such as `get_v1_models_uid`."""
    return "_".join([operation.method.lower(), *re.findall(r"\w+", operation.path)])


class _Schema(GenerateJsonSchema):
    """Schemas without the titles that repeat each field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
