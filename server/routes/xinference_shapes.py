"""Xinference's JSON shapes, translated to and from our types. Wire types never pass inward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.requests import Request

from paddock.launcher.fleet.deployment import replica_number
from paddock.launcher.fleet.events import Happened
from paddock.launcher.fleet.status import ModelStatus
from paddock.launcher.planning.plan import LaunchRequest
from paddock.launcher.replicas.status import ReplicaStatus
from paddock.registry.errors import BadValue
from paddock.registry.launch_fields import fields_by_key
from paddock.registry.spec import Variant
from paddock.server.http.query import flag

_LAUNCH_FIELDS = fields_by_key()
# Keys that clients always send, with the values that ask for nothing beyond what we do.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n_worker": (None, 1),
    "request_limits": (None,),
    "replica_config": (None, {}, []),
    "enable_thinking": (None, False),
    "enable_virtual_env": (None, False),
    "virtual_env_packages": (None, []),
    "virtual_env_find_links": (None, []),
    "envs": (None, {}),
    "trust_remote_code": (None, False),
}
_STATUS = {
    "pending": "CREATING",
    "downloading": "LOADING",
    "starting": "LOADING",
    "ready": "READY",
    "unhealthy": "ERROR",
    "unreachable": "READY",
    "stopping": "TERMINATING",
    "stopped": "TERMINATED",
    "failed": "ERROR",
}
_STAGE = {"pending": "pending", "downloading": "downloading", "starting": "loading"}


def launch_request(body: Any) -> LaunchRequest:
    """A launch as clients send it. Keys that are not ours or Xinference's are engine options.

    Raises:
        BadValue: not an object, no model name, or a key that asks for what cannot be done.
        UnknownName: a value that is none of its key's choices.
        InvalidLock: the lock is not an entry of a lockfile.
    """
    if not isinstance(body, dict):
        raise BadValue("body", type(body).__name__, "must be a JSON object")
    if not isinstance(body.get("model_name"), str):
        raise BadValue("model_name", body.get("model_name"), "is needed, as text")
    values: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for key, value in body.items():
        field = _LAUNCH_FIELDS.get(key)
        if field is None:
            if key not in _NEUTRAL:
                options[key] = value
            # Command lines send text: "1" for 1, "None" for None.
            elif str(value).casefold() not in {str(known).casefold() for known in _NEUTRAL[key]}:
                raise BadValue(key, value, "this version of Paddock cannot do that")
        elif value is None:
            continue
        elif field.attribute:
            values[field.attribute] = value
        elif (checked := field.check(value)) and field.engine_option:
            options[field.engine_option] = checked
    return LaunchRequest.parse(**values, engine_options=options)


def waits(request: Request) -> bool:
    """Whether the client wants the answer when all is ready, and not at once. Raises `BadValue`."""
    return flag(request, "wait_ready", default=True)


def description(status: ModelStatus) -> dict[str, Any]:
    """A model as `GET /v1/models/{uid}` answers; `max_tokens` is for Dify."""
    plan = status.plan
    return {
        "model_type": plan.type,
        "address": plan.node_name,
        "accelerators": sorted({str(gpu.index) for group in plan.gpus for gpu in group}, key=int),
        "model_name": plan.model,
        "model_lang": list(plan.languages),
        "model_ability": list(status.abilities),
        "model_description": plan.description,
        "model_format": plan.format,
        "model_size_in_billions": billions(plan.size),
        "model_family": plan.model,
        "quantization": plan.quantization,
        "multimodal_projector": plan.weights.projector,
        "model_hub": plan.weights.hub,
        "revision": plan.weights.revision,
        "context_length": plan.context_length or None,
        "max_tokens": plan.context_length or None,
        "strict_system_first": False,
        "model_engine": plan.engine,
        "replica": plan.replicas,
    }


def listed(status: ModelStatus) -> dict[str, Any]:
    """A model as an entry of `GET /v1/models`."""
    head = {
        "id": status.uid,
        "object": "model",
        "created": int(status.created),
        "owned_by": "paddock",
    }
    return {**head, **description(status)}


def version(model: str, size: str, format: str, quantization: str) -> str:
    """A variant's name in Xinference's words."""
    return f"{model}--{size}B--{format}--{quantization}"


def variant_version(variant: Variant) -> str:
    """The same, of a variant."""
    return version(variant.model, variant.size, variant.format, variant.quantization)


def billions(size: str) -> int | str:
    """A size as Xinference states it: a number where it is whole."""
    return int(size) if size.isdigit() else size


def instance(status: ModelStatus) -> dict[str, Any]:
    """A model as an entry of `GET /v1/models/instances`, with our plan and diagnosis beside."""
    plan = status.plan
    return {
        "model_name": plan.model,
        "model_uid": status.uid,
        "model_version": version(plan.model, plan.size, plan.format, plan.quantization),
        "model_ability": list(status.abilities),
        "replica": plan.replicas,
        # Xinference's clients use a model that is READY: one replica that serves is enough.
        "status": "READY" if status.can_serve else _STATUS[status.state],
        "instance_created_ts": int(status.created),
        "n_worker": 1,
        "replica_statuses": [_replica(replica) for replica in status.replicas],
        "state": status.state,
        "restart": status.restart,
        "restart_tries": status.restart_tries,
        "silence_seconds": status.silence_seconds,
        "restarts": status.restarts,
        "plan": plan.to_json(),
        "diagnosis": status.diagnosis,
    }


def _replica(replica: ReplicaStatus) -> dict[str, Any]:
    return {
        "replica_id": replica_number(replica.replica_id),
        "replica_model_uid": replica.replica_id,
        "worker_address": replica.node_name,
        "status": _STATUS[replica.state],
        "model_state": replica.state,
        "created_ts": int(replica.started_at),
        "error_message": (replica.diagnosis or {}).get("message"),
        "replica_uid": replica.replica_id,
        "gpu_idx": list(replica.gpus) or None,
        "endpoint": replica.endpoint,
        "pid": replica.pid,
        "log": replica.log,
        "restarts": replica.restarts,
        "last_failure": replica.last_failure,
        "next_try_at": replica.next_try_at,
        "chat": replica.chat,
    }


def replicas(status: ModelStatus) -> list[dict[str, Any]]:
    """A model's replicas as `GET /v1/models/{uid}/replicas` answers."""
    return [
        {
            **_replica(replica),
            "model_address": replica.endpoint,
            "accelerators": [str(index) for index in replica.gpus],
        }
        for replica in status.replicas
    ]


