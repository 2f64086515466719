"""The shapes of what goes over the wire, for `/openapi.json`; a test holds answers against them.

Nothing is read or written through these models: `wire.py` and the routes do that. Every object may
have more fields than are named here, unless it says otherwise.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from paddock.engines.environment import Accelerator
from paddock.launcher.planning.estimate import Verdict
from paddock.launcher.planning.plan import MAX_REPLICAS
from paddock.launcher.replicas.diagnosis import CAUSES
from paddock.launcher.replicas.replica import State
from paddock.registry.lockfile import LockedModel
from paddock.registry.spec import Ability, Format, Hub, ModelType

Size = int | str
"""Billions of parameters: a number where it is whole, else text such as `0_5`."""


class Shape(BaseModel):
    """An object that may have more fields."""

    # Built when the document is asked for: the gateway's start need not wait 8 ms for it.
    model_config = ConfigDict(extra="allow", protected_namespaces=(), defer_build=True)


class ErrorFields(Shape):
    """What went wrong; beside these, the error's own fields, such as `value` or `close`."""

    message: str
    type: str
    code: str | int | None
    param: str | None = None
    layer: str | None = Field(default=None, description="`paddock`, or absent for an engine's own")


class Error(Shape):
    """Every error. `detail` is the message again, for Xinference's clients."""

    error: ErrorFields
    detail: str


class Health(Shape):
    """The gateway runs."""

    status: Literal["ok"]
    version: str


class Readiness(Shape):
    """`status` is ready, starting or draining; of one model its state."""

    status: str
    version: str | None = None
    model_uid: str | None = None
    models: dict[State, int] = Field(default={}, description="How many models are in each state")


class Version(Shape):
    """Our version in Xinference's shape."""

    version: str
    full_revisionid: str | None = Field(default=None, alias="full-revisionid")


class Auth(Shape):
    """Whether requests need a key."""

    auth: bool


class Result(Shape):
    """It was done."""

    result: bool


class Message(Shape):
    """What was done, in a word."""

    msg: str


class Diagnosis(Shape):
    """Why a launch failed."""

    cause: str = Field(json_schema_extra={"enum": list(CAUSES)})
    message: str
    next_command: str | None = None
    lines: list[str] = Field(default=[], description="The engine's last lines")
    exit_code: int | None = None
    signal: str | None = None
    tried: list[str] = []


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
    abilities: list[Ability] | None = Field(default=None, description="null: found out")
    context_length: int | None = Field(default=None, ge=1)
    slots: int | None = Field(default=None, ge=1, le=100_000, description="Requests at once")


class Launch(Shape):
    """What to launch, in Xinference's words. Fields that are not named are the engine's options.

    `model_name` may be a reference, such as `hf:owner/name`, to a model that no spec names.
    """

    model_name: str
    model_uid: str | None = None
    model_engine: str | None = None
    model_size_in_billions: int | float | str | None = None
    model_format: str | None = None
    quantization: str | None = None
    replica: int | None = Field(default=1, ge=1, le=MAX_REPLICAS)
    model_path: str | None = None
    download_hub: str | None = None
    offline: bool | None = None
    worker_ip: str | None = None
    node: str | None = None
    context_length: int | None = Field(default=None, ge=1)
    lock: LockedModel | None = Field(
        default=None, description="An entry of a lockfile, which pins all that it names"
    )
    multimodal_projector: str | None = Field(
        default=None, description="A file beside a GGUF that makes tokens of pictures"
    )
    trust: str | None = Field(default=None, description="The commit whose code may run here")
    restart: Literal["always", "on-failure", "never"] | None = Field(
        default=None, description="When a replica that ended is started again; null: on-failure"
    )
    restart_tries: int | None = Field(
        default=None,
        ge=0,
        description="Restarts without ten minutes of service between; null: any number",
    )
    silence_seconds: float | None = Field(
        default=None, gt=0, description="How long an engine may say nothing of a request"
    )


class Launched(Shape):
    """The id of what was launched, and its plan."""

    model_uid: str
    plan: Plan


