"""SGLang without a GPU: its own parser reads our command line, and a stand-in answers for it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from paddock.engines import environment, load_engine
from paddock.engines import sglang as adapter
from paddock.engines.base import Detection, Host
from paddock.engines.sglang import (
    REASONING_PARSERS,
    TOOL_PARSERS,
    Sglang,
    SglangOptions,
    arguments,
)
from paddock.launcher.planning.plan import LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.replicas.diagnosis import diagnose_exit
from paddock.launcher.replicas.replica import Replica
from paddock.launcher.replicas.status import ReplicaConfig
from paddock.registry.catalog import Catalog, specs_root
from paddock.registry.errors import BadValue
from paddock.registry.reasoning_formats import REASONING_FORMATS
from paddock.registry.tool_formats import TOOL_FORMATS
from tests.conftest import ENGINES
from tests.engines.child import DEADLINE, Child, serving
from tests.engines.test_transformers import WEIGHTS, until

ENGINE = load_engine("SGLang")
HOST = Host("local", "here", 4, 10**11, 10**11, 10**11, {})
# SGLang's own parser. Of what it imports, two modules that it does not need for it may be missing.
PARSE = """
import json, sys, types
sys.path.insert(0, sys.argv[1])
for name in ("orjson", "IPython", "IPython.display"):
    sys.modules[name] = types.SimpleNamespace(HTML=None, display=None, __path__=[])
import argparse
from sglang.srt.server_args import ServerArgs
told = []
for line in json.loads(sys.argv[2]):
    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    found = vars(parser.parse_args(line))
    told.append({name: value if isinstance(value, (int, str, float, bool, type(None)))
                 else str(value) for name, value in found.items()})
print(json.dumps(told))
"""


# Reads an example of each format with SGLang's own parser of it, without what these do not need.
READ_CALLS = """
import json, sys, types
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock
class Absent:
    def find_spec(self, name, path=None, target=None):
        known = ("IPython", "zmq", "pybase64", "uvloop", "sgl_kernel", "decord", "torchao")
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] in known else None
    def create_module(self, spec):
        made = MagicMock(name=spec.name)
        made.__path__, made.__spec__ = [], spec
        return made
    def exec_module(self, module):
        pass
sys.meta_path.append(Absent())
for name, given in (
    ("sglang", {"__path__": [sys.argv[1] + "/sglang"]}),
    ("orjson", {"loads": json.loads, "dumps": lambda value, **_: json.dumps(value).encode(),
                "JSONDecodeError": json.JSONDecodeError}),
):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(given)
from sglang.srt.entrypoints.openai.protocol import Tool
from sglang.srt.function_call.function_call_parser import FunctionCallParser
from sglang.srt.parser.reasoning_parser import ReasoningParser
parameters = {"type": "object", "properties": {"word": {"type": "string"}}}
function = {"name": "find", "parameters": parameters}
tools = [Tool.model_validate({"type": "function", "function": function})]
told = {"calls": {}, "thoughts": list(ReasoningParser.DetectorMap)}
for name, parser, example in json.loads(sys.argv[2]):
    _, calls = FunctionCallParser(tools, parser).parse_non_stream(example)
    told["calls"][name] = [[call.name, json.loads(call.parameters)] for call in calls]
print(json.dumps(told))
"""


@pytest.fixture(autouse=True)
def installed(sglang_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in is found where SGLang would have been installed."""
    monkeypatch.setenv("PADDOCK_HOME", str(sglang_home))


def wanted(weights: Path = WEIGHTS, **changes: Any) -> Any:
    return serving(SglangOptions(), weights=weights, slots=4, model_id="a/b.c", **changes)


