"""`resolve`: from what a user asks for to what a launch will do. Pure: no clock, disk or network.

The steps: find the variants that fit the request; pair each with each engine and host and note who
refuses and why; choose the best pair that is left; settle its options, context and slots; reckon
the memory. Each choice that the user left open leaves a reason in the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paddock.engines.base import Host
from paddock.launcher.planning.candidates import (
    allowed_hosts,
    list_alternatives,
    rank,
    search_candidates,
    select_variants,
    shared_label,
)
from paddock.launcher.planning.capacity import Fit, check_memory, choose_context_and_slots
from paddock.launcher.planning.explain import explain_choices, explain_options
from paddock.launcher.planning.lock import pin, pinned_weights, with_engine
from paddock.launcher.planning.memory import (
    loaded_bytes,
    weights_bytes,
)
from paddock.launcher.planning.placement import (
    check_gpus,
    explain_gpus,
    gpus_of_replicas,
)
from paddock.launcher.planning.plan import (
    LaunchPlan,
    LaunchRequest,
    PlannedWeights,
)
from paddock.launcher.planning.reservations import explain_reservations
from paddock.launcher.planning.weight_sources import (
    add_projector,
    check_source,
    plan_from_sources,
    with_projector,
)
from paddock.registry.catalog import Catalog
from paddock.registry.errors import NoEngine
from paddock.registry.spec import ModelSpec, Variant


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
    allowed = allowed_hosts(request, hosts)
    if request.lock is not None:
        allowed = with_engine(request.lock, allowed)
    check_source(request, allowed)
    check_gpus(request, allowed)
    variants, guessed = select_variants(request, spec, allowed)
    search = search_candidates(request, spec, variants, allowed)
    if not search.servable:
        label = variants[0].label if len(variants) == 1 else shared_label(spec, variants)
        raise NoEngine(label, search.refused, list_alternatives(spec, hosts))
    best = min(search.servable, key=lambda candidate: rank(request, spec, candidate))
    requested = best.engine.options.parse(best.engine.name, request.engine_options)
    copied = best.loaded_bytes * request.replicas
    options = best.engine.fill_defaults(requested, best.host, copied)
    fit = Fit(request, spec, best, options)
    context, slots, capacity_reasons = choose_context_and_slots(fit)
    memory = fit.memory(context, slots)
    warnings = check_memory(fit, memory, context, slots)
    weights, abilities = with_projector(request, spec, best)
    gpus = gpus_of_replicas(memory, best.gpus)
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
            *explain_choices(fit, search, guessed),
            *explain_gpus(memory, gpus, len(best.gpus)),
            *filter(None, [explain_reservations(best.host)]),
            *capacity_reasons,
            *explain_options(requested, options),
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
    check_source(request, hosts)
    variants, _ = select_variants(request, spec, hosts)
    search = search_candidates(request, spec, variants, hosts)
    if search.servable:
        best = min(search.servable, key=lambda candidate: rank(request, spec, candidate))
        return best.variant, add_projector(request, best.variant, best.weights, best.host)
    recommended = [v for name in spec.recommended for v in variants if v.quantization == name]
    for variant in (*recommended, *variants):
        weights = (
            pinned_weights(request.lock, hosts[0], request.offline)
            if request.lock is not None
            else plan_from_sources(request, spec, variant, hosts[0])
        )
        if isinstance(weights, PlannedWeights):
            return variant, add_projector(request, variant, weights, hosts[0])
    raise NoEngine(variants[0].label, {"download": str(weights)})


def resolve_lock(
    request: LaunchRequest, catalog: Catalog, hosts: Sequence[Host]
) -> tuple[Variant, PlannedWeights, str, str]:
    """What a launch would choose, to be locked: variant, weights, engine and its version.

    Raises as `resolve`, but for the memory and the disk, which a lock does not need.
    """
    spec = catalog.lookup(request.model_name)
    check_source(request, hosts)
    variants, _ = select_variants(request, spec, hosts)
    search = search_candidates(request, spec, variants, hosts)
    if not search.servable:
        label = variants[0].label if len(variants) == 1 else shared_label(spec, variants)
        raise NoEngine(label, search.refused, list_alternatives(spec, hosts))
    best = min(search.servable, key=lambda candidate: rank(request, spec, candidate))
    return best.variant, best.weights, best.engine.name, best.host.engines[best.engine.name].version


def list_offers(spec: ModelSpec, host: Host) -> Iterator[tuple[Variant, str, int, bool]]:
    """Every variant, the engine that a launch on the host would take or none, and its memory.

    The last says whether that is a GPU's.
    """
    request = LaunchRequest(model_name=spec.name)
    search = search_candidates(request, spec, spec.variants, [host])
    ranked = sorted(search.servable, key=lambda candidate: rank(request, spec, candidate))
    best = {candidate.variant.label: candidate for candidate in reversed(ranked)}
    for variant in spec.variants:
        choice = best.get(variant.label)
        if choice is not None:
            yield variant, choice.engine.name, choice.loaded_bytes, bool(choice.gpus)
        else:
            shape = spec.shape(variant.size)
            stored = weights_bytes(variant, shape)
            yield variant, "", loaded_bytes(variant, shape, stored), False
