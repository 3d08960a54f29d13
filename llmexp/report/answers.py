"""Right answers on the pages: beside speed, beside money, and the wrong ones to be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from llmexp import records
from llmexp.compare.answers import RIGHT
from llmexp.compare.evidence import Value
from llmexp.compare.model import Comparison
from llmexp.compare.quality import IDENTICAL, Right, span
from llmexp.compare.stacks import Cell, Stack
from llmexp.metrics.catalogue import Metric
from llmexp.metrics.wording import confidence, digits
from llmexp.report.figures import HEIGHT_IN, MUTED, WIDTH_IN, Plot, colour, label_axis, legend, marker, plot
from llmexp.results.run import Run

COST = "usd_per_thousand_right"
ON_A_JOB, ON_A_COMPARISON = 50, 20
"""Wrong answers shown of a job, and of each stack of a comparison."""
LONGEST = 2000
"""Characters of a text that are shown."""
_NAME = 34
_BADGES = {
    "better": "better",
    "worse": "worse",
    "not_worse": "not worse",
    "undecided": "undecided",
    "withheld": "no verdict",
    "refused": "no verdict",
}
_OF_CHANGE = {"better": "steadier", "worse": "changed", "not_worse": "unchanged"}
"""Where it is not about right answers, but about the same ones."""
_KINDS = {"better": "won", "worse": "missed", "not_worse": "tie"}


# --- verdicts --------------------------------------------------------------------------------------------------------


def verdict(right: Right) -> dict[str, object]:
    """A verdict on answers, for the page's list."""
    gap = right.difference
    how = "paired by prompt" if gap.paired else "not paired: the prompts differ"
    return {
        "badge": (_BADGES | (_OF_CHANGE if right.metric == IDENTICAL else {}))[right.call],
        "kind": _KINDS.get(right.call, right.call),
        "text": right.text.removeprefix("undecided: "),
        "interval": span(right) if right.call == "refused" else "",
        "confidence": confidence(right.alpha),
        "basis": f"{gap.prompts:,} prompts, {gap.blocks} {'repeat' if gap.blocks == 1 else 'repeats'}, {how}",
        "labels": list(right.labels),
    }


# --- drawings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Point:
    stack: Stack
    cell: Cell
    right: Value
    latency: Value


def plane(comparison: Comparison) -> Plot | None:
    """Right answers against latency, both with their intervals: further up and further left is better."""
    latency = comparison.primary if comparison.primary.unit == "s" else Metric("ttft_s/mean")
    points = list(_points(comparison, latency))
    if not points:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for at, stack in enumerate(comparison.grid.stacks):
            own = [point for point in points if point.stack == stack]
            if not own:
                continue
            axes.errorbar(
                [point.latency.value for point in own],
                [100 * point.right.value for point in own],
                xerr=_bars([point.latency for point in own], 1),
                yerr=_bars([point.right for point in own], 100),
                fmt=marker(at),
                color=colour(at),
                ms=6,
                lw=1,
                label=stack.label,
            )
        for where, levels in _levels(points).items():
            axes.annotate(", ".join(levels), where, (6, 4), textcoords="offset points", fontsize=7.5)
        axes.set_title(
            f"numbers: {points[0].cell.axis}; up and left is better", fontsize=8.5, fontweight="normal", color=MUTED
        )
        axes.margins(0.14)
        axes.set_xlim(left=0)
        axes.set_ylabel("right answers, %")
        label_axis(axes, "x", latency.unit)
        axes.set_xlabel(f"{latency.label}, {axes.get_xlabel()}")
        legend(figure, axes)

    words = "; ".join(
        f"{point.stack.label} at {point.cell.load}: {100 * point.right.value:.1f} % right, "
        f"{latency.label} {latency.show(point.latency.value)}"
        for point in points
    )
    return plot("comparison_right", f"Right answers and {latency.label}", words, draw, (WIDTH_IN, HEIGHT_IN))


def _levels(points: list[_Point]) -> dict[tuple[float, float], list[str]]:
    """Where a number is written → the loads that lie there, as good as at one place."""
    widest = max(point.latency.value for point in points)
    found: dict[tuple[float, float], list[str]] = {}
    for point in points:
        at = (point.latency.value, 100 * point.right.value)
        near = (known for known in found if abs(known[0] - at[0]) < 0.04 * widest and abs(known[1] - at[1]) < 3)
        found.setdefault(next(near, at), []).append(f"{point.cell.level:g}")
    return {at: list(dict.fromkeys(levels)) for at, levels in found.items()}


