"""Verdicts in words. A person must be able to read them without the manual."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmexp.compare.evidence import Gap
from llmexp.compare.stacks import Cell, Stack
from llmexp.compare.stats import BLOCKS_LIMIT, MIN_BLOCKS, Needed
from llmexp.metrics.catalogue import Metric
from llmexp.metrics.wording import digits, percent_range

LEAST_GROWTH = 0.1
"""An extrapolation is not worth more precision: nobody should be told to send one more request."""


def where(cell: Cell, several_workloads: bool) -> str:
    """`at concurrency 16`."""
    return f"at {cell.load}" + (f" ({cell.workload})" if several_workloads else "")


def join(parts: Sequence[str]) -> str:
    """`at concurrency 1 and 4`: what the parts begin with alike is said once."""
    lead = "at concurrency "
    if all(part.startswith(lead) for part in parts):
        parts = [parts[0], *(part.removeprefix(lead) for part in parts[1:])]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def call(gap: Gap, metric: Metric, sides: tuple[Stack, Stack], at: str, alpha: float, candidate_first: bool) -> str:
    """`sonnet's p95 TTFT is 180–240 ms (12–16 %) lower than llama's at concurrency 16`."""
    subject, other = (sides[1], sides[0]) if candidate_first else sides
    absolute, relative, lower = spans(gap, alpha, candidate_first)
    direction = "lower" if lower else "higher"
    span = metric.show_gap(*absolute)
    extra = f" ({percent_range(*relative)})" if relative else ""
    return f"{subject.label}'s {metric.label} is {span}{extra} {direction} than {other.label}'s {at}"


def spans(
    gap: Gap, alpha: float, candidate_first: bool
) -> tuple[tuple[float, float], tuple[float, float] | None, bool]:
    """Size of a one-sided difference, rising: in the unit, as shares of the other side; and whether it is lower."""
    ratios = gap.ratios(alpha)
    low, high = gap.differences(alpha)
    base = gap.reference
    if not candidate_first:
        low, high, base = -high, -low, gap.candidate
        ratios = (1 / ratios[1], 1 / ratios[0]) if ratios else None
        if ratios:
            low, high = base * (ratios[0] - 1), base * (ratios[1] - 1)
    lower = high <= 0
    absolute = (-high, -low) if lower else (low, high)
    relative = None if ratios is None else (1 - ratios[1], 1 - ratios[0]) if lower else (ratios[0] - 1, ratios[1] - 1)
    return absolute, relative, lower


def span(gap: Gap, metric: Metric, alpha: float) -> str:
    """An interval in whatever direction: `2–14 % lower`, `5 % lower to 3 % higher`."""
    ratios = gap.ratios(alpha)
    if ratios is None:
        return _signed(metric, *gap.differences(alpha))
    low, high = ratios[0] - 1, ratios[1] - 1
    if low < 0 < high:
        return f"{_percent(-low)} lower to {_percent(high)} higher"
    return f"{percent_range(-high, -low)} lower" if high <= 0 else f"{percent_range(low, high)} higher"


def _signed(metric: Metric, low: float, high: float) -> str:
    """`2–14 tokens lower`, for metrics that have no ratio."""
    if low < 0 < high:
        return f"{metric.show_gap(0, -low)} lower to {metric.show_gap(0, high)} higher".replace("0–", "")
    return f"{metric.show_gap(-high, -low)} lower" if high <= 0 else f"{metric.show_gap(low, high)} higher"


def _percent(share: float) -> str:
    return f"{digits(100 * share, 2)} %" if share < 10 else f"{digits(share + 1, 2)} times"


def tie(gap: Gap, metric: Metric, sides: tuple[Stack, Stack], at: str, alpha: float, margin: float) -> str:
    """`tie: …`."""
    return (
        f"tie: {sides[1].label}'s and {sides[0].label}'s {metric.label} {at} differ by less than the "
        f"{100 * margin:g} % that matter ({span(gap, metric, alpha)})"
    )


def undecided(gap: Gap, metric: Metric, sides: tuple[Stack, Stack], at: str, alpha: float, more: Needed) -> str:
    """`undecided: …; about 40 more requests would tell`."""
    return (
        f"undecided: {sides[1].label}'s {metric.label} {at} is {span(gap, metric, alpha)} than "
        f"{sides[0].label}'s; {_would_tell(gap, more)}"
    )


def _would_tell(gap: Gap, more: Needed) -> str:
    """The cheaper of more requests in each run and more repeats."""
    by_requests = math.ceil(gap.requests * max(more.growth - 1, LEAST_GROWTH)) if more.growth else None
    by_blocks = more.blocks - gap.blocks if more.blocks else None
    if by_requests is not None and (by_blocks is None or by_requests * gap.blocks <= by_blocks * gap.requests):
        return f"about {rounded_up(by_requests)} more requests in each run would tell"
    if by_blocks is not None:
        return (
            f"about {rounded_up(by_blocks * gap.requests)} more requests a side would tell "
            f"({by_blocks} more {'repeat' if by_blocks == 1 else 'repeats'})"
        )
    return f"too close to the margin: {BLOCKS_LIMIT} repeats would not tell"


def rounded_up(count: int) -> str:
    """Two significant digits, rounded up: an extrapolation promises no more."""
    step = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // step) * step:,}"


def withheld(gap: Gap, metric: Metric, sides: tuple[Stack, Stack], at: str, alpha: float) -> str:
    """What these runs show, and why that is no verdict."""
    subject, other, size = sides[1], sides[0], span(gap, metric, alpha)
    low, high = gap.estimate.interval(alpha)
    if (low > 0 and metric.better == "lower") or (high < 0 and metric.better == "higher"):
        # The side that looks better is spoken of, as in a verdict.
        subject, other = other, subject
        absolute, relative, lower = spans(gap, alpha, candidate_first=False)
        size = percent_range(*relative) if relative else metric.show_gap(*absolute)
        size += " lower" if lower else " higher"
    return f"{subject.label}'s {metric.label} {at} is {size} than {other.label}'s {no_verdict(gap)}"


def no_verdict(gap: Gap) -> str:
    """What stands behind a difference that too few repeats have shown."""
    runs = "one run" if gap.blocks == 1 else f"{gap.blocks} repeats"
    return f"within these runs (no verdict from {runs} a side: run.repeats={MIN_BLOCKS} or more gives one)"


def refused(reasons: Sequence[str]) -> str:
    """A verdict that would be worth nothing."""
    return f"no verdict: {'; '.join(reasons)}"
