"""What a user asks for, and what a launch will do: frozen, and the same for CLI, REST and tests."""

from __future__ import annotations

import posixpath
import re
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    computed_field,
    field_validator,
    model_validator,
)

from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.hubs import AUTO
from paddock.registry.launch_fields import RestartWhen, fields_by_attribute
from paddock.registry.lockfile import LockedModel, parse_entry
from paddock.registry.reference import split_tag
from paddock.registry.retrieval import Embedding, Ranking
from paddock.registry.spec import Source
from paddock.registry.spec_fields import parse_size

UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
UID_MAX_LENGTH = 128
RESERVED = frozenset(("instance", "instances", "prompts", "families", "vllm-supported"))
RESERVED_ENDS = frozenset(
    ("progress", "cancel", "logs", "events", "replicas", "versions", "abort", "reload")
)
SOLVED = ("quantization", "context_length")
"""Attributes that `auto` solves for the free memory."""
_LAUNCH_FIELDS = fields_by_attribute()


class _Frozen(BaseModel):
    # What is written has every field: so does its schema, which REST's document takes from here.
    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_serialization_defaults_required=True
    )


_NAMES = ("model_name", "model_uid", "model_engine", "format", "quantization", "hub", "node")
"""Fields whose white space at either end is a slip: a line of a file, or of a shell's output."""


