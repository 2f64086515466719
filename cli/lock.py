"""`paddock lock`, `verify` and `outdated`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paddock.cli import gateway
from paddock.cli.launch_options import launch_body, with_launch_options
from paddock.cli.options import LOCK_FILE, Output, Settings, connected
from paddock.cli.output import size, table
from paddock.client import Client
from paddock.registry.errors import BadValue, Cancelled, LaunchFailed

if TYPE_CHECKING:
    from paddock.registry.lockfile import Lockfile

POLL_SECONDS = 0.1
CHANGES = 8
"""The most changed files of a model that the text lists; JSON has all."""

file_option = click.option(
    "--file", default=LOCK_FILE, show_default=True, metavar="PATH", help="The lockfile."
)


@click.command(short_help="Write down which bytes and engine models are.")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@with_launch_options("lock", without=("model_name",))
@click.option("--newest", is_flag=True, help="Ask the hub, whatever is cached.")
@file_option
@connected
def lock(
    models: tuple[str, ...],
    newest: bool,
    file: str,
    settings: Settings,
    output: Output,
    **values: Any,
) -> None:
    """Write down which bytes and engine models are.

    For each model the file gets its hub, id and commit, every file with its size and SHA-256, and
    the engine with its version. Without names, the models that are launched are locked as they run.
    What is left out is chosen as a launch would. A model that is in the file already is replaced,
    the others stay. Commit the file: launch --locked, pull --locked and verify --locked go by it.

    What is cached is locked as it is; with --newest, what the hub has now.

    \b
    Example:
      paddock lock mixtral-v0.1 --model-format ggufv2 --quantization Q4_K_M
      paddock lock
    """
    from paddock.registry.lockfile import Lockfile, parse_entry, read_lock, write_lock

    path = Path(file)
    before = read_lock(path) if path.exists() else Lockfile()
    options = launch_body(values)
    chosen = [key for key in options if key != "offline"]
    if len(models) != 1 and chosen:
        name = chosen[0]
        raise BadValue(name.replace("_", "-"), options[name], "goes with one model that is named")
    client = gateway.ensure(settings, output)
    bodies = [launch_body({"model_name": name, **values}) for name in models]
    entries = []
    for body in bodies or _launched(client):
        subject = str(body.get("model_name") or body["launched"])
        (row,) = _done(client, client.lock(**body, newest=newest), subject, output)
        entries.append(parse_entry(row))
    after = before.merged(entries)
    _refuse_two(entries, after)
    write_lock(path, after)
    lines = [
        f"{entry.label}: {len(entry.files)} {'file' if len(entry.files) == 1 else 'files'}, "
        f"{size(entry.size_bytes)}, {entry.id}"
        + (f" at {entry.commit[:12]}" if entry.commit else "")
        + f", {entry.engine} ({entry.engine_version})"
        for entry in entries
    ]
    output.talk(f"written: {path}; try: paddock launch {entries[0].model} --locked")
    data = {"file": str(path), "models": [entry.model_dump(mode="json") for entry in entries]}
    output.result(data, "\n".join(lines))


def _launched(client: Client) -> list[dict[str, Any]]:
    """The launched models that may be locked."""
    running = [model for model in client.instances() if model["state"] != "failed"]
    bodies = [
        {"launched": model["model_uid"]}
        for model in running
        if model["plan"]["weights"]["hub"] != "none"
    ]
    if not bodies:
        raise BadValue("model", None, "is needed, since none is launched: paddock lock MODEL")
    return bodies


def _refuse_two(entries: Sequence[Any], after: Lockfile) -> None:
    """Refuses two running variants of one model, since a lock has only one."""
    for entry in entries:
        locked = after.entry(entry.model)
        if locked != entry:
            other = entry if locked.label != entry.label else locked
            raise BadValue(
                "model",
                entry.model,
                f"runs as {other.label} and as {locked.label}; name one: paddock lock "
                f"{entry.model} --model-format {entry.format} --quantization {entry.quantization}",
            )


@click.command(short_help="Read weights anew, and say which are whole or locked.")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--locked", is_flag=True, help="Compare with the lockfile.")
@file_option
@connected
@click.pass_context
def verify(
    ctx: click.Context,
    models: tuple[str, ...],
    locked: bool,
    file: str,
    settings: Settings,
    output: Output,
) -> None:
    """Read weights anew, and say which are whole or locked.

    With --locked, every file of the lockfile, or of the models named, is read on the gateway's
    machine. The exit code is 1 if one is missing or has other bytes. Without --locked this is
    `paddock cache verify`.

    \b
    Example:
      paddock verify --locked
      paddock verify mixtral-v0.1
    """
    if not locked:
        from paddock.cli.cache import verified

        verified(settings, output, models)
        return
    from paddock.registry.lockfile import read_lock

    lockfile = read_lock(Path(file))
    entries = [lockfile.entry(name) for name in models] or list(lockfile.models)
    client = gateway.ensure(settings, output)
    work = client.verify_lock([entry.model_dump(mode="json") for entry in entries])
    rows = _done(client, work, file, output)
    words = {"as_locked": "as locked", "differs": "DIFFERS", "missing": "MISSING"}
    cells = [
        (words[row["state"]], row["model"], size(row["size_bytes"]), row["name"]) for row in rows
    ]
    text = table(("FILE IS", "MODEL", "SIZE", "NAME"), cells, right=(2,))
    output.result({"files": rows}, text if rows else f"{file} locks no model")
    wrong = [row["model"] for row in rows if row["state"] != "as_locked"]
    if wrong:
        output.talk(f"what is not as locked is fetched by: paddock pull {wrong[0]} --locked")
        ctx.exit(1)


@click.command(short_help="Say what hubs and engines have that is newer.")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if something is outdated.")
@file_option
@connected
@click.pass_context
def outdated(
    ctx: click.Context,
    models: tuple[str, ...],
    exit_code: bool,
    file: str,
    settings: Settings,
    output: Output,
) -> None:
    """Say what hubs and engines have that is newer.

    For each model of the lockfile, or those named: the locked commit and the newest of its branch,
    which of the model's files were added, removed or changed, and the engine's version that is
    installed. Without a lockfile, the models that are launched or cached are looked at. A hub that
    does not answer is told in the model's line, and the exit code is 0 unless --exit-code is given.

    \b
    Example:
      paddock outdated
      paddock outdated mixtral-v0.1 --exit-code
    """
    from paddock.registry.lockfile import read_lock

    path = Path(file)
    client = gateway.ensure(settings, output)
    if path.exists() or models or file != LOCK_FILE:
        lockfile = read_lock(path)
        entries = [lockfile.entry(name) for name in models] or list(lockfile.models)
        work = client.outdated([entry.model_dump(mode="json") for entry in entries])
    else:
        output.talk(f"{file} is not there: looking at what is launched and cached")
        work = client.outdated()
    rows = _done(client, work, file, output)
    output.result({"models": rows}, _outdated_text(rows) if rows else "there is nothing to look at")
    if exit_code and any(row["state"] == "outdated" or _other_engine(row) for row in rows):
        ctx.exit(1)


def _outdated_text(rows: Sequence[dict[str, Any]]) -> str:
    head = ("MODEL", "STATE", "LOCKED", "NEWEST", "ENGINE", "SOURCE")
    cells, below = [], []
    for row in rows:
        commits = [(row[key] or "")[:12] or "-" for key in ("commit", "newest_commit")]
        source = f"{row['hub']}: {row['id']}"
        cells.append((row["model"], row["state"], *commits, _engine(row), source))
        below += _changes(row)
    return "\n".join([table(head, cells), *below])


def _engine(row: dict[str, Any]) -> str:
    if row["engine"] is None:
        return "-"
    if not _other_engine(row):
        return "as locked"
    return f"{row['locked_engine_version']}, here {row['engine_version'] or 'none'}"


def _other_engine(row: dict[str, Any]) -> bool:
    return bool(row["locked_engine_version"] != row["engine_version"])


def _changes(row: dict[str, Any]) -> list[str]:
    lines = [f"  + {change['name']}, {size(change['size_bytes'])}" for change in row["added"]]
    lines += [f"  - {change['name']}, {size(change['size_bytes'])}" for change in row["removed"]]
    lines += [
        f"  ~ {change['name']}, {size(change['was_bytes'])} → {size(change['size_bytes'])}"
        for change in row["changed"]
    ]
    if len(lines) > CHANGES:
        lines[CHANGES:] = [f"  and {len(lines) - CHANGES} more"]
    if row["error"] is not None:
        lines.append(f"  {row['error']['cause']}: {row['error']['reason']}")
    return [f"{row['model']}:", *lines] if lines else []


def _done(
    client: Client, work: dict[str, Any], subject: str, output: Output
) -> list[dict[str, Any]]:
    """Waits for work on locks, shows its progress, and returns its rows.

    Raises:
        LaunchFailed: with the diagnosis.
        Cancelled: by Ctrl-C, here or elsewhere.
    """
    try:
        progress = _until_done(lambda: client.show_lock(work["id"]), output)
    except KeyboardInterrupt:
        client.cancel_lock(work["id"])
        raise Cancelled(subject) from None
    if progress["diagnosis"] is not None:
        raise LaunchFailed(subject, progress["diagnosis"])
    if progress["state"] == "cancelled":
        raise Cancelled(subject)
    return list(progress["rows"])


def _until_done(show_work: Callable[[], dict[str, Any]], output: Output) -> dict[str, Any]:
    from paddock.cli.progress import progress_display

    with progress_display(output, sys.stderr) as show:
        while True:
            progress = show_work()
            running = progress["state"] == "running"
            show({**progress, "starting": running and bool(progress["note"])})
            if not running:
                return progress
            time.sleep(POLL_SECONDS)
