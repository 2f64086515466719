"""What a user says of an endpoint that is to be attached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from paddock.launcher.planning.plan import (
    check_uid,
)
from paddock.registry.abilities import abilities, find_ability, probed_abilities
from paddock.registry.errors import BadValue, UnknownName

SLOTS = 64
"""The default of how many requests an endpoint gets at the same time."""


class AttachRequest(BaseModel):
    """What is to be attached. None and empty: ask the endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    endpoint: str
    model: str | None = None
    model_uid: str | None = None
    api_key: str = Field(default="", repr=False)
    abilities: tuple[str, ...] = ()
    context_length: int | None = Field(default=None, ge=1)
    slots: int = Field(default=SLOTS, ge=1, le=100_000)

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> AttachRequest:
        """What a client sent; the endpoint comes out as OpenAI's clients want it.

        Raises:
            UnknownName: a field, or an ability, that does not exist.
            BadValue: a wrong value; that of a key is not shown.
        """
        for name in fields:
            if name not in cls.model_fields:
                raise UnknownName.among("field", name, cls.model_fields)
        try:
            uid = fields.get("model_uid")
            given = {**fields, "model_uid": uid.strip() if isinstance(uid, str) else uid}
            request = cls.model_validate({k: v for k, v in given.items() if v is not None})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            value = "(not shown)" if name == "api_key" else fields.get(name)
            raise BadValue(name, value, first["msg"]) from None
        if (
            not (request.api_key.isascii() and request.api_key.isprintable())
            or " " in request.api_key
        ):
            raise BadValue("api_key", "(not shown)", "must be printable ASCII without spaces")
        if request.model_uid is not None:
            check_uid(request.model_uid)
        _check_abilities(request.abilities)
        return request.model_copy(update={"endpoint": base_url(request.endpoint)})


def _check_abilities(names: Iterable[str]) -> None:
    names = tuple(names)
    for ability in names:
        if find_ability(ability) is None:
            raise UnknownName.among("ability", ability, abilities())
    probed = probed_abilities()
    if names and not probed.keys() & set(names):
        raise BadValue("abilities", ", ".join(names), f"need one of {', '.join(probed)} too")


def base_url(url: str) -> str:
    """The base URL, without a slash at its end; of a host alone, that of its `/v1`.

    Raises:
        BadValue: it is not the address of an endpoint.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise BadValue("endpoint", url, str(error)) from None
    if parts.scheme not in {"http", "https"} or not host:
        raise BadValue("endpoint", url, "must be a URL such as https://host/v1")
    if parts.username is not None or parts.password is not None:
        safe = f"{parts.scheme}://…@{host}{parts.path}"
        raise BadValue("endpoint", safe, "a key goes by --api-key-env, not into the URL")
    if parts.query or parts.fragment:
        raise BadValue("endpoint", url, "must be without a query: only https://host/path")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise BadValue("endpoint", url, "must be ASCII without spaces")
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    return host in {"localhost", "::1"} or host.startswith("127.")
