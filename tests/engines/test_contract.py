"""The one contract that every engine keeps, built in or not."""

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock import engines as engines_package
from paddock.engines import BUILT_IN, engine_names, engines, load_engine
from paddock.engines.base import Command, Engine, EngineOptions, Host, Serving
from paddock.launcher.planning.memory import AT_LOAD
from paddock.launcher.replicas.diagnosis import CAUSES
from paddock.registry.catalog import Catalog, specs_root
from paddock.registry.errors import BadValue, UnknownName
from tests.engines.child import Child, keeps_the_contract, serving

HEAVY = ("xllamacpp", "aiohttp", "torch", "ray", "transformers", "starlette", "vllm", "sglang")
HOST = Host("local", "here", 4, 10**11, 10**11, 10**11, {})
TINY = specs_root() / "weights" / "tiny-mixtral" / "ggufv2" / "tiny-mixtral.Q4_K_M.gguf"
# One option of each engine, as typed and as parsed.
OPTION = {
    "llama.cpp": ("n-threads", "2", "n_threads", 2),
    "Transformers": ("n-threads", "2", "n_threads", 2),
    "sentence-transformers": ("batch-tokens", "99", "batch_tokens", 99),
    "vLLM": ("max-model-len", "64", "n_ctx", 64),
    "SGLang": ("tensor-parallel-size", "2", "tp_size", 2),
    "echo": ("child", "no", "child", False),
}
SAFETENSORS = TINY.parent.parent / "pytorch" / "none"
WEIGHTS = {"llama.cpp": TINY, "echo": None}


@pytest.fixture(params=[engine.name for engine in engines()])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = load_engine(request.param)
    if found.environment is not None:
        home = request.getfixturevalue(f"{found.environment.name.replace('-', '_')}_home")
        monkeypatch.setenv("PADDOCK_HOME", str(home))
    return found


@pytest.fixture
def weights(engine: Engine, request: pytest.FixtureRequest) -> Path | None:
    if engine.name in WEIGHTS:
        return WEIGHTS[engine.name]
    if "LLM" in engine.types:
        return SAFETENSORS
    sentences: Path = request.getfixturevalue("sentences")
    return sentences


def started(engine: Engine, weights: Path | None, **changes: object) -> Serving:
    options = engine.fill_defaults(engine.options.parse(engine.name, {}), HOST, 0)
    if "LLM" not in engine.types:
        changes = {"abilities": ("embed",), **changes}
    return serving(options, weights=weights, **changes)


def test_an_engine_satisfies_the_protocol(engine: Engine) -> None:
    """It has every part of the contract, of the right kind."""
    assert isinstance(engine, Engine)
    assert issubclass(engine.options, EngineOptions)
    assert engine.name in engine_names()
    assert engine.health_path.startswith("/")
    assert engine.context_step >= 1
    assert set(engine.types) <= {"LLM", "embedding", "rerank"}
    assert type(load_engine(engine.name.upper())) is type(engine)


