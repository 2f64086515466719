"""`resolve`: from what a user asks for to what a launch will do. Pure: no clock, disk or network.

The steps: find the variants that fit the request; pair each with each engine and host and note who
refuses and why; choose the best pair that is left; settle its options, context and slots; reckon
the memory. Each choice that the user left open leaves a reason in the plan.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from paddock.engines import engine_names, load_engine
from paddock.engines.base import Engine, EngineOptions, Host
from paddock.launcher.memory import cache_bytes, weights_bytes
from paddock.launcher.plan import (
    LaunchPlan,
    LaunchRequest,
    MemoryEstimate,
    PlannedFile,
    PlannedWeights,
)
from paddock.registry.catalog import Catalog
from paddock.registry.errors import BadValue, NoEngine, NoRoom, UnknownName
from paddock.registry.spec import ModelSpec, Source, Variant

# Context and slots that a launch gets when the user names none: at most this many slots, and no
# more than this share of the free memory for the caches of all of them.
SLOTS = 4
CACHE_SHARE = 0.25
LEAST_CONTEXT = 2048

HUBS = ("huggingface", "modelscope", "local")


@dataclass(frozen=True)
class _Candidate:
    variant: Variant
    engine: Engine
    host: Host
    weights: PlannedWeights


@dataclass
class _Search:
    """What the pairing of variants, engines and hosts found."""

    servable: list[_Candidate] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def resolve(request: LaunchRequest, catalog: Catalog, hosts: Sequence[Host]) -> LaunchPlan:
    """The plan that carries out the request on one of the hosts (the gateway's own comes first).

    Raises:
        UnknownName: the model, format, size, quantization, engine, node, hub or option.
        BadValue: an option's value, a context beyond the model's, a path with no such weights.
        NoEngine: no engine here serves any variant that was asked for; with each reason.
        NoRoom: the node's memory or disk cannot take it.
    """
    spec = catalog.lookup(request.model_name)
    allowed = _hosts(request, hosts)
    variants, guessed = _variants(request, spec, allowed)
    adapters = _adapters(request, variants)
    search = _search(request, spec, variants, adapters, allowed)
    if not search.servable:
        rest = _search(LaunchRequest(model_name=spec.name), spec, spec.variants, _automatic(), hosts)
        alternatives = tuple(dict.fromkeys(c.variant.label for c in rest.servable))
        asked = variants[0].label if len(variants) == 1 else spec.name
        raise NoEngine(asked, search.refused, alternatives)
    best = min(search.servable, key=lambda candidate: _rank(candidate, spec))
    return _plan(request, spec, best, search, guessed)


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
        raise UnknownName.among("node", wanted, [f"{host.name} ({host.node[:12]})" for host in hosts])
    return found


def _variants(
    request: LaunchRequest, spec: ModelSpec, hosts: Sequence[Host]
) -> tuple[tuple[Variant, ...], str | None]:
    """The variants that fit the request, and what a path alone told about them."""
    found = spec.select(format=request.format, size=request.size, quantization=request.quantization)
    if request.model_path is None or (request.format and request.quantization):
        return found, None
    names = [posixpath.basename(name) for name in _under(request.model_path, hosts)]
    told = [
        variant
        for variant in found
        if any(_named_after(variant, name) for name in names)
    ]
    if told:
        return tuple(told), f"the file's name says {told[0].format} {told[0].quantization}"
    if len({(v.format, v.quantization) for v in found}) == 1:
        return found, None
    raise BadValue(
        "model path",
        request.model_path,
        "the files' names do not tell the variant; add --model-format and --quantization",
    )


def _named_after(variant: Variant, name: str) -> bool:
    if variant.format == "ggufv2":
        return name.casefold().endswith(f"{variant.quantization.casefold()}.gguf")
    if variant.format == "gptq":
        return name == "quantize_config.json"
    return name == "model.safetensors" and variant.format == "pytorch"


def _automatic() -> tuple[Engine, ...]:
    return tuple(engine for engine in map(load_engine, engine_names()) if engine.automatic)


def _adapters(request: LaunchRequest, variants: Sequence[Variant]) -> tuple[Engine, ...]:
    if request.model_engine is None:
        return _automatic()
    named = dict.fromkeys(name for variant in variants for name in variant.engines)
    try:
        return (load_engine(request.model_engine),)
    except UnknownName:
        for name in named:
            if name.casefold() == request.model_engine.casefold():
                refused = {name: "this version of Paddock has no adapter for it"}
                raise NoEngine(variants[0].label, refused, ()) from None
        raise UnknownName.among(
            "engine", request.model_engine, [*engine_names(), *named]
        ) from None


def _search(
    request: LaunchRequest,
    spec: ModelSpec,
    variants: Sequence[Variant],
    adapters: Sequence[Engine],
    hosts: Sequence[Host],
) -> _Search:
    search = _Search()
    adapted = {name.casefold() for name in engine_names()}
    for variant in variants:
        for name in variant.engines:
            if name.casefold() not in adapted and request.model_engine is None:
                search.refused[name] = "this version of Paddock has no adapter for it"
        for engine in adapters:
            for host in hosts:
                reason = _refusal(engine, variant, host)
                weights = None
                if reason is None:
                    weights, reason = _weights(request, spec, variant, engine, host)
                if weights is None:
                    search.refused.setdefault(engine.name, reason or "")
                else:
                    search.servable.append(_Candidate(variant, engine, host, weights))
    served = {candidate.engine.name for candidate in search.servable}
    for name in served:
        search.refused.pop(name, None)
    return search


def _refusal(engine: Engine, variant: Variant, host: Host) -> str | None:
    if missing := host.engines[engine.name].missing:
        return missing
    if engine.formats:
        if variant.format not in engine.formats:
            return f"serves {', '.join(engine.formats)}, not {variant.format}"
        if engine.name.casefold() not in {name.casefold() for name in variant.engines}:
            return f"the spec does not list it for {variant.format}"
    return engine.refuses(variant, host)


def _weights(
    request: LaunchRequest, spec: ModelSpec, variant: Variant, engine: Engine, host: Host
) -> tuple[PlannedWeights | None, str | None]:
    """Where the weights come from, or why they cannot come."""
    size = weights_bytes(variant, spec.architecture)
    if not engine.formats:
        return PlannedWeights(hub="none", id="", size_bytes=0, here=True), None
    if request.model_path is not None:
        return _from_path(request.model_path, variant, host)
    why = "no source"
    for source in variant.sources:
        if request.hub is not None and source.hub != _hub(request.hub):
            why = f"the spec has no source on {_hub(request.hub)}"
            continue
        if source.hub == "local":
            found = _local(source, host)
            if found is not None:
                return found, None
            why = f"its weights ({source.id}) are not on {host.name}; they ship with a checkout only"
            continue
        files = (PlannedFile(name=source.file, size_bytes=variant.size_bytes),) if source.file else ()
        return PlannedWeights(
            hub=source.hub,
            id=source.id,
            revision=source.revision,
            files=files,
            size_bytes=size,
            here=False,
        ), None
    return None, why


def _hub(name: str) -> str:
    for known in HUBS:
        if known == name.casefold():
            return known
    raise UnknownName.among("hub", name, HUBS)


def _local(source: Source, host: Host) -> PlannedWeights | None:
    if source.file:
        size = host.files.get(f"{source.id}/{source.file}")
        files = {source.file: size} if size is not None else {}
    else:
        prefix = f"{source.id}/"
        files = {
            name.removeprefix(prefix): size
            for name, size in host.files.items()
            if name.startswith(prefix)
        }
    return _here("local", source.id, files) if files else None


def _under(path: str, hosts: Sequence[Host]) -> list[str]:
    return [
        name
        for host in hosts
        for name in host.files
        if name == path or posixpath.dirname(name) == path.rstrip("/")
    ]


def _from_path(
    path: str, variant: Variant, host: Host
) -> tuple[PlannedWeights | None, str | None]:
    """The weights at a path that the user named: a file, or the one file of a folder that fits."""
    if path in host.files:
        folder, name = posixpath.split(path)
        return _here("path", folder, {name: host.files[path]}), None
    folder = path.rstrip("/")
    inside = {
        posixpath.basename(name): host.files[name] for name in _under(path, [host])
    }
    if not inside:
        raise BadValue("model path", path, f"{host.name} has no such file, or no files in it")
    if variant.format != "ggufv2":
        return _here("path", folder, inside), None
    ggufs = {name: size for name, size in inside.items() if name.casefold().endswith(".gguf")}
    fitting = {name: size for name, size in ggufs.items() if _named_after(variant, name)}
    chosen = fitting or ggufs
    if len(chosen) == 1:
        return _here("path", folder, chosen), None
    if not chosen:
        return None, f"{path} holds no .gguf file"
    return None, f"{path} holds {len(chosen)} .gguf files; name the one to serve"


def _here(hub: str, identity: str, files: Mapping[str, int]) -> PlannedWeights:
    planned = tuple(PlannedFile(name=name, size_bytes=size) for name, size in sorted(files.items()))
    return PlannedWeights(
        hub=hub, id=identity, files=planned, size_bytes=sum(files.values()), here=True
    )


def _rank(candidate: _Candidate, spec: ModelSpec) -> tuple[object, ...]:
    """Best first: fits the free memory, is here, is recommended, largest (of those that fit)."""
    fits = candidate.weights.size_bytes <= 0.9 * candidate.host.memory_free_bytes
    quantization = candidate.variant.quantization
    preferred = (
        spec.recommended.index(quantization)
        if quantization in spec.recommended
        else len(spec.recommended)
    )
    size = candidate.weights.size_bytes
    return (
        not fits,
        not candidate.weights.here,
        preferred,
        -size if fits else size,
        -candidate.host.memory_free_bytes,
    )


def _plan(
    request: LaunchRequest,
    spec: ModelSpec,
    best: _Candidate,
    search: _Search,
    guessed: str | None,
) -> LaunchPlan:
    engine, host, variant = best.engine, best.host, best.variant
    options = engine.options.parse(engine.name, request.engine_options)
    options = engine.settle(options, host)
    context, slots, said = _room(request, spec, best, options)
    memory = _memory(spec, best, options, context, slots)
    warnings = _check_room(request, best, memory)
    reasons = [*_why(request, spec, best, search, guessed), *said]
    return LaunchPlan(
        model_id=request.uid,
        model=spec.name,
        type=spec.type,
        format=variant.format,
        size=variant.size,
        quantization=variant.quantization,
        abilities=spec.abilities,
        engine=engine.name,
        engine_version=host.engines[engine.name].version,
        options=options.model_dump(mode="json"),
        context_length=context,
        slots=slots,
        replicas=request.replicas,
        node=host.node,
        node_name=host.name,
        weights=best.weights,
        memory=memory,
        chat_template=spec.chat_template,
        languages=spec.languages,
        description=spec.description,
        reasons=tuple(reasons),
        refused=search.refused,
        warnings=tuple(warnings),
    )


def _memory(
    spec: ModelSpec, best: _Candidate, options: EngineOptions, context: int, slots: int
) -> MemoryEstimate:
    engine, tokens = best.engine, context * slots
    return MemoryEstimate(
        weights_bytes=best.weights.size_bytes,
        cache_bytes=cache_bytes(spec.architecture, tokens, engine.cache_element_bytes(options)),
        overhead_bytes=engine.overhead_bytes(spec.architecture, options, tokens),
        free_bytes=best.host.memory_free_bytes,
        paged=engine.pages(options),
    )


def _room(
    request: LaunchRequest, spec: ModelSpec, best: _Candidate, options: EngineOptions
) -> tuple[int, int, list[str]]:
    """Context and slots: as asked for, else the most that the memory gives."""
    by_option, slots = best.engine.room(options)
    context = by_option or request.context_length
    if by_option and request.context_length and by_option != request.context_length:
        raise BadValue(
            "context length", request.context_length, f"the engine's own option says {by_option}"
        )
    if context is not None and context > spec.context_length:
        raise BadValue(
            "context length", context, f"{spec.name} was trained for {spec.context_length} at most"
        )
    said: list[str] = []
    if context is None:
        context = spec.context_length
        while context > LEAST_CONTEXT and not _memory(
            spec, best, options, context, slots or 1
        ).can_run(request.replicas):
            context //= 2
        full = context == spec.context_length
        said.append(
            f"context {context}: {'all that the model has' if full else 'what the memory gives'}"
        )
    if slots is None:
        budget = CACHE_SHARE * best.host.memory_free_bytes / request.replicas
        slots = SLOTS
        while slots > 1 and _memory(spec, best, options, context, slots).cache_bytes > budget:
            slots //= 2
        said.append(
            f"{slots} slot{'s' if slots > 1 else ''}: the most, up to {SLOTS}, whose cache takes "
            f"no more than {CACHE_SHARE:.0%} of the free memory"
            if slots > 1
            else "1 slot: the caches of more would take too much of the free memory"
        )
    return context, slots, said


def _check_room(request: LaunchRequest, best: _Candidate, memory: MemoryEstimate) -> list[str]:
    """Warnings for a tight fit; raises `NoRoom` for what cannot run at all."""
    warnings = []
    if not memory.can_run(request.replicas):
        least = (
            memory.cache_bytes + memory.overhead_bytes if memory.paged else memory.total_bytes
        ) * request.replicas
        raise NoRoom(
            "memory",
            best.host.name,
            least,
            memory.free_bytes,
            "ask for a shorter --context-length, fewer replicas or a smaller --quantization",
        )
    if not memory.fits:
        warnings.append(
            f"{memory.total_bytes / 1e9:.2f} GB are needed and {memory.free_bytes / 1e9:.2f} GB "
            f"are free on {best.host.name}: weights will be read from the disk again and again, "
            "which is slow; a smaller --quantization fits better"
        )
    if not best.weights.here and best.weights.size_bytes > best.host.disk_free_bytes:
        raise NoRoom(
            "disk",
            best.host.name,
            best.weights.size_bytes,
            best.host.disk_free_bytes,
            "free some, or give weights that are on disk with --model-path",
        )
    return warnings


def _why(
    request: LaunchRequest,
    spec: ModelSpec,
    best: _Candidate,
    search: _Search,
    guessed: str | None,
) -> list[str]:
    """Reasons for what the user left open."""
    reasons = []
    variant = best.variant
    if guessed:
        reasons.append(f"variant: {guessed}")
    elif request.quantization is None or request.format is None:
        others = {c.variant.label for c in search.servable} - {variant.label}
        if not others:
            why = "the only variant that can be served here"
        elif variant.quantization in spec.recommended:
            why = "recommended by the spec and the best that can be served here"
        else:
            why = "the largest that fits the free memory"
        reasons.append(f"variant {variant.format} {variant.quantization}: {why}")
    if request.model_engine is None:
        others = {c.engine.name for c in search.servable} - {best.engine.name}
        why = "first choice" if others else "the only engine here that can"
        reasons.append(f"engine {best.engine.name}: {why} serve {variant.format}"
                       if not others else f"engine {best.engine.name}: {why} for {variant.format}")
    if request.node is None and len({c.host.node for c in search.servable}) > 1:
        reasons.append(f"node {best.host.name}: the most free memory")
    return reasons
