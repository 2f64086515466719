"""`paddock attach`."""

from __future__ import annotations

import os
from typing import Any

import click

from paddock.cli import gateway
from paddock.cli.options import Output, Settings, connected
from paddock.registry.errors import BadValue


@click.command(short_help="Serve a model that runs elsewhere, by its URL.")
@click.argument("url")
@click.option("-u", "--model-uid", help="Id for requests; the name there if left out.")
@click.option("-m", "--model", help="Name of the model there; needed where there are several.")
@click.option("--api-key-env", metavar="VARIABLE", help="Variable that holds the endpoint's key.")
@click.option("-a", "--ability", multiple=True, help="What it can do; found out if left out.")
@click.option("-c", "--context-length", type=int, help="Tokens that one request may have.")
@click.option("--slots", type=int, help="Requests that it gets side by side.  [64]")
@connected
def attach(
    url: str,
    api_key_env: str | None,
    ability: tuple[str, ...],
    settings: Settings,
    output: Output,
    **options: Any,
) -> None:
    """Serve a model that runs elsewhere, by its URL.

    Any endpoint that speaks OpenAI's API: Text Generation Inference, vLLM in a container, a hosted
    service, another Paddock. URL is what OpenAI's clients take as their base URL. The model is
    behind the same API as those that are launched here, and `terminate` only detaches it. The key
    is kept below PADDOCK_HOME, readable by its owner alone.

    Abilities are generate, chat, embed, rerank, tools, vision and reasoning. What the endpoint does
    not list is found out by asking for one token; tools and vision must be told.

    \b
    Example:
      paddock attach http://gpu-box:8000/v1 --model-uid big
      paddock attach https://api.example.com/v1 --model big-1 --api-key-env EXAMPLE_KEY \\
        --ability chat --ability tools
    """
    body = {key: value for key, value in options.items() if value is not None}
    if ability:
        body["abilities"] = [name for one in ability for name in one.split(",") if name]
    if api_key_env is not None:
        key = os.environ.get(api_key_env, "").strip()
        if not key:
            raise BadValue("--api-key-env", api_key_env, "no such variable is set here")
        body["api_key"] = key
    attached = gateway.ensure(settings, output).attach(url, **body)
    uid, plan = attached["model_uid"], attached["plan"]
    context = f", context {plan['context_length']}" if plan["context_length"] else ""
    output.talk(f"endpoint   {plan['attached']['url']}")
    output.talk(f"model      {plan['model']} there, '{uid}' here")
    output.talk(f"abilities  {', '.join(plan['abilities'])}{context}")
    for warning in plan["warnings"]:
        output.talk(f"warning    {warning}")
    output.result(attached, uid)
