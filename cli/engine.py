"""`paddock engine`: what serves models on this machine, and the environments of those engines."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from paddock.cli import gateway
from paddock.cli.options import Output, Settings, connected, offline
from paddock.cli.output import table


@click.group(short_help="Install, list, look over and remove engines.")
def engine() -> None:
    """Install, list, look over and remove engines.

    An engine that does not live in Paddock's own environment gets one to itself, under
    PADDOCK_HOME/engines, so that no engine's libraries are in another's way. It is made on the
    machine on which the command runs. Each command takes --json.

    \b
    Example:
      paddock engine install transformers
    """


@engine.command(name="list", short_help="List the engines, and why some cannot serve.")
@click.option("-n", "--model-name", help="Those of one model, and what each can serve of it.")
@connected
def list_engines(model_name: str | None, settings: Settings, output: Output) -> None:
    """List the engines, and why some cannot serve.

    Those of a model are asked of the gateway, which knows all nodes; where none runs, this machine
    is looked at.

    \b
    Example:
      paddock engine list
      paddock engine list --model-name mixtral-v0.1
    """
    from paddock.engines import engines

    if model_name is not None:
        served = _of_model(model_name, settings)
        output.result(served, _model_table(served))
        return
    rows: list[dict[str, Any]] = []
    for adapter in engines():
        detection = adapter.detect()
        rows.append(
            {
                "name": adapter.name,
                "installed": not detection.missing,
                "version": detection.version,
                "formats": list(adapter.formats),
                "reason": detection.missing,
                "installable": adapter.environment is not None,
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
@click.option(
    "--accelerator",
    type=click.Choice(["cpu", "cuda"]),
    help="What it shall compute with; left out: what this machine has.",
)
@click.option(
    "--installer",
    type=click.Choice(["uv", "pip"]),
    help="What brings the packages; left out: uv where it is on the path, else pip.",
)
@offline
def install(
    name: str,
    force: bool,
    accelerator: Any,
    installer: Any,
    settings: Settings,
    output: Output,
) -> None:
    """Make an engine's environment, or renew it.

    The versions are those that this Paddock was tested with. What is there stays in force until
    the new environment has been seen to work, and models that run from it run on.

    \b
    Example:
      paddock engine install transformers
    """
    from paddock.launcher.environments.build import find_environment
    from paddock.launcher.environments.build import install as make

    environment = find_environment(name)
    installed = environment.installed(settings.home)
    is_wanted = installed is not None and accelerator in {None, installed.accelerator}
    if installed is not None and is_wanted and environment.is_current(installed) and not force:
        output.talk(f"{environment.name} is installed already; --force makes it anew")
    else:
        installed = make(environment, settings.home, output.talk, accelerator, installer)
    version = installed.versions.get(environment.distribution, "")
    data = {"name": environment.name, "version": version, "folder": str(installed.folder)}
    output.result(data, f"{environment.name} {version} is installed in {installed.folder}")


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
    from paddock.launcher.environments.build import find_environment
    from paddock.launcher.environments.build import remove as unmake

    environment = find_environment(name)
    removed = unmake(environment, settings.home)
    text = f"{environment.name} is removed" if removed else f"{environment.name} was not installed"
    output.result({"name": environment.name, "removed": removed}, text)


@engine.command(short_help="Look an engine over: does it import, does it serve?")
@click.argument("name")
@offline
def doctor(name: str, settings: Settings, output: Output) -> None:
    """Look an engine over: does it import, does it serve?

    It is imported in its environment, and started on the bundled model as a launch would start it.
    Nothing that runs is touched. The exit code is 1 if something is wrong.

    \b
    Example:
      paddock engine doctor transformers
    """
    from paddock.engines import load_engine
    from paddock.launcher.environments.doctor import examine

    adapter = load_engine(name)
    checks = list(examine(adapter, settings, output.talk))
    lines = []
    for check in checks:
        lines.append(f"{'ok' if check.ok else 'WRONG':7}{check.name}: {check.says}")
        lines += [f"       {line}" for line in check.lines]
        if check.advice:
            lines.append(f"       try: {check.advice}")
    well = all(check.ok for check in checks)
    data = {"name": adapter.name, "ok": well, "checks": [asdict(check) for check in checks]}
    output.result(data, "\n".join(lines))
    if not well:
        sys.exit(1)


def _of_model(name: str, settings: Settings) -> dict[str, list[dict[str, Any]] | str]:
    client = gateway.find(settings)
    if client is not None:
        return client.engines(name)
    from paddock.launcher.hosts.host import probe_host
    from paddock.registry.catalog import Catalog
    from paddock.server.routes.catalogue import engines_of

    index = settings.index if settings.index.exists() else None
    spec = Catalog.load(index=index, custom=settings.specs).lookup(name)
    return engines_of(spec, [probe_host(settings.home, spec.local_paths)])


def _model_table(by_engine: dict[str, list[dict[str, Any]] | str]) -> str:
    rows = []
    for name, served in by_engine.items():
        if isinstance(served, str):
            rows.append((name, "–", served))
        else:
            rows += [
                (name, row["model_format"], f"{row['model_size_in_billions']}: {quantizations}")
                for row in served
                for quantizations in [", ".join(row["quantizations"])]
            ]
    return table(("ENGINE", "FORMAT", "BILLIONS: QUANTIZATIONS, OR WHY NOT"), rows)
