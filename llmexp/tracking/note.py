"""The description of a job's run: what a stranger reads first on its page."""

from __future__ import annotations

from llmexp.json_types import branch
from llmexp.metrics.distributions import carries
from llmexp.metrics.wording import capacity_headline
from llmexp.results.model import Metrics, Result, Spread

_SHOWN = {
    "ttft_s": "Time to first token, s",
    "time_per_output_token_s": "Time per output token, s",
    "e2e_latency_s": "Whole answer, s",
}
_COLUMNS = ("p50", "p95", "mean")


def describe(result: Result) -> str:
    """What a stranger reads first on the run's page (Markdown). MLflow shows three lines of it until asked for more."""
    metrics = result.metrics
    rows = [_latency_row(title, metrics.spread(name)) for name, title in _SHOWN.items()]
    table = ["| | p50 | p95 | mean |", "| --- | --- | --- | --- |", *filter(None, rows)] if any(rows) else []
    counts = _counts(metrics, rehearsal=result.job.rehearsal)
    parts = [_headline(result), _capacity(metrics), counts, "\n".join(table), *_remarks(result)]
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
        "ttft_s/p50": "first token after {:.3g} s (p50)",
        "output_tokens_per_s": "{:.4g} output tokens/s",
        "requests_completed": "{:.0f} requests completed",
        "requests_failed": "{:.0f} failed",
        "requests_unfinished": "{:.0f} unfinished",
        "cost_usd": "would have cost {:.3g} USD" if rehearsal else "{:.3g} USD",
    }
    return ", ".join(shape.format(value) for name, shape in wanted.items() if (value := metrics.number(name)))


def _latency_row(title: str, spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"| {title} | {' | '.join(_cell(spread, name) for name in _COLUMNS)} |"


def _cell(spread: Spread, name: str) -> str:
    value = spread.get(name)
    carried = name == "mean" or carries(int(spread.get("count") or 0), name)
    return f"{value:.4g}" if value is not None and carried else "–"


def _remarks(result: Result) -> list[str]:
    overrides = " ".join(result.job.overrides)
    reasons = [f"- {reason.level}: {reason}" for reason in result.validity.reasons]
    return [
        "\n".join([*reasons, *(f"- {remark}" for remark in result.notes.remarks)]),
        f"Again: `python -m llmexp {overrides}`" if overrides else "",
        "The job at a glance: artifact `report.html`. Every request: `requests.parquet`.",
    ]
