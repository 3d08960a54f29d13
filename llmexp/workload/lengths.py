"""Token lengths: seeded draws in which the value of index i depends on nothing but seed, stream name and i.

Each draw maps one hashed uniform number through the distribution's quantile function. So any worker can compute any
index alone, and the numbers do not change with the version of a random number library.

Normal and lognormal distributions are cut to [min, max] (where nothing is given: 1, and 4 standard deviations above
the mean). Cutting alone would move the mean: 150±80 resampled to positive values has a mean of 156. The parent's
location and width are therefore fitted so that the *cut* distribution has the asked mean and, as far as the bounds
allow, the asked standard deviation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from statistics import NormalDist, fmean

from llmexp.config import Tokens
from llmexp.errors import ConfigError

_UNIT = NormalDist()
_TAIL_SDS = 4.0
_FIT_ROUNDS = 300
_WIDEST = 3.0
_MEAN_MISS = 0.002
_REACH = 6.0
_EDGE = 1e-15
Quantile = Callable[[float], float]


def seeded(seed: int, stream: str, index: int) -> int:
    """64 bits that depend on nothing but the arguments."""
    return int.from_bytes(blake2b(f"{seed}/{stream}/{index}".encode(), digest_size=8).digest(), "big")


def uniform(seed: int, stream: str, index: int) -> float:
    """A number in the open interval (0, 1)."""
    return ((seeded(seed, stream, index) >> 12) + 0.5) / 2**52


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of token counts, ready to be drawn from."""

    quantile: Quantile
    low: int
    high: int
    """No draw is outside [low, high]."""
    mean: float

    def draw(self, seed: int, stream: str, index: int) -> int:
        """The count of this index."""
        value = self.quantile(uniform(seed, stream, index))
        return min(max(math.floor(value + 0.5), self.low), self.high)

    def mean_above(self, floor: int) -> float:
        """The mean when no count may be below `floor`."""
        if floor <= self.low:
            return self.mean
        points = 512
        return fmean(max(floor, self.quantile((k + 0.5) / points)) for k in range(points))


def lengths(key: str, tokens: Tokens) -> Lengths:
    """The distribution that `tokens` describes; `key` names it in messages."""
    if tokens.dist == "uniform":
        return _uniform(tokens)
    if tokens.dist == "empirical":
        return _empirical(key, tokens)
    if tokens.mean is None:
        raise ConfigError(f"{key}.mean: must be given")
    if tokens.dist == "fixed" or not tokens.stddev:
        count = max(1, round(tokens.mean))
        return Lengths(lambda _: count, count, count, count)
    return _cut(_Normal if tokens.dist == "normal" else _Lognormal, tokens.mean, tokens.stddev, tokens)


def _uniform(tokens: Tokens) -> Lengths:
    low, high = tokens.min or 1, tokens.max or tokens.min or 1
    return Lengths(lambda u: low - 0.5 + u * (high - low + 1), low, high, (low + high) / 2)


def _empirical(key: str, tokens: Tokens) -> Lengths:
    counts = _read_counts(f"{key}.file", tokens.file or "")
    low, high = tokens.min or 1, tokens.max or max(counts)
    kept = sorted(min(max(count, low), high) for count in counts)
    return Lengths(lambda u: kept[int(u * len(kept))], kept[0], kept[-1], fmean(kept))


def _read_counts(key: str, path: str) -> Sequence[int]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        values = json.loads(text) if text.lstrip().startswith("[") else text.split()
        counts = [int(value) for value in values]
    except OSError as error:
        raise ConfigError(f"{key}: cannot be read, got '{path}' ({error.strerror})") from None
    except (ValueError, TypeError):
        raise ConfigError(f"{key}: must hold one whole number per line, or a JSON list of them, got '{path}'") from None
    if not counts:
        raise ConfigError(f"{key}: holds no counts, got '{path}'")
    return counts


