"""The engine contract: the knowledge of an adapter about one inference server.

To add an engine is to add a file with a class that satisfies `Engine` and a row in
`engines/__init__.py` (or an entry point `paddock.engines` in another package).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from paddock.engines.evidence import NO_EVIDENCE, Asked, Evidence
from paddock.registry.errors import BadValue, UnknownName

if TYPE_CHECKING:
    from paddock.engines.environment import Environment
    from paddock.registry.retrieval import Embedding, Ranking
    from paddock.registry.spec import Architecture, Variant


def _split(value: object) -> object:
    return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


def _absolute(paths: tuple[str, ...]) -> tuple[str, ...]:
    # The engine has another working folder than the user, and may run on another node.
    for path in paths:
        if not path.startswith(("/", "~")):
            raise ValueError(f"{path} must be an absolute path")
    return paths


Paths = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_absolute)]
"""An option's paths: a list, or a text with commas between them."""


def _check_named_paths(paths: tuple[str, ...]) -> tuple[str, ...]:
    for path in paths:
        name, _, target = path.partition("=")
        if not name or not target.startswith("/"):
            raise ValueError(f"{path} must be name=path, with an absolute path")
    return paths


NamedPaths = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_check_named_paths)]
"""The same with a name for each path: `tales=/adapters/tales`."""


class EngineOptions(BaseModel):
    """Base of an engine's own options: frozen, typed, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    synonyms: ClassVar[Mapping[str, str]] = {}
    """The engine's own names of options that all engines share."""

    @classmethod
    def parse(cls, engine: str, values: Mapping[str, Any]) -> EngineOptions:
        """Options from a user's input: `n-ctx` counts as `n_ctx`, texts become numbers.

        Raises:
            UnknownName: an option that the engine does not have, with the nearest that it has.
            BadValue: a value of the wrong type or out of range.
        """
        known = tuple(cls.model_fields)
        options: dict[str, Any] = {}
        for key, value in values.items():
            name = key.replace("-", "_")
            name = cls.synonyms.get(name, name)
            if name not in known:
                raise UnknownName.among("option", key, known, of=engine)
            if name in options:
                raise BadValue(f"{engine} option {name}", value, "given twice")
            options[name] = value
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            first = error.errors()[0]
            if not first["loc"]:  # options that do not go together
                raise BadValue(f"{engine} options", dict(values), first["msg"]) from None
            name = ".".join(str(part) for part in first["loc"])
            raise BadValue(f"{engine} option {name}", first["input"], first["msg"]) from None


@dataclass(frozen=True)
class Detection:
    """One engine on a node: its version, or the reason why it is not usable.

    Attributes:
        architectures: those that it knows, by the names in `config.json`; empty: not known.
        unknown: requested architectures that it does not know, by its own names.
        formats: those that it can load there without quantizing; empty: all of its formats.
        cuda: whether this installation computes on NVIDIA GPUs, if there are any.
    """

    version: str = ""
    missing: str = ""
    architectures: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    cuda: bool = False
    unknown: tuple[str, ...] = ()


UNKNOWN = Detection(missing="the Paddock of that node does not know it")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, by its driver. `index` is the driver's, in the order of the bus."""

    index: int
    name: str
    uuid: str
    total_bytes: int
    free_bytes: int
    capability: str = ""
    driver: str = ""


@dataclass(frozen=True)
class Devices:
    """The GPUs that one replica computes on, for an engine that does.

    Attributes:
        count: how many share its weights and its cache, in equal parts.
        offload_bytes: the most bytes of weights that each may leave in the host's memory; None:
            all that do not fit.
    """

    count: int
    offload_bytes: int | None = 0


