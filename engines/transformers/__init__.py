"""Transformers: safetensors of any architecture that it knows, on CPU and GPU.

It runs in an environment of its own (`paddock engine install transformers`), in which `serve.py`
puts OpenAI's routes in front of Transformers' continuous batching.
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
    Devices,
    EngineOptions,
    Paths,
    RequestFields,
    Serving,
    Symptom,
)
from paddock.engines.environment import Environment
from paddock.engines.symptoms import (
    BROKEN_CONFIG,
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
"""Both processes with torch and Transformers, without a model: 400 to 510 MB were measured."""

# The classes that `AutoModelForCausalLM` can make.
_ARCHITECTURES = """
import json
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as names
found = {one for name in names.values() for one in ([name] if isinstance(name, str) else name)}
print(json.dumps(sorted(found)))
"""


class TransformersOptions(EngineOptions):
    """What `paddock launch` passes on to Transformers."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="type of the weights in memory; auto: as in the files, the least memory and,"
        " but for tiny models, the fastest",
    )
    n_threads: int | None = Field(
        None, ge=1, le=1024, description="threads; left out: one fewer than there are cores"
    )
    attn_implementation: (
        Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"] | None
    ) = Field(None, description="attention; left out: flash attention where the hardware has it")
    compute_dtype: Literal["bfloat16", "float16", "float32"] = Field(
        "bfloat16", description="type that weights in 4-bit are computed in"
    )
    device_map: Literal["auto", "balanced", "sequential", "cpu", "cuda"] | None = Field(
        None, description="devices; auto: over all GPUs, then memory; left out: one GPU, or the CPU"
    )
    compare: bool = Field(
        True,
        description="compare the batch with the model itself first, and do not serve what differs",
    )
    lora: Paths = Field(
        (), description="LoRA adapters: absolute paths of PEFT's folders, comma-separated"
    )
    n_batch: int = Field(
        512,
        ge=16,
        le=65536,
        description="tokens of prompts and answers in one step; 512: the fastest of those measured",
    )
    n_ctx: int | None = Field(None, ge=1, description="context of one request, in tokens")
    n_parallel: int | None = Field(None, ge=1, le=1024, description="requests side by side")


