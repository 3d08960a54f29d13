"""`report.html` of one job: what happened, could it be measured, the numbers, how to repeat it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmexp.compare import stats
from llmexp.config import flatten
from llmexp.metrics.catalogue import Metric, digits
from llmexp.metrics.wording import capacity_headline
from llmexp.report import timeline
from llmexp.report.figures import marked
from llmexp.report.page import render
from llmexp.results.run import Run, load_run

PAGE = "report.html"
COLUMNS = ("count", "mean", "stddev", "min", "p50", "p75", "p90", "p95", "p99", "max")
_NOT_TOLD = ("steady", "slo")


def write(job_dir: Path) -> list[Path]:
    """Write the page and its plots; the files written."""
    run = load_run(job_dir)
    with marked("rehearsal" if run.rehearsal else ""):
        drawn = [timeline.timeline(run, "timeline", "The run over time"), timeline.scatter(run), timeline.latency(run)]
    plots = [plot for plot in drawn if plot]
    page = job_dir / PAGE
    page.write_text(render("job.html.j2", plots=plots, **_data(run)), encoding="utf-8")
    return [page, *(plot.save(job_dir) for plot in plots)]


def _data(run: Run) -> dict[str, Any]:
    result = run.result
    validity = result.get("validity") or {}
    return {
        "title": run.name,
        "headline": _headline(run),
        "status": result.get("status", "unknown"),
        "reason": result.get("reason"),
        "rehearsal": run.rehearsal,
        "started": str(result.get("started_at") or "")[:19].replace("T", " "),
        "verdict": run.verdict,
        "reasons": [(str(each.get("level", "")), _reason(each)) for each in validity.get("reasons") or ()],
        "tiles": list(_tiles(run)),
        "columns": COLUMNS,
        "distributions": list(_distributions(run)),
        "errors": list(_errors(result.get("errors") or {})),
        "deployment": [(name, _show(value)) for name, value in flatten(result.get("deployment") or {}).items()],
        "environment": [(name, _show(value)) for name, value in flatten(result.get("environment") or {}).items()],
        "settings": [(name, _show(value)) for name, value in run.settings.items() if value not in (None, {}, [])],
        "client": [(name, _show(value)) for name, value in flatten(result.get("client") or {}).items()],
        "notes": [*_notes(result.get("notes") or ()), *map(_reason, validity.get("notes") or ())],
        "probes": _probes(result.get("capacity_curve") or {}),
        "again": _again(run),
    }


def _headline(run: Run) -> str:
    """`200 of 200 requests completed: mean TTFT 213 ms, 43.1 tokens/s`."""
    completed, sent = int(run.requests.completed.sum()), len(run.requests)
    if not sent:
        return "No request was sent"
    parts = [
        f"{Metric(name).label} {Metric(name).show(run.values[name])}"
        for name in ("ttft_s/mean", "e2e_latency_s/mean")
        if name in run.values
    ]
    if "output_tokens_per_s" in run.values:
        parts.append(Metric("output_tokens_per_s").show(run.values["output_tokens_per_s"]))
    return f"{completed:,} of {sent:,} requests completed" + (f": {', '.join(parts)}" if parts else "")


def _tiles(run: Run) -> Iterator[tuple[str, str]]:
    names = (
        "ttft_s/p50",
        "ttft_s/p95",
        "time_per_output_token_s/mean",
        "e2e_latency_s/p50",
        "output_tokens_per_s",
        "requests_per_s",
        "goodput_per_s",
        "error_rate",
        "cost_usd",
        "usd_per_million_output_tokens",
    )
    capacity = (run.result.get("metrics") or {}).get("capacity")
    if capacity:
        yield "capacity", capacity_headline(capacity)
    for name in names:
        metric = Metric(name)
        if name in run.values and (metric.unit != "USD" or run.values[name] > 0):
            yield metric.label, metric.show(run.values[name]) + ("" if _carried(run, metric) else "*")
    slo = (run.result.get("metrics") or {}).get("slo")
    if slo:
        yield "service level", f"{'met' if slo.get('met') else 'missed'}, {100 * slo.get('attainment', 0):.1f} % good"


def _carried(run: Run, metric: Metric) -> bool:
    return metric.percent is None or run.values.get(f"{metric.base}/count", 0) >= stats.carries(metric.percent)


def _distributions(run: Run) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """Name and a cell for each of `COLUMNS`, with whether the sample carries it."""
    for base, spread in (run.result.get("metrics") or {}).items():
        if isinstance(spread, Mapping) and "count" in spread and spread["count"] and base not in _NOT_TOLD:
            yield Metric(base).label, [_of_distribution(run, base, spread, name) for name in COLUMNS]


def _of_distribution(run: Run, base: str, spread: Mapping[str, Any], name: str) -> tuple[str, bool]:
    value = spread.get(name)
    if not isinstance(value, int | float):
        return "–", True
    if name == "count":
        return f"{value:,.0f}", True
    metric = Metric(f"{base}/{name}")
    shown = metric.show(float(value)) if metric.unit == "s" else digits(float(value))
    return shown, _carried(run, metric)


def _errors(errors: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    for name, each in errors.items():
        count = each.get("count", 0) if isinstance(each, Mapping) else each
        examples = each.get("examples") or [] if isinstance(each, Mapping) else []
        first = examples[0] if examples else ""
        yield name, int(count), str(first.get("message", "")) if isinstance(first, Mapping) else str(first)


def _reason(reason: Mapping[str, Any]) -> str:
    """`other programs used 47 % of this machine's CPU (limit 10 %): they delay the client. Stop them.`"""
    seen = str(reason.get("seen") or str(reason.get("reason", "")).replace("_", " "))
    said = ": ".join(part for part in (seen, str(reason.get("why") or "")) if part)
    return f"{said}. {reason.get('remedy') or ''}".rstrip()


def _show(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return digits(value, 4)
    return str(value) if isinstance(value, str) else json.dumps(value, default=str)


def _notes(notes: Any) -> list[str]:
    """Remarks in words, whether they stand alone or among other notes."""
    said = notes.get("remarks") or () if isinstance(notes, Mapping) else notes
    return [str(note) for note in said]


def _probes(curve: Mapping[str, Any]) -> list[dict[str, str]]:
    """What a capacity search saw, by rising load."""
    columns = [curve.get(name) or [] for name in ("level", "probe", "passed", "attainment", "goodput_per_s", "why")]
    return [
        {
            "level": digits(level),
            "probe": str(probe),
            "kind": "met" if passed else "missed",
            "share": Metric("error_rate").show(share),
            "goodput": Metric("goodput_per_s").show(goodput),
            "why": str(why or ""),
        }
        for level, probe, passed, share, goodput, why in zip(*columns, strict=False)
    ]


def _again(run: Run) -> str:
    return shlex.join(["python", "-m", "llmexp", *map(str, run.job.get("overrides") or ())])
