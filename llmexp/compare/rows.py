"""A comparison as plain rows and lines of text: what a terminal, Markdown and a page all show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmexp.compare import change
from llmexp.compare.answers import RIGHT
from llmexp.compare.evidence import Value
from llmexp.compare.model import Comparison, Contrast
from llmexp.compare.quality import Right
from llmexp.compare.stacks import Cell, Stack
from llmexp.metrics.catalogue import Metric

COLUMNS = (
    "ttft_s/p95",
    "time_per_output_token_s/mean",
    "e2e_latency_s/mean",
    "output_tokens_per_s",
    "goodput_per_s",
    "right_share",
    "error_rate",
    "usd_per_million_output_tokens",
    "usd_per_thousand_right",
)


@dataclass(frozen=True, slots=True)
class Rows:
    """A table: its head, how many of its columns are names, and its rows."""

    head: list[str]
    names: int
    body: list[list[str]]


def main(comparison: Comparison, metrics: Sequence[Metric]) -> Rows:
    """A row for each stack at each load, or before and after where that is asked."""
    return _changes(comparison, metrics) if change.spoken(comparison) else _values(comparison, metrics)


def _values(comparison: Comparison, metrics: Sequence[Metric]) -> Rows:
    head = ["load", "stack", comparison.primary.column, "interval", *(metric.column for metric in metrics[1:])]
    body = []
    for cell in comparison.grid.cells:
        shown = load(cell, comparison)
        for stack in comparison.grid.stacks:
            if comparison.grid.at(stack, cell):
                first, *rest = [_cell(comparison, stack, cell, metric) for metric in metrics]
                body.append([shown, stack.label, first, _interval(comparison, stack, cell), *rest])
                shown = ""
    return Rows(head, 2, body)


def _changes(comparison: Comparison, metrics: Sequence[Metric]) -> Rows:
    """Models and metrics as rows, occasions as columns."""
    occasions = change.occasions(comparison)
    before: tuple[str, str] | None = None
    body = []
    for row in change.changes(comparison, metrics):
        head = (load(row.cell, comparison), row.model)
        values = [_cell(comparison, stack, row.cell, row.metric) for stack in row.stacks]
        values += ["–"] * (len(occasions) - len(values))
        body.append([*(("", "") if head == before else head), row.metric.column, *values, row.change])
        before = head
    return Rows(["load", "model", "metric", *occasions, "change"], 3, body)


def columns(comparison: Comparison) -> list[Metric]:
    """The main metrics, the primary one and right answers first; money only where something costs any."""
    shown = [metric for metric in comparison.metrics if metric.name in COLUMNS]
    found = dict.fromkeys([comparison.primary, *(metric for metric in shown if metric.name == RIGHT), *shown])
    return [
        metric for metric in found if metric.unit != "USD" or metric == comparison.primary or costs(comparison, metric)
    ]


def costs(comparison: Comparison, metric: Metric) -> bool:
    """Whether anything has a price above zero."""
    return any(value.value > 0 for (_, _, name), value in comparison.values.items() if name == metric.name)


def load(cell: Cell, comparison: Comparison) -> str:
    """The load in words, with its workload where there are several."""
    return cell.words if comparison.grid.several_workloads else cell.load


def _cell(comparison: Comparison, stack: Stack, cell: Cell, metric: Metric) -> str:
    return _show(comparison.values.get((stack.key, cell.key, metric.name)), metric)


def _interval(comparison: Comparison, stack: Stack, cell: Cell) -> str:
    value = comparison.values.get((stack.key, cell.key, comparison.primary.name))
    if value is None or value.low is None or value.high is None:
        return "–"
    return comparison.primary.show_range(value.low, value.high)


def _show(value: Value | None, metric: Metric) -> str:
    if value is None:
        return "–"
    shown = metric.show(value.value) if metric.unit in ("s", "share", "USD") else metric.show(value.value).split()[0]
    if value.rough:
        return f"≈{shown}"
    return shown if value.carried else f"{shown}*"


def footnotes(comparison: Comparison) -> str:
    """What the marks and intervals of the table mean."""
    confidence = f"{100 * comparison.options.confidence:g} %"
    values = comparison.values.values()
    where = "over repeats" if "blocks" in {value.basis for value in values} else "within these runs"
    words = [f"{confidence} intervals {where}"]
    if any(not value.carried for value in values):
        words.append("* too few requests for this percentile")
    if any(value.rough for value in values):
        words.append("≈ rests on an estimate")
    return "; ".join(words)


def verdicts(comparison: Comparison) -> list[tuple[str, str]]:
    """(text, call) of every verdict where the headline alone does not say it."""
    told: list[tuple[str, str]] = [(verdict_text(comparison, each), each.call) for each in comparison.verdicts]
    told += [(right_text(comparison, right), right.call) for right in comparison.rights]
    told = told if len(told) > 1 else []
    return told + [(right_text(comparison, right), right.call) for right in comparison.load_effects if right.shown]


def verdict_text(comparison: Comparison, contrast: Contrast) -> str:
    """A verdict that can stand alone: a refusal does not name its stacks by itself."""
    if contrast.call != "refused":
        return contrast.text
    where = load(contrast.cell, comparison)
    return f"{contrast.candidate.label} and {contrast.reference.label} at {where}: {contrast.text}"


def right_text(comparison: Comparison, right: Right) -> str:
    """A verdict on answers that can stand alone."""
    if right.call != "refused":
        return right.text
    where = load(right.cell, comparison)
    return f"{right.candidate.label}'s answers and {right.reference.label}'s at {where}: {right.text}"


def capacities(comparison: Comparison) -> Iterator[str]:
    """The highest load at which each stack keeps the service level, and what it yields there."""
    for capacity in comparison.capacities:
        best, label = capacity.best, capacity.stack.label
        if best is None:
            yield f"{label}: service level missed at every load measured"
            continue
        more = " (the highest measured)" if capacity.limit else ""
        parts = [f"{100 * best.share:.1f} % good"]
        if best.goodput_per_s is not None:
            parts.append(f"goodput {Metric('goodput_per_s').show(best.goodput_per_s)}")
        if best.usd_per_thousand_good:
            parts.append(f"{Metric('cost_usd').show(best.usd_per_thousand_good)} per thousand good requests")
        yield f"{label}: sustains {best.cell.load}{more}: {', '.join(parts)}"


def remarks(comparison: Comparison) -> list[str]:
    """What a reader must know along with the verdicts; what holds at several loads is said once."""
    seen: dict[tuple[str, ...], dict[str, str]] = {}
    for one, two, cell, finding in comparison.findings:
        if finding.level == "label":
            about = (finding.about,) if finding.about else (one.key, two.key)
            seen.setdefault((finding.reason, *about), {}).setdefault(cell.key, finding.text)
    texts = dict.fromkeys(f"{next(iter(each.values()))}{_alike(len(each) - 1)}" for each in seen.values())
    ungraded = dict.fromkeys(label for right in comparison.rights for label in right.labels)
    return [*texts, *ungraded, *_left_out(comparison), *comparison.notes]


def _left_out(comparison: Comparison) -> Iterator[str]:
    """Runs that could not be compared, the ones with the same reason together."""
    by_reason: dict[str, list[str]] = {}
    for name, why in comparison.left_out:
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        yield f"left out: {', '.join(names) if len(names) <= 3 else f'{len(names)} runs'} ({why})"


def _alike(others: int) -> str:
    return "" if not others else f" (and alike at {others} other {'load' if others == 1 else 'loads'})"
