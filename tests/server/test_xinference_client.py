"""Xinference's own client, unchanged, against a gateway that runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from xinference_client import AsyncRESTfulClient, RESTfulClient

from paddock.client import Client
from paddock.registry.catalog import specs_root
from paddock.registry.errors import GatewayError
from tests.conftest import Paddock
from tests.e2e.test_failures import until
from tests.server.routes.test_management import call


@pytest.fixture
def theirs(client: Client) -> Iterator[RESTfulClient]:
    """Xinference's client of the shared gateway."""
    made = RESTfulClient(client.endpoint)
    yield made
    made.close()


@pytest.fixture
def echo(theirs: RESTfulClient) -> Iterator[Callable[..., str]]:
    """Launches a model on echo under an id of one's own; it is ended with the test."""
    made: list[str] = []

    def launch(uid: str, **options: Any) -> str:
        made.append(uid)
        launched = theirs.launch_model(
            "tiny-mixtral", model_engine="echo", model_uid=uid, **options
        )
        assert launched == uid
        return launched

    yield launch
    for uid in made:
        if theirs.get_instance_info("", uid):
            theirs.terminate_model(uid)


@contextmanager
def handle(client: RESTfulClient, uid: str) -> Iterator[Any]:
    """The handle of a model, with its connections closed in the end."""
    found = client.get_model(uid)
    yield found
    found.close()


def test_constructor_sends_a_key_only_where_one_is_asked_for(client: Client) -> None:
    """An open gateway says so, and the client then keeps its key to itself."""
    made = RESTfulClient(client.endpoint, api_key="sk-anything")
    assert made._get_token() is None
    assert made.list_models()
    made.close()


def test_key_is_sent_to_a_gateway_that_asks_for_one(paddock: Paddock) -> None:
    """With the key the client is let in; without it, it is told what is missing."""
    key = "sk-of-this-test"
    assert paddock.run("list", PADDOCK_API_KEY=key).returncode == 0  # starts the gateway
    made = RESTfulClient(paddock.record["endpoint"], api_key=key)
    assert made.list_models() == {}
    made.close()
    made = RESTfulClient(paddock.record["endpoint"])
    with pytest.raises(RuntimeError, match="API key"):
        made.list_models()
    made.close()
    assert paddock.run("stop", PADDOCK_API_KEY=key).returncode == 0


def test_launch_list_describe_and_terminate(
    theirs: RESTfulClient, echo: Callable[..., str]
) -> None:
    """A launch that is waited for is listed and described at once, and gone once it is ended."""
    uid = echo("x-life")
    assert theirs.list_models()[uid]["model_name"] == "tiny-mixtral"
    described = theirs.describe_model(uid)
    dify = {
        "model_format", "model_ability", "model_family", "model_type", "model_name", "max_tokens",
        "context_length",
    }  # fmt: skip
    assert dify <= described.keys()
    assert described["model_type"] == "LLM"
    (instance,) = theirs.get_instance_info("tiny-mixtral", uid)
    assert (instance["status"], instance["replica"]) == ("READY", 1)
    theirs.terminate_model(uid)
    assert uid not in theirs.list_models()
    assert theirs.get_instance_info("tiny-mixtral", uid) == []


def test_launch_without_waiting_is_followed_by_its_progress(
    theirs: RESTfulClient, echo: Callable[..., str]
) -> None:
    """With `wait_ready=False` the id comes at once, and `progress` rises to 1."""
    uid = echo("x-nowait", wait_ready=False)
    until(lambda: theirs.get_launch_model_progress(uid)["progress"] == 1.0)
    (instance,) = theirs.get_instance_info("", uid)
    assert instance["status"] == "READY"


