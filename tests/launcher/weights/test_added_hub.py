"""A hub of another package, in one file: its weights come, are found again, listed and removed."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paddock.launcher.planning.plan import PlannedFile, PlannedWeights
from paddock.launcher.weights import Terms, fetch, load_hub
from paddock.launcher.weights.base import Repository
from paddock.launcher.weights.cache import Cache
from paddock.registry.errors import HubFailure, UnknownName
from paddock.registry.hubs import hub_names, hub_sites
from paddock.registry.spec import Source, Variant
from tests.examples import install
from tests.fakes import Fault, HubServer
from tests.launcher.conftest import DATA, FILE, REPO

pytestmark = pytest.mark.hubs


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub: HubServer) -> Iterator[Path]:
    """The folder of the added hub's cache; the package is installed, and its hub is `hub`."""
    monkeypatch.syspath_prepend(str(install(tmp_path / "site", "example-hub")))
    monkeypatch.setenv("SHELF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("SHELF_CACHE", str(tmp_path / "shelf"))
    hub_sites.cache_clear()
    yield tmp_path / "shelf"
    hub_sites.cache_clear()


def weights(name: str = "shelf") -> PlannedWeights:
    file = PlannedFile(name=FILE, size_bytes=len(DATA))
    return PlannedWeights(hub=name, id=REPO, files=(file,), size_bytes=len(DATA), here=False)


def variant(*hubs: str) -> Variant:
    return Variant(
        model="zoo",
        format="ggufv2",
        size="1",
        quantization="Q4_0",
        engines=("llama.cpp",),
        sources=tuple(Source(hub=name, id=REPO, file_template=FILE) for name in hubs),
    )


def get(planned: PlannedWeights, terms: Terms) -> Path:
    path = fetch(planned, terms, lambda _: None, threading.Event())
    assert path is not None
    return path


@pytest.mark.usefixtures("cached")
def test_an_adapter_is_what_its_row_says() -> None:
    """Of every hub, built in or not: the same name and title, and an endpoint."""
    assert hub_names() == ("huggingface", "modelscope", "shelf")
    for name, site in hub_sites().items():
        adapter = load_hub(name)
        assert (adapter.name, adapter.title) == (name, site.title)
        assert adapter.endpoint.startswith("http")
        assert adapter.default_revision
    with pytest.raises(UnknownName, match="unknown hub 'shelve'; did you mean shelf"):
        load_hub("shelve")


@pytest.mark.parametrize("name", ["huggingface", "modelscope", "shelf"])
@pytest.mark.usefixtures("cached")
def test_weights_come_are_listed_and_removed(hub: HubServer, terms: Terms, name: str) -> None:
    """The same for every hub: resumed, not asked for again, checked, and gone without a trace."""
    hub.fail(FILE, Fault(after=1000))
    path = get(weights(name), terms)
    assert path.read_bytes() == DATA
    assert hub.ranges == [(FILE, 0), (FILE, 1000)]
    hub.asked.clear()
    assert get(weights(name), terms) == path
    assert hub.asked == []

    cache, zoo = Cache(terms.home), variant(name)
    (one,) = cache.cached([zoo])
    assert (one.path, one.source.hub, one.checked) == (path, name, True)
    (repository,) = cache.repositories()
    assert (repository.hub, repository.id, repository.part_bytes) == (name, REPO, 0)
    assert repository.size_bytes >= len(DATA)
    (verdict,) = cache.verify(zoo)
    assert verdict.is_intact
    assert verdict.digest == f"sha256:{hashlib.sha256(DATA).hexdigest()}"

    removable = cache.removable(zoo)
    assert path in removable
    assert cache.remove(zoo)
    assert not any(gone.exists() for gone in removable)
    assert (cache.cached([zoo]), cache.repositories()) == ([], [])
    assert not cache.remove(zoo)


def test_a_variant_is_removed_from_every_hub_that_has_it(
    cached: Path, hub: HubServer, terms: Terms
) -> None:
    """Other files of its repositories stay."""
    names = ("huggingface", "modelscope", "shelf")
    paths = [get(weights(name), terms) for name in names]
    other = paths[2].with_name("zoo.Q8_0.gguf")
    other.write_bytes(b"other")
    cache = Cache(terms.home)
    assert [one.hub for one in cache.repositories()] == [*names]
    assert set(paths) <= set(cache.removable(variant(*names)))
    assert cache.remove(variant(*names))
    assert not any(path.exists() for path in paths)
    assert cache.repositories() == [Repository("shelf", REPO, cached / REPO, 5, 0)]


@pytest.mark.usefixtures("cached")
def test_its_failures_have_causes(hub: HubServer, terms: Terms) -> None:
    """What is not there, and what breaks off for good."""
    hub.repos.clear()
    with pytest.raises(HubFailure, match="Shelf answered 404 for keeper/zoo-GGUF") as caught:
        get(weights(), terms)
    assert caught.value.cause == "not_found"
    hub.fail("api", *[Fault(status=503)] * 9)
    with pytest.raises(HubFailure, match=re.escape("HTTP 503")) as caught:
        get(weights(), terms)
    assert caught.value.cause == "hub_unreachable"


@pytest.mark.usefixtures("hub")
def test_a_hub_that_does_not_load_is_named_and_hides_no_other(
    cached: Path, terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other hubs' entries are listed; what would touch its cache says why it cannot."""
    path = get(weights("huggingface"), terms)
    get(weights(), terms)
    sites: Any = hub_sites()
    monkeypatch.setitem(sites, "shelf", replace(sites["shelf"], adapter="no_such_module:Shelf"))
    cache, zoo = Cache(terms.home), variant("shelf", "huggingface")
    assert [(one.path, one.source.hub) for one in cache.cached([zoo])] == [(path, "huggingface")]
    assert [one.hub for one in cache.repositories()] == ["huggingface"]
    ((name, reason),) = cache.unusable_hubs().items()
    assert name == "shelf"
    assert "No module named 'no_such_module'" in reason
    for act in (cache.verify, cache.removable, cache.remove):
        with pytest.raises(HubFailure, match="the hub shelf cannot be used"):
            act(zoo)
    assert path.exists()
    assert cached.exists()
