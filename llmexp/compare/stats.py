"""The statistics behind a verdict: intervals, corrections and how much more data would tell.

Pure functions on arrays; no randomness, so the same files give the same words. Ratios live on the log scale, where a
relative margin is symmetric and an interval cannot cross zero.

Two units of evidence are kept apart. With three or more blocks the *block* is the unit (`of_blocks`, `of_two_groups`):
each run gives one number, and how much the numbers differ between runs is seen, not assumed. Inside a run the *request*
is the unit (`of_mean`, `of_percentile`): that says how sure this run's number is, and nothing about the next run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from llmexp.metrics.distributions import needed as values_needed

Floats = NDArray[np.float64]
MIN_BLOCKS = 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error and degrees of freedom, on whatever scale the values had."""

    mean: float
    se: float
    df: float

    def half_width(self, alpha: float) -> float:
        """Half the width of the t interval at level 1 − alpha."""
        return 0.0 if self.se == 0 else t_quantile(1 - alpha / 2, self.df) * self.se

    def interval(self, alpha: float) -> tuple[float, float]:
        """The t interval at level 1 − alpha."""
        half = self.half_width(alpha)
        return self.mean - half, self.mean + half

    def p_beyond(self, margin: float) -> float:
        """Two-sided p value of "the true difference is no larger than `margin`"."""
        beyond = abs(self.mean) - margin
        if beyond <= 0:
            return 1.0
        return 0.0 if self.se == 0 else min(1.0, 2 * float(special.stdtr(self.df, -beyond / self.se)))


def t_quantile(probability: float, df: float) -> float:
    """Quantile of Student's t; the normal one for infinite degrees of freedom."""
    return float(special.ndtri(probability) if math.isinf(df) else special.stdtrit(df, probability))


# --- between runs ----------------------------------------------------------------------------------------------------


def of_blocks(values: Sequence[float] | Floats) -> Estimate:
    """Estimate over one value per block; two or more are needed."""
    array = np.asarray(values, dtype=float)
    return Estimate(float(array.mean()), float(array.std(ddof=1)) / math.sqrt(len(array)), len(array) - 1)


def of_two_groups(left: Sequence[float] | Floats, right: Sequence[float] | Floats) -> Estimate:
    """Welch's estimate of left − right for runs that share no blocks, such as two sweeps of different weeks."""
    one, two = of_blocks(left), of_blocks(right)
    variance = one.se**2 + two.se**2
    if variance == 0:
        return Estimate(one.mean - two.mean, 0.0, one.df + two.df)
    df = variance**2 / (one.se**4 / one.df + two.se**4 / two.df)
    return Estimate(one.mean - two.mean, math.sqrt(variance), df)


# --- within a run ----------------------------------------------------------------------------------------------------


