"""The child process: an OpenAI-style server that answers with the words of the prompt."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

STUBBORN_CHILD = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(3600)"


class EchoServer:
    """Answers `/v1/completions` and `/v1/chat/completions`, streaming and not."""

    def __init__(self, settings: dict[str, Any], key: str) -> None:
        self.model: str = settings["model"]
        self.token_seconds: float = settings["token_seconds"]
        self.die_after: int | None = settings["die_after"]
        self.hoard_mb: int = settings["hoard_mb"]
        self.hoard: list[bytes] = []
        self.key = key
        self.ready_at = time.monotonic() + settings["load_seconds"]
        self.served = 0

    def app(self) -> web.Application:
        """The web application."""
        app = web.Application(middlewares=[self._check])
        app.router.add_get("/health", self._health)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    @web.middleware
    async def _check(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if (
            request.path != "/health"
            and request.headers.get("Authorization") != f"Bearer {self.key}"
        ):
            return web.json_response({"error": {"message": "wrong key"}}, status=401)
        response: web.StreamResponse = await handler(request)
        return response

    async def _health(self, _: web.Request) -> web.Response:
        loading = time.monotonic() < self.ready_at
        return web.json_response(
            {"status": "loading" if loading else "ok"}, status=503 if loading else 200
        )

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return await self._answer(request, body, str(body.get("prompt", "")), chat=False)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        messages = body.get("messages") or [{}]
        return await self._answer(request, body, str(messages[-1].get("content", "")), chat=True)

    async def _tokens(self, body: dict[str, Any], prompt: str) -> AsyncIterator[str]:
        for index, word in enumerate(prompt.split()[: body.get("max_tokens")]):
            if self.die_after == index:
                os._exit(9)
            if index == 1 and self.hoard_mb:
                self.hoard.append(b"x" * (self.hoard_mb * 1_000_000))
            if self.token_seconds and index:
                await asyncio.sleep(self.token_seconds)
            yield word if index == 0 else f" {word}"

    async def _answer(
        self, request: web.Request, body: dict[str, Any], prompt: str, chat: bool
    ) -> web.StreamResponse:
        self.served += 1
        head = {"id": f"echo-{self.served}", "created": int(time.time()), "model": self.model}
        kind = "chat.completion" if chat else "text_completion"
        prompt_tokens, limit = len(prompt.split()), body.get("max_tokens")
        count = prompt_tokens if limit is None else min(prompt_tokens, limit)
        finish = "stop" if count == prompt_tokens else "length"
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": count,
            "total_tokens": prompt_tokens + count,
        }
        if not body.get("stream"):
            text = "".join([token async for token in self._tokens(body, prompt)])
            choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
            choice |= (
                {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            )
            return web.json_response({**head, "object": kind, "choices": [choice], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        head["object"] = "chat.completion.chunk" if chat else kind
        async for token in self._tokens(body, prompt):
            part = {"delta": {"content": token}} if chat else {"text": token}
            event = {**head, "choices": [{"index": 0, **part, "finish_reason": None}]}
            await response.write(_event(event))
        part = {"delta": {"content": ""}} if chat else {"text": ""}
        end = _event({**head, "choices": [{"index": 0, **part, "finish_reason": finish}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            end += _event({**head, "choices": [], "usage": usage})
        await response.write(end + b"data: [DONE]\n\n")
        return response


def _event(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


def main() -> None:
    """Serves until a signal, unless told to misbehave."""
    settings = json.loads(sys.argv[1])
    if settings["say"]:
        print(settings["say"], flush=True)
    if settings["exit_code"] is not None:
        raise SystemExit(settings["exit_code"])
    if settings["ignore_term"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if settings["child"]:
        subprocess.Popen([sys.executable, "-c", STUBBORN_CHILD])
    server = EchoServer(settings, os.environ["PADDOCK_ENGINE_KEY"])
    web.run_app(
        server.app(),
        host="127.0.0.1",
        port=settings["port"],
        handle_signals=not settings["ignore_term"],
        # Seconds that open streams get after SIGTERM; aiohttp's own is a minute.
        shutdown_timeout=0.1,
        print=lambda line: print(line.splitlines()[0] if line else "", flush=True),
    )


if __name__ == "__main__":
    main()
