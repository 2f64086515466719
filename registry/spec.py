"""The frozen types of a model spec: what a YAML file under `specs/` may say, and its variants.

`reader.py` makes a `ModelSpec` from YAML; `catalog.py` finds one by name. All values arrive as
text (see `document.py`), so every number here is parsed by this module and by nothing before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import cached_property
from operator import attrgetter
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
    field_serializer,
    model_validator,
)

from paddock.registry.abilities import needed_ability
from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.formats import weight_format
from paddock.registry.hubs import find_hub
from paddock.registry.prompts import prompt_names
from paddock.registry.retrieval import Embedding, Ranking
from paddock.registry.spec_fields import (
    ABSOLUTE,
    BELOW,
    HUB_ID,
    PLACEHOLDER,
    RELATIVE,
    REVISION,
    AbilityName,
    AtLeastOne,
    Count,
    CountOrZero,
    Distinct,
    Flag,
    Format,
    Hub,
    ModelType,
    Name,
    Size,
    SizeBytes,
    Text,
    Verbatim,
    matching,
    parse_released,
    parse_size,
    wrong_value,
)


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _conditionally_required(schema: dict[str, Any]) -> None:
    # The name may stand alone, or with the width; `_complete` reckons the rest.
    every = schema["required"]
    rest = [name for name in every if name not in {"name", "hidden_size"}]
    schema["if"] = {"anyOf": [{"required": [name]} for name in rest]}
    schema["then"] = {"required": every}
    schema["required"] = ["name"]


UNKNOWN_ARCHITECTURE = "unknown"
"""The name of an architecture that a registration does not state; the engine itself knows it."""


class Architecture(_Frozen):
    """The shape of the network, from which memory is planned.

    Where a spec gives its name alone, or its name and hidden_size, the rest is reckoned from the
    size of the model.
    """

    model_config = ConfigDict(json_schema_extra=_conditionally_required)

    name: Name
    """Class name in the model's config.json, such as MixtralForCausalLM."""
    layers: Count
    hidden_size: Count
    intermediate_size: Count
    """Width of the feed-forward layer; of one expert in a mixture of experts."""
    attention_heads: Count
    key_value_heads: Count
    """Fewer than attention_heads with grouped-query attention."""
    head_dim: Count
    vocabulary_size: Count
    parameters: Count
    """All parameters, of all experts."""
    active_parameters: Count
    """Parameters that one token passes through; equal to parameters without experts."""
    experts: CountOrZero = 0
    experts_per_token: CountOrZero = 0
    dense_layers: CountOrZero = 0
    """First layers without experts, in a mixture of experts."""
    dense_intermediate_size: Count | None = None
    """Width of the feed-forward part of those layers."""
    shared_intermediate_size: CountOrZero = 0
    """Width of the feed-forward part that every token passes through beside the experts."""
    sliding_window: Count | None = None
    """Tokens that attention looks back; left out where it sees the whole context."""
    sliding_layers: CountOrZero = 0
    """Layers that see only sliding_window; 0 where it is not known."""
    global_head_dim: Count | None = None
    """Head size of the layers that see the whole context, where it is not head_dim (Gemma 4)."""
    global_key_value_heads: Count | None = None
    """Key-value heads of those layers, where they are not key_value_heads."""
    hidden_size_per_layer_input: CountOrZero = 0
    """Width of the embedding that each layer has for itself (Gemma 3n)."""
    kv_shared_layers: CountOrZero = 0
    """Last layers that use the cache of an earlier one (Gemma 3n)."""
    wide_shared_layers: Flag = False
    """Whether the feed-forward part of those layers is twice as wide (Gemma 4 E2B)."""
    v_head_dim: Count | None = None
    """Size of a value head, where it is not head_dim."""
    kv_lora_rank: Count | None = None
    """Width of the latent row of multi-head latent attention; head_dim is then of a full key."""
    q_lora_rank: Count | None = None
    """Width of the latent row of its queries, where they have one."""
    qk_rope_head_dim: Count | None = None
    """The part of a latent key that carries the position, kept beside the latent row."""
    index_head_dim: Count | None = None
    """Size of the indexer's key in each layer, with sparse attention (DeepSeek V3.2)."""
    index_heads: CountOrZero = 0
    """Heads of that indexer."""
    attention_layers: CountOrZero | None = None
    """Layers that attend, where they are not all but the recurrent ones."""
    recurrent_layers: CountOrZero = 0
    """Layers that keep a state of fixed size for each request (Mamba, gated delta nets)."""
    recurrent_state: CountOrZero = 0
    """Numbers in the state of one recurrent layer.

    Mamba: inner × state + (kernel - 1) × (inner + 2 × groups × state).
    """
    linear_key_size: Count | None = None
    """Numbers in all keys of a gated delta net (Qwen3-Next): its key heads × their size."""
    linear_value_size: Count | None = None
    """The same of its values."""
    tied_embeddings: Flag = False
    """Whether the output layer shares the weights of the input embedding."""
    reckoned: Flag = False
    """Whether the numbers are not stated but reckoned from the size; left out of files."""

    @property
    def attending(self) -> int:
        """The number of layers that attend."""
        if self.attention_layers is not None:
            return self.attention_layers
        return self.layers - self.recurrent_layers

    @classmethod
    def reckon(cls, size: str | float, name: str, hidden_size: Any = None) -> Self:
        """A dense network of this size, for planning memory roughly.

        12 × layers × width² weights, heads of 128, and 128 wide for each layer, which gives 33
        layers of 4,224 at 7 billion; keys and values are shared as far as 8 heads.
        """
        parameters = round(float(parse_size(size).replace("_", ".")) * 1e9)
        layers = max(1, round((parameters / (12 * 128 * 128)) ** (1 / 3)))
        return cls.model_validate(
            {
                "name": name,
                "layers": layers,
                "hidden_size": hidden_size or 128 * layers,
                "intermediate_size": 4 * 128 * layers,
                "attention_heads": layers,
                "key_value_heads": max(n for n in range(1, 9) if layers % n == 0),
                "head_dim": 128,
                "vocabulary_size": 128_000,
                "parameters": parameters,
                "active_parameters": parameters,
                "reckoned": True,
            }
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.attention_heads % self.key_value_heads:
            reason = f"{self.attention_heads} attention heads cannot be shared out among these"
            raise wrong_value(reason, ("key_value_heads",))
        if self.active_parameters > self.parameters:
            raise wrong_value("more than all parameters", ("active_parameters",))
        if self.experts_per_token > self.experts:
            raise wrong_value(f"more than the {self.experts} experts", ("experts_per_token",))
        if self.experts and not self.experts_per_token:
            raise wrong_value("must be stated where there are experts", ("experts_per_token",))
        for field in (
            "sliding_layers",
            "kv_shared_layers",
            "attention_layers",
            "recurrent_layers",
            "dense_layers",
        ):
            if (getattr(self, field) or 0) > self.layers:
                raise wrong_value(f"more than the {self.layers} layers", (field,))
        for field, needed in (
            ("sliding_layers", "sliding_window"),
            ("kv_lora_rank", "qk_rope_head_dim"),
            ("recurrent_layers", "recurrent_state"),
        ):
            if getattr(self, field) and not getattr(self, needed):
                raise wrong_value(f"must be stated with {field}", (needed,))
        return self


class Source(_Frozen):
    """Where one hub keeps the weights. `{quantization}` in id and file_template is filled in."""

    hub: Hub
    id: Text
    """owner/name on a hub; local: relative to the folder of the specs; path: absolute."""
    revision: (
        Annotated[
            str,
            StringConstraints(min_length=1, max_length=128),
            matching(REVISION, "is not the name of a revision (a branch, tag or commit)"),
        ]
        | None
    ) = None
    """Branch, tag or commit; left out, the hub's default."""
    file_template: Text | None = None
    """The one file wanted, such as model.{quantization}.gguf; left out, the whole repository.

    Where it is kept in numbered parts (model.Q8_0-00001-of-00003.gguf), it is named without them.
    """

    @property
    def file(self) -> str | None:
        """The one file wanted, or None for all; in a `Variant`'s sources, a file's plain name."""
        return self.file_template

    def fill(self, quantization: str) -> Source:
        """This source with `{quantization}` filled in; the result is checked like any other."""
        template = self.file_template
        return Source(
            hub=self.hub,
            id=self.id.replace(PLACEHOLDER, quantization),
            revision=self.revision,
            file_template=template and template.replace(PLACEHOLDER, quantization),
        )

    @model_validator(mode="after")
    def _strict(self) -> Self:
        # Paths and URLs are built from these, so nothing outside the grammar may pass.
        plain = self.id.replace(PLACEHOLDER, "Q")
        if self.hub == "local":
            fits, says = (
                RELATIVE.fullmatch(plain),
                "a relative path without '..', such as weights/x",
            )
        elif self.hub == "path":
            fits, says = ABSOLUTE.fullmatch(plain), "an absolute path without '..'"
        else:
            fits, says = HUB_ID.fullmatch(plain), "owner/name"
        if not fits or (".." in plain and self.hub != "path"):
            raise wrong_value(f"{self.id!r} is not {says}", ("id",))
        site = find_hub(self.hub)
        if site is not None:
            for text in site.texts_excluded:
                if text in plain:
                    reason = f"{self.id!r}: '{text}' is not allowed in ids on {site.title}"
                    raise wrong_value(reason, ("id",))
        if self.file_template is not None:
            plain = self.file_template.replace(PLACEHOLDER, "Q")
            if not is_file_name(self.hub, plain):
                reason = f"{self.file_template!r} is not a file name within the repository"
                raise wrong_value(reason, ("file_template",))
        return self


def is_file_name(hub: str, name: str) -> bool:
    """Whether a source of this hub may name the file: on disk any file below its folder."""
    if hub == "path":
        return BELOW.fullmatch(name) is not None
    return RELATIVE.fullmatch(name) is not None and ".." not in name


def source_key(source: Source) -> str:
    """A source on a hub as one text, as `Host.files` names what is cached of it."""
    return f"{source.hub}:{source.id}@{source.revision or ''}/{source.file or ''}"


class Weights(_Frozen):
    """One format of the model at one size, in one or more quantizations."""

    format: Format
    size: Size
    """Billions of parameters, with an underscore for the decimal point: 46_7."""
    quantizations: AtLeastOne[Name]
    engines: AtLeastOne[Name]
    """Engines that can serve these weights, by name: Transformers, vLLM, llama.cpp, …"""
    sources: AtLeastOne[Source]
    """In order of preference."""
    size_bytes: SizeBytes = ()
    """Bytes of the weight files, per quantization, where known."""
    projectors: Distinct[Text] = ()
    """Files beside a GGUF that make tokens of pictures, best first: mmproj-F16.gguf."""
    architecture: Architecture | None = None
    """The shape at this size, where the model comes in several; once for each size is enough."""

    @field_serializer("size_bytes", when_used="always")
    def _as_mapping(self, value: tuple[tuple[str, int], ...]) -> dict[str, int]:
        return dict(value)

    def stored_bytes(self, quantization: str) -> int | None:
        """Bytes of a quantization's files, where known; those that are quantized while read."""
        sizes = dict(self.size_bytes)
        same = "none" if self.format == "pytorch" else quantization
        return sizes.get(quantization, sizes.get(same))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for index, (quantization, _) in enumerate(self.size_bytes):
            if quantization not in self.quantizations:
                reason = f"'{quantization}' is not one of the quantizations above"
                raise wrong_value(reason, ("size_bytes", index))
        for index, name in enumerate(self.projectors):
            if not weight_format(self.format).has_projectors:
                raise wrong_value("only a ggufv2 has projectors", ("projectors",))
            hub = self.sources[0].hub if self.sources else ""
            if not is_file_name(hub, name) or not name.endswith(".gguf"):
                reason = f"{name!r} is not the name of a .gguf file within the repository"
                raise wrong_value(reason, ("projectors", index))
        must_differ = (
            len(self.quantizations) > 1 and not weight_format(self.format).is_quantized_at_load
        )
        for index, source in enumerate(self.sources):
            if weight_format(self.format).is_single_file and not (
                source.file_template or ""
            ).endswith(".gguf"):
                # A GGUF repository holds one file a quantization; fetching all is never wanted.
                reason = "a ggufv2 source must name its file: name.{quantization}.gguf"
                raise wrong_value(reason, ("sources", index, "file_template"))
            if must_differ and PLACEHOLDER not in f"{source.id} {source.file_template}":
                reason = "several quantizations, but no {quantization} in id or file_template"
                at = "file_template" if source.file_template else "id"
                raise wrong_value(reason, ("sources", index, at))
        return self


class Variant(_Frozen):
    """One format, size and quantization of a model, with its sources filled in."""

    model: str
    format: Format
    size: str
    quantization: str
    engines: tuple[str, ...]
    sources: tuple[Source, ...]
    size_bytes: int | None = None
    """Bytes of the weight files; None where the spec does not say."""
    projectors: tuple[str, ...] = ()
    """Files of the same repository, one of which a launch may ask for."""

    @property
    def label(self) -> str:
        """The variant in words, such as `mixtral-v0.1 46_7 ggufv2 Q4_K_M`."""
        return f"{self.model} {self.size} {self.format} {self.quantization}"


AT_LOAD = ("4-bit", "8-bit")
"""Quantizations that plain safetensors get while they are read."""


def _quantized_at_load(variants: Iterable[Variant], quantization: str) -> Iterator[Variant]:
    """The variants in one of `AT_LOAD` that their plain files give."""
    for name in AT_LOAD:
        if name == quantization.casefold():
            for variant in variants:
                if variant.format == "pytorch" and variant.quantization == "none":
                    yield variant.model_copy(update={"quantization": name})


class ModelSpec(_Frozen):
    """What one model is, and where each of its variants can be had."""

    name: Name
    type: ModelType = "LLM"
    description: Text
    license: Text
    """SPDX identifier, such as Apache-2.0."""
    released: Annotated[date, BeforeValidator(parse_released)]
    aliases: Distinct[Name] = ()
    languages: AtLeastOne[Name]
    """Language codes, such as en."""
    abilities: AtLeastOne[AbilityName]
    context_length: Count
    """Tokens of prompt and answer together."""
    architecture: Architecture
    """The shape; at the first size where there are several, for which `shape` tells each."""
    chat_format: Name | None = None
    """Format of the prompt where the weights bring no chat template: a file of specs/prompts."""
    chat_template: Verbatim | None = None
    """Jinja template that counts before the weights' own; rarely wanted."""
    stop: Distinct[Verbatim] = ()
    """Strings that end an answer, beside the model's own end-of-text token."""
    embedding: Embedding | None = None
    """Of a model that embeds: its prompts, and how short its vectors may be cut."""
    ranking: Ranking | None = None
    """Of a language model that ranks: the prompt of a pair, and the tokens that score it."""
    weights: AtLeastOne[Weights]
    recommended: Distinct[Name] = ()
    """Quantizations in order of preference."""
    homepage: (
        # Shown as a link, so a script or a file must not pass for one.
        Annotated[str, matching(re.compile(r"https?://[^\s<>\"']+"), "is not an http(s) address")]
        | None
    ) = None
    notes: Text | None = None

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """Every variant, in the order of the file."""
        return tuple(
            Variant(
                model=self.name,
                format=weights.format,
                size=weights.size,
                quantization=quantization,
                engines=weights.engines,
                sources=tuple(source.fill(quantization) for source in weights.sources),
                size_bytes=weights.stored_bytes(quantization),
                projectors=weights.projectors,
            )
            for weights in self.weights
            for quantization in weights.quantizations
        )

    def shape(self, size: str) -> Architecture:
        """The architecture at a size of the model; reckoned where the spec does not state it."""
        for weights in self.weights:
            if weights.size == size and weights.architecture is not None:
                return weights.architecture
        if self.architecture.reckoned or any(weights.architecture for weights in self.weights):
            width = self.architecture.hidden_size if len(self.sizes) == 1 else None
            return Architecture.reckon(size, self.architecture.name, width)
        return self.architecture

    @property
    def sizes(self) -> tuple[str, ...]:
        """Its sizes in billions of parameters, in the order of the file."""
        return tuple(dict.fromkeys(weights.size for weights in self.weights))

    @property
    def local_paths(self) -> tuple[str, ...]:
        """The absolute paths at which its weights may lie."""
        paths = (s.id for v in self.variants for s in v.sources if s.hub == "path")
        return tuple(dict.fromkeys(paths))

    def select(
        self,
        *,
        format: str | None = None,
        size: str | None = None,
        quantization: str | None = None,
    ) -> tuple[Variant, ...]:
        """The variants that have all the given values, compared without case; at least one.

        What is quantized while it is read need not be in the spec: plain safetensors of a language
        model can be asked for in 4-bit and 8-bit.

        Raises `BadValue` for a size that is none, and `UnknownName` for the first of format, size
        and quantization that no variant has together with the values before it; it lists those
        that exist.
        """
        wanted = {
            "format": format,
            "size": None if size is None else parse_size(size),
            "quantization": quantization,
        }
        matches, owner = self.variants, self.name
        for field, value in wanted.items():
            if value is None:
                continue
            read = attrgetter(field)
            fitting = tuple(v for v in matches if read(v).casefold() == value.casefold())
            if field == "quantization" and not fitting and self.type == "LLM":
                fitting = tuple(_quantized_at_load(matches, value))
            if not fitting:
                raise UnknownName.among(field, value, map(read, matches), of=owner)
            matches, owner = fitting, f"{owner} {read(fitting[0])}"
        return matches

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        """Fills in an architecture of which the name, or name and width, are stated."""
        match data:
            case {
                "architecture": {"name": str(name), **rest},
                "weights": [{"size": str() | int() | float() as size, **first}, *_],
            } if rest.keys() <= {"hidden_size"}:
                pass
            case _:
                return data
        stated = first.get("architecture")
        if not rest and isinstance(stated, Mapping):
            return {**data, "architecture": stated}
        try:
            shape = Architecture.reckon(size, name, rest.get("hidden_size"))
        except (BadValue, ValidationError):  # the fields' own checks say what is wrong
            return data
        return {**data, "architecture": shape.model_dump(exclude_defaults=True)}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for index, alias in enumerate(self.aliases):
            if alias.casefold() == self.name.casefold():
                raise wrong_value("an alias must differ from the name", ("aliases", index))
        if (needed := needed_ability(self.type).name) not in self.abilities:
            raise wrong_value(
                f"a model of type {self.type} has the ability {needed}", ("abilities",)
            )
        for field, kind in (("embedding", "embedding"), ("ranking", "rerank")):
            if getattr(self, field) is not None and self.type != kind:
                raise wrong_value(f"is for models of type {kind}", (field,))
        seen: dict[tuple[str, str, str], int] = {}
        for index, weights in enumerate(self.weights):
            for position, quantization in enumerate(weights.quantizations):
                key = (weights.format, weights.size, quantization.casefold())
                if key in seen:
                    reason = (
                        f"{' '.join(key[:2])} {quantization} is already in weights[{seen[key]}]"
                    )
                    raise wrong_value(reason, ("weights", index, "quantizations", position))
                seen[key] = index
        if self.chat_format is not None and self.chat_format not in prompt_names():
            raise wrong_value(
                str(UnknownName.among("prompt format", self.chat_format, prompt_names())),
                ("chat_format",),
            )
        known = {quantization for weights in self.weights for quantization in weights.quantizations}
        for index, quantization in enumerate(self.recommended):
            if quantization not in known:
                raise wrong_value(
                    f"no weights have the quantization '{quantization}'", ("recommended", index)
                )
        return self
