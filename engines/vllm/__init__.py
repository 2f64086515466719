"""vLLM: safetensors as they are or quantized, with paged attention and continuous batching.

It runs in an environment of its own (`paddock engine install vllm`): `vllm serve` as its makers
have it, with `paddock_guard.py` and `paddock_whole.py` beside it for what it leaves open (routes
without a key, and weights that a load has left out). Without a GPU that is vLLM's CPU build.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from paddock.engines.adapter import Adapter
from paddock.engines.base import (
    CacheRules,
    Command,
    Detection,
    Devices,
    EngineOptions,
    Host,
    NamedPaths,
    Progress,
    RequestFields,
    Serving,
    Symptom,
)
from paddock.engines.environment import Environment, find_accelerator
from paddock.engines.symptoms import (
    BROKEN_CONFIG,
    BROKEN_SAFETENSORS,
    MISSING_FILE,
    MISSING_LIBRARY,
    NO_TOKENIZER,
    WRONG_WEIGHTS,
    out_of_memory,
    port_in_use,
    unknown_architecture,
)
from paddock.registry.derive.repository import scaled_context
from paddock.registry.settings import read_settings

if TYPE_CHECKING:
    from paddock.registry.spec import Architecture, Variant

FOLDER = Path(__file__).parent
PROCESS_BYTES = 1_430_000_000
"""The server, the engine's core and one worker, without a model: 1.4 GB were measured."""
WORKER_BYTES = 700_000_000
"""Each worker beyond the first."""
STEP_TOKENS = 2048
"""Tokens of one step, vLLM's own default for a server on a CPU."""
SPARE_CACHE_BYTES = 64 * 1024 * 1024
"""More cache than the plan counts: vLLM keeps one block to itself, and blocks are whole."""

# Run in the environment of vLLM; imports no model.
_ARCHITECTURES = """
import json
from vllm.model_executor.models.registry import ModelRegistry
print(json.dumps(sorted(ModelRegistry.get_supported_archs())))
"""

DType = Literal["auto", "float32", "bfloat16", "float16"]


