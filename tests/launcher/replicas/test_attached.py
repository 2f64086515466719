"""Attached endpoints under the gateway's eyes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paddock.launcher.planning.plan import Attached, LaunchPlan
from paddock.launcher.replicas import attached_probe
from paddock.launcher.replicas.attached import AttachedHandle
from paddock.launcher.replicas.attached_keys import Keys
from paddock.launcher.replicas.attached_probe import Remote
from paddock.launcher.replicas.diagnosis import Failure

SECONDS = 20.0


def watched(number: int, keys: Keys) -> AttachedHandle:
    """An attached model whose endpoint is nowhere."""
    uid = f"m{number}"
    keys.write(uid, "")
    there = Attached(url="http://127.0.0.1:1/v1", model="m", listed=True)
    known: dict[str, Any] = {"model_id": uid, "attached": there}
    return AttachedHandle(f"{uid}-rep0", LaunchPlan.model_construct(**known), keys)


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


BEGINNINGS = {
    "head": b"HTTP/1.1 200 OK\r\nX-Long: ",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
    "body without a length": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    "handshake": b"\x16\x03\x03\x40\x00",
}


@pytest.mark.parametrize("part", BEGINNINGS)
def test_an_endpoint_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """All of an answer has a limit, not each byte of it: else it would hold its thread for ever."""
    monkeypatch.setattr(attached_probe, "ANSWER_SECONDS", 0.2)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(BEGINNINGS[part])
                for _ in range(500):  # without a limit, the answer ends as another kind of wrong
                    connection.sendall(b"x")
                    if done.wait(0.01):
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        scheme = "https" if part == "handshake" else "http"
        remote = Remote(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/v1")
        try:
            with pytest.raises(Failure, match="does not answer in time"):
                remote.ask("/models")
        finally:
            done.set()
            thread.join()
