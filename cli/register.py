"""`paddock register` and `unregister`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from paddock.cli import gateway
from paddock.cli.options import Output, Settings, connected
from paddock.registry.abilities import model_types
from paddock.registry.errors import BadValue

TYPE = click.Choice(model_types(), case_sensitive=False)
MAX_BYTES = 1 << 20
_TYPE_LINE = re.compile(
    rf"^type: *['\"]?({'|'.join(map(re.escape, model_types()))})\b", re.MULTILINE
)


@click.command(short_help="Register a model of your own.")
@click.option("-f", "--file", required=True, help="The spec: YAML, or Xinference's JSON.")
@click.option("-t", "--model-type", type=TYPE, help="Left out: as the spec says, else LLM.")
@click.option("-p", "--persist", is_flag=True, help="Taken for Xinference's sake: specs are kept.")
@connected
def register(
    file: str, model_type: str | None, persist: bool, settings: Settings, output: Output
) -> None:
    """Register a model of your own.

    The spec is checked, kept below PADDOCK_HOME, and can be launched by its name at once.

    \b
    Example:
      paddock register --file my-model.yaml
    """
    try:
        with Path(file).open("rb") as opened:
            text = opened.read(MAX_BYTES + 1).decode("utf-8-sig")
    except OSError as error:
        raise BadValue("file", file, error.strerror or str(error)) from None
    except UnicodeDecodeError as error:
        raise BadValue("file", file, f"is not UTF-8 (byte {error.start})") from None
    if model_type is None:
        type_line = _TYPE_LINE.search(text)
        model_type = type_line[1] if type_line else "LLM"
    name = gateway.ensure(settings, output).register(text, model_type)
    output.talk(f"try: paddock launch --model-name {name} --dry-run")
    output.result({"model_name": name, "model_type": model_type, "registered": True}, name)


@click.command(short_help="Remove a registered model.")
@click.option("-n", "--model-name", required=True, help="Name of the model.")
@click.option("-t", "--model-type", type=TYPE, default="LLM", show_default=True)
@connected
def unregister(model_name: str, model_type: str, settings: Settings, output: Output) -> None:
    """Remove a registered model.

    What was launched by it runs on.

    \b
    Example:
      paddock unregister --model-name my-model
    """
    gateway.ensure(settings, output).unregister(model_name, model_type)
    output.result(
        {"model_name": model_name, "model_type": model_type, "registered": False},
        f"{model_name} is unregistered",
    )