class VllmOptions(EngineOptions):
    """vLLM's options, by its own names but for those that all engines share."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "max_model_len": "n_ctx",
        "max_num_seqs": "n_parallel",
    }

    n_ctx: int | None = Field(None, ge=1, description="context of one request, in tokens")
    n_parallel: int | None = Field(None, ge=1, le=1024, description="requests side by side")
    dtype: DType = Field("auto", description="type of the weights in memory; auto: as in the files")
    n_threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="threads, on a CPU; left out: one fewer than there are cores",
    )
    cpu_bind: str | None = Field(
        None,
        pattern=r"^(auto|[0-9,|-]+)$",
        description="cores that the threads are bound to: auto, or a list as 0-15 (parallel parts"
        " divided by |); left out: none, so that two models do not share a core",
    )
    tensor_parallel_size: int = Field(1, ge=1, description="devices that share each layer")
    pipeline_parallel_size: int = Field(1, ge=1, description="devices that share the layers")
    enable_expert_parallel: bool = Field(
        False, description="divide a mixture's experts, not its layers, between devices"
    )
    gpu_memory_utilization: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the device's memory for weights and cache; left out: a cache as"
        " large as the plan says",
    )
    cpu_offload_gb: float = Field(0, ge=0, description="GiB of weights kept off each GPU")
    kv_cache_dtype: Literal["auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"] = Field(
        "auto", description="type of the key-value cache; auto: as the weights"
    )
    quantization: str | None = Field(
        None,
        pattern=r"^[a-z0-9_-]+$",
        description="how the weights are quantized, or (fp8_per_tensor, …) shall be while they"
        " load; left out: as the files say",
    )
    load_format: Literal["auto", "safetensors", "fastsafetensors", "dummy"] = Field(
        "auto", description="how the weights are read"
    )
    max_num_batched_tokens: int | None = Field(
        None, ge=1, description="tokens of one step; left out: vLLM's choice"
    )
    block_size: int | None = Field(None, ge=1, description="tokens of one block of the cache")
    enable_prefix_caching: bool = Field(
        True, description="keep the cache of prompts' beginnings for later requests"
    )
    enforce_eager: bool = Field(
        False, description="do not compile the model: it starts sooner and answers more slowly"
    )
    lora_modules: NamedPaths = Field(
        (),
        description="LoRA adapters, as name=path with absolute paths, comma-separated; a mixture's"
        " need a GPU",
    )
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = Field(
        16, description="the largest rank among the adapters"
    )
    speculative_config: dict[str, Any] | None = Field(
        None, description='speculative decoding, as vLLM\'s JSON: {"method": "ngram", …}'
    )
    hf_overrides: dict[str, Any] | None = Field(
        None, description="changes to the model's config.json, as JSON: RoPE scaling, …"
    )
    enable_sleep_mode: bool = Field(False, description="let the engine give its memory back (GPU)")
    tool_call_parser: str | None = Field(
        None,
        pattern=r"^[a-z0-9_-]+$",
        description="how the model writes tool calls (mistral, hermes, …); without it requests"
        " with tools are refused",
    )
    reasoning_parser: str | None = Field(
        None, pattern=r"^[a-z0-9_-]+$", description="how the model marks its reasoning"
    )
    seed: int = Field(0, ge=0, description="seed of requests that have none")

    @field_validator("speculative_config", "hf_overrides", mode="before")
    @classmethod
    def _parsed(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value

    @field_validator("max_lora_rank", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        return int(value) if isinstance(value, str) and value.isdigit() else value


# What shows in tiny-mixtral's answers was seen there. Not among them, though vLLM's protocol has
# them: what it takes no notice of (priority, documents, bad_words that are whole tokens), and what
# it refuses to stream (beam search, prompt_logprobs).
FIELDS = RequestFields(
    honoured=frozenset(
        (
            *("max_tokens", "seed", "stop", "temperature", "top_p", "logit_bias", "logprobs"),
            *("frequency_penalty", "presence_penalty", "repetition_penalty"),
            *("top_k", "min_p", "ignore_eos", "min_tokens", "stop_token_ids"),
            *("include_stop_str_in_output", "skip_special_tokens", "allowed_token_ids"),
            *("response_format", "structured_outputs", "return_token_ids"),
            "model",  # a request's is the launched model's: only `lora_name` comes to this
        )
    ),
    completions=frozenset(("add_special_tokens", "truncate_prompt_tokens")),
    chat=frozenset(
        (
            *("top_logprobs", "max_completion_tokens", "chat_template_kwargs"),
            *("add_generation_prompt", "continue_final_message"),
            *("tools", "tool_choice", "parallel_tool_calls"),
        )
    ),
    renamed={
        "repeat_penalty": "repetition_penalty",
        "lora_name": "model",
        "json_schema": "response_format",
        "guided_json": "response_format",
        "grammar": "structured_outputs",
        "guided_grammar": "structured_outputs",
        "guided_regex": "structured_outputs",
        "guided_choice": "structured_outputs",
    },
    refused={
        "priority": "it serves requests in the order in which they come",
        "prompt_logprobs": "it has none to give in a stream, as which all requests are sent on",
        "use_beam_search": "it cannot stream it, and all requests are sent on as streams",
    },
    converter="xgrammar",
    counts_at="/tokenize",
)

SYMPTOMS = (
    WRONG_WEIGHTS,
    Symptom(
        re.compile(r"There is no module or parameter named '([^']*)'"),
        "weights_mismatch",
        "the files are not this model's weights: it has no {0}",
    ),
    Symptom(
        re.compile(r"has no parameter '[^']*' for checkpoint weight '([^']*)'"),
        "weights_mismatch",
        "the files are not this model's weights: it has no {0}",
    ),
    Symptom(
        re.compile(r"Following weights were not initialized from checkpoint: (.{1,200})"),
        "weights_mismatch",
        "the files are not this model's weights; missing are {0}",
    ),
    Symptom(
        # vLLM's message for a name that begins with that of a part of a fused layer.
        re.compile(r"AttributeError: '\w*Linear' object has no attribute 'data'"),
        "weights_mismatch",
        "the files are not this model's weights: a linear layer has a tensor that is none of its",
    ),
    Symptom(
        re.compile(
            r"size of tensor|shape mismatch|does not match the shape|size mismatch|"
            r"assert .*loaded_weight\.(?:shape|size)"
        ),
        "weights_mismatch",
        "the files are not this model's weights: a tensor has another shape",
    ),
    Symptom(
        re.compile(r"NotImplementedError: No WNA16 MoE backend"),
        "unsupported_arch",
        "vLLM has no kernel here for a mixture's quantized experts: on a processor it takes AMX;"
        " engine Transformers has one",
    ),
    unknown_architecture("vLLM"),
    BROKEN_SAFETENSORS,
    MISSING_FILE,
    BROKEN_CONFIG,
    NO_TOKENIZER,
    out_of_memory(
        "is less than (?:desired|requested memory)",
        "No available memory for the cache blocks",
        "KV cache is needed, which is larger than",
    ),
    port_in_use(),
    Symptom(
        re.compile(r"\b(?:serve|main\.py|vllm): error: (.*)"),
        "bad_option",
        "vLLM refused its command line: {0}",
    ),
    Symptom(
        re.compile(r"KeyError: '(invalid (?:tool call|reasoning) parser: \S+)"),
        "bad_option",
        "vLLM refused its options: {0}",
    ),
    Symptom(
        re.compile(r"--(tool-call-parser \S+|reasoning-parser \S+) cannot be used with"),
        "bad_option",
        "the model's tokenizer does not go with {0}",
    ),
    Symptom(
        re.compile(r"module 'triton\.language' has no attribute"),
        "bad_option",
        "what was asked for (a mixture's LoRA adapters) needs Triton, and so a GPU",
    ),
    Symptom(
        re.compile(r"(?:LoRA|lora).*(?:not found|does not exist|is greater than|failed to load)"),
        "bad_option",
        "a LoRA adapter could not be loaded",
    ),
    Symptom(
        re.compile(r"\bValue error, (.*?)(?: \[type=|$)"),
        "bad_option",
        "vLLM refused its options: {0}",
    ),
    Symptom(
        re.compile(r"ValidationError: \d+ validation errors? for (\w+)"),
        "bad_option",
        "vLLM refused its options ({0})",
    ),
    MISSING_LIBRARY,
)


class Vllm(Adapter):
    """See the module."""

    name: ClassVar[str] = "vLLM"
    options: ClassVar[type[EngineOptions]] = VllmOptions
    # bitsandbytes' own checkpoints are none of it: vLLM 0.32 has taken them out of its core.
    formats: ClassVar[tuple[str, ...]] = ("pytorch", "gptq", "awq", "fp8")
    types: ClassVar[tuple[str, ...]] = ("LLM",)
    automatic: ClassVar[bool] = True
    allocates_cache: ClassVar[bool] = True
    made_for_gpus: ClassVar[bool] = True
    environment: ClassVar[Environment] = Environment(
        name="vllm",
        requirements=(FOLDER / "requirements.txt",),
        distribution="vllm",
        modules=("torch", "vllm", "vllm.entrypoints.cli.main"),
        complete=True,
        cuda=(FOLDER / "requirements-cuda.txt",),
        architectures=_ARCHITECTURES,
        # It tells vLLM's core that it was built for the CPU.
        metadata={"vllm": "0.32.0+cpu"},
    )
    context_step: ClassVar[int] = 128
    health_path: ClassVar[str] = "/health"
    # Tokens of a prompt are counted with its first answer; until then its cache fills.
    progress: ClassVar[Progress | None] = Progress(
        "/metrics",
        re.compile(
            r"(?m)^vllm:(?:(?:generation|prompt)_tokens_total|kv_cache_usage_perc)\S* (\S+)"
        ),
    )
    fields: ClassVar[RequestFields] = FIELDS
    symptoms: ClassVar[tuple[Symptom, ...]] = SYMPTOMS

    def detect(self) -> Detection:
        """Its environment; one for GPUs does not start where there is none."""
        detection = self.environment.detect()
        if detection.cuda and find_accelerator() == "cpu":
            install = "paddock engine install vllm --force"
            return Detection(
                missing=f"it was installed for GPUs, and none is here; again: {install}"
            )
        return detection

    def refuses(self, variant: Variant, host: Host) -> str | None:
        """A quantization to be made while loading. The architecture shows when it is read."""
        if variant.format == "pytorch" and variant.quantization != "none":
            return (
                f"this vLLM has no bitsandbytes to load it in {variant.quantization}; "
                "its own way is option quantization with the variant none"
            )
        return None

    def longest_context(self, options: EngineOptions, trained: int) -> int:
        """As vLLM reckons it of what `hf_overrides` puts into the configuration."""
        assert isinstance(options, VllmOptions)
        changes = options.hf_overrides or {}
        scaling = changes.get("rope_scaling") or changes.get("rope_parameters") or {}
        if not isinstance(scaling, dict):
            return trained
        kind = scaling.get("rope_type", scaling.get("type"))
        original = scaling.get("original_max_position_embeddings")
        return scaled_context(kind, scaling.get("factor"), original, trained)

    def devices(self, options: EngineOptions, gpus: int) -> Devices:
        """The number of GPUs that the options divide the model between."""
        assert isinstance(options, VllmOptions)
        count = options.tensor_parallel_size * options.pipeline_parallel_size
        return Devices(count, round(options.cpu_offload_gb * 2**30))

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
        """The processes, the spare cache, and one step's activations and logits in float32.

        Of activations twice as much was measured as the widest layer has at a time.
        """
        assert isinstance(options, VllmOptions)
        experts = max(1, architecture.experts_per_token)
        row = 8 * (4 * architecture.hidden_size + 2 * experts * architecture.intermediate_size)
        logits = 4 * 2 * architecture.vocabulary_size * (options.n_parallel or 16)
        steps = (options.max_num_batched_tokens or STEP_TOKENS) * row
        workers = options.tensor_parallel_size * options.pipeline_parallel_size
        return PROCESS_BYTES + (workers - 1) * WORKER_BYTES + SPARE_CACHE_BYTES + steps + logits

    def command(self, serving: Serving) -> Command:
        """`vllm serve` in the engine's environment."""
        environment = self.environment.installed()
        assert environment is not None  # it was detected on this node
        options = serving.options
        assert isinstance(options, VllmOptions)
        argv = [
            *(str(environment.python), "-m", "vllm.entrypoints.cli.main"),
            *arguments(serving),
        ]
        cache = read_settings().home / "cache" / "vllm"
        environ = {
            # Not an argument, because every user of the machine can read those.
            "VLLM_API_KEY": serving.api_key,
            "VLLM_HOST_IP": "127.0.0.1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_COLOR": "0",
            # A cache of compiled code.
            "VLLM_CACHE_ROOT": str(cache),
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(FOLDER),
            "PYTHONUNBUFFERED": "1",
        }
        if environment.accelerator == "cpu":
            environ |= _cpu(options)
        return Command(argv=tuple(argv), environ=environ)


