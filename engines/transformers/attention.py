"""Repairs the parts of a model's attention that a batch of pages would silently lose or mix up.

In 5.23 the paged attention for processors leaves out Gemma 2's soft cap. And where the frequencies
of positions follow the length of a text (RoPE's `dynamic` and `longrope`), they follow that of the
longest text in the batch: a short answer is another one while somebody else's is long.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

PAGED = "paged|eager"


def pin_positions(model: Any, context: int) -> list[str]:
    """Holds the frequencies at those of texts as long as the context; gives the types of RoPE.

    So do vLLM and llama.cpp: a text's tokens stay in the cache as they were turned, and cannot be
    turned anew when it grows.
    """
    pinned = []
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        each = kinds if isinstance(kinds, dict) else {None: kinds}
        for layer, kind in each.items():
            if not isinstance(kind, str) or (kind != "longrope" and "dynamic" not in kind):
                continue
            kwargs = {} if layer is None else {"layer_type": layer}
            device = next(model.parameters()).device
            last = torch.tensor([[context - 1]], device=device)
            module(torch.zeros(1, 1, 1, device=device), last, **kwargs)  # which sets them
            if layer is None:
                module.rope_type = "pinned"
            else:
                each[layer] = "pinned"
            pinned.append(kind)
    return pinned


def cap_scores(model: Any) -> None:
    """Gives the paged attention the soft cap, where the model has one."""
    text = model.config.get_text_config()
    if getattr(text, "attn_logit_softcapping", None):
        ALL_ATTENTION_FUNCTIONS[PAGED] = _capped


def _capped(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of the shapes [1, heads, tokens, size]; the mask is added to the scores."""
    cache, scaling, softcap = (
        kwargs.pop("cache"),
        kwargs.pop("scaling"),
        kwargs.pop("softcap", None),
    )
    key, value = cache.update(
        key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs
    )
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scores = query @ key.transpose(2, 3) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights
