"""`paddock engine`: what serves models on this machine, and the environments of those engines."""

from __future__ import annotations

from typing import Any

import click

from paddock.cli.options import Output, Settings, offline
from paddock.cli.output import table


@click.group(short_help="Install, list, check and remove engines.")
def engine() -> None:
    """Install, list, check and remove engines.

    An engine that does not live in Paddock's own environment gets one to itself, under
    PADDOCK_HOME/engines, so that no engine's libraries are in another's way. It is made on the
    machine on which the command runs. Each command takes --json.

    \b
    Example:
      paddock engine install transformers
    """


@engine.command(name="list", short_help="List the engines, and why some cannot serve.")
@offline
def list_engines(settings: Settings, output: Output) -> None:
    """List the engines, and why some cannot serve.

    \b
    Example:
      paddock engine list
    """
    from paddock.engines import engines

    rows: list[dict[str, Any]] = []
    for one in engines():
        found = one.detect()
        rows.append(
            {
                "name": one.name,
                "installed": not found.missing,
                "version": found.version,
                "formats": list(one.formats),
                "reason": found.missing,
                "installable": one.environment is not None,
            }
        )
    text = table(
        ("ENGINE", "FORMATS", "VERSION"),
        [
            (
                row["name"],
                " ".join(row["formats"]) or "none",
                row["version"] or f"none: {row['reason']}",
            )
            for row in rows
        ],
    )
    output.result({"engines": rows}, text)


@engine.command(short_help="Make an engine's environment, or renew it.")
@click.argument("name")
@click.option("--force", is_flag=True, help="Even if the one that is there is up to date.")
@offline
def install(name: str, force: bool, settings: Settings, output: Output) -> None:
    """Make an engine's environment, or renew it.

    The versions are those that this Paddock was tested with. What is there stays in force until
    the new environment has been seen to work, and models that run from it run on.

    \b
    Example:
      paddock engine install transformers
    """
    from paddock.launcher.environments import install as make

    environment = _environment(name)
    made = environment.made(settings.home)
    if made is not None and made.digest == environment.digest and not force:
        output.talk(f"{environment.name} is installed already; --force makes it anew")
    else:
        made = make(environment, settings.home, output.talk)
    version = made.versions.get(environment.distribution, "")
    data = {"name": environment.name, "version": version, "folder": str(made.folder)}
    output.result(data, f"{environment.name} {version} is installed in {made.folder}")


@engine.command(short_help="Remove an engine's environment.")
@click.argument("name")
@offline
def remove(name: str, settings: Settings, output: Output) -> None:
    """Remove an engine's environment.

    It is refused while a model runs from it.

    \b
    Example:
      paddock engine remove transformers
    """
    from paddock.launcher.environments import remove as unmake

    environment = _environment(name)
    removed = unmake(environment, settings.home)
    text = f"{environment.name} is removed" if removed else f"{environment.name} was not installed"
    output.result({"name": environment.name, "removed": removed}, text)


def _environment(name: str) -> Any:
    """The environment of the engine of this name. Raises `UnknownName`, `BadValue`."""
    from paddock.engines import engines
    from paddock.registry.errors import BadValue, UnknownName

    known = {one.name: one.environment for one in engines()}
    for engine_name, environment in known.items():
        if engine_name.casefold() == name.casefold():
            if environment is None:
                raise BadValue("engine", name, "comes with Paddock, and needs no environment")
            return environment
    raise UnknownName.among("engine", name, [n for n, one in known.items() if one is not None])