def _utilization(share: float) -> float:
    """What vLLM shall find free of each GPU, as a part of the whole, to start at all.

    It looks once its own context and NCCL's buffers are there (`init_device` and `request_memory`
    of vllm/v1/worker, 0.32), and the plan counts those too, so that what it finds is less than what
    was free: of the plan's share a tenth is left for them. Left out, it would want 92 % of a GPU
    that others use as well. The cache's size does not follow from it, but is given in bytes.
    """
    return max(0.01, math.floor(share * 0.9 * 1000) / 1000)


def _cpu(options: VllmOptions) -> dict[str, str]:
    """Threads on a CPU. By itself vLLM binds those of every model to the same first cores."""
    workers = options.tensor_parallel_size * options.pipeline_parallel_size
    threads = max(1, (options.n_threads or 1) // workers)
    environ = {
        "VLLM_CPU_OMP_THREADS_BIND": options.cpu_bind or "nobind",
        "OMP_NUM_THREADS": str(threads),
    }
    if options.enforce_eager or options.lora_modules:  # with adapters vLLM does not compile either
        # Else the first request for log probabilities compiles a few lines, and all wait 20 s.
        environ["TORCHDYNAMO_DISABLE"] = "1"
    return environ


def _chat_template(serving: Serving) -> tuple[str, ...]:
    # Not its text, in which vLLM would resolve escapes and spoil what is not ASCII.
    file = serving.chat_template_file
    return () if file is None else ("--chat-template", str(file))


def arguments(serving: Serving) -> list[str]:
    """The command line behind `vllm`."""
    options = serving.options
    assert isinstance(options, VllmOptions)
    argv = [
        *("serve", str(serving.weights), "--served-model-name", serving.model_id),
        *("--host", "127.0.0.1", "--port", str(serving.port)),
        *("--max-model-len", str(serving.context_length)),
        *("--max-num-seqs", str(serving.slots)),
        *("--dtype", options.dtype, "--kv-cache-dtype", options.kv_cache_dtype),
        *("--load-format", options.load_format, "--seed", str(options.seed)),
        *("--tensor-parallel-size", str(options.tensor_parallel_size)),
        *("--pipeline-parallel-size", str(options.pipeline_parallel_size)),
        *("--cpu-offload-gb", f"{options.cpu_offload_gb:g}"),
        # Else a repository's own settings (generation_config.json) would count where a request
        # leaves something open, and cap its answers, on this engine alone. Its ends count anyhow.
        *("--generation-config", "vllm"),
        *("--max-logprobs", "20", "--allowed-origins", "[]", "--disable-fastapi-docs"),
        *("--disable-uvicorn-access-log", "--no-enable-log-requests"),
        *("--middleware", "paddock_guard.Guard"),
        *("--worker-extension-cls", "paddock_whole.Whole"),
        # Left to themselves, small models held to JSON write blanks until their tokens are spent.
        # Of the backends that can forbid it, guidance does not know what required tools ask for.
        "--structured-outputs-config",
        json.dumps({"backend": "xgrammar", "disable_any_whitespace": True}),
        *_chat_template(serving),
    ]
    if options.gpu_memory_utilization is not None:
        argv += ["--gpu-memory-utilization", f"{options.gpu_memory_utilization:g}"]
    else:
        workers = options.tensor_parallel_size * options.pipeline_parallel_size
        share = -(-serving.cache_bytes // workers) + SPARE_CACHE_BYTES
        argv += ["--kv-cache-memory-bytes", str(share)]
        if serving.gpu_share:
            argv += ["--gpu-memory-utilization", f"{_utilization(serving.gpu_share):g}"]
    if options.lora_modules:
        argv += ["--enable-lora", "--max-lora-rank", str(options.max_lora_rank)]
        argv += ["--max-loras", str(len(options.lora_modules))]
        argv += ["--lora-modules", *options.lora_modules]
    if options.tool_call_parser:
        argv += ["--enable-auto-tool-choice", "--tool-call-parser", options.tool_call_parser]
        argv += ["--tool-strict-level", "parameter"]  # without it arguments may be anything
    for name in ("max_num_batched_tokens", "block_size", "quantization", "reasoning_parser"):
        value = getattr(options, name)
        if value is not None:
            argv += [f"--{name.replace('_', '-')}", str(value)]
    for name in ("speculative_config", "hf_overrides"):
        value = getattr(options, name)
        if value is not None:
            argv += [f"--{name.replace('_', '-')}", json.dumps(value)]
    for name in ("enforce_eager", "enable_expert_parallel", "enable_sleep_mode"):
        if getattr(options, name):
            argv.append(f"--{name.replace('_', '-')}")
    if not options.enable_prefix_caching:
        argv.append("--no-enable-prefix-caching")
    return argv
