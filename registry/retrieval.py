"""What a spec says of a model that embeds or ranks: its prompts, and how a score is made.

Plans and engines take it as it is. The prompts are those of the models' own cards, which the specs
cite.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_serializer,
    model_validator,
)

from paddock.registry.spec_fields import (
    Count,
    Distinct,
    Flag,
    Name,
    Verbatim,
    split_pairs,
    wrong_value,
)

QUERY, DOCUMENT, INSTRUCTION = "{query}", "{document}", "{instruction}"
"""What is filled into a prompt. Other braces stand for themselves."""

# A prompt may be empty: then texts of that kind stay as they are.
_PromptText = Annotated[str, StringConstraints(max_length=4096)]
Prompts = Annotated[
    tuple[tuple[Name, _PromptText], ...],
    BeforeValidator(split_pairs),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Embedding(_Frozen):
    """How texts become vectors: what is put before them, and how short a vector may be cut."""

    prompts: Prompts = ()
    """Texts to put before an input, by their names: query, document, …; an empty one is none."""
    instruct: Verbatim | None = None
    """The same with a place for an instruction of the request's: Instruct: {instruction}."""
    ends_texts: Flag = False
    """Whether each text ends in a token, whose state is the vector (last-token pooling)."""
    dimensions: Distinct[Count] = ()
    """Lengths to which vectors may be cut, of a model that was trained for it (matryoshka)."""
    dimensions_from: Count | None = None
    """Where any length will do: the least of them."""

    @field_serializer("prompts", when_used="always")
    def _as_mapping(self, value: tuple[tuple[str, str], ...]) -> dict[str, str]:
        return dict(value)

    @property
    def by_name(self) -> dict[str, str]:
        """The prompts by their names."""
        return dict(self.prompts)

    @property
    def cuts(self) -> bool:
        """Whether vectors may be cut at all."""
        return bool(self.dimensions) or self.dimensions_from is not None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.instruct is not None and INSTRUCTION not in self.instruct:
            raise wrong_value(f"has no {INSTRUCTION}", ("instruct",))
        if self.dimensions and self.dimensions_from is not None:
            raise wrong_value("dimensions are listed, so that none is the least", ("dimensions",))
        return self


class Ranking(_Frozen):
    """How a language model scores a pair: by its prompt, and the logits of what it would say next.

    Without `true_token`, the files bring a head that scores the prompt.
    """

    template: Annotated[tuple[Verbatim, ...], Field(min_length=1)]
    """The prompt with {query}, {document} and {instruction}; its parts become tokens one by one."""
    instruction: Verbatim | None = None
    """What stands for {instruction} where a request brings none."""
    true_token: Verbatim | None = None
    """What the model would say of a document that fits; its logit is the score."""
    false_token: Verbatim | None = None
    """What it would say of others; the score is then the probability of the first against it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        text = "".join(self.template)
        for name in (QUERY, DOCUMENT):
            if sum(part.count(name) for part in self.template) != 1:
                raise wrong_value(f"must have {name} once", ("template",))
        if (INSTRUCTION in text) != (self.instruction is not None):
            reason = f"goes with {INSTRUCTION} in the template, and not without it"
            raise wrong_value(reason, ("instruction",))
        if self.false_token is not None and self.true_token is None:
            raise wrong_value("needs a true_token", ("false_token",))
        return self

    def to_json(self) -> dict[str, Any]:
        """Returns its fields as JSON, for an engine's process."""
        return self.model_dump(mode="json")
