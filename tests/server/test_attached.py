"""Models that somebody else serves: another Paddock's, and an endpoint with habits of its own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from paddock.client import Client
from paddock.launcher.planning.plan import Attached
from paddock.launcher.replicas.attached_probe import Remote
from tests.conftest import Paddock, make_paddock
from tests.foreign import KEY, NAMED, Foreign, certificate
from tests.launcher.weights.test_hubs import until
from tests.lazy import Lazy
from tests.server.http.test_errors import raw

openai = Lazy("openai")

TEXTS = ["The elephant eats grass.", "The stock market fell today."]
SDK = Callable[[Paddock | Client], Any]
QUESTION = [{"role": "user", "content": "What does the elephant eat?"}]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Foreign, Path]]:
    """An endpoint behind TLS, and its certificate."""
    made = certificate(tmp_path_factory.mktemp("tls"))
    foreign = Foreign(made)
    foreign.open()
    yield foreign, made
    foreign.close()


@pytest.fixture(scope="module")
def near(
    tmp_path_factory: pytest.TempPathFactory, secure: tuple[Foreign, Path]
) -> Iterator[Paddock]:
    """A gateway of its own, which launches nothing and trusts the certificate."""
    made = make_paddock(tmp_path_factory.mktemp("near"))
    paddock = Paddock(made.home, {**made.environ, "SSL_CERT_FILE": str(secure[1]), "THEIRS": KEY})
    yield paddock
    assert paddock.run("stop").returncode == 0
    assert paddock.processes() == []


@pytest.fixture(scope="module")
def far(near: Paddock, client: Client) -> str:
    """tiny-mixtral of the shared gateway, attached to the other."""
    return near.ok("attach", client.endpoint, "-u", "zoo/far", "-m", "tiny").strip()


@pytest.fixture
def foreign() -> Iterator[Foreign]:
    made = Foreign()
    made.open()
    yield made
    if made.is_open:
        made.close()


@pytest.fixture
def big(near: Paddock, foreign: Foreign) -> Iterator[str]:
    """A model at that endpoint, attached with its key."""
    uid = "big"
    near.ok("attach", foreign.url, "-u", uid, "-m", "big-1", "--api-key-env", "THEIRS")
    yield uid
    near.ok("terminate", "-u", uid)


@pytest.fixture
def sdk() -> Iterator[SDK]:
    """OpenAI's client of a gateway."""
    with ExitStack() as made:

        def of(gateway: Paddock | Client) -> Any:
            url = gateway.endpoint if isinstance(gateway, Client) else gateway.record["endpoint"]
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
            return made.enter_context(client)

        yield of


def shown(paddock: Paddock, uid: str) -> dict[str, Any]:
    (found,) = paddock.client().instances(uid)
    return dict(found)


def test_another_paddocks_model_answers_as_if_it_were_here(
    near: Paddock, client: Client, far: str, sdk: SDK
) -> None:
    """Completions and chats, whole and streamed, word for word, under the name that it has here."""
    here, there = sdk(near), sdk(client)
    ask = {"prompt": "The old elephant", "max_tokens": 12, "temperature": 0}
    whole = here.completions.create(model=far, **ask)
    direct = there.completions.create(model="tiny", **ask)
    assert whole.choices[0].text == direct.choices[0].text
    assert whole.usage.total_tokens == direct.usage.total_tokens
    assert whole.model == far
    events = list(here.completions.create(model=far, stream=True, **ask))
    assert "".join(event.choices[0].text for event in events) == direct.choices[0].text
    assert {event.model for event in events} == {far}
    several = here.completions.create(model=far, **{**ask, "prompt": ["A lion", "A zebra"]}, n=2)
    assert len(several.choices) == 4
    chat = here.chat.completions.create(model=far, messages=QUESTION, max_tokens=8, temperature=0)
    assert "elephant" in (chat.choices[0].message.content or "").lower()
    with pytest.raises(openai.BadRequestError, match="embed"):
        here.embeddings.create(model=far, input="a")
    found = here.models.retrieve(far)
    assert found.context_length == 2048
    assert found.model_ability == ["generate", "chat"]
    assert f'model="{far}"' in raw(near.client(), "GET", "/metrics")[2].decode()


