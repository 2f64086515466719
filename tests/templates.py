"""Chat templates that call tools, each in a form of its own, as families of models publish them."""

from __future__ import annotations

HERMES = """{%- if tools %}
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

CALLS = {
    "hermes": '<tool_call>\\n{"name": "NAME", "arguments": JSON}\\n</tool_call>',
    "mistral": '[TOOL_CALLS] [{"name": "NAME", "arguments": JSON, "id": "abcdefghi"}]',
    "mistral_nemo": '[TOOL_CALLS][{"name": "NAME", "arguments": JSON, "id": "abcdefghi"}]',
    "mistral_args": "[TOOL_CALLS]NAME[CALL_ID]abcdefghi[ARGS]JSON",
    "llama3_json": '<|end_header_id|>\\n\\n{"name": "NAME", "parameters": JSON}',
    "qwen3_coder": "<tool_call>\\n<function=NAME>\\n<parameter=word>\\nWORD\\n</parameter>\\n"
    "</function>\\n</tool_call>",
    "seed_oss": "<seed:tool_call>\\n<function=NAME>\\n<parameter=word>WORD</parameter>\\n"
    "</function>\\n</seed:tool_call>",
    "glm45": "<tool_call>NAME\\n<arg_key>word</arg_key>\\n<arg_value>WORD</arg_value>\\n"
    "</tool_call>",
    "glm47": "<tool_call>NAME<arg_key>word</arg_key><arg_value>WORD</arg_value></tool_call>",
    "deepseek_v3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\\n"
    "```json\\nJSON\\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "deepseek_v31": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>JSON"
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "deepseek_v32": '<｜DSML｜function_calls>\\n<｜DSML｜invoke name="NAME">',
    "deepseek_v4": '<｜DSML｜tool_calls>\\n<｜DSML｜invoke name="NAME">',
    "kimi_k2": "<|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>JSON",
    "kimi_k3": '<|open|>tools<|sep|><|open|>call tool="NAME" index="1"<|sep|>',
    "minimax_m2": '<minimax:tool_call>\\n<invoke name="NAME">\\n<parameter name="word">WORD'
    "</parameter>\\n</invoke>\\n</minimax:tool_call>",
    "minimax_m3": ']<]minimax[>[<tool_call>\\n]<]minimax[>[<invoke name="NAME">',
    "gemma4": '<|tool_call>call:NAME{word:<|"|>WORD<|"|>}<tool_call|>',
    "openai": "<|start|>assistant to=functions.NAME<|channel|>commentary json<|message|>JSON"
    "<|call|>",
    "lfm2": "<|tool_call_start|>[NAME(word='WORD')]<|tool_call_end|>",
    "granite": '<|tool_call|>[{"name": "NAME", "arguments": JSON}]',
    "apertus": '<|tools_prefix|>[{"NAME": JSON}]<|tools_suffix|>',
    "phi4_mini_json": 'functools[{"name": "NAME", "arguments": JSON}]',
    "gigachat3": '<|function_call|>{"name": "NAME", "arguments": JSON}',
    "minicpm5": '<function name="NAME"><param name="word">WORD</param></function>',
    "hunyuan": "<tool_calls>\\n<tool_call>NAME<tool_sep>\\n<arg_key>word</arg_key>",
    "muse_glimmer": '<atem:function_calls>\\n<atem:invoke name="NAME">',
}
"""Format → a call in it, of `NAME` with `WORD` as `word`, which as JSON is `JSON`."""


def with_calls(form: str) -> str:
    """A short template that shows tools, and writes calls in this form."""
    call = CALLS[form].replace("'", "\\'")
    for place, variable in (
        ("NAME", "call.function.name"),
        ("JSON", "(call.function.arguments | tojson)"),
        ("WORD", "call.function.arguments.word"),
    ):
        call = call.replace(place, f"' + {variable} + '")
    return (
        "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
        "{% for message in messages %}{{ '<|' + message.role + '|>' }}{{ message.content or '' }}"
        f"{{% for call in message.tool_calls or [] %}}{{{{ '{call}' }}}}{{% endfor %}}"
        "{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )


_TURNS = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}<|assistant|>"
THOUGHTS: list[tuple[str, str | None]] = [
    ("{% for m in messages %}{{ m.content }}{% endfor %}", None),
    (_TURNS + "{{ '<think>\\n' }}", "deepseek_r1"),
    (_TURNS, "think"),
    (
        _TURNS + "{% if enable_thinking is defined and enable_thinking is false %}"
        "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}",
        "qwen3",
    ),
    (_TURNS + "{% if enable_thinking == false %}</think>{% else %}<think>{% endif %}", "qwen3"),
    (_TURNS + "{% if thinking %}<think>{% else %}</think>{% endif %}", "deepseek_v3"),
    ("[gMASK]<sop>" + _TURNS, "glm45"),
    (_TURNS + "{{ tools }}<minimax:tool_call>", "minimax_m2"),
    (_TURNS + "<|tool_calls_section_begin|>", "kimi_k2"),
    ("[THINK]{{ messages[0].content }}[/THINK]", "mistral"),
    ("<seed:think>{{ messages[0].content }}</seed:think>", "seed_oss"),
    ("<mm:think>{{ messages[0].content }}</mm:think>", "minimax_m3"),
    ("<|channel>thought\n<channel|>{{ messages[0].content }}", "gemma4"),
    ("<|channel|>analysis<|message|>{{ messages[0].content }}<|end|>", "openai_gptoss"),
]
"""Templates, and the form in which their models think."""
