"""What a dialect is: an API's paths, and how its requests and answers are made out.

`dialects/__init__.py` has the table of them; each is one file, which brings its paths, their scope,
the shapes that the document shows, the fields that it takes, and the encoder of its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddock.engines import attached, load_engine
from paddock.engines.base import RequestFields
from paddock.launcher.fleet.fleet import Fleet
from paddock.launcher.fleet.status import ModelStatus
from paddock.registry.errors import NotAble
from paddock.registry.retrieval import Embedding, Ranking
from paddock.server.http.operation import Operation, RouteDoc
from paddock.server.proxy.steps import Encoder, EngineRequest
from paddock.server.proxy.upstream import SILENCE_SECONDS

Body = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """What a dialect must know of the model that a request names."""

    uid: str
    abilities: tuple[str, ...]
    engine: str
    fields: RequestFields
    context_length: int
    served: str = ""
    """The name that requests to an attached endpoint use; empty: the model's id, as everywhere."""
    silence_seconds: float = SILENCE_SECONDS
    """How long its engine may send nothing before a request is given up."""
    chat: Mapping[str, Any] = field(default_factory=dict)
    """How it chats (`launcher/replicas/prompt.py`); empty: as its engine does by itself."""
    embedding: Embedding | None = None
    """How it embeds, by its spec."""
    ranking: Ranking | None = None
    """How it ranks, where it is a language model."""

    @classmethod
    def of(cls, status: ModelStatus) -> Model:
        """From a launched model's status."""
        plan = status.plan
        engine = load_engine(plan.engine) if plan.attached is None else None
        fields = attached.FIELDS if engine is None else engine.fields_of(plan.engine_version)
        served = plan.attached.model if plan.attached else ""
        silence = status.silence_seconds or SILENCE_SECONDS
        return cls(
            status.uid,
            status.abilities,
            plan.engine,
            fields,
            plan.context_length,
            served,
            silence,
            status.chat,
            plan.embedding,
            plan.ranking,
        )

    @property
    def name(self) -> str:
        """What its server calls it."""
        return self.served or self.uid

    def needs(self, ability: str) -> None:
        """Raises `NotAble` if the model lacks the ability."""
        if ability not in self.abilities:
            raise NotAble(self.uid, ability, self.abilities, self._denial(ability))

    def _denial(self, ability: str) -> str:
        """What its chat template has to do with a missing ability, and what mends it."""
        if ability == "chat" and self.chat.get("reason"):
            reason = self.chat["reason"]
        elif ability == "tools" and self.chat.get("tools") is False:
            if told := self.chat.get("tools_reason"):
                return str(told)
            reason = "its chat template shows no tools"
        else:
            return ""
        return f"{reason}; launch it with --chat-template FILE"


@dataclass(frozen=True)
class Call:
    """A path on which models are asked, and how its requests are made out for an engine.

    Attributes:
        ability: what a model must be able to do to be asked here.
        doc: what the document says of it.
        build: from a request in OpenAI's words; takes the body as bytes too, where nothing was
            translated, and the encoder of its answers.
        to_openai: another dialect's request as one of OpenAI's, and the encoder of its answers.
    """

    path: str
    ability: str
    doc: RouteDoc
    build: Callable[[Body, Model, bytes, Encoder], EngineRequest]
    to_openai: Callable[[Body], tuple[Body, Encoder]] | None = None


def _no_operations(_: Fleet) -> Sequence[Operation]:
    return ()


@dataclass(frozen=True)
class Dialect:
    """One API.

    Attributes:
        render_error: an error's body in its words, from our envelope; None: our envelope is its.
        operations: its further routes, such as a list of models.
    """

    name: str
    calls: tuple[Call, ...]
    render_error: Callable[[Body], Body] | None = None
    operations: Callable[[Fleet], Sequence[Operation]] = _no_operations
