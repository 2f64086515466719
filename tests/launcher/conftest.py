"""Fixtures of downloads: a hub on loopback, and terms that are quick."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.launcher.weights import Terms
from tests.fakes import HubServer, hub_server

DATA = b"GGUF" + os.urandom(300_000)
REPO = "keeper/zoo-GGUF"
FILE = "zoo.Q4_0.gguf"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A hub that both clients take for theirs, with one repository."""
    with hub_server() as server:
        server.repos[REPO] = {FILE: DATA, "zoo.Q8_0.gguf": b"other", "config.json": b"{}"}
        for variable in [name for name in os.environ if "proxy" in name.lower()]:
            monkeypatch.delenv(variable)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.endpoint)
        yield server


@pytest.fixture
def terms(home: Path) -> Terms:
    return Terms(home, timeout=2.0, silence=2.0, tries=3, pause=0.01)
