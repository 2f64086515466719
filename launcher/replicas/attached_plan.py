"""The plan of an attached model, from what its endpoint answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from paddock.engines import attached as engine
from paddock.launcher.hosts.host import LOCAL
from paddock.launcher.planning.plan import (
    Attached,
    LaunchPlan,
    MemoryEstimate,
    PlannedWeights,
    check_uid,
)
from paddock.launcher.replicas.attach_request import AttachRequest, is_loopback
from paddock.launcher.replicas.attached_probe import Remote, name_some
from paddock.registry.abilities import find_ability, probed_abilities, type_of
from paddock.registry.errors import BadValue, UnknownName


def plan_attached(request: AttachRequest) -> LaunchPlan:
    """Asks the endpoint for what the request leaves open, and whether it can do it. Blocks.

    Raises:
        Failure: it cannot be reached, does not take the key, or has no such API.
        UnknownName, BadValue: the model is not there, or is not named among several.
    """
    remote = Remote(request.endpoint, request.api_key)
    models = remote.models()
    if models is None and request.model is None:
        raise remote.unfit("has no list of models at /models: wrong path? (it often ends in /v1)")
    name = _choose_model(request, models)
    uid = request.model_uid or name
    try:
        check_uid(uid)
    except BadValue as error:
        reason = f"the name there is no model id ({error.reason}); give one with --model-uid"
        raise BadValue("model id", uid, reason) from None
    row = (models or {}).get(name, {})
    names = request.abilities or _listed_abilities(row)
    if names:
        needed = next(ability for ability in probed_abilities() if ability in names)
        if refused := remote.able(name, needed):
            raise remote.unfit(f"does not {needed} with {name}: {refused}")
        reasons = [
            "abilities: as asked for" if request.abilities else "abilities: as it lists them"
        ]
    else:
        refusals = {ability: remote.able(name, ability) for ability in probed_abilities()}
        names = tuple(ability for ability, reason in refusals.items() if reason is None)
        if not names:
            raise remote.unfit(f"cannot use {name}: {'; '.join(filter(None, refusals.values()))}")
        reasons = ["abilities: the routes that answered; --ability adds others, such as tools"]
    context = request.context_length or _listed_context(row)
    parts = urlsplit(request.endpoint)
    warnings = []
    if request.api_key and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        warnings.append("the key and all requests go there unencrypted: http, not https")
    return LaunchPlan(
        model_id=uid,
        model=name,
        type=type_of(names),
        format="attached",
        size="unknown",
        quantization="unknown",
        abilities=names,
        engine=engine.NAME,
        engine_version="",
        options={},
        context_length=context,
        slots=request.slots,
        replicas=1,
        node=LOCAL,
        node_name=parts.netloc,
        weights=PlannedWeights(hub="none", id="", size_bytes=0, here=True),
        memory=MemoryEstimate(weights_bytes=0, cache_bytes=0, overhead_bytes=0, free_bytes=0),
        reasons=tuple(reasons),
        warnings=tuple(warnings),
        attached=Attached(url=request.endpoint, model=name, listed=name in (models or {})),
    )


def _choose_model(request: AttachRequest, models: Mapping[str, Any] | None) -> str:
    if request.model is not None:
        if models and request.model not in models:
            raise UnknownName.among("model", request.model, models, of=request.endpoint)
        return request.model
    if len(models or ()) == 1:
        return next(iter(models or ()))
    reason = (
        f"is needed: {request.endpoint} has several{name_some(models or ())}; name one with --model"
    )
    if not models:
        reason = f"is needed: {request.endpoint} lists none; name one with --model"
    raise BadValue("model", None, reason)


def _listed_abilities(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What another Paddock, or Xinference, says that the model can do."""
    listed = row.get("model_ability")
    names = listed if isinstance(listed, list) else []
    return tuple(dict.fromkeys(name for name in names if find_ability(name)))


def _listed_context(row: Mapping[str, Any]) -> int:
    """The context by the names that Paddock, vLLM and llama.cpp have for it; 0 if none is there."""
    meta = row.get("meta")
    inside = meta if isinstance(meta, dict) else {}
    for value in (row.get("context_length"), row.get("max_model_len"), inside.get("n_ctx")):
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 0