def test_cancelled_launch_fails_for_its_caller_and_leaves_nothing(
    theirs: RESTfulClient, client: Client
) -> None:
    """`cancel_launch_model` ends a launch that another call waits for."""
    said: list[str] = []

    def launch() -> None:
        waiting = RESTfulClient(client.endpoint)
        try:
            waiting.launch_model(
                "tiny-mixtral", model_engine="echo", model_uid="x-cancel", load_seconds=60
            )
        except RuntimeError as error:
            said.append(str(error))
        waiting.close()

    thread = threading.Thread(target=launch)
    thread.start()
    until(lambda: theirs.get_instance_info("", "x-cancel"))
    theirs.cancel_launch_model("x-cancel")
    thread.join(30)
    assert len(said) == 1
    assert "cancelled" in said[0]
    assert theirs.get_instance_info("", "x-cancel") == []


def test_model_that_runs_is_not_ended_by_cancelling_its_launch(
    theirs: RESTfulClient, echo: Callable[..., str]
) -> None:
    """There is no launch left to cancel; the answer names what ends a model."""
    uid = echo("x-uncancelled")
    with pytest.raises(RuntimeError, match="paddock terminate --model-uid x-uncancelled"):
        theirs.cancel_launch_model(uid)
    assert theirs.describe_model(uid)


@pytest.mark.parametrize("uid", ["x-zoo/one", "x-zoo%2Fone"])
def test_id_with_a_slash_works_raw_and_quoted(
    theirs: RESTfulClient, echo: Callable[..., str], uid: str
) -> None:
    """The client sends ids as they are; both forms describe, tell progress and terminate."""
    echo("x-zoo/one")
    assert theirs.describe_model(uid)["model_name"] == "tiny-mixtral"
    assert theirs.get_launch_model_progress(uid)["progress"] == 1.0
    with handle(theirs, "x-zoo/one") as model:
        assert model.generate("a b", {"max_tokens": 2})["model"] == "x-zoo/one"
    theirs.terminate_model(uid)
    assert theirs.get_instance_info("", "x-zoo/one") == []


@pytest.mark.parametrize(
    "act",
    [
        lambda c: c.describe_model("x-nobody"),
        lambda c: c.get_model("x-nobody"),
        lambda c: c.terminate_model("x-nobody"),
        lambda c: c.cancel_launch_model("x-nobody"),
        lambda c: c.get_launch_model_progress("x-nobody"),
        lambda c: c.add_model_replica("x-nobody"),
        lambda c: c.terminate_model_replica("x-nobody", 0),
        lambda c: c.abort_request("x-nobody", "1"),
    ],
)
def test_unknown_model_is_said_to_the_client(
    theirs: RESTfulClient, act: Callable[[RESTfulClient], Any]
) -> None:
    """Every method that takes an id raises with a `detail` that names it."""
    with pytest.raises(RuntimeError, match="no launched model has the id 'x-nobody'"):
        act(theirs)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/x-nobody"),
        ("DELETE", "/v1/models/x-nobody"),
        ("GET", "/v1/models/x-nobody/replicas"),
        ("DELETE", "/v1/models/x-nobody/replicas/0"),
        ("GET", "/v1/models/x-nobody/events"),
        ("POST", "/v1/models/x-nobody/cancel"),
        ("GET", "/v1/models/LLM/x-nobody/versions"),
        ("GET", "/v1/models/nothing/tiny-mixtral/versions"),
        ("GET", "/v1/models/embedding/tiny-mixtral/versions"),
        ("GET", "/v1/engines/x-nobody"),
    ],
)
def test_what_a_path_names_and_is_not_there_is_404(client: Client, method: str, path: str) -> None:
    """Unknown models, types and versions answer 404 with the message as `detail`."""
    status, answer = call(client, method, path)
    assert status == 404
    assert answer["detail"] == answer["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/plan", "/v1/models/tiny/replicas"])
@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b"[1]", b'"text"'])
def test_body_that_does_not_parse_is_400(client: Client, tiny: str, path: str, body: bytes) -> None:
    """No body makes the gateway stumble: what is no JSON object is refused as such."""
    answer = requests.post(f"{client.endpoint}{path}", data=body, timeout=30)
    assert answer.status_code == 400
    assert "body" in answer.json()["detail"]


def test_unknown_launch_option_is_refused_by_its_name(theirs: RESTfulClient) -> None:
    """What neither Paddock nor the engine knows is named, and nothing is launched."""
    with pytest.raises(RuntimeError, match=r"n_cttx.*did you mean n_ctx"):
        theirs.launch_model("tiny-mixtral", model_uid="x-typo", n_cttx=4096)
    assert theirs.get_instance_info("", "x-typo") == []


