"""llama.cpp for real: its options arrive, its context is per request, its failures have a cause."""

import json
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from paddock.engines import load_engine
from paddock.engines.base import Detection, Host, Serving
from paddock.engines.llama_cpp import LlamaCpp, LlamaCppOptions
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.replicas.diagnosis import Diagnosis, diagnose_exit
from paddock.launcher.replicas.prompt import settle_prompt
from paddock.registry.catalog import Catalog, specs_root
from paddock.registry.errors import BadValue
from paddock.registry.prompts import EXAMPLE, find_prompt, prompt_names, render
from tests.engines.child import Child, free_port, serving
from tests.fakes import STRING, entry, gguf, llama_server, tensor, text
from tests.registry.test_prompts import CALLED, TOOLS
from tests.rewritten import TEMPLATE, rewrite, with_sentencepiece

TINY = specs_root() / "weights" / "tiny-mixtral" / "ggufv2" / "tiny-mixtral.Q4_K_M.gguf"
ENGINE = load_engine("llama.cpp")
HOST = Host("local", "here", 2, 10**11, 10**11, 10**11, {"llama.cpp": Detection("1")})


def wanted(weights: Path = TINY, given: dict[str, Any] | None = None, **changes: Any) -> Serving:
    options = LlamaCppOptions.parse("llama.cpp", {"n_threads": 1, **(given or {})})
    return serving(ENGINE.fill_defaults(options, HOST, 0), weights=weights, **changes)


def plan() -> LaunchPlan:
    files = {"weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf": 1}
    host = Host("local", "here", 2, 10**11, 10**11, 10**11, HOST.engines, files)
    return resolve(LaunchRequest.parse(model_name="tiny-mixtral"), Catalog.load(), [host])


def _exit(code: int) -> tuple[int | None, int | None]:
    """An exit code and a signal, as a parent gets them in one number."""
    return (code, None) if code >= 0 else (None, -code)


def failure(child: Child) -> Diagnosis:
    """Why an engine that must fail failed."""
    code = child.await_end()
    lines = child.lines()
    return diagnose_exit(ENGINE, plan(), *_exit(code), lines)


def test_the_context_is_what_one_request_gets(tmp_path: Path) -> None:
    """With 256 tokens and two slots, two requests at once have 256 each and not one more."""
    with Child(ENGINE, wanted(slots=2), tmp_path / "log") as child:
        child.await_health()
        assert [slot["n_ctx"] for slot in child.get("/slots")] == [256, 256]
        assert child.get("/props")["total_slots"] == 2
        body = {"prompt": "The old elephant", "max_tokens": 250, "ignore_eos": True}
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda _: child.post("/v1/completions", body), range(2)))
        assert [answer["usage"]["completion_tokens"] for _, answer in answers] == [250, 250]
        status, answer = child.post("/v1/completions", {"prompt": "the " * 300})
        assert status == 400
        assert answer["error"]["n_ctx"] == 256


@pytest.mark.parametrize(("asked", "given"), [(1, 256), (257, 512)])
def test_a_context_is_rounded_up_as_planned(tmp_path: Path, asked: int, given: int) -> None:
    """The engine's own rounding is the planner's, and one token does not abort it."""
    with Child(ENGINE, wanted(context_length=asked), tmp_path / "log") as child:
        child.await_health()
        assert [slot["n_ctx"] for slot in child.get("/slots")] == [given]


