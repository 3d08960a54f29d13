"""The part of the headline that speaks for the other side: what points the other way, and who keeps the service level.

A stack that wins on the declared metric may lose on all others. These are intervals and no verdicts, and said as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmexp.compare import words
from llmexp.compare.stacks import Stack
from llmexp.metrics.wording import digits, percent_range

if TYPE_CHECKING:
    from llmexp.compare.model import Comparison, Contrast
    from llmexp.compare.service import Capacity

LOOKED_AT = (
    "ttft_s/mean",
    "time_per_output_token_s/mean",
    "e2e_latency_s/mean",
    "output_tokens_per_s",
    "goodput_per_s",
    "error_rate",
)
"""Metrics that a decision would weigh, besides the declared one and money."""
MONEY = "usd_per_million_output_tokens"
MOST = 3
"""Metrics that a headline names for the other side, money apart."""
STACKS = 4
"""Stacks whose service level a headline names one by one."""


def against(winner: Stack, loser: Stack, comparison: Comparison) -> str:
    """`b's end-to-end latency is 4–8 % lower and its cost 25 % lower (intervals, no verdict)`; empty for nothing."""
    said: dict[str, tuple[float, float, bool]] = {}
    primary = comparison.primary
    for contrast in comparison.contrasts:
        metric = contrast.metric
        pair = {contrast.reference, contrast.candidate} == {winner, loser}
        if not pair or metric.name not in LOOKED_AT or metric.base == primary.base or contrast.leans != loser:
            continue
        size = _size(contrast, loser)
        if size is not None and size[1] > comparison.options.margin:
            low, high, lower = size
            known = said.get(metric.label, size)
            said[metric.label] = (min(low, known[0]), max(high, known[1]), lower)
    said = dict(list(said.items())[:MOST])
    said |= _money(winner, loser, comparison)
    parts = [
        f"{label} is {_percent(low, high)} {'lower' if lower else 'higher'}"
        for label, (low, high, lower) in said.items()
    ]
    if not parts:
        return ""
    first, *rest = parts
    others = [f"its {part.replace(' is ', ' ', 1)}" for part in rest]
    listed = ", ".join([first, *others[:-1]]) + (f" and {others[-1]}" if others else "")
    return f"{loser.label}'s {listed} (intervals, no verdict)"


def _size(contrast: Contrast, subject: Stack) -> tuple[float, float, bool] | None:
    _, relative, lower = words.spans(contrast.gap, contrast.alpha, subject == contrast.candidate)
    return None if relative is None else (*relative, lower)


def _percent(low: float, high: float) -> str:
    return f"{digits(100 * low, 2)} %" if high - low < 1e-9 else percent_range(low, high)


def _money(winner: Stack, loser: Stack, comparison: Comparison) -> dict[str, tuple[float, float, bool]]:
    """What the loser saves: prices are known, so the figures of the cells are enough."""
    shares = []
    for cell in comparison.grid.cells:
        sides = [comparison.values.get((stack.key, cell.key, MONEY)) for stack in (winner, loser)]
        if sides[1] is not None and sides[1].value == 0:
            return {}  # a stack without a price, such as a machine of one's own, is not cheaper by 100 %
        if sides[0] is not None and sides[1] is not None and sides[0].value > 0:
            shares.append(1 - sides[1].value / sides[0].value)
    if not shares or min(shares) <= comparison.options.margin or comparison.primary.name == MONEY:
        return {}
    return {"cost per million output tokens": (min(shares), max(shares), True)}


def service(capacities: Sequence[Capacity]) -> str:
    """`both sustain the service level up to concurrency 8`; empty where none was asked for, or there are too many."""
    if not 2 <= len(capacities) <= STACKS or len({each.workload for each in capacities}) > 1:
        return ""
    loads = [None if each.best is None else each.best.cell.load for each in capacities]
    if len(set(loads)) == 1:
        who = "both" if len(loads) == 2 else "all"
        return f"{who} sustain the service level up to {loads[0]}" if loads[0] else "none sustains the service level"
    held = [f"{each.stack.label} up to {load}" for each, load in zip(capacities, loads, strict=True) if load]
    missed = [each.stack.label for each, load in zip(capacities, loads, strict=True) if load is None]
    text = f"the service level is sustained by {' and '.join(held)}"
    return f"{text}, and by {' or '.join(missed)} at no load measured" if missed else text
