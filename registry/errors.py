"""Every error that Paddock raises on purpose.

    PaddockError
    ├── Refused               the request cannot be carried out as asked; nothing was changed
    │   ├── UnknownName       no such model, format, size, quantization, engine, option, hub, …
    │   │   └── NotFound      the same, of something that a path names
    │   ├── BadValue          a value of the wrong kind, out of range or outside its grammar
    │   │   ├── TooLarge      a body that is over its limit
    │   │   └── WrongContentType  a body that says it is no JSON
    │   ├── NotAllowed        the caller's key does not reach so far
    │   ├── InvalidSpec       a YAML spec that does not follow the schema
    │   ├── InvalidLock       a lockfile that cannot be read as one
    │   ├── NotLocked         what the lockfile says, and what is asked for or is here, differ
    │   ├── NoSpec            no spec can be derived from what a reference names
    │   ├── NeedsConsent      weights that would run their authors' code, and nobody has agreed
    │   ├── NoEngine          the variant exists, but no engine on these hosts can serve it
    │   ├── NoRoom            the memory or the disk that the plan needs is not there
    │   ├── FieldRefused      a field of a request that the model's engine cannot honour
    │   ├── NotBuilt          the dashboard has no build here
    │   ├── NotAble           the model lacks the ability that the request needs
    │   └── UidInUse          a model with this id is already launched
    ├── NotLaunched           no launched model has this id
    ├── NotReady              the model is launched, but cannot answer yet (or any more)
    ├── QueueFull             too many requests wait for the model
    ├── Aborted               a request that was ended by its id, with `abort`
    ├── StateNotWritten       the state file is locked, or its disk full: nothing was changed
    ├── EndNotWritten         a model has ended, and the state file cannot be told
    ├── StillEnding           what was told to end has not within the time; it goes on
    ├── EngineDied            a request whose engine ended while it worked on it
    ├── KeyRevoked            a request in progress whose key was revoked
    ├── EngineSilent          an engine that sent nothing for too long, and was given up
    ├── ProbeFailed           an engine that could not say what a launch would take
    ├── LaunchFailed          a launch that began and did not end in `ready`; carries a diagnosis
    ├── CorruptFile           weights that are not a whole file of their format
    ├── NotWritten            a file that cannot be written
    │   └── DiskFull          the same, because its disk is full
    ├── HubFailure            weights that a hub could not or would not give
    ├── Cancelled             a launch that its user called off
    ├── GatewayUnreachable    no gateway answers at the endpoint
    │   └── GatewaySilent     one listens there, and does not answer
    ├── GatewayNotStarted     a gateway was started in the background and did not come up
    ├── StopFailed            processes of a home could not be ended
    ├── ModelsLeft            a home was stopped, but its models could not be forgotten
    ├── ReplicasLeft          replicas on somebody else's Ray cluster could not be ended
    ├── GatewayError          the gateway answered with an error; carries its status and text
    ├── InstallFailed         an engine's environment was not made; the old one stands
    ├── EngineInUse           an engine's environment from which something runs
    └── PortInUse             the gateway's port belongs to another process

Errors carry fields. `str(error)` is one line: what happened, with the value, then the way out.
`cli/errors.py` maps classes to exit codes, `server/http/errors.py` to HTTP.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


def near(value: str, known: Iterable[str], limit: int = 3) -> tuple[str, ...]:
    """The known names closest to `value`, best first, compared without case."""
    by_folded = {name.casefold(): name for name in known}
    folded = value.casefold()
    close = difflib.get_close_matches(folded, by_folded, n=limit, cutoff=0.5)
    inside = [
        name for name in by_folded if len(folded) > 2 and folded in name and name not in close
    ]
    return tuple(by_folded[name] for name in [*close, *inside][:limit])


def printable(value: str, length: int = 120) -> str:
    """A value for a message: one line, without control characters, not too long."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    return plain if len(plain) <= length else f"{plain[: length - 1]}…"