def test_it_embeds_and_ranks(
    near: Paddock, client: Client, embedder: str, ranker: str, sdk: SDK
) -> None:
    """By what the other Paddock says of its models' abilities; scores and vectors are the same."""
    near.ok("attach", client.endpoint, "-m", embedder)
    near.ok("attach", client.endpoint, "-m", ranker, "-u", "far-ranker")
    asked = {"input": TEXTS, "encoding_format": "float"}
    one, other = (
        made.embeddings.create(model=embedder, **asked) for made in (sdk(near), sdk(client))
    )
    assert one.model == embedder
    assert one.usage == other.usage
    assert [row.embedding for row in one.data] == [row.embedding for row in other.data]
    body = {"query": "grass", "documents": TEXTS}
    found = [
        json.loads(raw(made, "POST", "/v1/rerank", json.dumps({**body, "model": uid}).encode())[2])
        for made, uid in ((near.client(), "far-ranker"), (client, ranker))
    ]
    assert found[0]["results"] == found[1]["results"]
    assert found[0]["meta"] == found[1]["meta"]
    assert found[0]["model"] == "far-ranker"
    for uid in (embedder, "far-ranker"):
        near.ok("terminate", "-u", uid)
    assert {embedder, ranker} <= {model["id"] for model in client.models()}


def test_terminating_it_only_detaches(near: Paddock, client: Client) -> None:
    """There it serves on; here nothing of it is left."""
    near.ok("attach", client.endpoint, "-u", "passing", "-m", "tiny")
    near.ok("terminate", "-u", "passing")
    assert near.client().instances("passing") == []
    assert not list((near.home / "attached").glob("passing*"))
    assert client.complete("tiny", "A lion", max_tokens=2)["choices"]


def test_an_endpoint_of_another_kind_is_taken_as_it_is(
    near: Paddock, foreign: Foreign, big: str, sdk: SDK
) -> None:
    """Its names, its line ends and its comments; all of OpenAI's fields reach it."""
    answer = sdk(near).chat.completions.create(
        model=big, messages=QUESTION, user="me", service_tier="flex", seed=5, max_tokens=7
    )
    assert answer.model == big
    assert answer.choices[0].message.content == "one two thr\N{LATIN SMALL LETTER E WITH ACUTE}e"
    assert answer.usage.total_tokens == 6
    path, headers, body = foreign.asked[-1]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body.items() >= {"model": "big-1", "user": "me", "service_tier": "flex"}.items()
    ask = {"model": big, "messages": QUESTION, "stream": True}
    events = list(sdk(near).chat.completions.create(**ask))
    assert {event.model for event in events} == {big}
    assert NAMED not in str(events)
    text = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
    assert text == answer.choices[0].message.content
    plan = shown(near, big)["plan"]
    assert plan["abilities"] == ["chat"]  # found out: it has no other route
    with pytest.raises(openai.BadRequestError, match="did you mean temperature"):
        sdk(near).chat.completions.create(**ask, extra_body={"temprature": 1})


def test_tools_and_pictures_reach_it_where_it_has_the_ability(
    near: Paddock, foreign: Foreign, big: str, sdk: SDK
) -> None:
    """Attached as able to, it gets them as they came; attached without, they are refused."""
    able = ["--ability", "chat", "--ability", "tools", "--ability", "vision"]
    near.ok(*("attach", foreign.url, "-u", "able", "-m", "big-1", "--api-key-env", "THEIRS"), *able)
    function = {"name": "feed", "parameters": {"type": "object", "properties": {}}}
    asked = {"tools": [{"type": "function", "function": function}], "tool_choice": "auto"}
    picture = "data:image/png;base64,iVBORw0KGgo="
    look: Any = {"type": "image_url", "image_url": {"url": picture}}
    seen: Any = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, look]}]
    sdk(near).chat.completions.create(model="able", messages=QUESTION, **asked)
    assert foreign.asked[-1][2].items() >= asked.items()
    sdk(near).chat.completions.create(model="able", messages=seen)
    assert foreign.asked[-1][2]["messages"] == seen
    for body, what in (({"messages": QUESTION, **asked}, "tools"), ({"messages": seen}, "vision")):
        with pytest.raises(openai.BadRequestError, match=what):
            sdk(near).chat.completions.create(model=big, **body)
    near.ok("terminate", "-u", "able")


