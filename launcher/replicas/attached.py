"""Models that somebody else serves: asks their endpoints, watches them, keeps their keys.

There is no process to supervise, and so no actor: the gateway itself looks whether the endpoint
answers. `Watched` has the methods of `cluster.Handle`, so that the fleet follows an attached
model as it follows any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import shlex
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from paddock.engines import attached as engine
from paddock.launcher.hosts.host import LOCAL
from paddock.launcher.planning.plan import (
    Attached,
    LaunchPlan,
    MemoryEstimate,
    PlannedWeights,
    check_uid,
)
from paddock.launcher.replicas.diagnosis import Cause, Diagnosis, Failure
from paddock.launcher.replicas.replica import ReplicaStatus
from paddock.registry.abilities import abilities, find_ability, probed_abilities, type_of
from paddock.registry.errors import BadValue, UnknownName, shown
from paddock.registry.files import make_private, write_atomically, writing

SLOTS = 64
"""Requests that an endpoint gets side by side, unless told otherwise."""
LOOK_SECONDS, AGAIN_SECONDS, FAILED_SECONDS = 10.0, 1.0, 2.0
"""Between two looks: at an endpoint that is well, that was just found not to be, and after that."""
ANSWER_SECONDS = 5.0
"""How long a look may take in all, once it is connected."""
PROBE_SECONDS = 60.0
"""The same of a request that shows an ability: its model may have to be loaded first."""
# Threads of their own: an endpoint that is silent holds one for ANSWER_SECONDS, or for minutes
# while it is attached, and the gateway's other work of this kind (plans, keys, metrics) shares a
# pool of `cpus + 4`.
LOOKS = ThreadPoolExecutor(4, "attached")
ATTACHES = ThreadPoolExecutor(16, "attach")
MAX_ANSWER_BYTES = 16_000_000
BUSY = 429


class AttachRequest(BaseModel):
    """What is to be attached. None and empty: ask the endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    endpoint: str
    model: str | None = None
    model_uid: str | None = None
    api_key: str = Field(default="", repr=False)
    abilities: tuple[str, ...] = ()
    context_length: int | None = Field(default=None, ge=1)
    slots: int = Field(default=SLOTS, ge=1, le=100_000)

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> AttachRequest:
        """What a client sent; the endpoint comes out as OpenAI's clients want it.

        Raises:
            UnknownName: a field, or an ability, that does not exist.
            BadValue: a wrong value; that of a key is not shown.
        """
        for name in given:
            if name not in cls.model_fields:
                raise UnknownName.among("field", name, cls.model_fields)
        try:
            made = cls.model_validate({k: v for k, v in given.items() if v is not None})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            value = "(not shown)" if name == "api_key" else given.get(name)
            raise BadValue(name, value, first["msg"]) from None
        if not (made.api_key.isascii() and made.api_key.isprintable()) or " " in made.api_key:
            raise BadValue("api_key", "(not shown)", "must be printable ASCII without spaces")
        if made.model_uid is not None:
            check_uid(made.model_uid)
        _check_abilities(made.abilities)
        return made.model_copy(update={"endpoint": _base(made.endpoint)})


def _check_abilities(given: Iterable[str]) -> None:
    given = tuple(given)
    for ability in given:
        if find_ability(ability) is None:
            raise UnknownName.among("ability", ability, abilities())
    probed = probed_abilities()
    if given and not probed.keys() & set(given):
        raise BadValue("abilities", ", ".join(given), f"need one of {', '.join(probed)} too")