def added(status: ModelStatus, replica_id: str) -> dict[str, Any]:
    """A replica that was just added, as Xinference's JSON."""
    return {
        "replica_id": replica_number(replica_id),
        "replica_model_uid": replica_id,
        "worker_address": next(
            (one.node_name for one in status.replicas if one.replica_id == replica_id), ""
        ),
    }


def progress(status: ModelStatus) -> dict[str, Any]:
    """A launch's progress as JSON; state and note are of the replica that is least along."""
    replicas = [_replica_progress(replica) for replica in status.replicas]
    last = min(status.replicas, key=_done)
    return {
        "progress": min(replica["progress"] for replica in replicas),
        "stage": _STAGE.get(status.state, "launching"),
        "download_files": download_files(last.files),
        "replicas": replicas,
        "state": status.state,
        "starting": status.starting,
        "note": last.note,
        "came_bytes": last.came_bytes,
        "total_bytes": last.total_bytes,
        "bytes_per_second": last.bytes_per_second,
        "seconds_left": last.seconds_left,
        "diagnosis": status.diagnosis,
    }


def download_files(files: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each file of a download as JSON; unknown speeds and times left are null."""
    return [
        {
            "name": file["name"],
            "progress": file["came_bytes"] / file["total_bytes"] if file["total_bytes"] else 1.0,
            "came_bytes": file["came_bytes"],
            "total_bytes": file["total_bytes"],
            "bytes_per_second": file["bytes_per_second"],
            "seconds_left": file["seconds_left"],
        }
        for file in files
    ]


def snapshot(models: Iterable[ModelStatus]) -> dict[str, Any]:
    """The `models` of a `snapshot` event, with `replicas`: each as its last event would tell it."""
    return {
        "models": [
            _model_event(status)
            | {"replicas": [_replica_event(status, replica) for replica in status.replicas]}
            for status in models
        ]
    }


def event(happened: Happened) -> dict[str, Any]:
    """What `GET /v1/events` tells of a change."""
    change = happened.change
    found = (
        _model_event(change.model)
        if change.replica is None
        else _replica_event(change.model, change.replica)
    )
    return found | {"gone": change.gone, "at": happened.at}


def _model_event(status: ModelStatus) -> dict[str, Any]:
    plan = status.plan
    return {
        "model_uid": status.uid,
        "state": status.state,
        "model_name": plan.model,
        "model_format": plan.format,
        "quantization": plan.quantization,
        "model_engine": plan.engine,
        "replica": plan.replicas,
        "diagnosis": status.diagnosis,
    }


def _replica_event(status: ModelStatus, replica: ReplicaStatus) -> dict[str, Any]:
    return {
        "model_uid": status.uid,
        "replica_uid": replica.replica_id,
        "state": replica.state,
        "note": replica.note,
        "restarts": replica.restarts,
        "next_try_at": replica.next_try_at,
        "last_failure": replica.last_failure,
        "progress": _done(replica),
        "came_bytes": replica.came_bytes,
        "total_bytes": replica.total_bytes,
        "bytes_per_second": replica.bytes_per_second,
        "seconds_left": replica.seconds_left,
        "diagnosis": replica.diagnosis,
    }


def _replica_progress(replica: ReplicaStatus) -> dict[str, Any]:
    return {
        "replica_id": replica_number(replica.replica_id),
        "replica_model_uid": replica.replica_id,
        "progress": _done(replica),
        "stage": _STAGE.get(replica.state, "launching"),
        "info": replica.note,
        "updated_at": None,
        "download_files": download_files(replica.files),
    }


def _done(replica: ReplicaStatus) -> float:
    """From 0 to 1: the download is eight tenths of a launch; a failed one stays at 0."""
    if replica.state in {"ready", "unreachable", "unhealthy"}:
        return 1.0
    if replica.state == "starting":
        return 0.85
    if replica.state == "downloading" and replica.total_bytes:
        return round(0.8 * min(1.0, replica.came_bytes / replica.total_bytes), 4)
    return 0.0
