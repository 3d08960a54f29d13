"""The comparison on a terminal: headline, what differs, a table, the verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llmexp.compare import change
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
_STYLES = {
    "tie": "cyan",
    "not_worse": "cyan",
    "worse": "red",
    "undecided": "yellow",
    "refused": "red",
    "withheld": "dim",
}
SHOWN_DIFFERENCES = 12


def render(comparison: Comparison, width: int | None = None) -> str:
    """The whole comparison as text for stdout; with colours where stdout is a terminal."""
    console = Console(width=width, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(Group(*_parts(comparison, console.width)))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _parts(comparison: Comparison, width: int) -> Iterator[RenderableType]:
    yield Text(f"\n{comparison.headline}\n", style="bold")
    if comparison.grid.differences:
        yield from _differences(comparison)
    if comparison.grid.cells:
        yield _changes(comparison) if change.spoken(comparison) else _values(comparison, width)
        yield from _footnotes(comparison)
    yield from _verdicts(comparison)
    yield from _capacities(comparison)
    yield from _remarks(comparison)


def _differences(comparison: Comparison) -> Iterator[RenderableType]:
    """What differs stands first."""
    table = Table(title="What differs", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for stack in comparison.grid.stacks:
        table.add_column(stack.label, overflow="fold")
    for each in comparison.grid.differences[:SHOWN_DIFFERENCES]:
        table.add_row(each.name, *each.values)
    yield table
    more = len(comparison.grid.differences) - SHOWN_DIFFERENCES
    yield Text(f"and {more} more in comparison.html\n" if more > 0 else "", style="dim")


def _values(comparison: Comparison, width: int) -> Table:
    """A row for each stack at each load, with as many columns as the terminal holds."""
    metrics = columns(comparison)
    console = Console(width=10_000, markup=False)
    while len(metrics) > 1:
        made = _table(comparison, metrics)
        if Measurement.get(console, console.options, made).maximum <= width:
            return made
        metrics.pop()
    return _table(comparison, metrics)


def _changes(comparison: Comparison) -> Table:
    """Before and after: models and metrics as rows, occasions as columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    occasions = change.occasions(comparison)
    for name in ("load", "model", "metric", *occasions, "change"):
        side: Literal["left", "right"] = "left" if name in ("load", "model", "metric") else "right"
        table.add_column(name, justify=side, overflow="fold")
    before: tuple[str, ...] = ()
    for row in change.changes(comparison, columns(comparison)):
        head = (_load(row.cell, comparison), row.model)
        shown = ("", "") if head == before else head
        values = [_cell(comparison, stack, row.cell, row.metric) for stack in row.stacks]
        values += ["–"] * (len(occasions) - len(values))
        decided = row.metric == comparison.primary
        table.add_row(*shown, row.metric.column, *values, Text(row.change, style="bold" if decided else "dim"))
        before = head
    return table


def columns(comparison: Comparison) -> list[Metric]:
    """The main metrics, the primary one first; money only where something costs any."""
    found = dict.fromkeys([comparison.primary, *(metric for metric in comparison.metrics if metric.name in COLUMNS)])
    return [
        metric for metric in found if metric.unit != "USD" or metric == comparison.primary or costs(comparison, metric)
    ]


def costs(comparison: Comparison, metric: Metric) -> bool:
    """Whether anything has a price above zero."""
    return any(value.value > 0 for (_, _, name), value in comparison.values.items() if name == metric.name)


def _table(comparison: Comparison, metrics: Sequence[Metric]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("load", "stack", comparison.primary.column, "interval", *(metric.column for metric in metrics[1:])):
        table.add_column(name, justify="left" if name in ("load", "stack") else "right", overflow="fold")
    for cell in comparison.grid.cells:
        shown = _load(cell, comparison)
        for stack in comparison.grid.stacks:
            if comparison.grid.at(stack, cell):
                first, *rest = [_cell(comparison, stack, cell, metric) for metric in metrics]
                table.add_row(shown, stack.label, first, _interval(comparison, stack, cell), *rest)
                shown = ""
    return table


def _load(cell: Cell, comparison: Comparison) -> str:
    return cell.words if comparison.grid.several_workloads else cell.load


def _cell(comparison: Comparison, stack: Stack, cell: Cell, metric: Metric) -> str:
    return _show(comparison.values.get((stack.key, cell.key, metric.name)), metric)


def _interval(comparison: Comparison, stack: Stack, cell: Cell) -> Text:
    value = comparison.values.get((stack.key, cell.key, comparison.primary.name))
    if value is None or value.low is None or value.high is None:
        return Text("–", style="dim")
    return Text(comparison.primary.show_range(value.low, value.high), style="dim")


def _show(value: Value | None, metric: Metric) -> str:
    if value is None:
        return "–"
    shown = metric.show(value.value) if metric.unit in ("s", "share", "USD") else metric.show(value.value).split()[0]
    if value.rough:
        return f"≈{shown}"
    return shown if value.carried else f"{shown}*"


def _footnotes(comparison: Comparison) -> Iterator[RenderableType]:
    confidence = f"{100 * comparison.options.confidence:g} %"
    bases = {value.basis for value in comparison.values.values()}
    words = [f"{confidence} intervals {'over repeats' if 'blocks' in bases else 'within these runs'}"]
    if any(not value.carried for value in comparison.values.values()):
        words.append("* too few requests for this percentile")
    yield Text(f"{'; '.join(words)}\n", style="dim")


def _verdicts(comparison: Comparison) -> Iterator[RenderableType]:
    told: list[tuple[str, str]] = [(verdict_text(comparison, each), each.call) for each in comparison.verdicts]
    told += [(right_text(comparison, right), right.call) for right in comparison.rights]
    told = told if len(told) > 1 else []
    told += [(right_text(comparison, right), right.call) for right in comparison.load_effects]
    for text, call in told:
        yield Padding(Text(f"• {text}", style=_STYLES.get(call, "green")), (0, 0, 0, 1))
    if told:
        yield Text("")


def verdict_text(comparison: Comparison, contrast: Contrast) -> str:
    """A verdict that can stand alone: a refusal does not name its stacks by itself."""
    if contrast.call != "refused":
        return contrast.text
    where = _load(contrast.cell, comparison)
    return f"{contrast.candidate.label} and {contrast.reference.label} at {where}: {contrast.text}"


def right_text(comparison: Comparison, right: Right) -> str:
    """A verdict on answers that can stand alone."""
    if right.call != "refused":
        return right.text
    where = _load(right.cell, comparison)
    return f"{right.candidate.label}'s answers and {right.reference.label}'s at {where}: {right.text}"


def _capacities(comparison: Comparison) -> Iterator[RenderableType]:
    for capacity in comparison.capacities:
        best, label = capacity.best, capacity.stack.label
        if best is None:
            yield Text(f"{label}: service level missed at every load measured")
            continue
        more = " (the highest measured)" if capacity.limit else ""
        parts = [f"{100 * best.share:.1f} % good"]
        if best.goodput_per_s is not None:
            parts.append(f"goodput {Metric('goodput_per_s').show(best.goodput_per_s)}")
        if best.usd_per_thousand_good:
            parts.append(f"{Metric('cost_usd').show(best.usd_per_thousand_good)} per thousand good requests")
        yield Text(f"{label}: sustains {best.cell.load}{more}: {', '.join(parts)}")


def _remarks(comparison: Comparison) -> Iterator[RenderableType]:
    for text in remarks(comparison):
        yield Text(f"! {text}", style="yellow")


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
