"""Transformers for real, in its own environment: the answers are those of the library itself."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from jsonschema import Draft202012Validator

from paddock.engines import load_engine
from paddock.engines.base import Host, Serving
from paddock.engines.transformers import Transformers, TransformersOptions
from paddock.launcher.planning.plan import LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.replicas.diagnosis import Diagnosis, diagnose_exit
from paddock.registry.catalog import Catalog, specs_root
from paddock.registry.prompts import EXAMPLE, find_prompt, prompt_names, render
from paddock.server.dialects.schemas import make_standalone, write_grammar
from tests.engines.child import DEADLINE, Child, serving
from tests.tensors import changed, halved, in_shards, surplus, without
from tools import class_defaults
from tools.tiny_mixtral.corpus import generate_documents

WEIGHTS = specs_root() / "weights" / "tiny-mixtral" / "pytorch" / "none"
GPTQ = specs_root() / "weights" / "tiny-mixtral" / "gptq" / "Int4"
ENGINE = load_engine("Transformers")
HOST = Host("local", "here", 2, 10**11, 10**11, 10**11, {})
PROMPTS = ["The old elephant", "A lion is", "What does the zebra eat?", "In the zoo"]
# What the library says itself, of the same weights, by its plain `generate` and forward pass.
REFERENCE = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
path, prompts = sys.argv[1], json.loads(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
told = []
decode = tokenizer.decode
for prompt in prompts:
    ids = tokenizer(prompt, return_tensors="pt")
    made = model.generate(**ids, max_new_tokens=24, do_sample=False)[0, ids.input_ids.shape[1]:]
    logprobs = model(ids.input_ids).logits[0, -1].float().log_softmax(-1)
    top = logprobs.topk(3)
    told.append({"text": decode(made, skip_special_tokens=True),
                 "tokens": ids.input_ids.shape[1],
                 "top": dict(zip(map(decode, top.indices.tolist()), top.values.tolist()))})
chat = [{"role": "user", "content": prompts[0]}]
ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
told.append({"tokens": len(ids), "first": ids[:3], "bos": tokenizer.bos_token_id})
print(json.dumps(told))
"""
# What each template makes of each conversation.
RENDERED = """
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
templates, conversations = map(json.loads, sys.argv[2:])
print(json.dumps([[tokenizer.apply_chat_template(
    one, chat_template=template, tokenize=False, add_generation_prompt=True)
    for one in conversations] for template in templates]))
"""
# Feeds texts' tokens one by one; characters of several tokens must come whole.
PIECES = """
import json, sys
sys.path.insert(0, sys.argv[2])
from transformers import AutoTokenizer
from serve import Text
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
told = []
for text, stops, _ in json.loads(sys.argv[3]):
    found, pieces = Text(tokenizer, stops), []
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        pieces.append(found.add(token))
        if found.stopped:
            break
    else:
        pieces.append(found.end())
    told.append(pieces)
print(json.dumps(told))
"""
# Perplexity of the same texts, of weights that the server has loaded.
PERPLEXITY = """
import json, math, sys, torch
sys.path.insert(0, sys.argv[1])
import worker
from transformers import AutoTokenizer
told = []
options = {"dtype": "float32", "attn_implementation": None, "device_map": None, "lora": []}
for path, quantization in json.loads(sys.argv[2]):
    model = worker._load(path, quantization, {**options, "compute_dtype": "float32"})
    tokenizer, loss, count = AutoTokenizer.from_pretrained(path), 0.0, 0
    for text in json.loads(sys.argv[3]):
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids[:, :300]
        with torch.inference_mode():
            loss += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    told.append(math.exp(loss / count))
print(json.dumps(told))
"""
# A checkpoint as bitsandbytes leaves it, in the names that published ones have.
SAVE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import bnb
from transformers import AutoModelForCausalLM, AutoTokenizer
path, folder = sys.argv[2:]
more = bnb.prepare("mixtral", 4, "float32")
AutoModelForCausalLM.from_pretrained(path, dtype="float32", **more).save_pretrained(folder)
AutoTokenizer.from_pretrained(path).save_pretrained(folder)
print(json.dumps(None))
"""
# An adapter of random weights, and the first token's probabilities of the library with it.
ADAPTER = """
import json, sys, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.manual_seed(0)
path, folder, prompt = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
modules = ["q_proj", "v_proj"]
config = LoraConfig(r=4, target_modules=modules, init_lora_weights=False, task_type="CAUSAL_LM")
model = get_peft_model(model, config).eval()
model.save_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(path)
logprobs = model(tokenizer(prompt, return_tensors="pt").input_ids).logits[0, -1].log_softmax(-1)
top = logprobs.topk(3)
print(json.dumps(dict(zip(map(tokenizer.decode, top.indices.tolist()), top.values.tolist()))))
"""
# Models of other kinds and of random weights: one table for embeddings and head, positions that
# are scaled, a window, scores with a soft cap; and what the library says after a prompt that is
# longer than the window. The file of settings for answers names more ends than the model's own.
OTHER = """
import json, sys, torch
from transformers import (
    AutoTokenizer, Gemma2Config, Gemma2ForCausalLM, MistralConfig, MistralForCausalLM)
