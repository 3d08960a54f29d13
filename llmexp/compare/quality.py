"""Right answers side by side: verdicts between stacks, and between a stack's own loads. Pure.

- *better*, *worse*: the whole interval lies beyond ± `quality.margin`;
- *not_worse*: the interval excludes a loss beyond the margin;
- *undecided*: neither; with how many more prompts would probably tell.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from llmexp.compare import stats, words
from llmexp.compare.answers import RIGHT, answers_of, digests_by_prompt
from llmexp.compare.fairness import Finding
from llmexp.compare.shares import Answers, Difference, difference
from llmexp.compare.stacks import Cell, Grid, Stack
from llmexp.compare.stats import MIN_BLOCKS, Step
from llmexp.json_types import branch, number
from llmexp.metrics.wording import digits, signed_points
from llmexp.results.run import Run

IDENTICAL = "identical_share"
RightCall = Literal["better", "worse", "not_worse", "undecided", "refused", "withheld"]
LABEL_FROM, REFUSED_FROM = 0.02, 0.10
"""Share of a side's answers without a grade from which a reader is told, and from which there is no verdict."""
DEFAULT_MARGIN = 0.02
_ABOUT_TIMES = ("invalid", "degraded")
"""Findings that spoil times and leave answers as they are."""


@dataclass(frozen=True, slots=True)
class Right:
    """Two sides' answers: two stacks in a cell, or one stack in two."""

    metric: str
    reference: Stack
    candidate: Stack
    reference_cell: Cell
    cell: Cell
    """The candidate's."""
    difference: Difference
    margin: float
    alpha: float
    call: RightCall
    text: str = ""
    labels: tuple[str, ...] = ()
    p: float | None = None
    shown: bool = True
    """False: for machines alone. Where chance has a part in answers, that they differ is no news to a person."""

    @property
    def interval(self) -> tuple[float, float]:
        """Candidate − reference, in shares."""
        return self.difference.interval(self.alpha)

    @property
    def across_loads(self) -> bool:
        """Whether it sets a stack beside itself."""
        return self.reference == self.candidate

    @property
    def regression(self) -> bool:
        """Whether the candidate is worse beyond the margin."""
        return self.call == "worse"

    @property
    def open(self) -> bool:
        """Whether a verdict is still to be given."""
        return self.call == "undecided"


def of_pair(
    grid: Grid, reference: Stack, candidate: Stack, cell: Cell, unlike: Sequence[Finding], alpha: float
) -> Right | None:
    """Two stacks' right answers in a cell, not decided yet; None where either has no grades."""
    one, two = grid.at(reference, cell), grid.at(candidate, cell)
    found = difference(answers_of(one), answers_of(two))
    if found is None:
        return None
    right = Right(RIGHT, reference, candidate, cell, cell, found, _margin(two), alpha, "undecided")
    reasons = [each.text for each in unlike if each.level == "refused" and each.reason not in _ABOUT_TIMES]
    reasons += _graded_unlike(one, two)
    labels: list[str] = []
    for stack, runs in ((reference, one), (candidate, two)):
        missing = answers_of(runs).missing
        if missing > LABEL_FROM:
            text = f"{stack.label}: {100 * missing:.1f} % of its answers have no grade"
            (reasons if missing > REFUSED_FROM else labels).append(text)
    return _first_call(replace(right, labels=tuple(labels)), reasons, grid)


def _first_call(right: Right, reasons: Sequence[str], grid: Grid) -> Right:
    if reasons:
        return replace(right, call="refused", text=words.refused(reasons))
    if right.difference.blocks < MIN_BLOCKS:
        return replace(right, call="withheld", text=_withheld(right, grid))
    return right


def _graded_unlike(one: Sequence[Run], two: Sequence[Run]) -> list[str]:
    """Grades mean something else where they were given by another rule."""
    rules = [
        {key: value for key, value in side[0].settings.items() if key.startswith("quality.") and key not in _NO_RULE}
        for side in (one, two)
    ]
    differing = sorted(key for key in rules[0].keys() | rules[1].keys() if rules[0].get(key) != rules[1].get(key))
    return [f"graded by different rules: {', '.join(differing)}"] if differing else []


_NO_RULE = ("quality.margin", "quality.judge.concurrency")


def _margin(runs: Sequence[Run]) -> float:
    found = number(branch(runs[0].config, "quality"), "margin") if runs else None
    return DEFAULT_MARGIN if found is None else found


# --- verdicts --------------------------------------------------------------------------------------------------------


def p_value(right: Right) -> float:
    """Of "the shares differ by no more than the margin"."""
    return right.difference.p_beyond(right.margin)


def decided(right: Right, p: float, step: Step, grid: Grid) -> Right:
    """The verdict at the level where it was decided."""
    right = replace(right, p=p, alpha=step.alpha)
    low, _ = right.interval
    if step.rejected:
        call: RightCall = "better" if right.difference.mean > 0 else "worse"
        return replace(right, call=call, text=_called(right, grid))
    if low > -right.margin:
        return replace(right, call="not_worse", text=_not_worse(right, grid))
    return replace(right, text=_undecided(right, grid))


def load_effects(grid: Grid, alpha: float) -> list[Right]:
    """Each stack against itself between its lowest load and each higher one; a Holm family of their own."""
    found = [right for stack in grid.stacks for right in _effects(grid, stack, alpha)]
    open_at = [at for at, right in enumerate(found) if right.open]
    p_values = [p_value(found[at]) for at in open_at]
    for at, p, step in zip(open_at, p_values, stats.holm(p_values, alpha), strict=True):
        found[at] = decided(found[at], p, step, grid)
    return found


