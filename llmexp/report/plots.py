"""The drawings of a comparison. Each returns a `Plot`, or None where there is nothing to draw."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from llmexp.compare.evidence import Value
from llmexp.compare.model import Comparison, Contrast
from llmexp.compare.rows import costs
from llmexp.compare.service import Point
from llmexp.compare.stacks import Cell, Stack
from llmexp.metrics.catalogue import Metric
from llmexp.report.figures import (
    GOOD,
    GRID,
    HEIGHT_IN,
    INK,
    LETTERS_PER_INCH,
    LINE_IN,
    MUTED,
    PAPER,
    WIDE_IN,
    WIDTH_IN,
    Plot,
    colour,
    dash,
    folded,
    from_zero,
    label_axis,
    legend,
    log_ticks,
    margins,
    marker,
    plot,
    tick,
)
from llmexp.results.run import Run

ECDF_POINTS = 160
ECDF_CELLS = 2
FOREST_ROWS = 24
LATENCIES = ("ttft_s", "time_per_output_token_s", "e2e_latency_s")


# --- verdicts --------------------------------------------------------------------------------------------------------


def forest(comparison: Comparison) -> Plot | None:
    """Relative differences of the primary metric with their intervals, against the margin."""
    rows = [contrast for contrast in comparison.verdicts if contrast.gap.ratio][:FOREST_ROWS]
    if not rows:
        return None
    metric, margin = comparison.primary, comparison.options.margin

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvspan(-100 * margin / (1 + margin), 100 * margin, color=GRID, lw=0)
        axes.axvline(0, color=MUTED, lw=1)
        places, deep = [], 0.0
        for name in names:
            axes.text(
                0, deep, name, transform=axes.get_yaxis_transform(), va="top", fontsize=8.5, backgroundcolor=PAPER
            )
            places.append(deep + LINE_IN * (name.count("\n") + 1) + 0.12)
            deep = places[-1] + 0.18
        _intervals(axes, rows, places)
        axes.set_ylim(deep, -0.05)
        axes.set_yticks([])
        axes.spines.left.set_visible(False)
        axes.set_xlabel(f"difference, %{_direction(metric)}; grey: the {100 * margin:g} % that do not matter")
        margins(figure, left=0.12, top=0.06)

    words = "; ".join(contrast.text for contrast in rows[:6] if contrast.text)
    names = [folded(_row_name(comparison, contrast), int(LETTERS_PER_INCH * (WIDE_IN - 0.3))) for contrast in rows]
    height = 0.6 + sum(0.3 + LINE_IN * (name.count("\n") + 1) for name in names)
    return plot("comparison_verdicts", f"Differences in {metric.label}", words, draw, (WIDE_IN, height), wide=True)


def _intervals(axes: Axes, rows: Sequence[Contrast], places: Sequence[float]) -> None:
    """Every interval with its middle, a row each, in percent."""
    shades = [_shade(contrast) for contrast in rows]
    drawn = [_drawn(contrast) for contrast in rows]
    axes.hlines(places, [low for low, _, _ in drawn], [high for _, _, high in drawn], shades, lw=2.4)
    axes.scatter([middle for _, middle, _ in drawn], places, 36, shades, zorder=3)


def _turned(contrast: Contrast) -> bool:
    """Whether the words begin with the reference, because it is ahead: so does the drawing, but for change."""
    twice = contrast.reference.model == contrast.candidate.model
    change = twice and contrast.reference.source != contrast.candidate.source
    return contrast.ahead == contrast.reference and not change


def _drawn(contrast: Contrast) -> tuple[float, float, float]:
    """Low, middle and high of the difference in percent, from the side that the words speak of."""
    low, high = contrast.gap.ratios(contrast.alpha) or (1.0, 1.0)
    ratios = [low, math.exp(contrast.gap.estimate.mean), high]
    if _turned(contrast):
        ratios = [1 / ratio for ratio in reversed(ratios)]
    return 100 * (ratios[0] - 1), 100 * (ratios[1] - 1), 100 * (ratios[2] - 1)


def _shade(contrast: Contrast) -> str:
    if contrast.better is None:
        return INK if contrast.call in ("lower", "higher", "tie") else MUTED
    return GOOD


def _row_name(comparison: Comparison, contrast: Contrast) -> str:
    sides = (contrast.reference, contrast.candidate) if _turned(contrast) else (contrast.candidate, contrast.reference)
    pair = f"{sides[0].label} vs {sides[1].label}"
    several = len(comparison.grid.cells) > 1
    return f"{pair}, {_cell_name(comparison, contrast.cell)}" if several else pair


def _cell_name(comparison: Comparison, cell: Cell) -> str:
    return cell.words if comparison.grid.several_workloads else cell.load


def _direction(metric: Metric) -> str:
    return f" ({'left' if metric.better == 'lower' else 'right'} is better)" if metric.better else ""


# --- against the load ------------------------------------------------------------------------------------------------


def curves(comparison: Comparison) -> Iterator[Plot | None]:
    """Latency percentiles and throughput against the load, a drawing for each workload and quantity."""
    families = list(dict.fromkeys(cell.family for cell in comparison.grid.cells))
    for number, family in enumerate(families):
        cells = [cell for cell in comparison.grid.cells if cell.family == family]
        suffix = f"_{number + 1}" if len(families) > 1 else ""
        for base, names in _quantities(comparison).items():
            yield _curve(comparison, cells, base, names, suffix, several=len(families) > 1)


def _quantities(comparison: Comparison) -> dict[str, list[str]]:
    """What is drawn against the load: the primary metric where it is none of the usual ones, then those."""
    known = {metric.name for metric in comparison.metrics}
    wanted = {base: [f"{base}/p50", f"{base}/p95"] for base in LATENCIES} | {
        "output_tokens_per_s": ["output_tokens_per_s"]
    }
    primary = comparison.primary
    if primary.name not in itertools.chain.from_iterable(wanted.values()):
        wanted = {f"{primary.name}": [primary.name]} | wanted
    wanted |= {"goodput_per_s": ["goodput_per_s"]}
    found = {base: [name for name in names if name in known] for base, names in wanted.items()}
    found["time_per_output_token_s"] = [
        n for n in ("time_per_output_token_s/mean", "time_per_output_token_s/p95") if n in known
    ]
    return {base: names for base, names in found.items() if names}


def _curve(
    comparison: Comparison, cells: Sequence[Cell], base: str, names: Sequence[str], suffix: str, several: bool
) -> Plot | None:
    metrics = [Metric(name) for name in names]
    stacks = [stack for stack in comparison.grid.stacks if any(comparison.grid.at(stack, cell) for cell in cells)]
    title = Metric(base).label if len(names) > 1 else metrics[0].label
    title = title[:1].upper() + title[1:]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for metric, style in zip(metrics, _LINES, strict=False):
            for at, stack in enumerate(stacks):
                _line(axes, comparison, stack, cells, metric, at, style, len(stacks))
        from_zero(axes)
        levels = sorted({cell.level for cell in cells})
        if len(levels) > 1:
            log_ticks(axes, levels)
        elif levels[0]:
            axes.set_xticks(levels, [tick(levels[0])])
            axes.set_xlim(levels[0] * 0.7, levels[0] * 1.4)
        else:  # a load that has no level, such as a search or a trace
            axes.set_xticks([])
            axes.set_xlim(-1, 1)
        label_axis(axes, "y", metrics[0].unit)
        axes.set_xlabel(cells[0].axis)
        if len(metrics) > 1:
            axes.set_title(
                " and ".join(f"{m.statistic} ({word})" for m, word in zip(metrics, ("solid", "dashed"), strict=False)),
                fontsize=8.5,
                fontweight="normal",
                color=MUTED,
            )
        legend(figure, axes)

    where = f", {cells[0].workload}" if several else ""
    alt = _curve_in_words(comparison, stacks, cells, metrics)
    return plot(f"comparison_{base.replace('/', '_')}{suffix}", f"{title}{where}", alt, draw)


_LINES = ("-", (0, (4, 2)))


def _line(
    axes: Axes,
    comparison: Comparison,
    stack: Stack,
    cells: Sequence[Cell],
    metric: Metric,
    at: int,
    style: object,
    count: int,
) -> None:
    """One stack's values over the loads, moved aside a little so that intervals do not hide each other."""
    found = [(cell.level, value) for cell in cells if (value := _value(comparison, stack, cell, metric))]
    if not found:
        return
    shift = 1 + 0.03 * (at - (count - 1) / 2)
    levels = [level * shift for level, _ in found]
    values = [value.value for _, value in found]
    index = comparison.grid.stacks.index(stack)
    axes.plot(
        levels, values, ls=style, color=colour(index), marker=marker(index), label=stack.label if style == "-" else None
    )
    known = [
        (at, v.low, v.high)
        for at, (_, v) in zip(levels, found, strict=True)
        if v.low is not None and v.high is not None
    ]
    if known:
        axes.vlines(*zip(*known, strict=True), color=colour(index), lw=1.2, alpha=0.8)


