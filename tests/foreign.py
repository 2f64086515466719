"""An endpoint as somebody else may run it: OpenAI's API with habits of its own.

It has its own names for models in its answers, ends lines with CR LF, can be closed and opened
again at its port, and writes down what it was asked.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NAMED = "big-1-2026-10-01"
"""What it calls the model in its answers."""
KEY = "sk-of-somebody-else-0123456789"


def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that its own key has signed, with the key behind it."""
    made, key = folder / "endpoint.pem", folder / "endpoint.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=endpoint", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", made],
        check=True, capture_output=True,
    )  # fmt: skip
    made.write_text(made.read_text() + key.read_text())
    return made


class Foreign:
    """Listens between `open` and `close`. What it does can be changed while it runs."""

    def __init__(self, tls: Path | None = None) -> None:
        self.models = ["big-1", "small-1"]
        self.key = KEY
        self.words = ["one", " two", " thr\N{LATIN SMALL LETTER E WITH ACUTE}e"]
        self.routes = {"/v1/chat/completions"}
        self.redirect = ""
        self.status = 0
        self.retry_after = ""
        self.stream: list[str] | None = None
        """What is sent in a stream's place, event by event; None: the words."""
        self.content_type = "text/event-stream"
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self._tls = tls
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http{'s' * bool(self._tls)}://127.0.0.1:{self._port}/v1"

    def open(self) -> None:
        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        here = self

        class Handler(_Handler):
            foreign = here

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Listens no more; who is connected is cut off with the next answer."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self._server = None

    @property
    def is_open(self) -> bool:
        return self._server is not None


class _Handler(BaseHTTPRequestHandler):
    foreign: Foreign
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self._answered({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self._answered(json.loads(body))

    def _answered(self, body: dict[str, Any]) -> None:
        here = self.foreign
        if not here.is_open:
            self.close_connection = True
            return
        here.asked.append((self.path, dict(self.headers.items()), body))
        sent = self.headers.get("authorization", "")
        if here.redirect:
            self._send(307, {}, Location=here.redirect)
        elif here.status:
            more = {"Retry-After": here.retry_after} if here.retry_after else {}
            self._send(here.status, {"error": {"message": f"{here.status} for {sent}"}}, **more)
        elif here.key and sent != f"Bearer {here.key}":
            self._send(401, {"error": {"message": f"wrong key: {sent}"}})
        elif self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": name} for name in here.models]})
        elif self.path not in here.routes:
            self._send(404, {"detail": "Not Found"})
        elif body["model"] not in here.models:
            self._send(404, {"error": {"message": f"no model {body['model']}"}})
        elif body.get("stream"):
            self._stream()
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": "one"}}
            self._send(200, {"model": NAMED, "choices": [choice]})

    def _send(self, status: int, body: dict[str, Any], **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", self.foreign.content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.foreign.stream is not None:
            for event in self.foreign.stream:
                self._chunk(f"data: {event}\n\n".encode())
            self.wfile.write(b"0\r\n\r\n")
            return
        self._chunk(b": a comment\r\n\r\n")
        for word in self.foreign.words:
            self._event([{"index": 0, "delta": {"content": word}, "finish_reason": None}])
        self._event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        count = len(self.foreign.words)
        usage = {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": count + 3}
        self._event([], usage=usage)
        self._chunk(b"data: [DONE]\r\n\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, choices: list[Any], usage: Any = None) -> None:
        event = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": NAMED}
        text = json.dumps({**event, "choices": choices, "usage": usage}, ensure_ascii=False)
        self._chunk(f"data: {text}\r\n\r\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
