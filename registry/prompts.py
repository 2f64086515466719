"""Prompt formats: how a family's models want a conversation written, and what ends their answers.

A format is one YAML file in `specs/prompts/`, which specs name as `chat_format`. It cites where its
family publishes the format. Templates are Jinja, as Transformers renders them: `trim_blocks`,
`lstrip_blocks`, `raise_exception`, `tojson`. They keep to what llama.cpp's own Jinja knows too.

Importing this module imports neither Jinja nor PyYAML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import paddock.specs
from paddock.registry.errors import BadValue, UnknownName

FOLDER = "prompts"
LONGEST = 1 << 20
"""Characters of the longest chat template that is taken."""
NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
EXAMPLE: tuple[Mapping[str, str], ...] = (
    {"role": "user", "content": "U1"},
    {"role": "assistant", "content": "A1"},
    {"role": "user", "content": "U2"},
)
"""The conversation of each format's example."""
_ANSWER = EXAMPLE[1]["content"]
_EOS = "\x00eos\x00"
_BLANK = "{%- set blank = ' ' %}"
# Transformers marks an answer's tokens by it, and renders the text as if it were not there.
_GENERATION = re.compile(r"{%([-+]?)\s*(?:end)?generation\s*([-+]?)%}")
# A token that ends a turn: <|im_end|>, </s>, <end_of_turn>, <reserved_106>, [EOS].
_TOKEN = re.compile(r"\s*(<[^<>\s]{1,40}>|\[[A-Z_]{2,20}\]|\[e~\[)")


@dataclass(frozen=True)
class PromptFormat:
    """A format.

    Attributes:
        name: in specs and launches.
        template: Jinja.
        bos: the family's token at the start of a text; engines have the file's own.
        eos: its token at the end.
        stop: texts or tokens that end an answer.
        sources: where the format is published.
        example: `EXAMPLE` in this format, with the start of the next answer.
    """

    name: str
    template: str
    bos: str
    eos: str
    stop: tuple[str, ...]
    sources: tuple[str, ...]
    example: str


def _folder() -> Path:
    return Path(paddock.specs.__path__[0]) / FOLDER


@cache
def prompt_names() -> tuple[str, ...]:
    """The names of all formats."""
    return tuple(sorted(path.stem for path in _folder().glob("*.yaml")))


@cache
def find_prompt(name: str) -> PromptFormat:
    """The format of this name.

    Raises:
        UnknownName: there is none.
    """
    if not NAME.fullmatch(name) or name not in prompt_names():
        raise UnknownName.among("prompt format", name, prompt_names())
    import yaml

    data = yaml.safe_load((_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    return PromptFormat(
        name=name,
        template=data["template"],
        bos=data.get("bos", ""),
        eos=data.get("eos", ""),
        stop=tuple(data["stop"]),
        sources=tuple(data["sources"]),
        example=data["example"],
    )


def is_template(text: str) -> bool:
    """Whether a text is a template, and not the name of a format."""
    return "{" in text or "\n" in text


def without_blanks(template: str) -> str:
    """A format's template for a tokenizer that puts a blank after each special token itself.

    Formats set `blank` for those. llama.cpp's SentencePiece makes two of one that is written.
    """
    return template.replace(_BLANK, _BLANK.replace("' '", "''"))


def check_template(value: str) -> str:
    """A template's text or the name of a format, as it is, once it is known to be one.

    Raises:
        BadValue: it is not Jinja, or longer than `LONGEST`.
        UnknownName: there is no such format.
    """
    if not is_template(value):
        return find_prompt(value.strip()).name
    if len(value) > LONGEST:
        raise BadValue("chat template", value, f"is longer than {LONGEST} characters")
    if reason := syntax_error(value):
        raise BadValue("chat template", value, reason)
    return value


def syntax_error(template: str) -> str:
    """Why a text is not Jinja; empty if it is."""
    from jinja2 import TemplateSyntaxError, UndefinedError

    try:
        compiled = _environment().from_string(_plain(template))
        compiled.render(messages=EXAMPLE, bos_token="", eos_token="", add_generation_prompt=True)
    except TemplateSyntaxError as error:
        return f"is not Jinja: line {error.lineno}: {error.message}"
    except UndefinedError as error:  # `{{ if .System }}`, as Go writes it
        return f"is no chat template: {error.message}"
    except Exception:  # noqa: BLE001 - it may refuse the example, by whatever error
        return ""
    return ""


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    bos: str = "",
    eos: str = "",
    **arguments: Any,
) -> str:
    """The prompt that a template makes of messages.

    `arguments` are further variables of the template; `add_generation_prompt` is true unless they
    say otherwise. The template runs in Jinja's sandbox.

    Raises:
        BadValue: the template is broken, or refuses the messages.
    """
    from jinja2 import TemplateError

    variables = {"add_generation_prompt": True, **arguments}
    try:
        compiled = _environment().from_string(_plain(template))
        text = compiled.render(messages=messages, bos_token=bos, eos_token=eos, **variables)
    except (
        *(TemplateError, TypeError, ValueError, LookupError, ArithmeticError),
        RecursionError,
    ) as error:
        raise BadValue("chat template", template, str(error)) from None
    return str(text)


def is_token(text: str) -> bool:
    """Whether a text looks like a token of its own, such as <|im_end|> or [EOS]."""
    match = _TOKEN.match(text)
    return match is not None and match[0] == text


def turn_end(template: str) -> str:
    """The token that a template writes after an answer; empty for the end of text, or none."""
    try:
        written = render(template, EXAMPLE, eos=_EOS)
    except BadValue:
        return ""
    _, _, after = written.partition(_ANSWER)
    if after.lstrip().startswith(_EOS):
        return ""
    match = _TOKEN.match(after)
    return match[1] if match else ""


def _plain(template: str) -> str:
    return _GENERATION.sub(r"{%\1 if true \2%}{%\1 endif \2%}", template)


@cache
def _environment() -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: form
    return environment


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    # Jinja's own escapes what HTML would take for markup.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> None:
    raise ValueError(message)