def _value(comparison: Comparison, stack: Stack, cell: Cell, metric: Metric) -> Value | None:
    value = comparison.values.get((stack.key, cell.key, metric.name))
    return value if value and value.carried else None


def _curve_in_words(
    comparison: Comparison, stacks: Sequence[Stack], cells: Sequence[Cell], metrics: Sequence[Metric]
) -> str:
    parts = []
    for stack, metric in itertools.product(stacks, metrics):
        shown = [
            f"{metric.show(value.value)} at {cell.load}"
            for cell in cells
            if (value := _value(comparison, stack, cell, metric))
        ]
        if shown:
            parts.append(f"{stack.label}, {metric.label}: {', '.join(shown)}")
    return "; ".join(parts)


# --- distributions ---------------------------------------------------------------------------------------------------


def distributions(comparison: Comparison) -> Iterator[Plot | None]:
    """ECDFs of the three latencies at the lowest and the highest load."""
    cells = [
        cell
        for cell in comparison.grid.cells
        if any(comparison.grid.at(stack, cell) for stack in comparison.grid.stacks)
    ]
    picked = cells if len(cells) <= ECDF_CELLS else [cells[0], cells[-1]]
    for number, cell in enumerate(picked):
        for base in LATENCIES:
            yield _distribution(comparison, cell, base, f"_{number + 1}" if len(picked) > 1 else "")


