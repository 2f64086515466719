"""Stand-ins for what cannot be had in a test: weights with a fault, hubs, another llama-server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import struct
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qs, unquote

from paddock.engines.base import Host
from paddock.launcher.cluster.cluster import ActorLost, ActorUnavailable
from paddock.launcher.replicas.status import ReplicaConfig, ReplicaStatus

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


def u32(key: str, value: int) -> bytes:
    """A number as metadata."""
    return entry(key, 4, struct.pack("<I", value))


def texts(key: str, values: Sequence[str]) -> bytes:
    """A list of texts as metadata."""
    head = struct.pack("<IQ", STRING, len(values))
    return entry(key, ARRAY, head + b"".join(map(text, values)))


def model_header(architecture: str = "llama", **changes: int | str | None) -> bytes:
    """A GGUF with the metadata of a small model and one tensor; None leaves a number out.

    Changes are of the architecture's numbers, with two underscores for a dot, or of `template` and
    `tool_template`.
    """
    numbers: dict[str, Any] = {
        "context_length": 2048,
        "embedding_length": 256,
        "block_count": 2,
        "feed_forward_length": 512,
        "attention__head_count": 4,
        "attention__head_count_kv": 2,
    }
    template, for_tools = changes.pop("template", None), changes.pop("tool_template", None)
    numbers |= changes
    entries = [entry("general.architecture", STRING, text(architecture))]
    entries += [
        u32(f"{architecture}.{name.replace('__', '.')}", value)
        for name, value in numbers.items()
        if value is not None
    ]
    entries.append(texts("tokenizer.ggml.tokens", [f"t{number}" for number in range(1000)]))
    if template is not None:
        entries.append(entry("tokenizer.chat_template", STRING, text(str(template))))
    if for_tools is not None:
        key = "tokenizer.chat_template.tool_use"
        entries.append(entry(key, STRING, text(str(for_tools))))
    return gguf(entries, [tensor("token_embd.weight", (256, 1000))], bytes(256 * 1000 * 4))


class Memory:
    """Bytes as a source for the reader of GGUF headers; `reached` is how far it has read."""

    def __init__(self, data: bytes, name: str = "model.gguf") -> None:
        self.data = data
        self.name = name
        self.length = len(data)
        self.reached = 0

    def read(self, start: int, count: int) -> bytes:
        """The bytes there."""
        self.reached = max(self.reached, start + count)
        return self.data[start : start + count]


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


COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""Of every repository, as long as no other is set in `HubServer.commits`."""
LARGE = {".gguf", ".safetensors", ".bin", ".model"}
"""Suffixes of files that a hub keeps in large file storage, and tells the SHA-256 of."""


class Zeros:
    """A file of so many zeros, of which none is held."""

    SHA256: ClassVar = {2 << 30: "a7c744c13cc101ed66c29f672f92455547889cc586ce6d44fe76ae824958ea51"}

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> bytes:
        begin, end, _ = part.indices(self.size)
        return bytes(max(0, end - begin))


Content = bytes | Zeros


def sha256_of(content: Content) -> str:
    """The SHA-256 of a file in the hub."""
    if isinstance(content, Zeros):
        return content.SHA256[content.size]
    return hashlib.sha256(content).hexdigest()


def git_of(content: Content) -> str:
    """The name that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content[:], usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    With a `status` it is answered so, with `body` where it is no file. Otherwise `after` so many
    bytes of the body the connection is closed (`close`), reset (`reset`), or falls silent until
    `HubServer.go` is set (`hold`); or every byte is a `wrong` one. `no_ranges` answers with the
    whole file whatever was asked for, and `shift` tells of another range than the one that comes.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int | None = None
    how: Literal["close", "reset", "hold"] = "close"
    wrong: bool = False
    no_ranges: bool = False
    shift: int = 0
    body: bytes = b"{}"


@dataclass
class HubServer:
    """A hub on loopback that speaks Hugging Face's and ModelScope's protocols.

    `repos` maps an id to its files. `faults` maps a file's name, or `api` for everything that is
    no file, to what goes wrong with the next requests for it, one after the other. `asked` are the
    requests that came, `ranges` the files that were asked for with their first byte.
    """

    endpoint: str = ""
    repos: dict[str, dict[str, Content]] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    ranges: list[tuple[str, int]] = field(default_factory=list)
    commits: dict[str, str] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    xet: bool = False
    """Whether files' heads say that they are in Xet storage."""
    names_only: bool = False
    """Whether Hugging Face's list has neither sizes nor digests, as some mirrors' have."""
    sent: int = 0
    """Bytes of files; whoever has received a byte finds it counted."""
    go: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)
    """Set as soon as a request is held."""

    lock: threading.Lock = field(default_factory=threading.Lock)

    def forget(self) -> None:
        """Becomes as new, at the same address; what is held goes on."""
        self.go.set()
        vars(self).update(vars(HubServer(self.endpoint)))

    def count(self, sent: int) -> None:
        """So many bytes more were sent."""
        with self.lock:
            self.sent += sent

    def fail(self, name: str, *faults: Fault) -> None:
        """Lets the next requests for the file go wrong."""
        self.faults.setdefault(name, []).extend(faults)

    def next_fault(self, name: str) -> Fault:
        """What goes wrong with this request."""
        queue = self.faults.get(name, [])
        return queue.pop(0) if queue else Fault()

    def files(self) -> list[str]:
        """The files that were fetched, in order."""
        return [name for name, _ in self.ranges]