torch.manual_seed(0)
path, folder, kind = sys.argv[1:]
scaled = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
same = dict(
    vocab_size=1024, hidden_size=64, intermediate_size=128, num_hidden_layers=2, eos_token_id=2,
    num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, sliding_window=64,
    max_position_embeddings=512)
model = MistralForCausalLM(MistralConfig(
    **same, rope_parameters=scaled, initializer_range=0.2)) if kind == "Mistral" else (
    Gemma2ForCausalLM(Gemma2Config(
        **same, head_dim=16, query_pre_attn_scalar=16, attn_logit_softcapping=1.0,
        initializer_range=0.2)))
model.eval().generation_config.eos_token_id = [2, 7]
model.save_pretrained(folder)
AutoTokenizer.from_pretrained(path).save_pretrained(folder)
ids = torch.arange(5, 185).unsqueeze(0)
top = model(ids).logits[0, -1].log_softmax(-1).topk(3)
print(json.dumps([top.indices.tolist(), top.values.tolist()]))
"""
# Loads one checkpoint after another, as the worker would; what is said of each goes to its log.
LOADS = """
import json, os, sys, traceback
sys.path.insert(0, sys.argv[1])
import worker
options = {"dtype": "auto", "attn_implementation": None, "device_map": None, "lora": []}
for path, quantization in json.loads(sys.argv[2]):
    with open(path + ".log", "w") as log:
        os.dup2(log.fileno(), 2)
        try:
            worker._load(path, quantization, {**options, "compute_dtype": "float32"})
        except SystemExit as error:
            print(error, file=sys.stderr, flush=True)
        except Exception:
            traceback.print_exc()
print(json.dumps(None))
"""
# Models of random weights that cannot be served: the values of one are beyond float16, and the
# attention of the other does not survive a batch of pages.
UNFIT = """
import json, sys, torch
from transformers import (
    AutoTokenizer, BloomConfig, BloomForCausalLM, MistralConfig, MistralForCausalLM)
torch.manual_seed(0)
path, folder = sys.argv[1:]
large = MistralForCausalLM(MistralConfig(
    vocab_size=1024, hidden_size=64, intermediate_size=128, num_hidden_layers=1,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
    initializer_range=50.0))
alibi = BloomForCausalLM(BloomConfig(
    vocab_size=1024, hidden_size=64, n_layer=2, n_head=4, initializer_range=0.3))
for name, model in (("too large for float16", large), ("alibi", alibi)):
    model.save_pretrained(f"{folder}/{name}")
    AutoTokenizer.from_pretrained(path).save_pretrained(f"{folder}/{name}")
print(json.dumps(None))
"""
# What is not to be seen from outside: positions whose frequencies follow the length of a text, held
# at those of the context, beside the library's own for a text of that length; and a step of the
# batch in which one request's scores are no numbers, and another's choice fails.
INSIDE = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
import attention, worker
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
frequencies = [1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0]
told = {"differs": [], "choices": []}
for scaled in ({"rope_type": "dynamic"}, {"rope_type": "longrope", "short_factor": [1.0] * 8,
               "long_factor": frequencies, "original_max_position_embeddings": 64}):
    config = LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3,
        max_position_embeddings=256 if "long_factor" in scaled else 64,
        rope_parameters={"factor": 4.0, "rope_theta": 10000.0, **scaled})
    model = LlamaForCausalLM(config).eval()
    ids = torch.arange(180).unsqueeze(0)
    with torch.inference_mode():
        alone = model(ids[:, :20]).logits[0, -1]
        wanted = model(ids).logits[0, 19]
        attention.pin_positions(model, 180)
        found = model(ids[:, :20]).logits[0, -1]
    told["differs"].append([float((found - one).abs().max()) for one in (wanted, alone)])
sampler = worker.Sampler(told["choices"].append)
good, bad = worker.Sampling(), worker.Sampling(repetition_penalty=0.0)
asked = [good, good, good, bad]
sampler.running = {str(n): worker.Running(n, [1], one) for n, one in enumerate(asked)}
sampler._rows = ["0", "1", "2", "3"]
scores = torch.zeros(4, 8)
scores[0, 5], scores[1, 3], scores[2, 3], scores[3, 1] = 100.0, torch.nan, torch.inf, 2.0
sampler(scores, scores)
print(json.dumps(told))
"""
# A text, what stops it, and what of it passes.
TEXTS = [
    ("żółw 🐘🦓 and 象", [], "żółw 🐘🦓 and 象"),
    ("one two three", ["two"], "one "),
    ("one tw", ["two"], "one tw"),
    ("ab ab abc", ["abc"], "ab ab "),
    ("🐘 eats 🦓", ["🦓"], "🐘 eats "),
]