def _base(url: str) -> str:
    """The base URL, without a slash at its end; of a host alone, that of its `/v1`."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise BadValue("endpoint", url, str(error)) from None
    if parts.scheme not in {"http", "https"} or not host:
        raise BadValue("endpoint", url, "must be a URL such as https://host/v1")
    if parts.username is not None or parts.password is not None:
        safe = f"{parts.scheme}://…@{host}{parts.path}"
        raise BadValue("endpoint", safe, "a key goes by --api-key-env, not into the URL")
    if parts.query or parts.fragment:
        raise BadValue("endpoint", url, "must be without a query: only https://host/path")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise BadValue("endpoint", url, "must be ASCII without spaces")
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


@dataclass(frozen=True)
class Answered:
    """What came back. `location` is where a redirect leads."""

    status: int
    data: bytes
    location: str = ""

    def said(self) -> str:
        """An error in words."""
        text = self.data.decode("utf-8", "replace").strip()
        with contextlib.suppress(ValueError):
            found = json.loads(text)
            found = found.get("error", found) if isinstance(found, dict) else found
            text = str(found.get("message", found) if isinstance(found, dict) else found)
        return shown(" ".join(text.split()), 200)


@dataclass(frozen=True)
class Remote:
    """An endpoint and its key. Its methods block, and raise `Failure` with a diagnosis."""

    url: str
    key: str = field(default="", repr=False)

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Answered:
        """One request. Redirects are not followed: the key is for this host alone."""
        parts = urlsplit(self.url)
        seconds = ANSWER_SECONDS if body is None else PROBE_SECONDS
        headers = {"Accept": "application/json", "User-Agent": "paddock"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        expired = threading.Event()
        method = "GET" if data is None else "POST"
        try:
            with _connected(parts, seconds, expired) as connection:
                connection.request(method, parts.path + path, data, headers)
                answer = connection.getresponse()
                read = answer.read(MAX_ANSWER_BYTES)
                location = answer.headers.get("Location", "")
                if expired.is_set():  # the end of a body without a length was none
                    raise TimeoutError
        except (OSError, http.client.HTTPException) as error:
            reason = TimeoutError() if expired.is_set() else error
            raise self._failed("endpoint_unreachable", _why(reason, parts.scheme)) from error
        if self.key:
            read = read.replace(self.key.encode(), b"(key)")
        return Answered(answer.status, read, location)

    def models(self) -> dict[str, dict[str, Any]] | None:
        """The models that it lists, by name; None if it has no such list."""
        answer = self._settled(self.ask("/models"))
        if answer.status in {404, 405, 501}:
            return None
        found: Any = None
        with contextlib.suppress(ValueError):
            found = json.loads(answer.data)
        rows = found.get("data") if isinstance(found, dict) else None
        if answer.status != 200 or not isinstance(rows, list):
            raise self.unfit(f"answers {answer.status} without a list of models")
        return {str(row["id"]): row for row in rows if isinstance(row, dict) and "id" in row}

    def able(self, model: str, ability: str) -> str | None:
        """Why it cannot do for the model what the ability needs; None if it can."""
        probed = probed_abilities()[ability]
        why = ""
        for body in probed.probes:
            answer = self._settled(self.ask(probed.path, {**body, "model": model}))
            if answer.status == 200:
                return None
            why = why or f"{probed.path} says {answer.status} {answer.said()}"
        return why

    def check(self, attached: Attached) -> None:
        """Raises `Failure` unless it answers and has the model; one that is busy answers too."""
        if attached.listed:
            found = self._listed()
            if found is not None and attached.model not in found:
                raise self.unfit(f"has no model {attached.model} any more{_some(found)}")
        elif (answer := self.ask("/models")).status != BUSY:
            self._settled(answer)

    def _listed(self) -> dict[str, dict[str, Any]] | None:
        try:
            return self.models()
        except Failure as failure:
            if failure.diagnosis.cause == "rate_limited":
                return None
            raise

    def _settled(self, answer: Answered) -> Answered:
        """The answer, unless it says that there is nothing to be had here at all."""
        if answer.status in {401, 403}:
            why = f"does not take the key ({answer.status} {answer.said()})"
            if not self.key:
                why = f"asks for a key ({answer.status}); name it with --api-key-env"
            raise self._failed("endpoint_refused", why)
        if 300 <= answer.status < 400:
            to = f" to {shown(answer.location)}" if answer.location else ""
            raise self.unfit(f"redirects{to}, which is not followed with a key")
        if answer.status == BUSY:
            raise self._failed("rate_limited", f"asks to come again later (429 {answer.said()})")
        if answer.status >= 500 and answer.status != 501:
            raise self._failed("endpoint_unreachable", f"says {answer.status} {answer.said()}")
        return answer

    def unfit(self, why: str) -> Failure:
        """What answers is not what is wanted."""
        return self._failed("endpoint_unfit", why)

    def _failed(self, cause: Cause, why: str) -> Failure:
        again = ["paddock", "attach", self.url]
        if cause == "endpoint_refused":
            again += ["--api-key-env", "VARIABLE"]
        if cause == "endpoint_unfit":
            again[-1] = "URL"
        return Failure(Diagnosis(cause, f"{self.url} {why}", shlex.join(again)))


@contextlib.contextmanager
def _connected(
    parts: SplitResult, seconds: float, expired: threading.Event
) -> Iterator[http.client.HTTPConnection]:
    """A connection that is cut off after so many seconds; then `expired` is set.

    A socket's own timeout begins anew with each byte that comes.
    """
    host, is_tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    # TLS takes the socket over, and leaves an empty one: hence the second handle.
    with socket.create_connection((host, port), seconds) as plain, plain.dup() as handle:

        def cut() -> None:
            expired.set()
            with contextlib.suppress(OSError):  # it is closed already
                handle.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        connection = (
            http.client.HTTPSConnection(host, port, context=_tls())
            if is_tls
            else http.client.HTTPConnection(host, port)
        )
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sock = _tls().wrap_socket(plain, server_hostname=host) if is_tls else plain
            yield connection
        finally:
            connection.close()
            timer.cancel()
            timer.join()  # `cut` must not meet another socket of the same number


@cache
def _tls() -> ssl.SSLContext:
    """Certificates are verified."""
    return ssl.create_default_context()


def _why(error: Exception, scheme: str) -> str:
    """A connection's failure in words, with the way out where there is one."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"has a certificate that is not trusted ({error.verify_message}); an authority of "
            "your own is named to the gateway by SSL_CERT_FILE"
        )
    if isinstance(error, ssl.SSLError):
        return f"does not speak TLS ({error.reason}); an http:// endpoint?"
    if isinstance(error, TimeoutError):
        return "does not answer in time"
    if isinstance(error, http.client.RemoteDisconnected | http.client.BadStatusLine):
        return "does not speak HTTP" + ("; an https:// endpoint?" if scheme == "http" else "")
    return f"cannot be reached ({getattr(error, 'strerror', None) or error})"


