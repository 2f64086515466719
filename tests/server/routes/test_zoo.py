"""The catalogue as a page shows it, and one model of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from starlette.types import ASGIApp

from paddock.cli.catalogue import estimate
from paddock.cli.search import search
from paddock.launcher.weights.verified import Records
from paddock.registry.catalog import Catalog, specs_root
from tests.server.asgi import Answer, gateway, head, send


@pytest.fixture
def app(home: Path) -> Iterator[ASGIApp]:
    """A gateway without models, in this process."""
    with gateway(home) as app:
        yield app


async def ask(app: ASGIApp, query: str = "", path: str = "/v1/zoo") -> Any:
    answer = await send(app, head("GET", path, {}, query))
    assert answer.status == 200, answer.body
    return answer.json


async def refused(app: ASGIApp, query: str) -> Answer:
    return await send(app, head("GET", "/v1/zoo", {}, query))


def own_spec(home: Path, folder: Path) -> None:
    """Registers `zebra`, tiny-mixtral with its one GGUF at a path."""
    spec = yaml.safe_load((specs_root() / "llm" / "tiny-mixtral.yaml").read_text())
    source = {"hub": "path", "id": str(folder), "file_template": "z.{quantization}.gguf"}
    spec |= {"name": "zebra", "weights": [spec["weights"][-1] | {"sources": [source]}]}
    (home / "specs").mkdir(parents=True, exist_ok=True)
    (home / "specs" / "zebra.yaml").write_text(yaml.safe_dump(spec))


async def test_the_route_and_the_command_find_the_same(app: ASGIApp) -> None:
    """Every model with the same fields in the same order, whatever is asked for."""
    for query, words in (
        ("", []),
        ("q=qwen+coder&size=..8", ["qwen", "coder", "-s", "..8"]),
        ("ability=vision&ability=tools&type=LLM", ["-a", "vision", "-a", "tools", "-t", "LLM"]),
        ("format=gptq&format=awq&language=en", ["-f", "gptq", "-f", "awq", "-l", "en"]),
        ("engine=sentence-transformers&q=bge", ["-en", "sentence-transformers", "bge"]),
    ):
        done = CliRunner().invoke(search, [*words, "--json"], catch_exceptions=False)
        said = json.loads(done.stdout)["models"]
        found = (await ask(app, query))["models"]
        for model in (*said, *found):
            model.pop("fits", None)  # follows the free memory, which moves
        assert found == said
        assert found


async def test_what_is_here_is_told(app: ASGIApp) -> None:
    """The bundled model is cached, served and fits; one without weights or an engine is none."""
    answer = await ask(app)
    models = {model["name"]: model for model in answer["models"]}
    tiny = models["tiny-mixtral"]
    assert (tiny["builtin"], tiny["cached"]) == (True, True)
    assert tiny["here"]["model_engine"] == tiny["fits"]["model_engine"] == "llama.cpp"
    assert models["bge-base-en-v1.5"]["cached"] is False
    assert models["bge-base-en-v1.5"]["here"] is None
    assert 0 < answer["memory_free_bytes"] <= answer["memory_total_bytes"]
    assert answer["disk_free_bytes"] > 0


async def test_only_what_fits_is_listed(app: ASGIApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `fits` a machine of a hundred megabytes is offered the bundled model alone."""
    monkeypatch.setattr("paddock.launcher.hosts.machine.memory", lambda: (10**8, 10**8))
    models = (await ask(app, "fits=true"))["models"]
    assert [model["name"] for model in models] == ["tiny-mixtral"]


async def test_weights_that_come_and_go_are_seen(app: ASGIApp, home: Path, tmp_path: Path) -> None:
    """A model of one's own is listed at once, and is cached while its file is there."""
    assert (await ask(app, "q=zebra"))["models"] == []
    own_spec(home, tmp_path / "zoo")
    (model,) = (await ask(app, "q=zebra"))["models"]
    assert (model["builtin"], model["cached"], model["here"]) == (False, False, None)
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "z.Q4_K_M.gguf").write_bytes(b"x" * 1000)
    (model,) = (await ask(app, "q=zebra"))["models"]
    assert (model["cached"], model["here"]["size_bytes"]) == (True, 1000)
    shutil.rmtree(tmp_path / "zoo")
    (model,) = (await ask(app, "q=zebra"))["models"]
    assert (model["cached"], model["here"]) == (False, None)


async def test_weights_that_another_tool_removes_are_seen(
    app: ASGIApp, home: Path, tmp_path: Path
) -> None:
    """What came from a hub counts as cached until its file is gone, whoever removed it."""
    query = "q=bge-base-en-v1.5"
    assert not (await ask(app, query))["models"][0]["cached"]
    source = Catalog.load().lookup("bge-base-en-v1.5").variants[0].sources[0]
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x")
    records = Records(home)
    records.note(file, "")
    records.mark_complete(source, [file])
    assert (await ask(app, query))["models"][0]["cached"]
    file.unlink()
    assert not (await ask(app, query))["models"][0]["cached"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("ability=visoin", "did you mean vision"),
        ("size=small", "billions of parameters"),
        ("fits=perhaps", "must be true or false"),
    ],
)
async def test_wrong_filters_are_refused(app: ASGIApp, query: str, says: str) -> None:
    """A value that no model has is a 400 that names it and what was meant."""
    answer = await refused(app, query)
    assert answer.status == 400
    assert says in answer.json["detail"]


