"""SGLang: safetensors on NVIDIA GPUs, with a cache that shares all prompts' beginnings.

It has no kernels for CPUs. What is known of it here comes from its source, its own parser of
command lines, and a stand-in that speaks its HTTP (tests/engines/sglang_standin.py): it was never
run with a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from paddock.engines.adapter import Adapter
from paddock.engines.base import (
    CacheRules,
    Command,
    Detection,
    Devices,
    EngineOptions,
    Host,
    NamedPaths,
    RequestFields,
    Serving,
    Symptom,
)
from paddock.engines.environment import Environment, find_accelerator
from paddock.engines.symptoms import (
    BROKEN_SAFETENSORS,
    MISSING_LIBRARY,
    out_of_memory,
    port_in_use,
    unknown_architecture,
)

if TYPE_CHECKING:
    from paddock.registry.spec import Architecture, Variant

FOLDER = Path(__file__).parent
PROCESS_BYTES = 4_000_000_000
"""The server, one scheduler and the detokenizer in the host's memory: not measured."""


# The models of its registry, without importing them, which needs the GPU's libraries.
_ARCHITECTURES = """
import ast, importlib.util, json, pathlib
(package,) = importlib.util.find_spec("sglang").submodule_search_locations
found = set()
for path in pathlib.Path(package, "srt", "models").glob("*.py"):
    for line in ast.parse(path.read_text("utf-8")).body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "EntryClass":
            found |= {name.id for name in ast.walk(line.value) if isinstance(name, ast.Name)}
print(json.dumps(sorted(found)))
"""


class SglangOptions(EngineOptions):
    """SGLang's options, by its own names but for those that all engines share."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "max_running_requests": "n_parallel",
        "tensor_parallel_size": "tp_size",
        "pipeline_parallel_size": "pp_size",
        "expert_parallel_size": "ep_size",
        "gpu_memory_utilization": "mem_fraction_static",
    }

    n_ctx: int | None = Field(None, ge=1, description="context of one request, in tokens")
    n_parallel: int | None = Field(None, ge=1, le=4096, description="requests side by side")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="type of the weights in memory; auto: as in the files"
    )
    tp_size: int = Field(1, ge=1, description="GPUs that share each layer")
    pp_size: int = Field(1, ge=1, description="GPUs that share the layers")
    ep_size: int = Field(1, ge=1, description="GPUs that share a mixture's experts")
    mem_fraction_static: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the GPU's memory for weights and cache; left out: SGLang's choice",
    )
    cpu_offload_gb: int = Field(0, ge=0, description="GB of weights kept off each GPU")
    kv_cache_dtype: Literal["auto", "bfloat16", "fp8_e4m3", "fp8_e5m2"] = Field(
        "auto", description="type of the key-value cache; auto: as the weights"
    )
    quantization: Literal["fp8", "mxfp8", "awq_marlin", "gptq_marlin", "moe_wna16"] | None = Field(
        None, description="how the weights are, or shall be, quantized; left out: as the files say"
    )
    load_format: Literal["auto", "safetensors", "fastsafetensors", "dummy"] = Field(
        "auto", description="how the weights are read"
    )
    attention_backend: (
        Literal["triton", "torch_native", "fa3", "fa4", "flashinfer", "flashmla"] | None
    ) = Field(None, description="attention kernels; left out: SGLang's choice")
    chunked_prefill_size: int | None = Field(
        None, ge=-1, description="tokens of a prompt taken in one step; -1: all"
    )
    disable_radix_cache: bool = Field(
        False, description="do not keep the cache of prompts' beginnings"
    )
    disable_cuda_graph: bool = Field(
        False, description="do not capture graphs: it starts sooner and answers more slowly"
    )
    lora_paths: NamedPaths = Field(
        (), description="LoRA adapters, as name=path with absolute paths, comma-separated"
    )
    speculative_algorithm: Literal["EAGLE", "EAGLE3", "NEXTN", "STANDALONE", "NGRAM"] | None = (
        Field(None, description="speculative decoding")
    )
    speculative_draft_model_path: str | None = Field(
        None, pattern="^/", description="absolute path of the draft model"
    )
    speculative_num_steps: int | None = Field(None, ge=1, description="steps of each draft")
    speculative_eagle_topk: int | None = Field(None, ge=1, description="branches of each step")
    speculative_num_draft_tokens: int | None = Field(None, ge=1, description="tokens of each draft")
    tool_call_parser: str = Field(
        "auto", pattern=r"^[a-z0-9_-]+$", description="how the model writes tool calls"
    )
    reasoning_parser: str | None = Field(
        None, pattern=r"^[a-z0-9_-]+$", description="how the model marks its reasoning"
    )
    random_seed: int = Field(0, ge=0, description="seed of requests that have none")


# From its protocol. It ignores unknown fields, so every field here was checked there.
FIELDS = RequestFields(
    honoured=frozenset(
        (
            *("max_tokens", "seed", "stop", "temperature", "top_p", "logit_bias", "logprobs"),
            *("frequency_penalty", "presence_penalty", "repetition_penalty"),
            *("top_k", "min_p", "ignore_eos", "min_tokens", "stop_token_ids", "stop_regex"),
            *("skip_special_tokens", "no_stop_trim", "response_format", "regex", "ebnf"),
            "lora_path",
        )
    ),
    chat=frozenset(
        (
            *("top_logprobs", "max_completion_tokens", "chat_template_kwargs"),
            *("continue_final_message", "separate_reasoning"),
            *("tools", "tool_choice", "parallel_tool_calls"),
        )
    ),
    renamed={
        "repeat_penalty": "repetition_penalty",
        "lora_name": "lora_path",
        "grammar": "ebnf",
        "guided_grammar": "ebnf",
        "guided_regex": "regex",
        "guided_choice": "regex",
        "guided_json": "response_format",
        "structured_outputs": "response_format",
    },
    converter="xgrammar",
    refused={
        "suffix": "it makes nothing of it",
    },
)


class Sglang(Adapter):
    """See the module."""

    name: ClassVar[str] = "SGLang"
    options: ClassVar[type[EngineOptions]] = SglangOptions
    formats: ClassVar[tuple[str, ...]] = ("pytorch", "gptq", "awq", "fp8")
    types: ClassVar[tuple[str, ...]] = ("LLM",)
    automatic: ClassVar[bool] = True
    allocates_cache: ClassVar[bool] = True
    made_for_gpus: ClassVar[bool] = True
    environment: ClassVar[Environment] = Environment(
        name="sglang",
        requirements=(),
        cuda=(FOLDER / "requirements-cuda.txt",),
        distribution="sglang",
        modules=("torch", "sglang", "sglang.launch_server"),
        architectures=_ARCHITECTURES,
    )
    context_step: ClassVar[int] = 1
    # Its /health asks the model for a token and takes a second or more.
    health_path: ClassVar[str] = "/ready"
    fields: ClassVar[RequestFields] = FIELDS
    symptoms: ClassVar[tuple[Symptom, ...]] = (
        unknown_architecture("SGLang"),
        Symptom(
            re.compile(r"KeyError: '(model\.[^']*|lm_head[^']*)'|size mismatch|shape mismatch"),
            "weights_mismatch",
            "the files are not this model's weights",
        ),
        BROKEN_SAFETENSORS,
        out_of_memory("Not enough memory"),
        port_in_use("Port is already in use"),
        Symptom(
            re.compile(r": error: (.*)"),
            "bad_option",
            "SGLang refused its command line: {0}",
        ),
        MISSING_LIBRARY,
    )

    def detect(self) -> Detection:
        """Whether there is a GPU, and its environment."""
        if find_accelerator() != "cuda":
            return Detection(missing="it needs an NVIDIA GPU; none was found on this node")
        return self.environment.detect()

    def refuses(self, variant: Variant, host: Host) -> str | None:
        """A quantization that would be made while loading: SGLang has other names for it."""
        if variant.format == "pytorch" and variant.quantization != "none":
            return (
                f"it does not load pytorch in {variant.quantization}; "
                "its own way is option quantization with the variant none"
            )
        return None

    def devices(self, options: EngineOptions, gpus: int) -> Devices:
        """The number of GPUs that the options divide the model, and its experts, between."""
        assert isinstance(options, SglangOptions)
        return Devices(options.tp_size * options.pp_size, options.cpu_offload_gb * 10**9)

    def cache_rules(
        self, architecture: Architecture, options: EngineOptions, pooled: bool = False
    ) -> CacheRules:
        """The latent row alone, with multi-head latent attention; windows are not counted on."""
        return CacheRules(latent=True)

    def overhead_bytes(
        self,
        architecture: Architecture,
        options: EngineOptions,
        context: int,
        slots: int = 1,
        pooled: bool = False,
    ) -> int:
        """The processes, and the logits of a full batch in float32."""
        assert isinstance(options, SglangOptions)
        workers = options.tp_size * options.pp_size
        return PROCESS_BYTES * workers + 4 * architecture.vocabulary_size * 256

    def command(self, serving: Serving) -> Command:
        """Its server in the engine's environment."""
        environment = self.environment.installed()
        assert environment is not None  # it was detected on this node
        return Command(
            argv=(str(environment.python), str(FOLDER / "serve.py"), *arguments(serving)),
            environ={
                # Not an argument, as it is of SGLang: every user of the machine can read those.
                "PADDOCK_ENGINE_KEY": serving.api_key,
                "HF_HUB_OFFLINE": "1",
                "PYTHONUNBUFFERED": "1",
            },
        )


