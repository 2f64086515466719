"""Which variables of the environment an engine gets: an allow-list, without anything secret.

An engine runs code of others, at times of a model's own repository. It gets what programs need to
run at all, and what the libraries of engines are tuned with; no token of a hub, no cloud's key.
The same holds for an engine's program or Python that is run only to ask it something.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAMES = frozenset(
    (
        "CC",
        "CPATH",
        "CXX",
        "HOME",
        "HOSTNAME",
        "LANG",
        "LANGUAGE",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "LIBRARY_PATH",
        "LOGNAME",
        "PADDOCK_INSTANCE",
        "PADDOCK_ROLE",
        "PATH",
        "PWD",
        "SHELL",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "SYSTEMROOT",
        "TEMP",
        "TERM",
        "TMP",
        "TMPDIR",
        "TZ",
        "USER",
        "VIRTUAL_ENV",
    )
)
_PREFIXES = (
    *("CUDA", "CUDNN", "CUBLAS", "NVIDIA_", "NCCL_", "GLOO_", "HIP", "HSA_", "ROC", "AMD_"),
    *("ONEAPI_", "SYCL_", "ZE_", "VK_", "GGML_", "LLAMA_", "METAL_", "MTL_", "MVK_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "NUMEXPR_", "VECLIB_", "MALLOC_"),
    *("TORCH", "PYTORCH_", "TRITON_", "VLLM_", "SGL_", "SGLANG_", "TRANSFORMERS_", "TOKENIZERS_"),
    *("GPTQMODEL_", "BNB_", "SAFETENSORS_", "FLASHINFER_", "PYTHON", "LC_", "XDG_", "HF_HUB_"),
    *("HF_HOME", "HF_MODULES_CACHE", "HF_DATASETS_CACHE", "PADDOCK_HOME", "UCX_", "FI_"),
)
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(?:^|_)KEYS?(?:$|_)", re.IGNORECASE)
# Set in many containers: each start would compile anew all that the engine imports.
_DROPPED = frozenset(("PYTHONDONTWRITEBYTECODE", "HF_HUB_TOKEN"))


def engine_environment(environ: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The environment of an engine: what is allowed of `environ`, and all of `own` over it.

    `RAY_*` is not among it: vLLM, for one, would join our cluster by itself.
    """
    allowed = {name: value for name, value in environ.items() if is_allowed(name)}
    return {**allowed, **own}


def is_allowed(name: str) -> bool:
    """Whether an engine may see the variable."""
    if name in _DROPPED:
        return False
    if name in _NAMES:
        return True
    return name.startswith(_PREFIXES) and not _SECRET.search(name.removeprefix("TOKENIZERS_"))
