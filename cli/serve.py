"""`paddock serve`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from paddock.cli import gateway
from paddock.cli.errors import ALREADY_RUNS
from paddock.registry.settings import read_settings

if TYPE_CHECKING:
    from paddock.cli.output import Output
    from paddock.server.http.run import Started


@click.command(short_help="Run the gateway in this terminal.")
@click.option("-H", "--host", help="Address to listen on.  [PADDOCK_HOST; 127.0.0.1]")
@click.option("-p", "--port", type=int, help="Port; 0 picks a free one.  [PADDOCK_PORT; 9997]")
@click.option("--ray-address", help="Ray cluster to use in place of a local one.  [RAY_ADDRESS]")
@click.option("--log-level", help="debug, info, warning or error.  [PADDOCK_LOG_LEVEL; info]")
@click.option("--json", "as_json", is_flag=True, help="Print the endpoint as JSON once it answers.")
def serve(as_json: bool, **flags: object) -> int | None:
    """Run the gateway in this terminal.

    Ctrl-C ends the gateway and leaves the models serving, for the next gateway to take up;
    `paddock stop` ends those too. On an address that others can reach, every request needs a key;
    the first is made at the first such start, and shown then.

    \b
    Example:
      paddock serve --port 9997
    """
    settings = read_settings(flags)
    from paddock.cli.output import Output
    from paddock.server.http.run import AlreadyRuns
    from paddock.server.http.run import serve as run

    output = Output(as_json)
    gateway.open_home(settings)
    try:
        run(
            settings,
            lambda started: _say(started, output),
        )
    except AlreadyRuns as error:
        print(f"paddock: {error}", file=sys.stderr)
        return ALREADY_RUNS
    except KeyboardInterrupt:
        return 0
    return 0


def _say(started: Started, output: Output) -> None:
    if started.minted:
        output.talk(gateway.introduced(started.minted))
    elif started.keyed:
        output.talk("requests need an API key; to make another: paddock keys create")
    output.result({"endpoint": started.endpoint}, f"Paddock at {started.endpoint}")
    gateway.say_dashboard(started.endpoint, output)
