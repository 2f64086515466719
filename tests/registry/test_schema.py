"""The committed JSON Schema is the code's, and says what the code says."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from paddock.registry.catalog import default_folders, specs_root
from paddock.registry.schema import json_schema, schema_text

REPOSITORY = Path(__file__).parents[2]
FILES = [path for folder in default_folders() for path in sorted(folder.glob("*.yaml"))]
VALIDATOR = jsonschema.Draft202012Validator(json_schema())
GOOD = (specs_root() / "llm" / "mixtral-v0.1.yaml").read_text("utf-8")


class EditorLoader(yaml.SafeLoader):
    """Reads YAML 1.2's core schema, as editors do."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute


for tag, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    expression = re.compile(f"^(?:{pattern})$")
    EditorLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", expression, first)


def faults(text: str) -> list[str]:
    document = yaml.load(text, Loader=EditorLoader)  # noqa: S506 - a SafeLoader
    return [error.message for error in VALIDATOR.iter_errors(document)]


def test_the_committed_schema_is_the_codes() -> None:
    """`python tools/schema.py` was run after the last change to the types."""
    assert (REPOSITORY / "specs" / "schema.json").read_text("utf-8") == schema_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_built_in_spec_fits_the_schema(path: Any) -> None:
    """An editor underlines nothing in the files that we ship, and knows where the schema is."""
    text = path.read_text("utf-8")
    assert text.startswith("# yaml-language-server: $schema=../schema.json\n")
    assert faults(text) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("license:", "licence:"),
        ("format: gptq", "format: gguf"),
        ("size: 46_7", "size: big"),
        ("layers: 32", "layers: many"),
        ("layers: 32", "layers: 0"),
        ("abilities: [generate]", "abilities: generate"),
        ("abilities: [generate]", "abilities: [sing]"),
        ("released: 2023-12-09\n", ""),
    ],
)
def test_an_editor_sees_common_faults(old: str, new: str) -> None:
    """The schema refuses misspelled fields, unknown choices, junk numbers and missing fields."""
    assert old in GOOD
    assert faults(GOOD.replace(old, new, 1))


@pytest.mark.parametrize("size", ["46_7", "46.7", "7", "'46.7'", "0_004"])
def test_the_schema_takes_every_spelling_of_a_size(size: str) -> None:
    """What the loader accepts for a size is not underlined."""
    assert faults(GOOD.replace("size: 46_7", f"size: {size}")) == []


def test_fields_are_described() -> None:
    """Editors show what a field means: the docstrings below the types' attributes."""
    schema = json_schema()
    assert "SPDX" in schema["properties"]["license"]["description"]
    assert "underscore" in schema["$defs"]["Weights"]["properties"]["size"]["description"]
