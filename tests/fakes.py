"""Stand-ins for what cannot be had in a test: weights with a fault, hubs, another llama-server."""

from __future__ import annotations

import json
import struct
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STRING, ARRAY = 8, 9


def text(value: str | bytes) -> bytes:
    """A string as GGUF writes it."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def entry(key: str | bytes, kind: int, value: bytes) -> bytes:
    """One piece of metadata, its value already packed."""
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, shape: Sequence[int], kind: int = 0, offset: int = 0) -> bytes:
    """The description of one tensor."""
    dimensions = b"".join(struct.pack("<Q", n) for n in shape)
    return (
        text(name) + struct.pack("<I", len(shape)) + dimensions + struct.pack("<IQ", kind, offset)
    )


def gguf(entries: Sequence[bytes] = (), tensors: Sequence[bytes] = (), data: bytes = b"") -> bytes:
    """A GGUF of version 3: header, padding to 32 bytes, data."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(entries))
    head += b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


LLAMA_SERVER = """#!{python}
# Stands in for llama-server: writes down how it was called, then answers every completion.
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

arguments = sys.argv[1:]
key = os.environ["LLAMA_API_KEY"]
with open({record!r}, "w") as file:
    json.dump(arguments, file)

class Handler(BaseHTTPRequestHandler):
    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.answer(200, {{"status": "ok"}})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != "Bearer " + key:
            return self.answer(401, {{}})
        model = arguments[arguments.index("--alias") + 1]
        self.answer(200, {{"model": model, "choices": [{{"text": "stand-in"}}]}})

    def log_message(self, *arguments):
        pass

HTTPServer(("127.0.0.1", int(arguments[arguments.index("--port") + 1])), Handler).serve_forever()
"""


def llama_server(folder: Path) -> tuple[Path, Path]:
    """Writes an executable that stands in for llama-server; it and the file of its arguments."""
    program, record = folder / "llama-server", folder / "arguments.json"
    program.write_text(LLAMA_SERVER.format(python=sys.executable, record=str(record)))
    program.chmod(0o755)
    return program, record


@dataclass
class HubServer:
    """A hub on loopback that speaks as much of a hub's HTTP as its client needs for one file.

    `answers` maps a path to status, headers and body; anything else is 404. `asked` are the
    requests that came.
    """

    endpoint: str
    answers: dict[str, tuple[int, Mapping[str, str], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def say(self, path: str, body: bytes | object = b"", status: int = 200, **headers: str) -> None:
        """Sets the answer to a path; a body that is not bytes becomes JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = status, named, data


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Runs a `HubServer` in a thread."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            hub.asked.append(f"{self.command} {self.path}")
            status, headers, body = hub.answers.get(
                f"{path}?{query}", hub.answers.get(path, (404, {}, b"{}"))
            )
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_POST = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = HubServer(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