def arguments(serving: Serving) -> list[str]:
    """The command line behind `python -m sglang.launch_server`, but for the key."""
    options = serving.options
    assert isinstance(options, SglangOptions)
    argv = [
        *("--model-path", str(serving.weights), "--served-model-name", serving.model_id),
        *("--host", "127.0.0.1", "--port", str(serving.port)),
        *("--context-length", str(serving.context_length)),
        *("--max-running-requests", str(serving.slots)),
        # SGLang may take another share of the memory, but holds no more tokens than planned.
        *("--max-total-tokens", str(serving.context_length * serving.slots)),
        *("--dtype", options.dtype, "--kv-cache-dtype", options.kv_cache_dtype),
        *("--load-format", options.load_format, "--random-seed", str(options.random_seed)),
        *("--tp-size", str(options.tp_size), "--pp-size", str(options.pp_size)),
        *("--ep-size", str(options.ep_size), "--cpu-offload-gb", str(options.cpu_offload_gb)),
        *("--tool-call-parser", options.tool_call_parser, "--log-level-http", "warning"),
        "--constrained-json-disable-any-whitespace",
    ]
    if serving.chat_template_file:
        argv += ["--chat-template", str(serving.chat_template_file)]
    if options.lora_paths:
        argv += ["--enable-lora", "--lora-paths", *options.lora_paths]
    for name in (
        *("mem_fraction_static", "quantization", "attention_backend", "chunked_prefill_size"),
        *("speculative_algorithm", "speculative_draft_model_path", "speculative_num_steps"),
        *("speculative_eagle_topk", "speculative_num_draft_tokens", "reasoning_parser"),
    ):
        value = getattr(options, name)
        if value is not None:
            argv += [f"--{name.replace('_', '-')}", str(value)]
    for name in ("disable_radix_cache", "disable_cuda_graph"):
        if getattr(options, name):
            argv.append(f"--{name.replace('_', '-')}")
    return argv
