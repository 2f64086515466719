"""The child process: xllamacpp's server with the settings of its one argument, until a signal."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

# By mmap and mlock.
LOAD_MODES = {
    (True, False): "MMAP",
    (True, True): "MMAP_MLOCK",
    (False, False): "NONE",
    (False, True): "MLOCK",
}
LOG_SECONDS = 0.3
"""The time that llama.cpp's log may take to be written after a failure."""
FLASH_ATTENTION = {"auto": "AUTO", "on": "ENABLED", "off": "DISABLED"}


def server_params(settings: dict[str, Any]) -> Any:
    """llama.cpp's parameters of a launch; `fit.py` asks about the same."""
    import xllamacpp as llama

    options = settings["options"]
    params = llama.CommonParams()
    params.model.path = settings["path"]
    params.model_alias = {settings["alias"]}
    params.port = settings["port"]
    params.hostnames = ["127.0.0.1"]
    params.api_keys = [os.environ["PADDOCK_ENGINE_KEY"]]
    params.n_ctx = settings["context"] * settings["slots"]
    params.n_parallel = settings["slots"]
    params.n_batch = settings["n_batch"]
    params.n_ubatch = settings["n_ubatch"]
    params.n_gpu_layers = options["n_gpu_layers"]
    params.cpuparams.n_threads = options["n_threads"]
    params.cpuparams_batch.n_threads = options["n_threads"]
    params.cache_ram_mib = options["cache_ram_mib"]
    params.verbosity = options["verbosity"]
    params.embedding = settings["embedding"] or settings["rerank"]
    if settings["rerank"]:
        params.pooling_type = llama.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    params.endpoint_metrics = True
    params.no_extra_bufts = options["repack"] is False
    params.ui = False
    params.offline = True
    # The plan has settled context and slots; llama.cpp shall not silently shrink them.
    params.fit_params = False
    params.flash_attn_type = getattr(
        llama.llama_flash_attn_type,
        f"LLAMA_FLASH_ATTN_TYPE_{FLASH_ATTENTION[options['flash_attn']]}",
    )
    params.cache_type_k = _cache_type(llama, options["cache_type_k"])
    params.cache_type_v = _cache_type(llama, options["cache_type_v"])
    mode = LOAD_MODES[options["mmap"], options["mlock"]]
    params.load_mode = getattr(llama.llama_load_mode, f"LLAMA_LOAD_MODE_{mode}")
    if options["rope_scaling"]:
        params.rope_scaling_type = getattr(
            llama.llama_rope_scaling_type,
            f"LLAMA_ROPE_SCALING_TYPE_{options['rope_scaling'].upper()}",
        )
    if options["rope_freq_base"]:
        params.rope_freq_base = options["rope_freq_base"]
    if options["rope_freq_scale"]:
        params.rope_freq_scale = options["rope_freq_scale"]
    if settings["projector"]:
        params.mmproj.path = settings["projector"]
    if settings["chat_template"]:
        params.chat_template = settings["chat_template"]
    adapters = []
    for path in options["lora"]:
        adapter = llama.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = os.path.expanduser(path), 1.0
        adapters.append(adapter)
    params.lora_adapters = adapters
    return params


def _cache_type(llama: Any, name: str) -> Any:
    return getattr(llama.ggml_type, f"GGML_TYPE_{name.upper()}")


def main() -> None:
    """Serves until SIGTERM or SIGINT; a model that does not load ends the process with 1."""
    # The system's own handling ends the process at once, in the middle of a long load as well.
    # There is nothing to tidy: the server's destructor would only wait for a batch to finish.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    settings = json.loads(sys.argv[1])
    if settings["need"]:
        from paddock.engines.llama_cpp.pooled_check import check

        check(settings["need"], Path(settings["path"]))
    params = server_params(settings)
    import xllamacpp

    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        # llama.cpp has said why, but writes its log from a thread that does not outlive us: on a
        # busy machine the reason was lost. A traceback would only push it out of the last lines.
        time.sleep(LOG_SECONDS)
        raise SystemExit(f"llama.cpp: {error}") from None
    print(f"serving on {server.listening_address}", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
