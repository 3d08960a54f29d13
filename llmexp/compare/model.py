"""What a comparison is asked, and what it found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from llmexp.compare import service
from llmexp.compare.evidence import Gap, Value
from llmexp.compare.fairness import Finding
from llmexp.compare.quality import Right
from llmexp.compare.stacks import Cell, Grid, Stack
from llmexp.config import Config
from llmexp.metrics.catalogue import Metric

Call = Literal["lower", "higher", "tie", "undecided", "refused", "withheld", "shown"]
"""Candidate against reference. `withheld`: too few blocks; `shown`: not the primary metric, an interval alone."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the comparison is asked."""

    primary: str = "ttft_s/mean"
    margin: float = 0.03
    """Relative difference that does not matter."""
    confidence: float = 0.95
    baseline: str | None = None
    """Label of the stack that all others are compared with; None: every pair."""
    fail_on: Literal["regression"] | None = None

    @classmethod
    def from_config(cls, config: Config) -> Options:
        """What a sweep's configuration declares."""
        told = config.compare
        return cls(told.primary, told.margin, baseline=told.baseline, fail_on=told.fail_on)

    @property
    def alpha(self) -> float:
        """1 − confidence."""
        return 1 - self.confidence


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two stacks, one cell, one metric."""

    reference: Stack
    candidate: Stack
    cell: Cell
    metric: Metric
    gap: Gap
    alpha: float
    """Its interval is at 1 − alpha."""
    call: Call
    text: str
    labels: tuple[str, ...] = ()
    """What a reader must know along with it."""
    p: float | None = None

    @property
    def better(self) -> Stack | None:
        """The stack that won, where the verdict says so and the metric has a better direction."""
        if self.call not in ("lower", "higher") or self.metric.better is None:
            return None
        return self.candidate if self.call == self.metric.better else self.reference

    @property
    def leans(self) -> Stack | None:
        """The stack that looks better: its interval excludes no difference. Not a verdict."""
        low, high = self.gap.estimate.interval(self.alpha)
        if low <= 0 <= high or self.metric.better is None:
            return None
        return self.candidate if (high < 0) == (self.metric.better == "lower") else self.reference

    @property
    def ahead(self) -> Stack | None:
        """The stack that words and drawings speak of: who won, or looks better where nothing can be decided."""
        return self.leans if self.call == "withheld" else self.better

    @property
    def regression(self) -> bool:
        """Whether the candidate is worse beyond the margin."""
        return self.better is self.reference


@dataclass(frozen=True)
class Comparison:
    """Everything that a table, a page or a machine wants to know."""

    options: Options
    grid: Grid
    metrics: tuple[Metric, ...]
    values: dict[tuple[str, str, str], Value]
    """(stack key, cell key, metric name) → value."""
    contrasts: tuple[Contrast, ...]
    findings: tuple[tuple[Stack, Stack, Cell, Finding], ...]
    services: tuple[service.Service, ...]
    capacities: tuple[service.Capacity, ...]
    points: tuple[service.Point, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    """(run, why)."""
    notes: tuple[str, ...] = field(default=())
    rights: tuple[Right, ...] = ()
    """Right answers of every pair of stacks in every cell."""
    load_effects: tuple[Right, ...] = ()
    """Each stack against itself, between its lowest load and each higher one."""
    headline: str = ""
    """The verdict in a sentence or two."""

    @property
    def primary(self) -> Metric:
        """The declared metric."""
        return Metric(self.options.primary)

    @property
    def rehearsal(self) -> bool:
        """Whether the simulator played any of the models."""
        return any(run.rehearsal for runs in self.grid.runs.values() for run in runs)

    @property
    def verdicts(self) -> tuple[Contrast, ...]:
        """The contrasts of the primary metric."""
        return tuple(contrast for contrast in self.contrasts if contrast.metric == self.primary)

    @property
    def regression(self) -> bool:
        """Whether a candidate is worse than its reference beyond the margin, on the primary metric or right answers."""
        return any(contrast.regression for contrast in self.verdicts) or any(right.regression for right in self.rights)

    @property
    def slo_missed(self) -> bool:
        """Whether any job missed a service level that its configuration enforces."""
        return any(run.result.slo_missed for runs in self.grid.runs.values() for run in runs)

    @property
    def missed(self) -> bool:
        """Whether what was demanded of this comparison was missed: exit status 3."""
        return bool(self.shortfalls)

    @property
    def shortfalls(self) -> list[str]:
        """A line for each thing that was demanded and missed, or could not be told."""
        found = [run.result.slo_shortfall for runs in self.grid.runs.values() for run in runs if run.result.slo_missed]
        if self.options.fail_on is None:
            return found
        worse = [right.text for right in self.rights if right.regression]
        worse += [contrast.text for contrast in self.verdicts if contrast.regression]
        found += [f"compare.fail_on=regression: {'; '.join(worse)}"] if worse else []
        judged = any(contrast.call in ("lower", "higher", "tie", "undecided") for contrast in self.verdicts)
        judged |= any(right.call not in ("refused", "withheld") for right in self.rights)
        if not judged:
            found.append("compare.fail_on=regression: no pair could be judged, so no regression could be excluded")
        return found
