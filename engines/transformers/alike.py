"""Compares the batch with the model itself, before anybody is served.

Not all attention survives a batch of pages. Transformers 5.23 takes BLOOM, whose slopes count from
the beginning of the batch instead of the text, and answers with nonsense as soon as two ask. The
comparison shows such a loss in any architecture: the model first computes the chances of some
texts' next tokens by itself, and the batch must then give the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

LENGTHS = (7, 40)
"""Of the texts, in tokens. They differ, so that a mix-up of the two shows."""
STEPS = 2
"""Tokens after each: the second is computed from the cache alone."""
EXACT, ROUNDED = 0.01, 0.25
"""The part of all chances that may differ: the maximum in float32, the average with fewer bits."""


@dataclass
class Text:
    """A text, the tokens that shall follow it, and their chances as the model tells them."""

    prompt: list[int]
    follow: list[int]
    expected: torch.Tensor
    scores: list[torch.Tensor] = field(default_factory=list)

    def differ(self) -> list[float]:
        """The part of the chances that differs, of each step: 0 to 1."""
        pairs = zip(self.scores, self.expected, strict=True)
        return [float((a.softmax(-1) - b).abs().sum() / 2) for a, b in pairs]


def expect(model: Any, context: int, vocabulary: int) -> list[Text]:
    """Asks the model by itself; as many texts as its context has room for."""
    texts = []
    for size in LENGTHS:
        if size + STEPS > context:
            continue
        ids = [(3 + 17 * at) % vocabulary for at in range(size + STEPS - 1)]
        follow = [*ids[size:], 0]
        inputs = torch.tensor([ids], device=model.get_input_embeddings().weight.device)
        with torch.inference_mode():
            scores = model(inputs, use_cache=False).logits[0, -STEPS:].float().cpu()
        texts.append(Text(ids[:size], follow, scores.softmax(-1)))
    return texts


def wrong(texts: list[Text], exact: bool) -> str:
    """What is wrong with the batch's scores for the texts; empty if nothing is."""
    differences = [part for text in texts for part in text.differ()]
    if not differences:
        return ""
    part = max(differences) if exact else sum(differences) / len(differences)
    if part <= (EXACT if exact else ROUNDED):
        return ""
    return f"{part:.0%} of a next token's chances are others in a batch than by itself"
