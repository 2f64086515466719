"""`paddock list`, `logs` and `terminate`."""

from __future__ import annotations

import time
from typing import Any

import click

from paddock.cli import gateway
from paddock.cli.options import Output, Settings, connected
from paddock.cli.output import size, table


@click.command(name="list", short_help="List launched models.")
@connected
def list_models(settings: Settings, output: Output) -> None:
    """List launched models.

    \b
    Example:
      paddock list --json
    """
    models = gateway.ensure(settings, output).instances()
    head = ("MODEL ID", "MODEL", "FORMAT", "QUANTIZATION", "ENGINE", "REPLICAS", "MEMORY", "STATE")
    text = table(head, [_row(model) for model in models], right=(6,))
    output.result(models, text if models else "no model is launched; try: paddock run tiny-mixtral")


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    plan = model["plan"]
    state = model["state"]
    if model["diagnosis"]:
        state = f"{state} ({model['diagnosis']['cause']})"
    elif waiting := _waiting(model):
        state = f"{state} ({waiting})"
    elif model["restarts"]:
        state = f"{state} ({_restarts(model)})"
    return (
        model["model_uid"],
        plan["model"],
        plan["format"],
        plan["quantization"],
        plan["engine"],
        f"{serving_count(model)}/{model['replica']}",
        size(plan["memory"]["total_bytes"] * model["replica"]),
        state,
    )


def serving_count(model: dict[str, Any]) -> int:
    """How many of a model's replicas get requests; one that is not heard of does."""
    return sum(replica["endpoint"] is not None for replica in model["replica_statuses"])


def _restarts(model: dict[str, Any]) -> str:
    """How often its replicas were started again, and the reason of the last time."""
    count = model["restarts"]
    failures = (one["last_failure"] for one in model["replica_statuses"] if one["restarts"])
    causes = [failure["cause"] for failure in failures if failure]
    return f"{count} restart{'s' * (count != 1)}" + (f", last {causes[-1]}" if causes else "")


def _waiting(model: dict[str, Any]) -> str:
    """When the first replica that failed is started again, and why it failed."""
    replicas = [one for one in model["replica_statuses"] if one["next_try_at"] is not None]
    if not replicas:
        return ""
    first = min(replicas, key=lambda one: float(one["next_try_at"]))
    cause = (first["last_failure"] or {}).get("cause", "failed")
    return f"{cause}; starts again in {max(0.0, first['next_try_at'] - time.time()):.0f} s"


@click.command(short_help="Show the last lines of a model's engine.")
@click.option("-u", "--model-uid", required=True, help="Id of the model.")
@click.option("--lines", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--follow", is_flag=True, help="Show the whole log, and what is added, until Ctrl-C.")
@connected
def logs(model_uid: str, lines: int, follow: bool, settings: Settings, output: Output) -> None:
    """Show the last lines of a model's engine.

    \b
    Example:
      paddock logs --model-uid tiny-mixtral --lines 20
      paddock logs --model-uid tiny-mixtral --follow
    """
    client = gateway.ensure(settings, output)
    if follow:
        for replica, line in client.follow_logs(model_uid):
            output.result({"replica": replica, "line": line}, line)
        return
    tails = client.logs(model_uid, lines)
    several = len(tails) > 1
    text = "\n".join(
        f"{replica}: {line}" if several else line
        for replica, tail in tails.items()
        for line in tail
    )
    output.result(tails, text)


@click.command(short_help="End a launched model.")
@click.option("-u", "--model-uid", required=True, help="Id of the model.")
@connected
def terminate(model_uid: str, settings: Settings, output: Output) -> None:
    """End a launched model.

    Returns when its processes are gone and their memory is back.

    \b
    Example:
      paddock terminate --model-uid tiny-mixtral
    """
    gateway.ensure(settings, output).terminate(model_uid)
    output.result({"model_uid": model_uid, "terminated": True}, f"{model_uid} is terminated")
