"""The hubs' own clients against a hub on loopback: what comes, and what each refusal is called."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paddock.launcher.hubs import fetch, is_whole
from paddock.launcher.plan import PlannedFile, PlannedWeights
from paddock.registry.errors import HubFailure
from tests.fakes import HubServer, hub_server

DATA = b"GGUF" + bytes(range(256)) * 40
SHA = "0123456789abcdef0123456789abcdef01234567"
REPO = "keeper/zoo-GGUF"
FILE = "zoo.Q4_0.gguf"
# Endpoints and cache folders are read when a client is imported: each fetch has its own process.
FETCH = """
import json, sys, threading
from paddock.launcher.hubs import fetch
from paddock.launcher.plan import PlannedWeights
from paddock.registry.errors import HubFailure
came = []
try:
    path = fetch(PlannedWeights.model_validate_json(sys.argv[1]), 2.0,
                 lambda *progress: came.append(progress), threading.Event())
    print(json.dumps({"path": str(path), "came": came}))
except HubFailure as error:
    print(json.dumps({"cause": error.cause, "reason": str(error), "tried": error.tried}))
"""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as server:
        yield server


def weights(hub: str, *files: str, **changes: Any) -> PlannedWeights:
    planned = tuple(PlannedFile(name=name, size_bytes=len(DATA)) for name in files)
    given = {"hub": hub, "id": REPO, "files": planned, "size_bytes": len(DATA), "here": False}
    return PlannedWeights(**{**given, **changes})


def run(planned: PlannedWeights, endpoint: str, folder: Path) -> dict[str, Any]:
    """Fetches in a new process, with both hubs at the endpoint and caches in the folder."""
    environ = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environ |= {
        "HF_ENDPOINT": endpoint,
        "MODELSCOPE_ENDPOINT": endpoint,
        "HF_HOME": str(folder / "hf"),
        "MODELSCOPE_CACHE": str(folder / "modelscope"),
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", FETCH, planned.model_dump_json()],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def huggingface_has(hub: HubServer, status: int = 200, **headers: str) -> None:
    """Answers for one file as Hugging Face would."""
    named = {"ETag": f'"{hashlib.sha256(DATA).hexdigest()}"', "X_Repo_Commit": SHA}
    path = f"/{REPO}/resolve/main/{FILE}"
    hub.say(path, DATA if status == 200 else b"", status, **named, **headers)


def test_one_file_comes_and_is_found_again_without_a_request(
    hub: HubServer, tmp_path: Path
) -> None:
    """From Hugging Face only the wanted file is fetched, with progress, and kept in its cache."""
    huggingface_has(hub)
    found = run(weights("huggingface", FILE), hub.endpoint, tmp_path)
    assert Path(found["path"]).read_bytes() == DATA
    assert found["came"][-1] == [len(DATA), len(DATA)]
    # The client asks for a list of its own, unbidden, whatever is fetched.
    fetched = [line for line in hub.asked if line.startswith("GET") and "/api/agent-" not in line]
    assert fetched == [f"GET /{REPO}/resolve/main/{FILE}"]
    hub.asked.clear()
    again = run(weights("huggingface", FILE), hub.endpoint, tmp_path)
    assert again["path"] == found["path"]
    assert not [line for line in hub.asked if "/api/agent-" not in line]


@pytest.mark.parametrize(
    ("code", "status", "cause", "says"),
    [
        ("EntryNotFound", 404, "not_found", FILE),
        ("RepoNotFound", 404, "not_found", REPO),
        ("RevisionNotFound", 404, "not_found", REPO),
        ("GatedRepo", 403, "gated_repo", "HF_TOKEN"),
        ("GatedRepo", 401, "gated_repo", "HF_TOKEN"),
    ],
)
def test_refusals_of_hugging_face_have_their_cause(
    hub: HubServer, tmp_path: Path, code: str, status: int, cause: str, says: str
) -> None:
    """What the hub said decides the cause, and the message has what is missing or what to do."""
    huggingface_has(hub, status, X_Error_Code=code)
    found = run(weights("huggingface", FILE), hub.endpoint, tmp_path)
    assert found["cause"] == cause
    assert says in found["reason"]
    assert "\n" not in found["reason"]


@pytest.mark.parametrize("name", ["huggingface", "modelscope"])
def test_a_hub_that_nobody_answers_for_is_unreachable(tmp_path: Path, name: str) -> None:
    """A closed port is told at once, with the address that was tried."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nothing answers
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        found = run(weights(name, FILE), endpoint, tmp_path)
    assert found["cause"] == "hub_unreachable"
    assert endpoint.removeprefix("http://") in found["tried"][0]