class Description(Shape):
    """A model that can answer."""

    model_type: str
    address: str
    accelerators: list[str]
    model_name: str
    model_lang: list[str]
    model_ability: list[str]
    model_description: str
    model_format: str
    model_size_in_billions: Size
    model_family: str
    quantization: str
    multimodal_projector: str | None
    model_hub: str
    revision: str | None
    context_length: int | None = Field(description="null: an attached endpoint does not say")
    max_tokens: int | None
    model_engine: str
    replica: int


class Listed(Description):
    """The same, as OpenAI lists it."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(Shape):
    """The models that can answer."""

    object: Literal["list"]
    data: list[Listed]


class InstanceReplica(Shape):
    """One running copy. `status` is Xinference's word, `model_state` ours."""

    replica_id: int
    replica_uid: str
    replica_model_uid: str
    worker_address: str
    status: str
    model_state: State
    created_ts: int
    error_message: str | None
    gpu_idx: list[int] | None
    endpoint: str | None
    pid: int | None
    log: str
    restarts: int = Field(description="How often it was started again")
    last_failure: Diagnosis | None = Field(description="Why, the last time")
    next_try_at: float | None = Field(description="When it is started next, since 1970")


class Replica(InstanceReplica):
    """The same, as `replicas` lists it."""

    model_address: str | None
    accelerators: list[str]


class Instance(Shape):
    """A launched model in any state, with its plan and its diagnosis."""

    model_name: str
    model_uid: str
    model_version: str
    model_ability: list[str]
    replica: int
    status: str
    instance_created_ts: int
    n_worker: int
    replica_statuses: list[InstanceReplica]
    state: State
    restart: Literal["always", "on-failure", "never"]
    restart_tries: int | None = Field(
        description="Restarts without ten minutes of service between; null: any number"
    )
    silence_seconds: float | None = Field(description="null: the gateway's own limit")
    restarts: int = Field(description="Of all its replicas")
    plan: Plan
    diagnosis: Diagnosis | None


class FileProgress(Shape):
    """How far the download of one file is. What is not known is null."""

    name: str
    progress: float = Field(ge=0, le=1)
    came_bytes: int
    total_bytes: int
    bytes_per_second: float | None
    seconds_left: float | None


class ReplicaProgress(Shape):
    """How far one replica is, from 0 to 1."""

    replica_id: int
    replica_model_uid: str
    progress: float = Field(ge=0, le=1)
    stage: str
    info: str
    download_files: list[FileProgress]


class Progress(Shape):
    """How far a launch is: as far as the replica that is least along."""

    progress: float = Field(ge=0, le=1)
    stage: str
    replicas: list[ReplicaProgress]
    state: State
    starting: bool
    note: str
    came_bytes: int
    total_bytes: int | None
    bytes_per_second: float | None
    seconds_left: float | None
    download_files: list[FileProgress]
    diagnosis: Diagnosis | None


class Pull(Shape):
    """A download without a launch. `path` is set when it is done."""

    id: str
    model_name: str
    model_format: str
    quantization: str
    model_size_in_billions: Size
    model_hub: str
    source: str
    state: Literal["downloading", "done", "failed", "cancelled"]
    note: str
    came_bytes: int
    total_bytes: int | None
    bytes_per_second: float | None
    seconds_left: float | None
    download_files: list[FileProgress]
    path: str | None
    diagnosis: Diagnosis | None


class Pulls(Shape):
    """The pulls that this gateway knows, oldest first."""

    data: list[Pull]


class MakeLock(Shape):
    """A variant to lock, in the words of a launch, or the id of a model that is launched."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_name: str | None = None
    launched: str | None = None
    model_engine: str | None = None
    model_size_in_billions: int | float | str | None = None
    model_format: str | None = None
    quantization: str | None = None
    model_path: str | None = None
    download_hub: str | None = None
    offline: bool | None = None
    newest: bool | None = Field(default=False, description="What is cached does not count")


class LockedModels(Shape):
    """Entries of a lockfile; left out, `outdated` looks at what is launched and cached."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    models: list[LockedModel] | None = Field(default=None, max_length=1000)


class ComparedFile(Shape):
    """A file that the hub has besides, no more, or changed from `was_bytes`."""

    name: str
    size_bytes: int
    was_bytes: int | None = None


class LockFailure(Shape):
    """Why a hub did not tell what it has."""

    cause: str = Field(json_schema_extra={"enum": list(CAUSES)})
    reason: str


