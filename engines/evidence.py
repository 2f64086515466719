"""What is known of an engine's memory and speed: measured here, or said by the engine itself.

Both are facts about a `Subject`: one engine with one set of weights, options, context and slots on
one kind of device. Planning looks them up (`launcher/planning/reckon.py`); `launcher/truth/` keeps
them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from paddock.registry.errors import BadValue

PROCESSOR = "processor"
"""The device of an engine that computes on none."""
SAME_SHARE = 0.02
"""By how much the sizes of the same weights differ: some count the small files beside them."""


@dataclass(frozen=True)
class Subject:
    """What a figure is of. Only the very same is planned by it.

    Attributes:
        weights: the variant in words, and what comes with it: `mixtral-v0.1 46_7 ggufv2 Q4_K_M`.
        options: the engine's settled options as JSON, in the order of their names.
        context_length: tokens of each of the `slots`.
        device: `processor`, or the GPUs of one replica: `2 x NVIDIA H200`.
    """

    engine: str
    engine_version: str
    weights: str
    options: str
    context_length: int
    slots: int
    device: str = PROCESSOR


def options_text(options: Mapping[str, Any]) -> str:
    """The text of options in a `Subject`: JSON, by the order of their names."""
    return json.dumps(options, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Measurement:
    """What a replica took. Bytes are of the device's memory, pages of files left out.

    Attributes:
        at: when it was seen last, in seconds since 1970.
        weights_bytes: of the files; other weights by the same name have mostly another size.
        start_bytes: when it was ready, after one token.
        peak_bytes: the most that was seen later.
        longest_prompt: tokens of the longest prompt that it has read; buffers grow with it.
        load_seconds: from the start of the engine until it was ready.
        prompt_speed, speed: tokens/s of prompts and of answers, of a single request; 0: not seen.
        machine: where, if it was not here.
    """

    subject: Subject
    at: float
    weights_bytes: int
    start_bytes: int
    peak_bytes: int
    longest_prompt: int = 0
    load_seconds: float = 0.0
    prompt_speed: float = 0.0
    speed: float = 0.0
    machine: str = ""

    def joined(self, later: Measurement) -> Measurement:
        """Both as one: the newer counts, but what only the older has seen is kept.

        Of other weights than the newer one's it says nothing.
        """
        if not self.is_of(later.weights_bytes):
            return later
        return Measurement(
            subject=self.subject,
            at=later.at,
            weights_bytes=later.weights_bytes,
            start_bytes=later.start_bytes,
            peak_bytes=max(self.peak_bytes, later.peak_bytes),
            longest_prompt=max(self.longest_prompt, later.longest_prompt),
            load_seconds=later.load_seconds or self.load_seconds,
            prompt_speed=later.prompt_speed or self.prompt_speed,
            speed=later.speed or self.speed,
            machine=later.machine,
        )

    def is_of(self, weights_bytes: int) -> bool:
        """Whether weights of so many bytes can be those that were measured."""
        return abs(weights_bytes - self.weights_bytes) <= SAME_SHARE * self.weights_bytes

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; the options as an object, too."""
        document = asdict(self)
        document["subject"]["options"] = json.loads(self.subject.options)
        return document

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """The inverse of `to_json`.

        Raises:
            BadValue: it is none; names what is wrong.
        """
        if not isinstance(document, dict) or not isinstance(document.get("subject"), dict):
            raise BadValue("measurement", document, "must be an object with a subject")
        subject = dict(document["subject"])
        options = subject.get("options")
        if not isinstance(options, dict):
            raise BadValue("measurement's options", options, "must be an object")
        subject["options"] = options_text(options)
        return cls(
            **{**_checked(cls, document), "subject": Subject(**_checked(Subject, subject))},
        )


def _checked(kind: type[Measurement] | type[Subject], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, each of the kind that its field has."""
    kinds: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float)}
    known = {one.name: one for one in fields(kind)}
    for name in values:
        if name not in known:
            raise BadValue("measurement", name, "is no field of a measurement")
    for name, one in known.items():
        if name == "subject":
            continue
        if name not in values:
            raise BadValue("measurement", name, "is missing")
        value = values[name]
        right = isinstance(value, kinds[str(one.type)]) and not isinstance(value, bool)
        if not right or (not isinstance(value, str) and not 0 <= value < 1 << 60):
            raise BadValue(f"measurement's {name}", value, f"must be a {one.type} of 0 or more")
    return dict(values)


@dataclass(frozen=True)
class Asked:
    """What the engine itself says that it will take, in bytes of the device's memory.

    Attributes:
        mapped_bytes: of the weights, what stays in pages of their file.
        cache_bytes: of the caches of all slots.
        compute_bytes: of what it computes in, as it is once a prompt has filled it.
        process_bytes: of the process, by formula.
        file_bytes: of the weights' files; others by the same name are other weights.
        at: when it was asked, in seconds since 1970.
    """

    weights_bytes: int
    mapped_bytes: int
    cache_bytes: int
    compute_bytes: int
    process_bytes: int
    file_bytes: int
    at: float = 0.0


@dataclass(frozen=True)
class Evidence:
    """All that is known of subjects, on one node."""

    measured: Mapping[Subject, Measurement] = field(default_factory=dict)
    asked: Mapping[Subject, Asked] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Weights on a hub, as `registry.spec.source_key` names them → bytes of their files there."""


NO_EVIDENCE = Evidence()
