"""What does not fit: what is offered in its place, `fit`, `force` and `auto`."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest

from paddock.engines.base import Host
from paddock.launcher.planning.command import launch_command
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest
from paddock.launcher.planning.reservations import Reservation, subtract_reservations, with_holdings
from paddock.launcher.planning.resolve import fit_request, resolve
from paddock.launcher.planning.spread import plan_replicas
from paddock.registry.errors import BadValue, NoRoom
from tests.catalog import CATALOG
from tests.launcher.planning.test_choice import GB, machine
from tests.launcher.planning.test_resolve import typed

Q4 = {"size": "32", "format": "ggufv2", "quantization": "Q4_K_M"}
NOT_PAGED = {"repack": "true"}


def plan(host: Host, **request: Any) -> LaunchPlan:
    request.setdefault("model_name", "qwen3")
    return resolve(LaunchRequest.parse(**request), CATALOG, [host])


def free(gigabytes: float, total: int = 64) -> Host:
    return machine(8, total, memory_free_bytes=round(gigabytes * GB))


def concessions(made: LaunchPlan) -> str:
    return next(one for one in made.reasons if one.startswith("to fit"))


@pytest.mark.parametrize(
    ("gigabytes", "says"),
    [
        (28, "slots 1 in place of 4"),
        (25.5, "context 16384 in place of 32768, one slot in place of 4"),
        (18, "quantization Q3_K_M in place of Q4_K_M, context 8192 in place of 32768"),
        (11, "size 14 in place of 32"),
    ],
)
def test_what_loses_least_is_given_up_first(gigabytes: float, says: str) -> None:
    """Slots, then context, then quantization, then size: as little memory is left as that needs."""
    options = {**NOT_PAGED, "n_parallel": "4"}
    host = free(gigabytes)
    made = plan(host, **Q4, context_length=32768, fit=True, engine_options=options)
    assert made.memory.fits
    assert says in concessions(made)


def test_cache_type_is_given_up_where_the_context_is_not_enough() -> None:
    """Where even the shortest context does not fit in 16 bits, it may in 8."""
    host = free(21.45)
    made = plan(
        host, **Q4, context_length=4096, fit=True, engine_options={**NOT_PAGED, "n_parallel": "8"}
    )
    assert made.memory.fits


def test_nothing_is_given_up_where_all_fits() -> None:
    """The plan is the same with and without `fit`."""
    host = machine(8, 64)
    assert plan(host, fit=True) == plan(host)
    request = LaunchRequest.parse(model_name="qwen3", fit=True)
    smaller, words = fit_request(request, CATALOG, [host])
    assert (smaller, words) == (request.model_copy(update={"fit": False}), ())


def test_fit_that_finds_nothing_is_refused_as_ever() -> None:
    """With both figures; there is nothing to offer."""
    with pytest.raises(NoRoom) as error:
        plan(free(0.2), fit=True, engine_options=NOT_PAGED)
    assert error.value.commands == ()


def test_refusal_names_those_who_use_the_memory() -> None:
    """Models by id, all other processes as one sum, and what is promised."""
    host = free(10, total=64)
    other = plan(machine(8, 64), model_name="mistral-instruct-v0.3")
    serving = [
        Reservation("chat", "local", other.memory, held_bytes=5 * GB),
        Reservation("chat", "local", other.memory, held_bytes=2 * GB),
        Reservation("far", "elsewhere", other.memory, held_bytes=9 * GB),
    ]
    with pytest.raises(NoRoom) as error:
        plan(with_holdings(host, serving), **Q4, engine_options=NOT_PAGED)
    assert error.value.used == {"chat": 7 * GB, "other processes": 47 * GB}
    text = str(error.value)
    assert (
        "of memory, here has 10.00 GB free (used: chat 7.00 GB, other processes 47.00 GB)" in text
    )
    assert "--force launches it all the same" in text
    assert error.value.fields()["commands"] == error.value.commands
    promised = subtract_reservations(host, [Reservation("next", "local", other.memory)])
    with pytest.raises(NoRoom, match="still starting"):
        plan(promised, **Q4, engine_options=NOT_PAGED)


def test_refusal_of_a_gpu_counts_what_it_holds() -> None:
    """By the GPU that is the tightest."""
    host = machine(16, 64, 24)
    host = replace(host, gpus=(replace(host.gpus[0], free_bytes=6 * GB),))
    held = plan(machine(16, 64, 24), model_name="mistral-instruct-v0.3")
    serving = [Reservation("chat", "local", held.memory, held.gpus[0])]
    asked = {"size": "32", "format": "gptq", "quantization": "Int4", "model_engine": "vLLM"}
    with pytest.raises(NoRoom) as error:
        plan(with_holdings(host, serving), **asked)
    assert error.value.used["chat"] == held.memory.gpu_bytes


def test_forced_launch_is_planned_with_the_figures() -> None:
    """It warns, and refuses neither memory nor disk."""
    host = replace(free(10), disk_free_bytes=0)
    made = plan(host, **Q4, engine_options=NOT_PAGED, force=True)
    assert not made.memory.fits
    assert "GB are needed and 10.00 GB are free on here" in made.warnings[0]
    with pytest.raises(NoRoom):
        plan(host, **Q4, engine_options=NOT_PAGED)


def test_forced_replicas_are_spread() -> None:
    """What a node cannot hold is placed there all the same."""
    hosts = [free(10), replace(free(9), node="b" * 8, name="b")]
    request = LaunchRequest.parse(
        model_name="qwen3", **Q4, engine_options=NOT_PAGED, force=True, replicas=2
    )
    _, places = plan_replicas(request, CATALOG, hosts)
    assert {place.node for place in places} == {"local", "b" * 8}


def test_slow_plan_has_the_commands_that_are_not() -> None:
    """Weights that would be read from the disk again and again: the warning ends in what fits."""
    (warning,) = plan(free(12), **Q4).warnings
    assert "slow" in warning
    for command in warning.partition("what fits: ")[2].split(" or "):
        assert resolve(typed(command), CATALOG, [free(12)]).memory.fits


@pytest.mark.parametrize("gigabytes", [9, 12, 16, 24, 40])
def test_quantization_is_solved_for_the_free_memory(gigabytes: int) -> None:
    """The most bits that fit, and never 16 while others do; more memory gives no fewer."""
    host = free(gigabytes)
    made = plan(host, size="8", format="ggufv2", quantization="auto")
    assert made.memory.fits
    assert made.quantization not in {"BF16", "F16"}
    bits = {9: "Q4", 12: "Q6", 16: "Q8", 24: "Q8", 40: "Q8"}
    assert made.quantization.removeprefix("UD-").startswith(bits[gigabytes])


@pytest.mark.parametrize("gigabytes", [8, 10, 14, 30])
def test_context_is_solved_for_the_free_memory(gigabytes: int) -> None:
    """As long as fits nine tenths of it, and a step more would not."""
    asked: dict[str, Any] = {"size": "8", "format": "ggufv2", "quantization": "Q4_K_M"}
    asked |= {"engine_options": {"n_parallel": 1}, "force": True}
    made = plan(free(gigabytes), **asked, context_length="Auto")
    assert made.memory.needed_bytes <= 0.9 * gigabytes * GB
    if made.context_length < 40960:
        more = plan(free(gigabytes), **asked, context_length=made.context_length + 1024)
        assert more.memory.needed_bytes > 0.9 * gigabytes * GB
    else:
        assert gigabytes >= 14
    assert any("longest that the free memory holds" in reason for reason in made.reasons)


def test_request_for_auto_survives_being_written_down() -> None:
    """A deployment keeps its request as JSON; a context that is no number is refused."""
    request = LaunchRequest.parse(model_name="m", quantization="AUTO", context_length="auto")
    assert request.automatic == ("quantization", "context_length")
    assert (request.quantization, request.context_length) == (None, None)
    written = request.model_dump(mode="json", exclude_none=True)
    assert LaunchRequest.parse(**written) == request
    with pytest.raises(BadValue, match="whole number"):
        LaunchRequest.parse(model_name="m", context_length="long")


def test_command_is_the_request() -> None:
    """All that was asked for, as a shell takes it; typed again it is the same."""
    request = LaunchRequest.parse(
        model_name="qwen3",
        size="8",
        quantization="auto",
        context_length=4096,
        model_uid="my/id",
        gpu_idx="0,1",
        replicas=2,
        offline=True,
        engine_options={"n_parallel": 2, "repack": True, "lora": ["/a b", "/c"]},
    )
    command = launch_command(request)
    assert shlex.split(command)[:3] == ["paddock", "launch", "qwen3"]
    again = typed(command)
    options = {"n_parallel": "2", "repack": "true", "lora": "/a b,/c"}
    assert again == request.model_copy(update={"engine_options": options})
