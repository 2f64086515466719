"""The chat template of a plan: the user's, else the weights' own, else the spec's format. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paddock.launcher.planning.plan import LaunchRequest
from paddock.registry.prompts import find_prompt, is_template, turn_end
from paddock.registry.spec import ModelSpec
from paddock.registry.tool_formats import find_tools

WAY_OUT = "--chat-template FILE or NAME gives it one"


@dataclass(frozen=True)
class PlannedPrompt:
    """What a plan says of chats.

    Attributes:
        template: counts before the weights' own.
        format: the name of the format that it is of; without it, of the one that stands in.
        stop: texts that end an answer, beside those of the weights' own template or the format's.
        reasons: which template counts, and why.
        given: whether the user asked for it, so that the model can chat whatever its spec says.
    """

    template: str | None = None
    format: str | None = None
    stop: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    given: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a `LaunchPlan`."""
        return {
            "chat_template": self.template,
            "chat_format": self.format,
            "stop": self.stop,
        }

    def abilities(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """The abilities of the model with it."""
        if not self.given or self.template is None:
            return known
        added = ("chat", "tools") if find_tools(self.template).format else ("chat",)
        return (*known, *(ability for ability in added if ability not in known))


def plan_prompt(request: LaunchRequest, spec: ModelSpec) -> PlannedPrompt:
    """Which template a launch takes. What the weights bring shows when they are there."""
    if spec.type != "LLM":
        return PlannedPrompt()
    if request.chat_template is not None and not is_template(request.chat_template):
        chosen = find_prompt(request.chat_template)
        reason = f"chat template {chosen.name}: you named it"
        stop = _merge(spec.stop, chosen.stop)
        return PlannedPrompt(chosen.template, chosen.name, stop, (reason,), given=True)
    text = request.chat_template or spec.chat_template
    if text is not None:
        by_user = request.chat_template is not None
        reason = f"chat template: {'yours' if by_user else 'the spec has one of its own'}"
        if form := find_tools(text).format:
            reason += f"; it writes calls of tools as {form}"
        stop = _merge(spec.stop, (turn_end(text),))
        return PlannedPrompt(text, None, stop, (reason,), given=by_user)
    if "chat" not in spec.abilities:
        return PlannedPrompt(stop=spec.stop)
    if spec.chat_format is None:
        reason = f"chat template: the weights' own; without one there is no chat, and {WAY_OUT}"
        return PlannedPrompt(stop=spec.stop, reasons=(reason,))
    own = find_prompt(spec.chat_format)
    reason = f"chat template: the weights' own, or {own.name} of the spec where they bring none"
    return PlannedPrompt(None, own.name, spec.stop, (reason,))


def _merge(*several: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for texts in several for text in texts if text))
