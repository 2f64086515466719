"""A hub of another package, by the command line: shown, brought, listed and removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paddock.registry.catalog import specs_root
from tests.conftest import Paddock
from tests.examples import install
from tests.fakes import HubServer

REPO = "keeper/lion-GGUF"
FILE = "lion.Q4_K_M.gguf"
TINY = specs_root() / "weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf"


@pytest.fixture
def hub(empty_hub: HubServer) -> HubServer:
    """A hub that the example's package takes for its own."""
    empty_hub.repos[REPO] = {FILE: TINY.read_bytes()}
    return empty_hub


def test_one_file_adds_a_hub(alone: Paddock, hub: HubServer, tmp_path: Path) -> None:
    """References, specs, downloads and the cache know it; without the package they say so."""
    alone.environ.update(
        PYTHONPATH=str(install(tmp_path / "site", "example-hub")),
        SHELF_ENDPOINT=hub.endpoint,
        SHELF_CACHE=str(tmp_path / "shelf"),
    )
    assert "huggingface, modelscope, shelf or auto" in alone.ok("pull", "--help")
    spec = tmp_path / "lion.yaml"
    spec.write_text(alone.ok("show", f"shelf:{REPO}"))
    assert "homepage: https://shelf.example/keeper/lion-GGUF" in spec.read_text()
    alone.ok("pull", f"https://shelf.example/{REPO}")
    path = tmp_path / "shelf" / REPO / "main" / FILE
    assert path.read_bytes() == TINY.read_bytes()
    (row,) = alone.json("cache", "list")["list"]
    assert (row["model_hub"], row["source"], row["path"]) == ("shelf", REPO, str(path))
    (repository,) = alone.client().cached_repositories()
    assert (repository["hub"], repository["id"]) == ("shelf", REPO)
    alone.ok("register", "--file", str(spec))
    plan = alone.json("launch", "lion-GGUF", "--download-hub", "shelf", "--dry-run")
    assert (plan["weights"]["hub"], plan["weights"]["here"]) == ("shelf", True)
    alone.ok("cache", "remove", "lion-GGUF", "-q", "Q4_K_M")
    assert not path.exists()
    empty: dict[str, list[Any]] = {"list": [], "repositories": [], "unusable_hubs": []}
    assert alone.json("cache", "list") == empty

    alone.ok("stop")
    alone.environ["PYTHONPATH"] = ""
    refused = alone.run("register", "--file", str(spec))
    assert refused.returncode == 2
    assert "must be 'huggingface', 'modelscope', 'local' or 'path', not 'shelf'" in refused.stderr
    refused = alone.run("pull", f"shelf:{REPO}")
    assert refused.returncode == 2
    assert f"unknown model 'shelf:{REPO}'" in refused.stderr
    assert "not 'shelf'" in alone.run("registrations").stderr
    assert alone.json("cache", "list") == empty
