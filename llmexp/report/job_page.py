"""`report.html` of one job: what happened, could it be measured, the numbers, how to repeat it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from llmexp.compare.answers import RIGHT
from llmexp.config import flatten
from llmexp.json_types import Tree, branch, items, number
from llmexp.metrics.catalogue import Metric
from llmexp.metrics.distributions import carries
from llmexp.metrics.wording import capacity_headline, digits
from llmexp.report import answers, capacity, exports, timeline, turns
from llmexp.report.figures import drawing
from llmexp.report.page import render
from llmexp.results import again
from llmexp.results.files import put
from llmexp.results.guard import Guard, relog_command
from llmexp.results.model import ErrorClass, Spread
from llmexp.results.run import Run

PAGE = "report.html"
COLUMNS = ("count", "mean", "stddev", "min", "p50", "p75", "p90", "p95", "p99", "max")


def write(run: Run, guard: Guard) -> list[Path]:
    """Write the page and its plots into the run's directory; the files written."""
    assert run.directory is not None
    with drawing(guard, relog_command(run.directory), "rehearsal" if run.rehearsal else ""):
        drawn = [timeline.latency(run), timeline.timeline(run, "timeline", "The run over time"), timeline.scatter(run)]
        drawn.insert(0, capacity.curve(run))
        drawn += turns.by_turn({0: (run.name, [run])}, "")
    plots = [plot for plot in drawn if plot]
    page = run.directory / PAGE
    put(page, render("job.html.j2", plots=plots, **_data(run)))
    words, numbers = run.directory / "report.md", run.directory / "report.csv"
    put(words, exports.markdown(run))
    put(numbers, exports.table(run))
    return [page, words, numbers, *(plot.save(run.directory) for plot in plots)]


def _data(run: Run) -> dict[str, object]:
    result = run.result
    return {
        "title": run.name,
        "headline": _headline(run),
        "status": result.status,
        "reason": result.reason,
        "rehearsal": run.rehearsal,
        "started": "" if result.started_at is None else f"{result.started_at:%Y-%m-%d %H:%M:%S}",
        "verdict": run.verdict,
        "reasons": [(reason.level, str(reason)) for reason in result.validity.reasons],
        "tiles": list(_tiles(run)),
        "columns": COLUMNS,
        "distributions": list(_distributions(run)),
        "turn_columns": turns.COLUMNS,
        "turns": turns.table(run),
        "errors": list(_errors(result.errors)),
        "wrong": answers.wrong(run, answers.ON_A_JOB),
        "most_wrong": answers.ON_A_JOB,
        "deployment": [(name, _show(value)) for name, value in flatten(result.deployment).items()],
        "environment": [(name, _show(value)) for name, value in flatten(result.environment.model_dump()).items()],
        "settings": [(name, _show(value)) for name, value in run.settings.items() if value not in (None, {}, [])],
        "client": [(name, _show(value)) for name, value in flatten(result.client).items()],
        "notes": [*result.notes.remarks, *map(str, result.validity.notes)],
        "probes": _probes(result.capacity_curve or {}),
        "again": again.command(run),
    }


_OF_NOTE = ("requests_unparsed", "requests_ungraded", "requests_truncated")
"""Counts that are worth a tile where they are not 0."""


def _headline(run: Run) -> str:
    """`200 of 200 requests completed: mean TTFT 213 ms, 43.1 tokens/s, 81.2 % right answers`."""
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
    if RIGHT in run.values:
        parts.append(f"{Metric(RIGHT).show(run.values[RIGHT])} right answers")
    return f"{completed:,} of {sent:,} requests completed" + (f": {', '.join(parts)}" if parts else "")


def _tiles(run: Run) -> Iterator[tuple[str, str]]:
    names = (
        "ttft_s/p50",
        "ttft_s/p95",
        "time_to_first_tool_call_s/p50",
        "time_per_output_token_s/mean",
        "e2e_latency_s/p50",
        "output_tokens_per_s",
        "requests_per_s",
        "session_duration_s/p50",
        "sessions_per_s",
        "sessions_completed",
        "turns_skipped",
        "requests_off_script",
        "goodput_per_s",
        "right_share",
        "right_per_s",
        "right_goodput_per_s",
        "requests_unparsed",
        "requests_ungraded",
        "requests_truncated",
        "error_rate",
        "cost_usd",
        "usd_per_million_output_tokens",
        "usd_per_thousand_right",
        "gpu/energy_j",
        "gpu/power_w",
        "gpu/joules_per_output_token",
        "gpu/joules_per_good_request",
        "gpu/joules_per_right_answer",
        "cpu/energy_j",
        "cpu/joules_per_output_token",
    )
    if capacity := branch(run.metrics, "capacity"):
        yield "capacity", capacity_headline(capacity)
    for name in names:
        metric = Metric(name)
        if name in run.values and (run.values[name] > 0 or (metric.unit != "USD" and name not in _OF_NOTE)):
            yield metric.label, metric.show(run.values[name]) + ("" if _carried(run, metric) else "*")
        if name == RIGHT and name in run.values:
            yield "… 95 % interval", _shares(run)
    judge = number(run.result.cost.judge, "usd")
    if judge:
        yield "judges", Metric("cost_usd").show(judge)
    if (kept := run.metrics.number("slo/attainment")) is not None:
        yield "service level", f"{'met' if run.metrics.flag('slo/met') else 'missed'}, {100 * kept:.1f} % good"
    elif (met := run.metrics.flag("slo/met")) is not None:
        yield "service level, of right answers", "met" if met else "missed"
    if too_few := run.result.right_shortfall:
        yield "service level, right answers", too_few


def _shares(run: Run) -> str:
    """Wilson's interval: `74.2–86.1 %`."""
    low, high = (100 * run.values[f"{RIGHT}_{end}"] for end in ("low", "high"))
    return f"{low:.1f}–{high:.1f} %"


def _carried(run: Run, metric: Metric) -> bool:
    return metric.percent is None or carries(int(run.values.get(f"{metric.base}/count", 0)), metric.statistic)


def _distributions(run: Run) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """Name and a cell for each of `COLUMNS`, with whether the sample carries it."""
    for base, spread in run.metrics.spreads.items():
        label = f"{Metric(base).label} (rough)" if run.result.rough(base) else Metric(base).label
        yield label, [_of_distribution(run, base, spread, name) for name in COLUMNS]


def _of_distribution(run: Run, base: str, spread: Spread, name: str) -> tuple[str, bool]:
    value = spread.get(name)
    if value is None:
        return "–", True
    if name == "count":
        return f"{value:,.0f}", True
    metric = Metric(f"{base}/{name}")
    shown = metric.show(value) if metric.unit == "s" else digits(value)
    return shown, _carried(run, metric)


def _errors(errors: Mapping[str, ErrorClass]) -> Iterator[tuple[str, int, str]]:
    for name, found in errors.items():
        yield name, found.count, next((example.message or "" for example in found.examples), "")


def _show(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return digits(value, 4)
    return str(value) if isinstance(value, str) else json.dumps(value, default=str)


def _probes(curve: Tree) -> list[dict[str, str]]:
    """What a capacity search saw, by rising load."""
    columns = [items(curve, name) for name in ("level", "probe", "passed", "attainment", "goodput_per_s", "why")]
    return [
        {
            "level": _show(level),
            "probe": str(probe),
            "kind": "met" if passed else "missed",
            "share": Metric("error_rate").show(number({"": share}, "")),
            "goodput": Metric("goodput_per_s").show(number({"": goodput}, "")),
            "why": str(why or ""),
        }
        for level, probe, passed, share, goodput, why in zip(*columns, strict=False)
    ]
