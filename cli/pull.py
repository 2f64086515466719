"""`paddock pull`."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from paddock.cli import gateway
from paddock.cli.launch_options import launch_body, with_launch_options
from paddock.cli.options import Output, Settings, connected, locked_entry
from paddock.cli.output import say_reading, size
from paddock.client import Client
from paddock.registry.errors import Cancelled, LaunchFailed

POLL_SECONDS = 0.1


@click.command(short_help="Download a model's weights, and launch nothing.")
@click.argument("name")
@with_launch_options("pull", without=("model_name",))
@connected
def pull(
    name: str,
    locked: bool,
    lock_file: str,
    settings: Settings,
    output: Output,
    **values: Any,
) -> None:
    """Download a model's weights, and launch nothing.

    NAME is a model's, or a reference such as hf:owner/name, as `launch` takes them.
    What is left out is chosen as a launch would. The files come into the hub's own cache, where
    other tools find them too. What was interrupted goes on where it stopped.

    \b
    Example:
      paddock pull mixtral-v0.1 --model-format ggufv2 --quantization Q4_K_M
    """
    say_reading(name, output)
    body = launch_body({"model_name": name, **values})
    if locked:
        body["lock"] = locked_entry(name, lock_file, settings)
    client = gateway.ensure(settings, output)
    started = client.pull(**body)
    label = f"{started['model_name']} {started['model_format']} {started['quantization']}"
    output.talk(f"pulling {label}: {started['source']} from {started['model_hub']}")
    try:
        finished = _until_done(client, started["id"], output)
    except KeyboardInterrupt:
        client.cancel_pull(started["id"])
        raise Cancelled(name) from None
    if finished["diagnosis"] is not None:
        raise LaunchFailed(name, finished["diagnosis"])
    if finished["state"] == "cancelled":
        raise Cancelled(name)
    total = f"{size(finished['total_bytes'])}, " if finished["total_bytes"] else ""
    output.talk(f"{label} is here: {total}checked")
    output.result(finished, finished["path"])


def _until_done(client: Client, pull_id: str, output: Output) -> dict[str, Any]:
    from paddock.cli.progress import progress_display

    with progress_display(output, sys.stderr) as show:
        while True:
            progress = client.show_pull(pull_id)
            show({**progress, "starting": progress["state"] == "downloading"})
            if progress["state"] != "downloading":
                return progress
            time.sleep(POLL_SECONDS)