async def test_each_variant_says_who_can_serve_it(app: ASGIApp) -> None:
    """llama.cpp serves the GGUF; an engine that is not installed says how it would be."""
    page = await ask(app, path="/v1/zoo/tiny-mixtral")
    rows = {(row["model_format"], row["quantization"]): row for row in page["variants"]}
    assert page["name"] == "tiny-mixtral"
    gguf = rows["ggufv2", "Q4_K_M"]
    assert gguf["engines"]["llama.cpp"] is None
    assert "not ggufv2" in gguf["engines"]["Transformers"]
    assert (gguf["cached"], gguf["fits"], gguf["size_from"]) == (True, True, "measured")
    assert gguf["size_bytes"] == sum(file["size_bytes"] for file in gguf["files"])
    assert gguf["launch_command"] == (
        "paddock launch tiny-mixtral --model-format ggufv2 --quantization Q4_K_M"
    )
    assert gguf["installs"] == []
    int4 = rows["gptq", "Int4"]
    assert "paddock engine install transformers" in int4["engines"]["Transformers"]
    assert int4["fits"] is False
    install = {"engine": "Transformers", "command": "paddock engine install transformers"}
    assert install in int4["installs"]


async def test_what_is_not_here_is_told_by_hub(app: ASGIApp) -> None:
    """Of a model on hubs: each hub's id, the file, its size, and the memory that it takes."""
    page = await ask(app, path="/v1/zoo/mixtral-v0.1")
    rows = {(row["model_format"], row["quantization"]): row for row in page["variants"]}
    row = rows["ggufv2", "Q4_K_M"]
    assert [source["hub"] for source in row["sources"]] == ["huggingface"]
    assert all(not source["cached"] for source in row["sources"])
    assert row["files"][0]["name"] == row["sources"][0]["file"]
    assert row["size_bytes"] == row["files"][0]["size_bytes"]
    estimate = row["estimate"]
    assert estimate["weights_bytes"] == row["size_bytes"]
    assert estimate["total_bytes"] > row["size_bytes"]
    assert rows["pytorch", "none"]["files"] is None


async def test_what_a_path_names_has_a_page(app: ASGIApp) -> None:
    """A reference needs no spec: its variants are derived, and launched by the reference."""
    folder = specs_root() / "weights" / "tiny-mixtral" / "ggufv2"
    file = folder / "tiny-mixtral.Q4_K_M.gguf"
    page = await ask(app, path=f"/v1/zoo/{file}")
    (row,) = page["variants"]
    assert page["reference"] == str(file)
    assert page["builtin"] is False
    assert (row["quantization"], row["cached"], row["fits"]) == ("Q4_K_M", True, True)
    assert row["launch_command"].startswith(f"paddock launch {file} ")


async def test_an_unknown_model_is_not_found(app: ASGIApp) -> None:
    """It is a 404 with the near names."""
    answer = await send(app, head("GET", "/v1/zoo/mixtrel-v0.1", {}))
    assert answer.status == 404
    assert "mixtral-v0.1" in answer.json["detail"]


async def test_the_estimate_is_the_commands(app: ASGIApp) -> None:
    """The same rows, and a cache that grows with the slots."""
    done = CliRunner().invoke(
        estimate, ["mixtral-v0.1", "-f", "ggufv2", "-c", "4096", "-c", "8192", "--json"]
    )
    said = json.loads(done.stdout)["rows"]
    query = "model_name=mixtral-v0.1&model_format=ggufv2&context_length=4096&context_length=8192"
    found = await ask(app, query, "/v1/estimate")
    for row in (*said, *found["rows"]):
        del row["verdict"], row["free_bytes"]  # what is free moves
    assert found["rows"] == said
    assert found["memory_total_bytes"] >= found["memory_free_bytes"] > 0
    four = await ask(app, f"{query}&slots=4", "/v1/estimate")
    for one, many in zip(found["rows"], four["rows"], strict=True):
        assert many["cache_bytes"] == 4 * one["cache_bytes"]
        more = many["overhead_bytes"] - one["overhead_bytes"]  # the logits of each slot
        assert many["total_bytes"] == one["total_bytes"] + 3 * one["cache_bytes"] + more


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "model_name"),
        ("model_name=mixtral-v0.1&context_length=99999999", "was trained for"),
        ("model_name=mixtral-v0.1&context_length=long", "whole number"),
        ("model_name=mixtral-v0.1&slots=0", "from 1 to"),
        ("model_name=mixtral-v0.1&quantization=Q9", "unknown quantization"),
    ],
)
async def test_a_wrong_estimate_is_refused(app: ASGIApp, query: str, says: str) -> None:
    """What the command refuses is a 400 with the same reason."""
    answer = await send(app, head("GET", "/v1/estimate", {}, query))
    assert answer.status == 400
    assert says in answer.json["detail"]