@dataclass(frozen=True)
class CacheRules:
    """What an engine keeps between steps, by kind of layer. The default counts on no saving.

    Attributes:
        kept: whether it keeps keys and values at all; an encoder needs none.
        windows: whether layers with a sliding window keep only that.
        spare: tokens that it keeps beyond a window.
        step: it rounds the tokens of a window up to a multiple of these.
        latent: whether it keeps multi-head latent attention's row, and no keys and values.
    """

    kept: bool = True
    windows: bool = False
    spare: int = 0
    step: int = 1
    latent: bool = False

    def window_tokens(self, context: int, window: int) -> int:
        """Tokens that a layer with a window keeps, of one slot's `context`."""
        if not self.windows:
            return context
        return -(-min(context, window + self.spare) // self.step) * self.step


@dataclass(frozen=True)
class Host:
    """Facts about one node, gathered at the edge so that planning can be pure.

    Attributes:
        node: Ray's node id, or `local` before Ray has started.
        files: local weight files, `folder/name` (or an absolute path) → size in bytes.
        engines: engine name → its detection there.
        gpus: those that Paddock may use there, by their index.
        evidence: what was measured, and what engines said; the gateway adds it.
        reserved: model id → bytes promised to it, which do not count as free.
        used: a GPU's UUID, or empty for the host's memory → model id → bytes that it holds there.
        age_seconds: the age of these facts.
        memory_bandwidth: bytes/s between the processors and the memory; 0: not measured.
    """

    node: str
    name: str
    cpus: int
    memory_total_bytes: int
    memory_free_bytes: int
    disk_free_bytes: int
    engines: Mapping[str, Detection]
    files: Mapping[str, int] = field(default_factory=dict)
    address: str = "127.0.0.1"
    gpus: tuple[Gpu, ...] = ()
    reserved: Mapping[str, int] = field(default_factory=dict)
    used: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    age_seconds: float = 0.0
    evidence: Evidence = NO_EVIDENCE
    memory_bandwidth: float = 0.0


@dataclass(frozen=True)
class Serving:
    """A model for an engine to serve: everything that `command` may use.

    Attributes:
        model_id: the name that the engine shall answer with.
        context_length: tokens that one request gets (prompt and answer).
        slots: requests served side by side.
        api_key: the key that the engine shall require, if it can check one.
        chat_template: in place of the one in the weights; None: that one counts.
        chat_template_file: the same in a file.
        stop_ids: tokens that end an answer in a chat, beside those that the weights name.
        projector: a file that turns pictures into tokens, if the weights need one.
        quantization: the variant's. If the files are not quantized, it is made while they are read.
        cache_bytes: the plan's bytes for the key-value cache of all slots; 0: not counted.
        gpu_share: the plan's part of each GPU's memory for it; 0: it has no GPU.
        tool_format: how the model writes calls (`registry/tool_formats.py`); None: not known, or
            no tools.
        reasoning_format: how it marks its thoughts (`registry/reasoning_formats.py`), likewise.
        embedding: how the model embeds, by its spec.
        ranking: how a language model ranks.
    """

    model_id: str
    weights: Path | None
    port: int
    api_key: str
    context_length: int
    slots: int
    abilities: tuple[str, ...]
    options: EngineOptions
    chat_template: str | None = None
    chat_template_file: Path | None = None
    stop_ids: tuple[int, ...] = ()
    projector: Path | None = None
    quantization: str = "none"
    cache_bytes: int = 0
    gpu_share: float = 0.0
    tool_format: str | None = None
    reasoning_format: str | None = None
    embedding: Embedding | None = None
    ranking: Ranking | None = None


@dataclass(frozen=True)
class Command:
    """A process to start: arguments, and variables to add to the environment."""

    argv: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Symptom:
    """A cause by the engine's own output. The first pattern that matches a line wins."""

    pattern: re.Pattern[str]
    cause: str
    message: str


@dataclass(frozen=True)
class Progress:
    """An engine's counters of work, which distinguish a long prompt from a deadlock.

    Attributes:
        path: a route of the engine's, requested with its key.
        pattern: the counters in its answer. They move while tokens are generated or a prompt is
            read, and stand still otherwise.
    """

    path: str
    pattern: re.Pattern[str]


@dataclass(frozen=True)
class RequestFields:
    """How an engine handles the fields of OpenAI's requests.

    Any other field is refused by name, unless the gateway handles it for every engine
    (`server/dialects/openai.py`).

    Attributes:
        honoured: fields of completions and of chats that it acts on, its own beyond OpenAI's too.
        completions: fields that it acts on in completions alone.
        chat: fields that it acts on in chats alone.
        embeddings: fields of `/v1/embeddings`; `prompt` and `truncate` in the gateway's own form.
        rerank: likewise of `/v1/rerank`.
        renamed: common name of a field → its name in this engine.
        refused: reasons, for fields whose refusal needs one.
        usage_in_completions: its streams of completions always carry usage.
        converter: what makes its grammars of schemas by itself: of all, or where the model thinks
            and beside tools if it is `guided`.
        guided: its field `grammar` takes what llguidance compiles, and enforces it.
        free_tool_choice: it lets the model answer without a tool where one is required.
        closes_after_stream: it closes a connection after a stream, whatever its header says.
        too_long: its message for an input that is too long, if it sends a 5xx status with it, or
            speaks of its batches; `tokens` are the input's.
        chat_logprobs: its completions have `logprobs` in the chat's shape.
        strict_tools: it holds the arguments of strict tools to their schemas, by a grammar.
        thoughts: its name for thoughts in an answer, where that is not `reasoning_content`.
        binds_answer: a field that takes a grammar as `grammar` does, of what follows the thoughts.
        tells_stop: a field that makes it name the stop text that ended an answer.
        counts_at: its route that only counts the tokens of a chat's prompt.
        tokenizes_at: its route that turns a text into tokens, beside which one turns them back.
    """

    honoured: frozenset[str] = frozenset()
    completions: frozenset[str] = frozenset()
    chat: frozenset[str] = frozenset()
    embeddings: frozenset[str] = frozenset()
    rerank: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    usage_in_completions: bool = False
    too_long: re.Pattern[bytes] | None = None
    chat_logprobs: bool = False
    closes_after_stream: bool = False
    free_tool_choice: bool = False
    guided: bool = False
    converter: Literal["", "llama.cpp", "xgrammar"] = ""
    strict_tools: bool = False
    thoughts: str = ""
    binds_answer: str = ""
    tells_stop: str = ""
    counts_at: str = ""
    tokenizes_at: str = ""

    @cached_property
    def in_completions(self) -> frozenset[str]:
        """The fields that it acts on in completions."""
        return self.honoured | self.completions

    @cached_property
    def in_chats(self) -> frozenset[str]:
        """The fields that it acts on in chats."""
        return self.honoured | self.chat


@runtime_checkable
class Engine(Protocol):
    """Starts one inference server and knows what it can serve.

    Importing an adapter never imports its engine. `detect` and `command` look at the node that
    they run on; all other methods are pure.
    """

    name: ClassVar[str]
    options: ClassVar[type[EngineOptions]]
    formats: ClassVar[tuple[str, ...]]
    """Formats that it can load; empty: it loads no weights at all."""
    types: ClassVar[tuple[str, ...]]
    """Types of models that it can serve: LLM, embedding, rerank."""
    automatic: ClassVar[bool]
    """Whether a launch that names no engine may choose it."""
    allocates_cache: ClassVar[bool]
    """Whether it takes the cache of all slots when it starts, and not as requests fill it."""
    smaller_cache: ClassVar[Mapping[str, str]]
    """Options by which its cache takes less and loses little; empty: it has none."""
    gpu_bytes: ClassVar[int]
    """What it takes of each GPU beside `overhead_bytes`: the driver's context, workspaces."""
    made_for_gpus: ClassVar[bool]
    """Whether such a launch prefers it where it computes on GPUs."""
    environment: ClassVar[Environment | None]
    """The environment of `paddock engine install`; None: it lives in Paddock's own environment."""
    context_step: ClassVar[int]
    """The engine rounds the context of each slot up to a multiple of these tokens."""
    health_path: ClassVar[str]
    """Answers 200 once the engine can serve, anything else (or nothing) before."""
    progress: ClassVar[Progress | None]
    """Counters of its work; None: it has none."""
    symptoms: ClassVar[tuple[Symptom, ...]]
    fields: ClassVar[RequestFields]
    tool_parsers: ClassVar[Mapping[str, str] | None]
    """Formats of calls (`registry/tool_formats.py`), and its names of their parsers; None: it finds
    the format by itself, whatever it is."""
    reasoning_parsers: ClassVar[Mapping[str, str] | None]
    """The same of thoughts (`registry/reasoning_formats.py`)."""

    def detect(self) -> Detection:
        """Looks for the engine on this node, without importing it."""
        ...

    def refuses(self, variant: Variant, host: Host) -> str | None:
        """Why it can't serve the variant on the host; None if it can.

        Called only where it was detected, for a format of `formats` that the spec lists it for.
        """
        ...

    def fill_defaults(
        self, options: EngineOptions, host: Host, weights_bytes: int
    ) -> EngineOptions:
        """Fills options that the user left open with the best values for this host.

        `weights_bytes` counts the weights once for each replica.
        """
        ...

    def context_and_slots(self, options: EngineOptions) -> tuple[int | None, int | None]:
        """The context for each request and the slots that the options ask for; None: left open."""
        ...

    def fields_of(self, version: str) -> RequestFields:
        """`fields`, as this version of it takes them, in the words of its `Detection`."""
        ...

    def longest_context(self, options: EngineOptions, trained: int) -> int:
        """The context to which the options extend a model of `trained` positions, such as by RoPE.

        `trained` where they do not.
        """
        ...

    def devices(self, options: EngineOptions, gpus: int) -> Devices:
        """How many of a node's `gpus` it computes on, where it was detected for GPUs.

        `Devices(0)`: it uses none of them.
        """
        ...

    def tool_parser(self, options: EngineOptions, format: str | None) -> str | None:
        """What it calls the parser of a model's calls, the user's choice first; None: it has none.

        Asked only of engines with `tool_parsers`.
        """
        ...

    def pages(self, options: EngineOptions) -> bool:
        """Whether the weights are mapped from their file, so that they need not all fit."""
        ...

    def overhead_bytes(
        self,
        architecture: Architecture,
        options: EngineOptions,
        context: int,
        slots: int = 1,
        pooled: bool = False,
    ) -> int:
        """Memory beside weights and key-value cache: compute buffers and the process itself.

        `context` is in tokens, of one slot. `pooled`: it embeds or ranks.
        """
        ...

    def cache_rules(
        self, architecture: Architecture, options: EngineOptions, pooled: bool = False
    ) -> CacheRules:
        """What it keeps of this architecture's layers."""
        ...

    def cache_element_bytes(self, options: EngineOptions) -> tuple[float, float]:
        """Bytes of one element of the key and of the value cache."""
        ...

    def weight_element_bytes(self, options: EngineOptions) -> float | None:
        """Bytes of one weight in memory that is not quantized; None: as in the files."""
        ...

    def ask(
        self, serving: Serving, architecture: Architecture, environ: Mapping[str, str]
    ) -> Asked | None:
        """What the engine itself says that it will take of this; None: it cannot be asked.

        Called on the gateway's machine, with weights that are there, for an engine that computes on
        the processor. It starts a process with these variables, ends it, and blocks for that long.

        Raises:
            ProbeFailed: it said nothing, or not in time.
        """
        ...

    def command(self, serving: Serving) -> Command:
        """The process that serves."""
        ...
