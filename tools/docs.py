"""Writes the generated documents, or checks that the committed ones are current.

python tools/docs.py            # write
python tools/docs.py --check    # compare, and check that relative links lead somewhere
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from paddock.cli.main import COMMANDS, cli
from paddock.engines import engines
from paddock.engines.base import Engine
from paddock.launcher.cluster.cluster import Cluster
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.fleet.store import SqliteStore
from paddock.registry.catalog import Catalog
from paddock.registry.custom import Library
from paddock.registry.launch_fields import launch_fields
from paddock.registry.reasoning_formats import REASONING_FORMATS
from paddock.registry.settings import SETTINGS, read_settings
from paddock.registry.spec import ModelSpec
from paddock.registry.tool_formats import TOOL_FORMATS
from paddock.server.dialects.fields import field_support
from paddock.server.http.app import create_app
from paddock.server.routes.openapi import document

ROOT = Path(__file__).parent.parent
GENERATED = "<!-- written by `make docs`; do not edit -->"


def command_reference() -> str:
    """`docs/cli.md`: the `--help` page of every command."""
    parts = [
        "# Commands",
        GENERATED,
        "Results go to stdout, everything else to stderr. Exit codes: 0 done; 2 refused, nothing "
        "was changed; 3 no such model, or it cannot answer now; 4 no engine can serve it, or a "
        "launch or a hub failed; 5 no gateway; 6 a gateway runs already; 130 called off; 1 "
        "anything else.",
    ]
    wide: dict[str, Any] = {"terminal_width": 100, "max_content_width": 100}
    top = click.Context(cli, info_name="paddock", **wide, **cli.context_settings)
    parts.append(f"```\n{cli.get_help(top).rstrip()}\n```")
    for name in COMMANDS:
        command = cli.get_command(top, name)
        assert command is not None
        with click.Context(
            command, info_name=name, parent=top, **wide, **command.context_settings
        ) as context:
            parts.append(f"## paddock {name}\n\n```\n{command.get_help(context).rstrip()}\n```")
            for inner, sub in getattr(command, "commands", {}).items():
                with click.Context(sub, info_name=inner, parent=context, **wide) as below:
                    text = sub.get_help(below).rstrip()
                    parts.append(f"## paddock {name} {inner}\n\n```\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def settings_table() -> str:
    """`docs/settings.md`: every setting."""
    rows = [
        "| setting | variable | default | meaning |",
        "|---|---|---|---|",
        *(
            f"| `{s.name}` | {', '.join(f'`{v}`' for v in s.variables)} "
            f"| {f'`{s.default}`' if s.default else ''} | {s.help} |"
            for s in SETTINGS
        ),
    ]
    intro = (
        "A flag beats a variable, a variable beats `config.yaml` in the home folder, that beats "
        "the default. The hubs' own clients read their own variables (`HF_HOME`, `HF_TOKEN`, "
        "`HF_ENDPOINT`, `MODELSCOPE_CACHE`, …)."
    )
    return "\n\n".join(["# Settings", GENERATED, intro, "\n".join(rows)]) + "\n"


def _parameters(spec: ModelSpec) -> str:
    """What is stated of the parameters, by size where there are several."""
    parts = []
    for size in spec.sizes:
        shape = spec.shape(size)
        if not shape.reckoned:
            at = f" at {size}" if len(spec.sizes) > 1 else ""
            sparse = shape.active_parameters < shape.parameters
            active = f", {shape.active_parameters:,} active for a token" if sparse else ""
            parts.append(f" Parameters{at}: {shape.parameters:,}{active}.")
    return "".join(parts)


def model_table() -> str:
    """`docs/models.md`: the built-in catalogue."""
    parts = ["# Models", GENERATED]
    for spec in Catalog.load():
        rows = [
            "| format | billions | quantizations | engines | sources |",
            "|---|---|---|---|---|",
        ]
        for weights in spec.weights:
            sources = "; ".join(f"{s.hub}: {s.id}" for s in weights.sources)
            rows.append(
                f"| {weights.format} | {weights.size} | {', '.join(weights.quantizations)} "
                f"| {', '.join(weights.engines)} | {sources} |"
            )
        about = (
            f"{spec.description} Abilities: {', '.join(spec.abilities)}. Context: "
            f"{spec.context_length}. Licence: {spec.license}."
            f"{_parameters(spec)}"
        )
        parts += [f"## {spec.name}", about, "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


FIELDS = (
    *("max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "seed"),
    *("stop", "logit_bias", "frequency_penalty", "presence_penalty", "repetition_penalty"),
    *("logprobs", "ignore_eos", "n", "echo", "stream", "stream_options", "response_format"),
    *("tools", "tool_choice", "suffix"),
)
BEGIN, END = "<!-- fields: written by `make docs` -->", "<!-- end of fields -->"


def rest_shapes() -> str:
    """`web/openapi.json`: the REST routes and shapes, of which the dashboard makes its types."""
    with tempfile.TemporaryDirectory() as home:
        settings = read_settings(environ={"PADDOCK_HOME": home})
        library = Library(settings.specs, settings.index)
        store = SqliteStore(Path(home) / "paddock.db")
        fleet = Fleet(settings, library.catalog, store, Cluster(settings))
        routes = create_app(fleet, settings, library).routes
        asyncio.run(store.close())
    return json.dumps(document(routes), indent=1, ensure_ascii=False) + "\n"


def dashboard_fields() -> str:
    """`web/src/api/launchFields.ts`: the launch fields that the dashboard's addresses may hold."""
    rows = []
    for one in launch_fields("launch"):
        if one.kind in {"adapters", "entry"}:  # objects, which no address holds
            continue
        types = {"count": "number", "solved": "number", "number": "number", "flag": "flag"}
        type_ = types.get(one.kind, "text")
        bounds = {"min": one.minimum, "max": one.maximum}
        limits = "".join(f", {k}: {n:.0f}" for k, n in bounds.items() if n is not None)
        for key in one.keys:
            flags = ", ".join(f'"{flag}"' for flag in one.flags_of(key))
            rows.append(f'  {{ key: "{key}", type: "{type_}", flags: [{flags}]{limits} }},')
    return "\n".join(
        [
            "// Written by `make docs` from registry/launch_fields.py; do not edit.",
            "",
            "/** A field of a launch: its key in REST's body, and its flags in a command. */",
            "export interface LaunchField {",
            "  key: string;",
            '  type: "text" | "number" | "flag";',
            "  flags: readonly string[];",
            "  min?: number;",
            "  max?: number;",
            "}",
            "",
            "export const LAUNCH_FIELDS: readonly LaunchField[] = [",
            *rows,
            "];",
            "",
        ]
    )


