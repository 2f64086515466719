"""How the bridge tells what Ray's errors mean."""

from __future__ import annotations

from typing import Any, cast

from paddock.launcher.bridge import Bridge, _answer


async def test_an_actor_that_ray_has_killed_for_memory_is_lost() -> None:
    """Its call ends as that of any actor that is gone: the model can still be terminated."""
    from ray.exceptions import OutOfMemoryError

    class Killed:
        async def stop(self, **_: Any) -> None:
            raise OutOfMemoryError("1 worker(s) were killed\nand a page more")

    asked = {"id": 1, "call": "stop", "args": {"replica_id": "m-rep0", "grace": 1.0}}
    assert await _answer(cast(Bridge, Killed()), asked) == {
        "id": 1,
        "error": "ActorLost",
        "message": "1 worker(s) were killed",
    }
