"""The table of launch fields: its checks, and that everything which follows from it agrees."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from paddock.cli.launch import launch
from paddock.cli.lock import lock
from paddock.cli.pull import pull
from paddock.launcher.planning.plan import LaunchRequest
from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.launch_fields import (
    LAUNCH_FIELDS,
    LaunchField,
    Taker,
    fields_by_key,
    launch_fields,
)
from paddock.server.http.shapes import Shape
from paddock.server.routes.launch_shapes import AddReplicas, Launch, MakeLock
from paddock.server.routes.xinference_shapes import launch_request

ROOT = Path(__file__).parents[2]
KEYS = fields_by_key()
EXAMPLES: dict[str, Any] = {
    "text": "x",
    "reference": "hf:owner/name",
    "model_type": "LLM",
    "path": "/weights",
    "file": "projector.gguf",
    "hub": "auto",
    "size": "46.7",
    "count": 2,
    "solved": 2,
    "number": 2.5,
    "bytes": "24GB",
    "limit": "12GB",
    "flag": True,
    "gpus": "2",
    "indices": "1,0",
    "adapters": {"lora_list": [{"lora_name": "a", "local_path": "/a"}]},
    "template": "chatml",
    "entry": {
        "model": "m",
        "format": "ggufv2",
        "size": "7",
        "quantization": "Q4_K_M",
        "hub": "huggingface",
        "id": "owner/name",
        "commit": "0" * 40,
        "engine": "llama.cpp",
        "engine_version": "1",
        "files": [{"name": "m.gguf", "size_bytes": 1, "sha256": "0" * 64}],
    },
}
PARSED = {
    "bytes": 24 * 10**9,
    "limit": 12 * 10**9,
    "size": "46_7",
    "gpus": 2,
    "indices": (1, 0),
    "adapters": ["/a"],
}


def example(field: LaunchField) -> Any:
    """A value that the field takes."""
    return field.choices[0] if field.choices else EXAMPLES[field.kind]


@pytest.mark.parametrize("field", LAUNCH_FIELDS, ids=lambda field: field.key)
def test_every_field_is_taken_everywhere(field: LaunchField) -> None:
    """By REST under each key, by the OpenAPI shape, the command line and the dashboard."""
    value, dashboard = example(field), (ROOT / "web/src/api/launchFields.ts").read_text()
    schema = Launch.model_json_schema()
    for key in field.keys:
        body = {"model_name": "m", key: value}
        request = launch_request(body)
        jsonschema.validate(body, schema, jsonschema.Draft202012Validator)
        assert key in schema["properties"]
        if field.engine_option:
            assert request.engine_options == {field.engine_option: PARSED[field.kind]}
        else:
            assert request.engine_options == {}
        if field.attribute and field.kind != "entry":
            assert getattr(request, field.attribute) == PARSED.get(field.kind, value)
        is_object = field.kind in {"adapters", "entry"}
        assert (f'key: "{key}"' in dashboard) is not is_object
    options = {flag for option in launch.params for flag in option.opts}
    assert field.flags
    assert set(field.flags) <= options


def test_every_attribute_of_a_request_has_a_row() -> None:
    """But for the setting and the engine's own options, which no key of REST names."""
    names = [field.attribute for field in LAUNCH_FIELDS if field.attribute]
    assert len(set(names)) == len(names)
    assert {*names, "first_hub", "engine_options", "automatic"} == set(LaunchRequest.model_fields)


def test_no_key_and_no_flag_means_two_fields() -> None:
    """Of those that one command takes."""
    keys = [key for field in LAUNCH_FIELDS for key in field.keys]
    flags = [flag for field in LAUNCH_FIELDS for flag in field.flags]
    assert len(set(keys)) == len(keys)
    assert len(set(flags)) == len(flags)


@pytest.mark.parametrize(
    ("shape", "taker", "more"),
    [
        (Launch, "launch", set()),
        (MakeLock, "lock", {"launched", "newest"}),
        (AddReplicas, "replicas", {"replica_config"}),
    ],
)
def test_shapes_have_the_fields_of_their_routes(
    shape: type[Shape], taker: Taker, more: set[str]
) -> None:
    """And those that only the route has."""
    keys = {key for field in launch_fields(taker) for key in field.keys}
    assert set(shape.model_fields) == keys | more