class _HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def do_GET(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        path, _, query = self.path.partition("?")
        asked = {key: values[0] for key, values in parse_qs(query).items()}
        route = unquote(path).strip("/").split("/")
        if route[:2] == ["api", "models"] and len(route) >= 4:
            self._model_info("/".join(route[2:4]))
        elif route[:3] == ["api", "v1", "models"] and len(route) >= 5:
            self._modelscope("/".join(route[3:5]), route[5:], asked)
        elif len(route) >= 5 and route[2] == "resolve":
            self._file("/".join(route[:2]), "/".join(route[4:]))
        else:
            self._answer(404, b"{}", {})

    do_HEAD = do_POST = do_GET

    def _went_wrong(self) -> bool:
        fault = self.hub.next_fault("api")
        if fault.status:
            self._answer(fault.status, fault.body, fault.headers)
        return bool(fault.status)

    def _model_info(self, identity: str) -> None:
        if self._went_wrong():
            return
        if identity not in self.hub.repos:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        siblings = []
        for name, content in self.hub.repos[identity].items():
            row: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": "0" * 40}
            if Path(name).suffix in LARGE:
                digest = sha256_of(content)
                row["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
            else:
                row["blobId"] = git_of(content)
            siblings.append({"rfilename": name} if self.hub.names_only else row)
        body = {"id": identity, "modelId": identity, "siblings": siblings}
        body["sha"] = self.hub.commits.get(identity, COMMIT)
        self._answer(200, json.dumps(body).encode(), {})

    def _modelscope(self, identity: str, rest: list[str], asked: Mapping[str, str]) -> None:
        good = {"Code": 200, "Success": True}
        files = self.hub.repos.get(identity)
        if rest == ["repo"]:
            self._file(identity, asked.get("FilePath", ""))
            return
        if self._went_wrong():
            return
        if files is None:
            self._answer(404, b'{"Code": 10010205001, "Message": "no such model"}', {})
            return
        data: dict[str, Any] = {"Name": identity, "Id": 1}
        if rest == ["revisions"]:
            data = {"RevisionMap": {"Branches": [{"Revision": "master"}], "Tags": []}}
        if rest == ["repo", "files"]:
            data = {
                "Files": [
                    {"Name": Path(name).name, "Path": name, "Type": "blob", "Size": len(content),
                     "Revision": COMMIT, "Sha256": sha256_of(content), "CommittedDate": 1}
                    for name, content in files.items()
                ]
            }  # fmt: skip
        self._answer(200, json.dumps({**good, "Data": data}).encode(), {})

    def _file(self, identity: str, name: str) -> None:
        content = self.hub.repos.get(identity, {}).get(name)
        fault = Fault() if self.command == "HEAD" else self.hub.next_fault(name)
        if fault.status:
            self._answer(fault.status, b"", fault.headers)
            return
        if content is None:
            code = "EntryNotFound" if identity in self.hub.repos else "RepoNotFound"
            self._answer(404, b"", {"X-Error-Code": code})
            return
        begin, end = 0, len(content)
        asked = self.headers.get("Range", "")
        ranged = asked.startswith("bytes=") and not fault.no_ranges
        if ranged:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin = int(first)
            end = min(end, int(last) + 1) if last else end
        large = Path(name).suffix in LARGE
        etag = sha256_of(content) if large else git_of(content)
        self.send_response(206 if ranged else 200)
        if ranged:
            told = begin + fault.shift
            self.send_header("Content-Range", f"bytes {told}-{end - 1}/{len(content)}")
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if self.hub.xet:
            self.send_header("X-Xet-Hash", "0" * 64)
            self.send_header("X-Xet-Refresh-Route", "/refresh")
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if self.command == "GET":
            self.hub.ranges.append((name, begin))
            self._body(content, (begin, end), fault)

    def _body(self, content: Content, part: tuple[int, int], fault: Fault) -> None:
        begin, last = part
        end = last if fault.after is None else min(last, begin + fault.after)
        self._send(content, begin, end, fault.wrong)
        if fault.after is None:
            return
        if fault.how == "hold":
            self.hub.held.set()
            self.hub.go.wait()
            self._send(content, end, last, fault.wrong)
            return
        if fault.how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    def _send(self, content: Content, begin: int, end: int, wrong: bool) -> None:
        for start in range(begin, end, 1 << 20):
            piece = content[start : min(end, start + (1 << 20))]
            if wrong:
                piece = bytes(byte ^ 1 for byte in piece)
            self.hub.count(len(piece))  # first, for the client may look as soon as it has them
            try:
                self.wfile.write(piece)
            except OSError:  # the client has left
                self.hub.count(-len(piece))
                self.close_connection = True
                return

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def finish(self) -> None:
        """Ends the request; a connection that a fault has reset cannot be flushed any more."""
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Runs a `HubServer` in threads."""
    hub = HubServer()
    handler = type("Handler", (_HubHandler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # resets are on purpose
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.go.set()
        server.shutdown()
        server.server_close()
        thread.join()


class FakeActor:
    """A replica's actor that does what a test says; see `cluster.Handle`.

    It becomes ready by itself, unless `FakeCluster.holds` says otherwise.
    """

    def __init__(self, cluster: FakeCluster, actor: str, node: str, plan: dict[str, Any]) -> None:
        self.actor = actor
        self.node = node
        self.plan = plan
        self.stopped = False
        self._cluster = cluster
        self._changed = asyncio.Event()
        self.status = ReplicaStatus(actor.partition("@")[0])

    def become(self, state: Any, **changes: Any) -> None:
        """Is in this state from now on."""
        if state == "ready":
            changes.setdefault("endpoint", f"http://{self.node}/{self.actor}")
        else:
            changes.setdefault("endpoint", None)
        version = self.status.version + 1
        self.status = replace(self.status, state=state, version=version, **changes)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def fail(self, cause: str = "engine_killed", **more: Any) -> None:
        """Its engine has ended."""
        self.become("failed", diagnosis={"cause": cause, "message": cause, **more})

    def hang(self) -> None:
        """Its engine hangs."""
        self.become("unhealthy", note="hangs", diagnosis={"cause": "engine_hung", "message": "h"})

    async def begin(self) -> ReplicaStatus:
        """See `Replica.begin`."""
        self._cluster.check("begin", self)
        if self.status.state == "pending" and self.actor.partition("@")[0] not in (
            self._cluster.holds
        ):
            self.become("ready")
        return self.status

    async def watch(self, since: int) -> ReplicaStatus:
        """See `Replica.watch`."""
        self._cluster.check("watch", self)
        while self.status.version <= since:
            await self._changed.wait()
            self._cluster.check("watch", self)
        return self.status

    async def stop(self, timeout: float) -> ReplicaStatus:
        """See `Replica.stop`."""
        self._cluster.check("stop", self)
        self.stopped = True
        self.become("stopped")
        return self.status

    async def invoke(self, method: str, timeout: float, **args: Any) -> Any:
        """See `Handle.invoke`."""
        self._cluster.check(method, self)
        self._cluster.calls.append((method, self.actor))
        return "answers"

    async def tail(self, lines: int) -> list[str]:
        """See `Replica.tail`."""
        self._cluster.check("tail", self)
        return [self.actor]

    async def log_after(self, offset: int) -> tuple[int, str]:
        """See `Replica.log_after`."""
        return offset, ""

    def wake(self) -> None:
        """Has whoever waits for it look again."""
        self._changed.set()
        self._changed = asyncio.Event()


class FakeCluster:
    """Ray as a fleet sees it, whose calls fail and whose nodes are lost when a test says so.

    Attributes:
        alive: the actors that live, by name.
        holds: replica ids that do not become ready by themselves.
        troubles: call → errors that its next calls raise; the call of one actor is `call actor`.
        partitioned: actors that cannot be reached, and live.
        lost: nodes that are dead.
        calls: `start`, `end` and what was invoked, with the actor.
    """

    def __init__(self, hosts: Sequence[Host]) -> None:
        self.external = False
        self.connected = False
        self.instance = "test"
        self.on_lost: Any = lambda: None
        self.alive: dict[str, FakeActor] = {}
        self.holds: set[str] = set()
        self.troubles: dict[str, list[Exception]] = {}
        self.partitioned: set[str] = set()
        self.lost: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.ray = False
        self._hosts = list(hosts)

    def check(self, call: str, actor: FakeActor | None = None) -> None:
        """Raises what the call is to raise."""
        names = (call, *([f"{call} {actor.actor}"] if actor is not None else ()))
        for name in names:
            if self.troubles.get(name):
                raise self.troubles[name].pop(0)
        if not self.connected:
            raise ActorUnavailable("the connection to Ray is broken")
        if actor is not None and (actor.actor in self.partitioned or actor.node in self.lost):
            raise ActorUnavailable(f"{actor.actor} cannot be reached")
        if actor is not None and self.alive.get(actor.actor) is not actor:
            raise ActorLost(f"{actor.actor} is gone")

    def trouble(self, call: str, *errors: Exception) -> None:
        """Lets the next calls fail."""
        self.troubles.setdefault(call, []).extend(errors)

    def record(self) -> Any:
        """See `Cluster.record`."""
        return True if self.ray else None

    async def connect(self) -> None:
        """See `Cluster.connect`."""
        await asyncio.sleep(0)
        if self.troubles.get("connect"):
            raise self.troubles["connect"].pop(0)
        self.ray = self.connected = True

    async def hosts(self, paths: tuple[str, ...] = ()) -> list[Host]:
        """See `Cluster.hosts`."""
        return [host for host in self._hosts if host.node not in self.lost]

    async def start(self, actor: str, config: ReplicaConfig, node: str) -> Any:
        """See `Cluster.start`. It may fail after the actor was begun, as a real call may."""
        late = self.troubles.get("start late")
        self.check("start")
        assert actor not in self.alive, f"{actor} is started twice"
        self.calls.append(("start", actor))
        self.alive[actor] = FakeActor(self, actor, node, config.plan)
        if late:
            raise late.pop(0)
        return self.alive[actor]

    async def find(self, actor: str) -> Any:
        """See `Cluster.find`."""
        self.check("find")
        found = self.alive.get(actor)
        return found if found is not None and found.node not in self.lost else None

    async def actors(self) -> set[str]:
        """See `Cluster.actors`."""
        self.check("actors")
        return {name for name, actor in self.alive.items() if actor.node not in self.lost}

    async def end(self, actor: str, node: str) -> None:
        """See `Cluster.end`."""
        self.check("end")
        found = self.alive.get(actor)
        if found is not None:
            if actor in self.partitioned or found.node in self.lost:
                raise ActorUnavailable(f"{actor} cannot be ended")
            self.calls.append(("end", actor))
            self.kill(actor)

    async def lost_nodes(self, known: Collection[str] = ()) -> set[str]:
        """See `Cluster.lost_nodes`."""
        self.check("nodes")
        return self.lost | (set(known) - {host.node for host in self._hosts})

    async def leave(self) -> None:
        """See `Cluster.leave`."""
        self.connected = False

    async def shutdown(self) -> None:
        """See `Cluster.shutdown`."""
        await self.leave()
        if not self.external:
            self.end_ray()

    def kill(self, actor: str) -> None:
        """The actor's process and its engine are gone."""
        self.alive.pop(actor).wake()

    def break_bridge(self) -> None:
        """The bridge is gone; Ray and the actors live on."""
        self.connected = False
        for actor in self.alive.values():
            actor.wake()
        self.on_lost()

    def end_ray(self) -> None:
        """All of the local Ray is gone, and what ran in it on this machine."""
        self.ray = False
        for name in list(self.alive):
            self.kill(name)
        self.break_bridge()

    def lose_node(self, node: str) -> None:
        """The node counts as dead; what runs there runs on, out of sight."""
        self.lost.add(node)
        for actor in self.alive.values():
            actor.wake()

    def return_node(self, node: str) -> None:
        """The node is back, with all that ran there."""
        self.lost.discard(node)

    def running(self, replica_id: str) -> list[FakeActor]:
        """The actors of a replica that live."""
        return [one for name, one in self.alive.items() if name.partition("@")[0] == replica_id]