PRINTED = [
    ({"cache_type_k": "q8_0", "cache_type_v": "q4_0"}, r"K \(q8_0\).*V \(q4_0\)"),
    ({"rope_freq_base": "12345", "rope_freq_scale": "0.5"}, r"freq_base += 12345.0"),
    ({"rope_freq_scale": "0.5"}, r"freq_scale += 0.5"),
    ({"n_threads": "3"}, r"n_threads = 3 \(n_threads_batch = 3\)"),
    ({"flash_attn": "off"}, r"flash_attn += disabled"),
    ({"flash_attn": "true"}, r"flash_attn += enabled"),
    ({"mmap": "false"}, r"load_mode = none"),
    ({"mmap": "true"}, r"load_mode = mmap"),
    ({"n_batch": "64"}, r"n_batch += 64"),
    ({"n_ubatch": "32"}, r"n_ubatch += 32"),
    ({"repack": "true"}, r"CPU_REPACK model buffer"),
    ({"cache_ram_mib": "7"}, r"prompt cache is enabled, size limit: 7 MiB"),
]


def test_every_option_reaches_the_engine(tmp_path: Path) -> None:
    """What the engine prints of itself is what was asked for."""
    for number, (options, pattern) in enumerate(PRINTED):
        # What cannot be together with a quantized cache is left to its own row.
        given = {"verbosity": "4", **options}
        with Child(ENGINE, wanted(given=given), tmp_path / str(number)) as child:
            child.await_health()
            said = "\n".join(child.lines())
            assert re.search(pattern, said), (options, said)


def test_without_repacking_the_weights_stay_in_the_file(tmp_path: Path) -> None:
    """`repack false` is what makes weights larger than the memory possible."""
    given = {"verbosity": "4", "repack": "false"}
    with Child(ENGINE, wanted(given=given), tmp_path / "log") as child:
        child.await_health()
        assert "CPU_REPACK" not in "\n".join(child.lines())


def test_the_log_does_not_grow_with_requests(tmp_path: Path) -> None:
    """A replica that serves for months must not fill the disk."""
    with Child(ENGINE, wanted(), tmp_path / "log") as child:
        child.await_health()
        child.post("/v1/completions", {"prompt": "a", "max_tokens": 1})
        before = len(child.lines())
        for word in ("lion", "zebra", "keeper"):
            child.post("/v1/completions", {"prompt": f"The {word} is", "max_tokens": 1})
        assert len(child.lines()) == before


NONSENSE = gguf([entry("general.architecture", STRING, text("nonsense"))])
LLAMA_WITHOUT_TENSORS = gguf([entry("general.architecture", STRING, text("llama"))])


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"this is no GGUF at all", "corrupt_file"),
        (b"", "corrupt_file"),
        (None, "corrupt_file"),
        (NONSENSE, "unsupported_arch"),
        (LLAMA_WITHOUT_TENSORS, "load_failed"),
        (gguf([struct.pack("<Q", 2**60)]), "corrupt_file"),
    ],
)
def test_weights_that_do_not_load_have_their_cause(
    tmp_path: Path, data: bytes | None, cause: str
) -> None:
    """The engine's real output is understood, for each way in which a file can be wrong."""
    path = tmp_path / "model.gguf"
    path.write_bytes(TINY.read_bytes()[:1_000_000] if data is None else data)
    with Child(ENGINE, wanted(path), tmp_path / "log") as child:
        found = failure(child)
    assert found.cause == cause, found.lines
    assert not any("Traceback" in line for line in found.lines)
    assert any("error loading model" in line for line in found.lines)


NAME = b"blk.1.attn_q.weight"
SHAPE = NAME + struct.pack("<IQQ", 2, 256, 256)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (NAME, b"blk.7.attn_q.weight", "tensor 'blk.1.attn_q.weight' not found"),
        (SHAPE, NAME + struct.pack("<IQQ", 2, 128, 512), "wrong shape; expected    256,    256"),
    ],
    ids=["under another name", "of another shape"],
)
def test_weights_that_are_not_the_models_do_not_serve(
    tmp_path: Path, old: bytes, new: bytes, says: str
) -> None:
    """The file is whole, and one of its tensors is none of the model's."""
    whole = TINY.with_name("tiny-mixtral.Q8_0.gguf").read_bytes()
    assert whole.count(old) == 1
    file = tmp_path / "model.gguf"
    file.write_bytes(whole.replace(old, new))
    with Child(ENGINE, wanted(file), tmp_path / "log") as child:
        found = failure(child)
    assert found.cause == "weights_mismatch", found
    assert says in found.message


