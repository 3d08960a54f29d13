"""At equal service level: the highest measured load each stack sustains, what it yields there and what that costs.

Also the Pareto view: which (stack, load) no other beats in latency, throughput and cost at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmexp.compare import stats
from llmexp.compare.answers import RIGHT
from llmexp.compare.evidence import Value
from llmexp.compare.stacks import Cell, Grid, Stack
from llmexp.config import Slo
from llmexp.json_types import branch, number
from llmexp.metrics.catalogue import Metric
from llmexp.metrics.service_level import TIMES, clocked, right_enough, within
from llmexp.records.observed import Bools
from llmexp.results.run import Run


@dataclass(frozen=True, slots=True)
class Service:
    """How one stack did in one cell against the service level asked there."""

    stack: Stack
    cell: Cell
    thresholds: dict[str, float]
    attainment: float
    """Share of completed + failed requests that must be good."""
    good: int
    total: int
    low: float
    high: float
    """Interval of the good share, within these runs."""
    goodput_per_s: float | None
    usd_per_million_output_tokens: float | None
    usd_per_thousand_good: float | None
    enforced: bool
    right_asked: float | None = None
    """Share of right answers that the run must reach; None: not asked."""
    right_share: float | None = None

    @property
    def share(self) -> float:
        """Good requests over completed + failed ones."""
        return self.good / self.total

    @property
    def met(self) -> bool:
        """Whether the service level was kept."""
        return self.share >= self.attainment and self.right_enough

    @property
    def right_enough(self) -> bool:
        """Whether enough answers were right, where that is asked."""
        return right_enough(self.right_share, self.right_asked)

    @property
    def close(self) -> bool:
        """Whether the sample could as well have come out on the other side."""
        return self.low < self.attainment <= self.high


@dataclass(frozen=True, slots=True)
class Capacity:
    """The highest measured load that a stack sustained, all lower ones included."""

    stack: Stack
    workload: str
    best: Service | None
    """None: not even the lowest."""
    tried: int
    limit: bool
    """True when it was the highest load tried, so that the stack may carry more."""


@dataclass(frozen=True, slots=True)
class Point:
    """One (stack, cell) in the Pareto view."""

    stack: Stack
    cell: Cell
    latency: float
    throughput: float
    cost: float | None
    """USD per million output tokens."""
    energy: float | None = None
    """Joules of the GPUs for an output token."""
    front: bool = False


# --- service level ---------------------------------------------------------------------------------------------------


def services(grid: Grid, alpha: float) -> list[Service]:
    """Every (stack, cell) that was asked for a service level."""
    found = (_service(stack, cell, grid.at(stack, cell), alpha) for cell in grid.cells for stack in grid.stacks)
    return [service for service in found if service is not None]


def good(run: Run, thresholds: dict[str, float]) -> Bools:
    """Which of a run's requests kept the service level."""
    requests = run.requests
    timed = requests.completed & np.isfinite(requests.ttft_s) & np.isfinite(requests.e2e_latency_s)
    return within(timed, thresholds, lambda name: requests.column(clocked(name, open_loop=run.open_loop)))


def _service(stack: Stack, cell: Cell, runs: Sequence[Run], alpha: float) -> Service | None:
    slo = branch(runs[0].config, "slo") if runs else {}
    thresholds = {name: limit for name in TIMES if (limit := number(slo, name))}
    hits = sum(int(good(run, thresholds).sum()) for run in runs)
    total = sum(int((run.requests.completed | run.requests.failed).sum()) for run in runs)
    share = stats.of_share(hits, total, alpha)
    right_asked = number(slo, "right_share")
    if (not thresholds and right_asked is None) or share is None or runs[0].searched:
        return None
    costs = [run.values["cost_usd"] for run in runs if "cost_usd" in run.values]
    whole = len(costs) == len(runs)
    return Service(
        stack,
        cell,
        thresholds,
        number(slo, "attainment") or Slo().attainment,
        hits,
        total,
        *share,
        goodput_per_s=_mean(runs, "goodput_per_s"),
        usd_per_million_output_tokens=_mean(runs, "usd_per_million_output_tokens"),
        usd_per_thousand_good=1000 * sum(costs) / hits if whole and hits else None,
        enforced=any(bool(run.settings.get("slo.enforce")) for run in runs),
        right_asked=right_asked,
        right_share=_mean(runs, RIGHT),
    )


def _mean(runs: Sequence[Run], name: str) -> float | None:
    known = [run.values[name] for run in runs if name in run.values]
    return sum(known) / len(known) if known else None


def capacities(found: Sequence[Service]) -> list[Capacity]:
    """For each stack and curve of loads, the last load before the first miss."""

    def curve(service: Service) -> tuple[str, str]:
        return service.cell.family, service.stack.key

    curves: dict[tuple[str, str], list[Service]] = {}
    for each in sorted(found, key=lambda service: service.cell.level):
        curves.setdefault(curve(each), []).append(each)
    order = list(dict.fromkeys(curve(each) for each in found))
    return [_capacity(curves[at]) for at in order]


def _capacity(rising: Sequence[Service]) -> Capacity:
    kept = list(itertools.takewhile(lambda service: service.met, rising))
    best = kept[-1] if kept else None
    return Capacity(rising[0].stack, rising[0].cell.workload, best, len(rising), len(kept) == len(rising))


# --- Pareto ----------------------------------------------------------------------------------------------------------


def points(grid: Grid, values: dict[tuple[str, str, str], Value], latency: Metric) -> list[Point]:
    """Every (stack, cell) with its latency, throughput and cost; `front` where no other of its workload beats it."""
    found = list(_points(grid, values, latency))
    return [replace(point, front=not any(_beats(other, point) for other in found)) for point in found]


def _points(grid: Grid, values: dict[tuple[str, str, str], Value], latency: Metric) -> Iterator[Point]:
    for cell, stack in itertools.product(grid.cells, grid.stacks):
        names = (latency.name, "output_tokens_per_s", "usd_per_million_output_tokens", "gpu/joules_per_output_token")
        slow, fast, cost, energy = (values.get((stack.key, cell.key, name)) for name in names)
        if slow and fast:
            spent = (cost.value if cost else None, energy.value if energy else None)
            yield Point(stack, cell, slow.value, fast.value, *spent)


def _beats(one: Point, two: Point) -> bool:
    """At least as good everywhere and better somewhere; cost and energy count where both have them."""
    if one.cell.workload != two.cell.workload:
        return False
    sides = [(one.latency, two.latency), (-one.throughput, -two.throughput)]
    if one.cost is not None and two.cost is not None:
        sides.append((one.cost, two.cost))
    if one.energy is not None and two.energy is not None:
        sides.append((one.energy, two.energy))
    return all(a <= b for a, b in sides) and any(a < b for a, b in sides)
