"""Downloads from a hub on loopback that misbehaves: what comes, what is kept, what it is called."""

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session, try_to_load_from_cache

from paddock.launcher.planning.plan import PlannedFile, PlannedWeights
from paddock.launcher.weights import Progress, Terms, fetch, is_whole, load_hub
from paddock.launcher.weights.base import Listing, RemoteFile
from paddock.launcher.weights.progress import Meter
from paddock.launcher.weights.reachability import unreachable
from paddock.launcher.weights.select_files import choose
from paddock.launcher.weights.transfer import retry_after
from paddock.launcher.weights.verified import Records
from paddock.registry.errors import HubFailure
from paddock.registry.hubs import hub_site
from paddock.registry.spec import Source
from tests.fakes import COMMIT, Fault, HubServer, Zeros, git_of, sha256_of
from tests.launcher.conftest import DATA, FILE, REPO

pytestmark = pytest.mark.hubs

SHA = hashlib.sha256(DATA).hexdigest()
HUBS = ["huggingface", "modelscope"]
FETCH = """
import json, sys, threading
from pathlib import Path
from paddock.launcher.weights import Terms, fetch
from paddock.launcher.planning.plan import PlannedWeights
from paddock.registry.errors import HubFailure
terms = Terms(Path(sys.argv[2]), **json.loads(sys.argv[3]))
try:
    weights = PlannedWeights.model_validate_json(sys.argv[1])
    path = fetch(weights, terms, lambda progress: None, threading.Event())
    print(json.dumps({"path": str(path)}))
except HubFailure as error:
    print(json.dumps({"cause": error.cause, "reason": str(error), "tried": error.tried}))
"""
REPOSITORY = {
    "config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": os.urandom(5000),
    "pytorch_model.bin": b"pickle",
    "original/consolidated.00.pth": b"pickle",
    "consolidated.safetensors": b"twice",
    "README.md": b"hello",
    "modeling_zoo.py": b"print()",
}


def weights(hub: str, *files: str, **changes: Any) -> PlannedWeights:
    planned = tuple(PlannedFile(name=name, size_bytes=len(DATA)) for name in files)
    given = {"hub": hub, "id": REPO, "files": planned, "size_bytes": len(DATA), "here": False}
    return PlannedWeights(**{**given, **changes})


class Watcher:
    """Takes down what a download reports."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []

    def __call__(self, progress: Progress) -> None:
        self.seen.append(progress)


def get(planned: PlannedWeights, terms: Terms, report: Any = None) -> Path:
    found = fetch(planned, terms, report or Watcher(), threading.Event())
    assert found is not None
    return found


def failure(planned: PlannedWeights, terms: Terms) -> HubFailure:
    with pytest.raises(HubFailure) as caught:
        get(planned, terms)
    assert "\n" not in str(caught.value)
    return caught.value


def parts_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.incomplete"))


def blob(tmp_path: Path) -> Path:
    return tmp_path / "hf" / "hub" / "models--keeper--zoo-GGUF" / "blobs" / SHA


@pytest.mark.parametrize("name", HUBS)
def test_one_file_comes_and_is_found_again_without_a_request(
    hub: HubServer, terms: Terms, name: str
) -> None:
    """Only the wanted file is fetched, with progress; then nothing is asked any more."""
    watch = Watcher()
    found = get(weights(name, FILE), terms, watch)
    assert found.read_bytes() == DATA
    assert hub.files() == [FILE]
    last = watch.seen[-1]
    assert (last.came_bytes, last.total_bytes, last.seconds_left) == (len(DATA), len(DATA), 0.0)
    assert [file.name for file in last.files] == [FILE]
    hub.asked.clear()
    assert get(weights(name, FILE), terms) == found
    assert hub.asked == []


def test_the_layout_is_the_clients_own(hub: HubServer, terms: Terms, tmp_path: Path) -> None:
    """The hub's client finds what we have brought, without a request, and lists it."""
    from huggingface_hub import constants, hf_hub_download, scan_cache_dir

    found = get(weights("huggingface", FILE), terms)
    hub.asked.clear()
    by_client = hf_hub_download(REPO, FILE, local_files_only=True)
    assert Path(by_client) == found
    assert os.readlink(found) == f"../../blobs/{SHA}"
    (repo,) = scan_cache_dir(constants.HF_HUB_CACHE).repos
    assert (repo.repo_id, repo.nb_files) == (REPO, 1)
    (revision,) = repo.revisions
    assert (revision.commit_hash, set(revision.refs)) == (COMMIT, {"main"})
    assert parts_of(tmp_path) == []