def _some(found: Iterable[str]) -> str:
    names = sorted(found)
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f" (it has: {', '.join(map(shown, names[:12]))}{more})" if names else " (it has none)"


def plan_attached(request: AttachRequest) -> LaunchPlan:
    """Asks the endpoint for what the request leaves open, and whether it can do it. Blocks.

    Raises:
        Failure: it cannot be reached, does not take the key, or has no such API.
        UnknownName, BadValue: the model is not there, or not told among several.
    """
    remote = Remote(request.endpoint, request.api_key)
    found = remote.models()
    if found is None and request.model is None:
        raise remote.unfit("has no list of models at /models: wrong path? (it often ends in /v1)")
    name = _chosen(request, found)
    uid = request.model_uid or name
    try:
        check_uid(uid)
    except BadValue as error:
        why = f"the name there is no model id ({error.reason}); give one with --model-uid"
        raise BadValue("model id", uid, why) from None
    row = (found or {}).get(name, {})
    names = request.abilities or _told_abilities(row)
    if names:
        needed = next(ability for ability in probed_abilities() if ability in names)
        if refused := remote.able(name, needed):
            raise remote.unfit(f"does not {needed} with {name}: {refused}")
        reasons = [
            "abilities: as asked for" if request.abilities else "abilities: as it lists them"
        ]
    else:
        tried = {ability: remote.able(name, ability) for ability in probed_abilities()}
        names = tuple(ability for ability, why in tried.items() if why is None)
        if not names:
            raise remote.unfit(f"cannot use {name}: {'; '.join(filter(None, tried.values()))}")
        reasons = ["abilities: the routes that answered; --ability adds others, such as tools"]
    context = request.context_length or _told_context(row)
    parts = urlsplit(request.endpoint)
    warnings = []
    if request.api_key and parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        warnings.append("the key and all requests go there unencrypted: http, not https")
    return LaunchPlan(
        model_id=uid,
        model=name,
        type=type_of(names),
        format="attached",
        size="unknown",
        quantization="unknown",
        abilities=names,
        engine=engine.NAME,
        engine_version="",
        options={},
        context_length=context,
        slots=request.slots,
        replicas=1,
        node=LOCAL,
        node_name=parts.netloc,
        weights=PlannedWeights(hub="none", id="", size_bytes=0, here=True),
        memory=MemoryEstimate(weights_bytes=0, cache_bytes=0, overhead_bytes=0, free_bytes=0),
        reasons=tuple(reasons),
        warnings=tuple(warnings),
        attached=Attached(url=request.endpoint, model=name, listed=name in (found or {})),
    )


def _chosen(request: AttachRequest, found: Mapping[str, Any] | None) -> str:
    if request.model is not None:
        if found and request.model not in found:
            raise UnknownName.among("model", request.model, found, of=request.endpoint)
        return request.model
    if len(found or ()) == 1:
        return next(iter(found or ()))
    why = f"is needed: {request.endpoint} has several{_some(found or ())}; name one with --model"
    if not found:
        why = f"is needed: {request.endpoint} lists none; name one with --model"
    raise BadValue("model", None, why)