def test_importing_an_adapter_imports_no_engine(engine: Engine) -> None:
    """Adapters are read by the gateway and the command line, which must stay light."""
    code = (
        "import sys; from paddock.engines import load_engine;"
        f"load_engine({engine.name!r}).detect();"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_the_table_imports_nothing() -> None:
    """Listing the names of engines loads no adapter."""
    code = (
        "import sys; from paddock.engines import engine_names; engine_names();"
        "print([n for n in sys.modules if n.startswith('paddock.engines.') or n == 'pydantic'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_options_are_typed_and_frozen(engine: Engine) -> None:
    """Texts become values, hyphens count as underscores, and nothing changes afterwards."""
    typed, text, name, value = OPTION[engine.name]
    parsed = engine.options.parse(engine.name, {typed: text})
    assert getattr(parsed, name) == value
    assert engine.options.parse(engine.name, parsed.model_dump(mode="json")) == parsed
    with pytest.raises(ValueError, match="frozen"):
        setattr(parsed, name, value)


def test_options_explain_themselves(engine: Engine) -> None:
    """Every option has a description and a default, for help and documentation."""
    for name, field in engine.options.model_fields.items():
        assert field.description, name
        assert not field.is_required(), name


def test_a_misspelt_option_is_refused_with_near_ones(engine: Engine) -> None:
    """The engine and the option that was probably meant are named."""
    name = OPTION[engine.name][2]
    with pytest.raises(UnknownName, match=name) as error:
        engine.options.parse(engine.name, {f"{name}x": 1})
    assert engine.name in str(error.value)


def test_a_wrong_option_is_refused(engine: Engine) -> None:
    """The option, its value and the reason are named; the same option twice is wrong too."""
    typed, _, name, value = OPTION[engine.name]
    with pytest.raises(BadValue, match=f"{name} 'rubbish'"):
        engine.options.parse(engine.name, {typed: "rubbish"})
    if typed != name:
        with pytest.raises(BadValue, match="given twice"):
            engine.options.parse(engine.name, {typed: value, name: value})


def test_symptoms_name_causes_that_exist(engine: Engine) -> None:
    """Each cause is in the closed list, and each message fits its pattern."""
    for symptom in engine.symptoms:
        assert symptom.cause in CAUSES
        symptom.message.format(*["x"] * symptom.pattern.groups)
        assert symptom.message.count("{") <= symptom.pattern.groups


def test_planning_is_arithmetic(engine: Engine) -> None:
    """Settling leaves nothing to settle, and memory grows with the context."""
    shape = Catalog.load().lookup("mixtral-v0.1").architecture
    options = engine.fill_defaults(engine.options.parse(engine.name, {}), HOST, 10**9)
    assert engine.fill_defaults(options, HOST, 10**9) == options
    small, large = (engine.overhead_bytes(shape, options, n) for n in (256, 32768))
    assert 0 < small <= large
    assert all(size >= 0 for size in engine.cache_element_bytes(options))
    assert engine.pages(options) in {True, False}
    for variant in Catalog.load().lookup("tiny-mixtral").variants:
        if variant.quantization not in AT_LOAD:  # which not each engine can do
            assert engine.refuses(variant, HOST) is None


def test_an_engine_serves_with_its_key_and_name(
    engine: Engine, weights: Path | None, tmp_path: Path
) -> None:
    """Started for real: healthy, answers with the key under the model's name, and 401 without."""
    if engine.name == "vLLM":
        return  # it takes a minute: test_vllm.py asks the same of the one that it starts
    wanted = started(engine, weights, model_id="zoo/keeper.1")
    with Child(engine, wanted, tmp_path / "log") as child:
        child.await_health()
        keeps_the_contract(child)
        child.end()


def test_the_key_is_not_among_the_arguments(engine: Engine, weights: Path | None) -> None:
    """Arguments are readable by every user of the machine."""
    command = engine.command(started(engine, weights, api_key="secret-key"))
    assert isinstance(command, Command)
    assert "secret-key" not in " ".join(command.argv)
    assert "secret-key" in command.environ.values()


@pytest.fixture
def fresh_table() -> Iterator[None]:
    engines_package._table.cache_clear()
    load_engine.cache_clear()
    yield
    engines_package._table.cache_clear()
    load_engine.cache_clear()


@pytest.mark.usefixtures("fresh_table")
def test_other_packages_add_engines_and_replace_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point brings a new name; one with a built-in's name changes nothing."""
    echo = BUILT_IN["echo"]
    points = importlib.metadata.EntryPoints(
        importlib.metadata.EntryPoint(name, value, "paddock.engines")
        for name, value in (("mine", echo), ("llama.cpp", "evil:Engine"), ("Echo", "evil:Engine"))
    )
    monkeypatch.setattr(engines_package, "entry_points", lambda group: points)
    assert engine_names() == (*BUILT_IN, "mine")
    assert type(load_engine("mine")).__name__ == "Echo"
    assert type(load_engine("llama.cpp")).__name__ == "LlamaCpp"
    assert type(load_engine("echo")).__module__ == "paddock.engines.echo"


def test_an_unknown_engine_is_refused_with_near_ones() -> None:
    """The names that exist are in the message."""
    with pytest.raises(UnknownName, match=r"did you mean llama\.cpp"):
        load_engine("llamacpp")


def test_a_command_is_plain_data(engine: Engine, weights: Path | None) -> None:
    """Arguments and environment are texts without anything of this process."""
    command = engine.command(started(engine, weights))
    assert all(isinstance(argument, str) for argument in command.argv)
    assert json.dumps(dict(command.environ))