class PaddockError(Exception):
    """Root of the tree. Subclasses are dataclasses whose fields describe the event."""

    def fields(self) -> dict[str, Any]:
        """The error's fields, for JSON output."""
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}


class Refused(PaddockError):
    """The request cannot be carried out as asked; nothing was changed."""


@dataclass(eq=False)
class UnknownName(Refused):
    """`value` is not the name of any `kind`; `close` are the nearest, `known` all if few."""

    kind: str
    value: str
    close: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    of: str = ""

    def __str__(self) -> str:
        text = f"unknown {self.kind} '{printable(self.value)}'" + (
            f" for {self.of}" if self.of else ""
        )
        if self.close:
            text += f"; did you mean {' or '.join(self.close)}?"
        if self.known and set(self.known) - set(self.close):
            text += f" (known: {', '.join(self.known)})"
        return text + self._hint()

    def _hint(self) -> str:
        """How a repository or a file is named, where the name looks like one."""
        name = printable(self.value)
        if self.kind != "model" or ":" in name:
            return ""
        if name.casefold().endswith(".gguf") or name.count("/") > 1:
            return f"; a file or folder is named by its path, as ./{name} or /…/{name}"
        if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            return f"; a repository is named hf:{name} or ms:{name}, and a folder ./{name}"
        return ""

    @classmethod
    def among(cls, kind: str, value: str, known: Iterable[str], of: str = "") -> UnknownName:
        """Builds the error from all known names; lists them when they are few enough to read."""
        names = tuple(dict.fromkeys(known))
        return cls(kind, value, near(value, names), names if len(names) <= 12 else (), of)


class NotFound(UnknownName):
    """The thing that a path names does not exist."""


@dataclass(eq=False)
class BadValue(Refused):
    """`value` of `name` was refused for `reason`."""

    name: str
    value: Any
    reason: str

    def __str__(self) -> str:
        value = repr(self.value) if not isinstance(self.value, str) else f"'{self.value}'"
        return f"{self.name} {printable(value)}: {self.reason}"


class TooLarge(BadValue):
    """A request's body, or a part of it, is over its limit."""


class WrongContentType(BadValue):
    """A request's body declares a type other than JSON."""