@pytest.fixture(autouse=True)
def installed(transformers_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is found where it was installed."""
    monkeypatch.setenv("PADDOCK_HOME", str(transformers_home))


def wanted(weights: Path = WEIGHTS, **changes: Any) -> Serving:
    options = TransformersOptions(dtype="float32", n_threads=1)
    return serving(options, weights=weights, **{"slots": 8, **changes})


def python(home: Path, code: str, *arguments: str) -> Any:
    """What a program prints, as JSON, in the engine's environment."""
    assert isinstance(ENGINE, Transformers)
    made = ENGINE.environment.installed(home)
    assert made is not None
    command = [str(made.python), "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def reference(transformers_home: Path) -> list[dict[str, Any]]:
    return list(python(transformers_home, REFERENCE, str(WEIGHTS), json.dumps(PROMPTS)))


@pytest.fixture(scope="module")
def child(transformers_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """One engine for all tests that do not break it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADDOCK_HOME", str(transformers_home))
        with Child(ENGINE, wanted(), tmp_path_factory.mktemp("engine") / "log") as made:
            made.await_health()
            yield made


def complete(child: Child, prompt: Any, **fields: Any) -> dict[str, Any]:
    body = {"prompt": prompt, "max_tokens": 24, "temperature": 0, **fields}
    status, answer = child.post("/v1/completions", body)
    assert status == 200, answer
    return answer


def said(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["text"])


def test_the_table_of_class_defaults_is_the_librarys(transformers_home: Path) -> None:
    """What derived specs fill in of a config.json is what Transformers itself fills in."""
    assert ENGINE.environment is not None
    made = ENGINE.environment.installed(transformers_home)
    assert made is not None
    written = class_defaults.TABLE.read_text("utf-8")
    assert written == class_defaults.render(class_defaults.ask(made.python))


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
    assert complete(child, [5, 6, 7], max_tokens=2, ignore_eos=True)["usage"] == {
        "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
    }  # fmt: skip
    messages = [{"role": "user", "content": PROMPTS[0]}]
    chat = reference[-1]
    status, answer = child.post("/v1/chat/completions", {"messages": messages, "max_tokens": 2})
    assert (status, answer["usage"]["prompt_tokens"]) == (200, chat["tokens"])
    _, counted = child.post("/v1/chat/completions/input_tokens", {"messages": messages})
    assert counted == {"input_tokens": chat["tokens"]}
    assert chat["first"].count(chat["bos"]) <= 1


def test_stream_adds_up_to_the_whole_answer(child: Child) -> None:
    """Pieces, reason and, where it is asked for, the usage in an event of its own."""
    whole = complete(child, PROMPTS[0])
    body = {"prompt": PROMPTS[0], "max_tokens": 24, "temperature": 0, "stream": True}
    events = child.stream("/v1/completions", body)
    assert "".join(event["choices"][0]["text"] for event in events) == said(whole)
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    asked = {**body, "stream_options": {"include_usage": True}}
    *_, last = child.stream("/v1/completions", asked)
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "stream": True}
    first, *_ = child.stream("/v1/chat/completions", chat)
    assert first["choices"][0]["delta"]["role"] == "assistant"


def test_stop_texts_end_an_answer_and_are_not_in_it(child: Child) -> None:
    """Also one that begins in one token and ends in another."""
    whole = said(complete(child, PROMPTS[0]))
    stop = whole[7:13]
    answer = complete(child, PROMPTS[0], stop=["never", stop])
    assert said(answer) == whole[: whole.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] < 24


def test_characters_come_whole(transformers_home: Path) -> None:
    """Though each may be several tokens, and whatever may begin a stop text is held back."""
    serve = str(Path(ENGINE.command(wanted()).argv[1]).parent)
    found = python(transformers_home, PIECES, str(WEIGHTS), serve, json.dumps(TEXTS))
    for pieces, (_, _, passed) in zip(found, TEXTS, strict=True):
        assert "".join(pieces) == passed
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_sampling_fields_do_what_they_say(child: Child) -> None:
    """Seeds repeat, narrow choices are the greedy one, biases and penalties move it."""
    greedy = said(complete(child, PROMPTS[0]))
    warm = {"temperature": 1.5, "seed": 7}
    assert said(complete(child, PROMPTS[0], **warm)) == said(complete(child, PROMPTS[0], **warm))
    others = {said(complete(child, PROMPTS[0], temperature=1.5, seed=n)) for n in range(5)}
    assert len(others) > 1
    for narrow in ({"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}):
        assert said(complete(child, PROMPTS[0], temperature=1.5, **narrow)) == greedy
    answer = complete(child, PROMPTS[0], logit_bias={"17": 100}, logprobs=0, max_tokens=3)
    assert len(set(answer["choices"][0]["logprobs"]["tokens"])) == 1
    for penalty in ("frequency_penalty", "presence_penalty"):
        told = complete(child, PROMPTS[0], **{penalty: 2.0}, logprobs=0)["choices"][0]["logprobs"]
        plain = complete(child, PROMPTS[0], logprobs=0)["choices"][0]["logprobs"]
        assert len(set(told["tokens"])) > len(set(plain["tokens"]))
    assert said(complete(child, PROMPTS[0], repetition_penalty=1.8)) != greedy


def grammar(schema: Any) -> str:
    """As the gateway writes it."""
    return write_grammar(make_standalone(schema, "schema"), "schema", "Transformers")


def test_grammars_bind_from_the_first_token_to_the_last(child: Child) -> None:
    """At temperatures at which a model says anything, in rows beside others that are free."""
    schema = {
        "type": "object",
        "properties": {
            "age": {"type": "integer", "minimum": 100, "maximum": 999, "multipleOf": 7},
            "code": {"type": "string", "pattern": r"^\d{3}$"},
        },
        "required": ["age", "code"],
        "additionalProperties": False,
    }
    fields: dict[str, Any] = {"temperature": 1.5, "max_tokens": 60}
    free = complete(child, "The old lion", temperature=0, max_tokens=20)

    def bound(seed: int) -> dict[str, Any]:
        narrow = {"top_p": 0.9} if seed % 2 else {"logprobs": 1}
        wish = {**fields, **narrow, "seed": seed, "grammar": grammar(schema)}
        return complete(child, "The old lion", **wish)

    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(bound, seed) for seed in range(8)]
        beside = threads.submit(complete, child, "The old lion", temperature=0, max_tokens=20)
        texts = [said(one.result()) for one in answers]
        assert said(beside.result()) == said(free)
    for text in texts:
        Draft202012Validator(schema).validate(json.loads(text))
    assert len(set(texts)) > 1
    greedy = complete(child, "The", temperature=0, max_tokens=60, grammar=grammar(schema))
    Draft202012Validator(schema).validate(json.loads(said(greedy)))
    assert greedy["choices"][0]["finish_reason"] == "stop"


def test_grammar_that_is_none_is_refused(child: Child) -> None:
    """By its field, and before anything is computed."""
    status, answer = child.post("/v1/completions", {"prompt": "The", "grammar": "root ::= [a-z"})
    assert status == 400
    assert "grammar" in answer["error"]["message"]


def test_log_probabilities_are_the_librarys_own(child: Child, reference: list[Any]) -> None:
    """In the shape of either route, before temperature."""
    for prompt, told in zip(PROMPTS, reference, strict=False):
        answer = complete(child, prompt, max_tokens=1, logprobs=3, temperature=0.7, seed=1)
        found = answer["choices"][0]["logprobs"]
        assert found["top_logprobs"][0] == pytest.approx(told["top"], abs=1e-3)
        assert found["text_offset"] == [0]
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    _, answer = child.post("/v1/chat/completions", {**body, "logprobs": True, "top_logprobs": 2})
    for token in answer["choices"][0]["logprobs"]["content"]:
        assert bytes(token["bytes"]).decode() == token["token"]
        assert len(token["top_logprobs"]) == 2


@pytest.mark.parametrize("kind", ["Mistral", "Gemma2"])
def test_tied_embeddings_positions_windows_and_caps_are_the_librarys_own(
    tmp_path: Path, transformers_home: Path, kind: str
) -> None:
    """What is easily lost in silence between a checkpoint and a batch of pages."""
    folder = tmp_path / "other"
    ids, values = python(transformers_home, OTHER, str(WEIGHTS), str(folder), kind)
    with Child(ENGINE, wanted(folder), tmp_path / "log") as child:
        child.await_health()
        found = []
        for token in ids:  # the bias makes it say that token; what it tells is the model's chance
            bias = {"logit_bias": {str(token): 100}, "logprobs": 1, "ignore_eos": True}
            answer = complete(child, list(range(5, 185)), max_tokens=1, **bias)
            found += answer["choices"][0]["logprobs"]["token_logprobs"]
        # Either end ends it, though the model's own settings name but one of them.
        ends = [complete(child, [5, 6], logit_bias={str(end): 100}) for end in (2, 7)]
    assert found == pytest.approx(values, abs=1e-3)
    assert [answer["choices"][0]["finish_reason"] for answer in ends] == ["stop", "stop"]
    assert [answer["usage"]["completion_tokens"] for answer in ends] == [1, 1]


def test_one_requests_trouble_is_not_the_batchs(transformers_home: Path) -> None:
    """Scores that are no numbers fail their own request; positions are those of the context."""
    serve = str(Path(ENGINE.command(wanted()).argv[1]).parent)
    told = python(transformers_home, INSIDE, serve)
    for held, moved in told["differs"]:
        assert held < 1e-3 < moved
    by_number = dict(told["choices"][0])
    assert by_number[0][0] == 5
    assert all("not numbers" in by_number[number] for number in (1, 2))
    assert "no token can be chosen" in by_number[3]


def test_what_no_model_could_do_is_refused_and_ends_nothing(child: Child) -> None:
    """Tokens beyond the vocabulary; and a temperature by which no score can be divided is none."""
    for prompt in ([1024], [5, 2**40]):
        status, answer = child.post("/v1/completions", {"prompt": prompt, "max_tokens": 2})
        assert (status, answer["error"]["param"]) == (400, "prompt")
        assert "1024" in answer["error"]["message"]
    cold = complete(child, PROMPTS[0], temperature=1e-320)
    assert said(cold) == said(complete(child, PROMPTS[0]))


def test_prompt_that_is_too_long_is_refused_with_both_numbers(child: Child) -> None:
    """And what fits is answered up to the context's end."""
    status, answer = child.post("/v1/completions", {"prompt": "the " * 400})
    assert status == 400
    assert "256" in answer["error"]["message"]
    assert answer["error"]["param"] == "prompt"
    ends = complete(child, [5] * 250, max_tokens=None, ignore_eos=True)["usage"]
    assert ends["total_tokens"] == 256


def test_client_that_leaves_ends_the_work(child: Child) -> None:
    """Streaming or not, the batch is empty long before the answer would have been whole."""
    for stream in (True, False):
        before = int(child.get("/health")["tokens"])
        body = json.dumps({"prompt": "a", "max_tokens": 250, "stream": stream, "ignore_eos": True})
        with socket.create_connection(("127.0.0.1", child.wanted.port)) as connection:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            connection.sendall(f"{head}Authorization: Bearer -the-key\r\n\r\n{body}".encode())
            until(lambda before=before: int(child.get("/health")["tokens"]) > before)
        until(lambda: running(child) == 0)
        assert 0 < int(child.get("/health")["tokens"]) - before < 240


def running(child: Child) -> int:
    return int(child.get("/health")["running"])


def until(condition: Any) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_only_the_gateway_is_answered(child: Child) -> None:
    """Without the key, or with another, there is nothing to be had."""
    for key in (None, "other"):
        for route in ("completions", "chat/completions", "chat/completions/input_tokens"):
            assert child.post(f"/v1/{route}", {"prompt": "a"}, key)[0] == 401


@pytest.fixture(scope="module")
def adapter(transformers_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An adapter's folder, and what the library says with it after the first prompt."""
    folder = tmp_path_factory.mktemp("adapter") / "it"
    return folder, python(transformers_home, ADAPTER, str(WEIGHTS), str(folder), PROMPTS[0])


LAYER = "model.layers.1"
EXPERT = f"{LAYER}.block_sparse_moe.experts.3.w2"
# What is wrong → whose weights, in which quantization, what was done to them, what is named.
WRONG = {
    "lost": (WEIGHTS, "none", without(f"{LAYER}.self_attn.q_proj.weight"), "q_proj.weight"),
    "gptq scales": (GPTQ, "Int4", without(f"{LAYER}.self_attn.q_proj.scales"), "q_proj.scales"),
}
# The same, of loads that have no process of their own.
MISMATCHED = {
    "lost expert": (WEIGHTS, "none", without(f"{EXPERT}.weight"), "mlp.experts.down_proj"),
    "another shape": (WEIGHTS, "none", halved(f"{EXPERT}.weight"), "mlp.experts.down_proj"),
    "too many": (WEIGHTS, "none", surplus("model.layers.9.x"), "model.layers.9.x"),
    "gptq norm": (GPTQ, "Int4", without(f"{LAYER}.input_layernorm.weight"), "input_layernorm"),
    "gptq lost expert": (GPTQ, "Int4", without(f"{EXPERT}.qweight"), "experts.3.down_proj.qweight"),
    "gptq shape": (GPTQ, "Int4", halved(f"{EXPERT}.qweight"), '"qweight"'),
    # Last: they change the model's class.
    "4-bit lost expert": (WEIGHTS, "4-bit", without(f"{EXPERT}.weight"), "experts.3.down_proj"),
    "4-bit shape": (WEIGHTS, "4-bit", halved(f"{EXPERT}.weight"), "experts.3.down_proj"),
    "8-bit shape": (WEIGHTS, "8-bit", halved(f"{EXPERT}.weight"), "experts.3.down_proj"),
}
ADAPTERS = {"no adapter": "bad_option", "another's adapter": "weights_mismatch"}
# Folder → cause, and what the message names.
BROKEN = {
    "short": ("corrupt_file", "safetensors"),
    "half of its shards": ("corrupt_file", "model-00002-of-00002.safetensors"),
    "no json": ("corrupt_file", "config.json"),
    "strange": ("unsupported_arch", "architecture"),
    "without a tokenizer": ("load_failed", "tokenizer"),
    "too large for float16": ("bad_option", "overflow in float16"),
    "without room": ("oom", "memory"),
    # Its slopes count from the beginning of a batch: answered 200, and wrong as soon as two ask.
    "alibi": ("unsupported_arch", "chances are others in a batch"),
}


@pytest.fixture(scope="module")
def failed(
    transformers_home: Path, adapter: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Diagnosis]:
    """What is said of launches that fail. Each has a process of its own, two run at a time."""
    folder = tmp_path_factory.mktemp("failed")
    asked = {}
    for label, (source, quantization, change, _) in WRONG.items():
        changed(source, folder / label, change)
        asked[label] = wanted(folder / label, quantization=quantization)
    shutil.copytree(adapter[0], folder / "another's adapter")
    file = folder / "another's adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes().replace(b"q_proj", b"x_proj"))
    for label in ADAPTERS:
        options = ENGINE.options.parse(ENGINE.name, {"lora": str(folder / label)})
        asked[label] = serving(options, weights=WEIGHTS)
    python(transformers_home, UNFIT, str(WEIGHTS), str(folder))
    for label in BROKEN:
        if not (folder / label).exists():
            shutil.copytree(WEIGHTS, folder / label)
        asked[label] = wanted(folder / label)
    (folder / "no json" / "config.json").write_text("{")
    (folder / "without a tokenizer" / "tokenizer.json").unlink()
    in_shards(folder / "half of its shards", lost=True)
    half = ENGINE.options.parse(ENGINE.name, {"dtype": "float16"})
    asked["without room"] = wanted(folder / "without room", context_length=2 * 10**9)
    large = folder / "too large for float16"
    asked[large.name] = serving(half, weights=large)
    short = folder / "short" / "model.safetensors"
    short.write_bytes(short.read_bytes()[:5000])
    config = folder / "strange" / "config.json"
    config.write_text(config.read_text().replace('"mixtral"', '"nonsense"'))

    def diagnosis(label: str) -> Diagnosis:
        with Child(ENGINE, asked[label], folder / f"{label}.log") as child:
            return diagnose_exit(ENGINE, plan(), child.await_end(), None, child.lines())

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setenv("PADDOCK_HOME", str(transformers_home))
        return dict(zip(asked, pool.map(diagnosis, asked), strict=True))


@pytest.fixture(scope="module")
def loads(
    transformers_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Diagnosis]:
    """What is said of loads that fail, one after another in one process."""
    folder = tmp_path_factory.mktemp("loads")
    for label, (source, _, change, _) in MISMATCHED.items():
        changed(source, folder / label, change)
    asked = [(str(folder / label), one[1]) for label, one in MISMATCHED.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADDOCK_HOME", str(transformers_home))
        serve = str(Path(ENGINE.command(wanted()).argv[1]).parent)
        python(transformers_home, LOADS, serve, json.dumps(asked))
        return {
            label: diagnose_exit(
                ENGINE, plan(), 1, None, (folder / f"{label}.log").read_text().splitlines()
            )
            for label in MISMATCHED
        }


@pytest.mark.parametrize("label", WRONG)
def test_weights_that_are_not_the_models_do_not_serve(
    failed: dict[str, Diagnosis], label: str
) -> None:
    """A load in which weights were made up or left over has failed, and says so."""
    assert failed[label].cause == "weights_mismatch", failed[label]
    assert WRONG[label][3] in failed[label].message


@pytest.mark.parametrize("label", MISMATCHED)
def test_weights_that_do_not_fit_are_named(loads: dict[str, Diagnosis], label: str) -> None:
    """What is missing, too many or of another shape, in each way that there is to load them."""
    assert loads[label].cause == "weights_mismatch", loads[label]
    assert MISMATCHED[label][3] in loads[label].message


@pytest.mark.parametrize("label", ADAPTERS)
def test_adapter_that_does_not_fit_is_a_failed_launch(
    failed: dict[str, Diagnosis], label: str
) -> None:
    """It is named; nothing is served without it."""
    assert failed[label].cause == ADAPTERS[label]
    assert label in failed[label].message


@pytest.mark.parametrize("label", BROKEN)
def test_broken_weights_are_called_so(failed: dict[str, Diagnosis], label: str) -> None:
    """What is cut short or lost, what nobody knows, and what would answer with nonsense."""
    cause, says = BROKEN[label]
    assert failed[label].cause == cause, failed[label]
    assert says in failed[label].message


def test_batch_that_differs_is_served_where_that_is_asked_for(
    transformers_home: Path, tmp_path: Path
) -> None:
    """Who knows better has a way; the log says what differs."""
    python(transformers_home, UNFIT, str(WEIGHTS), str(tmp_path))
    options = ENGINE.options.parse(ENGINE.name, {"compare": "false"})
    with Child(ENGINE, serving(options, weights=tmp_path / "alibi"), tmp_path / "log") as child:
        child.await_health()
        assert any("chances are others in a batch" in line for line in child.lines())
        assert complete(child, "The", max_tokens=2)["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("killed", ["front", "worker"])
def test_its_two_processes_end_together(tmp_path: Path, killed: str) -> None:
    """And as the one did that was killed, so that a want of memory is not taken for another."""
    with Child(ENGINE, wanted(), tmp_path / "log") as child:
        child.await_health()
        front = psutil.Process(child.process.pid)
        (worker,) = front.children()
        (worker if killed == "worker" else front).kill()
        assert child.await_end() == -signal.SIGKILL
        until(lambda: ended(worker))


def ended(process: psutil.Process) -> bool:
    """Whether it has ended; one that nobody has buried yet has."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_quantized_weights_know_what_the_others_know(
    transformers_home: Path, awq: Path, tmp_path: Path
) -> None:
    """GPTQ under its published names, by perplexity: loaded wrongly it was seven times as high."""
    serve = str(Path(ENGINE.command(wanted()).argv[1]).parent)
    texts = json.dumps(list(generate_documents(seed=1000, count=12)))
    plain = str(WEIGHTS)
    saved = str(tmp_path / "bnb")
    python(transformers_home, SAVE, serve, plain, saved)
    names = weights_in(Path(saved))
    assert "model.layers.0.block_sparse_moe.experts.0.w1.weight.absmax" in names
    loads = [(plain, "none"), (str(GPTQ), "Int4"), (str(awq), "Int4")]
    # Last: they change the model's class.
    loads += [(saved, "4-bit"), (plain, "8-bit"), (plain, "4-bit")]
    found = python(transformers_home, PERPLEXITY, serve, json.dumps(loads), texts)
    assert 1 < found[0] < 2
    assert found[1:] == pytest.approx([found[0]] * 5, rel=0.03)
    assert found[3] == pytest.approx(found[5], rel=1e-6)


def weights_in(folder: Path) -> set[str]:
    """The names of a checkpoint's tensors."""
    data = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    return set(json.loads(data[8 : 8 + size]))


@pytest.mark.parametrize("quantization", ["none", "4-bit"])
def test_adapter_changes_the_answers_as_the_library_says(
    tmp_path: Path, adapter: Any, quantization: str
) -> None:
    """LoRA's: within the weights, or beside them where those are quantized."""
    folder, told = adapter
    options = {"dtype": "float32", "n_threads": 1, "lora": str(folder), "compute_dtype": "float32"}
    parsed = ENGINE.options.parse(ENGINE.name, options)
    asked = serving(parsed, weights=WEIGHTS, quantization=quantization)
    with Child(ENGINE, asked, tmp_path / "log") as child:
        child.await_health()
        answer = complete(child, PROMPTS[0], max_tokens=1, logprobs=3)
    (found,) = answer["choices"][0]["logprobs"]["top_logprobs"]
    assert found == pytest.approx(told, abs=1e-3 if quantization == "none" else 0.5)


def plan() -> Any:
    found = {
        engine: load_engine(engine).detect() for engine in ("llama.cpp", "Transformers", "echo")
    }
    files = {
        path.relative_to(specs_root()).as_posix(): path.stat().st_size for path in WEIGHTS.iterdir()
    }
    host = Host("local", "here", 2, 10**11, 10**11, 10**11, found, files)
    asked = LaunchRequest.parse(model_name="tiny-mixtral", format="pytorch")
    return resolve(asked, Catalog.load(), [host])


def test_plan_names_the_engine_and_its_memory() -> None:
    """Weights, cache and the process, as for any engine."""
    made = plan()
    assert (made.engine, made.engine_version) == ("Transformers", "5.23.0")
    assert made.memory.cache_bytes > 0
    assert made.options["n_threads"] == 1


def test_prompt_formats_are_rendered_as_jinja2_does(transformers_home: Path) -> None:
    """By the library's own Jinja, with its tokenizer's ends of texts."""
    templates = [find_prompt(name).template for name in prompt_names()]
    conversations = [EXAMPLE, ({"role": "system", "content": "S"}, *EXAMPLE)]
    told = python(
        transformers_home, RENDERED, str(WEIGHTS), json.dumps(templates), json.dumps(conversations)
    )
    assert told == [
        [render(template, messages, "<s>", "</s>") for messages in conversations]
        for template in templates
    ]


def test_a_template_and_its_end_of_turn_count_in_chats(
    transformers_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt is the template's; a token that ends a turn ends chats, and no completions."""
    monkeypatch.setenv("PADDOCK_HOME", str(transformers_home))
    template, end = find_prompt("chatml").template, 700
    asked = wanted(chat_template=template, stop_ids=(end,))
    with Child(ENGINE, asked, tmp_path / "log") as child:
        child.await_health()
        forced = {"max_tokens": 4, "logit_bias": {str(end): 100}}
        _, chat = child.post("/v1/chat/completions", {"messages": [EXAMPLE[0]], **forced})
        assert chat["choices"][0]["finish_reason"] == "stop"
        prompt = render(template, [EXAMPLE[0]])
        _, plain = child.post("/v1/completions", {"prompt": prompt, **forced})
        assert plain["choices"][0]["finish_reason"] == "length"
        # ChatML writes no <s>, which the tokenizer adds to a completion's prompt.
        assert chat["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"] - 1


def test_a_template_that_is_none_has_its_cause(
    transformers_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken Jinja ends the process before it serves, as on llama.cpp."""
    monkeypatch.setenv("PADDOCK_HOME", str(transformers_home))
    with Child(ENGINE, wanted(chat_template="{% for m in x %}{{ m"), tmp_path / "log") as child:
        diagnosis = diagnose_exit(ENGINE, plan(), child.await_end(), None, child.lines())
    assert diagnosis.cause == "chat_template"
    assert "--chat-template FILE" in (diagnosis.next_command or "")


def test_a_content_in_parts_is_its_text(child: Child) -> None:
    """For a template that takes texts alone, and would write a list of parts as Python does."""
    parts = [{"type": "text", "text": "Tell me"}, {"type": "text", "text": "a story."}]
    counts = []
    for content in (parts, "Tell me\na story."):
        messages = [{"role": "user", "content": content}]
        status, answer = child.post("/v1/chat/completions", {"messages": messages, "max_tokens": 1})
        assert status == 200
        counts.append(answer["usage"]["prompt_tokens"])
    assert counts[0] == counts[1]
