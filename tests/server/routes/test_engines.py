"""Engines and their environments, over REST."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import jsonschema
import psutil
import pytest
from starlette.types import ASGIApp

from paddock.engines import load_engine
from paddock.engines.environment import Environment
from tests.server.asgi import call, gateway

DEADLINE = 120.0
PATH = "/v1/environments/vllm"


@pytest.fixture
def app(home: Path) -> Iterator[ASGIApp]:
    """A gateway without models, in this process."""
    with gateway(home) as app:
        yield app


async def test_each_engine_says_how_it_is(app: ASGIApp) -> None:
    """llama.cpp is here with a version; one that is not installed says what installs it."""
    answer = await call(app, "GET", "/v1/engines")
    found = {engine["name"]: engine for engine in answer.json["engines"]}
    llama, vllm = found["llama.cpp"], found["vLLM"]
    assert (llama["installed"], llama["reason"], llama["installable"]) == (True, None, False)
    assert llama["version"]
    assert (vllm["installed"], vllm["version"], vllm["environment"]) == (False, None, None)
    assert "paddock engine install vllm" in vllm["reason"]


async def test_each_option_can_be_asked_for_in_a_form(app: ASGIApp) -> None:
    """The options are a JSON schema in which each has a description and a type or a choice."""
    for engine in (await call(app, "GET", "/v1/engines")).json["engines"]:
        schema = engine["options"]
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["additionalProperties"] is False
        for name, option in schema["properties"].items():
            assert option["description"], name
            assert {"type", "enum", "const", "anyOf"} & set(option), name


@pytest.fixture
def modest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """vLLM's environment in small: a package of one empty module, which no index is asked for."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    pins = tmp_path / "pins.txt"
    pins.write_text(f"{_wheel(tmp_path, '')}\n")
    environment = Environment("vllm", (pins,), "vllm", ("vllm",))
    monkeypatch.setattr(type(load_engine("vLLM")), "environment", environment)
    return environment


