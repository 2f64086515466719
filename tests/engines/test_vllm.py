"""vLLM for real, on its CPU build: what it answers, refuses and says when it fails."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from paddock.engines import load_engine, vllm
from paddock.engines.base import Detection, Host
from paddock.engines.environment import CURRENT
from paddock.engines.vllm import TOOL_PARSERS, Vllm, VllmOptions, arguments
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.replicas.diagnosis import diagnose_exit
from paddock.registry.catalog import Catalog, specs_root
from paddock.registry.errors import BadValue
from paddock.registry.reasoning_formats import REASONING_FORMATS
from paddock.registry.tool_formats import TOOL_FORMATS
from tests.engines.child import DEADLINE, Child, keeps_the_contract, serving
from tests.engines.test_transformers import (
    GPTQ,
    PROMPTS,
    REFERENCE,
    WEIGHTS,
    complete,
    said,
    until,
)
from tests.processor import has_tiles
from tests.tensors import called, changed

ENGINE = load_engine("vLLM")
assert isinstance(ENGINE, Vllm)
TILES = has_tiles()
HOST = Host("local", "here", 4, 10**11, 10**11, 10**11, {})
# Parses command lines as `vllm` does, and tells what it has understood.
PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser
told = []
for line in json.loads(sys.argv[1]):
    parser = make_arg_parser(FlexibleArgumentParser())
    found = parser.parse_args(line)
    validate_parsed_serve_args(found)
    told.append(vars(found))
print(json.dumps(told, default=str))
"""
# Loads weights as a worker does, several one after the other, and tells what was wrong with them.
LOAD = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.accelerator.empty_cache = torch.accelerator.synchronize = lambda *a, **k: None
import paddock_whole
from vllm.config import set_current_vllm_config
from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader import get_model
told = []
for path in json.loads(sys.argv[2]):
    arguments = EngineArgs(model=path, enforce_eager=True, max_model_len=256)
    config = arguments.create_engine_config()
    with set_current_vllm_config(config):
        if not told:
            init_distributed_environment(1, 0, "file://" + sys.argv[3], 0, "gloo")
            ensure_model_parallel_initialized(1, 1)
        try:
            get_model(vllm_config=config)
            told.append("")
        except (ValueError, NotImplementedError) as error:
            told.append(str(error))
print(json.dumps(told))
"""
# Reads an example of each format with vLLM's own parser of it. Its tokenizer has the marks, as one
# of a model with such calls has.
READ_CALLS = """
import json, re, sys
from transformers import AutoTokenizer
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
parameters = {"type": "object", "properties": {"word": {"type": "string"}}}
tools = [{"type": "function", "function": {"name": "find", "parameters": parameters}}]
messages = [{"role": "user", "content": "a"}]
request = ChatCompletionRequest(messages=messages, model="m", tools=tools)
told = {"calls": {}, "thoughts": ReasoningParserManager.list_registered()}
for name, parser, example in json.loads(sys.argv[2]):
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    marks = set(re.findall(r"</?[^<>\\s]+>|\\[/?[A-Z_]+\\]", example)) | {"<|python_tag|>"}
    tokenizer.add_tokens(sorted(marks | {"<tool_calls>", "</tool_calls>"}), special_tokens=True)
    made = ToolParserManager.get_tool_parser(parser)
    if name != "openai":  # the server reads Harmony by itself, and has the parser for its name
        made = made(tokenizer, request.tools).extract_tool_calls(example, request)
        made = [[call.function.name, json.loads(call.function.arguments)]
                for call in made.tool_calls]
    told["calls"][name] = made if name != "openai" else None
print(json.dumps(told))
"""
MODEL = "zoo/keeper.1"
# Takes a tensor out of each of several files of weights.
DROP = """
import json, sys
from safetensors.torch import load_file, save_file
for path, name in json.loads(sys.argv[1]):
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path, {"format": "pt"})
"""


@pytest.fixture(autouse=True)
def installed(vllm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is found where it was installed."""
    monkeypatch.setenv("PADDOCK_HOME", str(vllm_home))


