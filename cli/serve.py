"""`paddock serve`."""

from __future__ import annotations

import sys

import click

from paddock.cli.errors import ALREADY_RUNS
from paddock.registry.settings import read_settings


@click.command(short_help="Run the gateway in this terminal.")
@click.option("-H", "--host", help="Address to listen on.  [PADDOCK_HOST; 127.0.0.1]")
@click.option("-p", "--port", type=int, help="Port; 0 picks a free one.  [PADDOCK_PORT; 9997]")
@click.option("--ray-address", help="Ray cluster to use in place of a local one.  [RAY_ADDRESS]")
@click.option("--log-level", help="debug, info, warning or error.  [PADDOCK_LOG_LEVEL; info]")
@click.option("--json", "as_json", is_flag=True, help="Print the endpoint as JSON once it answers.")
def serve(as_json: bool, **flags: object) -> int | None:
    """Run the gateway in this terminal.

    Ctrl-C ends the gateway and leaves the models serving, for the next gateway to take up;
    `paddock stop` ends those too.

    \b
    Example:
      paddock serve --port 9997
    """
    settings = read_settings(flags)
    from paddock.cli.output import Output
    from paddock.server.run import AlreadyRuns
    from paddock.server.run import serve as run

    output = Output(as_json)
    try:
        run(
            settings,
            lambda endpoint: output.result({"endpoint": endpoint}, f"Paddock at {endpoint}"),
        )
    except AlreadyRuns as error:
        print(f"paddock: {error}", file=sys.stderr)
        return ALREADY_RUNS
    except KeyboardInterrupt:
        return 0
    return 0
