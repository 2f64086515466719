"""The reasons in a plan, for whatever the user left open."""

from __future__ import annotations

from collections.abc import Iterator

from paddock.engines.base import EngineOptions
from paddock.launcher.planning.budget import MACHINE_SHARE, SHARE, share_of
from paddock.launcher.planning.capacity import Fit
from paddock.launcher.planning.choice import Verdict
from paddock.launcher.planning.pairs import Candidate, Search


def explain_choices(
    fit: Fit, search: Search, guessed: str | None, verdict: Verdict
) -> Iterator[str]:
    """Reasons for what the user left open."""
    request, spec, best = fit.request, fit.spec, fit.best
    if request.lock is not None:
        at = f" at {request.lock.commit[:12]}" if request.lock.commit else ""
        count = len(request.lock.files)
        yield f"locked: {count} file{'s' * (count > 1)} of {request.lock.id}{at}"
    variant = best.variant
    sizes = {v.size for v in spec.variants}
    label = f"{variant.format} {variant.quantization}"
    if len(sizes) > 1:
        label = f"{variant.size} {label}"
    if guessed:
        yield f"variant {label}: {guessed}"
    elif None in {request.quantization, request.format} or (len(sizes) > 1 and not request.size):
        yield f"variant {label}: {_explain_variant(fit, search, verdict)}"
    if request.model_engine is None:
        only = {candidate.engine.name for candidate in search.servable} == {best.engine.name}
        reason = "the only engine here that can serve" if only else "the first choice for"
        where = " on GPUs" if best.gpus and not only else ""
        yield f"engine {best.engine.name}: {reason} {variant.format}{where}"
    if best.weights.others:
        names = ", ".join(source.hub for source in best.weights.others)
        yield f"hub {best.weights.hub}: the first that the spec names; {names} if it fails"
    if request.node is None and len({c.host.node for c in search.servable}) > 1:
        yield f"node {best.host.name}: {_explain_node(best, search)}"


def _explain_node(best: Candidate, search: Search) -> str:
    same = [one for one in search.servable if one.variant is best.variant]
    if best.free_bytes == max(one.free_bytes for one in same):
        return "the most free memory"
    return "the weights are there" if best.weights.here else "the first that it fits"


def explain_options(requested: EngineOptions, settled: EngineOptions) -> Iterator[str]:
    """A reason for each option that the user left to the engine.

    Reasons are in the options' descriptions: after `left out: ` for a value that the engine
    chooses, after the value itself for a default.
    """
    for name, described in type(settled).model_fields.items():
        value = getattr(settled, name)
        text = str(value).lower() if isinstance(value, bool) else str(value)
        chosen = value != getattr(requested, name)
        case = "left out" if chosen else text
        _, _, reason = (described.description or "").partition(f"; {case}: ")
        if reason and name not in requested.model_fields_set:
            yield f"{name} {text}: {reason.partition(';')[0]}"


def _explain_variant(fit: Fit, search: Search, verdict: Verdict) -> str:
    best, request = fit.best, fit.request
    if {candidate.variant.label for candidate in search.servable} == {best.variant.label}:
        return "the only one that can be served here"
    share = "half" if share_of(request) <= MACHINE_SHARE else f"{SHARE:.0%}"
    if verdict.level == 1:
        return f"the smallest, because none fits {share} of the machine's memory"
    if verdict.level == 2:
        return "the smallest, because none fits the memory"
    reasons = []
    if best.weights.here:
        reasons.append("its weights are here")
    if len({candidate.variant.size for candidate in search.servable}) > 1:
        reasons.append(_explain_size(fit, verdict, share))
    if request.quantization is None:
        reasons.append(_explain_quantization(fit, verdict))
    return "; ".join(reasons) or "the first that can be served here"


def _explain_size(fit: Fit, verdict: Verdict, share: str) -> str:
    speed = f" (≈ {verdict.speed:.0f} tokens/s)" if verdict.speed else ""
    if fit.best.gpus:
        return f"of the sizes the largest that fits the GPU's memory{speed}"
    if fit.spec.type != "LLM":
        return f"of the sizes the largest that fits {share} of the machine's memory"
    if not verdict.quick:
        return f"of the sizes the quickest, though slow on a processor{speed}"
    return (
        f"of the sizes the largest that is quick on a processor{speed} and fits {share} of the "
        "machine's memory"
    )


def _explain_quantization(fit: Fit, verdict: Verdict) -> str:
    name = fit.best.variant.quantization
    if "quantization" in fit.request.automatic:
        return "the most bits that the free memory holds"
    if name in fit.spec.recommended:
        return "recommended by the spec"
    if fit.spec.type != "LLM":
        return "the most exact that fits"
    return (
        "loses little for its size",
        "fewer bits than 4 lose more, and others do not fit",
        "not quantized, because no quantized files can be served here",
        "quantized while it is read, because nothing else fits",
    )[verdict.tier]
