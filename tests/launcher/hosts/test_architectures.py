"""llama.cpp itself says which architectures it knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddock.engines import load_engine
from paddock.engines.base import Host
from paddock.launcher.hosts import architectures
from paddock.launcher.hosts.architectures import with_unknown
from paddock.launcher.hosts.host import probe_host
from paddock.registry.catalog import Catalog
from paddock.registry.settings import Settings, read_settings
from paddock.registry.spec import ModelSpec
from tests.fakes import model_header
from tests.server.asgi import call, gateway

pytestmark = pytest.mark.engines


@pytest.fixture
def settings() -> Settings:
    return read_settings()


@pytest.fixture
def host(settings: Settings) -> Host:
    return probe_host(settings.home)


def of(architecture: str) -> ModelSpec:
    """The bundled model, as if its files were of another architecture."""
    tiny = Catalog.load().lookup("tiny-mixtral")
    shape = tiny.architecture.model_copy(update={"name": architecture})
    ggufs = tuple(weights for weights in tiny.weights if weights.format == "ggufv2")
    return tiny.model_copy(update={"architecture": shape, "weights": ggufs})


def test_it_is_asked_once_for_each(
    host: Host, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And again by another version, whose answers alone are kept then."""
    for _ in range(2):
        assert with_unknown(host, of("llama"), settings) == host
        refused = with_unknown(host, of("nonsense"), settings)
        assert refused.engines["llama.cpp"].unknown == ("nonsense",)
        monkeypatch.setattr(architectures, "_ask", lambda *_: pytest.fail("it was asked again"))
    monkeypatch.setattr(architectures, "_ask", lambda *_: True)
    assert architectures._knows("nonsense", "another", settings)
    assert (settings.home / "cache" / "architectures.json").read_text() == (
        '{"another": {"nonsense": true}}'
    )


def test_names_of_others_are_not_asked_for(
    host: Host, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as those of `config.json`, by which llama.cpp calls nothing."""
    monkeypatch.setattr(architectures, "_ask", lambda *_: pytest.fail("it was asked"))
    for name in ("tiny-mixtral", "mixtral-v0.1"):
        assert with_unknown(host, Catalog.load().lookup(name), settings) == host


def test_it_sees_no_secret_when_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's own `llama-server` gets the key that is made for it, and no token of the gateway."""
    record = tmp_path / "environ"
    program = tmp_path / "llama-server"
    said = "unknown model architecture: 'nonsense'"
    program.write_text(f'#!/bin/sh\nenv > {record}\necho "{said}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PADDOCK_LLAMA_SERVER", str(program))
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PADDOCK_API_KEY"):
        monkeypatch.setenv(name, "secret")
    assert not architectures._ask(load_engine("llama.cpp"), "nonsense")
    names = {line.partition("=")[0] for line in record.read_text().splitlines()}
    assert {"PATH", "LLAMA_API_KEY"} <= names
    assert not names & {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PADDOCK_API_KEY"}


async def test_a_file_that_it_does_not_know_is_refused_before_it_is_loaded(
    home: Path, tmp_path: Path
) -> None:
    """When its launch is planned, with the engine's version and the name."""
    path = tmp_path / "strange-Q4_0.gguf"
    path.write_bytes(model_header("nonsense"))
    with gateway(home) as app:
        answer = await call(app, "POST", "/v1/plan", body={"model_name": str(path)})
    assert answer.status == 400, answer.body
    assert "does not know the architecture nonsense" in answer.json["error"]["message"]