def test_its_key_is_nowhere_but_in_its_file(
    near: Paddock, foreign: Foreign, big: str, sdk: SDK
) -> None:
    """Not in lists, plans, logs, events, errors or the database, even if the endpoint says it."""
    foreign.status = 418
    with pytest.raises(openai.APIStatusError) as refused:
        sdk(near).chat.completions.create(model=big, messages=QUESTION)
    assert "418" in str(refused.value)
    foreign.status = 0
    client = near.client()
    paths = ["/v1/models", "/v1/models/instances", f"/v1/models/{big}", f"/v1/models/{big}/events"]
    paths += [f"/v1/models/{big}/logs", f"/v1/models/{big}/replicas", "/metrics"]
    told = b"".join(raw(client, "GET", path)[2] for path in paths).decode()
    assert big in told
    wrong = near.run("attach", foreign.url, "-m", "x", "--api-key-env", "THEIRS", "--json")
    assert wrong.returncode == 2
    for text in (told, str(refused.value), wrong.stdout + wrong.stderr):
        assert KEY not in text
    (kept,) = (near.home / "attached").glob("big.key")
    assert kept.read_text() == KEY
    assert kept.stat().st_mode & 0o777 == 0o600
    for file in near.home.rglob("*"):
        if file.is_file() and file != kept:
            assert KEY.encode() not in file.read_bytes(), file


def test_an_endpoint_that_goes_and_comes_back(
    near: Paddock, foreign: Foreign, big: str, sdk: SDK
) -> None:
    """The model has failed, with the reason, as soon as a request finds out; then it is ready."""
    foreign.close()
    with pytest.raises(openai.APIStatusError) as lost:
        sdk(near).chat.completions.create(model=big, messages=QUESTION)
    assert lost.value.status_code == 503
    until(lambda: shown(near, big)["state"] == "failed")
    diagnosis = shown(near, big)["diagnosis"]
    assert diagnosis["cause"] == "endpoint_unreachable"
    assert foreign.url in diagnosis["message"]
    assert "failed (endpoint_unreachable)" in near.ok("list")
    with pytest.raises(openai.APIStatusError, match="endpoint_unreachable"):
        sdk(near).chat.completions.create(model=big, messages=QUESTION)
    foreign.open()
    until(lambda: shown(near, big)["state"] == "ready")
    assert shown(near, big)["diagnosis"] is None
    assert sdk(near).chat.completions.create(model=big, messages=QUESTION).choices
    told = [row["event_content"] for row in near.client()._call("GET", f"/v1/models/{big}/events")]
    assert told[-1] == f"{big}-rep0 is ready"


def test_one_that_has_too_much_to_do_says_when_to_come_again(
    near: Paddock, foreign: Foreign, big: str
) -> None:
    """In each dialect; it is not taken for one that is away, and new ones are told why not."""
    foreign.status, foreign.retry_after = 429, "17"
    body = json.dumps({"model": big, "messages": QUESTION, "max_tokens": 5}).encode()
    for path in ("/v1/chat/completions", "/v1/messages"):
        status, headers, text = raw(near.client(), "POST", path, body)
        assert (status, headers["retry-after"]) == (429, "17"), text
    remote = Remote(foreign.url, KEY)
    for listed in (True, False):
        remote.check(Attached(url=foreign.url, model="big-1", listed=listed))
    done = near.run("attach", foreign.url, "-u", "late", "-m", "big-1", "--api-key-env", "THEIRS")
    assert done.returncode == 4
    assert "rate_limited" in done.stderr
    assert shown(near, big)["state"] == "ready"


