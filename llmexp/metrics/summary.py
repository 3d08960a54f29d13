"""Records → numbers. Pure: no I/O, no clock, checkable by hand.

`summarize` gives a nested mapping of numbers under the names of `DICTIONARY`, which holds their definitions. What does
not exist is None, never 0 or NaN. Latencies are of completed requests alone; failed and unfinished ones are counted.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from llmexp.config import Slo
from llmexp.json_types import number
from llmexp.metrics.dictionary import DICTIONARY
from llmexp.metrics.distributions import all_uncarried, distribution, uncarried
from llmexp.metrics.latencies import between, chunk_gaps, output_rate, real, time_per_output_token, token_gaps
from llmexp.metrics.quality import right_answers
from llmexp.metrics.service_level import meets, right_enough
from llmexp.metrics.sessions import of_sessions, sessions_held
from llmexp.metrics.timeline import (
    InFlight,
    Span,
    concurrency_held,
    curves,
    inflight_mean,
    plateau,
    sending,
    tokens_in,
    window,
)
from llmexp.records.observed import Bools, Ints, Observed, known, observe

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "DICTIONARY",
    "all_uncarried",
    "billed_output_tokens",
    "cached_beyond",
    "concurrency_held",
    "curves",
    "errors",
    "observe",
    "output_length",
    "schedule_lag",
    "sessions_held",
    "summarize",
    "token_sources",
    "uncarried",
]

Cost = Callable[[int, int, int, int, int], float | None]
"""USD for input, cached, output, reasoning and cache-write tokens; cached and written are part of the input."""
Source: TypeAlias = "Observed | Path | pa.Table | Iterable[pa.RecordBatch]"
"""A job's directory, a table, batches, or what `observe` read from one of these."""

LENGTH_TOLERANCE = 0.1
LENGTH_HELD = 0.9
CACHE_BLOCK_TOKENS = 16


def summarize(
    source: Source,
    *,
    slo: Slo,
    open_loop: bool,
    cost: Cost | None = None,
    usd_per_hour: float | None = None,
    streams: int | None = None,
    stationary: bool = True,
) -> dict[str, object]:
    """The numbers of a run.

    `usd_per_hour` is the price of all instances. `streams` is a closed loop's concurrency, which its plateau has to
    reach. `stationary=False` says that the load has no plateau (a ramp, a replayed trace).
    """
    observed = source if isinstance(source, Observed) else observe(source)
    span = window(observed)
    money = _money(observed, span, cost, usd_per_hour)
    in_time = meets(observed, slo, open_loop=open_loop) if slo.thresholds else None
    right = right_answers(observed, span, number(money, "cost_usd"), in_time)
    return {
        **_latencies(observed, observed.completed),
        **_client_side(observed),
        **_token_counts(observed),
        **_rates(observed, span),
        **_service(observed, span, slo, in_time, right["right_share"]),
        **money,
        **right,
        **of_sessions(observed, span),
        "steady": _steady(observed, None if open_loop else streams or len(observed), slo, open_loop)
        if stationary
        else None,
    }


# --- distributions ---------------------------------------------------------------------------------------------------


def _latencies(observed: Observed, chosen: Bools) -> dict[str, object]:
    first, last, sent, intended = (
        observed.first_token_ns,
        observed.last_token_ns,
        observed.sent_ns,
        observed.intended_ns,
    )
    thought = chosen & observed.reasoning_streamed
    return {
        "ttft_s": distribution(between(first, sent, chosen)),
        "time_to_first_answer_token_s": distribution(between(observed.first_answer_token_ns, sent, thought)),
        "time_to_first_tool_call_s": distribution(between(observed.first_tool_call_ns, sent, chosen)),
        "e2e_latency_s": distribution(between(last, sent, chosen)),
        "time_per_output_token_s": distribution(real(time_per_output_token(observed), chosen)),
        "inter_token_latency_s": distribution(token_gaps(observed, chosen)),
        "inter_chunk_latency_s": distribution(chunk_gaps(observed, chosen)),
        "response_ttft_s": distribution(between(first, intended, chosen)),
        "response_latency_s": distribution(between(last, intended, chosen)),
        "output_tokens_per_s_per_request": distribution(real(output_rate(observed), chosen)),
    }