@pytest.mark.parametrize("content", [None, b"no adapter"])
def test_a_bad_adapter_is_a_bad_option(tmp_path: Path, content: bytes | None) -> None:
    """A LoRA file that is missing or broken ends the start, and is not taken for the model."""
    path = tmp_path / "lora.gguf"
    if content is not None:
        path.write_bytes(content)
    with Child(ENGINE, wanted(given={"lora": str(path)}), tmp_path / "log") as child:
        found = failure(child)
    assert found.cause == "bad_option", found.lines


def test_options_that_only_the_engine_can_refuse_are_bad_options(tmp_path: Path) -> None:
    """The engine's sentence becomes the message."""
    options = LlamaCppOptions.parse("e", {"cache_type_v": "q8_0", "n_threads": 1})
    forced = options.model_copy(update={"flash_attn": "off"})
    with Child(ENGINE, serving(forced, weights=TINY), tmp_path / "log") as child:
        found = failure(child)
    assert found.cause == "bad_option"
    assert "flash_attn" in found.message


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    """Another process on the port ends the start with that cause."""
    with Child(ENGINE, wanted(), tmp_path / "first") as first:
        first.await_health()
        with Child(ENGINE, wanted(port=first.wanted.port), tmp_path / "log") as child:
            assert failure(child).cause == "port_in_use"


def test_too_little_memory_is_said(tmp_path: Path) -> None:
    """A cache that cannot be had ends the start with the cause `oom`."""
    limit = 2_000_000_000
    command = ENGINE.command(wanted(context_length=256 * 16384))
    log = tmp_path / "log"
    with log.open("wb") as file:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"import os, sys, resource as r; r.setrlimit(r.RLIMIT_AS, ({limit}, {limit}));"
                "os.execv(sys.argv[1], sys.argv[1:])",
                *command.argv,
            ],
            env={**command.environ, "OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=file,
            timeout=60,
            check=False,
        )
    lines = log.read_text().splitlines()
    code = done.returncode
    assert diagnose_exit(ENGINE, plan(), *_exit(code), lines).cause == "oom", lines


@pytest.mark.parametrize(
    "given",
    [
        {"cache_type_v": "q8_0", "flash_attn": "off"},
        {"cache_type_k": "int3"},
        {"lora": "relative.gguf"},
        {"n_parallel": "257"},
        {"n_ctx": "0"},
        {"n_gpu_layers": "-2"},
        {"rope_freq_scale": "inf"},
        {"rope_freq_base": "nan"},
        {"rope_scaling": "cubic"},
    ],
)
def test_options_that_cannot_be_are_refused_before_the_start(given: dict[str, str]) -> None:
    """What is wrong on its face never reaches the engine."""
    with pytest.raises(BadValue, match=r"llama\.cpp option"):
        LlamaCppOptions.parse("llama.cpp", given)


def test_several_adapters_come_as_one_text() -> None:
    """Commas separate them, and nothing is no adapter."""
    assert LlamaCppOptions(lora="/a,/b").lora == ("/a", "/b")  # type: ignore[arg-type]  # as typed
    assert LlamaCppOptions(lora="").lora == ()  # type: ignore[arg-type]  # as typed


def test_threads_leave_a_core_to_others() -> None:
    """One fewer than the processors, never none, and what the user says stands."""
    for cpus, threads in ((1, 1), (2, 1), (8, 7)):
        host = Host("local", "h", cpus, 1, 1, 1, {})
        settled = ENGINE.fill_defaults(LlamaCppOptions.parse("e", {}), host, 0)
        assert isinstance(settled, LlamaCppOptions)
        assert settled.n_threads == threads
    kept = ENGINE.fill_defaults(LlamaCppOptions.parse("e", {"n_threads": 5}), HOST, 0)
    assert isinstance(kept, LlamaCppOptions)
    assert kept.n_threads == 5


