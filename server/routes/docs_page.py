"""`/docs`: the OpenAPI document as one plain page, without scripts and without other hosts."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c2024; background: #fff; }
h2 { margin: 2.5rem 0 .5rem; } summary { padding: .45rem .2rem; cursor: pointer; }
details { border-top: 1px solid #8884; } details details { margin-left: 1rem; }
code, pre { font: 14px/1.45 ui-monospace, monospace; } pre { overflow: auto; padding: .7rem;
  background: #8881; border-radius: 6px; } b { display: inline-block; min-width: 4.2rem; }
td, th { text-align: left; padding: .1rem 1rem .1rem 0; vertical-align: top; }
@media (prefers-color-scheme: dark) { body { color: #e4e6e8; background: #16181a; }
  a { color: #8ab4f8; } }
"""


def page(document: dict[str, Any]) -> str:
    """The page. Everything in it is escaped."""
    info = document["info"]
    rows = [
        (operation["tags"][0], method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    groups = "".join(
        f"<h2>{escape(tag['name'])}</h2>"
        + "".join(_operation(*row[1:]) for row in rows if row[0] == tag["name"])
        for tag in document["tags"]
    )
    shapes = "".join(
        f"<details id='{escape(name)}'><summary><code>{escape(name)}</code> "
        f"{escape(schema.get('description', ''))}</summary>{_code(schema)}</details>"
        for name, schema in document["components"]["schemas"].items()
    )
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(info['title'])}: REST</title><style>{_STYLE}</style>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        "<p>The same for machines: <a href='openapi.json'><code>/openapi.json</code></a>.</p>"
        f"{groups}<h2>shapes</h2>{shapes}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(one['name'])}</code><td>{escape(one['in'])}"
        f"<td><code>{escape(json.dumps(one['schema']))}</code>"
        f"<td>{escape(one.get('description', ''))}</tr>"
        for one in operation["parameters"]
    )
    table = f"<table>{parameters}</table>" if parameters else ""
    parts = []
    if "requestBody" in operation:
        parts.append(("takes", operation["requestBody"]["content"]))
    for status, answer in operation["responses"].items():
        if not status.endswith("XX"):
            parts.append((f"answers {status}", answer["content"]))
    shown = "".join(
        f"<p>{escape(word)} <code>{escape(media)}</code></p>{_code(content.get('schema'))}"
        for word, contents in parts
        for media, content in contents.items()
    )
    return (
        f"<details><summary><b>{escape(method.upper())}</b> <code>{escape(path)}</code> "
        f"{escape(operation['summary'])}</summary>{table}{shown}</details>"
    )


def _code(schema: dict[str, Any] | None) -> str:
    if schema is None:
        return ""
    return f"<pre>{escape(json.dumps(schema, indent=2, ensure_ascii=False))}</pre>"
