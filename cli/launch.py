"""`paddock launch`."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from typing import Any

import click

from paddock.cli import gateway
from paddock.cli.launch_options import launch_body, with_launch_options
from paddock.cli.options import Output, Settings, connected, locked_entry
from paddock.cli.output import say_reading, size
from paddock.client import Client
from paddock.registry.errors import BadValue, Cancelled, GatewayError, LaunchFailed
from paddock.registry.hubs import LOCAL

POLL_SECONDS = 0.05
LARGE_DOWNLOAD_BYTES = 5_000_000_000
"""A terminal asks before it downloads more."""


@click.command(
    short_help="Launch a model.",
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        # Engines' options are written with underscores; ours may be too.
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
)
@with_launch_options("launch")
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Download without asking, however much it is.")
@click.pass_context
@connected
def launch(
    ctx: click.Context,
    /,
    settings: Settings,
    output: Output,
    dry_run: bool,
    yes: bool,
    locked: bool,
    lock_file: str,
    **values: Any,
) -> None:
    """Launch a model.

    What is left out is chosen, best first, and the reason is printed. Any other `--key value`
    goes to the engine, such as `--n_ctx 4096`; an unknown one is refused. With --locked, variant,
    files and engine are those of the lockfile, which `paddock lock` has written.

    A model that no spec names is launched by a reference, such as hf:owner/name or
    ms:owner/name, also with @revision, the address of such a repository or of a GGUF file in it, or
    a path on the gateway's machine. Its spec is derived from what lies there; see: paddock show.

    On a terminal it asks before it downloads more than 5 GB; without one, or with --json, the
    download starts at once. With --dry-run, an engine that is not installed yet may be chosen: the
    plan says what installs it.

    \b
    Example:
      paddock launch --model-name tiny-mixtral --model-format ggufv2 --quantization Q4_K_M
      paddock launch hf:TheBloke/Mixtral-8x7B-v0.1-GGUF --quantization Q4_K_M
    """
    body = launch_arguments(values, ctx.args)
    if locked:
        body["lock"] = locked_entry(body["model_name"], lock_file, settings)
    say_reading(body["model_name"], output)
    if dry_run:
        client = gateway.find(settings)
        plan = client.plan(**body) if client is not None else _plan_locally(settings, body)
        output.result(plan, plan_text(plan))
        return
    client = gateway.ensure(settings, output)
    launched = follow(client, body, output, yes)
    if not settings.endpoint:  # what is built here says nothing of a gateway elsewhere
        gateway.say_dashboard(client.endpoint, output)
    output.result(launched, launched["model_uid"])


def launch_arguments(values: dict[str, Any], extra: list[str]) -> dict[str, Any]:
    """The body of `POST /v1/models`: our options, and the engine's from the rest of the line."""
    extra = list(extra)
    if extra and not extra[0].startswith("-"):
        # `paddock launch tiny-mixtral`, for those who do not want to type the option.
        first = extra.pop(0)
        if values["model_name"] is not None:
            raise BadValue("argument", first, "was not expected; the model's name is given already")
        values = {**values, "model_name": first}
    if values["model_name"] is None:
        raise BadValue("model name", None, "is needed: paddock launch --model-name NAME")
    return {**_pairs(extra), **launch_body(values)}


def _pairs(extra: list[str]) -> dict[str, str]:
    """Engine options from `--key value`, `--key=value` and bare `--key`, which is true."""
    pairs: dict[str, str] = {}
    index = 0
    while index < len(extra):
        token = extra[index]
        index += 1
        if not token.startswith("--") or len(token) == 2:
            raise BadValue("argument", token, "was not expected; engine options are --key value")
        key, equals, value = token[2:].partition("=")
        key = key.replace("-", "_")
        if not equals:
            if index < len(extra) and not extra[index].startswith("--"):
                value = extra[index]
                index += 1
            else:
                value = "true"
        pairs[key] = value
    return pairs


def _plan_locally(settings: Settings, body: dict[str, Any]) -> dict[str, Any]:
    """The plan without a gateway: for this machine alone."""
    import asyncio

    from paddock.launcher.fleet.planner import Planner
    from paddock.server.routes.xinference_shapes import launch_request

    request = launch_request(body)
    return asyncio.run(Planner.alone(settings).plan(request)).to_json()


def plan_text(plan: dict[str, Any]) -> str:
    """A plan for people."""
    memory, weights = plan["memory"], plan["weights"]
    source = f"{weights['id']} on {weights['hub']}"
    if weights["hub"] in LOCAL:
        source = f"{weights['id']}, on this node"
    elif weights["hub"] == "none":
        source = "none needed"
    files = ", ".join(file["name"] for file in weights["files"][:4])
    more = len(weights["files"]) - 4
    lines = [
        *_derived_lines(plan),
        f"model      {plan['model']} {plan['size']} {plan['format']} {plan['quantization']}, "
        f"as '{plan['model_id']}'",
        f"engine     {plan['engine']} ({plan['engine_version']})",
        *([f"first      {plan['install']}"] if plan.get("install") else []),
        f"weights    {source}"
        + (f": {files}" if files else "")
        + (f" and {more} more" * (more > 0)),
    ]
    if not weights["here"]:
        about = "" if weights["size_known"] else "≈ "
        lines.append(f"download   {about}{size(weights['size_bytes'])}")
    copies = f", {plan['replicas']} replicas" if plan["replicas"] > 1 else ""
    lines += [
        f"context    {plan['context_length']} tokens for {_slots_text(plan['slots'])}",
        f"memory     {size(memory['total_bytes'])} = weights {size(memory['weights_bytes'])} + "
        f"key-value cache {size(memory['cache_bytes'])} + overhead {size(memory['overhead_bytes'])}"
        f"; free{' on its GPUs' * bool(memory['gpus'])}: {size(memory['free_bytes'])}",
        f"by         {source_text(memory)}",
        f"node       {plan['node_name']}{copies}",
        *_expected_lines(plan.get("expected")),
    ]
    lines += [f"because    {reason}" for reason in plan["reasons"]]
    lines += [f"not        {engine}: {reason}" for engine, reason in plan["refused"].items()]
    lines += [f"warning    {warning}" for warning in plan["warnings"]]
    return "\n".join(lines)