def _wheel(folder: Path, code: str) -> Path:
    wheel = folder / "vllm-1-py3-none-any.whl"
    with ZipFile(wheel, "w") as file:
        file.writestr("vllm.py", code)
        file.writestr(
            "vllm-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: vllm\nVersion: 1\n"
        )
        file.writestr("vllm-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr("vllm-1.dist-info/RECORD", "")
    return wheel


async def settled(app: ASGIApp, wanted: str = "") -> Any:
    """The environment once it is not being installed, or its install says `wanted`."""
    async with asyncio.timeout(DEADLINE):
        while True:
            found = (await call(app, "GET", PATH)).json
            if found["state"] != "installing" or (wanted and wanted in found["note"]):
                return found
            await asyncio.sleep(0.02)


async def test_an_engine_is_installed_and_removed(app: ASGIApp, modest: Environment) -> None:
    """A second request takes the install that runs; the engine is there without a restart."""
    assert (await call(app, "GET", PATH)).json["state"] == "none"
    first = await call(app, "POST", PATH, body={"accelerator": "cpu"})
    assert (first.status, first.json["state"]) == (201, "installing")
    second = await call(app, "POST", PATH)
    assert second.json["began_at"] == first.json["began_at"]
    made = await settled(app)
    assert (made["state"], made["version"], made["accelerator"]) == ("installed", "1", "cpu")
    assert made["current"] is True
    assert made["size_bytes"] > 0
    engines = (await call(app, "GET", "/v1/engines")).json["engines"]
    (vllm,) = [one for one in engines if one["name"] == "vLLM"]
    assert (vllm["installed"], vllm["version"]) == (True, "1")
    assert vllm["environment"]["folder"] == made["folder"]
    again = await call(app, "POST", PATH)
    assert (again.json["state"], again.json["folder"]) == ("installed", made["folder"])
    forced = await call(app, "POST", PATH, body={"force": True})
    assert forced.json["state"] == "installing"
    assert forced.json["folder"] == made["folder"]
    renewed = await settled(app)
    assert renewed["folder"] != made["folder"]
    gone = await call(app, "DELETE", PATH)
    assert (gone.status, gone.json["state"], gone.json["folder"]) == (200, "none", None)
    assert not Path(made["folder"]).parent.exists()


async def test_what_is_installed_is_offered_at_once(app: ASGIApp, modest: Environment) -> None:
    """The zoo has models for the engine as soon as it is there, and none when it is gone."""

    async def here() -> Any:
        models = (await call(app, "GET", "/v1/zoo")).json["models"]
        return next(one["here"] for one in models if one["name"] == "Yi-1.5")

    assert await here() is None
    await call(app, "POST", PATH, body={"accelerator": "cpu"})
    await settled(app)
    assert (await here())["model_engine"] == "vLLM"
    await call(app, "DELETE", PATH)
    assert await here() is None


async def test_a_failed_install_says_why(app: ASGIApp, modest: Environment, tmp_path: Path) -> None:
    """The last lines of what failed are told, and nothing is left of it."""
    _wheel(tmp_path, "raise RuntimeError('no such processor')")
    await call(app, "POST", PATH)
    found = await settled(app)
    assert found["state"] == "failed"
    assert any("no such processor" in line for line in found["lines"])
    assert found["folder"] is None
    assert not [path for path in modest.folder(tmp_path / "home").iterdir() if path.is_dir()]


async def test_a_cancelled_install_leaves_nothing(
    app: ASGIApp, modest: Environment, home: Path, tmp_path: Path
) -> None:
    """When the answer comes no process of it runs, and what was half made is gone."""
    _wheel(tmp_path, "import time\ntime.sleep(600)")  # importing it would take ten minutes
    await call(app, "POST", PATH)
    assert (await settled(app, "importing"))["state"] == "installing"
    answer = await call(app, "POST", f"{PATH}/cancel")
    assert (answer.status, answer.json["state"], answer.json["lines"]) == (200, "cancelled", [])
    assert not [path for path in modest.folder(home).iterdir() if path.is_dir()]
    folder = str(modest.folder(home))
    lines = (one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"]))
    assert not [line for line in lines if folder in " ".join(line)]
    assert (await call(app, "POST", f"{PATH}/cancel")).json["state"] == "cancelled"


async def test_an_environment_in_use_is_not_removed(app: ASGIApp, modest: Environment) -> None:
    """While something runs from it the answer is 409, and it stays."""
    await call(app, "POST", PATH)
    python = str(Path((await settled(app))["folder"]) / "bin" / "python")
    process = await asyncio.create_subprocess_exec(
        python, "-c", "input()", stdin=asyncio.subprocess.PIPE
    )
    answer = await call(app, "DELETE", PATH)
    await process.communicate(b"\n")
    assert answer.status == 409
    assert str(process.pid) in answer.json["detail"]
    assert (await call(app, "DELETE", PATH)).json["state"] == "none"


@pytest.mark.parametrize(
    ("engine", "body", "status", "says"),
    [
        ("vlm", {}, 404, "vLLM"),
        ("llama.cpp", {}, 400, "needs no environment"),
        ("vllm", {"accelerator": "tpu"}, 400, "cpu or cuda"),
        ("vllm", {"accelerator": ["cpu"]}, 400, "cpu or cuda"),
        ("vllm", {"force": "yes"}, 400, "true or false"),
        ("vllm", {"installer": "pip"}, 400, "accelerator"),
        ("sglang", {"accelerator": "cpu"}, 400, "NVIDIA GPU"),
    ],
)
async def test_a_wrong_install_is_refused(
    app: ASGIApp, engine: str, body: dict[str, Any], status: int, says: str
) -> None:
    """What cannot be installed is said at once, and nothing is begun."""
    answer = await call(app, "POST", f"/v1/environments/{engine}", body=body)
    assert answer.status == status
    assert says in answer.json["detail"]