def _points(comparison: Comparison, latency: Metric) -> Iterator[_Point]:
    for cell in comparison.grid.cells:
        for stack in comparison.grid.stacks:
            right, slow = (comparison.values.get((stack.key, cell.key, name)) for name in (RIGHT, latency.name))
            if right is not None and slow is not None:
                yield _Point(stack, cell, right, slow)


def _bars(values: list[Value], scale: float) -> np.ndarray:
    """Distances down and up; nothing where there is no interval."""
    below = [0.0 if value.low is None else max(0.0, value.value - value.low) for value in values]
    above = [0.0 if value.high is None else max(0.0, value.high - value.value) for value in values]
    return scale * np.array([below, above])


def per_dollar(comparison: Comparison) -> Plot | None:
    """Right answers that a dollar buys, for each stack and load."""
    grid = comparison.grid
    found = [
        (at, cell, 1000 / value.value)
        for cell in grid.cells
        for at, stack in enumerate(grid.stacks)
        if (value := comparison.values.get((stack.key, cell.key, COST))) and value.value > 0
    ]
    if not found:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        names = [f"{grid.stacks[at].label}, {cell.load}" for at, cell, _ in found]
        bars = axes.barh(
            range(len(found)), [count for _, _, count in found], 0.7, color=[colour(at) for at, *_ in found]
        )
        axes.bar_label(bars, [f"{digits(count)}" for *_, count in found], fontsize=7.5, padding=2)
        names = [name if len(name) <= _NAME else f"{name[: _NAME - 1]}…" for name in names]
        axes.set_yticks(range(len(found)), names)
        axes.locator_params(axis="x", nbins=4)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.2)
        axes.set_xlabel("right answers per USD")
        figure.subplots_adjust(left=min(0.6, 0.04 + 0.0175 * max(map(len, names))))

    words = "; ".join(f"{grid.stacks[at].label} at {cell.load}: {digits(count)}" for at, cell, count in found)
    size = (WIDTH_IN, max(HEIGHT_IN * 0.6, 0.8 + 0.3 * len(found)))
    return plot("comparison_right_per_usd", "Right answers per dollar", words, draw, size)


# --- wrong answers ---------------------------------------------------------------------------------------------------


def wrong(run: Run, most: int) -> list[dict[str, str]]:
    """Wrong answers whose texts were kept, the first ones by index: question, answer, expected, grade."""
    if run.directory is None or not records.exists(run.directory) or not run.metrics.number("requests_graded"):
        return []
    names = ["index", "question", "text", "tool_calls", "expected", "score", "right", "grade_status", "grade_note"]
    found: list[dict[str, object]] = []
    for batch in records.iterate(run.directory):
        rows = batch.select(names).to_pylist()
        found += [row for row in rows if row["right"] is False and (row["text"] is not None or row["tool_calls"])]
        found = sorted(found, key=lambda row: int(str(row["index"])))[:most]
    return [_shown(row) for row in found]


def _shown(row: dict[str, object]) -> dict[str, str]:
    status = "" if row["grade_status"] == "graded" else f"{row['grade_status']}, "
    note = f": {row['grade_note']}" if row["grade_note"] else ""
    score = row["score"]
    answer = "\n".join(str(part) for part in (row["text"], row["tool_calls"]) if part)
    return {
        "index": str(row["index"]),
        "question": _trimmed(str(row["question"] or "")),
        "answer": _trimmed(answer),
        "expected": _trimmed(_plain(row["expected"])),
        "grade": f"{status}score {score:g}{note}" if isinstance(score, float) else f"{status}{note}",
    }


def _plain(expected: object) -> str:
    """What is expected, without JSON's quotes around a text."""
    if not isinstance(expected, str):
        return ""
    value = json.loads(expected)
    return value if isinstance(value, str) else expected


def _trimmed(text: str) -> str:
    """The end of a long text is shown: questions stand behind their context."""
    return text if len(text) <= LONGEST else f"… {text[-LONGEST:]}"
