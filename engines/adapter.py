"""A base for adapters with the answers that most of them share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from paddock.engines.base import (
    UNKNOWN,
    CacheRules,
    Detection,
    Devices,
    EngineOptions,
    Host,
    Progress,
    RequestFields,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddock.engines.base import Serving
    from paddock.engines.environment import Environment
    from paddock.engines.evidence import Asked
    from paddock.registry.spec import Architecture, Variant

TYPE_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
CACHE_BYTES = TYPE_BYTES | {"auto": 2.0}
"""Bytes of one element of the cache; other types (fp8) have one byte."""


class Adapter:
    """Answers by the names that options have everywhere: n_ctx, n_parallel, n_threads, dtype."""

    name: ClassVar[str]
    fields: ClassVar[RequestFields]
    environment: ClassVar[Environment | None] = None
    allocates_cache: ClassVar[bool] = False
    made_for_gpus: ClassVar[bool] = False
    gpu_bytes: ClassVar[int] = 0
    progress: ClassVar[Progress | None] = None
    smaller_cache: ClassVar[Mapping[str, str]] = {}

    def detect(self) -> Detection:
        """Whether its environment is there."""
        assert self.environment is not None  # an adapter without one overrides this
        return self.environment.detect()

    def refuses(self, variant: Variant, host: Host) -> str | None:
        """Nothing: the architecture is known when the weights are read."""
        return None

    def context_and_slots(self, options: EngineOptions) -> tuple[int | None, int | None]:
        """The context for each request and the slots that the options ask for."""
        return getattr(options, "n_ctx", None), getattr(options, "n_parallel", None)

    def fields_of(self, version: str) -> RequestFields:
        """The same of every version."""
        return self.fields

    def longest_context(self, options: EngineOptions, trained: int) -> int:
        """What the model was trained for."""
        return trained

    def fill_defaults(
        self, options: EngineOptions, host: Host, weights_bytes: int
    ) -> EngineOptions:
        """Leaves one core to the gateway and the client if the processor computes."""
        on_gpus = host.gpus and host.engines.get(self.name, UNKNOWN).cuda
        if on_gpus or getattr(options, "n_threads", 0) is not None:
            return options
        return options.model_copy(update={"n_threads": max(1, host.cpus - 1)})

    def devices(self, options: EngineOptions, gpus: int) -> Devices:
        """One."""
        return Devices(1)

    def pages(self, options: EngineOptions) -> bool:
        """Weights are read into memory."""
        return False

    def cache_rules(
        self, architecture: Architecture, options: EngineOptions, pooled: bool = False
    ) -> CacheRules:
        """Whole keys and values of the whole context: no saving is counted on."""
        return CacheRules()

    def ask(
        self, serving: Serving, architecture: Architecture, environ: Mapping[str, str]
    ) -> Asked | None:
        """It cannot be asked."""
        return None

    def cache_element_bytes(self, options: EngineOptions) -> tuple[float, float]:
        """The cache has the type of the weights, unless an option sets another."""
        kind: Any = getattr(options, "kv_cache_dtype", "auto")
        if kind == "auto":
            kind = getattr(options, "dtype", "auto")
        each = CACHE_BYTES.get(kind, 1.0)
        return each, each

    def weight_element_bytes(self, options: EngineOptions) -> float | None:
        """Bytes by the option `dtype`, if there is one."""
        return TYPE_BYTES.get(getattr(options, "dtype", "auto"))
