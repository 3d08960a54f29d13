"""A comparison as Markdown: for a pull request, a CI summary, and MLflow's description of a sweep."""

from __future__ import annotations

from collections.abc import Iterator

from llmexp.compare import rows
from llmexp.compare.model import Comparison
from llmexp.metrics.wording import escaped


def render(comparison: Comparison) -> str:
    """The whole comparison: headline, table, verdicts, what a reader must know."""
    return "\n".join(_lines(comparison)).rstrip() + "\n"


def _lines(comparison: Comparison) -> Iterator[str]:
    yield f"**{escaped(comparison.headline)}**"
    if comparison.grid.cells:
        yield ""
        yield from table(rows.main(comparison, rows.columns(comparison)))
        yield f"\n{escaped(rows.footnotes(comparison))}"
    told = [text for text, _ in rows.verdicts(comparison)]
    for title, lines in (("Verdicts", told), ("Service level", list(rows.capacities(comparison)))):
        if lines:
            yield f"\n{title}:\n"
            yield from (f"- {escaped(line)}" for line in lines)
    if warnings := rows.remarks(comparison):
        yield "\nTo know along with it:\n"
        yield from (f"- {escaped(line)}" for line in warnings)


def table(shown: rows.Rows) -> Iterator[str]:
    """The lines of a table, names to the left and numbers to the right."""
    yield _row(shown.head)
    yield _row(["---" if at < shown.names else "---:" for at in range(len(shown.head))])
    yield from map(_row, shown.body)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"
