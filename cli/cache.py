"""`paddock cache`: the contents of the hubs' caches on the gateway's machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from paddock.cli import gateway
from paddock.cli.options import Output, Settings, connected
from paddock.cli.output import size, table
from paddock.client import Client
from paddock.registry.errors import BadValue, PaddockError

EMPTY = "nothing is cached; try: paddock pull MODEL"


@click.group(short_help="List, check and remove downloaded weights.")
def cache() -> None:
    """List, check and remove downloaded weights.

    They lie in the caches of the hubs' own tools (HF_HOME, MODELSCOPE_CACHE), and what those tools
    have brought is shown too. Each command takes --json.

    \b
    Example:
      paddock cache list
    """


@cache.command(name="list", short_help="List cached variants, and what else is there.")
@click.argument("name", default="")
@connected
def list_cached(name: str, settings: Settings, output: Output) -> None:
    """List cached variants, and what else is there.

    CHECKED says that every byte was read and is what the hub lists. Repositories of which no model
    here is made are listed by their id. A hub whose package does not load is named below the list.

    \b
    Example:
      paddock cache list mixtral-v0.1
    """
    client = gateway.ensure(settings, output)
    answer = client.cache(name)
    variants, unusable = answer["list"], answer["unusable_hubs"]
    known = {(row["model_hub"], row["source"]) for row in variants}
    others = [
        row
        for row in ([] if name else client.cached_repositories())
        if (row["hub"], row["id"]) not in known
    ]
    head = ("MODEL", "FORMAT", "QUANTIZATION", "HUB", "SIZE", "CHECKED", "PATH")
    rows = [
        (
            row["model_name"],
            row["model_format"],
            row["quantization"],
            row["model_hub"],
            size(row["size_bytes"]),
            "yes" if row["checked"] else "no",
            row["path"],
        )
        for row in variants
    ]
    rows += [
        (row["id"], "", "", row["hub"], size(row["size_bytes"]), "", row["path"]) for row in others
    ]
    text = table(head, rows, right=(4,)) if rows else EMPTY
    output.result({"list": variants, "repositories": others, "unusable_hubs": unusable}, text)
    for one in unusable:
        output.talk(f"not listed: {one['reason']}")


@cache.command(short_help="Read cached weights anew, and say which are whole.")
@click.argument("name", default="")
@click.option("-f", "--model-format", help="Only this format.")
@click.option("-q", "--quantization", help="Only this quantization.")
@connected
def verify(
    name: str,
    model_format: str | None,
    quantization: str | None,
    settings: Settings,
    output: Output,
) -> None:
    """Read cached weights anew, and say which are whole.

    Without a name, all. The exit code is 1 if a file is not what its hub lists.

    \b
    Example:
      paddock cache verify mixtral-v0.1 --quantization Q4_K_M
    """
    verified(settings, output, [name], model_format, quantization)


def verified(
    settings: Settings,
    output: Output,
    names: Sequence[str],
    model_format: str | None = None,
    quantization: str | None = None,
) -> None:
    """Reads the cached files of the models, or all, and shows which are whole."""
    client = gateway.ensure(settings, output)
    files: list[dict[str, Any]] = []
    for name in names or [""]:
        for version in _versions(client, name, model_format, quantization):
            output.talk(f"reading {version}")
            files += client.verify_cached(version)
    words = {True: "whole", False: "BROKEN", None: "not known"}
    rows = [(words[file["whole"]], size(file["size_bytes"]), file["path"]) for file in files]
    text = table(("FILE IS", "SIZE", "PATH"), rows, right=(1,)) if rows else EMPTY
    output.result({"files": files}, text)
    if any(file["whole"] is False for file in files):
        output.talk("what is broken is fetched anew by the next launch or: paddock pull MODEL")
        sys.exit(1)


@cache.command(short_help="Delete one variant's weights.")
@click.argument("name")
@click.option("-f", "--model-format", help="Format of the variant.")
@click.option("-q", "--quantization", help="Quantization of the variant.")
@connected
def remove(
    name: str,
    model_format: str | None,
    quantization: str | None,
    settings: Settings,
    output: Output,
) -> None:
    """Delete one variant's weights.

    What else the repository holds stays, and a launched model's weights are refused.

    \b
    Example:
      paddock cache remove mixtral-v0.1 --quantization Q4_K_M
    """
    client = gateway.ensure(settings, output)
    versions = _versions(client, name, model_format, quantization)
    if len(versions) != 1:
        reason = f"is cached as {', '.join(versions)}; name one" if versions else "is not cached"
        raise BadValue("model", name, f"{reason}; see: paddock cache list")
    (version,) = versions
    if not client.remove_cached(version):
        raise NotRemoved(version)
    output.result({"model_version": version, "removed": True}, f"{version} is removed")


@cache.command(short_help="Say how much room the caches take.")
@connected
def du(settings: Settings, output: Output) -> None:
    """Say how much room the caches take.

    \b
    Example:
      paddock cache du
    """
    repositories = gateway.ensure(settings, output).cached_repositories()
    total = sum(row["size_bytes"] + row["part_bytes"] for row in repositories)
    rows = [
        (row["hub"], row["id"], size(row["size_bytes"]), size(row["part_bytes"]))
        for row in repositories
    ]
    rows.append(("", "total", size(total), ""))
    head = ("HUB", "REPOSITORY", "SIZE", "UNFINISHED")
    output.result({"list": repositories, "total_bytes": total}, table(head, rows, right=(2, 3)))


class NotRemoved(PaddockError):
    """Files that the system does not let us delete."""

    def __str__(self) -> str:
        return f"{self.args[0]} could not be deleted whole; see: paddock cache list"


def _versions(
    client: Client, name: str, model_format: str | None, quantization: str | None
) -> list[str]:
    """The cached variants that fit what was typed."""
    return [
        version
        for row in client.cached("" if "--" in name else name)
        for version in [str(row["model_version"])]
        if ("--" not in name or version == name)
        and model_format in {None, row["model_format"]}
        and quantization in {None, row["quantization"]}
    ]