class LaunchRequest(_Frozen):
    """What the user asks for. None means: choose it, best first, and say why.

    `engine_options` holds the engine's own options as typed; they are checked by its schema. A
    `lock` pins all that it names: what else is asked for must not contradict it. `first_hub` is the
    one to ask first where no `hub` is asked for: a setting, and no wish. `projector` is a file
    beside a GGUF that makes tokens of pictures: one that the spec names, or an absolute path.
    `chat_template` is a template, or the name of a prompt format.
    `n_gpu` is how many GPUs each replica shall have, and `gpu_idx` are those to choose among, by
    the driver's index. `automatic` are the attributes that were asked for as `auto`: they are left
    open, and solved for the memory that is free. `fit` gives up what does not fit what is free,
    and `force` launches it all the same. `memory_limit` is in bytes; 0: each replica has none.
    `assume_gpu` plans for a machine with one GPU of so many bytes, and launches nothing. `restart`,
    `restart_tries` and `silence_seconds` are the deployment's policy (`fleet/deployment.py`).

    The table of launch fields (`registry/launch_fields.py`) has the range and the words of each.
    """

    model_name: str
    model_uid: str | None = None
    model_engine: str | None = None
    size: str | None = None
    format: str | None = None
    quantization: str | None = None
    replicas: int = 1
    model_path: str | None = None
    hub: str | None = None
    offline: bool = False
    node: str | None = None
    context_length: int | None = None
    trust: str | None = None
    first_hub: str | None = None
    projector: str | None = None
    chat_template: str | None = None
    n_gpu: int | None = None
    gpu_idx: tuple[int, ...] = ()
    engine_options: dict[str, Any] = Field(default_factory=dict)
    lock: LockedModel | None = None
    restart: RestartWhen | None = None
    restart_tries: int | None = None
    silence_seconds: float | None = None
    fit: bool = False
    force: bool = False
    memory_limit: int | None = None
    assume_gpu: int | None = None
    automatic: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _note_automatic(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        named = [name for name in SOLVED if str(values.get(name)).casefold() == AUTO]
        if not named:
            return values
        rest = {name: value for name, value in values.items() if name not in named}
        return {**rest, "automatic": named}

    @model_validator(mode="before")
    @classmethod
    def _split_tag(cls, values: Any) -> Any:
        """The quantization of hf:owner/name:Q4_K_M, unless another is asked for."""
        name = values.get("model_name") if isinstance(values, dict) else None
        if not isinstance(name, str):
            return values
        name, tag = split_tag(name)
        if tag is None or values.get("quantization") not in (None, tag):
            return values
        return {**values, "model_name": name, "quantization": tag}

    @field_validator(*_NAMES, mode="before")
    @classmethod
    def _strip(cls, value: Any) -> Any:
        return value.strip() if isinstance(value, str) else value

    @field_validator("*", mode="before")
    @classmethod
    def _check(cls, value: Any, info: ValidationInfo) -> Any:
        field = _LAUNCH_FIELDS.get(info.field_name or "")
        return value if field is None or value is None else field.check(value)

    @field_validator("size", mode="before")
    @classmethod
    def _canonical_size(cls, value: str | int | float | None) -> str | None:
        return None if value is None else parse_size(value)

    @field_validator("lock", mode="before")
    @classmethod
    def _entry(cls, value: Any) -> LockedModel | None:
        return value if value is None or isinstance(value, LockedModel) else parse_entry(value)

    @classmethod
    def parse(cls, **values: Any) -> LaunchRequest:
        """Builds a request from what a client sent.

        Raises:
            UnknownName: a field that does not exist.
            BadValue: a value of the wrong type, out of range or outside its grammar.
            InvalidLock: the lock is not an entry of a lockfile.
        """
        for name in values:
            if name not in cls.model_fields:
                raise UnknownName.among("launch option", name, cls.model_fields)
        try:
            request = cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise BadValue(name, first["input"], first["msg"]) from None
        # A model's name needs no check: one that is not a model's is refused as unknown.
        if request.model_uid:
            check_uid(request.model_uid)
        return request

    @property
    def uid(self) -> str:
        """The id that the model will have: the one asked for, else the model's name."""
        return self.model_uid or self.model_name

    @property
    def paths(self) -> tuple[str, ...]:
        """The absolute paths at which it says that weights lie."""
        locked = self.lock.id if self.lock is not None and self.lock.hub == "path" else None
        seen = self.projector if self.projector and self.projector.startswith("/") else None
        return tuple(path for path in (self.model_path, locked, seen) if path)


def check_uid(uid: str) -> None:
    """Refuses ids that could not stand in a URL or a file name.

    Raises:
        BadValue: characters outside `[A-Za-z0-9._/-]`, an empty or dotted segment, too long, or
            what would be another route.
    """
    if len(uid) > UID_MAX_LENGTH or UID.fullmatch(uid) is None:
        raise BadValue(
            "model id",
            uid,
            f"use letters, digits, '.', '_', '-' and '/' between parts, {UID_MAX_LENGTH} at most",
        )
    # Ids stand in paths: `GET /v1/models/prompts` is another route than that of a model.
    if uid in RESERVED or uid.rpartition("/")[2] in RESERVED_ENDS:
        raise BadValue("model id", uid, "is a route of the REST API; choose another")


class PlannedFile(_Frozen):
    """One file of the weights. `size_bytes` is None where nobody states it beforehand."""

    name: str
    size_bytes: int | None = None


class PlannedWeights(_Frozen):
    """Where the weights come from.

    `hub` is the name of a hub, `local` (`id` is relative to the package's specs), `path` (`id` is
    an absolute path) or `none`. No files means: all that the repository holds of the format.
    `size_bytes` is measured where the files are here, stated by the spec or reckoned elsewhere.
    `others` are tried in order where the first hub cannot be reached or has nothing; if `offline`,
    none is asked. What is here or comes must be what the `lock` says, where there is one. Code and
    pickled weights come and run only of the commit that is `trusted`.
    """

    hub: str
    id: str
    revision: str | None = None
    files: tuple[PlannedFile, ...] = ()
    size_bytes: int
    size_known: bool = True
    """Whether a spec, a hub or the files themselves say it; else it is reckoned."""
    here: bool
    others: tuple[Source, ...] = ()
    offline: bool = False
    lock: LockedModel | None = None
    trusted: str | None = None
    projector: str | None = None
    """A file beside the weights, or an absolute path."""

    @property
    def projector_alone(self) -> PlannedWeights | None:
        """The projector, to be brought as the weights are; None if there is none."""
        if self.projector is None:
            return None
        file = PlannedFile(name=posixpath.basename(self.projector))
        if self.projector.startswith("/"):
            folder = posixpath.dirname(self.projector)
            return PlannedWeights(hub="path", id=folder, files=(file,), size_bytes=0, here=True)
        others = tuple(
            Source.model_validate({**source.model_dump(), "file_template": self.projector})
            for source in self.others
        )
        file = PlannedFile(name=self.projector)
        return self.model_copy(update={"files": (file,), "others": others, "projector": None})

    @property
    def sources(self) -> tuple[Source, ...]:
        """The places on hubs, in the order in which they are tried."""
        file = self.files[0].name if self.files else None
        first = Source.model_validate(
            {"hub": self.hub, "id": self.id, "revision": self.revision, "file_template": file}
        )
        return (first, *self.others)


class PlannedGpu(_Frozen):
    """A GPU that a replica will have, with what it had free when the plan was made."""

    index: int
    name: str
    uuid: str
    total_bytes: int
    free_bytes: int


class MemoryEstimate(_Frozen):
    """What each of `replicas` will hold in memory, in bytes, beside what is free for all of them.

    `paged` says that the weights are mapped from the file: replicas share them, and a node with
    less memory than they need can still serve them, slowly. With `gpus`, which each replica has of
    its own, it is the memory of those, `free_bytes` as if all had no more than the tightest; the
    `offload_bytes` of the weights stay in the host's memory and are not counted with the others.

    `source` says where the figures are from: the `formula`, the `engine` itself, which was asked,
    or a replica that was `measured`; `at` that time in seconds since 1970, on `machine` if not
    here.
    """

    weights_bytes: int
    cache_bytes: int
    overhead_bytes: int
    free_bytes: int
    paged: bool = False
    replicas: int = 1
    gpus: int = 0
    offload_bytes: int = 0
    source: Literal["formula", "engine", "measured"] = "formula"
    at: float = 0.0
    machine: str = ""

    # The three sums that a reader wants are written too. mypy knows no decorated property
    # (python/mypy#1362), hence the ignores.
    @computed_field  # type: ignore[prop-decorator]
    @property
    def total_bytes(self) -> int:
        """Weights, key-value cache and overhead of one replica."""
        return self.weights_bytes + self.cache_bytes + self.overhead_bytes

    @property
    def gpu_bytes(self) -> int:
        """What one replica takes of each of its GPUs."""
        return -(-self.total_bytes // self.gpus) if self.gpus else 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def needed_bytes(self) -> int:
        """What all replicas take on the node."""
        own = (self.cache_bytes + self.overhead_bytes) * self.replicas
        return own + self.weights_bytes * (1 if self.paged else self.replicas)

    @property
    def least_bytes(self) -> int:
        """What must be there for the replicas to run at all, be it with weights paged."""
        return self.needed_bytes - (self.weights_bytes if self.paged else 0)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def fits(self) -> bool:
        """Whether all of it fits what is free now."""
        return self.needed_bytes <= self.free_bytes

    @property
    def can_run(self) -> bool:
        """Whether the replicas can run on the node at all."""
        return self.least_bytes <= self.free_bytes


class Expected(_Frozen):
    """How a replica is likely to do with a single request; None where it is not known.

    `measured`: on this machine, with these weights on this engine; what it was not measured for is
    left out. `formula`: by the bandwidth of the memory.
    """

    tokens_per_second: float | None = None
    prompt_tokens_per_second: float | None = None
    load_seconds: float | None = None
    source: Literal["measured", "formula"] = "formula"


class Attached(_Frozen):
    """An endpoint that somebody else runs. Its key is not here: `replicas/attached_keys.py` has it.

    `url` ends as OpenAI's clients want it, mostly in `/v1`; `model` is the name there; `listed`
    says that the endpoint has it in its list of models.
    """

    url: str
    model: str
    listed: bool = True


class DerivedFrom(_Frozen):
    """Where a spec that nobody wrote was derived from; `context_length` is the model's own."""

    reference: str
    commit: str
    context_length: int
    notes: tuple[str, ...] = ()


_SUMS = ("total_bytes", "needed_bytes", "fits")


class LaunchPlan(_Frozen):
    """What a launch will do, with numbers and reasons.

    `gpus` are each replica's, by its number; none: it computes on the processor, or chooses itself.
    `context_length` is what one request gets (0: an attached endpoint does not say); `slots`
    requests are served side by side by each replica. `refused` maps each engine that was passed
    over to its reason. `chat_template` is one that counts before the weights' own; `chat_format`
    names the prompt format that it is of, or else the one that counts where the weights bring none.
    `stop` are texts that end an answer in a chat, beside those of what then counts. `embedding` and
    `ranking` are the spec's, of a model that embeds or ranks. `install` is the command that has to
    come first, where the engine is only assumed. `memory_limit` is the user's, in bytes, or 0 for
    none; None: `replicas/limit.py` decides. `attached`: nothing is
    launched, somebody else serves the model.
    """

    model_id: str
    model: str
    type: str
    format: str
    size: str
    quantization: str
    abilities: tuple[str, ...]
    engine: str
    engine_version: str
    options: dict[str, Any]
    context_length: int
    slots: int
    replicas: int
    node: str
    node_name: str
    weights: PlannedWeights
    memory: MemoryEstimate
    gpus: tuple[tuple[PlannedGpu, ...], ...] = ()
    chat_template: str | None = None
    chat_format: str | None = None
    stop: tuple[str, ...] = ()
    embedding: Embedding | None = None
    ranking: Ranking | None = None
    languages: tuple[str, ...] = ()
    description: str = ""
    reasons: tuple[str, ...] = ()
    refused: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    derived: DerivedFrom | None = None
    attached: Attached | None = None
    expected: Expected | None = None
    install: str | None = None
    memory_limit: int | None = None

    @property
    def gpu_share(self) -> float:
        """The part of each of its GPUs that a replica takes; of the smallest, where they differ."""
        sizes = [gpu.total_bytes for group in self.gpus for gpu in group]
        return self.memory.gpu_bytes / min(sizes) if sizes else 0.0

    def gpus_of(self, number: int) -> tuple[PlannedGpu, ...]:
        """Those of the replica of this number."""
        return self.gpus[number] if self.gpus else ()

    @property
    def name(self) -> str:
        """What to launch the model by: its name, or the reference that no spec is known for."""
        return self.derived.reference if self.derived else self.model

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON, with the sums that a reader wants beside the parts."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LaunchPlan:
        """The inverse of `to_json`."""
        memory = {name: value for name, value in data["memory"].items() if name not in _SUMS}
        return cls.model_validate({**data, "memory": memory})
