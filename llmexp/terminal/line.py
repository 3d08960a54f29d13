"""One job of a sweep in a line or two: the whole of it is in its report, and the comparison comes at the end."""

from __future__ import annotations

from collections.abc import Iterator

from llmexp.metrics.catalogue import Metric
from llmexp.metrics.distributions import carries
from llmexp.results.model import Result
from llmexp.secrets import printable

LONGEST = 160
LAST_LINES = 3
"""Of a reason of several lines, such as a server's last words: what it says first, and these."""


def render(result: Result) -> str:
    """`vllm_a · c8 · r2: valid · TTFT p50 201 ms, p95 ~250 ms · 163 tokens/s · 24 completed`, then what went wrong."""
    state = result.validity.verdict if result.status == "finished" else f"{result.status}, {result.validity.verdict}"
    parts = [state, _latency(result), *_numbers(result)]
    head = f"{result.job.name or result.job.id}: {' · '.join(part for part in parts if part)}"
    return "\n".join([head, *(f"  {printable(line)[:LONGEST]}" for line in _troubles(result))])


def _latency(result: Result) -> str:
    spread = result.metrics.spread("ttft_s")
    if spread is None:
        return ""
    metric, count = Metric("ttft_s"), int(spread.get("count") or 0)
    shown = [f"{name} {'' if carries(count, name) else '~'}{metric.show(spread.get(name))}" for name in ("p50", "p95")]
    return f"TTFT {', '.join(shown)}"


def _numbers(result: Result) -> Iterator[str]:
    metrics = result.metrics
    if (tokens := metrics.number("output_tokens_per_s")) is not None:
        yield Metric("output_tokens_per_s").show(tokens)
    if (completed := metrics.number("requests_completed")) is not None:
        yield f"{completed:,.0f} completed"
    for kind in ("failed", "unfinished"):
        if count := metrics.number(f"requests_{kind}"):
            yield f"{count:,.0f} {kind}"
    if (met := metrics.flag("slo/met")) is not None:
        yield f"SLO {'met' if met else 'missed'}"
    if (share := metrics.number("right_share")) is not None:
        yield f"{Metric('right_share').show(share)} right"
    if cost := metrics.number("cost_usd"):
        yield (
            f"would have cost {Metric('cost_usd').show(cost)}"
            if result.job.rehearsal
            else Metric("cost_usd").show(cost)
        )


def _troubles(result: Result) -> Iterator[str]:
    if result.reason:
        first, *more = result.reason.splitlines()
        yield first
        yield from more[-LAST_LINES:]
    for name, found in result.errors.items():
        said = next((example.message for example in found.examples if example.message), "")
        yield f"{found.count:,} {name}: {said}" if said else f"{found.count:,} {name}"
    for reason in result.validity.reasons:
        if reason.reason != "insufficient_data":
            yield f"{reason.level}: {reason.seen or reason.reason.replace('_', ' ')}"
