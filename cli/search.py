"""`paddock search`: the catalogue by words and filters, without a gateway or a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from paddock.cli.options import Output, Settings, offline
from paddock.cli.output import size, table

if TYPE_CHECKING:
    from paddock.launcher.planning.catalog_view import ModelRow
    from paddock.launcher.planning.servable import Free, Offer


@click.command(short_help="Find models by words and by what they can do.")
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("-a", "--ability", multiple=True, help="vision, tools, embed, …; several: all.")
@click.option("-t", "--model-type", multiple=True, help="LLM, embedding or rerank.")
@click.option("-f", "--model-format", multiple=True, help="Format: pytorch, ggufv2, …; any.")
@click.option("-en", "--model-engine", multiple=True, help="Engine that the spec lists; any.")
@click.option("-l", "--language", multiple=True, help="Language code, such as en; several: all.")
@click.option("-s", "--size-in-billions", help="Size, such as 7 or 0_5, or a range: 1..8 or ..8.")
@click.option("--fits", is_flag=True, help="Only what can be served here, in the free memory.")
@offline
def search(
    words: tuple[str, ...],
    ability: tuple[str, ...],
    model_type: tuple[str, ...],
    model_format: tuple[str, ...],
    model_engine: tuple[str, ...],
    language: tuple[str, ...],
    size_in_billions: str | None,
    fits: bool,
    settings: Settings,
    output: Output,
) -> None:
    """Find models by words and by what they can do.

    All words must stand in a model's name, its description, its abilities, its architecture or an
    id on a hub; the best match comes first. Without words, all that fit the options are listed.
    HERE is the smallest variant that an engine of this machine can serve, and what its weights
    take on the disk and in memory; with --fits, of those for which there is room now the one that a
    launch would choose: in a GPU's memory, where an engine computes on one. Your own models are
    found too.

    \b
    Example:
      paddock search qwen coder --fits
      paddock search --ability vision --size-in-billions ..8
    """
    from paddock.launcher.planning.catalog_view import Zoo
    from paddock.launcher.planning.servable import Free
    from paddock.registry.catalog import Catalog
    from paddock.registry.search import Filters, near_names

    catalog = Catalog.load(index=settings.index, custom=settings.specs)
    zoo = Zoo(catalog, settings)
    filters = Filters.checked(
        zoo.specs,
        size_in_billions,
        abilities=ability,
        types=model_type,
        formats=model_format,
        engines=model_engine,
        languages=language,
    )
    free = Free.now() if fits else Free(0)
    hits = zoo.find(words, filters, free)
    models = [model for model in hits if model.fits is not None] if fits else hits
    for problem in catalog.problems:
        output.talk(f"left out: {problem}")
    near = () if hits else near_names(zoo.specs, words)
    data: dict[str, Any] = {"models": [model.to_json() for model in models], "near": near}
    if fits:
        data["memory_free_bytes"] = free.host
        data["gpu_free_bytes"] = free.gpu
    else:  # nobody has looked
        for model in data["models"]:
            del model["fits"]
    if not models:
        unfit = hits or (zoo.find(words, Filters(), free) if words else [])
        output.result(data, _nothing(words, len(unfit), near, free if fits and hits else None))
        return
    head = ("MODEL", "TYPE", "BILLIONS", "FORMATS", "ABILITIES", "HERE")
    output.result(
        data, table(head, [_row(model, model.fits if fits else model.here) for model in models])
    )
    if fits:
        output.talk(_free(free))


def _free(free: Free) -> str:
    gpu = f", and {size(free.gpu)} of the most free GPU's" if free.gpu else ""
    return f"{size(free.host)} of memory are free{gpu}"


def _row(model: ModelRow, offer: Offer | None) -> tuple[str, ...]:
    spec = model.hit.spec
    serving = "no engine here serves it"
    if offer is not None:
        several = len(model.distinct("size")) > 1
        parts = [_billions(offer.size)] * several + [offer.format, offer.quantization]
        serving = f"{' '.join(parts)}, {size(offer.size_bytes)}"
    return (
        spec["name"],
        spec["type"],
        ", ".join(map(_billions, model.distinct("size"))),
        ", ".join(model.distinct("format")),
        ", ".join(spec["abilities"]),
        serving,
    )


def _billions(text: str) -> str:
    return text.replace("_", ".")


def _nothing(words: Sequence[str], unfit: int, near: Sequence[str], free: Free | None) -> str:
    """The message without a match; `unfit` models failed the options or, with `free`, the room."""
    query = f"'{' '.join(words)}'" if words else "the options"
    if free is not None:
        return (
            f"of {unfit} that match {query} none can be served here: {_free(free)}; without --fits "
            "they are listed"
        )
    if unfit:
        return f"of {unfit} that match {query} none has what the options ask for"
    hint = f"; did you mean {' or '.join(near)}?" if near else "; see: paddock registrations"
    return f"no model matches {query}{hint}"
