"""What one request can cost at the most, and what it did cost, in USD."""

from __future__ import annotations

from typing import NamedTuple

from llmexp.metrics.prices import PriceList, cost
from llmexp.records import Record

UNBILLED = frozenset({"connect", "tls", "auth", "not_found", "throttled", "bad_request", "server"})
"""Failures without a price, unless tokens came before: nothing was sent, or the server refused."""


class Bill(NamedTuple):
    """What a request cost."""

    usd: float
    """As far as is known."""
    whole: bool
    """Whether nothing more can be billed. What was cut may have been generated, and billed, to its token limit."""


def at_most(price: PriceList, input_tokens: int, max_tokens: int) -> float | None:
    """The most that a request can cost which keeps its token limit; None where no price is known."""
    price = price.of(input_tokens)
    if price.input_usd is None or price.output_usd is None:
        return None
    into = max(price.input_usd, price.cached_input_usd or 0.0, price.cache_write_usd or 0.0)
    out = max(price.output_usd, price.reasoning_usd or 0.0)
    return input_tokens * into + max_tokens * out


def of(price: PriceList, row: Record) -> Bill:
    """The bill of a request that is over."""
    if row.sent_ns is None and row.error_class != "client":
        return Bill(0.0, whole=True)
    if row.status == "failed" and row.error_class in UNBILLED and not _began(row):
        return Bill(0.0, whole=True)
    made = row.streamed_tokens if row.output_tokens is None else row.output_tokens
    asked = (row.input_tokens_counted or 0) if row.input_tokens is None else row.input_tokens
    usd = cost(price, asked, row.cached_tokens or 0, made, row.reasoning_tokens or 0, row.cache_write_tokens or 0)
    whole = row.status == "completed" or row.output_tokens_source == "server"
    return Bill(usd or 0.0, whole)


def _began(row: Record) -> bool:
    """Whether the model was at work before the request failed: it streamed tokens, or the server counts some."""
    return row.first_token_ns is not None or "server" in (row.input_tokens_source, row.output_tokens_source)
