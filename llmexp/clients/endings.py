"""Finish reasons: which say that an answer is whole, which that a filter ended it, and that all others are failures.

The names are those of every wire together, since gateways hand one wire's reasons on in another.
"""

from __future__ import annotations

from llmexp.clients.base import Failure

_GOOD = """
    stop length tool_calls function_call tool_call
    end_turn stop_sequence max_tokens tool_use pause_turn model_context_window_exceeded
    max_output_tokens eos eos_token eos_found model_length complete completed repetition
"""
GOOD = frozenset(_GOOD.split())
"""The model came to its end, or to a limit: OpenAI's and its servers'; Anthropic's and Bedrock's; the rest."""
_FILTERED = """
    content_filter content_filtered guardrail_intervened refusal sensitive
    safety recitation language blocklist prohibited_content spii image_safety
"""
FILTERED = frozenset(_FILTERED.split())
"""A filter ended it. With text the answer counts and its reason says how it ended; without any it is a failure."""


def failure(reason: str | None, words: str, *, has_text: bool) -> Failure | None:
    """The failure that a finish reason stands for; `words` is what the server said beside it."""
    if reason is None:
        return None
    name = reason.strip().lower().replace("-", "_").replace(" ", "_")
    if name in GOOD or (name in FILTERED and has_text):
        return None
    said = f": {words}" if words else ""
    return Failure.of("in_stream", reason, f"the server ended the answer with the reason '{reason}'{said}")
