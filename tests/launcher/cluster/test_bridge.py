"""What the bridge tells of Ray's errors, and of those that a replica raises itself."""

from __future__ import annotations

from typing import Any, cast

import pytest
from ray import exceptions

from paddock.launcher.cluster.bridge import Bridge, _answer, _NoActor
from paddock.launcher.cluster.nodes import Node

ASKED = {"id": 1, "call": "find", "args": {"actor": "m-rep0"}}


def raised(cause: Exception) -> Exception:
    """What Ray raises where a method of an actor has raised `cause`."""
    error = exceptions.RayTaskError("Replica.tail", "a traceback", cause)
    return cast(Exception, error.as_instanceof_cause())


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (exceptions.OutOfMemoryError("1 worker was killed\nand a page more"), "ActorLost", None),
        (exceptions.ActorDiedError(), "ActorLost", None),
        (exceptions.ActorUnschedulableError("no such node"), "ActorLost", None),
        (exceptions.ActorUnavailableError("not now", b"x" * 16), "ActorUnavailable", None),
        (exceptions.RaySystemError("no control service"), "ActorUnavailable", None),
        (TimeoutError("too late"), "TimeoutError", "too late"),
        (KeyError("a bug"), "internal", "KeyError: 'a bug'"),
        (raised(KeyError("its own")), "internal", "KeyError: 'its own'"),
        (raised(TimeoutError("its own")), "internal", "TimeoutError: its own"),
        (raised(ValueError("two\nlines")), "internal", "ValueError: two"),
    ],
)
async def test_errors_are_told_by_what_they_say_of_the_actor(
    error: Exception, kind: str, message: str | None
) -> None:
    """Only Ray's own word makes an actor lost; what a replica raises itself is its error."""

    class Failing:
        async def find(self, actor: str) -> bool:
            raise error

    answer = await _answer(cast(Bridge, Failing()), ASKED)
    assert answer["error"] == kind
    assert "\n" not in answer["message"]
    if message is not None:
        assert answer["message"] == message


@pytest.mark.parametrize("call", ["_start", "__init__", "shutdown", ""])
async def test_only_calls_of_the_list_are_made(call: str) -> None:
    """A name that is no call is refused, whatever the object has."""
    answer = await _answer(cast(Bridge, object()), {**ASKED, "call": call})
    assert answer["error"] == "internal"


async def test_only_methods_of_the_list_are_invoked() -> None:
    """A replica's other methods cannot be called from the gateway."""
    asked: dict[str, Any] = {"actor": "m", "method": "_live", "limit": 1.0, "args": {}}
    answer = await _answer(Bridge("instance", "node"), {"id": 1, "call": "invoke", "args": asked})
    assert "no method '_live'" in answer["message"]


@pytest.mark.parametrize(
    ("nodes", "error"),
    [
        ([], RuntimeError("never called")),
        ([Node("far", "")], exceptions.ActorDiedError()),
        ([Node("far", "")], TimeoutError()),
    ],
)
async def test_a_lost_agent_says_nothing_of_the_actor(nodes: list[Node], error: Exception) -> None:
    """An actor on a node that is gone, or whose agent is, cannot be called ended."""

    class Agentless(Bridge):
        async def _handle(self, actor: str) -> Any:
            raise _NoActor

        def _list_nodes(self) -> list[Node]:
            return nodes

        def _open_agent(self, node: Node) -> Any:
            class Gone:
                async def end(self, *_: Any) -> list[int]:
                    raise error

            return Gone()

    asked = {"id": 1, "call": "end", "args": {"actor": "m-rep0", "node": "far"}}
    answer = await _answer(Agentless("instance", "near"), asked)
    assert answer["error"] == "ActorUnavailable"
    assert "far" in answer["message"]