class Transformers(Adapter):
    """See the module."""

    name: ClassVar[str] = "Transformers"
    options: ClassVar[type[EngineOptions]] = TransformersOptions
    formats: ClassVar[tuple[str, ...]] = ("pytorch", "gptq", "awq", "bnb")
    types: ClassVar[tuple[str, ...]] = ("LLM",)
    automatic: ClassVar[bool] = True
    gpu_bytes: ClassVar[int] = 550_000_000
    environment: ClassVar[Environment] = Environment(
        name="transformers",
        requirements=(FOLDER / "requirements.txt", FOLDER / "requirements-built.txt"),
        distribution="transformers",
        modules=(
            *("torch", "transformers", "gptqmodel", "bitsandbytes", "peft", "uvicorn"),
            "llguidance",
        ),
        extra=("torch", "transformers", "accelerate"),
        architectures=_ARCHITECTURES,
    )
    context_step: ClassVar[int] = 64
    health_path: ClassVar[str] = "/health"
    fields: ClassVar[RequestFields] = RequestFields(
        honoured=frozenset(
            (
                *("max_tokens", "seed", "stop", "temperature", "top_p", "logit_bias", "logprobs"),
                *("frequency_penalty", "presence_penalty", "repetition_penalty"),
                *("top_k", "min_p", "ignore_eos", "grammar"),
            )
        ),
        chat=frozenset(
            (
                *("top_logprobs", "max_completion_tokens", "chat_template_kwargs"),
                *("add_generation_prompt", "response_format"),
            )
        ),
        renamed={"repeat_penalty": "repetition_penalty", "guided_grammar": "grammar"},
        guided=True,
        counts_at="/v1/chat/completions/input_tokens",
    )
    symptoms: ClassVar[tuple[Symptom, ...]] = (
        WRONG_WEIGHTS,
        MISSHAPEN,
        Symptom(
            re.compile(r"Missing required quantized weights in checkpoint '[^']*': (.*)"),
            "weights_mismatch",
            "the files are not this model's weights; missing are {0}",
        ),
        Symptom(
            re.compile(r"Trying to set a tensor of shape (.*), this looks incorrect"),
            "weights_mismatch",
            "the files are not this model's weights: a tensor of {0}",
        ),
        Symptom(
            re.compile(r"^chat_template: (.*)"),
            "chat_template",
            "Transformers cannot read the chat template: {0}",
        ),
        out_of_memory(),  # first, since it also causes what follows
        Symptom(
            re.compile(r"^not_numbers: (.*)"),
            "bad_option",
            "the model's values overflow in {0}, and its scores are no numbers;"
            " --dtype bfloat16 and --dtype float32 have more room",
        ),
        Symptom(
            re.compile(r"^batch_differs: (.*)"),
            "unsupported_arch",
            "Transformers' batch does not compute this architecture as the model itself does: {0};"
            " --compare false serves it as it is",
        ),
        Symptom(
            re.compile(r"ValueError: Invalid layer type: (.*)"),
            "unsupported_arch",
            "Transformers' batch has no cache for this architecture's layers: {0}",
        ),
        Symptom(
            re.compile(r"^quantization_left: (.*)"),
            "unsupported_arch",
            "bitsandbytes cannot quantize this architecture: it leaves {0}",
        ),
        Symptom(
            re.compile(r"^adapter_refused: (.*)"),
            "bad_option",
            "the adapter cannot be used: {0}",
        ),
        Symptom(re.compile(r"^dtype_refused: (.*)"), "bad_option", "{0}"),
        unknown_architecture("Transformers"),
        BROKEN_SAFETENSORS,
        MISSING_FILE,
        BROKEN_CONFIG,
        NO_TOKENIZER,
        port_in_use(),
        MISSING_LIBRARY,
    )

    def devices(self, options: EngineOptions, gpus: int) -> Devices:
        """One, or as `device_map` says: all of them, and then the host's memory."""
        assert isinstance(options, TransformersOptions)
        if options.device_map in {None, "cuda"}:
            return Devices(1)
        return Devices(0) if options.device_map == "cpu" else Devices(gpus, None)

    def overhead_bytes(
        self,
        architecture: Architecture,
        options: EngineOptions,
        context: int,
        slots: int = 1,
        pooled: bool = False,
    ) -> int:
        """The processes, one step's activations and mask, and logits of each request's last token.

        As `compute_memory_footprint` of Transformers' continuous batching counts them; activations
        in float32, and of logits what the sampler makes besides.
        """
        assert isinstance(options, TransformersOptions)
        experts = max(1, architecture.experts_per_token)
        width = 4 if options.dtype == "float32" else 2
        keys = slots * context + options.n_batch
        row = (
            4 * (4 * architecture.hidden_size + 2 * experts * architecture.intermediate_size)
            + width * keys
        )
        if options.attn_implementation == "eager":
            row += 4 * architecture.attention_heads * keys
        logits = slots * 3 * 4 * architecture.vocabulary_size
        return PROCESS_BYTES + options.n_batch * row + logits

    def command(self, serving: Serving) -> Command:
        """`serve.py` in the engine's environment."""
        environment = self.environment.active()
        assert environment is not None  # it was detected on this node
        settings = {
            "path": str(serving.weights),
            "quantization": serving.quantization,
            "alias": serving.model_id,
            "port": serving.port,
            "context": serving.context_length,
            "slots": serving.slots,
            "chat_template": serving.chat_template,
            "stop_ids": list(serving.stop_ids),
            "options": serving.options.model_dump(mode="json"),
        }
        return Command(
            argv=(str(environment.python), str(FOLDER / "serve.py"), json.dumps(settings)),
            environ={
                "PADDOCK_ENGINE_KEY": serving.api_key,
                "HF_HUB_OFFLINE": "1",
                "PYTHONUNBUFFERED": "1",
                # Without it, stacking experts leaves holes that torch keeps: 4.7 GB beside 23.
                "PYTORCH_ALLOC_CONF": "expandable_segments:True",
                "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            },
        )