class Compared(Shape):
    """What the hub has now. `moved`: its commit is another, the model's files are the same."""

    model: str
    hub: str
    id: str
    state: Literal["current", "moved", "outdated", "local", "unknown"]
    revision: str | None
    commit: str | None
    newest_commit: str | None
    added: list[ComparedFile]
    removed: list[ComparedFile]
    changed: list[ComparedFile]
    error: LockFailure | None
    engine: str | None
    locked_engine_version: str | None
    engine_version: str | None = Field(description="That is installed now, if any")


class VerifiedLock(Shape):
    """What a locked file was found to be; `found` is the SHA-256 that it has."""

    model: str
    name: str
    size_bytes: int
    sha256: str
    found: str | None
    path: str | None
    state: Literal["as_locked", "differs", "missing"]


class LockWork(Shape):
    """Work on locks. `rows` are a lock's entry, or what was found, as far as it has come."""

    id: str
    kind: Literal["lock", "verify", "outdated"]
    state: Literal["running", "done", "failed", "cancelled"]
    note: str
    came_bytes: int
    total_bytes: int | None
    bytes_per_second: float | None
    seconds_left: float | None
    rows: list[LockedModel | VerifiedLock | Compared]
    diagnosis: Diagnosis | None


class LockWorks(Shape):
    """All that the gateway knows, oldest first."""

    data: list[LockWork]


class AddReplicas(Shape):
    """How many replicas to add. Other fields are refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    replica: int = Field(default=1, ge=1, le=MAX_REPLICAS)
    replica_config: list[Any] | dict[str, Any] | None = None
    model_engine: str | None = None
    n_gpu: int | str | None = None


class Added(Shape):
    """One replica that was added, or how many and which."""

    replica_id: int | None = None
    replica_model_uid: str | None = None
    worker_address: str | None = None
    replica: int | None = None
    replicas: list[dict[str, Any]] | None = None


class Remaining(Shape):
    """How many replicas are left."""

    remaining_replicas: int


class Abort(Shape):
    """For how many seconds new requests of this id are refused too."""

    block_duration: float = Field(default=30.0, ge=0, le=3600)


class PastEvent(Shape):
    """Something that happened to a model."""

    event_type: Literal["INFO", "ERROR"]
    event_ts: int
    event_content: str


class ReplicaEvent(Shape):
    """`event: replica` and `event: progress`."""

    model_uid: str
    replica_uid: str
    state: State
    note: str
    restarts: int
    next_try_at: float | None
    last_failure: Diagnosis | None
    progress: float
    came_bytes: int
    total_bytes: int | None
    bytes_per_second: float | None
    seconds_left: float | None
    diagnosis: Diagnosis | None
    gone: bool = False
    at: float | None = Field(default=None, description="Seconds since 1970; none in a snapshot")


class ModelEvent(Shape):
    """`event: model`. `gone`: it was terminated, and `state` is its last."""

    model_uid: str
    state: State
    model_name: str
    model_format: str
    quantization: str
    model_engine: str
    replica: int
    diagnosis: Diagnosis | None
    gone: bool = False
    at: float | None = Field(default=None, description="Seconds since 1970; none in a snapshot")


class SnapshotModel(ModelEvent):
    """A model of a snapshot."""

    replicas: list[ReplicaEvent]


class Snapshot(Shape):
    """`event: snapshot`, the first of a stream."""

    models: list[SnapshotModel]


class LogEvent(Shape):
    """`event: log`."""

    model_uid: str
    replica_uid: str
    line: str


class CacheRow(Shape):
    """A variant whose files are on the gateway's machine."""

    model_name: str
    model_size_in_billions: Size
    model_format: str
    quantization: str
    model_version: str
    path: str
    real_path: str
    actor_ip_address: str
    model_hub: str
    source: str
    size_bytes: int
    checked: bool


class CacheList(Shape):
    """All of them."""

    list: list[CacheRow]


class VerifiedFile(Shape):
    """A file that was read; `whole` is null where nobody tells what it ought to be."""

    path: str
    size_bytes: int
    digest: str
    whole: bool | None


class Verified(Shape):
    """What the files of a variant were found to be; none if it is not cached."""

    model_version: str
    files: list[VerifiedFile]


