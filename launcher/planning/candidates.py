"""The pairs of variant, engine and host that can serve a request, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from paddock.engines import BUILT_IN, engine_names, fold, load_engine
from paddock.engines.base import UNKNOWN, Detection, Engine, EngineOptions, Host
from paddock.engines.evidence import NO_EVIDENCE
from paddock.launcher.planning.memory import (
    AT_LOAD,
    loaded_bytes,
)
from paddock.launcher.planning.pairs import (
    NO_ADAPTER,
    NO_WEIGHTS,
    NOT_HERE,
    NOT_LISTED,
    REFUSED,
    WRONG_FORMAT,
    Candidate,
    Pair,
    Search,
)
from paddock.launcher.planning.placement import eligible_gpus
from paddock.launcher.planning.plan import (
    LaunchRequest,
)
from paddock.launcher.planning.weight_sources import files_at, is_named_as, plan_weights
from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.spec import UNKNOWN_ARCHITECTURE, ModelSpec, Variant, source_key

_LABELLED = ("format", "quantization")


def allowed_hosts(request: LaunchRequest, hosts: Sequence[Host]) -> Sequence[Host]:
    """The hosts that the request's node names. Raises `UnknownName` where it names none."""
    if request.node is None:
        return hosts
    node = request.node
    allowed = [
        host
        for host in hosts
        if node in {host.name, host.address, host.node}
        or (len(node) >= 6 and host.node.startswith(node))
    ]
    if not allowed:
        known = [f"{host.name} ({host.node[:12]})" for host in hosts]
        raise UnknownName.among("node", node, known)
    return allowed


def select_variants(
    request: LaunchRequest, spec: ModelSpec, hosts: Sequence[Host]
) -> tuple[tuple[Variant, ...], str | None]:
    """The variants that fit the request, and the reason if a path alone decided.

    Raises:
        BadValue: the names at the path contradict the request, or do not tell the variant.
    """
    matches = spec.select(
        format=request.format, size=request.size, quantization=request.quantization
    )
    if request.model_path is None:
        return matches, None
    names = {name for host in hosts for name in files_at(request.model_path, host)}
    named = tuple(variant for variant in matches if is_named_as(variant, names))
    if named:
        open_ = request.format is None or request.quantization is None
        reason = f"the name of the file says {named[0].format} {named[0].quantization}"
        return named, reason if open_ and len(named) == 1 else None
    contradicted = next((v for v in spec.variants if is_named_as(v, names)), None)
    if contradicted is not None:
        raise BadValue(
            "model path",
            request.model_path,
            f"its name says {contradicted.format} {contradicted.quantization}, which is not "
            "what was asked for",
        )
    if len({(v.format, v.quantization) for v in matches}) == 1:
        return matches, None
    raise BadValue(
        "model path",
        request.model_path,
        "the files' names do not tell the variant; add --model-format and --quantization",
    )


def shared_label(spec: ModelSpec, variants: Sequence[Variant]) -> str:
    """The model's name, with the format and quantization that all variants share."""
    formats, quantizations = ({getattr(v, name) for v in variants} for name in _LABELLED)
    shared = [next(iter(values)) for values in (formats, quantizations) if len(values) == 1]
    return " ".join([spec.name, *shared])


def list_alternatives(spec: ModelSpec, hosts: Sequence[Host]) -> tuple[str, ...]:
    """The variants that a launch without any wishes could choose from."""
    search = search_candidates(LaunchRequest(model_name=spec.name), spec, spec.variants, hosts)
    return tuple(dict.fromkeys(candidate.variant.label for candidate in search.servable))


def search_candidates(
    request: LaunchRequest, spec: ModelSpec, variants: Sequence[Variant], hosts: Sequence[Host]
) -> Search:
    """Pairs variants with engines and hosts."""
    search = Search()
    adapted = {name.casefold() for name in engine_names()}
    alike = _group(request, variants, hosts)
    for engine in _engines(request, spec, search):
        for variant in variants:
            for group in alike:
                _pair(request, spec, Pair(variant, engine, group[0]), group, search)
    if request.model_engine is None:
        for name in dict.fromkeys(name for variant in variants for name in variant.engines):
            if name.casefold() not in adapted:
                search.refuse(name, NO_ADAPTER, "this version of Paddock has no adapter for it")
    return search


def _engines(request: LaunchRequest, spec: ModelSpec, search: Search) -> Iterator[Engine]:
    """The engine that the request names, or all that may be chosen."""
    if request.model_engine is None:
        adapters = map(load_engine, engine_names())
        yield from (e for e in adapters if e.automatic and spec.type in e.types)
        return
    engine_name = fold(request.model_engine)
    listed = dict.fromkeys(name for variant in spec.variants for name in variant.engines)
    if engine_name in {name.casefold() for name in engine_names()}:
        engine = load_engine(request.model_engine)
        if spec.type in engine.types:
            yield engine
            return
        reason = f"serves models of type {' and '.join(engine.types)}, not {spec.type}"
        search.refuse(engine.name, WRONG_FORMAT, reason)
        return
    for name in listed:
        if name.casefold() == engine_name:
            search.refuse(name, NO_ADAPTER, "this version of Paddock has no adapter for it")
            return
    raise UnknownName.among("engine", request.model_engine, [*engine_names(), *listed])


