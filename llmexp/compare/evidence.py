"""From runs to estimates: one stack's value in a cell, and the difference between two stacks.

A positive metric is compared as a ratio (log scale), anything else as a plain difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from llmexp.compare import stats
from llmexp.compare.answers import RIGHT, side_of
from llmexp.compare.fairness import aligned
from llmexp.compare.stats import MIN_BLOCKS, Estimate
from llmexp.metrics.catalogue import CAPACITY, Metric
from llmexp.metrics.distributions import carries
from llmexp.results.run import Run

LEAST_FOR_A_MEAN = 5
"""Values from which a run's own scatter is known well enough for an interval of its mean."""
Basis = Literal["blocks", "groups", "within", "prompts"]
"""Paired blocks; blocks of two sweeps, unpaired; within these runs; prompts, whatever repeats say of each."""


@dataclass(frozen=True, slots=True)
class Value:
    """A stack's value of one metric in one cell."""

    value: float
    low: float | None
    high: float | None
    basis: Basis | None
    """Where the interval comes from; None: there is none."""
    blocks: int
    carried: bool
    """False: a percentile that its sample does not carry."""
    rough: bool = False
    """It rests on an estimate."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The difference between two stacks, candidate against reference, before any verdict."""

    estimate: Estimate
    """Of log(candidate / reference) where `ratio`, else of candidate − reference."""
    ratio: bool
    basis: Basis
    blocks: int
    reference: float
    candidate: float
    within_variance: float
    """What the requests' own scatter adds to the variance of one block's difference."""
    requests: int
    """Requests of one run, the smallest."""

    def margin(self, relative: float) -> float:
        """A relative margin on the estimate's scale."""
        return math.log1p(relative) if self.ratio else relative * abs(self.reference)

    def ratios(self, alpha: float) -> tuple[float, float] | None:
        """Interval of candidate / reference; None where it has no meaning."""
        if not self.ratio:
            return None
        low, high = self.estimate.interval(alpha)
        return _exp(low), _exp(high)

    def differences(self, alpha: float) -> tuple[float, float]:
        """Interval of candidate − reference in the metric's unit."""
        ratios = self.ratios(alpha)
        if ratios is None:
            return self.estimate.interval(alpha)
        return self.reference * (ratios[0] - 1), self.reference * (ratios[1] - 1)


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


# --- one stack -------------------------------------------------------------------------------------------------------


def value(runs: Sequence[Run], metric: Metric, alpha: float) -> Value | None:
    """The stack's value with its interval; marked where it rests on an estimate."""
    found = _value(runs, metric, alpha)
    if found is None or not any(run.result.rough(metric.name) for run in runs):
        return found
    return replace(found, rough=True)


def _value(runs: Sequence[Run], metric: Metric, alpha: float) -> Value | None:
    """Over blocks from three on, else within the runs there are."""
    known = [run for run in runs if metric.name in run.values]
    if not known or (metric.open_loop_only and not known[0].open_loop):
        return None
    if metric.name == RIGHT:
        return _right_share(known, alpha)
    values = [run.values[metric.name] for run in known]
    centre, blocks = _centre(values), len(known)
    if not all(carried(run, metric) for run in known):
        return Value(centre, None, None, None, blocks, carried=False)
    if blocks >= MIN_BLOCKS and metric.name != "error_rate":
        return Value(centre, *_over_blocks(values, alpha), "blocks", blocks, carried=True)
    interval = _within(known, metric, alpha)
    low, high = interval or (None, None)
    return Value(centre, low, high, "within" if interval else None, blocks, carried=True)


def _right_share(runs: Sequence[Run], alpha: float) -> Value | None:
    side = side_of(runs)
    if side is None:
        return None
    low, high = side.interval(stats.t_quantile(1 - alpha / 2, max(1, side.prompts - 1)))
    return Value(side.share, low, high, "prompts", len(runs), carried=True)


def carried(run: Run, metric: Metric) -> bool:
    """Whether the run has enough values for the percentile; always for other statistics."""
    if metric.percent is None:
        return True
    count = run.values.get(f"{metric.base}/count", float(run.requests.completed.sum()))
    return carries(int(count), metric.statistic)


def _positive(values: Sequence[float]) -> bool:
    return min(values) > 0


def _centre(values: Sequence[float]) -> float:
    """Geometric mean of positive values, which is what ratios are built from; else the mean."""
    return math.exp(float(np.mean(np.log(values)))) if _positive(values) else float(np.mean(values))


def _over_blocks(values: Sequence[float], alpha: float) -> tuple[float, float]:
    if _positive(values):
        low, high = stats.of_blocks(np.log(values)).interval(alpha)
        return _exp(low), _exp(high)
    return stats.of_blocks(values).interval(alpha)


def _within(runs: Sequence[Run], metric: Metric, alpha: float) -> tuple[float, float] | None:
    """An interval that speaks of these runs alone: their requests are the sample."""
    if metric.name == "error_rate":
        failed = sum(int(run.requests.failed.sum()) for run in runs)
        done = sum(int(run.requests.completed.sum()) for run in runs)
        return stats.of_share(failed, failed + done, alpha)
    intervals = [interval for run in runs if (interval := _of_run(run, metric, alpha))]
    if len(intervals) < len(runs):
        return None
    values = [run.values[metric.name] for run in runs]
    whole = list(zip(values, intervals, strict=True))
    if all(low > 0 for low, _ in intervals) and _positive(values):
        # On the log scale, as differences are: an interval of a latency cannot reach below zero.
        below = math.hypot(*(math.log(value / low) for value, (low, _) in whole))
        above = math.hypot(*(math.log(high / value) for value, (_, high) in whole))
        return _centre(values) * _exp(-below / len(runs)), _centre(values) * _exp(above / len(runs))
    below = math.hypot(*(value - low for value, (low, _) in whole))
    above = math.hypot(*(high - value for value, (_, high) in whole))
    return _centre(values) - below / len(runs), _centre(values) + above / len(runs)