def _distribution(comparison: Comparison, cell: Cell, base: str, suffix: str) -> Plot | None:
    samples = {stack: pooled(comparison.grid.at(stack, cell), base) for stack in comparison.grid.stacks}
    samples = {stack: sample for stack, sample in samples.items() if len(sample)}
    if not samples:
        return None
    metric = Metric(base)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for stack, sample in samples.items():
            index = comparison.grid.stacks.index(stack)
            axes.plot(*ecdf(sample), color=colour(index), ls=dash(index), label=stack.label)
        finish_ecdf(axes, metric)
        legend(figure, axes)

    medians = "; ".join(
        f"{stack.label}: median {metric.show(float(np.median(sample)))}" for stack, sample in samples.items()
    )
    title = f"{metric.label[:1].upper()}{metric.label[1:]}, {_cell_name(comparison, cell)}"
    return plot(f"comparison_ecdf_{base}{suffix}", title, f"Share of requests at or below each value. {medians}", draw)


def pooled(runs: Sequence[Run], base: str) -> np.ndarray:
    """All completed requests' values of some runs."""
    parts = [values for run in runs if (values := run.requests.of(base)) is not None]
    return np.concatenate(parts) if parts else np.empty(0)


def ecdf(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of an empirical distribution function, thinned evenly; both ends kept."""
    shares = np.linspace(0, 1, min(ECDF_POINTS, len(sample)))
    return np.quantile(sample, shares), 100 * shares


def finish_ecdf(axes: Axes, metric: Metric) -> None:
    """Axes of a distribution: a logarithmic scale where the values span more than a decade."""
    low, high = axes.dataLim.intervalx
    if low > 0 and high / low > 10:
        axes.set_xscale("log")
    axes.set_ylim(0, 101)
    axes.set_yticks([0, 25, 50, 75, 95])
    axes.set_ylabel("% of requests")
    label_axis(axes, "x", metric.unit)


# --- trade-offs ------------------------------------------------------------------------------------------------------


def pareto(comparison: Comparison) -> Iterator[Plot | None]:
    """Latency against throughput, cost and energy, where there are any; what nothing else beats is filled."""
    points = comparison.points
    if len(points) < 2:
        return
    latency = comparison.primary if comparison.primary.unit == "s" else Metric("ttft_s/mean")
    yield _scatter(comparison, points, latency, "output_tokens_per_s", "comparison_pareto")
    priced = [point for point in points if point.cost is not None]
    if len(priced) > 1 and any(point.cost for point in priced):
        yield _scatter(comparison, priced, latency, "usd_per_million_output_tokens", "comparison_pareto_cost")
    powered = [point for point in points if point.energy is not None]
    if len(powered) > 1:
        yield _scatter(comparison, powered, latency, "gpu/joules_per_output_token", "comparison_pareto_energy")


_ACROSS = {"USD": "cost", "J": "energy"}
_UNITS = {"USD": "USD per million output tokens", "J": "GPU energy per output token, J"}


def _scatter(comparison: Comparison, points: Sequence[Point], latency: Metric, across: str, name: str) -> Plot | None:
    metric = Metric(across)

    def x(point: Point) -> float:
        if across == "output_tokens_per_s":
            return point.throughput
        return (point.cost if metric.unit == "USD" else point.energy) or 0.0

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for at, stack in enumerate(comparison.grid.stacks):
            own = [point for point in points if point.stack == stack]
            axes.plot([x(p) for p in own], [p.latency for p in own], color=colour(at), lw=0.8, alpha=0.5)
            for front in (True, False):
                some = [point for point in own if point.front is front]
                face = colour(at) if front else "none"
                axes.plot(
                    [x(p) for p in some],
                    [p.latency for p in some],
                    marker(at),
                    mfc=face,
                    mec=colour(at),
                    ms=7,
                    ls="none",
                )
            axes.plot([], [], marker(at), color=colour(at), label=stack.label)
        axes.margins(0.14)
        from_zero(axes)
        axes.set_xlim(left=0)
        for point in points:
            axes.annotate(
                f"{point.cell.level:g}",
                (x(point), point.latency),
                (6, 4),
                textcoords="offset points",
                fontsize=7.5,
                color=MUTED,
            )
        label_axis(axes, "y", latency.unit)
        label_axis(axes, "x", metric.unit)
        axes.set_ylabel(f"{latency.label}, {axes.get_ylabel()}")
        axes.set_xlabel(_UNITS.get(metric.unit, metric.label))
        axes.set_title(
            f"numbers: {points[0].cell.axis}; filled: no other beats it", fontsize=8.5, fontweight="normal", color=MUTED
        )
        legend(figure, axes)

    best = "; ".join(f"{point.stack.label} at {point.cell.load}" for point in points if point.front)
    title = f"{latency.label[:1].upper()}{latency.label[1:]} against {_ACROSS.get(metric.unit, 'throughput')}"
    return plot(name, title, f"Not beaten by any other: {best}", draw)


def cost(comparison: Comparison) -> Plot | None:
    """What a million output tokens cost, for each stack and load."""
    metric = Metric("usd_per_million_output_tokens")
    cells = [
        cell
        for cell in comparison.grid.cells
        if any(_priced(comparison, stack, cell) for stack in comparison.grid.stacks)
    ]
    if not cells or not costs(comparison, metric):
        return None

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        stacks = [s for s in comparison.grid.stacks if any(_priced(comparison, s, cell) for cell in cells)]
        width = 0.8 / len(stacks)
        for at, stack in enumerate(stacks):
            heights = [
                (place, value.value) for place, cell in enumerate(cells) if (value := _priced(comparison, stack, cell))
            ]
            places = [place + (at - (len(stacks) - 1) / 2) * width for place, _ in heights]
            shade = colour(comparison.grid.stacks.index(stack))
            bars = axes.bar(places, [height for _, height in heights], 0.92 * width, color=shade, label=stack.label)
            if len(cells) * len(stacks) <= 8:
                axes.bar_label(bars, [metric.show(height) for _, height in heights], fontsize=7.5, padding=2)
        _name_cells(axes, comparison, cells)
        axes.grid(visible=False, axis="x")
        axes.set_ylabel("USD per million output tokens")
        axes.margins(y=0.12)
        legend(figure, axes)

    words = "; ".join(
        f"{stack.label} at {cell.load}: {metric.show(value.value)}"
        for cell, stack in itertools.product(cells, comparison.grid.stacks)
        if (value := _priced(comparison, stack, cell))
    )
    return plot("comparison_cost", "Cost per million output tokens", words, draw, (WIDTH_IN, HEIGHT_IN))


def _name_cells(axes: Axes, comparison: Comparison, cells: Sequence[Cell]) -> None:
    """Loads as numbers where one axis holds them all, else in words."""
    if len({cell.family for cell in cells}) == 1:
        axes.set_xticks(range(len(cells)), [tick(cell.level) for cell in cells])
        axes.set_xlabel(cells[0].axis)
    else:
        axes.set_xticks(
            range(len(cells)), [_cell_name(comparison, cell) for cell in cells], rotation=20, ha="right", fontsize=7
        )


def _priced(comparison: Comparison, stack: Stack, cell: Cell) -> Value | None:
    return comparison.values.get((stack.key, cell.key, "usd_per_million_output_tokens"))
