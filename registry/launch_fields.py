"""What a launch may ask for: one row for each option.

The options of `launch`, `pull` and `lock`, the keys that REST takes, the shapes of the OpenAPI
document, the checks of `LaunchRequest` and the fields of the dashboard all follow from this table.
A new option is a row here and a typed attribute of `LaunchRequest` (`launcher/planning/plan.py`).

The command line imports this module: it imports nothing heavy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from paddock.registry.abilities import model_types
from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.hubs import AUTO
from paddock.registry.prompts import check_template

Kind = Literal[
    "text",
    "reference",
    "model_type",
    "path",
    "file",
    "hub",
    "size",
    "count",
    "solved",
    "number",
    "bytes",
    "limit",
    "flag",
    "gpus",
    "indices",
    "adapters",
    "template",
    "entry",
]
"""What a value is.

`reference` is a model's name or the place of its weights. `model_type` is a type of models that
abilities belong to: packages may add some. `file` is a path, or the name of a file in the model's
repository. The command line makes relative paths absolute. `solved` is a count, or `auto`. `bytes`
is a size such as 24GB. `limit` is the same, `auto` or `none`. `gpus` is a number of GPUs, `auto` or
`none`; `indices` are indices of GPUs. `adapters` is Xinference's `peft_model_config`. `template` is
a chat template, or the name of a prompt format; the command line reads it from a file. `entry` is
an entry of a lockfile.
"""
Taker = Literal["launch", "pull", "lock", "replicas"]
"""Commands and routes. `replicas` is the route that adds replicas to a model; no command does."""

RestartWhen = Literal["always", "on-failure", "never"]
MAX_REPLICAS = 64
MAX_SECONDS = 1e9


@dataclass(frozen=True, kw_only=True)
class LaunchField:
    """An option of a launch.

    Attributes:
        key: in REST's body, in Xinference's words.
        aliases: further keys for the same.
        attribute: of `LaunchRequest`. Empty if the value is only checked, or is an option of the
            engine.
        engine_option: the engine's option that the value becomes, instead of an attribute.
        minimum: lower bound of a number, which may be equal to it.
        above: lower bound of a number, which must be greater.
        maximum: upper bound of a number, which may be equal to it.
        choices: the words that are valid, in upper or lower case.
        takers: which commands and routes take it.
        flags: of the command line.
        help: a line of the commands' help.
        help_of: the same line for a single command, where it differs.
        description: in the OpenAPI document.
        default: in the OpenAPI document; null means that it is chosen.
    """

    key: str
    aliases: tuple[str, ...] = ()
    attribute: str = ""
    engine_option: str = ""
    kind: Kind = "text"
    is_required: bool = False
    minimum: int | None = None
    maximum: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    takers: tuple[Taker, ...] = ("launch",)
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    help: str | None = None
    help_of: Mapping[Taker, str] = field(default_factory=dict)
    description: str | None = None
    default: Any = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The key and its aliases."""
        return (self.key, *self.aliases)

    def flags_of(self, key: str) -> tuple[str, ...]:
        """The flags that mean one of `keys`: an alias has the flag of its name."""
        key_by_flag = {f"--{alias.replace('_', '-')}": alias for alias in self.aliases}
        return tuple(flag for flag in self.flags if key_by_flag.get(flag, self.key) == key)

    def check(self, value: Any) -> Any:
        """The value as `LaunchRequest` holds it. A value that was checked before stays as it is.

        Raises:
            BadValue: of another kind, or out of range.
            UnknownName: none of the choices.
        """
        check = _CHECKS.get(self.kind)
        return value if check is None else check(self, value)


def _text(launch_field: LaunchField, value: Any) -> str:
    if not isinstance(value, str):
        raise BadValue(launch_field.key, value, "must be text")
    return _choose(launch_field, value, launch_field.choices) if launch_field.choices else value


def _model_type(launch_field: LaunchField, value: Any) -> str:
    return _choose(launch_field, _text(launch_field, value), model_types())


def _choose(launch_field: LaunchField, value: str, choices: tuple[str, ...]) -> str:
    for choice in choices:
        if choice.casefold() == value.casefold():
            return choice
    raise UnknownName.among(launch_field.key, value, choices)


