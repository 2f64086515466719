"""The small Python client that the command line and users share. Standard library only.

from paddock.client import Client

client = Client("http://127.0.0.1:9997")
client.launch(model_name="tiny-mixtral")
for text in client.generate("tiny-mixtral", "The old elephant", max_tokens=40):
    print(text, end="", flush=True)
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator, Iterable, Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from paddock.registry.errors import BadValue, GatewayError, GatewayUnreachable

VERIFY_SECONDS = 7200.0
"""The time limit for reading some hundred gigabytes from a slow disk."""


class Client:
    """Talks to one gateway. A connection is opened for each call, so that it may be shared."""

    def __init__(self, endpoint: str, api_key: str = "", timeout: float = 600.0) -> None:
        if not _is_address(endpoint):
            raise BadValue("endpoint", endpoint, "must be a URL such as http://127.0.0.1:9997")
        if not (api_key.isascii() and api_key.isprintable()):
            raise BadValue("api key", "(not shown)", "must be printable ASCII")
        # Other clients want the address with /v1, which is the beginning of most routes.
        self.endpoint = endpoint.rstrip("/").removesuffix("/v1")
        self._parts = urlsplit(self.endpoint)
        self._api_key = api_key
        self._timeout = timeout

    def health(self, timeout: float = 2.0) -> dict[str, Any]:
        """The gateway's health. Raises `GatewayUnreachable`."""
        return dict(self._call("GET", "/healthz", timeout=timeout))

    def identify(self, timeout: float = 2.0) -> None:
        """Checks that a Paddock gateway answers.

        Raises:
            GatewayUnreachable: nobody answers, or another server does.
        """
        try:
            health = self._call("GET", "/healthz", timeout=timeout)
        except GatewayError as error:
            reason = f"another server answers there: HTTP {error.status} for /healthz"
            raise GatewayUnreachable(self.endpoint, reason) from error
        if not isinstance(health, dict) or not {"status", "version"} <= health.keys():
            reason = "another server answers there: its /healthz is not Paddock's"
            raise GatewayUnreachable(self.endpoint, reason)

    def plan(self, **launch: Any) -> dict[str, Any]:
        """The plan of a launch, with the keys of `launch`."""
        return dict(self._call("POST", "/v1/plan", launch))

    def launch(self, *, wait: bool = True, **launch: Any) -> dict[str, Any]:
        """Launches a model: `model_name` and, as wanted, `model_uid`, `model_engine`,
        `model_format`, `model_size_in_billions`, `quantization`, `replica`, `model_path`,
        `context_length` and engine options. A `model_name` such as `hf:owner/name` names a model
        without a spec; `trust` is the commit whose code may run. Returns `model_uid` and `plan`.
        """
        query = urlencode({"wait_ready": str(wait).lower()})
        return dict(self._call("POST", f"/v1/models?{query}", launch))

    def attach(self, endpoint: str, **options: Any) -> dict[str, Any]:
        """Puts a model that somebody else serves behind the gateway: `endpoint` is its URL.

        As wanted: `model` (its name there), `model_uid`, `api_key`, `abilities`, `context_length`
        and `slots`. Returns `model_uid` and `plan`.
        """
        return dict(self._call("POST", "/v1/attached", {"endpoint": endpoint, **options}))

    def models(self) -> list[dict[str, Any]]:
        """The models that can answer, as `GET /v1/models` lists them."""
        return list(self._call("GET", "/v1/models")["data"])

    def instances(self, uid: str = "") -> list[dict[str, Any]]:
        """Every launched model (or the one), in any state: `GET /v1/models/instances`."""
        query = urlencode({"model_uid": uid})
        return list(self._call("GET", f"/v1/models/instances?{query}"))

    def describe(self, uid: str) -> dict[str, Any]:
        """One model that can answer, as `GET /v1/models/{uid}` has it."""
        return dict(self._call("GET", f"/v1/models/{quote(uid)}"))

    def progress(self, uid: str) -> dict[str, Any]:
        """The progress of a launch: `progress` from 0 to 1, `state`, `note`, `replicas` …"""
        return dict(self._call("GET", f"/v1/models/{quote(uid)}/progress"))

    def logs(self, uid: str, lines: int = 100) -> dict[str, list[str]]:
        """The last lines of each replica's engine."""
        return dict(self._call("GET", f"/v1/models/{quote(uid)}/logs?lines={lines}"))

    def follow_logs(self, uid: str) -> Generator[tuple[str, str], None, None]:
        """Replica id and line, from the beginning of each log on, until the model is gone.

        Raises:
            GatewayUnreachable: the gateway ended, or is not there.
        """
        connection = self._open(None)  # a log may be quiet for hours
        try:
            path = f"/v1/models/{quote(uid)}/logs?follow=true"
            for line in self._request(connection, "GET", path, None):
                if line.startswith(b"data:"):
                    event = json.loads(line.removeprefix(b"data:"))
                    yield event["replica"], event["line"]
        except (OSError, http.client.HTTPException) as error:
            raise GatewayUnreachable(self.endpoint, f"the stream broke off: {error}") from error
        finally:
            connection.close()

    def events(
        self, model: str = "", types: Sequence[str] = (), *, logs: bool = False, after: str = ""
    ) -> Generator[dict[str, Any], None, None]:
        """Events of models, as dicts of `id`, `event` and `data`, until the gateway ends.

        The first is a `snapshot` of all models. If `after` is the id of an event that the gateway
        still knows, the events after that one follow instead. `types` are of `model`, `replica`,
        `progress` and `log`; without `types`, all but `log`. `logs` adds engines' lines.

        Raises:
            GatewayUnreachable: the gateway ended, or is not there.
        """
        filters = {"model": model, "types": ",".join(types), "logs": "true" if logs else ""}
        filters["last_event_id"] = after
        query = urlencode({name: value for name, value in filters.items() if value})
        connection = self._open(None)  # nothing may happen for hours
        try:
            event: dict[str, Any] = {}
            for raw in self._request(connection, "GET", f"/v1/events?{query}", None):
                name, _, value = raw.decode().rstrip("\r\n").partition(": ")
                if name in {"id", "event"}:
                    event[name] = value
                elif name == "data":
                    yield {**event, "data": json.loads(value)}
        except (OSError, http.client.HTTPException) as error:
            raise GatewayUnreachable(self.endpoint, f"the stream broke off: {error}") from error
        finally:
            connection.close()

    def terminate(self, uid: str) -> None:
        """Ends a model; returns when its processes are gone."""
        self._call("DELETE", f"/v1/models/{quote(uid)}")

    def cancel(self, uid: str) -> None:
        """Cancels a launch."""
        self._call("POST", f"/v1/models/{quote(uid)}/cancel")

    def pull(self, **variant: Any) -> dict[str, Any]:
        """Begins to download weights, with the keys of `launch`. Returns what `show_pull` does."""
        return dict(self._call("POST", "/v1/pulls", variant))

    def pulls(self) -> list[dict[str, Any]]:
        """The pulls that the gateway knows, oldest first, each as `show_pull` returns it."""
        return list(self._call("GET", "/v1/pulls")["data"])

    def show_pull(self, pull_id: str) -> dict[str, Any]:
        """One pull: its `state`, how far it is, and in the end its `path` or `diagnosis`."""
        return dict(self._call("GET", f"/v1/pulls/{quote(pull_id, safe='')}"))

    def cancel_pull(self, pull_id: str) -> dict[str, Any]:
        """Cancels a pull; downloaded files stay. Returns what `show_pull` does."""
        return dict(self._call("DELETE", f"/v1/pulls/{quote(pull_id, safe='')}"))

    def lock(self, **options: Any) -> dict[str, Any]:
        """Begins to make a lock's entry: of a variant by the keys of `launch`, or of the model
        whose id is `launched`. Returns what `show_lock` does.
        """
        return dict(self._call("POST", "/v1/locks", options))

    def verify_lock(self, models: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Begins to read the files of a lockfile's entries anew. Returns what `show_lock` does."""
        return dict(self._call("POST", "/v1/lockfile/verify", {"models": list(models)}))

    def outdated(self, models: Sequence[dict[str, Any]] | None = None) -> dict[str, Any]:
        """Begins to look on hubs for newer versions of these entries, or of all cached models.

        Returns what `show_lock` does.
        """
        body = {} if models is None else {"models": list(models)}
        return dict(self._call("POST", "/v1/lockfile/outdated", body))

    def locks(self) -> list[dict[str, Any]]:
        """Work on locks that the gateway knows, oldest first, each as `show_lock` returns it."""
        return list(self._call("GET", "/v1/locks")["data"])

    def show_lock(self, work_id: str) -> dict[str, Any]:
        """Work on locks: its `state`, how far it is, its `rows`, or in the end its `diagnosis`."""
        return dict(self._call("GET", f"/v1/locks/{quote(work_id, safe='')}"))

    def cancel_lock(self, work_id: str) -> dict[str, Any]:
        """Cancels work on locks. Returns what `show_lock` does."""
        return dict(self._call("DELETE", f"/v1/locks/{quote(work_id, safe='')}"))

    def truth(self) -> dict[str, Any]:
        """What was measured: `version`, `machine` and `measurements`."""
        return dict(self._call("GET", "/v1/truth"))

    def take_truth(self, document: Any, label: str = "") -> int:
        """Has the gateway take what `truth` gave elsewhere; returns how many it took."""
        path = f"/v1/truth?{urlencode({'label': label})}"
        return int(self._call("POST", path, document)["taken"])

    def forget_truth(self, words: str) -> int:
        """Has measurements of weights with these words forgotten, or `all`; returns how many."""
        path = f"/v1/truth?{urlencode({'words': words})}"
        return int(self._call("DELETE", path)["forgotten"])

    def cached(self, name: str = "") -> list[dict[str, Any]]:
        """The variants whose files are on the gateway's machine, of all models or one.

        Rows are those of `GET /v1/cache/models`.
        """
        return list(self.cache(name)["list"])

    def cache(self, name: str = "") -> dict[str, Any]:
        """In `list` what `cached` returns; in `unusable_hubs` whose caches could not be read."""
        return dict(self._call("GET", f"/v1/cache/models?{urlencode({'model_name': name})}"))

    def cached_repositories(self) -> list[dict[str, Any]]:
        """Every repository in the hubs' caches there, from any tool.

        Rows have `hub`, `id`, `path`, `size_bytes` and `part_bytes`.
        """
        return list(self._call("GET", "/v1/cache/repositories")["list"])

    def verify_cached(self, version: str) -> list[dict[str, Any]]:
        """Has a variant's files read anew; `version` is a cached row's `model_version`.

        Returns `path`, `size_bytes`, `digest` and `whole` for each file.
        """
        query = urlencode({"model_version": version})
        path = f"/v1/cache/models/verify?{query}"
        return list(self._call("POST", path, timeout=VERIFY_SECONDS)["files"])

    def remove_cached(self, version: str) -> bool:
        """Deletes a variant's files; True if that succeeded."""
        query = urlencode({"model_version": version})
        return bool(self._call("DELETE", f"/v1/cache/models?{query}")["result"])

    def register(self, spec: str, kind: str = "LLM") -> str:
        """Registers a model, a spec in YAML or in Xinference's JSON, and returns its name."""
        body = {"model": spec, "persist": True}
        answer = self._call("POST", f"/v1/model_registrations/{quote(kind)}", body)
        return str(answer["model_name"])

    def show(self, name: str, *, offline: bool = False) -> dict[str, Any]:
        """A model's spec, as `yaml` and as values; `name` may be such as `hf:owner/name`.

        Of one that was derived also its `reference`, `commit`, `notes`, and in `consent` the
        formats that are refused without `trust`.
        """
        query = urlencode({"model_name": name, "offline": str(offline).lower()})
        return dict(self._call("GET", f"/v1/specs?{query}"))

    def engines(self, name: str) -> dict[str, list[dict[str, Any]] | str]:
        """Every engine of a model → the variants that it can serve, or the reason why none."""
        return dict(self._call("GET", f"/v1/engines/{quote(name, safe='')}"))

    def unregister(self, name: str, kind: str = "LLM") -> None:
        """Removes a model that was registered."""
        path = f"/v1/model_registrations/{quote(kind)}/{quote(name, safe='')}"
        self._call("DELETE", path)

    def create_key(
        self, name: str = "", scope: str = "", models: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Makes a key of a scope such as `inference`; only this answer has the `key` itself."""
        body = {"name": name, "scope": scope, "models": list(models)}
        return dict(self._call("POST", "/v1/keys", body))

    def keys(self) -> list[dict[str, Any]]:
        """The keys: `id`, `name`, `scope`, `models` and `created`, but no secrets."""
        return list(self._call("GET", "/v1/keys")["data"])

    def revoke_key(self, key_id: str) -> dict[str, Any]:
        """Forgets a key; the next request with it is refused. Returns the key's row of `keys`."""
        return dict(self._call("DELETE", f"/v1/keys/{quote(key_id, safe='')}"))

    def stop(self) -> None:
        """Ends every model, the Ray that the gateway started, and the gateway."""
        self._call("DELETE", "/v1/clusters")

    def complete(self, uid: str, prompt: str, **fields: Any) -> dict[str, Any]:
        """One completion, not streamed: the answer of `/v1/completions`."""
        body = {"model": uid, "prompt": prompt, **fields}
        return dict(self._call("POST", "/v1/completions", body))

    def chat(self, uid: str, messages: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        """One chat answer, not streamed: the answer of `/v1/chat/completions`."""
        body = {"model": uid, "messages": messages, **fields}
        return dict(self._call("POST", "/v1/chat/completions", body))

    def generate(self, uid: str, prompt: str, **fields: Any) -> Generator[str, None, None]:
        """Streams the text that continues the prompt."""
        body = {"model": uid, "prompt": prompt, "stream": True, **fields}
        for choice in self._stream("/v1/completions", body):
            yield choice.get("text") or ""

    def stream_chat(
        self, uid: str, messages: list[dict[str, Any]], **fields: Any
    ) -> Generator[str, None, None]:
        """Streams the text of a chat answer."""
        body = {"model": uid, "messages": messages, "stream": True, **fields}
        for choice in self._stream("/v1/chat/completions", body):
            yield choice.get("delta", {}).get("content") or ""

    def _open(self, timeout: float | None) -> http.client.HTTPConnection:
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        return kind(self._parts.hostname or "", self._parts.port, timeout=timeout)

    def _request(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Any
    ) -> http.client.HTTPResponse:
        headers = {"Accept": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, data, headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise GatewayUnreachable(self.endpoint, reason) from error
        if answer.status >= 400:
            raise _error(self.endpoint, answer.status, answer.read())
        return answer

    def _call(self, method: str, path: str, body: Any = None, timeout: float | None = None) -> Any:
        connection = self._open(timeout or self._timeout)
        try:
            answer = self._request(connection, method, path, body)
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise GatewayUnreachable(self.endpoint, str(error)) from error
        finally:
            connection.close()
        try:
            return json.loads(text)
        except ValueError as error:
            message = f"{self.endpoint}{path} did not answer JSON; is it a Paddock gateway?"
            raise GatewayError(answer.status, message) from error

    def _stream(self, path: str, body: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        connection = self._open(self._timeout)
        try:
            answer = self._request(connection, "POST", path, body)
            for line in answer:
                if not line.startswith(b"data:"):
                    continue
                data = line.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    return
                event = json.loads(data)
                if "error" in event:
                    raise GatewayError(200, _message(event), {})
                yield from event.get("choices", [])
        except (OSError, http.client.HTTPException) as error:
            raise GatewayUnreachable(self.endpoint, f"the stream broke off: {error}") from error
        finally:
            connection.close()


def _is_address(endpoint: str) -> bool:
    """Whether it is the address of an HTTP server, which a request line can hold."""
    try:
        parts = urlsplit(endpoint)
        is_whole = bool(parts.hostname) and parts.port != 0  # a wrong port raises
    except ValueError:
        return False
    plain = endpoint.isascii() and endpoint.isprintable() and " " not in endpoint
    return plain and is_whole and parts.scheme in {"http", "https"}


def _message(data: dict[str, Any]) -> str:
    error = data.get("error")
    if isinstance(error, dict):
        return str(error.get("message", error))
    return str(data.get("detail") or error)


def _error(endpoint: str, status: int, text: bytes) -> GatewayError:
    """The error of an answer; one that is no gateway's names the endpoint."""
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        return GatewayError(status, f"{endpoint} answers HTTP {status}; is it a Paddock gateway?")
    error = data.get("error")
    return GatewayError(status, _message(data), error if isinstance(error, dict) else {})
