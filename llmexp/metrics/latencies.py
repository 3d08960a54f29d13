"""Times of each request, and the gaps inside answers, in seconds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llmexp.metrics.distributions import seconds
from llmexp.metrics.timeline import Span
from llmexp.records.observed import Bools, Chunks, Floats, Ints, Observed, known


def between(later: Ints, earlier: Ints, chosen: Bools) -> Floats:
    """Later − earlier in seconds, of the chosen requests that have both."""
    both = chosen & known(later, earlier)
    return seconds(later[both] - earlier[both])


def time_per_output_token(observed: Observed) -> Floats:
    """Seconds per output token of each request; NaN where an answer of one chunk has none."""
    tokens = observed.streamed_tokens - observed.first_chunk_tokens
    exists = known(observed.first_token_ns, observed.last_token_ns) & (tokens > 0)
    spent = np.where(exists, observed.last_token_ns - observed.first_token_ns, 0)
    return np.where(exists, seconds(spent) / np.maximum(tokens, 1), np.nan)


def output_rate(observed: Observed) -> Floats:
    """Streamed tokens / e2e latency of each request; NaN where there is none."""
    exists = known(observed.sent_ns, observed.last_token_ns) & (observed.last_token_ns > observed.sent_ns)
    spent = np.where(exists, observed.last_token_ns - observed.sent_ns, 1)
    return np.where(exists, observed.streamed_tokens / seconds(spent), np.nan)


def real(values: Floats, chosen: Bools) -> Floats:
    """The chosen values that exist."""
    return values[chosen & ~np.isnan(values)]


def chunk_gaps(observed: Observed, chosen: Bools) -> Floats:
    """Seconds between consecutive chunks of the chosen requests."""
    size = int(sum(piece.lengths[chosen[part]].sum() for part, piece in observed.chunks()))
    return _pool(size, (_chunk_gaps(piece, chosen[part]) for part, piece in observed.chunks()))


def _chunk_gaps(piece: Chunks, chosen: Bools) -> Floats:
    later = np.repeat(chosen, piece.lengths) & ~piece.is_first
    return seconds(np.diff(piece.at_ns, prepend=0)[later])


def token_gaps(observed: Observed, chosen: Bools, span: Span | None = None) -> Floats:
    """Seconds per token of each gap between chunks, once for each token of the later one.

    A chunk without a token of its own hands its gap on to the next. With a span, the later chunk must lie in it.
    """
    parts = (_token_gaps(piece, chosen[part], span) for part, piece in observed.chunks())
    return _pool(int(observed.streamed_tokens[chosen].sum()), parts)


def _token_gaps(piece: Chunks, chosen: Bools, span: Span | None) -> Floats:
    first = piece.is_first
    kept = first | (piece.tokens > 0)
    at_ns, tokens, later = piece.at_ns[kept], piece.tokens[kept], ~first[kept] & np.repeat(chosen, piece.lengths)[kept]
    if span is not None:
        later &= span.holds(at_ns)
    share = seconds(np.diff(at_ns, prepend=0)[later]) / tokens[later]
    return np.repeat(share, tokens[later])


def _pool(size: int, parts: Iterator[Floats]) -> Floats:
    """The parts in one array of at most `size`, without ever holding them twice."""
    pool, filled = np.empty(size), 0
    for part in parts:
        pool[filled : filled + len(part)] = part
        filled += len(part)
    return pool[:filled]
