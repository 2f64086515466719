"""`paddock.lock`: which bytes a model is, and which engine served them; read strictly.

One entry pins one variant of one model. The text is the same for the same entries: models and files
in order, one file a line, no time and no machine in it.
"""

from __future__ import annotations

import os
import re
import stat
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from paddock.registry.document import MAX_BYTES, Document, Steps, field_name, parse, shorten
from paddock.registry.errors import InvalidLock, InvalidSpec, UnknownName, near
from paddock.registry.formats import weight_format
from paddock.registry.hubs import LOCAL
from paddock.registry.shards import unsharded_name
from paddock.registry.spec import Source
from paddock.registry.spec_fields import CountOrZero, Format, Hub, Name, Size

VERSION = 1
MAX_FILES = 5000
_HEAD = "# Written by `paddock lock`, and meant to be committed.\n"
_CONFLICT = re.compile(r"^(?:<{7}|={7}|>{7})(?: |$)", re.MULTILINE)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./+-]*")
_NULLS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]+(?:e[0-9]+)?")
# Characters that a file's name may not have: line breaks, and those that YAML refuses.
_UNFIT = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff"
_FILE = re.compile(rf"[^{_UNFIT}\\\ud800-\udfff]{{1,512}}")


def _wrong(reason: str, at: tuple[str | int, ...] = ()) -> PydanticCustomError:
    return PydanticCustomError("wrong", "{reason}", {"reason": reason, "at": at})


def _file_name(value: Any) -> str:
    is_name = isinstance(value, str) and _FILE.fullmatch(value)
    if is_name and not {"", ".", ".."} & set(value.split("/")):
        return str(value)
    raise _wrong(f"{shorten(value)} is not the name of a file within its repository")


def _version(value: Any) -> int:
    if value != str(VERSION) and value != VERSION:
        raise _wrong(f"is {shorten(value)}, and this Paddock reads {VERSION}; use a newer Paddock")
    return VERSION


OneLine = Annotated[
    str, StringConstraints(min_length=1, max_length=512, pattern=rf"^[^{_UNFIT}]+$")
]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LockedFile(_Frozen):
    """One file: what it must be, byte for byte. `git` is the name that git gives it, in hex."""

    name: Annotated[str, BeforeValidator(_file_name)]
    """Within the repository or the folder."""
    size_bytes: CountOrZero
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    git: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")] | None = None
    """Where that is all that the hub tells of it: Hugging Face of small files."""

    @property
    def digest(self) -> str:
        """The digest as the hub lists it."""
        return f"git:{self.git}" if self.git else f"sha256:{self.sha256}"


