"""What an engine sees of the environment."""

from __future__ import annotations

import pytest

from paddock.launcher.hosts.environ import engine_environment, is_allowed


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_TOKEN", "MODELSCOPE_API_TOKEN"),
        *("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "OPENAI_API_KEY", "GITHUB_TOKEN"),
        *("PADDOCK_API_KEY", "VLLM_API_KEY", "XDG_SECRET", "RAY_ADDRESS", "SSH_AUTH_SOCK"),
        *("GOOGLE_APPLICATION_CREDENTIALS", "PYTHONDONTWRITEBYTECODE", "KUBECONFIG", "MY_VAR"),
    ],
)
def test_secrets_and_what_is_nobodys_are_kept_back(name: str) -> None:
    """Tokens, keys, Ray's settings, and whatever an engine has no use for."""
    assert not is_allowed(name)


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "TZ"),
        *("CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES"),
        *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE", "VLLM_CPU_KVCACHE_SPACE"),
        *("HF_HOME", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM", "GPTQMODEL_CPU_WORKERS"),
        *("PADDOCK_HOME", "PADDOCK_INSTANCE", "PADDOCK_ROLE"),
    ],
)
def test_what_programs_and_engines_need_is_passed_on(name: str) -> None:
    """Paths, the system's, and what the libraries of engines are tuned with."""
    assert is_allowed(name)


def test_what_the_adapter_sets_counts_over_all() -> None:
    """Its key as well, whatever its name."""
    environ = engine_environment(
        {"PATH": "/bin", "HF_TOKEN": "x", "OMP_NUM_THREADS": "9"},
        {"OMP_NUM_THREADS": "1", "VLLM_API_KEY": "own"},
    )
    assert environ == {"PATH": "/bin", "OMP_NUM_THREADS": "1", "VLLM_API_KEY": "own"}
