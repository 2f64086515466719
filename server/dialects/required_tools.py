"""A required tool call from an engine that lets the model answer without one: by a schema."""

from __future__ import annotations

from collections.abc import Mapping

from paddock.registry.errors import BadValue, FieldRefused
from paddock.server.dialects.base import Body, Model
from paddock.server.dialects.schemas import make_standalone, write_grammar


def require_tool(fields: Body, model: Model) -> bool:
    """Whether a tool call is to be had by a schema, which is then put into the fields.

    Raises:
        BadValue: the choice names no tool.
        FieldRefused: a response format is asked for as well.
    """
    choice, tools = fields.get("tool_choice", "auto"), fields.get("tools") or []
    if choice in ("auto", "none"):
        return False
    functions = {tool["function"]["name"]: tool["function"] for tool in tools}
    if choice != "required":
        try:
            functions = {choice["function"]["name"]: functions[choice["function"]["name"]]}
        except (KeyError, TypeError):
            reason = "must be auto, none, required, or an object that names one of the tools"
            raise BadValue("tool_choice", choice, reason) from None
    if not functions:
        raise BadValue("tool_choice", choice, "needs tools")
    if not model.fields.free_tool_choice:
        return False
    if fields.get("response_format"):
        raise FieldRefused("response_format", model.engine, "does not go with a required tool")
    fields["tool_choice"] = "auto"
    schema = {"name": "call", "schema": _call_schema(functions)}
    fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return True


def check_strict_tools(fields: Body, model: Model) -> None:
    """Refuses strict tools whose schemas an engine that enforces them cannot.

    Raises:
        BadValue: nothing satisfies a schema, or it is none.
        FieldRefused: a keyword that cannot be enforced; with its place.
    """
    if not model.fields.strict_tools:
        return
    for index, tool in enumerate(fields.get("tools") or ()):
        function = tool["function"]
        if function.get("strict") and isinstance(function.get("parameters"), dict):
            path = f"tools[{index}].function.parameters"
            write_grammar(make_standalone(function["parameters"], path), path, model.engine)


def _call_schema(functions: Mapping[str, Body]) -> Body:
    """One object that is a call of one of the functions; their definitions stand at its root."""
    definitions: Body = {}
    calls = []
    for index, (name, function) in enumerate(functions.items()):
        parameters = {"type": "object", **(function.get("parameters") or {})}
        path = f"tools[{index}].function.parameters"
        parameters = make_standalone(parameters, path, f"t{index}_")
        definitions |= parameters.pop("$defs", {})
        properties = {"name": {"const": name}, "arguments": parameters}
        calls.append(
            {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
        )
    schema: Body = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**schema, "$defs": definitions} if definitions else schema
