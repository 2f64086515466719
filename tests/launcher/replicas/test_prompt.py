"""Which chat template counts, once the weights are there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paddock.engines.base import Detection, Host
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.launcher.replicas.prompt import NO_FORMAT, Prompt, replace_own, settle_prompt
from paddock.registry.catalog import Catalog, specs_root
from paddock.registry.prompts import EXAMPLE, find_prompt, render, without_blanks
from tests.rewritten import TEMPLATE, rewrite, with_sentencepiece
from tests.templates import HERMES, with_calls

TINY = specs_root() / "weights" / "tiny-mixtral" / "ggufv2" / "tiny-mixtral.Q4_K_M.gguf"
ENGINES = {name: Detection("1") for name in ("llama.cpp", "Transformers")}
FILES = {
    "weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf": 1,
    "weights/tiny-mixtral/pytorch/none/model.safetensors": 1,
}
HOST = Host("local", "here", 2, 10**12, 10**12, 10**12, ENGINES, FILES)
OWN = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"


def planned(name: str, format: str = "ggufv2", **request: Any) -> LaunchPlan:
    asked = LaunchRequest.parse(model_name=name, format=format, force=True, **request)
    return resolve(asked, Catalog.load(), [HOST])


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A GGUF without a chat template."""
    return rewrite(TINY, tmp_path / "bare.gguf", {TEMPLATE: None})


def folder(path: Path, **files: Any) -> Path:
    """Settings of safetensors."""
    tokens = [{"id": 7, "content": "<|im_end|>"}, {"id": 2, "content": "</s>"}]
    files = {"tokenizer": {"added_tokens": tokens}, "config": {"eos_token_id": 2}, **files}
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def test_the_spec_stands_in_for_weights_without_a_template(bare: Path) -> None:
    """By its format, and the reason says so."""
    prompt = settle_prompt(planned("mixtral-instruct-v0.1"), bare)
    assert (prompt.source, prompt.format) == ("spec", "mistral-v1")
    assert prompt.template == find_prompt("mistral-v1").template
    assert prompt.tools is False
    assert "mistral-v1" in prompt.note
    assert (prompt.stop, prompt.stop_ids) == ((), ())


def test_blanks_that_the_tokenizer_writes_are_left_to_it(tmp_path: Path) -> None:
    """Of formats alone: a user's template is taken as it is."""
    weights = with_sentencepiece(TINY, tmp_path / "pieces.gguf")
    prompt = settle_prompt(planned("mixtral-instruct-v0.1"), weights)
    template = find_prompt("mistral-v1").template
    assert prompt.template == without_blanks(template) != template
    assert render(prompt.template, EXAMPLE, "<s>", "</s>").startswith(
        "<s>[INST] U1 [/INST] A1</s>[INST]"
    )
    given = planned("mixtral-instruct-v0.1", chat_template=template)
    assert settle_prompt(given, weights).template == template


def test_the_weights_own_counts_before_the_specs(tmp_path: Path) -> None:
    """The engine reads it itself."""
    plan = planned("mixtral-instruct-v0.1")
    prompt = settle_prompt(plan, rewrite(TINY, tmp_path / "own.gguf", {TEMPLATE: OWN}))
    assert (prompt.source, prompt.template, prompt.note) == ("weights", None, "")


def test_the_users_counts_before_all(tmp_path: Path) -> None:
    """A format by its name, or a template."""
    weights = rewrite(TINY, tmp_path / "own.gguf", {TEMPLATE: OWN})
    named = settle_prompt(planned("mixtral-instruct-v0.1", chat_template="chatml"), weights)
    assert (named.source, named.format) == ("plan", "chatml")
    text = "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools }}"
    given = settle_prompt(planned("mixtral-instruct-v0.1", chat_template=text), weights)
    assert (given.source, given.template, given.tools) == ("plan", text, True)


def test_without_any_there_is_no_chat(bare: Path) -> None:
    """The engine gets a template that it can start with, and not its own guess."""
    prompt = settle_prompt(planned("tiny-mixtral"), bare)
    assert (prompt.source, prompt.template) == ("none", NO_FORMAT)
    assert prompt.note == "no chat: the weights bring no chat template"
    told = prompt.to_json()
    assert told is not None
    assert told["source"] == "none"


