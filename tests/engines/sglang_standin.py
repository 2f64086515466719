"""Stands in for SGLang where there is no GPU: its entry points and its HTTP, without a model.

Copied as a package `sglang` into an environment of its own, so that the adapter starts it as it
would start SGLang. Routes, shapes and refusals are those of SGLang 0.5.23's source: errors without
an envelope, a health that takes its time, usage only where it is asked for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WORDS = ("lived", "in", "a", "zoo", "near", "the", "river", "and", "ate", "grass")
counts = {"running": 0, "tokens": 0}


def prepare_server_args(argv: list[str]) -> argparse.Namespace:
    """What the stand-in needs of the command line; the real parser has a test of its own."""
    parser = argparse.ArgumentParser(prog="sglang serve")
    for name in ("--model-path", "--served-model-name", "--host", "--api-key"):
        parser.add_argument(name)
    for name in ("--port", "--context-length"):
        parser.add_argument(name, type=int)
    return parser.parse_known_args(argv)[0]


def kill_process_tree(parent: int, include_parent: bool = True) -> None:
    """Nothing: the group is the launcher's to end."""


def run_server(args: argparse.Namespace) -> None:
    """Serves; with a worker beside it, as SGLang has them."""
    kind = json.loads((Path(args.model_path) / "config.json").read_text())["model_type"]
    if kind != "mixtral":
        raise ValueError(
            f"The checkpoint you are trying to load has model type `{kind}` but Transformers does "
            "not recognize this architecture."
        )
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]):
        Handler.args = args
        ThreadingHTTPServer((args.host, args.port), Handler).serve_forever()


class Handler(BaseHTTPRequestHandler):
    """One request after the other of a connection."""

    args: argparse.Namespace
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        """Its health, and what it has done."""
        if self.path == "/health":
            time.sleep(1)  # it lets the model say a token, and looks every second
        if self.path in {"/health", "/ready"}:
            self._send(200, b"")
        elif self._allowed():
            self._send(200, json.dumps(counts).encode())

    def do_POST(self) -> None:
        """Completions and chats."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return
        chat = self.path.endswith("/chat/completions")
        prompt = str(body["messages"]) if chat else body["prompt"]
        length = len(prompt.split() if isinstance(prompt, str) else prompt)
        context = self.args.context_length
        if length >= context:
            self._refuse(
                f"The input ({length} tokens) is longer than the model's context length "
                f"({context} tokens)."
            )
            return
        most = body.get("max_completion_tokens") or body.get("max_tokens") or 16
        usage = {
            "prompt_tokens": length,
            "completion_tokens": most,
            "total_tokens": length + most,
        }
        counts["running"] += 1
        try:
            if body.get("stream"):
                self._stream(body, chat, most, usage)
            else:
                self._whole(chat, most, usage)
        finally:
            counts["running"] -= 1

    def _event(self, choices: list[Any], **more: Any) -> dict[str, Any]:
        name = self.args.served_model_name
        return {"id": "x", "created": 1, "model": name, "choices": choices, **more}

    def _whole(self, chat: bool, most: int, usage: dict[str, int]) -> None:
        text = "".join(f" {WORDS[n % len(WORDS)]}" for n in range(most))
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        self._send(200, json.dumps(self._event([choice], usage=usage)).encode())

    def _stream(self, body: dict[str, Any], chat: bool, most: int, usage: dict[str, int]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(most):
            counts["tokens"] += 1
            text = f" {WORDS[number % len(WORDS)]}"
            choice: dict[str, Any] = {"index": 0}
            choice |= {"delta": {"content": text}} if chat else {"text": text}
            if number == most - 1:
                choice["finish_reason"] = "length"
            self._chunk(json.dumps(self._event([choice])))
            time.sleep(0.002)
        if (body.get("stream_options") or {}).get("include_usage"):
            self._chunk(json.dumps(self._event([], usage=usage)))
        self._chunk("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.args.api_key}":
            return True
        self._send(401, b'{"error":"Unauthorized"}')
        return False

    def _refuse(self, message: str) -> None:
        error = {"object": "error", "message": message, "type": "BadRequestError", "code": 400}
        self._send(400, json.dumps({**error, "param": None}).encode())

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
