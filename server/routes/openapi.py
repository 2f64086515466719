"""The OpenAPI document of all routes, at `/openapi.json`, and as a page at `/docs`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute

import paddock
from paddock.server.http.json_response import JSONResponse
from paddock.server.http.operation import EVENTS, TEXT, Operation, RouteDoc
from paddock.server.http.shapes import Error
from paddock.server.routes.docs_page import page

JSON = "application/json"
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
PATH_TEXT = {"type": "string", "minLength": 1}


class OpenAPI:
    """The routes of the document over all routes of an application, which may be added later."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = routes
        self._made: dict[str, Any] = {}

    def routes(self) -> list[Operation]:
        """The two routes."""
        return [
            Operation("GET", "/openapi.json", self.json, RouteDoc("documents", dict[str, Any])),
            Operation("GET", "/docs", self.docs, RouteDoc("documents", media="text/html")),
        ]

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


def document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of all operations among `routes`."""
    operations = [route for route in routes if isinstance(route, Operation)]
    docs = [operation.doc for operation in operations]
    bodies = dict.fromkeys(doc.body for doc in docs if doc.body is not None)
    shapes = [shape for doc in docs for shape in (doc.answer, *dict(doc.events).values())]
    answers = dict.fromkeys([*(one for one in shapes if one is not None), Error])
    adapters = {type_: TypeAdapter(type_) for type_ in (*bodies, *answers)}
    found, definitions = TypeAdapter.json_schemas(
        [
            *((type_, "validation", adapters[type_]) for type_ in bodies),
            *((type_, "serialization", adapters[type_]) for type_ in answers),
        ],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Schema,
    )
    schema_of = {type_: schema for (type_, _), schema in found.items()}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _operation(operation, schema_of)
        paths.setdefault(operation.path_format, {})[operation.method.lower()] = described
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
        "tags": [{"name": tag} for tag in dict.fromkeys(doc.tag for doc in docs)],
    }


def _operation(operation: Operation, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    doc = operation.doc
    content: dict[str, Any] = {}
    if doc.answer is not None or not doc.media:
        content[JSON] = {
            "schema": {"type": "null"} if doc.answer is None else schema_of[doc.answer]
        }
    if doc.media:
        # A stream has no schema in OpenAPI 3.1: that of each event is in `x-events`.
        content[doc.media] = {} if doc.media == EVENTS else {"schema": TEXT}
    error = {"description": "What went wrong", "content": {JSON: {"schema": schema_of[Error]}}}
    described: dict[str, Any] = {
        "operationId": operation_id(operation),
        "summary": operation.summary,
        "tags": [doc.tag],
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": PATH_TEXT}
                for name in re.findall(r"{(\w+)}", operation.path_format)
            ),
            *(
                {
                    "name": query.name,
                    "in": "query",
                    "required": query.required,
                    "schema": query.schema,
                    "description": query.description,
                }
                for query in doc.query
            ),
        ],
        "responses": {
            str(doc.status): {"description": "Done", "content": content},
            "4XX": error,
            "5XX": {"description": "Not ready", "content": content} if doc.fails_alike else error,
        },
    }
    if doc.body is not None:
        needed = any(field.is_required() for field in doc.body.model_fields.values())
        schema = {"schema": schema_of[doc.body]}
        described["requestBody"] = {"required": needed, "content": {JSON: schema}}
    if doc.events:
        described["x-events"] = {name: schema_of[shape] for name, shape in doc.events}
    return described


def operation_id(operation: Operation) -> str:
    """A name for the operation that is a word in any language, such as `get_v1_models_uid`."""
    return "_".join([operation.method.lower(), *re.findall(r"\w+", operation.path_format)])


class _Schema(GenerateJsonSchema):
    """Schemas without the titles that repeat each field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
