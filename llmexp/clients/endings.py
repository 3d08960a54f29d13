"""Finish reasons: which say that an answer is whole, which that a filter ended it, and that all others are failures.

The names are those of every wire together, since gateways hand one wire's reasons on in another.
"""

from __future__ import annotations

import re

from llmexp.clients.base import Failure

_GOOD = """
    stop length tool_calls function_call tool_call
    end_turn stop_sequence max_tokens tool_use pause_turn model_context_window_exceeded
    max_output_tokens eos eos_token eos_found model_length complete completed repetition
    stop_token stop_str stop_string stop_criteria_met end_of_text endoftext end_of_turn end_of_sequence end
    max_length max_len max_output max_new_tokens token_limit limit finished finish done normal compaction
"""
GOOD = frozenset(_GOOD.split())
"""The model came to its end, or to a limit: OpenAI's and its servers'; Anthropic's and Bedrock's; the rest."""
_FILTERED = """
    content_filter content_filtered guardrail_intervened refusal sensitive
    safety recitation language blocklist prohibited_content spii model_armor
    image_safety image_prohibited_content image_recitation
"""
FILTERED = frozenset(_FILTERED.split())
"""A filter ended it. With text the answer counts and its reason says how it ended; without any it is a failure."""
_NOT_YET = frozenset({"", "null", "none", "not_finished", "unfinished", "in_progress", "unspecified", "undefined"})
_PREFIX = re.compile(r"(?:finish|stop)?_?reason_")
_BESIDE = re.compile(r"\s*[:;,(].*", re.DOTALL)


def failure(reason: str | None, words: str, *, has_text: bool) -> Failure | None:
    """The failure that a finish reason stands for; `words` is what the server said beside it."""
    if reason is None:
        return None
    name = _plain(reason)
    if name in GOOD or (name in FILTERED and has_text):
        return None
    said = f": {words}" if words else ""
    return Failure.of("in_stream", reason, f"the server ended the answer with the reason '{reason}'{said}")


def is_open(reason: str) -> bool:
    """Whether it only says that the answer goes on; some servers write such a reason into every event."""
    return _plain(reason) in _NOT_YET


def _plain(reason: str) -> str:
    """The name alone: `STOP` of `FinishReason.STOP` and `FINISH_REASON_STOP`; `content_filter` of it and a why."""
    name = _BESIDE.sub("", reason, count=1).strip().lower().rpartition(".")[2].replace("-", "_").replace(" ", "_")
    return _PREFIX.sub("", name, count=1) if _PREFIX.match(name) else name