@pytest.fixture(scope="module")
def child(sglang_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """One stand-in for all tests that do not break it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADDOCK_HOME", str(sglang_home))
        with Child(ENGINE, wanted(), tmp_path_factory.mktemp("engine") / "log") as made:
            made.await_health()
            yield made


@pytest.fixture(scope="module")
def library() -> Path:
    """SGLang's own code, without anything that it depends on."""
    pins = (Path(adapter.__file__).parent / "requirements-cuda.txt").read_text()
    pin = next(line for line in pins.splitlines() if line.startswith("sglang=="))
    folder = ENGINES.parent / "sglang-code" / pin
    if not folder.exists():
        passing = folder.with_suffix(".new")
        shutil.rmtree(passing, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-input"]
        done = subprocess.run(
            [*pip, "--no-compile", "--target", str(passing), pin],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        passing.rename(folder)
    return folder


def test_command_line_is_understood(library: Path, vllm_home: Path) -> None:
    """By SGLang's own parser, which runs where torch and Transformers are: beside vLLM."""
    from paddock.engines.vllm import Vllm

    given = SglangOptions(
        dtype="bfloat16",
        tp_size=2,
        pp_size=2,
        ep_size=2,
        mem_fraction_static=0.5,
        cpu_offload_gb=2,
        kv_cache_dtype="fp8_e5m2",
        quantization="fp8",
        load_format="safetensors",
        attention_backend="fa3",
        chunked_prefill_size=4096,
        disable_radix_cache=True,
        disable_cuda_graph=True,
        lora_paths=("tales=/a/b",),
        speculative_algorithm="EAGLE",
        speculative_draft_model_path="/draft",
        speculative_num_steps=2,
        speculative_eagle_topk=4,
        speculative_num_draft_tokens=8,
        tool_call_parser="mistral",
        reasoning_parser="qwen3",
        random_seed=5,
    )
    lines = [
        arguments(serving(options, weights=WEIGHTS, slots=3, model_id="a/b.c"))
        for options in (SglangOptions(), given)
    ]
    lines = [[*line, "--api-key", "k"] for line in lines]
    made = Vllm.environment.installed(vllm_home)
    assert made is not None
    done = subprocess.run(
        [str(made.python), "-c", PARSE, str(library), json.dumps(lines)],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    plain, full = json.loads(done.stdout.splitlines()[-1])
    assert (plain["model_path"], plain["served_model_name"]) == (str(WEIGHTS), "a/b.c")
    assert (plain["host"], plain["api_key"]) == ("127.0.0.1", "k")
    assert (plain["context_length"], plain["max_running_requests"]) == (256, 3)
    assert plain["max_total_tokens"] == 768
    assert plain["trust_remote_code"] is False
    assert plain["constrained_json_disable_any_whitespace"] is True
    for name, value in given.model_dump(mode="json").items():
        if name in {"n_ctx", "n_parallel", "lora_paths"}:
            continue
        assert full[name] == value, name
    assert full["enable_lora"]
    assert "/a/b" in full["lora_paths"]


def test_without_a_gpu_it_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before anything is said of installing it; with one it is there, or can be installed."""
    monkeypatch.setattr(environment, "GPUS", (tmp_path / "gpus", tmp_path / "dev"))
    assert "needs an NVIDIA GPU" in ENGINE.detect().missing
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    assert ENGINE.detect().version == "0.5.23"
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path))
    assert "paddock engine install sglang" in ENGINE.detect().missing


def test_answers_come_whole_and_in_pieces(child: Child) -> None:
    """Under the model's name; usage in a stream only where it is asked for."""
    body = {"prompt": "The old elephant", "max_tokens": 5}
    status, whole = child.post("/v1/completions", body)
    assert (status, whole["model"]) == (200, "a/b.c")
    events = child.stream("/v1/completions", {**body, "stream": True})
    assert "".join(e["choices"][0]["text"] for e in events) == whole["choices"][0]["text"]
    assert not any("usage" in event for event in events)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *_, last = child.stream("/v1/completions", {**body, **options})
    assert last["usage"]["completion_tokens"] == 5
    chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    _, answer = child.post("/v1/chat/completions", chat)
    assert answer["choices"][0]["message"]["role"] == "assistant"


def test_prompt_that_is_too_long_is_refused_with_both_numbers(child: Child) -> None:
    """In SGLang's shape, which has no envelope."""
    status, answer = child.post("/v1/completions", {"prompt": [5] * 300})
    assert status == 400
    assert "300" in answer["message"]
    assert "256" in answer["message"]


def test_client_that_leaves_ends_the_work(child: Child) -> None:
    """Its stream stops with the connection."""
    body = json.dumps({"prompt": "a", "max_tokens": 100_000, "stream": True})
    with socket.create_connection(("127.0.0.1", child.wanted.port)) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"{head}Authorization: Bearer -the-key\r\n\r\n{body}".encode())
        until(lambda: child.get("/counts")["running"] == 1)
    until(lambda: child.get("/counts")["running"] == 0)


def test_only_the_gateway_is_answered(child: Child) -> None:
    """The key is not among its arguments either."""
    for key in (None, "other"):
        assert child.post("/v1/completions", {"prompt": "a"}, key)[0] == 401
    command = " ".join(psutil.Process(child.process.pid).cmdline())
    assert child.wanted.api_key not in command


def test_formats_are_those_of_sglangs_parsers(library: Path, vllm_home: Path) -> None:
    """Each reads the example of the format that it is named for; and it knows each of thoughts."""
    from paddock.engines.vllm import Vllm

    made = Vllm.environment.installed(vllm_home)
    assert made is not None
    given = [
        (one.name, TOOL_PARSERS[one.name], one.example)
        for one in TOOL_FORMATS
        if one.name in TOOL_PARSERS
    ]
    done = subprocess.run(
        [str(made.python), "-B", "-c", READ_CALLS, str(library), json.dumps(given)],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["calls"] == {name: [["find", {"word": "a"}]] for name in TOOL_PARSERS}
    assert set(REASONING_PARSERS.values()) <= set(told["thoughts"])
    assert set(REASONING_PARSERS) <= {one.name for one in REASONING_FORMATS}


def test_parsers_follow_from_the_chat_template() -> None:
    """Unless the user names others; without a form that is known there is none."""

    def parsers(tools: str | None, thoughts: str | None, **options: Any) -> list[str]:
        formats = {"tool_format": tools, "reasoning_format": thoughts}
        line = arguments(serving(SglangOptions(**options), weights=WEIGHTS, **formats))
        found = [at for at, word in enumerate(line) if word.endswith("-parser")]
        return [f"{line[at]} {line[at + 1]}" for at in found]

    assert parsers(None, None) == parsers("granite", "seed_oss") == []
    assert parsers("llama3_json", "minimax_m2") == [
        "--tool-call-parser llama3",
        "--reasoning-parser minimax",
    ]
    own = {"tool_call_parser": "auto", "reasoning_parser": "qwen3"}
    assert parsers("hermes", "deepseek_r1", **own) == [
        "--tool-call-parser auto",
        "--reasoning-parser qwen3",
    ]


def test_it_is_asked_for_its_architectures(library: Path) -> None:
    """By its own source, which names the class of each; without what it takes to import them."""
    told = subprocess.run(
        [sys.executable, "-c", Sglang.environment.architectures],
        env={"PYTHONPATH": str(library)},
        capture_output=True,
        text=True,
        check=True,
    )
    known = set(json.loads(told.stdout))
    assert {"MixtralForCausalLM", "LlamaForCausalLM", "Qwen3MoeForCausalLM"} <= known
    assert len(known) > 150
    assert all(name.isidentifier() for name in known)


def test_an_architecture_that_nobody_knows_is_called_so(tmp_path: Path) -> None:
    """By the words of Transformers, which reads the configuration for SGLang too."""
    shutil.copytree(WEIGHTS, tmp_path / "strange")
    config = tmp_path / "strange" / "config.json"
    config.write_text(config.read_text().replace('"mixtral"', '"nonsense"'))
    with Child(ENGINE, wanted(tmp_path / "strange"), tmp_path / "log") as child:
        code = child.await_end()
        found = diagnose_exit(ENGINE, plan(), code, None, child.lines())
    assert found.cause == "unsupported_arch"


async def test_a_replica_serves_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Though it has a worker: stopped, and when its first process is killed."""
    for end in ("stop", "kill"):
        config = ReplicaConfig(f"m-{end}", plan().to_json(), str(tmp_path), "test-of-sglang")
        replica = Replica(config)
        status = await replica.begin()
        async with asyncio.timeout(DEADLINE):
            while status.state not in {"ready", "failed"}:
                status = await replica.watch(status.version)
        assert status.state == "ready", status.diagnosis
        assert "".join([part async for part in replica.generate("A lion", max_tokens=3)])
        assert status.pid is not None
        engine = psutil.Process(status.pid)
        processes = [engine, *engine.children(recursive=True)]
        assert len(processes) >= 2
        if end == "kill":
            engine.kill()
            async with asyncio.timeout(DEADLINE):
                while str(status.state) != "failed":
                    status = await replica.watch(status.version)
        await replica.stop()
        assert not [process for process in processes if process.is_running()]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("KeyError: 'model.layers.0.self_attn.qkv_proj.weight_of_another'", "weights_mismatch"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "oom"),
        ("RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.", "oom"),
        ("safetensors_rust.SafetensorError: Error while deserializing header", "corrupt_file"),
        ("sglang serve: error: unrecognized arguments: --nonsense", "bad_option"),
        ("OSError: [Errno 98] Address already in use", "port_in_use"),
        ("ImportError: libcuda.so.1: cannot open shared object file", "load_failed"),
    ],
)
def test_failures_have_their_causes(line: str, cause: str) -> None:
    """By SGLang's words for them."""
    assert diagnose_exit(ENGINE, plan(), 1, None, ["before", line]).cause == cause


def plan() -> Any:
    files = {path.relative_to(specs_root()).as_posix(): 1 for path in WEIGHTS.iterdir()}
    host = Host("local", "here", 2, 10**11, 10**11, 10**11, {"SGLang": Detection("1")}, files)
    asked = LaunchRequest.parse(model_name="tiny-mixtral", format="pytorch", model_engine="SGLang")
    return resolve(asked, Catalog.load(), [host])


def test_options_have_other_engines_names_too() -> None:
    """What vLLM calls otherwise is known by either name."""
    options = SglangOptions.parse("SGLang", {"tensor-parallel-size": "2", "n_ctx": 64})
    assert options.model_dump()["tp_size"] == 2
    assert ENGINE.context_and_slots(options) == (64, None)
    with pytest.raises(BadValue, match="absolute path"):
        SglangOptions.parse("SGLang", {"lora_paths": "tales=here"})


def test_what_it_cannot_load_is_refused() -> None:
    """Quantization on load has other names there."""
    assert isinstance(ENGINE, Sglang)
    variants = Catalog.load().lookup("tiny-mixtral").variants
    plain = next(one for one in variants if one.format == "pytorch")
    assert ENGINE.refuses(plain, HOST) is None
    assert ENGINE.refuses(plain.model_copy(update={"quantization": "8-bit"}), HOST)


def test_a_chat_template_is_given_as_a_file() -> None:
    """Nothing is said of one where the weights' own counts."""
    file = Path("/home/x.jinja")
    given = serving(SglangOptions(), weights=WEIGHTS, chat_template="x", chat_template_file=file)
    line = arguments(given)
    assert line[line.index("--chat-template") + 1] == str(file)
    assert "--chat-template" not in arguments(serving(SglangOptions(), weights=WEIGHTS))
