"""Symptoms that engines have in common: what PyTorch, Transformers and sockets say of failures."""

from __future__ import annotations

import re

from paddock.engines.base import Symptom

WRONG_WEIGHTS = Symptom(
    re.compile(r"weights_mismatch: (.*)"),  # ours, from the programs beside the adapters
    "weights_mismatch",
    "the files are not this model's weights: {0}",
)
MISSHAPEN = Symptom(
    # A row of Transformers' load report; of a mixture's stacked experts, one may be gone.
    re.compile(r"^(\S+) +\| (?:MISMATCH|CONVERSION) "),
    "weights_mismatch",
    "the files are not this model's weights: {0} has another shape",
)
BROKEN_SAFETENSORS = Symptom(
    re.compile(r"SafetensorError|incomplete metadata|HeaderTooLarge|InvalidHeader"),
    "corrupt_file",
    "the weights are not whole safetensors",
)
MISSING_FILE = Symptom(
    re.compile(
        r"(?:No such file or directory: |referenced in index but missing: \{|no file named )"
        r"'?(.*?\.safetensors)"
    ),
    "corrupt_file",
    "a file of the weights is missing: {0}",
)
BROKEN_CONFIG = Symptom(
    re.compile(r"(?:^|\] )OSError: .*config file at '([^']*)' is not a valid JSON file"),
    "corrupt_file",
    "{0} is not JSON",
)
BROKEN_JSON = Symptom(
    re.compile(r"^json\.decoder\.JSONDecodeError: (.*)"),
    "corrupt_file",
    "a file of the model's settings is not JSON: {0}",
)
NO_TOKENIZER = Symptom(
    re.compile(r"Couldn't instantiate the backend tokenizer|^no_tokenizer"),
    "load_failed",
    "there is no tokenizer in the files that Transformers can read",
)
MISSING_LIBRARY = Symptom(
    re.compile(r"(?:^|\] )(?:ImportError|ModuleNotFoundError): (.*)"),
    "load_failed",
    "a library is missing in the engine's environment: {0}",
)


def unknown_architecture(engine: str) -> Symptom:
    """Transformers, from which others read a model's config, does not know it; or they do not."""
    return Symptom(
        re.compile(
            r"model type `[^`]*` but Transformers does not recognize|Unrecognized model|"
            r"Model architectures .* (?:are not supported|failed to be inspected)"
        ),
        "unsupported_arch",
        f"this {engine} does not know the model's architecture",
    )


def out_of_memory(*patterns: str) -> Symptom:
    """In PyTorch's words, and in the engine's own `patterns`."""
    words = (
        *("CUDA out of memory", "OutOfMemoryError", "can't allocate memory", "MemoryError"),
        "bad_alloc",
    )
    return Symptom(
        re.compile("|".join((*words, *patterns))),
        "oom",
        "the engine could not get the memory that it needs",
    )


def port_in_use(*patterns: str) -> Symptom:
    """In the system's words, and in the engine's own `patterns`."""
    return Symptom(
        re.compile("|".join(("[Aa]ddress already in use", *patterns))),
        "port_in_use",
        "the engine's port was taken by another process",
    )