def test_handle_generates_whole_and_in_a_stream(theirs: RESTfulClient, tiny: str) -> None:
    """`generate` gives one text, and with `stream` the same text in pieces."""
    config = {"max_tokens": 12, "temperature": 0}
    with handle(theirs, tiny) as model:
        whole = model.generate("The old elephant", config)
        pieces = list(model.generate("The old elephant", {**config, "stream": True}))
    text = whole["choices"][0]["text"]
    assert text
    assert "".join(c["text"] for piece in pieces for c in piece["choices"]) == text
    assert {piece["model"] for piece in [whole, *pieces]} == {tiny}


def test_handle_chats_whole_and_in_a_stream(theirs: RESTfulClient, tiny: str) -> None:
    """`chat` gives one message, and with `stream` the same message in pieces."""
    asked = [{"role": "user", "content": "What does a lion eat?"}]
    config = {"max_tokens": 12, "temperature": 0}
    with handle(theirs, tiny) as model:
        whole = model.chat(asked, generate_config=config)
        pieces = list(model.chat(asked, generate_config={**config, "stream": True}))
    text = whole["choices"][0]["message"]["content"]
    assert text
    deltas = [c["delta"].get("content") or "" for p in pieces for c in p["choices"]]
    assert "".join(deltas) == text


async def test_asynchronous_client_launches_lists_and_streams(client: Client) -> None:
    """The same client for event loops works too, streams included."""
    theirs = AsyncRESTfulClient(client.endpoint)
    uid = await theirs.launch_model("tiny-mixtral", model_engine="echo", model_uid="x-async")
    assert uid in await theirs.list_models()
    model = await theirs.get_model(uid)
    config = {"max_tokens": 3, "stream": True}
    asked = [{"role": "user", "content": "one two three"}]
    pieces = [p async for p in await model.chat(asked, generate_config=config)]
    assert "".join(c["delta"].get("content") or "" for p in pieces for c in p["choices"])
    await model.close()
    await theirs.terminate_model(uid)
    assert await theirs.get_instance_info("", uid) == []
    await theirs.close()


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("/v1/completions", {"prompt": "a b"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a b"}]}),
    ],
)
def test_stream_ends_in_done(
    client: Client, echo: Callable[..., str], path: str, prompt: dict[str, Any]
) -> None:
    """The last line of every stream is `[DONE]`, which Xinference leaves out of completions."""
    uid = echo("x-done")
    body = {"model": uid, "max_tokens": 2, "stream": True, **prompt}
    answer = requests.post(f"{client.endpoint}{path}", json=body, timeout=30)
    assert (
        answer.text.splitlines()[-1 if not answer.text.endswith("\n\n") else -2] == "data: [DONE]"
    )


def test_replicas_are_added_and_removed_while_the_model_serves(
    theirs: RESTfulClient, client: Client, echo: Callable[..., str]
) -> None:
    """A replica that was added is ready when the call returns; its number is never given again."""
    uid = echo("x-grows")
    added = theirs.add_model_replica(uid)
    assert (added["replica_id"], added["replica_model_uid"]) == (1, f"{uid}-rep1")
    status, rows = call(client, "GET", f"/v1/models/{uid}/replicas")
    assert status == 200
    assert [(r["replica_id"], r["status"]) for r in rows] == [(0, "READY"), (1, "READY")]
    assert theirs.describe_model(uid)["replica"] == 2
    pid = rows[1]["pid"]
    assert theirs.terminate_model_replica(uid, 1) == 1
    assert not psutil.pid_exists(pid)
    assert theirs.add_model_replica(uid)["replica_id"] == 2
    assert theirs.terminate_model_replica(uid, 0) == 1
    with handle(theirs, uid) as model:
        assert model.generate("one two", {"max_tokens": 2})["choices"][0]["text"]
    (instance,) = theirs.get_instance_info("", uid)
    assert [r["replica_id"] for r in instance["replica_statuses"]] == [2]


