"""A process of the gateway's for one piece of work: one line of JSON in, lines of JSON out.

It ends when its stdin closes. So the hubs' clients and installers stay out of the gateway, which
answers while gigabytes are hashed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paddock.launcher.hosts.processes import JOB, environment, instance_id

END_SECONDS = 5.0
"""How long it may take to end by itself when it is called off."""
LINE_BYTES = 1 << 24
"""The longest line: the progress of a repository of thousands of files, or a lock of them."""


class Child:
    """One `python -m MODULE`, from its start to its end. Use from one event loop only."""

    def __init__(self, module: str, home: Path) -> None:
        self._module = module
        self._home = home
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[int] | None = None
        self.called_off = False

    def start(self, task: dict[str, Any], hear: Callable[[dict[str, Any]], None]) -> None:
        """Starts it; `hear` is called with each line that it says, and at its end with `ended`."""
        self._task = asyncio.create_task(self._run(task, hear))

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._task is not None and not self._task.done()

    async def end(self) -> None:
        """Calls it off; returns when the process is gone. One that has ended is left as it is."""
        if self._task is None or self._task.done():
            return
        self.called_off = True
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        done, _ = await asyncio.wait([self._task], timeout=END_SECONDS)
        if not done:
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            await asyncio.wait([self._task])

    async def _run(self, task: dict[str, Any], hear: Callable[[dict[str, Any]], None]) -> int:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self._module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment(instance_id(self._home), JOB),
            limit=LINE_BYTES,
            # Ctrl-C in a terminal is for the gateway, which calls it off, or lets it go on later.
            start_new_session=True,
        )
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):
            process.stdin.write(json.dumps(task).encode() + b"\n")
            await process.stdin.drain()
            if self.called_off:  # before there was a stdin to close
                process.stdin.close()
        async for line in process.stdout:
            hear(json.loads(line))
        code = await process.wait()
        hear({"ended": code})
        return code
