"""`paddock registrations` and `estimate`: the catalogue, without a gateway or a network."""

from __future__ import annotations

from typing import Any

import click

from paddock.cli.options import Output, Settings, offline
from paddock.cli.output import size, table


@click.command(short_help="List the models of the catalogue.")
@offline
def registrations(settings: Settings, output: Output) -> None:
    """List the models of the catalogue.

    \b
    Example:
      paddock registrations
    """
    from paddock.registry.catalog import Catalog

    catalog = Catalog.load(index=settings.index, custom=settings.specs)
    data, rows = list(catalog.raw()), []
    for spec in data:
        sizes = ", ".join(dict.fromkeys(weights["size"] for weights in spec["weights"]))
        formats = ", ".join(dict.fromkeys(weights["format"] for weights in spec["weights"]))
        rows.append((spec["name"], spec["type"], sizes, formats, ", ".join(spec["abilities"])))
    text = table(("MODEL", "TYPE", "BILLIONS", "FORMATS", "ABILITIES"), rows)
    problems = [str(problem) for problem in catalog.problems]
    for problem in problems:
        output.talk(f"left out: {problem}")
    output.result({"models": data, "problems": problems}, text)


@click.command(short_help="Reckon the memory that a model takes.")
@click.argument("name")
@click.option("-f", "--model-format", help="Only this format.")
@click.option("-s", "--size-in-billions", help="Only this size, such as 46_7 or 46.7.")
@click.option("-q", "--quantization", help="Only this quantization.")
@click.option(
    "-c", "--context-length", type=click.IntRange(1), multiple=True, help="Tokens; several times."
)
@offline
def estimate(
    name: str,
    model_format: str | None,
    size_in_billions: str | None,
    quantization: str | None,
    context_length: tuple[int, ...],
    settings: Settings,
    output: Output,
) -> None:
    """Reckon the memory that a model takes.

    Weights, key-value cache and overhead, by quantization and context, for one request at a time.
    Needs no network. Sizes are decimal: 1 GB is 10⁹ bytes.

    \b
    Example:
      paddock estimate mixtral-v0.1 --model-format ggufv2 --context-length 4096
    """
    from paddock.launcher.estimate import estimate_table
    from paddock.launcher.host import probe_host
    from paddock.registry.catalog import Catalog

    spec = Catalog.load(index=settings.index, custom=settings.specs).lookup(name)
    variants = spec.select(format=model_format, size=size_in_billions, quantization=quantization)
    host = probe_host(settings.home, spec.local_paths)
    rows = estimate_table(spec, variants, context_length, host)
    data = {
        "model": spec.name,
        "memory_total_bytes": host.memory_total_bytes,
        "memory_free_bytes": host.memory_free_bytes,
        "rows": rows,
    }
    head = ("FORMAT", "QUANTIZATION", "CONTEXT", "WEIGHTS", "CACHE", "OVERHEAD", "TOTAL", "HERE")
    shown = [_shown(row) for row in rows]
    here = (
        f"{host.name} has {size(host.memory_total_bytes)} of memory, "
        f"{size(host.memory_free_bytes)} of it free"
    )
    output.result(data, f"{table(head, shown, right=(2, 3, 4, 5, 6))}\n{here}")


def _shown(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["format"],
        row["quantization"],
        str(row["context_length"]),
        size(row["weights_bytes"]),
        size(row["cache_bytes"]),
        size(row["overhead_bytes"]),
        size(row["total_bytes"]),
        row["verdict"],
    )