def _group(
    request: LaunchRequest, variants: Sequence[Variant], hosts: Sequence[Host]
) -> list[list[Host]]:
    """The hosts in groups of those that can serve the same, whatever memory they have."""
    if len(hosts) == 1:
        return [list(hosts)]
    sources = {source_key(source) for variant in variants for source in variant.sources}
    folders = tuple(f"{source.id}/" for v in variants for source in v.sources)
    paths = tuple(request.paths)

    def is_of_model(name: str) -> bool:
        if request.lock is not None:  # it names places that the spec does not
            return True
        return name in sources or name.startswith(folders) or name.startswith(paths)

    groups: list[tuple[Host, list[Host]]] = []
    for host in hosts:
        kind = replace(
            host,
            node="",
            name="",
            address="",
            memory_total_bytes=0,
            memory_free_bytes=0,
            memory_bandwidth=0.0,
            disk_free_bytes=0,
            files={name: size for name, size in host.files.items() if is_of_model(name)},
            gpus=tuple(replace(gpu, free_bytes=0) for gpu in host.gpus),
            reserved={},
            used={},
            age_seconds=0.0,
            evidence=NO_EVIDENCE,
        )
        group = next((group for other, group in groups if other == kind), None)
        if group is None:
            groups.append((kind, [host]))
        else:
            group.append(host)
    return [group for _, group in groups]


def _pair(
    request: LaunchRequest, spec: ModelSpec, pair: Pair, alike: Sequence[Host], search: Search
) -> None:
    """Adds the pair, on each of the hosts alike, to what can be served; or why not to refusals."""
    variant, engine = pair.variant, pair.engine
    if refusal := _find_refusal(spec, pair):
        return search.refuse(engine.name, *refusal)
    options = _options(engine, request)
    weights = plan_weights(request, spec, pair)
    if isinstance(weights, str):
        return search.refuse(engine.name, NO_WEIGHTS, weights)
    width = engine.weight_element_bytes(options)
    loaded = loaded_bytes(variant, spec.shape(variant.size), weights.size_bytes, width)
    for host in alike:
        eligible = eligible_gpus(request, engine, host, options)
        if isinstance(eligible, str):
            search.refuse(engine.name, REFUSED, eligible)
        else:
            candidate = Candidate(variant, engine, host, weights, loaded, *eligible)
            search.servable.append(candidate)
    return None


def _options(engine: Engine, request: LaunchRequest) -> EngineOptions:
    try:
        return engine.options.parse(engine.name, request.engine_options)
    except (UnknownName, BadValue):  # of another engine, or refused once this one is chosen
        return engine.options()


def unable(spec: ModelSpec, variant: Variant, engine: Engine, host: Host) -> str | None:
    """Why the engine cannot serve the variant on the host; None if it can, given the weights."""
    if spec.type not in engine.types:
        return f"serves models of type {' and '.join(engine.types)}, not {spec.type}"
    refusal = _find_refusal(spec, Pair(variant, engine, host))
    return refusal[1] if refusal else None


def _find_refusal(spec: ModelSpec, pair: Pair) -> tuple[int, str] | None:
    """Why the engine cannot serve the variant on the host, whatever weights there are."""
    variant, engine, name = pair.variant, pair.engine, pair.engine.name
    detection = pair.host.engines.get(name, UNKNOWN)
    if detection.missing:
        return NOT_HERE, detection.missing
    if not engine.formats:
        return None
    if variant.format not in engine.formats:
        return WRONG_FORMAT, f"serves {', '.join(engine.formats)}, not {variant.format}"
    # Specs do not list engines from other packages: such an engine is asked itself.
    if name in BUILT_IN and name.casefold() not in {n.casefold() for n in variant.engines}:
        return NOT_LISTED, f"the spec does not list it for {variant.format}"
    reason = _unknown_there(spec, variant, engine, detection) or engine.refuses(variant, pair.host)
    return (REFUSED, reason) if reason else None


def _unknown_there(
    spec: ModelSpec, variant: Variant, engine: Engine, detection: Detection
) -> str | None:
    """Why the engine, as detected on a node, cannot serve the variant."""
    architecture = spec.shape(variant.size).name
    known = architecture in detection.architectures or not detection.architectures
    known = known and architecture not in detection.unknown
    if not known and architecture != UNKNOWN_ARCHITECTURE:
        return f"{engine.name} {detection.version} does not know the architecture {architecture}"
    if detection.formats and (
        variant.format not in detection.formats or variant.quantization in AT_LOAD
    ):
        assert engine.environment is not None
        install = f"paddock engine install {engine.environment.name}"
        return f"Paddock's own environment has not all that this takes; to have it: {install}"
    return None