def _client_side(observed: Observed) -> dict[str, object]:
    sent = known(observed.sent_ns)
    return {
        "schedule_lag_s": distribution(between(observed.dispatched_ns, observed.intended_ns, sent)),
        "wait_s": distribution(real(observed.wait_s, sent & (observed.wait_s > 0))),
        "connect_s": distribution(real(observed.connect_s, sent & (observed.connect_s > 0))),
        "server_latency_s": distribution(real(observed.server_latency_s, observed.completed)),
    }


def _token_counts(observed: Observed) -> dict[str, object]:
    names = ("input_tokens", "output_tokens", "reasoning_tokens", "cached_tokens", "cache_write_tokens")
    counts: dict[str, Ints] = {
        name: getattr(observed, name) for name in (*names, "input_tokens_counted", "output_tokens_counted")
    }
    return {
        name: distribution(values[observed.completed & known(values)].astype(float)) for name, values in counts.items()
    }


# --- the run ---------------------------------------------------------------------------------------------------------


def _rates(observed: Observed, span: Span | None) -> dict[str, object]:
    completed, failed = int(observed.completed.sum()), int(observed.failed.sum())
    throttled = observed.failures.get("throttled")
    return {
        "window_s": span and span.duration_s,
        "output_tokens_per_s": span and int(observed.streamed_tokens.sum()) / span.duration_s,
        "requests_per_s": span and completed / span.duration_s,
        "requests_completed": completed,
        "requests_failed": failed,
        "requests_unfinished": int(observed.unfinished.sum()),
        "requests_throttled": throttled.count if throttled else 0,
        "error_rate": failed / (completed + failed) if completed + failed else None,
        "inflight_mean": inflight_mean(observed),
        "stale_connections": int(observed.stale_connections[known(observed.stale_connections)].sum()),
    }


def _service(
    observed: Observed, span: Span | None, slo: Slo, in_time: Bools | None, right_share: object
) -> dict[str, object]:
    answered = int((observed.completed | observed.failed).sum())
    if not slo.asked or not answered:
        return {"goodput_per_s": None, "slo": None}
    good = None if in_time is None else int(in_time.sum())
    share = None if good is None else good / answered
    return {
        "goodput_per_s": good / span.duration_s if span is not None and good is not None else None,
        "slo": {
            "attainment": share,
            "met": (share is None or share >= slo.attainment) and right_enough(right_share, slo.right_share),
        },
    }


def _money(observed: Observed, span: Span | None, cost: Cost | None, usd_per_hour: float | None) -> dict[str, object]:
    tokens = None if cost is None else _tokens_usd(observed, cost)
    hours = None if usd_per_hour is None or span is None else usd_per_hour * span.duration_s / 3600
    parts = [part for part in (tokens, hours) if part is not None]
    usd = sum(parts) if parts else None
    billed = billed_output_tokens(observed)
    return {
        "cost_usd": usd,
        "usd_per_million_output_tokens": usd / billed * 1e6 if usd is not None and billed else None,
    }


def _tokens_usd(observed: Observed, cost: Cost) -> float | None:
    """USD for the tokens of every request that is billed as far as we know; None where the price is unknown."""
    spent = 0.0
    for counts in zip(*(column.tolist() for column in _billed(observed)), strict=True):
        usd = cost(*counts)
        if usd is None:
            return None
        spent += usd
    return spent


def billed_output_tokens(observed: Observed) -> int:
    """Output tokens that cost money, of every request."""
    return int(_billed(observed)[2].sum())


