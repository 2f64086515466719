"""`paddock events`."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from paddock.cli import gateway
from paddock.cli.options import Output, Settings, connected
from paddock.cli.output import size
from paddock.registry.errors import GatewayUnreachable

TYPES = ("model", "replica", "progress", "log")


@click.command(short_help="Watch what happens to models, until Ctrl-C.")
@click.option("-u", "--model-uid", default="", help="Only the model with this id.")
@click.option("--type", "types", type=click.Choice(TYPES), multiple=True, help="Only these events.")
@click.option("--logs", is_flag=True, help="Also what engines log from now on.")
@connected
def events(
    model_uid: str, types: tuple[str, ...], logs: bool, settings: Settings, output: Output
) -> None:
    """Watch what happens to models, until Ctrl-C.

    With --json, one event a line.

    \b
    Example:
      paddock events --model-uid tiny-mixtral --logs
    """
    client = gateway.ensure(settings, output)
    if model_uid and not any(one["model_uid"] == model_uid for one in client.instances()):
        output.talk(f"there is no model '{model_uid}' now; watching for one")
    for event in client.events(model_uid, types, logs=logs):
        if output.as_json:
            output.piece(json.dumps(event) + "\n")
        elif event["event"] == "snapshot":
            for model in event["data"]["models"]:
                output.result(model, f"{'':8}  {model['model_uid']} is {model['state']}")
        else:
            output.result(event, _line(event["event"], event["data"]))
    raise GatewayUnreachable(client.endpoint, "it has ended")


def _line(kind: str, data: dict[str, Any]) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(data.get("at")))
    who = data["model_uid"] if kind == "model" else data["replica_uid"]
    if kind == "log":
        return f"{clock}  {who}: {data['line']}"
    state = "gone" if data["gone"] else data["state"]
    parts = [f"{clock}  {who} is {state}"]
    is_waiting = data.get("next_try_at") is not None and not data["gone"]
    if data.get("note") and not data["gone"] and not is_waiting:
        parts.append(data["note"])
    if kind == "progress" and data["total_bytes"]:
        parts.append(f"{size(data['came_bytes'])} of {size(data['total_bytes'])}")
    if is_waiting:
        if failure := data["last_failure"]:
            parts.append(f"{failure['cause']}: {failure['message']}")
        left = max(0.0, data["next_try_at"] - data["at"])
        parts.append(f"starts again in {left:.1f} s, restart {data['restarts']}")
    if data["diagnosis"]:
        parts.append(f"{data['diagnosis']['cause']}: {data['diagnosis']['message']}")
    return "; ".join(parts)
