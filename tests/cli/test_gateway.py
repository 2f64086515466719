"""How a command finds its gateway."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from paddock.cli import gateway
from paddock.cli.errors import exit_code
from paddock.cli.main import main
from paddock.cli.output import Output
from paddock.client import Client
from paddock.registry.errors import BadValue, GatewaySilent, NotWritten
from paddock.registry.settings import read_settings


def test_gateway_that_hangs_is_told_and_not_waited_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens and says nothing: no command waits ten minutes for it, and none starts another."""
    monkeypatch.setattr(gateway, "HEALTH_SECONDS", 0.1)
    home.mkdir()
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        endpoint = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        (home / "gateway.json").write_text(json.dumps({"endpoint": endpoint, "key": "k"}))
        with pytest.raises(GatewaySilent, match="paddock stop") as error:
            gateway.ensure(read_settings(), Output(False))
        assert exit_code(error.value) == 5
        assert gateway.find(read_settings(), patience=0.1) is None


OTHERS = {
    "page": (200, b"<html>" + b"x" * 5000),
    "missing page": (404, b"<html>" + b"x" * 5000),
    "missing": (404, b'{"detail": "Not Found"}'),
    "closed": (401, b'{"error": "unauthorized"}'),
    "list": (200, b"[]"),
    "other health": (200, b'{"status": "ok"}'),
    "broken": (502, b"Bad Gateway"),
}


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """The address of a server that answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("what", OTHERS)
def test_another_server_is_told_in_a_line(
    home: Path, what: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it answers; nothing of its pages is printed, and no gateway is started instead."""
    with answering(*OTHERS[what]) as endpoint:
        monkeypatch.setenv("PADDOCK_ENDPOINT", endpoint)
        for command in (["list"], ["stop"], ["launch", "tiny-mixtral"], ["show", "tiny-mixtral"]):
            with pytest.raises(SystemExit) as caught:
                main(command)
            assert caught.value.code == 5, command
            said = capsys.readouterr().err
            assert f"no Paddock gateway answers at {endpoint} (another server" in said
            assert (said.count("\n"), len(said) < 300) == (1, True)
    assert not home.exists()


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_an_endpoint_may_end_as_other_clients_want_it(path: str) -> None:
    """`/v1` is where routes begin; a gateway behind another path keeps that."""
    with answering(200, b'{"status": "ok", "version": "1"}') as endpoint:
        client = Client(endpoint + path)
        assert client.endpoint == endpoint
        client.identify()
    assert Client(f"http://proxy.example/paddock{path}").endpoint == "http://proxy.example/paddock"


def test_a_user_without_a_home_folder_keeps_all_in_paddocks(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a container, a user may have neither HOME nor a line in /etc/passwd."""

    def unknown(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with pytest.raises(SystemExit) as caught:
        main(["engine", "list", "--json"])
    assert caught.value.code == 0
    assert os.environ["HOME"] == str(home)
    monkeypatch.delitem(os.environ, "HOME")
    monkeypatch.delitem(os.environ, "PADDOCK_HOME")
    with pytest.raises(SystemExit) as caught:
        main(["list"])
    assert caught.value.code == 2
    assert "Name a folder by PADDOCK_HOME" in capsys.readouterr().err


def test_a_home_without_locks_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems have none, and two gateways would write one store."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(NotWritten, match=r"takes no locks .*PADDOCK_HOME"):
        gateway.open_home(read_settings())


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:99999",
        "http://127.0.0.1:abc",
        "http://[::1",
        "http://",
        "http://a b",
        "http://127.0.0.1:9/ü",
        "localhost:9997",
        "ftp://127.0.0.1",
    ],
)
def test_an_endpoint_that_is_no_address_is_told_in_a_line(
    home: Path, endpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what one looks like."""
    monkeypatch.setenv("PADDOCK_ENDPOINT", endpoint)
    with pytest.raises(SystemExit) as caught:
        main(["list"])
    said = capsys.readouterr().err
    assert (caught.value.code, said.count("\n")) == (2, 1)
    assert "http://" in said


def test_a_key_that_no_request_can_carry_is_not_shown() -> None:
    """A header has ASCII alone."""
    with pytest.raises(BadValue, match="must be printable ASCII") as caught:
        Client("http://127.0.0.1:9", "geheimnis-ö")
    assert "geheimnis" not in str(caught.value)
