"""Requests of a replica to its own engine, on loopback, with the engine's key."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

POST_SECONDS = 300.0


@dataclass(frozen=True)
class EngineClient:
    """One engine's server. Its methods but `stream` block."""

    port: int
    key: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}

    def post(
        self, path: str, body: dict[str, Any], timeout: float = POST_SECONDS
    ) -> tuple[int, str]:
        """Status and text of the answer. See `ask`."""
        return self.ask("POST", path, json.dumps(body), timeout)

    def get(self, path: str, timeout: float) -> tuple[int, str]:
        """Status and text of the answer. See `ask`."""
        return self.ask("GET", path, None, timeout)

    def ask(self, method: str, path: str, body: str | None, timeout: float) -> tuple[int, str]:
        """One request; status 0 and the reason where there is no answer in time.

        `timeout` bounds each wait on the connection, not their sum.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, self.headers)
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            return 0, f"{type(error).__name__}: {error}"
        finally:
            connection.close()

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yields the members of `choices` of a streamed answer, one after another.

        Raises:
            RuntimeError: the engine answers with an error.
        """
        import aiohttp

        url = f"http://127.0.0.1:{self.port}{path}"
        timeout = aiohttp.ClientTimeout(total=None)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json={**body, "stream": True}, headers=self.headers) as answer,
        ):
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {await answer.text()}")
            async for line in answer.content:
                data = line.removeprefix(b"data:").strip()
                if line.startswith(b"data:") and data != b"[DONE]":
                    for choice in json.loads(data).get("choices", []):
                        yield choice
