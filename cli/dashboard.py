"""`paddock dashboard`."""

from __future__ import annotations

import os
import sys

import click

from paddock.cli import gateway
from paddock.cli.options import Output, Settings, connected
from paddock.registry.errors import NotBuilt
from paddock.web import is_built


@click.command(short_help="Open the dashboard in a browser.")
@click.option("--no-open", is_flag=True, help="Only print its address.")
@connected
def dashboard(no_open: bool, settings: Settings, output: Output) -> None:
    """Open the dashboard in a browser.

    The address is printed too. Where there is no screen, or with --json, nothing else is done.

    \b
    Example:
      paddock dashboard
    """
    if not settings.endpoint and not is_built():
        raise NotBuilt
    client = gateway.ensure(settings, output)
    client.health()  # an endpoint that was named may be wrong
    url = gateway.dashboard_address(client.endpoint)
    output.result({"dashboard": url}, url)
    if not no_open and not output.as_json and _has_screen():
        import webbrowser

        if not webbrowser.open(url):
            output.talk("no browser could be started; open the address in one")


def _has_screen() -> bool:
    """Whether a browser with windows can be shown; one for terminals could not run the page."""
    variables = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    return sys.platform == "darwin" or any(os.environ.get(name) for name in variables)