def test_several_replicas_are_added_at_once(
    theirs: RESTfulClient, echo: Callable[..., str]
) -> None:
    """More than one answer as a list, beside their count."""
    uid = echo("x-several")
    added = theirs.add_model_replica(uid, replica=2, model_engine="ECHO", n_gpu="auto")
    assert added["replica"] == 2
    assert [r["replica_id"] for r in added["replicas"]] == [1, 2]
    theirs.terminate_model(uid)
    assert theirs.get_instance_info("", uid) == []


def test_last_replica_is_not_removed(theirs: RESTfulClient, echo: Callable[..., str]) -> None:
    """A model ends by `terminate`, which the refusal names."""
    uid = echo("x-last")
    with pytest.raises(RuntimeError, match="paddock terminate --model-uid x-last"):
        theirs.terminate_model_replica(uid, 0)
    with pytest.raises(RuntimeError, match="unknown replica '7' for x-last"):
        theirs.terminate_model_replica(uid, 7)
    assert theirs.describe_model(uid)["replica"] == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"replica": "two"}, "replica"),
        ({"replica": 0}, "replica"),
        ({"replica": True}, "replica"),
        ({"replica": 1000}, "replica"),
        ({"replica_config": {"devices": [{"worker_ip": "10.0.0.1:1"}]}}, "replica_config"),
        ({"model_engine": "vLLM"}, "model_engine"),
        ({"n_gpu": 4}, "n_gpu"),
        ({"replicas": 2}, "replicas"),
    ],
)
def test_replica_that_would_differ_is_refused_by_the_key(
    client: Client, tiny: str, body: dict[str, Any], says: str
) -> None:
    """What a new replica cannot have is named, and none is added."""
    status, answer = call(client, "POST", f"/v1/models/{tiny}/replicas", body)
    assert status == 400
    assert says in answer["detail"]
    assert client.describe(tiny)["replica"] == 1


def test_events_tell_what_became_of_each_replica(
    theirs: RESTfulClient, client: Client, echo: Callable[..., str]
) -> None:
    """Launch, states and removals are listed in their order, in Xinference's keys."""
    uid = echo("x-events")
    theirs.add_model_replica(uid)
    theirs.terminate_model_replica(uid, 0)
    status, events = call(client, "GET", f"/v1/models/{uid}/events")
    assert status == 200
    assert {frozenset(event) for event in events} == {
        frozenset({"event_type", "event_ts", "event_content"})
    }
    told = [event["event_content"] for event in events]
    wanted = [f"{uid}-rep0 is ready", f"{uid}-rep1 is ready", f"{uid}-rep0 is removed"]
    assert [line for line in told if line in wanted] == wanted


def test_replica_that_fails_is_told_and_comes_back_while_the_model_serves_on(
    theirs: RESTfulClient, client: Client, echo: Callable[..., str]
) -> None:
    """It waits for its next start without an error of the model, and the others never notice."""
    uid = echo("x-survives")
    theirs.add_model_replica(uid)

    def second() -> dict[str, Any]:
        return dict(call(client, "GET", f"/v1/models/{uid}/replicas")[1][1])

    psutil.Process(second()["pid"]).kill()
    until(lambda: second()["restarts"] == 1)
    with handle(theirs, uid) as model:
        assert model.generate("one", {"max_tokens": 1})["model"] == uid
    until(lambda: second()["status"] == "READY")
    assert second()["last_failure"]["cause"] == "engine_killed"
    assert second()["error_message"] is None
    (instance,) = theirs.get_instance_info("", uid)
    assert (instance["status"], instance["diagnosis"]) == ("READY", None)
    assert theirs.terminate_model_replica(uid, 1) == 1


