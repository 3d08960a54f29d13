"""Runs in, a comparison out: values, differences, verdicts. Pure: no files, no network, no clock.

A verdict is given on the declared primary metric alone, between stacks that met in three blocks or more, on fair terms:

- *lower*, *higher*: the whole interval lies beyond the margin, so the difference is one that matters;
- *tie*: the whole interval lies inside ±margin;
- *undecided*: neither; with how much more would probably tell.

The chance of any false *lower* or *higher* in a sweep stays at 5 %: Holm's procedure runs over every pair of stacks in
every cell, and each interval is drawn at the level where its pair was decided. Of two stacks that are alike, far fewer
than 5 % of sweeps say otherwise, because a verdict has to clear the margin as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from llmexp.compare import evidence, fairness, service, stats, words
from llmexp.compare.catalogue import CAPACITY, SHOWN, Metric
from llmexp.compare.evidence import Gap, Value
from llmexp.compare.fairness import Finding, Side
from llmexp.compare.runs import Run
from llmexp.compare.stacks import Cell, Grid, Stack, arrange, pairs
from llmexp.config import Config
from llmexp.errors import ConfigError

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
        return cls(config.compare.primary, config.compare.margin, fail_on=config.compare.fail_on)

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
        """Whether a candidate is worse than its reference beyond the margin, on the primary metric."""
        return any(contrast.regression for contrast in self.verdicts)

    @property
    def slo_missed(self) -> bool:
        """Whether an enforced service level was missed."""
        return any(each.enforced and not each.met for each in self.services)

    @property
    def missed(self) -> bool:
        """Whether what was demanded of this comparison was missed: exit status 3."""
        return self.slo_missed or (self.options.fail_on == "regression" and self.regression)

    @property
    def unanswered(self) -> str | None:
        """What to say where a regression was asked about and no pair could be judged."""
        judged = any(contrast.call in ("lower", "higher", "tie", "undecided") for contrast in self.verdicts)
        if self.options.fail_on is None or judged:
            return None
        return "compare.fail_on=regression: no pair could be judged, so no regression could be found"

    @property
    def headline(self) -> str:
        """The verdict in a sentence or two."""
        from llmexp.compare.headline import headline

        return headline(self)


def compare(runs: Sequence[Run], options: Options | None = None) -> Comparison:
    """Compare runs. Raises `ConfigError` when the primary metric or the baseline does not exist among them."""
    usable = [run for run in runs if run.usable]
    options = _asked(usable, options or Options())
    left_out = tuple((run.name, _why_unusable(run)) for run in runs if not run.usable)
    grid = arrange(usable)
    metrics = _metrics(usable, options)
    values = {
        (stack.key, cell.key, metric.name): value
        for stack in grid.stacks
        for cell in grid.cells
        for metric in metrics
        if (value := evidence.value(grid.at(stack, cell), metric, options.alpha))
    }
    contrasts, findings = _contrasts(grid, metrics, options)
    services = service.services(grid, options.alpha)
    return Comparison(
        options,
        grid,
        metrics,
        values,
        tuple(contrasts),
        tuple(findings),
        tuple(services),
        tuple(service.capacities(services)),
        tuple(service.points(grid, values, _latency(options))),
        left_out,
        tuple(_notes(grid)),
    )


def _asked(runs: Sequence[Run], options: Options) -> Options:
    """What capacity searches were for is what they decide, unless something else was declared."""
    if runs and all(run.searched for run in runs) and options.primary == Options().primary:
        return replace(options, primary=CAPACITY)
    return options


def _why_unusable(run: Run) -> str:
    status = str(run.result.get("status") or "unknown")
    reason = str(run.result.get("reason") or "no request completed")
    return reason if status == "finished" else f"{status}: {reason}"


def _metrics(runs: Sequence[Run], options: Options) -> tuple[Metric, ...]:
    """The primary metric, then what is usually shown, as far as any run has it."""
    known = {name for run in runs for name in run.values}
    if runs and options.primary not in known:
        near = sorted(name for name in known if name.startswith(options.primary.partition("/")[0])) or sorted(
            known & set(SHOWN)
        )
        raise ConfigError(f"compare.primary: no run has '{options.primary}'; known here: {', '.join(near)}")
    names = dict.fromkeys([options.primary, *SHOWN])
    return tuple(Metric(name) for name in names if name in known)


def _latency(options: Options) -> Metric:
    primary = Metric(options.primary)
    return primary if primary.unit == "s" else Metric("ttft_s/mean")


def _notes(grid: Grid) -> list[str]:
    notes = []
    if grid.several_sources:
        notes.append(
            "Runs of different sweeps are compared unpaired: what else changed between the two occasions (the hour, "
            "the network, this machine) is part of the difference."
        )
    return notes


# --- contrasts -------------------------------------------------------------------------------------------------------


def _contrasts(
    grid: Grid, metrics: Sequence[Metric], options: Options
) -> tuple[list[Contrast], list[tuple[Stack, Stack, Cell, Finding]]]:
    sides = {
        (stack.key, cell.key): Side.of(stack.label, runs)
        for stack in grid.stacks
        for cell in grid.cells
        if (runs := grid.at(stack, cell))
    }
    contrasts: list[Contrast] = []
    findings: list[tuple[Stack, Stack, Cell, Finding]] = []
    for cell in grid.cells:
        for reference, candidate in pairs(grid, _baseline(grid, options)):
            one, two = sides.get((reference.key, cell.key)), sides.get((candidate.key, cell.key))
            if one is None or two is None:
                continue
            unlike = fairness.check(one, two)
            findings += [(reference, candidate, cell, finding) for finding in unlike]
            contrasts += _of_pair(grid, (reference, candidate), cell, metrics, unlike, options)
    return _decide(contrasts, grid, options), findings


def _baseline(grid: Grid, options: Options) -> Stack | None:
    if options.baseline is None:
        return None
    for stack in grid.stacks:
        if options.baseline in (stack.label, stack.model):
            return stack
    known = ", ".join(stack.label for stack in grid.stacks)
    raise ConfigError(f"--baseline: no stack is called '{options.baseline}'; there are: {known}")


def _of_pair(
    grid: Grid,
    sides: tuple[Stack, Stack],
    cell: Cell,
    metrics: Sequence[Metric],
    unlike: Sequence[Finding],
    options: Options,
) -> list[Contrast]:
    """All metrics of a pair, the primary one not decided yet."""
    one, two = sides
    found = []
    for metric in metrics:
        gap = evidence.gap(grid.at(one, cell), grid.at(two, cell), metric, one.source == two.source, options.alpha)
        if gap is None:
            continue
        call = _first_call(gap, metric, unlike, options)
        text = _first_text(call, gap, metric, sides, cell, unlike, grid, options)
        labels = tuple(finding.text for finding in unlike if finding.level == "label" and finding.concerns(metric.name))
        found.append(Contrast(one, two, cell, metric, gap, options.alpha, call, text, labels))
    return found


def _first_call(gap: Gap, metric: Metric, unlike: Sequence[Finding], options: Options) -> Call:
    if metric.name != options.primary:
        return "shown"
    if any(finding.level == "refused" and finding.concerns(metric.name) for finding in unlike):
        return "refused"
    return "withheld" if gap.basis == "within" else "undecided"


def _first_text(
    call: Call,
    gap: Gap,
    metric: Metric,
    sides: tuple[Stack, Stack],
    cell: Cell,
    unlike: Sequence[Finding],
    grid: Grid,
    options: Options,
) -> str:
    if call == "refused":
        reasons = [finding.text for finding in unlike if finding.level == "refused" and finding.concerns(metric.name)]
        return words.refused(reasons)
    if call == "withheld":
        return words.withheld(gap, metric, sides, words.where(cell, grid.several_workloads), options.alpha)
    return ""


def _decide(contrasts: list[Contrast], grid: Grid, options: Options) -> list[Contrast]:
    """Give every open contrast its verdict, corrected for all of them together."""
    open_at = [at for at, contrast in enumerate(contrasts) if contrast.call == "undecided"]
    for at, gap in zip(open_at, _moderated([contrasts[at] for at in open_at]), strict=True):
        contrasts[at] = replace(contrasts[at], gap=gap)
    p_values = [contrasts[at].gap.estimate.p_beyond(contrasts[at].gap.margin(options.margin)) for at in open_at]
    for at, p, step in zip(open_at, p_values, stats.holm(p_values, options.alpha), strict=True):
        contrasts[at] = _decided(replace(contrasts[at], p=p, alpha=step.alpha), step.rejected, grid, options)
    return contrasts


def _moderated(contrasts: Sequence[Contrast]) -> list[Gap]:
    """The differences with what all paired ones together know of the scatter between repeats."""
    gaps = [contrast.gap for contrast in contrasts]
    shared = [at for at, gap in enumerate(gaps) if gap.ratio and gap.basis == "blocks"]
    freedom = 0.0
    for cell in dict.fromkeys(contrasts[at].cell for at in shared):
        here = [contrasts[at] for at in shared if contrasts[at].cell == cell]
        stacks = {stack.key for contrast in here for stack in (contrast.reference, contrast.candidate)}
        freedom += (len(stacks) - 1) * (min(contrast.gap.blocks for contrast in here) - 1)
    for at, estimate in zip(shared, stats.moderate([gaps[at].estimate for at in shared], freedom), strict=True):
        gaps[at] = replace(gaps[at], estimate=estimate)
    return gaps


def _decided(contrast: Contrast, beyond: bool, grid: Grid, options: Options) -> Contrast:
    gap, metric, alpha = contrast.gap, contrast.metric, contrast.alpha
    sides, at = (contrast.reference, contrast.candidate), words.where(contrast.cell, grid.several_workloads)
    if beyond:
        call: Call = "lower" if gap.estimate.mean < 0 else "higher"
        candidate_first = metric.better in (None, call)
        return replace(contrast, call=call, text=words.call(gap, metric, sides, at, alpha, candidate_first))
    margin = gap.margin(options.margin)
    low, high = gap.estimate.interval(alpha)
    if -margin < low and high < margin:
        return replace(contrast, call="tie", text=words.tie(gap, metric, sides, at, alpha, options.margin))
    runs = [grid.at(side, contrast.cell) for side in sides]
    within = evidence.within_variance(runs[0], runs[1], metric, alpha) if gap.ratio else 0.0
    more = stats.needed(gap.estimate, gap.blocks, within, margin, alpha)
    return replace(contrast, text=words.undecided(gap, metric, sides, at, alpha, more))
