"""Two shares of right answers, prompt by prompt: their difference, with an interval that keeps its promise. Pure.

The unit is the prompt. Each side has gathered some answers to each prompt, over repeats or within a run; their mean is
the prompt's value. A stack that always gives the same answer so says one thing once, however often it is asked, and one
that answers anew says a little more each time: the scatter of the prompts' values shows which it is.

1. A side's share gets Wilson's score interval at its effective number of answers, p(1 − p) / (variance of the mean of
   prompts' values). Where that variance is nothing (all right, or all wrong) a prompt counts as one answer.
2. The difference's interval is put together from both (Newcombe's square-and-add with the correlation of the prompts'
   values). It is never of zero width, and what a prompt adds to both sides drops out.
3. Where the repeats scatter more than their prompts explain (an F test at 5 %), the t interval over repeats is drawn
   too, and the wider end counts on each side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from llmexp.compare.stats import t_quantile

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PAIRED_FROM = 2 / 3
"""Share of each side's prompts that must have answers on both, so that pairing throws little away."""
SCATTER_LEVEL = 0.05
"""Repeats count as scattering by more than their prompts explain where chance does so less often."""
_ROUNDS = 60
MOST_GROWTH = 100.0


@dataclass(frozen=True, slots=True)
class Answers:
    """One side's answers, an entry each."""

    prompt: NDArray[np.bytes_]
    block: Ints
    """The repeat that it belongs to."""
    right: Floats
    """1 or 0 (or a share in between); NaN: it has no grade."""

    @property
    def missing(self) -> float:
        """Share of the answers that have no grade."""
        return float(np.isnan(self.right).mean()) if len(self.right) else 1.0

    @property
    def graded(self) -> Answers:
        """Those with a grade."""
        known = ~np.isnan(self.right)
        return Answers(self.prompt[known], self.block[known], self.right[known])


@dataclass(frozen=True, slots=True)
class Side:
    """One side's share, from its prompts' values."""

    share: float
    variance: float
    """Of the share."""
    prompts: int
    answers: int

    @classmethod
    def of(cls, values: Floats, answers: int) -> Side:
        """From a value for each prompt."""
        count = len(values)
        return cls(float(values.mean()), float(values.var(ddof=1)) / count if count > 1 else 0.0, count, answers)

    def interval(self, quantile: float) -> tuple[float, float]:
        """Wilson's, at the effective number of answers."""
        p, z2 = self.share, quantile * quantile
        number = p * (1 - p) / self.variance if self.variance > 0 else float(self.prompts)
        number = max(1.0, min(number, float(self.answers)))
        weight = z2 / number
        centre = (p + weight / 2) / (1 + weight)
        half = quantile * math.sqrt(p * (1 - p) / number + weight / (4 * number)) / (1 + weight)
        return min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))


@dataclass(frozen=True, slots=True)
class Difference:
    """Candidate − reference, in shares."""

    reference: Side
    candidate: Side
    correlation: float
    """Of the prompts' values; 0 where the sides are not paired."""
    paired: bool
    blocks: int
    scatter: tuple[float, int] | None
    """Standard error and degrees of freedom over repeats, where these scatter more than their prompts explain."""

    @property
    def mean(self) -> float:
        """The difference itself."""
        return self.candidate.share - self.reference.share

    @property
    def prompts(self) -> int:
        """Prompts of the smaller side."""
        return min(self.reference.prompts, self.candidate.prompts)

    def interval(self, alpha: float) -> tuple[float, float]:
        """Low and high at level 1 − alpha."""
        quantile = t_quantile(1 - alpha / 2, max(1, self.prompts - 1))
        one, two = self.reference.interval(quantile), self.candidate.interval(quantile)
        below = _add(self.candidate.share - two[0], one[1] - self.reference.share, self.correlation)
        above = _add(two[1] - self.candidate.share, self.reference.share - one[0], self.correlation)
        if self.scatter is not None:
            half = t_quantile(1 - alpha / 2, self.scatter[1]) * self.scatter[0]
            below, above = max(below, half), max(above, half)
        return max(-1.0, self.mean - below), min(1.0, self.mean + above)

    def p_beyond(self, margin: float) -> float:
        """Two-sided p value of "the true difference is no larger than `margin`": where the interval just reaches it."""
        if abs(self.mean) <= margin:
            return 1.0

        def beyond(alpha: float) -> bool:
            low, high = self.interval(alpha)
            return low > margin or high < -margin

        least, most = 1e-12, 1.0
        if beyond(least):
            return least
        for _ in range(_ROUNDS):
            middle = math.sqrt(least * most)
            least, most = (least, middle) if beyond(middle) else (middle, most)
        return most

    def growth(self, margin: float, alpha: float) -> float | None:
        """How many times as many prompts would probably decide; None: too close to the margin to tell.

        The nearer decision is whether the loss is beyond the margin; the difference found is taken for the truth.
        """
        low, high = self.interval(alpha)
        reach = self.mean + margin
        if reach == 0:
            return None
        half = self.mean - low if reach > 0 else high - self.mean
        growth = (half / reach) ** 2
        return growth if growth <= MOST_GROWTH else None