@dataclass(eq=False)
class NotAllowed(Refused):
    """The caller's key does not allow `what`, such as a model's id or a route, for `reason`."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{printable(self.what)} is not allowed: {self.reason}"


@dataclass(eq=False)
class InvalidSpec(Refused):
    """The spec at `path` is wrong: `name_of_field` at `line` (1-based; 0 where unknown)."""

    path: str
    line: int
    name_of_field: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else self.path
        at = f" {self.name_of_field}:" if self.name_of_field else ""
        return f"{where}:{at} {self.reason}"


@dataclass(eq=False)
class InvalidLock(Refused):
    """The lockfile at `path` is wrong: `name_of_field` at `line` (1-based; 0 where unknown)."""

    path: str
    line: int
    name_of_field: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else self.path
        at = f" {self.name_of_field}:" if self.name_of_field else ""
        return f"{where}:{at} {self.reason}; to make it anew: paddock lock MODEL"


@dataclass(eq=False)
class NotLocked(Refused):
    """`what` of `model` is `locked` by the lockfile, and `found` is something else."""

    model: str
    what: str
    locked: str
    found: str

    def __str__(self) -> str:
        return (
            f"{self.model} is locked to {self.what} {self.locked}, not {printable(self.found)}; "
            f"launch it without --locked, or lock it anew: paddock lock {self.model}"
        )


@dataclass(eq=False)
class NoSpec(Refused):
    """No spec can be derived from `reference`; `reason` is about `file` (empty: all files)."""

    reference: str
    file: str
    reason: str

    def __str__(self) -> str:
        where = f"{printable(self.file)} " if self.file else ""
        advice = "what cannot be derived can be written: paddock register --help"
        return f"{printable(self.reference)}: {where}{self.reason}; {advice}"


@dataclass(eq=False)
class NeedsConsent(Refused):
    """The variant would run code that came with `reference` at `commit`: `reason` names it."""

    reference: str
    commit: str
    reason: str

    def __str__(self) -> str:
        return (
            f"{printable(self.reference)} at {self.commit} would run its authors' code here: "
            f"{self.reason}; if you trust it, add --trust, as in: "
            f"paddock launch {printable(self.reference)} --trust {self.commit}"
        )


@dataclass(eq=False)
class NoEngine(Refused):
    """No engine can serve `variant`; `refused` maps each engine to its reason."""

    variant: str
    refused: dict[str, str] = field(default_factory=dict)
    alternatives: tuple[str, ...] = ()

    def __str__(self) -> str:
        reasons = "; ".join(f"{engine}: {reason}" for engine, reason in self.refused.items())
        text = f"no engine can serve {self.variant} here ({reasons or 'none is installed'})"
        if self.alternatives:
            text += f"; what can be served: {', '.join(self.alternatives)}"
        return text


@dataclass(eq=False)
class NoRoom(Refused):
    """`needed_bytes` of `resource` on `where` are more than the `free_bytes` there.

    `used` maps the ids of launched models to what they hold of it, and `OTHERS` to what all other
    processes hold. `commands` are launches that fit, the least loss first.
    """

    OTHERS: ClassVar[str] = "other processes"
    resource: str
    where: str
    needed_bytes: int
    free_bytes: int
    way_out: str = ""
    used: Mapping[str, int] = field(default_factory=dict)
    commands: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = (
            f"needs {self.needed_bytes / 1e9:.2f} GB of {self.resource}, "
            f"{self.where} has {self.free_bytes / 1e9:.2f} GB free"
        )
        if self.used:
            parts = [f"{name} {size / 1e9:.2f} GB" for name, size in self.used.items()]
            text += f" (used: {', '.join(parts)})"
        if self.commands:
            text += f"; what fits: {' or '.join(self.commands)}"
        return f"{text}; {self.way_out}" if self.way_out else text


@dataclass(eq=False)
class FieldRefused(Refused):
    """`engine` cannot honour field `name` of a request; `close` are the nearest that it can."""

    name: str
    engine: str
    reason: str = ""
    close: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{printable(self.name)}: {self.reason or f'{self.engine} has no such field'}"
        hint = f"; did you mean {' or '.join(self.close)}?" if self.close else ""
        return f"{text}{hint} (engine: {self.engine})"


@dataclass(eq=False)
class NotAble(Refused):
    """Model `uid` lacks `ability`; for a `reason`, where it is not the model's own nature."""

    uid: str
    ability: str
    abilities: tuple[str, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        has = ", ".join(self.abilities) or "none"
        text = f"model '{self.uid}' has no ability '{self.ability}' (it has: {has})"
        return f"{text}: {self.reason}" if self.reason else text


@dataclass(eq=False)
class UidInUse(Refused):
    """A launched model already has this `uid`."""

    uid: str
    state: str

    def __str__(self) -> str:
        return (
            f"model id '{self.uid}' is in use ({self.state}); choose another with --model-uid, "
            f"or: paddock terminate --model-uid {self.uid}"
        )


@dataclass(eq=False)
class NotLaunched(PaddockError):
    """No launched model has this `uid`; `close` are the nearest that are launched."""

    uid: str
    close: tuple[str, ...] = ()

    def __str__(self) -> str:
        hint = f"did you mean {' or '.join(self.close)}?" if self.close else "see: paddock list"
        return f"no launched model has the id '{printable(self.uid)}'; {hint}"


@dataclass(eq=False)
class NotReady(PaddockError):
    """Model `uid` is launched but in `state`; `retry_after` seconds is a fair time to ask again."""

    uid: str
    state: str
    detail: str = ""
    retry_after: float | None = None

    def __str__(self) -> str:
        text = f"model '{self.uid}' is {self.state}"
        return f"{text}: {self.detail}" if self.detail else text


@dataclass(eq=False)
class QueueFull(PaddockError):
    """`waiting` requests wait for model `uid` already; ask again after `retry_after` seconds."""

    uid: str
    waiting: int
    retry_after: float

    def __str__(self) -> str:
        return f"{self.waiting} requests wait for model '{self.uid}' already; ask again later"


@dataclass(eq=False)
class Aborted(PaddockError):
    """The request was ended by its `request_id`."""

    request_id: str = ""

    def __str__(self) -> str:
        return "the request was aborted by its id"


@dataclass(eq=False)
class StateNotWritten(PaddockError):
    """The state file cannot be written and is unchanged. `reason` is the system's."""

    path: str
    reason: str
    retry_after: float = 5.0

    def __str__(self) -> str:
        return (
            f"the state file {self.path} cannot be written: {self.reason}; nothing was changed, "
            "make room or end what holds it, and try again"
        )


@dataclass(eq=False)
class EndNotWritten(PaddockError):
    """The model has ended, but the state file at `path` could not record it, for `reason`."""

    uid: str
    path: str
    reason: str

    def __str__(self) -> str:
        return (
            f"'{self.uid}' has ended, but the state file {self.path} cannot be written: "
            f"{self.reason}; make room or end what holds it, or the next gateway launches it again"
        )


@dataclass(eq=False)
class StillEnding(PaddockError):
    """The model has not ended within `seconds`. The attempt to end it goes on."""

    uid: str
    seconds: float
    left: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.uid} has not ended within {self.seconds:g} s ({', '.join(self.left)}); it goes "
            f"on; to wait again: paddock terminate --model-uid {self.uid}"
        )


