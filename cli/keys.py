"""`paddock keys`: API keys, made, listed and revoked."""

from __future__ import annotations

import time
from typing import Any

import click

from paddock.cli.options import Output, Settings, connected
from paddock.cli.output import table
from paddock.client import Client

HOW = """\
It is shown this once, and kept only as a hash. Send it as 'Authorization: Bearer KEY'; \
paddock takes it as --api-key or PADDOCK_API_KEY."""


LAST = """\
No key is left, and the gateway goes on asking for one; make another on its machine with: \
paddock keys create. To open it to everybody there, remove keys.json from its PADDOCK_HOME."""


@click.group(short_help="Make, list and revoke API keys.")
def keys() -> None:
    """Make, list and revoke API keys.

    Without an endpoint they are those of this machine's PADDOCK_HOME, whether its gateway runs or
    not: who may write there needs no key for it. With --endpoint, that gateway is asked. `create`,
    `list` and `revoke` each take --json.

    \b
    Example:
      paddock keys create --name laptop
    """


@keys.command(short_help="Make a key, and show it this once.")
@click.option("-n", "--name", default="", help="What it is for.")
@click.option(
    "--scope",
    type=click.Choice(["admin", "inference", "monitor"]),
    help="What it may do: everything, only send requests to models, or only read /metrics.  "
    "[admin; with --model inference]",
)
@click.option("-m", "--model", "models", multiple=True, help="Id of a model that it is for; again.")
@connected
def create(
    name: str, scope: str | None, models: tuple[str, ...], settings: Settings, output: Output
) -> None:
    """Make a key, and show it this once.

    From the first key on, the gateway asks everyone for one.

    \b
    Example:
      paddock keys create --name app --scope inference --model tiny-mixtral
    """
    client = _keys(settings)
    is_first = isinstance(client, _Local) and not client.is_keyed()
    created = client.create_key(name, scope or "", models)
    output.talk(f"key {created['id']}: {_reach(created)}. {HOW}")
    if is_first:
        output.talk("It is the first: the gateway asks everyone for a key now.")
    output.result(created, created["key"])


@keys.command(name="list", short_help="List the keys, without the keys themselves.")
@connected
def list_keys(settings: Settings, output: Output) -> None:
    """List the keys, without the keys themselves.

    \b
    Example:
      paddock keys list --json
    """
    listed = _keys(settings).keys()
    rows = [(row["id"], row["name"], row["scope"], _models(row), _day(row)) for row in listed]
    text = table(("ID", "NAME", "SCOPE", "MODELS", "CREATED"), rows)
    output.result(listed, text if listed else "there is no key; try: paddock keys create")


@keys.command(short_help="Revoke a key: it is refused from now on.")
@click.argument("key_id", metavar="ID")
@connected
def revoke(key_id: str, settings: Settings, output: Output) -> None:
    """Revoke a key: it is refused from now on.

    The gateway goes on asking for a key when the last one is revoked. To open a gateway on
    127.0.0.1 to everybody on its machine again, remove keys.json from its PADDOCK_HOME.

    \b
    Example:
      paddock keys revoke 1a2b3c4d
    """
    client = _keys(settings)
    # Asked before: with the key that is revoked the gateway cannot be asked afterwards.
    before = client.keys()
    gone = client.revoke_key(key_id)
    if len(before) == 1:
        output.talk(LAST)
    output.result({**gone, "revoked": True}, f"key {key_id} is revoked")


class _Local:
    """The keys of this machine's home, by the client's methods."""

    def __init__(self, settings: Settings) -> None:
        from paddock.server.access.keys import KeyStore

        self._store = KeyStore(settings.home)

    def create_key(self, name: str, scope: str, models: tuple[str, ...]) -> dict[str, Any]:
        return self._store.create(name, scope, models).to_json()

    def is_keyed(self) -> bool:
        return self._store.is_keyed()

    def keys(self) -> list[dict[str, Any]]:
        return [key.to_json() for key in self._store.listing()]

    def revoke_key(self, key_id: str) -> dict[str, Any]:
        return self._store.revoke(key_id).to_json()


def _keys(settings: Settings) -> Client | _Local:
    if settings.endpoint:
        return Client(settings.endpoint, settings.api_key)
    return _Local(settings)


def _reach(row: dict[str, Any]) -> str:
    if row["scope"] == "monitor":
        return "monitor, for /metrics"
    return f"{row['scope']}, for {', '.join(row['models']) or 'all models'}"


def _models(row: dict[str, Any]) -> str:
    return "-" if row["scope"] == "monitor" else ", ".join(row["models"]) or "all"


def _day(row: dict[str, Any]) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))
