"""`resolve`: from what a user asks for to what a launch will do. Pure: no clock, disk or network.

The steps: find the variants that fit the request; pair each with each engine and host and note who
refuses and why; choose the best pair that is left; settle its options, context and slots; reckon
the memory. Each choice that the user left open leaves a reason in the plan.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paddock.engines.base import Host
from paddock.launcher.planning.candidates import (
    allowed_hosts,
    list_alternatives,
    search_candidates,
    select_variants,
    shared_label,
)
from paddock.launcher.planning.capacity import Fit, choose_context_and_slots, settle
from paddock.launcher.planning.choice import Judge, choose, rank
from paddock.launcher.planning.command import launch_command
from paddock.launcher.planning.expect import expect
from paddock.launcher.planning.explain import explain_choices, explain_options
from paddock.launcher.planning.headroom import check_memory, fits_well
from paddock.launcher.planning.lock import pin, pinned_weights, with_engine
from paddock.launcher.planning.pairs import Candidate
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
from paddock.launcher.planning.prompt import plan_prompt
from paddock.launcher.planning.reservations import explain_reservations
from paddock.launcher.planning.shrink import Change, changes
from paddock.launcher.planning.weight_sources import (
    add_projector,
    check_source,
    plan_from_sources,
    with_projector,
)
from paddock.registry.catalog import Catalog
from paddock.registry.errors import NoEngine, Refused
from paddock.registry.spec import ModelSpec, Variant

MOST_OFFERS = 3
"""Commands in a refusal."""


@dataclass(frozen=True)
class Draft:
    """A plan that was not compared with the free memory yet, and the candidate behind it."""

    plan: LaunchPlan
    fit: Fit


def resolve(request: LaunchRequest, catalog: Catalog, hosts: Sequence[Host]) -> LaunchPlan:
    """The plan that carries out the request on one of the hosts (the gateway's own comes first).

    With `fit` it is the plan of `fit_request`. With `force` nothing is refused for want of memory.

    Raises:
        UnknownName: the model, format, size, quantization, engine, node, hub or option.
        BadValue: an option's value, a context beyond the model's, a path with no such weights.
        NoEngine: no engine here serves any variant that was asked for; with each reason.
        NoRoom: the node's memory or disk cannot take it; with the commands of what it can take.
        NotLocked: the request or the node contradicts the request's lock.
    """
    if request.fit:
        smaller, concessions = fit_request(request, catalog, hosts)
        plan = resolve(smaller, catalog, hosts)
        return plan.model_copy(update={"reasons": (*plan.reasons, *concessions)})
    first = draft(request, catalog, hosts)
    warnings = check_memory(first.plan, first.fit, lambda: offer(first, catalog, hosts))
    return first.plan.model_copy(update={"warnings": tuple(warnings)})


def fit_request(
    request: LaunchRequest, catalog: Catalog, hosts: Sequence[Host]
) -> tuple[LaunchRequest, tuple[str, ...]]:
    """The request with the first change by which it fits what is free, and a reason for it.

    As it is, where it fits, or where no change helps: then it is refused as any other.
    """
    plain = request.model_copy(update={"fit": False})
    first = draft(plain, catalog, hosts)
    if fits_well(first.plan.memory, first.fit.best):
        return plain, ()
    for _, change in _fitting_changes(first, catalog, hosts):
        return change.request, (f"to fit what is free: {change.words}",)
    return plain, ()


def offer(refused: Draft, catalog: Catalog, hosts: Sequence[Host]) -> tuple[str, ...]:
    """The commands of what fits in place of a draft: one for each kind of change."""
    fitting = _fitting_changes(refused, catalog, hosts)
    return tuple(
        launch_command(change.request) for _, change in itertools.islice(fitting, MOST_OFFERS)
    )


def _fitting_changes(
    refused: Draft, catalog: Catalog, hosts: Sequence[Host]
) -> Iterator[tuple[str, Change]]:
    """Of each kind of change the first that fits."""
    plan, fit = refused.plan, refused.fit
    anything = LaunchRequest(
        model_name=fit.request.model_name,
        model_engine=fit.request.model_engine,
        offline=fit.request.offline,
        node=fit.request.node,
        n_gpu=fit.request.n_gpu,
        gpu_idx=fit.request.gpu_idx,
    )
    variants = fit.spec.variants
    search = search_candidates(anything, fit.spec, variants, allowed_hosts(anything, hosts))
    ranked = rank(anything, fit.spec, search.servable)
    for kind, several in changes(fit, plan.context_length, plan.slots, ranked):
        for change in several:
            try:
                other = draft(change.request, catalog, hosts)
            except Refused:  # an option that does not go with the others
                continue
            if fits_well(other.plan.memory, other.fit.best):
                yield kind, change
                break


def draft(request: LaunchRequest, catalog: Catalog, hosts: Sequence[Host]) -> Draft:
    """The plan that `resolve` would return, whether there is memory for it or not.

    Raises as `resolve`, but `NoRoom`.
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
    best, verdict = choose(request, spec, search.servable)
    requested = best.engine.options.parse(best.engine.name, request.engine_options)
    fit = settle(request, spec, best)
    context, slots, capacity_reasons = choose_context_and_slots(fit)
    memory = fit.memory(context, slots)
    weights, abilities = with_projector(request, spec, best)
    chat = plan_prompt(request, spec)
    gpus = gpus_of_replicas(memory, best.gpus)
    plan = LaunchPlan(
        model_id=request.uid,
        model=spec.name,
        type=spec.type,
        format=best.variant.format,
        size=best.variant.size,
        quantization=best.variant.quantization,
        abilities=chat.abilities(abilities),
        engine=best.engine.name,
        engine_version=best.host.engines[best.engine.name].version,
        options=fit.options.model_dump(mode="json"),
        context_length=context,
        slots=slots,
        replicas=request.replicas,
        node=best.host.node,
        node_name=best.host.name,
        weights=weights,
        memory=memory,
        gpus=gpus,
        **chat.fields,
        embedding=spec.embedding,
        ranking=spec.ranking,
        languages=spec.languages,
        description=spec.description,
        reasons=(
            *explain_choices(fit, search, guessed, verdict),
            *explain_gpus(memory, gpus, len(best.gpus)),
            *filter(None, [explain_reservations(best.host)]),
            *capacity_reasons,
            *explain_options(requested, fit.options),
            *chat.reasons,
        ),
        refused=search.refused,
        memory_limit=request.memory_limit,
    )
    expected = expect(plan, best, spec.shape(best.variant.size))
    return Draft(plan.model_copy(update={"expected": expected}), fit)


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
        best, _ = choose(request, spec, search.servable)
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
    best, _ = choose(request, spec, search.servable)
    return best.variant, best.weights, best.engine.name, best.host.engines[best.engine.name].version


def list_offers(spec: ModelSpec, host: Host) -> Iterator[tuple[Variant, Candidate | None, int]]:
    """Every variant with what a launch on the host would take of it, and the memory it needs.

    Those that can be served come first, in the order in which a launch chooses among them.
    """
    request = LaunchRequest(model_name=spec.name)
    search = search_candidates(request, spec, spec.variants, [host])
    judge = Judge(request, spec)
    best: dict[str, Candidate] = {}
    for candidate in sorted(search.servable, key=judge.key):
        best.setdefault(candidate.variant.label, candidate)
    for candidate in best.values():
        yield candidate.variant, candidate, judge.needed_bytes(candidate)
    for variant in spec.variants:
        if variant.label not in best:
            yield variant, None, 0
