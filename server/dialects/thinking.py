"""Whether a model thinks, and for how long: the fields of all APIs become its template's arguments.

`enable_thinking` (Qwen, vLLM), `reasoning_effort` (OpenAI), `thinking` (Anthropic, DeepSeek, Dify),
`reasoning` (OpenRouter) and `think` (Ollama) mean the same. Arguments in `chat_template_kwargs` are
the client's own, and count before them.
"""

from __future__ import annotations

from typing import Any

from paddock.registry.errors import BadValue, FieldRefused
from paddock.server.dialects.base import Body, Model

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
BUDGET = "reasoning_budget_tokens"


def switch_thinking(fields: Body, model: Model) -> None:
    """Puts what a request wants of thoughts where the model's engine takes it.

    Raises:
        BadValue: a field of another form.
        FieldRefused: the engine has no chat template to tell it.
    """
    named = [name for name in _SPELLINGS if name in fields]
    wanted: Body = {}
    for name in named:
        wanted |= _SPELLINGS[name](name, fields.pop(name))
    budget = wanted.pop(BUDGET, None)
    if budget is not None and takes_budget(model):  # a target, which an answer may miss
        fields[BUDGET] = budget
    if not wanted:
        return
    if "chat_template_kwargs" not in model.fields.chat:
        raise FieldRefused(named[0], model.engine)
    if wanted.get("reasoning_effort") == "none":
        wanted.setdefault("enable_thinking", False)
    if "enable_thinking" in wanted and model.chat.get("reasoning_format") == "deepseek_v3":
        wanted["thinking"] = wanted["enable_thinking"]  # the name that these templates know
    given = fields.get("chat_template_kwargs") or {}
    fields["chat_template_kwargs"] = {**wanted, **given}


def takes_budget(model: Model) -> bool:
    """Whether the engine ends a thought at so many tokens.

    One that has another name for it does so where it was told how the model marks its thoughts.
    """
    if BUDGET in model.fields.chat:
        return True
    return BUDGET in model.fields.renamed and bool(model.chat.get("reasoning_format"))


def _switch(name: str, value: Any) -> Body:
    return {"enable_thinking": value}


def _effort(name: str, value: Any) -> Body:
    return {"reasoning_effort": value}


def _thinking(name: str, value: Any) -> Body:
    """Anthropic's object, or a switch."""
    if isinstance(value, bool):
        return {"enable_thinking": value}
    kind = value.get("type") if isinstance(value, dict) else None
    if kind in ("adaptive", "auto"):  # the model decides, as it does unasked
        return {}
    if kind not in ("enabled", "disabled"):
        reason = "must be true, false, or an object of type enabled, disabled, adaptive or auto"
        raise BadValue(name, value, reason)
    budget = value.get("budget_tokens") if kind == "enabled" else None
    return {"enable_thinking": kind == "enabled", **({} if budget is None else {BUDGET: budget})}


def _reasoning(name: str, value: Any) -> Body:
    """OpenRouter's object; `exclude` would take the thoughts out of the answer."""
    if not isinstance(value, dict):
        raise BadValue(name, value, "must be an object")
    found: Body = {}
    for key, one in value.items():
        if one is None or (key == "exclude" and one is False):
            continue
        if key == "effort":
            found |= _effort(name, one)
        elif key == "enabled" and isinstance(one, bool):
            found["enable_thinking"] = one
        elif key == "max_tokens":
            found |= {"enable_thinking": True, BUDGET: one}
        else:
            raise BadValue(f"{name}.{key}", one, "cannot be done here; effort and enabled can")
    return found


def _think(name: str, value: Any) -> Body:
    """Ollama's: a switch, or an effort."""
    if isinstance(value, bool):
        return {"enable_thinking": value}
    if value in EFFORTS:
        return {"reasoning_effort": value}
    raise BadValue(name, value, f"must be true, false or one of {', '.join(EFFORTS)}")


_SPELLINGS = {
    "enable_thinking": _switch,
    "reasoning_effort": _effort,
    "thinking": _thinking,
    "reasoning": _reasoning,
    "think": _think,
}
