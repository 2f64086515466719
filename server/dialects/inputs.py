"""What may be asked of the inputs of embedding and ranking, in every API's words: cuts and prompts.

OpenAI's API has none of it, so that each server spells it its own way. `docs/embeddings.md` has the
table, which a test compares with this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from paddock.registry.errors import BadValue
from paddock.registry.retrieval import INSTRUCTION, Embedding
from paddock.server.dialects.base import Body

Side = Literal["start", "end"]

# Cohere and NVIDIA say START and END; Text Embeddings Inference and vLLM the side that is lost.
SIDES: Mapping[str, Side | None] = {
    "none": None,
    "false": None,
    "start": "start",
    "left": "start",
    "end": "end",
    "right": "end",
    "true": "end",
}
"""Values of `truncate`, in any case: what is dropped of an input that is too long."""
SWITCHES = ("truncate", "truncation")
"""Fields that have one of `SIDES`, or true and false."""
DIRECTIONS = ("truncation_direction", "truncation_side")
"""Fields that have a side, and count where something else asks for a cut."""
COUNTS = ("truncate_prompt_tokens", "max_tokens_per_doc")
"""Fields that ask for a cut by a number of tokens: of an input (-1: the model's), of a document."""
CUT_FIELDS = (*SWITCHES, *DIRECTIONS, *COUNTS)

QUERIES = ("query", "search_query", "retrieval.query", "retrieval_query")
DOCUMENTS = (
    *("document", "passage", "search_document", "retrieval.passage"),
    *("retrieval_document", "corpus"),
)
KIND_FIELDS = ("input_type", "task", "task_type")
"""Fields that say what the texts are: a query, a document, or another of the model's prompts."""
INSTRUCTION_FIELDS = ("instruction", "instruct")
PROMPT_FIELDS = ("prompt", "prompt_name", *KIND_FIELDS, *INSTRUCTION_FIELDS)
SIZE_FIELDS = ("dimensions", "output_dimension", "output_dimensionality")
"""Fields that ask for shorter vectors."""


@dataclass(frozen=True)
class Cut:
    """What a request allows of inputs that are too long: tokens of one side are dropped.

    Attributes:
        side: the side.
        most: tokens of an input, if they are to be fewer than the model takes.
        most_of_document: tokens of a document that is ranked.
    """

    side: Side
    most: int | None = None
    most_of_document: int | None = None

    @property
    def fields(self) -> Body:
        """For an engine that cuts by itself."""
        wanted = {
            "truncate": self.side,
            "max_tokens": self.most,
            "max_document_tokens": self.most_of_document,
        }
        return {name: value for name, value in wanted.items() if value is not None}


def take_cut(wanted: Body, counts: Iterable[str] = COUNTS) -> Cut | None:
    """Takes the fields of cuts out of a request; None where nothing may be cut.

    Raises:
        BadValue: a value outside its grammar, or two that contradict each other.
    """
    switched = {name: _side(name, wanted.pop(name)) for name in SWITCHES if name in wanted}
    directed = [_direction(name, wanted.pop(name)) for name in DIRECTIONS if name in wanted]
    numbers = {name: _tokens(name, wanted.pop(name)) for name in counts if name in wanted}
    if not numbers and not any(switched.values()):
        return None
    for name, side in switched.items():
        if side is None:
            # Off is a wish of its own where another field would cut.
            other = next(iter(numbers), "") or next(n for n, s in switched.items() if s)
            raise BadValue(name, "off", f"contradicts {other}; leave one of them out")
    asked = [side for side in switched.values() if side]
    side = directed[0] if directed else asked[0] if asked else "end"
    most = numbers.get("truncate_prompt_tokens")
    return Cut(side, most if most and most > 0 else None, numbers.get("max_tokens_per_doc"))


def _side(name: str, value: Any) -> Side | None:
    key = str(value).strip().casefold()
    if not isinstance(value, str | bool) or key not in SIDES:
        raise BadValue(name, value, "must be none, start or end (or true or false)")
    return SIDES[key]


def _direction(name: str, value: Any) -> Side:
    side = SIDES.get(value.strip().casefold()) if isinstance(value, str) else None
    if side is None:
        raise BadValue(name, value, "must be left or right")
    return side


def _tokens(name: str, value: Any) -> int:
    least = -1 if name == "truncate_prompt_tokens" else 1
    if isinstance(value, bool) or not isinstance(value, int) or value < least or value == 0:
        also = ", or -1 for all that the model takes" if least < 0 else ""
        raise BadValue(name, value, f"must be a number of tokens, 1 or more{also}")
    return value


@dataclass(frozen=True)
class Prompting:
    """What is put before each input.

    Attributes:
        text: the prompt itself; empty: none.
        names: those under which the model's own files may have it, where the spec has none.
        field: the request's field that asked for it.
        value: the value of that field.
    """

    text: str = ""
    names: tuple[str, ...] = ()
    field: str = ""
    value: str = ""


def take_prompt(wanted: Body, embedding: Embedding | None, knows: bool) -> Prompting:
    """Takes the fields of prompts out of a request.

    `embedding` is what the model's spec says. `knows`: the engine knows prompts of the files, which
    count where the spec has none.

    Raises:
        BadValue: the model has no such prompt, or two fields ask for one.
    """
    asked = {name: wanted.pop(name) for name in PROMPT_FIELDS if name in wanted}
    for name, value in asked.items():
        if not isinstance(value, str):
            raise BadValue(name, value, "must be text")
    instructions = {name: asked.pop(name) for name in INSTRUCTION_FIELDS if name in asked}
    if len(instructions) > 1 or len(asked) > 1:
        first, second = list(instructions if len(instructions) > 1 else asked)[:2]
        raise BadValue(second, (asked | instructions)[second], f"goes without {first}")
    if instructions:
        return _instructed(instructions, asked, embedding)
    if not asked:
        return Prompting()
    ((field, value),) = asked.items()
    if field == "prompt":
        return Prompting(value, field=field, value=value)
    known = {} if embedding is None else embedding.by_name
    names = _names(value) if field in KIND_FIELDS else (value,)
    if not known and knows:
        return Prompting("", names, field, value)
    matches = [name for name in names if name in known]
    if field in KIND_FIELDS:
        matches += [name for name in known if _key(name) == _key(value)]
    if not matches:
        listed = ", ".join(known) or "none"
        raise BadValue(field, value, f"the model has no such prompt (it has: {listed})")
    return Prompting(known[matches[0]], (), field, value)


def _instructed(
    instructions: Mapping[str, str], asked: Mapping[str, str], embedding: Embedding | None
) -> Prompting:
    ((field, value),) = instructions.items()
    if embedding is None or embedding.instruct is None:
        reason = "the model's spec has no place for one; send the whole text as prompt"
        raise BadValue(field, value, reason)
    for name, kind in asked.items():
        if name == "prompt" or _key(kind) not in map(_key, QUERIES):
            raise BadValue(field, value, f"is for queries, and {name} is {kind!r}")
    return Prompting(embedding.instruct.replace(INSTRUCTION, value), (), field, value)


def _names(value: str) -> tuple[str, ...]:
    """The names that a kind of text goes by, the given one first."""
    for group in (QUERIES, DOCUMENTS):
        if _key(value) in map(_key, group):
            return (value, *(name for name in group if name != value))
    return (value,)


def _key(name: str) -> str:
    """A name without what servers write in different ways: Search_Query, search-query."""
    return name.strip().casefold().replace("-", "_").replace(".", "_")


def take_instruction(wanted: Body) -> str | None:
    """Takes the instruction of a ranking out of a request; None: the model's own counts.

    Raises:
        BadValue: it is no text, or there are two.
    """
    asked = {name: wanted.pop(name) for name in INSTRUCTION_FIELDS if name in wanted}
    if len(set(map(str, asked.values()))) > 1:
        raise BadValue("instruct", asked["instruct"], "contradicts instruction")
    for name, value in asked.items():
        if not isinstance(value, str) or not value.strip():
            raise BadValue(name, value, "must be text")
    return next(iter(asked.values()), None)


def take_size(wanted: Body, embedding: Embedding | None) -> int | None:
    """Takes the length of the vectors out of a request, where the spec says how they may be cut.

    None: it is not asked for, or the engine knows what its files allow.

    Raises:
        BadValue: a length that the model was not trained for.
    """
    for name in SIZE_FIELDS[1:]:
        if name in wanted:
            if "dimensions" in wanted:
                raise BadValue(name, wanted[name], "goes without dimensions")
            wanted["dimensions"] = wanted.pop(name)
    if embedding is None or not embedding.cuts or "dimensions" not in wanted:
        return None
    size = wanted.pop("dimensions")
    least = embedding.dimensions_from or 0
    known = ", ".join(map(str, embedding.dimensions)) or f"{least} and more"
    fits = isinstance(size, int) and not isinstance(size, bool)
    if not fits or (size not in embedding.dimensions if embedding.dimensions else size < least):
        raise BadValue("dimensions", size, f"the model has {known}")
    return int(size)