def inflation(values: Floats) -> float:
    """How much the values' order inflates the variance of their mean; 1 for independent ones.

    Sum of autocorrelations, cut where neighbouring pairs stop being positive (Geyer's initial positive sequence). Never
    below 1: a negative sum would only make the interval bolder.
    """
    n = len(values)
    centred = values - values.mean()
    power = float(centred @ centred)
    if n < 8 or power == 0:
        return 1.0
    spectrum = np.abs(np.fft.rfft(centred, 1 << (2 * n - 1).bit_length())) ** 2
    correlation = np.fft.irfft(spectrum)[: n // 2] / power
    pairs = correlation[: len(correlation) // 2 * 2].reshape(-1, 2).sum(axis=1)
    stop = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else len(pairs)
    return max(1.0, 2 * float(pairs[:stop].sum()) - 1)


def of_mean(values: Floats) -> Estimate | None:
    """Estimate of a run's mean from its requests in the order they were sent; None with fewer than three."""
    n = len(values)
    if n < 3:
        return None
    effective = n / inflation(values)
    return Estimate(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(effective), max(1.0, effective - 1))


def of_percentile(values: Floats, percent: int, alpha: float) -> tuple[float, float] | None:
    """Order-statistic (binomial) interval of a percentile; None where the sample does not carry it.

    The ranks are pushed apart by the root of the inflation that the order of the values shows.
    """
    n = len(values)
    if n < values_needed(percent):
        return None
    share = percent / 100
    below = special.bdtr(np.arange(n + 1), n, share)
    low, high = int(np.searchsorted(below, alpha / 2)), int(np.searchsorted(below, 1 - alpha / 2)) + 1
    ordered = np.sort(values)
    stretch = math.sqrt(inflation((values <= ordered[int(share * (n - 1))]).astype(float)))
    low = round(share * n - (share * n - low) * stretch)
    high = round(share * n + (high - share * n) * stretch)
    return float(ordered[max(low, 1) - 1]), float(ordered[min(high, n) - 1])


def of_share(hits: int, total: int, alpha: float) -> tuple[float, float] | None:
    """Wilson's interval of a proportion; None of nothing."""
    if total == 0:
        return None
    z = float(special.ndtri(1 - alpha / 2))
    share, weight = hits / total, z * z / total
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    return 0.0 if hits == 0 else centre - half, 1.0 if hits == total else centre + half


def log_ratio_of_means(left: Floats, right: Floats, paired: bool) -> Estimate | None:
    """Estimate of log(mean of left / mean of right) of two runs.

    `paired`: the i-th values answer the same prompt; what a prompt adds to both then drops out of the variance.
    """
    one, two = of_mean(left), of_mean(right)
    if one is None or two is None or one.mean <= 0 or two.mean <= 0:
        return None
    difference = math.log(one.mean / two.mean)
    if paired:
        spread = of_mean(left / one.mean - right / two.mean)
        return replace(spread, mean=difference) if spread else None
    return replace(of_two_estimates(one, two), mean=difference)


def of_two_estimates(one: Estimate, two: Estimate) -> Estimate:
    """The difference of two independent relative estimates, degrees of freedom after Welch."""
    left, right = (one.se / one.mean) ** 2, (two.se / two.mean) ** 2
    total = left + right
    df = total**2 / (left**2 / one.df + right**2 / two.df) if total else one.df + two.df
    return Estimate(one.mean / two.mean, math.sqrt(total), df)


def recover(left: tuple[float, float, float], right: tuple[float, float, float]) -> tuple[float, float, float]:
    """(difference, low, high) of two independent (value, low, high), each side's variance read off its limits."""
    (x, x_low, x_high), (y, y_low, y_high) = left, right
    difference = x - y
    return difference, difference - math.hypot(x - x_low, y_high - y), difference + math.hypot(x_high - x, y - y_low)


# --- borrowing strength ----------------------------------------------------------------------------------------------


def moderate(estimates: Sequence[Estimate], independent_df: float) -> list[Estimate]:
    """The estimates of several comparisons, their variances drawn towards the common one.

    Three repeats tell little about how much a difference scatters; the other comparisons of the sweep tell more, as far
    as they scatter alike (Smyth's moderated t). How alike is estimated from the variances themselves and taken one
    standard error on the careful side, and what is borrowed never outweighs a comparison's own repeats: one stack that
    scatters five times as much as eight others must not pass for one of them. `independent_df` bounds it too: pairs
    that share a stack say the same thing twice.
    """
    fit = [at for at, estimate in enumerate(estimates) if estimate.se > 0]
    if len(fit) < 2:
        return list(estimates)
    df = np.array([estimates[at].df for at in fit])
    variance = np.array([estimates[at].se ** 2 for at in fit])
    prior_df = min(_prior_df(variance, df), float(df.min()), max(0.0, independent_df - float(df.max())))
    common = float((df * variance).sum() / df.sum())
    moderated = list(estimates)
    for at in fit:
        own = estimates[at]
        total = own.df + prior_df
        moderated[at] = Estimate(own.mean, math.sqrt((own.df * own.se**2 + prior_df * common) / total), total)
    return moderated


def _prior_df(variance: Floats, df: Floats) -> float:
    """How many degrees of freedom the common variance is worth to each comparison; small where they scatter unlike."""
    scatter = np.log(variance) - special.digamma(df / 2) + np.log(df / 2)
    spread = float(scatter.var(ddof=1)) * (1 + math.sqrt(2 / (len(scatter) - 1)))
    unlike = spread - float(special.polygamma(1, df / 2).mean())
    return 2 * _trigamma_inverse(unlike) if unlike > 0 else math.inf


def _trigamma_inverse(value: float) -> float:
    """The x with trigamma(x) = value, by bisection on the log scale."""
    low, high = 1e-6, 1e6
    for _ in range(80):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if float(special.polygamma(1, middle)) > value else (low, middle)
    return low


# --- several comparisons ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """What Holm's procedure makes of one comparison."""

    rejected: bool
    alpha: float
    """The level at which this comparison was decided; its interval is drawn at 1 − alpha, so that the two agree."""


def holm(p_values: Sequence[float], alpha: float) -> list[Step]:
    """Holm's step-down procedure: the chance of any false rejection among all stays at `alpha`."""
    steps: dict[int, Step] = {}
    remaining, going = len(p_values), True
    for at in sorted(range(len(p_values)), key=p_values.__getitem__):
        going = going and p_values[at] <= alpha / remaining
        steps[at] = Step(going, alpha / remaining)
        remaining -= going
    return [steps[at] for at in range(len(p_values))]


# --- how much more would tell ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Needed:
    """What would probably decide: more blocks as they are, or more requests in each run."""

    blocks: int | None
    """Blocks in all; None: more than `BLOCKS_LIMIT`."""
    growth: float | None
    """Times as many requests in each run; None: no number of requests would do."""


BLOCKS_LIMIT = 100
GROWTH_LIMIT = 50.0


def needed(estimate: Estimate, blocks: int, within_variance: float, margin: float, alpha: float) -> Needed:
    """Extrapolates an undecided difference, taking the estimate for the truth.

    `within_variance` is what the requests' own scatter adds to one block's difference; the rest of the variance between
    blocks does not shrink with more requests.
    """
    gap = abs(abs(estimate.mean) - margin)
    variance = estimate.se**2 * blocks
    within = min(within_variance, variance)

    def tells(count: int, spread: float) -> bool:
        df = estimate.df * (count - 1) / max(1, blocks - 1)
        return t_quantile(1 - alpha / 2, df) * math.sqrt(spread / count) < gap

    enough = next(
        (count for count in range(max(blocks, MIN_BLOCKS) + 1, BLOCKS_LIMIT + 1) if tells(count, variance)), None
    )
    if blocks < MIN_BLOCKS or gap == 0:
        return Needed(enough, None)
    allowed = blocks * (gap / t_quantile(1 - alpha / 2, estimate.df)) ** 2 - (variance - within)
    growth = within / allowed if allowed > 0 else math.inf
    return Needed(enough, growth if 1 < growth <= GROWTH_LIMIT else None)