def test_a_llama_server_takes_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PADDOCK_LLAMA_SERVER is detected, started with every option, and served through."""
    program, record = llama_server(tmp_path)
    monkeypatch.setenv("PADDOCK_LLAMA_SERVER", str(program))
    assert ENGINE.detect() == Detection(version=f"llama-server ({program})")
    given = {
        "n_threads": 3,
        "cache_type_k": "q8_0",
        "flash_attn": "on",
        "mmap": False,
        "mlock": True,
        "repack": False,
        "n_gpu_layers": 5,
        "rope_scaling": "yarn",
        "rope_freq_base": 10000,
        "rope_freq_scale": 0.25,
        "lora": "/a.gguf,/b.gguf",
    }
    template = tmp_path / "x.jinja"
    asked = wanted(
        given=given, slots=2, context_length=300, model_id="a/b", chat_template_file=template
    )
    with Child(ENGINE, asked, tmp_path / "log") as child:
        child.await_health()
        status, answer = child.post("/v1/completions", {"prompt": "x"})
        assert (status, answer["model"]) == (200, "a/b")
        assert child.post("/v1/completions", {"prompt": "x"}, key=None)[0] == 401
    arguments = json.loads(record.read_text())
    pairs = dict(pairwise(arguments))
    expected = {
        "--model": str(TINY),
        "--alias": "a/b",
        "--host": "127.0.0.1",
        "--ctx-size": "1024",
        "--parallel": "2",
        "--threads": "3",
        "--cache-type-k": "q8_0",
        "--cache-type-v": "f16",
        "--flash-attn": "on",
        "--n-gpu-layers": "5",
        "--rope-scaling": "yarn",
        "--rope-freq-base": "10000.0",
        "--rope-freq-scale": "0.25",
        "--chat-template-file": str(template),
        "--lora": "/b.gguf",
    }
    assert {name: pairs[name] for name in expected} == expected
    assert {"--no-mmap", "--mlock", "--no-repack"} <= set(arguments)


def test_a_llama_server_gets_no_file_that_cannot_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's header is looked at first; one that can is served, one without a head is not."""
    program, record = llama_server(tmp_path)
    monkeypatch.setenv("PADDOCK_LLAMA_SERVER", str(program))
    encoder = entry("bert.attention.causal", 7, b"\0")
    kind = entry("general.architecture", STRING, text("bert"))
    for name, tensors in (("fit", [tensor("cls.output.weight", [4])]), ("bare", [])):
        file = tmp_path / f"{name}.gguf"
        file.write_bytes(gguf([kind, encoder], tensors, bytes(16 * len(tensors))))
        asked = serving(ENGINE.options(), weights=file, abilities=("rerank",))
        with Child(ENGINE, asked, tmp_path / "log") as child:
            if tensors:
                child.await_health()
                assert "--reranking" in json.loads(record.read_text())
            else:
                assert child.await_end() == 1
                assert "no layer that scores pairs" in child.lines()[-1]


