"""Attached endpoints under the gateway's eyes."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from paddock.launcher.attached import Keys, Remote, Watched
from paddock.launcher.plan import Attached, LaunchPlan

SECONDS = 20.0


def watched(number: int, keys: Keys) -> Watched:
    """An attached model whose endpoint is nowhere."""
    uid = f"m{number}"
    keys.write(uid, "")
    there = Attached(url="http://127.0.0.1:1/v1", model="m", listed=True)
    plan = LaunchPlan.model_construct(model_id=uid, attached=there)
    return Watched(f"{uid}-rep0", cast(LaunchPlan, plan), keys)


async def test_silent_endpoints_hold_up_no_other_work(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many endpoints say nothing, the threads that everything else shares stay free."""
    answered = threading.Event()
    monkeypatch.setattr(Remote, "check", lambda *_: answered.wait(SECONDS))
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(2))
    keys = Keys(home)
    looks = [asyncio.create_task(watched(number, keys).begin()) for number in range(12)]
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(SECONDS / 2):
            assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()
        assert not any(look.done() for look in looks)
    finally:
        answered.set()
    statuses: list[Any] = await asyncio.gather(*looks)
    assert {status.state for status in statuses} == {"ready"}