def test_replica_that_stays_failed_is_told_and_the_model_serves_on(
    theirs: RESTfulClient, client: Client, echo: Callable[..., str]
) -> None:
    """Its row has the error; once it is removed, the model is free of the failure."""
    uid = echo("x-remains", restart="never")
    theirs.add_model_replica(uid)
    rows = call(client, "GET", f"/v1/models/{uid}/replicas")[1]
    psutil.Process(rows[1]["pid"]).kill()

    def failed() -> bool:
        row = call(client, "GET", f"/v1/models/{uid}/replicas")[1][1]
        return bool(row["status"] == "ERROR" and row["error_message"])

    until(failed)
    with handle(theirs, uid) as model:
        assert model.generate("one", {"max_tokens": 1})["model"] == uid
    assert theirs.terminate_model_replica(uid, 1) == 1
    (instance,) = theirs.get_instance_info("", uid)
    assert instance["diagnosis"] is None


def test_abort_of_an_unknown_request_says_so(theirs: RESTfulClient, tiny: str) -> None:
    """An id that no request came with is not found."""
    assert theirs.abort_request(tiny, "any", block_duration=0) == {"msg": "NOT_FOUND"}


def test_abort_ends_the_request_with_that_id(
    theirs: RESTfulClient, shared_paddock: Paddock
) -> None:
    """A stream that came with a `request_id` ends when it is aborted, with an error for it."""
    shared_paddock.ok(
        "launch", "tiny-mixtral", "-en", "echo", "-u", "abortable", "--token_seconds", "0.05"
    )
    handle = theirs.get_model("abortable")
    stream = handle.generate("word " * 500, {"stream": True, "request_id": "mine"})
    assert next(stream)["choices"][0]["text"] == "word"
    assert theirs.abort_request("abortable", "mine", block_duration=60) == {"msg": "DONE"}
    with pytest.raises(Exception, match="aborted"):
        list(stream)
    with pytest.raises(RuntimeError, match="aborted"):  # blocked for a while
        handle.generate("word", {"request_id": "mine"})
    shared_paddock.ok("terminate", "-u", "abortable")


def test_engines_of_a_model_are_variants_or_a_reason(theirs: RESTfulClient) -> None:
    """The engine that can serve lists formats and quantizations; the others say why not."""
    for type_ in ("LLM", None):
        found = theirs.query_engine_by_model_name("tiny-mixtral", model_type=type_)
        (row,) = found["llama.cpp"]
        assert row["model_format"] == "ggufv2"
        assert "Q4_K_M" in row["quantizations"]
        assert row["model_size_in_billions"] == "0_004"
        assert "needs an NVIDIA GPU" in found["SGLang"]
    with pytest.raises(RuntimeError, match="unknown model 'x-nobody'"):
        theirs.query_engine_by_model_name("x-nobody")


def test_machines_are_described_with_their_replicas(theirs: RESTfulClient, tiny: str) -> None:
    """Workers carry the replicas that run on them, and the supervisor is the gateway's machine."""
    (worker,) = theirs.get_workers_info()
    assert worker["models"][f"{tiny}-rep0"]["model_name"] == "tiny-mixtral"
    assert theirs.get_supervisor_info() == {"supervisor_ip": "127.0.0.1"}
    assert theirs._get_supervisor_internal_address() == theirs.base_url.removeprefix("http://")
    assert "MixtralForCausalLM" in theirs.vllm_models()["generate"]


def test_cluster_routes_state_what_is_known(client: Client) -> None:
    """Memory and processors are the machine's; GPUs are those of a machine without any."""
    assert call(client, "GET", "/v1/cluster/devices") == (200, 0)
    status, nodes = call(client, "GET", "/v1/cluster/info?detailed=true")
    assert status == 200
    assert [node["node_type"] for node in nodes] == ["Supervisor", "Worker"]
    assert 0 < nodes[1]["mem_available"] < nodes[1]["mem_total"]
    assert "mem_total" not in call(client, "GET", "/v1/cluster/info")[1][0]
    status, state = call(client, "GET", "/status")
    assert status == 200
    assert state["uptime"] > 0
    (worker,) = state["workers"].values()
    assert worker["status"]["cpu"]["memory_used"] > 0


