"""Where to look next, for few and dear trials: a sampler of Optuna's that knows what a goodput is made of.

A benchmark's trial takes minutes, so that 15 of them have to do, where Optuna's default would still be drawing at
random. A goodput falls off a cliff where latencies pass the service level, and beyond it every trial says 0. What lies
behind it is smooth: how many requests are served for a second (a dollar, a joule), and how far their latencies are from
the thresholds. Each is fitted by a Gaussian process over the space, and the next trial goes where the goodput that they
make together is expected to improve most on the best so far. What that product does not explain of a goodput (a queue
makes a few wait for long, not all for a little) is fitted too. A goal of another kind is fitted as it is.

Where the number of requests in flight is searched, Little's law says more than a surface: a trial in which none waited
is tried with twice as many, and one in which some did with as many as it served at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import ndtr
from scipy.stats import qmc

Floats = NDArray[np.float64]
Space = Mapping[str, BaseDistribution]
YIELD, HEADROOM, IN_SERVICE = "requests per unit", "headroom", "in service"
"""Attributes of a trial, the parts of `tune_goal.Behind`."""
LOAD = "concurrency"
"""The key that says how many requests are in flight."""
UNQUEUED = 0.9
"""Share of the requests in flight that were in service, from which none is said to have waited."""
WORTH_IT = 1.02
"""A trial that served so much more than the best goodput, relatively, promises more at a load that does not wait."""
CANDIDATES = 4096
DRAWS = 64
EDGES = 0.4
LEAST_SPREAD, MOST_SPREAD = 3, 5
"""Trials that are spread over the space before the surface is asked: as many as there are keys, within these."""
ANYWHERE = 3
"""One trial in so many may go anywhere; the others change one key of the best so far, or of one that is as good."""
ALIKE = 0.03
"""Values so close, relatively, are as good as each other."""
LAST, TIMID = 3, 0.1
"""The last trials, one in so many, look where most is expected, not where most may be."""
UNLIKELY = 0.001
DIGITS = 4
"""Significant digits of a value between two ends."""
LOG_FROM = 8
"""A range whose ends lie so many times apart is looked at by its logarithm."""
_NOISE = (1e-6, 0.1)


@dataclass(frozen=True)
class Axis:
    """One key on [0, 1]; a choice without an order has a coordinate for each of its values."""

    name: str
    distribution: BaseDistribution

    @property
    def ordered(self) -> bool:
        """Whether its values stand in an order."""
        return not isinstance(self.distribution, CategoricalDistribution) or all(
            isinstance(one, int | float) and not isinstance(one, bool) for one in self.distribution.choices
        )

    def _ends(self) -> tuple[float, float, bool]:
        """Lowest and highest value, and whether the way between them is logarithmic."""
        found = self.distribution
        if isinstance(found, CategoricalDistribution):
            numbers = [float(one) for one in found.choices if isinstance(one, int | float)]
            low, high = min(numbers), max(numbers)
            return low, high, low > 0 and high / low >= LOG_FROM
        assert isinstance(found, IntDistribution | FloatDistribution)
        return float(found.low), float(found.high), found.log or (found.low > 0 and found.high / found.low >= LOG_FROM)

    def place(self, value: object) -> list[float]:
        """Where a value lies."""
        if not self.ordered:
            assert isinstance(self.distribution, CategoricalDistribution)
            return [float(one == value) / math.sqrt(2) for one in self.distribution.choices]
        assert isinstance(value, int | float)
        low, high, logarithmic = self._ends()
        at = float(value)
        if logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return [(at - low) / (high - low) if high > low else 0.5]

    def values(self) -> list[object] | None:
        """All of its values, where they are few; None for a range of many."""
        found = self.distribution
        if isinstance(found, CategoricalDistribution):
            return list(found.choices)
        if isinstance(found, IntDistribution) and (found.high - found.low) // found.step < CANDIDATES:
            return list(range(found.low, found.high + 1, found.step))
        if isinstance(found, FloatDistribution) and found.step:
            count = round((found.high - found.low) / found.step) + 1
            return [found.low + found.step * at for at in range(count)] if count <= CANDIDATES else None
        return None

    def nearest(self, value: float) -> object:
        """Its value that is nearest to this number."""
        values = self.values()
        if values is not None:
            return min(values, key=lambda one: abs(float(str(one)) - value))
        return self.at(self.place(min(max(value, self._ends()[0]), self._ends()[1]))[0])

    def at(self, share: float) -> object:
        """The value that lies at this share of the way."""
        if isinstance(self.distribution, CategoricalDistribution):
            choices = list(self.distribution.choices)
            if self.ordered:
                choices.sort(key=self.place)
            return choices[min(int(share * len(choices)), len(choices) - 1)]
        found = self.distribution
        assert isinstance(found, IntDistribution | FloatDistribution)
        low, high, logarithmic = self._ends()
        value = low * (high / low) ** share if logarithmic else low + share * (high - low)
        if found.step:
            value = low + round((value - low) / found.step) * found.step
        elif isinstance(found, FloatDistribution):
            value = float(f"{value:.{DIGITS}g}")
        value = min(max(value, low), high)
        return round(value) if isinstance(found, IntDistribution) else value


class Surface(BaseSampler):
    """Suggests all keys of a trial together."""

    def __init__(self, space: Space, seed: int, trials: int) -> None:
        self._trials = trials
        self._space = dict(space)
        self._axes = [Axis(name, distribution) for name, distribution in space.items()]
        self._seed = seed
        self._draw = np.random.default_rng(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """All keys are chosen together."""
        return self._space

    def sample_independent(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> object:
        """A key that is not in the space."""
        return Axis(param_name, param_distribution).at(float(self._draw.random()))

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, object]:
        """The next point."""
        done = [one for one in study.get_trials(deepcopy=False) if one.state.is_finished()]
        told = [one for one in done if one.state == TrialState.COMPLETE and set(one.params) == set(self._space)]
        if len(told) < min(max(len(self._axes), LEAST_SPREAD), MOST_SPREAD):
            return self._spread_out([one.params for one in done], trial.number)
        best = max(told, key=lambda one: self._sign(study) * float(one.value or 0.0))
        tried = [one.params for one in done]
        if (point := self._without_a_queue(told, tried, float(best.value or 0.0))) is not None:
            return point
        last = trial.number >= self._trials - self._trials // LAST
        if not last and (point := self._at_twice_the_load(told, tried, best)) is not None:
            return point
        candidates = self._candidates(tried, best.params)
        if not candidates:
            return dict(best.params)
        good = [one.params for one in told if _alike(one, best)]
        beside = [one for one in candidates if any(self._differing(one, other) == 1 for other in good)]
        if beside and (last or trial.number % ANYWHERE):
            candidates = beside
        places = np.array([self._place(one) for one in candidates])
        gains = self._gains(study, told, places, TIMID if last else 1.0) * self._chance(done, told, places)
        return candidates[int(gains.argmax())]

    def _without_a_queue(
        self, told: Sequence[FrozenTrial], tried: Sequence[Mapping[str, object]], best: float
    ) -> dict[str, object] | None:
        """Settings that served more than the best goodput but let requests wait: the same with no more in flight than
        they served at once, which by Little's law they serve as fast. None where there are none.
        """
        axis = self._load_axis
        known = [one for one in told if one.user_attrs.get(IN_SERVICE) and one.user_attrs.get(YIELD) is not None]
        if axis is None or best <= 0:
            return None
        for one in sorted(known, key=lambda one: -float(one.user_attrs[YIELD])):
            if math.exp(one.user_attrs[YIELD]) < WORTH_IT * best:
                return None
            point = {**one.params, LOAD: axis.nearest(one.user_attrs[IN_SERVICE])}
            if point[LOAD] < one.params[LOAD] and point not in tried:
                return point
        return None

    def _at_twice_the_load(
        self, told: Sequence[FrozenTrial], tried: Sequence[Mapping[str, object]], best: FrozenTrial
    ) -> dict[str, object] | None:
        """The best settings with twice as many requests in flight, where none of those had to wait and no higher load
        was tried with them.
        """
        axis = self._load_axis
        if axis is None:
            return None
        for one in sorted((one for one in told if _alike(one, best)), key=lambda one: one.value != best.value):
            load, busy = one.params.get(LOAD), one.user_attrs.get(IN_SERVICE)
            if not busy or not isinstance(load, int | float) or busy < UNQUEUED * load:
                continue
            point = {**one.params, LOAD: axis.nearest(2 * load)}
            alone = [other[LOAD] for other in tried if {**other, LOAD: load} == one.params]
            if point[LOAD] > load and not any(isinstance(other, int | float) and other > load for other in alone):
                return point
        return None

    @property
    def _load_axis(self) -> Axis | None:
        return next((one for one in self._axes if one.name == LOAD and one.ordered), None)

    def _differing(self, one: Mapping[str, object], other: Mapping[str, object]) -> int:
        return sum(one[axis.name] != other[axis.name] for axis in self._axes)

    def _chance(self, done: Sequence[FrozenTrial], told: Sequence[FrozenTrial], places: Floats) -> Floats:
        """How likely a trial at each place comes to an end: a server may not start there, or run out of memory."""
        failed = [one for one in done if one.state == TrialState.FAIL and set(one.params) == set(self._space)]
        if not failed:
            return np.ones(len(places))
        known = np.array([self._place(one.params) for one in (*told, *failed)])
        ended = np.r_[np.ones(len(told)), np.zeros(len(failed))]
        chance: Floats = Model(known, ended).mean(places)
        return np.clip(chance, UNLIKELY, 1.0)

    @staticmethod
    def _sign(study: Study) -> float:
        return 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0

    def _place(self, params: Mapping[str, object]) -> list[float]:
        return [share for axis in self._axes for share in axis.place(params[axis.name])]

    # -- what a point promises ----------------------------------------------------------------------------------------

    def _gains(self, study: Study, told: Sequence[FrozenTrial], places: Floats, daring: float) -> Floats:
        """Expected improvement on the best so far at each place; `daring`: how much what is not known counts."""
        known = np.array([self._place(one.params) for one in told])
        values = np.array([self._sign(study) * float(one.value or 0.0) for one in told])
        parts = [(one.user_attrs.get(YIELD), *(one.user_attrs.get(HEADROOM) or (None, None))) for one in told]
        drawn = self._draw.standard_normal((4, DRAWS, 1)) * daring
        if all(None not in part for part in parts):
            served, median, tail = (
                Model(known, np.array(column, dtype=float)).draws(places, drawn[at])
                for at, column in enumerate(zip(*parts, strict=True))
            )
            columns = np.array(parts, dtype=float)
            seen = np.clip(self._sign(study) * values / np.exp(columns[:, 0]), 0.0, 1.0)
            beside = seen - _share_within(columns[:, 1], columns[:, 2])
            share = _share_within(median, tail) + Model(known, beside).draws(places, drawn[3])
            goodput = np.exp(served) * np.clip(share, 0.0, 1.0)
        else:
            goodput = Model(known, values).draws(places, drawn[0])
        gains: Floats = np.maximum(goodput - values.max(), 0.0).mean(axis=0)
        # Where nothing promises to be better, the likeliest to come near is worth more than the first of the list.
        expected = goodput.mean(axis=0)
        promised: Floats = gains + 1e-3 * (expected - expected.min())
        return promised

    # -- points -------------------------------------------------------------------------------------------------------

    def _spread_out(self, tried: Sequence[Mapping[str, object]], number: int) -> dict[str, object]:
        """A Sobol sequence, moved on where it meets what was tried. Its loads are high ones, which tell the most: what
        the settings can serve, and how many requests at once.
        """
        points = qmc.Sobol(len(self._axes), seed=self._seed).random(64)
        loads = [axis.name == LOAD and axis.ordered for axis in self._axes]
        points[:, loads] = 0.5 + points[:, loads] / 2
        for at in range(number, 64):
            point = {axis.name: axis.at(float(share)) for axis, share in zip(self._axes, points[at], strict=True)}
            if point not in tried:
                return point
        return {axis.name: axis.at(float(self._draw.random())) for axis in self._axes}

    def _candidates(self, tried: Sequence[Mapping[str, object]], best: Mapping[str, object]) -> list[dict[str, object]]:
        """Every untried point of a small space; of a large one many, and those around the best."""
        values = [axis.values() for axis in self._axes]
        names = [axis.name for axis in self._axes]
        if math.prod(math.inf if one is None else len(one) for one in values) <= CANDIDATES:
            grid = itertools.product(*(one or () for one in values))
            found = [dict(zip(names, point, strict=True)) for point in grid]
        else:
            found = [self._anywhere() for _ in range(CANDIDATES // 2)]
            found += [self._near(best) for _ in range(CANDIDATES // 2)]
        seen = {tuple(one[name] for name in names) for one in tried if set(one) == set(names)}
        return [point for point in found if tuple(point[name] for name in names) not in seen]

    def _anywhere(self) -> dict[str, object]:
        """A point drawn at random, on an edge of the space as often as inside: a setting's best is often its most."""
        shares = self._draw.random(len(self._axes))
        shares = np.where(self._draw.random(len(shares)) < EDGES, np.round(shares), shares)
        return {axis.name: axis.at(float(share)) for axis, share in zip(self._axes, shares, strict=True)}

    def _near(self, best: Mapping[str, object]) -> dict[str, object]:
        point = dict(best)
        for axis in self._axes:
            chance = self._draw.random()
            share = axis.place(best[axis.name])[0] if axis.ordered else float(self._draw.random())
            if chance < 0.5:
                point[axis.name] = axis.at(float(np.clip(share + self._draw.normal(0, 0.1), 0, 1)))
            elif chance < 0.6:
                point[axis.name] = axis.at(float(np.round(self._draw.random())))
        return point


