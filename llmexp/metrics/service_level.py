"""Whether a request kept the service level: one rule, for a record while the load runs and for arrays afterwards.

A request is good when it completed, has the times of its first and last token, and passes no threshold. In an open loop
its clock starts when the schedule wanted it, else when it was sent. An answer of one chunk has no time per output token
that could miss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from llmexp.config import Slo
from llmexp.metrics.distributions import seconds
from llmexp.metrics.latencies import time_per_output_token
from llmexp.records import Record
from llmexp.records.observed import Bools, Floats, Ints, Observed, known

TTFT, E2E, PER_TOKEN = "ttft_s", "e2e_latency_s", "time_per_output_token_s"
TIMES = (TTFT, PER_TOKEN, E2E)
"""What a service level can ask of a request's times."""
_FROM_INTENDED = {TTFT: "response_ttft_s", E2E: "response_latency_s"}
Flags = TypeVar("Flags", bool, Bools)


def clocked(name: str, *, open_loop: bool) -> str:
    """The latency that a threshold of this name is held against."""
    return _FROM_INTENDED.get(name, name) if open_loop else name


def within(good: Flags, limits: Mapping[str, float], value: Callable[[str], float | Floats]) -> Flags:
    """Which of the good pass no threshold; a latency that does not exist is NaN."""
    for name, limit in limits.items():
        latency = value(name)
        kept = latency <= limit
        if name == PER_TOKEN:
            kept |= latency != latency  # noqa: PLR0124 -- NaN
        good = good & kept  # type: ignore[assignment]
    return good


def meets(observed: Observed, slo: Slo, *, open_loop: bool) -> Bools:
    """Which requests are good."""
    start = observed.intended_ns if open_loop else observed.sent_ns
    first, last = observed.first_token_ns, observed.last_token_ns
    timed = observed.completed & known(start, first, last)
    latencies = {
        TTFT: lambda: _between(first, start, timed),
        E2E: lambda: _between(last, start, timed),
        PER_TOKEN: lambda: time_per_output_token(observed),
    }
    return within(timed, slo.thresholds, lambda name: latencies[name]())


def _between(later: Ints, earlier: Ints, timed: Bools) -> Floats:
    return np.where(timed, seconds(np.where(timed, later - earlier, 0)), np.nan)


def kept(row: Record, slo: Slo, *, open_loop: bool) -> bool:
    """Whether a finished request is good."""
    start, first, last = (row.intended_ns if open_loop else row.sent_ns), row.first_token_ns, row.last_token_ns
    if row.status != "completed" or start is None or first is None or last is None:
        return False
    tokens = row.streamed_tokens - (row.chunk_tokens[0] if row.chunk_tokens else 0)
    per_token = (last - first) / 1e9 / tokens if tokens > 0 else float("nan")
    latencies = {TTFT: (first - start) / 1e9, E2E: (last - start) / 1e9, PER_TOKEN: per_token}
    return within(True, slo.thresholds, latencies.__getitem__)


def right_enough(right_share: object, asked: float | None) -> bool:
    """Whether enough answers were right; a share that is not known does not do where one is asked."""
    return asked is None or (isinstance(right_share, int | float) and right_share >= asked)
