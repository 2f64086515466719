"""An engine's process, started as a replica would start it, for tests that look at it closely."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from paddock.engines.base import Engine, EngineOptions, Serving

DEADLINE = 240.0  # vLLM needs a minute on two cores that others use too


def free_port() -> int:
    """A port that is free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serving(options: EngineOptions, **changes: Any) -> Serving:
    """What an engine is asked to serve, with small defaults."""
    given = {
        "model_id": "m",
        "weights": None,
        "port": free_port(),
        "api_key": "-the-key",  # as a random key may begin
        "context_length": 256,
        "slots": 1,
        "abilities": ("generate", "chat"),
    }
    return Serving(**{**given, **changes}, options=options)


class Child:
    """The process, its log in a file; killed with its children when the block ends."""

    def __init__(self, engine: Engine, wanted: Serving, log: Path) -> None:
        self.engine, self.wanted, self.log = engine, wanted, log
        command = engine.command(wanted)
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command.argv,
                env={**os.environ, **command.environ},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        # The group, not the process: some engines are several, which outlive the first.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def lines(self) -> list[str]:
        """What it has printed."""
        return self.log.read_text(errors="replace").splitlines()

    def await_end(self) -> int:
        """Its exit code; fails if it does not end."""
        return self.process.wait(DEADLINE)

    def await_health(self) -> None:
        """Returns once it is healthy; fails if it ends first."""
        deadline = time.monotonic() + DEADLINE
        while not self._healthy():
            assert self.process.poll() is None, self.lines()
            assert time.monotonic() < deadline, self.lines()
            select.select([], [], [], 0.01)

    def end(self) -> None:
        """Ends it as a replica would; fails if it does not end by itself, or ends badly."""
        self.process.terminate()
        assert self.process.wait(20) in {0, -signal.SIGTERM}

    def _healthy(self) -> bool:
        try:
            return self.request("GET", self.engine.health_path, key=None)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        status, text = self.request("GET", path)
        assert status == 200, text
        return json.loads(text)

    def post(
        self, path: str, body: dict[str, Any], key: str | None = "-the-key"
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON."""
        status, text = self.request("POST", path, body, key)
        return status, json.loads(text)

    def stream(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The events of a stream, which must end in `[DONE]`."""
        _, text = self.request("POST", path, body)
        data = [line.removeprefix("data: ") for line in text.splitlines() if line]
        assert data[-1] == "[DONE]"
        return [json.loads(line) for line in data[:-1]]

    def request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        key: str | None = "-the-key",
    ) -> tuple[int, str]:
        """Status and text of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.wanted.port, timeout=DEADLINE)
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


def keeps_the_contract(child: Child) -> None:
    """Fails unless it answers with its key, under the model's name, whole and streamed."""
    name = child.wanted.model_id
    if not {"generate", "chat"} & set(child.wanted.abilities):
        body: dict[str, Any] = {"model": name, "input": "The old elephant"}
        path = "/v1/embeddings"
    else:
        body = {"model": name, "prompt": "The old elephant", "max_tokens": 2}
        path = "/v1/completions"
    status, answer = child.post(path, body)
    assert (status, answer["model"]) == (200, name)
    for key in ("wrong", None):
        assert child.post(path, body, key)[0] == 401
    if path == "/v1/embeddings":
        return
    assert answer["choices"][0]["text"]
    assert answer["usage"]["completion_tokens"] == 2
    chat = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    status, answer = child.post("/v1/chat/completions", chat)
    assert status == 200
    assert answer["choices"][0]["message"]["role"] == "assistant"
    events = child.stream(path, {**body, "stream": True})
    assert len([event for event in events if event["choices"]]) >= 2
    assert {event["model"] for event in events} == {name}
