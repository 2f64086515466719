"""llama.cpp: GGUF weights through xllamacpp's server in a child process, or a `llama-server`."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from paddock.engines.adapter import Adapter
from paddock.engines.base import (
    CacheRules,
    Command,
    Detection,
    EngineOptions,
    Host,
    Paths,
    Progress,
    RequestFields,
    Serving,
    Symptom,
)
from paddock.engines.evidence import Asked
from paddock.engines.llama_cpp.ask import MIB, ask_memory
from paddock.engines.llama_cpp.memory import (
    CONTEXT_STEP,
    Batch,
    cache_rules,
    compute_bytes,
    output_bytes,
    process_bytes,
)
from paddock.engines.symptoms import (
    out_of_memory,
    port_in_use,
)
from paddock.registry.settings import read_settings
from paddock.registry.shards import file_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddock.registry.spec import Architecture

FlashAttention = Literal["auto", "on", "off"]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]

# Bytes of one cached element: blocks of 32 with a float16 scale (and minimum, for the _1 types).
CACHE_ELEMENT_BYTES: dict[str, float] = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
}

# A crash of ggml would start a debugger, where there is one, and fill the log's end with frames.
QUIET = {"GGML_NO_BACKTRACE": "1"}

REPACK_SHARE = 0.9
"""Share of the free memory that weights may take and still be copied into it."""

# Started by its path: as a module it would first import this package, which takes 0.2 s.
SERVE = Path(__file__).with_name("serve.py")
POOLED_CHECK = Path(__file__).with_name("pooled_check.py")


class LlamaCppOptions(EngineOptions):
    """llama.cpp's own options, by the names that Xinference's command line takes.

    `n_ctx` is what one request gets: the engine is given `n_ctx × n_parallel`, because llama.cpp
    divides its context between its slots.
    """

    n_ctx: int | None = Field(None, ge=1, description="tokens of context for each request")
    n_parallel: int | None = Field(None, ge=1, le=256, description="requests served side by side")
    n_gpu_layers: int = Field(-1, ge=-1, description="layers on the GPU, -1 for all that fit")
    n_threads: int | None = Field(
        None, ge=1, le=512, description="threads; left out: one fewer than there are cores"
    )
    n_batch: int = Field(2048, ge=32, description="tokens of a prompt taken in one batch")
    n_ubatch: int = Field(
        512, ge=32, description="tokens computed at once; 512: the fastest of those measured"
    )
    flash_attn: FlashAttention = Field("auto", description="flash attention")
    cache_type_k: CacheType = Field("f16", description="type of the key cache")
    cache_type_v: CacheType = Field("f16", description="type of the value cache")
    rope_scaling: Literal["none", "linear", "yarn", "longrope"] | None = Field(
        None, description="RoPE scaling; left out: as the file says"
    )
    rope_freq_base: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="RoPE base frequency"
    )
    rope_freq_scale: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="RoPE frequency scale"
    )
    lora: Paths = Field(
        (), description="LoRA adapters: absolute paths of GGUF files, comma-separated"
    )
    mmap: bool = Field(True, description="map the weights from the file in place of reading them")
    repack: bool | None = Field(
        None,
        description="rearrange the weights in memory for the CPU, which is faster; left out: only"
        " where all of them fit",
    )
    mlock: bool = Field(False, description="keep the weights from being swapped out")
    cache_ram_mib: int = Field(
        0,
        ge=0,
        description="MiB of memory for prompts of earlier requests; llama.cpp's own is 8192",
    )
    verbosity: int = Field(
        2, ge=0, le=5, description="how much the engine logs; from 3 on a line or more per request"
    )

    @field_validator("flash_attn", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        return {"true": "on", "1": "on", "false": "off", "0": "off"}.get(str(value).lower(), value)

    @field_validator("cache_type_v")
    @classmethod
    def _attended(cls, value: CacheType, info: ValidationInfo) -> CacheType:
        if info.data.get("flash_attn") == "off" and value not in {"f32", "f16", "bf16"}:
            raise ValueError("a quantized value cache needs flash attention; leave flash_attn on")
        return value


FIELDS = RequestFields(
    honoured=frozenset(
        (
            *("max_tokens", "seed", "stop", "temperature", "top_p", "logit_bias", "logprobs"),
            *("frequency_penalty", "presence_penalty"),
            # Fields of its own, from its server's documentation.
            *("top_k", "min_p", "typical_p", "top_n_sigma", "n_keep", "n_predict", "n_probs"),
            *("dynatemp_range", "dynatemp_exponent", "repeat_penalty", "repeat_last_n"),
            *("dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n"),
            *("dry_sequence_breakers", "xtc_probability", "xtc_threshold", "samplers"),
            *("mirostat", "mirostat_tau", "mirostat_eta", "grammar", "json_schema", "ignore_eos"),
            *("min_keep", "t_max_predict_ms", "id_slot", "cache_prompt", "return_tokens", "lora"),
            *("timings_per_token", "post_sampling_probs", "n_discard", "n_indent"),
            *("adaptive_target", "adaptive_decay"),
        )
    ),
    chat=frozenset(
        (
            *("top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls"),
            *("max_completion_tokens", "chat_template_kwargs", "reasoning_format"),
            *("reasoning_budget_tokens", "add_generation_prompt", "parse_tool_calls"),
        )
    ),
    embeddings=frozenset(("encoding_format", "embd_normalize")),
    renamed={
        "repetition_penalty": "repeat_penalty",
        "guided_json": "json_schema",
        "guided_grammar": "grammar",
    },
    refused={
        "suffix": "fill-in-the-middle is another route of this engine",
        "dimensions": "the model has one number of dimensions",
        "instruction": "the prompt of pairs is in the GGUF file, with an instruction of its own; "
        "the model's safetensors take another, on sentence-transformers",
        "lora_name": "adapters are chosen by launch option lora, or by field lora",
    },
    usage_in_completions=True,
    chat_logprobs=True,
    too_long=re.compile(
        rb"input \((?P<tokens>\d+) tokens\) is too large|increase the physical batch size"
    ),
    closes_after_stream=True,
    free_tool_choice=True,
    guided=True,
    converter="llama.cpp",
    tells_stop="verbose",
    counts_at="/v1/chat/completions/input_tokens",
    tokenizes_at="/tokenize",
)


class LlamaCpp(Adapter):
    """GGUF on CPU and GPU. See the module."""

    name: ClassVar[str] = "llama.cpp"
    options: ClassVar[type[EngineOptions]] = LlamaCppOptions
    formats: ClassVar[tuple[str, ...]] = ("ggufv2",)
    types: ClassVar[tuple[str, ...]] = ("LLM", "embedding", "rerank")
    automatic: ClassVar[bool] = True
    allocates_cache: ClassVar[bool] = True
    smaller_cache: ClassVar[Mapping[str, str]] = {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}
    context_step: ClassVar[int] = CONTEXT_STEP
    health_path: ClassVar[str] = "/health"
    # The slots' counters move with each batch; those of /metrics only at a request's end.
    progress: ClassVar[Progress | None] = Progress(
        "/slots", re.compile(r'"(?:n_decoded|n_prompt_tokens_processed|id_task)": ?(-?\d+)')
    )
    fields: ClassVar[RequestFields] = FIELDS
    symptoms: ClassVar[tuple[Symptom, ...]] = (
        Symptom(
            re.compile(r"unknown model architecture: '([^']*)'"),
            "unsupported_arch",
            "this llama.cpp does not know the model's architecture {0}",
        ),
        # Before the symptoms of a broken file: a file that is no adapter shows both.
        Symptom(
            re.compile(r"failed to (?:load|apply) lora"),
            "bad_option",
            "a LoRA adapter could not be loaded",
        ),
        Symptom(re.compile(r"^unfit: (.*)"), "unsupported_arch", "{0}"),
        Symptom(
            re.compile(r"llama_init_from_model: (.* requires .*)"),
            "bad_option",
            "llama.cpp refused its options: {0}",
        ),
        Symptom(
            re.compile(
                r"invalid magic|failed to read magic|model is corrupted|failed to read key-value|"
                r"is not within the file bounds"
            ),
            "corrupt_file",
            "the weights are not a whole GGUF file",
        ),
        Symptom(
            re.compile(r"(?:check_tensor_dims|done_getting_tensors): (.*)"),
            "weights_mismatch",
            "the file has not this model's weights: {0}",
        ),
        Symptom(
            re.compile(r"common_chat_templates_init: error: (.*)"),
            "chat_template",
            "llama.cpp cannot read the chat template: {0}",
        ),
        Symptom(
            re.compile(r"chat template parsing error"),
            "chat_template",
            "llama.cpp cannot use the chat template",
        ),
        out_of_memory("(?:unable|failed) to allocate", "cudaMalloc failed", "out of memory"),
        port_in_use("couldn't bind"),
        Symptom(
            re.compile(r"failed to load model|error loading model"),
            "load_failed",
            "llama.cpp could not load the model",
        ),
    )

    def detect(self) -> Detection:
        """A `llama-server` that the settings name, else xllamacpp, else one on PATH."""
        configured = read_settings().llama_server
        if configured:
            program = shutil.which(configured)
            return (
                Detection(version=f"llama-server ({program})")
                if program
                else Detection(
                    missing=f"PADDOCK_LLAMA_SERVER names {configured}, which is no program"
                )
            )
        if find_spec("xllamacpp") is not None:
            try:
                return Detection(version=f"xllamacpp {version('xllamacpp')}")
            except PackageNotFoundError:
                return Detection(version="xllamacpp")
        program = shutil.which("llama-server")
        if program:
            return Detection(version=f"llama-server ({program})")
        return Detection(missing="neither xllamacpp nor a llama-server is installed")

    def fields_of(self, version: str) -> RequestFields:
        """A `llama-server` is mostly built without llguidance, and takes schemas its own way."""
        return replace(FIELDS, guided=False) if version.startswith("llama-server") else FIELDS

    def longest_context(self, options: EngineOptions, trained: int) -> int:
        """RoPE's frequency scale is one by the factor; llama.cpp's kind of scaling is linear."""
        assert isinstance(options, LlamaCppOptions)
        scale = options.rope_freq_scale or 1.0
        if options.rope_scaling == "none" or not 1 / 1024 <= scale < 1:
            return trained
        return round(trained / scale)

    def fill_defaults(
        self, options: EngineOptions, host: Host, weights_bytes: int
    ) -> EngineOptions:
        """Leaves one core to the gateway and the client, and repacks only weights that fit.

        With as many threads as cores, llama.cpp's spinning workers lose most of their speed as
        soon as others are busy: on two cores 85 tokens/s were left of 2,566 (bench/threads.py).
        Repacked weights gave half as many tokens/s again, but are copies (docs/memory.md).
        """
        assert isinstance(options, LlamaCppOptions)
        settled: dict[str, object] = {}
        if options.n_threads is None:
            settled["n_threads"] = max(1, host.cpus - 1)
        if options.repack is None:
            settled["repack"] = weights_bytes <= REPACK_SHARE * host.memory_free_bytes
        return options.model_copy(update=settled)

    def pages(self, options: EngineOptions) -> bool:
        """Whether the weights stay in the file and come to memory page by page.

        Repacked they do not: llama.cpp then copies nearly all of them from the mapped file.
        """
        assert isinstance(options, LlamaCppOptions)
        return options.mmap and not options.mlock and options.repack is False

    def cache_element_bytes(self, options: EngineOptions) -> tuple[float, float]:
        """By the types of the key and the value cache."""
        assert isinstance(options, LlamaCppOptions)
        return CACHE_ELEMENT_BYTES[options.cache_type_k], CACHE_ELEMENT_BYTES[options.cache_type_v]

    def cache_rules(
        self, architecture: Architecture, options: EngineOptions, pooled: bool = False
    ) -> CacheRules:
        """Windows of the families for which llama.cpp has such a cache, and latent rows.

        In pooling a micro-batch is longer than the context, so that a window saves nothing.
        """
        assert isinstance(options, LlamaCppOptions)
        _, tokens = _batches(options, 1, pooled=False)
        rules = cache_rules(architecture, tokens)
        return replace(rules, windows=False) if pooled else rules

    def overhead_bytes(
        self,
        architecture: Architecture,
        options: EngineOptions,
        context: int,
        slots: int = 1,
        pooled: bool = False,
    ) -> int:
        """The process, the kept prompts and the buffers of one micro-batch."""
        assert isinstance(options, LlamaCppOptions)
        _, tokens = _batches(options, context, pooled)
        batch = Batch(tokens, tokens if pooled else slots, options.flash_attn != "off")
        return (
            process_bytes(architecture)
            + compute_bytes(architecture, context, slots, batch)
            + output_bytes(architecture, batch)
            + options.cache_ram_mib * 1024 * 1024
        )

    def ask(
        self, serving: Serving, architecture: Architecture, environ: Mapping[str, str]
    ) -> Asked | None:
        """By its own breakdown; not where a `llama-server` serves, which cannot be asked."""
        if _program() or serving.weights is None:
            return None
        said = ask_memory(sys.executable, launch_settings(serving), environ)
        options = serving.options
        assert isinstance(options, LlamaCppOptions)
        of_process = sum(one.model_bytes for one in said.devices if "REPACK" in one.name)
        beside = sum(one.model_bytes for one in said.devices) - of_process
        stored = file_bytes(serving.weights)
        # It reckons without mmap, and counts a tied embedding twice that is mapped once.
        is_mapped = options.mmap and not options.mlock
        mapped = min(beside, max(0, stored - of_process)) if is_mapped else 0
        _, tokens = _serving_batches(serving)
        outputs = Batch(tokens, tokens if _is_pooled(serving) else serving.slots)
        adapters = sum(Path(one).expanduser().stat().st_size for one in options.lora)
        # Each row is rounded down to whole MiB, which a small model would be nothing of.
        rounded = len(said.devices) * MIB
        weights = of_process + (mapped if is_mapped else beside)
        return Asked(
            weights_bytes=max(weights, min(stored, weights + rounded)),
            mapped_bytes=mapped,
            cache_bytes=sum(one.context_bytes for one in said.devices),
            compute_bytes=sum(one.compute_bytes for one in said.devices)
            + output_bytes(architecture, outputs)
            + said.projector_bytes,
            process_bytes=process_bytes(architecture)
            + adapters
            + options.cache_ram_mib * 1024 * 1024,
            file_bytes=stored,
        )

    def command(self, serving: Serving) -> Command:
        """The built-in server as a child of ours, or a `llama-server`."""
        program = _program()
        if program:
            return _checked(_llama_server(program, serving), serving)
        return Command(
            argv=(sys.executable, "-P", str(SERVE), json.dumps(launch_settings(serving))),
            environ={"PADDOCK_ENGINE_KEY": serving.api_key, **QUIET},
        )


def _program() -> str:
    """The `llama-server` that serves; empty: xllamacpp does."""
    configured = read_settings().llama_server
    if configured or find_spec("xllamacpp") is not None:
        return configured or ""
    return "llama-server"


def launch_settings(serving: Serving) -> dict[str, Any]:
    """What `serve.py` is started with, and what `ask_memory` asks about."""
    batch, ubatch = _serving_batches(serving)
    return {
        "path": str(serving.weights),
        "alias": serving.model_id,
        "port": serving.port,
        "context": _rounded_slot(serving.context_length),
        "slots": serving.slots,
        "embedding": "embed" in serving.abilities,
        "rerank": "rerank" in serving.abilities,
        "need": _need(serving),
        "chat_template": serving.chat_template,
        "projector": serving.projector and str(serving.projector),
        "options": serving.options.model_dump(mode="json"),
        "n_batch": batch,
        "n_ubatch": ubatch,
    }


def _rounded_slot(context: int) -> int:
    """The context of a slot after llama.cpp's own rounding.

    With less than two tokens it aborts, because its warm-up takes two.
    """
    return -(-context // CONTEXT_STEP) * CONTEXT_STEP


def _batches(options: LlamaCppOptions, context: int, pooled: bool) -> tuple[int, int]:
    """Tokens taken and computed at once.

    In embedding and ranking every token sees every other, so an input is one batch. A batch is one
    step larger than the context: an input that is a little too long is then refused as such, while
    one that is larger than a batch counts as a fault of the server. Larger batches cost memory by
    their square.
    """
    if pooled:
        batch = _rounded_slot(context) + CONTEXT_STEP
        return batch, batch
    return options.n_batch, min(options.n_ubatch, options.n_batch)


def _serving_batches(serving: Serving) -> tuple[int, int]:
    options = serving.options
    assert isinstance(options, LlamaCppOptions)
    return _batches(options, serving.context_length, _is_pooled(serving))


def _is_pooled(serving: Serving) -> bool:
    return bool({"embed", "rerank"} & set(serving.abilities))


def _need(serving: Serving) -> str:
    """What the file is checked for (`pooled_check.py`); empty: nothing."""
    if "rerank" in serving.abilities:
        return "rank"
    return "end" if serving.embedding is not None and serving.embedding.ends_texts else ""


def _checked(command: Command, serving: Serving) -> Command:
    """The command after a look at the file, where it has to have something of its own."""
    need = _need(serving)
    if not need:
        return command
    look = (sys.executable, "-P", str(POOLED_CHECK), need, str(serving.weights))
    return replace(command, argv=(*look, *command.argv))


def _llama_server(program: str, serving: Serving) -> Command:
    options = serving.options
    assert isinstance(options, LlamaCppOptions)
    batch, ubatch = _serving_batches(serving)
    argv = [
        shutil.which(program) or program,
        *("--model", str(serving.weights), "--alias", serving.model_id),
        *("--host", "127.0.0.1", "--port", str(serving.port)),
        *("--ctx-size", str(_rounded_slot(serving.context_length) * serving.slots)),
        *("--parallel", str(serving.slots)),
        *("--batch-size", str(batch), "--ubatch-size", str(ubatch)),
        *("--flash-attn", options.flash_attn),
        *("--cache-type-k", options.cache_type_k, "--cache-type-v", options.cache_type_v),
        *("--cache-ram", str(options.cache_ram_mib)),
        *("--threads", str(options.n_threads), "--jinja", "--no-webui"),
    ]
    if options.n_gpu_layers >= 0:
        argv += ["--n-gpu-layers", str(options.n_gpu_layers)]
    if options.rope_scaling:
        argv += ["--rope-scaling", options.rope_scaling]
    if options.rope_freq_base:
        argv += ["--rope-freq-base", str(options.rope_freq_base)]
    if options.rope_freq_scale:
        argv += ["--rope-freq-scale", str(options.rope_freq_scale)]
    if not options.mmap:
        argv.append("--no-mmap")
    if options.repack is False:
        argv.append("--no-repack")
    if options.mlock:
        argv.append("--mlock")
    if serving.projector:
        argv += ["--mmproj", str(serving.projector)]
    if serving.chat_template_file:
        argv += ["--chat-template-file", str(serving.chat_template_file)]
    if "embed" in serving.abilities:
        argv.append("--embeddings")
    if "rerank" in serving.abilities:
        argv.append("--reranking")
    for adapter in options.lora:
        argv += ["--lora", str(Path(adapter).expanduser())]
    # The key is in the environment, because every user of the machine can read arguments.
    return Command(argv=tuple(argv), environ={"LLAMA_API_KEY": serving.api_key, **QUIET})
