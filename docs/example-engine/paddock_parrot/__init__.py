"""parrot: an engine from another package, the smallest that does all that Paddock asks of one."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import version
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


class ParrotOptions(EngineOptions):
    """Each field is an option of `paddock launch`: `--times 3`. Others are refused by name."""

    times: int = Field(2, ge=1, le=9, description="how often it says everything")


class Parrot(Adapter):
    """See the module. What `Adapter` answers for it, it may answer itself."""

    name: ClassVar[str] = "parrot"
    options: ClassVar[type[EngineOptions]] = ParrotOptions
    # It reads no weights really, but takes those of GGUF models.
    formats: ClassVar[tuple[str, ...]] = ("ggufv2",)
    # Types of models: LLM, embedding, rerank.
    types: ClassVar[tuple[str, ...]] = ("LLM",)
    # Not chosen by itself: `--model-engine parrot` asks for it.
    automatic: ClassVar[bool] = False
    # One whose libraries exclude Paddock's names its pins as `environment`:
    # paddock.engines.environment.
    context_step: ClassVar[int] = 1
    health_path: ClassVar[str] = "/health"
    # All other fields of requests are refused by name; n, echo and the like the gateway does.
    fields: ClassVar[RequestFields] = RequestFields(honoured=frozenset(("max_tokens",)))
    symptoms: ClassVar[tuple[Symptom, ...]] = (
        Symptom(re.compile(r"not a GGUF: (.*)"), "corrupt_file", "{0} does not begin as a GGUF"),
    )

    def detect(self) -> Detection:
        """Its version, or `Detection(missing=…)` with the reason why it is not usable here."""
        return Detection(version=version("paddock-parrot"))

    def pages(self, options: EngineOptions) -> bool:
        """Whether weights are mapped, so that they need not all fit into memory."""
        return True

    def cache_element_bytes(self, options: EngineOptions) -> tuple[float, float]:
        """Bytes of an element of the key and the value cache; it keeps none."""
        return 0.0, 0.0

    def overhead_bytes(
        self,
        architecture: Architecture,
        options: EngineOptions,
        context: int,
        slots: int = 1,
        pooled: bool = False,
    ) -> int:
        """The process itself, as measured."""
        return 20_000_000

    def command(self, serving: Serving) -> Command:
        """The process to start. The key goes through its environment: arguments can be seen."""
        options = serving.options
        assert isinstance(options, ParrotOptions)
        settings = {
            "port": serving.port,
            "model": serving.model_id,
            "weights": str(serving.weights),
            "times": options.times,
        }
        serve = Path(__file__).with_name("serve.py")
        return Command(
            argv=(sys.executable, str(serve), json.dumps(settings)),
            environ={"PARROT_KEY": serving.api_key},
        )