class Repository(Shape):
    """A repository in a hub's cache; `part_bytes` are of downloads that were interrupted."""

    hub: str
    id: str
    path: str
    size_bytes: int
    part_bytes: int


class Repositories(Shape):
    """All of them."""

    list: list[Repository]


class CacheFiles(Shape):
    """What removing a variant would delete."""

    model_version: str
    worker_ip: str
    paths: list[str]


class VariantVersion(Shape):
    """A variant of a model, and where it is on disk."""

    model_version: str
    model_file_location: dict[str, str] | None
    cache_status: bool
    quantization: str
    multimodal_projector: str | None
    model_format: str
    model_size_in_billions: Size


class EnvironmentInForce(Shape):
    """The environment that an engine runs from."""

    folder: str
    accelerator: Accelerator
    version: str = Field(description="Of the engine")
    versions: dict[str, str] = Field(description="Of every distribution in it")
    made_at: float = Field(description="Seconds since 1970")
    current: bool = Field(description="It was made from what this Paddock would make it from")


class Engine(Shape):
    """An engine, as it is on the gateway's machine."""

    name: str
    installed: bool
    version: str | None
    formats: list[Format] = Field(description="That it can load; none: it loads no weights")
    types: list[ModelType]
    automatic: bool = Field(description="A launch that names no engine may choose it")
    reason: str | None = Field(description="Why it cannot serve here")
    installable: bool = Field(description="It has an environment of its own, to be installed")
    environment: EnvironmentInForce | None
    options: dict[str, Any] = Field(description="The JSON schema of its own launch options")


class Engines(Shape):
    """All engines, in the order in which a launch tries them."""

    engines: list[Engine]


class NewEnvironment(Shape):
    """What an engine shall compute with; left out, what the machine has."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    accelerator: Accelerator | None = None
    force: bool = Field(default=False, description="Even if the one that is there is up to date")


class EngineEnvironment(Shape):
    """An engine's environment. What is there stays in force while another one is made.

    `version` and what follows it are null where there is none; `lines` say why an install failed.
    """

    engine: str
    state: Literal["none", "installing", "installed", "failed", "cancelled"] = Field(
        description="Of the last install; `installed` and `none` also where there was no other"
    )
    note: str = Field(description="The step that it is at")
    lines: list[str]
    began_at: float | None = Field(description="Seconds since 1970; null: not by this gateway")
    version: str | None
    accelerator: Accelerator | None
    folder: str | None
    made_at: float | None = Field(description="Seconds since 1970")
    current: bool | None = Field(description="It is made from the pins of this Paddock")
    size_bytes: int | None


class EngineEnvironments(Shape):
    """Those of all engines that have one of their own."""

    environments: list[EngineEnvironment]


class Gpu(Shape):
    """A GPU of a machine, as its driver told of it."""

    index: int
    name: str
    uuid: str
    memory_total_bytes: int
    memory_free_bytes: int
    capability: str = Field(description="CUDA's compute capability, such as 9.0")
    driver: str


class NodeEngine(Shape):
    """An engine as a machine has it: a version, or the reason why there is none."""

    version: str | None
    reason: str | None


class NodeReplica(Shape):
    """A replica that is planned on a machine."""

    model_uid: str
    replica_uid: str
    state: State


class NodeFacts(Shape):
    """A machine that models may run on."""

    node: str = Field(description="Ray's id of it, or `local`; what a launch takes as `node`")
    name: str
    address: str
    gateway: bool = Field(description="It is the gateway's own")
    cpus: int
    cpu_use: float | None = Field(
        ge=0, le=1, description="Of all processors, since it was last asked for; null: not known"
    )
    memory_total_bytes: int
    memory_free_bytes: int
    disk_total_bytes: int | None = Field(description="null: another machine's is not known")
    disk_free_bytes: int
    gpus: list[Gpu]
    engines: dict[str, NodeEngine]
    replicas: list[NodeReplica]


class Nodes(Shape):
    """All of them, the gateway's own first."""

    nodes: list[NodeFacts]


class Caller(Shape):
    """Who sent a request, and what its key reaches."""

    id: str | None = Field(description="The key's; null where no key is asked for")
    name: str
    scope: Literal["admin", "inference"]
    models: list[str] = Field(description="That it may use; none: all")
    auth: bool = Field(description="Whether requests need a key")
    local: bool = Field(description="The request came from the gateway's own machine")


