"""Fixtures of downloads from end to end: a hub on loopback, and a command line that believes it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.conftest import ENGINES, Paddock, ended, make_paddock
from tests.fakes import HubServer, hub_server


def believing(paddock: Paddock, hub: HubServer) -> Paddock:
    """The command line, for which the hub on loopback is both hubs."""
    environ = {k: v for k, v in paddock.environ.items() if "proxy" not in k.lower()}
    environ |= {"HF_ENDPOINT": hub.endpoint, "MODELSCOPE_ENDPOINT": hub.endpoint}
    return replace(paddock, environ=environ)


@pytest.fixture(scope="session")
def loopback() -> Iterator[HubServer]:
    """The hub itself; `hub` gives it to a test as if it were new."""
    with hub_server() as server:
        yield server


@pytest.fixture(scope="session")
def fetching(tmp_path_factory: pytest.TempPathFactory, loopback: HubServer) -> Iterator[Paddock]:
    """One gateway and one Ray for all tests that download; `here` gives it emptied."""
    yield from ended(believing(make_paddock(tmp_path_factory.mktemp("fetching")), loopback))


@pytest.fixture(scope="session")
def equipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paddock]:
    """One gateway and one Ray for engines with an environment; ask for those engines' homes too."""
    home = tmp_path_factory.mktemp("equipped")
    (home / "engines").symlink_to(ENGINES / "engines")
    yield from ended(make_paddock(home))


@pytest.fixture
def empty_hub(loopback: HubServer) -> HubServer:
    """A hub that has nothing and was asked for nothing."""
    loopback.forget()
    return loopback


@pytest.fixture
def here(fetching: Paddock, hub: HubServer) -> Iterator[Paddock]:
    """A command line over one gateway for all, in which nothing is launched, fetched or derived.

    `hub`, which each module has for itself, is both hubs. What is registered goes with the test.
    """
    yield replace(fetching, environ=dict(fetching.environ))
    client = fetching.client()
    for pull in client.pulls():
        client.cancel_pull(pull["id"])
    for model in client.instances():
        client.terminate(model["model_uid"])
    assert client.instances() == []
    for path in (fetching.home / "specs").glob("*.yaml"):
        client.unregister(path.stem)
    for folder in ("hf", "modelscope", "derived", "cache/whole", "cache/listings", "cache/here"):
        shutil.rmtree(fetching.home / folder, ignore_errors=True)
    for file in ("consents.json", "cache/unreachable.json", "cache/offers.json"):
        (fetching.home / file).unlink(missing_ok=True)


@pytest.fixture
def alone(paddock: Paddock, hub: HubServer) -> Paddock:
    """As `here`, with a home and a gateway of the test's own."""
    return believing(paddock, hub)