def test_a_llama_server_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting and its value are the reason."""
    monkeypatch.setenv("PADDOCK_LLAMA_SERVER", "/none/llama-server")
    assert "PADDOCK_LLAMA_SERVER names /none/llama-server" in ENGINE.detect().missing


def test_without_xllamacpp_a_llama_server_on_path_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither wheel nor program is a reason; a program on PATH is enough."""
    program, _ = llama_server(tmp_path)
    monkeypatch.setattr("paddock.engines.llama_cpp.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert "neither" in LlamaCpp().detect().missing
    monkeypatch.setenv("PATH", str(tmp_path))
    assert LlamaCpp().detect().version == f"llama-server ({program})"
    assert LlamaCpp().command(wanted(port=free_port())).argv[0] == str(program)


@pytest.mark.parametrize("name", prompt_names())
def test_a_prompt_format_is_rendered_as_jinja2_does(tmp_path: Path, name: str) -> None:
    """llama.cpp's own Jinja gives the same text, without the BOS that it adds as a token."""
    template = find_prompt(name).template
    bare = rewrite(TINY, tmp_path / "bare.gguf", {TEMPLATE: None})
    with Child(ENGINE, wanted(bare, chat_template=template), tmp_path / "log") as child:
        child.await_health()
        for system in ((), ({"role": "system", "content": "S"},)):
            messages = [*system, *EXAMPLE]
            status, answer = child.post("/apply-template", {"messages": messages})
            assert status == 200, answer
            assert answer["prompt"] == render(template, messages, "<s>", "</s>").removeprefix("<s>")
        if "tools" in template:
            status, answer = child.post("/apply-template", {"messages": CALLED, "tools": TOOLS})
            assert status == 200, answer
            assert answer["prompt"] == render(template, CALLED, "<s>", "</s>", tools=TOOLS)


@pytest.mark.parametrize("own", ["{{ if .System }}{{ .System }}{{ end }}", "{% for m in x %}{{ m"])
def test_a_template_that_is_none_has_its_cause(tmp_path: Path, own: str) -> None:
    """Go's language and broken Jinja: `chat_template`, and the way out is a template."""
    broken = rewrite(TINY, tmp_path / "broken.gguf", {TEMPLATE: own})
    with Child(ENGINE, wanted(broken), tmp_path / "log") as child:
        diagnosis = failure(child)
    assert diagnosis.cause == "chat_template"
    assert "--chat-template FILE" in (diagnosis.next_command or "")


def test_a_formats_end_of_turn_ends_an_answer(tmp_path: Path) -> None:
    """<|im_end|> does, though the file's end of text is another token."""
    token = 700
    chatml = rewrite(TINY, tmp_path / "chatml.gguf", {TEMPLATE: None}, {token: "<|im_end|>"})
    template = find_prompt("chatml").template
    with Child(ENGINE, wanted(chatml, chat_template=template), tmp_path / "log") as child:
        child.await_health()
        body = {"messages": [EXAMPLE[0]], "max_tokens": 5, "logit_bias": {str(token): 100}}
        status, answer = child.post("/v1/chat/completions", body)
    assert status == 200, answer
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize("name", ["mistral-v1", "mistral-v3", "llama-2"])
def test_the_tokens_are_the_published_prompt(tmp_path: Path, name: str) -> None:
    """SentencePiece puts a blank after each special token; none is there twice.

    `[INST]` is a token of its own in mistral-v3, and its blank is the tokenizer's too.
    """
    weights = with_sentencepiece(TINY, tmp_path / "pieces.gguf")
    if name == "mistral-v3":
        weights = rewrite(weights, tmp_path / "v3.gguf", {}, {700: "[INST]", 701: "[/INST]"})
    given = plan().model_copy(
        update={"chat_template": find_prompt(name).template, "chat_format": name}
    )
    template = settle_prompt(given, weights).template
    with Child(ENGINE, wanted(weights, chat_template=template), tmp_path / "log") as child:
        child.await_health()
        _, answer = child.post("/apply-template", {"messages": list(EXAMPLE)})
        told = {"content": answer["prompt"], "add_special": True, "with_pieces": True}
        _, tokens = child.post("/tokenize", {**told, "parse_special": True})
        _, chat = child.post("/v1/chat/completions", {"messages": list(EXAMPLE), "max_tokens": 1})
    pieces = [token["piece"] for token in tokens["tokens"]]
    assert chat["usage"]["prompt_tokens"] == len(pieces)
    # Meta's own code encodes each pair as a text, and so with a blank before it.
    expected = find_prompt(name).example.replace("<s>[INST] U", "<s> [INST] U", 2)
    assert "".join(pieces) == (expected if name == "llama-2" else find_prompt(name).example)
