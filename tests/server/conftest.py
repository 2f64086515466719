"""Fixtures of the gateway's tests: a model that knows tools."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from paddock.registry.catalog import specs_root
from tests.conftest import Paddock


@pytest.fixture(scope="module")
def toolful(shared_paddock: Paddock) -> Any:
    """tiny-mixtral under another name, with a template that knows tools."""
    path = shared_paddock.home / "toolful.yaml"
    path.write_text(toolful_spec())
    shared_paddock.ok("register", "--file", str(path))
    uid = shared_paddock.ok("launch", "toolful", "-q", "Q4_K_M", "-u", "toolful").strip()
    yield uid
    shared_paddock.ok("terminate", "-u", uid)
    shared_paddock.ok("unregister", "-n", "toolful")


TEMPLATE = """{%- if tools %}
{{- '<|im_start|>system\\nTools:\\n<tools>' }}
{%- for tool in tools %}
{{- '\\n' }}{{- tool | tojson }}
{%- endfor %}
{{- '\\n</tools>\\nAnswer with <tool_call></tool_call>.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content %}{{- message.content }}{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def toolful_spec() -> str:
    """tiny-mixtral's spec with another name, the ability `tools` and a template that shows them."""
    spec = yaml.safe_load((specs_root() / "llm" / "tiny-mixtral.yaml").read_text())
    spec |= {"name": "toolful", "abilities": ["generate", "chat", "tools"]}
    spec["chat_template"] = TEMPLATE
    spec["weights"] = [one for one in spec["weights"] if one["format"] == "ggufv2"]
    return str(yaml.safe_dump(spec))
