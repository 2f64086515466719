"""What an answer must be: by a schema, a pattern, a list of answers or a grammar, in all spellings.

For engines that take llguidance's grammars (`RequestFields.guided`) everything becomes one. Those
with xgrammar get it in their own fields, where xgrammar enforces it. Of others only the form of
`response_format` is checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from paddock.registry.errors import BadValue, FieldRefused
from paddock.server.dialects.base import Body, Model
from paddock.server.dialects.schemas import (
    bound_for_converter,
    check_converter,
    find_fault,
    list_places,
    make_standalone,
    write_grammar,
)
from paddock.server.dialects.xgrammar import write_for_xgrammar

HEAD = "%llguidance"
"""How llguidance's grammars begin; other texts in `grammar` are GBNF."""
MOST_CHOICES = 1000
_SPELLINGS: dict[str, Literal["json", "regex", "choice", "grammar"]] = {
    "json_schema": "json",
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "grammar": "grammar",
}
"""llama.cpp's and vLLM's fields."""
_OUTPUTS = ("json", "regex", "choice", "grammar", "json_object")
"""Keys of vLLM's `structured_outputs`."""


class Constraint(NamedTuple):
    """What an answer must be, and where in the request that stands."""

    kind: Literal["json", "regex", "choice", "grammar"]
    value: Any
    path: str


def constrain(fields: Body, model: Model, taken: frozenset[str]) -> None:
    """Puts what the answer must be as the model's engine takes and honours it.

    `taken` are the engine's fields on this route.

    Raises:
        BadValue: a field of the wrong form, or a schema that is none.
        FieldRefused: a keyword that the engine cannot enforce; with its place in the request.
    """
    form = fields.get("response_format") if "response_format" in taken else None
    takes_schemas = model.fields.guided or model.fields.converter != ""
    schema_wanted = _find_schema(form, takes_schemas) if form else None
    if not takes_schemas:
        return
    wanted = [schema_wanted] if schema_wanted is not None else []
    if fields.get("tools"):
        fields["tools"] = [_bound_tool(tool, at) for at, tool in enumerate(fields["tools"])]
    wanted += _find_others(fields)
    if not wanted:
        return
    if len(wanted) > 1:
        reason = f"does not go with {wanted[0].path}"
        raise FieldRefused(wanted[1].path, model.engine, reason)
    (only,) = wanted
    if model.fields.converter == "xgrammar":
        written = _for_xgrammar(only, model, taken)
        _clear(fields)
        fields |= written
        return
    # A grammar would bind from the first token, and llama.cpp takes none beside tools.
    hinders = None if model.fields.guided else "is not enforced by this build of the engine"
    if "response_format" in taken and _thinks(fields, model):
        hinders = "is not enforced where the model thinks; with enable_thinking: false it is"
    if fields.get("tools"):
        hinders = "is not enforced beside tools"
    if only.kind == "json":
        schema = make_standalone(only.value, only.path)
        if hinders:
            form = _convert(fields, only, schema, model, hinders)
            _clear(fields)
            name = "response_format" if "response_format" in taken else "json_schema"
            fields[name] = form if name == "response_format" else form["json_schema"]["schema"]
            return
        text = write_grammar(schema, only.path, model.engine)
    elif only.kind != "grammar" and hinders:
        raise FieldRefused(only.path, model.engine, hinders)
    else:
        text = _write(only)
    _clear(fields)
    fields["grammar"] = text


def _clear(fields: Body) -> None:
    for name in ("response_format", "structured_outputs", *_SPELLINGS):
        fields.pop(name, None)


def _find_schema(form: Body, guided: bool) -> Constraint | None:
    """The schema of a `response_format`; None: it has none."""
    kind = form.get("type")
    if kind == "json_schema":
        inner = form.get("json_schema")
        if not isinstance(inner, dict) or not isinstance(inner.get("schema"), dict):
            hint = " (it stands beside json_schema, not in it)" if "schema" in form else ""
            reason = f"is needed: a JSON schema{hint}"
            raise BadValue("response_format.json_schema.schema", None, reason)
        return Constraint("json", inner["schema"], "response_format.json_schema.schema")
    if kind == "json_object":  # with a schema: llama.cpp's own form
        return Constraint(
            "json", form.get("schema") or {"type": "object"}, "response_format.schema"
        )
    if guided and kind != "text":
        raise BadValue("response_format.type", kind, "must be text, json_object or json_schema")
    return None