def _billed(observed: Observed) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Input, cached, output, reasoning, cache-write tokens of the requests that cost money.

    Completed ones; failed ones where the server stated usage or tokens came; what the client cut, as far as it came.
    """
    cut = observed.unfinished & known(observed.sent_ns)
    broken = observed.failed & (observed.usage_from_server | known(observed.first_token_ns))
    billed = observed.completed | broken | cut
    asked = np.where(known(observed.input_tokens), observed.input_tokens, observed.input_tokens_counted)
    made = np.where(known(observed.output_tokens), observed.output_tokens, observed.streamed_tokens)
    columns = (asked, observed.cached_tokens, made, observed.reasoning_tokens, observed.cache_write_tokens)
    return tuple(np.where(known(column), column, 0)[billed] for column in columns)  # type: ignore[return-value]


def _steady(observed: Observed, streams: int | None, slo: Slo, open_loop: bool) -> dict[str, object] | None:
    """The main metrics over the plateau; None where there is none."""
    sent, span = sending(observed), plateau(observed, streams)
    if sent is None or span is None:
        return None
    inside = known(observed.sent_ns) & span.holds(observed.sent_ns)
    done, ended = observed.completed & inside, observed.completed & span.holds(observed.end_ns)
    good = meets(observed, slo, open_loop=open_loop) & ended if slo.thresholds else None
    first, last, start = observed.first_token_ns, observed.last_token_ns, observed.sent_ns
    return {
        "start_s": (span.start_ns - sent.start_ns) / 1e9,
        "duration_s": span.duration_s,
        "output_tokens_per_s": tokens_in(observed, span) / span.duration_s,
        "requests_per_s": int(ended.sum()) / span.duration_s,
        "goodput_per_s": None if good is None else int(good.sum()) / span.duration_s,
        "inflight_mean": InFlight(observed).mean(span),
        "ttft_s": distribution(between(first, start, done)),
        "e2e_latency_s": distribution(between(last, start, done)),
        "response_ttft_s": distribution(between(first, observed.intended_ns, done)),
        "response_latency_s": distribution(between(last, observed.intended_ns, done)),
        "time_per_output_token_s": distribution(real(time_per_output_token(observed), done)),
        "inter_token_latency_s": distribution(token_gaps(observed, observed.completed, span)),
    }


# --- beside the numbers ----------------------------------------------------------------------------------------------


def errors(observed: Observed) -> dict[str, object]:
    """Error class → count, codes and the first examples; the most frequent first."""
    ordered = sorted(observed.failures.items(), key=lambda item: -item[1].count)
    return {
        name: {"count": failures.count, "codes": dict(failures.codes.most_common()), "examples": failures.examples}
        for name, failures in ordered
    }


def token_sources(observed: Observed) -> dict[str, dict[str, int]]:
    """For each token count: how many completed requests have it from `server`, `tokenizer` or `estimate`."""
    return {name: dict(counter.most_common()) for name, counter in observed.sources.items() if counter}


def output_length(observed: Observed) -> dict[str, object] | None:
    """Whether answers had the length asked for; None where no answer can tell.

    `share_held` is the share within ±10 % (at least ±1 token) of the length asked; below 0.9 the stacks under
    comparison may have done different work, and `held` is false.
    """
    told = observed.completed & known(observed.max_tokens, observed.output_tokens)
    if not told.any():
        return None
    asked, got = observed.max_tokens[told], observed.output_tokens[told]
    within = np.abs(got - asked) <= np.maximum(LENGTH_TOLERANCE * asked, 1)
    return {
        "asked_mean": statistics.fmean(asked.tolist()),
        "answered_mean": statistics.fmean(got.tolist()),
        "tolerance": LENGTH_TOLERANCE,
        "share_held": float(within.mean()),
        "held": bool(within.mean() >= LENGTH_HELD),
        "finish_reasons": dict(observed.finish_reasons.most_common()),
    }


def schedule_lag(observed: Observed) -> float | None:
    """The p99 of dispatched − intended in seconds, of all requests sent."""
    found = distribution(between(observed.dispatched_ns, observed.intended_ns, known(observed.sent_ns)))
    return None if found is None else found["p99"]


def cached_beyond(observed: Observed, declared: float) -> float | None:
    """Share of input tokens that a cache served beyond the `declared` share; None where the server does not say.

    The server's own template around the user's text is no part of it, nor what rounding up to a cache block may add.
    """
    told = observed.completed & known(observed.cached_tokens, observed.input_tokens)
    total = int(observed.input_tokens[told].sum())
    if not total:
        return None
    counted = np.where(known(observed.input_tokens_counted), observed.input_tokens_counted, observed.input_tokens)
    template = np.maximum(observed.input_tokens - counted, 0)[told]
    cached = np.maximum(observed.cached_tokens[told] - template - CACHE_BLOCK_TOKENS, 0)
    return max(0.0, float(cached.sum()) / total - declared)