def _expected_lines(expected: dict[str, Any] | None) -> list[str]:
    if expected is None:
        return []
    measured = expected["source"] == "measured"
    parts = []
    if expected["tokens_per_second"]:
        speed = f"{expected['tokens_per_second']:.0f} tokens/s"
        parts.append(f"{speed}, measured here" if measured else f"≈ {speed} by memory bandwidth")
    if expected["prompt_tokens_per_second"]:
        parts.append(f"{expected['prompt_tokens_per_second']:.0f} tokens/s of a prompt")
    if expected["load_seconds"]:
        parts.append(f"loads in {expected['load_seconds']:.1f} s")
    return [f"expected   {', '.join(parts)}"]


def _slots_text(slots: int) -> str:
    return f"each of {slots} requests at once" if slots > 1 else "one request at a time"


def source_text(memory: dict[str, Any]) -> str:
    """Where the figures of the memory are from."""
    if memory["source"] == "formula":
        return "formula: ≈"
    if memory["source"] == "engine":
        return "what the engine itself says"
    where = memory["machine"] or "here"
    date = datetime.fromtimestamp(memory["at"]).astimezone().strftime("%d %B %Y")
    return f"what was measured {where if where == 'here' else f'on {where}'} on {date}"


def _derived_lines(plan: dict[str, Any]) -> list[str]:
    derived = plan["derived"]
    if derived is None:
        return []
    abilities = ", ".join(plan["abilities"])
    return [
        f"derived    {plan['model']} from {derived['reference']}",
        f"commit     {derived['commit']}",
        f"has        {plan['size'].replace('_', '.')} billion parameters, context "
        f"{derived['context_length']}, abilities {abilities}",
        *(f"note       {note}" for note in derived["notes"]),
    ]


def follow(
    client: Client, body: dict[str, Any], output: Output, yes: bool = False
) -> dict[str, Any]:
    """Launches, shows the progress until it is ready, and returns `model_uid`, `seconds`, `plan`.

    Raises:
        LaunchFailed: with the diagnosis.
        Cancelled: by Ctrl-C, here or elsewhere, or by a no to the question about a large download.
    """
    if not yes and not output.as_json and _is_terminal():
        _ask_before_download(client, body)
    began = time.monotonic()
    launched = client.launch(wait=False, **body)
    uid, plan = str(launched["model_uid"]), launched["plan"]
    for line in plan_text(plan).splitlines():
        output.talk(line)
    try:
        progress = _until_done(client, uid, output)
    except KeyboardInterrupt:
        _offer_cancel(client, uid, output)
        raise Cancelled(uid) from None
    if progress["diagnosis"] is not None:
        raise LaunchFailed(uid, progress["diagnosis"])
    seconds = round(time.monotonic() - began, 2)
    output.talk(f'ready in {seconds:.1f} s; try: paddock generate --model-uid {uid} "…"')
    return {"model_uid": uid, "seconds": seconds, "plan": plan}


def _until_done(client: Client, uid: str, output: Output) -> dict[str, Any]:
    from paddock.cli.progress import progress_display

    with progress_display(output, sys.stderr) as show:
        while True:
            try:
                progress = client.progress(uid)
            except GatewayError as error:
                if error.status == 404:  # terminated meanwhile, from elsewhere
                    raise Cancelled(uid) from None
                raise
            show(progress)
            if progress["state"] in {"stopping", "stopped"}:
                raise Cancelled(uid)
            if not progress["starting"]:
                return progress
            time.sleep(POLL_SECONDS)


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _ask_before_download(client: Client, body: dict[str, Any]) -> None:
    """Asks where much would come. Raises `Cancelled` for a no."""
    plan = client.plan(**body)
    weights = plan["weights"]
    if weights["here"] or weights["size_bytes"] <= LARGE_DOWNLOAD_BYTES or plan.get("install"):
        return
    label = f"{plan['model']} {plan['size'].replace('_', '.')} billion {plan['quantization']}"
    about = "" if weights["size_known"] else "about "
    question = f"Download {about}{size(weights['size_bytes'])} of {label} from {weights['hub']}?"
    if not click.confirm(question, default=True, err=True):
        raise Cancelled(str(plan["model_id"]))


def _offer_cancel(client: Client, uid: str, output: Output) -> None:
    """On a terminal Ctrl-C asks; without one it means yes."""
    if _is_terminal() and not click.confirm("Cancel the launch?", default=True, err=True):
        output.talk(f"{uid} goes on starting; see: paddock list")
        sys.exit(0)
    client.cancel(uid)
