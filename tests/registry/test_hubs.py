"""The table of hubs: what is built in, what packages add, and what each part reads from it."""

from __future__ import annotations

import importlib.metadata
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paddock.registry.catalog import Catalog
from paddock.registry.custom import to_yaml
from paddock.registry.derive.spec import _homepage
from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.hubs import (
    BUILT_IN,
    HubSite,
    Page,
    added_hubs,
    find_hub,
    find_prefix,
    hub_names,
    hub_site,
    hub_sites,
)
from paddock.registry.reference import Reference, hosts, is_reference, parse_reference
from paddock.registry.schema import json_schema
from paddock.registry.settings import read_settings
from paddock.registry.spec import ModelSpec, Source

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ZOO = HubSite(
    name="zoo",
    title="The Zoo",
    prefix="zoo",
    adapter="zoo:Zoo",
    hosts=("zoo.example",),
    endpoint_variable="ZOO_ENDPOINT",
    addresses=("m/{id}", "m/{id}/raw/{revision}/{file}"),
    texts_excluded=("..", "__"),
)


def site(**changes: Any) -> HubSite:
    """The zoo, otherwise."""
    return HubSite(**{**{key: getattr(ZOO, key) for key in ZOO.__dataclass_fields__}, **changes})


@pytest.fixture
def adding(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Adds hubs as other packages do."""

    def add(**sites: Any) -> None:
        values = SimpleNamespace(**sites)
        monkeypatch.setitem(sys.modules, "zoo_package", values)  # type: ignore[arg-type]
        points = importlib.metadata.EntryPoints(
            importlib.metadata.EntryPoint(name, f"zoo_package:{name}", "paddock.hubs")
            for name in (*sites, "lost")
        )
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
        hub_sites.cache_clear()

    hub_sites.cache_clear()
    yield add
    hub_sites.cache_clear()


def test_other_packages_add_hubs_and_replace_none(
    adding: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """A built-in name or prefix stays what it is; what cannot be read is left out with a reason."""
    adding(
        zoo=ZOO,
        named=site(name="huggingface", prefix="evil"),
        prefixed=site(name="evil", prefix="ms"),
        again=site(name="zoo", prefix="zoo2"),
        odd="no hub",
    )
    with caplog.at_level(logging.WARNING):
        assert hub_names() == ("huggingface", "modelscope", "zoo")
    assert added_hubs() == ["zoo"]
    assert find_prefix("zoo") is hub_site("zoo") is ZOO
    assert find_prefix("hf") is find_hub("huggingface") is BUILT_IN[0]
    assert "odd of paddock.hubs is left out: zoo_package:odd is no HubSite" in caplog.text
    assert "lost of paddock.hubs is left out: zoo_package:lost cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "local"}, "hub 'local'"),
        ({"name": "auto"}, "hub 'auto'"),
        ({"name": "a:b"}, "hub 'a:b'"),
        ({"prefix": "https"}, "hub prefix 'https'"),
        ({"prefix": "z:"}, "hub prefix 'z:'"),
        ({"hosts": ()}, "must have a host"),
    ],
)
def test_a_hub_whose_names_could_be_mistaken_is_refused(changes: Any, says: str) -> None:
    """Names are parts of references and of keys, and some stand for other things."""
    with pytest.raises(BadValue, match=says):
        site(**changes)


def test_everything_that_names_hubs_knows_an_added_one(adding: Callable[..., None]) -> None:
    """References, addresses, specs, settings, the schema and homepages."""
    adding(zoo=ZOO)
    lion = Reference("zoo", "keeper/lion", "v1", "lion.gguf")
    known = hosts({"ZOO_ENDPOINT": "http://127.0.0.1:80"})
    assert is_reference("zoo:keeper/lion")
    assert parse_reference("zoo:keeper/lion@v1/lion.gguf", known) == lion
    for host in ("https://zoo.example", "http://127.0.0.1:80"):
        assert parse_reference(f"{host}/m/keeper/lion/raw/v1/lion.gguf", known) == lion
    assert lion.text == "zoo:keeper/lion@v1/lion.gguf"
    assert not Reference("zoo", "keeper/lion", COMMIT).pinned
    assert _homepage(lion) == "https://zoo.example/m/keeper/lion"
    with pytest.raises(BadValue, match="'__' is not allowed in ids on The Zoo"):
        parse_reference("zoo:keeper/li__on", known)
    with pytest.raises(BadValue, match="zoo:owner/name"):
        parse_reference("mixtral", known)
    assert Source(hub="zoo", id="keeper/lion").hub == "zoo"
    assert read_settings({"hub": "Zoo"}, {}).hub == "zoo"
    schema = json_schema()["$defs"]["Source"]["properties"]["hub"]
    assert schema["enum"] == ["huggingface", "modelscope", "zoo", "local", "path"]


def test_an_unknown_hub_is_refused_by_name() -> None:
    """With the hubs that there are."""
    with pytest.raises(
        ValueError, match="'huggingface', 'modelscope', 'local' or 'path', not 'zo'"
    ):
        Source(hub="zo", id="a/b")
    with pytest.raises(BadValue, match="must be huggingface, modelscope or auto"):
        read_settings({"hub": "zo"}, {})
    with pytest.raises(UnknownName, match=r"unknown hub 'zo' \(known: huggingface, modelscope\)"):
        hub_site("zo")


def test_addresses_are_read_by_their_forms() -> None:
    """Each part of the form takes what it may, and nothing is left over."""
    assert ZOO.read(["m", "a", "b"]) == Page("a/b")
    assert ZOO.read(["m", "a", "b", "raw", "v/1", "x", "y"]) == Page("a/b", "v/1", "x/y")
    for segments in (
        *([], ["m"], ["m", "a"], ["m", "a/b"], ["n", "a", "b"], ["m", "a", "b", "c"]),
        ["m", "a", "b", "raw", "v1"],
    ):
        assert ZOO.read(segments) is None
    assert BUILT_IN[0].read(["datasets", "a"]) is None
    assert BUILT_IN[0].page("a/b") == "https://huggingface.co/a/b"
    assert BUILT_IN[1].page("a/b") == "https://modelscope.cn/models/a/b"
    assert BUILT_IN[0].is_commit(COMMIT)
    assert not BUILT_IN[0].is_commit("main")
    assert not BUILT_IN[1].is_commit(COMMIT)


def test_specs_follow_the_packages_that_are_there(
    adding: Callable[..., None], home: Path, tmp_path: Path
) -> None:
    """A compiled catalogue is read anew once a hub has come or gone."""
    adding(zoo=ZOO)
    spec = Catalog.load().lookup("tiny-mixtral").model_dump(mode="json")
    spec |= {"name": "lion", "aliases": (), "recommended": ()}
    weights = dict(spec["weights"][0], sources=[{"hub": "zoo", "id": "keeper/{quantization}"}])
    spec["weights"] = [weights | {"format": "gptq", "quantizations": ["Int4"], "size_bytes": {}}]
    folder, index = tmp_path / "specs", tmp_path / "index"
    folder.mkdir()
    (folder / "lion.yaml").write_text(to_yaml(ModelSpec.model_validate(spec)))
    for sites, problems in (({"zoo": ZOO}, 0), ({}, 1), ({"zoo": ZOO}, 0)):
        adding(**sites)
        for _ in range(2):  # compiled, and from the index
            catalog = Catalog.load([folder], index=index)
            assert len(catalog.problems) == problems
            assert len(list(catalog)) == 1 - problems
    adding()
    (problem,) = Catalog.load([folder], index=index).problems
    assert "not 'zoo'" in str(problem)


def test_built_in_names_need_no_look_up_of_packages() -> None:
    """It takes longer than all else that a quick command does."""
    code = (
        "import sys; from paddock.registry.hubs import find_hub, find_prefix;"
        "from paddock.registry.reference import is_reference;"
        "find_hub('huggingface'), find_hub('path'), find_prefix('ms');"
        "is_reference('mixtral-v0.1'), is_reference('hf:a/b');"
        "from paddock.registry.settings import read_settings;"
        "read_settings({}, {'PADDOCK_HUB': 'modelscope'});"
        "heavy = ('importlib.metadata', 'pydantic', 'paddock.launcher');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
