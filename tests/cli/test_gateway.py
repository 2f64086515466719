"""How a command finds its gateway."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from paddock.cli import gateway
from paddock.cli.errors import exit_code
from paddock.cli.output import Output
from paddock.registry.errors import GatewaySilent
from paddock.registry.settings import read_settings


def test_gateway_that_hangs_is_told_and_not_waited_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens and says nothing: no command waits ten minutes for it, and none starts another."""
    monkeypatch.setattr(gateway, "HEALTH_SECONDS", 0.1)
    home.mkdir()
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        endpoint = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        (home / "gateway.json").write_text(json.dumps({"endpoint": endpoint, "key": "k"}))
        with pytest.raises(GatewaySilent, match="paddock stop") as error:
            gateway.ensure(read_settings(), Output(False))
        assert exit_code(error.value) == 5
        assert gateway.find(read_settings(), patience=0.1) is None
