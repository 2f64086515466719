"""Endpoints that somebody else runs: which fields of a request go there.

No engine of ours stands behind them, so that there is no adapter: nothing is detected, started or
stopped. What an endpoint honours is not known. It gets all of OpenAI's fields, with those that the
usual servers have beside them, and refuses itself what it does not know; a name that is in neither
list is refused here, as a slip.
"""

from __future__ import annotations

from paddock.engines.base import RequestFields

NAME = "attached"
"""What stands in the place of an engine's name."""
FIELDS = RequestFields(
    honoured=frozenset(
        (
            *("max_tokens", "seed", "stop", "temperature", "top_p", "logit_bias", "logprobs"),
            *("frequency_penalty", "presence_penalty", "user", "service_tier", "metadata", "store"),
            *("safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
            *("top_k", "min_p", "min_tokens", "repetition_penalty", "repeat_penalty"),
            *("ignore_eos", "stop_token_ids", "skip_special_tokens", "guided_json"),
            *("guided_regex", "guided_choice", "guided_grammar", "grammar", "json_schema"),
        )
    ),
    completions=frozenset(("suffix", "response_format")),
    chat=frozenset(
        (
            *("top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls"),
            *("max_completion_tokens", "chat_template_kwargs", "reasoning_effort"),
            *("enable_thinking", "verbosity", "modalities", "prediction", "web_search_options"),
            *("functions", "function_call", "add_generation_prompt"),
        )
    ),
    embeddings=frozenset(
        (
            *("encoding_format", "dimensions", "user", "input_type", "truncate", "truncation"),
            *("truncate_prompt_tokens", "truncation_direction", "truncation_side", "task"),
            *("task_type", "prompt", "prompt_name", "instruction", "output_dimension"),
            *("output_dtype", "embedding_type", "normalized"),
        )
    ),
    rerank=frozenset(
        (
            *("truncate", "truncation", "truncate_prompt_tokens", "max_tokens_per_doc"),
            *("truncation_direction", "truncation_side", "instruction", "instruct"),
        )
    ),
)