@dataclass(eq=False)
class EngineDied(PaddockError):
    """The engine ended while it worked on the request, which is not tried elsewhere."""

    uid: str
    cause: str
    reason: str

    def __str__(self) -> str:
        return (
            f"the engine of {self.uid} ended while it worked on this request ({self.reason}), "
            "which is not tried again: it may be the reason"
        )


@dataclass(eq=False)
class KeyRevoked(PaddockError):
    """The key `key_id`, with which the request began, was revoked before its end."""

    key_id: str

    def __str__(self) -> str:
        return f"the key {self.key_id} was revoked, and the request ended with it"


@dataclass(eq=False)
class EngineSilent(PaddockError):
    """The engine of replica `replica_id` of model `uid` sent nothing for `seconds`."""

    uid: str
    replica_id: str
    seconds: float

    def __str__(self) -> str:
        return (
            f"the engine of model '{self.uid}' ({self.replica_id}) sent nothing for "
            f"{self.seconds:.0f} s, and the request was given up; "
            f"its log: paddock logs --model-uid {self.uid}"
        )


@dataclass(eq=False)
class ProbeFailed(PaddockError):
    """The engine `engine` could not say what memory `path` takes, for `reason`."""

    engine: str
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.engine} did not say what memory {self.path} takes: {self.reason}"


@dataclass(eq=False)
class LaunchFailed(PaddockError):
    """The launch of `uid` failed. `diagnosis` is a `launcher.diagnosis.Diagnosis` as a dict."""

    uid: str
    diagnosis: dict[str, Any]

    def __str__(self) -> str:
        text = f"{self.uid}: {self.diagnosis['cause']}: {self.diagnosis['message']}"
        following = self.diagnosis.get("next_command")
        return f"{text}; try: {following}" if following else text


@dataclass(eq=False)
class CorruptFile(PaddockError):
    """The file at `path` is not a complete file of its format, for `reason`."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(eq=False)
class NotWritten(PaddockError):
    """The file or folder at `path` cannot be written; `reason` is the system's."""

    path: str
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.path} cannot be written: {self.reason}; "
            "another folder for everything that Paddock keeps: PADDOCK_HOME"
        )


class DiskFull(NotWritten):
    """The disk of `path` is full, or the user's share of it."""

    def __str__(self) -> str:
        return (
            f"{self.path} cannot be written: {self.reason}; "
            "what the caches hold, and how to make room: paddock cache list"
        )


