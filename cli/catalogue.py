"""`paddock registrations`, `show` and `estimate`: what models there are, without a gateway."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from paddock.cli.options import Output, Settings, connected, offline
from paddock.cli.output import say_reading, size, table
from paddock.registry.errors import BadValue
from paddock.registry.reference import absolute, is_reference

if TYPE_CHECKING:
    from paddock.registry.catalog import Catalog
    from paddock.registry.spec import ModelSpec


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


@click.command(short_help="Print a model's spec, or the one derived from a repository.")
@click.argument("name")
@click.option("--offline", "asks_nobody", is_flag=True, help="Ask no hub.")
@click.option("--prompt", "as_prompt", is_flag=True, help="Print a chat as the model gets it.")
@connected
def show(name: str, asks_nobody: bool, as_prompt: bool, settings: Settings, output: Output) -> None:
    """Print a model's spec, or the one derived from a repository.

    NAME is a model's, or a reference, such as hf:owner/name or ms:owner/name, also with @revision,
    the address of such a repository, or a path. Of a repository are read its list of files, its
    configuration and the header of a GGUF file, and no weights. What it does not tell is noted.
    The YAML can be changed and registered.

    With --prompt, the example is in the format that the spec names, or in its own template. It
    counts where the weights bring no chat template.

    \b
    Example:
      paddock show mixtral-instruct-v0.1 --prompt
      paddock show hf:TheBloke/Mixtral-8x7B-v0.1-GGUF > mixtral.yaml
      paddock register --file mixtral.yaml
    """
    from paddock.cli import gateway

    reference = absolute(name)
    say_reading(reference, output)
    client = gateway.find(settings)
    if client is not None:
        description = client.show(reference, offline=asks_nobody)
    else:
        description = _show_locally(settings, reference, asks_nobody)
    if as_prompt:
        _show_prompt(name, description["spec"], output)
        return
    for note in description["notes"]:
        output.talk(f"note: {note}")
    for format, risk in description["consent"].items():
        output.talk(f"{format} needs --trust {description['commit']}: {risk}")
    output.result(description, description["yaml"].rstrip("\n"))


def _show_prompt(name: str, spec: dict[str, Any], output: Output) -> None:
    from paddock.registry.prompts import EXAMPLE, find_prompt, render

    stop = list(spec.get("stop") or [])
    if spec.get("chat_template"):
        prompt, source = render(spec["chat_template"], EXAMPLE), ["the spec's own template"]
    elif spec.get("chat_format"):
        found = find_prompt(spec["chat_format"])
        prompt = render(found.template, EXAMPLE, found.bos, found.eos)
        source = list(found.sources)
        stop += [text for text in found.stop if text not in stop]
    else:
        reason = "its spec names no prompt format; chats need a chat template in its weights"
        raise BadValue("model", name, f"{reason}, or --chat-template at the launch")
    output.talk(f"format: {spec.get('chat_format') or 'a template'}")
    for one in source:
        output.talk(f"source: {one}")
    output.talk(f"ends at: {', '.join(stop) or 'the end of text'}")
    result = {"format": spec.get("chat_format"), "prompt": prompt, "stop": stop, "sources": source}
    output.result(result, prompt)


def _show_locally(settings: Settings, name: str, asks_nobody: bool) -> dict[str, Any]:
    import asyncio

    from paddock.launcher.fleet.references import References
    from paddock.registry.catalog import Catalog

    catalog = Catalog.load(index=settings.index, custom=settings.specs)
    return asyncio.run(References(settings).show(name, catalog, offline=asks_nobody))


@click.command(short_help="Reckon the memory that a model takes.")
@click.argument("name")
@click.option("-f", "--model-format", help="Only this format.")
@click.option("-s", "--size-in-billions", help="Only this size, such as 46_7 or 46.7.")
@click.option("-q", "--quantization", help="Only this quantization.")
@click.option(
    "-c", "--context-length", type=click.IntRange(1), multiple=True, help="Tokens; several times."
)
@click.option("--assume-gpu", metavar="SIZE", help="For one GPU of this size, such as 24GB.")
@click.option(
    "--exact",
    is_flag=True,
    help="Ask the engine itself, where it can say: a second for each row. Reads headers on a hub.",
)
@offline
def estimate(
    name: str,
    model_format: str | None,
    size_in_billions: str | None,
    quantization: str | None,
    context_length: tuple[int, ...],
    assume_gpu: str | None,
    exact: bool,
    settings: Settings,
    output: Output,
) -> None:
    """Reckon the memory that a model takes.

    Weights, key-value cache and overhead, by quantization and context, for one request at a time.
    Needs no network, but for a reference such as hf:owner/name, and for --exact. BY says where the
    figures are from: a formula, the engine itself, or what was measured here. Sizes are decimal: 1
    GB is 10⁹ bytes.

    \b
    Example:
      paddock estimate mixtral-v0.1 --model-format ggufv2 --context-length 4096
      paddock estimate mixtral-v0.1 -q Q4_K_M -c 32768 --exact
    """
    from paddock.launcher.hosts.host import probe_host
    from paddock.launcher.planning.assumed import with_gpu
    from paddock.launcher.planning.estimate import estimate_table
    from paddock.launcher.truth.store import TruthStore
    from paddock.registry.catalog import Catalog
    from paddock.registry.launch_fields import fields_by_key

    catalog = Catalog.load(index=settings.index, custom=settings.specs)
    spec = _derive_locally(settings, name, catalog) if is_reference(name) else catalog.lookup(name)
    variants = spec.select(format=model_format, size=size_in_billions, quantization=quantization)
    evidence = TruthStore(settings.home).evidence()
    host = replace(probe_host(settings.home, spec.local_paths), evidence=evidence)
    if assume_gpu is not None:
        host = with_gpu(host, fields_by_key()["assume_gpu"].check(assume_gpu))
    rows = estimate_table(spec, variants, context_length, host)
    if exact:
        if host.gpus:
            output.talk("of what computes on a GPU no engine can be asked: it stays a formula's")
        for failure in _ask_engines(settings, absolute(name), rows, output):
            output.talk(f"no exact figure: {failure}")
        host = replace(host, evidence=TruthStore(settings.home).evidence())
        rows = estimate_table(spec, variants, context_length, host)
    data = {
        "model": spec.name,
        "memory_total_bytes": host.memory_total_bytes,
        "memory_free_bytes": host.memory_free_bytes,
        "rows": rows,
    }
    head = (
        "FORMAT",
        "QUANTIZATION",
        "CONTEXT",
        "WEIGHTS",
        "CACHE",
        "OVERHEAD",
        "TOTAL",
        "BY",
        "HERE",
    )
    cells = [_estimate_cells(row) for row in rows]
    rooms = [("memory", host.memory_total_bytes, host.memory_free_bytes)]
    rooms += [(f"GPU {g.index} ({g.name})", g.total_bytes, g.free_bytes) for g in host.gpus]
    free_lines = "\n".join(
        f"{host.name} has {size(total)} of {resource}, {size(free)} of it free"
        if resource == "memory"
        else f"{resource} has {size(total)}, {size(free)} of it free"
        for resource, total, free in rooms
    )
    for one in dict.fromkeys((row["engine"], row["install"]) for row in rows if row["install"]):
        output.talk(f"{one[0]} is not installed; first: {one[1]}")
    output.result(data, f"{table(head, cells, right=(2, 3, 4, 5, 6))}\n{free_lines}")


def _ask_engines(
    settings: Settings, name: str, rows: list[dict[str, Any]], output: Output
) -> list[str]:
    import asyncio

    from paddock.launcher.fleet.planner import Planner

    return asyncio.run(Planner.alone(settings).ask_exactly(name, rows, say=output.talk))


def _derive_locally(settings: Settings, name: str, catalog: Catalog) -> ModelSpec:
    import asyncio

    from paddock.launcher.fleet.references import References

    return asyncio.run(References(settings).derive(absolute(name), catalog)).spec


def _estimate_cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["format"],
        row["quantization"],
        str(row["context_length"]),
        size(row["weights_bytes"]),
        size(row["cache_bytes"]),
        size(row["overhead_bytes"]),
        size(row["total_bytes"]),
        row["source"],
        row["verdict"],
    )
