"""The JSON Schema of a spec file, for editors; `tools/schema.py` writes it to `specs/`."""

from __future__ import annotations

import ast
import inspect
import json
from itertools import pairwise
from typing import Any

from paddock.registry import spec


def json_schema() -> dict[str, Any]:
    """The schema, with the types' attribute docstrings as descriptions.

    Pydantic could collect those itself, but would read its source at every import: 25 to 50 ms,
    for every process that touches a spec.
    """
    schema = spec.ModelSpec.model_json_schema(mode="validation")
    tables = {**schema.get("$defs", {}), "ModelSpec": schema}
    for owner in ast.parse(inspect.getsource(spec)).body:
        if not isinstance(owner, ast.ClassDef) or owner.name not in tables:
            continue
        fields = tables[owner.name]["properties"]
        for statement, following in pairwise(owner.body):
            match statement, following:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    fields[name]["description"] = inspect.cleandoc(text)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    """The schema as the committed file has it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