def _of_run(run: Run, metric: Metric, alpha: float) -> tuple[float, float] | None:
    if metric.name == CAPACITY:
        low, high = run.values.get("capacity/low"), run.values.get("capacity/high")
        return None if low is None or high is None else (low, high)
    values = run.requests.of(metric.base)
    if values is None:
        return None
    if metric.percent is not None:
        return stats.of_percentile(values, metric.percent, alpha)
    if metric.statistic != "mean":
        return None
    if len(values) < LEAST_FOR_A_MEAN:
        return None
    estimate = stats.of_mean(values)
    if estimate is None or estimate.mean <= 0 or values.min() <= 0:
        return None if estimate is None else estimate.interval(alpha)
    half = estimate.half_width(alpha) / estimate.mean
    return estimate.mean * _exp(-half), estimate.mean * _exp(half)


# --- two stacks ------------------------------------------------------------------------------------------------------


def gap(
    reference: Sequence[Run], candidate: Sequence[Run], metric: Metric, same_sweep: bool, alpha: float
) -> Gap | None:
    """The difference between two stacks in a cell; None where the metric or its evidence is missing.

    Runs of one sweep are paired by their block. Runs of two sweeps share no block and stay unpaired.
    """
    left, right = _usable(reference, metric), _usable(candidate, metric)
    if same_sweep:
        common = sorted(left.keys() & right.keys())
        left, right = ({block: side[block] for block in common} for side in (left, right))
    if not left or not right:
        return None
    if min(len(left), len(right)) < MIN_BLOCKS:
        return _gap_within(list(left.values()), list(right.values()), metric, alpha)
    return _gap_between(list(left.values()), list(right.values()), metric, same_sweep)


def _usable(runs: Sequence[Run], metric: Metric) -> dict[int, Run]:
    return {run.block: run for run in runs if metric.name in run.values and carried(run, metric)}


def _gap_between(left: Sequence[Run], right: Sequence[Run], metric: Metric, paired: bool) -> Gap:
    one, two = ([run.values[metric.name] for run in side] for side in (left, right))
    ratio = _positive(one) and _positive(two)
    x, y = (np.log(values) if ratio else np.asarray(values) for values in (one, two))
    estimate = stats.of_blocks(y - x) if paired else stats.of_two_groups(y, x)
    return Gap(
        estimate,
        ratio,
        "blocks" if paired else "groups",
        min(len(one), len(two)),
        _centre(one),
        _centre(two),
        0.0,
        _requests(left, right),
    )


def _gap_within(left: Sequence[Run], right: Sequence[Run], metric: Metric, alpha: float) -> Gap | None:
    """The difference as these runs' requests show it: blind to how the next run would differ."""
    each = [_log_ratio(one, two, metric, alpha) for one, two in zip(left, right, strict=False)]
    known = [estimate for estimate in each if estimate is not None]
    if not known or len(known) < len(each):
        return None
    mean = float(np.mean([estimate.mean for estimate in known]))
    se = math.hypot(*(estimate.se for estimate in known)) / len(known)
    estimate = Estimate(mean, se, sum(estimate.df for estimate in known))
    one, two = ([run.values[metric.name] for run in side] for side in (left, right))
    return Gap(
        estimate, True, "within", len(known), _centre(one), _centre(two), se**2 * len(known), _requests(left, right)
    )


def within_variance(left: Sequence[Run], right: Sequence[Run], metric: Metric, alpha: float) -> float:
    """Mean variance that requests' scatter gives one block's log ratio; 0 where it cannot be told."""
    right_by_block = {run.block: run for run in right}
    each = [_log_ratio(run, right_by_block[run.block], metric, alpha) for run in left if run.block in right_by_block]
    known = [estimate.se**2 for estimate in each if estimate is not None]
    return float(np.mean(known)) if known else 0.0


def _log_ratio(left: Run, right: Run, metric: Metric, alpha: float) -> Estimate | None:
    """log(right / left) of two runs with the error that their requests give it."""
    if metric.statistic == "mean":
        return _log_ratio_of_means(left, right, metric)
    if metric.percent is not None or metric.name == CAPACITY:
        return _log_ratio_of_limits(left, right, metric, alpha)
    return None


def _log_ratio_of_means(left: Run, right: Run, metric: Metric) -> Estimate | None:
    one, two = left.requests.of(metric.base), right.requests.of(metric.base)
    if one is None or two is None:
        return None
    pairs = aligned(left.requests, right.requests, metric.base)
    return (
        stats.log_ratio_of_means(pairs[1], pairs[0], paired=True)
        if pairs
        else stats.log_ratio_of_means(two, one, paired=False)
    )


def _log_ratio_of_limits(left: Run, right: Run, metric: Metric, alpha: float) -> Estimate | None:
    one, two = _log_limits(right, metric, alpha), _log_limits(left, metric, alpha)
    if one is None or two is None:
        return None
    difference, low, high = stats.recover(one, two)
    return Estimate(difference, (high - low) / 2 / stats.t_quantile(1 - alpha / 2, math.inf), math.inf)


def _log_limits(run: Run, metric: Metric, alpha: float) -> tuple[float, float, float] | None:
    interval = _of_run(run, metric, alpha)
    if interval is None or interval[0] <= 0:
        return None
    return math.log(run.values[metric.name]), math.log(interval[0]), math.log(interval[1])


def _requests(*sides: Sequence[Run]) -> int:
    return min(int(run.requests.completed.sum()) for side in sides for run in side)
