"""One job for other tools: `report.md` for a pull request or a CI summary, `report.csv` for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from llmexp.metrics.catalogue import Metric
from llmexp.metrics.distributions import carries
from llmexp.metrics.wording import escaped
from llmexp.results.model import Spread
from llmexp.results.run import Run

COLUMNS = ("mean", "p50", "p90", "p95", "p99", "max")
NUMBERS = (
    "output_tokens_per_s",
    "requests_per_s",
    "goodput_per_s",
    "error_rate",
    "right_share",
    "cost_usd",
    "usd_per_million_output_tokens",
)
LATENCIES = ("ttft_s", "time_per_output_token_s", "inter_token_latency_s", "e2e_latency_s")
OPEN_LOOP = ("response_ttft_s", "response_latency_s")


def markdown(run: Run) -> str:
    """The job at a glance."""
    return "\n".join(_lines(run)).rstrip() + "\n"


def _lines(run: Run) -> Iterator[str]:
    result = run.result
    played = ", a rehearsal: the simulator played the model" if run.rehearsal else ""
    yield f"**{escaped(run.name)}**: {result.status}, measurement {run.verdict}{played}"
    if result.reason:
        yield f"\n{escaped(result.reason)}"
    rows = [(name, spread) for name in _latencies(run) if (spread := run.metrics.spread(name))]
    if rows:
        yield f"\n| latency | {' | '.join(COLUMNS)} |"
        yield f"| --- |{' ---: |' * len(COLUMNS)}"
        yield from (_row(run, name, spread) for name, spread in rows)
    numbers = [(Metric(name), value) for name in NUMBERS if (value := run.metrics.number(name)) is not None]
    if numbers:
        yield "\n| | |\n| --- | ---: |"
        yield f"| requests completed | {run.metrics.number('requests_completed') or 0:,.0f} |"
        yield from (f"| {metric.label} | {metric.show(value)} |" for metric, value in numbers)
    said = [*map(str, result.validity.reasons), *map(str, result.validity.notes), *result.notes.remarks]
    if said:
        yield ""
        yield from (f"- {escaped(line)}" for line in said)


def _latencies(run: Run) -> tuple[str, ...]:
    return (*OPEN_LOOP, *LATENCIES) if run.open_loop else LATENCIES


def _row(run: Run, name: str, spread: Spread) -> str:
    count = int(spread.get("count") or 0)
    cells = []
    for column in COLUMNS:
        shown = Metric(name).show(spread.get(column))
        if column.startswith("p") and not carries(count, column):
            shown = f"{shown}\\*"
        cells.append(f"≈{shown}" if run.result.rough(name) else shown)
    return f"| {Metric(name).row} | {' | '.join(cells)} |"


def table(run: Run) -> str:
    """Every number of the job, a row each: metric, value, unit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("metric", "value", "unit"))
    for name, value in run.values.items():
        writer.writerow((name, repr(value), Metric(name).unit if not name.endswith("/count") else ""))
    return text.getvalue()
