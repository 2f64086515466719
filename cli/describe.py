"""`paddock describe`."""

from __future__ import annotations

import time
from typing import Any

import click

from paddock.cli import gateway
from paddock.cli.options import Output, Settings, connected
from paddock.registry.errors import NotLaunched, near


@click.command(short_help="Show a launched model: plan, replicas, restarts and why.")
@click.argument("model_uid")
@connected
def describe(model_uid: str, settings: Settings, output: Output) -> None:
    """Show a launched model: plan, replicas, restarts and why.

    Of a replica that failed, the last cause with the engine's last lines, and when it is started
    again.

    \b
    Example:
      paddock describe tiny-mixtral
    """
    models = gateway.ensure(settings, output).instances()
    instance = next((model for model in models if model["model_uid"] == model_uid), None)
    if instance is None:
        raise NotLaunched(model_uid, near(model_uid, [model["model_uid"] for model in models]))
    output.result(instance, description(instance, time.time()))


def description(model: dict[str, Any], now: float) -> str:
    """A launched model for people; `now` is in seconds since 1970."""
    from paddock.cli.launch import plan_text

    plan = model["plan"]
    lines = []
    if plan["attached"] is None:
        lines += [*plan_text(plan).splitlines(), f"restart    {_policy(model)}"]
    else:
        lines.append(f"model      {plan['model']}, attached as '{model['model_uid']}'")
    lines.append(f"state      {model['state']}{_restarts(model['restarts'])}")
    for replica in model["replica_statuses"]:
        lines += ["", *_replica_lines(replica, now)]
    return "\n".join(lines)


def _policy(model: dict[str, Any]) -> str:
    tries, silence = model["restart_tries"], model["silence_seconds"]
    parts = [model["restart"]]
    if model["restart"] != "never":
        parts.append("any number of tries" if tries is None else f"at most {tries} in a row")
    if silence is not None:
        parts.append(f"requests end after {silence:g} s of silence")
    return ", ".join(parts)


def _restarts(count: int) -> str:
    return f", {count} restart{'s' * (count != 1)}" if count else ""


def _chat_lines(chat: dict[str, Any] | None) -> list[str]:
    if chat is None:
        return []
    template = {
        "plan": chat["format"] or "the template of the launch or registration",
        "weights": "the weights' own template",
        "spec": chat["format"],
        "none": "no template: chats are refused",
    }[chat["source"]]
    reason = f" ({chat['reason']})" if chat["reason"] else ""
    lines = [f"  chats by      {template}{reason}"]
    if chat.get("tools_reason"):
        lines.append(f"  no tools      {chat['tools_reason']}")
    elif chat.get("tool_format"):
        lines.append(f"  calls tools   as {chat['tool_format']}")
    if chat.get("reasoning_format"):
        lines.append(f"  thinks        as {chat['reasoning_format']}")
    return lines


def _replica_lines(replica: dict[str, Any], now: float) -> list[str]:
    node = f" on {replica['worker_address']}" if replica["worker_address"] else ""
    process = f", pid {replica['pid']}" if replica["pid"] else ""
    since = ""
    if replica["created_ts"]:
        since = time.strftime(", since %Y-%m-%d %H:%M:%S", time.localtime(replica["created_ts"]))
    restarts = _restarts(replica["restarts"])
    lines = [
        f"{replica['replica_uid']} is {replica['model_state']}{node}{process}{since}{restarts}"
    ]
    lines += _chat_lines(replica["chat"])
    failure = replica["last_failure"]
    if failure is not None:
        lines.append(f"  last failure  {failure['cause']}: {failure['message']}")
        lines += [f"    | {line}" for line in failure.get("lines") or ()]
        if failure.get("next_command"):
            lines.append(f"  try           {failure['next_command']}")
    if replica["next_try_at"] is not None:
        lines.append(f"  next start    in {max(0.0, replica['next_try_at'] - now):.1f} s")
    return lines
