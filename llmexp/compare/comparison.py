"""Runs in, a comparison out: values, differences, verdicts. Pure: no files, no network, no clock.

A verdict is given on the declared primary metric, and on right answers where they are graded (`compare.quality`),
between stacks that met in three blocks or more, on fair terms:

- *lower*, *higher*: the whole interval lies beyond the margin, so the difference is one that matters;
- *tie*: the whole interval lies inside ±margin;
- *undecided*: neither; with how much more would probably tell.

The chance of any false *lower*, *higher*, *better* or *worse* in a sweep stays at 5 %: Holm's procedure runs over both
questions, every pair of stacks and every cell, and each interval is drawn at the level where its pair was decided. Of
two stacks that are alike, far fewer than 5 % of sweeps say otherwise, because a verdict has to clear the margin as
well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmexp.compare import change, evidence, fairness, quality, service, stats, words
from llmexp.compare.answers import RIGHT
from llmexp.compare.evidence import Gap
from llmexp.compare.fairness import Finding, Side
from llmexp.compare.headline import headline
from llmexp.compare.model import Call, Comparison, Contrast, Options
from llmexp.compare.quality import Right
from llmexp.compare.stacks import Cell, Grid, Stack, arrange, pairs
from llmexp.errors import ConfigError
from llmexp.metrics.catalogue import CAPACITY, SHOWN, Metric
from llmexp.results.run import Run


def compare(runs: Sequence[Run], options: Options | None = None) -> Comparison:
    """Compare runs. Raises `ConfigError` when the primary metric or the baseline does not exist among them."""
    usable = [run for run in runs if run.problem is None]
    options = _asked(usable, options or Options())
    left_out = tuple((run.name, run.problem) for run in runs if run.problem)
    grid = arrange(usable)
    metrics = _metrics(usable, options)
    values = {
        (stack.key, cell.key, metric.name): value
        for stack in grid.stacks
        for cell in grid.cells
        for metric in metrics
        if (value := evidence.value(grid.at(stack, cell), metric, options.alpha))
    }
    contrasts, rights, findings = _contrasts(grid, metrics, options)
    services = service.services(grid, options.alpha)
    comparison = Comparison(
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
        rights=tuple(rights),
        load_effects=tuple(quality.load_effects(grid, options.alpha)),
    )
    if change.spoken(comparison):
        comparison = replace(comparison, contrasts=change.told(comparison))
    return replace(comparison, headline=headline(comparison))


def _asked(runs: Sequence[Run], options: Options) -> Options:
    """What capacity searches were for is what they decide, unless something else was declared."""
    if runs and all(run.searched for run in runs) and options.primary == Options().primary:
        return replace(options, primary=CAPACITY)
    return options


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
        models = [stack.model for stack in grid.stacks]
        alone = [model for model in dict.fromkeys(models) if models.count(model) == 1]
        if len(alone) < len(set(models)):
            notes += [
                f"{model} was measured on one occasion alone: there is nothing to compare it with." for model in alone
            ]
    return notes


# --- contrasts -------------------------------------------------------------------------------------------------------


def _contrasts(
    grid: Grid, metrics: Sequence[Metric], options: Options
) -> tuple[list[Contrast], list[Right], list[tuple[Stack, Stack, Cell, Finding]]]:
    sides = {
        (stack.key, cell.key): Side.of(stack.label, runs)
        for stack in grid.stacks
        for cell in grid.cells
        if (runs := grid.at(stack, cell))
    }
    contrasts: list[Contrast] = []
    rights: list[Right] = []
    findings: list[tuple[Stack, Stack, Cell, Finding]] = []
    for cell in grid.cells:
        for reference, candidate in pairs(grid, _baseline(grid, options)):
            one, two = sides.get((reference.key, cell.key)), sides.get((candidate.key, cell.key))
            if one is None or two is None:
                continue
            unlike = fairness.check(one, two)
            findings += [(reference, candidate, cell, finding) for finding in unlike]
            contrasts += _of_pair(grid, (reference, candidate), cell, metrics, unlike, options)
            if right := quality.of_pair(grid, reference, candidate, cell, unlike, options.alpha):
                rights.append(right)
    return *_decide(contrasts, rights, grid, options), findings


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
        if metric.name == RIGHT:
            continue  # by prompt, not by repeat: `compare.quality`
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


def _decide(
    contrasts: list[Contrast], rights: list[Right], grid: Grid, options: Options
) -> tuple[list[Contrast], list[Right]]:
    """Give every open question its verdict, corrected for all of them together."""
    open_at = [at for at, contrast in enumerate(contrasts) if contrast.call == "undecided"]
    for at, gap in zip(open_at, _moderated([contrasts[at] for at in open_at]), strict=True):
        contrasts[at] = replace(contrasts[at], gap=gap)
    p_values = [contrasts[at].gap.estimate.p_beyond(contrasts[at].gap.margin(options.margin)) for at in open_at]
    asked = [at for at, right in enumerate(rights) if right.open]
    p_values += [quality.p_value(rights[at]) for at in asked]
    steps = stats.holm(p_values, options.alpha)
    for at, p, step in zip(open_at, p_values, steps, strict=False):
        contrasts[at] = _decided(replace(contrasts[at], p=p, alpha=step.alpha), step.rejected, grid, options)
    for at, p, step in zip(asked, p_values[len(open_at) :], steps[len(open_at) :], strict=True):
        rights[at] = quality.decided(rights[at], p, step, grid)
    return contrasts, rights


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