def test_modelscopes_client_finds_what_we_have_brought(hub: HubServer, terms: Terms) -> None:
    """The same for the other hub, with its own client."""
    from modelscope_hub import HubApi
    from modelscope_hub.config import HubConfig

    found = get(weights("modelscope", FILE), terms)
    api = HubApi(HubConfig())
    assert Path(api.download_file(REPO, "model", FILE, local_files_only=True)) == found


def test_what_the_client_left_is_read_once(
    hub: HubServer, terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of other tools are taken after one look at their bytes, and without a request."""
    from huggingface_hub import hf_hub_download

    theirs = Path(hf_hub_download(REPO, FILE))
    hub.asked.clear()
    assert get(weights("huggingface", FILE), terms) == theirs
    assert hub.asked == []
    monkeypatch.delattr("paddock.launcher.weights.job.digest_file")  # a second look would fail
    assert get(weights("huggingface", FILE), terms) == theirs


def test_a_cached_file_with_wrong_bytes_is_fetched_anew(
    hub: HubServer, terms: Terms, tmp_path: Path
) -> None:
    """The client takes wrong bytes of the right length; we do not."""
    from huggingface_hub import hf_hub_download

    hub.fail(FILE, Fault(wrong=True))
    theirs = Path(hf_hub_download(REPO, FILE))
    assert theirs.read_bytes() != DATA
    assert get(weights("huggingface", FILE), terms).read_bytes() == DATA
    changed = blob(tmp_path)
    changed.write_bytes(b"x" + DATA[1:])  # the mark does not fit it any more
    assert get(weights("huggingface", FILE), terms).read_bytes() == DATA


@pytest.mark.parametrize("name", HUBS)
def test_of_a_repository_comes_what_a_model_needs(hub: HubServer, terms: Terms, name: str) -> None:
    """Configuration, tokenizer and safetensors; no pickles, doubles, code or prose."""
    hub.repos["keeper/zoo"] = dict(REPOSITORY)
    planned = weights(name, id="keeper/zoo")
    folder = get(planned, terms)
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert here == {"config.json", "tokenizer.json", "model.safetensors"}
    hub.asked.clear()
    assert get(planned, terms) == folder
    assert hub.asked == []
    (folder / "tokenizer.json").unlink()  # a link in one cache, the file in the other
    assert get(planned, terms) == folder
    assert (folder / "tokenizer.json").exists()


@pytest.mark.parametrize("name", HUBS)
def test_half_a_repository_is_not_cached(hub: HubServer, terms: Terms, name: str) -> None:
    """What was interrupted is gone on with, and not taken for the model."""
    first, second = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    hub.repos["keeper/zoo"] = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        first: b"1",
        second: b"2",
    }
    hub.fail(second, Fault(404))
    planned = weights(name, id="keeper/zoo")
    assert failure(planned, dataclasses.replace(terms, workers=1)).cause == "not_found"
    assert hub.files().count(first) == 1
    folder = get(planned, terms)
    assert (folder / second).read_bytes() == b"2"
    assert hub.files().count(first) == 1


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.parametrize("wanted", ["q8/b.gguf", "q8/b-00001-of-00002.gguf"])
def test_a_file_in_parts_comes_whole_and_is_one(
    hub: HubServer, terms: Terms, name: str, wanted: str
) -> None:
    """Both parts come, the first is the path; with one of them gone the model is not here."""
    first, second = (f"q8/b-0000{number}-of-00002.gguf" for number in (1, 2))
    hub.repos["keeper/parts"] = {first: b"1" * 9, second: b"2" * 7, "q4/b.gguf": b"4"}
    planned = weights(name, wanted, id="keeper/parts")
    watch = Watcher()
    path = get(planned, terms, watch)
    assert (path.name, path.read_bytes()) == ("b-00001-of-00002.gguf", b"1" * 9)
    assert sorted(hub.files()) == [first, second]
    assert watch.seen[-1].total_bytes == 16
    hub.asked.clear()
    assert get(planned, terms) == path
    assert hub.asked == []
    # Under the branch and, where the hub names one, under the commit.
    keys = set(Records(terms.home).complete_sources())
    assert len(keys) == (2 if name == "huggingface" else 1)
    assert set(Records(terms.home).complete_sources().values()) == {16}
    path.with_name("b-00002-of-00002.gguf").unlink()
    assert Records(terms.home).complete_sources() == {}
    get(planned, terms)
    assert Records(terms.home).complete_sources() == dict.fromkeys(keys, 16)


def test_parts_that_another_tool_left_are_found(hub: HubServer, terms: Terms) -> None:
    """By the name of the whole file, without a request."""
    from huggingface_hub import hf_hub_download

    names = [f"q8/b-0000{number}-of-00002.gguf" for number in (1, 2)]
    hub.repos["keeper/parts"] = dict.fromkeys(names, b"12")
    for one in names:
        hf_hub_download("keeper/parts", one, endpoint=hub.endpoint)
    hub.asked.clear()
    path = get(weights("huggingface", "q8/b.gguf", id="keeper/parts"), terms)
    assert path.name == "b-00001-of-00002.gguf"
    assert hub.asked == []


def listing(*names: str) -> Listing:
    return Listing("huggingface", REPO, "main", COMMIT, tuple(RemoteFile(n, 1) for n in names))


@pytest.mark.parametrize(
    ("names", "wanted", "chosen"),
    [
        (["b-00002-of-00002.gguf", "b-00001-of-00002.gguf"], "b.gguf",
         ["b-00001-of-00002.gguf", "b-00002-of-00002.gguf"]),
        (["b-00002-of-00002.gguf", "b-00001-of-00002.gguf"], "b-00001-of-00002.gguf",
         ["b-00001-of-00002.gguf", "b-00002-of-00002.gguf"]),
        (["q4/b.gguf", "q8/b.gguf"], "q4/b.gguf", ["q4/b.gguf"]),
        (["m.safetensors", "m.fp16.safetensors", "1_Pooling/config.json"], None,
         ["m.safetensors", "1_Pooling/config.json"]),
        (["m.fp16.safetensors", "onnx/m.safetensors", ".cache/x.json"], None,
         ["m.fp16.safetensors"]),
    ],
)  # fmt: skip
def test_the_files_of_a_variant_are_chosen(
    names: list[str], wanted: str | None, chosen: list[str]
) -> None:
    """All parts in order, one precision, nothing of other programs."""
    found = choose(listing(*names), [wanted] if wanted else [])
    assert [file.name for file in found] == chosen


@pytest.mark.parametrize(
    ("names", "wanted", "says"),
    [
        (["b-00001-of-00002.gguf"], "b.gguf", "b-00002-of-00002.gguf"),
        (["zoo.Q5_0.gguf"], FILE, "it has zoo.Q5_0.gguf"),
        (["pytorch_model.bin", "config.json"], None, "only pickled weights (pytorch_model.bin)"),
        (["README.md"], None, "no safetensors"),
    ],
)
def test_what_a_repository_lacks_is_said(names: list[str], wanted: str | None, says: str) -> None:
    """The missing part or the nearest name, and no pickle in place of safetensors."""
    with pytest.raises(HubFailure) as caught:
        choose(listing(*names), [wanted] if wanted else [])
    assert caught.value.cause == "not_found"
    assert says in str(caught.value)


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_dropped_connection_is_taken_up_at_its_byte(
    hub: HubServer, terms: Terms, name: str, how: Any
) -> None:
    """Each byte comes once, however often the connection breaks."""
    hub.fail(FILE, *(Fault(after=60_000, how=how) for _ in range(4)))
    assert get(weights(name, FILE), terms).read_bytes() == DATA
    starts = [start for _, start in hub.ranges]
    assert len(starts) == 5
    assert starts == sorted(starts)
    assert starts[0] == 0
    if how == "close":  # a reset may take bytes with it that were on their way
        assert starts == [0, 60_000, 120_000, 180_000, 240_000]


def test_a_stalled_server_is_left_and_taken_up(hub: HubServer, terms: Terms) -> None:
    """No byte for the time allowed: another connection goes on from there."""
    hub.fail(FILE, Fault(after=100_000, how="hold"))
    quick = dataclasses.replace(terms, silence=0.2)
    assert get(weights("huggingface", FILE), quick).read_bytes() == DATA
    assert hub.ranges == [(FILE, 0), (FILE, 100_000)]


def test_a_server_that_ignores_ranges_is_read_from_the_start(hub: HubServer, terms: Terms) -> None:
    """Bytes are never put behind the wrong ones."""
    hub.fail(FILE, Fault(after=100_000), Fault(no_ranges=True))
    assert get(weights("huggingface", FILE), terms).read_bytes() == DATA
    assert hub.ranges == [(FILE, 0), (FILE, 0)]


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_refusals_are_waited_out(
    hub: HubServer, terms: Terms, name: str, status: int
) -> None:
    """Of the list and of the file alike, after the time that the hub asks for."""
    refusal = Fault(status, {"Retry-After": "0"})
    hub.fail("api", refusal)
    hub.fail(FILE, refusal, refusal)
    assert get(weights(name, FILE), terms).read_bytes() == DATA


def test_the_hub_says_how_long_to_wait(
    hub: HubServer, terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retry-After is obeyed, and a wait that is too long is told and not sat out."""
    hub.fail(FILE, Fault(429, {"Retry-After": "1"}))
    pauses: list[float | None] = []

    def wait(cancelled: threading.Event, timeout: float | None = None) -> bool:
        pauses.append(timeout)
        return cancelled.is_set()

    with monkeypatch.context() as patch:
        patch.setattr("paddock.launcher.weights.job._Either.wait", wait)
        get(weights("huggingface", FILE), terms)
    assert pauses == [1.0]
    hub.repos["keeper/other"] = {FILE: DATA}
    hub.fail(FILE, Fault(429, {"Retry-After": "7200"}))
    found = failure(weights("huggingface", FILE, id="keeper/other"), terms)
    assert found.cause == "rate_limited"
    assert "7200 s" in str(found)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12", 12.0), ("", None), ("soon", None), ("Thu, 01 Jan 1970 00:01:40 GMT", 60.0)],
)
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    """Both forms of the header, and nothing for what is neither."""
    assert retry_after({"retry-after": text} if text else {}, 40.0) == seconds


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault(429), "rate_limited"),
        (Fault(503), "hub_unreachable"),
        (Fault(after=0, how="reset"), "hub_unreachable"),
        (Fault(after=0, how="hold"), "stalled"),
        (Fault(wrong=True), "checksum_mismatch"),
        (Fault(401), "gated_repo"),
        (Fault(403, {"X-Error-Code": "GatedRepo"}), "gated_repo"),
        (Fault(404), "not_found"),
        (Fault(404, {"X-Error-Code": "EntryNotFound"}), "not_found"),
        (Fault(404, {"X-Error-Code": "RevisionNotFound"}), "not_found"),
        (Fault(418), "hub_unreachable"),
    ],
)
@pytest.mark.parametrize("name", HUBS)
def test_what_goes_on_going_wrong_has_its_cause(
    hub: HubServer, terms: Terms, name: str, fault: Fault, cause: str
) -> None:
    """A file that does not come says why, and nothing of it passes for the file."""
    hub.fail(FILE, *[fault] * 3)
    planned = weights(name, FILE)
    found = failure(planned, dataclasses.replace(terms, silence=0.2))
    assert found.cause == cause, str(found)
    assert REPO in str(found)
    hub.faults.clear()
    assert get(planned, terms).read_bytes() == DATA


