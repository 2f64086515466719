"""Writes `registry/derive/class_defaults.json`: what classes of Transformers fill in.

python tools/class_defaults.py PYTHON    # of an environment with Transformers

Configurations leave out what their class has as its default. The table has the numbers and flags
that specs are derived from, by `model_type`; `text_config` names the type of the language model in
a class of several. A test holds the table against the library.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent.parent / "registry" / "derive" / "class_defaults.json"
_ASK = """
import inspect, json, sys
from transformers.models.auto import configuration_auto as configurations, modeling_auto as models

keys = set(json.loads(sys.argv[1]))
mappings = ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "SEQUENCE_CLASSIFICATION", "MULTIMODAL_LM")
names = {n for m in mappings for n in getattr(models, f"MODEL_FOR_{m}_MAPPING_NAMES", {})}
names |= set(models.MODEL_MAPPING_NAMES)
table = {}

def look(name):
    kind = configurations.CONFIG_MAPPING[name]
    found = {}
    for key, parameter in inspect.signature(kind.__init__).parameters.items():
        if key in keys and type(parameter.default) in (int, bool):
            found[key] = parameter.default
    parts = getattr(kind, "sub_configs", None) or {}
    for part in ("text_config", "thinker_config", "llm_config", "language_config"):
        below = getattr(parts.get(part), "model_type", "")
        if below:
            found["text_config"] = below
            break
    table[name] = dict(sorted(found.items()))
    return found.get("text_config")

while names:
    name = names.pop()
    if name not in table and name in configurations.CONFIG_MAPPING_NAMES:
        below = look(name)
        if below:
            names.add(below)
print(json.dumps({name: table[name] for name in sorted(table) if table[name]}))
"""


def ask(python: Path) -> dict[str, dict[str, Any]]:
    """The table, as the Transformers of this Python has it."""
    from paddock.registry.derive.class_defaults import KEYS

    command = [str(python), "-c", _ASK, json.dumps(sorted(KEYS))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def render(table: dict[str, dict[str, Any]]) -> str:
    """The file: a line for each type."""
    lines = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in table.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    """Writes the table."""
    TABLE.write_text(render(ask(Path(sys.argv[1]))), "utf-8")


if __name__ == "__main__":
    main()
