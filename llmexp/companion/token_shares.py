"""How many tokens each event of an answer carried.

The server's usage gives the sum where it can; the events share it. Most servers send a token an event, so that the two
numbers agree and nothing has to be counted; the end-of-sequence token, which is billed and has no text, goes to the
last event. Else a tokenizer in this process weighs the texts, and without one their lengths do.

The usage handed in is believed (see `belief`); no event ever gets more tokens than its texts can hold together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from llmexp.clients.base import Answer, TokenEvent
from llmexp.records import Source

_CHARACTERS_PER_TOKEN = 4
_NEAR = (0.6, 1.3)
_LONGEST_WORD = 24
_AROUND = 96
"""Tokens beyond the bytes of a text: marks of its begin and end, envelopes of tool calls."""


class Counter(Protocol):
    """The part of a tokenizer that is needed here."""

    @property
    def source(self) -> Source:
        """What its counts are called in a record."""
        ...

    @property
    def in_process(self) -> bool:
        """False when counting calls the endpoint, which must not be disturbed while it is measured."""
        ...

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        ...


class Allotment(NamedTuple):
    """Streamed tokens, and each event's share of them."""

    tokens: list[int]
    source: Source
    """Where the shares come from."""
    total: int
    total_source: Source
    counted: int | None
    """The tokenizer's count of the whole text, where it was needed."""


class _Total(NamedTuple):
    tokens: int
    source: Source
    counted: int | None = None


def allot(answer: Answer, tokenizer: Counter) -> Allotment:
    """Shares of the streamed tokens for `answer.events`, of which there is at least one."""
    total = _streamed(answer, tokenizer)
    tokens, source = _shares(answer.events, total, tokenizer)
    return Allotment(tokens, source, total.tokens, total.source, total.counted)


def _streamed(answer: Answer, tokenizer: Counter) -> _Total:
    """What the events carried; counted where the server's figure is of more than they can hold."""
    total = _stated(answer, tokenizer)
    most = sum(len(event.text.encode()) for event in answer.events) + _AROUND
    return total if total.tokens <= most else _counted(answer.events, tokenizer)


def _stated(answer: Answer, tokenizer: Counter) -> _Total:
    """The server's output tokens less reasoning that no event carried; counted where the server does not tell."""
    events, usage = answer.events, answer.usage
    billed = usage.output_tokens
    if billed is None:
        return _counted(events, tokenizer)
    if answer.reasoning_summarised:
        return _beside_summary(answer, billed, tokenizer)
    hidden = usage.reasoning_tokens or 0
    if hidden and any(event.kind == "reasoning" for event in events):
        hidden = 0
    return _Total(billed - hidden, "server") if billed > hidden else _counted(events, tokenizer)


def _beside_summary(answer: Answer, billed: int, tokenizer: Counter) -> _Total:
    """What was streamed when the reasoning shown is not the reasoning billed."""
    summary = [event for event in answer.events if event.kind == "reasoning"]
    hidden = answer.usage.reasoning_tokens
    if hidden is None:
        counted = _counted(answer.events, tokenizer)
        return counted._replace(tokens=max(1, min(billed, counted.tokens)))
    if not summary and billed > hidden:
        return _Total(billed - hidden, "server")
    shown = _counted(summary, tokenizer) if summary else _counted(answer.events, tokenizer)
    return _Total(max(0, billed - hidden) + shown.tokens, shown.source)


def _counted(events: Sequence[TokenEvent], tokenizer: Counter) -> _Total:
    """The tokenizer's count, or an estimate: a token an event, more where events carry long texts.

    Most servers send a token an event. Where an estimate is near the number of events, or each event holds a word at
    most, that number is the better one.
    """
    counted = text_tokens(events, tokenizer)
    if tokenizer.in_process and tokenizer.source != "estimate":
        return _Total(max(1, counted), tokenizer.source, counted)
    known = counted if tokenizer.in_process else None
    is_near = _NEAR[0] * len(events) <= counted <= _NEAR[1] * len(events)
    if is_near or _are_words(events, counted):
        return _Total(len(events), "estimate", known)
    return _Total(max(1, counted) if tokenizer.in_process else max(len(events), counted), "estimate", known)


def _are_words(events: Sequence[TokenEvent], counted: int) -> bool:
    """Whether each event holds a word at most, and they are no letters of words."""
    if len(events) < 2 or (counted < _NEAR[0] * len(events) and not are_alike(events)):
        return False
    return all(len(event.text) <= _LONGEST_WORD and len(event.text.split()) <= 1 for event in events)


def are_alike(events: Sequence[TokenEvent]) -> bool:
    """Whether all hold the same text: no gateway that cuts words into letters sends that."""
    return len({event.text for event in events}) == 1


def likely_tokens(events: Sequence[TokenEvent], tokenizer: Counter) -> int:
    """How many tokens these events most likely carried, whatever the server says."""
    return _counted(events, tokenizer).tokens


def text_tokens(events: Sequence[TokenEvent], tokenizer: Counter) -> int:
    """Tokens of the events' text, by the tokenizer or its length."""
    text = "".join([event.text for event in events])
    return tokenizer.count(text) if tokenizer.in_process else round(len(text) / _CHARACTERS_PER_TOKEN)


def _shares(events: Sequence[TokenEvent], total: _Total, tokenizer: Counter) -> tuple[list[int], Source]:
    count, tokens = len(events), total.tokens
    if count in (tokens, tokens - 1):
        shares = [1] * count
        shares[-1] += tokens - count
        return shares, total.source
    if events[0].at_ns == events[-1].at_ns:
        return largest_remainder([1] * count, tokens), total.source
    if tokenizer.in_process:
        return largest_remainder([tokenizer.count(event.text) for event in events], tokens), tokenizer.source
    return largest_remainder([len(event.text) for event in events], tokens), "estimate"


def largest_remainder(weights: Sequence[int], total: int) -> list[int]:
    """Whole numbers in proportion to `weights` that sum to `total`; ties go to the earlier."""
    whole = sum(weights)
    if whole == 0:
        return largest_remainder([1] * len(weights), total)
    shares = [weight * total // whole for weight in weights]
    missing = total - sum(shares)
    order = sorted(range(len(weights)), key=lambda at: -(weights[at] * total % whole))
    for at in order[:missing]:
        shares[at] += 1
    return shares