def engine_fields() -> str:
    """`docs/engines.md`, with the table of fields between its marks."""
    served = [engine for engine in engines() if engine.formats and "LLM" in engine.types]
    lines = ["| field | " + " | ".join(engine.name for engine in served) + " |"]
    lines.append("|---" * (len(served) + 1) + "|")
    for name in FIELDS:
        cells = [_standing(engine, name) for engine in served]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    text = (ROOT / "docs/engines.md").read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.partition(END)[2]}"


def format_tables() -> str:
    """`docs/tools.md`, with the tables of formats between their marks."""
    text = (ROOT / "docs/tools.md").read_text("utf-8")
    served = [one for one in engines() if one.formats and "LLM" in one.types]
    for kind, names in (
        ("tool", [one.name for one in TOOL_FORMATS]),
        ("reasoning", [one.name for one in REASONING_FORMATS]),
    ):
        lines = ["| format | " + " | ".join(engine.name for engine in served) + " |"]
        lines.append("|---" * (len(served) + 1) + "|")
        for name in names:
            cells = [_parser(getattr(engine, f"{kind}_parsers"), name) for engine in served]
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
        begin, end = f"<!-- {kind}: written by `make docs` -->", f"<!-- end of {kind} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{rest.partition(end)[2]}"
    return text


def _parser(parsers: Mapping[str, str] | None, name: str) -> str:
    """What an engine calls its parser of a format."""
    if parsers is None:
        return "by itself"
    return f"`{parsers[name]}`" if name in parsers else "–"


def _standing(engine: Engine, name: str) -> str:
    """In completions and in chats, said once where it is the same."""
    ways = [field_support(engine.fields, name, chat) for chat in (False, True)]
    if ways[0] == ways[1]:
        return ways[0]
    if "refused" in ways:
        where = "chats" if ways[0] == "refused" else "completions"
        return f"{next(way for way in ways if way != 'refused')} in {where}"
    return f"{ways[0]}; in chats {ways[1]}"


DOCUMENTS = {
    "docs/engines.md": engine_fields,
    "docs/tools.md": format_tables,
    "docs/cli.md": command_reference,
    "docs/settings.md": settings_table,
    "docs/models.md": model_table,
    "web/openapi.json": rest_shapes,
    "web/src/api/launchFields.ts": dashboard_fields,
}


def broken_links() -> list[str]:
    """Relative links in committed Markdown whose file is not there."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    broken = []
    for name in listed.stdout.split():
        path = ROOT / name
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text("utf-8")):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{name}: {target} is not there")
    return broken


def main() -> int:
    """Writes or checks; the exit code says whether all is current."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare and change nothing")
    checking = parser.parse_args().check
    schema = [sys.executable, str(ROOT / "tools/schema.py"), *(["--check"] if checking else [])]
    wrong = [] if subprocess.run(schema, check=False).returncode == 0 else ["specs/schema.json"]
    for name, make in DOCUMENTS.items():
        path, text = ROOT / name, make()
        if not checking:
            path.write_text(text, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != text:
            wrong.append(f"{name} is not current; run: make docs")
    if checking:
        wrong += broken_links()
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
