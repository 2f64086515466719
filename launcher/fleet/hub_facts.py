"""Learns of weights on a hub what a plan wants to know: their size, and the header of a GGUF."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from pathlib import Path
from typing import Any

from paddock.launcher.jobs.child import Child
from paddock.launcher.planning.plan import PlannedWeights
from paddock.launcher.truth.store import TruthStore
from paddock.registry.hubs import LOCAL
from paddock.registry.settings import Settings
from paddock.registry.spec import source_key

SIZE_SECONDS = 4.0
"""How long a plan waits for a size; without one it says "≈"."""
HEADER_SECONDS = 30.0
"""How long the header of a file on a hub may take; the largest have some 20 MB."""
SILENT_SECONDS = 300.0
"""After so long a hub that gave no size is asked for one again."""
KEPT_HEADERS = 4
HEADER_AGE = 3600.0
"""Seconds. The next question is often about another context of the same; files on hubs change."""


class HubFacts:
    """Asks in a child process: the gateway imports no hub's client. Of one event loop only."""

    def __init__(self, store: TruthStore, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._silent: dict[str, float] = {}
        self._asking = asyncio.Lock()

    async def learn_size(self, weights: PlannedWeights) -> bool:
        """Asks for the size of weights that nobody states, and keeps it; whether it came."""
        if weights.size_known or weights.here or weights.offline or weights.hub in LOCAL:
            return False
        if weights.hub == "none":
            return False
        key = source_key(weights.sources[0])
        async with self._asking:
            since = time.monotonic() - SILENT_SECONDS
            if max(self._silent.get(one, since) for one in (key, weights.hub)) > since:
                return False
            timeout = min(self._settings.hub_timeout, SIZE_SECONDS)
            answer = await self._ask(weights, None, timeout, SIZE_SECONDS) or {}
            if "size_bytes" not in answer:
                of_source = answer.get("cause", "hub_unreachable") != "hub_unreachable"
                self._silent[key if of_source else weights.hub] = time.monotonic()
                return False
        await asyncio.to_thread(self._store.note_size, key, answer["size_bytes"])
        return True

    async def bring_header(self, weights: PlannedWeights) -> Path | str:
        """The header of a GGUF on a hub, with a hole up to its size; or why it does not come."""
        folder = self._settings.home / "cache" / "headers"
        key = hashlib.sha256(source_key(weights.sources[0]).encode()).hexdigest()
        out = folder / f"{key[:16]}.gguf"
        with contextlib.suppress(OSError):
            if time.time() - out.stat().st_mtime < HEADER_AGE:
                return out
        folder.mkdir(parents=True, exist_ok=True)
        timeout = self._settings.hub_timeout
        answer = await self._ask(weights, out, timeout, HEADER_SECONDS)
        if answer is None:
            return f"the header of {weights.id} did not come within {HEADER_SECONDS:.0f} s"
        if "size_bytes" not in answer:
            return str(answer.get("reason", f"the header of {weights.id} did not come"))
        _keep_newest(folder)
        return out

    async def _ask(
        self, weights: PlannedWeights, out: Path | None, timeout: float, most_seconds: float
    ) -> dict[str, Any] | None:
        """The child's answer; None if none comes in time."""
        answers: list[dict[str, Any]] = []
        child = Child("paddock.launcher.jobs.run_hub_facts", self._settings.home)
        request = {
            "weights": weights.model_dump(mode="json"),
            "home": str(self._settings.home),
            "timeout": timeout,
            "out": None if out is None else str(out),
        }
        answered = asyncio.Event()

        def hear(line: dict[str, Any]) -> None:
            answers.append(line)
            answered.set()

        child.start(request, hear)
        try:
            async with asyncio.timeout(most_seconds):
                await answered.wait()
        except TimeoutError:
            return None
        finally:
            await child.end()
        return answers[0]


def _keep_newest(folder: Path) -> None:
    """Removes all but the newest headers."""
    with contextlib.suppress(OSError):
        files = sorted(folder.glob("*.gguf"), key=lambda one: one.stat().st_mtime)
        for old in files[:-KEPT_HEADERS]:
            old.unlink(missing_ok=True)
