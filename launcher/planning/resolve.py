"""`resolve`: from what a user asks for to what a launch will do. Pure: no clock, disk or network.

The steps: find the variants that fit the request; pair each with each engine and host and note who
refuses and why; choose the best pair that is left; settle its options, context and slots; reckon
the memory. Each choice that the user left open leaves a reason in the plan.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from paddock.engines import BUILT_IN, engine_names, fold, load_engine
from paddock.engines.base import UNKNOWN, Detection, Devices, Engine, EngineOptions, Gpu, Host
from paddock.launcher.planning.lock import pin, pinned_weights, with_engine
from paddock.launcher.planning.memory import (
    AT_LOAD,
    cache_bytes,
    loaded_bytes,
    slot_tokens,
    weights_bytes,
)
from paddock.launcher.planning.placement import (
    check_gpus,
    choice,
    no_room,
    on_gpus,
    place,
    placed,
    why,
)
from paddock.launcher.planning.plan import (
    LaunchPlan,
    LaunchRequest,
    MemoryEstimate,
    PlannedFile,
    PlannedWeights,
)
from paddock.launcher.planning.reservations import told
from paddock.launcher.planning.servable import WEIGHTS_SHARE
from paddock.registry.catalog import Catalog
from paddock.registry.errors import BadValue, NoEngine, NoRoom, UnknownName
from paddock.registry.hubs import AUTO, LOCAL, find_hub, hub_names
from paddock.registry.spec import ModelSpec, Source, Variant, source_key
from paddock.registry.split import parts, together

# Context and slots that a launch gets when the user names none: at most this many slots, with no
# more than this share of the free memory for the caches of all of them, and a context no shorter
# than this (or than the model's own) to make room.
SLOTS = 4
CACHE_SHARE = 0.25
LEAST_CONTEXT = 4096

# How far a pair of variant and engine came before it was refused. Of an engine's many refusals,
# the one that came furthest is the one worth reading.
_NO_ADAPTER, _NOT_HERE, _WRONG_FORMAT, _NOT_LISTED, _REFUSED, _NO_WEIGHTS = range(6)


@dataclass(frozen=True)
class _Candidate:
    """What can be served. `gpus` are those to choose `devices` from; none: the processor."""

    variant: Variant
    engine: Engine
    host: Host
    weights: PlannedWeights
    loaded_bytes: int
    gpus: tuple[Gpu, ...]
    devices: Devices

    @property
    def free_bytes(self) -> int:
        """Of the memory that a replica would lie in, before any does."""
        if not self.gpus:
            return self.host.memory_free_bytes
        each = self.devices.count
        return each * place(self.gpus, each, 1, 0)[1]


@dataclass
class _Search:
    """What the pairing of variants, engines and hosts found."""

    servable: list[_Candidate] = field(default_factory=list)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)

    def refuse(self, engine: str, stage: int, reason: str) -> None:
        if engine not in self.refusals or self.refusals[engine][0] < stage:
            self.refusals[engine] = stage, reason

    @property
    def refused(self) -> dict[str, str]:
        """Engine → why it was passed over, without those that could serve."""
        served = {candidate.engine.name for candidate in self.servable}
        return {name: reason for name, (_, reason) in self.refusals.items() if name not in served}


@dataclass(frozen=True)
class _Fit:
    """A candidate with settled options, for trying contexts and slots."""

    request: LaunchRequest
    spec: ModelSpec
    best: _Candidate
    options: EngineOptions

    def memory(self, context: int, slots: int) -> MemoryEstimate:
        engine, architecture = self.best.engine, self.spec.shape(self.best.variant.size)
        tokens = slot_tokens(context, engine.context_step)
        elements = engine.cache_element_bytes(self.options)
        estimate = MemoryEstimate(
            weights_bytes=self.best.loaded_bytes,
            cache_bytes=cache_bytes(architecture, tokens * slots, elements),
            overhead_bytes=engine.overhead_bytes(architecture, self.options, tokens),
            free_bytes=self.best.free_bytes,
            paged=engine.pages(self.options),
            replicas=self.request.replicas,
        )
        best = self.best
        return on_gpus(estimate, best.gpus, best.devices) if best.gpus else estimate


def resolve(request: LaunchRequest, catalog: Catalog, hosts: Sequence[Host]) -> LaunchPlan:
    """The plan that carries out the request on one of the hosts (the gateway's own comes first).

    Raises:
        UnknownName: the model, format, size, quantization, engine, node, hub or option.
        BadValue: an option's value, a context beyond the model's, a path with no such weights.
        NoEngine: no engine here serves any variant that was asked for; with each reason.
        NoRoom: the node's memory or disk cannot take it.
        NotLocked: the request or the node contradicts the request's lock.
    """
    spec = catalog.lookup(request.model_name)
    request = pin(request, spec)
    allowed = _hosts(request, hosts)
    if request.lock is not None:
        allowed = with_engine(request.lock, allowed)
    _check_source(request, allowed)
    check_gpus(request, allowed)
    variants, guessed = _variants(request, spec, allowed)
    search = _search(request, spec, variants, allowed)
    if not search.servable:
        asked = variants[0].label if len(variants) == 1 else _shared_label(spec, variants)
        raise NoEngine(asked, search.refused, _alternatives(spec, hosts))
    best = min(search.servable, key=lambda candidate: _rank(request, spec, candidate))
    given = best.engine.options.parse(best.engine.name, request.engine_options)
    copied = best.loaded_bytes * request.replicas
    options = best.engine.settle(given, best.host, copied)
    fit = _Fit(request, spec, best, options)
    context, slots, said = _room(fit)
    memory = fit.memory(context, slots)
    warnings = _check_room(fit, memory, context, slots)
    weights, abilities = _with_projector(request, spec, best)
    gpus = placed(memory, best.gpus)
    return LaunchPlan(
        model_id=request.uid,
        model=spec.name,
        type=spec.type,
        format=best.variant.format,
        size=best.variant.size,
        quantization=best.variant.quantization,
        abilities=abilities,
        engine=best.engine.name,
        engine_version=best.host.engines[best.engine.name].version,
        options=options.model_dump(mode="json"),
        context_length=context,
        slots=slots,
        replicas=request.replicas,
        node=best.host.node,
        node_name=best.host.name,
        weights=weights,
        memory=memory,
        gpus=gpus,
        chat_template=spec.chat_template,
        languages=spec.languages,
        description=spec.description,
        reasons=(
            *_why(fit, search, guessed),
            *why(memory, gpus, len(best.gpus)),
            *filter(None, [told(best.host)]),
            *said,
            *_why_settled(given, options),
        ),
        refused=search.refused,
        warnings=tuple(warnings),
    )


def resolve_weights(
    request: LaunchRequest, catalog: Catalog, hosts: Sequence[Host]
) -> tuple[Variant, PlannedWeights]:
    """The variant that a launch would choose, and its weights; here nothing needs to run it.

    Raises:
        UnknownName, BadValue: as `resolve`.
        NoEngine: the variant has no source on the hub that was asked for.
    """
    spec = catalog.lookup(request.model_name)
    request = pin(request, spec)
    _check_source(request, hosts)
    variants, _ = _variants(request, spec, hosts)
    search = _search(request, spec, variants, hosts)
    if search.servable:
        best = min(search.servable, key=lambda candidate: _rank(request, spec, candidate))
        return best.variant, _add_projector(request, best.variant, best.weights, best.host)
    recommended = [v for name in spec.recommended for v in variants if v.quantization == name]
    for variant in (*recommended, *variants):
        weights = (
            pinned_weights(request.lock, hosts[0], request.offline)
            if request.lock is not None
            else _sourced(request, spec, variant, hosts[0])
        )
        if isinstance(weights, PlannedWeights):
            return variant, _add_projector(request, variant, weights, hosts[0])
    raise NoEngine(variants[0].label, {"download": str(weights)})


def resolve_lock(
    request: LaunchRequest, catalog: Catalog, hosts: Sequence[Host]
) -> tuple[Variant, PlannedWeights, str, str]:
    """What a launch would choose, to be locked: variant, weights, engine and its version.

    Raises as `resolve`, but for the memory and the disk, which a lock does not need.
    """
    spec = catalog.lookup(request.model_name)
    _check_source(request, hosts)
    variants, _ = _variants(request, spec, hosts)
    search = _search(request, spec, variants, hosts)
    if not search.servable:
        asked = variants[0].label if len(variants) == 1 else _shared_label(spec, variants)
        raise NoEngine(asked, search.refused, _alternatives(spec, hosts))
    best = min(search.servable, key=lambda candidate: _rank(request, spec, candidate))
    return best.variant, best.weights, best.engine.name, best.host.engines[best.engine.name].version


def offers(spec: ModelSpec, host: Host) -> Iterator[tuple[Variant, str, int, bool]]:
    """Every variant, the engine that a launch on the host would take or none, and its memory.

    The last says whether that is a GPU's.
    """
    request = LaunchRequest(model_name=spec.name)
    search = _search(request, spec, spec.variants, [host])
    ranked = sorted(search.servable, key=lambda candidate: _rank(request, spec, candidate))
    best = {candidate.variant.label: candidate for candidate in reversed(ranked)}
    for variant in spec.variants:
        found = best.get(variant.label)
        if found is not None:
            yield variant, found.engine.name, found.loaded_bytes, bool(found.gpus)
        else:
            shape = spec.shape(variant.size)
            stored = weights_bytes(variant, shape)
            yield variant, "", loaded_bytes(variant, shape, stored), False


def _with_projector(
    request: LaunchRequest, spec: ModelSpec, best: _Candidate
) -> tuple[PlannedWeights, tuple[str, ...]]:
    """The weights with the projector that was asked for, and what the model can then do."""
    weights = _add_projector(request, best.variant, best.weights, best.host)
    if best.variant.format != "ggufv2":
        return weights, spec.abilities
    others = tuple(ability for ability in spec.abilities if ability != "vision")
    return weights, (*others, "vision") if weights.projector else others


def _add_projector(
    request: LaunchRequest, variant: Variant, weights: PlannedWeights, host: Host
) -> PlannedWeights:
    """Raises `BadValue`, `UnknownName` for a projector that the variant cannot have."""
    wanted = request.projector
    if wanted is None:
        return weights
    if variant.format != "ggufv2":
        why = f"is for ggufv2; {variant.format} has what it needs for pictures in its weights"
        raise BadValue("projector", wanted, why)
    if request.lock is not None:
        raise BadValue("projector", wanted, "is not in the lock, and so not used under it")
    if wanted.startswith("/"):
        if wanted not in host.files:
            raise BadValue("projector", wanted, f"no such file on {host.name}")
        return weights.model_copy(update={"projector": wanted})
    if not variant.projectors or request.model_path is not None:
        why = "nothing says where that is; give an absolute path"
        raise BadValue("projector", wanted, why)
    for name in variant.projectors:
        if name.casefold() == wanted.casefold():
            return weights.model_copy(update={"projector": name})
    raise UnknownName.among("projector", wanted, variant.projectors, of=variant.label)


def _hosts(request: LaunchRequest, hosts: Sequence[Host]) -> Sequence[Host]:
    if request.node is None:
        return hosts
    wanted = request.node
    found = [
        host
        for host in hosts
        if wanted in {host.name, host.address, host.node}
        or (len(wanted) >= 6 and host.node.startswith(wanted))
    ]
    if not found:
        known = [f"{host.name} ({host.node[:12]})" for host in hosts]
        raise UnknownName.among("node", wanted, known)
    return found


def _check_source(request: LaunchRequest, hosts: Sequence[Host]) -> None:
    """Refuses a hub that nobody knows, and a path where nothing is."""
    if request.hub:
        _hub(request.hub)
    path = request.model_path
    if path is None:
        return
    if request.hub and _hub(request.hub):
        raise BadValue("hub", request.hub, "weights come from a hub or from --model-path, not both")
    if not path.startswith("/"):
        raise BadValue("model path", path, "must be an absolute path")
    if not any(_under(path, host) for host in hosts):
        where = ", ".join(dict.fromkeys(host.name for host in hosts))
        raise BadValue("model path", path, f"no such file on {where}, or a folder without files")


def _variants(
    request: LaunchRequest, spec: ModelSpec, hosts: Sequence[Host]
) -> tuple[tuple[Variant, ...], str | None]:
    """The variants that fit the request, and what a path alone told about them."""
    found = spec.select(format=request.format, size=request.size, quantization=request.quantization)
    if request.model_path is None:
        return found, None
    names = {name for host in hosts for name in _under(request.model_path, host)}
    told = tuple(variant for variant in found if _told(variant, names))
    if told:
        open_ = request.format is None or request.quantization is None
        says = f"the name of the file says {told[0].format} {told[0].quantization}"
        return told, says if open_ and len(told) == 1 else None
    contradicted = next((v for v in spec.variants if _told(v, names)), None)
    if contradicted is not None:
        raise BadValue(
            "model path",
            request.model_path,
            f"its name says {contradicted.format} {contradicted.quantization}, which is not "
            "what was asked for",
        )
    if len({(v.format, v.quantization) for v in found}) == 1:
        return found, None
    raise BadValue(
        "model path",
        request.model_path,
        "the files' names do not tell the variant; add --model-format and --quantization",
    )


def _told(variant: Variant, names: set[str]) -> bool:
    """Whether the names of the files say that they are of this variant."""
    if variant.format == "ggufv2":
        return any(_is_gguf_of(variant, name) for name in names)
    if not any(name.endswith(".safetensors") for name in names):
        return False
    return (variant.format == "gptq") == ("quantize_config.json" in names)


def _is_gguf_of(variant: Variant, name: str) -> bool:
    # Q4_0 must not be found in IQ4_0.
    ending = rf"(?:^|[^a-z0-9]){re.escape(variant.quantization.casefold())}\.gguf"
    return re.search(rf"{ending}$", together(name).casefold()) is not None


def _shared_label(spec: ModelSpec, variants: Sequence[Variant]) -> str:
    """The model's name, with the format and quantization that all variants share."""
    formats, quantizations = ({getattr(v, name) for v in variants} for name in _LABELLED)
    shared = [next(iter(values)) for values in (formats, quantizations) if len(values) == 1]
    return " ".join([spec.name, *shared])


_LABELLED = ("format", "quantization")


def _alternatives(spec: ModelSpec, hosts: Sequence[Host]) -> tuple[str, ...]:
    """The variants that a launch without any wishes could choose from."""
    search = _search(LaunchRequest(model_name=spec.name), spec, spec.variants, hosts)
    return tuple(dict.fromkeys(candidate.variant.label for candidate in search.servable))


def _search(
    request: LaunchRequest, spec: ModelSpec, variants: Sequence[Variant], hosts: Sequence[Host]
) -> _Search:
    search = _Search()
    adapted = {name.casefold() for name in engine_names()}
    for engine in _engines(request, spec, search):
        for variant in variants:
            for host in hosts:
                _pair(request, spec, _Pair(variant, engine, host), search)
    if request.model_engine is None:
        for name in dict.fromkeys(name for variant in variants for name in variant.engines):
            if name.casefold() not in adapted:
                search.refuse(name, _NO_ADAPTER, "this version of Paddock has no adapter for it")
    return search


def _engines(request: LaunchRequest, spec: ModelSpec, search: _Search) -> Iterator[Engine]:
    """The engine that was asked for, or those that may be chosen."""
    if request.model_engine is None:
        found = map(load_engine, engine_names())
        yield from (e for e in found if e.automatic and spec.type in e.types)
        return
    wanted = fold(request.model_engine)
    named = dict.fromkeys(name for variant in spec.variants for name in variant.engines)
    if wanted in {name.casefold() for name in engine_names()}:
        engine = load_engine(request.model_engine)
        if spec.type in engine.types:
            yield engine
            return
        reason = f"serves models of type {' and '.join(engine.types)}, not {spec.type}"
        search.refuse(engine.name, _WRONG_FORMAT, reason)
        return
    for name in named:
        if name.casefold() == wanted:
            search.refuse(name, _NO_ADAPTER, "this version of Paddock has no adapter for it")
            return
    raise UnknownName.among("engine", request.model_engine, [*engine_names(), *named])


@dataclass(frozen=True)
class _Pair:
    variant: Variant
    engine: Engine
    host: Host


def _pair(request: LaunchRequest, spec: ModelSpec, pair: _Pair, search: _Search) -> None:
    """Adds the pair to what can be served, or its reason to the refusals."""
    if unable := _unable(spec, pair):
        return search.refuse(pair.engine.name, *unable)
    options = _options(pair.engine, request)
    found = choice(request, pair.engine, pair.host, options)
    if isinstance(found, str):
        return search.refuse(pair.engine.name, _REFUSED, found)
    weights = _weights(request, spec, pair)
    if isinstance(weights, str):
        return search.refuse(pair.engine.name, _NO_WEIGHTS, weights)
    shape = spec.shape(pair.variant.size)
    width = pair.engine.weight_element_bytes(options)
    loaded = loaded_bytes(pair.variant, shape, weights.size_bytes, width)
    search.servable.append(
        _Candidate(pair.variant, pair.engine, pair.host, weights, loaded, *found)
    )
    return None


def _options(engine: Engine, request: LaunchRequest) -> EngineOptions:
    try:
        return engine.options.parse(engine.name, request.engine_options)
    except (UnknownName, BadValue):  # of another engine, or refused once this one is chosen
        return engine.options()


def unable(spec: ModelSpec, variant: Variant, engine: Engine, host: Host) -> str | None:
    """Why the engine cannot serve the variant on the host, wherever its weights are."""
    if spec.type not in engine.types:
        return f"serves models of type {' and '.join(engine.types)}, not {spec.type}"
    found = _unable(spec, _Pair(variant, engine, host))
    return found[1] if found else None


def _unable(spec: ModelSpec, pair: _Pair) -> tuple[int, str] | None:
    """Why the engine cannot serve the variant on the host, whatever weights there are."""
    variant, engine, name = pair.variant, pair.engine, pair.engine.name
    found = pair.host.engines.get(name, UNKNOWN)
    if found.missing:
        return _NOT_HERE, found.missing
    if not engine.formats:
        return None
    if variant.format not in engine.formats:
        return _WRONG_FORMAT, f"serves {', '.join(engine.formats)}, not {variant.format}"
    # Specs cannot know of engines from other packages: those speak for themselves.
    if name in BUILT_IN and name.casefold() not in {n.casefold() for n in variant.engines}:
        return _NOT_LISTED, f"the spec does not list it for {variant.format}"
    reason = _unknown_there(spec, variant, engine, found) or engine.refuses(variant, pair.host)
    return (_REFUSED, reason) if reason else None


def _unknown_there(
    spec: ModelSpec, variant: Variant, engine: Engine, found: Detection
) -> str | None:
    """Why what was found of the engine on a node is not enough for the variant."""
    architecture = spec.shape(variant.size).name
    known = architecture in found.architectures or not found.architectures
    if not known or architecture in found.unknown:
        return f"{engine.name} {found.version} does not know the architecture {architecture}"
    if found.formats and (variant.format not in found.formats or variant.quantization in AT_LOAD):
        assert engine.environment is not None
        install = f"paddock engine install {engine.environment.name}"
        return f"Paddock's own environment has not all that this takes; to have it: {install}"
    return None


def _weights(request: LaunchRequest, spec: ModelSpec, pair: _Pair) -> PlannedWeights | str:
    """Where the weights come from, or why they cannot come."""
    variant, host = pair.variant, pair.host
    if not pair.engine.formats:
        return PlannedWeights(hub="none", id="", size_bytes=0, here=True)
    if request.lock is not None:
        return pinned_weights(request.lock, host, request.offline)
    if request.model_path is not None:
        return _from_path(request.model_path, variant, host)
    return _sourced(request, spec, variant, host)


def _sourced(
    request: LaunchRequest, spec: ModelSpec, variant: Variant, host: Host
) -> PlannedWeights | str:
    """The weights from one of the variant's sources, or why from none."""
    wanted = _hub(request.hub) if request.hub else None
    sources = [source for source in variant.sources if wanted in {None, source.hub}]
    if not sources:
        return f"the spec has no source on {wanted} for {variant.format} {variant.quantization}"
    on_hubs = [source for source in sources if source.hub not in LOCAL]
    ordered = iter(sorted(on_hubs, key=lambda source: source.hub != request.first_hub))
    sources = [next(ordered) if source in on_hubs else source for source in sources]
    for source in sources:
        if source.hub not in LOCAL:
            others = tuple(s for s in sources if s.hub not in {*LOCAL, source.hub})
            made = _on_hub(source, variant, spec).model_copy(update={"offline": request.offline})
            cached = next((s for s in (source, *others) if source_key(s) in host.files), None)
            if cached is None:
                return made.model_copy(update={"others": others})
            size = host.files[source_key(cached)]
            return _on_hub(cached, variant, spec).model_copy(
                update={"here": True, "size_bytes": size}
            )
        if found := local_files(source, host):
            return _here(source.hub, source.id, found)
    what = f"{sources[-1].id}/{sources[-1].file}" if sources[-1].file else sources[-1].id
    ours = sources[-1].hub == "local"
    hint = "they come with a source checkout only" if ours else "the spec names no other place"
    return f"its weights ({what}) are not on {host.name}; {hint}"


def _on_hub(source: Source, variant: Variant, spec: ModelSpec) -> PlannedWeights:
    file = PlannedFile(name=source.file, size_bytes=variant.size_bytes) if source.file else None
    return PlannedWeights(
        hub=source.hub,
        id=source.id,
        revision=source.revision,
        files=(file,) if file else (),
        size_bytes=weights_bytes(variant, spec.shape(variant.size)),
        here=False,
    )


def _hub(name: str) -> str | None:
    """The hub of this name, or None for any."""
    folded = name.casefold()
    if folded == AUTO:
        return None
    if folded in LOCAL or find_hub(folded) is not None:
        return folded
    raise UnknownName.among("hub", name, (*hub_names(), *LOCAL, AUTO))


def local_files(source: Source, host: Host) -> dict[str, int]:
    """The files of a local source that are on the host: name → bytes."""
    prefix = f"{source.id}/"
    found = {
        name.removeprefix(prefix): size
        for name, size in host.files.items()
        if name.startswith(prefix)
    }
    if not source.file:
        return found
    names = parts(source.file)
    if not names and source.file not in found:
        names = next((parts(name) for name in found if together(name) == source.file), ())
    names = names or (source.file,)
    return {name: found[name] for name in names} if found.keys() >= set(names) else {}


def _under(path: str, host: Host) -> dict[str, int]:
    """The file at the path with its other parts, or the files in the folder: plain name → bytes."""
    folder = path.rstrip("/")
    wanted = {path, *parts(path)} if path in host.files else set()
    return {
        posixpath.basename(name): size
        for name, size in host.files.items()
        if name in wanted or posixpath.dirname(name) == folder
    }


def _from_path(path: str, variant: Variant, host: Host) -> PlannedWeights | str:
    """The weights at a path that the user named: a file, or what fits in a folder."""
    files = _under(path, host)
    if not files:
        return f"{path} is not on {host.name}"
    is_file = path in host.files
    folder = posixpath.dirname(path) if is_file else path.rstrip("/")
    if variant.format == "ggufv2":
        chosen = _ggufs(files, variant, path, is_file)
        return chosen if isinstance(chosen, str) else _here("path", folder, chosen)
    if is_file:
        return f"{path} is one file; name the folder that holds all of {variant.format}"
    return _here("path", folder, files)


def _ggufs(
    files: Mapping[str, int], variant: Variant, path: str, is_file: bool
) -> Mapping[str, int] | str:
    """The one GGUF among the files, with all of its parts."""
    ggufs = {name: size for name, size in files.items() if name.casefold().endswith(".gguf")}
    chosen = {n: size for n, size in ggufs.items() if _is_gguf_of(variant, n)} or ggufs
    if not chosen:
        return files if is_file else f"{path} holds no .gguf file"
    if len({together(name) for name in chosen}) > 1:
        return f"{path} holds {len(chosen)} .gguf files; name the one to serve"
    missing = [name for name in parts(next(iter(chosen))) if name not in chosen]
    return f"{path} lacks parts of its weights: {', '.join(missing)}" if missing else chosen


def _here(hub: str, identity: str, files: Mapping[str, int]) -> PlannedWeights:
    planned = tuple(PlannedFile(name=name, size_bytes=size) for name, size in sorted(files.items()))
    return PlannedWeights(
        hub=hub, id=identity, files=planned, size_bytes=sum(files.values()), here=True
    )


def _rank(request: LaunchRequest, spec: ModelSpec, candidate: _Candidate) -> tuple[object, ...]:
    """Best first: fits the free memory, is here, is recommended, is large; if none fits, small.

    Of engines for the same, those on GPUs come first, and of these those that are made for them.
    """
    size = candidate.loaded_bytes
    fits = _weights_fit(candidate, request.replicas)
    quantization = candidate.variant.quantization
    preferred = (
        spec.recommended.index(quantization)
        if quantization in spec.recommended
        else len(spec.recommended)
    )
    return (
        not fits,
        not candidate.weights.here,
        preferred if fits else 0,
        -size if fits else size,
        not candidate.gpus,
        not (candidate.gpus and candidate.engine.made_for_gpus),
        -candidate.free_bytes,
    )


def _weights_fit(candidate: _Candidate, replicas: int) -> bool:
    """Whether the weights leave room for the rest. Replicas on GPUs have some each."""
    size = candidate.loaded_bytes
    if candidate.gpus:
        each = candidate.devices.count
        _, tightest = place(candidate.gpus, each, replicas, size // each)
        return size <= WEIGHTS_SHARE * each * tightest or candidate.devices.offload_bytes is None
    return size * replicas <= WEIGHTS_SHARE * candidate.free_bytes


def _room(fit: _Fit) -> tuple[int, int, list[str]]:
    """Context and slots: as asked for, else the most that the memory gives."""
    spec, request = fit.spec, fit.request
    by_option, slots = fit.best.engine.room(fit.options)
    if by_option and request.context_length and by_option != request.context_length:
        raise BadValue(
            "context length", request.context_length, f"the engine's own option says {by_option}"
        )
    context = by_option or request.context_length
    if context is not None and context > spec.context_length:
        raise BadValue(
            "context length", context, f"{spec.name} was trained for {spec.context_length} at most"
        )
    said: list[str] = []
    if context is None:
        context = spec.context_length
        while context > LEAST_CONTEXT and not fit.memory(context, slots or 1).fits:
            context = max(LEAST_CONTEXT, context // 2)
        full = context == spec.context_length
        said.append(
            f"context {context}: "
            + ("all that the model has" if full else f"of {spec.context_length}, to save memory")
        )
    if slots is None:
        slots = SLOTS
        while slots > 1 and not _roomy(fit.memory(context, slots)):
            slots //= 2
        said.append(
            f"slots {slots}: up to {SLOTS}, while their caches take no more than "
            f"{CACHE_SHARE:.0%} of the free memory"
            if slots > 1
            else "slots 1: the cache of a second would take too much of the free memory"
        )
    return context, slots, said


def _roomy(memory: MemoryEstimate) -> bool:
    caches = memory.cache_bytes * memory.replicas
    return memory.fits and caches <= CACHE_SHARE * memory.free_bytes


def _check_room(fit: _Fit, memory: MemoryEstimate, context: int, slots: int) -> list[str]:
    """Warnings for a tight fit; raises `NoRoom` for what cannot run at all."""
    host, weights = fit.best.host, fit.best.weights
    if not memory.can_run:
        raise no_room(memory, placed(memory, fit.best.gpus), host, _way_out(fit, context, slots))
    if memory.offload_bytes * memory.replicas > host.memory_free_bytes:
        left = memory.offload_bytes * memory.replicas
        out = "keep less of the weights off the GPU"
        raise NoRoom("memory", host.name, left, host.memory_free_bytes, out)
    if not weights.here and weights.size_bytes > host.disk_free_bytes:
        raise NoRoom(
            "disk",
            host.name,
            weights.size_bytes,
            host.disk_free_bytes,
            "free some, or give weights that are on disk with --model-path",
        )
    if memory.fits:
        return []
    return [
        f"{memory.needed_bytes / 1e9:.2f} GB are needed and {memory.free_bytes / 1e9:.2f} GB "
        f"are free on {host.name}: weights will be read from the disk again and again, "
        "which is slow; a smaller --quantization or a shorter --context-length fits better"
    ]


def _way_out(fit: _Fit, context: int, slots: int) -> str:
    """What to ask for instead: the first change that makes it run; and what is kept for others."""
    kept = told(fit.best.host)
    return f"{_instead(fit, context, slots)} ({kept})" if kept else _instead(fit, context, slots)


def _instead(fit: _Fit, context: int, slots: int) -> str:
    shorter = context // 2
    while shorter >= fit.best.engine.context_step:
        if fit.memory(shorter, slots).can_run:
            return f"--context-length {shorter} would fit"
        shorter //= 2
    if slots > 1 and fit.memory(context, 1).can_run:
        return "one slot in place of several would fit"
    if fit.request.replicas > 1:
        return "ask for fewer replicas or a smaller --quantization"
    return f"ask for a smaller --quantization; see: paddock estimate {fit.request.model_name}"


def _why(fit: _Fit, search: _Search, guessed: str | None) -> Iterator[str]:
    """Reasons for what the user left open."""
    request, spec, best = fit.request, fit.spec, fit.best
    if request.lock is not None:
        at = f" at {request.lock.commit[:12]}" if request.lock.commit else ""
        count = len(request.lock.files)
        yield f"locked: {count} file{'s' * (count > 1)} of {request.lock.id}{at}"
    variant = best.variant
    sizes = {v.size for v in spec.variants}
    shown = f"{variant.format} {variant.quantization}"
    if len(sizes) > 1:
        shown = f"{variant.size} {shown}"
    if guessed:
        yield f"variant {shown}: {guessed}"
    elif None in {request.quantization, request.format} or (len(sizes) > 1 and not request.size):
        yield f"variant {shown}: {_why_variant(fit, search)}"
    if request.model_engine is None:
        only = {candidate.engine.name for candidate in search.servable} == {best.engine.name}
        why = "the only engine here that can serve" if only else "the first choice for"
        where = " on GPUs" if best.gpus and not only else ""
        yield f"engine {best.engine.name}: {why} {variant.format}{where}"
    if best.weights.others:
        names = ", ".join(source.hub for source in best.weights.others)
        yield f"hub {best.weights.hub}: the first that the spec names; {names} if it fails"
    if request.node is None and len({c.host.node for c in search.servable}) > 1:
        yield f"node {best.host.name}: the most free memory"


def _why_settled(given: EngineOptions, settled: EngineOptions) -> Iterator[str]:
    """What the user left to the engine, for which its options have a reason in their description:
    after `left out: ` for what it chooses, after the value itself for a default.
    """
    for name, described in type(settled).model_fields.items():
        value = getattr(settled, name)
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        chosen = value != getattr(given, name)
        told = "left out" if chosen else shown
        _, _, how = (described.description or "").partition(f"; {told}: ")
        if how and name not in given.model_fields_set:
            yield f"{name} {shown}: {how.partition(';')[0]}"


def _why_variant(fit: _Fit, search: _Search) -> str:
    best = fit.best
    if {candidate.variant.label for candidate in search.servable} == {best.variant.label}:
        return "the only one that can be served here"
    if not _weights_fit(best, fit.request.replicas):
        return "the smallest, because none fits the free memory"
    if best.variant.quantization in fit.spec.recommended:
        return "recommended by the spec"
    return "the largest that fits the free memory"
