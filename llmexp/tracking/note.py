"""The description of a job's run: what a stranger reads first on its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHOWN = {
    "ttft_s": "Time to first token, s",
    "time_per_output_token_s": "Time per output token, s",
    "e2e_latency_s": "Whole answer, s",
}


def describe(result: Mapping[str, Any]) -> str:
    """What a stranger reads first on the run's page (Markdown). MLflow shows three lines of it until asked for more."""
    metrics = result.get("metrics") or {}
    rows = [_latency_row(title, metrics.get(name)) for name, title in _SHOWN.items()]
    table = ["| | p50 | p95 | mean |", "| --- | --- | --- | --- |", *filter(None, rows)] if any(rows) else []
    counts = _counts(metrics, rehearsal=bool(result["job"].get("rehearsal")))
    parts = [_headline(result), _capacity(metrics), counts, "\n".join(table), *_remarks(result)]
    return "\n\n".join(part for part in parts if part)


def _headline(result: Mapping[str, Any]) -> str:
    job, status = result["job"], result.get("status", "finished")
    verdict = (result.get("validity") or {}).get("verdict")
    played = " (rehearsal: the simulator plays the model)" if job.get("rehearsal") else ""
    judged = f", measurement {verdict}" if verdict else ""
    reason = f" {result['reason']}" if result.get("reason") else ""
    return f"**{job.get('name') or job.get('model')}**{played}: {status}{judged}.{reason}"


def _capacity(metrics: Mapping[str, Any]) -> str:
    found = metrics.get("capacity")
    if not found:
        return ""
    from llmexp.metrics.wording import capacity_headline

    reason = f" {found['reason']}." if found["reason"] else ""
    return f"**Capacity: {capacity_headline(found)}**.{reason} Each probe is a run below this one."


def _counts(metrics: Mapping[str, Any], *, rehearsal: bool) -> str:
    ttft = metrics.get("ttft_s") or {}
    wanted = (
        (ttft.get("p50"), "first token after {:.3g} s (p50)"),
        (metrics.get("output_tokens_per_s"), "{:.4g} output tokens/s"),
        (metrics.get("requests_completed"), "{:.0f} requests completed"),
        (metrics.get("requests_failed"), "{:.0f} failed"),
        (metrics.get("requests_unfinished"), "{:.0f} unfinished"),
        (metrics.get("cost_usd"), "would have cost {:.3g} USD" if rehearsal else "{:.3g} USD"),
    )
    return ", ".join(shape.format(value) for value, shape in wanted if isinstance(value, int | float) and value)


def _latency_row(title: str, spread: Any) -> str:
    if not isinstance(spread, Mapping) or not spread.get("count"):
        return ""
    carried = {"p50": 5, "p95": 59, "mean": 1}
    cells = [_cell(spread.get(name)) if spread["count"] >= least else "–" for name, least in carried.items()]
    return f"| {title} | {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "–"


def _remarks(result: Mapping[str, Any]) -> list[str]:
    reasons = (result.get("validity") or {}).get("reasons") or []
    remarks = (result.get("notes") or {}).get("remarks") or []
    overrides = " ".join(result["job"].get("overrides") or [])
    return [
        "\n".join([*map(_reason, reasons), *(f"- {remark}" for remark in remarks)]),
        f"Again: `python -m llmexp {overrides}`" if overrides else "",
        "The job at a glance: artifact `report.html`. Every request: `requests.parquet`.",
    ]


def _reason(reason: Mapping[str, Any]) -> str:
    why = f": {reason['why']}" if reason.get("why") else ""
    return f"- {reason.get('level')}: {reason.get('seen') or reason.get('reason')}{why}. {reason.get('remedy') or ''}"
