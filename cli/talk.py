"""`paddock generate`, `chat` and `run`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from paddock.cli import gateway
from paddock.cli.models import serving_count
from paddock.cli.options import Output, Settings, connected
from paddock.client import Client
from paddock.registry.errors import BadValue
from paddock.registry.reference import absolute

F = TypeVar("F", bound=Callable[..., Any])

SAMPLING = (
    click.option("--temperature", type=click.FloatRange(0), help="0 always takes the likeliest."),
    click.option("--max-tokens", "--max_tokens", type=click.IntRange(1), help="Most to generate."),
    click.option("--top-p", type=click.FloatRange(0, 1), help="Likeliest share to sample from."),
    click.option("--top-k", type=click.IntRange(0), help="Likeliest tokens to sample from."),
    click.option("--seed", type=int, help="Makes sampling repeatable."),
    click.option("--stop", multiple=True, help="Text to end at; may be given several times."),
)
DEFAULT_TOKENS = 512


def _sampling(command: F) -> F:
    for option in reversed(SAMPLING):
        command = option(command)
    return command


def _fields(options: dict[str, Any]) -> dict[str, Any]:
    fields = {key: value for key, value in options.items() if value is not None and value != ()}
    if "stop" in fields:
        fields["stop"] = list(fields["stop"])
    fields.setdefault("max_tokens", DEFAULT_TOKENS)
    return fields


@click.command(short_help="Continue a prompt with a launched model.")
@click.option("-u", "--model-uid", required=True, help="Id of the model.")
@_sampling
@click.argument("prompt", required=False)
@connected
def generate(
    model_uid: str, prompt: str | None, settings: Settings, output: Output, **sampling: Any
) -> None:
    """Continue a prompt with a launched model.

    Without PROMPT it is read from a pipe, or line by line from the terminal.

    \b
    Example:
      paddock generate --model-uid tiny-mixtral --temperature 0 "The old elephant"
    """
    client = gateway.ensure(settings, output)
    _complete(client, model_uid, prompt, _fields(sampling), output)


@click.command(short_help="Chat with a launched model.")
@click.option("-u", "--model-uid", required=True, help="Id of the model.")
@click.option("--system", help="System message.")
@_sampling
@click.argument("message", required=False)
@connected
def chat(
    model_uid: str,
    system: str | None,
    message: str | None,
    settings: Settings,
    output: Output,
    **sampling: Any,
) -> None:
    """Chat with a launched model.

    Without MESSAGE it is read from a pipe, or a conversation is held on the terminal.

    \b
    Example:
      paddock chat --model-uid tiny-mixtral "What does a zebra eat?"
    """
    client = gateway.ensure(settings, output)
    _chat(client, model_uid, message, (system, _fields(sampling)), output)


@click.command(short_help="Launch a model if need be, and talk to it.")
@click.argument("name")
@click.argument("prompt", required=False)
@click.option("-u", "--model-uid", help="Id of the model; its name if left out.")
@click.option("-f", "--model-format", help="Format, if it is to be launched.")
@click.option("-q", "--quantization", help="Quantization, if it is to be launched.")
@click.option("--fit", is_flag=True, help="Give up what does not fit the free memory.")
@click.option("--force", is_flag=True, help="Launch even if the memory does not suffice.")
@click.option("-y", "--yes", is_flag=True, help="Download without asking, however much it is.")
@click.option(
    "--chat", "as_chat", is_flag=True, help="Take PROMPT as a message, not as a beginning."
)
@_sampling
@connected
def run(
    name: str,
    prompt: str | None,
    model_uid: str | None,
    model_format: str | None,
    quantization: str | None,
    as_chat: bool,
    fit: bool,
    force: bool,
    yes: bool,
    settings: Settings,
    output: Output,
    **sampling: Any,
) -> None:
    """Launch a model if need be, and talk to it.

    With PROMPT, continues it (or answers it, with --chat). Without, opens a conversation where the
    model can chat, else continues what is typed. On a terminal it asks before it downloads more
    than 5 GB.

    \b
    Example:
      paddock run tiny-mixtral "The old elephant"
    """
    from paddock.cli.launch import follow

    client = gateway.ensure(settings, output)
    name = absolute(name)
    launch = {
        "model_name": name,
        "model_uid": model_uid,
        "model_format": model_format,
        "quantization": quantization,
        "fit": fit or None,
        "force": force or None,
    }
    uid = _launched(client, name, model_uid)
    if uid is None:
        wanted = {k: v for k, v in launch.items() if v is not None}
        uid = str(follow(client, wanted, output, yes)["model_uid"])
    abilities = client.instances(uid)[0]["model_ability"]
    fields = _fields(sampling)
    if as_chat or (prompt is None and sys.stdin.isatty() and "chat" in abilities):
        _chat(client, uid, prompt, (None, fields), output)
    else:
        _complete(client, uid, prompt, fields, output)


def _launched(client: Client, name: str, uid: str | None) -> str | None:
    """The id of a model that answers: the one with this id, else one of this name."""
    for model in client.instances():
        if model["state"] == "failed":
            continue
        names = {model["model_uid"], model["model_name"]}
        if model["plan"].get("derived"):
            names.add(model["plan"]["derived"]["reference"])
        same = model["model_uid"] == uid if uid else name in names
        if same and serving_count(model):
            return str(model["model_uid"])
    return None


def _complete(
    client: Client, uid: str, prompt: str | None, fields: dict[str, Any], output: Output
) -> None:
    for text in _prompts(prompt, output):
        if output.as_json:
            answer = client.complete(uid, text, **fields)
            output.result(answer, "")
            continue
        for piece in client.generate(uid, text, **fields):
            output.piece(piece)
        output.piece("\n")


def _chat(
    client: Client,
    uid: str,
    message: str | None,
    options: tuple[str | None, dict[str, Any]],
    output: Output,
) -> None:
    system, fields = options
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for text in _prompts(message, output):
        messages.append({"role": "user", "content": text})
        if output.as_json:
            answer = client.chat(uid, messages, **fields)
            messages.append(answer["choices"][0]["message"])
            output.result(answer, "")
            continue
        reply = ""
        for piece in client.stream_chat(uid, messages, **fields):
            reply += piece
            output.piece(piece)
        output.piece("\n")
        messages.append({"role": "assistant", "content": reply})


def _prompts(prompt: str | None, output: Output) -> Iterator[str]:
    """The prompt of the argument or the pipe; on a terminal, one per line until an empty line."""
    if prompt is not None:
        yield prompt
        return
    if not sys.stdin.isatty():
        text = sys.stdin.read().strip("\n")
        if not text:
            raise BadValue("prompt", text, "is empty; give it as an argument or on stdin")
        yield text
        return
    output.talk("an empty line ends")
    while True:
        try:
            line = input("> ")
        except EOFError:
            return
        if not line.strip():
            return
        yield line