class EngineVariants(Shape):
    """What an engine can serve of one format and size."""

    model_name: str
    model_format: str
    model_size_in_billions: Size
    quantizations: list[str]


class NamedVariant(Shape):
    """A variant in the words of a launch. `size_bytes` is what its weights take in memory."""

    model_format: Format
    model_size_in_billions: str
    quantization: str
    model_engine: str
    size_bytes: int


class ZooModel(Shape):
    """A model of the catalogue; of its weights only those count that were asked for."""

    name: str
    type: ModelType
    description: str
    license: str
    released: str = Field(json_schema_extra={"format": "date"})
    aliases: list[str]
    languages: list[str]
    abilities: list[Ability]
    context_length: int
    sizes: list[str] = Field(description="Billions of parameters, `_` for the decimal point")
    formats: list[Format]
    engines: list[str] = Field(description="Those that the spec names, installed or not")
    builtin: bool = Field(description="It comes with Paddock, and is not the user's own")
    cached: bool = Field(description="The weights of some variant are wholly on this machine")
    here: NamedVariant | None = Field(
        description="The smallest variant that an engine of this machine can serve"
    )
    fits: NamedVariant | None = Field(
        description="The variant that a launch here would choose within the free memory"
    )


class EstimateRow(Shape):
    """The memory of a variant at one context."""

    format: Format
    size: str
    quantization: str
    context_length: int
    weights_bytes: int
    cache_bytes: int
    overhead_bytes: int
    total_bytes: int
    gpu: str | None = Field(description="The GPU whose memory it is; null: the host's")
    free_bytes: int = Field(description="What is free of that memory")
    verdict: Verdict


class Estimate(Shape):
    """Rows for each variant and context, and the memory of the gateway's machine."""

    model_name: str
    context_length: int = Field(description="All that the model has")
    slots: int
    memory_total_bytes: int
    memory_free_bytes: int
    rows: list[EstimateRow]


class VariantSource(Shape):
    """Where a hub keeps a variant. `file` is null where the whole repository is the variant."""

    hub: Hub
    id: str
    revision: str | None = Field(description="null: the hub's default")
    file: str | None = Field(description="Of a file in parts, the name without their numbers")
    cached: bool


class Install(Shape):
    """An engine that could serve once it is installed, and the command for it."""

    engine: str
    command: str


class ZooVariant(Shape):
    """A variant, and what the gateway's machine can do with it."""

    model_format: Format
    model_size_in_billions: str
    quantization: str
    size_bytes: int = Field(description="Of the files")
    size_from: Literal["measured", "stated", "reckoned"] = Field(
        description="On the disk, by the spec, or from the model's shape"
    )
    files: list[PlannedFile] | None = Field(description="null: not known before it is asked for")
    sources: list[VariantSource] = Field(description="In order of preference")
    cached: bool
    engines: dict[str, str | None] = Field(description="null if it can serve here, else why not")
    installs: list[Install]
    consent: str | None = Field(description="What a launch must say, for it runs code: --trust …")
    estimate: EstimateRow = Field(description="At the shortest context that launches choose")
    fits: bool = Field(description="It can be served here, in the memory that is free")
    launch_command: str


class ZooPage(ZooModel):
    """A model with all of its variants, and what the gateway's machine can do with each."""

    homepage: str | None
    notes: str | None
    recommended: list[str] = Field(description="Quantizations, the best first")
    architecture: str
    reference: str | None = Field(description="Set: nobody wrote the spec, it was derived")
    commit: str | None
    derived_notes: list[str] = Field(description="What the repository does not tell")
    risks: dict[str, str] = Field(description="Formats that run a repository's code, and how")
    node_name: str
    memory_free_bytes: int
    memory_total_bytes: int
    disk_free_bytes: int
    launch_command: str
    variants: list[ZooVariant]


class ZooList(Shape):
    """Models, and what the gateway's machine has for them."""

    memory_free_bytes: int
    memory_total_bytes: int
    gpu_free_bytes: int = Field(description="Of its most free GPU; 0: it has none")
    disk_free_bytes: int
    models: list[ZooModel]


