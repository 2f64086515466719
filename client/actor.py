"""A replica's Ray actor, for Ray programs that want to call a model by its handle."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from paddock.registry.errors import BadValue, NotLaunched
from paddock.registry.settings import read_settings


def replica_actor(uid: str, number: int = 0) -> Any:
    """The actor handle of replica `number` of model `uid`; joins the gateway's Ray if need be.

    Its `generate(prompt, **fields)` and `chat(messages, **fields)` stream text:

        for ref in replica_actor("tiny-mixtral").generate.remote("The old elephant"):
            print(ray.get(ref), end="")

    Call it before `import ray`: Ray reads where it listens, and its token, when it is imported.

    Raises:
        NotLaunched: there is no such actor, or no Ray.
        BadValue: ray was imported before, without the environment that the local Ray needs.
    """
    from paddock.launcher.cluster.bridge import namespace
    from paddock.launcher.cluster.head import environment, read_record
    from paddock.launcher.hosts.processes import instance_id

    settings = read_settings()
    instance = instance_id(settings.home)
    record = read_record(settings.home)
    if record is None or not record.head_lives:
        raise NotLaunched(uid)
    if not settings.ray_address:
        needed = environment(settings.home)
        if "ray" in sys.modules and not needed.items() <= os.environ.items():
            reason = "was imported too early; call replica_actor before it is"
            raise BadValue("module", "ray", reason)
        os.environ.pop("RAY_ADDRESS", None)
        os.environ.update(needed)
    import ray

    space = namespace(instance)
    if not ray.is_initialized():
        ray.init(address=record.address, namespace=space, log_to_driver=False)
    # The name goes on with the generation, and with how often the replica was started.
    begin = f"{uid}-rep{number}@"
    names = [
        one["name"]
        for one in ray.util.list_named_actors(all_namespaces=True)
        if one["namespace"] == space and one["name"].startswith(begin)
    ]
    for name in sorted(names, key=lambda name: int(name.rpartition(".")[2]), reverse=True):
        with suppress(ValueError):  # it ended meanwhile
            return ray.get_actor(name, namespace=space)
    raise NotLaunched(uid)