def test_what_the_engine_cannot_read_is_replaced(tmp_path: Path) -> None:
    """By the spec's format where it names one, with the engine's reason."""
    weights = rewrite(TINY, tmp_path / "go.gguf", {TEMPLATE: "{{ .Prompt }}"})
    prompt = replace_own(planned("mixtral-instruct-v0.1"), weights, "cannot read it")
    assert prompt.source == "spec"
    assert prompt.note.startswith("cannot read it; mistral-v1")
    assert replace_own(planned("tiny-mixtral"), weights, "cannot read it").source == "none"


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_config": {"chat_template": OWN}},
        {"tokenizer_config": {"chat_template": [{"name": "default", "template": OWN}]}},
        {"chat_template": {"chat_template": OWN}},
    ],
)
def test_a_folders_template_is_found_and_its_turn_end_too(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """The token after an answer ends one, if the weights do not name it themselves."""
    plan = planned("tiny-mixtral", "pytorch", quantization="none")
    weights = folder(tmp_path, **settings)
    prompt = settle_prompt(plan, weights)
    assert (prompt.source, prompt.stop, prompt.stop_ids) == ("weights", (), (7,))
    folder(tmp_path, generation_config={"eos_token_id": [2, 7]})
    assert settle_prompt(plan, weights).stop_ids == ()


def test_a_folder_without_a_template(tmp_path: Path) -> None:
    """Settings that are broken or strange are none."""
    (tmp_path / "tokenizer_config.json").write_text("{")
    (tmp_path / "chat_template.json").write_text('["x"]')
    plan = planned("mixtral-instruct-v0.1", "pytorch", quantization="none")
    assert settle_prompt(plan, folder(tmp_path)).format == "mistral-v1"
    (tmp_path / "chat_template.jinja").write_text(OWN)
    assert settle_prompt(plan, tmp_path).source == "weights"


def test_the_plan_says_which_one_counts() -> None:
    """In its reasons; and what the user gave makes a model chat that its spec does not let."""

    def reason(plan: LaunchPlan) -> str:
        return next(one for one in plan.reasons if one.startswith("chat template"))

    assert "or mistral-v1 of the spec" in reason(planned("mixtral-instruct-v0.1"))
    assert "without one there is no chat" in reason(planned("tiny-mixtral"))
    chosen = planned("mixtral-v0.1", chat_template="mistral-v1")
    assert reason(chosen) == "chat template mistral-v1: you named it"
    assert chosen.abilities == ("generate", "chat")
    assert (chosen.chat_format, chosen.stop) == ("mistral-v1", ("</s>",))


SHOWS = "{{ tools }}{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
SHOWS += "CALL {{ c.function.name }}{% endfor %}{% endfor %}"


def with_tools(name: str, engine: str, tmp_path: Path, template: str, **options: Any) -> Prompt:
    """The prompt of a model that can call tools and think, with a template of its weights."""
    host = replace(HOST, engines={engine: Detection("1")})
    request = LaunchRequest.parse(
        model_name=name, format="pytorch", quantization="none", model_engine=engine, force=True
    )
    plan = resolve(request, Catalog.load(), [host])
    abilities = ("generate", "chat", "tools", "reasoning")
    plan = plan.model_copy(update={"abilities": abilities, "options": {**plan.options, **options}})
    return settle_prompt(plan, folder(tmp_path, tokenizer_config={"chat_template": template}))


@pytest.mark.parametrize("engine", ["Transformers", "vLLM", "SGLang"])
def test_the_form_of_calls_and_thoughts_is_the_templates(engine: str, tmp_path: Path) -> None:
    """The gateway learns it with the rest."""
    template = HERMES + "{{ '<think>' if enable_thinking else '<think></think>' }}"
    prompt = with_tools("tiny-mixtral", engine, tmp_path, template)
    assert (prompt.tools, prompt.tool_format) == (None, "hermes")
    assert prompt.reasoning_format == "deepseek_v3"
    told = prompt.to_json()
    assert told is not None
    assert (told["tool_format"], told["tools_reason"]) == ("hermes", "")


@pytest.mark.parametrize("engine", ["Transformers", "vLLM", "SGLang"])
def test_tools_that_could_not_be_read_or_are_not_shown_are_denied(
    engine: str, tmp_path: Path
) -> None:
    """With the way out; a parser that the user names is taken at its word."""
    unknown = with_tools("tiny-mixtral", engine, tmp_path, SHOWS)
    assert (unknown.tools, unknown.tool_format) == (False, None)
    way_out = "--model-engine" if engine == "Transformers" else "--tool_call_parser"
    assert way_out in unknown.tools_reason
    hidden = with_tools("tiny-mixtral", engine, tmp_path, OWN)
    assert hidden.tools is False
    assert "shows no tools" in hidden.tools_reason
    assert "--chat-template" in hidden.tools_reason
    if engine != "Transformers":
        own = with_tools("tiny-mixtral", engine, tmp_path, SHOWS, tool_call_parser="xlam")
        assert own.tools is None
    foreign = with_tools("tiny-mixtral", engine, tmp_path, with_calls("kimi_k2"))
    assert (foreign.tools is False) == (engine == "Transformers")
    assert ("kimi_k2" in foreign.tools_reason) == (engine == "Transformers")


def test_an_engine_that_finds_the_form_by_itself_is_left_to_it(tmp_path: Path) -> None:
    """llama.cpp calls tools with any template."""
    abilities = ("generate", "chat", "tools")
    plan = planned("tiny-mixtral").model_copy(update={"abilities": abilities})
    prompt = settle_prompt(plan, rewrite(TINY, tmp_path / "own.gguf", {TEMPLATE: OWN}))
    assert (prompt.tools, prompt.tools_reason) == (None, "")


def test_a_users_template_with_a_known_form_gives_the_ability() -> None:
    """The plan says so; with another one it stays as the spec has it."""
    plan = planned("tiny-mixtral", chat_template=HERMES)
    assert "tools" in plan.abilities
    assert any("calls of tools as hermes" in reason for reason in plan.reasons)
    assert "tools" not in planned("tiny-mixtral", chat_template=SHOWS).abilities


@pytest.mark.parametrize(("tokens", "form"), [(["</think>"], "deepseek_r1"), ([], "qwen3")])
def test_marks_of_thoughts_that_are_no_tokens_have_a_parser_too(
    tokens: list[str], form: str, tmp_path: Path
) -> None:
    """Else the engine would not start with the one for models that always think."""
    folder(tmp_path)
    added = [{"id": 9 + at, "content": token} for at, token in enumerate(tokens)]
    template = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}<think>"
    given: Any = {"tokenizer": {"added_tokens": added}}
    plan = planned("tiny-mixtral", "pytorch")
    plan = plan.model_copy(update={"abilities": ("chat", "reasoning")})
    given["tokenizer_config"] = {"chat_template": template}
    assert settle_prompt(plan, folder(tmp_path, **given)).reasoning_format == form