def _alike(one: FrozenTrial, other: FrozenTrial) -> bool:
    value, of = float(one.value or 0.0), float(other.value or 0.0)
    return abs(value - of) <= ALIKE * abs(of)


def _share_within(median: Floats, tail: Floats) -> Floats:
    """Share of requests within the threshold, of latencies whose logs are normal."""
    spread = np.maximum((tail - median) / 1.2816, 0.02)
    share: Floats = ndtr(-median / spread)
    return share


class Model:
    """A Gaussian process, a plane and what bends it, fitted to what was measured."""

    def __init__(self, places: Floats, values: Floats) -> None:
        self._places = places
        self._mean, self._scale = float(values.mean()), float(values.std()) or 1.0
        self._values = (values - self._mean) / self._scale
        width = places.shape[1]
        starts = [np.log(np.r_[np.full(width, scale), plane, 1e-3]) for scale, plane in ((0.5, 1.0), (1.5, 0.3))]
        bounds = [(math.log(0.1), math.log(5.0))] * width + [
            (math.log(1e-3), math.log(4.0)),
            tuple(map(math.log, _NOISE)),
        ]
        fits = [
            minimize(self._loss, start, method="L-BFGS-B", bounds=bounds, options={"maxiter": 30}) for start in starts
        ]
        self._fit: Floats = min(fits, key=lambda fit: float(fit.fun)).x
        self._factor = cho_factor(self._covariance(self._fit), lower=True)
        self._weights = cho_solve(self._factor, self._values)

    @staticmethod
    def _kernel(one: Floats, other: Floats, fit: Floats) -> Floats:
        apart = (one[:, None, :] - other[None, :, :]) / np.exp(fit[:-2])
        distance = np.sqrt(5.0 * (apart**2).sum(axis=2))
        bent: Floats = (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)
        plane: Floats = np.exp(fit[-2]) * ((one - 0.5) @ (other - 0.5).T)
        return np.add(bent, plane)

    def _covariance(self, fit: Floats) -> Floats:
        noise: Floats = (np.exp(fit[-1]) + 1e-8) * np.eye(len(self._places))
        return np.add(self._kernel(self._places, self._places, fit), noise)

    def _loss(self, fit: Floats) -> float:
        factor = cho_factor(self._covariance(fit), lower=True)
        misfit = 0.5 * self._values @ cho_solve(factor, self._values) + np.log(np.diag(factor[0])).sum()
        # Without a word before the data, few points let a length scale run to either end.
        prior = 0.5 * (((fit[:-2] - math.log(0.8)) / 0.8) ** 2).sum() + 0.05 * (fit[-1] - math.log(1e-3)) ** 2
        return float(misfit + prior)

    def mean(self, places: Floats) -> Floats:
        """What each place is expected to have."""
        expected: Floats = self._kernel(places, self._places, self._fit) @ self._weights
        return expected * self._scale + self._mean

    def draws(self, places: Floats, normal: Floats) -> Floats:
        """Values that each place may have: a row for each draw."""
        cross = self._kernel(places, self._places, self._fit)
        own = 1.0 + np.exp(self._fit[-2]) * ((places - 0.5) ** 2).sum(axis=1)
        variance = own - np.einsum("ij,ji->i", cross, cho_solve(self._factor, cross.T))
        drawn: Floats = cross @ self._weights + np.sqrt(np.maximum(variance, 1e-12)) * normal
        return drawn * self._scale + self._mean
