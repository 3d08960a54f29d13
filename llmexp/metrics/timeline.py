"""A run over time: how many requests were in flight, when its plateau lay, and its curves.

Tokens and requests are accounted by the moment of their event, so a request that straddles a bound counts on each side
with what happened there. A request is in flight from its `sent` to the end of its response.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmexp.records.observed import Floats, Ints, Observed, known

MAX_POINTS = 300
FULL = 0.95
"""Share of the concurrency asked for at which a closed loop counts as full."""


@dataclass(frozen=True)
class Span:
    """A stretch of the workers' clock, both ends inside."""

    start_ns: int
    end_ns: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return (self.end_ns - self.start_ns) / 1e9

    def holds(self, at_ns: Ints) -> NDArray[np.bool_]:
        """Which stamps lie inside."""
        return (at_ns >= self.start_ns) & (at_ns <= self.end_ns)


class InFlight:
    """The number of requests in flight as a step function of time."""

    def __init__(self, observed: Observed) -> None:
        sent = known(observed.sent_ns)
        self.starts: Ints = np.sort(observed.sent_ns[sent])
        self.ends: Ints = np.sort(np.maximum(ends_ns(observed), observed.sent_ns)[sent])

    def mean(self, span: Span) -> float:
        """The time average over a span."""
        area = self.area_ns(np.array([span.start_ns, span.end_ns]))
        return float(area[1] - area[0]) / (span.end_ns - span.start_ns)

    def area_ns(self, at_ns: Ints) -> Ints:
        """Requests × ns accumulated since the first send, at each of these moments."""
        return _elapsed(self.starts, at_ns, self.starts[0]) - _elapsed(self.ends, at_ns, self.starts[0])

    def reaches(self, level: float) -> int:
        """When this many, or the most there ever were, were first in flight."""
        moments = np.concatenate([self.ends, self.starts])
        steps = np.concatenate([np.full(len(self.ends), -1), np.full(len(self.starts), 1)])
        order = np.argsort(moments, kind="stable")
        counts = np.cumsum(steps[order])
        first = np.argmax(counts >= min(level, counts.max()))
        return int(moments[order][first])


def _elapsed(events: Ints, at_ns: Ints, origin_ns: int) -> Ints:
    """Σ (at − event) over the events before each moment."""
    before = np.searchsorted(events, at_ns, side="right")
    sums = np.concatenate([[0], np.cumsum(events - origin_ns)])
    elapsed: Ints = before * (at_ns - origin_ns) - sums[before]
    return elapsed


def ends_ns(observed: Observed) -> Ints:
    """When each request left the wire: its end, else the last that was seen of it."""
    last = np.maximum.reduce([observed.first_byte_ns, observed.last_token_ns, observed.sent_ns, observed.dispatched_ns])
    return np.where(known(observed.end_ns), observed.end_ns, last)


def window(observed: Observed) -> Span | None:
    """First `sent` to the last token of any request; None where there is no token or no time between."""
    sent, tokens = known(observed.sent_ns), known(observed.last_token_ns)
    if not sent.any() or not tokens.any():
        return None
    span = Span(int(observed.sent_ns[sent].min()), int(observed.last_token_ns[tokens].max()))
    return span if span.end_ns > span.start_ns else None


def sending(observed: Observed) -> Span | None:
    """First to last `sent`."""
    sent = observed.sent_ns[known(observed.sent_ns)]
    if len(sent) < 2 or sent.min() == sent.max():
        return None
    return Span(int(sent.min()), int(sent.max()))


def inflight_mean(observed: Observed) -> float | None:
    """Mean number in flight, first to last `sent`."""
    span = sending(observed)
    return None if span is None else InFlight(observed).mean(span)


def concurrency_held(observed: Observed, streams: int) -> float | None:
    """Share of the asked concurrency that a closed loop held; None where no request waited for another to end."""
    if int(known(observed.sent_ns).sum()) <= streams:
        return None
    mean = inflight_mean(observed)
    return None if mean is None else mean / streams


def plateau(observed: Observed, streams: int | None) -> Span | None:
    """From full load to the begin of the drain, which is the last `sent`.

    A closed loop (`streams` given) is full once it holds its concurrency. An open loop, whose rate is full at once, is
    settled a median latency after its first send, when as many end as begin. None where nothing lies between.
    """
    span = sending(observed)
    if span is None:
        return None
    if streams is not None:
        start_ns = InFlight(observed).reaches(math.ceil(FULL * streams))
    else:
        done = observed.completed & known(observed.end_ns, observed.sent_ns)
        if not done.any():
            return None
        start_ns = span.start_ns + int(np.median((observed.end_ns - observed.sent_ns)[done]))
    return Span(start_ns, span.end_ns) if start_ns < span.end_ns else None


def tokens_in(observed: Observed, span: Span) -> int:
    """Tokens whose chunk arrived inside the span, of any request."""
    return sum(int(piece.tokens[span.holds(piece.at_ns)].sum()) for piece in observed.pieces)


def curves(observed: Observed) -> dict[str, object] | None:
    """The run in steps of a whole number of seconds, at most `MAX_POINTS`; None where nothing was sent.

    `t_s` is where each step begins, from the first `sent`. `inflight` is its mean, rates are per second, `errors` is a
    count. The last step is longer or shorter than `step_s`, by up to half, as the run ends.
    """
    sent = known(observed.sent_ns)
    if not sent.any():
        return None
    start_ns, end_ns = int(observed.sent_ns[sent].min()), int(ends_ns(observed)[sent].max())
    step_ns = max(1, math.ceil((end_ns - start_ns) / 1e9 / MAX_POINTS)) * 10**9
    edges = _edges(start_ns, max(end_ns, start_ns + 1), step_ns)
    widths_s = np.diff(edges) / 1e9
    left = ends_ns(observed)
    return {
        "step_s": step_ns // 10**9,
        "t_s": [int(edge - start_ns) // 10**9 for edge in edges[:-1]],
        "inflight": _rounded(np.diff(InFlight(observed).area_ns(edges)) / np.diff(edges)),
        "output_tokens_per_s": _rounded(_token_counts(observed, edges) / widths_s),
        "requests_per_s": _rounded(_counts(left[observed.completed], edges) / widths_s),
        "errors": [int(count) for count in _counts(left[observed.failed], edges)],
    }


def _edges(start_ns: int, end_ns: int, step_ns: int) -> Ints:
    """Bounds of the steps. A remainder under half a step joins the step before: rates over slivers mean nothing."""
    edges = np.arange(start_ns, end_ns, step_ns)
    if len(edges) > 1 and 2 * (end_ns - edges[-1]) < step_ns:
        edges = edges[:-1]
    return np.append(edges, end_ns)


def _steps(at_ns: Ints, edges: Ints) -> Ints:
    """In which step each stamp lies; what lies outside goes to the nearest."""
    return np.clip(np.searchsorted(edges, at_ns, side="right") - 1, 0, len(edges) - 2)


def _counts(at_ns: Ints, edges: Ints) -> Ints:
    return np.bincount(_steps(at_ns, edges), minlength=len(edges) - 1)


def _token_counts(observed: Observed, edges: Ints) -> Floats:
    totals = np.zeros(len(edges) - 1)
    for piece in observed.pieces:
        totals += np.bincount(_steps(piece.at_ns, edges), weights=piece.tokens, minlength=len(totals))
    return totals


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 4) for value in values]
