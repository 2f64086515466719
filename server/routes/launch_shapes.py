"""The shapes of launches, locks and more replicas, from the table of launch fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, create_model

from paddock.registry.launch_fields import Kind, LaunchField, Taker, launch_fields
from paddock.registry.lockfile import LockedModel
from paddock.server.http.shapes import Shape


class _Closed(Shape):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Adapter(Shape):
    """A LoRA adapter: a folder on the gateway's machine."""

    local_path: str
    lora_name: str | None = None


class Adapters(Shape):
    """LoRA adapters, in Xinference's words."""

    lora_list: list[Adapter] | None = None


_TYPES: Mapping[Kind, Any] = {
    "text": str,
    "reference": str,
    "model_type": str,
    "path": str,
    "file": str,
    "hub": str,
    "size": int | float | str,
    "count": int,
    "solved": Annotated[int, Field(ge=1)] | Literal["auto"],
    "number": float,
    "bytes": int | str,
    "limit": int | str,
    "flag": bool,
    "gpus": int | str,
    "indices": list[int] | int | str,
    "adapters": Adapters,
    "template": str,
    "entry": LockedModel,
}


def shape_fields(fields: Iterable[LaunchField]) -> dict[str, Any]:
    """The fields as `pydantic.create_model` takes them, by key; each alias has its own."""
    return {key: _typed(field) for field in fields for key in field.keys}


def _typed(field: LaunchField) -> tuple[Any, Any]:
    # A `Literal` of a tuple has each of its values.
    type_: Any = Literal[field.choices] if field.choices else _TYPES[field.kind]
    if field.is_required:
        return type_, Field(description=field.description)
    info = Field(
        default=field.default,
        ge=None if field.kind == "solved" else field.minimum,
        gt=field.above,
        le=field.maximum,
        description=field.description,
    )
    return type_ | None, info


def _create(name: str, doc: str, base: type[Shape], taker: Taker, **more: Any) -> type[Shape]:
    fields = {**shape_fields(launch_fields(taker)), **more}
    return create_model(name, __base__=base, __doc__=doc, __module__=__name__, **fields)


Launch = _create(
    "Launch",
    """What to launch, in Xinference's words. Fields that are not named are the engine's options.

    `model_name` may be a reference, such as `hf:owner/name`, to a model that no spec names.
    """,
    Shape,
    "launch",
)

MakeLock = _create(
    "MakeLock",
    "A variant to lock, in the words of a launch, or the id of a model that is launched.",
    _Closed,
    "lock",
    model_name=(str | None, None),
    launched=(str | None, None),
    newest=(bool | None, Field(default=False, description="What is cached does not count")),
)

AddReplicas = _create(
    "AddReplicas",
    "How many replicas to add. Other fields are refused.",
    _Closed,
    "replicas",
    replica_config=(list[Any] | dict[str, Any] | None, None),
)