def _effects(grid: Grid, stack: Stack, alpha: float) -> Iterator[Right]:
    cells = [cell for cell in grid.cells if grid.at(stack, cell)]
    for family in dict.fromkeys(cell.family for cell in cells):
        rising = sorted((cell for cell in cells if cell.family == family), key=lambda cell: cell.level)
        for cell in rising[1:]:
            low, high = grid.at(stack, rising[0]), grid.at(stack, cell)
            if any(run.searched for run in (*low, *high)) or not (_settled(low) or _graded(low)):
                continue
            for metric, gap in (
                (RIGHT, difference(answers_of(low), answers_of(high))),
                (IDENTICAL, _identical(low, high)),
            ):
                if gap is not None:
                    right = Right(metric, stack, stack, rising[0], cell, gap, _margin(low), alpha, "undecided")
                    right = replace(right, shown=metric == RIGHT or _settled(low))
                    yield _first_call(right, _graded_unlike(low, high) if metric == RIGHT else (), grid)


def _settled(runs: Sequence[Run]) -> bool:
    """Whether nothing was left to chance: the same question should get the same answer."""
    return number(branch(runs[0].config, "model", "params"), "temperature") == 0


def _graded(runs: Sequence[Run]) -> bool:
    return any(run.requests.graded for run in runs)


def _identical(low: Sequence[Run], high: Sequence[Run]) -> Difference | None:
    """How much less often the loads agree with each other than the lowest load agrees with itself, prompt by prompt.

    With one repeat the lowest load cannot be set beside itself: it then counts as agreeing always.
    """
    before, after = digests_by_prompt(low), digests_by_prompt(high)
    common = [prompt for prompt in before if prompt in after]
    across = [_agreement(itertools.product(before[prompt], after[prompt])) for prompt in common]
    within = [_agreement(itertools.combinations(before[prompt], 2)) for prompt in common]
    if not common:
        return None
    prompts = np.asarray(common, dtype="S16")
    ones, blocks = np.zeros(len(common), dtype=np.int64), min(len(low), len(high))
    found = difference(Answers(prompts, ones, np.asarray(within)), Answers(prompts, ones, np.asarray(across)))
    return None if found is None else replace(found, blocks=blocks)


def _agreement(pairs: Iterator[tuple[bytes, bytes]]) -> float:
    same = [one == two for one, two in pairs]
    return sum(same) / len(same) if same else 1.0


# --- words -----------------------------------------------------------------------------------------------------------


def _called(right: Right, grid: Grid) -> str:
    low, high = right.interval
    more = right.difference.mean > 0
    size = sorted((abs(low), abs(high)))
    span = f"by {digits(100 * size[0], 2)} to {digits(100 * size[1], 2)} points ({_shares(right)})"
    subject, other = _sides(right, grid)
    if right.metric == IDENTICAL:
        return f"{subject} agree {'more' if more else 'less'} often with {other} than these with themselves, {span}"
    return f"{subject} are right {'more' if more else 'less'} often than {other}, {span}"


def _not_worse(right: Right, grid: Grid) -> str:
    subject, other = _sides(right, grid)
    if right.metric == IDENTICAL:
        return f"{subject} are the same as {other} as often as these are among themselves ({span(right)})"
    return f"{subject} are not worse than {other} ({span(right)})"


def _undecided(right: Right, grid: Grid) -> str:
    growth = right.difference.growth(right.margin, right.alpha)
    prompts = right.difference.prompts
    if growth is None:
        more = "too close to the margin to be told by more prompts"
    else:
        count = max(1, math.ceil(prompts * (max(growth, 1 + words.LEAST_GROWTH) - 1)))
        more = f"about {words.rounded_up(count)} more prompts would tell"
    subject, other = _sides(right, grid)
    return f"undecided: {_compared(right, subject, other)} ({span(right)}); {more}"


def _withheld(right: Right, grid: Grid) -> str:
    blocks = right.difference.blocks
    runs = "one run" if blocks == 1 else f"{blocks} repeats"
    subject, other = _sides(right, grid)
    return (
        f"{_compared(right, subject, other)} within these runs ({span(right)}; no verdict from {runs} a side: "
        f"run.repeats={MIN_BLOCKS} or more gives one)"
    )


def _compared(right: Right, subject: str, other: str) -> str:
    gap = right.difference
    now, before = _percent(gap.candidate.share), _percent(gap.reference.share)
    if right.metric == IDENTICAL:
        return f"{subject} are the same as {other} in {now} of cases, these among themselves in {before}"
    return f"{subject} are right in {now} of cases, {other} in {before}"


def _sides(right: Right, grid: Grid) -> tuple[str, str]:
    """`b's answers at concurrency 16` and `a's`; of one stack `those at concurrency 1` instead of `a's`."""
    place = words.where(right.cell, grid.several_workloads)
    if right.across_loads:
        return f"{right.candidate.label}'s answers {place}", f"those {words.where(right.reference_cell, False)}"
    return f"{right.candidate.label}'s answers {place}", f"{right.reference.label}'s"


def span(right: Right) -> str:
    """`−1.6 to +2.4 points`."""
    return signed_points(*right.interval)


def _shares(right: Right) -> str:
    return f"{_percent(right.difference.candidate.share)} against {_percent(right.difference.reference.share)}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