def _add(one: float, two: float, correlation: float) -> float:
    """Two distances of one direction put together; a correlation takes away what they share."""
    return math.sqrt(max(0.0, one * one + two * two - 2 * correlation * one * two))


def difference(reference: Answers, candidate: Answers) -> Difference | None:
    """The difference of two sides; None where either has no grade.

    Paired by prompt where enough prompts have grades on both sides.
    """
    one, two = reference.graded, candidate.graded
    if not len(one.right) or not len(two.right):
        return None
    prompts = np.intersect1d(one.prompt, two.prompt)
    most = max(len(np.unique(one.prompt)), len(np.unique(two.prompt)))
    if len(prompts) < max(2, PAIRED_FROM * most):
        return _unpaired(one, two)
    one, two = (_only(side, prompts) for side in (one, two))
    x, y = (values_of(side, prompts) for side in (one, two))
    return Difference(
        Side.of(x, len(one.right)),
        Side.of(y, len(two.right)),
        _correlation(x, y),
        paired=True,
        blocks=min(len(np.unique(one.block)), len(np.unique(two.block))),
        scatter=_scatter(_table(two, prompts), _table(one, prompts)),
    )


def _unpaired(one: Answers, two: Answers) -> Difference:
    sides = [Side.of(values_of(each, np.unique(each.prompt)), len(each.right)) for each in (one, two)]
    blocks = min(len(np.unique(one.block)), len(np.unique(two.block)))
    return Difference(sides[0], sides[1], 0.0, paired=False, blocks=blocks, scatter=None)


def _only(side: Answers, prompts: NDArray[np.bytes_]) -> Answers:
    kept = np.isin(side.prompt, prompts)
    return Answers(side.prompt[kept], side.block[kept], side.right[kept])


def values_of(side: Answers, prompts: NDArray[np.bytes_]) -> Floats:
    """Mean of the answers to each prompt."""
    at = np.searchsorted(prompts, side.prompt)
    sums = np.bincount(at, weights=side.right, minlength=len(prompts))
    return np.asarray(sums / np.bincount(at, minlength=len(prompts)), dtype=np.float64)


def _correlation(x: Floats, y: Floats) -> float:
    spread = float(x.std()) * float(y.std())
    if spread == 0:
        return 0.0
    return float(np.clip(((x - x.mean()) * (y - y.mean())).mean() / spread, -1.0, 1.0))


def _table(side: Answers, prompts: NDArray[np.bytes_]) -> Floats:
    """Prompt × repeat; NaN where a repeat has no answer to a prompt."""
    blocks, column = np.unique(side.block, return_inverse=True)
    cell = np.searchsorted(prompts, side.prompt) * len(blocks) + column
    size = len(prompts) * len(blocks)
    counts = np.bincount(cell, minlength=size)
    with np.errstate(invalid="ignore"):
        table = np.bincount(cell, weights=side.right, minlength=size) / counts
    found: Floats = table.reshape(len(prompts), len(blocks))
    return found


def _scatter(candidate: Floats, reference: Floats) -> tuple[float, int] | None:
    """Standard error over repeats and its degrees of freedom, where repeats scatter more than their prompts explain.

    Two-way analysis of variance without repetition: repeats against what is left after prompts and repeats.
    """
    blocks = min(candidate.shape[1], reference.shape[1])
    table = candidate[:, :blocks] - reference[:, :blocks]
    table = table[~np.isnan(table).any(axis=1)]
    count = len(table)
    if blocks < 2 or count < 2:
        return None
    means, mean = table.mean(axis=0), float(table.mean())
    between = count * float(((means - mean) ** 2).sum()) / (blocks - 1)
    left = table - table.mean(axis=1, keepdims=True) - means + mean
    within = float((left**2).sum()) / ((blocks - 1) * (count - 1))
    if between <= 1e-12:
        return None
    chance = 0.0 if within <= 0 else float(special.fdtrc(blocks - 1, (blocks - 1) * (count - 1), between / within))
    return (math.sqrt(between / count / blocks), blocks - 1) if chance < SCATTER_LEVEL else None
