"""Derives specs, each in a process of its own: hubs' clients are never imported by the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from dataclasses import asdict
from typing import Any

from paddock.launcher.hosts.processes import JOB, environment, instance_id
from paddock.registry import errors
from paddock.registry.derive import Derived
from paddock.registry.errors import HubFailure, PaddockError
from paddock.registry.reference import Reference
from paddock.registry.settings import Settings

log = logging.getLogger(__name__)

DERIVE_SECONDS = 180.0
"""How long all of it may take before the process is ended."""
AT_ONCE = 4
LINE_BYTES = 1 << 22


class Derivations:
    """Runs `run_derive.py`, a few at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def derive(self, reference: Reference, known: str) -> Derived | None:
        """The spec of the reference; None if its files are still those of the commit `known`.

        Raises:
            HubFailure: it takes too long, or the hub does not answer or give it.
            RuntimeError: the process ended and said nothing.
        """
        home = self._settings.home
        request = {
            "reference": asdict(reference),
            "home": str(home),
            "timeout": self._settings.hub_timeout,
            "known": known,
        }
        async with self._turn:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "paddock.launcher.jobs.run_derive"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment(instance_id(home), JOB),
                limit=LINE_BYTES,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            talk = asyncio.create_task(process.stderr.read())
            try:
                async with asyncio.timeout(DERIVE_SECONDS):
                    process.stdin.write(json.dumps(request).encode() + b"\n")
                    line = await process.stdout.readline()
            except TimeoutError:
                reason = f"{reference.text}: its files could not be read in {DERIVE_SECONDS:g} s"
                raise HubFailure("stalled", reason) from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                output = await talk
        if not line:  # a bug, or somebody has ended it
            log.error("%s: %s", reference.text, output.decode("utf-8", "replace"))
            raise RuntimeError(f"the process that reads {reference.text} ended and said nothing")
        return _parse_answer(json.loads(line))


def _parse_answer(answer: dict[str, Any]) -> Derived | None:
    if "error" in answer:
        kind: type[PaddockError] = getattr(errors, answer["error"])
        raise kind(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in answer["fields"].items()}
        )
    return Derived.from_json(answer["derived"]) if answer["derived"] else None
