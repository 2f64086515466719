"""Weights from where they live to a path on this node. Hubs' clients are imported when used."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from paddock.launcher.planning.plan import PlannedWeights
from paddock.launcher.weights import local
from paddock.launcher.weights.base import Cancelled, Hub, Terms, one_line
from paddock.launcher.weights.job import Job, bring, cached, cached_files, is_whole
from paddock.launcher.weights.progress import FileProgress, Progress, Report
from paddock.launcher.weights.reachability import Reach
from paddock.launcher.weights.transfer import FULL
from paddock.registry.errors import HubFailure
from paddock.registry.files import is_refused_write
from paddock.registry.hubs import LOCAL, hub_site

T = TypeVar("T")
ELSEWHERE = {
    "hub_unreachable",
    "stalled",
    "rate_limited",
    "not_found",
    "gated_repo",
    "token_refused",
}
"""Causes for which the next hub is asked, where the plan names one."""

_NO_FOLDER = {errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
"""What the system says of a cache at a path that is no folder."""


def load_hub(name: str) -> Hub:
    """The adapter of a hub; its client is imported now.

    Raises:
        UnknownName: no hub has this name.
        HubFailure: its adapter, or its client, cannot be imported.
    """
    site = hub_site(name)
    adapter = site.adapter
    module, _, attribute = adapter.partition(":")
    try:
        hub: Hub = getattr(import_module(module), attribute)()
    except Exception as error:  # another package's code may raise anything
        cause = f"{type(error).__name__}: {one_line(error)}"
        reason = f"the hub {name} cannot be used: {adapter} does not load ({cause})"
        hint = "mend or remove its package"
        if site.endpoint_variable in os.environ:
            hint = f"is {site.endpoint_variable} an address, such as https://{site.hosts[0]}?"
        raise HubFailure("hub_unreachable", f"{reason}; {hint}") from error
    return hub


def fetch(
    weights: PlannedWeights, terms: Terms, report: Report, cancelled: Cancelled
) -> Path | None:
    """Brings the weights to this node. None if the plan needs no weights.

    What is cached and whole, on any of the plan's hubs, is taken without a request. Otherwise the
    hubs are tried in the plan's order, those last that did not answer lately.

    Raises:
        HubFailure: no hub answers, or has them, or gives them.
    """
    if weights.hub == "none":
        return None
    if weights.hub in LOCAL:
        return local.find(weights, terms, report, cancelled)
    jobs: list[Job] = []
    for source in weights.sources:  # a hub's client is only imported when it is its turn
        jobs.append(
            Job(
                load_hub(source.hub),
                source,
                terms,
                report,
                cancelled,
                lock=weights.lock,
                trusted=weights.trusted,
            )
        )
        path = cached(jobs[-1])
        if path is not None:
            return path
    if weights.offline:
        raise HubFailure(
            "hub_unreachable", f"{weights.id} is not cached, and --offline was asked for"
        )
    try:
        return ask(jobs, bring)
    except OSError as error:
        if error.errno in FULL or not (is_refused_write(error) or error.errno in _NO_FOLDER):
            raise
        reason = f"{error.filename or 'the cache'} cannot be written: {error.strerror}"
        variables = filter(None, (hub_site(job.source.hub).cache_variable for job in jobs))
        names = " or ".join(dict.fromkeys(variables)) or "its hub's settings"
        hint = f"give this user the folder, or name another by {names}"
        raise HubFailure("not_writable", f"{reason}; {hint}") from error


def ask(jobs: Sequence[Job], action: Callable[[Job], T]) -> T:
    """What the action makes of the first job whose hub can be reached and has the files.

    Raises:
        HubFailure: that of the action, or the worst of all hubs'.
    """
    reach = Reach(jobs[0].terms.home, jobs[0].terms.timeout)
    failures: list[HubFailure] = []
    for job in sorted(jobs, key=lambda job: reach.failed_lately(job.hub.endpoint)):
        try:
            return _act_on(job, action, reach, failures)
        except HubFailure as failure:
            if failure.cause not in ELSEWHERE:
                raise
            failures.append(failure)
    raise _worst_failure(failures)


def _act_on(job: Job, action: Callable[[Job], T], reach: Reach, failures: list[HubFailure]) -> T:
    if job.hub.offline:
        offline_reason = f"{job.source.id} is not cached, and {job.hub.offline} is set"
        raise HubFailure("hub_unreachable", offline_reason)
    reason = reach.unreachable(job.hub.endpoint)
    if reason is not None:
        attempts = (f"{job.hub.title}, {job.hub.endpoint}: {reason}",)
        raise HubFailure("hub_unreachable", f"cannot reach {job.hub.title} ({reason})", attempts)
    if failures:
        because = f" ({failures[-1]})"

        def report(progress: Progress) -> None:
            job.report(replace(progress, note=progress.note + because))

        return action(replace(job, report=report))
    return action(job)


def _worst_failure(failures: list[HubFailure]) -> HubFailure:
    """The failure that says most of what is to be done, with what was tried everywhere."""
    order = (
        "token_refused",
        "gated_repo",
        "rate_limited",
        "stalled",
        "hub_unreachable",
        "not_found",
    )
    first = min(failures, key=lambda failure: order.index(failure.cause))
    attempts = tuple(line for failure in failures for line in failure.tried or (str(failure),))
    return HubFailure(first.cause, first.reason, attempts)


__all__ = [
    "FileProgress",
    "Hub",
    "Progress",
    "Report",
    "Terms",
    "ask",
    "cached_files",
    "fetch",
    "is_whole",
    "load_hub",
]