# --- cut distributions -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Normal:
    """A normal distribution by its own mean and standard deviation, cut to [low, high]."""

    mean: float
    stddev: float
    low: float
    high: float

    def quantile(self, u: float) -> float:
        parent = NormalDist(self.mean, self.stddev)
        return parent.inv_cdf(_between(parent.cdf(self.low), parent.cdf(self.high), u))

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of what the cut leaves."""
        a, b = ((edge - self.mean) / self.stddev for edge in (self.low, self.high))
        mass = max(_UNIT.cdf(b) - _UNIT.cdf(a), _EDGE)
        slope = (_UNIT.pdf(a) - _UNIT.pdf(b)) / mass
        bend = (a * _UNIT.pdf(a) - b * _UNIT.pdf(b)) / mass
        return self.mean + self.stddev * slope, self.stddev * math.sqrt(max(1 + bend - slope**2, _EDGE))


@dataclass(frozen=True, slots=True)
class _Lognormal:
    """A lognormal distribution by its own mean and standard deviation, cut to [low, high]."""

    mean: float
    stddev: float
    low: float
    high: float

    def _log(self) -> NormalDist:
        variance = math.log1p((self.stddev / self.mean) ** 2)
        return NormalDist(math.log(self.mean) - variance / 2, math.sqrt(variance))

    def quantile(self, u: float) -> float:
        log = self._log()
        return math.exp(log.inv_cdf(_between(log.cdf(math.log(self.low)), log.cdf(math.log(self.high)), u)))

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of what the cut leaves."""
        log = self._log()
        a, b = ((math.log(edge) - log.mean) / log.stdev for edge in (self.low, self.high))
        mass = max(_UNIT.cdf(b) - _UNIT.cdf(a), _EDGE)
        first, second = (
            math.exp(k * log.mean + (k * log.stdev) ** 2 / 2)
            * (_UNIT.cdf(b - k * log.stdev) - _UNIT.cdf(a - k * log.stdev))
            / mass
            for k in (1, 2)
        )
        return first, math.sqrt(max(second - first**2, _EDGE))


def _between(low: float, high: float, u: float) -> float:
    return min(max(low + u * (high - low), _EDGE), 1 - _EDGE)


def _cut(family: type[_Normal | _Lognormal], mean: float, stddev: float, tokens: Tokens) -> Lengths:
    low = tokens.min or 1
    high = tokens.max or max(low, math.ceil(_tail(family, mean, stddev)))
    fitted = _centred(_fit(family, mean, stddev, low - 0.5, high + 0.5), mean)
    return Lengths(fitted.quantile, low, high, fitted.moments()[0])


def _tail(family: type[_Normal | _Lognormal], mean: float, stddev: float) -> float:
    if family is _Normal:
        return mean + _TAIL_SDS * stddev
    sigma = math.sqrt(math.log1p((stddev / mean) ** 2))
    return mean * math.exp(_TAIL_SDS * sigma - sigma**2 / 2)


def _fit(
    family: type[_Normal | _Lognormal], mean: float, stddev: float, low: float, high: float
) -> _Normal | _Lognormal:
    """The parent whose cut has the asked moments, or nearly: a damped fixed-point iteration."""
    best = here = family(mean, stddev, low, high)
    least = math.inf
    for _ in range(_FIT_ROUNDS):
        got_mean, got_stddev = here.moments()
        miss = abs(got_mean - mean) / mean + 0.1 * abs(got_stddev - stddev) / stddev
        if miss < least:
            best, least = here, miss
        if miss < 1e-6:
            break
        centre = here.mean + (mean - got_mean) / 2
        if family is _Lognormal:
            centre = here.mean * math.sqrt(mean / got_mean)
        width = min(here.stddev * math.sqrt(stddev / got_stddev), _WIDEST * stddev)
        here = family(centre, width, low, high)
    return best


def _centred(parent: _Normal | _Lognormal, mean: float) -> _Normal | _Lognormal:
    """The parent moved until its cut has the mean: where bounds exclude both moments, the mean goes first."""
    if abs(parent.moments()[0] - mean) < _MEAN_MISS * mean:
        return parent
    left, right = mean / _REACH, mean * _REACH
    if isinstance(parent, _Normal):
        left, right = parent.low - _REACH * parent.stddev, parent.high + _REACH * parent.stddev
    for _ in range(60):
        middle = (left + right) / 2
        moved = type(parent)(middle, parent.stddev, parent.low, parent.high)
        left, right = (middle, right) if moved.moments()[0] < mean else (left, middle)
    return moved
