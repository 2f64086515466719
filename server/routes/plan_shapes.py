"""The shapes of plans, and of endpoints that are attached."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from paddock.launcher.replicas.diagnosis import CAUSES
from paddock.registry.spec_fields import AbilityName
from paddock.server.http.shapes import Shape


class Diagnosis(Shape):
    """Why a launch failed."""

    cause: str = Field(json_schema_extra={"enum": list(CAUSES)})
    message: str
    next_command: str | None = None
    lines: list[str] = Field(default=[], description="The engine's last lines")
    exit_code: int | None = None
    signal: str | None = None
    tried: list[str] = Field(default=[])


class PlannedFile(Shape):
    """A file of the weights."""

    name: str
    size_bytes: int | None


class PlannedWeights(Shape):
    """Where the weights come from; `here` says that they need not be fetched."""

    hub: str
    id: str
    revision: str | None
    files: list[PlannedFile]
    size_bytes: int
    here: bool
    trusted: str | None = Field(description="The commit whose code may come and run")


class PlannedGpu(Shape):
    """A GPU that a replica will have, with what it had free when the plan was made."""

    index: int
    name: str
    uuid: str
    total_bytes: int
    free_bytes: int


class MemoryEstimate(Shape):
    """What each replica will hold; `needed_bytes` is for all of them.

    With `gpus`, which each replica has of its own, it is the memory of those.
    """

    weights_bytes: int
    cache_bytes: int
    overhead_bytes: int
    total_bytes: int
    needed_bytes: int
    free_bytes: int
    paged: bool
    fits: bool
    replicas: int
    gpus: int
    offload_bytes: int = Field(description="Of the weights, in the host's memory; beside the rest")
    source: Literal["formula", "engine", "measured"] = Field(
        description="Reckoned by formula, said by the engine when it was asked, or measured"
    )
    at: float = Field(description="When it was asked or measured, in seconds since 1970")
    machine: str = Field(description="Where it was measured, if not here")


class DerivedFrom(Shape):
    """Where a spec that nobody wrote was derived from, and what is not told there."""

    reference: str
    commit: str
    context_length: int
    notes: list[str]


class Attached(Shape):
    """An endpoint that somebody else runs; `listed`: it has the model in its list."""

    url: str
    model: str
    listed: bool


class Plan(Shape):
    """What a launch will do, with numbers and reasons."""

    model_id: str
    model: str
    type: str
    format: str
    size: str
    quantization: str
    abilities: list[str]
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
    chat_template: str | None
    languages: list[str]
    description: str
    reasons: list[str]
    refused: dict[str, str] = Field(description="Engines that were passed over, and why")
    warnings: list[str]
    derived: DerivedFrom | None
    attached: Attached | None = Field(description="Set: somebody else serves the model")
    gpus: list[list[PlannedGpu]] = Field(description="Each replica's, by its number; none: a CPU")


class Attach(Shape):
    """An endpoint that somebody else runs, and what is to be said of it that it does not say."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    endpoint: str = Field(description="Its base URL, as OpenAI's clients take it")
    model: str | None = Field(default=None, description="Its name there; null: the only one")
    model_uid: str | None = Field(default=None, description="Its id here; null: the name there")
    api_key: str | None = Field(default=None, description="Kept, and never shown again")
    abilities: list[AbilityName] | None = Field(default=None, description="null: found out")
    context_length: int | None = Field(default=None, ge=1)
    slots: int | None = Field(default=None, ge=1, le=100_000, description="Requests at once")