def wanted(weights: Path = WEIGHTS, slots: int = 16, **options: Any) -> Any:
    settled = VllmOptions(**{"n_threads": 1, **options})
    given = {"model_id": MODEL, "slots": slots, "cache_bytes": 10**7}
    return serving(settled, weights=weights, **given)


def python(home: Path, code: str, *arguments: str) -> Any:
    """What a program prints, as JSON, in the engine's environment."""
    made = Vllm.environment.installed(home)
    assert made is not None
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_HOST_IP": "127.0.0.1"}
    done = subprocess.run(
        [str(made.python), "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
        env=environ,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None


@pytest.fixture(scope="module")
def child(vllm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """One engine with plain weights for all tests that do not break it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADDOCK_HOME", str(vllm_home))
        log = tmp_path_factory.mktemp("engine") / "log"
        with Child(ENGINE, wanted(dtype="float32"), log) as made:
            made.await_health()
            yield made
            made.end()


@pytest.fixture(scope="module")
def reference(vllm_home: Path) -> list[dict[str, Any]]:
    """What Transformers itself says of the same weights."""
    return list(python(vllm_home, REFERENCE, str(WEIGHTS), json.dumps(PROMPTS)))


def test_it_keeps_the_contract(child: Child) -> None:
    """As every engine: its key, the model's name, whole and streamed."""
    keeps_the_contract(child)


def test_greedy_answers_are_the_librarys_own(child: Child, reference: list[Any]) -> None:
    """One at a time, and sixteen side by side: the same text, whoever else is in the batch."""
    texts = [one["text"] for one in reference[: len(PROMPTS)]]
    assert [said(complete(child, prompt)) for prompt in PROMPTS] == texts
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda prompt: said(complete(child, prompt)), PROMPTS * 4))
    assert found == texts * 4


def test_usage_counts_what_the_tokenizer_counts(child: Child, reference: list[Any]) -> None:
    """Of a text, of a list of tokens, and of a chat, to which no second BOS is added."""
    for prompt, told in zip(PROMPTS, reference, strict=False):
        assert complete(child, prompt)["usage"]["prompt_tokens"] == told["tokens"]
    usage = complete(child, [5, 6, 7], max_tokens=2, ignore_eos=True)["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 2, 5)
    messages = [{"role": "user", "content": PROMPTS[0]}]
    chat = reference[-1]
    _, answer = child.post(
        "/v1/chat/completions", {"model": MODEL, "messages": messages, "max_tokens": 2}
    )
    assert answer["usage"]["prompt_tokens"] == chat["tokens"]
    _, counted = child.post(ENGINE.fields.counts_at, {"model": MODEL, "messages": messages})
    assert counted["count"] == chat["tokens"]
    assert counted["tokens"].count(chat["bos"]) == 1


def test_stream_adds_up_to_the_whole_answer(child: Child) -> None:
    """Pieces, reason and, where it is asked for, the usage in an event of its own."""
    whole = complete(child, PROMPTS[0])
    body = {
        "model": MODEL,
        "prompt": PROMPTS[0],
        "max_tokens": 24,
        "temperature": 0,
        "stream": True,
    }
    events = child.stream("/v1/completions", body)
    assert "".join(event["choices"][0]["text"] for event in events) == said(whole)
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    assert not any("usage" in event for event in events)
    asked = {**body, "stream_options": {"include_usage": True}}
    *_, last = child.stream("/v1/completions", asked)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


def test_characters_come_whole(child: Child) -> None:
    """Though each is several tokens: bytes that begin one are held back until it is there."""
    tokens = tokenized(child, "żółw 🐘🦓")
    assert len(tokens) > 8
    # Only these tokens may be said, so there are halves of characters in plenty.
    body = {"model": MODEL, "prompt": "🐘", "max_tokens": 60, "seed": 3, "temperature": 2}
    body |= {"allowed_token_ids": tokens, "ignore_eos": True}
    whole = said(child.post("/v1/completions", body)[1])
    events = child.stream("/v1/completions", {**body, "stream": True})
    assert "".join(event["choices"][0]["text"] for event in events) == whole
    assert any(ord(character) > 127 for character in whole)


def test_stop_texts_end_an_answer_and_are_not_in_it(child: Child) -> None:
    """Also one that begins in one token and ends in another; and it says which it was."""
    whole = said(complete(child, PROMPTS[0]))
    stop = whole[7:13]
    answer = complete(child, PROMPTS[0], stop=["never", stop])
    assert said(answer) == whole[: whole.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["stop_reason"] == stop
    kept = complete(child, PROMPTS[0], stop=[stop], include_stop_str_in_output=True)
    assert said(kept) == whole[: whole.index(stop)] + stop


def test_sampling_fields_do_what_they_say(child: Child) -> None:
    """Seeds repeat, narrow choices are the greedy one, biases and penalties move it."""
    greedy = said(complete(child, PROMPTS[0]))
    warm = {"temperature": 1.5, "seed": 7}
    assert said(complete(child, PROMPTS[0], **warm)) == said(complete(child, PROMPTS[0], **warm))
    others = {said(complete(child, PROMPTS[0], temperature=1.5, seed=n)) for n in range(5)}
    assert len(others) > 1
    for narrow in ({"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}):
        assert said(complete(child, PROMPTS[0], temperature=1.5, **narrow)) == greedy
    plain = complete(child, PROMPTS[0], logprobs=0)["choices"][0]["logprobs"]["tokens"]
    for forced in ({"logit_bias": {"17": 100}}, {"allowed_token_ids": [17]}):
        told = complete(child, PROMPTS[0], **forced, logprobs=0, max_tokens=3)["choices"][0]
        assert len(set(told["logprobs"]["tokens"])) == 1
    for penalty in ("frequency_penalty", "presence_penalty"):
        told = complete(child, PROMPTS[0], **{penalty: 2.0}, logprobs=0)["choices"][0]
        assert len(set(told["logprobs"]["tokens"])) > len(set(plain))
    assert said(complete(child, PROMPTS[0], repetition_penalty=1.8)) != greedy
    ended = complete(child, PROMPTS[0], stop_token_ids=tokenized(child, plain[2]))
    assert ended["usage"]["completion_tokens"] == 3


def test_ends_are_the_models_unless_asked_otherwise(child: Child) -> None:
    """A chat ends by itself; `ignore_eos` and `min_tokens` hold it on."""
    messages = [{"role": "user", "content": "What does the elephant eat?"}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 40, "temperature": 0}

    def ask(**more: Any) -> Any:
        return child.post("/v1/chat/completions", {**body, **more})[1]

    ends = ask()
    assert ends["choices"][0]["finish_reason"] == "stop"
    assert ask(ignore_eos=True)["usage"]["completion_tokens"] == 40
    assert ask(min_tokens=30)["usage"]["completion_tokens"] >= 30
    held = ask(max_tokens=None, max_completion_tokens=3)
    assert held["usage"]["completion_tokens"] == 3
    only = {"logit_bias": {"1": 100}, "max_tokens": 2}
    assert ask(**only)["choices"][0]["message"]["content"] == ""
    marked = ask(**only, skip_special_tokens=False)
    assert marked["choices"][0]["message"]["content"] == "<s><s>"


def test_prompts_can_be_taken_otherwise(child: Child) -> None:
    """Without a beginning, cut, with their tokens told; and a chat's last answer carried on."""
    usual = complete(child, PROMPTS[0])["usage"]["prompt_tokens"]
    bare = complete(child, PROMPTS[0], add_special_tokens=False)
    assert bare["usage"]["prompt_tokens"] == usual - 1
    cut = complete(child, PROMPTS[0], truncate_prompt_tokens=2)
    assert cut["usage"]["prompt_tokens"] == 2
    assert len(complete(child, PROMPTS[0], return_token_ids=True)["choices"][0]["token_ids"]) == 24
    messages = [
        {"role": "user", "content": "What does the elephant eat?"},
        {"role": "assistant", "content": "The elephant eats"},
    ]
    body = {"model": MODEL, "messages": messages, "max_tokens": 8, "temperature": 0}
    carried = {"continue_final_message": True, "add_generation_prompt": False}
    _, answer = child.post("/v1/chat/completions", {**body, **carried})
    assert "grass" in answer["choices"][0]["message"]["content"]


def test_log_probabilities_are_the_librarys_own(child: Child, reference: list[Any]) -> None:
    """In the shape of either route, before temperature."""
    for prompt, told in zip(PROMPTS, reference, strict=False):
        answer = complete(child, prompt, max_tokens=1, logprobs=3, temperature=0.7, seed=1)
        found = answer["choices"][0]["logprobs"]
        top = found["top_logprobs"][0]
        for token, value in told["top"].items():
            assert top[token] == pytest.approx(value, abs=1e-3)
        assert found["text_offset"] == [0]
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    _, answer = child.post("/v1/chat/completions", {**body, "logprobs": True, "top_logprobs": 2})
    for token in answer["choices"][0]["logprobs"]["content"]:
        assert bytes(token["bytes"]).decode() == token["token"]
        assert len(token["top_logprobs"]) == 2


def test_answers_can_be_held_to_a_form(child: Child) -> None:
    """JSON by a schema, without blanks for which small models have a liking; and a choice."""
    schema = {
        "type": "object",
        "properties": {"eats": {"enum": ["grass", "fish"]}, "big": {"type": "boolean"}},
        "required": ["eats", "big"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "animal", "schema": schema}}
    made = json.loads(said(complete(child, PROMPTS[0], response_format=form, max_tokens=60)))
    assert made["eats"] in {"grass", "fish"}
    assert isinstance(made["big"], bool)
    messages = [{"role": "user", "content": "What does the elephant eat?"}]
    chat = {"model": MODEL, "messages": messages, "response_format": form, "max_tokens": 60}
    _, answer = child.post("/v1/chat/completions", chat)
    assert set(json.loads(answer["choices"][0]["message"]["content"])) == {"eats", "big"}
    chosen = complete(child, PROMPTS[0], structured_outputs={"choice": ["lions", "frogs"]})
    assert said(chosen) in {"lions", "frogs"}


def test_tools_without_a_parser_are_refused_with_the_way_out(child: Child) -> None:
    """By the name of the option that a launch takes."""
    tool = {"type": "function", "function": {"name": "feed", "parameters": {"type": "object"}}}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "tools": [tool]}
    for choice in ("auto", "required"):
        status, answer = child.post("/v1/chat/completions", {**body, "tool_choice": choice})
        assert status == 400
        assert "--tool-call-parser" in answer["error"]["message"]


def test_prompt_that_is_too_long_is_refused_with_both_numbers(child: Child) -> None:
    """And what fits is answered up to the context's end."""
    status, answer = child.post("/v1/completions", {"model": MODEL, "prompt": [5] * 300})
    assert status == 400
    assert "256" in answer["error"]["message"]
    assert "300" in answer["error"]["message"]
    ends = complete(child, [5] * 250, max_tokens=None, ignore_eos=True)["usage"]
    assert ends["total_tokens"] == 256


def plan() -> LaunchPlan:
    """One that needs no engine to be here."""
    files = {path.relative_to(specs_root()).as_posix(): 1 for path in WEIGHTS.iterdir()}
    host = Host("local", "here", 2, 10**11, 10**11, 10**11, {"vLLM": Detection("1")}, files)
    asked = LaunchRequest.parse(model_name="tiny-mixtral", format="pytorch", model_engine="vLLM")
    return resolve(asked, Catalog.load(), [host])


def metric(child: Child, name: str) -> float:
    """The sum of one of vLLM's own counters."""
    _, text = child.request("GET", "/metrics")
    lines = [line for line in text.splitlines() if line.startswith(f"vllm:{name}{{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_client_that_leaves_ends_the_work(child: Child) -> None:
    """Streaming or not, nothing runs long before the answers would have been whole."""
    for stream in (True, False):
        before = metric(child, "generation_tokens_total")
        # Of so many answers that nobody is through before we have looked.
        body = {"model": MODEL, "prompt": "a", "n": 64, "max_tokens": 250, "ignore_eos": True}
        data = json.dumps({**body, "stream": stream})
        with socket.create_connection(("127.0.0.1", child.wanted.port)) as connection:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
            head += "Content-Type: application/json\r\nAuthorization: Bearer -the-key\r\n\r\n"
            connection.sendall(f"{head}{data}".encode())
            until(lambda before=before: metric(child, "generation_tokens_total") > before)
        until(lambda: metric(child, "num_requests_running") == 0)
        assert 0 < metric(child, "generation_tokens_total") - before < 64 * 240


def test_only_the_gateway_is_answered(child: Child) -> None:
    """On no route but the health's, of which vLLM itself guards some alone; and not to any page."""
    for key in (None, "other"):
        for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/invocations"):
            assert child.post(path, {"model": MODEL, "prompt": "a"}, key)[0] == 401
        for path in ("/metrics", "/v1/models", "/openapi.json"):
            assert child.request("GET", path, key=key)[0] == 401
    command = " ".join(psutil.Process(child.process.pid).cmdline())
    assert child.wanted.api_key not in command


def test_it_listens_on_loopback_alone(child: Child) -> None:
    """The server and what its processes use among themselves."""
    main = psutil.Process(child.process.pid)
    listening = [
        connection.laddr.ip
        for process in (main, *main.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}


def tokenized(child: Child, text: str) -> list[int]:
    """The text's tokens, without a beginning."""
    body = {"model": MODEL, "prompt": text, "add_special_tokens": False}
    return list(child.post("/tokenize", body)[1]["tokens"])


def test_weights_that_are_left_out_do_not_load(vllm_home: Path, tmp_path: Path) -> None:
    """A part of a fused layer, one expert, scales: vLLM itself loads all of these in silence."""
    cases = [
        (WEIGHTS, "model.layers.1.self_attn.q_proj.weight", "qkv_proj.weight"),
        (WEIGHTS, "model.layers.1.block_sparse_moe.experts.3.w1.weight", "w13_weight"),
        (WEIGHTS, "model.layers.1.block_sparse_moe.gate.weight", "gate.weight"),
        (GPTQ, "model.layers.1.block_sparse_moe.experts.3.w2.qweight", "w2_qweight"),
        (GPTQ, "model.layers.1.self_attn.q_proj.scales", "qkv_proj.scales"),
    ]
    made = [tmp_path / str(number) for number in range(len(cases))]
    for folder, (source, *_) in zip(made, cases, strict=True):
        shutil.copytree(source, folder)
    names = [name for _, name, _ in cases]
    files = [str(folder / "model.safetensors") for folder in made]
    python(vllm_home, DROP, json.dumps([*zip(files, names, strict=True)]))
    folders = [WEIGHTS, GPTQ, *made]
    library = str(Path(arguments.__code__.co_filename).parent)
    told = python(vllm_home, LOAD, library, json.dumps([*map(str, folders)]), str(tmp_path / "d"))
    assert told[0] == ""
    assert told[1] == "" if TILES else told[1]
    for problem, (source, _, shown) in zip(told[2:], cases, strict=True):
        if source == GPTQ and not TILES:
            continue
        assert shown in problem
        line = f"(Worker pid=1) ERROR 01-01 [x.py:1] ValueError: {problem}"
        assert diagnose_exit(ENGINE, plan(), 1, None, [line]).cause == "weights_mismatch"


@pytest.mark.parametrize(
    "line",
    [
        "    assert loaded_weight.shape[output_dim] == self.org_vocab_size",
        "FileNotFoundError: Weight files referenced in index but missing: {'/m/a b.safetensors'}",
        "ValueError: Couldn't instantiate the backend tokenizer from one of: ",
        "OSError: It looks like the config file at '/m/config.json' is not a valid JSON file.",
        "NotImplementedError: No WNA16 MoE backend supports the deployment configuration.",
    ],
)
def test_what_vllm_says_of_files_is_understood(line: str) -> None:
    """As it was seen: of another shape, a lost shard, no tokenizer, no JSON, no kernel."""
    said = f"(Worker pid=1) ERROR 01-01 [x.py:1] {line}"
    causes = {
        "assert": ("weights_mismatch", "shape"),
        "FileNotFoundError": ("corrupt_file", "/m/a b.safetensors"),
        "ValueError": ("load_failed", "tokenizer"),
        "OSError": ("corrupt_file", "/m/config.json"),
        "NotImplementedError": ("unsupported_arch", "AMX"),
    }
    cause, names = causes[line.split(maxsplit=1)[0].strip(":")]
    found = diagnose_exit(ENGINE, plan(), 1, None, [said])
    assert (found.cause, names in found.message) == (cause, True), found


if not TILES:  # else conformance serves them

    def test_quantized_experts_need_the_processors_matrix_tiles(tmp_path: Path) -> None:
        """Without them vLLM has no kernel for such a mixture: a failed launch that says so."""
        with Child(ENGINE, wanted(GPTQ), tmp_path / "log") as child:
            found = diagnose_exit(ENGINE, plan(), child.await_end(), None, child.lines())
        assert found.cause == "unsupported_arch"
        assert "AMX" in found.message


def test_weights_that_are_not_the_models_do_not_serve(tmp_path: Path) -> None:
    """Nor does an architecture that nobody knows; the launch's last lines are those of the cause.

    Both are started at once: each spends half a minute on what it imports.
    """
    name = "model.layers.1.input_layernorm.weight"
    changed(WEIGHTS, tmp_path / "other", called(name, name.replace("input", "other")))
    shutil.copytree(WEIGHTS, tmp_path / "strange")
    config = tmp_path / "strange" / "config.json"
    config.write_text(config.read_text().replace('"mixtral"', '"nonsense"'))
    with (
        Child(ENGINE, wanted(tmp_path / "other"), tmp_path / "other.log") as other,
        Child(ENGINE, wanted(tmp_path / "strange"), tmp_path / "strange.log") as strange,
    ):
        ends = [(one.await_end(), one.lines()) for one in (other, strange)]
    mismatched, unknown = (diagnose_exit(ENGINE, plan(), c, None, lines) for c, lines in ends)
    assert mismatched.cause == "weights_mismatch"
    assert "layers.1.other_layernorm" in mismatched.message
    assert "layers.1.other_layernorm" in mismatched.lines[-1]
    assert unknown.cause == "unsupported_arch", "\n".join(ends[1][1][-30:])


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("safetensors_rust.SafetensorError: Error while deserializing header", "corrupt_file"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "oom"),
        (
            "ValueError: Available memory on node 0 (1/2 GiB) on kv cache allocation is less than "
            "requested memory for kv (9 GiB).",
            "oom",
        ),
        ("OSError: [Errno 98] Address already in use", "port_in_use"),
        ("ModuleNotFoundError: No module named 'triton_kernels'", "load_failed"),
        ("  Value error, User-specified max_model_len (9) is greater [type=x]", "bad_option"),
        ("KeyError: 'invalid tool call parser: nonsense (chose from { hermes })'", "bad_option"),
        ("TypeError: --tool-call-parser mistral cannot be used with the tokenizer", "bad_option"),
        ("AttributeError: module 'triton.language' has no attribute 'float32'", "bad_option"),
        ("vllm serve: error: unrecognized arguments: --nonsense", "bad_option"),
    ],
)
def test_failures_have_their_causes(line: str, cause: str) -> None:
    """By vLLM's words for them, behind which its last line says nothing."""
    last = "RuntimeError: Engine core initialization failed. See root cause above."
    lines = [f"(EngineCore pid=7) ERROR 01-01 00:00:00 [core.py:1] {line}", last]
    assert diagnose_exit(ENGINE, plan(), 1, None, lines).cause == cause


def test_command_line_is_understood(vllm_home: Path) -> None:
    """By vLLM's own parser: each option comes to what it says."""
    given = VllmOptions(
        dtype="bfloat16",
        tensor_parallel_size=2,
        pipeline_parallel_size=2,
        enable_expert_parallel=True,
        gpu_memory_utilization=0.5,
        cpu_offload_gb=1.5,
        kv_cache_dtype="fp8",
        quantization="fp8_per_tensor",
        load_format="safetensors",
        max_num_batched_tokens=4096,
        block_size=64,
        enable_prefix_caching=False,
        enforce_eager=True,
        lora_modules=("tales=/a/b",),
        max_lora_rank=32,
        speculative_config={"method": "ngram", "num_speculative_tokens": 2},
        hf_overrides={"rope_theta": 10000},
        enable_sleep_mode=True,
        tool_call_parser="mistral",
        reasoning_parser="deepseek_r1",
        seed=5,
    )
    lines = [
        arguments(serving(options, weights=WEIGHTS, slots=3, cache_bytes=1000, model_id="a/b.c"))
        for options in (VllmOptions(), given)
    ]
    plain, full = python(vllm_home, PARSE, json.dumps([line[1:] for line in lines]))
    assert plain["model_tag"] == str(WEIGHTS)
    assert plain["served_model_name"] == ["a/b.c"]
    assert (plain["host"], plain["allowed_origins"]) == ("127.0.0.1", [])
    assert (plain["max_model_len"], plain["max_num_seqs"]) == (256, 3)
    assert plain["kv_cache_memory_bytes"] > 1000
    assert plain["middleware"] == ["paddock_guard.Guard"]
    assert plain["worker_extension_cls"] == "paddock_whole.Whole"
    assert not plain["trust_remote_code"]
    assert not plain["enable_lora"]
    assert full["kv_cache_memory_bytes"] is None
    for name, value in given.model_dump(mode="json").items():
        if name in {"n_ctx", "n_parallel", "n_threads", "cpu_bind", "lora_modules"}:
            continue
        assert full[name] == value, name
    assert full["enable_lora"]
    assert full["enable_auto_tool_choice"]


def test_formats_are_those_of_vllms_parsers(vllm_home: Path) -> None:
    """Each reads the example of the format that it is named for; and it knows each of thoughts."""
    given = [(one.name, TOOL_PARSERS[one.name], one.example) for one in TOOL_FORMATS]
    told = python(vllm_home, READ_CALLS, str(WEIGHTS), json.dumps(given))
    assert told["calls"].pop("openai") is None
    assert told["calls"] == {
        name: [["find", {"word": "a"}]] for name in TOOL_PARSERS if name != "openai"
    }
    assert {one.name for one in REASONING_FORMATS} - {"think"} <= set(told["thoughts"])


def test_parsers_follow_from_the_chat_template() -> None:
    """Unless the user names others, and where there is something to take apart."""

    def parsers(tools: str | None, thoughts: str | None, **options: Any) -> list[str]:
        formats = {"tool_format": tools, "reasoning_format": thoughts}
        line = arguments(serving(VllmOptions(**options), weights=WEIGHTS, **formats))
        found = [at for at, word in enumerate(line) if word.endswith("-parser")]
        assert ("--enable-auto-tool-choice" in line) == ("--tool-call-parser" in line)
        return [f"{line[at]} {line[at + 1]}" for at in found]

    assert parsers(None, None) == []
    assert parsers("mistral_args", "qwen3") == [
        "--tool-call-parser mistral",
        "--reasoning-parser qwen3",
    ]
    own = {"tool_call_parser": "xlam", "reasoning_parser": "olmo3"}
    assert parsers("hermes", "qwen3", **own) == [
        "--tool-call-parser xlam",
        "--reasoning-parser olmo3",
    ]


def test_threads_and_cores() -> None:
    """Threads are not bound, so that two models do not share a core, unless they are told to be."""
    environ = ENGINE.command(wanted(n_threads=3)).environ
    assert environ["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert environ["OMP_NUM_THREADS"] == "3"
    bound = ENGINE.command(wanted(n_threads=4, tensor_parallel_size=2, cpu_bind="0-1|2-3"))
    assert bound.environ["VLLM_CPU_OMP_THREADS_BIND"] == "0-1|2-3"
    assert bound.environ["OMP_NUM_THREADS"] == "2"


def test_share_of_a_gpu_is_the_plans() -> None:
    """With something left for what is there before vLLM looks; its own option takes its place."""
    line = arguments(serving(VllmOptions(), weights=WEIGHTS, cache_bytes=1000, gpu_share=0.5))
    assert line[line.index("--gpu-memory-utilization") + 1] == "0.45"
    assert "--kv-cache-memory-bytes" in line
    given = VllmOptions(gpu_memory_utilization=0.8)
    line = arguments(serving(given, weights=WEIGHTS, cache_bytes=1000, gpu_share=0.5))
    assert line[line.index("--gpu-memory-utilization") + 1] == "0.8"
    assert "--kv-cache-memory-bytes" not in line
    assert "--gpu-memory-utilization" not in arguments(serving(VllmOptions(), weights=WEIGHTS))


def test_overrides_of_rope_extend_the_context() -> None:
    """As vLLM itself reckons it of a factor; other overrides extend nothing."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
    for overrides, longest in (
        ({"rope_scaling": yarn}, 8192),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2}}, 4096),
        ({"rope_scaling": "yarn"}, 2048),
        ({"vocab_size": 9}, 2048),
        (None, 2048),
    ):
        options = VllmOptions.model_validate({"hf_overrides": overrides})
        assert ENGINE.longest_context(options, 2048) == longest


def test_options_have_vllms_names_too() -> None:
    """Those that all engines share are known by either."""
    options = VllmOptions.parse("vLLM", {"max-model-len": "512", "max_num_seqs": 2})
    assert ENGINE.context_and_slots(options) == (512, 2)
    with pytest.raises(BadValue, match="absolute path"):
        VllmOptions.parse("vLLM", {"lora_modules": "tales=here"})


def test_what_it_cannot_load_is_refused() -> None:
    """Quantization on load is bitsandbytes' in the catalogue, which this vLLM has not."""
    variants = Catalog.load().lookup("tiny-mixtral").variants
    plain = next(one for one in variants if one.format == "pytorch")
    assert ENGINE.refuses(plain, HOST) is None
    told = ENGINE.refuses(plain.model_copy(update={"quantization": "8-bit"}), HOST)
    assert "quantization" in (told or "")


def test_build_for_gpus_is_refused_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would end as it starts; the reason names the command that brings the other build."""
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path))
    environment = Vllm.environment
    folder = environment.folder(tmp_path)
    (folder / "made" / "bin").mkdir(parents=True)
    (folder / "made" / "bin" / "python").touch()
    told = {"folder": "made", "digest": environment.digest("cuda"), "accelerator": "cuda"}
    (folder / CURRENT).write_text(json.dumps({**told, "versions": {}, "architectures": []}))
    monkeypatch.setattr(vllm, "find_accelerator", lambda: "cpu")
    assert "paddock engine install vllm --force" in ENGINE.detect().missing
    monkeypatch.setattr(vllm, "find_accelerator", lambda: "cuda")
    assert ENGINE.detect().cuda


def test_a_chat_template_is_given_as_a_file() -> None:
    """Nothing is said of one where the weights' own counts."""
    file = Path("/home/x.jinja")
    given = serving(VllmOptions(), weights=WEIGHTS, chat_template="x", chat_template_file=file)
    line = arguments(given)
    assert line[line.index("--chat-template") + 1] == str(file)
    assert "--chat-template" not in arguments(serving(VllmOptions(), weights=WEIGHTS))