def _flag(launch_field: LaunchField, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadValue(launch_field.key, value, "must be true or false")
    return value


def _count(launch_field: LaunchField, value: Any) -> int:
    number = _parse(value)
    if number is None or not number.is_integer():
        raise BadValue(launch_field.key, value, "must be a whole number")
    _check_range(launch_field, value, number)
    return value if isinstance(value, int) else int(number)


def _solved(launch_field: LaunchField, value: Any) -> int | str:
    if isinstance(value, str) and value.strip().casefold() == AUTO:
        return AUTO
    return _count(launch_field, value)


def _number(launch_field: LaunchField, value: Any) -> float:
    number = _parse(value)
    if number is None:
        raise BadValue(launch_field.key, value, "must be a number")
    _check_range(launch_field, value, number)
    return number


def _parse(value: Any) -> float | None:
    """A finite number. Command lines send text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _check_range(launch_field: LaunchField, value: Any, number: float) -> None:
    low = -math.inf if launch_field.minimum is None else launch_field.minimum
    high = math.inf if launch_field.maximum is None else launch_field.maximum
    if low <= number <= high and (launch_field.above is None or number > launch_field.above):
        return
    if launch_field.minimum is not None and launch_field.maximum is not None:
        raise BadValue(
            launch_field.key,
            value,
            f"must be from {launch_field.minimum} to {launch_field.maximum:.0f}",
        )
    bounds = [
        *([] if launch_field.minimum is None else [f"{launch_field.minimum} or more"]),
        *([] if launch_field.above is None else [f"over {launch_field.above:g}"]),
        *([] if launch_field.maximum is None else [f"{launch_field.maximum:.0f} at most"]),
    ]
    raise BadValue(launch_field.key, value, f"must be {' and '.join(bounds)}")


def _bytes(launch_field: LaunchField, value: Any) -> int:
    """A size in bytes: a number, or with GB (10⁹) or GiB (2³⁰) after it."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = _SIZE.fullmatch(str(value).strip())
    size = float(match[1]) * _UNITS[match[2].casefold()] if match else 0
    if size < 1:
        raise BadValue(launch_field.key, value, "must be a size, such as 24GB")
    return round(size)


def _limit(launch_field: LaunchField, value: Any) -> int | None:
    """A size in bytes; 0 without a limit, None where it is left open."""
    text = str(value).strip().casefold()
    if text == AUTO:
        return None
    return 0 if text in {"none", "0"} else _bytes(launch_field, value)


def _gpus(launch_field: LaunchField, value: Any) -> int | None:
    """Of Xinference's words "auto" leaves it open, and "none" means the processor."""
    text = str(value).strip().casefold()
    if text == "auto":
        return None
    if text == "none":
        return 0
    if isinstance(value, bool) or not text.isdecimal():
        raise BadValue(launch_field.key, value, "must be a whole number, auto or none")
    return int(text)


def _indices(launch_field: LaunchField, value: Any) -> tuple[int, ...]:
    """A number, several, or as a command line sends them: "0,1"."""
    several = value if isinstance(value, list | tuple) else str(value).split(",")
    texts = [str(index).strip() for index in several]
    if not all(text.isdecimal() for text in texts):
        raise BadValue(launch_field.key, value, "must be indices of GPUs, such as 0 or 0,1")
    return tuple(dict.fromkeys(map(int, texts)))


def _adapters(launch_field: LaunchField, value: Any) -> list[str]:
    """The paths of LoRA adapters."""
    adapters = value.get("lora_list") if isinstance(value, dict) else False
    adapters = [] if adapters is None else adapters
    if not isinstance(adapters, list):
        raise BadValue(launch_field.key, value, "must be an object with lora_list, a list")
    paths = [
        adapter.get("local_path") if isinstance(adapter, dict) else None for adapter in adapters
    ]
    if not all(isinstance(path, str) for path in paths):
        raise BadValue(launch_field.key, value, "each of lora_list needs a local_path, as text")
    if not all(isinstance(adapter.get("lora_name"), str | None) for adapter in adapters):
        raise BadValue(launch_field.key, value, "a lora_name must be text")
    return [str(path) for path in paths]


def _template(launch_field: LaunchField, value: Any) -> str:
    return check_template(_text(launch_field, value))


_SIZE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?([MGT]i?B?)", re.IGNORECASE)
_UNITS = {
    f"{letter}{unit}": factor**power
    for power, letter in ((2, "m"), (3, "g"), (4, "t"))
    for unit, factor in (("", 1000), ("b", 1000), ("i", 1024), ("ib", 1024))
}
_CHECKS: Mapping[Kind, Callable[[LaunchField, Any], Any]] = {
    "text": _text,
    "reference": _text,
    "model_type": _model_type,
    "path": _text,
    "file": _text,
    "hub": _text,
    "count": _count,
    "solved": _solved,
    "number": _number,
    "bytes": _bytes,
    "limit": _limit,
    "flag": _flag,
    "gpus": _gpus,
    "indices": _indices,
    "adapters": _adapters,
    "template": _template,
    # `LaunchRequest` reads sizes and entries of lockfiles: their modules import pydantic.
}

# What takes a variant: its name, size, format, quantization, engine and hub.
_VARIANT: tuple[Taker, ...] = ("launch", "pull", "lock")

LAUNCH_FIELDS: tuple[LaunchField, ...] = (
    LaunchField(
        key="model_name",
        attribute="model_name",
        kind="reference",
        is_required=True,
        takers=_VARIANT,
        flags=("-n", "--model-name"),
        help="Name of the model, or such as hf:owner/name.",
    ),
    LaunchField(
        key="model_type",
        kind="model_type",
        flags=("-t", "--model-type"),
        help="LLM, embedding or rerank; known from the name.",
        description="Known from the name",
    ),
    LaunchField(
        key="model_engine",
        attribute="model_engine",
        takers=(*_VARIANT, "replicas"),
        flags=("-en", "--model-engine"),
        help="Engine; chosen if left out.",
        help_of={"pull": "Choose what this engine can serve."},
    ),
    LaunchField(
        key="model_uid",
        attribute="model_uid",
        flags=("-u", "--model-uid"),
        help="Id for requests; the model's name if left out.",
    ),
    LaunchField(
        key="model_size_in_billions",
        attribute="size",
        kind="size",
        takers=_VARIANT,
        flags=("-s", "--size-in-billions"),
        help="Size, such as 46_7 or 46.7.",
    ),
    LaunchField(
        key="model_format",
        attribute="format",
        takers=_VARIANT,
        flags=("-f", "--model-format"),
        help="Format: pytorch, gptq, ggufv2, …",
    ),
    LaunchField(
        key="quantization",
        attribute="quantization",
        takers=_VARIANT,
        flags=("-q", "--quantization"),
        help="Quantization: none, Int4, Q4_K_M, … or auto.",
        description="`auto`: with the most bits that the free memory holds",
    ),
    LaunchField(
        key="replica",
        attribute="replicas",
        kind="count",
        minimum=1,
        maximum=MAX_REPLICAS,
        default=1,
        takers=("launch", "replicas"),
        flags=("-r", "--replica"),
        help="Copies to start.  [1]",
    ),
    LaunchField(
        key="context_length",
        attribute="context_length",
        kind="solved",
        minimum=1,
        flags=("-c", "--context-length"),
        help="Tokens that one request gets, or auto.",
        description="Tokens that one request gets; `auto`: as many as the free memory holds",
    ),
    LaunchField(
        key="model_path",
        attribute="model_path",
        kind="path",
        takers=("launch", "lock"),
        flags=("-mp", "--model-path"),
        help="Weights on disk: a file or a folder.",
    ),
    LaunchField(
        key="download_hub",
        attribute="hub",
        kind="hub",
        takers=_VARIANT,
        flags=("--download-hub",),
    ),
    LaunchField(
        key="offline",
        attribute="offline",
        kind="flag",
        takers=("launch", "lock"),
        flags=("--offline",),
        help="Take what is cached, and ask no hub.",
        help_of={"lock": "Lock what is cached, and ask no hub."},
    ),
    LaunchField(
        key="worker_ip",
        aliases=("node",),
        attribute="node",
        flags=("--worker-ip", "--node"),
        help="Node to start on: its address, name or Ray id.",
    ),
    LaunchField(
        key="n_gpu",
        attribute="n_gpu",
        kind="gpus",
        takers=("launch", "replicas"),
        flags=("--n-gpu",),
        help="GPUs of each copy: auto, none or a number.  [auto]",
        description="GPUs of each replica; null or `auto`: chosen; `none`: the processor",
    ),
    LaunchField(
        key="gpu_idx",
        attribute="gpu_idx",
        kind="indices",
        flags=("--gpu-idx",),
        metavar="N,…",
        help="GPUs to choose among, by their index.",
        description="Indices of the GPUs to choose among, such as `0,1`; null: all",
    ),
    LaunchField(
        key="peft_model_config",
        engine_option="lora",
        kind="adapters",
        flags=("-lm", "--lora-modules"),
        help="LoRA adapter: NAME PATH.",
    ),
    LaunchField(
        key="lock",
        attribute="lock",
        kind="entry",
        takers=("launch", "pull"),
        flags=("--locked",),
        help="Only what the lockfile says; all else is refused.",
        description="An entry of a lockfile, which pins all that it names",
    ),
    LaunchField(
        key="multimodal_projector",
        attribute="projector",
        kind="file",
        takers=("launch", "pull"),
        flags=("--multimodal-projector",),
        metavar="FILE",
        help="GGUF that lets a GGUF see pictures.",
        help_of={"pull": "Bring this projector too."},
        description="A file beside a GGUF that makes tokens of pictures",
    ),
    LaunchField(
        key="chat_template",
        attribute="chat_template",
        kind="template",
        flags=("--chat-template",),
        metavar="FILE|NAME",
        help="Jinja file, or format such as chatml, for chats.",
        description="Jinja template, or the name of a prompt format, in place of the model's own",
    ),
    LaunchField(
        key="trust",
        attribute="trust",
        takers=("launch", "pull"),
        flags=("--trust",),
        metavar="COMMIT",
        help="Let code and pickles of this very commit run.",
        help_of={"pull": "Let code and pickles of this very commit come."},
        description="The commit whose code may run here",
    ),
    LaunchField(
        key="fit",
        attribute="fit",
        kind="flag",
        flags=("--fit",),
        help="Give up what does not fit the free memory.",
        description="Give up slots, context, cache type or quantization to fit the free memory",
    ),
    LaunchField(
        key="force",
        attribute="force",
        kind="flag",
        flags=("--force",),
        help="Launch even if the memory does not suffice.",
        description="Launch even if the memory or the disk does not suffice",
    ),
    LaunchField(
        key="memory_limit",
        attribute="memory_limit",
        kind="limit",
        flags=("--memory-limit",),
        metavar="SIZE",
        help="Memory that ends a replica, such as 12GB, or none.  [the plan and a margin]",
        description="Memory at which each replica is ended, such as `12GB`, or `none`; null: what"
        " is planned and a margin",
    ),
    LaunchField(
        key="assume_gpu",
        attribute="assume_gpu",
        kind="bytes",
        flags=("--assume-gpu",),
        metavar="SIZE",
        help="With --dry-run: plan for one GPU of this size, such as 24GB.",
        description="Plan for a machine with one GPU of this size, such as `24GB`; for plans only",
    ),
    LaunchField(
        key="restart",
        attribute="restart",
        choices=get_args(RestartWhen),
        flags=("--restart",),
        metavar="WHEN",
        help="After it ends: always, on-failure or never.  [on-failure]",
        description="When a replica that ended is started again; null: on-failure",
    ),
    LaunchField(
        key="restart_tries",
        attribute="restart_tries",
        kind="count",
        minimum=0,
        flags=("--restart-tries",),
        help="Restarts without ten minutes of service between.  [unlimited]",
        description="Restarts without ten minutes of service between; null: any number",
    ),
    LaunchField(
        key="silence_seconds",
        attribute="silence_seconds",
        kind="number",
        above=0,
        maximum=MAX_SECONDS,
        flags=("--silence-seconds",),
        help="A request without output for so long is ended.  [1800]",
        description="How long an engine may say nothing of a request",
    ),
)


def launch_fields(taker: Taker | None = None) -> Iterator[LaunchField]:
    """The fields that a command or route takes, in the order of the table; without one, all."""
    return (
        launch_field
        for launch_field in LAUNCH_FIELDS
        if taker is None or taker in launch_field.takers
    )


def fields_by_key() -> dict[str, LaunchField]:
    """The fields by each key that REST takes."""
    return {key: launch_field for launch_field in LAUNCH_FIELDS for key in launch_field.keys}


def fields_by_attribute() -> dict[str, LaunchField]:
    """The fields by the attribute of `LaunchRequest` that they become."""
    return {
        launch_field.attribute: launch_field
        for launch_field in LAUNCH_FIELDS
        if launch_field.attribute
    }
