"""`paddock truth`: what models really took on the gateway's machine."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from paddock.cli import gateway
from paddock.cli.options import Output, Settings, connected
from paddock.cli.output import size, table
from paddock.registry.errors import BadValue
from paddock.registry.files import write_atomically

EMPTY = "nothing was measured yet: launch a model, and it is"


@click.group(short_help="List, export, import and forget what models took.")
def truth() -> None:
    """List, export, import and forget what models took.

    What a replica takes is measured when it is ready and when it ends. The next plan for the same
    weights, engine, options, context and slots uses that, and says so. Each command takes --json.

    \b
    Example:
      paddock truth list
    """


@truth.command(name="list", short_help="List what was measured.")
@click.argument("words", nargs=-1)
@connected
def list_truth(words: tuple[str, ...], settings: Settings, output: Output) -> None:
    """List what was measured.

    MEMORY is the most that the engine held, without pages of files; of a GPU's, where it computes
    on one. With words, only weights and engines that have them.

    \b
    Example:
      paddock truth list mixtral Q4_K_M
    """
    document = gateway.ensure(settings, output).truth()
    rows = [one for one in document["measurements"] if _has(one, words)]
    head = ("WEIGHTS", "ENGINE", "CONTEXT", "SLOTS", "MEMORY", "LOAD", "TOKENS/S", "MEASURED")
    text = table(head, map(_cells, rows), right=(2, 3, 4, 5, 6)) if rows else EMPTY
    output.result({**document, "measurements": rows}, text)


@truth.command(short_help="Write what was measured to a file.")
@click.argument("path", type=click.Path(path_type=Path))
@connected
def export(path: Path, settings: Settings, output: Output) -> None:
    """Write what was measured to a file; `-` is the terminal.

    \b
    Example:
      paddock truth export truth.json
    """
    document = gateway.ensure(settings, output).truth()
    text = json.dumps(document, indent=1)
    if str(path) == "-":
        print(text)
        return
    write_atomically(path, text)
    count = len(document["measurements"])
    output.result({"path": str(path), "measurements": count}, f"in {path}: {count} measured")


@truth.command(name="import", short_help="Take measurements from a file.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--label", default="", help="The name of the machine that they are of.")
@connected
def import_truth(path: Path, label: str, settings: Settings, output: Output) -> None:
    """Take measurements from a file that `paddock truth export` wrote.

    Those of another machine need a --label, stand in plans under that name, and count only where
    nothing was measured here.

    \b
    Example:
      paddock truth import truth.json --label workstation
    """
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
        document = json.loads(text)
    except OSError as error:
        raise BadValue("file", str(path), error.strerror or str(error)) from error
    except ValueError as error:
        raise BadValue("file", str(path), f"is not JSON: {error}") from error
    taken = gateway.ensure(settings, output).take_truth(document, label)
    output.result({"taken": taken}, f"taken: {taken}")


@truth.command(short_help="Forget what was measured.")
@click.argument("words", nargs=-1, required=True)
@connected
def forget(words: tuple[str, ...], settings: Settings, output: Output) -> None:
    """Forget what was measured of weights and engines with these words; `all`: everything.

    \b
    Example:
      paddock truth forget mixtral-v0.1 Q4_K_M
    """
    count = gateway.ensure(settings, output).forget_truth(" ".join(words))
    output.result({"forgotten": count}, f"forgotten: {count}")


def _has(row: dict[str, Any], words: tuple[str, ...]) -> bool:
    text = f"{row['subject']['weights']} {row['subject']['engine']}".casefold()
    return all(word.casefold() in text for word in words)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    subject = row["subject"]
    date = datetime.fromtimestamp(row["at"]).astimezone().strftime("%Y-%m-%d")
    return (
        subject["weights"],
        subject["engine"],
        str(subject["context_length"]),
        str(subject["slots"]),
        size(row["peak_bytes"]),
        f"{row['load_seconds']:.1f} s",
        f"{row['speed']:.0f}" if row["speed"] else "",
        f"{date} on {row['machine']}" if row["machine"] else date,
    )
