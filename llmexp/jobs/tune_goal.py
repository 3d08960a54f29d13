"""What a search for settings is about: the space as Optuna takes it, and what a trial was worth."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmexp.config import Config, Direction
from llmexp.errors import ConfigError
from llmexp.metrics.catalogue import Metric
from llmexp.metrics.dictionary import unknown_metric
from llmexp.results import Result

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = bool | int | float | str | None
"""What a key may be."""
CAPACITY = "capacity/estimate"
PER = {"goodput_per_usd": "cost_usd", "goodput_per_joule": "gpu/energy_j"}
"""Goal → what its good requests are held against."""
_OF_GRADES = ("right_", "score/", "usd_per_thousand_right")
_RANGE = frozenset({"low", "high", "step", "log"})
_PARTS = ("min", "p50", "p90")


def problems(config: Config) -> Iterator[str]:
    """What is wrong with the search, as far as it can be known before anything is sent."""
    search = config.search
    if importlib.util.find_spec("optuna") is None:
        yield "search: needs the package optuna (llmexp's extra `tune`): pip install optuna"
    yield from _goal_problems(config)
    if not search.space and not config.closed:
        yield "search.space: is empty, and an open load has no concurrency to search; name keys, such as load.rate"
    try:
        if importlib.util.find_spec("optuna") is not None:
            yield from _yardsticks(space(search.space))
    except ConfigError as error:
        yield str(error)


_YARDSTICKS = ("slo", "quality", "compare", "search", "model.price", "tracking", "paths", "run.resume", "run.max_usd")


def _yardsticks(keys: Iterable[str]) -> Iterator[str]:
    """Keys that say what a trial is worth, or where it is written: trials would not be held against the same."""
    for key in keys:
        if any(key == part or key.startswith(f"{part}.") for part in _YARDSTICKS):
            yield f"search.space.{key}: is what trials are held against, or kept in; search what serves the requests"


def _goal_problems(config: Config) -> Iterator[str]:
    search = config.search
    if search.metric not in PER and (problem := unknown_metric(search.metric)):
        yield f"search.goal: {problem}; or {' or '.join(PER)}"
    elif search.metric.startswith("goodput"):
        if not config.slo.thresholds:
            yield f"slo: {search.metric} counts requests that keep a service level; set slo.ttft_s, for example"
    elif search.asked_direction is None and Metric(search.metric).better is None:
        yield f"search.direction: {search.metric} has none of its own; set maximize or minimize"
    if search.metric.startswith("capacity/") and not config.capacity.enabled:
        yield f"search.goal: {search.metric} is the answer of a capacity search; set capacity.enabled=true"
    if search.metric.startswith(_OF_GRADES) and not config.quality.graded:
        yield f"search.goal: {search.metric} needs graded answers; choose how, such as quality=number"
    if search.metric == "goodput_per_joule" and not _has_a_source(config):
        yield "search.goal: goodput_per_joule needs the energy: set model.gpu_metrics, and rehearse nothing"


def _has_a_source(config: Config) -> bool:
    """Whether energy may be known: of a server that the job starts, or of one whose exporter is named."""
    from llmexp.telemetry.sources import STARTED

    asked = config.model.gpu_metrics
    return not config.rehearse and asked != "none" and (asked is not None or config.model.deployment.kind in STARTED)


def direction(config: Config) -> Direction:
    """`maximize` or `minimize`."""
    search = config.search
    if search.asked_direction is not None:
        return search.asked_direction
    if search.metric in PER:
        return "maximize"
    return "maximize" if Metric(search.metric).better == "higher" else "minimize"


USUAL: Mapping[str, object] = {"concurrency": {"low": 1, "high": 32, "log": True}}
"""What is searched where nothing is named."""


def space(tree: Mapping[str, object]) -> dict[str, BaseDistribution]:
    """Config key → what it may be."""
    return dict(_leaves(tree or USUAL, ""))


def _leaves(tree: Mapping[str, object], prefix: str) -> Iterator[tuple[str, BaseDistribution]]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and not ({"low", "high"} & value.keys()):
            yield from _leaves(value, f"{key}.")
        elif isinstance(value, Mapping):
            yield key, _range(key, value)
        elif isinstance(value, list) and value:
            yield key, _choices(key, value)
        else:
            raise ConfigError(
                f"search.space.{key}: must be a list of choices or {{low: …, high: …}}, got {json.dumps(value)}"
            )


def _choices(key: str, values: list[object]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution

    plain = [value for value in values if value is None or isinstance(value, bool | int | float | str)]
    if len(plain) < len(values):
        raise ConfigError(f"search.space.{key}: choices must be numbers, texts, true, false or null")
    return CategoricalDistribution(plain)


def _range(key: str, value: Mapping[str, object]) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    where = f"search.space.{key}"
    if unknown := set(value) - _RANGE:
        raise ConfigError(f"{where}.{min(unknown)}: unknown key; known here: {', '.join(sorted(_RANGE))}")
    low, high, step, log = value.get("low"), value.get("high"), value.get("step"), value.get("log", False)
    for name, number in (("low", low), ("high", high)):
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ConfigError(f"{where}.{name}: must be a number, got {json.dumps(number)}")
    if not isinstance(log, bool) or (
        step is not None and (isinstance(step, bool) or not isinstance(step, int | float))
    ):
        raise ConfigError(f"{where}: log must be true or false, and step a number")
    try:
        if isinstance(low, int) and isinstance(high, int) and not isinstance(step, float):
            return IntDistribution(low, high, log=log, step=step or 1)
        assert isinstance(low, int | float)
        assert isinstance(high, int | float)
        return FloatDistribution(float(low), float(high), log=log, step=step)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def ends(distribution: BaseDistribution) -> list[Value]:
    """Every choice, or both ends of a range; of one with fractions also a value between them, which must do too."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = distribution.low, distribution.high
    if isinstance(distribution, FloatDistribution) and high > low:
        return [low, low + (distribution.step or 0.37 * (high - low)), high]
    return [low, high]