def test_catalogue_routes_list_families_prompts_and_versions(client: Client) -> None:
    """Models stand under what they can do, and each variant is a version of its model."""
    families = call(client, "GET", "/v1/models/families")[1]
    assert "tiny-mixtral" in families["chat"]
    assert "mixtral-v0.1" not in families["chat"]
    assert families["audio"] == []
    assert call(client, "GET", "/v1/models/prompts")[0] == 200
    versions = call(client, "GET", "/v1/models/LLM/tiny-mixtral/versions")[1]
    shipped = next(v for v in versions if v["quantization"] == "Q4_K_M")
    assert shipped["model_version"] == "tiny-mixtral--0_004B--ggufv2--Q4_K_M"
    assert shipped["cache_status"] is True
    assert list(shipped["model_file_location"].values()) == ["weights/tiny-mixtral/ggufv2"]


def test_failed_launch_is_told_with_its_cause(theirs: RESTfulClient, client: Client) -> None:
    """A launch that is waited for and fails raises with the cause, and is listed as ERROR."""
    with pytest.raises(RuntimeError, match="engine_exited"):
        theirs.launch_model("tiny-mixtral", model_engine="echo", model_uid="x-fails", exit_code=3)
    (instance,) = theirs.get_instance_info("", "x-fails")
    assert instance["status"] == "ERROR"
    with pytest.raises(GatewayError, match="x-fails"):
        client.describe("x-fails")
    theirs.terminate_model("x-fails")


FLAT: dict[str, Any] = {
    "version": 2,
    "context_length": 1024,
    "model_lang": ["en"],
    "model_ability": ["chat"],
    "model_description": "Theirs.",
    "model_family": "tiny-mixtral",
    "model_specs": [
        {
            "model_format": "ggufv2",
            "model_size_in_billions": "0_004",
            "quantization": "Q4_K_M",
            "model_file_name_template": "tiny-mixtral.{quantization}.gguf",
        }
    ],
}


@pytest.fixture
def registered(theirs: RESTfulClient) -> Iterator[Callable[..., None]]:
    """Registers a model under a name of one's own; it is removed with the test."""
    made: list[str] = []

    def register(name: str, text: str) -> None:
        made.append(name)
        theirs.register_model("LLM", text, persist=True)

    yield register
    names = {row["model_name"] for row in theirs.list_model_registrations("LLM")}
    for name in made:
        if name in names:
            theirs.unregister_model("LLM", name)


def test_registrations_are_listed_and_described(theirs: RESTfulClient) -> None:
    """Built-in models are listed by name, or whole with one entry for each variant and hub."""
    listed = theirs.list_model_registrations("LLM")
    assert {"model_name": "mixtral-v0.1", "is_builtin": True} in listed
    detailed = {m["model_name"]: m for m in theirs.list_model_registrations("LLM", detailed=True)}
    one = theirs.get_model_registration("LLM", "mixtral-v0.1")
    assert detailed["mixtral-v0.1"] == one
    assert {"model_lang", "model_ability", "model_family", "model_specs"} <= one.keys()
    flat = [(s["model_format"], s["model_hub"], s["quantization"]) for s in one["model_specs"]]
    assert ("pytorch", "modelscope", "none") in flat
    assert ("ggufv2", "huggingface", "Q4_K_M") in flat
    assert theirs.list_model_registrations("audio") == []
    with pytest.raises(RuntimeError, match="unknown model type 'poem'"):
        theirs.list_model_registrations("poem")
    with pytest.raises(RuntimeError, match=r"did you mean mixtral-v0\.1"):
        theirs.get_model_registration("LLM", "mixtral-v01")