@dataclass(eq=False)
class HubFailure(PaddockError):
    """Weights did not come. `cause` is a cause of a diagnosis; `tried` lists the attempts."""

    cause: str
    reason: str
    tried: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class Cancelled(PaddockError):
    """The launch of `uid` was called off."""

    uid: str

    def __str__(self) -> str:
        return f"the launch of '{self.uid}' was cancelled"


@dataclass(eq=False)
class GatewayUnreachable(PaddockError):
    """No gateway answers at `endpoint`."""

    endpoint: str
    reason: str = ""

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return (
            f"no Paddock gateway answers at {self.endpoint}{reason}; start one with: paddock serve"
        )


@dataclass(eq=False)
class GatewaySilent(GatewayUnreachable):
    """A gateway listens at `endpoint`, and has not answered within the time in `reason`."""

    def __str__(self) -> str:
        return (
            f"the Paddock gateway at {self.endpoint} has not answered within {self.reason}; "
            "it may hang: paddock stop ends it"
        )


@dataclass(eq=False)
class GatewayNotStarted(PaddockError):
    """The gateway that a command started did not come up, for `reason`; `log` has the rest."""

    reason: str
    log: str

    def __str__(self) -> str:
        return f"the gateway did not start: {self.reason} (log: {self.log})"


@dataclass(eq=False)
class StopFailed(PaddockError):
    """Processes of a home folder could not be ended, not even by force."""

    pids: tuple[int, ...]

    def __str__(self) -> str:
        numbers = ", ".join(map(str, self.pids))
        return f"processes {numbers} cannot be ended; once they are gone: paddock stop"


@dataclass(eq=False)
class ModelsLeft(PaddockError):
    """All processes of a home have ended; its models could not be forgotten, for `reason`."""

    reason: str

    def __str__(self) -> str:
        return (
            "all has ended, but what was launched could not be forgotten, so that the next "
            f"command launches it again: {self.reason}; mend that, and run paddock stop once more"
        )


@dataclass(eq=False)
class ReplicasLeft(PaddockError):
    """Replicas on a Ray cluster that somebody else runs could not be ended; `record` names it."""

    replicas: tuple[str, ...]
    address: str
    reason: str
    record: str

    def __str__(self) -> str:
        return (
            f"{', '.join(self.replicas)} may still run on the Ray cluster at {self.address}: "
            f"{self.reason}; once it answers: paddock stop; if it is gone for good: "
            f"rm {self.record}"
        )


class NotBuilt(Refused):
    """The dashboard has no build beside this code."""

    def __str__(self) -> str:
        return (
            "the dashboard is not built; in a checkout, with Node 20.19 or newer: make web "
            "(everything else works without it)"
        )


@dataclass(eq=False)
class GatewayError(PaddockError):
    """The gateway refused: HTTP `status`, its `text`, and the error object that it sent."""

    status: int
    text: str
    error: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text


@dataclass(eq=False)
class PortInUse(PaddockError):
    """`host`:`port` is held by `holder` (a process in words)."""

    host: str
    port: int
    holder: str

    def __str__(self) -> str:
        return (
            f"port {self.port} on {self.host} is taken by {self.holder}; "
            "choose another with --port or PADDOCK_PORT"
        )


@dataclass(eq=False)
class InstallFailed(PaddockError):
    """The environment of `engine` was not made; `lines` are the installer's last ones."""

    engine: str
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.engine} was not installed; what was there before is as it was"


@dataclass(eq=False)
class EngineInUse(PaddockError):
    """The processes `pids` run from the environment of `engine`."""

    engine: str
    pids: tuple[int, ...]

    def __str__(self) -> str:
        pids = ", ".join(map(str, self.pids))
        return (
            f"{self.engine} is in use by process {pids}; end its models first: paddock list, then "
            "paddock terminate --model-uid MODEL"
        )
