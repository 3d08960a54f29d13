"""Whether one request kept the service level: the rule of `metrics.meets` on a single record, while the load runs."""

from __future__ import annotations

from llmexp.config import Slo
from llmexp.records import Record


def kept(row: Record, slo: Slo, *, open_loop: bool) -> bool:
    """Whether a finished request meets every threshold; in open loop its clock starts when the schedule wanted it."""
    start_ns = row.intended_ns if open_loop else row.sent_ns
    if row.status != "completed" or start_ns is None or row.first_token_ns is None or row.last_token_ns is None:
        return False
    seen = {
        "ttft_s": (row.first_token_ns - start_ns) / 1e9,
        "e2e_latency_s": (row.last_token_ns - start_ns) / 1e9,
        "time_per_output_token_s": _time_per_output_token(row, row.last_token_ns - row.first_token_ns),
    }
    return all(seen[name] <= limit for name, limit in slo.thresholds.items())


def _time_per_output_token(row: Record, span_ns: int) -> float:
    """Seconds a token after the first chunk; an answer of one chunk has none that could miss."""
    tokens = row.streamed_tokens - (row.chunk_tokens[0] if row.chunk_tokens else 0)
    return span_ns / 1e9 / tokens if tokens > 0 else 0.0
