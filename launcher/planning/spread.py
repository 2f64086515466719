"""Places the replicas of a launch one by one, on the node that has the fewest of them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from paddock.engines.base import Host
from paddock.launcher.planning.place import Place
from paddock.launcher.planning.placement import estimate_more_replicas, memory_refusal
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest
from paddock.launcher.planning.reservations import explain_reservations, subtract_places
from paddock.launcher.planning.resolve import resolve
from paddock.registry.catalog import Catalog
from paddock.registry.errors import Refused


def plan_replicas(
    request: LaunchRequest, catalog: Catalog, hosts: Sequence[Host]
) -> tuple[LaunchPlan, tuple[Place, ...]]:
    """The plan, and where each replica runs.

    The first replica decides variant, engine, context and slots; the others follow it on whichever
    nodes can do the same, and each is planned there by itself. With one node, or one that the
    request names, all are planned on it together.

    Raises:
        Refused: as `resolve`; of several nodes that refuse a replica, the last reason.
    """
    if request.replicas == 1 or request.node is not None or len(hosts) == 1:
        plan = resolve(request, catalog, hosts)
        return plan, tuple(Place.of(plan, number) for number in range(request.replicas))
    single = request.model_copy(update={"replicas": 1})
    first = resolve(single, catalog, hosts)
    places = [Place.of(first)]
    for _ in range(request.replicas - 1):
        places.append(place_another(single, catalog, hosts, first, places))
    memory = first.memory.model_copy(update={"replicas": request.replicas})
    gpus = tuple(place.gpus for place in places) if first.gpus else ()
    nodes = Counter(place.node_name for place in places)
    spread = ", ".join(f"{count} on {name}" for name, count in nodes.items())
    changes = {
        "replicas": request.replicas,
        "memory": memory,
        "gpus": gpus,
        "reasons": (*first.reasons, f"replicas are spread over the nodes: {spread}"),
    }
    return first.model_copy(update=changes), tuple(places)


def place_another(
    request: LaunchRequest,
    catalog: Catalog,
    hosts: Sequence[Host],
    plan: LaunchPlan,
    places: Sequence[Place],
    promised: bool = True,
) -> Place:
    """The place of one more replica of a plan, beside those at `places`.

    Args:
        promised: the replicas at `places` have not taken their memory yet; it is not free.

    Raises:
        Refused: no node can take it; with the reason of the node that would have been best.
    """
    count = Counter(place.node for place in places)
    free_hosts = [subtract_places(host, plan, places) if promised else host for host in hosts]
    ranked = sorted(free_hosts, key=lambda host: (count[host.node], -host.memory_free_bytes))
    pinned = _pinned(request, plan)
    refusal: Refused | None = None
    for host in ranked:
        try:
            return _place_on(host, pinned, catalog, plan)
        except Refused as error:
            refusal = refusal or error
    assert refusal is not None  # there is a host: the gateway's own
    raise refusal


def _place_on(host: Host, request: LaunchRequest, catalog: Catalog, plan: LaunchPlan) -> Place:
    """The place of one more replica on this host. Raises `Refused`."""
    # By the plan's own figures: a new plan would give the host fewer slots where memory is short.
    memory, groups = estimate_more_replicas(plan, host, 1)
    if not memory.can_run and not request.force:
        reserved = explain_reservations(host)
        out = "terminate another model, or ask for fewer" + (f" ({reserved})" if reserved else "")
        raise memory_refusal(memory, groups, host, out)
    own = resolve(request, catalog, [host])
    if host.node == plan.node:
        return Place(host.node, host.name, own.gpus_of(0))
    return Place(host.node, host.name, own.gpus_of(0), own.model_copy(update={"slots": plan.slots}))


def _pinned(request: LaunchRequest, plan: LaunchPlan) -> LaunchRequest:
    """The request for one replica of just this plan, wherever it runs."""
    return request.model_copy(
        update={
            "replicas": 1,
            "node": None,
            "model_engine": plan.engine,
            "format": plan.format,
            "size": plan.size,
            "quantization": plan.quantization,
            "context_length": plan.context_length or None,
            "automatic": (),
            "fit": False,
        }
    )
