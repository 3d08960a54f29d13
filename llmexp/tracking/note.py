"""The description of a job's run: what a stranger reads first on its page."""

from __future__ import annotations

from llmexp.json_types import branch
from llmexp.metrics.catalogue import Metric
from llmexp.metrics.distributions import carries
from llmexp.metrics.wording import capacity_headline
from llmexp.results import again
from llmexp.results.model import Metrics, Result, Spread
from llmexp.results.run import Run

_SHOWN = ("ttft_s", "time_per_output_token_s", "e2e_latency_s")
_COLUMNS = ("p50", "p95", "mean")


def describe(run: Run) -> str:
    """What a stranger reads first on the run's page (Markdown). MLflow shows three lines of it until asked for more."""
    result, metrics = run.result, run.result.metrics
    rows = [_latency_row(Metric(name), metrics.spread(name)) for name in _SHOWN]
    table = ["| | p50 | p95 | mean |", "| --- | --- | --- | --- |", *filter(None, rows)] if any(rows) else []
    counts = _counts(metrics, rehearsal=result.job.rehearsal)
    parts = [_headline(result), _capacity(metrics), counts, "\n".join(table), *_remarks(run)]
    return "\n\n".join(part for part in parts if part)


def _headline(result: Result) -> str:
    played = " (rehearsal: the simulator plays the model)" if result.job.rehearsal else ""
    reason = f" {result.reason}" if result.reason else ""
    judged = f"measurement {result.validity.verdict}"
    return f"**{result.job.name or result.job.model}**{played}: {result.status}, {judged}.{reason}"


def _capacity(metrics: Metrics) -> str:
    found = branch(metrics, "capacity")
    if not found:
        return ""
    reason = f" {found['reason']}." if found.get("reason") else ""
    return f"**Capacity: {capacity_headline(found)}**.{reason} Each probe is a run below this one."


def _counts(metrics: Metrics, *, rehearsal: bool) -> str:
    wanted = {
        "ttft_s/p50": "first token after {} (p50)",
        "output_tokens_per_s": "{}",
        "requests_completed": "{} completed",
        "requests_failed": "{} failed",
        "requests_unfinished": "{} unfinished",
        "right_share": "{} right",
        "cost_usd": "would have cost {}" if rehearsal else "{}",
    }
    found = {name: metrics.number(name) for name in wanted}
    return ", ".join(words.format(_said(name, found[name])) for name, words in wanted.items() if found[name])


def _said(name: str, value: float | None) -> str:
    if value is not None and name.startswith("requests_"):
        return f"{value:,.0f} requests" if name == "requests_completed" else f"{value:,.0f}"
    return Metric(name).show(value)


def _latency_row(metric: Metric, spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"| {metric.row} | {' | '.join(_cell(metric, spread, name) for name in _COLUMNS)} |"


def _cell(metric: Metric, spread: Spread, name: str) -> str:
    carried = name == "mean" or carries(int(spread.get("count") or 0), name)
    return metric.show(spread.get(name)) if carried else "–"


def _remarks(run: Run) -> list[str]:
    result = run.result
    reasons = [f"- {reason.level}: {reason}" for reason in result.validity.reasons]
    return [
        "\n".join([*reasons, *(f"- {remark}" for remark in result.notes.remarks)]),
        f"Again: `{again.command(run)}`" if result.job.overrides else "",
        "The job at a glance: artifact `report.html`. Every request: `requests.parquet`.",
    ]
