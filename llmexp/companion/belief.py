"""Which of a server's counts its own stream bears out.

A count is refused where the stream contradicts it: zero beside text, fewer tokens than pieces of text, more than the
limit that was sent or than the text can hold. What the tokenizer makes of the text then decides, in the server's favour
where the two are near: some gateways cut text anew, so that pieces are smaller than tokens, and some servers overlook a
limit. Refused counts are left out of the usage, so that everything that follows (costs, limits, rates) uses our own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from llmexp.clients.base import Answer, TokenEvent, Usage
from llmexp.companion.token_shares import Counter, are_alike, likely_tokens, text_tokens
from llmexp.workload.request import Request

AROUND, AROUND_TOOLS = 32, 96
"""Tokens that an answer may have beyond the bytes of its text: marks of its begin and end, envelopes of tool calls."""
HIDDEN_TOKENS = 200_000
"""Reasoning that is billed and not shown may be so much longer than the limit."""
HIDDEN_PROMPT_TOKENS = 100_000
"""A server's own instructions may be so long."""
_OVER_LIMIT = 2
"""The end of the answer may count."""
_NEAR, _FEWER = 1.5, 1.25
_WORDS_PER_TOKEN = 5
"""Hardly a token holds two words, so that a text of many more words than tokens contradicts their number."""


class Believed(NamedTuple):
    """The usage without what was refused, and remarks on that."""

    usage: Usage
    remarks: tuple[str, ...]


def believed(answer: Answer, request: Request, tokenizer: Counter) -> Believed:
    """What counts of the server's usage."""
    usage, remarks = answer.usage, list(answer.remarks)
    if usage == Usage():
        return Believed(usage, answer.remarks)
    if usage.output_tokens is not None and not _output_holds(answer, request, tokenizer):
        usage = replace(usage, output_tokens=None, reasoning_tokens=None)
        remarks.append("output_tokens_refused")
    elif not _reasoning_holds(usage, answer.events, tokenizer):
        usage = replace(usage, reasoning_tokens=None)
        remarks.append("reasoning_tokens_refused")
    if usage.input_tokens is not None and not _input_holds(usage, request):
        usage = replace(usage, input_tokens=None, cached_tokens=None, cache_write_tokens=None)
        remarks.append("input_tokens_refused")
    elif usage.cached_tokens is not None and usage.cached_tokens > (usage.input_tokens or usage.cached_tokens):
        usage = replace(usage, cached_tokens=None)
        remarks.append("cached_tokens_refused")
    return Believed(usage, tuple(remarks))


def _room(events: list[TokenEvent]) -> int:
    """The most tokens that these texts can hold: a token has a byte at least."""
    around = AROUND_TOOLS if any(event.kind == "tool" for event in events) else AROUND
    return sum(len(event.text.encode()) for event in events) + around


def _output_holds(answer: Answer, request: Request, tokenizer: Counter) -> bool:
    events, stated = answer.events, answer.usage.output_tokens or 0
    may_hide = answer.reasoning_summarised or (answer.usage.reasoning_tokens or 0) > 0
    if may_hide:
        events = [event for event in events if event.kind != "reasoning"] or events[:1]
    if stated < len(events) - _calls(events):
        return stated > 0 and _cut_anew(stated, events, tokenizer)
    if _words([event.text for event in events]) > _WORDS_PER_TOKEN * stated:
        return False
    if not events or may_hide:
        return stated <= request.max_tokens + HIDDEN_TOKENS
    if stated > request.max_tokens + _OVER_LIMIT or stated > _room(events):
        return stated <= _NEAR * likely_tokens(events, tokenizer) + _OVER_LIMIT
    return True


def _calls(events: list[TokenEvent]) -> int:
    """Calls of tools whose name came as a piece of its own: not every server counts names and envelopes as output."""
    kinds = ["", *(event.kind for event in events)]
    return sum(kinds[at] != "tool" and kinds[at + 1 : at + 3] == ["tool", "tool"] for at in range(len(events)))


def _words(texts: Iterable[str]) -> int:
    """Words of texts in scripts that divide them."""
    return len("".join(texts).split())


def _cut_anew(stated: int, events: list[TokenEvent], tokenizer: Counter) -> bool:
    """Whether pieces of text are smaller than tokens, as where a gateway sends letter by letter."""
    counted = text_tokens(events, tokenizer)
    is_near = stated / _FEWER <= counted <= _FEWER * stated
    return is_near and counted < len(events) / _FEWER and not are_alike(events)


def _reasoning_holds(usage: Usage, events: list[TokenEvent], tokenizer: Counter) -> bool:
    """Whether what is not reasoning is enough for the answer's pieces."""
    if usage.output_tokens is None or not usage.reasoning_tokens:
        return True
    answered = [event for event in events if event.kind != "reasoning"]
    left = usage.output_tokens - usage.reasoning_tokens
    return left >= 0 and (len(answered) <= max(1, left) or _cut_anew(left, answered, tokenizer))


def _input_holds(usage: Usage, request: Request) -> bool:
    stated = usage.input_tokens or 0
    if stated == 0:
        return request.input_tokens == 0
    return stated <= HIDDEN_PROMPT_TOKENS or stated <= HIDDEN_PROMPT_TOKENS + sum(
        len(text.encode("utf-8", "replace")) for text in (*request.texts, *request.image_data)
    )
