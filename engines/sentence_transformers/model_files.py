"""The files of a model, loaded: with their own modules, or as a reranker by its spec's prompt.

What the files do not fit ends the process with a reason that the adapter knows.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import PreTrainedModel

# Weights that a model for vectors does not use: those of its training, and those that can be
# computed anew. A head that ranks is made of such weights too, and must have them.
IDLE = re.compile(r"(^|\.)(position_ids|inv_freq)$")
IDLE_IN_EMBEDDING = re.compile(r"(^|\.)(pooler|cls|lm_head|vocab_\w+|mlm|nsp)\.")


def ends_texts(path: str) -> bool:
    """Whether the files say that each text ends in a token."""
    file = Path(path) / "tokenizer_config.json"
    return file.exists() and bool(json.loads(file.read_text("utf-8")).get("add_eos_token"))


def load(path: str, ranking: dict[str, Any] | None, ranks: bool, options: dict[str, Any]) -> Any:
    """Returns the model, a `SentenceTransformer` or `CrossEncoder` with the modules of its files.

    Ends the process if there are none that fit.
    """
    config = json.loads((Path(path) / "config.json").read_text("utf-8"))
    has_modules = (Path(path) / "modules.json").exists()
    kwargs: dict[str, Any] = {"device": "cuda" if torch.cuda.is_available() else "cpu"}
    kwargs |= {"local_files_only": True, "model_kwargs": {"dtype": _dtype(config, options, kwargs)}}
    with _Reports() as reports:
        if ranks:
            model = _ranker(path, (config.get("architectures") or [""])[0], ranking, kwargs)
        elif has_modules:
            model = SentenceTransformer(path, **kwargs)
        elif options["pooling"]:
            first = Transformer(path, model_kwargs=kwargs["model_kwargs"])
            pooling = Pooling(first.get_embedding_dimension(), pooling_mode=options["pooling"])
            model = SentenceTransformer(modules=[first, pooling], device=kwargs["device"])
        else:
            sys.exit("no_modules: nothing in the files says how to pool (no modules.json)")
    for report in reports.reports:
        _check(report, ranks)
    return model


def _ranker(path: str, kind: str, ranking: dict[str, Any] | None, kwargs: dict[str, Any]) -> Any:
    """A cross-encoder: by a head of the files, or a language model by what it would say next."""
    if kind.endswith("ForCausalLM") and ranking and ranking["true_token"]:
        first = Transformer(
            path,
            transformer_task="text-generation",
            model_kwargs=kwargs["model_kwargs"],
            # That of chats; the prompt of pairs is the spec's.
            processor_kwargs={"chat_template": None},
        )
        says, denies = (
            None if word is None else _token(first.tokenizer, word)
            for word in (ranking["true_token"], ranking["false_token"])
        )
        # The probability of the one against the other; alone, a logit stays what it is.
        activation = torch.nn.Identity() if denies is None else torch.nn.Sigmoid()
        modules = [first, LogitScore(says, denies)]
        return CrossEncoder(modules=modules, device=kwargs["device"], activation_fn=activation)
    is_saved = kind.endswith("ForCausalLM") and _has_logit_score(Path(path) / "modules.json")
    if not kind.endswith("ForSequenceClassification") and not is_saved:
        reason = "has no head that scores pairs, and its spec names no prompt of pairs (ranking)"
        sys.exit(f"unsupported: {kind or 'nothing'} {reason}")
    model = CrossEncoder(path, **kwargs)
    if model.num_labels != 1:
        sys.exit(f"unsupported: a reranker has one score, and this has {model.num_labels}")
    return model


def _has_logit_score(modules: Path) -> bool:
    """Whether the library saved the model as one that ranks, with its own prompt."""
    if not modules.exists():
        return False
    entries = json.loads(modules.read_text("utf-8"))
    return any(str(entry.get("type")).endswith(".LogitScore") for entry in entries)


def _token(tokenizer: Any, word: str) -> int:
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        sys.exit(f"unsupported: {word!r} of the spec's ranking is {len(ids)} tokens, and not one")
    return int(ids[0])


def _dtype(config: dict[str, Any], options: dict[str, Any], kwargs: dict[str, Any]) -> str:
    """The option, else the files' type; on a CPU float32 in place of halves, which are slow."""
    stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    half = stored.removeprefix("torch.") != "float32" and kwargs["device"] == "cpu"
    return "float32" if half and options["dtype"] == "auto" else str(options["dtype"])


class _Reports:
    """Collects the reports of `from_pretrained`, which the library drops."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []

    def __enter__(self) -> _Reports:
        self._was = PreTrainedModel.__dict__["from_pretrained"]
        was, reports = self._was.__func__, self.reports

        def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
            model, report = was(cls, *args, **{**kwargs, "output_loading_info": True})
            reports.append(report)
            return model

        PreTrainedModel.from_pretrained = classmethod(from_pretrained)
        return self

    def __exit__(self, *_: object) -> None:
        PreTrainedModel.from_pretrained = self._was


def _check(report: dict[str, Any], ranks: bool) -> None:
    """Ends the process if the load made up or ignored weights that count."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        names = sorted(map(str, report.get(kind) or ()))
        names = [name for name in names if not IDLE.search(name)]
        if not ranks:
            names = [name for name in names if not IDLE_IN_EMBEDDING.search(name)]
        if names:
            examples, problem = ", ".join(names[:3]), kind.partition("_")[0]
            sys.exit(f"weights_mismatch: {len(names)} {problem} in the load report: {examples}")


def limit(model: Any, first: Transformer) -> int:
    """The most tokens that the model takes, by its own configuration."""
    config = first.config
    positions = getattr(config, "max_position_embeddings", None) or sys.maxsize
    if "roberta" in str(config.model_type):  # its positions begin behind the padding's
        positions -= (config.pad_token_id or 0) + 1
    return min(positions, model.max_seq_length or sys.maxsize)


def slices(config: Any) -> tuple[bool, tuple[int, ...]]:
    """Whether vectors may be cut short, and the allowed lengths; empty: any length."""
    sizes = tuple(getattr(config, "matryoshka_dimensions", None) or ())
    return bool(sizes) or bool(getattr(config, "is_matryoshka", False)), sizes
