"""`paddock search` and `registrations`, without a gateway."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from paddock.cli.catalogue import registrations
from paddock.cli.search import search
from paddock.launcher.hosts.host import probe_host
from paddock.launcher.planning import servable
from paddock.launcher.planning.plan import LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.planning.servable import read_offers
from paddock.registry.catalog import Catalog, specs_root
from paddock.registry.settings import read_settings
from tests.conftest import open_to_others


def run(*arguments: str) -> Any:
    done = CliRunner().invoke(search, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.stdout)


def test_what_a_search_keeps_is_for_its_user_alone(home: Path, umask: None) -> None:
    """Also where it makes the home."""
    run("mixtral")
    assert list((home / "cache").iterdir())
    assert open_to_others(home) == set()


def test_the_table_says_what_can_be_served_here() -> None:
    """Each model with its smallest variant for this machine, or that there is none."""
    done = CliRunner().invoke(search, ["mixtral"])
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert next(iter(lines)) == "MODEL"
    assert lines["tiny-mixtral"].endswith("ggufv2 Q2_K, 1.8 MB")
    assert "ggufv2 Q2_K, 15.6" in lines["mixtral-v0.1"]
    done = CliRunner().invoke(search, ["bge-base-en-v1.5"])
    assert "no engine here serves it" in done.stdout


def test_what_fits_is_what_a_launch_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --fits each model names the variant that its plan has, and too large ones are gone."""
    host = probe_host(read_settings().home)
    host = replace(host, memory_free_bytes=host.memory_total_bytes)
    monkeypatch.setattr(
        "paddock.launcher.hosts.machine.memory",
        lambda: (host.memory_total_bytes, host.memory_free_bytes),
    )
    found = {model["name"]: model["fits"] for model in run("--fits")["models"]}
    catalog = Catalog.load()
    for name in ("tiny-mixtral", "bge-m3", "qwen2.5-instruct", "llama-3.2-vision-instruct"):
        if name in found:
            plan = resolve(LaunchRequest(model_name=name), catalog, [host])
            here = found[name]
            assert here["quantization"] == plan.quantization
            assert (here["model_engine"], here["size_bytes"]) == (
                plan.engine,
                plan.weights.size_bytes,
            )
    monkeypatch.setattr("paddock.launcher.hosts.machine.memory", lambda: (10**8, 10**8))
    small = run("--fits")
    assert [model["name"] for model in small["models"]] == ["tiny-mixtral"]
    assert small["memory_free_bytes"] == 10**8
    done = CliRunner().invoke(search, ["mixtral-v0.1", "--fits"])
    assert "can be served here" in done.stdout


def test_nothing_found_is_said_with_near_names() -> None:
    """It is no error, and JSON has the names too."""
    done = CliRunner().invoke(search, ["mixtrel-v0.1"])
    assert done.exit_code == 0
    assert "did you mean mixtral-v0.1" in done.stdout
    done = CliRunner().invoke(search, ["bge-m3", "--size-in-billions", "70"])
    assert "none has what the options ask for" in done.stdout
    found = run("mixtrel-v0.1")
    assert found["models"] == []
    assert "mixtral-v0.1" in found["near"]


def test_models_of_ones_own_are_found(home: Path) -> None:
    """As soon as the file is there; and one of its variants is served from a path."""
    assert run("zebra")["models"] == []
    spec = yaml.safe_load((specs_root() / "llm" / "tiny-mixtral.yaml").read_text())
    weights = spec["weights"][-1] | {
        "sources": [
            {"hub": "path", "id": str(home / "zoo"), "file_template": "z.{quantization}.gguf"}
        ]
    }
    spec |= {"name": "zebra", "weights": [weights]}
    (home / "specs").mkdir(parents=True)
    (home / "specs" / "zebra.yaml").write_text(yaml.safe_dump(spec))
    (model,) = run("zebra")["models"]
    assert (model["name"], model["here"]) == ("zebra", None)
    (home / "zoo").mkdir()
    (home / "zoo" / "z.Q4_K_M.gguf").write_bytes(b"x" * 1000)
    (model,) = run("zebra")["models"]
    assert (model["here"]["quantization"], model["here"]["size_bytes"]) == ("Q4_K_M", 1000)


def test_offers_are_made_once(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The second search reads the file; another PATH or an engine that comes makes it anew."""
    settings = read_settings()
    catalog = Catalog.load(index=settings.index, custom=settings.specs)
    specs = list(catalog.raw())
    first = read_offers(catalog, specs, settings)
    made: list[int] = []

    def make(*_: object) -> Any:
        made.append(1)
        return first

    monkeypatch.setattr(servable, "_make", make)
    assert read_offers(catalog, specs, settings) == first
    assert made == []
    monkeypatch.setenv("PATH", os.environ["PATH"] + os.pathsep + str(tmp_path))
    assert read_offers(catalog, specs, settings) == first
    assert made == [1]
    (home / "cache" / "offers.json").write_text("{")
    assert read_offers(catalog, specs, settings) == first
    assert made == [1, 1]


def test_the_catalogue_as_json_is_whole() -> None:
    """Every spec with every field, defaults too, though no type is made of it."""
    done = CliRunner().invoke(registrations, ["--json"])
    assert json.loads(done.stdout)["models"] == [
        spec.model_dump(mode="json") for spec in Catalog.load()
    ]