def test_a_hub_that_takes_connections_and_says_nothing_is_unreachable(tmp_path: Path) -> None:
    """Silence ends within 15 seconds, as the plan promises."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begin = time.monotonic()
        found = run(weights("huggingface", FILE), endpoint, tmp_path)
        assert time.monotonic() - begin < 15
    assert found["cause"] == "hub_unreachable"
    assert found["tried"]


def modelscope_has(hub: HubServer, *names: str) -> None:
    """Answers for a repository as ModelScope would."""
    files = [
        {
            "Name": name,
            "Path": name,
            "Type": "blob",
            "Size": len(DATA),
            "Revision": "master",
            "Sha256": hashlib.sha256(DATA).hexdigest(),
            "CommittedDate": 1,
        }
        for name in names
    ]
    base = f"/api/v1/models/{REPO}"
    good = {"Code": 200, "Success": True}
    hub.say(base, {**good, "Data": {"Name": REPO, "Id": 1}})
    revisions = {"Branches": [{"Revision": "master"}], "Tags": []}
    hub.say(f"{base}/revisions", {**good, "Data": {"RevisionMap": revisions}})
    hub.say(f"{base}/repo/files", {**good, "Data": {"Files": files}})
    hub.say(f"{base}/repo", DATA)


def test_one_file_comes_from_modelscope(hub: HubServer, tmp_path: Path) -> None:
    """Of several files only the wanted one, and then it is found without a request."""
    modelscope_has(hub, FILE, "zoo.Q8_0.gguf", "config.json")
    found = run(weights("modelscope", FILE), hub.endpoint, tmp_path)
    assert "path" in found, found
    assert Path(found["path"]).read_bytes() == DATA
    assert not [line for line in hub.asked if "Q8_0" in line]
    asked = len(hub.asked)
    assert run(weights("modelscope", FILE), hub.endpoint, tmp_path)["path"] == found["path"]
    assert len(hub.asked) == asked


def test_what_modelscope_lacks_is_not_found(hub: HubServer, tmp_path: Path) -> None:
    """A repository without the file is no success, and neither is no repository."""
    modelscope_has(hub, "other.gguf")
    found = run(weights("modelscope", FILE), hub.endpoint, tmp_path)
    assert found["cause"] == "not_found"
    assert FILE in found["reason"]
    hub.answers.clear()
    found = run(weights("modelscope", FILE), hub.endpoint, tmp_path / "other")
    assert found["cause"] == "not_found"


def test_weights_on_disk_are_where_they_are(tmp_path: Path) -> None:
    """A path gives its file or its folder, and no engine without weights asks for any."""
    (tmp_path / FILE).write_bytes(DATA)
    here = weights("path", FILE, id=str(tmp_path), here=True)
    quiet = threading.Event()
    assert fetch(here, 1.0, lambda *_: None, quiet) == tmp_path / FILE
    several = weights("path", FILE, "b", id=str(tmp_path), here=True)
    assert fetch(several, 1.0, lambda *_: None, quiet) == tmp_path
    with pytest.raises(HubFailure, match="is not on this node") as error:
        fetch(weights("path", "none", id=str(tmp_path)), 1.0, lambda *_: None, quiet)
    assert error.value.cause == "not_found"
    assert fetch(weights("none", id=""), 1.0, lambda *_: None, quiet) is None


@pytest.mark.parametrize(
    ("files", "whole"),
    [
        ({}, False),
        ({"config.json": "{}", "tokenizer.json": "{}"}, False),
        ({"config.json": "{}", "model.safetensors": ""}, False),
        ({"config.json": "{}", "tokenizer.json": "{}", "model.safetensors": ""}, True),
        ({"tokenizer.json": "{}", "model.safetensors": ""}, False),
    ],
)
def test_a_folder_is_whole_when_nothing_a_model_needs_is_missing(
    tmp_path: Path, files: dict[str, str], whole: bool
) -> None:
    """Configuration, tokenizer and weights must be there."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert is_whole(tmp_path) is whole


def test_a_folder_that_lacks_a_shard_is_not_whole(tmp_path: Path) -> None:
    """An interrupted download of a sharded model is not taken for the model."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.model").write_text("")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1.safetensors").write_text("")
    assert not is_whole(tmp_path)
    (tmp_path / "model-2.safetensors").write_text("")
    assert is_whole(tmp_path)