def test_a_gated_repository_says_where_to_ask(hub: HubServer, terms: Terms) -> None:
    """The page and the way to give a token, for either hub, be it the list that is refused."""
    hub.fail("api", Fault(401))
    found = failure(weights("huggingface", FILE), terms)
    assert found.cause == "gated_repo"
    assert f"{hub.endpoint}/{REPO}" in str(found)
    assert "HF_TOKEN" in str(found)
    hub.fail("api", Fault(403))
    found = failure(weights("modelscope", FILE), terms)
    assert found.cause == "gated_repo"
    assert f"{hub.endpoint}/models/{REPO}" in str(found)
    assert "MODELSCOPE_API_TOKEN" in str(found)


PAGE = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.parametrize(
    "body", [b"<!DOCTYPE html><html>Log in</html>", b"[]", b"null", b'"hello"', b""]
)
def test_a_server_that_is_no_hub_is_told_so(
    hub: HubServer, terms: Terms, name: str, body: bytes
) -> None:
    """A login page, or another service's JSON, is no bug of ours: the address is named."""
    hub.fail("api", *[Fault(200, PAGE, body=body)] * 3)
    found = failure(weights(name, FILE), terms)
    assert (found.cause, hub.endpoint in str(found)) == ("hub_unreachable", True), str(found)
    assert "_ENDPOINT" in str(found)


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.parametrize("where", ["api", FILE])
def test_a_token_that_is_not_taken_is_told_so(
    hub: HubServer, terms: Terms, name: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has expired; the repository is not called gated for it."""
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms_expired")
    said = {"X-Error-Message": "Invalid credentials in Authorization header"}
    hub.fail(where, *[Fault(401, said)] * 3)
    found = failure(weights(name, FILE), terms)
    assert found.cause == "token_refused", str(found)
    assert "_TOKEN" in str(found)
    assert "expired" not in str(found).replace("may have expired", "")
    assert "gated" not in str(found)


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.parametrize("token", ["hf_ö", "hf_a b", "hf_\x07"])
def test_a_token_that_is_none_is_told_so(
    hub: HubServer, terms: Terms, name: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is sent: no header can have it."""
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", token)
    found = failure(weights(name, FILE), terms)
    assert found.cause == "token_refused"
    assert "characters that no token has" in str(found)


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.parametrize("where", ["api", FILE])
@pytest.mark.parametrize("status", [403, 407])
def test_what_stands_before_the_hub_is_not_taken_for_it(
    hub: HubServer, terms: Terms, name: str, where: str, status: int
) -> None:
    """A proxy's or a firewall's page; the hub's own refusals have a code."""
    hub.fail(where, *[Fault(status, PAGE, body=b"<html>Blocked</html>")] * 20)
    found = failure(weights(name, FILE), terms)
    assert found.cause == "hub_unreachable", str(found)
    assert hub.endpoint in str(found)
    assert "gated" not in str(found)


class _Proxy(BaseHTTPRequestHandler):
    """Refuses everything, as a proxy of a company does."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_POST = do_CONNECT = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a proxy that the environment names, and that refuses everything."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    address = f"127.0.0.1:{server.server_address[1]}"
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, f"http://keeper:secret@{address}")
    monkeypatch.setenv("no_proxy", "")
    close_session()
    yield address
    close_session()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("name", HUBS)
def test_a_proxy_that_refuses_is_named(hub: HubServer, terms: Terms, name: str, proxy: str) -> None:
    """With its address and without its password; for a tunnel as well."""
    found = failure(weights(name, FILE), terms)
    assert found.cause == "hub_unreachable", str(found)
    assert f"the proxy http://{proxy}" in str(found)
    assert "secret" not in repr((str(found), found.tried))
    tunnel = unreachable("https://hub.example", 2.0)
    assert tunnel is not None
    assert f"by the proxy http://{proxy}" in tunnel


def test_a_cache_without_links_has_the_file_itself(
    hub: HubServer, terms: Terms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the client does on exFAT: it is found again without a request, by both, and removed."""

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "symlink_to", refused)
    monkeypatch.setattr(os, "symlink", refused)
    path = get(weights("huggingface", FILE), terms)
    assert not path.is_symlink()
    assert path.read_bytes() == DATA
    assert not blob(tmp_path).exists()
    asked = len(hub.asked)
    assert get(weights("huggingface", FILE), terms) == path
    assert try_to_load_from_cache(REPO, FILE) == str(path)
    assert len(hub.asked) == asked
    other = get(weights("huggingface", "zoo.Q8_0.gguf"), terms)
    assert other.parent == path.parent
    path.write_bytes(b"spoilt")
    assert get(weights("huggingface", FILE), terms).read_bytes() == DATA
    source = Source(hub="huggingface", id=REPO, file_template=FILE)
    load_hub("huggingface").remove(source, [path])
    assert (path.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_cache_without_locks_is_used_all_the_same(
    hub: HubServer, terms: Terms, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    """A lock on this machine stands for the one that its file system does not have."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    flock, taken = fcntl.flock, []

    def refused(handle: int, operation: int) -> None:
        name = os.readlink(f"/proc/self/fd/{handle}")
        if "/.locks/" in name:
            raise OSError(code, os.strerror(code))
        taken.append(name)
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", refused)
    assert get(weights("huggingface", FILE), terms).read_bytes() == DATA
    assert any("paddock-locks" in name for name in taken)


@pytest.mark.parametrize("name", HUBS)
def test_a_cache_that_cannot_be_written_is_told_in_a_line(
    hub: HubServer, terms: Terms, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The path, the system's reason, and the variables that name another folder."""
    mkdir = Path.mkdir

    def refused(path: Path, *arguments: Any, **options: Any) -> None:
        if path.is_relative_to(tmp_path / "hf") or path.is_relative_to(tmp_path / "modelscope"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refused)
    found = failure(weights(name, FILE), terms)
    assert found.cause == "not_writable"
    assert "Read-only file system" in str(found)
    assert hub_site(name).cache_variable in str(found)


@pytest.mark.parametrize("name", HUBS)
def test_tokens_are_sent_to_the_hub_and_told_nobody(
    hub: HubServer, terms: Terms, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither a message nor a file that we write has the token in it."""
    secret = "hf_secretsecretsecret"
    monkeypatch.setenv("HF_TOKEN", secret)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", secret)
    hub.fail(FILE, Fault(403), Fault(after=1000))
    found = failure(weights(name, FILE), terms)
    assert secret not in repr((str(found), found.tried))
    get(weights(name, FILE), terms)
    assert f"Bearer {secret}" in hub.tokens
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("name", HUBS)
def test_what_a_hub_lacks_is_not_found(hub: HubServer, terms: Terms, name: str) -> None:
    """No such repository, and no such file in one."""
    found = failure(weights(name, FILE, id="keeper/none"), terms)
    assert (found.cause, "keeper/none" in str(found)) == ("not_found", True)
    found = failure(weights(name, "zoo.Q9_9.gguf"), terms)
    assert (found.cause, "zoo.Q9_9.gguf" in str(found)) == ("not_found", True)


@pytest.mark.parametrize("name", HUBS)
def test_a_hub_that_nobody_answers_for_is_unreachable(
    hub: HubServer, terms: Terms, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed port is told at once, with the address that was tried."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nothing answers
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", endpoint)
        found = failure(weights(name, FILE), terms)
    assert found.cause == "hub_unreachable"
    assert endpoint in found.tried[0]


def test_a_hub_that_takes_connections_and_says_nothing_is_unreachable(
    hub: HubServer, terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence ends with the time that a hub has for an answer, which is told."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        found = failure(weights("huggingface", FILE), terms)
    assert found.cause == "hub_unreachable"
    assert "no answer in 2 s" in found.tried[0]


def test_without_a_network_what_is_cached_is_enough(
    hub: HubServer, terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_HUB_OFFLINE: no request for what is here, and a plain word about what is not."""
    path = get(weights("huggingface", FILE), terms)
    hub.asked.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert get(weights("huggingface", FILE), terms) == path
    found = failure(weights("huggingface", "config.json"), terms)
    assert found.cause == "hub_unreachable"
    assert "HF_HUB_OFFLINE" in str(found)
    assert hub.asked == []


def other_hub(name: str) -> Source:
    return Source(hub=name, id=REPO, file_template=FILE)  # type: ignore[arg-type]


def test_the_other_hub_is_asked_where_the_first_is_out_of_reach(
    hub: HubServer, terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, and remembers: the next download asks the one that answered first."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    watch = Watcher()
    both = weights("huggingface", FILE, others=(other_hub("modelscope"),))
    assert get(both, terms, watch).read_bytes() == DATA
    assert any("ModelScope (cannot reach Hugging Face" in seen.note for seen in watch.seen)
    hub.repos["keeper/two"] = {FILE: DATA}
    watch = Watcher()
    second = Source(hub="modelscope", id="keeper/two", file_template=FILE)
    again = weights("huggingface", FILE, id="keeper/two", others=(second,))
    get(again, terms, watch)
    assert not any("cannot reach" in seen.note for seen in watch.seen)


def test_the_failure_of_several_hubs_tells_of_each(
    hub: HubServer, terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one could mend comes first: here, to ask for access."""
    hub.fail(FILE, Fault(403))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    both = weights("modelscope", FILE, others=(other_hub("huggingface"),))
    found = failure(both, terms)
    assert found.cause == "gated_repo"
    assert len(found.tried) == 2


def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(
    hub: HubServer, terms: Terms
) -> None:
    """With needed and free bytes; what has come already counts."""
    small = dataclasses.replace(terms, free_bytes=lambda _: len(DATA) - 1)
    planned = weights("huggingface", FILE)
    found = failure(planned, small)
    assert found.cause == "disk_full"
    assert "0.00 GB more" in str(found)
    assert hub.ranges == []
    hub.fail(FILE, *[Fault(after=10)] + [Fault(after=0)] * 3)
    assert failure(planned, terms).cause == "hub_unreachable"
    assert get(planned, small).read_bytes() == DATA


def test_a_disk_that_fills_midway_keeps_what_came(
    hub: HubServer, terms: Terms, tmp_path: Path
) -> None:
    """The cause is `disk_full`, and the next launch goes on behind the last byte."""
    planned = weights("huggingface", FILE)
    found = process(planned, terms, limit=131_072)
    assert found["cause"] == "disk_full", found
    (part,) = parts_of(tmp_path)
    assert part.stat().st_size == 131_072
    assert get(planned, terms).read_bytes() == DATA
    assert hub.ranges[-1] == (FILE, 131_072)


def command(planned: PlannedWeights, terms: Terms, **given: Any) -> list[str]:
    settings = json.dumps({"timeout": terms.timeout, "silence": 30.0, **given})
    return [sys.executable, "-c", FETCH, planned.model_dump_json(), str(terms.home), settings]


def process(planned: PlannedWeights, terms: Terms, limit: int = 0) -> dict[str, Any]:
    """Fetches in a new process, whose files may be no larger than the limit."""
    argv = command(planned, terms)
    if limit:
        argv = ["prlimit", f"--fsize={limit}", *argv]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", HUBS)
def test_a_killed_process_is_taken_up_by_the_next(hub: HubServer, terms: Terms, name: str) -> None:
    """SIGKILL at any byte: the next process goes on behind it, and nobody holds a lock."""
    hub.fail(FILE, Fault(after=200_000, how="hold"))
    planned = weights(name, FILE)
    first = subprocess.Popen(command(planned, terms), stdout=subprocess.DEVNULL)
    try:
        assert hub.held.wait(30)
        part = wait_for_part(terms.home.parent, 200_000)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert Path(process(planned, terms)["path"]).read_bytes() == DATA
    assert hub.ranges == [(FILE, 0), (FILE, 200_000)]
    assert not part.exists()


def wait_for_part(folder: Path, size: int) -> Path:
    def found() -> Path | None:
        return next((p for p in parts_of(folder) if p.stat().st_size == size), None)

    return until(found)


def until(found: Callable[[], Any]) -> Any:
    """What the function finds, as soon as it does."""
    deadline = time.monotonic() + 30
    tick = threading.Event()
    while time.monotonic() < deadline:
        if value := found():
            return value
        tick.wait(0.01)
    raise AssertionError("it did not come")


def test_two_processes_make_one_download(hub: HubServer, terms: Terms) -> None:
    """The second waits for the first, and both have the file."""
    hub.fail(FILE, Fault(after=100_000, how="hold"))
    argv = command(weights("huggingface", FILE), terms)
    first, second = (subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2))
    try:
        assert hub.held.wait(30)
        # Both know the list; then one of them waits.
        until(lambda: sum("/api/models/" in line for line in hub.asked) == 2)
        hub.go.set()
        answers = [one.communicate(timeout=30)[0] for one in (first, second)]
    finally:
        for one in (first, second):
            one.kill()
            one.wait()
    paths = {json.loads(answer)["path"] for answer in answers}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == DATA
    assert hub.ranges == [(FILE, 0)]


@pytest.mark.parametrize("moment", ["silent", "waiting"])
def test_a_download_can_be_called_off_at_any_byte(
    hub: HubServer, terms: Terms, tmp_path: Path, moment: str
) -> None:
    """At once, while the hub is silent or asks to wait; the part stays, the lock is free."""
    wait = Fault(429, {"Retry-After": "100"})
    hub.fail(FILE, Fault(after=1000, how="hold") if moment == "silent" else wait)
    cancelled = threading.Event()
    causes: list[str] = []

    def run() -> None:
        try:
            fetch(weights("huggingface", FILE), terms, Watcher(), cancelled)
        except HubFailure as failure:
            causes.append(failure.cause)

    slow = threading.Thread(target=run)
    slow.start()
    if moment == "silent":
        wait_for_part(tmp_path, 1000)
    else:
        until(lambda: any("resolve" in line and "GET" in line for line in hub.asked))
    cancelled.set()
    slow.join(10)  # a tenth of what the hub asks to wait; and a silent one is never given up
    assert not slow.is_alive()
    assert causes == ["cancelled"]
    assert get(weights("huggingface", FILE), terms).read_bytes() == DATA
    if moment == "silent":
        assert hub.ranges == [(FILE, 0), (FILE, 1000)]


def test_two_gigabytes_are_taken_up_near_their_end(
    hub: HubServer, terms: Terms, tmp_path: Path
) -> None:
    """A part of 2 GB (a sparse one) is built upon, and progress knows what came earlier."""
    size, left = 2 << 30, 8 << 20
    content = Zeros(size)
    hub.repos["keeper/large"] = {FILE: content}
    folder = tmp_path / "hf" / "hub" / "models--keeper--large" / "blobs"
    folder.mkdir(parents=True)
    part = folder / f"{sha256_of(content)}.incomplete"
    with part.open("wb") as file:
        file.truncate(size - left)
    watch = Watcher()
    found = get(weights("huggingface", FILE, id="keeper/large"), terms, watch)
    assert found.stat().st_size == size
    assert hub.ranges == [(FILE, size - left)]
    assert hub.sent == left
    came = [seen.came_bytes for seen in watch.seen]
    assert came == sorted(came)
    assert came[-1] == size
    assert found.stat().st_blocks * 512 <= 2 * left


def test_names_that_lead_out_of_the_repository_are_refused(hub: HubServer, terms: Terms) -> None:
    """A hub cannot make us write elsewhere."""
    hub.repos["keeper/evil"] = {"../../../evil.json": b"{}", "m.safetensors": b"1"}
    found = failure(weights("huggingface", id="keeper/evil"), terms)
    assert "unsafe name" in str(found)
    assert hub.ranges == []


def test_files_in_xet_storage_are_left_to_the_client(
    hub: HubServer, terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is called for them, with our progress; what it brings counts as checked."""
    from huggingface_hub import hf_hub_download

    called: list[str] = []

    def by_client(identity: str, name: str, **options: Any) -> str:
        called.append(name)
        hub.xet = False  # there is no such storage on loopback: from here on it is a plain file
        return hf_hub_download(identity, name, **options)

    monkeypatch.setattr("paddock.launcher.weights.huggingface.hf_hub_download", by_client)
    hub.xet = True
    watch = Watcher()
    found = get(weights("huggingface", FILE), terms, watch)
    assert found.read_bytes() == DATA
    assert called == [FILE]
    assert watch.seen[-1].came_bytes == len(DATA)
    monkeypatch.delattr("paddock.launcher.weights.job.digest_file")
    assert get(weights("huggingface", FILE), terms) == found


def test_a_mirror_that_lists_names_only_is_asked_for_each_file(
    hub: HubServer, terms: Terms
) -> None:
    """Sizes and digests come from the files' heads, and bytes are checked all the same."""
    hub.names_only = True
    hub.fail(FILE, Fault(wrong=True))
    assert get(weights("huggingface", FILE), terms).read_bytes() == DATA


def test_small_files_are_checked_by_gits_digest(
    hub: HubServer, terms: Terms, tmp_path: Path
) -> None:
    """Wrong bytes in a tokenizer are no less wrong."""
    hub.repos["keeper/zoo"] = dict(REPOSITORY)
    hub.fail("tokenizer.json", *[Fault(wrong=True)] * 2)
    found = failure(weights("huggingface", id="keeper/zoo"), terms)
    assert found.cause == "checksum_mismatch"
    assert "tokenizer.json" in str(found)
    folder = get(weights("huggingface", id="keeper/zoo"), terms)
    name = (folder / "tokenizer.json").resolve().name
    assert name == git_of(REPOSITORY["tokenizer.json"])


def test_time_left_is_told_when_it_is_known() -> None:
    """Speed counts what comes over the network now; without enough of it nothing is told."""
    now = [0.0]
    seen: list[Progress] = []
    meter = Meter("x", [RemoteFile("a", 1000), RemoteFile("b", 100)], seen.append, lambda: now[0])
    meter.note_present("a", 500)
    assert seen[-1].seconds_left is None
    for _ in range(4):
        now[0] += 0.25
        meter.note_received("a", 500 + int(now[0] * 100))
    last = seen[-1]
    assert last.came_bytes == 600
    assert last.bytes_per_second == pytest.approx(100)
    assert last.seconds_left == pytest.approx(5.0)
    assert last.files[0].seconds_left == pytest.approx(4.0)
    assert last.files[1].seconds_left is None


def test_weights_on_disk_are_where_they_are(tmp_path: Path, terms: Terms) -> None:
    """A path gives its file or its folder, and no engine without weights asks for any."""
    (tmp_path / FILE).write_bytes(DATA)
    assert get(weights("path", FILE, id=str(tmp_path), here=True), terms) == tmp_path / FILE
    several = weights("path", FILE, "b", id=str(tmp_path), here=True)
    assert get(several, terms) == tmp_path
    found = failure(weights("path", "none", id=str(tmp_path)), terms)
    assert found.cause == "not_found"
    assert fetch(weights("none", id=""), terms, Watcher(), threading.Event()) is None


@pytest.mark.parametrize(
    ("files", "whole"),
    [
        ({}, False),
        ({"config.json": "{}", "tokenizer.json": "{}"}, False),
        ({"config.json": "{}", "model.safetensors": ""}, False),
        ({"config.json": "{}", "tokenizer.json": "{}", "model.safetensors": ""}, True),
        ({"tokenizer.json": "{}", "model.safetensors": ""}, False),
        ({"config.json": "{}", "tokenizer.json": "", "m-00001-of-00002.safetensors": ""}, False),
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