def test_model_in_xinferences_json_is_registered_launched_and_removed(
    theirs: RESTfulClient, registered: Callable[..., None], echo: Callable[..., str]
) -> None:
    """What is registered can be launched at once; what was launched outlives its registration."""
    folder = specs_root() / "weights" / "tiny-mixtral" / "ggufv2"
    entry = {**FLAT["model_specs"][0], "model_uri": f"file://{folder}"}
    registered("x-flat", json.dumps({**FLAT, "model_name": "x-flat", "model_specs": [entry]}))
    assert {"model_name": "x-flat", "is_builtin": False} in theirs.list_model_registrations("LLM")
    described = theirs.get_model_registration("LLM", "x-flat")
    assert described["model_specs"][0]["model_uri"] == str(folder)
    assert theirs.launch_model("x-flat", model_engine="llama.cpp") == "x-flat"
    with handle(theirs, "x-flat") as model:
        assert model.generate("The old", {"max_tokens": 4})["choices"][0]["text"]
        theirs.unregister_model("LLM", "x-flat")
        assert model.generate("The old", {"max_tokens": 4})["choices"][0]["text"]
    with pytest.raises(RuntimeError, match="unknown model 'x-flat'"):
        theirs.launch_model("x-flat", model_uid="x-flat-2")
    theirs.terminate_model("x-flat")


def test_model_in_our_yaml_is_registered(
    theirs: RESTfulClient, registered: Callable[..., None], echo: Callable[..., str]
) -> None:
    """A spec as text is taken as it is, and its aliases too name the model."""
    spec = (specs_root() / "llm" / "tiny-mixtral.yaml").read_text()
    registered("x-own", spec.replace("tiny-mixtral", "x-own\naliases: [x-alias]", 1))
    assert theirs.get_model_registration("LLM", "x-alias")["model_name"] == "x-own"
    uid = theirs.launch_model("x-alias", model_engine="echo", model_uid="x-own-1")
    assert theirs.describe_model(uid)["model_name"] == "x-own"
    theirs.terminate_model(uid)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "model"),
        ("name: x-wrong\nlicense: MIT", "model:1: description: is missing"),
        (json.dumps({**FLAT, "model_name": "x wrong"}), "model_name"),
        ((specs_root() / "llm" / "tiny-mixtral.yaml").read_text(), "built-in"),
        (json.dumps({**FLAT, "model_name": "x-wrong"}), r"model_specs\[0\]\.model_id"),
    ],
)
def test_wrong_registration_is_refused_with_its_field(
    theirs: RESTfulClient, text: str, says: str
) -> None:
    """The detail names the field, and the catalogue is as it was."""
    before = theirs.list_model_registrations("LLM")
    with pytest.raises(RuntimeError, match=says):
        theirs.register_model("LLM", text, persist=False)
    assert theirs.list_model_registrations("LLM") == before


def test_built_in_model_is_not_unregistered(theirs: RESTfulClient) -> None:
    """What came with Paddock stays, and what is not there is not found."""
    with pytest.raises(RuntimeError, match="built in"):
        theirs.unregister_model("LLM", "tiny-mixtral")
    with pytest.raises(RuntimeError, match="unknown model 'x-nobody'"):
        theirs.unregister_model("LLM", "x-nobody")


def test_registrations_and_replicas_outlive_the_gateway(paddock: Paddock, tmp_path: Path) -> None:
    """After a restart the registered model is there, and numbers go on where they were."""
    spec = (specs_root() / "llm" / "tiny-mixtral.yaml").read_text()
    file = tmp_path / "own.yaml"
    file.write_text(spec.replace("tiny-mixtral", "x-kept", 1))
    assert paddock.json("register", "--file", str(file))["model_name"] == "x-kept"
    paddock.ok("launch", "x-kept", "-en", "echo")
    theirs = RESTfulClient(paddock.record["endpoint"])
    assert theirs.add_model_replica("x-kept")["replica_id"] == 1
    assert theirs.terminate_model_replica("x-kept", 1) == 1
    theirs.close()
    gateway = psutil.Process(paddock.record["pid"])
    gateway.kill()
    until(lambda: not gateway.is_running() or gateway.status() == psutil.STATUS_ZOMBIE)
    until(lambda: "ready" in paddock.ok("list"))  # which starts another gateway
    theirs = RESTfulClient(paddock.record["endpoint"])
    names = [row["model_name"] for row in theirs.list_model_registrations("LLM")]
    assert "x-kept" in names
    assert theirs.add_model_replica("x-kept")["replica_id"] == 2
    theirs.close()
    assert "x-kept" in paddock.ok("registrations")
    paddock.ok("unregister", "--model-name", "x-kept")
    assert "x-kept" not in paddock.ok("registrations")
