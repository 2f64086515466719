"""sentence-transformers: vectors of texts, and cross-encoders that rank, from safetensors.

It runs in an environment of its own (`paddock engine install sentence-transformers`), in which
`serve.py` gathers the texts of many requests into batches of like length.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from paddock.engines.adapter import Adapter
from paddock.engines.base import (
    Command,
    EngineOptions,
    RequestFields,
    Serving,
    Symptom,
)
from paddock.engines.environment import Environment
from paddock.engines.symptoms import (
    BROKEN_CONFIG,
    BROKEN_JSON,
    BROKEN_SAFETENSORS,
    MISSHAPEN,
    MISSING_FILE,
    MISSING_LIBRARY,
    NO_TOKENIZER,
    WRONG_WEIGHTS,
    out_of_memory,
    port_in_use,
    unknown_architecture,
)

if TYPE_CHECKING:
    from paddock.registry.spec import Architecture

FOLDER = Path(__file__).parent
PROCESS_BYTES = 450_000_000
"""Python, torch and sentence-transformers, without a model."""

# Every class of models: vectors come from decoders and masked language models too.
_ARCHITECTURES = """
import json
from transformers.models.auto import modeling_auto as auto
tables = [getattr(auto, name) for name in dir(auto) if name.endswith("MAPPING_NAMES")]
names = [one for table in tables for one in table.values()]
found = {one for name in names for one in ([name] if isinstance(name, str) else name)}
print(json.dumps(sorted(found)))
"""


class SentenceTransformersOptions(EngineOptions):
    """What `paddock launch` passes on to sentence-transformers."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="type of the weights in memory; auto: as in the files, float32 on a CPU"
    )
    n_threads: int | None = Field(
        None, ge=1, le=1024, description="threads; left out: one fewer than there are cores"
    )
    batch_tokens: int = Field(
        4096, ge=1, le=1_000_000, description="tokens of one batch, padding counted"
    )
    n_parallel: int = Field(256, ge=1, le=10_000, description="requests that are gathered at most")
    pooling: Literal["mean", "cls", "lasttoken", "max"] | None = Field(
        None, description="pooling, for files without modules.json, which say nothing of it"
    )


class SentenceTransformers(Adapter):
    """See the module."""

    name: ClassVar[str] = "sentence-transformers"
    options: ClassVar[type[EngineOptions]] = SentenceTransformersOptions
    formats: ClassVar[tuple[str, ...]] = ("pytorch",)
    types: ClassVar[tuple[str, ...]] = ("embedding", "rerank")
    automatic: ClassVar[bool] = True
    environment: ClassVar[Environment] = Environment(
        name="sentence-transformers",
        requirements=(FOLDER / "requirements.txt",),
        distribution="sentence-transformers",
        modules=("torch", "sentence_transformers", "starlette", "uvicorn"),
        architectures=_ARCHITECTURES,
    )
    context_step: ClassVar[int] = 1
    health_path: ClassVar[str] = "/health"
    fields: ClassVar[RequestFields] = RequestFields(
        embeddings=frozenset(
            ("encoding_format", "dimensions", "prompt", "prompt_name", "truncate")
        ),
        rerank=frozenset(("instruction", "truncate")),
    )
    symptoms: ClassVar[tuple[Symptom, ...]] = (
        WRONG_WEIGHTS,
        MISSHAPEN,
        Symptom(
            re.compile(r"^no_modules: (.*)"),
            "bad_option",
            "{0}; say it with --pooling mean, cls, lasttoken or max",
        ),
        Symptom(re.compile(r"^unsupported: (.*)"), "unsupported_arch", "{0}"),
        Symptom(
            re.compile(r"trust_remote_code|contains custom code"),
            "unsupported_arch",
            "the model brings code of its own, which this engine does not run",
        ),
        unknown_architecture("sentence-transformers"),
        out_of_memory(),
        BROKEN_SAFETENSORS,
        MISSING_FILE,
        BROKEN_CONFIG,
        BROKEN_JSON,
        NO_TOKENIZER,
        port_in_use(),
        MISSING_LIBRARY,
    )

    def cache_element_bytes(self, options: EngineOptions) -> tuple[float, float]:
        """There is no cache: each text is computed once, whole."""
        return 0.0, 0.0

    def overhead_bytes(
        self,
        architecture: Architecture,
        options: EngineOptions,
        context: int,
        slots: int = 1,
        pooled: bool = False,
    ) -> int:
        """The process, and the activations of one batch in float32, with the mask of attention."""
        assert isinstance(options, SentenceTransformersOptions)
        row = 4 * (6 * architecture.hidden_size + 2 * architecture.intermediate_size + context)
        return PROCESS_BYTES + max(options.batch_tokens, context) * row

    def command(self, serving: Serving) -> Command:
        """`serve.py` in the engine's environment."""
        environment = self.environment.installed()
        assert environment is not None  # it was detected on this node
        settings = {
            "path": str(serving.weights),
            "alias": serving.model_id,
            "port": serving.port,
            "context": serving.context_length,
            "abilities": serving.abilities,
            "ends_texts": serving.embedding is not None and serving.embedding.ends_texts,
            "ranking": serving.ranking and serving.ranking.to_json(),
            "options": serving.options.model_dump(mode="json"),
        }
        return Command(
            argv=(str(environment.python), str(FOLDER / "serve.py"), json.dumps(settings)),
            environ={
                "PADDOCK_ENGINE_KEY": serving.api_key,
                "HF_HUB_OFFLINE": "1",
                "PYTHONUNBUFFERED": "1",
                "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
                "TOKENIZERS_PARALLELISM": "false",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            },
        )
