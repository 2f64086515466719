"""The grammar of a spec's fields: sizes, names, counts, hubs, abilities."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from paddock.registry.abilities import abilities, find_ability, model_types
from paddock.registry.errors import BadValue, printable
from paddock.registry.formats import FORMATS
from paddock.registry.hubs import LOCAL, find_hub, hub_names

PLACEHOLDER = "{quantization}"
_SIZE = re.compile(r"([0-9]{1,5})(?:[._]([0-9]{1,4}))?[bB]?")
_DIGITS = re.compile(r"[0-9]{1,3}(?:_[0-9]{3})+|[0-9]{1,16}")
SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
HUB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
RELATIVE = re.compile(rf"{SEGMENT}(?:/{SEGMENT})*")
# On disk names are what users make them: with spaces, in any script, with @ or #.
_ON_DISK = r"(?!\.\.?(?:/|$))[^/\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\]+"
ABSOLUTE = re.compile(rf"(?:/{_ON_DISK})+")
BELOW = re.compile(rf"{_ON_DISK}(?:/{_ON_DISK})*")
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


def parse_size(text: str | int | float) -> str:
    """Parses a size in billions of parameters into its canonical text: `46.7` gives `46_7`.

    The underscore stands for the decimal point, as in Xinference. `46_7`, `46.7`, `46.70` and
    `46.7B` are one size; `7.0` is `7`. Numbers are taken too, since JSON clients send them.
    Raises `BadValue` for anything else, and for zero.
    """
    match = _SIZE.fullmatch(str(text).strip()) if not isinstance(text, bool) else None
    if match is None:
        reason = "not a size in billions of parameters, such as 46_7, 46.7, 7 or 0_5"
        raise BadValue("size", text, reason)
    integer = match[1].lstrip("0") or "0"
    fraction = (match[2] or "").rstrip("0")
    if integer == "0" and not fraction:
        raise BadValue("size", text, "a model has more than zero parameters")
    return f"{integer}_{fraction}" if fraction else integer


def wrong_value(reason: str, at: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """An error that `reader.py` shows as it is; `at` points to a field below the model."""
    # Pydantic takes braces in a message template for fields of the context.
    return PydanticCustomError("wrong", "{reason}", {"reason": reason, "at": at})


def _size(value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise wrong_value("must be a size in billions, such as 46_7")
    try:
        return parse_size(value)
    except BadValue as error:
        raise wrong_value(str(error)) from None


def _integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value.replace("_", ""))
    raise wrong_value(f"must be a whole number, such as 32768 or 46_702_792_704, not {value!r}")


def _flag(value: Any) -> bool:
    # Without YAML 1.1's yes, no, on and off, which YAML 1.2 reads as text.
    flags = {"true": True, "false": False, True: True, False: False}
    if isinstance(value, str | bool) and value in flags:
        return flags[value]
    raise wrong_value(f"must be true or false, not {value!r}")


def split_pairs(value: Any) -> Any:
    """Returns a mapping as a tuple of pairs, and anything else unchanged."""
    return tuple(value.items()) if isinstance(value, Mapping) else value


def _distinct(items: tuple[Any, ...]) -> tuple[Any, ...]:
    seen = set()
    for index, item in enumerate(items):
        key = item.casefold() if isinstance(item, str) else item
        if key in seen:
            listed = f"'{item}'" if isinstance(item, str) else "the same item"
            raise wrong_value(f"{listed} is listed twice", (index,))
        seen.add(key)
    return items


def parse_released(value: Any) -> Any:
    """A date of release, as pydantic takes dates."""
    # Pydantic would take "0" or "1702080000" for a Unix time.
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise wrong_value(f"must be a day such as 2023-12-09, not {value!r}")
    return value


def matching(pattern: re.Pattern[str], says: str) -> AfterValidator:
    """A validator of text by a pattern; `says` is the end of its error."""

    def check(value: str) -> str:
        if not pattern.fullmatch(value) or ".." in value:
            raise wrong_value(f"{value!r} {says}")
        return value

    return AfterValidator(check)


# Editors read YAML 1.2, where 46_702 is text and 46702 a number: the JSON schema takes both.
_DIGITS_SCHEMA = {"type": "string", "pattern": f"^(?:{_DIGITS.pattern})$"}


def _integer_schema(least: int) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"type": "integer", "minimum": least}, _DIGITS_SCHEMA]})


# Whole numbers stop at 2**53, so that JSON readers with doubles (browsers) keep them exact.
Count = Annotated[int, BeforeValidator(_integer), Field(ge=1, le=2**53), _integer_schema(1)]
CountOrZero = Annotated[int, BeforeValidator(_integer), Field(ge=0, le=2**53), _integer_schema(0)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Size = Annotated[
    str,
    BeforeValidator(_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "^[0-9]{1,5}([._][0-9]{1,4})?[bB]?$"},
                {"type": "number", "exclusiveMinimum": 0},
            ]
        }
    ),
]


def _hub(value: str) -> str:
    if value not in LOCAL and find_hub(value) is None:
        raise wrong_value(f"must be {_either((*hub_names(), *LOCAL))}, not '{printable(value)}'")
    return value


def _format(value: str) -> str:
    if value not in FORMATS:
        raise wrong_value(f"must be {_either(FORMATS)}, not '{printable(value)}'")
    return value


def _ability(value: str) -> str:
    if find_ability(value) is None:
        raise wrong_value(f"must be {_either(abilities())}, not '{printable(value)}'")
    return value


def _model_type(value: str) -> str:
    if value != "LLM" and value not in model_types():
        raise wrong_value(f"must be {_either(model_types())}, not '{printable(value)}'")
    return value


def _either(names: Iterable[str]) -> str:
    *first, last = (f"'{name}'" for name in names)
    return f"{', '.join(first)} or {last}"


@dataclass(frozen=True)
class _Names:
    """Lists the names of a table in the JSON schema, as they are when the schema is made."""

    look_up: Callable[[], Iterable[str]]

    def __get_pydantic_json_schema__(self, *_: Any) -> dict[str, Any]:
        return {"enum": list(self.look_up()), "type": "string"}


Format = Annotated[str, AfterValidator(_format), _Names(lambda: FORMATS)]
"""The name of a format in `formats.py`."""
Hub = Annotated[str, AfterValidator(_hub), _Names(lambda: (*hub_names(), *LOCAL))]
"""The name of a hub in `hubs.py`, or one of `LOCAL`."""
AbilityName = Annotated[str, AfterValidator(_ability), _Names(abilities)]
"""The name of an ability in `abilities.py`."""
ModelType = Annotated[str, AfterValidator(_model_type), _Names(model_types)]
"""The type of the models that an ability belongs to."""
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=96),
    matching(
        re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*"),
        "is not a name: letters, digits, '.', '_' and '-', starting with a letter or digit",
    ),
]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
# White space matters to a model, so it is not stripped here.
Verbatim = Annotated[str, StringConstraints(min_length=1)]
_T = TypeVar("_T")
Distinct = Annotated[
    tuple[_T, ...], AfterValidator(_distinct), Field(json_schema_extra={"uniqueItems": True})
]
AtLeastOne = Annotated[
    tuple[_T, ...],
    Field(min_length=1, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_distinct),
]
SizeBytes = Annotated[
    tuple[tuple[Name, Count], ...],
    BeforeValidator(split_pairs),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {
                "anyOf": [{"type": "integer", "minimum": 1}, _DIGITS_SCHEMA],
            },
        }
    ),
]