WORD = {"id": "x", "model": NAMED, "choices": [{"index": 0, "delta": {"content": "one"}}]}
END = {"id": "x", "model": NAMED, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
ODD: dict[str, tuple[list[Any], str]] = {
    "no sentinel": ([WORD, END], ""),
    "no error in each": ([{**WORD, "error": None}, {**END, "error": None}, "[DONE]"], ""),
    "no choices": ([{**WORD, "choices": None}, WORD, END, "[DONE]"], ""),
    "no counts": ([WORD, {**END, "usage": {"prompt_tokens": 3}}, "[DONE]"], ""),
    "an error as text": ([WORD, {"model": NAMED, "error": "it broke"}, END, "[DONE]"], "it broke"),
    "no JSON": ([WORD, '"model" of what', END, "[DONE]"], "no event"),
    "a list": ([WORD, ["model"], END, "[DONE]"], "no event"),
}


@pytest.mark.parametrize("label", ODD)
def test_streams_with_habits_of_their_own(
    near: Paddock, foreign: Foreign, big: str, label: str
) -> None:
    """They end once, with the sentinel; what is wrong in them is told, whole or streamed."""
    events, wrong = ODD[label]
    foreign.stream = [one if isinstance(one, str) else json.dumps(one) for one in events]
    url = f"{near.record['endpoint']}/v1/chat/completions"
    ask = {"model": big, "messages": QUESTION}
    streamed = requests.post(url, json={**ask, "stream": True}, timeout=30)
    *told, last = streamed.text.removesuffix("\n\n").split("\n\n")
    assert (streamed.status_code, last) == (200, "data: [DONE]")
    found = [json.loads(one.removeprefix("data: ")) for one in told]
    assert "error" in found[-1] or found[-1]["choices"][0]["finish_reason"] == "stop"
    errors = [one["error"]["message"] for one in found if "error" in one]
    assert (len(errors), wrong in "".join(errors)) == (bool(wrong), True)
    whole = requests.post(url, json=ask, timeout=30)
    if wrong:
        assert whole.status_code == 502
        assert wrong in whole.json()["error"]["message"]
    else:
        assert whole.json()["choices"][0]["message"]["content"] == "one"


def test_an_answer_that_is_no_stream_is_not_an_empty_one(
    near: Paddock, foreign: Foreign, big: str
) -> None:
    """An endpoint that does not stream is told as what it is."""
    foreign.stream, foreign.content_type = ["{}"], "application/json"
    for stream in (True, False):
        body = json.dumps({"model": big, "messages": QUESTION, "stream": stream}).encode()
        status, _, text = raw(near.client(), "POST", "/v1/chat/completions", body)
        assert (status, b"no stream" in text) == (502, True)


def test_a_key_or_a_model_that_is_withdrawn(
    near: Paddock, foreign: Foreign, big: str, sdk: SDK
) -> None:
    """A caller is not told that his own key is wrong; the state says what it is."""
    foreign.key = "another"
    with pytest.raises(openai.APIStatusError) as refused:
        sdk(near).chat.completions.create(model=big, messages=QUESTION)
    assert refused.value.status_code == 503
    assert "key" in str(refused.value)
    until(lambda: shown(near, big)["state"] == "failed")
    assert shown(near, big)["diagnosis"]["cause"] == "endpoint_refused"
    foreign.key, foreign.models = KEY, ["small-1"]
    until(lambda: (shown(near, big)["diagnosis"] or {}).get("cause") == "endpoint_unfit")
    assert "small-1" in shown(near, big)["diagnosis"]["message"]
    foreign.models = ["big-1"]
    until(lambda: shown(near, big)["state"] == "ready")


def test_a_redirect_is_not_followed(near: Paddock, foreign: Foreign, big: str, sdk: SDK) -> None:
    """Neither with a request nor with the key."""
    other = Foreign()
    other.open()
    foreign.redirect = f"{other.url}/chat/completions"
    with pytest.raises(openai.APIStatusError, match="redirect"):
        sdk(near).chat.completions.create(model=big, messages=QUESTION)
    wrong = near.run("attach", foreign.url, "--api-key-env", "THEIRS")
    assert wrong.returncode == 4
    assert f"redirects to {other.url}" in wrong.stderr
    assert other.asked == []
    other.close()
    foreign.redirect = ""
    until(lambda: shown(near, big)["state"] == "ready")


def test_tls_is_spoken_and_certificates_are_verified(
    near: Paddock, secure: tuple[Foreign, Path], shared_paddock: Paddock, sdk: SDK
) -> None:
    """By the authorities that the gateway trusts; streams pass as they do in the clear."""
    foreign, _ = secure
    near.ok("attach", foreign.url, "-u", "safe", "-m", "big-1", "--api-key-env", "THEIRS")
    ask = {"model": "safe", "messages": QUESTION}
    for words in (["a"] * 3, ["many"] * 3000):
        foreign.words = words
        whole = sdk(near).chat.completions.create(**ask)
        assert whole.choices[0].message.content == "".join(words)
        events = sdk(near).chat.completions.create(**ask, stream=True)
        text = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
        assert text == "".join(words)
    foreign.words = ["some"] * 400
    with ThreadPoolExecutor(12) as pool:  # where many run, they rest between reads

        def text_of(_: int) -> str:
            events = list(sdk(near).chat.completions.create(**ask, stream=True))
            return "".join(e.choices[0].delta.content or "" for e in events if e.choices)

        assert set(pool.map(text_of, range(12))) == {"some" * 400}
    near.ok("terminate", "-u", "safe")
    untrusted = shared_paddock.run("attach", foreign.url, "-m", "big-1")
    assert untrusted.returncode == 4
    assert "not trusted" in untrusted.stderr
    assert "SSL_CERT_FILE" in untrusted.stderr


def test_a_restart_takes_it_up_again(paddock: Paddock, foreign: Foreign, sdk: SDK) -> None:
    """Without Ray, with its key; an endpoint that is away meanwhile is waited for."""
    paddock.environ["THEIRS"] = KEY
    paddock.ok("attach", foreign.url, "-u", "big", "-m", "big-1", "--api-key-env", "THEIRS")
    foreign.close()
    stop_gateway(paddock)
    orphan = paddock.home / "attached" / "orphan.key"
    orphan.write_text("left by a crash")
    assert paddock.json("list")[0]["model_uid"] == "big"
    until(lambda: shown(paddock, "big")["state"] == "failed")
    foreign.open()
    until(lambda: shown(paddock, "big")["state"] == "ready")
    assert sdk(paddock).chat.completions.create(model="big", messages=QUESTION).choices
    assert not orphan.exists()
    assert not (paddock.home / "bridge.json").exists()
    # One that has failed makes way for another of its name.
    foreign.close()
    with pytest.raises(openai.APIStatusError):
        sdk(paddock).chat.completions.create(model="big", messages=QUESTION)
    until(lambda: shown(paddock, "big")["state"] == "failed")
    foreign.open()
    paddock.ok("attach", foreign.url, "-u", "big", "-m", "small-1", "--api-key-env", "THEIRS")
    assert shown(paddock, "big")["plan"]["model"] == "small-1"
    with sqlite3.connect(paddock.home / "paddock.db") as rows:
        assert rows.execute("SELECT count(*) FROM deployments").fetchone() == (1,)


def stop_gateway(paddock: Paddock) -> None:
    """Ends the gateway alone, as a reboot would."""
    import psutil

    process = psutil.Process(paddock.record["pid"])
    process.terminate()
    psutil.wait_procs([process], timeout=20)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["ftp://host/v1"], 2, "must be a URL"),
        (["https://me:secret@host/v1"], 2, "--api-key-env"),
        (["http://host/v1?key=x"], 2, "without a query"),
        (["http://no-such-host.invalid"], 4, "endpoint_unreachable"),
        (["URL", "--api-key-env", "NOT_SET"], 2, "no such variable"),
        (["URL"], 4, "asks for a key (401); name it with --api-key-env"),
        (["URL", "--api-key-env", "WRONG"], 4, "does not take the key"),
        (["URL", "--api-key-env", "THEIRS"], 2, "big-1, small-1"),
        (["URL", "--api-key-env", "THEIRS", "-m", "bigg-1"], 2, "did you mean big-1"),
        (["URL", "--api-key-env", "THEIRS", "-m", "big-1", "-a", "embed"], 4, "/embeddings says"),
        (["URL", "--api-key-env", "THEIRS", "-m", "big-1", "-a", "sing"], 2, "unknown ability"),
        (["URL", "--api-key-env", "THEIRS", "-m", "big-1", "-a", "tools"], 2, "need one of chat"),
        (["URL", "--api-key-env", "THEIRS", "-m", "big-1", "-u", "a b"], 2, "model id"),
        (["URL/nowhere", "--api-key-env", "THEIRS"], 4, "no list of models"),
        (["TLS"], 4, "does not speak TLS"),
    ],
)
def test_what_cannot_be_attached_says_why(
    near: Paddock, foreign: Foreign, arguments: list[str], code: int, says: str
) -> None:
    """The value, the reason, a way out; and nothing is kept of it."""
    url = foreign.url
    near.environ["WRONG"] = "sk-wrong"
    given = [
        {"TLS": url.replace("http:", "https:")}.get(a, a.replace("URL", url)) for a in arguments
    ]
    done = near.run("attach", *given)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "secret" not in done.stderr
    assert "sk-wrong" not in done.stderr
    assert {m["model_uid"] for m in near.client().instances()} <= {"zoo/far"}


def test_what_needs_files_or_replicas_is_refused(near: Paddock, far: str, tmp_path: Path) -> None:
    """Nothing of it is here."""
    client = near.client()
    body = json.dumps({"replica": 1}).encode()
    status, _, text = raw(client, "POST", f"/v1/models/{far}/replicas", body)
    assert status == 400
    assert b"somebody else" in text
    status, _, text = raw(client, "POST", "/v1/locks", json.dumps({"launched": far}).encode())
    assert status == 400
    assert b"served by" in text
    assert "served by somebody else" in near.ok("logs", "-u", far)