class LockedModel(_Frozen):
    """One variant of a model, its files and its engine."""

    model: Name
    format: Format
    size: Size
    quantization: Name
    hub: Hub
    id: OneLine
    """As in a spec: owner/name on a hub; local: relative to the specs' folder; path: absolute."""
    revision: OneLine | None = None
    """The branch or tag that was followed; left out, the hub's default."""
    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")] | None = None
    """Left out where the hub names none: then the files' digests pin them."""
    engine: OneLine
    engine_version: OneLine
    files: Annotated[tuple[LockedFile, ...], Field(min_length=1, max_length=MAX_FILES)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [file.name for file in self.files]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise _wrong(f"'{name}' is listed twice", ("files", index, "name"))
        if self.hub in LOCAL:
            if self.commit or self.revision:
                raise _wrong("only hubs have revisions", ("commit" if self.commit else "revision",))
            if self.id.startswith("/") != (self.hub == "path") or ".." in self.id.split("/"):
                what = "an absolute path" if self.hub == "path" else "relative to the specs' folder"
                raise _wrong(f"{shorten(self.id)} is not {what} without '..'", ("id",))
            return self
        try:
            self.source  # noqa: B018 - a source is made, to be checked as those of specs are
        except ValidationError as error:
            first = error.errors()[0]
            at = (*first["loc"], *first.get("ctx", {}).get("at", ()))
            field = str(at[0]) if at else "id"
            place = ("files", 0, "name") if field == "file_template" else (field,)
            raise _wrong(first["msg"], place) from None
        return self

    @property
    def first(self) -> str:
        """The name of its first file, which of a split one stands for all parts."""
        return min(file.name for file in self.files)

    @property
    def source(self) -> Source:
        """Where a hub has its files, at the commit if there is one."""
        return Source(
            hub=self.hub,
            id=self.id,
            revision=self.commit or self.revision,
            file_template=unsharded_name(self.first)
            if weight_format(self.format).is_single_file
            else None,
        )

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def label(self) -> str:
        """The variant in words, such as `mixtral-v0.1 46_7 ggufv2 Q4_K_M`."""
        return f"{self.model} {self.size} {self.format} {self.quantization}"


class Lockfile(_Frozen):
    """All that a lockfile holds."""

    version: Annotated[int, BeforeValidator(_version)] = VERSION
    models: tuple[LockedModel, ...] = ()

    def entry(self, name: str) -> LockedModel:
        """The entry of a model, compared without case. Raises `UnknownName`."""
        for entry in self.models:
            if entry.model.casefold() == name.casefold():
                return entry
        raise UnknownName.among("locked model", name, [entry.model for entry in self.models])

    def merged(self, entries: Iterable[LockedModel]) -> Lockfile:
        """With these entries in place of those of the same models."""
        by_name = {entry.model: entry for entry in (*self.models, *entries)}
        return Lockfile(models=tuple(by_name.values()))

    def text(self) -> str:
        """The file, the same for the same entries."""
        lines = [
            _HEAD.rstrip("\n"),
            f"version: {VERSION}",
            "models:" if self.models else "models: {}",
        ]
        for entry in sorted(self.models, key=lambda entry: (entry.model.casefold(), entry.model)):
            lines.append(f"  {_scalar(entry.model)}:")
            fields = entry.model_dump(exclude={"model", "files"}, exclude_none=True)
            lines += [f"    {name}: {_scalar(value)}" for name, value in fields.items()]
            lines.append("    files:")
            for file in sorted(entry.files, key=lambda file: file.name):
                pairs = file.model_dump(exclude_none=True).items()
                inline = ", ".join(f"{name}: {_scalar(value)}" for name, value in pairs)
                lines.append(f"      - {{{inline}}}")
        return "\n".join(lines) + "\n"


def _scalar(value: object) -> str:
    """A value as YAML of any version reads it: text that could be something else is quoted."""
    text = str(value)
    plain = _PLAIN.fullmatch(text) and text.lower() not in _NULLS
    if (
        not isinstance(value, str)
        or plain
        or (_HEX.fullmatch(text) and not _NUMBER.fullmatch(text))
    ):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def read_lock(path: Path) -> Lockfile:
    """The lockfile at `path`.

    Raises:
        InvalidLock: it is not there, cannot be read, or is wrong; with line and field.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise InvalidLock(str(path), 0, "", "not a regular file")
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InvalidLock(str(path), 0, "", "is not there") from None
    except OSError as error:
        raise InvalidLock(str(path), 0, "", f"cannot be read: {error.strerror}") from None
    return parse_lock(data, str(path))


def parse_lock(data: bytes, path: str) -> Lockfile:
    """The lockfile in `data`, which came from `path`. Raises `InvalidLock`."""
    conflict = _CONFLICT.search(data.decode("utf-8", "replace"))
    if conflict is not None:
        line = data.decode("utf-8", "replace").count("\n", 0, conflict.start()) + 1
        raise InvalidLock(path, line, "", "a merge conflict; take one side of it")
    try:
        document = parse(data, path)
    except InvalidSpec as error:
        raise InvalidLock(path, error.line, error.name_of_field, error.reason) from None
    value = dict(document.value)
    if "version" not in value:
        raise InvalidLock(path, 0, "version", "is missing")
    models = value.get("models", {})
    if not isinstance(models, dict):
        raise InvalidLock(path, document.line(("models",)), "models", "must be a mapping by name")
    names = list(models)
    for name in names:
        if not isinstance(models[name], dict):
            raise InvalidLock(
                path,
                document.line(("models", name)),
                field_name(("models", name)),
                "must be a mapping of fields",
            )
    value["models"] = [{**models[name], "model": name} for name in names]
    try:
        return Lockfile.model_validate(value)
    except ValidationError as error:
        raise _first(error, document, names, path) from None


def parse_entry(value: Any) -> LockedModel:
    """The lock entry in a request's body.

    Raises:
        InvalidLock: with the field.
    """
    try:
        return LockedModel.model_validate(value)
    except ValidationError as error:
        detail = min(error.errors(include_url=False), key=_follows)
        raise InvalidLock("lock", 0, field_name(_at(detail)), _reason(detail)) from None


def write_lock(path: Path, lock: Lockfile) -> None:
    """Writes the file whole or not at all. Raises `InvalidLock` where it cannot be written."""
    target = path.resolve()  # a link stays one
    new = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        new.write_text(lock.text(), "utf-8")
        if target.exists():
            new.chmod(target.stat().st_mode & 0o777)
        new.replace(target)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise InvalidLock(str(path), 0, "", f"cannot be written: {error.strerror}") from None


def _first(error: ValidationError, document: Document, names: list[str], path: str) -> InvalidLock:
    """The first fault, by line."""
    problems = []
    for detail in error.errors(include_url=False):
        at = _at(detail)
        if len(at) > 1 and at[0] == "models" and isinstance(at[1], int):
            at = ("models", names[at[1]], *at[2:])  # a list to the types, a mapping in the file
            if at[2:] == ("model",):
                at = at[:2]
        problems.append((_follows(detail), document.line(at), field_name(at), _reason(detail)))
    _, line, name, reason = min(problems, key=lambda problem: problem[:2])
    return InvalidLock(path, line, name, reason)


def _follows(detail: Any) -> bool:
    """Whether an error may only follow from another: a misspelt field is missing under its name."""
    return detail["type"] in {"missing", "too_short"}


def _at(detail: Any) -> Steps:
    return (*detail["loc"], *detail.get("ctx", {}).get("at", ()))


_REASONS = {
    "missing": "is missing",
    "model_type": "must be a mapping of fields",
    "tuple_type": "must be a list",
    "string_type": "must be text",
    "too_short": "must have at least one item",
}


def _reason(detail: Any) -> str:
    kind, at, context = detail["type"], detail["loc"], detail.get("ctx", {})
    if kind == "wrong":
        return str(context["reason"])
    if kind == "extra_forbidden":
        owner = LockedFile if "files" in at[:-1] else LockedModel if len(at) > 1 else Lockfile
        close = near(str(at[-1]), owner.model_fields, limit=1)
        return "unknown field" + (f"; did you mean {close[0]}?" if close else "")
    if kind in _REASONS:
        return _REASONS[kind]
    if kind == "literal_error":
        return f"must be {context['expected']}, not {shorten(detail['input'])}"
    if kind == "string_pattern_mismatch":
        return f"{shorten(detail['input'])} is not what stands there: {context['pattern']}"
    return (
        f"{str(detail['msg'])[:1].lower()}{str(detail['msg'])[1:]}, not {shorten(detail['input'])}"
    )
