"""Launches at once: what one was promised, the next does not get. (The sums: test_placement.py.)"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paddock.launcher.cluster.cluster import Cluster
from paddock.launcher.hosts.host import probe_host
from paddock.registry.settings import read_settings
from tests.server.asgi import Answer, call, gateway, head, send

ASKED = {"model_name": "tiny-mixtral", "model_engine": "llama.cpp", "quantization": "Q4_K_M"}


async def test_launches_at_once_share_what_is_free(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is room for one and a half, one comes, and the other is told why."""
    host = probe_host(read_settings().home)

    async def hosts(*_: Any) -> list[Any]:
        await asyncio.sleep(0)  # where the other launch gets its turn
        return [replace(host, memory_free_bytes=free)]

    monkeypatch.setattr(Cluster, "hosts", hosts)
    free = 10**12
    # Its fleet has not begun: what is launched stays pending.
    with gateway(home) as app:
        needed = (await call(app, "POST", "/v1/plan", body=ASKED)).json["memory"]["needed_bytes"]
        free = needed * 3 // 2

        async def launch(uid: str) -> Answer:
            scope = head("POST", "/v1/models", (), "wait_ready=false")
            return await send(app, scope, json.dumps({**ASKED, "model_uid": uid}).encode())

        answers = await asyncio.gather(launch("a"), launch("b"))
        refused = next(one for one in answers if one.status >= 400)
        assert [one.status < 400 for one in answers].count(True) == 1
        assert f"{needed / 1e9:.2f} GB for " in refused.json["error"]["message"]
        assert "for a, still starting" in refused.json["error"]["message"]
        assert refused.json["error"]["free_bytes"] == free - needed
        (told,) = (await call(app, "GET", "/v1/nodes")).json["nodes"]
        assert told["memory_free_bytes"] == free  # as the machine has it
