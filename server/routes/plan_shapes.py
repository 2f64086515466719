"""The shapes of diagnoses, and of endpoints that are attached."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from paddock.launcher.replicas.diagnosis import CAUSES
from paddock.registry.spec_fields import AbilityName
from paddock.server.http.shapes import Shape


class Diagnosis(Shape):
    """Why a launch failed."""

    cause: str = Field(json_schema_extra={"enum": list(CAUSES)})
    message: str
    next_command: str | None = None
    lines: list[str] = Field(default=[], description="The engine's last lines")
    exit_code: int | None = None
    signal: str | None = None
    tried: list[str] = Field(default=[])


class Attach(Shape):
    """An endpoint that somebody else runs, and what is to be said of it that it does not say."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    endpoint: str = Field(description="Its base URL, as OpenAI's clients take it")
    model: str | None = Field(default=None, description="Its name there; null: the only one")
    model_uid: str | None = Field(default=None, description="Its id here; null: the name there")
    api_key: str | None = Field(default=None, description="Kept, and never shown again")
    abilities: list[AbilityName] | None = Field(default=None, description="null: found out")
    context_length: int | None = Field(default=None, ge=1)
    slots: int | None = Field(default=None, ge=1, le=100_000, description="Requests at once")