def _find_others(fields: Body) -> Iterator[Constraint]:
    for name, kind in _SPELLINGS.items():
        if fields.get(name) not in (None, ""):
            yield Constraint(kind, fields[name], name)
    outputs = fields.get("structured_outputs")
    if outputs is None:
        return
    if not isinstance(outputs, dict):
        raise BadValue("structured_outputs", outputs, "must be an object")
    for name, value in outputs.items():
        if value is None or value is False:
            continue
        if name not in _OUTPUTS:
            reason = f"is not one of {', '.join(_OUTPUTS)}"
            raise BadValue(f"structured_outputs.{name}", value, reason)
        is_object = name == "json_object"
        yield Constraint(
            "json" if is_object else name,
            {"type": "object"} if is_object else value,
            f"structured_outputs.{name}",
        )


def _write(wanted: Constraint) -> str:
    """The grammar of a pattern, of a list of answers, or the one that was given."""
    value, path = wanted.value, wanted.path
    if wanted.kind == "choice":
        right = isinstance(value, list) and all(isinstance(one, str) and one for one in value)
        if not right or not 0 < len(value) <= MOST_CHOICES:
            raise BadValue(path, value, f"must be a list of 1 to {MOST_CHOICES} texts")
        cases = " | ".join(json.dumps(one, ensure_ascii=False) for one in value)
        grammar = f"{HEAD} {{}}\nstart: {cases}"
    elif not isinstance(value, str):
        raise BadValue(path, value, "must be text")
    elif wanted.kind == "grammar":
        if not value.startswith(HEAD):
            return value  # GBNF: the engine refuses what is none
        grammar = value
    else:
        inner = re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", value).replace("\n", "\\n")
        grammar = f"{HEAD} {{}}\nstart: /{inner}/"
    if fault := find_fault(grammar):
        raise BadValue(path, value, fault.partition("\n   1 |")[0].strip().replace("\n", " "))
    return grammar


def _for_xgrammar(wanted: Constraint, model: Model, taken: frozenset[str]) -> Body:
    """The fields of an engine that has xgrammar, where that enforces what is wanted.

    What llguidance cannot do is refused here too: one table of keywords counts for all engines.
    """
    kind, value = wanted.kind, wanted.value
    if kind == "json":
        schema = make_standalone(value, wanted.path)
        write_grammar(schema, wanted.path, model.engine)
        schema = write_for_xgrammar(schema, wanted.path, model.engine)
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        return {"response_format": form}
    if _write(wanted).startswith(HEAD) and kind == "grammar":
        raise FieldRefused(wanted.path, model.engine, "it takes GBNF, not llguidance's grammars")
    if "structured_outputs" in taken:
        return {"structured_outputs": {kind: value}}
    if kind == "choice":
        kind, value = "regex", "|".join(map(re.escape, value))
    return {{"regex": "regex", "grammar": "ebnf"}[kind]: value}


def _convert(
    fields: Body, wanted: Constraint, schema: Body, model: Model, hinders: str
) -> dict[str, Any]:
    """A `response_format` for llama.cpp's own converter, where something hinders a grammar."""
    if model.fields.converter != "llama.cpp":
        raise FieldRefused(wanted.path, model.engine, hinders)
    if not fields.get("tools"):
        check_converter(schema, wanted.path, model.engine, hinders)
    form = {"name": "answer", "schema": bound_for_converter(schema, wanted.path)}
    return {"type": "json_schema", "json_schema": form}


def _bound_tool(tool: Body, index: int) -> Body:
    """The tool, its parameters with definitions of their own, and bounds that cost no memory."""
    parameters, path = tool["function"].get("parameters"), f"tools[{index}].function.parameters"
    if not isinstance(parameters, dict):
        return tool
    if any("$ref" in one for _, one in list_places(parameters, path)):
        parameters = make_standalone(parameters, path, f"t{index}_")
    function = {**tool["function"], "parameters": bound_for_converter(parameters, path)}
    return {**tool, "function": function}


def _thinks(fields: Body, model: Model) -> bool:
    """Whether the model may think before it answers."""
    arguments = fields.get("chat_template_kwargs") or {}
    return "reasoning" in model.abilities and arguments.get("enable_thinking") is not False


@contextmanager
def in_words(form: str, parameters: str) -> Iterator[None]:
    """Tells places in another dialect's words: of the wanted form, and of a tool's parameters.

    Raises:
        BadValue, FieldRefused: as they come, by the other name.
    """
    try:
        yield
    except (BadValue, FieldRefused) as error:
        words = error.name.replace("response_format.json_schema", form, 1)
        error.name = words.replace(".function.parameters", f".{parameters}", 1)
        raise
