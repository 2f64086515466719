"""echo: a real process with real HTTP and no model. For tests, bug reports and benchmarks.

It answers with the words of the prompt, one token a word, and can be told to misbehave.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from paddock.engines.adapter import Adapter
from paddock.engines.base import (
    Command,
    Detection,
    EngineOptions,
    RequestFields,
    Serving,
    Symptom,
)

if TYPE_CHECKING:
    from paddock.registry.spec import Architecture

# Started by its path: as a module it would import this package first.
SERVE = Path(__file__).with_name("serve.py")


class EchoOptions(EngineOptions):
    """How echo behaves."""

    token_seconds: float = Field(0.0, ge=0, description="seconds between tokens")
    load_seconds: float = Field(0.0, ge=0, description="seconds until it is ready")
    exit_code: int | None = Field(None, ge=0, le=255, description="exit with this at the start")
    say: str = Field("", description="a line to print at the start")
    ignore_term: bool = Field(False, description="do not end on SIGTERM")
    child: bool = Field(False, description="start a child process that ignores SIGTERM")
    slots: int | None = Field(None, ge=1, le=100_000, description="requests served side by side")
    die_after: int | None = Field(
        None, ge=0, description="die before this token of an answer (counted from 0)"
    )
    hoard_mb: int = Field(
        0,
        ge=0,
        le=100_000,
        description="megabytes to take and keep before an answer's second token",
    )


class Echo(Adapter):
    """Never chosen by itself: it must be named. See the module."""

    name: ClassVar[str] = "echo"
    options: ClassVar[type[EngineOptions]] = EchoOptions
    formats: ClassVar[tuple[str, ...]] = ()
    types: ClassVar[tuple[str, ...]] = ("LLM", "embedding", "rerank")
    automatic: ClassVar[bool] = False
    context_step: ClassVar[int] = 1
    health_path: ClassVar[str] = "/health"
    fields: ClassVar[RequestFields] = RequestFields(
        honoured=frozenset(("max_tokens", "max_completion_tokens"))
    )
    symptoms: ClassVar[tuple[Symptom, ...]] = ()

    def detect(self) -> Detection:
        """Always there."""
        return Detection(version="built in")

    def context_and_slots(self, options: EngineOptions) -> tuple[int | None, int | None]:
        """Only slots: echo keeps no context."""
        assert isinstance(options, EchoOptions)
        return None, options.slots

    def cache_element_bytes(self, options: EngineOptions) -> tuple[float, float]:
        """There is no cache."""
        return 0.0, 0.0

    def overhead_bytes(
        self,
        architecture: Architecture,
        options: EngineOptions,
        context: int,
        slots: int = 1,
        pooled: bool = False,
    ) -> int:
        """The process: 45 MB were measured."""
        return 45_000_000

    def command(self, serving: Serving) -> Command:
        """A Python process with `serve.py`."""
        settings = {"port": serving.port, "model": serving.model_id}
        options = serving.options.model_dump(mode="json")
        return Command(
            argv=(sys.executable, "-P", str(SERVE), json.dumps({**settings, **options})),
            environ={"PADDOCK_ENGINE_KEY": serving.api_key},
        )
