"""parrot's process: a server of OpenAI's completions that repeats the prompt."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Three routes: health, completions and chats, the latter two streamed and not."""

    given: dict[str, Any]

    def do_GET(self) -> None:
        """`/health` answers 200 once the engine can serve."""
        self._json(200, {"status": "ok"})

    def do_POST(self) -> None:
        """Answers the gateway, which has the key, and nobody else."""
        if self.headers.get("Authorization") != f"Bearer {os.environ['PARROT_KEY']}":
            self._json(401, {"error": {"message": "wrong key"}})
            return
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = self.path.endswith("/chat/completions")
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        words = (prompt.split() * self.given["times"])[: body.get("max_tokens")]
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(words)}
        usage["total_tokens"] = sum(usage.values())
        head = {"id": "parrot", "created": 0, "model": self.given["model"]}
        if not body.get("stream"):
            text = " ".join(words)
            said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            choice = {"index": 0, **said, "finish_reason": "stop"}
            self._json(200, {**head, "choices": [choice], "usage": usage})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for number, word in enumerate(words):
            piece = f" {word}" if number else word
            self._event({**head, "choices": [self._choice(piece, chat, None)]})
        self._event({**head, "choices": [self._choice("", chat, "stop")]})
        if (body.get("stream_options") or {}).get("include_usage"):
            self._event({**head, "choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _choice(self, piece: str, chat: bool, reason: str | None) -> dict[str, Any]:
        said: dict[str, Any] = {"delta": {"content": piece}} if chat else {"text": piece}
        return {"index": 0, **said, "finish_reason": reason}

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: %b\n\n" % json.dumps(event).encode())

    def _json(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    """Serves until a signal ends it."""
    given = Handler.given = json.loads(sys.argv[1])
    with open(given["weights"], "rb") as file:
        if file.read(4) != b"GGUF":
            sys.exit(f"not a GGUF: {given['weights']}")
    ThreadingHTTPServer(("127.0.0.1", given["port"]), Handler).serve_forever()


if __name__ == "__main__":
    main()