@pytest.mark.parametrize(("command", "taker"), [(launch, "launch"), (pull, "pull"), (lock, "lock")])
def test_commands_have_the_fields_of_the_table(command: click.Command, taker: Taker) -> None:
    """In its order, and with its help."""
    rows = [field for field in launch_fields(taker) if taker == "launch" or not field.is_required]
    flags = [flag for field in rows for flag in field.flags]
    own = [flag for option in command.params for flag in option.opts if flag in flags]
    assert own == flags
    text = command.get_help(click.Context(command, info_name=taker, terminal_width=200))
    for field in rows:
        assert field.help_of.get(taker, field.help or "") in text


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("replica", 0, "replica 0: must be from 1 to 64"),
        ("replica", 65, "replica 65: must be from 1 to 64"),
        ("replica", "many", "replica 'many': must be a whole number"),
        ("replica", True, "replica True: must be a whole number"),
        ("replica", 1.5, "replica 1.5: must be a whole number"),
        ("context_length", 0, "context_length 0: must be 1 or more"),
        ("restart_tries", -1, "restart_tries -1: must be 0 or more"),
        ("silence_seconds", 0, "silence_seconds 0: must be over 0"),
        ("silence_seconds", 1e10, "silence_seconds 10000000000.0: must be over 0"),
        ("silence_seconds", float("nan"), "silence_seconds nan: must be a number"),
        ("silence_seconds", "long", "silence_seconds 'long': must be a number"),
        ("restart", "sometimes", "unknown restart 'sometimes'"),
        ("model_type", "audio", "unknown model_type 'audio'"),
        ("model_engine", 3, "model_engine 3: must be text"),
        ("node", ["n"], r"worker_ip \['n'\]: must be text"),
        ("offline", "yes", "offline 'yes': must be true or false"),
        ("n_gpu", "many", "n_gpu 'many': must be a whole number, auto or none"),
        ("n_gpu", "²", "n_gpu '²': must be a whole number, auto or none"),
        ("gpu_idx", "a,b", "gpu_idx 'a,b': must be indices of GPUs"),
        ("peft_model_config", [], "peft_model_config .*: must be an object with lora_list"),
        ("peft_model_config", {"lora_list": False}, "must be an object with lora_list"),
        ("peft_model_config", {"lora_list": [{}]}, "each of lora_list needs a local_path"),
        (
            "peft_model_config",
            {"lora_list": [{"local_path": "/a", "lora_name": 1}]},
            "a lora_name must be text",
        ),
    ],
)
def test_wrong_values_are_refused_by_the_clients_key(key: str, value: Any, says: str) -> None:
    """With the value and what is taken in its place; a request refuses the same."""
    with pytest.raises((BadValue, UnknownName), match=says):
        KEYS[key].check(value)
    with pytest.raises((BadValue, UnknownName), match=says):
        launch_request({"model_name": "m", key: value})


@pytest.mark.parametrize("field", LAUNCH_FIELDS, ids=lambda field: field.key)
def test_values_that_were_checked_pass_again(field: LaunchField) -> None:
    """A request that was stored is read by the same checks."""
    request = launch_request({"model_name": "m", field.key: example(field)})
    stored = json.loads(request.model_dump_json())
    assert LaunchRequest.parse(**stored) == request


@pytest.mark.parametrize(
    "field",
    [one for one in LAUNCH_FIELDS if one.kind in {"count", "number"}],
    ids=lambda field: field.key,
)
def test_shapes_and_checks_have_the_same_range(field: LaunchField) -> None:
    """What the document allows is taken, what it forbids is refused."""
    schema = Launch.model_json_schema()["properties"][field.key]
    bounds = (field.minimum, field.maximum, field.above)
    for number in (
        int(bound) + step for bound in bounds if bound is not None for step in (-1, 0, 1)
    ):
        is_valid = jsonschema.Draft202012Validator(schema).is_valid(number)
        if is_valid:
            assert field.check(number) == number
        else:
            with pytest.raises(BadValue):
                field.check(number)


def test_words_and_numbers_come_as_text_too() -> None:
    """Command lines send text; words are taken in any case."""
    request = launch_request(
        {"model_name": "m", "replica": "2", "restart": "ALWAYS", "model_type": "llm"}
    )
    assert (request.replicas, request.restart) == (2, "always")


def test_a_model_type_of_a_package_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package may add an ability with a type of its own; its models are launched like others."""
    body = {"model_name": "m", "model_type": "summary"}
    with pytest.raises(UnknownName, match="known: LLM, embedding, rerank"):
        launch_request(body)
    types = ("LLM", "summary")
    monkeypatch.setattr("paddock.registry.launch_fields.model_types", lambda: types)
    assert launch_request(body).engine_options == {}


ROW = """
from paddock.registry import launch_fields as table

table.LAUNCH_FIELDS += (
    table.LaunchField(
        key="first_of_hubs", attribute="first_hub", takers=("launch", "lock"),
        choices=("near", "far"),
        flags=("--first-of-hubs",), help="The hub that is asked first.", description="Asked first",
    ),
)
import click
from paddock.cli.launch import launch_arguments, launch
from paddock.cli.lock import lock
from paddock.registry.errors import UnknownName
from paddock.server.routes import launch_shapes, locks
from paddock.server.routes.xinference_shapes import launch_request

for command in (launch, lock):
    assert "The hub that is asked first." in command.get_help(click.Context(command))
context = launch.make_context("launch", ["m", "--first-of-hubs", "far"])
values = {key: context.params[key] for key in ("model_name", "first_of_hubs")}
body = launch_arguments(values, context.args)
assert body == {"model_name": "m", "first_of_hubs": "far"}, body
assert launch_request(body).first_hub == "far"
try:
    launch_request({**body, "first_of_hubs": "x"})
except UnknownName as error:
    assert str(error) == "unknown first_of_hubs 'x' (known: near, far)", error
else:
    raise AssertionError
for shape in (launch_shapes.Launch, launch_shapes.MakeLock):
    row = shape.model_json_schema()["properties"]["first_of_hubs"]
    assert row["description"] == "Asked first"
    assert row["anyOf"][0]["enum"] == ["near", "far"]
assert "first_of_hubs" in locks.OPTIONS
assert "first_of_hubs" not in launch_shapes.AddReplicas.model_fields

import sys
sys.path.insert(0, sys.argv[1])
import docs
row = '{ key: "first_of_hubs", type: "text", flags: ["--first-of-hubs"] }'
assert row in docs.dashboard_fields()
"""


def test_a_row_is_all_that_a_new_option_needs() -> None:
    """The commands, REST, the document and the dashboard take it, and check it."""
    command = [sys.executable, "-c", ROW, str(ROOT / "tools")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.search("Warning", done.stderr)
