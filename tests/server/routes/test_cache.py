"""Cached models, by Xinference's own client: what lies in the hub's cache, and its removal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from xinference_client import RESTfulClient

from paddock.cli import gateway as cli_gateway
from paddock.cli.main import cli
from paddock.client import Client
from paddock.registry.hubs import hub_sites
from tests.conftest import Paddock
from tests.server.asgi import call, gateway

REPOSITORY = "models--TheBloke--Mixtral-8x7B-v0.1-GGUF"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
VERSION = "mixtral-v0.1--46_7B--ggufv2--{}"


@pytest.fixture
def theirs(client: Client) -> Iterator[RESTfulClient]:
    """Xinference's client of the shared gateway."""
    made = RESTfulClient(client.endpoint)
    yield made
    made.close()


@pytest.fixture
def repository(shared_paddock: Paddock) -> Path:
    """A repository in the cache as the hub's client lays it out, with two quantizations."""
    folder = shared_paddock.home / "hf" / "hub" / REPOSITORY
    for name in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    for quantization in ("Q2_K", "Q4_K_M"):
        (folder / "blobs" / quantization).write_text(f"weights {quantization}")
        link = folder / "snapshots" / COMMIT / f"mixtral-8x7b-v0.1.{quantization}.gguf"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("../../blobs") / quantization)
    return folder


def test_cached_variants_are_listed(theirs: RESTfulClient, repository: Path) -> None:
    """A variant whose file is there is listed with its path, and no other."""
    rows = {row["quantization"]: row for row in theirs.list_cached_models("mixtral-v0.1")}
    assert set(rows) == {"Q2_K", "Q4_K_M"}
    row = rows["Q4_K_M"]
    assert row["model_version"] == VERSION.format("Q4_K_M")
    assert Path(row["path"]).parent == repository / "snapshots" / COMMIT
    assert Path(row["real_path"]) == (repository / "blobs" / "Q4_K_M").resolve()
    assert theirs.list_cached_models("tiny-mixtral") == []
    assert rows["Q2_K"] in theirs.list_cached_models()


def test_removal_deletes_what_was_announced_and_nothing_else(
    theirs: RESTfulClient, repository: Path
) -> None:
    """The link and the file of one quantization go; the other quantization stays."""
    said = theirs.list_deletable_models(VERSION.format("Q4_K_M"))
    paths = [Path(path) for path in said["paths"]]
    assert all(path.exists() for path in paths)
    assert {path.name for path in paths} == {"Q4_K_M", "mixtral-8x7b-v0.1.Q4_K_M.gguf"}
    assert theirs.confirm_and_remove_model(VERSION.format("Q4_K_M")) is True
    assert not any(path.exists() for path in paths)
    (left,) = theirs.list_cached_models("mixtral-v0.1")
    assert left["quantization"] == "Q2_K"
    assert Path(left["path"]).read_text() == "weights Q2_K"
    assert theirs.confirm_and_remove_model(VERSION.format("Q4_K_M")) is False


def test_variant_that_never_came_is_not_cached(theirs: RESTfulClient, repository: Path) -> None:
    """A repository counts by its files: of one that is not there, nothing can be removed."""
    (repository / "snapshots" / COMMIT / "mixtral-8x7b-v0.1.Q4_K_M.gguf").unlink()
    rows = theirs.list_cached_models("mixtral-v0.1")
    assert [row["quantization"] for row in rows] == ["Q2_K"]
    assert theirs.list_deletable_models(VERSION.format("Q4_K_M"))["paths"] == []


def test_unknown_version_and_other_machines_are_refused(
    theirs: RESTfulClient, repository: Path
) -> None:
    """A version of no model is not found, and another machine's cache is not looked at."""
    with pytest.raises(RuntimeError, match="unknown model version 'nothing'"):
        theirs.list_deletable_models("nothing")
    with pytest.raises(RuntimeError, match="unknown model version"):
        theirs.confirm_and_remove_model("../../etc")
    with pytest.raises(RuntimeError, match="worker_ip"):
        theirs.list_cached_models(worker_ip="192.0.2.1")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> str:
    """A hub of another package, whose adapter does not load."""
    sites: Any = hub_sites()
    site = replace(
        sites["huggingface"], name="shelf", title="Shelf", prefix="shelf", adapter="no_such:Shelf"
    )
    monkeypatch.setitem(sites, "shelf", site)
    return site.name


async def test_a_hub_that_does_not_load_is_named_beside_what_is_listed(
    home: Path, tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By both lists, and by `paddock cache list`: the hub and the reason; others' files too."""
    # Not below HF_HOME: where this test is the first to import the client, that is what stays.
    folder = tmp_path / "cache" / REPOSITORY / "snapshots" / COMMIT
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder.mkdir(parents=True)
    (folder / "mixtral-8x7b-v0.1.Q2_K.gguf").write_text("weights")
    (folder.parent.parent / "refs").mkdir()
    (folder.parent.parent / "refs" / "main").write_text(COMMIT)
    with gateway(home) as app:
        variants = (await call(app, "GET", "/v1/cache/models")).json
        repositories = (await call(app, "GET", "/v1/cache/repositories")).json
    assert [row["quantization"] for row in variants["list"]] == ["Q2_K"]
    assert [row["hub"] for row in repositories["list"]] == ["huggingface"]
    for answer in (variants, repositories):
        (one,) = answer["unusable_hubs"]
        assert one["hub"] == broken
        assert "No module named 'no_such'" in one["reason"]

    class Answers:
        """The client, with the answers of before."""

        def cache(self, name: str) -> Any:
            return variants

        def cached_repositories(self) -> Any:
            return repositories["list"]

    monkeypatch.setattr(cli_gateway, "ensure", lambda *_: Answers())
    listed = CliRunner().invoke(cli, ["cache", "list"])
    assert "Q2_K" in listed.stdout
    assert f"the hub {broken} cannot be used" in listed.stderr
