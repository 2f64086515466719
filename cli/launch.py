"""`paddock launch`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from paddock.cli import gateway
from paddock.cli.options import Output, Settings, connected, lockable, locked_entry, on_hub
from paddock.cli.output import say_reading, size
from paddock.client import Client
from paddock.registry.errors import BadValue, Cancelled, GatewayError, LaunchFailed
from paddock.registry.hubs import LOCAL
from paddock.registry.reference import absolute

POLL_SECONDS = 0.05


@click.command(
    short_help="Launch a model.",
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        # Engines' options are written with underscores; ours may be too.
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
)
@click.option("-n", "--model-name", help="Name of the model, or such as hf:owner/name.")
@click.option("-t", "--model-type", help="LLM, embedding or rerank; known from the name.")
@click.option("-en", "--model-engine", help="Engine; chosen if left out.")
@click.option("-u", "--model-uid", help="Id for requests; the model's name if left out.")
@click.option("-s", "--size-in-billions", help="Size, such as 46_7 or 46.7.")
@click.option("-f", "--model-format", help="Format: pytorch, gptq, ggufv2, …")
@click.option("-q", "--quantization", help="Quantization: none, Int4, Q4_K_M, …")
@click.option("-r", "--replica", type=int, help="Copies to start.  [1]")
@click.option("-c", "--context-length", type=int, help="Tokens that one request gets.")
@click.option("-mp", "--model-path", help="Weights on disk: a file or a folder.")
@on_hub
@click.option("--offline", is_flag=True, help="Take what is cached, and ask no hub.")
@click.option("--worker-ip", "--node", help="Node to start on: its address, name or Ray id.")
@click.option("--n-gpu", help="GPUs of each copy: auto, none or a number.  [auto]")
@click.option("--gpu-idx", metavar="N,…", help="GPUs to choose among, by their index.")
@click.option("-lm", "--lora-modules", multiple=True, nargs=2, help="LoRA adapter: NAME PATH.")
@lockable
@click.option("--multimodal-projector", metavar="FILE", help="GGUF that lets a GGUF see pictures.")
@click.option("--trust", metavar="COMMIT", help="Let code and pickles of this very commit run.")
@click.option(
    "--restart", metavar="WHEN", help="After it ends: always, on-failure or never.  [on-failure]"
)
@click.option(
    "--restart-tries",
    type=int,
    help="Restarts without ten minutes of service between.  [unlimited]",
)
@click.option(
    "--silence-seconds", type=float, help="A request without output for so long is ended.  [1800]"
)
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@click.pass_context
@connected
def launch(
    ctx: click.Context,
    /,
    settings: Settings,
    output: Output,
    dry_run: bool,
    locked: bool,
    lock_file: str,
    **given: Any,
) -> None:
    """Launch a model.

    What is left out is chosen, best first, and the reason is printed. Any other `--key value`
    goes to the engine, such as `--n_ctx 4096`; an unknown one is refused. With --locked, variant,
    files and engine are those of the lockfile, which `paddock lock` has written.

    A model that no spec names is launched by a reference, such as hf:owner/name or
    ms:owner/name, also with @revision, the address of such a repository or of a GGUF file in it, or
    a path on the gateway's machine. Its spec is derived from what lies there; see: paddock show.

    \b
    Example:
      paddock launch --model-name tiny-mixtral --model-format ggufv2 --quantization Q4_K_M
      paddock launch hf:TheBloke/Mixtral-8x7B-v0.1-GGUF --quantization Q4_K_M
    """
    body = _body(given, ctx.args)
    if locked:
        body["lock"] = locked_entry(body["model_name"], lock_file, settings)
    say_reading(body["model_name"], output)
    if dry_run:
        client = gateway.find(settings)
        plan = client.plan(**body) if client is not None else _plan_here(settings, body)
        output.result(plan, plan_text(plan))
        return
    client = gateway.ensure(settings, output)
    launched = follow(client, body, output)
    if not settings.endpoint:  # what is built here says nothing of a gateway elsewhere
        gateway.say_dashboard(client.endpoint, output)
    output.result(launched, launched["model_uid"])


def _body(given: dict[str, Any], extra: list[str]) -> dict[str, Any]:
    """The launch as REST takes it."""
    extra = list(extra)
    name = given["model_name"]
    if extra and not extra[0].startswith("-"):
        # `paddock launch tiny-mixtral`, for those who do not want to type the option.
        first = extra.pop(0)
        if name is not None:
            raise BadValue("argument", first, "was not expected; the model's name is given already")
        name = first
    if name is None:
        raise BadValue("model name", None, "is needed: paddock launch --model-name NAME")
    body: dict[str, Any] = _pairs(extra)
    known = {
        "model_name": absolute(name),
        "model_type": given["model_type"],
        "model_engine": given["model_engine"],
        "model_uid": given["model_uid"],
        "model_size_in_billions": given["size_in_billions"],
        "model_format": given["model_format"],
        "quantization": given["quantization"],
        "replica": given["replica"],
        "context_length": given["context_length"],
        "model_path": _absolute(given["model_path"]),
        "download_hub": given["download_hub"],
        "offline": given["offline"] or None,
        "worker_ip": given["worker_ip"],
        "n_gpu": given["n_gpu"],
        "gpu_idx": given["gpu_idx"],
        "trust": given["trust"],
        "restart": given["restart"],
        "restart_tries": given["restart_tries"],
        "silence_seconds": given["silence_seconds"],
        "multimodal_projector": _projector(given["multimodal_projector"]),
    }
    if given["lora_modules"]:
        adapters = [{"lora_name": n, "local_path": _absolute(p)} for n, p in given["lora_modules"]]
        known["peft_model_config"] = {"lora_list": adapters}
    return {**body, **{key: value for key, value in known.items() if value is not None}}


def _absolute(path: str | None) -> str | None:
    # The gateway has a working directory of its own.
    return None if path is None else str(Path(path).expanduser().absolute())


def _projector(name: str | None) -> str | None:
    # A plain name is a file of the model's repository.
    return _absolute(name) if name and ("/" in name or name.startswith("~")) else name


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


def _plan_here(settings: Settings, body: dict[str, Any]) -> dict[str, Any]:
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
        f"weights    {source}"
        + (f": {files}" if files else "")
        + (f" and {more} more" * (more > 0)),
    ]
    if not weights["here"]:
        lines.append(f"download   {size(weights['size_bytes'])}")
    copies = f", {plan['replicas']} replicas" if plan["replicas"] > 1 else ""
    lines += [
        f"context    {plan['context_length']} tokens for each of {plan['slots']} requests at once",
        f"memory     {size(memory['total_bytes'])} = weights {size(memory['weights_bytes'])} + "
        f"key-value cache {size(memory['cache_bytes'])} + overhead {size(memory['overhead_bytes'])}"
        f"; free{' on its GPUs' * bool(memory['gpus'])}: {size(memory['free_bytes'])}",
        f"node       {plan['node_name']}{copies}",
    ]
    lines += [f"because    {reason}" for reason in plan["reasons"]]
    lines += [f"not        {engine}: {why}" for engine, why in plan["refused"].items()]
    lines += [f"warning    {warning}" for warning in plan["warnings"]]
    return "\n".join(lines)


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


def follow(client: Client, body: dict[str, Any], output: Output) -> dict[str, Any]:
    """Launches, shows the progress until it is ready, and returns `model_uid`, `seconds`, `plan`.

    Raises:
        LaunchFailed: with the diagnosis.
        Cancelled: by Ctrl-C, here or elsewhere.
    """
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


def _offer_cancel(client: Client, uid: str, output: Output) -> None:
    """On a terminal Ctrl-C asks; without one it means yes."""
    leave = (
        sys.stdin.isatty()
        and sys.stderr.isatty()
        and not click.confirm("Cancel the launch?", default=True, err=True)
    )
    if leave:
        output.talk(f"{uid} goes on starting; see: paddock list")
        sys.exit(0)
    client.cancel(uid)
