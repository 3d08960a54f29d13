"""The comparison on a terminal: headline, what differs, a table, the verdicts."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from llmexp.compare import rows
from llmexp.compare.model import Comparison
from llmexp.metrics.catalogue import Metric

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
        yield from _values(comparison, width)
        yield Text(f"{rows.footnotes(comparison)}\n", style="dim")
    told = rows.verdicts(comparison)
    yield from (_point(" •", text, _STYLES.get(call, "green")) for text, call in told)
    if told:
        yield Text("")
    yield from map(Text, rows.capacities(comparison))
    yield from (_point("!", remark, "yellow") for remark in rows.remarks(comparison))


def _point(mark: str, text: str, style: str) -> Table:
    """A text behind its mark, further lines below its first one."""
    point = Table.grid(padding=(0, 1, 0, 0))
    point.add_row(Text(mark, style=style), Text(text, style=style))
    return point


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


def _values(comparison: Comparison, width: int) -> Iterator[RenderableType]:
    """A row for each stack at each load, with as many columns as the terminal holds; what is left out is named."""
    metrics = rows.columns(comparison)
    left_out: list[Metric] = []
    console = Console(width=10_000, markup=False)
    table = _table(rows.main(comparison, metrics))
    while len(metrics) > 1 and Measurement.get(console, console.options, table).maximum > width:
        left_out.insert(0, metrics.pop())
        table = _table(rows.main(comparison, metrics))
    yield table
    if left_out:
        names = ", ".join(metric.column for metric in left_out)
        yield Text(f"not shown at this width: {names} (comparison.html, comparison.md)", style="dim")


def _table(shown: rows.Rows) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for at, name in enumerate(shown.head):
        table.add_column(name, justify="left" if at < shown.names else "right", overflow="fold")
    for row in shown.body:
        table.add_row(*row)
    return table