def _told_abilities(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What another Paddock, or Xinference, says that the model can do."""
    told = row.get("model_ability")
    names = told if isinstance(told, list) else []
    return tuple(dict.fromkeys(name for name in names if find_ability(name)))


def _told_context(row: Mapping[str, Any]) -> int:
    """The context by the names that Paddock, vLLM and llama.cpp have for it; 0 if none is told."""
    meta = row.get("meta")
    inside = meta if isinstance(meta, dict) else {}
    for value in (row.get("context_length"), row.get("max_model_len"), inside.get("n_ctx")):
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 0


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


class Keys:
    """The endpoints' keys: a file for each model below `PADDOCK_HOME`, for its owner alone."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "attached"

    def _file(self, uid: str) -> Path:
        return self._folder / f"{uid.replace('/', '%2F')}.key"

    def write(self, uid: str, key: str) -> None:
        """Keeps a model's key, completely or not at all. Raises `NotWritten`."""
        with writing(self._folder):
            make_private(self._folder)
        write_atomically(self._file(uid), key)

    def read(self, uid: str) -> str:
        """A model's key, empty where it needs none. Raises `OSError` if it is not there."""
        return self._file(uid).read_text("utf-8")

    def remove(self, uid: str) -> None:
        """Forgets a model's key."""
        self._file(uid).unlink(missing_ok=True)

    def sweep(self, uids: Iterable[str]) -> None:
        """Forgets all keys but those of these models: what a crash has left."""
        wanted = {self._file(uid) for uid in uids}
        for file in self._folder.glob("*") if self._folder.exists() else ():
            if file not in wanted:
                file.unlink(missing_ok=True)


class Watched:
    """An attached endpoint under the eyes of the gateway; see `cluster.Handle`.

    Its state is `failed` while the endpoint does not answer, and `ready` again once it does.
    """

    def __init__(self, replica_id: str, plan: LaunchPlan, keys: Keys) -> None:
        assert plan.attached is not None
        self.replica_id = replica_id
        self._attached = plan.attached
        self._uid = plan.model_id
        self._keys = keys
        self._stopping = False
        self._poke = asyncio.Event()
        self._status = ReplicaStatus(replica_id, started_at=time.time())

    async def begin(self) -> ReplicaStatus:
        """Looks for the first time."""
        if self._status.state == "pending":
            self._note(await self._look())
        return self._status

    async def watch(self, since: int) -> ReplicaStatus:
        """Looks from time to time, and returns when there is something new."""
        while self._status.version == since and not self._stopping:
            ready = self._status.state == "ready"
            await self._pause(LOOK_SECONDS if ready else FAILED_SECONDS)
            wrong = None if self._stopping else await self._look()
            if wrong is not None and ready and not self._stopping:
                await self._pause(AGAIN_SECONDS)  # once is a hiccup
                wrong = await self._look()
            if not self._stopping:
                self._note(wrong)
        if self._stopping:
            self._set(state="stopped", endpoint=None)
        return self._status

    async def _pause(self, seconds: float) -> None:
        self._poke.clear()
        if not self._stopping:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poke.wait(), seconds)

    async def _look(self) -> Diagnosis | None:
        """What is wrong with it."""
        try:
            key = self._keys.read(self._uid)
        except OSError as error:
            again = shlex.join(["paddock", "attach", self._attached.url, "--model-uid", self._uid])
            why = f"the key of {self._attached.url} cannot be read: {error.strerror}"
            return Diagnosis("endpoint_refused", why, again)
        try:
            look = partial(Remote(self._attached.url, key).check, self._attached)
            await asyncio.get_running_loop().run_in_executor(LOOKS, look)
        except Failure as failure:
            return failure.diagnosis
        self._status = replace(self._status, key=key)
        return None

    def _note(self, wrong: Diagnosis | None) -> None:
        if wrong is None and self._status.state != "ready":
            url = self._attached.url
            self._set(state="ready", endpoint=url, diagnosis=None, ready_at=time.time())
        elif wrong is not None and self._status.diagnosis != wrong.to_json():
            self._set(state="failed", endpoint=None, diagnosis=wrong.to_json())

    def _set(self, **changes: Any) -> None:
        self._status = replace(self._status, version=self._status.version + 1, **changes)

    def doubt(self) -> None:
        """A request has failed there: looks again at once."""
        self._poke.set()

    async def stop(self, timeout: float) -> ReplicaStatus:
        """Looks no more. The endpoint goes on: it is not ours to end."""
        self._stopping = True
        self._poke.set()
        return self._status

    async def tail(self, lines: int) -> list[str]:
        """There is no log here."""
        return [f"{self._attached.url} is served by somebody else, who has its log"]

    async def log_after(self, offset: int) -> tuple[int, str]:
        """There is no log here."""
        return offset, ""