# --- what a trial was worth ------------------------------------------------------------------------------------------


def value_of(result: Result, metric: str) -> float | None:
    """The goal's figure of a job; None where it has none."""
    if metric == CAPACITY:
        return _capacity(result)
    if metric not in PER:
        return result.metrics.number(metric)
    good, spent = _good(result), _spent(result, metric)
    return None if good is None or not spent else good / spent


def _capacity(result: Result) -> float | None:
    """The estimate; where a search met one side only: the highest load that passed, and 0 where none did."""
    estimate, passed, failed = (
        result.metrics.number(f"capacity/{name}") for name in ("estimate", "passed_at", "failed_at")
    )
    if estimate is not None or passed is not None:
        return passed if estimate is None else estimate
    return None if failed is None else 0.0


def _good(result: Result) -> float | None:
    rate, window_s = result.metrics.number("goodput_per_s"), result.metrics.number("window_s")
    return None if rate is None or window_s is None else rate * window_s


def _spent(result: Result, metric: str) -> float | None:
    spent = result.metrics.number(PER[metric])
    if spent is None and metric == "goodput_per_joule":
        return result.metrics.number("cpu/energy_j")
    return spent


def why_none(result: Result, metric: str) -> str:
    """Why a job has no figure for the goal."""
    if result.reason:
        return result.reason
    if metric == "goodput_per_usd":
        return "its cost is unknown or nothing; set model.price, usd_per_instance_hour for hardware of your own"
    if metric == "goodput_per_joule":
        return "its energy is not known; see model.gpu_metrics"
    return f"it has no {metric}"


@dataclass(frozen=True, slots=True)
class Behind:
    """What a goodput is made of."""

    served: float
    """Log of requests served for each second, dollar or joule."""
    headroom: tuple[float, float]
    """How far latencies are from the thresholds: log of latency / threshold of the worst, at the median and at p90."""
    in_service: float | None
    """Of a closed loop: requests that the server worked on at once, as Little's law has it. What is in flight beyond
    them waits. None where even the fastest request missed a threshold."""


def behind(result: Result, config: Config) -> Behind | None:
    """The parts of a goodput; None for other goals, and where nothing was served."""
    metric = config.search.metric
    a_second = served = result.metrics.number("requests_per_s")
    if metric in PER:
        window_s, spent = result.metrics.number("window_s"), _spent(result, metric)
        served = served * window_s / spent if served and window_s and spent else None
    elif metric != "goodput_per_s":
        return None
    if not served or not a_second:
        return None
    limits = config.slo.thresholds.items()
    apart = [[_apart(result, config, name, limit, part) for name, limit in limits] for part in _PARTS]
    least, median, tail = (max((one for one in part if one is not None), default=None) for part in apart)
    if least is None or median is None or tail is None:
        return None
    in_service = _in_service(result, a_second) if config.closed and least < 0 else None
    return Behind(math.log(served), (median, tail), in_service)


def _in_service(result: Result, requests_per_s: float) -> float | None:
    """Throughput times the time in service: a request's whole time, less what it waited longer than the fastest."""
    whole, first, fastest = (
        result.metrics.number(name) for name in ("e2e_latency_s/mean", "ttft_s/mean", "ttft_s/min")
    )
    if whole is None or first is None or fastest is None:
        return None
    return requests_per_s * (whole - (first - fastest))


_OPEN_LOOP = {"ttft_s": "response_ttft_s", "e2e_latency_s": "response_latency_s"}


def _apart(result: Result, config: Config, name: str, limit: float, part: str) -> float | None:
    measured = name if config.closed else _OPEN_LOOP.get(name, name)
    value = result.metrics.number(f"{measured}/{part}")
    return math.log(value / limit) if value else None