class Family(Shape):
    """A model that can be launched; without `detailed`, only its name and where it comes from."""

    model_name: str
    is_builtin: bool
    model_type: str | None = None
    model_description: str | None = None
    context_length: int | None = None
    model_lang: list[str] | None = None
    model_ability: list[str] | None = None
    model_specs: list[dict[str, Any]] | None = None


class Register(Shape):
    """`model` is a spec, in our YAML or in Xinference's JSON."""

    model: str | dict[str, Any]
    persist: bool = True


class Registered(Shape):
    """The name of what was registered."""

    model_name: str


class ShownSpec(Shape):
    """A model's spec as YAML that can be registered; the rest where it was derived."""

    model_name: str
    model_type: str
    yaml: str
    spec: dict[str, Any]
    reference: str | None
    commit: str | None
    notes: list[str]
    consent: dict[str, str] = Field(description="Formats that need --trust, and what would run")


class Node(Shape):
    """A machine."""

    node_type: Literal["Supervisor", "Worker"]
    ip_address: str
    gpu_count: int
    gpu_vram_total: int


class Worker(Shape):
    """A machine and the replicas on it."""

    work_ip: str = Field(alias="work-ip")
    models: dict[str, Description]


class Supervisor(Shape):
    """The machine of the gateway."""

    supervisor_ip: str


class Status(Shape):
    """How long the gateway runs, in seconds, and how busy each machine is."""

    uptime: float
    workers: dict[str, dict[str, Any]]


class NewKey(Shape):
    """Whose key it is to be, and what for. Other fields are refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: str = ""
    scope: str = ""
    models: list[str] = []


class Key(Shape):
    """A key, without the key itself."""

    id: str
    name: str
    scope: str
    models: list[str]
    created: float


class MadeKey(Key):
    """The only answer that has the key itself."""

    key: str


class Keys(Shape):
    """All keys."""

    object: Literal["list"]
    data: list[Key]


class Completion(Shape):
    """OpenAI's. Fields that the model's engine does not know are refused by name."""

    model: str = Field(min_length=1)
    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    stream: bool | None = None


class ChatMessage(Shape):
    """One message of a conversation."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class Chat(Shape):
    """OpenAI's. Fields that the model's engine does not know are refused by name."""

    model: str = Field(min_length=1)
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    stream: bool | None = None


class Embed(Shape):
    """OpenAI's."""

    model: str = Field(min_length=1)
    input: str | list[str] | list[int] | list[list[int]]


class Rerank(Shape):
    """Cohere's. A query or document may be an object with `text`."""

    model: str = Field(min_length=1)
    query: str | dict[str, Any]
    documents: list[str | dict[str, Any]] = Field(min_length=1)
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool | None = None


class Ranked(Shape):
    """One document: its place in the request, and the model's score."""

    index: int
    relevance_score: float
    document: dict[str, str] | None


class Reranked(Shape):
    """The documents, the nearest first."""

    id: str
    results: list[Ranked]
    meta: dict[str, Any]


class Respond(Shape):
    """OpenAI's. Nothing is stored; what needs an earlier response is refused by name."""

    model: str = Field(min_length=1)
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    tools: list[dict[str, Any]] | None = None
    stream: bool | None = None


class Responded(Shape):
    """A response in OpenAI's shape."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete", "in_progress"]
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None


class AnthropicTurn(Shape):
    """One message of a conversation in Anthropic's words."""

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class AnthropicChat(Shape):
    """Anthropic's. What only Anthropic's own servers can do is refused by name."""

    model: str = Field(min_length=1)
    messages: list[AnthropicTurn] = Field(min_length=1)
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None


class AnthropicMessages(AnthropicChat):
    """The same, with the length of the answer."""

    max_tokens: int = Field(ge=1)
    stop_sequences: list[str] | None = None
    temperature: float | None = Field(default=None, ge=0)
    stream: bool | None = None


class AnthropicMessage(Shape):
    """An answer in Anthropic's shape."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str
    stop_sequence: str | None
    usage: dict[str, Any]


class CountedTokens(Shape):
    """How long a prompt is."""

    input_tokens: int


class AnthropicModel(Shape):
    """A launched model in Anthropic's shape."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: str
    max_input_tokens: int | None


class AnthropicModels(Shape):
    """One page, which is the only one."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


class Answered(Shape):
    """An answer in OpenAI's shape."""

    object: str
    model: str
